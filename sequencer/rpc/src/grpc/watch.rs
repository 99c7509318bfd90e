//! The stream of a transaction's status changes.

use super::{ApiError, api::Api, sequencer::wire_status};
use crate::{HubTip, TxStatus};
use futures::{StreamExt, stream, stream::BoxStream};
use std::{sync::Arc, time::Duration};
use switchyard_primitives::{Level, TxKey};
use switchyard_proto::v1;
use switchyard_rollup_core::evm::{EvmChain, ExecutedBlock};
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, watch},
    time::Instant,
};
use tonic::Status;

/// A status is read again at least this often: not every change has an event, such as a transaction that a validator
/// hands to this node, or one that is dropped.
const RECHECK: Duration = Duration::from_millis(500);

/// How far the transaction is to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) level: Level,
    pub(super) outcome: bool,
}

impl Target {
    /// Whether there is nothing more to wait for.
    fn is_met(self, status: &TxStatus) -> bool {
        let reached = status.level.is_some_and(|level| level >= self.level);
        let decided = status.outcome.is_some() || !self.outcome;
        let refused = status.level.is_none() && status.rejection.is_some();
        refused || (reached && decided)
    }
}

/// One watched transaction.
pub(super) struct Watch {
    api: Arc<Api>,
    key: TxKey,
    target: Target,
    timeout: Duration,
    deadline: Instant,
    tip: watch::Receiver<HubTip>,
    chain: Option<Arc<dyn EvmChain>>,
    executed: Option<(broadcast::Receiver<Arc<ExecutedBlock>>, watch::Receiver<()>)>,
    /// What the client knows.
    sent: Option<TxStatus>,
    _slot: OwnedSemaphorePermit,
}

impl Watch {
    pub(super) fn new(
        api: Arc<Api>,
        key: TxKey,
        target: Target,
        timeout: Duration,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        let tip = api.gateway.tip();
        let chain = api.gateway.evm(key.rollup).filter(|_| target.outcome);
        let executed = chain.as_ref().map(|chain| (chain.subscribe(), chain.subscribe_pending()));
        let deadline = Instant::now() + timeout;
        Self { api, key, target, timeout, deadline, tip, chain, executed, sent: None, _slot: slot }
    }

    /// The next status that differs from the last one sent; none once the target is met.
    async fn advance(&mut self) -> Result<Option<TxStatus>, ApiError> {
        while !self.sent.as_ref().is_some_and(|status| self.target.is_met(status)) {
            self.tip.mark_unchanged();
            let key = self.key;
            let status = self.api.read(move |gateway| Ok(gateway.status(key)?)).await?;
            if self.sent.as_ref() != Some(&status) {
                self.sent = Some(status.clone());
                return Ok(Some(status));
            }
            self.wait().await?;
        }
        Ok(None)
    }

    async fn wait(&mut self) -> Result<(), ApiError> {
        let recheck = Instant::now() + RECHECK;
        let (chain, key) = (&self.chain, self.key);
        let executed = async {
            let Some((blocks, open)) = &mut self.executed else { return std::future::pending().await };
            loop {
                tokio::select! {
                    // A receiver that missed blocks has news all the same; one without a sender has none any more.
                    block = blocks.recv() => return !matches!(block, Err(broadcast::error::RecvError::Closed)),
                    changed = open.changed() => {
                        if changed.is_err() {
                            return false;
                        }
                        if chain.as_ref().is_some_and(|chain| chain.pending_outcome(key.hash).is_some()) {
                            return true;
                        }
                    }
                }
            }
        };
        tokio::select! {
            changed = self.tip.changed() => changed.map_err(|_| ApiError::Stopping),
            open = executed => {
                if !open {
                    self.executed = None;
                }
                Ok(())
            }
            () = self.api.shutdown.cancelled() => Err(ApiError::Stopping),
            () = tokio::time::sleep_until(self.deadline) => {
                Err(ApiError::WatchTimeout { timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX) })
            }
            () = tokio::time::sleep_until(recheck) => Ok(()),
        }
    }
}

/// The status now, then each change. Ends when the target is met, or with an error.
pub(super) fn stream(watch: Watch) -> BoxStream<'static, Result<v1::WatchTransactionResponse, Status>> {
    stream::try_unfold(watch, |mut watch| async {
        let status = watch.advance().await?;
        Ok(status.map(|status| (v1::WatchTransactionResponse { status: Some(wire_status(status)) }, watch)))
    })
    .boxed()
}
