//! Metrics and health over HTTP.

use std::{net::SocketAddr, sync::Arc};
use switchyard_rpc::http::{HttpLimits, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start(ready: Result<(), String>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let metrics = Arc::new(|| "hub_height 5\n# EOF\n".to_owned());
    let ready = Arc::new(move || ready.clone());
    let task = tokio::spawn(serve(listener, metrics, ready, HttpLimits::default(), shutdown.clone()));
    Server { address, shutdown, task }
}

/// What the server answers to these bytes.
async fn send(server: &Server, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(server: &Server, path: &str) -> String {
    send(server, format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn metrics_are_rendered_anew() {
    let server = start(Ok(())).await;
    let answer = get(&server, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_lowercase().contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(answer.ends_with("hub_height 5\n# EOF\n"), "{answer}");
}

#[tokio::test]
async fn readiness_says_why_not() {
    let server = start(Ok(())).await;
    assert!(get(&server, "/health/live").await.starts_with("HTTP/1.1 200"));
    assert!(get(&server, "/health/ready").await.starts_with("HTTP/1.1 200"));
    let server = start(Err("300 blocks behind".to_owned())).await;
    assert!(get(&server, "/health/live").await.starts_with("HTTP/1.1 200"));
    let answer = get(&server, "/health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: 300 blocks behind\n"), "{answer}");
}

#[tokio::test]
async fn bad_requests_are_answered_and_do_no_harm() {
    let server = start(Ok(())).await;
    assert!(get(&server, "/nothing").await.starts_with("HTTP/1.1 404"));
    assert!(send(&server, b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.contains("405"));
    assert!(send(&server, b"\x16\x03\x01\x02\x00\x01\x00").await.starts_with("HTTP/1.1 400"));
    let mut cut = TcpStream::connect(server.address).await.unwrap();
    cut.write_all(b"GET /metr").await.unwrap();
    drop(cut);
    assert!(get(&server, "/metrics").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_shutdown_ends_the_server_despite_an_open_connection() {
    let server = start(Ok(())).await;
    let _idle = TcpStream::connect(server.address).await.unwrap();
    server.shutdown.cancel();
    server.task.await.unwrap().unwrap();
}
