//! A validator whose clock is wrong.

use crate::traffic::{SECONDS_60, tip};
use std::{process::Command, time::Duration};
use switchyard_node::config::Endpoints;
use switchyard_testnet_kit::{
    caught_up,
    power::{Settings, Shim},
};
use switchyard_testnet_local::{Client, Options, Testnet};

const VALIDATORS: usize = 4;
const VICTIM: usize = 3;
/// Others still connect to a clock that is off by so much; above 5 s they do not.
const OFF_MS: i64 = 3_000;

/// How far a validator's clock is ahead of others', by its metrics.
async fn offset(client: &Client, node: &Endpoints) -> i64 {
    let text = client.metrics(&node.metrics).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("switchyard_clock_offset_ms "));
    line.unwrap().parse().unwrap()
}

/// Starts the victim with a clock that is wrong by so much, and waits until it knows.
async fn start_with(testnet: &mut Testnet, shim: &Shim, client: &Client, clock_ms: i64) -> Endpoints {
    let data = testnet.dir().validator(VICTIM).dir.join("data");
    let program = testnet.program().to_path_buf();
    let wrong = shim.wrap(&program, &data, &Settings { clock_ms, ..Settings::default() }).unwrap();
    testnet.use_program(wrong.clone());
    testnet.start(VICTIM).unwrap();
    testnet.use_program(program);
    // It answers, and is not ready.
    let known = async {
        loop {
            if let Some(node) = testnet.endpoints(VICTIM).unwrap()
                && offset(client, &node).await.abs() > OFF_MS / 2
            {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // Beside other tests a start takes its time.
    let node = tokio::time::timeout(3 * SECONDS_60, known).await;
    let node = node.unwrap_or_else(|_| panic!("others tell it: {}", testnet.log_tail(VICTIM, 30)));

    let (is_ready, said) = client.readiness(&node.metrics).await.unwrap();
    let code = if clock_ms > 0 { "clock_ahead" } else { "clock_behind" };
    assert!(!is_ready && said.contains(code) && said.contains("chrony"), "{said}");
    let log = std::fs::read_to_string(testnet.dir().validator(VICTIM).log).unwrap();
    let lines = log.lines().filter(|line| line.contains("ERROR") && line.contains(code) && line.contains("chrony"));
    assert_eq!(lines.count(), 1, "{log}");
    // On the same machine, with the same clock.
    let config = testnet.dir().validator(VICTIM).config;
    let doctor = Command::new(&wrong).args(["doctor", "--json", "--writes", "1", "--config"]).arg(config).output();
    let found = String::from_utf8(doctor.unwrap().stdout).unwrap();
    let finding = found.lines().find(|line| line.contains("\"check\":\"clock\"")).expect("a finding on the clock");
    let direction = if clock_ms > 0 { "ms ahead of" } else { "ms behind" };
    assert!(finding.contains("error") && finding.contains(direction) && finding.contains("chrony"), "{finding}");
    node
}

/// The others refuse it, and it says why it has no quorum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_ten_seconds_off_is_refused_by_all_and_says_so() {
    let (dir, shim, client) = (tempfile::tempdir().unwrap(), Shim::build().unwrap(), Client::new());
    let mut testnet = Testnet::create(&dir.path().join("net"), Options::default()).unwrap();
    let mut nodes = Vec::new();
    for index in 0..VICTIM {
        testnet.start(index).unwrap();
    }
    for index in 0..VICTIM {
        nodes.push(testnet.ready(index).await.unwrap());
    }
    let data = testnet.dir().validator(VICTIM).dir.join("data");
    let program = testnet.program().to_path_buf();
    let settings = Settings { clock_ms: 10_000, ..Settings::default() };
    testnet.use_program(shim.wrap(&program, &data, &settings).unwrap());
    testnet.start(VICTIM).unwrap();
    testnet.use_program(program);
    let known = async {
        loop {
            if let Some(node) = testnet.endpoints(VICTIM).unwrap()
                && let (false, said) = client.readiness(&node.metrics).await.unwrap()
                && said.contains("no_quorum")
                && said.contains("3 were refused because their clocks differ")
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(3 * SECONDS_60, known).await.expect("it names the clock");
    // The others go on, and are told of nothing that is wrong with theirs.
    for node in &nodes {
        let (is_ready, said) = client.readiness(&node.metrics).await.unwrap();
        assert!(is_ready, "{said}");
    }
    assert!(testnet.stop(VICTIM).await.unwrap());
    testnet.start(VICTIM).unwrap();
    let node = testnet.ready(VICTIM).await.unwrap();
    let height = tip(&client, &nodes[0]).await;
    caught_up(&client, &node.grpc, height + 3, SECONDS_60).await.unwrap();
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_three_seconds_off_is_told_in_either_direction_and_moves_nobody_else() {
    let (dir, shim, client) = (tempfile::tempdir().unwrap(), Shim::build().unwrap(), Client::new());
    let mut testnet = Testnet::create(&dir.path().join("net"), Options::default()).unwrap();
    let mut nodes = Vec::new();
    for index in 0..VICTIM {
        testnet.start(index).unwrap();
    }
    for index in 0..VICTIM {
        nodes.push(testnet.ready(index).await.unwrap());
    }
    for clock_ms in [OFF_MS, -OFF_MS] {
        let victim = start_with(&mut testnet, &shim, &client, clock_ms).await;
        let found = offset(&client, &victim).await;
        assert!((clock_ms - 1000..clock_ms + 1000).contains(&found), "{found} ms, for {clock_ms}");
        // It follows, and to the others it is one that may lie.
        let height = tip(&client, &nodes[0]).await;
        caught_up(&client, &victim.grpc, height + 3, SECONDS_60).await.unwrap();
        for node in &nodes {
            let found = offset(&client, node).await;
            assert!(found.abs() < 500, "{found} ms at a validator that is right");
            let (_, said) = client.readiness(&node.metrics).await.unwrap();
            assert!(!said.contains("clock"), "{said}");
        }
        assert!(testnet.stop(VICTIM).await.unwrap());
    }
    assert_eq!(nodes.len() + 1, VALIDATORS);
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}
