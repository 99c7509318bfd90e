//! The gRPC server: `switchyard.v1`, health and reflection.
//!
//! Every call is bounded: connections, streams a connection, calls in flight, streams in all, message sizes, time.
//! A streaming call reads the store only when the client's flow control asks for its next message, so it holds at most
//! one message (or one run of empty blocks) in memory.

mod api;
mod blocks;
mod bridge;
mod bundle;
mod calls;
mod error;
mod log;
mod segments;
mod sequencer;
mod snapshot;
mod status;
mod watch;

pub use error::{ApiError, ERROR_DOMAIN};

use crate::{
    Gateway, Probe,
    connections::{ConnectionLimits, bounded},
    metrics::RpcMetrics,
};
use api::Api;
use calls::Calls;
use std::{sync::Arc, time::Duration};
use switchyard_bridge_core::SignedBundle;
use switchyard_proto::v1::{
    FILE_DESCRIPTOR_SET, block_service_server::BlockServiceServer, bridge_service_server::BridgeServiceServer,
    sequencer_service_server::SequencerServiceServer, status_service_server::StatusServiceServer,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{server::NamedService, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::limit::GlobalConcurrencyLimitLayer;

/// What one server takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcLimits {
    /// Connections, and how long one may be silent. Keepalive pings make a healthy one speak every 20 s.
    pub connections: ConnectionLimits,
    /// Streams (HTTP/2) in one connection.
    pub connection_streams: u32,
    /// Calls whose request is being read or answered, over all connections; more wait their turn.
    pub calls: usize,
    /// Reads of the store at a time, over all calls; more wait their turn.
    pub reads: usize,
    /// Open `StreamSegments` and `WatchTransaction` calls. Each may hold one message, so one block's body, in memory.
    pub streams: usize,
    /// Open `SubmitStream` calls.
    pub submit_streams: usize,
    /// Open `StreamSnapshot` calls: each reads a whole state, and keeps the database from giving space back.
    pub snapshots: usize,
    /// How long one may take, in milliseconds.
    pub snapshot_ms: u64,
    /// Transactions in one `Submit`.
    pub submit_transactions: usize,
    /// Bytes of all transactions in one `Submit`, unless the network's limit for one transaction is higher.
    pub submit_bytes: usize,
    /// Longest time from a call's headers to its response or its stream's start, in milliseconds.
    pub call_ms: u64,
    /// Age at which a run of empty blocks is sent although it could grow, in milliseconds.
    pub merge_ms: u64,
    /// How long open calls may take to end after a shutdown, in milliseconds.
    pub drain_ms: u64,
}

impl Default for GrpcLimits {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits { connections: 256, idle_ms: 60_000 },
            connection_streams: 128,
            calls: 256,
            reads: 16,
            streams: 256,
            submit_streams: 32,
            snapshots: 2,
            snapshot_ms: 3_600_000,
            submit_transactions: 1024,
            submit_bytes: 1 << 20,
            call_ms: 30_000,
            merge_ms: 5_000,
            drain_ms: 3_000,
        }
    }
}

/// What [`serve`] needs besides the gateway.
#[derive(Clone)]
pub struct GrpcOptions {
    /// Bounds.
    pub limits: GrpcLimits,
    /// Where calls are counted.
    pub metrics: RpcMetrics,
    /// Whether the node can serve: what the health service answers.
    pub ready: Probe,
}

impl std::fmt::Debug for GrpcOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcOptions").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The descriptors in this binary do not decode: it is damaged.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("gRPC server: {0}")]
    Transport(#[from] tonic::transport::Error),
}

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
const HEADER_LIST_BYTES: u32 = 8 << 10;
/// Requests other than transactions are a few numbers and a hash.
const SMALL_REQUEST_BYTES: usize = 4 << 10;
/// A bundle, with what its encoding adds to [`SignedBundle::write`]'s.
const BUNDLE_REQUEST_BYTES: usize = SignedBundle::BYTES_MAX + SMALL_REQUEST_BYTES;
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Serves on a bound listener until `shutdown` is cancelled; then ends every stream with UNAVAILABLE, lets calls finish
/// for `drain_ms`, and breaks what is still open.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<dyn Gateway>,
    options: GrpcOptions,
    shutdown: CancellationToken,
) -> Result<(), GrpcError> {
    let GrpcOptions { limits, metrics, ready } = options;
    let api = Arc::new(Api::new(gateway, limits, shutdown.clone()));
    let (requests, responses) = (api.submit_request_bytes(), api.response_bytes());
    let (health, health_service) = tonic_health::server::health_reporter();
    let router = Server::builder()
        .timeout(Duration::from_millis(limits.call_ms))
        .max_concurrent_streams(limits.connection_streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(Calls::new(metrics))
        .layer(GlobalConcurrencyLimitLayer::new(limits.calls))
        .add_service(health_service.max_decoding_message_size(SMALL_REQUEST_BYTES))
        .add_service(reflection().build_v1()?.max_decoding_message_size(SMALL_REQUEST_BYTES))
        .add_service(reflection().build_v1alpha()?.max_decoding_message_size(SMALL_REQUEST_BYTES))
        .add_service(
            SequencerServiceServer::from_arc(api.clone())
                .max_decoding_message_size(requests)
                .max_encoding_message_size(responses),
        )
        .add_service(
            BlockServiceServer::from_arc(api.clone())
                .max_decoding_message_size(SMALL_REQUEST_BYTES)
                .max_encoding_message_size(responses),
        )
        .add_service(
            BridgeServiceServer::from_arc(api.clone())
                .max_decoding_message_size(BUNDLE_REQUEST_BYTES)
                .max_encoding_message_size(responses),
        )
        .add_service(StatusServiceServer::from_arc(api).max_decoding_message_size(SMALL_REQUEST_BYTES));

    let abort = CancellationToken::new();
    let incoming = bounded(listener, limits.connections, abort.clone());
    let server = router.serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(Duration::from_millis(limits.drain_ms)).await;
    };
    let _abort = abort.drop_guard();
    tokio::select! {
        result = server => Ok(result?),
        () = drained => Ok(()),
        () = report_health(health, ready, shutdown.clone()) => Ok(()),
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Keeps the health service in step with `ready`. On shutdown every health stream ends; never returns.
async fn report_health(mut health: HealthReporter, ready: Probe, shutdown: CancellationToken) {
    let services = [
        "",
        SequencerServiceServer::<Api>::NAME,
        BlockServiceServer::<Api>::NAME,
        BridgeServiceServer::<Api>::NAME,
        StatusServiceServer::<Api>::NAME,
    ];
    let mut reported = None;
    loop {
        let status = if ready().is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing };
        // Watchers hear every report, so only changes are made.
        if reported.replace(status) != Some(status) {
            for service in services {
                health.set_service_status(service, status).await;
            }
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(HEALTH_INTERVAL)).await.is_none() {
            break;
        }
    }
    for service in services {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
    std::future::pending().await
}
