//! Sending transactions and following them.

use super::{
    Rig, RpcError, error,
    fake::{CHAIN_ID, ROLLUP, signer, transfer},
};
use alloy::providers::Provider;
use alloy_primitives::{Address, B256, U256};
use serde_json::{Value, json};
use switchyard_primitives::{RollupId, TxKey};
use switchyard_rollup_core::{Rejection, TxOutcome};

#[tokio::test]
async fn a_transaction_is_followed_from_the_pool_to_its_receipt() {
    let rig = Rig::start();
    let tx = transfer(0, 1);
    let provider = rig.http();
    let sent = provider.send_raw_transaction(&tx.raw()).await.unwrap();
    assert_eq!(*sent.tx_hash(), tx.hash());

    let waiting = rig.rpc("eth_getTransactionByHash", json!([tx.hash()])).await.unwrap();
    for field in ["blockHash", "blockNumber", "transactionIndex"] {
        assert_eq!(waiting[field], Value::Null, "{field}");
    }
    assert_eq!(waiting["from"], json!(signer().address()));
    let decoded = provider.get_transaction_by_hash(tx.hash()).await.unwrap().unwrap();
    assert_eq!(decoded.inner.inner(), &tx.envelope);
    assert_eq!(rig.rpc("eth_getTransactionReceipt", json!([tx.hash()])).await, Ok(Value::Null));
    assert_eq!(rig.rpc("eth_getRawTransactionByHash", json!([tx.hash()])).await.unwrap(), json!(tx.raw()));

    let block = rig.chain().extend(std::slice::from_ref(&tx));
    let receipt = provider.get_transaction_receipt(tx.hash()).await.unwrap().unwrap();
    assert_eq!(receipt.block_hash, Some(block.hash));
    let executed = provider.get_transaction_by_hash(tx.hash()).await.unwrap().unwrap();
    assert_eq!(executed.block_hash, Some(block.hash));
}

#[tokio::test]
async fn a_final_transaction_is_still_found_before_it_is_executed() {
    let rig = Rig::start();
    let tx = transfer(0, 1);
    rig.node.segments.write().insert(12, vec![transfer(9, 1).raw(), tx.raw()]);
    let found = rig.http().get_transaction_by_hash(tx.hash()).await.unwrap().unwrap();
    assert_eq!((found.inner.inner(), found.block_hash), (&tx.envelope, None));
    assert_eq!(rig.rpc("eth_getTransactionReceipt", json!([tx.hash()])).await, Ok(Value::Null));
}

#[tokio::test]
async fn a_skipped_transaction_is_gone() {
    let rig = Rig::start();
    let tx = transfer(0, 1);
    rig.node.segments.write().insert(12, vec![tx.raw()]);
    rig.chain().outcomes.write().insert(tx.hash(), TxOutcome::Skipped { reason: "nonce too low".into() });
    for method in ["eth_getTransactionByHash", "eth_getTransactionReceipt", "eth_getRawTransactionByHash"] {
        assert_eq!(rig.rpc(method, json!([tx.hash()])).await, Ok(Value::Null), "{method}");
    }
}

#[tokio::test]
async fn a_transaction_of_another_rollup_is_not_shown() {
    let rig = Rig::start();
    let tx = transfer(0, 1);
    rig.node.waiting.write().insert(TxKey { rollup: RollupId(ROLLUP.0 + 1), hash: tx.hash() }, tx.raw());
    assert_eq!(rig.rpc("eth_getTransactionByHash", json!([tx.hash()])).await, Ok(Value::Null));
}

#[tokio::test]
async fn each_rejection_has_its_code_and_text() {
    let rig = Rig::start();
    let hash = B256::repeat_byte(1);
    let sender = Address::repeat_byte(2);
    let cases = [
        (Rejection::NonceTooLow { expected: 2, found: 1 }, "nonce too low: next nonce 2, tx nonce 1"),
        (
            Rejection::InsufficientFunds { address: sender, have: U256::from(1), want: U256::from(2) },
            "insufficient funds for gas * price + value: address 0x0202020202020202020202020202020202020202 have 1 want 2",
        ),
        (
            Rejection::ReplacementUnderpriced { need: 11, have: 10 },
            "replacement transaction underpriced: needs at least 11 per gas, has 10",
        ),
        (Rejection::IntrinsicGas { have: 1, need: 21_000 }, "intrinsic gas too low: gas 1, minimum needed 21000"),
        (
            Rejection::WrongChainId { found: Some(1), expected: CHAIN_ID },
            "invalid chain id: transaction is for Some(1), the rollup is 70007",
        ),
        (Rejection::BadSignature, "invalid signature"),
        (Rejection::UnsupportedType(3), "transaction type 3 is not supported"),
        (Rejection::Unavailable("starting"), "unavailable: starting"),
    ];
    for (rejection, text) in cases {
        *rig.node.refuse.write() = Some(rejection);
        for method in ["eth_sendRawTransaction", "eth_sendRawTransactionSync"] {
            assert_eq!(rig.rpc(method, json!([transfer(0, 1).raw()])).await, Err(error(-32000, text)), "{method}");
        }
    }
    *rig.node.refuse.write() = Some(Rejection::AlreadyKnown(hash));
    let known = rig.rpc("eth_sendRawTransaction", json!([transfer(0, 1).raw()])).await.unwrap_err();
    assert!(known.code == -32000 && known.message.starts_with("already known"), "{known:?}");
}

#[tokio::test]
async fn bytes_that_are_no_transaction_are_refused() {
    let rig = Rig::start();
    for bytes in ["0x", "0x00", "0x02", "0xdeadbeef", &format!("{}00", transfer(0, 1).raw())] {
        let refused = rig.rpc("eth_sendRawTransaction", json!([bytes])).await.unwrap_err();
        assert_eq!(refused.code, -32000, "{bytes}: {refused:?}");
        assert!(refused.message.starts_with("malformed transaction"), "{bytes}: {refused:?}");
    }
    for bytes in [json!("0xzz"), json!("0x0"), json!(5), json!(null)] {
        let refused = rig.rpc("eth_sendRawTransaction", json!([bytes])).await.unwrap_err();
        assert_eq!(refused.code, -32602, "{bytes}: {refused:?}");
    }
}

#[tokio::test]
async fn sending_synchronously_answers_with_the_receipt() {
    let rig = Rig::start();
    let (other, tx) = (transfer(0, 1), transfer(1, 1));
    let mut accepted = rig.node.accepted.subscribe();
    let (answer, ()) = tokio::join!(rig.rpc("eth_sendRawTransactionSync", json!([tx.raw(), 60_000])), async {
        accepted.recv().await.unwrap();
        rig.chain().extend(&[other]);
        rig.chain().extend(std::slice::from_ref(&tx));
    });
    let receipt = answer.unwrap();
    assert_eq!((&receipt["transactionHash"], &receipt["blockNumber"]), (&json!(tx.hash()), &json!("0x2")));
}

#[tokio::test]
async fn sending_synchronously_gives_up_in_time_and_says_what_was_sent() {
    let rig = Rig::start();
    let tx = transfer(0, 1);
    for timeout in [json!(5), json!("0x5")] {
        let timed_out = RpcError {
            code: 4,
            message: "The transaction was added to the mempool but wasn't processed in 5ms.".into(),
            data: Some(json!(tx.hash())),
        };
        assert_eq!(rig.rpc("eth_sendRawTransactionSync", json!([tx.raw(), timeout])).await, Err(timed_out));
    }
    for timeout in [json!(0), json!(60_001), json!(-1), json!("soon")] {
        let refused = rig.rpc("eth_sendRawTransactionSync", json!([tx.raw(), timeout])).await.unwrap_err();
        assert_eq!(refused.code, -32602, "{timeout}");
    }
}

#[tokio::test]
async fn sending_synchronously_tells_that_execution_skipped_the_transaction() {
    let rig = Rig::start();
    let tx = transfer(0, 1);
    rig.chain().outcomes.write().insert(tx.hash(), TxOutcome::Skipped { reason: "out of funds".into() });
    let skipped = rig.rpc("eth_sendRawTransactionSync", json!([tx.raw(), 1])).await;
    let message = format!("transaction {} was skipped: out of funds", tx.hash());
    assert_eq!(skipped, Err(error(-32000, &message)));
}
