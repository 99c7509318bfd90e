//! Another protocol version begins while the network runs, and data of the first one is taken over.

use crate::validators::{Files, config, run, text};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use switchyard_node::{config::Endpoints, genesis::GenesisEpochs};
use switchyard_primitives::Header;
use switchyard_proto::v1::{GetHeaderRequest, block_service_client::BlockServiceClient};
use switchyard_testnet_kit::{agree_on_hub, caught_up};
use switchyard_testnet_local::{Client, Options, Testnet};

const SECONDS_60: Duration = Duration::from_secs(60);
/// The validator whose program knows protocol 1 only.
const OLD: usize = 3;
const AS_OLD: [&str; 2] = ["--newest-protocol", "1"];

async fn tip(client: &Client, node: &Endpoints) -> u64 {
    client.status(&node.grpc).await.unwrap().tip.unwrap().height
}

async fn protocol_at(node: &Endpoints, height: u64) -> u8 {
    let mut blocks = BlockServiceClient::new(Client::channel(&node.grpc).unwrap());
    let answer = blocks.get_header(GetHeaderRequest { height }).await.unwrap().into_inner();
    Header::decode(&answer.header).unwrap().protocol
}

fn shown(testnet: &Testnet, node: &Endpoints) -> Value {
    serde_json::from_str(&run(testnet, &["upgrade", "show", "--json", "--grpc", &node.grpc])).unwrap()
}

/// Has protocol 2 decided by these validators; the height at which it begins.
fn decide(testnet: &Testnet, files: &Files, node: &Endpoints, signers: &[usize]) -> u64 {
    let proposal = run(testnet, &["upgrade", "propose", "--grpc", &node.grpc, "--protocol", "2"]);
    let proposal = files.write("proposal.json", &proposal);
    let mut submit = vec!["upgrade", "submit", "--grpc", &node.grpc, "--proposal", text(&proposal)];
    let parts: Vec<PathBuf> = signers
        .iter()
        .map(|i| {
            let config = config(testnet, *i);
            let part = run(testnet, &["upgrade", "sign", "--config", text(&config), "--proposal", text(&proposal)]);
            files.write(&format!("part-{i}.json"), &part)
        })
        .collect();
    submit.extend(parts.iter().flat_map(|part| ["--part", text(part)]));
    run(testnet, &submit);
    let shown = shown(testnet, node);
    assert_eq!((&shown["protocol"], &shown["decided"]["protocol"]), (&json!(1), &json!(2)), "{shown}");
    shown["decided"]["height"].as_u64().unwrap()
}

/// Waits until a validator's process has ended by itself; how.
async fn ended(testnet: &mut Testnet, index: usize) -> String {
    let ended = async {
        loop {
            if let Some(status) = testnet.exited(index).unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Some epochs of a network on a busy machine.
    tokio::time::timeout(2 * SECONDS_60, ended).await.expect("the process ends")
}

fn verify(testnet: &Testnet, node: &Endpoints, height: u64) {
    let (genesis, height) = (testnet.dir().genesis_path(), height.to_string());
    let mut args = vec!["verify", "--grpc", &node.grpc, "--genesis", text(&genesis), "--rollup", "3", "--json"];
    args.extend(["--from", "1", "--to", &height]);
    let proven: Value = serde_json::from_str(&run(testnet, &args)).unwrap();
    assert_eq!(proven["to"].to_string(), height, "{proven}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_of_mixed_versions_goes_on_to_the_upgrade_and_the_newer_ones_beyond() {
    let files = Files::new();
    let client = Client::new();
    let mut options = Options { protocol: 1, ..Options::default() };
    options.epochs = GenesisEpochs { blocks: 24, ..GenesisEpochs::default() };
    options.consensus.heartbeat_ms = 100;
    let mut testnet = Testnet::create(&files.path().join("net"), options).unwrap();
    for index in 0..testnet.len() {
        testnet.start_with(index, if index == OLD { &AS_OLD } else { &[] }).unwrap();
    }
    let mut nodes = Vec::new();
    for index in 0..testnet.len() {
        nodes.push(testnet.ready(index).await.unwrap());
    }

    // The old one takes part in the decision, as in everything up to its height.
    let height = decide(&testnet, &files, &nodes[0], &[1, 2, OLD]);
    let metrics = client.metrics(&nodes[OLD].metrics).await.unwrap();
    assert!(metrics.contains("switchyard_protocol_known 1"), "{metrics}");
    // The others have heard that it does not know what is decided.
    let heard = async {
        while !client.metrics(&nodes[0].metrics).await.unwrap().contains("\nswitchyard_protocol_seats 3\n") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SECONDS_60, heard).await.expect("three seats know it");
    let status = ended(&mut testnet, OLD).await;
    let said = testnet.log_tail(OLD, 40);
    assert!(status.contains("exit status: 2"), "{status} {said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains(&format!("block {height} begins protocol 2")), "{said}");
    assert!(last.contains("install a newer switchyard"), "{said}");

    caught_up(&client, &nodes[0].grpc, height + 20, SECONDS_60).await.unwrap();
    assert_eq!([protocol_at(&nodes[0], height - 1).await, protocol_at(&nodes[0], height).await], [1, 2]);
    verify(&testnet, &nodes[0], height + 20);

    // It says so at once when it is started again, and goes on from where it stopped with the newer program.
    testnet.start_with(OLD, &AS_OLD).unwrap();
    assert!(ended(&mut testnet, OLD).await.contains("exit status: 2"));
    assert!(testnet.log_tail(OLD, 1).contains("install a newer switchyard"));
    testnet.start(OLD).unwrap();
    nodes[OLD] = testnet.ready(OLD).await.unwrap();
    caught_up(&client, &nodes[OLD].grpc, tip(&client, &nodes[0]).await, SECONDS_60).await.unwrap();
    // Three of four are a quorum: now it is needed.
    testnet.kill(0).unwrap();
    let needed = tip(&client, &nodes[OLD]).await + 20;
    for node in &nodes[1..] {
        caught_up(&client, &node.grpc, needed, SECONDS_60).await.unwrap();
    }
    agree_on_hub(&client, &nodes[1..], needed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_of_a_validator_from_before_upgrades_is_taken_over() {
    let files = Files::new();
    let client = Client::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/protocol-1");
    let folder = files.path().join("net");
    std::fs::create_dir(&folder).unwrap();
    let archive = fixture.join("network.tar.gz");
    let unpacked = Command::new("tar").args(["-xzpf", text(&archive), "-C", text(&folder)]).status().unwrap();
    assert!(unpacked.success());
    let expected: Value = serde_json::from_slice(&std::fs::read(fixture.join("expected.json")).unwrap()).unwrap();
    let mut testnet = Testnet::open(&folder).unwrap();
    let mut config = testnet.dir().config(0).unwrap();
    // It has no peers to be found by.
    config.network.as_mut().unwrap().listen.set_port(0);
    // Its epochs have eight blocks, and a record must come within one.
    config.consensus.heartbeat_ms = 300;
    testnet.dir().write_config(0, &config).unwrap();
    let node = testnet.start_all().await.unwrap().remove(0);

    // All that it had made is there.
    let height = expected["height"].as_u64().unwrap();
    caught_up(&client, &node.grpc, height, SECONDS_60).await.unwrap();
    assert_eq!(json!(client.hub_hash(&node.grpc, height).await.unwrap()), expected["hash"]);
    let yard = &node.rollups[0].http;
    let block = client.json_rpc(yard, "eth_getBlockByNumber", expected["rollup"]["ask"].clone()).await.unwrap();
    for field in ["hash", "stateRoot", "receiptsRoot"] {
        assert_eq!(block[field], expected["rollup"][field], "{field}");
    }
    let balance = client.json_rpc(yard, "eth_getBalance", expected["balance"]["ask"].clone()).await.unwrap();
    assert_eq!(balance, expected["balance"]["is"]);

    // It goes on, and comes to the next version.
    let begins = decide(&testnet, &files, &node, &[0]);
    caught_up(&client, &node.grpc, begins + 3, SECONDS_60).await.unwrap();
    assert_eq!([protocol_at(&node, 1).await, protocol_at(&node, begins).await], [1, 2]);
    verify(&testnet, &node, begins + 3);
}
