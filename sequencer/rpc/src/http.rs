//! `/metrics`, `/livez` and `/readyz` over HTTP.

use crate::connections::{BoundedListener, ConnectionLimits};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;

/// One reason why a node does not live or is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A stable word; `docs/operators.md` lists them.
    pub code: &'static str,
    /// With figures, for a person.
    pub message: String,
}

/// Whether the node lives, or whether it can serve, and why not. Must not block.
pub type Probe = Arc<dyn Fn() -> Result<(), Vec<Problem>> + Send + Sync>;

/// What a supervisor and a load balancer ask.
#[derive(Clone)]
pub struct Probes {
    /// Fails when only a restart helps.
    pub live: Probe,
    /// Fails while what the node serves is stale.
    pub ready: Probe,
}

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

/// Serves on a bound listener until `shutdown` is cancelled. `/livez` and `/readyz` answer with JSON: 200, or 503 with the
/// reasons.
pub async fn serve(
    listener: TcpListener,
    metrics: RenderMetrics,
    probes: Probes,
    limits: HttpLimits,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(render).with_state(metrics))
        .route("/livez", get(probe).with_state(probes.live))
        .route("/readyz", get(probe).with_state(probes.ready))
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

async fn probe(State(probe): State<Probe>) -> impl IntoResponse {
    let (code, problems) = match probe() {
        Ok(()) => (StatusCode::OK, Vec::new()),
        Err(problems) => (StatusCode::SERVICE_UNAVAILABLE, problems),
    };
    let problems: Vec<_> = problems.iter().map(|p| json!({ "code": p.code, "message": p.message })).collect();
    let body = json!({ "ok": code == StatusCode::OK, "problems": problems });
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}
