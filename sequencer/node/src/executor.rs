//! Runs one rollup: final segments in, rollup blocks out. Ordering never waits for it.

use crate::{
    hub::tree_root,
    metrics::{Metrics, gauge},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use switchyard_bridge_core::{BRIDGE_FROM, deposits_of, legs_of};
use switchyard_mempool::Mempool;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Applied, Driver, DriverError, LegAt, SegmentInput, TxOutcome};
use switchyard_rpc::HubTip;
use switchyard_store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why a rollup's execution stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The log could not be read.
    #[error("rollup {rollup}: {source}")]
    Store {
        /// The rollup.
        rollup: RollupId,
        /// Why.
        source: StoreError,
    },
    /// The log no longer holds what the rollup needs next.
    #[error(
        "rollup {rollup} needs hub block {height}, which is not kept here: restore a snapshot of it (`switchyard snapshot \
         restore`), or remove its state and start with a full log"
    )]
    Missing {
        /// The rollup.
        rollup: RollupId,
        /// The block.
        height: u64,
    },
    /// The driver failed.
    #[error("rollup {rollup}: {source}")]
    Driver {
        /// The rollup.
        rollup: RollupId,
        /// Why.
        source: DriverError,
    },
}

/// One rollup's execution.
pub struct Executor<D> {
    /// The rollup.
    pub rollup: RollupId,
    /// Its driver.
    pub driver: D,
    /// The log.
    pub store: Arc<dyn Store>,
    /// Told what was executed.
    pub mempool: Arc<Mempool>,
    /// Bumped when the rollup has made blocks.
    pub closed: watch::Sender<u64>,
    /// The durable tip.
    pub tip: watch::Receiver<HubTip>,
    /// The next height to apply, for retention.
    pub next: Arc<AtomicU64>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl<D: Driver> Executor<D> {
    /// Applies what is final, then waits for more, until cancelled. Blocking: run it on a thread of its own, with
    /// `runtime` to wait on.
    pub fn run(mut self, runtime: &tokio::runtime::Handle, stop: &CancellationToken) -> Result<(), ExecutorError> {
        let _span = tracing::info_span!("executor", rollup = self.rollup.0).entered();
        loop {
            self.catch_up(|| stop.is_cancelled())?;
            if stop.is_cancelled() {
                return Ok(());
            }
            let more = runtime.block_on(async {
                tokio::select! {
                    changed = self.tip.changed() => changed.is_ok(),
                    () = stop.cancelled() => false,
                }
            });
            if !more {
                return Ok(());
            }
        }
    }

    /// Applies what is final and not yet applied, or until `stopped` says so. Blocking.
    pub fn catch_up(&mut self, stopped: impl Fn() -> bool) -> Result<(), ExecutorError> {
        self.next.store(self.driver.next_hub_height(), Ordering::Release);
        let tip = self.tip.borrow_and_update().height;
        while self.driver.next_hub_height() <= tip && !stopped() {
            self.apply_next()?;
        }
        Ok(())
    }

    fn apply_next(&mut self) -> Result<(), ExecutorError> {
        let rollup = self.rollup;
        let height = self.driver.next_hub_height();
        let input = self.input(height)?;
        let applied = self.driver.apply(&input).map_err(|source| ExecutorError::Driver { rollup, source })?;
        self.next.store(height + 1, Ordering::Release);
        self.mempool.on_executed(rollup, applied.executed_to, applied.senders.iter().copied());
        self.count(&applied);
        if !applied.checkpoints.is_empty() {
            self.closed.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    fn input(&self, height: u64) -> Result<SegmentInput, ExecutorError> {
        let rollup = self.rollup;
        let failed = |source| ExecutorError::Store { rollup, source };
        let header = self.store.header(height).map_err(failed)?;
        let header = header.filter(|_| height >= self.store.earliest());
        let header = header.ok_or(ExecutorError::Missing { rollup, height })?;
        let transactions = self.store.transactions(rollup, height).map_err(failed)?.unwrap_or_default();
        let records = if header.protocol < BRIDGE_FROM {
            None
        } else {
            self.store.transactions(RollupId::SYSTEM, height).map_err(failed)?
        };
        let records = records.unwrap_or_default();
        let leg = |(bundle, leg, tx)| LegAt { bundle, leg, tx };
        let legs = legs_of(&records, rollup).into_iter().map(leg).collect();
        Ok(SegmentInput {
            hub_height: height,
            hub_hash: header.hash(),
            timestamp_ms: header.timestamp_ms,
            transactions,
            hub_root: tree_root(&*self.store, &header).map_err(failed)?,
            legs,
            deposits: deposits_of(&records, rollup),
        })
    }

    fn count(&self, applied: &Applied) {
        let label = self.rollup.into();
        if let Some(last) = applied.checkpoints.last() {
            self.metrics.rollup_height.get_or_create(&label).set(gauge(last.number));
        }
        for (hash, outcome) in &applied.outcomes {
            if let TxOutcome::Skipped { reason } = outcome {
                self.metrics.skipped.get_or_create(&label).inc();
                tracing::debug!(rollup = self.rollup.0, %hash, reason, "skipped");
            }
        }
    }
}
