//! Metrics and health over HTTP.

use std::{net::SocketAddr, sync::Arc};
use switchyard_rpc::http::{HttpLimits, Probe, Probes, Problem, serve};
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

fn fixed(problems: &[Problem]) -> Probe {
    let problems = problems.to_vec();
    Arc::new(move || if problems.is_empty() { Ok(()) } else { Err(problems.clone()) })
}

async fn start(dead: &[Problem], unready: &[Problem]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let metrics = Arc::new(|| "hub_height 5\n# EOF\n".to_owned());
    let probes = Probes { live: fixed(dead), ready: fixed(unready) };
    let task = tokio::spawn(serve(listener, metrics, probes, HttpLimits::default(), shutdown.clone()));
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
    let server = start(&[], &[]).await;
    let answer = get(&server, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_lowercase().contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(answer.ends_with("hub_height 5\n# EOF\n"), "{answer}");
}

#[tokio::test]
async fn liveness_and_readiness_are_told_apart_and_say_why_not() {
    let server = start(&[], &[]).await;
    for path in ["/livez", "/readyz"] {
        let answer = get(&server, path).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"ok\":true,\"problems\":[]}\n"), "{answer}");
        assert!(answer.to_lowercase().contains("content-type: application/json"), "{answer}");
    }
    let problem = |code, message: &str| Problem { code, message: message.into() };
    let server = start(&[], &[problem("no_quorum", "1 of 3"), problem("head_old", "300 s")]).await;
    assert!(get(&server, "/livez").await.starts_with("HTTP/1.1 200"));
    let answer = get(&server, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let problems = serde_json::json!([
        { "code": "no_quorum", "message": "1 of 3" }, { "code": "head_old", "message": "300 s" },
    ]);
    assert_eq!(body, serde_json::json!({ "ok": false, "problems": problems }));
    let server = start(&[problem("part_ended", "rollup 1")], &[]).await;
    assert!(get(&server, "/livez").await.starts_with("HTTP/1.1 503"));
    assert!(get(&server, "/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn bad_requests_are_answered_and_do_no_harm() {
    let server = start(&[], &[]).await;
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
    let server = start(&[], &[]).await;
    let _idle = TcpStream::connect(server.address).await.unwrap();
    server.shutdown.cancel();
    server.task.await.unwrap().unwrap();
}
