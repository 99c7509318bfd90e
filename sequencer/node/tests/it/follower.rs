//! The program as a follower of a network with one validator.

use crate::{
    process::{EVM, Folder, Process},
    running::{address, rpc, transfer},
};
use serde_json::{Value, json};
use std::time::Duration;
use switchyard_primitives::RollupId;
use switchyard_proto::v1::{
    GetFinalityProofRequest, GetHeaderRequest, block_service_client::BlockServiceClient,
};
use switchyard_rollup_core::Vm;

/// Far more than anything takes.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A validator's folder whose EVM rollup has an account with funds.
fn funded() -> Folder {
    let folder = Folder::new();
    let mut genesis = folder.genesis();
    let Vm::Evm { genesis: evm } = &mut genesis.rollups[0].vm else { panic!("the first rollup is an EVM rollup") };
    evm["alloc"] = json!({ transfer(0).0.to_string(): { "balance": "0xde0b6b3a7640000" } });
    folder.write_genesis(&genesis);
    folder
}

/// The result of a JSON-RPC request to a node's EVM rollup.
async fn call(node: &Process, method: &str, params: Value) -> Value {
    let at = &node.endpoints.rollups.iter().find(|r| r.rollup == RollupId(EVM)).unwrap().http;
    let answer = tokio::time::timeout(TIMEOUT, rpc(address(at), method, params)).await.unwrap();
    assert!(answer.get("error").is_none(), "{method}: {answer}");
    answer["result"].clone()
}

/// Waits for a receipt.
async fn receipt(node: &Process, hash: &Value) -> Value {
    let found = async {
        loop {
            let receipt = call(node, "eth_getTransactionReceipt", json!([hash])).await;
            if !receipt.is_null() {
                return receipt;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(TIMEOUT, found).await.expect("no receipt")
}

/// The header at a height, and whether the node proves it to be final.
async fn header(node: &Process, height: u64) -> (Vec<u8>, bool) {
    let mut client = BlockServiceClient::connect(node.endpoints.grpc.clone()).await.unwrap();
    let header = client.get_header(GetHeaderRequest { height }).await.unwrap().into_inner().header;
    let proof = client.get_finality_proof(GetFinalityProofRequest { height }).await;
    (header.to_vec(), proof.is_ok_and(|proof| proof.into_inner().finality.is_some()))
}

#[tokio::test]
async fn a_follower_serves_what_the_validator_serves_takes_submissions_and_goes_on_after_being_killed() {
    let folder = funded();
    let validator = folder.start().await;
    validator.submit("01").await;
    let dir = folder.follower("follower", &[&validator.endpoints.grpc], "");
    let follower = folder.start_at(&dir).await;
    follower.reaches(validator.height().await).await;

    // What is submitted to the follower becomes final, and is answered for by both.
    let submitted: Value = serde_json::from_str(&follower.submit("02").await).unwrap();
    assert_eq!(submitted["level"], "final");
    let (_, raw) = transfer(0);
    let hash = call(&follower, "eth_sendRawTransaction", json!([raw])).await;
    let (one, other) = (receipt(&validator, &hash).await, receipt(&follower, &hash).await);
    assert_eq!(one, other);
    let block = json!([one["blockHash"], true]);
    assert_eq!(call(&validator, "eth_getBlockByHash", block.clone()).await, call(&follower, "eth_getBlockByHash", block).await);
    // A refusal is the validator's own.
    let at = |node: &Process| node.endpoints.rollups[0].http.clone();
    let again = rpc(address(&at(&follower)), "eth_sendRawTransaction", json!([raw])).await;
    assert!(again["error"]["message"].as_str().unwrap().contains("already known"), "{again}");

    let height = follower.height().await;
    for height in 1..=height {
        let (one, other) = (header(&validator, height).await, header(&follower, height).await);
        assert_eq!(one.0, other.0);
        assert!(other.1, "block {height} is not shown to be final");
    }
    follower.kill().await;
    let follower = folder.start_at(&dir).await;
    follower.reaches(validator.height().await).await;
    assert_eq!(receipt(&follower, &hash).await, one);

    // Without its only source it serves what it has.
    validator.stop().await;
    assert_eq!(receipt(&follower, &hash).await, one);
    follower.stop().await;
}
