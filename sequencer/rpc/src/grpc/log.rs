//! The streams of proofs of finality and of whole blocks: a cursor over the log that reads when it is asked for the next
//! message.

use super::{
    ApiError,
    api::{Api, present},
};
use crate::{BlockAt, Gateway, HubTip};
use futures::{StreamExt, stream, stream::BoxStream};
use std::{ops::RangeInclusive, sync::Arc};
use switchyard_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

/// Reads the message that begins at a height, which is not above the tip, and says which height comes after it. None while
/// there is no such message yet.
type Read<T> = fn(&dyn Gateway, u64) -> Result<Option<(T, u64)>, ApiError>;

/// As many headers as one certificate covers.
pub(super) fn finality(
    gateway: &dyn Gateway,
    from: u64,
) -> Result<Option<(v1::StreamFinalityResponse, u64)>, ApiError> {
    let Some(proof) = gateway.finality_run(from)? else { return Ok(None) };
    let count = proof.headers.len() as u64;
    Ok(Some((v1::StreamFinalityResponse { finality: Some((&proof).into()) }, from.saturating_add(count))))
}

/// One block.
pub(super) fn block(gateway: &dyn Gateway, height: u64) -> Result<Option<(v1::StreamBlocksResponse, u64)>, ApiError> {
    let BlockAt { block, certificate } = present(gateway.block(height)?, "block", height)?;
    let certificate = certificate.map(|certificate| certificate.encode().into()).unwrap_or_default();
    Ok(Some((v1::StreamBlocksResponse { block: block.0, certificate }, height.saturating_add(1))))
}

/// Where a stream is in the log.
struct Cursor<T> {
    api: Arc<Api>,
    next: u64,
    last: u64,
    tip: watch::Receiver<HubTip>,
    read: Read<T>,
    _slot: OwnedSemaphorePermit,
}

impl<T: Send + 'static> Cursor<T> {
    /// The next message: waits until there is one. None after the last height.
    async fn advance(&mut self) -> Result<Option<T>, ApiError> {
        while self.next <= self.last {
            if self.api.shutdown.is_cancelled() {
                return Err(ApiError::Stopping);
            }
            let (tip, next, read) = (self.tip.borrow_and_update().height, self.next, self.read);
            if next <= tip
                && let Some((message, next)) = self.api.read(move |gateway| read(gateway, next)).await?
            {
                // Nothing is above the highest height there can be.
                let ended = next <= self.next;
                (self.next, self.last) = if ended { (1, 0) } else { (next, self.last) };
                return Ok(Some(message));
            }
            tokio::select! {
                changed = self.tip.changed() => changed.map_err(|_| ApiError::Stopping)?,
                () = self.api.shutdown.cancelled() => return Err(ApiError::Stopping),
            }
        }
        Ok(None)
    }
}

/// The messages of `heights`, read as they are asked for. Ends after the last height, or with an error.
pub(super) fn stream<T: Send + 'static>(
    api: Arc<Api>,
    heights: RangeInclusive<u64>,
    slot: OwnedSemaphorePermit,
    read: Read<T>,
) -> BoxStream<'static, Result<T, Status>> {
    let tip = api.gateway.tip();
    let cursor = Cursor { api, next: *heights.start(), last: *heights.end(), tip, read, _slot: slot };
    stream::try_unfold(cursor, |mut cursor| async {
        let message = cursor.advance().await?;
        Ok(message.map(|message| (message, cursor)))
    })
    .boxed()
}
