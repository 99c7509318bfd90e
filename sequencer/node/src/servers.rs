//! The node's servers: their sockets, what they serve, and where they are.

use crate::{
    config::{Config, Endpoints, RollupEndpoint},
    error::NodeError,
    gateway::NodeGateway,
    metrics::Metrics,
};
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};
use switchyard_consensus_engine::MetricsReader;
use switchyard_primitives::RollupId;
use switchyard_rpc::{
    Gateway, Probes, RpcMetrics,
    eth::{self, EthLimits, EthMetrics},
    grpc::{self, GrpcLimits, GrpcOptions},
    http::{self, HttpLimits},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The servers' sockets, bound before anything runs so that a taken port is found at once.
pub(crate) struct Listeners {
    grpc: TcpListener,
    metrics: TcpListener,
    rpc: Vec<(RollupId, TcpListener)>,
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    let failed = |source| NodeError::Listen { what, address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn address(what: &'static str, listener: &TcpListener) -> Result<SocketAddr, NodeError> {
    listener.local_addr().map_err(|e| NodeError::Server { what, reason: e.to_string() })
}

fn adopt(what: &'static str, listener: TcpListener) -> Result<tokio::net::TcpListener, NodeError> {
    tokio::net::TcpListener::from_std(listener).map_err(|e| NodeError::Server { what, reason: e.to_string() })
}

impl Listeners {
    /// Binds every address of the configuration.
    pub(crate) fn bind(config: &Config) -> Result<Self, NodeError> {
        // The engine binds its own socket later; a port that is taken is better found here.
        if let Some(network) = &config.network {
            drop(bind("the validators' network", network.listen)?);
        }
        let rpc = config.rpc.iter().map(|r| Ok((r.rollup, bind("JSON-RPC", r.listen)?)));
        Ok(Self {
            grpc: bind("gRPC", config.grpc.listen)?,
            metrics: bind("metrics", config.metrics.listen)?,
            rpc: rpc.collect::<Result<_, NodeError>>()?,
        })
    }

    /// Starts all servers; they end when `stop` is cancelled, and report to `fail` if they end before.
    pub(crate) fn serve(
        self,
        gateway: &Arc<NodeGateway>,
        metrics: &Arc<Metrics>,
        engine_metrics: Option<MetricsReader>,
        probes: Probes,
        fail: mpsc::Sender<NodeError>,
        stop: &CancellationToken,
    ) -> Result<Endpoints, NodeError> {
        let endpoint = |what, listener| Ok::<_, NodeError>(format!("http://{}", address(what, listener)?));
        let (grpc_url, metrics_url) = (endpoint("gRPC", &self.grpc)?, endpoint("metrics", &self.metrics)?);

        let calls = RpcMetrics::default();
        metrics.with_registry(|registry| calls.register(registry));
        let options = GrpcOptions { limits: GrpcLimits::default(), metrics: calls, ready: probes.ready.clone() };
        let server = grpc::serve(adopt("gRPC", self.grpc)?, gateway.clone(), options, stop.clone());
        let (token, failures) = (stop.clone(), fail.clone());
        tokio::spawn(async move {
            let ended = server.await.map_err(|e| e.to_string());
            report("gRPC", ended, &token, &failures).await;
        });

        let own = metrics.clone();
        let engine = move || engine_metrics.as_ref().map(MetricsReader::encode).unwrap_or_default();
        let render = Arc::new(move || join_metrics(own.render(), &engine()));
        let server = http::serve(adopt("metrics", self.metrics)?, render, probes, HttpLimits::default(), stop.clone());
        let token = stop.clone();
        tokio::spawn(async move {
            let ended = server.await.map_err(|e| e.to_string());
            report("metrics", ended, &token, &fail).await;
        });

        let eth_metrics = metrics.with_registry(EthMetrics::new);
        let mut rollups = Vec::new();
        for (rollup, listener) in self.rpc {
            rollups.push(serve_rollup(rollup, listener, gateway, &eth_metrics, stop)?);
        }
        Ok(Endpoints { pid: std::process::id(), grpc: grpc_url, metrics: metrics_url, rollups })
    }
}

fn serve_rollup(
    rollup: RollupId,
    listener: TcpListener,
    gateway: &Arc<NodeGateway>,
    metrics: &Arc<EthMetrics>,
    stop: &CancellationToken,
) -> Result<RollupEndpoint, NodeError> {
    let unknown = || NodeError::Config(format!("rpc: rollup {rollup} is not an EVM rollup of this network"));
    let chain_id = gateway.evm(rollup).ok_or_else(unknown)?.chain_id();
    let name = gateway.info().rollups.iter().find(|m| m.id == rollup).ok_or_else(unknown)?.name.clone();
    let server = eth::serve(listener, rollup, gateway.clone(), EthLimits::default(), metrics.clone())
        .map_err(|e| NodeError::Server { what: "JSON-RPC", reason: e.to_string() })?;
    let address = server.addr();
    let token = stop.clone();
    tokio::spawn(async move {
        token.cancelled().await;
        server.stop().await;
    });
    Ok(RollupEndpoint { name, rollup, chain_id, http: format!("http://{address}"), ws: format!("ws://{address}") })
}

async fn report(
    what: &'static str,
    ended: Result<(), String>,
    stop: &CancellationToken,
    fail: &mpsc::Sender<NodeError>,
) {
    if !stop.is_cancelled() {
        let reason = ended.err().unwrap_or_else(|| "ended".into());
        tracing::error!(what, reason, "a server ended");
        // The node may be stopping for another reason.
        let _ = fail.send(NodeError::Server { what, reason }).await;
    }
}

/// Both texts end with `# EOF`, of which one exposition has one.
fn join_metrics(own: String, engine: &str) -> String {
    const END: &str = "# EOF\n";
    let own = own.strip_suffix(END).unwrap_or(&own);
    let engine = engine.strip_suffix(END).unwrap_or(engine);
    [own, engine, END].concat()
}
