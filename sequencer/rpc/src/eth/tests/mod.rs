//! The whole server over real sockets, on a small chain in memory.

mod accounts;
mod blocks;
mod fake;
mod fees;
mod filters;
mod logs;
mod pending;
mod safe;
mod subscriptions;
mod transactions;
mod transport;

use super::{EthLimits, EthMetrics, EthServer, serve};
use alloy::providers::{Provider, ProviderBuilder, WsConnect};
use fake::{FakeChain, FakeNode, ROLLUP};
use futures::{SinkExt, StreamExt};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use std::{net::TcpListener, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// A server and the fake node behind it.
struct Rig {
    node: Arc<FakeNode>,
    server: EthServer,
    registry: Registry,
}

/// A JSON-RPC error.
#[derive(Debug, PartialEq)]
struct RpcError {
    code: i64,
    message: String,
    data: Option<Value>,
}

impl Rig {
    fn start() -> Self {
        Self::with(EthLimits::default())
    }

    fn with(limits: EthLimits) -> Self {
        let node = FakeNode::new();
        let mut registry = Registry::default();
        let metrics = EthMetrics::new(&mut registry);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = serve(listener, ROLLUP, node.clone(), limits, metrics).unwrap();
        Self { node, server, registry }
    }

    fn chain(&self) -> &FakeChain {
        &self.node.chain
    }

    fn http(&self) -> impl Provider {
        ProviderBuilder::new().connect_http(format!("http://{}", self.server.addr()).parse().unwrap())
    }

    async fn ws(&self) -> impl Provider {
        ProviderBuilder::new().connect_ws(WsConnect::new(format!("ws://{}", self.server.addr()))).await.unwrap()
    }

    /// A WebSocket of which the test sees every message.
    async fn socket(&self) -> Socket {
        Socket(connect_async(format!("ws://{}", self.server.addr())).await.unwrap().0)
    }

    /// One request over HTTP.
    async fn rpc(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let (status, _, body) = self.post(&request.to_string()).await;
        assert_eq!(status, 200, "{body}");
        result(serde_json::from_str(&body).unwrap())
    }

    /// A body over HTTP: status, head and body of the answer.
    async fn post(&self, body: &str) -> (u16, String, String) {
        self.http_request("POST", "content-type: application/json\r\n", body.as_bytes()).await
    }

    async fn http_request(&self, method: &str, headers: &str, body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.server.addr()).await.unwrap();
        let head = format!(
            "{method} / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses by the head alone may close before it has read the body.
        let _ = stream.write_all(body).await;
        read_response(&mut stream).await
    }

    fn metric(&self, line: &str) -> Option<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines().find_map(|l| l.strip_prefix(line).map(|rest| rest.trim().to_owned()))
    }
}

async fn read_response(stream: &mut TcpStream) -> (u16, String, String) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// What a JSON-RPC response says.
fn result(response: Value) -> Result<Value, RpcError> {
    assert_eq!(response["jsonrpc"], "2.0", "{response}");
    match response.get("error") {
        None => Ok(response["result"].clone()),
        Some(error) => Err(RpcError {
            code: error["code"].as_i64().unwrap(),
            message: error["message"].as_str().unwrap().to_owned(),
            data: error.get("data").cloned(),
        }),
    }
}

fn error(code: i64, message: &str) -> RpcError {
    RpcError { code, message: message.to_owned(), data: None }
}

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn send(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    async fn request(&mut self, id: u64, method: &str, params: Value) {
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
    }

    /// The next message with content; none once the connection is closed.
    async fn next(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.request(1, method, params).await;
        result(self.next().await.unwrap())
    }
}
