//! Final blocks on their way from the engine into the store, the mempool and the servers' view.

use crate::{
    hub::{HubError, HubStates},
    machine::{Machine as _, Tokio},
    metrics::{Metrics, ReasonLabel, gauge},
    records::Records,
};
use std::sync::Arc;
use switchyard_bridge_core::{BridgeRecord, Evidence};
use switchyard_consensus_core::{EngineEvent, Fault, FaultKind, HubState, record::Activation};
use switchyard_mempool::{Included, Mempool};
use switchyard_primitives::{Block, FinalityCertificate, Segment};
use switchyard_rpc::HubTip;
use switchyard_store::{Store, StoreError};
use tokio::sync::{mpsc, watch};

/// Blocks between two looks at what can be pruned and at the store's size.
const HOUSEKEEPING_BLOCKS: u64 = 64;

/// Owns the order in which a final block becomes visible: durable first, then acknowledged, then announced.
pub struct Finalizer {
    /// Where blocks are kept.
    pub store: Arc<dyn Store>,
    /// The hub's state, which moves with the log.
    pub hub: HubStates,
    /// Told which transactions are final.
    pub mempool: Arc<Mempool>,
    /// The durable tip.
    pub tip: watch::Sender<HubTip>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where evidence goes.
    pub records: Records,
    /// The lowest hub height that retention must keep, given the durable tip.
    pub keep_from: Box<dyn Fn(u64) -> u64 + Send>,
}

impl Finalizer {
    /// Takes events until the engine ends. Blocking: run it on a thread of its own.
    pub fn run(mut self, mut events: mpsc::Receiver<EngineEvent>) -> Result<(), HubError> {
        while let Some(event) = events.blocking_recv() {
            self.take(event)?;
        }
        Ok(())
    }

    /// Does what one event asks for. Blocking.
    pub fn take(&mut self, event: EngineEvent) -> Result<(), HubError> {
        match event {
            EngineEvent::Final { block, certificate, ack } => {
                let _span = tracing::info_span!("finalize", height = block.header.height).entered();
                self.append(&block, certificate.as_ref())?;
                // The engine may be stopping; it delivers the block again after its restart.
                let _ = ack.send(());
                self.announce(&block);
                self.keep_house(block.header.height)?;
                self.hub.check_protocol()?;
            }
            EngineEvent::Tip { view, .. } => {
                self.metrics.view.set(gauge(view));
            }
            EngineEvent::Fault(Fault(conflict)) => {
                let reason = match conflict.kind() {
                    FaultKind::ConflictingNotarize => "conflicting_notarize",
                    FaultKind::ConflictingFinalize => "conflicting_finalize",
                    FaultKind::NullifyFinalize => "nullify_finalize",
                };
                self.metrics.faults.get_or_create(&ReasonLabel { reason }).inc();
                let (epoch, view) = conflict.round();
                tracing::error!(validator = %conflict.validator(), epoch, view, reason, "a validator signed a contradiction");
                self.records.send(&BridgeRecord::Evidence(Evidence::Votes(conflict)));
            }
        }
        Ok(())
    }

    fn append(&self, block: &Block, certificate: Option<&FinalityCertificate>) -> Result<(), HubError> {
        let state = self.hub.next(block)?;
        if let Some(state) = &state {
            self.hub.write(state)?;
        }
        self.store.append(block, certificate)?;
        if let Some(state) = state {
            let epoch_ends = state.current().epoch() > block.header.epoch;
            if epoch_ends {
                self.metrics.quorum.set(gauge(state.current().seats().quorum()));
            }
            if epoch_ends || state.upgrade() != self.hub.tip().upgrade() {
                self.tell_upgrade(&state);
            }
            for cut in state.bridge().into_iter().flat_map(|bridge| &bridge.added().cuts) {
                tracing::error!(identity = %cut.identity, offence = ?cut.offence, amount = cut.amount, "stake is cut");
            }
            self.hub.advance(state);
        }
        Ok(())
    }

    /// While an upgrade is ahead: what this node will do.
    fn tell_upgrade(&self, state: &HubState) {
        let Some(Activation { protocol, height }) = state.upgrade() else { return };
        let newest = self.hub.newest_protocol();
        if protocol <= newest {
            tracing::info!(protocol, height, "an upgrade of the protocol is ahead; this program knows it");
        } else {
            tracing::error!(
                protocol,
                height,
                newest,
                "an upgrade of the protocol is ahead that this program does not know: install a newer switchyard before \
                 that height, or this node stops there"
            );
        }
    }

    fn announce(&mut self, block: &Block) {
        let header = &block.header;
        if header.height <= self.tip.borrow().height {
            return;
        }
        let rows = block.segments().iter().zip(block.tx_hashes());
        let included: Vec<Included> = rows.map(|(segment, hashes)| Included::new(segment, hashes.clone())).collect();
        self.mempool.on_final(header.height, &included);
        self.metrics.height.set(gauge(header.height));
        self.metrics.blocks.inc();
        let now_ms = Tokio.now_ms();
        self.metrics.saw(header.timestamp_ms, now_ms);
        let latency_ms = u32::try_from(now_ms.saturating_sub(header.timestamp_ms)).unwrap_or(u32::MAX);
        self.metrics.finality_seconds.observe(f64::from(latency_ms) / 1000.0);
        for segment in block.segments() {
            self.count(segment);
        }
        let tip = HubTip { height: header.height, hash: block.hash(), timestamp_ms: header.timestamp_ms };
        self.tip.send_replace(tip);
        tracing::debug!(height = tip.height, transactions = block.transaction_count(), latency_ms, "final");
    }

    fn count(&self, segment: &Segment) {
        let label = segment.rollup.into();
        self.metrics.transactions.get_or_create(&label).inc_by(segment.transactions.len() as u64);
        let bytes: usize = segment.transactions.iter().map(|tx| tx.len()).sum();
        self.metrics.segment_bytes.get_or_create(&label).inc_by(bytes as u64);
    }

    fn keep_house(&self, height: u64) -> Result<(), StoreError> {
        if !height.is_multiple_of(HOUSEKEEPING_BLOCKS) {
            return Ok(());
        }
        self.metrics.store_bytes.set(gauge(self.store.size_bytes()));
        let keep_from = (self.keep_from)(height);
        if keep_from > self.store.earliest() { self.store.prune(keep_from) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
