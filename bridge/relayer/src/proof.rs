//! What the contracts are shown.

use crate::{Failed, Hub as HubLog, Registered, settle::Verdict};
use alloy::sol_types::SolCall;
use alloy_primitives::{Address, B256, Bytes, U256};
use switchyard_bridge_contracts::{AtomicVault, Hub, Inbox, Prepare};
use switchyard_bridge_core::{Certified, predeploys};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::{EvmChain, ExecutedBlock, SentMessage};

/// Hub blocks below the one that closed a rollup block, of which one may have opened it: sixteen blocks a hub block and a
/// second's worth of hub blocks are below this.
const OPENED_WITHIN: u64 = 64;

/// A block of the destination through which its contracts read a root of the hub's accumulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Its header, RLP.
    pub header: Bytes,
    /// Its number.
    pub number: u64,
    /// Leaves of the hub's accumulator at its root.
    pub count: u64,
}

impl Anchor {
    /// The destination's newest block as an anchor; none while it has seen nothing of the hub.
    pub fn newest(hub: &dyn HubLog, chain: &dyn EvmChain) -> Result<Option<Self>, Failed> {
        Self::of(hub, &chain.head())
    }

    fn of(hub: &dyn HubLog, block: &ExecutedBlock) -> Result<Option<Self>, Failed> {
        let Some(root) = block.header.parent_beacon_block_root.filter(|root| !root.is_zero()) else { return Ok(None) };
        let (mut tried, mut height) = (None, block.hub_height);
        for _ in 0..OPENED_WITHIN {
            let count = hub.count_at(height)?;
            if tried != Some(count) && hub.root_at(count)? == Some(root) {
                let header = alloy_rlp::encode(&block.header).into();
                return Ok(Some(Self { header, number: block.header.number, count }));
            }
            tried = Some(count);
            match height.checked_sub(1) {
                Some(below) => height = below,
                None => break,
            }
        }
        Ok(None)
    }

    /// Shows a leaf to the contracts; none if the anchor has not seen it.
    fn proof(&self, hub: &dyn HubLog, index: u64) -> Result<Option<Hub::HubProof>, Failed> {
        if index >= self.count {
            return Ok(None);
        }
        let path = hub.path(index, self.count)?;
        let proof = |path| Hub::HubProof { anchor: self.header.clone(), index, count: self.count, path };
        Ok(path.map(proof))
    }
}

/// A call that anyone may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// On which rollup.
    pub rollup: RollupId,
    /// The contract.
    pub to: Address,
    /// Its calldata.
    pub data: Bytes,
    /// Gas that suffices.
    pub gas: u64,
}

/// Gas of a hash path and an anchor of a header's size, and what goes with them.
const PROOF_GAS: u64 = 250_000;
/// What a delivery takes besides the recipient's gas: at the most a token's first arrival.
const DELIVERY_GAS: u64 = 200_000;

fn calldata_gas(data: &[u8]) -> u64 {
    // EIP-7623's floor: 40 for each byte that is not zero, and 10 for others.
    data.iter().map(|byte| if *byte == 0 { 10 } else { 40 }).sum()
}

fn call(rollup: RollupId, to: Address, data: Vec<u8>, gas: u64) -> Delivery {
    Delivery { rollup, to, gas: gas + calldata_gas(&data), data: data.into() }
}

/// Enters a rollup into another one's list; none if the anchor has not seen the leaf.
pub(crate) fn register_call(
    hub: &dyn HubLog,
    at: RollupId,
    rollup: &Registered,
    anchor: &Anchor,
) -> Result<Option<Delivery>, Failed> {
    let Some(proof) = anchor.proof(hub, rollup.leaf)? else { return Ok(None) };
    let data = Hub::registerCall { rollup_: rollup.rollup.0, chain: rollup.chain, proof }.abi_encode();
    Ok(Some(call(at, predeploys::HUB, data, PROOF_GAS)))
}

/// Shows a certified checkpoint to a rollup; none if the anchor has not seen it.
pub fn checkpoint_call(
    hub: &dyn HubLog,
    at: RollupId,
    certified: &Certified,
    anchor: &Anchor,
) -> Result<Option<Delivery>, Failed> {
    let Some(proof) = anchor.proof(hub, certified.index)? else { return Ok(None) };
    let data = Hub::proveCheckpointCall { checkpoint: (&certified.checkpoint).into(), proof }.abi_encode();
    Ok(Some(call(at, predeploys::HUB, data, PROOF_GAS)))
}

/// Delivers a message, or ends it where its deadline has passed; `count` and `path` are those of the source's outbox.
pub fn deliver_call(sent: &SentMessage, count: u64, path: Vec<B256>, recipient_gas: u64, expired: bool) -> Delivery {
    let message = Inbox::Message::from(&sent.message);
    let proof = Inbox::MessageProof { count, path };
    let rollup = sent.message.destination;
    if expired {
        let data = Inbox::expireCall { message, proof }.abi_encode();
        return call(rollup, predeploys::INBOX, data, DELIVERY_GAS);
    }
    let payload = sent.payload.clone();
    let data = Inbox::deliverCall { message, payload, proof, gasLimit: U256::from(recipient_gas) }.abi_encode();
    // EIP-150 keeps back a 64th at each of three calls.
    call(rollup, predeploys::INBOX, data, DELIVERY_GAS + recipient_gas + recipient_gas / 16)
}

/// Pays back the value of a message that has expired.
pub(crate) fn refund_call(sent: &SentMessage) -> Delivery {
    let data = Inbox::refundCall { message: (&sent.message).into() }.abi_encode();
    call(sent.message.source, predeploys::INBOX, data, DELIVERY_GAS)
}

/// Gives back the tokens of a transfer that has expired.
pub(crate) fn refund_tokens_call(sent: &SentMessage) -> Delivery {
    use switchyard_bridge_contracts::TokenBridge;
    let (message, payload) = ((&sent.message).into(), sent.payload.clone());
    let data = TokenBridge::refundCall { message, payload }.abi_encode();
    call(sent.message.source, predeploys::TOKEN_BRIDGE, data, DELIVERY_GAS)
}

/// Gas of a leg's settling besides its items.
const SETTLE_GAS: u64 = 120_000;
/// Of a move: what the vault gives it, and what it takes to do so.
const MOVE_GAS: u64 = 220_000;
/// Gas that one transaction spends on items at the most, and less where a block has less; what is left over is for another.
const ITEMS_GAS: u64 = 10_000_000;

/// What one transaction may do of a leg's items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Those to choose from: bit `i` for item `i`.
    pub(crate) items: u16,
    /// Gas limit of the rollup's blocks.
    pub(crate) block_gas: u64,
}

/// The items that one transaction carries out, with the gas for them: of those there are the first ones that there is room for besides
/// `other_gas`.
fn choose(terms: &Prepare, room: Room, other_gas: u64) -> (u16, u64) {
    // A sixteenth is left for what is rounded here.
    let most = (room.block_gas - room.block_gas / 16).saturating_sub(other_gas).min(ITEMS_GAS);
    let moves = terms.leg.moves.iter().map(|_| MOVE_GAS);
    // EIP-150 keeps back a 64th.
    let calls = terms.leg.calls.iter().map(|call| call.gas_limit.saturating_add(call.gas_limit / 32 + 20_000));
    let (mut chosen, mut gas) = (0u16, 0u64);
    for (item, cost) in moves.chain(calls).enumerate().take(16).filter(|(item, _)| room.items >> item & 1 == 1) {
        if gas.saturating_add(cost) <= most {
            chosen |= 1 << item;
            gas = gas.saturating_add(cost);
        }
    }
    (chosen, gas)
}

/// Brings what the hub says of a leg to the vault that holds it, with the items that there is room for; none if the anchor has not seen
/// it.
pub(crate) fn settle_call(
    hub: &dyn HubLog,
    rollup: RollupId,
    terms: &Prepare,
    verdict: Verdict,
    room: Room,
    leaf: u64,
    anchor: &Anchor,
) -> Result<Option<Delivery>, Failed> {
    let Some(proof) = anchor.proof(hub, leaf)? else { return Ok(None) };
    // `AtomicVault.Decision`.
    let (decision, height) = match verdict {
        Verdict::Decided { committed, height } => (u8::from(committed), height),
        Verdict::Released => (2, 0),
    };
    let proof =
        AtomicVault::HubProof { anchor: proof.anchor, index: proof.index, count: proof.count, path: proof.path };
    let mut data = AtomicVault::settleCall {
        bundle: (&terms.bundle).into(),
        index: terms.index,
        leg: (&terms.leg).into(),
        decision,
        height,
        proof,
        items: u16::MAX,
    };
    let other_gas = PROOF_GAS + SETTLE_GAS;
    let (items, gas) = choose(terms, room, other_gas + calldata_gas(&data.abi_encode()));
    data.items = items;
    Ok(Some(call(rollup, predeploys::ATOMIC_VAULT, data.abi_encode(), other_gas + gas)))
}

/// Carries out items of a settled leg that are held; none where a block has no room for any.
pub(crate) fn retry_call(rollup: RollupId, terms: &Prepare, room: Room) -> Option<Delivery> {
    let mut data = AtomicVault::retryCall {
        bundle: (&terms.bundle).into(),
        index: terms.index,
        leg: (&terms.leg).into(),
        items: u16::MAX,
        gasLimit: U256::ZERO,
    };
    let (items, gas) = choose(terms, room, SETTLE_GAS + calldata_gas(&data.abi_encode()));
    data.items = items;
    (items != 0).then(|| call(rollup, predeploys::ATOMIC_VAULT, data.abi_encode(), SETTLE_GAS + gas))
}
