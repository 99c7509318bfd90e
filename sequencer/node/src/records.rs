//! Records that this node puts into the log by itself: evidence and challenges.

use std::sync::Arc;
use switchyard_bridge_core::BridgeRecord;
use switchyard_primitives::{Bytes, RollupId};
use switchyard_rpc::Gateway;
use tokio::sync::mpsc;

/// Records that wait to be submitted. What comes above that is dropped: other nodes see the same.
const WAITING_MAX: usize = 64;

/// The way into the log for what this node finds out.
#[derive(Clone, Debug)]
pub struct Records(mpsc::Sender<Bytes>);

impl Records {
    /// The way, and its end for [`submit`].
    pub fn new() -> (Self, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Hands a record on; never waits.
    pub fn send(&self, record: &BridgeRecord) {
        if let Err(error) = self.0.try_send(record.encode()) {
            tracing::debug!(%error, "a record of this node is not submitted");
        }
    }
}

/// Submits what is handed on, as a client would.
pub async fn submit(mut records: mpsc::Receiver<Bytes>, gateway: Arc<dyn Gateway>) {
    while let Some(record) = records.recv().await {
        match gateway.submit(RollupId::SYSTEM, vec![record]).await.pop() {
            Some(Ok(hash)) => tracing::warn!(%hash, "evidence or a challenge of this node is accepted"),
            // Often because another node was first.
            refused => tracing::info!(?refused, "evidence or a challenge of this node is not accepted"),
        }
    }
}
