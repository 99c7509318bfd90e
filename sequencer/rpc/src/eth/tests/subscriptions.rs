//! Subscriptions over WebSocket.

use super::{
    Rig, RpcError, Socket, error,
    fake::{signer, transfer},
};
use crate::eth::EthLimits;
use alloy::{providers::Provider, rpc::types::Filter};
use alloy_primitives::{Address, B256, Bytes, Log};
use futures::StreamExt;
use serde_json::{Value, json};

fn log(n: u8) -> Log {
    Log::new_unchecked(Address::repeat_byte(n), vec![B256::repeat_byte(n)], Bytes::new())
}

async fn subscribe(socket: &mut Socket, params: Value) -> Value {
    socket.call("eth_subscribe", params).await.unwrap()
}

/// The next notification of `id`.
async fn notified(socket: &mut Socket, id: &Value) -> Value {
    let message = socket.next().await.unwrap();
    assert_eq!((&message["method"], &message["params"]["subscription"]), (&json!("eth_subscription"), id));
    message["params"]["result"].clone()
}

#[tokio::test]
async fn a_library_gets_new_heads_and_logs() {
    let rig = Rig::start();
    let provider = rig.ws().await;
    let mut heads = provider.subscribe_blocks().await.unwrap().into_stream();
    let mut logs =
        provider.subscribe_logs(&Filter::new().address(Address::repeat_byte(1))).await.unwrap().into_stream();
    for nonce in 0..3 {
        let block = rig.chain().extend(&[transfer(nonce, 1).with_logs(vec![log(2), log(1)])]);
        let head = heads.next().await.unwrap();
        assert_eq!((head.hash, head.inner), (block.hash, block.header.clone()));
        let found = logs.next().await.unwrap();
        assert_eq!((found.block_hash, found.log_index), (Some(block.hash), Some(1)));
    }
}

#[tokio::test]
async fn a_library_gets_pending_transactions() {
    let rig = Rig::start();
    let provider = rig.ws().await;
    let mut hashes = provider.subscribe_pending_transactions().await.unwrap().into_stream();
    let mut full = provider.subscribe_full_pending_transactions().await.unwrap().into_stream();
    let tx = transfer(0, 1);
    let _sent = provider.send_raw_transaction(&tx.raw()).await.unwrap();
    assert_eq!(hashes.next().await, Some(tx.hash()));
    let seen = full.next().await.unwrap();
    assert_eq!((seen.inner.inner(), seen.inner.signer()), (&tx.envelope, signer().address()));
    assert_eq!(seen.block_hash, None);
}

#[tokio::test]
async fn a_library_waits_for_a_receipt_over_websocket() {
    let rig = Rig::start();
    let provider = rig.ws().await;
    let tx = transfer(0, 1);
    let pending = provider.send_raw_transaction(&tx.raw()).await.unwrap();
    let (receipt, ()) = tokio::join!(pending.get_receipt(), async {
        rig.chain().extend(std::slice::from_ref(&tx));
    });
    assert_eq!(receipt.unwrap().transaction_hash, tx.hash());
}

#[tokio::test]
async fn no_head_is_missed_when_blocks_come_faster_than_they_are_taken() {
    let rig = Rig::start();
    let mut socket = rig.socket().await;
    let id = subscribe(&mut socket, json!(["newHeads"])).await;
    // Far more than the channel of blocks holds, in one go.
    for _ in 0..50 {
        rig.chain().extend(&[]);
    }
    for number in 1..=50 {
        assert_eq!(notified(&mut socket, &id).await["number"], format!("{number:#x}"));
    }
}

#[tokio::test]
async fn an_ended_subscription_sends_no_more() {
    let rig = Rig::start();
    let mut socket = rig.socket().await;
    let ended = subscribe(&mut socket, json!(["newHeads"])).await;
    assert_eq!(socket.call("eth_unsubscribe", json!([ended])).await, Ok(json!(true)));
    assert_eq!(socket.call("eth_unsubscribe", json!([ended])).await, Ok(json!(false)));
    let live = subscribe(&mut socket, json!(["newHeads"])).await;
    let block = rig.chain().extend(&[]);
    assert_eq!(notified(&mut socket, &live).await["hash"], json!(block.hash));
}

#[tokio::test]
async fn subscriptions_of_one_connection_are_no_business_of_another() {
    let rig = Rig::start();
    let (mut one, mut two) = (rig.socket().await, rig.socket().await);
    let id = subscribe(&mut one, json!(["newHeads"])).await;
    assert_eq!(two.call("eth_unsubscribe", json!([id])).await, Ok(json!(false)));
    let block = rig.chain().extend(&[]);
    assert_eq!(notified(&mut one, &id).await["hash"], json!(block.hash));
}

#[tokio::test]
async fn subscriptions_are_limited_and_ending_one_makes_room() {
    let rig = Rig::with(EthLimits { max_subscriptions_per_connection: 2, ..Default::default() });
    let mut socket = rig.socket().await;
    let first = subscribe(&mut socket, json!(["newHeads"])).await;
    subscribe(&mut socket, json!(["logs", {}])).await;
    let refused = socket.call("eth_subscribe", json!(["newHeads"])).await;
    assert_eq!(refused, Err(error(-32005, "too many subscriptions on this connection: at most 2")));
    assert_eq!(socket.call("eth_unsubscribe", json!([first])).await, Ok(json!(true)));
    // The place is free once the subscription's task has ended.
    loop {
        match socket.call("eth_subscribe", json!(["newHeads"])).await {
            Ok(_) => break,
            Err(RpcError { code: -32005, .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn wrong_subscriptions_are_refused() {
    let rig = Rig::start();
    let mut socket = rig.socket().await;
    assert_eq!(
        socket.call("eth_subscribe", json!(["newUncles"])).await,
        Err(error(-32601, "no \"newUncles\" subscription in eth namespace"))
    );
    for params in [json!([]), json!(["logs", {"topics": ["0x1"]}]), json!([5]), json!(["newHeads", 1, 2])] {
        assert_eq!(socket.call("eth_subscribe", params.clone()).await.unwrap_err().code, -32602, "{params}");
    }
    assert_eq!(
        rig.rpc("eth_subscribe", json!(["newHeads"])).await,
        Err(error(-32601, "notifications not supported")),
        "over HTTP"
    );
}

#[tokio::test]
async fn ids_are_hex_and_differ() {
    let rig = Rig::start();
    let mut socket = rig.socket().await;
    let one = subscribe(&mut socket, json!(["newHeads"])).await;
    let two = subscribe(&mut socket, json!(["newHeads"])).await;
    assert_ne!(one, two);
    assert!(one.as_str().unwrap().starts_with("0x"));
}
