//! The gRPC server.

mod blocks;
mod bundles;
mod evm;
mod hostile;
mod server;
mod status;
mod stream;
mod submit;

use crate::fake::FakeHub;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use switchyard_proto::v1::{
    block_service_client::BlockServiceClient, sequencer_service_client::SequencerServiceClient,
    status_service_client::StatusServiceClient,
};
use switchyard_rpc::{
    Probe, RpcMetrics,
    grpc::{ERROR_DOMAIN, GrpcError, GrpcLimits, GrpcOptions, serve},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

/// A running server.
struct Server {
    hub: Arc<FakeHub>,
    address: SocketAddr,
    metrics: RpcMetrics,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), GrpcError>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The default bounds, but for tests that meet them quickly.
fn limits() -> GrpcLimits {
    GrpcLimits { submit_transactions: 4, submit_bytes: 256 << 10, drain_ms: 500, ..GrpcLimits::default() }
}

impl Server {
    async fn start(hub: &Arc<FakeHub>) -> Self {
        Self::start_with(hub, limits(), Arc::new(|| Ok(()))).await
    }

    async fn start_with(hub: &Arc<FakeHub>, limits: GrpcLimits, ready: Probe) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, shutdown) = (RpcMetrics::default(), CancellationToken::new());
        let options = GrpcOptions { limits, metrics: metrics.clone(), ready };
        let task = tokio::spawn(serve(listener, hub.clone(), options, shutdown.clone()));
        Self { hub: hub.clone(), address, metrics, shutdown, task }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_timeout(Duration::from_secs(10))
    }

    async fn channel(&self) -> Channel {
        self.endpoint().connect().await.unwrap()
    }

    async fn sequencer(&self) -> SequencerServiceClient<Channel> {
        SequencerServiceClient::new(self.channel().await)
    }

    async fn blocks(&self) -> BlockServiceClient<Channel> {
        BlockServiceClient::new(self.channel().await)
    }

    async fn status(&self) -> StatusServiceClient<Channel> {
        StatusServiceClient::new(self.channel().await)
    }
}

/// Checks code, reason and domain of an error.
#[track_caller]
fn check_error(status: &Status, code: Code, reason: &str) {
    let info = status.get_details_error_info();
    assert_eq!((status.code(), info.as_ref().map(|i| i.reason.as_str())), (code, Some(reason)), "{status:?}");
    assert_eq!(info.unwrap().domain, ERROR_DOMAIN);
}

/// Checks that an error names one wrong field of the request.
#[track_caller]
fn check_field(status: &Status, field: &str) {
    check_error(status, Code::InvalidArgument, "invalid_request");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(), [field]);
}

/// The value of a key in an error's details.
#[track_caller]
fn detail(status: &Status, key: &str) -> String {
    status.get_details_error_info().unwrap().metadata.get(key).cloned().unwrap_or_default()
}
