//! The stream of a rollup's segments: a cursor over the log that reads when it is asked for the next message.

use super::{
    ApiError,
    api::{Api, RUN_BLOCKS, block_segment, present},
};
use crate::{Gateway, HubTip, SegmentAt};
use futures::{StreamExt, stream, stream::BoxStream};
use std::{ops::RangeInclusive, sync::Arc, time::Duration};
use switchyard_primitives::{FinalityProof, RollupId};
use switchyard_proto::v1;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};
use tonic::Status;

/// Where a stream is in the log.
pub(super) struct Cursor {
    api: Arc<Api>,
    rollup: RollupId,
    /// The next height to read; none after the last.
    next: Option<u64>,
    last: u64,
    merge: bool,
    tip: watch::Receiver<HubTip>,
    _slot: OwnedSemaphorePermit,
}

/// Blocks read and not sent yet: at most one that holds something, and it ends the run.
#[derive(Default)]
struct Run {
    blocks: Vec<SegmentAt>,
    finality: Option<FinalityProof>,
    /// When to send it although it could grow.
    due: Option<Instant>,
}

impl Run {
    fn ends_with_something(&self) -> bool {
        self.blocks.last().is_some_and(|block| !block.transactions.is_empty())
    }

    fn is_full(&self, merge: bool) -> bool {
        self.blocks.len() >= if merge { RUN_BLOCKS } else { 1 }
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }
}

/// Reads blocks into the run until it must be sent, and the proof that its last one is final.
fn extend(
    gateway: &dyn Gateway,
    rollup: RollupId,
    mut run: Run,
    heights: Option<RangeInclusive<u64>>,
    merge: bool,
) -> Result<Run, ApiError> {
    for height in heights.into_iter().flatten() {
        if run.is_full(merge) || run.ends_with_something() {
            break;
        }
        run.blocks.push(present(gateway.segment(rollup, height)?, "segment", height)?);
    }
    run.finality = match run.blocks.last() {
        Some(block) => gateway.finality(block.header.height)?,
        None => None,
    };
    Ok(run)
}

impl Cursor {
    pub(super) fn new(
        api: Arc<Api>,
        rollup: RollupId,
        heights: RangeInclusive<u64>,
        merge: bool,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        let tip = api.gateway.tip();
        Self { api, rollup, next: Some(*heights.start()), last: *heights.end(), merge, tip, _slot: slot }
    }

    /// The next message: waits for blocks and for the certificate that proves them. None after the last height.
    async fn advance(&mut self) -> Result<Option<v1::StreamSegmentsResponse>, ApiError> {
        let mut run = Run::default();
        while self.next.is_some() || !run.blocks.is_empty() {
            let tip = self.tip.borrow_and_update().height.min(self.last);
            let heights = self.next.map(|next| next..=tip);
            let (rollup, merge) = (self.rollup, self.merge);
            run = self.api.read(move |gateway| extend(gateway, rollup, run, heights, merge)).await?;
            if let Some(block) = run.blocks.last() {
                self.next = block.header.height.checked_add(1).filter(|next| *next <= self.last);
                let merge_age = Duration::from_millis(self.api.limits.merge_ms);
                run.due.get_or_insert_with(|| Instant::now() + merge_age);
            }
            let complete = run.is_full(merge) || run.ends_with_something() || self.next.is_none() || run.is_due();
            if complete && let Some(finality) = &run.finality {
                let finality = Some(finality.into());
                let blocks = run.blocks.into_iter().map(block_segment).collect();
                return Ok(Some(v1::StreamSegmentsResponse { blocks, finality }));
            }
            self.wait(if complete { None } else { run.due }).await?;
        }
        Ok(None)
    }

    /// Waits for a new tip, or for `due`.
    async fn wait(&mut self, due: Option<Instant>) -> Result<(), ApiError> {
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.tip.changed() => changed.map_err(|_| ApiError::Stopping),
            () = self.api.shutdown.cancelled() => Err(ApiError::Stopping),
            () = due => Ok(()),
        }
    }
}

/// The cursor's messages, read as they are asked for. Ends after the last height, or with an error.
pub(super) fn stream(cursor: Cursor) -> BoxStream<'static, Result<v1::StreamSegmentsResponse, Status>> {
    stream::try_unfold(cursor, |mut cursor| async {
        if cursor.api.shutdown.is_cancelled() {
            return Err(ApiError::Stopping.into());
        }
        let message = cursor.advance().await?;
        Ok(message.map(|message| (message, cursor)))
    })
    .boxed()
}
