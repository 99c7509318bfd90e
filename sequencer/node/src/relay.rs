//! The relayer's view of this node: its log and its rollups, in the same process.

use crate::hub::{HubStates, bundle_at};
use alloy::sol_types::SolEvent;
use alloy_primitives::{B256, Bytes};
use std::{sync::Arc, time::Duration};
use switchyard_bridge_contracts::Outbox;
use switchyard_bridge_core::{Accumulator, BridgeRecord, BundleRecord, HubLeaf, NodeId, path, predeploys};
use switchyard_primitives::{RollupId, TxHash};
use switchyard_relayer::{Failed, Hub, OnHub, Refusal, Registered, Submit};
use switchyard_rollup_core::{
    Rejection,
    evm::{EvmChain, EvmError},
};
use switchyard_rpc::Gateway;
use switchyard_store::{Store, StoreError};
use tokio::runtime::Handle;

/// The hub's log.
pub struct Log {
    /// The hub's state.
    pub hub: HubStates,
    /// Where the accumulator is kept.
    pub store: Arc<dyn Store>,
}

fn failed(error: StoreError) -> Failed {
    Failed::Hub(error.to_string())
}

impl Log {
    fn node(&self, NodeId { level, position }: NodeId) -> Option<B256> {
        let node = self.store.bridge_node(level, position);
        node.inspect_err(|error| tracing::error!(%error, "cannot read the hub's accumulator")).ok()?
    }
}

impl Hub for Log {
    fn rollups(&self) -> Vec<Registered> {
        let state = self.hub.tip();
        let Some(bridge) = state.bridge() else { return Vec::new() };
        // The genesis' rollups are the first leaves, in the order of their ids.
        let rollups = (0..).zip(bridge.rollups());
        rollups
            .map(|(leaf, (id, rollup))| Registered {
                rollup: *id,
                chain: rollup.chain,
                leaf,
                certified: rollup.certified,
            })
            .collect()
    }

    fn now_s(&self) -> u64 {
        self.store.tip().0.timestamp_ms / 1000
    }

    fn count_at(&self, hub_height: u64) -> Result<u64, Failed> {
        self.store.bridge_count(hub_height).map_err(failed)
    }

    fn root_at(&self, count: u64) -> Result<Option<B256>, Failed> {
        Ok(Accumulator::at(count, |id| self.node(id)).map(|tree| tree.root()))
    }

    fn leaves(&self) -> u64 {
        self.hub.tip().bridge().map_or(0, |bridge| bridge.tree().count())
    }

    fn recent(&self) -> Result<u64, Failed> {
        let tip = self.hub.tip().next_height();
        self.count_at(tip.saturating_sub(BundleRecord::DEADLINE_BLOCKS_MAX))
    }

    fn leaf(&self, index: u64) -> Result<Option<HubLeaf>, Failed> {
        let leaf = self.store.bridge_leaf(index).map_err(failed)?;
        let read = leaf.map(|leaf| HubLeaf::decode(&leaf)).transpose();
        read.map_err(|error| Failed::Hub(format!("leaf {index}: {error}")))
    }

    fn bundle(&self, id: &B256) -> Result<Option<OnHub>, Failed> {
        // The row is as old as the last that has become of the bundle: the state knows its votes besides.
        let state = self.hub.tip();
        let known = state.bridge().and_then(|bridge| bridge.bundle(id)).cloned();
        let known = known.map_or_else(|| bundle_at(&*self.store, id), |bundle| Ok(Some(bundle)));
        let Some(bundle) = known.map_err(failed)? else { return Ok(None) };
        // Kept beside it: the block may be pruned long before the bundle's deadline.
        let Some(row) = self.store.bridge_record(id).map_err(failed)? else { return Ok(None) };
        let Ok(BridgeRecord::Bundle(record)) = BridgeRecord::decode(&row) else {
            return Err(Failed::Hub(format!("the record of bundle {id} does not decode")));
        };
        Ok(Some(OnHub { bundle, record }))
    }

    fn path(&self, index: u64, count: u64) -> Result<Option<Vec<B256>>, Failed> {
        Ok(path(index, count, |id| self.node(id)))
    }
}

/// How long the relayer waits for the answer to what it offers.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// The way in that clients have too.
pub struct Way {
    /// Where it leads.
    pub gateway: Arc<dyn Gateway>,
    /// Where it is gone: the relayer's thread waits.
    pub runtime: Handle,
}

impl Submit for Way {
    fn submit(&self, rollup: RollupId, transactions: Vec<Bytes>) -> Vec<Result<(), Refusal>> {
        let gateway = self.gateway.clone();
        // It goes on when nobody waits for it any more: the other rollups' turn must not wait for this one's validators.
        let offered = self.runtime.spawn(async move { gateway.submit(rollup, transactions).await });
        let answered = self.runtime.block_on(async { tokio::time::timeout(ANSWER_WITHIN, offered).await });
        let answers = answered.ok().and_then(Result::ok).unwrap_or_default();
        answers.into_iter().map(|answer| answer.map(|_| ()).or_else(|rejection| may_come(&rejection))).collect()
    }
}

/// Whether a transaction that was not accepted may come into a block all the same. By the word: a follower passes on a validator's.
fn may_come(rejection: &Rejection) -> Result<(), Refusal> {
    match rejection.code() {
        "already_known" | "already_final" | "not_replicated" => Ok(()),
        "oversized" | "gas_limit" | "intrinsic_gas" | "malformed" => Err(Refusal::Itself(rejection.to_string())),
        "replacement_underpriced" => Err(Refusal::Underpriced(rejection.to_string())),
        _ => Err(Refusal::Other(rejection.to_string())),
    }
}

/// The ids of the messages that a transaction has sent, in order.
pub fn sent_by(chain: &dyn EvmChain, transaction: TxHash) -> Result<Vec<B256>, EvmError> {
    let Some((number, index)) = chain.locate(transaction)? else { return Ok(Vec::new()) };
    let ids = |receipt: &alloy::consensus::ReceiptEnvelope| {
        let outbox = receipt.logs().iter().filter(|log| log.address == predeploys::OUTBOX);
        let is_message = |topics: &&[B256]| topics.first() == Some(&Outbox::MessageAppended::SIGNATURE_HASH);
        outbox.map(|log| log.data.topics()).filter(is_message).filter_map(|topics| topics.get(2).copied()).collect()
    };
    if let Some(block) = chain.block_by_number(number)? {
        return Ok(block.receipts.get(index).map(ids).unwrap_or_default());
    }
    let open = chain.pending().filter(|open| open.header.number == number);
    Ok(open.and_then(|open| open.transactions.get(index).map(|tx| ids(&tx.receipt))).unwrap_or_default())
}

#[cfg(test)]
mod tests;
