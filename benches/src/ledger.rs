//! What became of each transaction of a run. Every transaction that was sent stays open until it is accounted for:
//! rejected, or answered and as far as the run asks.

use crate::report::{Counts, Latencies, Report};
use alloy_primitives::B256;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::Notify;

/// Reasons that are told apart; further ones are counted as `other`.
const REASONS_MAX: usize = 64;

/// What a transaction has to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// A final hub block that holds it.
    pub finality: bool,
    /// Its execution receipt.
    pub receipt: bool,
}

/// A transaction that is not accounted for yet.
#[derive(Clone, Debug)]
pub struct Open {
    /// When it should have been sent: latencies count from here, so that a stalled server cannot hide its stall by
    /// delaying the sender (coordinated omission).
    pub due: Instant,
    /// Its length.
    pub bytes: u32,
    /// Its hash, where it is followed by hash.
    pub hash: Option<B256>,
    /// A server has accepted it.
    pub accepted: bool,
    /// A final block holds it.
    pub is_final: bool,
    /// It was executed.
    pub executed: bool,
}

impl Open {
    fn done(&self, goal: Goal) -> bool {
        self.accepted && (self.is_final || !goal.finality) && (self.executed || !goal.receipt)
    }
}

/// A set of small numbers: one bit each.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Adds `n`; false if it was in the set already.
    fn insert(&mut self, n: u64) -> bool {
        let (word, bit) = (usize::try_from(n / 64).unwrap_or(usize::MAX), 1 << (n % 64));
        if self.0.len() <= word {
            self.0.resize(word.saturating_add(1), 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }
}

struct Inner {
    open: HashMap<u64, Open>,
    by_hash: HashMap<B256, u64>,
    finals: Bits,
    counts: Counts,
    reasons: BTreeMap<String, u64>,
    examples: BTreeMap<String, String>,
    latencies: Latencies,
    final_bytes: u64,
    started: Option<Instant>,
    last_final: Option<Instant>,
    last_receipt: Option<Instant>,
}

/// The run's book. All methods are quick; clocks are passed in.
pub struct Ledger {
    goal: Goal,
    inner: Mutex<Inner>,
    closed: Notify,
}

impl Ledger {
    /// An empty book.
    pub fn new(goal: Goal) -> Self {
        let inner = Inner {
            open: HashMap::new(),
            by_hash: HashMap::new(),
            finals: Bits::default(),
            counts: Counts::default(),
            reasons: BTreeMap::new(),
            examples: BTreeMap::new(),
            latencies: Latencies::default(),
            final_bytes: 0,
            started: None,
            last_final: None,
            last_receipt: None,
        };
        Self { goal, inner: Mutex::new(inner), closed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction is about to be sent.
    pub fn sent(&self, seq: u64, due: Instant, bytes: usize, hash: Option<B256>) {
        let mut inner = self.lock();
        inner.counts.sent += 1;
        inner.started = Some(inner.started.map_or(due, |s| s.min(due)));
        if let Some(hash) = hash {
            inner.by_hash.insert(hash, seq);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let open = Open { due, bytes, hash, accepted: false, is_final: false, executed: false };
        inner.open.insert(seq, open);
    }

    /// Transactions that were due and not sent, since too many were open.
    pub fn unsent(&self, transactions: u64) {
        self.lock().counts.unsent += transactions;
    }

    /// A server has refused a transaction for a passing reason, and it will be sent again.
    pub fn retried(&self) {
        self.lock().counts.retried += 1;
    }

    /// A server has accepted it.
    pub fn accepted(&self, seq: u64, now: Instant) {
        let mut inner = self.lock();
        let Some(open) = inner.open.get_mut(&seq).filter(|open| !open.accepted) else { return };
        open.accepted = true;
        let due = open.due;
        inner.counts.accepted += 1;
        inner.latencies.accepted.record(now - due);
        self.close_if_done(inner, seq);
    }

    /// A server has refused it for good.
    pub fn rejected(&self, seq: u64, code: &str, message: &str) {
        let mut inner = self.lock();
        if !inner.open.contains_key(&seq) {
            return;
        }
        inner.counts.rejected += 1;
        let known = inner.reasons.contains_key(code) || inner.reasons.len() < REASONS_MAX;
        let code = if known { code } else { "other" };
        *inner.reasons.entry(code.to_string()).or_default() += 1;
        inner.examples.entry(code.to_string()).or_insert_with(|| message.to_string());
        self.close(inner, seq);
    }

    /// A final block holds transaction `seq` of this run.
    pub fn finalised(&self, seq: u64, now: Instant) {
        let mut inner = self.lock();
        if !inner.finals.insert(seq) {
            inner.counts.duplicate += 1;
            return;
        }
        let Some(open) = inner.open.get_mut(&seq) else {
            inner.counts.final_after_rejection += 1;
            return;
        };
        open.is_final = true;
        let (due, bytes) = (open.due, u64::from(open.bytes));
        inner.counts.finalised += 1;
        inner.final_bytes += bytes;
        inner.last_final = Some(now);
        inner.latencies.finality.record(now - due);
        self.close_if_done(inner, seq);
    }

    /// A final block holds the transaction with this hash; those of others are left out.
    pub fn finalised_hash(&self, hash: &B256, now: Instant) {
        let seq = self.lock().by_hash.get(hash).copied();
        if let Some(seq) = seq {
            self.finalised(seq, now);
        }
    }

    /// A receipt for the transaction with this hash exists.
    pub fn executed(&self, hash: &B256, success: bool, now: Instant) {
        let mut inner = self.lock();
        let Some(seq) = inner.by_hash.get(hash).copied() else { return };
        let Some(open) = inner.open.get_mut(&seq) else { return };
        if std::mem::replace(&mut open.executed, true) {
            inner.counts.duplicate += 1;
            return;
        }
        let due = open.due;
        *(if success { &mut inner.counts.executed } else { &mut inner.counts.reverted }) += 1;
        inner.last_receipt = Some(now);
        inner.latencies.receipt.record(now - due);
        self.close_if_done(inner, seq);
    }

    /// The log holds it, and its rollup's rules did not let it execute.
    pub fn skipped(&self, seq: u64) {
        let mut inner = self.lock();
        inner.counts.skipped += 1;
        self.close(inner, seq);
    }

    fn close_if_done(&self, inner: MutexGuard<'_, Inner>, seq: u64) {
        if inner.open.get(&seq).is_some_and(|o| o.done(self.goal)) {
            self.close(inner, seq);
        }
    }

    fn close(&self, mut inner: MutexGuard<'_, Inner>, seq: u64) {
        if let Some(Open { hash: Some(hash), .. }) = inner.open.remove(&seq) {
            inner.by_hash.remove(&hash);
        }
        drop(inner);
        self.closed.notify_waiters();
    }

    /// Number of open transactions.
    pub fn open(&self) -> usize {
        self.lock().open.len()
    }

    /// The open transactions.
    pub fn outstanding(&self) -> Vec<(u64, Open)> {
        self.lock().open.iter().map(|(seq, open)| (*seq, open.clone())).collect()
    }

    /// Waits until fewer than `limit` are open.
    pub async fn below(&self, limit: usize) {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            // Registered before the look, so that nothing is missed between the two.
            closed.as_mut().enable();
            if self.open() < limit {
                return;
            }
            closed.await;
        }
    }

    /// What there is to say at the end: whatever is open now is unaccounted for.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        let mut counts = inner.counts;
        counts.unaccounted = inner.open.len() as u64;
        let until = |end: Option<Instant>| {
            end.zip(inner.started).map_or(0.0, |(end, start)| end.saturating_duration_since(start).as_secs_f64())
        };
        Report::new(
            counts,
            &inner.latencies,
            inner.final_bytes,
            until(inner.last_final),
            until(inner.last_receipt),
            inner.reasons.clone(),
            inner.examples.clone(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FINAL: Goal = Goal { finality: true, receipt: false };
    const BOTH: Goal = Goal { finality: true, receipt: true };

    fn hash(n: u8) -> B256 {
        B256::repeat_byte(n)
    }

    #[test]
    fn a_transaction_closes_once_it_is_answered_and_final_in_either_order() {
        let now = Instant::now();
        for answer_first in [true, false] {
            let ledger = Ledger::new(FINAL);
            ledger.sent(0, now, 100, None);
            let answer = || ledger.accepted(0, now + Duration::from_millis(2));
            let finality = || ledger.finalised(0, now + Duration::from_millis(9));
            if answer_first {
                answer();
                assert_eq!(ledger.open(), 1);
                finality();
            } else {
                finality();
                assert_eq!(ledger.open(), 1);
                answer();
            }
            assert_eq!(ledger.open(), 0);
            let report = ledger.report();
            assert_eq!((report.counts.accepted, report.counts.finalised, report.counts.unaccounted), (1, 1, 0));
            assert!(report.accounted());
        }
    }

    #[test]
    fn what_is_neither_final_nor_rejected_is_unaccounted_for() {
        let ledger = Ledger::new(FINAL);
        let now = Instant::now();
        (0..3).for_each(|seq| ledger.sent(seq, now, 1, None));
        ledger.accepted(0, now);
        ledger.rejected(1, "pool_full", "mempool full");
        let report = ledger.report();
        assert_eq!(report.counts.unaccounted, 2, "one accepted and never final, one never answered");
        assert!(!report.accounted());
        assert_eq!(report.rejections["pool_full"], 1);
    }

    #[test]
    fn a_second_inclusion_is_a_failure_and_a_late_one_is_told_apart() {
        let ledger = Ledger::new(FINAL);
        let now = Instant::now();
        ledger.sent(0, now, 1, None);
        ledger.accepted(0, now);
        ledger.finalised(0, now);
        ledger.finalised(0, now);
        ledger.sent(1, now, 1, None);
        ledger.rejected(1, "not_replicated", "");
        ledger.finalised(1, now);
        let report = ledger.report();
        assert_eq!((report.counts.duplicate, report.counts.final_after_rejection), (1, 1));
        assert!(!report.accounted());
    }

    #[test]
    fn with_receipts_asked_for_finality_alone_does_not_close() {
        let ledger = Ledger::new(BOTH);
        let now = Instant::now();
        for (seq, n) in [(0, 1), (1, 2), (2, 3)] {
            ledger.sent(seq, now, 1, Some(hash(n)));
            ledger.accepted(seq, now);
            ledger.finalised_hash(&hash(n), now);
        }
        ledger.finalised_hash(&hash(9), now);
        assert_eq!(ledger.open(), 3);
        ledger.executed(&hash(1), true, now);
        ledger.executed(&hash(2), false, now);
        ledger.skipped(2);
        let counts = ledger.report().counts;
        assert_eq!((counts.executed, counts.reverted, counts.skipped, counts.unaccounted), (1, 1, 1, 0));
    }

    #[test]
    fn latencies_count_from_when_a_transaction_was_due() {
        let ledger = Ledger::new(FINAL);
        let due = Instant::now();
        ledger.sent(0, due, 1_000_000, None);
        ledger.accepted(0, due + Duration::from_millis(100));
        ledger.finalised(0, due + Duration::from_millis(500));
        let report = ledger.report();
        assert!((report.accepted.p50_ms - 100.0).abs() < 1.0, "{report:?}");
        assert!((report.finality.max_ms - 500.0).abs() < 1.0, "{report:?}");
        assert!((report.final_mb_per_second - 2.0).abs() < 0.1, "{report:?}");
    }

    #[tokio::test]
    async fn waiting_for_room_ends_when_one_closes() {
        let ledger = std::sync::Arc::new(Ledger::new(FINAL));
        let now = Instant::now();
        ledger.sent(0, now, 1, None);
        let waiting = tokio::spawn({
            let ledger = ledger.clone();
            async move { ledger.below(1).await }
        });
        tokio::task::yield_now().await;
        ledger.rejected(0, "x", "");
        waiting.await.unwrap();
    }
}
