//! Blocks and receipts decode as Ethereum's, and say what the chain says.

use super::{
    Rig, error,
    fake::{BASE_FEE, CHAIN_ID, Tx, access_list, legacy, set_code, signer, transfer},
};
use alloy::{
    consensus::{Transaction as _, TxReceipt, proofs::calculate_transaction_root},
    eips::{BlockId, BlockNumberOrTag, eip2718::Encodable2718},
    providers::Provider,
};
use alloy_primitives::{Address, B256, Bytes, Log, keccak256};
use serde_json::{Value, json};
use switchyard_primitives::Level;

fn log(n: u8) -> Log {
    Log::new_unchecked(Address::repeat_byte(n), vec![B256::repeat_byte(n)], Bytes::from(vec![n; 3]))
}

/// One transaction of each type, with logs.
fn all_types() -> Vec<Tx> {
    vec![
        legacy(0).with_logs(vec![log(1), log(2)]),
        access_list(1),
        transfer(2, 5).with_logs(vec![log(3)]),
        set_code(3).failed(),
        transfer(4, 5).with_logs(vec![log(4)]),
    ]
}

#[tokio::test]
async fn a_full_block_decodes_to_what_was_executed() {
    let rig = Rig::start();
    let executed = rig.chain().extend(&all_types());
    let block = rig.http().get_block(BlockId::latest()).full().await.unwrap().unwrap();
    assert_eq!(block.header.inner, executed.header);
    assert_eq!(block.header.hash, executed.hash);
    assert_eq!(block.header.inner.hash_slow(), executed.hash);
    assert_eq!(block.withdrawals, Some(executed.withdrawals.clone().into()));
    for (i, tx) in block.transactions.txns().enumerate() {
        assert_eq!(tx.inner.inner(), &executed.transactions[i]);
        assert_eq!(tx.inner.inner().trie_hash(), keccak256(executed.transactions[i].encoded_2718()));
        assert_eq!(tx.inner.signer(), signer().address());
        assert_eq!(tx.transaction_index, Some(i as u64));
        assert_eq!((tx.block_hash, tx.block_number), (Some(executed.hash), Some(1)));
    }
}

#[tokio::test]
async fn a_block_of_hashes_names_its_transactions_and_its_true_size() {
    let rig = Rig::start();
    let executed = rig.chain().extend(&all_types());
    let block = rig.http().get_block_by_hash(executed.hash).await.unwrap().unwrap();
    let hashes: Vec<_> = block.transactions.hashes().collect();
    assert_eq!(hashes, executed.transactions.iter().map(|tx| *tx.tx_hash()).collect::<Vec<_>>());
    let mut rlp = Vec::new();
    let body = alloy::consensus::BlockBody {
        transactions: executed.transactions.clone(),
        ommers: vec![],
        withdrawals: Some(executed.withdrawals.clone().into()),
    };
    alloy::consensus::Block::rlp_encode_from_parts(&executed.header, &body, &mut rlp);
    assert_eq!(block.header.size.unwrap().to::<usize>(), rlp.len());
}

#[tokio::test]
async fn blocks_and_transactions_have_the_fields_and_forms_of_ethereum() {
    let rig = Rig::start();
    rig.chain().extend(&all_types());
    let block = rig.rpc("eth_getBlockByNumber", json!(["0x1", true])).await.unwrap();
    for field in ["number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "size", "difficulty"] {
        assert!(quantity(&block[field]), "{field}: {}", block[field]);
    }
    for field in ["blobGasUsed", "excessBlobGas"] {
        assert!(quantity(&block[field]), "{field}: {}", block[field]);
    }
    for field in ["parentBeaconBlockRoot", "requestsHash", "withdrawalsRoot", "mixHash", "sha3Uncles", "stateRoot"] {
        assert_eq!(block[field].as_str().map(str::len), Some(66), "{field}");
    }
    assert_eq!(block["uncles"], json!([]));
    let deposit =
        json!({ "index": "0x0", "validatorIndex": "0x0", "address": Address::repeat_byte(0xdd), "amount": "0x1" });
    assert_eq!(block["withdrawals"], json!([deposit]));
    assert_eq!(block["nonce"], "0x0000000000000000");
    assert!(block.get("totalDifficulty").is_none());
    let types: Vec<_> = block["transactions"].as_array().unwrap().iter().map(|tx| tx["type"].clone()).collect();
    assert_eq!(types, ["0x0", "0x1", "0x2", "0x4", "0x2"]);
    for tx in block["transactions"].as_array().unwrap() {
        for field in ["nonce", "gas", "gasPrice", "value", "v", "r", "s", "transactionIndex", "blockNumber", "chainId"]
        {
            assert!(quantity(&tx[field]), "{field}: {tx}");
        }
        assert_eq!(tx["yParity"].is_string(), tx["type"] != "0x0", "{tx}");
        assert_eq!(tx["accessList"].is_array(), tx["type"] != "0x0", "{tx}");
        assert_eq!(tx["authorizationList"].is_array(), tx["type"] == "0x4", "{tx}");
        let dynamic = tx["type"] != "0x0" && tx["type"] != "0x1";
        assert_eq!(tx["maxFeePerGas"].is_string() && tx["maxPriorityFeePerGas"].is_string(), dynamic, "{tx}");
    }
    assert_eq!(block["transactions"][0]["to"], Value::Null);
}

/// A hex quantity: no leading zeros.
fn quantity(value: &Value) -> bool {
    value
        .as_str()
        .and_then(|s| s.strip_prefix("0x"))
        .is_some_and(|digits| digits == "0" || (!digits.is_empty() && !digits.starts_with('0') && digits.len() <= 64))
}

#[tokio::test]
async fn receipts_decode_to_what_was_executed() {
    let rig = Rig::start();
    let provider = rig.http();
    let txs = all_types();
    let executed = rig.chain().extend(&txs);
    let receipts = provider.get_block_receipts(BlockId::number(1)).await.unwrap().unwrap();
    assert_eq!(receipts.len(), txs.len());
    for (i, tx) in txs.iter().enumerate() {
        let receipt = provider.get_transaction_receipt(tx.hash()).await.unwrap().unwrap();
        assert_eq!(receipt, receipts[i]);
        assert_eq!(receipt.transaction_hash, tx.hash());
        assert_eq!(receipt.transaction_index, Some(i as u64));
        assert_eq!((receipt.block_hash, receipt.block_number), (Some(executed.hash), Some(1)));
        assert_eq!(receipt.status(), tx.success);
        assert_eq!(receipt.gas_used, tx.gas_used);
        assert_eq!(receipt.inner.cumulative_gas_used(), 21_000 * (i as u64 + 1));
        assert_eq!(receipt.from, signer().address());
        assert_eq!(receipt.to, tx.envelope.to());
        assert_eq!(receipt.effective_gas_price, tx.envelope.effective_gas_price(Some(BASE_FEE + 1)));
        assert_eq!(receipt.inner.bloom(), executed.receipts[i].bloom());
        assert_eq!(receipt.inner.logs().iter().map(|l| l.inner.clone()).collect::<Vec<_>>(), tx.logs);
    }
    assert_eq!(receipts[0].contract_address, Some(signer().address().create(0)));
    assert_eq!(receipts[1].contract_address, None);
    let indices: Vec<_> = receipts.iter().flat_map(|r| r.inner.logs()).map(|l| l.log_index.unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3], "log indices count over the block");
}

#[tokio::test]
async fn receipts_have_the_fields_and_forms_of_ethereum() {
    let rig = Rig::start();
    let txs = all_types();
    rig.chain().extend(&txs);
    for tx in &txs {
        let receipt = rig.rpc("eth_getTransactionReceipt", json!([tx.hash()])).await.unwrap();
        for field in
            ["type", "status", "cumulativeGasUsed", "gasUsed", "effectiveGasPrice", "transactionIndex", "blockNumber"]
        {
            assert!(quantity(&receipt[field]), "{field}: {receipt}");
        }
        assert_eq!(receipt["logsBloom"].as_str().map(str::len), Some(514));
        assert!(receipt.as_object().unwrap().contains_key("contractAddress"));
        assert!(receipt.as_object().unwrap().contains_key("to"));
        for log in receipt["logs"].as_array().unwrap() {
            assert!(quantity(&log["logIndex"]) && quantity(&log["blockTimestamp"]), "{log}");
            assert_eq!(log["removed"], false);
        }
    }
}

#[tokio::test]
async fn tags_follow_the_finality_levels() {
    let rig = Rig::start();
    for _ in 0..9 {
        rig.chain().extend(&[]);
    }
    let number = async |tag: &str| {
        let block = rig.rpc("eth_getBlockByNumber", json!([tag, false])).await.unwrap();
        block["number"].as_str().unwrap().to_owned()
    };
    assert_eq!(number("safe").await, "0x0", "nothing is attested yet");
    assert_eq!(number("finalized").await, "0x0", "nothing is settled yet");
    rig.chain().levels.write().extend([(Level::Attested, 7), (Level::Settled, 3)]);
    assert_eq!(number("latest").await, "0x9");
    assert_eq!(number("pending").await, "0x9");
    assert_eq!(number("safe").await, "0x7");
    assert_eq!(number("finalized").await, "0x3");
    assert_eq!(number("earliest").await, "0x0");
    assert_eq!(number("0x5").await, "0x5");
    assert_eq!(rig.rpc("eth_blockNumber", json!([])).await.unwrap(), "0x9");
}

#[tokio::test]
async fn what_does_not_exist_is_null() {
    let rig = Rig::start();
    let nowhere = B256::repeat_byte(9);
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["0x5", true])),
        ("eth_getBlockByHash", json!([nowhere, true])),
        ("eth_getBlockReceipts", json!(["0x5"])),
        ("eth_getBlockReceipts", json!([{"blockHash": nowhere}])),
        ("eth_getBlockTransactionCountByNumber", json!(["0x5"])),
        ("eth_getBlockTransactionCountByHash", json!([nowhere])),
        ("eth_getUncleCountByBlockNumber", json!(["0x5"])),
        ("eth_getUncleCountByBlockHash", json!([nowhere])),
        ("eth_getTransactionByHash", json!([nowhere])),
        ("eth_getRawTransactionByHash", json!([nowhere])),
        ("eth_getTransactionReceipt", json!([nowhere])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["latest", "0x0"])),
        ("eth_getTransactionByBlockHashAndIndex", json!([nowhere, "0x0"])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["latest", "0xffffffffffffffff"])),
    ] {
        assert_eq!(rig.rpc(method, params).await, Ok(Value::Null), "{method}");
    }
}

#[tokio::test]
async fn counts_and_positions_agree_with_the_block() {
    let rig = Rig::start();
    let txs = all_types();
    let executed = rig.chain().extend(&txs);
    for (method, params) in [
        ("eth_getBlockTransactionCountByNumber", json!(["latest"])),
        ("eth_getBlockTransactionCountByHash", json!([executed.hash])),
    ] {
        assert_eq!(rig.rpc(method, params).await.unwrap(), "0x5", "{method}");
    }
    for (method, params) in [
        ("eth_getUncleCountByBlockNumber", json!(["latest"])),
        ("eth_getUncleCountByBlockHash", json!([executed.hash])),
    ] {
        assert_eq!(rig.rpc(method, params).await.unwrap(), "0x0", "{method}");
    }
    let by_hash = rig.rpc("eth_getTransactionByHash", json!([txs[2].hash()])).await.unwrap();
    let by_number = rig.rpc("eth_getTransactionByBlockNumberAndIndex", json!(["0x1", "0x2"])).await.unwrap();
    let by_block = rig.rpc("eth_getTransactionByBlockHashAndIndex", json!([executed.hash, "0x2"])).await.unwrap();
    assert_eq!(by_hash, by_number);
    assert_eq!(by_hash, by_block);
    let raw = rig.rpc("eth_getRawTransactionByHash", json!([txs[2].hash()])).await.unwrap();
    assert_eq!(raw, json!(txs[2].raw()));
}

#[tokio::test]
async fn the_genesis_block_is_served() {
    let rig = Rig::start();
    let block = rig.http().get_block_by_number(BlockNumberOrTag::Earliest).await.unwrap().unwrap();
    assert_eq!(block.header.inner.transactions_root, calculate_transaction_root::<alloy::consensus::TxEnvelope>(&[]));
    assert_eq!(block.header.hash, block.header.inner.hash_slow());
}

#[tokio::test]
async fn the_network_is_named() {
    let rig = Rig::start();
    let provider = rig.http();
    assert_eq!(provider.get_chain_id().await.unwrap(), CHAIN_ID);
    assert_eq!(provider.get_net_version().await.unwrap(), CHAIN_ID);
    assert_eq!(provider.get_client_version().await.unwrap(), "switchyard/0.1.0");
    assert_eq!(provider.get_accounts().await.unwrap(), Vec::<Address>::new());
    assert!(matches!(provider.syncing().await.unwrap(), alloy::rpc::types::SyncStatus::None));
    assert_eq!(provider.get_sha3(b"switchyard").await.unwrap(), keccak256("switchyard"));
    assert_eq!(rig.rpc("net_listening", json!([])).await.unwrap(), true);
    assert_eq!(rig.rpc("net_peerCount", json!([])).await.unwrap(), "0x3");
    assert_eq!(rig.rpc("rpc_modules", json!([])).await.unwrap()["eth"], "1.0");
}

#[tokio::test]
async fn wrong_parameters_are_refused_by_name() {
    let rig = Rig::start();
    let message = async |method: &str, params: Value| {
        let refused = rig.rpc(method, params).await.unwrap_err();
        assert_eq!(refused.code, -32602, "{refused:?}");
        refused.message
    };
    assert_eq!(message("eth_getBlockByNumber", json!([])).await, "missing value for required argument 0");
    assert_eq!(message("eth_getBlockByNumber", json!({"a": 1})).await, "non-array args");
    assert_eq!(message("eth_chainId", json!([1])).await, "too many arguments, want at most 0");
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["newest", false])),
        ("eth_getBlockByNumber", json!(["0x", false])),
        ("eth_getBlockByNumber", json!(["0x1", "yes"])),
        ("eth_getBlockByHash", json!(["0x1234", false])),
        ("eth_getTransactionReceipt", json!(["nonsense"])),
        ("eth_getBalance", json!(["0x12", "latest"])),
        ("eth_getBalance", json!([Address::ZERO, {"blockHash": "0x12"}])),
        ("eth_getStorageAt", json!([Address::ZERO, "0xzz", "latest"])),
    ] {
        let text = message(method, params.clone()).await;
        assert!(text.starts_with("invalid argument "), "{method} {params}: {text}");
    }
    assert_eq!(
        rig.rpc("eth_mine", json!([])).await,
        Err(error(-32601, "the method eth_mine does not exist/is not available"))
    );
}
