//! What a run prints and writes.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// How many transactions came how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Handed to a server.
    pub sent: u64,
    /// Due, and held back since too many were open.
    pub unsent: u64,
    /// Accepted by a server.
    pub accepted: u64,
    /// Refused or dropped, with a reason.
    pub rejected: u64,
    /// Sent again after a passing refusal.
    pub retried: u64,
    /// In a final block.
    #[serde(rename = "final")]
    pub finalised: u64,
    /// Refused, and then in a final block after all.
    pub final_after_rejection: u64,
    /// Executed with success.
    pub executed: u64,
    /// Executed, and reverted.
    pub reverted: u64,
    /// In a final block and not executed, with a reason.
    pub skipped: u64,
    /// In the log or executed more than once.
    pub duplicate: u64,
    /// Neither as far as asked nor rejected when the run ended.
    pub unaccounted: u64,
}

/// A histogram of microseconds, up to ten minutes, exact to three digits.
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    #[allow(clippy::expect_used)]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are in order"))
    }
}

impl Latency {
    /// Adds one value.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Its quantiles.
    pub fn quantiles(&self) -> Quantiles {
        let ms = |us: u64| us as f64 / 1000.0;
        Quantiles {
            count: self.0.len(),
            p50_ms: ms(self.0.value_at_quantile(0.5)),
            p90_ms: ms(self.0.value_at_quantile(0.9)),
            p99_ms: ms(self.0.value_at_quantile(0.99)),
            max_ms: ms(self.0.max()),
        }
    }
}

/// From when a transaction was due to each step.
#[derive(Default)]
pub struct Latencies {
    /// To the server's acceptance.
    pub accepted: Latency,
    /// To the final block, as a subscriber sees it.
    pub finality: Latency,
    /// To the receipt, as a subscriber reads it.
    pub receipt: Latency,
}

/// Quantiles of a histogram, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Values.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Largest value.
    pub max_ms: f64,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many came how far.
    pub counts: Counts,
    /// Rejections by reason.
    pub rejections: BTreeMap<String, u64>,
    /// One message for each reason.
    pub rejection_examples: BTreeMap<String, String>,
    /// From due to accepted.
    pub accepted: Quantiles,
    /// From due to final.
    pub finality: Quantiles,
    /// From due to the receipt.
    pub receipt: Quantiles,
    /// From the first transaction's due time to the last final one.
    pub final_seconds: f64,
    /// Final transactions a second over that time.
    pub final_per_second: f64,
    /// Final megabytes (10^6 bytes of transactions) a second over that time.
    pub final_mb_per_second: f64,
    /// Receipts a second, from the first transaction's due time to the last receipt.
    pub receipts_per_second: f64,
}

fn per_second(amount: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { amount / seconds } else { 0.0 }
}

impl Report {
    pub(crate) fn new(
        counts: Counts,
        latencies: &Latencies,
        final_bytes: u64,
        final_seconds: f64,
        receipt_seconds: f64,
        rejections: BTreeMap<String, u64>,
        rejection_examples: BTreeMap<String, String>,
    ) -> Self {
        Self {
            counts,
            rejections,
            rejection_examples,
            accepted: latencies.accepted.quantiles(),
            finality: latencies.finality.quantiles(),
            receipt: latencies.receipt.quantiles(),
            final_seconds,
            final_per_second: per_second(counts.finalised as f64, final_seconds),
            final_mb_per_second: per_second(final_bytes as f64 / 1e6, final_seconds),
            receipts_per_second: per_second((counts.executed + counts.reverted) as f64, receipt_seconds),
        }
    }

    /// Whether every transaction that was sent is accounted for, once.
    pub fn accounted(&self) -> bool {
        self.counts.unaccounted == 0 && self.counts.duplicate == 0
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let c = &self.counts;
        let mut out =
            format!("sent {}  accepted {}  final {}  executed {}\n", c.sent, c.accepted, c.finalised, c.executed);
        let rare = [
            ("rejected", c.rejected),
            ("retried", c.retried),
            ("not sent in time", c.unsent),
            ("reverted", c.reverted),
            ("skipped", c.skipped),
            ("final after a rejection", c.final_after_rejection),
            ("MORE THAN ONCE", c.duplicate),
            ("UNACCOUNTED FOR", c.unaccounted),
        ];
        for (what, count) in rare.into_iter().filter(|(_, count)| *count > 0) {
            out.push_str(&format!("{what} {count}\n"));
        }
        for (reason, count) in &self.rejections {
            let example = self.rejection_examples.get(reason).map_or("", String::as_str);
            out.push_str(&format!("  rejected as {reason}: {count} (such as: {example})\n"));
        }
        out.push_str("ms            p50       p90       p99       max\n");
        for (name, q) in [("accepted", self.accepted), ("final", self.finality), ("receipt", self.receipt)] {
            if q.count > 0 {
                out.push_str(&format!(
                    "{name:<9}{:>9.1} {:>9.1} {:>9.1} {:>9.1}\n",
                    q.p50_ms, q.p90_ms, q.p99_ms, q.max_ms
                ));
            }
        }
        if c.finalised > 0 {
            out.push_str(&format!(
                "final: {:.2} MB/s, {:.0} transactions/s over {:.1} s\n",
                self.final_mb_per_second, self.final_per_second, self.final_seconds
            ));
        }
        if self.receipt.count > 0 {
            out.push_str(&format!("receipts: {:.0} transactions/s\n", self.receipts_per_second));
        }
        out
    }
}
