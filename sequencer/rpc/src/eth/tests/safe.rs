//! The tag `safe` is the newest attested block, wherever a tag is read.

use super::{
    Rig,
    fake::{Tx, transfer},
};
use alloy_primitives::{Address, B256, Bytes, Log};
use serde_json::{Value, json};

const ATTESTED: u64 = 4;

/// Nine blocks, each with a transaction and a log.
fn nine() -> (Rig, Vec<Tx>) {
    let rig = Rig::start();
    let log = Log::new_unchecked(Address::repeat_byte(1), vec![], Bytes::new());
    let txs: Vec<_> = (0..9).map(|nonce| transfer(nonce, 1).with_logs(vec![log.clone()])).collect();
    for tx in &txs {
        rig.chain().extend(std::slice::from_ref(tx));
    }
    (rig, txs)
}

fn node(rig: &Rig) -> &dyn switchyard_rollup_core::evm::EvmChain {
    rig.chain()
}

async fn number(rig: &Rig, tag: &str) -> Value {
    rig.rpc("eth_getBlockByNumber", json!([tag, false])).await.unwrap()["number"].clone()
}

/// The first and the last block of which a filter finds logs.
async fn range(rig: &Rig, method: &str, params: Value) -> Option<(Value, Value)> {
    let logs = rig.rpc(method, params).await.unwrap();
    let blocks: Vec<_> = logs.as_array().unwrap().iter().map(|log| log["blockNumber"].clone()).collect();
    Some((blocks.first()?.clone(), blocks.last()?.clone()))
}

#[tokio::test]
async fn it_is_genesis_at_first_never_goes_back_and_is_never_above_what_is_closed_here() {
    let (rig, _) = nine();
    assert_eq!(number(&rig, "safe").await, "0x0");
    node(&rig).set_attested(ATTESTED);
    assert_eq!(number(&rig, "safe").await, "0x4");
    node(&rig).set_attested(2);
    assert_eq!(number(&rig, "safe").await, "0x4");
    // Others are ahead of this node.
    node(&rig).set_attested(11);
    assert_eq!(number(&rig, "safe").await, "0x9");
    rig.chain().extend(&[]);
    assert_eq!(number(&rig, "safe").await, "0xa");
    rig.chain().extend(&[]);
    rig.chain().extend(&[]);
    assert_eq!((number(&rig, "safe").await, number(&rig, "latest").await), (json!("0xb"), json!("0xc")));
    assert_eq!(number(&rig, "finalized").await, "0x0");
}

#[tokio::test]
async fn reads_of_the_state_and_calls_are_on_it() {
    let (rig, _) = nine();
    node(&rig).set_attested(ATTESTED);
    let account = Address::repeat_byte(9);
    let call = json!({ "to": account });
    for (method, params) in [
        ("eth_getBalance", json!([account, "safe"])),
        ("eth_getTransactionCount", json!([account, "safe"])),
        ("eth_getCode", json!([account, "safe"])),
        ("eth_getStorageAt", json!([account, "0x0", "safe"])),
        ("eth_getProof", json!([account, ["0x0"], "safe"])),
        ("eth_call", json!([call, "safe"])),
        ("eth_estimateGas", json!([call, "safe"])),
    ] {
        rig.chain().asked.lock().clear();
        rig.rpc(method, params.clone()).await.unwrap();
        let asked = std::mem::take(&mut *rig.chain().asked.lock());
        assert!(!asked.is_empty() && asked.iter().all(|number| *number == ATTESTED), "{method}: {asked:?}");
    }
}

#[tokio::test]
async fn methods_for_blocks_and_their_transactions_are_on_it() {
    let (rig, txs) = nine();
    node(&rig).set_attested(ATTESTED);
    // Block n holds transaction n - 1.
    let hash = json!(txs[3].hash());
    let block = rig.rpc("eth_getBlockByNumber", json!(["safe", false])).await.unwrap();
    assert_eq!(block["transactions"], json!([hash]));
    let receipts = rig.rpc("eth_getBlockReceipts", json!(["safe"])).await.unwrap();
    assert_eq!(receipts[0]["transactionHash"], hash);
    let tx = rig.rpc("eth_getTransactionByBlockNumberAndIndex", json!(["safe", "0x0"])).await.unwrap();
    assert_eq!(tx["hash"], hash);
    let count = rig.rpc("eth_getBlockTransactionCountByNumber", json!(["safe"])).await.unwrap();
    assert_eq!(count, "0x1");
    let fees = rig.rpc("eth_feeHistory", json!(["0x2", "safe", []])).await.unwrap();
    assert_eq!(fees["oldestBlock"], "0x3");
}

#[tokio::test]
async fn ranges_of_logs_and_filters_begin_or_end_with_it() {
    let (rig, _) = nine();
    node(&rig).set_attested(ATTESTED);
    let (from, to) = (json!({ "fromBlock": "safe" }), json!({ "fromBlock": "earliest", "toBlock": "safe" }));
    let (after, before) = (Some((json!("0x4"), json!("0x9"))), Some((json!("0x1"), json!("0x4"))));
    for (filter, expected) in [(from, after), (to, before)] {
        assert_eq!(range(&rig, "eth_getLogs", json!([filter])).await, expected, "{filter}");
        let id = rig.rpc("eth_newFilter", json!([filter])).await.unwrap();
        assert_eq!(range(&rig, "eth_getFilterLogs", json!([id])).await, expected, "{filter}");
    }
    let backwards = json!({ "fromBlock": "latest", "toBlock": "safe" });
    assert_eq!(range(&rig, "eth_getLogs", json!([backwards])).await, None);
    let at = json!({ "blockHash": B256::ZERO });
    assert!(rig.rpc("eth_getLogs", json!([at])).await.is_err());
}
