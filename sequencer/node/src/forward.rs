//! A follower's way in for transactions: to a validator, whose answer is passed on.
//!
//! What a validator has accepted is put into this node's mempool too, where nothing is taken from: so this node knows the
//! transaction's level, and the sender's next nonce, until the block that holds it arrives.

use crate::{
    metrics::{Metrics, Via},
    sync::{Source, Sources, fault::Fault},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use switchyard_bridge_core::SignedBundle;
use switchyard_mempool::{Mempool, Origin};
use switchyard_primitives::{B256, Bytes, RollupId, TxHash, TxKey};
use switchyard_proto::{hash, v1};
use switchyard_rollup_core::{BundleRefusal, Rejection};
use switchyard_store::Store;
use tokio::sync::{Semaphore, broadcast};
use v1::submit_result::Result as Answer;

/// Submissions that wait for validators at a time; more are refused.
const IN_FLIGHT_MAX: usize = 256;
/// Validators that are tried for one submission.
const TRIES: usize = 3;
/// How long one may take: more than it waits for its own quorum.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Hashes that a slow subscriber of pending transactions may be behind.
const PENDING_FEED: usize = 4096;
/// A validator's word for what it holds, and others may.
const NOT_REPLICATED: &str = "not_replicated";
/// How often transactions that wait too long are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(1);

/// The way to the validators.
pub struct Forward {
    sources: Arc<Sources>,
    mempool: Arc<Mempool>,
    store: Arc<dyn Store>,
    feeds: HashMap<RollupId, broadcast::Sender<TxHash>>,
    slots: Semaphore,
    /// The one that answered last: a sender's transactions go one way as long as they can.
    last: Mutex<Weak<Source>>,
    metrics: Arc<Metrics>,
}

impl Forward {
    /// The way to those of `sources` that take submissions.
    pub fn new(
        sources: Arc<Sources>,
        mempool: Arc<Mempool>,
        store: Arc<dyn Store>,
        rollups: Vec<RollupId>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let feeds = rollups.into_iter().map(|rollup| (rollup, broadcast::channel(PENDING_FEED).0)).collect();
        let (slots, last) = (Semaphore::new(IN_FLIGHT_MAX), Mutex::default());
        Arc::new(Self { sources, mempool, store, feeds, slots, last, metrics })
    }

    /// Accepted hashes of a rollup.
    pub fn subscribe(&self, rollup: RollupId) -> broadcast::Receiver<TxHash> {
        self.feeds.get(&rollup).map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe)
    }

    /// Hands transactions to a validator; answers what it answers.
    pub async fn submit(&self, rollup: RollupId, payloads: Vec<Bytes>) -> Vec<Result<TxHash, Rejection>> {
        let results = match self.slots.try_acquire() {
            Ok(_slot) => self.try_validators(rollup, &payloads).await,
            Err(_) => Err(Rejection::Unavailable("too many submissions wait for a validator")),
        };
        let results = results.unwrap_or_else(|rejection| vec![Err(rejection); payloads.len()]);
        for rejection in results.iter().filter_map(|result| result.as_ref().err()) {
            self.metrics.rejected(rejection.code(), Via::Local);
        }
        self.keep(rollup, payloads, &results).await;
        results
    }

    async fn try_validators(
        &self,
        rollup: RollupId,
        payloads: &[Bytes],
    ) -> Result<Vec<Result<TxHash, Rejection>>, Rejection> {
        for validator in self.validators() {
            // A second try is safe: a validator that holds the transaction already says so.
            match offer(&validator, rollup, payloads).await {
                Ok(results) => {
                    *self.last.lock() = Arc::downgrade(&validator);
                    return Ok(results);
                }
                Err(fault) => self.sources.leave_alone(&validator, &fault),
            }
        }
        Err(Rejection::Unavailable("no validator answers"))
    }

    /// Whom to offer something, the one that answered last first.
    fn validators(&self) -> Vec<Arc<Source>> {
        let mut validators = self.sources.entries();
        if let Some(last) = self.last.lock().upgrade()
            && let Some(at) = validators.iter().position(|source| Arc::ptr_eq(source, &last))
        {
            validators.swap(0, at);
        }
        validators.truncate(TRIES);
        validators
    }

    /// Hands a bundle to a validator; answers what it answers.
    pub async fn submit_bundle(&self, bundle: Arc<SignedBundle>) -> Result<B256, BundleRefusal> {
        let result = match self.slots.try_acquire() {
            Ok(_slot) => self.try_validators_with_bundle(&bundle).await,
            Err(_) => Err(BundleRefusal::Unavailable("too many submissions wait for a validator")),
        };
        if let Err(refusal) = &result {
            self.metrics.bundle_refused(refusal.code());
        }
        self.note_bundle(bundle, &result).await;
        result
    }

    /// Remembers what a validator has said of a bundle, as far as that is certain.
    async fn note_bundle(&self, bundle: Arc<SignedBundle>, result: &Result<B256, BundleRefusal>) {
        match result {
            Err(refusal) if !refusal.may_still_happen() => self.mempool.refuse_bundle(bundle.id(), refusal.clone()),
            // Whether a validator has it is not known.
            Err(refusal) if refusal.code() != NOT_REPLICATED => {}
            _ => {
                let mempool = self.mempool.clone();
                let work = tokio::task::spawn_blocking(move || mempool.keep_bundle(&bundle, Instant::now()));
                if let Err(error) = work.await {
                    tracing::error!(%error, "an accepted bundle is not shown as waiting");
                }
            }
        }
    }

    async fn try_validators_with_bundle(&self, bundle: &SignedBundle) -> Result<B256, BundleRefusal> {
        for validator in self.validators() {
            match offer_bundle(&validator, bundle).await {
                Ok(result) => {
                    *self.last.lock() = Arc::downgrade(&validator);
                    return result;
                }
                Err(fault) => self.sources.leave_alone(&validator, &fault),
            }
        }
        Err(BundleRefusal::Unavailable("no validator answers"))
    }

    /// Remembers what was accepted, or waits at too few validators, until it is final here.
    async fn keep(&self, rollup: RollupId, payloads: Vec<Bytes>, results: &[Result<TxHash, Rejection>]) {
        let waits = |result: &Result<_, Rejection>| result.as_ref().err().is_none_or(|e| e.code() == NOT_REPLICATED);
        let accepted = payloads.into_iter().zip(results).filter(|(_, result)| waits(result));
        let accepted: Vec<Bytes> = accepted.map(|(payload, _)| payload).collect();
        let (mempool, store) = (self.mempool.clone(), self.store.clone());
        let work = tokio::task::spawn_blocking(move || {
            for payload in &accepted {
                // By this node's state, which may be behind the validator's, it can look as if it were of no use.
                let Ok(checked) = mempool.check(rollup, payload) else { continue };
                let key = checked.key();
                let known = mempool.insert(checked, Origin::Forwarded, Instant::now());
                if let (Ok(_), Ok(Some((height, _)))) = (known, store.locate(key)) {
                    mempool.forget(&key, Rejection::AlreadyFinal { hash: key.hash, height });
                }
            }
        });
        if let Err(error) = work.await {
            tracing::error!(%error, "an accepted transaction is not shown as waiting");
        }
        if let Some(feed) = self.feeds.get(&rollup) {
            for hash in results.iter().filter_map(|result| result.as_ref().ok()) {
                // Nobody may be listening.
                let _ = feed.send(*hash);
            }
        }
    }

    /// Drops what waits too long. Never returns.
    pub async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(EXPIRE_INTERVAL);
        loop {
            tick.tick().await;
            let mempool = self.mempool.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || mempool.expire(Instant::now())).await {
                tracing::error!(%error, "waiting transactions are not looked at");
            }
        }
    }
}

/// Offers transactions to one validator. A refusal of the whole batch is one of each transaction.
async fn offer(
    validator: &Source,
    rollup: RollupId,
    payloads: &[Bytes],
) -> Result<Vec<Result<TxHash, Rejection>>, Fault> {
    let transactions = payloads.iter().map(|payload| payload.0.clone()).collect();
    let mut client = validator.sequencer();
    let request = v1::SubmitRequest { rollup_id: rollup.0, transactions };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.submit(request)).await;
    let answer = answer.map_err(|_| Fault::slow("Submit", ANSWER_TIMEOUT))?;
    let results = match answer {
        Ok(answer) => answer.into_inner().results,
        Err(status) if status.code() == tonic::Code::InvalidArgument => {
            let message = status.message().chars().take(MESSAGE_CHARS_MAX).collect();
            return Ok(vec![Err(Rejection::passed_on("malformed", message)); payloads.len()]);
        }
        Err(status) => return Err(status.into()),
    };
    if results.len() != payloads.len() {
        return Err(Fault::bad("garbage", format!("{} answers to {} transactions", results.len(), payloads.len())));
    }
    payloads.iter().zip(results).map(|(payload, result)| judge(TxKey::of(rollup, payload).hash, result)).collect()
}

async fn offer_bundle(validator: &Source, bundle: &SignedBundle) -> Result<Result<B256, BundleRefusal>, Fault> {
    let request = switchyard_bridge_client::submit_request(bundle);
    let mut client = validator.bridge();
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.submit_bundle(request)).await;
    let answer = answer.map_err(|_| Fault::slow("SubmitBundle", ANSWER_TIMEOUT))?;
    match answer.map_err(Fault::from)?.into_inner().result {
        Some(v1::submit_bundle_response::Result::Id(bytes)) => {
            let (found, expected) = (hash("id", &bytes)?, bundle.id());
            if found == expected {
                Ok(Ok(found))
            } else {
                Err(Fault::bad("garbage", format!("accepted {found} where {expected} was sent")))
            }
        }
        Some(v1::submit_bundle_response::Result::Refusal(refusal)) => {
            let message = refusal.message.chars().take(MESSAGE_CHARS_MAX).collect();
            Ok(Err(BundleRefusal::passed_on(&refusal.code, message)))
        }
        None => Err(Fault::bad("garbage", "neither an id nor a reason")),
    }
}

/// Longest reason that is passed on.
const MESSAGE_CHARS_MAX: usize = 512;

fn judge(expected: TxHash, result: v1::SubmitResult) -> Result<Result<TxHash, Rejection>, Fault> {
    match result.result {
        Some(Answer::Hash(bytes)) => {
            let found = hash("results.hash", &bytes)?;
            if found == expected {
                Ok(Ok(found))
            } else {
                Err(Fault::bad("garbage", format!("accepted {found} where {expected} was sent")))
            }
        }
        Some(Answer::Rejection(rejection)) => {
            let message = rejection.message.chars().take(MESSAGE_CHARS_MAX).collect();
            Ok(Err(Rejection::passed_on(&rejection.code, message)))
        }
        None => Err(Fault::bad("garbage", "neither a hash nor a reason")),
    }
}

#[cfg(test)]
mod tests;
