//! Messages and bundles: what a rollup sends and votes, and what it learns of the hub. The contracts are the real ones.

mod delivery;
mod foreign;
mod restarts;
mod vectors;
mod votes;

use crate::support::*;
use alloy::sol_types::SolCall;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use serde_json::Value;
use std::collections::BTreeMap;
use switchyard_bridge_contracts::{AtomicVault, Hub as HubContract, Inbox, Outbox, genesis as contracts};
use switchyard_bridge_core::{
    Accumulator, Bundle, Checkpoint, HubLeaf, Leg, Move, MoveKind, NodeId, path,
    predeploys::{ATOMIC_VAULT, HUB, INBOX, OUTBOX},
    seal,
};
use switchyard_primitives::{RollupId, merkle};
use switchyard_rollup_core::{
    Applied, Driver, LegAt, Sealing, SegmentInput,
    evm::{EvmChain, SentMessage},
};
use switchyard_rollup_evm::EvmConfig;

/// The two rollups of these tests, and their chain ids.
pub(crate) const A: (RollupId, u64) = (RollupId(7), CHAIN_ID);
pub(crate) const B: (RollupId, u64) = (RollupId(8), CHAIN_ID + 1);
/// What each may pay out for messages of the other from the beginning.
pub(crate) const FUNDS: u128 = 1_000;

/// A genesis with the contracts.
pub(crate) fn bridge_genesis(of: (RollupId, u64), gas_limit: u64) -> Value {
    let other = if of == A { B } else { A };
    let mut genesis = genesis_with_gas_limit(gas_limit);
    genesis["config"]["chainId"] = of.1.into();
    for (address, account) in contracts(of.0, &[], &[(other.0, FUNDS)]) {
        genesis["alloc"][address.to_string()] = serde_json::to_value(account).unwrap();
    }
    genesis
}

pub(crate) fn bridge_config(of: (RollupId, u64), sealing: Sealing, gas_limit: u64) -> EvmConfig {
    EvmConfig { rollup: of.0, genesis: bridge_genesis(of, gas_limit), sealing }
}

/// A hub that certifies what it is told.
pub(crate) struct Hub {
    tree: Accumulator,
    nodes: BTreeMap<NodeId, B256>,
}

impl Hub {
    /// It knows both rollups.
    pub(crate) fn new() -> Self {
        let mut hub = Self { tree: Accumulator::default(), nodes: BTreeMap::new() };
        for (rollup, chain) in [A, B] {
            hub.append(HubLeaf::Rollup { rollup, chain });
        }
        hub
    }

    pub(crate) fn append(&mut self, leaf: HubLeaf) -> u64 {
        let nodes = &mut self.nodes;
        self.tree.append(leaf.hash(), |id, hash| assert_eq!(nodes.insert(id, hash), None)).unwrap()
    }

    pub(crate) fn root(&self) -> B256 {
        self.tree.root()
    }

    /// Of a leaf, in the tree as it was with `count` leaves.
    pub(crate) fn proof(&self, index: u64, count: u64, anchor: Bytes) -> HubContract::HubProof {
        let path = path(index, count, |id| self.nodes.get(&id).copied()).unwrap();
        HubContract::HubProof { anchor, index, count, path }
    }

    pub(crate) fn proof_now(&self, index: u64, anchor: Bytes) -> HubContract::HubProof {
        self.proof(index, self.tree.count(), anchor)
    }
}

/// Registers the other rollup with the contracts of `on`, in a block of this second.
pub(crate) fn register(hub: &Hub, on: (RollupId, u64), nonce: u64, second: u64) -> Bytes {
    let (other, index) = if on == A { (B, 1) } else { (A, 0) };
    let proof = hub.proof_now(index, at_second(second));
    let call = HubContract::registerCall { rollup_: other.0.0, chain: other.1, proof };
    send(on, 0, nonce, HUB, 0, call.abi_encode())
}

/// An anchor: the timestamp of a block.
pub(crate) fn at_second(second: u64) -> Bytes {
    Bytes::copy_from_slice(&second.to_be_bytes())
}

/// A transaction of `wallet(i)` with gas for all that the contracts do.
pub(crate) fn send(on: (RollupId, u64), i: u8, nonce: u64, to: Address, value: u128, input: impl Into<Bytes>) -> Bytes {
    let tx = tx(nonce, TxKind::Call(to), value, input, 600_000);
    sign(i, alloy::consensus::TxEip1559 { chain_id: on.1, ..tx })
}

/// A message is in the outbox that a checkpoint names.
pub(crate) fn assert_sent(chain: &dyn EvmChain, sent: &SentMessage, count: u64, checkpoint: &Checkpoint) -> Vec<B256> {
    let path = chain.outbox_path(sent.message.index, count).unwrap().unwrap();
    let root = merkle::root_from_path(sent.message.id(), sent.message.index, count, &path).unwrap();
    assert_eq!(seal(count, root), checkpoint.outbox_root);
    assert_eq!(keccak256(&sent.payload), sent.message.payload_hash);
    path
}

/// What the contract itself says its root is after block `number`.
pub(crate) fn outbox_root(chain: &dyn EvmChain, number: u64) -> B256 {
    let call = alloy::rpc::types::TransactionRequest::default().to(OUTBOX);
    let answer = chain.call(number, call.input(Outbox::rootCall {}.abi_encode().into()), None).unwrap();
    Outbox::rootCall::abi_decode_returns(&answer).unwrap()
}

/// A bundle of two legs on A, each of which gives coin; tells apart by `salt`.
pub(crate) fn bundle(signers: [u8; 2], salt: u64) -> (Bundle, [Leg; 2]) {
    let legs = signers.map(|i| Leg {
        rollup: A.0,
        signer: wallet(i).address(),
        moves: vec![Move {
            kind: MoveKind::Coin,
            token: Address::ZERO,
            amount: U256::from(5),
            to: Address::repeat_byte(0x77),
            refund: wallet(i).address(),
        }],
        calls: vec![],
    });
    let hashes = legs.iter().map(Leg::hash).collect();
    (Bundle { deadline: 1_000, salt: U256::from(salt).into(), legs: hashes }, legs)
}

/// What a leg's transaction calls the vault with.
pub(crate) fn prepare(bundle: &Bundle, index: u8, leg: &Leg) -> Vec<u8> {
    AtomicVault::prepareCall { bundle: bundle.into(), index, leg: leg.into() }.abi_encode()
}

/// The next hub block.
pub(crate) fn next(
    rollup: &mut Rollup,
    ms: u64,
    hub_root: B256,
    transactions: Vec<Bytes>,
    legs: Vec<LegAt>,
) -> Applied {
    let height = rollup.driver.next_hub_height();
    let input = SegmentInput { hub_root, legs, ..hub_block_at(height, GENESIS_SECONDS * 1000 + ms, transactions) };
    rollup.driver.apply(&input).unwrap()
}
