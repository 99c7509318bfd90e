//! The layer around every call: counts it, and gives errors of the transport the same details as our own have.

use super::error::describe;
use crate::RpcMetrics;
use axum::http::{Request, Response};
use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// The layer.
#[derive(Clone)]
pub(super) struct Calls {
    metrics: RpcMetrics,
    /// Label by path. Only known paths get one: a caller must not be able to make up labels without end.
    methods: Arc<HashMap<String, String>>,
}

impl Calls {
    pub(super) fn new(metrics: RpcMetrics) -> Self {
        let label = |path: String| (path.clone(), path.trim_start_matches("/switchyard.v1.").to_owned());
        Self { metrics, methods: Arc::new(switchyard_proto::method_paths().into_iter().map(label).collect()) }
    }
}

impl<S> Layer<S> for Calls {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner, calls: self.clone() }
    }
}

/// A service with the layer around it.
#[derive(Clone)]
pub(super) struct CallService<S> {
    inner: S,
    calls: Calls,
}

/// Counts one call when it is dropped, as given up unless it is told otherwise.
struct Count {
    metrics: RpcMetrics,
    method: String,
    code: Code,
}

impl Count {
    fn ended(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.metrics.count(&self.method, self.code);
    }
}

impl<S, Q, A> Service<Request<Q>> for CallService<S>
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
        let method = self.calls.methods.get(request.uri().path()).map_or("other", String::as_str).to_owned();
        let mut count = Count { metrics: self.calls.metrics.clone(), method, code: Code::Cancelled };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut answer = answer.await.inspect_err(|_| count.ended(Code::Unknown))?;
            let status = Status::from_header_map(answer.headers()).map(describe);
            count.ended(status.as_ref().map_or(Code::Ok, Status::code));
            if let Some(status) = status {
                // Fails for metadata that is no header, which came out of headers.
                let _ = status.add_header(answer.headers_mut());
            }
            Ok(answer)
        })
    }
}
