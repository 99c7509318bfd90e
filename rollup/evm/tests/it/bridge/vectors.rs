//! A log of protocol version 3: roots of the hub's accumulator, messages both ways, bundles. Kept with the blocks and
//! checkpoints that both sealings make of it, and replayed by `tests/ethereumjs/run.sh`.

use super::*;
use crate::vectors::Vectors;
use switchyard_bridge_contracts::interoperable_address;
use switchyard_bridge_core::{Deposit, Message, MessageKind};

/// Makes hub blocks two seconds apart, so that both sealings give their blocks the same timestamps.
struct Script {
    hub: Hub,
    second: u64,
    nonces: [u64; 10],
    segment: Vec<Bytes>,
    legs: Vec<LegAt>,
    deposits: Vec<(u64, Deposit)>,
    deposited: u64,
    log: Vec<SegmentInput>,
}

impl Script {
    fn send(&mut self, i: u8, to: Address, value: u128, input: impl Into<Bytes>) {
        let nonce = &mut self.nonces[usize::from(i)];
        *nonce += 1;
        self.segment.push(send(A, i, *nonce - 1, to, value, input));
    }

    /// The last transaction is a leg.
    fn is_leg(&mut self, bundle: &Bundle, leg: u8) {
        let tx = keccak256(self.segment.last().unwrap());
        self.legs.push(LegAt { bundle: bundle.id(), leg, tx });
    }

    fn deposit(&mut self, recipient: Address, gwei: u64) {
        self.deposits.push((self.deposited, Deposit { recipient, gwei }));
        self.deposited += 1;
    }

    fn hub_block(&mut self) {
        let (transactions, legs) = (std::mem::take(&mut self.segment), std::mem::take(&mut self.legs));
        let deposits = std::mem::take(&mut self.deposits);
        let input = hub_block_at(self.log.len() as u64 + 1, self.second * 1000, transactions);
        self.log.push(SegmentInput { hub_root: self.hub.root(), legs, deposits, ..input });
        self.second += 2;
    }

    /// The hub goes on, and ends another block within the same second.
    fn and_another_of_this_second(&mut self) {
        self.hub.append(HubLeaf::Release { bundle: self.hub.root(), rollup: B.0, leg: 0 });
        self.second -= 2;
    }

    /// A proof for the block that is being made.
    fn proof(&self, leaf: u64) -> HubContract::HubProof {
        self.hub.proof_now(leaf, at_second(self.second))
    }
}

fn log() -> Vec<SegmentInput> {
    let mut script = Script {
        hub: Hub::new(),
        second: GENESIS_SECONDS + 2,
        nonces: [0; 10],
        segment: vec![],
        legs: vec![],
        deposits: vec![],
        deposited: 0,
        log: vec![],
    };
    script.nonces[0] = 1;
    script.segment.push(register(&script.hub, A, 0, script.second));
    script.hub_block();
    sends(&mut script);
    receives(&mut script);
    bundles(&mut script);
    deposits(&mut script);
    // With a block a second they are one, with the root of the first.
    for i in 0..4 {
        let recipient = interoperable_address(B.1, Address::repeat_byte(7));
        let call = Outbox::sendMessageCall { recipient, payload: Bytes::new(), attributes: vec![] };
        script.send(i, OUTBOX, 1, call.abi_encode());
        script.hub_block();
        script.and_another_of_this_second();
    }
    script.second += 2;
    // Empty blocks have the newest root too.
    script.second += 30;
    script.hub.append(HubLeaf::Release { bundle: B256::repeat_byte(9), rollup: B.0, leg: 1 });
    script.hub_block();
    script.hub_block();
    script.log
}

fn sends(script: &mut Script) {
    for i in 0..5u8 {
        let recipient = interoperable_address(B.1, Address::repeat_byte(i + 1));
        let payload = Bytes::from(vec![i; usize::from(i) * 40]);
        let call = Outbox::sendMessageCall { recipient, payload, attributes: vec![] };
        script.send(i, OUTBOX, u128::from(i) * 7, call.abi_encode());
        if i % 2 == 1 {
            script.hub_block();
        }
    }
    script.hub_block();
}

/// Coin from B, whose outbox is made by hand; a second delivery of it reverts.
fn receives(script: &mut Script) {
    let message = Message {
        kind: MessageKind::Transfer,
        source: B.0,
        source_chain: B.1,
        destination: A.0,
        destination_chain: A.1,
        index: 0,
        previous: 0,
        deadline: u64::MAX,
        gas_limit: 0,
        sender: Address::repeat_byte(3).into_word(),
        recipient: Address::repeat_byte(4).into_word(),
        refund: Address::repeat_byte(3).into_word(),
        value: 123,
        received: 0,
        payload_hash: keccak256([]),
    };
    let mut outbox = Accumulator::default();
    outbox.append(message.id(), |_, _| ()).unwrap();
    let checkpoint = Checkpoint {
        rollup: B.0,
        number: 5,
        hub_height: 4,
        block_hash: B256::repeat_byte(1),
        state_root: B256::repeat_byte(2),
        outbox_root: outbox.root(),
        votes_root: B256::ZERO,
    };
    let leaf = script.hub.append(HubLeaf::Checkpoint(checkpoint));
    let prove = HubContract::proveCheckpointCall { checkpoint: (&checkpoint).into(), proof: script.proof(leaf) };
    script.send(5, HUB, 0, prove.abi_encode());
    let proof = Inbox::MessageProof { count: 1, path: vec![] };
    let deliver = Inbox::deliverCall { message: (&message).into(), payload: Bytes::new(), proof, gasLimit: U256::ZERO };
    script.send(5, INBOX, 0, deliver.abi_encode());
    script.send(6, INBOX, 0, deliver.abi_encode());
    script.hub_block();
}

/// A bundle that is committed; one with a leg that no block executes; a leg alone.
fn bundles(script: &mut Script) {
    let (bundle, legs) = super::bundle([1, 2], 1);
    for (index, leg) in (0..).zip(&legs) {
        script.send(index + 1, ATOMIC_VAULT, 5, prepare(&bundle, index, leg));
        script.is_leg(&bundle, index);
    }
    let (alone, others) = super::bundle([3, 4], 2);
    script.send(3, ATOMIC_VAULT, 5, prepare(&alone, 0, &others[0]));
    script.hub_block();
    script.segment.push(Bytes::from_static(b"no transaction"));
    script.is_leg(&alone, 1);
    script.hub_block();
    let leaf = script.hub.append(HubLeaf::Decision { bundle: bundle.id(), committed: true, height: 9 });
    for (index, leg) in (0..).zip(&legs) {
        let settle = AtomicVault::settleCall {
            bundle: (&bundle).into(),
            index,
            leg: leg.into(),
            decision: 1,
            height: 9,
            proof: vault_proof(script.proof(leaf)),
            items: 1,
        };
        script.send(7, ATOMIC_VAULT, 0, settle.abi_encode());
    }
    script.hub_block();
}

/// With transactions of the same hub block, one of which moves what was there before; with none; beside one that is no transaction; and
/// for an account that is spent from afterwards.
fn deposits(script: &mut Script) {
    script.deposit(Address::repeat_byte(0x51), 5);
    script.deposit(Address::repeat_byte(0x51), 1);
    script.deposit(wallet(1).address(), u64::MAX);
    script.send(1, Address::repeat_byte(0x52), 1, Bytes::new());
    script.hub_block();
    script.deposit(Address::repeat_byte(0x52), 7);
    script.hub_block();
    script.deposit(ATOMIC_VAULT, 9);
    script.segment.push(Bytes::from_static(b"no transaction"));
    script.hub_block();
    script.send(1, Address::repeat_byte(0x53), 10u128.pow(9) * u128::from(u64::MAX), Bytes::new());
    script.hub_block();
}

/// Each contract's ABI has a struct of its own.
fn vault_proof(proof: HubContract::HubProof) -> AtomicVault::HubProof {
    let HubContract::HubProof { anchor, index, count, path } = proof;
    AtomicVault::HubProof { anchor, index, count, path }
}

#[test]
fn the_same_log_gives_the_blocks_and_checkpoints_that_were_published() {
    let config = bridge_config(A, Sealing::HubBlock, GAS_LIMIT);
    let genesis = config.genesis.clone();
    let log = log();
    let mut rollup = Rollup::with_config(config.clone());
    log.iter().for_each(|input| drop(rollup.driver.apply(input).unwrap()));
    // The log does what it is meant to do.
    assert_eq!(rollup.balance(rollup.reader.head().header.number, Address::repeat_byte(4)), U256::from(123));
    assert_eq!(rollup.balance(rollup.reader.head().header.number, Address::repeat_byte(0x77)), U256::from(10));
    assert_eq!(rollup.reader.outbox_count(), 9);
    let gwei = U256::from(10u64.pow(9));
    let newest = rollup.reader.head().header.number;
    assert_eq!(rollup.balance(newest, Address::repeat_byte(0x51)), gwei * U256::from(6));
    assert_eq!(rollup.balance(newest, Address::repeat_byte(0x52)), gwei * U256::from(7) + U256::from(1));
    assert_eq!(rollup.balance(newest, Address::repeat_byte(0x53)), gwei * U256::from(u64::MAX));
    Vectors::derive(config, genesis, log, true).check("bridge.json");
}
