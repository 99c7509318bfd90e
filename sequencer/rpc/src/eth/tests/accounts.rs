//! State, calls and estimates.

use super::{
    Rig, RpcError, error,
    fake::{REVERTER, SLOW, signer},
};
use crate::eth::EthLimits;
use alloy::{
    providers::Provider,
    sol_types::{Panic, Revert, SolError},
};
use alloy_primitives::{Address, B256, Bytes, U256, b256, keccak256};
use serde_json::{Value, json};
use switchyard_rollup_core::evm::EvmAccount;

fn rich() -> EvmAccount {
    EvmAccount { nonce: 5, balance: U256::from(10).pow(U256::from(20)), code_hash: keccak256([]) }
}

#[tokio::test]
async fn accounts_are_read_at_every_kind_of_block_name() {
    let rig = Rig::start();
    let head = rig.chain().extend(&[]);
    let account = signer().address();
    rig.chain().accounts.write().insert(account, rich());
    for at in [
        json!("latest"),
        json!("pending"),
        json!("safe"),
        json!("finalized"),
        json!("earliest"),
        json!("0x1"),
        json!({"blockNumber": "0x1"}),
        json!({"blockHash": head.hash}),
        json!({"blockHash": head.hash, "requireCanonical": true}),
        Value::Null,
    ] {
        let balance = rig.rpc("eth_getBalance", json!([account, at])).await;
        assert_eq!(balance, Ok(json!("0x56bc75e2d63100000")), "{at}");
    }
    let provider = rig.http();
    assert_eq!(provider.get_balance(Address::ZERO).await.unwrap(), U256::ZERO);
    assert_eq!(provider.get_transaction_count(account).await.unwrap(), 5);
    assert_eq!(provider.get_code_at(REVERTER).await.unwrap(), Bytes::from_static(&[0xfd]));
    assert_eq!(rig.rpc("eth_getCode", json!([Address::ZERO, "latest"])).await.unwrap(), "0x");
}

#[tokio::test]
async fn state_of_a_block_that_does_not_exist_is_an_error() {
    let rig = Rig::start();
    for (method, params) in [
        ("eth_getBalance", json!([Address::ZERO, "0x5"])),
        ("eth_getBalance", json!([Address::ZERO, {"blockHash": B256::repeat_byte(1)}])),
        ("eth_getTransactionCount", json!([Address::ZERO, "0x5"])),
        ("eth_getCode", json!([Address::ZERO, "0x5"])),
        ("eth_getStorageAt", json!([Address::ZERO, "0x0", "0x5"])),
        ("eth_getProof", json!([Address::ZERO, [], "0x5"])),
        ("eth_call", json!([{"to": Address::ZERO}, "0x5"])),
        ("eth_estimateGas", json!([{"to": Address::ZERO}, "0x5"])),
    ] {
        assert_eq!(rig.rpc(method, params).await, Err(error(-32000, "header not found")), "{method}");
    }
}

#[tokio::test]
async fn the_pending_nonce_counts_what_waits() {
    let rig = Rig::start();
    let account = signer().address();
    rig.chain().accounts.write().insert(account, rich());
    let nonce = async |tag: &str| rig.rpc("eth_getTransactionCount", json!([account, tag])).await.unwrap();
    assert_eq!(nonce("pending").await, "0x5");
    *rig.node.waiting_nonce.write() = Some(8);
    assert_eq!(nonce("pending").await, "0x8");
    assert_eq!(nonce("latest").await, "0x5");
    *rig.node.waiting_nonce.write() = Some(3);
    assert_eq!(nonce("pending").await, "0x5", "what was executed meanwhile counts");
}

#[tokio::test]
async fn storage_is_read_by_short_and_long_keys() {
    let rig = Rig::start();
    let slot = B256::with_last_byte(3);
    rig.chain().storage.write().insert((REVERTER, slot), U256::from(0x1234));
    let expected = json!(b256!("0x0000000000000000000000000000000000000000000000000000000000001234"));
    for key in [json!("0x3"), json!("0x03"), json!(slot)] {
        assert_eq!(rig.rpc("eth_getStorageAt", json!([REVERTER, key, "latest"])).await.unwrap(), expected, "{key}");
    }
}

#[tokio::test]
async fn proofs_answer_under_the_keys_that_were_asked_for() {
    let rig = Rig::start();
    rig.chain().storage.write().insert((REVERTER, B256::with_last_byte(3)), U256::from(7));
    let proof = rig.rpc("eth_getProof", json!([REVERTER, ["0x3", B256::with_last_byte(3)], "latest"])).await.unwrap();
    assert_eq!(proof["storageProof"][0]["key"], "0x3");
    assert_eq!(proof["storageProof"][1]["key"], json!(B256::with_last_byte(3)));
    assert_eq!(proof["storageProof"][0]["value"], "0x7");
    let decoded = rig.http().get_proof(REVERTER, vec![B256::with_last_byte(3)]).await.unwrap();
    assert_eq!(decoded.storage_proof[0].value, U256::from(7));
    let too_many = json!([REVERTER, vec!["0x1"; 1025], "latest"]);
    assert_eq!(rig.rpc("eth_getProof", too_many).await, Err(error(-32005, "too many keys (max 1024)")));
}

fn call(data: &Bytes) -> Value {
    json!([{"to": REVERTER, "data": data}, "latest"])
}

#[tokio::test]
async fn a_revert_is_code_3_with_reason_and_data() {
    let rig = Rig::start();
    let reason = Bytes::from(Revert::from("not yours").abi_encode());
    let panic = Bytes::from(Panic { code: U256::from(0x12) }.abi_encode());
    let custom = Bytes::from_static(&[0xde, 0xad, 0xbe, 0xef]);
    for (data, message) in [
        (reason, "execution reverted: not yours"),
        (panic, "execution reverted: division or modulo by zero"),
        (custom, "execution reverted"),
        (Bytes::new(), "execution reverted"),
    ] {
        for method in ["eth_call", "eth_estimateGas"] {
            let expected = RpcError { code: 3, message: message.into(), data: Some(json!(data)) };
            assert_eq!(rig.rpc(method, call(&data)).await, Err(expected), "{method}");
        }
    }
}

#[tokio::test]
async fn calls_return_output_and_other_failures_are_minus_32000() {
    let rig = Rig::start();
    let to = Address::repeat_byte(1);
    assert_eq!(rig.rpc("eth_call", json!([{"to": to, "data": "0x1234"}])).await.unwrap(), "0x1234");
    assert_eq!(rig.rpc("eth_call", json!([{"to": to, "input": "0x1234"}, "latest"])).await.unwrap(), "0x1234");
    assert_eq!(rig.rpc("eth_estimateGas", json!([{"to": to, "input": "0x1234"}])).await.unwrap(), "0x520a");
    let overridden = json!([{"to": to}, "latest", {to.to_string(): {"code": "0x6001"}}]);
    assert_eq!(rig.rpc("eth_call", overridden).await.unwrap(), "0x6001");
    assert_eq!(
        rig.rpc("eth_call", json!([{"input": "0xfe"}, "latest"])).await,
        Err(error(-32000, "invalid opcode: INVALID"))
    );
    assert_eq!(
        rig.rpc("eth_estimateGas", json!([{"to": to, "value": "0xffffffff"}])).await,
        Err(error(-32000, "insufficient funds for transfer"))
    );
    assert_eq!(
        rig.rpc("eth_call", json!([{"to": to}, "latest", null, {"number": "0x1"}])).await,
        Err(error(-32602, "block overrides are not supported"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_calls_is_refused_and_delays_no_look_up() {
    let limits = EthLimits { call_threads: 1, max_waiting: 2, ..Default::default() };
    let rig = Rig::with(limits);
    let mut socket = rig.socket().await;
    let mut begun = rig.chain().slow_calls.subscribe();
    let slow = json!([{"to": SLOW}, "latest"]);
    socket.request(0, "eth_call", slow.clone()).await;
    begun.wait_for(|n| *n == 1).await.unwrap();
    for id in 1..8 {
        socket.request(id, "eth_call", slow.clone()).await;
    }
    // One runs and two wait: the rest is refused while the first still runs.
    for _ in 0..5 {
        let refused = super::result(socket.next().await.unwrap());
        assert_eq!(refused, Err(error(-32005, "too many requests waiting")));
    }
    assert_eq!(rig.rpc("eth_getBalance", json!([Address::ZERO, "latest"])).await.unwrap(), "0x0");
    rig.chain().let_go();
    for _ in 0..3 {
        assert_eq!(super::result(socket.next().await.unwrap()), Ok(json!("0x")));
    }
}
