//! The program as a follower of a network with one validator.

use crate::{
    process::{EVM, Folder, Process, refusal, run},
    running::{address, rpc, transfer},
};
use serde_json::{Value, json};
use std::{fs, time::Duration};
use switchyard_primitives::{Header, RollupId};
use switchyard_proto::v1::{GetFinalityProofRequest, GetHeaderRequest, block_service_client::BlockServiceClient};
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
    // So that a log of seconds has many epochs.
    genesis.epochs.blocks = 8;
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
    assert_eq!(
        call(&validator, "eth_getBlockByHash", block.clone()).await,
        call(&follower, "eth_getBlockByHash", block).await
    );
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

#[tokio::test]
async fn a_new_follower_starts_at_a_trusted_block_with_a_snapshot_and_without_what_lies_below() {
    let folder = funded();
    let validator = folder.start().await;
    for nonce in 0..3 {
        let hash = call(&validator, "eth_sendRawTransaction", json!([transfer(nonce).1])).await;
        receipt(&validator, &hash).await;
    }
    let head = call(&validator, "eth_getBlockByNumber", json!(["latest", false])).await;
    let (grpc, file) = (validator.endpoints.grpc.clone(), folder.path("state").display().to_string());
    let created = run(&["snapshot", "create", "--grpc", &grpc, "--rollup", "1", "--out", &file]).await;
    let printed = String::from_utf8(created.stdout.clone()).unwrap();
    assert!(created.status.success() && printed.contains(head["hash"].as_str().unwrap()), "{created:?}");

    // The hub block of the rollup's newest block is in its extra data.
    let height = u64::from_str_radix(head["extraData"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    let hash = Header::decode(&header(&validator, height).await.0).unwrap().hash();
    let checkpoint = format!("checkpoint = \"{height}:{hash}\"");
    let dir = folder.follower("late", &[&grpc], &checkpoint);
    let config = dir.join("node.toml").display().to_string();
    let restore = async |hash: &Value| {
        let hash = hash.as_str().unwrap();
        run(&["snapshot", "restore", "--config", &config, "--rollup", "1", "--block-hash", hash, &file]).await
    };
    let refused = refusal(&restore(&head["parentHash"]).await);
    assert!(refused.contains("not of the trusted"), "{refused}");
    assert!(restore(&head["hash"]).await.status.success());
    let refused = refusal(&restore(&head["hash"]).await);
    assert!(refused.contains("move it away first"), "{refused}");

    let follower = folder.start_at(&dir).await;
    follower.reaches(validator.height().await).await;
    let hash = call(&follower, "eth_sendRawTransaction", json!([transfer(3).1])).await;
    assert_eq!(receipt(&follower, &hash).await, receipt(&validator, &hash).await);
    let block = call(&follower, "eth_getBlockByNumber", json!(["latest", true])).await;
    let same = call(&validator, "eth_getBlockByHash", json!([block["hash"], true])).await;
    assert_eq!(block, same);
    let mut blocks = BlockServiceClient::connect(follower.endpoints.grpc.clone()).await.unwrap();
    let below = blocks.get_header(GetHeaderRequest { height: height - 1 }).await.unwrap_err();
    assert_eq!(below.code(), tonic::Code::OutOfRange, "{below:?}");
    // It is good enough to start another one from.
    let other = folder.follower("later", &[&follower.endpoints.grpc], &checkpoint);
    fs::create_dir_all(other.join("data/rollups")).unwrap();
    let config = other.join("node.toml").display().to_string();
    let hash = head["hash"].as_str().unwrap();
    let restored =
        run(&["snapshot", "restore", "--config", &config, "--rollup", "1", "--block-hash", hash, &file]).await;
    assert!(restored.status.success(), "{restored:?}");
    let other = folder.start_at(&other).await;
    other.reaches(follower.height().await).await;
    other.stop().await;
    follower.stop().await;

    // Without a state that reaches so far it says what to do.
    let dir = folder.follower("bare", &[&grpc], &checkpoint);
    let ended = run(&["run", "--config", &dir.join("node.toml").display().to_string()]).await;
    let text = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && text.contains("snapshot restore"), "{text}");
    validator.stop().await;
}
