//! The open block of one-second sealing: what it shows is what will be.

use crate::support::*;
use alloy::{consensus::Header, eips::eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, rpc::types::TransactionRequest};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, hex, keccak256};
use proptest::prelude::*;
use std::{collections::HashMap, sync::Arc};
use switchyard_rollup_core::{
    Account, Admission, Applied, Driver, Sealing, TxOutcome,
    evm::{EvmChain, EvmError, ExecutedBlock, PendingBlock},
};
use switchyard_rollup_evm::EvmConfig;

const BLOCK_GAS: u64 = 700_000;
/// EIP-2935.
const HISTORY: Address = address!("0x0000F90827F1C53a10cb7A02335B175320002935");

fn configuration() -> EvmConfig {
    EvmConfig { genesis: genesis_with_gas_limit(BLOCK_GAS), ..config(Sealing::OneSecond) }
}

/// Applies the next hub block, `ms` milliseconds after genesis.
fn apply(rollup: &mut Rollup, ms: u64, transactions: Vec<Bytes>) -> Applied {
    let height = rollup.driver.next_hub_height();
    rollup.driver.apply(&hub_block_at(height, GENESIS_SECONDS * 1000 + ms, transactions)).unwrap()
}

fn pay(nonce: u64) -> Bytes {
    transfer(0, nonce, Address::repeat_byte(1), 1)
}

/// Keeps all that code can ask about its block, each answer in a slot of its own, and logs prevrandao.
const OBSERVER: [u8; 55] = hex!(
    "43 5f 55 42 6001 55 44 6002 55 48 6003 55 41 6005 55 45 6006 55 47 6008 55"
    "6001 43 03 40 6009 55 6002 43 03 40 600a 55 44 5f 52 6020 5f a0 5a 600b 55 00"
);

/// Something that a segment holds.
#[derive(Clone, Copy, Debug)]
enum Op {
    Pay,
    Observe,
    Store(u8),
    Revert,
    Junk,
    NonceGap,
    AboveTheGasLimit,
    /// Asks for most of a block and uses little of it.
    Roomy,
    /// Uses all the gas that it asks for.
    Burn,
    /// Leaves room for next to nothing beside it.
    FillABlock,
    MortalContract,
    TouchNothing,
    WithdrawalRequest,
    /// Once more what was sent so many transactions ago.
    Again(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Pay),
        3 => Just(Op::Observe),
        3 => any::<u8>().prop_map(Op::Store),
        1 => Just(Op::Revert),
        1 => Just(Op::Junk),
        1 => Just(Op::NonceGap),
        1 => Just(Op::AboveTheGasLimit),
        1 => Just(Op::Roomy),
        1 => Just(Op::Burn),
        1 => Just(Op::MortalContract),
        1 => Just(Op::TouchNothing),
        1 => Just(Op::WithdrawalRequest),
        1 => any::<u8>().prop_map(Op::Again),
    ]
}

/// Milliseconds since the hub block before, and what the segment holds: who sends it, and what.
type HubBlock = (u64, Vec<(u8, Op)>);

fn log() -> impl Strategy<Value = Vec<HubBlock>> {
    let step = prop_oneof![3 => 0..400u64, 1 => 400..1_200u64, 1 => 2_000..5_000u64];
    // More than may wait, and sometimes more than sixteen blocks take.
    let flood = proptest::collection::vec((0..5u8, Just(Op::FillABlock)), 6..32);
    let segment = prop_oneof![10 => proptest::collection::vec((0..5u8, op()), 0..7), 1 => flood];
    proptest::collection::vec((step, segment), 1..12)
}

/// Makes segments.
#[derive(Default)]
struct Script {
    nonces: [u64; 5],
    sent: Vec<Bytes>,
}

impl Script {
    fn contracts() -> [Address; 3] {
        [0, 1, 2].map(|nonce| wallet(9).address().create(nonce))
    }

    fn deployments() -> Vec<Bytes> {
        let endless = hex!("5b 5f 56");
        let codes: [&[u8]; 3] = [&STORE_RUNTIME, &OBSERVER, &endless];
        let deploy = |(nonce, code)| sign(9, tx(nonce, TxKind::Create, 0, init_code(code), 150_000));
        (0..).zip(codes).map(deploy).collect()
    }

    fn transaction(&mut self, i: u8, op: Op) -> Bytes {
        let [store, observer, endless] = Self::contracts();
        let nonce = self.nonces[usize::from(i)];
        let call = |to, input: Bytes, gas| sign(i, tx(nonce, TxKind::Call(to), 0, input, gas));
        let made = match op {
            Op::Pay => transfer(i, nonce, Address::repeat_byte(i + 1), 7),
            Op::Observe => call(observer, Bytes::new(), 400_000),
            Op::Store(value) => call(store, word(value.into()), 60_000),
            Op::Revert => call(store, Bytes::from_static(b"revert"), 60_000),
            Op::Junk => return Bytes::copy_from_slice(&[i; 9]),
            Op::NonceGap => return transfer(i, nonce + 5, Address::ZERO, 1),
            Op::AboveTheGasLimit => return call(store, Bytes::new(), BLOCK_GAS + 1),
            Op::Roomy => call(store, Bytes::new(), BLOCK_GAS - 60_000),
            Op::Burn => call(endless, Bytes::new(), 300_000),
            Op::FillABlock => call(endless, Bytes::new(), BLOCK_GAS - 60_000),
            Op::MortalContract => sign(i, tx(nonce, TxKind::Create, 7, hex!("6001 5f 55 33 ff").to_vec(), 100_000)),
            Op::TouchNothing => transfer(i, nonce, Address::repeat_byte(0xee), 0),
            Op::WithdrawalRequest => {
                let request = [&[0xab; 48][..], &1_000u64.to_be_bytes()].concat();
                sign(i, tx(nonce, TxKind::Call(WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS), 1, request, 200_000))
            }
            Op::Again(ago) => {
                let at = self.sent.len().saturating_sub(1 + usize::from(ago % 16));
                return self.sent.get(at).cloned().unwrap_or_default();
            }
        };
        self.nonces[usize::from(i)] += 1;
        made
    }

    fn segment(&mut self, ops: &[(u8, Op)]) -> Vec<Bytes> {
        let made: Vec<_> = ops.iter().map(|(i, op)| self.transaction(*i, *op)).collect();
        self.sent.extend(made.iter().cloned());
        made
    }
}

/// Accounts that the script can change.
fn accounts() -> Vec<Address> {
    let mut all: Vec<_> = (0..10).map(|i| wallet(i).address()).collect();
    all.extend((1..6).map(Address::repeat_byte));
    all.extend(Script::contracts());
    all.extend([COINBASE, HISTORY, Address::repeat_byte(0xee)]);
    all
}

/// The state after block `number`, which may be the open one: accounts, code, and slots of which any can be set.
type State = Vec<(Option<(u64, U256, B256)>, Bytes, Vec<U256>)>;

fn state(chain: &dyn EvmChain, number: u64) -> State {
    let slots = |address| {
        let slot = |n: u64| chain.storage(number, address, B256::from(U256::from(n))).unwrap();
        (0..12).chain(number.saturating_sub(2)..=number).map(slot).collect()
    };
    let read = |address: Address| {
        let account = chain.account(number, address).unwrap().map(|a| (a.nonce, a.balance, a.code_hash));
        (account, chain.code(number, address).unwrap(), slots(address))
    };
    accounts().into_iter().map(read).collect()
}

/// What execution can observe of a header.
fn environment(header: &Header) -> impl PartialEq + std::fmt::Debug {
    (
        (header.parent_hash, header.number, header.timestamp, header.mix_hash),
        (header.base_fee_per_gas, header.gas_limit, header.beneficiary, header.parent_beacon_block_root),
        (header.difficulty, header.blob_gas_used, header.excess_blob_gas),
    )
}

/// The open block is the beginning of the closed one.
fn check_prefix(open: &PendingBlock, closed: &ExecutedBlock) {
    assert_eq!(environment(&open.header), environment(&closed.header));
    assert!(!open.transactions.is_empty() && open.transactions.len() <= closed.transactions.len());
    let (mut gas, mut logs) = (0, 0);
    for (index, tx) in open.transactions.iter().enumerate() {
        assert_eq!((&tx.transaction, tx.sender), (&closed.transactions[index], closed.senders[index]));
        assert_eq!(tx.receipt, closed.receipts[index]);
        assert_eq!((tx.gas_used, tx.first_log), (closed.receipts[index].cumulative_gas_used() - gas, logs));
        gas += tx.gas_used;
        logs += tx.receipt.logs().len();
    }
    assert_eq!(open.header.gas_used, gas);
    if open.transactions.len() == closed.transactions.len() {
        assert_eq!(open.header.logs_bloom, closed.header.logs_bloom);
    }
}

/// Compares with a copy that closes the open block at once: every receipt, and the state that readers see.
fn check_against_a_copy(rollup: &Rollup, mut copy: Rollup, ms: u64) {
    let Some(open) = rollup.reader.pending() else { return };
    let number = open.header.number;
    apply(&mut copy, ms + 1_000_000, vec![]);
    let closed = copy.reader.block_by_number(number).unwrap().unwrap();
    assert_eq!(open.transactions.len(), closed.transactions.len());
    check_prefix(&open, &closed);
    assert_eq!(open.header.extra_data, closed.header.extra_data);
    assert_eq!(state(&*rollup.reader, number), state(&*copy.reader, number));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn what_the_open_block_shows_is_what_the_closed_block_holds_whatever_the_restarts(log in log()) {
        let mut rollup = Rollup::with_config(configuration());
        let mut restarted = Rollup::with_config(configuration());
        let mut script = Script::default();
        let mut ms = 1_000;
        apply(&mut rollup, ms, Script::deployments());
        apply(&mut restarted, ms, Script::deployments());
        let (mut shown, mut outcomes): (Vec<Arc<PendingBlock>>, HashMap<B256, TxOutcome>) = Default::default();
        for (step, ops) in log {
            ms += step;
            let segment = script.segment(&ops);
            let applied = apply(&mut rollup, ms, segment.clone());
            prop_assert_eq!(&apply(&mut restarted, ms, segment), &applied);
            let (again, copy) = restarted.reopen_and_copy();
            restarted = again;
            prop_assert_eq!(rollup.reader.pending(), restarted.reader.pending());
            // What was decided is told at once, and stays so.
            outcomes.extend(applied.outcomes);
            for (hash, outcome) in &outcomes {
                prop_assert_eq!(&rollup.reader.outcome(*hash).unwrap().unwrap(), outcome);
                prop_assert_eq!(&restarted.reader.outcome(*hash).unwrap().unwrap(), outcome);
            }
            check_against_a_copy(&rollup, copy, ms);
            shown.extend(rollup.reader.pending());
        }
        apply(&mut rollup, ms + 1_000_000, vec![]);
        apply(&mut restarted, ms + 1_000_000, vec![]);
        prop_assert_eq!(rollup.reader.pending(), None);
        prop_assert_eq!(rollup.hashes(), restarted.hashes());
        for open in shown {
            check_prefix(&open, &rollup.reader.block_by_number(open.header.number).unwrap().unwrap());
        }
        for tx in &script.sent {
            prop_assert!(rollup.reader.outcome(keccak256(tx)).unwrap().is_some(), "everything is decided in the end");
        }
    }
}

#[test]
fn a_receipt_is_there_after_the_hub_block_that_carried_the_transaction() {
    let mut rollup = Rollup::with_config(configuration());
    let mut changes = rollup.reader.subscribe_pending();
    let applied = apply(&mut rollup, 1_000, vec![pay(0)]);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let executed = TxOutcome::Executed { block: 1, index: 0, success: true };
    assert_eq!(applied.outcomes, [(keccak256(pay(0)), executed.clone())]);
    assert_eq!((applied.senders, applied.executed_to), (vec![wallet(0).address()], 1));
    assert_eq!(rollup.reader.pending_outcome(keccak256(pay(0))), Some(executed.clone()));
    assert_eq!(rollup.outcome(&pay(0)), executed);
    assert_eq!(rollup.reader.locate(keccak256(pay(0))).unwrap(), Some((1, 0)));
    let open = rollup.reader.pending().unwrap();
    assert_eq!((open.header.number, open.transactions.len(), open.transactions[0].gas_used), (1, 1, 21_000));
    // No block has that number yet, and none is announced.
    assert_eq!(rollup.reader.head().header.number, 0);
    assert_eq!(rollup.reader.block_by_number(1).unwrap(), None);
    assert_eq!(rollup.reader.header(1).unwrap(), None);

    apply(&mut rollup, 1_500, vec![pay(1)]);
    assert!(changes.has_changed().unwrap());
    let grown = rollup.reader.pending().unwrap();
    assert!(Arc::ptr_eq(&grown.transactions[0], &open.transactions[0]), "nothing is executed or copied again");
    assert_eq!((grown.transactions.len(), open.transactions.len()), (2, 1));
    changes.mark_unchanged();
    apply(&mut rollup, 1_600, vec![]);
    assert!(!changes.has_changed().unwrap() && Arc::ptr_eq(&rollup.reader.pending().unwrap(), &grown));
    apply(&mut rollup, 2_000, vec![]);
    assert!(changes.has_changed().unwrap());
    assert_eq!(rollup.reader.pending(), None);
    assert_eq!(rollup.outcome(&pay(0)), executed);
}

#[test]
fn admission_and_calls_see_the_open_block() {
    let mut rollup = Rollup::with_config(configuration());
    let (sender, receiver) = (wallet(0).address(), Address::repeat_byte(1));
    let (deploy, store) = deploy_store(1, 0);
    let set = sign(1, tx(1, TxKind::Call(store), 0, word(42), 100_000));
    apply(&mut rollup, 1_000, vec![pay(0), deploy, set]);
    let account = Admission::account(&*rollup.reader, sender).unwrap();
    assert_eq!(account.nonce, 1, "a wallet may go on with the next nonce");
    assert!(account.balance < U256::from(1_000 * ETHER));
    assert_eq!(Admission::account(&*rollup.reader, receiver).unwrap(), Account { nonce: 0, balance: U256::from(1) });
    let read = TransactionRequest::default().to(store);
    assert_eq!(rollup.reader.call(1, read.clone(), None), Ok(word(42)));
    assert_eq!(rollup.reader.call(0, read.clone(), None), Ok(Bytes::new()));
    assert!(rollup.reader.estimate_gas(1, read.clone(), None).unwrap() > 21_000);
    assert_eq!(rollup.reader.call(2, read, None), Err(EvmError::NoState(2)));
    assert_eq!(rollup.reader.proof(1, sender, &[]).err(), Some(EvmError::NoState(1)));
    assert_eq!(EvmChain::account(&*rollup.reader, 0, sender).unwrap().unwrap().nonce, 0);
}

#[test]
fn what_does_not_fit_is_not_shown_and_a_smaller_one_does_not_overtake_it() {
    let mut rollup = Rollup::with_config(configuration());
    let large = sign(1, tx(0, TxKind::Call(Address::ZERO), 0, Bytes::new(), BLOCK_GAS - 20_000));
    apply(&mut rollup, 1_000, vec![pay(0)]);
    let applied = apply(&mut rollup, 1_100, vec![pay(1), large.clone()]);
    assert_eq!((applied.outcomes.len(), applied.executed_to), (1, 1));
    assert_eq!(rollup.reader.outcome(keccak256(&large)).unwrap(), None);
    let applied = apply(&mut rollup, 1_200, vec![pay(2)]);
    assert_eq!((applied.outcomes.len(), applied.executed_to), (0, 1));
    assert_eq!(rollup.reader.pending().unwrap().transactions.len(), 2);
    let applied = apply(&mut rollup, 2_100, vec![]);
    assert_eq!((applied.outcomes.len(), applied.executed_to), (2, 4));
    assert_eq!(rollup.outcome(&large), TxOutcome::Executed { block: 2, index: 0, success: true });
    assert_eq!(rollup.reader.pending().unwrap().transactions.len(), 2);
}

#[test]
fn an_open_block_in_which_all_was_skipped_is_no_block_but_its_outcomes_are_told() {
    let mut rollup = Rollup::with_config(configuration());
    apply(&mut rollup, 1_000, vec![pay(7)]);
    assert!(matches!(rollup.outcome(&pay(7)), TxOutcome::Skipped { .. }));
    assert_eq!(rollup.reader.pending(), None);
    assert_eq!(EvmChain::account(&*rollup.reader, 1, wallet(0).address()).err(), Some(EvmError::NoState(1)));
    let rollup = rollup.reopen();
    assert!(matches!(rollup.outcome(&pay(7)), TxOutcome::Skipped { .. }));
    let mut rollup = rollup;
    apply(&mut rollup, 9_000, vec![]);
    assert_eq!(rollup.reader.head().header.number, 0);
    assert!(matches!(rollup.outcome(&pay(7)), TxOutcome::Skipped { .. }));
}

#[test]
fn with_a_block_for_each_hub_block_none_is_open() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let changes = rollup.reader.subscribe_pending();
    rollup.apply(vec![pay(0)]);
    assert_eq!((rollup.reader.pending(), changes.has_changed().unwrap()), (None, false));
    assert_eq!(rollup.reader.pending_outcome(keccak256(pay(0))), None);
}
