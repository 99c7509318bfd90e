//! What operators watch of the JSON-RPC servers.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use std::{sync::Arc, time::Duration};
use switchyard_primitives::RollupId;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    rollup: u64,
    method: &'static str,
    result: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RollupLabels {
    rollup: u64,
}

/// Counts of all JSON-RPC servers of a process. Labels hold known method names only, so a client cannot make new series.
#[derive(Debug)]
pub struct EthMetrics {
    requests: Family<RequestLabels, Counter>,
    latency: Family<MethodLabels, Histogram>,
    connections: Family<RollupLabels, Gauge>,
    refused: Family<RollupLabels, Counter>,
}

impl EthMetrics {
    /// Registers the metrics; once a process, shared by its servers.
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_25, 2.0, 18))),
            connections: Family::default(),
            refused: Family::default(),
        };
        registry.register(
            "eth_rpc_requests",
            "JSON-RPC requests by rollup, method and result (ok, or the error code)",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "eth_rpc_latency",
            "Time from a JSON-RPC request to its answer, by method",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        registry.register(
            "eth_rpc_connections",
            "Open connections to a rollup's JSON-RPC server",
            metrics.connections.clone(),
        );
        registry.register(
            "eth_rpc_refused_connections",
            "Connections closed at once because the limit was reached",
            metrics.refused.clone(),
        );
        Arc::new(metrics)
    }

    pub(super) fn request(&self, rollup: RollupId, method: &'static str, error: Option<i32>, took: Duration) {
        let result = error.map_or_else(|| "ok".to_owned(), |code| code.to_string());
        self.requests.get_or_create(&RequestLabels { rollup: rollup.0, method, result }).inc();
        self.latency.get_or_create(&MethodLabels { method }).observe(took.as_secs_f64());
    }

    pub(super) fn connected(&self, rollup: RollupId) -> Connected {
        let gauge = self.connections.get_or_create_owned(&RollupLabels { rollup: rollup.0 });
        gauge.inc();
        Connected(gauge)
    }

    pub(super) fn refuse(&self, rollup: RollupId) {
        self.refused.get_or_create(&RollupLabels { rollup: rollup.0 }).inc();
    }
}

/// Counts a connection while it lives.
pub(super) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}
