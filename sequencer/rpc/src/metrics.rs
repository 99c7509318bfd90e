//! Counters of the gRPC server.

use axum::http::{Request, Response};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{Code, Status};
use tower::{Layer, Service};

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

impl RpcMetrics {
    /// Adds `grpc_calls_total{method, code}` to `registry`. A call counts once, when its answer or its stream begins,
    /// or when it has failed or was given up (`Cancelled`). Calls of other services count as method `other`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("grpc_calls", "gRPC calls by method and status code", self.calls.clone());
    }

    /// Calls of `method` (`Service/Method`) that ended with `code`.
    pub fn calls(&self, method: &str, code: Code) -> u64 {
        self.calls.get_or_create(&labels(method, code)).get()
    }
}

fn labels(method: &str, code: Code) -> CallLabels {
    CallLabels { method: method.to_owned(), code: format!("{code:?}") }
}

/// The layer that counts.
#[derive(Clone)]
pub(crate) struct CountCalls {
    metrics: RpcMetrics,
    /// Label by path. Only known paths get one: a caller must not be able to make up labels without end.
    methods: Arc<HashMap<String, String>>,
}

impl CountCalls {
    pub(crate) fn new(metrics: RpcMetrics) -> Self {
        let label = |path: String| (path.clone(), path.trim_start_matches("/switchyard.v1.").to_owned());
        Self { metrics, methods: Arc::new(switchyard_proto::method_paths().into_iter().map(label).collect()) }
    }
}

impl<S> Layer<S> for CountCalls {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, layer: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(crate) struct Counting<S> {
    inner: S,
    layer: CountCalls,
}

/// Counts one call when it is dropped, as given up unless it is told otherwise.
struct Call {
    metrics: RpcMetrics,
    method: String,
    code: Code,
}

impl Call {
    fn ended(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics.calls.get_or_create(&labels(&self.method, self.code)).inc();
    }
}

impl<S, Q, A> Service<Request<Q>> for Counting<S>
where
    S: Service<Request<Q>, Response = Response<A>>,
    S::Future: Send + 'static,
{
    type Response = Response<A>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let method = self.layer.methods.get(request.uri().path()).map_or("other", String::as_str).to_owned();
        let mut call = Call { metrics: self.layer.metrics.clone(), method, code: Code::Cancelled };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            call.ended(match &answer {
                Ok(response) => Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code()),
                Err(_) => Code::Unknown,
            });
            answer
        })
    }
}
