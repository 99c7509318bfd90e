//! `/metrics`, `/health/live` and `/health/ready` over HTTP.

use crate::connections::{BoundedListener, ConnectionLimits};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;

/// Whether the node can serve, and why not. Must not block.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Renders all metrics in the OpenMetrics text format. Called off the async threads.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Bounds of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections, and how long one may be silent between requests.
    pub connections: ConnectionLimits,
    /// Requests answered at a time; more wait their turn.
    pub requests: usize,
    /// How long open requests may take to end after a shutdown, in milliseconds.
    pub drain_ms: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { connections: ConnectionLimits { connections: 64, idle_ms: 120_000 }, requests: 4, drain_ms: 1_000 }
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves on a bound listener until `shutdown` is cancelled. `/health/live` answers 200 while the process answers at all;
/// `/health/ready` answers 200, or 503 with the reason.
pub async fn serve(
    listener: TcpListener,
    metrics: RenderMetrics,
    ready: Readiness,
    limits: HttpLimits,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(render).with_state(metrics))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(readiness).with_state(ready))
        .layer(GlobalConcurrencyLimitLayer::new(limits.requests));
    let abort = CancellationToken::new();
    let listener = BoundedListener::new(listener, limits.connections, abort.clone());
    let _abort = abort.drop_guard();
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(Duration::from_millis(limits.drain_ms)).await;
    };
    tokio::select! {
        result = server => result,
        () = drained => Ok(()),
    }
}

async fn render(State(metrics): State<RenderMetrics>) -> impl IntoResponse {
    match tokio::task::spawn_blocking(move || metrics()).await {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text),
        Err(error) => {
            tracing::error!(%error, "metrics could not be rendered");
            let text = "metrics could not be rendered\n".to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], text)
        }
    }
}

async fn readiness(State(ready): State<Readiness>) -> (StatusCode, String) {
    match ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
