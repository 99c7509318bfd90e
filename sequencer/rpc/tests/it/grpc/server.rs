//! Health, reflection, limits of the server as a whole, and its end.

use super::{GrpcLimits, Server, check_error, limits};
use crate::fake::FakeHub;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use switchyard_proto::v1;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const SERVICES: [&str; 3] =
    ["switchyard.v1.BlockService", "switchyard.v1.SequencerService", "switchyard.v1.StatusService"];

#[tokio::test]
async fn health_follows_readiness_for_every_service() {
    let ready = Arc::new(AtomicBool::new(true));
    let check = ready.clone();
    let readiness = move || if check.load(Ordering::SeqCst) { Ok(()) } else { Err(vec![]) };
    let server = Server::start_with(&FakeHub::new(), limits(), Arc::new(readiness)).await;
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client.watch(HealthCheckRequest { service: SERVICES[0].to_owned() }).await.unwrap().into_inner();
    // Until the first report the service may be unknown.
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    for service in SERVICES {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(client.check(request).await.unwrap().into_inner().status(), ServingStatus::Serving);
    }
    let request = HealthCheckRequest { service: "switchyard.v1.NoService".to_owned() };
    assert_eq!(client.check(request).await.unwrap_err().code(), Code::NotFound);

    ready.store(false, Ordering::SeqCst);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    for service in ["", SERVICES[1], SERVICES[2]] {
        let mut watch = client.watch(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner();
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::NotServing {}
    }
}

#[tokio::test]
async fn reflection_lists_the_services_and_gives_their_files() {
    let server = Server::start(&FakeHub::new()).await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let requests = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("switchyard.v1.BlockService.StreamSegments".to_owned()),
    ]
    .map(|message| ServerReflectionRequest { host: String::new(), message_request: Some(message) });
    let mut answers = client.server_reflection_info(futures::stream::iter(requests)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("not a list");
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for service in SERVICES.into_iter().chain(["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]) {
        assert!(names.iter().any(|name| name == service), "{service} is missing in {names:?}");
    }
    let Some(MessageResponse::FileDescriptorResponse(files)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("not a file");
    };
    assert!(!files.file_descriptor_proto.is_empty());
}

#[tokio::test]
async fn a_shutdown_ends_streams_with_unavailable_and_frees_the_port() {
    let hub = FakeHub::new();
    let mut server = Server::start(&hub).await;
    hub.push(vec![]);
    let request = v1::StreamSegmentsRequest { rollup_id: 7, from_height: 1, ..Default::default() };
    let mut following = server.blocks().await.stream_segments(request).await.unwrap().into_inner();
    assert!(following.message().await.unwrap().is_some());
    let request = v1::WatchTransactionRequest { rollup_id: 7, hash: vec![1; 32].into(), ..Default::default() };
    let mut watching = server.sequencer().await.watch_transaction(request).await.unwrap().into_inner();
    assert!(watching.message().await.unwrap().is_some());
    let (_sender, receiver) = tokio::sync::mpsc::channel(1);
    let batches = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut submitting = server.sequencer().await.submit_stream(batches).await.unwrap().into_inner();

    server.shutdown.cancel();
    check_error(&following.message().await.unwrap_err(), Code::Unavailable, "unavailable");
    check_error(&watching.message().await.unwrap_err(), Code::Unavailable, "unavailable");
    check_error(&submitting.message().await.unwrap_err(), Code::Unavailable, "unavailable");
    (&mut server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_hold_a_shutdown_up() {
    let hub = FakeHub::new();
    let mut server = Server::start_with(&hub, GrpcLimits { drain_ms: 50, ..limits() }, Arc::new(|| Ok(()))).await;
    for _ in 0..60 {
        hub.push(vec![crate::fake::segment(7, &[&vec![1; 16 << 10]])]);
    }
    let endpoint = server.endpoint().initial_stream_window_size(64 << 10);
    let mut client = v1::block_service_client::BlockServiceClient::new(endpoint.connect().await.unwrap());
    let request = v1::StreamSegmentsRequest { rollup_id: 7, from_height: 1, ..Default::default() };
    let mut unread = client.stream_segments(request).await.unwrap().into_inner();
    server.shutdown.cancel();
    (&mut server.task).await.unwrap().unwrap();
    while let Ok(message) = unread.message().await {
        assert!(message.is_some(), "a broken stream must not look complete");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let mut tight = limits();
    tight.connections.connections = 1;
    let server = Server::start_with(&FakeHub::new(), tight, Arc::new(|| Ok(()))).await;
    let mut client = server.status().await;
    client.get_status(v1::GetStatusRequest {}).await.unwrap();
    let mut second = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(second.read(&mut [0; 64]).await.unwrap_or(0), 0);
    client.get_status(v1::GetStatusRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let mut tight = limits();
    tight.connections.idle_ms = 20;
    let server = Server::start_with(&FakeHub::new(), tight, Arc::new(|| Ok(()))).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut received = Vec::new();
    // The server may greet with its settings; then it hangs up.
    let _ = silent.read_to_end(&mut received).await;
    assert!(received.len() < 256);
}
