//! `SequencerService`: submissions and their status.

use super::{
    ApiError,
    api::Api,
    error::describe,
    watch::{self, Target, Watch},
};
use crate::TxStatus;
use futures::{StreamExt, future, stream, stream::BoxStream};
use std::{sync::Arc, time::Duration};
use switchyard_primitives::{Bytes, Level, TxHash, TxKey};
use switchyard_proto::{ConvertError, hash, level, to_bytes, v1};
use switchyard_rollup_core::{Rejection, TxOutcome};
use tonic::{Request, Response, Status, Streaming};

/// Batches of one stream that wait for their answers at a time; the next is not read before one of them is answered.
const BATCHES_IN_FLIGHT: usize = 4;
const WATCH_MS_DEFAULT: u32 = 60_000;
const WATCH_MS_MAX: u32 = 600_000;

#[tonic::async_trait]
impl v1::sequencer_service_server::SequencerService for Api {
    async fn submit(
        self: Arc<Self>,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let results = self.submit_batch(request.into_inner()).await?;
        Ok(Response::new(v1::SubmitResponse { results }))
    }

    type SubmitStreamStream = BoxStream<'static, Result<v1::SubmitStreamResponse, Status>>;

    async fn submit_stream(
        self: Arc<Self>,
        request: Request<Streaming<v1::SubmitStreamRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let slot = self.submit_stream_slot()?;
        let shutdown = self.shutdown.clone();
        let stopping = self.shutdown.clone();
        let answers = request
            .into_inner()
            .take_until(shutdown.cancelled_owned())
            .map(move |message| {
                let api = self.clone();
                async move {
                    let missing = ConvertError::Missing { field: "batch" };
                    let batch = message.map_err(describe)?.batch.ok_or_else(|| ApiError::from(missing))?;
                    let results = api.submit_batch(batch).await?;
                    Ok(v1::SubmitStreamResponse { results })
                }
            })
            .buffered(BATCHES_IN_FLIGHT);
        let end = stream::once(async move {
            let _slot = slot;
            stopping.is_cancelled().then(|| Err(ApiError::Stopping.into()))
        });
        Ok(Response::new(answers.chain(end.filter_map(future::ready)).boxed()))
    }

    async fn get_transaction_status(
        self: Arc<Self>,
        request: Request<v1::GetTransactionStatusRequest>,
    ) -> Result<Response<v1::GetTransactionStatusResponse>, Status> {
        let request = request.into_inner();
        let key = self.key(request.rollup_id, &request.hash)?;
        let status = self.read(move |gateway| Ok(gateway.status(key)?)).await?;
        Ok(Response::new(v1::GetTransactionStatusResponse { status: Some(wire_status(status)) }))
    }

    type WatchTransactionStream = BoxStream<'static, Result<v1::WatchTransactionResponse, Status>>;

    async fn watch_transaction(
        self: Arc<Self>,
        request: Request<v1::WatchTransactionRequest>,
    ) -> Result<Response<Self::WatchTransactionStream>, Status> {
        let request = request.into_inner();
        let key = self.key(request.rollup_id, &request.hash)?;
        let level = match level("until", request.until).map_err(ApiError::from)?.unwrap_or(Level::Final) {
            level @ (Level::Attested | Level::Settled) => return Err(ApiError::LevelUnavailable { level }.into()),
            level => level,
        };
        if request.until_outcome && self.gateway.evm(key.rollup).is_none() {
            return Err(ApiError::NotExecutedHere(key.rollup).into());
        }
        let timeout = watch_timeout(request.timeout_ms)?;
        let slot = self.stream_slot()?;
        let target = Target { level, outcome: request.until_outcome };
        let watch = Watch::new(self, key, target, timeout, slot);
        Ok(Response::new(watch::stream(watch)))
    }
}

impl Api {
    fn key(&self, rollup_id: u64, tx_hash: &[u8]) -> Result<TxKey, ApiError> {
        Ok(TxKey { rollup: self.rollup(rollup_id)?, hash: hash("hash", tx_hash)? })
    }

    async fn submit_batch(&self, batch: v1::SubmitRequest) -> Result<Vec<v1::SubmitResult>, ApiError> {
        let field = |description| ApiError::Field { field: "transactions", description };
        let rollup = self.rollup(batch.rollup_id)?;
        let (count, count_max) = (batch.transactions.len(), self.limits.submit_transactions);
        if count == 0 || count > count_max {
            return Err(field(format!("{count} transactions, must be between 1 and {count_max}")));
        }
        let (bytes, bytes_max) = (batch.transactions.iter().map(|tx| tx.len()).sum::<usize>(), self.submit_bytes());
        if bytes > bytes_max {
            return Err(field(format!("{bytes} bytes are above the limit of {bytes_max}")));
        }
        let payloads = batch.transactions.into_iter().map(Bytes).collect();
        let results = self.gateway.submit(rollup, payloads).await;
        Ok(results.into_iter().map(wire_result).collect())
    }
}

fn wire_result(result: Result<TxHash, Rejection>) -> v1::SubmitResult {
    let result = match result {
        Ok(hash) => v1::submit_result::Result::Hash(to_bytes(hash)),
        Err(rejection) => v1::submit_result::Result::Rejection(wire_rejection(&rejection)),
    };
    v1::SubmitResult { result: Some(result) }
}

fn wire_rejection(rejection: &Rejection) -> v1::Rejection {
    wire_reason(rejection.code(), rejection)
}

/// Why something is refused: its word, and the reason with its values.
pub(super) fn wire_reason(code: &str, reason: &impl ToString) -> v1::Rejection {
    v1::Rejection { code: code.to_owned(), message: reason.to_string() }
}

/// How long a client wants to watch something.
pub(super) fn watch_timeout(timeout_ms: u32) -> Result<Duration, ApiError> {
    match timeout_ms {
        0 => Ok(Duration::from_millis(WATCH_MS_DEFAULT.into())),
        ms if ms <= WATCH_MS_MAX => Ok(Duration::from_millis(ms.into())),
        ms => {
            let description = format!("{ms} is above the limit of {WATCH_MS_MAX}");
            Err(ApiError::Field { field: "timeout_ms", description })
        }
    }
}

pub(super) fn wire_status(status: TxStatus) -> v1::TransactionStatus {
    use v1::transaction_status::Outcome;
    let outcome = status.outcome.map(|outcome| match outcome {
        TxOutcome::Executed { block, index, success } => Outcome::Executed(v1::Executed { block, index, success }),
        TxOutcome::Skipped { reason } => Outcome::Skipped(v1::Skipped { reason }),
    });
    v1::TransactionStatus {
        level: status.level.map_or(v1::Level::Unspecified, v1::Level::from).into(),
        included: status.included.map(|(height, index)| v1::Inclusion { height, index }),
        outcome,
        rejection: status.rejection.as_ref().map(wire_rejection),
    }
}
