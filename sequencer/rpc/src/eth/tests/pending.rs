//! The open block of a rollup with one-second sealing.

use super::{
    Rig,
    fake::{self, REVERTER, signer, transfer},
};
use alloy::{
    eips::BlockNumberOrTag,
    network::TransactionBuilder,
    providers::Provider,
    rpc::types::{Filter, TransactionRequest},
};
use alloy_primitives::{Address, B256, Bytes, Log, U256};
use serde_json::{Value, json};
use switchyard_rollup_core::evm::EvmAccount;

fn with_logs(nonce: u64, logs: usize) -> fake::Tx {
    let log = |_| Log::new_unchecked(Address::repeat_byte(5), vec![B256::repeat_byte(6)], Bytes::from_static(b"x"));
    transfer(nonce, 1).with_logs((0..logs).map(log).collect())
}

#[tokio::test]
async fn a_receipt_exists_while_its_block_is_open_and_only_the_block_hash_is_added_to_it() {
    let rig = Rig::start();
    let txs = [with_logs(0, 2), transfer(1, 1).failed(), with_logs(2, 1)];
    rig.chain().open(&txs);
    let get = |tx: &fake::Tx| rig.rpc("eth_getTransactionReceipt", json!([tx.hash()]));
    let mut open = Vec::new();
    for tx in &txs {
        open.push(get(tx).await.unwrap());
    }
    assert_eq!(open[2]["blockNumber"], "0x1");
    assert_eq!(open[2]["logs"][0]["logIndex"], "0x2");
    assert_eq!((&open[1]["status"], &open[2]["status"]), (&json!("0x0"), &json!("0x1")));
    assert_eq!(rig.rpc("eth_blockNumber", json!([])).await, Ok(json!("0x0")));

    let hash = json!(rig.chain().extend(&txs).hash);
    for (tx, mut receipt) in txs.iter().zip(open) {
        assert_eq!(receipt["blockHash"], json!(B256::ZERO), "libraries refuse null");
        receipt["blockHash"] = hash.clone();
        for log in receipt["logs"].as_array_mut().unwrap() {
            assert_eq!(log["blockHash"], json!(B256::ZERO));
            log["blockHash"] = hash.clone();
        }
        assert_eq!(get(tx).await.unwrap(), receipt);
    }
}

#[tokio::test]
async fn alloy_reads_the_open_block_its_transactions_and_receipts() {
    let rig = Rig::start();
    let txs = [with_logs(0, 1), transfer(1, 1)];
    let open = rig.chain().open(&txs);
    let provider = rig.http();
    let receipt = provider.get_transaction_receipt(txs[1].hash()).await.unwrap().unwrap();
    assert_eq!((receipt.block_hash, receipt.block_number), (Some(B256::ZERO), Some(1)));
    assert_eq!((receipt.transaction_index, receipt.gas_used, receipt.status()), (Some(1), 21_000, true));
    let tx = provider.get_transaction_by_hash(txs[1].hash()).await.unwrap().unwrap();
    assert_eq!((tx.block_hash, tx.block_number, tx.transaction_index), (Some(B256::ZERO), Some(1), Some(1)));
    let raw = rig.rpc("eth_getRawTransactionByHash", json!([txs[1].hash()])).await;
    assert_eq!(raw, Ok(json!(txs[1].raw())));
    let block = provider.get_block_by_number(BlockNumberOrTag::Pending).full().await.unwrap().unwrap();
    assert_eq!((block.header.hash, block.header.inner.clone()), (B256::ZERO, open.header.clone()));
    assert_eq!(block.transactions.hashes().collect::<Vec<_>>(), [txs[0].hash(), txs[1].hash()]);
    let receipts = provider.get_block_receipts(BlockNumberOrTag::Pending.into()).await.unwrap().unwrap();
    assert_eq!(receipts[1], receipt);
    assert_eq!(rig.rpc("eth_getBlockTransactionCountByNumber", json!(["pending"])).await, Ok(json!("0x2")));
    // No block can be asked for by the hash that stands for none, nor by the number before it is closed.
    assert_eq!(rig.rpc("eth_getBlockByHash", json!([B256::ZERO, false])).await, Ok(Value::Null));
    assert_eq!(rig.rpc("eth_getBlockByNumber", json!(["0x1", false])).await, Ok(Value::Null));
}

#[tokio::test]
async fn the_pending_tag_is_the_open_blocks_state_and_the_newest_blocks_where_none_is_open() {
    let rig = Rig::start();
    let address = signer().address();
    let account = |nonce| EvmAccount { nonce, balance: U256::from(100 - nonce), code_hash: B256::ZERO };
    rig.chain().accounts.write().insert(address, account(1));
    rig.chain().open_accounts.write().insert(address, account(3));
    let read = async |method: &str, tag: &str| rig.rpc(method, json!([address, tag])).await.unwrap();
    for open in [false, true] {
        if open {
            rig.chain().open(&[transfer(1, 1), transfer(2, 1)]);
        }
        let nonce = if open { 3 } else { 1 };
        assert_eq!(read("eth_getTransactionCount", "latest").await, "0x1");
        assert_eq!(read("eth_getTransactionCount", "pending").await, json!(format!("{nonce:#x}")));
        assert_eq!(read("eth_getBalance", "latest").await, "0x63");
        assert_eq!(read("eth_getBalance", "pending").await, json!(format!("{:#x}", 100 - nonce)));
        for method in ["eth_call", "eth_estimateGas"] {
            for tag in ["latest", "pending"] {
                rig.rpc(method, json!([{ "to": Address::ZERO }, tag])).await.unwrap();
            }
        }
        assert_eq!(read("eth_getCode", "pending").await, "0x");
        rig.rpc("eth_getStorageAt", json!([REVERTER, "0x0", "pending"])).await.unwrap();
        // What needs a root, and what is about blocks, is of closed ones.
        rig.rpc("eth_getProof", json!([address, [], "pending"])).await.unwrap();
        rig.rpc("eth_feeHistory", json!(["0x1", "pending", []])).await.unwrap();
    }
    *rig.node.waiting_nonce.write() = Some(7);
    assert_eq!(read("eth_getTransactionCount", "pending").await, "0x7", "and what waits in the mempool");
}

#[tokio::test]
async fn gas_is_estimated_on_the_open_block_where_the_client_names_none() {
    let rig = Rig::start();
    rig.chain().open(&[transfer(0, 1)]);
    let request = TransactionRequest::default().with_to(Address::repeat_byte(1));
    assert_eq!(rig.http().estimate_gas(request.clone()).await.unwrap(), 21_000);
    assert_eq!(rig.chain().estimated_at(), 1);
    rig.http().call(request).await.unwrap();
    rig.rpc("eth_estimateGas", json!([{ "to": Address::repeat_byte(1) }, "latest"])).await.unwrap();
    assert_eq!(rig.chain().estimated_at(), 0);
}

#[tokio::test]
async fn logs_and_heads_are_of_closed_blocks() {
    let rig = Rig::start();
    let mut socket = rig.socket().await;
    for params in [json!(["newHeads"]), json!(["logs", {}])] {
        socket.call("eth_subscribe", params).await.unwrap();
    }
    let filter = rig.rpc("eth_newFilter", json!([{}])).await.unwrap();
    rig.chain().open(&[with_logs(0, 1)]);
    let to_pending = Filter::new().from_block(0).to_block(BlockNumberOrTag::Pending);
    assert_eq!(rig.http().get_logs(&to_pending).await.unwrap(), []);
    assert_eq!(rig.rpc("eth_getFilterChanges", json!([filter])).await, Ok(json!([])));
    let block = rig.chain().extend(&[with_logs(0, 1)]);
    assert_eq!(rig.http().get_logs(&to_pending).await.unwrap().len(), 1);
    // The first messages are those of the closed block.
    for _ in 0..2 {
        let message = socket.next().await.unwrap();
        let result = &message["params"]["result"];
        let hash = result.get("hash").or(result.get("blockHash")).unwrap();
        assert_eq!(*hash, json!(block.hash), "{message}");
    }
}

#[tokio::test]
async fn sending_synchronously_answers_as_soon_as_the_open_block_holds_the_transaction() {
    let rig = Rig::start();
    let (other, tx) = (transfer(0, 1), transfer(1, 1));
    let mut accepted = rig.node.accepted.subscribe();
    let (answer, ()) = tokio::join!(rig.rpc("eth_sendRawTransactionSync", json!([tx.raw(), 60_000])), async {
        accepted.recv().await.unwrap();
        rig.chain().open(std::slice::from_ref(&other));
        rig.chain().open(&[other, tx.clone()]);
    });
    let receipt = answer.unwrap();
    assert_eq!((&receipt["transactionHash"], &receipt["transactionIndex"]), (&json!(tx.hash()), &json!("0x1")));
    assert_eq!(receipt["blockHash"], json!(B256::ZERO));
}
