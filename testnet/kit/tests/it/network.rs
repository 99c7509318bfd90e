//! Real processes, real sockets, real disks.

use crate::traffic::{Load, SECONDS_60, YARD_A, YARD_B, nothing_lost, tip, url};
use std::path::Path;
use switchyard_node::config::Endpoints;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Driver, Vm, evm::EvmChain};
use switchyard_testnet_kit::{HubLog, caught_up};
use switchyard_testnet_local::{Client, Options, Testnet};

const VALIDATORS: usize = 4;
const VICTIM: usize = 3;

/// An empty driver that gets the log comes to the block hashes and state roots that the network serves.
async fn replay(client: &Client, testnet: &Testnet, node: &Endpoints, rollup: RollupId, log: &HubLog, dir: &Path) {
    let manifest = testnet.dir().genesis().unwrap().rollups.into_iter().find(|r| r.id == rollup).unwrap();
    let Vm::Evm { genesis } = manifest.vm else { panic!("rollup {rollup} is no EVM rollup") };
    let config = switchyard_rollup_evm::EvmConfig { rollup, genesis, sealing: manifest.sealing };
    let (mut driver, reader) = switchyard_rollup_evm::EvmRollup::open(&dir.join(rollup.to_string()), config).unwrap();
    let inputs = log.inputs.clone();
    tokio::task::spawn_blocking(move || {
        for input in &inputs {
            if input.hub_height >= driver.next_hub_height() {
                driver.apply(input).unwrap();
            }
        }
    })
    .await
    .unwrap();
    let head = reader.head();
    assert!(head.header.number > 0, "the log holds blocks of rollup {rollup}");
    let params = serde_json::json!([format!("{:#x}", head.header.number), false]);
    let served = client.json_rpc(&url(node, rollup), "eth_getBlockByNumber", params).await.unwrap();
    assert_eq!(served["stateRoot"], serde_json::json!(head.header.state_root));
    assert_eq!(served["receiptsRoot"], serde_json::json!(head.header.receipts_root));
    assert_eq!(served["hash"], serde_json::json!(head.hash));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_validator_loses_nothing_and_catches_up_and_a_replay_gives_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new();
    let mut testnet = Testnet::create(&dir.path().join("net"), Options::default()).unwrap();
    let mut nodes = testnet.start_all().await.unwrap();

    let load = Load::start(&client, &nodes);
    load.more(60).await;
    testnet.kill(VICTIM).unwrap();
    load.more(60).await;
    let while_away = tip(&client, &nodes[0]).await;
    testnet.start(VICTIM).unwrap();
    nodes[VICTIM] = testnet.ready(VICTIM).await.unwrap();
    load.more(60).await;
    let accepted = load.finish().await;

    caught_up(&client, &nodes[VICTIM].grpc, while_away + 1, SECONDS_60).await.unwrap();
    let (_, logs) = nothing_lost(&client, &nodes, &testnet.dir().genesis().unwrap(), VICTIM, &accepted).await;
    let replayed = tempfile::tempdir().unwrap();
    for rollup in [YARD_A, YARD_B] {
        replay(&client, &testnet, &nodes[0], rollup, &logs[&rollup], replayed.path()).await;
    }
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
    assert_eq!(nodes.len(), VALIDATORS);
}
