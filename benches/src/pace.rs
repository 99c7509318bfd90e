//! When transactions are due.

use crate::ledger::Ledger;
use std::time::{Duration, Instant};

/// Above this rate transactions are handed out in groups, one each [`TICK`]: a timer for each would cost more than the
/// sending. Their latencies still count from each one's own time.
const SINGLE_RATE_MAX: f64 = 200.0;
const TICK: Duration = Duration::from_millis(5);
/// Transactions handed out at once when the rate is as high as it goes.
const GROUP: u64 = 128;

/// How a run is paced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Open loop: this many a second, whatever the answers.
    Rate(f64),
    /// As fast as this many open transactions allow.
    Window(usize),
}

/// Hands out transactions' numbers when they are due.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    start: Instant,
    duration: Duration,
    next: u64,
    woken: Instant,
}

impl Pacer {
    /// A run that begins now.
    pub fn start(pace: Pace, duration: Duration) -> Self {
        let now = Instant::now();
        Self { pace, start: now, duration, next: 0, woken: now }
    }

    /// Number of transactions that a run at a fixed rate has.
    pub fn total(pace: Pace, duration: Duration) -> Option<u64> {
        match pace {
            // Rates and durations are far from where a float loses whole numbers.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Pace::Rate(rate) => Some((rate * duration.as_secs_f64()).round() as u64),
            Pace::Window(_) => None,
        }
    }

    /// The next transactions that are due, with their times: none when the run is over.
    pub async fn due(&mut self, ledger: &Ledger) -> Option<Vec<(u64, Instant)>> {
        match self.pace {
            Pace::Rate(rate) => self.due_at_rate(rate).await,
            Pace::Window(window) => {
                let end = self.start + self.duration;
                tokio::select! {
                    () = ledger.below(window) => {}
                    () = tokio::time::sleep_until(end.into()) => return None,
                }
                let now = Instant::now();
                let room = window.saturating_sub(ledger.open()) as u64;
                (now < end).then(|| self.take(room.clamp(1, GROUP), |_| now))
            }
        }
    }

    async fn due_at_rate(&mut self, rate: f64) -> Option<Vec<(u64, Instant)>> {
        let total = Self::total(self.pace, self.duration).unwrap_or(0);
        if self.next >= total {
            return None;
        }
        let start = self.start;
        let at = |seq: u64| start + Duration::from_secs_f64(seq as f64 / rate);
        let wake = if rate > SINGLE_RATE_MAX { at(self.next).max(self.woken + TICK) } else { at(self.next) };
        tokio::time::sleep_until(wake.into()).await;
        self.woken = Instant::now();
        let mut count = 1;
        while self.next + count < total && at(self.next + count) <= self.woken {
            count += 1;
        }
        Some(self.take(count, at))
    }

    fn take(&mut self, count: u64, at: impl Fn(u64) -> Instant) -> Vec<(u64, Instant)> {
        let first = self.next;
        self.next += count;
        (first..self.next).map(|seq| (seq, at(seq))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Goal;

    fn ledger() -> Ledger {
        Ledger::new(Goal { finality: true, receipt: false })
    }

    async fn all(mut pacer: Pacer) -> Vec<(u64, Duration)> {
        let (ledger, mut all) = (ledger(), Vec::new());
        let start = pacer.start;
        while let Some(due) = pacer.due(&ledger).await {
            all.extend(due.into_iter().map(|(seq, at)| (seq, at - start)));
        }
        all
    }

    #[tokio::test]
    async fn each_transaction_is_due_once_at_its_own_time_at_any_rate() {
        for rate in [100.0, 20_000.0] {
            let duration = Duration::from_millis(50);
            let due = all(Pacer::start(Pace::Rate(rate), duration)).await;
            assert_eq!(due.len() as u64, Pacer::total(Pace::Rate(rate), duration).unwrap());
            for (n, (seq, at)) in due.iter().enumerate() {
                assert_eq!(*seq, n as u64);
                assert!((at.as_secs_f64() - n as f64 / rate).abs() < 1e-6);
            }
        }
    }

    #[tokio::test]
    async fn a_full_window_hands_out_nothing_until_the_run_ends() {
        let ledger = ledger();
        let mut pacer = Pacer::start(Pace::Window(3), Duration::from_millis(20));
        let due = pacer.due(&ledger).await.unwrap();
        assert_eq!(due.len(), 3);
        due.iter().for_each(|(seq, at)| ledger.sent(*seq, *at, 1, None));
        assert_eq!(pacer.due(&ledger).await, None);
    }
}
