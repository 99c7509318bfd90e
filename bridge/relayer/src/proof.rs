//! What the contracts are shown.

use crate::{Failed, Hub as HubLog, Registered};
use alloy::sol_types::SolCall;
use alloy_primitives::{Address, B256, Bytes, U256};
use switchyard_bridge_contracts::{Hub, Inbox};
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
    /// Its timestamp, seconds.
    pub timestamp: u64,
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
                let (number, timestamp) = (block.header.number, block.header.timestamp);
                return Ok(Some(Self { header, number, timestamp, count }));
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
    pub(crate) fn proof(&self, hub: &dyn HubLog, index: u64) -> Result<Option<Hub::HubProof>, Failed> {
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
pub(crate) const PROOF_GAS: u64 = 250_000;
/// What a delivery takes besides the recipient's gas: at the most a token's first arrival.
const DELIVERY_GAS: u64 = 200_000;

pub(crate) fn calldata_gas(data: &[u8]) -> u64 {
    // EIP-7623's floor: 40 for each byte that is not zero, and 10 for others.
    data.iter().map(|byte| if *byte == 0 { 10 } else { 40 }).sum()
}

pub(crate) fn call(rollup: RollupId, to: Address, data: Vec<u8>, gas: u64) -> Delivery {
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
