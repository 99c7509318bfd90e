//! Opaque payloads over gRPC.

use crate::{
    follow::{Known, follow},
    ledger::{Goal, Ledger},
    load::{Load, settle},
    pace::{Pace, Pacer},
    payload::{PAYLOAD_BYTES_MIN, payload},
    report::Report,
    target::{CALL_TIMEOUT, Target},
};
use alloy_primitives::keccak256;
use bytes::Bytes;
use eyre::{Result, bail};
use std::{sync::Arc, time::Instant};
use switchyard_primitives::RollupId;
use switchyard_proto::v1::{SubmitRequest, SubmitResult, submit_result::Result as Answer};
use tokio::{
    task::JoinSet,
    time::{Duration, sleep, timeout},
};
use tonic::{Code, Request};

/// How long a batch waits after the mempool was full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Runs a load of payloads of `size` bytes, spread evenly over rollups and validators.
pub async fn run(target: Target, rollups: Vec<RollupId>, size: usize, load: Load) -> Result<Report> {
    let (batch_transactions, batch_bytes, transaction_bytes) = target.submit_limits();
    if size < PAYLOAD_BYTES_MIN || size > transaction_bytes {
        bail!("--size {size}: payloads have {PAYLOAD_BYTES_MIN} to {transaction_bytes} bytes on this network");
    }
    let batch = (batch_bytes / size).clamp(1, batch_transactions.max(1));
    let mark: u64 = rand::random();
    let ledger = Arc::new(Ledger::new(Goal { finality: true, receipt: false }));
    let mut followers = JoinSet::new();
    for rollup in &rollups {
        followers.spawn(follow(target.clone(), *rollup, target.tip() + 1, Known::Number(mark), ledger.clone()));
    }

    let mut calls = JoinSet::new();
    let mut validator = 0;
    let mut pacer = Pacer::start(load.pace, load.duration);
    while let Some(due) = pacer.due(&ledger).await {
        while calls.try_join_next().is_some() {}
        if ledger.open() + due.len() > load.open_max {
            ledger.unsent(due.len() as u64);
            continue;
        }
        for (slot, rollup) in rollups.iter().enumerate() {
            let mine = |seq: u64| seq % rollups.len() as u64 == slot as u64;
            let own: Vec<(u64, Bytes)> = due
                .iter()
                .filter(|(seq, _)| mine(*seq))
                .map(|(seq, at)| {
                    ledger.sent(*seq, *at, size, None);
                    (*seq, payload(mark, *seq, size))
                })
                .collect();
            for chunk in own.chunks(batch) {
                validator += 1;
                let batch = Batch {
                    target: target.clone(),
                    ledger: ledger.clone(),
                    rollup: *rollup,
                    retry_full_until: matches!(load.pace, Pace::Window(_)).then(|| Instant::now() + load.grace),
                    transactions: chunk.to_vec(),
                };
                calls.spawn(batch.submit(validator));
            }
        }
    }
    while calls.join_next().await.is_some() {}
    settle(&target, &ledger, load.grace, |seq, _| {
        let rollup = rollups[usize::try_from(seq).unwrap_or(0) % rollups.len()];
        (rollup, keccak256(payload(mark, seq, size)))
    })
    .await;
    Ok(ledger.report())
}

/// A batch on its way.
struct Batch {
    target: Target,
    ledger: Arc<Ledger>,
    rollup: RollupId,
    /// Send again what finds the mempool full until then; none in an open loop, where that is an answer like any other.
    retry_full_until: Option<Instant>,
    transactions: Vec<(u64, Bytes)>,
}

impl Batch {
    /// Submits; where a validator does not answer, submits to the next, which is safe since equal transactions are the
    /// same transaction.
    async fn submit(mut self, first: usize) {
        let mut silent = 0;
        while !self.transactions.is_empty() && silent < self.target.len() {
            let request = Request::new(SubmitRequest {
                rollup_id: self.rollup.0,
                transactions: self.transactions.iter().map(|(_, payload)| payload.clone()).collect(),
            });
            let mut client = self.target.sequencer(first + silent);
            match timeout(CALL_TIMEOUT, client.submit(request)).await {
                Ok(Ok(response)) => {
                    self.answered(response.into_inner().results, silent > 0);
                    if !self.transactions.is_empty() {
                        self.ledger.retried();
                        sleep(FULL_PAUSE).await;
                    }
                }
                Ok(Err(status)) if refused(status.code()) => {
                    let code = format!("grpc_{:?}", status.code());
                    self.transactions.iter().for_each(|(seq, _)| self.ledger.rejected(*seq, &code, status.message()));
                    return;
                }
                Ok(Err(_)) | Err(_) => {
                    self.ledger.retried();
                    silent += 1;
                }
            }
        }
    }

    /// Notes the results and keeps what is to be sent again.
    fn answered(&mut self, results: Vec<SubmitResult>, sent_before: bool) {
        let now = Instant::now();
        let mut again = Vec::new();
        let retry_full = self.retry_full_until.is_some_and(|until| now < until);
        for ((seq, payload), result) in self.transactions.drain(..).zip(results) {
            match result.result {
                Some(Answer::Hash(_)) => self.ledger.accepted(seq, now),
                Some(Answer::Rejection(r)) if sent_before && r.code.starts_with("already_") => {
                    self.ledger.accepted(seq, now);
                }
                Some(Answer::Rejection(r)) if retry_full && r.code == "pool_full" => again.push((seq, payload)),
                Some(Answer::Rejection(r)) => self.ledger.rejected(seq, &r.code, &r.message),
                None => {}
            }
        }
        self.transactions = again;
    }
}

/// The server has understood the call and will not take it.
fn refused(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::NotFound | Code::ResourceExhausted | Code::OutOfRange)
}
