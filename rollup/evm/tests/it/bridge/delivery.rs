//! The whole way of messages between two rollups, with a hub made by hand.

use super::*;
use alloy::{
    eips::eip4788::BEACON_ROOTS_ADDRESS,
    rpc::types::TransactionRequest,
    sol_types::{SolError, SolValue},
};
use alloy_primitives::hex;
use switchyard_bridge_contracts::{IMessageAttributes, interoperable_address};
use switchyard_bridge_core::{Message, MessageKind};
use switchyard_rollup_core::{TxOutcome, evm::EvmError};

/// Answers each call with its selector, as a recipient of messages does.
const AGREEABLE: [u8; 15] = hex!("5f 35 60e0 1c 60e0 1b 5f 52 6020 5f f3 00");
const BOB: Address = Address::repeat_byte(0xb0);

/// Two rollups and a hub whose blocks are two seconds apart.
struct Network {
    hub: Hub,
    a: Rollup,
    b: Rollup,
    nonces: [u64; 2],
    second: u64,
    sealing: Sealing,
}

impl Network {
    fn new(sealing: Sealing) -> Self {
        let rollup = |of| Rollup::with_config(bridge_config(of, sealing, GAS_LIMIT));
        let mut network =
            Self { hub: Hub::new(), a: rollup(A), b: rollup(B), nonces: [0; 2], second: GENESIS_SECONDS, sealing };
        let second = network.next_second();
        let registrations = [A, B].map(|of| vec![register(&network.hub, of, 0, second)]);
        network.nonces = [1; 2];
        network.run(registrations);
        network
    }

    /// Timestamp of the blocks that the next [`Self::run`] makes.
    fn next_second(&self) -> u64 {
        self.second + 2
    }

    /// The next transaction of wallet 0.
    fn tx(&mut self, on: (RollupId, u64), to: Address, value: u128, input: Vec<u8>) -> Bytes {
        let nonce = &mut self.nonces[usize::from(on == B)];
        *nonce += 1;
        send(on, 0, *nonce - 1, to, value, input)
    }

    /// A hub block with these segments, of which the rollups' blocks are closed when this returns; their checkpoints.
    fn run(&mut self, segments: [Vec<Bytes>; 2]) -> [Vec<Checkpoint>; 2] {
        let mut checkpoints = [vec![], vec![]];
        let mut segments = Some(segments);
        let steps = if self.sealing == Sealing::OneSecond { 2 } else { 1 };
        for _ in 0..steps {
            self.second += 2;
            let (ms, root) = ((self.second - GENESIS_SECONDS) * 1000, self.hub.root());
            let now = segments.take().unwrap_or_default();
            for ((rollup, segment), made) in [&mut self.a, &mut self.b].into_iter().zip(now).zip(&mut checkpoints) {
                made.extend(next(rollup, ms, root, segment, vec![]).checkpoints);
            }
        }
        checkpoints
    }

    /// As [`Self::run`] on one rollup: the checkpoint of the block that it makes.
    fn run_on(&mut self, on: (RollupId, u64), segment: Vec<Bytes>) -> Checkpoint {
        let segments = if on == A { [segment, vec![]] } else { [vec![], segment] };
        let [a, b] = self.run(segments);
        *(if on == A { a } else { b }).last().unwrap()
    }

    fn chain(&self, on: (RollupId, u64)) -> &dyn EvmChain {
        if on == A { &*self.a.reader } else { &*self.b.reader }
    }

    /// The newest checkpoint is certified: shows it to `on`, with deliveries of these messages of `from` behind it.
    fn deliver(
        &mut self,
        from: (RollupId, u64),
        on: (RollupId, u64),
        certified: Checkpoint,
        indices: &[u64],
    ) -> Vec<Bytes> {
        let leaf = self.hub.append(HubLeaf::Checkpoint(certified));
        let proof = self.hub.proof_now(leaf, at_second(self.next_second()));
        self.deliver_with(from, on, certified, proof, indices)
    }

    fn deliver_with(
        &mut self,
        from: (RollupId, u64),
        on: (RollupId, u64),
        certified: Checkpoint,
        proof: HubContract::HubProof,
        indices: &[u64],
    ) -> Vec<Bytes> {
        let prove = HubContract::proveCheckpointCall { checkpoint: (&certified).into(), proof };
        let mut segment = vec![self.tx(on, HUB, 0, prove.abi_encode())];
        let count = self.chain(from).outbox_count();
        for index in indices {
            let sent = self.chain(from).sent(*index).unwrap().unwrap();
            let path = assert_sent(self.chain(from), &sent, count, &certified);
            let call = deliver_call(&sent, count, path);
            segment.push(self.tx(on, INBOX, 0, call.abi_encode()));
        }
        self.run_on(on, segment.clone());
        segment
    }

    fn call<C: SolCall>(&self, on: (RollupId, u64), to: Address, call: C) -> Result<C::Return, EvmError> {
        let head = self.chain(on).head().header.number;
        let request = TransactionRequest::default().to(to).input(call.abi_encode().into());
        self.chain(on).call(head, request, None).map(|answer| C::abi_decode_returns(&answer).unwrap())
    }

    fn balance(&self, on: (RollupId, u64), account: Address) -> U256 {
        let head = self.chain(on).head().header.number;
        self.chain(on).account(head, account).unwrap().map_or(U256::ZERO, |account| account.balance)
    }

    fn succeeded(&self, on: (RollupId, u64), tx: &Bytes) -> bool {
        match self.chain(on).outcome(keccak256(tx)).unwrap().unwrap() {
            TxOutcome::Executed { success, .. } => success,
            TxOutcome::Skipped { reason } => panic!("skipped: {reason}"),
        }
    }
}

fn deliver_call(sent: &SentMessage, count: u64, path: Vec<B256>) -> Inbox::deliverCall {
    Inbox::deliverCall {
        message: (&sent.message).into(),
        payload: sent.payload.clone(),
        proof: Inbox::MessageProof { count, path },
        gasLimit: U256::from(sent.message.gas_limit),
    }
}

/// A message that is a transfer of coin, with a deadline.
fn coin(to: Address, deadline: Option<u64>) -> Vec<u8> {
    let deadline = deadline.map(|timestamp| IMessageAttributes::deadlineCall { timestamp }.abi_encode().into());
    let transfer = IMessageAttributes::transferCall {}.abi_encode().into();
    let attributes = deadline.into_iter().chain([transfer]).collect();
    Outbox::sendMessageCall { recipient: interoperable_address(B.1, to), payload: Bytes::new(), attributes }
        .abi_encode()
}

fn text(to: Address, payload: &[u8]) -> Vec<u8> {
    let payload = Bytes::copy_from_slice(payload);
    Outbox::sendMessageCall { recipient: interoperable_address(B.1, to), payload, attributes: vec![] }.abi_encode()
}

fn goes_the_whole_way(sealing: Sealing) {
    let mut network = Network::new(sealing);
    let deploy = tx(network.nonces[1], TxKind::Create, 0, init_code(&AGREEABLE), 200_000);
    let recipient = wallet(0).address().create(network.nonces[1]);
    network.nonces[1] += 1;
    network.run_on(B, vec![sign(0, alloy::consensus::TxEip1559 { chain_id: B.1, ..deploy })]);

    // Sent on A.
    let sends = [(coin(BOB, None), 11), (text(recipient, b"hello"), 3), (coin(BOB, None), 6)];
    let segment: Vec<_> = sends.into_iter().map(|(call, value)| network.tx(A, OUTBOX, value, call)).collect();
    let certified = network.run_on(A, segment.clone());
    assert!(segment.iter().all(|tx| network.succeeded(A, tx)));
    assert_eq!((network.chain(A).outbox_count(), network.chain(B).outbox_count()), (3, 0));
    let sent = network.chain(A).sent(1).unwrap().unwrap();
    let expected = Message {
        kind: MessageKind::Call,
        source: A.0,
        source_chain: A.1,
        destination: B.0,
        destination_chain: B.1,
        index: 1,
        sender: wallet(0).address().into_word(),
        recipient: recipient.into_word(),
        refund: wallet(0).address().into_word(),
        value: 3,
        payload_hash: keccak256("hello"),
        ..sent.message
    };
    assert_eq!((sent.message, &sent.payload[..], sent.block), (expected, &b"hello"[..], certified.number));
    assert_eq!(network.chain(A).sent_by_id(sent.message.id()).unwrap(), Some(sent));
    assert_eq!(network.chain(A).sent(3).unwrap(), None);
    assert_eq!(network.chain(A).sent_by_id(B256::ZERO).unwrap(), None);
    for (index, count) in [(3, 3), (3, 4), (0, 4), (0, 0)] {
        assert_eq!(network.chain(A).outbox_path(index, count).unwrap(), None, "{index} of {count}");
    }

    // Delivered on B, in the block whose header has the root.
    let segment = network.deliver(A, B, certified, &[0, 1]);
    assert!(segment.iter().all(|tx| network.succeeded(B, tx)));
    assert_eq!(network.balance(B, BOB), U256::from(11));
    assert_eq!(network.balance(B, recipient), U256::from(3));
    let made = network.chain(B).head();
    assert_eq!(made.header.parent_beacon_block_root, Some(network.hub.root()));
    // EIP-4788's contract tells it to everyone.
    let ask = TransactionRequest::default().to(BEACON_ROOTS_ADDRESS);
    let ask = ask.input(U256::from(made.header.timestamp).abi_encode().into());
    let told = network.chain(B).call(made.header.number, ask, None).unwrap();
    assert_eq!(B256::from_slice(&told), network.hub.root());

    // Not twice.
    let sent = network.chain(A).sent(0).unwrap().unwrap();
    let path = assert_sent(network.chain(A), &sent, 3, &certified);
    let again = deliver_call(&sent, 3, path.clone());
    let refusal = Inbox::AlreadySettled { source: A.0.0, index: 0 };
    let refused = network.call(B, INBOX, again.clone()).err();
    assert_eq!(refused, Some(EvmError::Revert(refusal.abi_encode().into())));
    let again = network.tx(B, INBOX, 0, again.abi_encode());
    network.run_on(B, vec![again.clone()]);
    assert!(!network.succeeded(B, &again));
    assert_eq!(network.balance(B, BOB), U256::from(11));

    by_the_header_of_an_earlier_block(&mut network);
    expires_and_is_refunded(&mut network);
}

/// A root that EIP-4788's ring may not have any more: from a header, which EIP-2935's contract knows the hash of.
fn by_the_header_of_an_earlier_block(network: &mut Network) {
    let call = network.tx(A, OUTBOX, 20, coin(BOB, None));
    let certified = network.run_on(A, vec![call]);
    let leaf = network.hub.append(HubLeaf::Checkpoint(certified));
    let count = leaf + 1;
    let anything = network.tx(B, BOB, 0, vec![]);
    network.run_on(B, vec![anything]);
    let header = network.chain(B).head().header.clone();
    // The hub goes on: the anchor of the proof is not the newest root.
    network.hub.append(HubLeaf::Release { bundle: B256::ZERO, rollup: B.0, leg: 0 });
    let proof = network.hub.proof(leaf, count, alloy_rlp::encode(&header).into());
    let segment = network.deliver_with(A, B, certified, proof.clone(), &[2, 3]);
    assert!(segment.iter().all(|tx| network.succeeded(B, tx)));
    assert_eq!(network.balance(B, BOB), U256::from(11 + 6 + 20));
    // Another header is no anchor.
    let forged = alloy::consensus::Header { parent_beacon_block_root: Some(network.hub.root()), ..header };
    let proof = HubContract::HubProof { anchor: alloy_rlp::encode(&forged).into(), ..proof };
    let refused = network.call(B, HUB, HubContract::proveCheckpointCall { checkpoint: (&certified).into(), proof });
    assert_eq!(refused.err(), Some(EvmError::Revert(HubContract::UnknownAnchor {}.abi_encode().into())));
}

/// The deadline passes; the notice that goes back is a message too, which is proven in the same way.
fn expires_and_is_refunded(network: &mut Network) {
    let deadline = network.next_second() + 1;
    let call = network.tx(A, OUTBOX, 9, coin(BOB, Some(deadline)));
    let certified = network.run_on(A, vec![call]);
    let sent = network.chain(A).sent(4).unwrap().unwrap();
    let path = assert_sent(network.chain(A), &sent, 5, &certified);
    let before = network.balance(B, BOB);
    network.deliver(A, B, certified, &[]);
    let expire = Inbox::expireCall { message: (&sent.message).into(), proof: Inbox::MessageProof { count: 5, path } };
    let expire = network.tx(B, INBOX, 0, expire.abi_encode());
    let certified = network.run_on(B, vec![expire.clone()]);
    assert!(network.succeeded(B, &expire));
    assert_eq!(network.balance(B, BOB), before);
    let notice = network.chain(B).sent(0).unwrap().unwrap();
    assert_eq!((notice.message.kind, notice.message.destination), (MessageKind::Notice, A.0));
    assert_eq!(&notice.payload[..], sent.message.id().as_slice());
    let segment = network.deliver(B, A, certified, &[0]);
    assert!(segment.iter().all(|tx| network.succeeded(A, tx)));
    let locked = network.balance(A, INBOX);
    let refund = network.tx(A, INBOX, 0, Inbox::refundCall { message: (&sent.message).into() }.abi_encode());
    network.run_on(A, vec![refund.clone()]);
    assert!(network.succeeded(A, &refund));
    assert_eq!(network.balance(A, INBOX), locked - U256::from(9));
}

#[test]
fn a_message_goes_the_whole_way_once_with_a_block_for_each_hub_block() {
    goes_the_whole_way(Sealing::HubBlock);
}

#[test]
fn a_message_goes_the_whole_way_once_with_a_block_a_second() {
    goes_the_whole_way(Sealing::OneSecond);
}
