//! The stream of a rollup's snapshot: written on a thread of its own as fast as the client takes it.

use super::{ApiError, api::Api};
use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};
use switchyard_proto::v1;
use switchyard_rollup_core::evm::{EvmChain, EvmError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

/// Bytes in one message.
const PIECE_BYTES: usize = 256 << 10;
/// Messages that wait for the client.
const PIECES: usize = 4;

type Piece = Result<v1::StreamSnapshotResponse, Status>;

/// Hands what is written to the stream; fails once nobody reads it any more.
struct Pieces {
    piece: Vec<u8>,
    out: mpsc::Sender<Piece>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES)));
        let message = Ok(v1::StreamSnapshotResponse { piece });
        self.out.blocking_send(message).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

/// The file's pieces. Ends after the last one, or with an error.
pub(super) fn stream(api: &Api, chain: Arc<dyn EvmChain>, slot: OwnedSemaphorePermit) -> BoxStream<'static, Piece> {
    let (out, pieces) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let _slot = slot;
        let mut writer = Pieces { piece: Vec::with_capacity(PIECE_BYTES), out: out.clone() };
        if let Err(error) = chain.write_snapshot(&mut writer) {
            let error = match error {
                EvmError::Busy(reason) => Status::unavailable(reason),
                // Where the client has gone this reaches nobody.
                error => {
                    tracing::debug!(%error, "a snapshot was not finished");
                    ApiError::Storage.into()
                }
            };
            let _ = out.blocking_send(Err(error));
        }
    });
    let deadline = Duration::from_millis(api.limits.snapshot_ms);
    let ended = api.shutdown.clone();
    let end = async move {
        tokio::select! {
            () = ended.cancelled() => {}
            () = tokio::time::sleep(deadline) => {}
        }
    };
    stream::unfold(pieces, |mut pieces| async { pieces.recv().await.map(|piece| (piece, pieces)) })
        .take_until(end)
        .boxed()
}
