//! The life of polling filters.

use super::{
    Rig, error,
    fake::{legacy, transfer},
};
use crate::eth::EthLimits;
use alloy::{providers::Provider, rpc::types::Filter};
use alloy_primitives::{Address, B256, Bytes, Log};
use serde_json::{Value, json};

fn log(n: u8) -> Log {
    Log::new_unchecked(Address::repeat_byte(n), vec![B256::repeat_byte(n)], Bytes::new())
}

async fn changes(rig: &Rig, id: &Value) -> Value {
    rig.rpc("eth_getFilterChanges", json!([id])).await.unwrap()
}

#[tokio::test]
async fn a_block_filter_tells_each_new_block_once() {
    let rig = Rig::start();
    rig.chain().extend(&[]);
    let id = rig.rpc("eth_newBlockFilter", json!([])).await.unwrap();
    assert_eq!(changes(&rig, &id).await, json!([]));
    let (a, b) = (rig.chain().extend(&[]), rig.chain().extend(&[]));
    assert_eq!(changes(&rig, &id).await, json!([a.hash, b.hash]));
    assert_eq!(changes(&rig, &id).await, json!([]));
    let c = rig.chain().extend(&[]);
    assert_eq!(changes(&rig, &id).await, json!([c.hash]));
}

#[tokio::test]
async fn a_log_filter_tells_each_new_match_once_and_all_on_request() {
    let rig = Rig::start();
    let emit = |n: u8, nonce| rig.chain().extend(&[transfer(nonce, 1).with_logs(vec![log(n)])]);
    emit(1, 0);
    let filter = json!([{"fromBlock": "0x0", "address": Address::repeat_byte(1)}]);
    let id = rig.rpc("eth_newFilter", filter).await.unwrap();
    assert_eq!(changes(&rig, &id).await, json!([]), "only what comes after the filter");
    emit(2, 1);
    emit(1, 2);
    let new = changes(&rig, &id).await;
    assert_eq!((new.as_array().unwrap().len(), &new[0]["blockNumber"]), (1, &json!("0x3")));
    assert_eq!(changes(&rig, &id).await, json!([]));
    let all = rig.rpc("eth_getFilterLogs", json!([id])).await.unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_log_filter_keeps_to_its_range() {
    let rig = Rig::start();
    let id = rig.rpc("eth_newFilter", json!([{"fromBlock": "0x2", "toBlock": "0x3"}])).await.unwrap();
    let mut seen = Vec::new();
    for nonce in 0..5 {
        rig.chain().extend(&[transfer(nonce, 1).with_logs(vec![log(1)])]);
        seen.extend(changes(&rig, &id).await.as_array().unwrap().iter().map(|l| l["blockNumber"].clone()));
    }
    assert_eq!(seen, ["0x2", "0x3"]);
}

#[tokio::test]
async fn a_filter_that_was_long_not_polled_catches_up_in_parts() {
    let rig = Rig::with(EthLimits { max_log_blocks: 2, ..Default::default() });
    let id = rig.rpc("eth_newFilter", json!([{}])).await.unwrap();
    for nonce in 0..5 {
        rig.chain().extend(&[transfer(nonce, 1).with_logs(vec![log(1)])]);
    }
    let mut parts = Vec::new();
    for _ in 0..4 {
        parts.push(changes(&rig, &id).await.as_array().unwrap().len());
    }
    assert_eq!(parts, [2, 2, 1, 0]);
}

#[tokio::test]
async fn a_poll_with_too_many_logs_returns_what_fits() {
    let rig = Rig::with(EthLimits { max_logs: 3, ..Default::default() });
    let id = rig.rpc("eth_newFilter", json!([{}])).await.unwrap();
    for (nonce, logs) in [(0, 2), (1, 2), (2, 5), (3, 1)] {
        rig.chain().extend(&[transfer(nonce, 1).with_logs(vec![log(1); logs])]);
    }
    let mut parts = Vec::new();
    for _ in 0..5 {
        parts.push(changes(&rig, &id).await.as_array().unwrap().len());
    }
    assert_eq!(parts, [2, 2, 5, 1, 0]);
}

#[tokio::test]
async fn a_pending_filter_tells_each_accepted_transaction_once() {
    let rig = Rig::start();
    let id = rig.rpc("eth_newPendingTransactionFilter", json!([])).await.unwrap();
    let txs = [transfer(0, 1), legacy(1)];
    for tx in &txs {
        rig.rpc("eth_sendRawTransaction", json!([tx.raw()])).await.unwrap();
    }
    assert_eq!(changes(&rig, &id).await, json!([txs[0].hash(), txs[1].hash()]));
    assert_eq!(changes(&rig, &id).await, json!([]));
    for nonce in 0..20 {
        rig.rpc("eth_sendRawTransaction", json!([transfer(nonce, 2).raw()])).await.unwrap();
    }
    let late = changes(&rig, &id).await.as_array().unwrap().len();
    assert!((1..20).contains(&late), "the oldest of what was not polled in time are lost: {late}");
}

#[tokio::test]
async fn an_uninstalled_filter_is_unknown() {
    let rig = Rig::start();
    let id = rig.rpc("eth_newBlockFilter", json!([])).await.unwrap();
    assert_eq!(rig.rpc("eth_uninstallFilter", json!([id])).await.unwrap(), true);
    assert_eq!(rig.rpc("eth_uninstallFilter", json!([id])).await.unwrap(), false);
    for method in ["eth_getFilterChanges", "eth_getFilterLogs"] {
        assert_eq!(rig.rpc(method, json!([id])).await, Err(error(-32000, "filter not found")), "{method}");
    }
}

#[tokio::test]
async fn wrong_uses_of_filters_are_refused() {
    let rig = Rig::with(EthLimits { max_filters: 1, ..Default::default() });
    let hash = json!([{"blockHash": B256::ZERO}]);
    assert_eq!(rig.rpc("eth_newFilter", hash).await.unwrap_err().code, -32602);
    let blocks = rig.rpc("eth_newBlockFilter", json!([])).await.unwrap();
    assert_eq!(rig.rpc("eth_getFilterLogs", json!([blocks])).await, Err(error(-32000, "filter not found")));
    assert_eq!(
        rig.rpc("eth_newBlockFilter", json!([])).await,
        Err(error(-32005, "too many filters: at most 1 are kept"))
    );
    assert_eq!(rig.rpc("eth_getFilterChanges", json!(["nonsense"])).await.unwrap_err().code, -32602);
}

#[tokio::test]
async fn a_librarys_filters_work() {
    let rig = Rig::start();
    let provider = rig.http();
    let id = provider.new_filter(&Filter::new().address(Address::repeat_byte(1))).await.unwrap();
    rig.chain().extend(&[transfer(0, 1).with_logs(vec![log(1), log(2)])]);
    let logs = provider.get_filter_changes::<alloy::rpc::types::Log>(id).await.unwrap();
    assert_eq!(logs.len(), 1);
    assert!(provider.uninstall_filter(id).await.unwrap());
}
