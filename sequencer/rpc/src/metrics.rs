//! Counters of the gRPC server.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tonic::Code;

/// Counts calls. Clones share their counters.
#[derive(Clone, Debug, Default)]
pub struct RpcMetrics {
    calls: Family<CallLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: String,
}

impl CallLabels {
    fn new(method: &str, code: Code) -> Self {
        Self { method: method.to_owned(), code: format!("{code:?}") }
    }
}

impl RpcMetrics {
    /// Adds `grpc_calls_total{method, code}` to `registry`. A call counts once, when its answer or its stream begins,
    /// or when it has failed or was given up (`Cancelled`). Methods that do not exist, health and reflection count as
    /// method `other`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("grpc_calls", "gRPC calls by method and status code", self.calls.clone());
    }

    /// Calls of `method` (`Service/Method`) that ended with `code`.
    pub fn calls(&self, method: &str, code: Code) -> u64 {
        self.calls.get_or_create(&CallLabels::new(method, code)).get()
    }

    pub(crate) fn count(&self, method: &str, code: Code) {
        self.calls.get_or_create(&CallLabels::new(method, code)).inc();
    }
}
