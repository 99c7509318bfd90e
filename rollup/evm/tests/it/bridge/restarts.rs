//! Any log with messages, bundles and roots gives the same checkpoints, messages and proofs, whatever the restarts.

use super::*;
use alloy::sol_types::SolEvent;
use proptest::prelude::*;
use std::collections::HashMap;
use switchyard_bridge_contracts::{AtomicVault::Prepared, interoperable_address};
use switchyard_bridge_core::{Ballot, Deposit, Vote, votes_root};
use switchyard_rollup_core::{
    TxOutcome,
    evm::{Attestable, EvmError},
};
use switchyard_rollup_evm::snapshot::restore;

/// A few of the contracts' calls fill a block.
const BLOCK_GAS: u64 = 1_500_000;

/// Something that a segment holds.
#[derive(Clone, Copy, Debug)]
enum Op {
    Pay,
    /// A message with so many bytes of payload and so much coin.
    Message(u8, u8),
    /// Uses all the gas that it asks for: most of a block.
    Burn,
    /// A bundle's leg that does what it should.
    Leg,
    /// One that reverts.
    BadLeg,
    /// One whose transaction no block can execute.
    GapLeg,
    /// One whose transaction is none.
    JunkLeg,
    /// One whose transaction is not in the segment.
    MissingLeg,
    /// A leg that comes without its bundle.
    Stray,
    /// So much coin from outside, for somebody.
    Deposit(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Pay),
        4 => (0..70u8, 0..3u8).prop_map(|(bytes, value)| Op::Message(bytes, value)),
        1 => Just(Op::Burn),
        4 => Just(Op::Leg),
        1 => Just(Op::BadLeg),
        1 => Just(Op::GapLeg),
        1 => Just(Op::JunkLeg),
        1 => Just(Op::MissingLeg),
        2 => Just(Op::Stray),
        3 => (1..9u64).prop_map(Op::Deposit),
    ]
}

/// Milliseconds since the hub block before, and what the segment holds.
fn log() -> impl Strategy<Value = Vec<(u64, Vec<Op>)>> {
    let step = prop_oneof![4 => 0..400u64, 2 => 400..1_500u64, 1 => 2_000..15_000u64];
    proptest::collection::vec((step, proptest::collection::vec(op(), 0..6)), 1..14)
}

/// Makes hub blocks of ops.
struct Script {
    nonce: u64,
    made: u64,
    deposited: u64,
    ms: u64,
    inputs: Vec<SegmentInput>,
}

impl Script {
    /// The first hub block registers rollup B, so that there is somebody to send to.
    fn new() -> Self {
        let hub = Hub::new();
        let first = vec![register(&hub, A, 0, GENESIS_SECONDS + 1)];
        let first = hub_block_at(1, (GENESIS_SECONDS + 1) * 1000, first);
        Self {
            nonce: 1,
            made: 0,
            deposited: 0,
            ms: 1_000,
            inputs: vec![SegmentInput { hub_root: hub.root(), ..first }],
        }
    }

    fn send(&mut self, to: Address, value: u128, input: Vec<u8>) -> Bytes {
        self.nonce += 1;
        send(A, 0, self.nonce - 1, to, value, input)
    }

    fn transaction(&mut self, op: Op) -> (Option<Bytes>, Option<LegAt>) {
        self.made += 1;
        let (bundle, legs) = bundle([0, 1], self.made);
        let input = prepare(&bundle, 0, &legs[0]);
        let tx = match op {
            Op::Pay => self.send(Address::repeat_byte(1), 1, vec![]),
            Op::Message(bytes, value) => {
                let recipient = interoperable_address(B.1, Address::repeat_byte(2));
                let payload = Bytes::from(vec![bytes; bytes.into()]);
                let call = Outbox::sendMessageCall { recipient, payload, attributes: vec![] };
                self.send(OUTBOX, value.into(), call.abi_encode())
            }
            // Code that is one invalid instruction.
            Op::Burn => {
                self.nonce += 1;
                sign(0, tx(self.nonce - 1, TxKind::Create, 0, vec![0xfe], BLOCK_GAS - 200_000))
            }
            Op::Leg | Op::Stray => self.send(ATOMIC_VAULT, 5, input),
            Op::BadLeg => self.send(ATOMIC_VAULT, 4, input),
            Op::GapLeg | Op::MissingLeg => send(A, 0, self.nonce + 9, ATOMIC_VAULT, 5, input),
            Op::Deposit(_) => unreachable!("no transaction"),
            Op::JunkLeg => Bytes::copy_from_slice(&[&[1; 9][..], &self.made.to_be_bytes()].concat()),
        };
        let is_leg = matches!(op, Op::Leg | Op::BadLeg | Op::GapLeg | Op::JunkLeg | Op::MissingLeg);
        let leg = is_leg.then(|| LegAt { bundle: bundle.id(), leg: 0, tx: keccak256(&tx) });
        (Some(tx).filter(|_| !matches!(op, Op::MissingLeg)), leg)
    }

    fn hub_block(&mut self, step: u64, ops: &[Op]) -> SegmentInput {
        self.ms += step;
        let height = self.inputs.len() as u64 + 1;
        let mut deposits = Vec::new();
        let mut others = Vec::new();
        for op in ops {
            if let Op::Deposit(gwei) = *op {
                deposits.push((self.deposited, Deposit { recipient: Address::repeat_byte(0xd0), gwei }));
                self.deposited += 1;
            } else {
                others.push(self.transaction(*op));
            }
        }
        let (txs, legs): (Vec<_>, Vec<_>) = others.into_iter().unzip();
        let transactions = txs.into_iter().flatten().collect();
        let input = hub_block_at(height, GENESIS_SECONDS * 1000 + self.ms, transactions);
        let legs = legs.into_iter().flatten().collect();
        let input = SegmentInput { hub_root: keccak256(height.to_le_bytes()), legs, deposits, ..input };
        self.inputs.push(input.clone());
        input
    }

    /// The height of the hub block that opened a rollup block.
    fn opener(&self, mix_hash: B256) -> &SegmentInput {
        let mix = |input: &SegmentInput| keccak256([input.hub_hash.as_slice(), &A.0.0.to_be_bytes()].concat());
        self.inputs.iter().find(|input| mix(input) == mix_hash).unwrap()
    }
}

fn prepared(chain: &dyn EvmChain, number: u64) -> Vec<(usize, B256, u8)> {
    let block = chain.block_by_number(number).unwrap().unwrap();
    let logs =
        block.receipts.iter().enumerate().flat_map(|(i, receipt)| receipt.logs().iter().map(move |log| (i, log)));
    let of_vault = logs.filter(|(_, log)| log.address == ATOMIC_VAULT);
    of_vault.filter_map(|(i, log)| Prepared::decode_log(log).ok().map(|event| (i, event.id, event.leg))).collect()
}

/// What the checkpoints of all blocks must say, told from blocks and outcomes alone.
fn check_checkpoints(chain: &dyn EvmChain, script: &Script, applied: &[Checkpoint]) {
    let head = chain.head().header.number;
    assert_eq!(applied.len() as u64, head);
    let mut cast: HashMap<(B256, u8), Vec<(u64, Ballot)>> = HashMap::new();
    let (mut strays, mut prepares) = (0, 0);
    for (number, checkpoint) in (1..).zip(applied) {
        let Attestable { checkpoint: kept, votes } = chain.checkpoint(number).unwrap().unwrap();
        assert_eq!((kept, kept.votes_root), (*checkpoint, votes_root(&votes)));
        let block = chain.block_by_number(number).unwrap().unwrap();
        assert_eq!((kept.number, kept.block_hash, kept.hub_height), (number, block.hash, block.hub_height));
        assert_eq!((kept.rollup, kept.state_root), (A.0, block.header.state_root));
        assert_eq!(kept.outbox_root, outbox_root(chain, number));
        let opener = script.opener(block.header.mix_hash);
        assert_eq!(block.header.parent_beacon_block_root, Some(opener.hub_root));
        prepares += prepared(chain, number).len();
        let first_stray = votes.iter().position(|vote| vote.ballot == Ballot::Stray).unwrap_or(votes.len());
        for (i, Vote { bundle, leg, ballot }) in votes.into_iter().enumerate() {
            assert_eq!(ballot == Ballot::Stray, i >= first_stray, "legs come before strays");
            strays += usize::from(ballot == Ballot::Stray);
            cast.entry((bundle, leg)).or_default().push((number, ballot));
        }
    }
    let mut yes = 0;
    for (leg, input) in script.inputs.iter().flat_map(|input| input.legs.iter().map(move |leg| (leg, input))) {
        let votes = cast.remove(&(leg.bundle, leg.leg)).unwrap_or_default();
        let [(number, ballot)] = votes[..] else { panic!("{leg:?} has votes {votes:?}") };
        let was_prepared = match chain.outcome(leg.tx).unwrap() {
            Some(TxOutcome::Executed { block, index, .. }) => {
                assert_eq!(block, number);
                prepared(chain, block).contains(&(index as usize, leg.bundle, leg.leg))
            }
            _ => false,
        };
        assert_eq!(ballot, if was_prepared { Ballot::Yes } else { Ballot::No });
        assert!(input.hub_height <= applied[number as usize - 1].hub_height);
        yes += usize::from(was_prepared);
    }
    assert_eq!(strays, prepares - yes);
    assert!(cast.into_values().flatten().all(|(_, ballot)| ballot == Ballot::Stray));
}

/// Each deposit is in the first block that ends with its hub block or a later one, in order; and it is all that its recipient has.
fn check_deposits(chain: &dyn EvmChain, script: &Script) {
    let mut left = script.inputs.iter().flat_map(|i| i.deposits.iter().map(|d| (i.hub_height, *d))).peekable();
    let mut sum = 0;
    for number in 1..=chain.head().header.number {
        let block = chain.block_by_number(number).unwrap().unwrap();
        for withdrawal in &block.withdrawals {
            let (_, (index, Deposit { recipient, gwei })) = left.next().unwrap();
            assert_eq!((withdrawal.index, withdrawal.address, withdrawal.amount), (index, recipient, gwei));
            sum += gwei;
        }
        assert!(left.peek().is_none_or(|(hub_height, _)| *hub_height > block.hub_height));
    }
    assert_eq!(left.next(), None);
    let account = chain.account(chain.head().header.number, Address::repeat_byte(0xd0)).unwrap();
    let gwei = U256::from(10u64.pow(9));
    assert_eq!(account.map_or(U256::ZERO, |account| account.balance), U256::from(sum) * gwei);
}

/// Each message is proven against each checkpoint since it was sent.
fn check_messages(chain: &dyn EvmChain, applied: &[Checkpoint], first: u64) {
    let count = chain.outbox_count();
    for index in first..count {
        let sent = chain.sent(index).unwrap().unwrap();
        assert_eq!(chain.sent_by_id(sent.message.id()).unwrap().as_ref(), Some(&sent));
        for count in index + 1..=count {
            let path = chain.outbox_path(index, count).unwrap().unwrap();
            let root = seal(count, merkle::root_from_path(sent.message.id(), index, count, &path).unwrap());
            let of_its_block = |checkpoint: &&Checkpoint| checkpoint.outbox_root == root;
            if let Some(checkpoint) = applied.iter().find(of_its_block) {
                assert!(checkpoint.number >= sent.block);
            } else {
                // Others of the same block came after.
                assert!(count < chain.outbox_count());
            }
        }
    }
    if let (Some(last), true) = (applied.last(), count > first) {
        let sent = chain.sent(count - 1).unwrap().unwrap();
        assert_sent(chain, &sent, count, last);
    }
    assert_eq!(chain.sent(count).unwrap(), None);
}

/// Goes on from a snapshot of `rollup`, with what the hub has sent since. None while there can be none.
fn from_snapshot(rollup: &Rollup, inputs: &[SegmentInput], config: &EvmConfig) -> Option<(Rollup, u64)> {
    let mut bytes = Vec::new();
    match rollup.reader.write_snapshot(&mut bytes) {
        Err(EvmError::Busy(_)) => return None,
        other => other.unwrap(),
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("rollup");
    let info = restore(&at, config, rollup.reader.head().hash, &mut &bytes[..]).unwrap();
    let mut restored = Rollup::at(folder, at, config.clone());
    assert_eq!(restored.driver.next_hub_height(), info.next_hub_height);
    for input in &inputs[info.next_hub_height as usize - 1..] {
        restored.driver.apply(input).unwrap();
    }
    Some((restored, info.number))
}

fn same_from(a: &dyn EvmChain, b: &dyn EvmChain, number: u64) {
    assert_eq!((a.head(), a.pending(), a.outbox_count()), (b.head(), b.pending(), b.outbox_count()));
    for number in number..=a.head().header.number {
        assert_eq!(a.checkpoint(number).unwrap(), b.checkpoint(number).unwrap(), "block {number}");
    }
}

fn check(sealing: Sealing, log: Vec<(u64, Vec<Op>)>, snapshot_at: usize) {
    let config = bridge_config(A, sealing, BLOCK_GAS);
    let mut rollup = Rollup::with_config(config.clone());
    let mut restarted = Rollup::with_config(config.clone());
    let mut script = Script::new();
    let mut checkpoints = rollup.driver.apply(&script.inputs[0]).unwrap().checkpoints;
    restarted.driver.apply(&script.inputs[0]).unwrap();
    let (mut restored, snapshot_at) = (None, snapshot_at % log.len());
    // In the end all that waits is in blocks.
    let end = [(20_000, vec![]), (20_000, vec![]), (20_000, vec![])];
    for (at, (step, ops)) in log.into_iter().chain(end).enumerate() {
        let input = script.hub_block(step, &ops);
        let applied = rollup.driver.apply(&input).unwrap();
        assert_eq!(restarted.driver.apply(&input).unwrap(), applied);
        restarted = restarted.reopen();
        same_from(&*rollup.reader, &*restarted.reader, rollup.reader.head().header.number.saturating_sub(3));
        checkpoints.extend(applied.checkpoints);
        if let Some((restored, _)) = &mut restored {
            let restored: &mut Rollup = restored;
            restored.driver.apply(&input).unwrap();
        } else if at >= snapshot_at {
            restored = from_snapshot(&rollup, &script.inputs, &config);
        }
    }
    check_checkpoints(&*rollup.reader, &script, &checkpoints);
    check_deposits(&*rollup.reader, &script);
    check_messages(&*rollup.reader, &checkpoints, 0);
    same_from(&*rollup.reader, &*restarted.reader, 0);
    for index in 0..rollup.reader.outbox_count() {
        assert_eq!(restarted.reader.sent(index).unwrap(), rollup.reader.sent(index).unwrap());
        for count in index + 1..=rollup.reader.outbox_count() {
            let of = |rollup: &Rollup| rollup.reader.outbox_path(index, count).unwrap().unwrap();
            assert_eq!(of(&restarted), of(&rollup));
        }
    }
    let (restored, base) = restored.expect("a snapshot at the latest when nothing waits");
    same_from(&*rollup.reader, &*restored.reader, base + 1);
    let count_at = |number| match number {
        0 => 0,
        _ => (0..rollup.reader.outbox_count())
            .filter(|i| rollup.reader.sent(*i).unwrap().unwrap().block <= number)
            .count(),
    };
    let first = count_at(base) as u64;
    check_messages(&*restored.reader, &checkpoints[base as usize..], first);
    for index in 0..first {
        assert_eq!(restored.reader.sent(index).unwrap(), None);
        assert_eq!(restored.reader.outbox_path(index, rollup.reader.outbox_count()).unwrap(), None);
    }
    assert_eq!(restored.reader.checkpoint(base).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn checkpoints_messages_and_proofs_are_the_same_whatever_the_restarts(
        log in log(), snapshot_at: usize, one_second: bool,
    ) {
        check(if one_second { Sealing::OneSecond } else { Sealing::HubBlock }, log, snapshot_at);
    }
}

#[test]
fn a_crash_after_any_hub_block_loses_no_vote_no_message_and_no_deposit() {
    for sealing in [Sealing::HubBlock, Sealing::OneSecond] {
        let config = bridge_config(A, sealing, BLOCK_GAS);
        let mut rollup = Rollup::with_config(config.clone());
        let mut script = Script::new();
        let ops = [
            Op::Leg,
            Op::Message(9, 1),
            Op::JunkLeg,
            Op::Stray,
            Op::Burn,
            Op::Deposit(3),
            Op::GapLeg,
            Op::Message(3, 0),
            Op::Leg,
            Op::Deposit(5),
        ];
        for (i, ops) in ops.chunks(2).cycle().take(10).enumerate() {
            script.hub_block([300, 0, 900, 2_500][i % 4], ops);
        }
        script.hub_block(20_000, &[]);
        script.hub_block(20_000, &[]);
        let mut images = Vec::new();
        for input in &script.inputs {
            rollup.driver.apply(input).unwrap();
            images.push(rollup.image());
        }
        for (applied, image) in (1..).zip(images) {
            let mut crashed = Rollup::from_image(image, config.clone());
            script.inputs[applied..].iter().for_each(|input| drop(crashed.driver.apply(input).unwrap()));
            same_from(&*rollup.reader, &*crashed.reader, 0);
            check_deposits(&*crashed.reader, &script);
            let sent =
                |of: &Rollup| (0..of.reader.outbox_count()).map(|i| of.reader.sent(i).unwrap()).collect::<Vec<_>>();
            assert_eq!(sent(&crashed), sent(&rollup));
        }
    }
}
