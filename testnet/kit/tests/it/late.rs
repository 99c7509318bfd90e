//! A validator that comes late copies the log from the others' servers, and then takes part.

use std::time::Duration;
use switchyard_node::config::Consensus;
use switchyard_testnet_kit::{agree_on_hub, caught_up};
use switchyard_testnet_local::{Client, Options, Testnet};

/// More than a validator leaves to the engine.
const AHEAD: u64 = 140;
const LATE: usize = 3;
const SECONDS_120: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_that_comes_late_copies_the_log_and_then_votes() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new();
    let pace = Consensus { heartbeat_ms: 40, min_interval_ms: 10, ..Consensus::default() };
    let options = Options { consensus: pace, ..Options::default() };
    let mut testnet = Testnet::create(&dir.path().join("net"), options).unwrap();
    for index in 0..LATE {
        testnet.start(index).unwrap();
    }
    let mut nodes = Vec::new();
    for index in 0..LATE {
        nodes.push(testnet.ready(index).await.unwrap());
    }
    caught_up(&client, &nodes[0].grpc, AHEAD, SECONDS_120).await.unwrap();

    let mut config = testnet.dir().config(LATE).unwrap();
    config.sync.sources = nodes.iter().map(|node| node.grpc.clone()).collect();
    testnet.dir().write_config(LATE, &config).unwrap();
    testnet.start(LATE).unwrap();
    // The first answer may be that of the follower that it is at first.
    testnet.ready(LATE).await.unwrap();
    let took_part = async {
        while !testnet.log_tail(LATE, 1000).contains("goes on from the node's log") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(SECONDS_120, took_part).await;
    assert!(waited.is_ok(), "{}", testnet.log_tail(LATE, 50));
    nodes.push(testnet.ready(LATE).await.unwrap());

    // Three of four are a quorum: without the first one, nothing is final without the late one's votes.
    testnet.kill(0).unwrap();
    let height = client.status(&nodes[1].grpc).await.unwrap().tip.unwrap().height;
    for node in &nodes[1..] {
        caught_up(&client, &node.grpc, height + 20, SECONDS_120).await.unwrap();
    }
    agree_on_hub(&client, &nodes[1..], height + 20).await.unwrap();
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}
