//! HTTP, WebSocket and JSON-RPC framing, and their limits.

use super::{Rig, error, fake::SLOW, read_response, result};
use crate::eth::{EthLimits, EthMetrics, ServeError, serve};
use alloy_primitives::{Address, B256, Bytes};
use futures::{SinkExt, StreamExt};
use prometheus_client::registry::Registry;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use std::net::TcpListener;
use switchyard_primitives::RollupId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

const CHAIN_ID: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;

fn small() -> EthLimits {
    EthLimits { max_request_bytes: 1024, max_response_bytes: 4096, max_batch: 3, ..Default::default() }
}

#[tokio::test]
async fn framing_errors_have_their_codes() {
    let rig = Rig::start();
    for (body, code) in [
        ("", -32700),
        ("{", -32700),
        ("nonsense", -32700),
        ("[{]", -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":["#, -32700),
        ("5", -32600),
        ("{}", -32600),
        ("[]", -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"eth_chainId"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"eth_chainId"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nonsense"}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":{"a":1}}"#, -32602),
    ] {
        let (status, _, answer) = rig.post(body).await;
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"]["code"], code, "{body}: {answer}");
        assert!(answer.get("result").is_none());
    }
    assert_eq!(
        rig.metric(r#"eth_rpc_requests_total{rollup="7",method="malformed",result="-32700"}"#),
        Some("5".into())
    );
    assert_eq!(rig.metric(r#"eth_rpc_requests_total{rollup="7",method="unknown",result="-32601"}"#), Some("1".into()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_body_is_answered_with_json_rpc(bodies in vec(any_body(), 8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let limits = EthLimits { request_timeout: std::time::Duration::from_millis(100), ..Default::default() };
            let rig = Rig::with(limits);
            rig.chain().extend(&[super::fake::transfer(0, 1)]);
            for body in bodies {
                let (status, _, answer) = rig.http_request("POST", JSON, &body).await;
                if status == 204 {
                    prop_assert_eq!(answer, "");
                    continue;
                }
                prop_assert_eq!(status, 200);
                let answer: Value = serde_json::from_str(&answer).unwrap();
                for answer in answer.as_array().unwrap_or(&vec![answer.clone()]) {
                    prop_assert_eq!(&answer["jsonrpc"], "2.0");
                    prop_assert!(answer.get("result").is_some() != answer.get("error").is_some());
                    prop_assert_ne!(&answer["error"]["code"], -32603, "{:?}", String::from_utf8_lossy(&body));
                }
            }
            Ok(())
        })?;
    }
}

const JSON: &str = "content-type: application/json\r\n";

/// Requests with every method and likely and unlikely parameters; requests with a byte changed; and any bytes.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<&str> = {
        let node = super::FakeNode::new();
        let chain = node.chain.clone();
        let node = crate::eth::node::Node::new(RollupId(7), node, chain, EthLimits::default());
        crate::eth::methods::table(std::sync::Arc::new(node)).unwrap().method_names().collect()
    };
    let parameter = prop_oneof![
        select(vec!["latest", "pending", "0x0", "0x1", "0xffffffffffffffff", "0x", "newHeads", "logs", "0xzz", ""])
            .prop_map(Value::from),
        any::<[u8; 20]>().prop_map(|a| json!(Address::from(a))),
        any::<[u8; 32]>().prop_map(|h| json!(B256::from(h))),
        vec(any::<u8>(), 0..200).prop_map(|b| json!(Bytes::from(b))),
        (any::<u8>(), 0u64..u64::MAX).prop_map(|(a, n)| {
            json!({"to": Address::repeat_byte(a), "value": format!("{n:#x}"), "fromBlock": "0x0", "topics": [null]})
        }),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        vec(0.0f64..120.0, 0..4).prop_map(Value::from),
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
    ];
    let request = (select(names), vec(parameter, 0..5)).prop_map(|(method, params)| {
        json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string().into_bytes()
    });
    let changed = (request.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut body, at, byte)| {
        let at = at.index(body.len());
        body[at] = byte;
        body
    });
    prop_oneof![4 => request, 2 => changed, 1 => vec(any::<u8>(), 0..300)]
}

#[tokio::test]
async fn ids_come_back_as_they_were() {
    let rig = Rig::start();
    for id in [json!(0), json!(u64::MAX), json!("a-b"), json!(null)] {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "eth_chainId"});
        let (_, _, answer) = rig.post(&request.to_string()).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&answer["id"], &answer["result"]), (&id, &json!("0x11177")));
    }
}

#[tokio::test]
async fn a_batch_is_answered_in_order_entry_by_entry() {
    let rig = Rig::start();
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"},
        {"jsonrpc": "2.0", "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": 2, "method": "nonsense"},
        5,
        {"jsonrpc": "2.0", "id": 3, "method": "eth_blockNumber", "params": []},
    ]);
    let (status, _, answer) = rig.post(&batch.to_string()).await;
    assert_eq!(status, 200);
    let answers: Vec<Value> = serde_json::from_str(&answer).unwrap();
    let ids: Vec<_> = answers.iter().map(|a| a["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!(2), json!(null), json!(3)]);
    let codes: Vec<_> = answers.into_iter().map(|a| result(a).err().map(|e| e.code)).collect();
    assert_eq!(codes, [None, Some(-32601), Some(-32600), None]);
}

#[tokio::test]
async fn notifications_have_no_answer() {
    let rig = Rig::start();
    for body in [r#"{"jsonrpc":"2.0","method":"eth_chainId"}"#, r#"[{"jsonrpc":"2.0","method":"eth_chainId"}]"#] {
        let (status, _, answer) = rig.post(body).await;
        assert_eq!((status, answer.as_str()), (204, ""));
    }
}

#[tokio::test]
async fn batches_bodies_and_answers_are_limited() {
    let rig = Rig::with(small());
    let batch = |n: usize| format!("[{}]", vec![CHAIN_ID; n].join(","));
    let (_, _, allowed) = rig.post(&batch(3)).await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&allowed).unwrap().len(), 3);
    let (_, _, refused) = rig.post(&batch(4)).await;
    assert_eq!(result(serde_json::from_str(&refused).unwrap()), Err(error(-32600, "batch too large")));

    let padded = |len: usize| format!("{CHAIN_ID}{}", " ".repeat(len - CHAIN_ID.len()));
    assert_eq!(rig.post(&padded(1024)).await.0, 200);
    let (status, _, body) = rig.post(&padded(1025)).await;
    assert_eq!((status, body.as_str()), (413, "content length too large: at most 1024 bytes are taken\n"));
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 1025, padded(1025));
    let mut stream = TcpStream::connect(rig.server.addr()).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}{chunk}").as_bytes()).await.unwrap();
    assert_eq!(read_response(&mut stream).await.0, 413, "a body whose length was not announced");

    for nonce in 0..40 {
        rig.chain().extend(&[super::fake::transfer(nonce, 1)]);
    }
    let call = json!([{"to": Address::repeat_byte(1), "data": format!("0x{}", "00".repeat(300))}]);
    assert!(rig.rpc("eth_call", call).await.is_ok());
    let slots = vec!["0x1"; 100];
    let too_big = rig.rpc("eth_getProof", json!([Address::ZERO, slots, "latest"])).await.unwrap_err();
    assert_eq!((too_big.code, too_big.message.as_str()), (-32008, "Response is too big"));
    let third = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": ["0x1", true]});
    let (_, _, together) = rig.post(&json!([third, third, third]).to_string()).await;
    assert_eq!(serde_json::from_str::<Value>(&together).unwrap()["error"]["code"], -32011, "{together}");
}

#[tokio::test]
async fn other_uses_of_http_are_refused_by_status() {
    let rig = Rig::start();
    let (status, _, _) = rig.http_request("GET", "", b"").await;
    assert_eq!(status, 405);
    let (status, _, _) = rig.http_request("POST", "content-type: text/plain\r\n", CHAIN_ID.as_bytes()).await;
    assert_eq!(status, 415);
    let (status, _, _) = rig.http_request("POST", "", CHAIN_ID.as_bytes()).await;
    assert_eq!(status, 415);
    let charset = "content-type: application/json; charset=utf-8\r\n";
    assert_eq!(rig.http_request("POST", charset, CHAIN_ID.as_bytes()).await.0, 200);
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 8\r\nsec-websocket-key: x\r\n";
    assert_eq!(rig.http_request("GET", upgrade, b"").await.0, 400);
}

#[tokio::test]
async fn any_page_may_call() {
    let rig = Rig::start();
    let asked = "origin: https://dapp.example\r\naccess-control-request-method: POST\r\n\
                 access-control-request-headers: content-type,x-wallet\r\n";
    let (status, head, _) = rig.http_request("OPTIONS", asked, b"").await;
    assert_eq!(status, 204);
    for line in [
        "access-control-allow-origin: *",
        "access-control-allow-methods: post, options",
        "access-control-allow-headers: content-type,x-wallet",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    let (_, head, _) = rig.post(CHAIN_ID).await;
    assert!(head.contains("access-control-allow-origin: *"));
    assert!(head.contains("content-type: application/json"));
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let rig = Rig::start();
    let mut stream = TcpStream::connect(rig.server.addr()).await.unwrap();
    for _ in 0..3 {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{CHAIN_ID}",
            CHAIN_ID.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut seen = String::new();
        while !seen.ends_with("\"0x11177\"}") {
            let mut some = [0; 512];
            let n = stream.read(&mut some).await.unwrap();
            assert_ne!(n, 0, "closed after {seen:?}");
            seen.push_str(std::str::from_utf8(&some[..n]).unwrap());
        }
    }
}

#[tokio::test]
async fn connections_are_limited_and_a_closed_one_makes_room() {
    let rig = Rig::with(EthLimits { max_connections: 2, ..Default::default() });
    let (mut one, mut two) = (rig.socket().await, rig.socket().await);
    assert!(one.call("eth_chainId", json!([])).await.is_ok());
    assert!(two.call("eth_chainId", json!([])).await.is_ok());
    assert_eq!(rig.metric(r#"eth_rpc_connections{rollup="7"}"#), Some("2".into()));
    let mut third = TcpStream::connect(rig.server.addr()).await.unwrap();
    let mut byte = [0];
    assert!(matches!(third.read(&mut byte).await, Ok(0) | Err(_)), "closed at once");
    assert_eq!(rig.metric(r#"eth_rpc_refused_connections_total{rollup="7"}"#), Some("1".into()));
    one.0.close(None).await.unwrap();
    while one.next().await.is_some() {}
    // The place is free once the server has seen the end of the connection.
    while rig.metric(r#"eth_rpc_connections{rollup="7"}"#) != Some("1".into()) {
        tokio::task::yield_now().await;
    }
    assert!(rig.socket().await.call("eth_chainId", json!([])).await.is_ok());
}

#[tokio::test]
async fn a_websocket_answers_garbage_and_goes_on() {
    let rig = Rig::start();
    let mut socket = rig.socket().await;
    for (text, code) in [("{", -32700), ("[]", -32600), (r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#, -32601)] {
        socket.send(text).await;
        assert_eq!(socket.next().await.unwrap()["error"]["code"], code, "{text}");
    }
    socket.0.send(Message::binary(CHAIN_ID)).await.unwrap();
    assert_eq!(socket.next().await.unwrap()["result"], "0x11177");
    socket.send(format!("[{CHAIN_ID},{CHAIN_ID}]")).await;
    assert_eq!(socket.next().await.unwrap().as_array().unwrap().len(), 2);
    let subscribe = json!([{"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}]);
    socket.send(subscribe.to_string()).await;
    assert_eq!(socket.next().await.unwrap()[0]["error"]["code"], -32600);
}

#[tokio::test]
async fn an_oversized_message_closes_the_websocket() {
    let rig = Rig::with(small());
    let mut socket = rig.socket().await;
    socket.send("x".repeat(2000)).await;
    let closed = loop {
        match socket.0.next().await {
            Some(Ok(Message::Close(frame))) => break frame.map(|f| f.code),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(closed, Some(CloseCode::Size));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_with_many_requests_at_work_is_not_read_further() {
    let rig = Rig::with(EthLimits { call_threads: 64, ..Default::default() });
    let mut socket = rig.socket().await;
    let mut begun = rig.chain().slow_calls.subscribe();
    for id in 0..40 {
        socket.request(id, "eth_call", json!([{"to": SLOW}, "latest"])).await;
    }
    begun.wait_for(|n| *n == 32).await.unwrap();
    socket.request(99, "eth_chainId", json!([])).await;
    rig.chain().let_go();
    for _ in 0..41 {
        assert!(result(socket.next().await.unwrap()).is_ok());
    }
    assert_eq!(*begun.borrow(), 40);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let timeout = std::time::Duration::from_millis(20);
    let rig = Rig::with(EthLimits { request_timeout: timeout, ..Default::default() });
    let answer = rig.rpc("eth_call", json!([{"to": SLOW}, "latest"])).await;
    rig.chain().let_go();
    assert_eq!(answer, Err(error(-32002, "request timed out")));
}

#[tokio::test]
async fn requests_are_counted_by_method_and_result() {
    let rig = Rig::start();
    rig.rpc("eth_chainId", json!([])).await.unwrap();
    rig.rpc("eth_chainId", json!([])).await.unwrap();
    rig.rpc("eth_getLogs", json!([{"blockHash": B256::ZERO}])).await.unwrap_err();
    let count = |method: &str, result: &str| {
        rig.metric(&format!(r#"eth_rpc_requests_total{{rollup="7",method="{method}",result="{result}"}}"#))
    };
    assert_eq!(count("eth_chainId", "ok"), Some("2".into()));
    assert_eq!(count("eth_getLogs", "-32000"), Some("1".into()));
    assert_eq!(rig.metric(r#"eth_rpc_latency_seconds_count{method="eth_chainId"}"#), Some("2".into()));
}

#[tokio::test]
async fn a_stopped_server_says_goodbye_and_frees_its_port() {
    let rig = Rig::start();
    let mut socket = rig.socket().await;
    socket.call("eth_subscribe", json!(["newHeads"])).await.unwrap();
    let addr = rig.server.addr();
    rig.server.stop().await;
    assert_eq!(socket.next().await, None);
    TcpListener::bind(addr).unwrap();
}

#[tokio::test]
async fn a_rollup_without_an_evm_is_not_served() {
    let rig = Rig::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = EthMetrics::new(&mut Registry::default());
    let refused = serve(listener, RollupId(99), rig.node.clone(), EthLimits::default(), metrics);
    assert!(matches!(refused, Err(ServeError::NotEvm(RollupId(99)))));
}
