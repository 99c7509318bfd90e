//! What the three services share.

use super::{ApiError, GrpcLimits};
use crate::{Gateway, HubTip, SegmentAt};
use bytes::Bytes;
use std::sync::Arc;
use switchyard_primitives::{FinalityProof, Header, RollupId};
use switchyard_proto::{ProvenSegment, to_bytes, v1};
use switchyard_rollup_core::RollupManifest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Most blocks in one message of `StreamSegments`.
pub(super) const RUN_BLOCKS: usize = 64;
/// Bytes that a segment takes at most besides its transactions: header, proof, and the wire's tags and lengths.
const BLOCK_OVERHEAD_BYTES: usize = 2_560;
/// Bytes of the longest finality proof: 1024 headers, and a certificate of 4096 seats.
const FINALITY_BYTES: usize = FinalityProof::MAX_HEADERS * (Header::LEN + 4) + 1024;
/// Tag and length of one transaction on the wire, less the length that the block's body counts already.
const TRANSACTION_OVERHEAD_BYTES: usize = 2;

/// The services' state.
pub(super) struct Api {
    pub(super) gateway: Arc<dyn Gateway>,
    pub(super) limits: GrpcLimits,
    pub(super) shutdown: CancellationToken,
    reads: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    submit_streams: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
    manifests: Vec<Bytes>,
}

impl Api {
    pub(super) fn new(gateway: Arc<dyn Gateway>, limits: GrpcLimits, shutdown: CancellationToken) -> Self {
        let manifests = gateway.info().rollups.iter().map(manifest_json).collect();
        Self {
            gateway,
            limits,
            shutdown,
            reads: Arc::new(Semaphore::new(limits.reads)),
            streams: Arc::new(Semaphore::new(limits.streams)),
            submit_streams: Arc::new(Semaphore::new(limits.submit_streams)),
            snapshots: Arc::new(Semaphore::new(limits.snapshots)),
            manifests,
        }
    }

    /// Each rollup's manifest as JSON, in the order of the network's rollups.
    pub(super) fn manifests(&self) -> &[Bytes] {
        &self.manifests
    }

    /// Bytes of all transactions in one submission.
    pub(super) fn submit_bytes(&self) -> usize {
        self.limits.submit_bytes.max(self.gateway.info().limits.transaction_bytes)
    }

    /// The longest request of `Submit`.
    pub(super) fn submit_request_bytes(&self) -> usize {
        self.submit_bytes() + self.limits.submit_transactions * 8 + 64
    }

    /// The longest response of any call.
    pub(super) fn response_bytes(&self) -> usize {
        let limits = self.gateway.info().limits;
        let transactions = limits.body_bytes + limits.transactions * TRANSACTION_OVERHEAD_BYTES;
        let segments = transactions + RUN_BLOCKS * BLOCK_OVERHEAD_BYTES + FINALITY_BYTES;
        let seats = switchyard_consensus_core::allot::SEATS_MAX as usize * 96;
        let manifests: usize = self.manifests.iter().map(|json| json.len() + 128).sum();
        segments.max(seats + manifests + 1024)
    }

    /// Runs blocking reads off the async threads, a bounded number at a time.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        reads: impl FnOnce(&dyn Gateway) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.reads.clone().acquire_owned().await.map_err(|_| ApiError::Stopping)?;
        let gateway = self.gateway.clone();
        let task = tokio::task::spawn_blocking(move || {
            // Held by the read itself: a caller that goes away must not let one more in.
            let _turn = turn;
            reads(gateway.as_ref())
        });
        // A join error is a panic in the store or the runtime going down: this call fails, others go on.
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a read for gRPC did not end");
            Err(ApiError::Storage)
        })
    }

    /// A rollup of this network, the system rollup included.
    pub(super) fn rollup(&self, id: u64) -> Result<RollupId, ApiError> {
        let rollup = RollupId(id);
        let known = self.gateway.info().rollups.iter().any(|manifest| manifest.id == rollup);
        (known || rollup == RollupId::SYSTEM).then_some(rollup).ok_or(ApiError::UnknownRollup(rollup))
    }

    /// A place for one more reading stream.
    pub(super) fn stream_slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let full = |_| ApiError::TooManyStreams { limit: self.limits.streams };
        self.streams.clone().try_acquire_owned().map_err(full)
    }

    /// A place for one more snapshot.
    pub(super) fn snapshot_slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let full = |_| ApiError::TooManyStreams { limit: self.limits.snapshots };
        self.snapshots.clone().try_acquire_owned().map_err(full)
    }

    /// A place for one more submitting stream.
    pub(super) fn submit_stream_slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let full = |_| ApiError::TooManyStreams { limit: self.limits.submit_streams };
        self.submit_streams.clone().try_acquire_owned().map_err(full)
    }
}

/// The manifest came from JSON, so it goes back into it; an empty field would say otherwise.
fn manifest_json(manifest: &RollupManifest) -> Bytes {
    serde_json::to_vec(manifest).unwrap_or_default().into()
}

/// Refuses a height above the tip.
pub(super) fn below_tip(gateway: &dyn Gateway, height: u64) -> Result<(), ApiError> {
    let tip = gateway.tip().borrow().height;
    if height > tip { Err(ApiError::AboveTip { height, tip }) } else { Ok(()) }
}

/// What the gateway must have because its tip says so.
pub(super) fn present<T>(value: Option<T>, what: &'static str, height: u64) -> Result<T, ApiError> {
    value.ok_or_else(|| {
        tracing::error!(what, height, "the store lacks what its tip promises");
        ApiError::Storage
    })
}

pub(super) fn block_ref(tip: HubTip) -> v1::BlockRef {
    v1::BlockRef { height: tip.height, hash: to_bytes(tip.hash), timestamp_ms: tip.timestamp_ms }
}

pub(super) fn block_segment(segment: SegmentAt) -> v1::BlockSegment {
    let SegmentAt { header, transactions, proof } = segment;
    ProvenSegment { header, transactions, proof }.into()
}
