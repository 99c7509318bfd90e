//! What the node counts. Names are part of the interface: `docs/metrics.md` lists them.

use crate::clock::ClockWatch;
use crate::signer::SignerMetrics;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use switchyard_primitives::RollupId;

/// A rollup, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RollupLabel {
    /// Its id.
    pub rollup: u64,
}

impl From<RollupId> for RollupLabel {
    fn from(id: RollupId) -> Self {
        Self { rollup: id.0 }
    }
}

/// A fixed word, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The word.
    pub reason: &'static str,
}

/// How a submission reached the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Via {
    /// A client of this node.
    Local,
    /// Another validator.
    Gossip,
}

/// A refused transaction's labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectionLabel {
    /// [`switchyard_rollup_core::Rejection::code`].
    pub reason: &'static str,
    /// How it came.
    pub via: Via,
}

/// The node's own metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: parking_lot::Mutex<Registry>,
    clock: parking_lot::Mutex<ClockWatch>,
    /// Durable final height.
    pub height: Gauge,
    /// View of the newest finalisation.
    pub view: Gauge,
    /// The epoch that runs.
    pub epoch: Gauge,
    /// This validator's seats in it.
    pub seats: Gauge,
    /// The protocol version that the next block follows.
    pub protocol: Gauge,
    /// The newest protocol version that this program knows.
    pub protocol_known: Gauge,
    /// The protocol version that is decided to begin later; 0 for none.
    pub protocol_decided: Gauge,
    /// Seats whose validators know that version; where none is decided, the newest that this program knows.
    pub protocol_seats: Gauge,
    /// Connected validators.
    pub peers: Gauge,
    /// Whether this validator votes: 0 while it listens at its start for another machine with its key.
    pub voting: Gauge,
    /// What came of asking the remote signer.
    pub signer: SignerMetrics,
    /// Validators of a quorum, this one included.
    pub quorum: Gauge,
    /// From a block's timestamp (its leader's clock) to its finality here, in seconds.
    pub finality_seconds: Histogram,
    /// Final blocks.
    pub blocks: Counter,
    /// Transactions in final blocks, by rollup.
    pub transactions: Family<RollupLabel, Counter>,
    /// Bytes of transactions in final blocks, by rollup.
    pub segment_bytes: Family<RollupLabel, Counter>,
    /// Hub blocks that a rollup's execution is behind.
    pub execution_lag: Family<RollupLabel, Gauge>,
    /// Newest block of a rollup.
    pub rollup_height: Family<RollupLabel, Gauge>,
    /// Transactions of final blocks that execution skipped, by rollup.
    pub skipped: Family<RollupLabel, Counter>,
    /// Waiting transactions, by rollup.
    pub mempool_transactions: Family<RollupLabel, Gauge>,
    /// Bytes of waiting transactions, by rollup.
    pub mempool_bytes: Family<RollupLabel, Gauge>,
    /// Refused submissions.
    pub rejections: Family<RejectionLabel, Counter>,
    /// Waiting bundles.
    pub mempool_bundles: Gauge,
    /// Bundles that users of this node offered and that were refused, by reason.
    pub bundles_refused: Family<ReasonLabel, Counter>,
    /// Newest certified block of a rollup that is as it was computed here.
    pub certified_height: Family<RollupLabel, Gauge>,
    /// 1 for a rollup of which something else was certified than was computed here.
    pub diverged: Family<RollupLabel, Gauge>,
    /// 1 for a rollup of which nothing may be settled.
    pub held: Family<RollupLabel, Gauge>,
    /// Attestations of operators that were not taken, by reason.
    pub attestations_refused: Family<ReasonLabel, Counter>,
    /// Proposals of others that this validator did not vote for, by rule.
    pub invalid_blocks: Family<ReasonLabel, Counter>,
    /// Provable misbehaviour seen, by kind.
    pub faults: Family<ReasonLabel, Counter>,
    /// Malformed messages from other validators, by kind.
    pub gossip_malformed: Family<ReasonLabel, Counter>,
    /// Gossip messages that were dropped because a queue was full.
    pub gossip_dropped: Counter,
    /// The least of the newest final blocks' ages when they were final here, by this node's clock, in milliseconds: below
    /// zero where this clock is behind their leaders'.
    pub clock_lag_ms: Gauge,
    /// How far this node's clock is ahead of those of others, in milliseconds, by what more of them agree on than may lie;
    /// below zero where it is behind.
    pub clock_offset_ms: Gauge,
    /// The highest block that a certificate of a source has proven.
    pub sync_proven_height: Gauge,
    /// Sources that have answered and are not left alone.
    pub sync_sources: Gauge,
    /// Times that a source was left alone for a while, by reason.
    pub sync_dropped: Family<ReasonLabel, Counter>,
    /// Approximate size of the store on disk.
    pub store_bytes: Gauge,
    /// Bytes that this user may still write to the data directory's file system.
    pub disk_free: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("switchyard");
        macro_rules! register {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        let buckets =
            [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0, 2.0, 4.0, 8.0, 16.0];
        Self {
            height: register!("height", "Durable final height", Gauge::default()),
            view: register!("view", "View of the newest finalisation", Gauge::default()),
            epoch: register!("epoch", "The epoch that runs", Gauge::default()),
            seats: register!("seats", "Seats of this validator in the epoch", Gauge::default()),
            protocol: register!("protocol", "Protocol version of the next block", Gauge::default()),
            protocol_known: register!("protocol_known", "Newest protocol version known here", Gauge::default()),
            protocol_decided: register!("protocol_decided", "Protocol version to begin later, or 0", Gauge::default()),
            protocol_seats: register!(
                "protocol_seats",
                "Seats that know the decided or newest protocol",
                Gauge::default()
            ),
            voting: register!("voting", "1 while this validator votes", Gauge::default()),
            signer: SignerMetrics::register(&mut registry),
            peers: register!("peers", "Connected validators", Gauge::default()),
            quorum: register!("quorum", "Validators of a quorum, this one included", Gauge::default()),
            finality_seconds: register!(
                "finality_seconds",
                "From a block's timestamp to its finality here",
                Histogram::new(buckets)
            ),
            blocks: register!("blocks", "Final blocks", Counter::default()),
            transactions: register!("transactions", "Transactions in final blocks", Family::default()),
            segment_bytes: register!("segment_bytes", "Bytes of transactions in final blocks", Family::default()),
            execution_lag: register!("execution_lag_blocks", "Hub blocks not executed yet", Family::default()),
            rollup_height: register!("rollup_height", "Newest rollup block", Family::default()),
            skipped: register!("skipped_transactions", "Final transactions not executable", Family::default()),
            mempool_transactions: register!("mempool_transactions", "Waiting transactions", Family::default()),
            mempool_bytes: register!("mempool_bytes", "Bytes of waiting transactions", Family::default()),
            rejections: register!("rejections", "Refused submissions", Family::default()),
            mempool_bundles: register!("mempool_bundles", "Waiting bundles", Gauge::default()),
            bundles_refused: register!("bundles_refused", "Refused bundles", Family::default()),
            certified_height: register!("certified_height", "Newest certified rollup block", Family::default()),
            diverged: register!("diverged", "1 if another block was certified than computed", Family::default()),
            held: register!("held", "1 while nothing of a rollup may be settled", Family::default()),
            attestations_refused: register!("attestations_refused", "Attestations not taken", Family::default()),
            invalid_blocks: register!("invalid_blocks", "Proposals not voted for", Family::default()),
            faults: register!("faults", "Provable misbehaviour seen", Family::default()),
            gossip_malformed: register!("gossip_malformed", "Malformed gossip messages", Family::default()),
            gossip_dropped: register!("gossip_dropped", "Gossip dropped at full queues", Counter::default()),
            clock_lag_ms: register!("clock_lag_ms", "Least age of the newest final blocks", Gauge::default()),
            clock_offset_ms: register!("clock_offset_ms", "How far this clock is ahead of others'", Gauge::default()),
            sync_proven_height: register!("sync_proven_height", "Highest block proven by a source", Gauge::default()),
            sync_sources: register!("sync_sources", "Sources that blocks are copied from", Gauge::default()),
            sync_dropped: register!("sync_dropped", "Sources left alone for a while", Family::default()),
            store_bytes: register!("store_bytes", "Approximate size of the store on disk", Gauge::default()),
            disk_free: register!("disk_free_bytes", "Free space for the data directory", Gauge::default()),
            registry: parking_lot::Mutex::new(registry),
            clock: parking_lot::Mutex::default(),
        }
    }
}

impl Metrics {
    /// Lets a server register its own metrics.
    pub fn with_registry<T>(&self, f: impl FnOnce(&mut Registry) -> T) -> T {
        f(&mut self.registry.lock())
    }

    /// Compares this node's clock with the leader's of a block that has just become final.
    pub fn saw(&self, timestamp_ms: u64, now_ms: u64) {
        self.clock_lag_ms.set(self.clock.lock().saw(timestamp_ms, now_ms));
    }

    /// Takes note of how far this node's clock is ahead of others', by what they agree on.
    pub(crate) fn heard_clocks(&self, offset_ms: i64) {
        self.clock_offset_ms.set(offset_ms);
        self.clock.lock().heard(offset_ms);
    }

    /// Counts a refused submission.
    pub fn rejected(&self, reason: &'static str, via: Via) {
        self.rejections.get_or_create(&RejectionLabel { reason, via }).inc();
    }

    /// Counts a refused bundle.
    pub fn bundle_refused(&self, reason: &'static str) {
        self.bundles_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut out, &self.registry.lock());
        out
    }
}

/// A count as a gauge's value.
pub fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
