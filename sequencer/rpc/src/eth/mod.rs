//! The Ethereum JSON-RPC of an EVM rollup: HTTP and WebSocket on one port, so that wallets, libraries and scripts use a
//! rollup as any Ethereum chain.
//!
//! Blocks here are final: there are no reorganisations and no uncles. The tag `latest` is the newest final block, `safe`
//! the newest attested one, `finalized` the newest settled one. `pending` is the open block of a rollup with one-second
//! sealing, whose transactions have receipts already (`docs/specs/evm-rollup.md`); where there is none it is `latest`.
//!
//! Whatever a client can hold is bounded by [`EthLimits`]: connections, memory for requests and answers, waiting
//! requests, subscriptions, filters, the span of log queries. Reads of the chain run on blocking threads in three lanes
//! (look-ups, calls, scans of many blocks), so that a flood of one kind delays neither the others nor the node.

mod block;
mod budget;
mod convert;
mod dispatch;
mod errors;
mod fees;
mod filters;
mod io;
mod lanes;
mod logs;
mod methods;
mod metrics;
mod node;
mod params;
mod server;
mod state;
mod submit;
mod subscribe;
mod web3;
mod ws;

#[cfg(test)]
mod tests;

pub use errors::ServeError;
pub use metrics::EthMetrics;

use crate::Gateway;
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use switchyard_primitives::RollupId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What clients of one server can ask for and hold. What is beyond a limit is refused with a JSON-RPC error (mostly
/// -32005) or an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthLimits {
    /// Open connections; more are closed at once.
    pub max_connections: usize,
    /// Bytes of a request's body or a WebSocket message.
    pub max_request_bytes: u32,
    /// Bytes of an answer.
    pub max_response_bytes: u32,
    /// Bytes that all requests and answers at work hold together.
    pub max_memory_bytes: usize,
    /// Requests in one batch.
    pub max_batch: usize,
    /// Subscriptions of one WebSocket connection.
    pub max_subscriptions_per_connection: u32,
    /// Threads for look-ups.
    pub read_threads: usize,
    /// Threads for calls, gas estimates and proofs.
    pub call_threads: usize,
    /// Threads for log queries, filters and fee histories.
    pub scan_threads: usize,
    /// How long one of those may take.
    pub scan_timeout: Duration,
    /// Requests that wait for a thread, for each of the three kinds.
    pub max_waiting: usize,
    /// Submissions that wait for the mempool or a receipt at the same time.
    pub max_submissions: usize,
    /// Blocks that one log query covers.
    pub max_log_blocks: u64,
    /// Logs that one query returns.
    pub max_logs: usize,
    /// Polling filters of all clients together.
    pub max_filters: usize,
    /// A filter that is not polled for this long is removed.
    pub filter_idle: Duration,
    /// The longest that a request, or a batch, may take.
    pub request_timeout: Duration,
}

impl Default for EthLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            max_connections: 512,
            max_request_bytes: 2 << 20,
            max_response_bytes: 25 << 20,
            max_memory_bytes: 256 << 20,
            max_batch: 1000,
            max_subscriptions_per_connection: 128,
            read_threads: cores * 4,
            call_threads: cores.div_ceil(2),
            scan_threads: cores.div_ceil(2),
            scan_timeout: Duration::from_secs(10),
            max_waiting: 4096,
            max_submissions: 4096,
            max_log_blocks: 10_000,
            max_logs: 10_000,
            max_filters: 1000,
            filter_idle: Duration::from_secs(300),
            request_timeout: Duration::from_secs(120),
        }
    }
}

/// A running server. It stops when this is dropped; [`EthServer::stop`] also waits for requests at work.
#[derive(Debug)]
pub struct EthServer {
    addr: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl EthServer {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no more connections, closes WebSockets, and waits a few seconds for requests at work.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.running).await {
            tracing::error!(%error, "JSON-RPC server");
        }
    }
}

impl Drop for EthServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves `rollup` on `listener`. Call it on a tokio runtime that drives timers and I/O.
pub fn serve(
    listener: TcpListener,
    rollup: RollupId,
    gateway: Arc<dyn Gateway>,
    limits: EthLimits,
    metrics: Arc<EthMetrics>,
) -> Result<EthServer, ServeError> {
    let dispatch = Arc::new(dispatch(rollup, gateway, limits, metrics.clone())?);
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stop = CancellationToken::new();
    let server = server::Server { rollup, dispatch, metrics, limits, stop: stop.clone() };
    let running = tokio::spawn(server::run(Arc::new(server), listener));
    Ok(EthServer { addr, stop, running })
}

fn dispatch(
    rollup: RollupId,
    gateway: Arc<dyn Gateway>,
    limits: EthLimits,
    metrics: Arc<EthMetrics>,
) -> Result<dispatch::Dispatch, ServeError> {
    let chain = gateway.evm(rollup).ok_or(ServeError::NotEvm(rollup))?;
    Ok(dispatch::Dispatch {
        rollup,
        methods: methods::table(Arc::new(node::Node::new(rollup, gateway, chain, limits)))?,
        metrics,
        budget: budget::Budget::new(limits.max_memory_bytes),
        max_batch: limits.max_batch,
        max_response_bytes: limits.max_response_bytes as usize,
        request_timeout: limits.request_timeout,
    })
}

/// Ways in for `testnet/fuzz`; no part of the interface.
#[doc(hidden)]
pub mod fuzz {
    use super::{EthLimits, EthMetrics, dispatch, dispatch::Dispatch};
    use crate::Gateway;
    use std::sync::Arc;
    use switchyard_primitives::RollupId;

    /// A server without its sockets.
    pub struct Requests(Dispatch);

    impl Requests {
        /// What would serve `rollup`; none if it is no EVM rollup.
        pub fn new(rollup: RollupId, gateway: Arc<dyn Gateway>, limits: EthLimits) -> Option<Self> {
            let metrics = EthMetrics::new(&mut prometheus_client::registry::Registry::default());
            dispatch(rollup, gateway, limits, metrics).ok().map(Self)
        }

        /// The answer to an HTTP request's body.
        pub async fn answer(&self, body: &[u8]) -> Option<String> {
            self.0.answer(body, None).await.map(|answer| answer.text)
        }
    }
}
