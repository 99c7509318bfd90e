//! A process that stops for a while, links that fail, and a disk that is full.

use crate::traffic::{Load, SECONDS_60, YARD_C, nothing_lost, tip};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};
use switchyard_consensus_network::Transport;
use switchyard_node::config::Endpoints;
use switchyard_testnet_kit::{Conditions, Mesh, Sent, caught_up, raw_payload, submit_raw};
use switchyard_testnet_local::{Client, Options, Testnet};

const VALIDATORS: usize = 4;
const VICTIM: usize = 3;

/// A number among a validator's metrics; 0 if it is not there.
async fn metric(client: &Client, node: &Endpoints, name: &str) -> f64 {
    let text = client.metrics(&node.metrics).await.unwrap();
    let of_name = |line: &str| line.split([' ', '{']).next() == Some(name);
    text.lines().filter(|l| of_name(l)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How many messages by gossip have come to this at a validator.
async fn gossiped(client: &Client, node: &Endpoints, outcome: &str) -> f64 {
    let text = client.metrics(&node.metrics).await.unwrap();
    let of_outcome = |line: &&str| line.contains("libp2p_gossip_total{") && line.contains(outcome);
    text.lines().filter(of_outcome).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Returns once a validator has so many peers.
async fn until_peers(client: &Client, node: &Endpoints, peers: f64) {
    let reached = async {
        while metric(client, node, "switchyard_peers").await != peers {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SECONDS_60, reached).await.expect("peers come and go");
}

/// No validator has seen another sign what it may not.
async fn nobody_is_at_fault(client: &Client, nodes: &[Endpoints]) {
    for node in nodes {
        assert_eq!(metric(client, node, "switchyard_faults_total").await, 0.0, "{}", node.metrics);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_that_stands_still_is_done_without_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new();
    let mut testnet = Testnet::create(&dir.path().join("net"), Options::default()).unwrap();
    let nodes = testnet.start_all().await.unwrap();

    // The others take the load: a client of the one that stands still would only wait for it.
    let load = Load::start(&client, &nodes[..VICTIM]);
    load.more(40).await;
    let sent = submit_raw(&nodes[VICTIM].grpc, YARD_C, vec![raw_payload(u64::MAX, 0, 64)]).await.unwrap();
    let [Sent::Accepted(early)] = sent[..] else { panic!("{sent:?}") };
    testnet.pause(VICTIM).unwrap();
    // However long it stands still from here on, the others have done all that they do about it: they have given up its
    // connections, and go on.
    for node in &nodes[..VICTIM] {
        until_peers(&client, node, 2.0).await;
    }
    let without = tip(&client, &nodes[0]).await;
    caught_up(&client, &nodes[0].grpc, without + 10, SECONDS_60).await.unwrap();
    load.more(40).await;
    let while_still = tip(&client, &nodes[0]).await;
    testnet.resume(VICTIM).unwrap();
    caught_up(&client, &nodes[VICTIM].grpc, while_still, SECONDS_60).await.unwrap();
    until_peers(&client, &nodes[VICTIM], 3.0).await;
    load.more(40).await;
    let accepted = load.finish().await;

    nothing_lost(&client, &nodes, &testnet.dir().genesis().unwrap(), VICTIM, &[accepted, vec![early]].concat()).await;
    nobody_is_at_fault(&client, &nodes).await;
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}

/// Each validator reaches each other one through a link of its own. Every other one gossips what its clients submit.
async fn through_links(testnet: &Testnet, transport: Transport, seed: u64) -> Mesh {
    let listening: Vec<_> =
        (0..testnet.len()).map(|i| testnet.dir().config(i).unwrap().network.unwrap().listen).collect();
    let mesh = Mesh::open(&listening, seed).await.unwrap();
    for from in 0..testnet.len() {
        let mut config = testnet.dir().config(from).unwrap();
        let network = config.network.as_mut().unwrap();
        network.transport = transport;
        network.gossip_from = if from % 2 == 0 { 2 } else { VALIDATORS + 1 };
        for peer in &mut network.peers {
            let to = listening.iter().position(|address| *address == peer.address).unwrap();
            peer.address = mesh.address(from, to).unwrap();
        }
        testnet.dir().write_config(from, &config).unwrap();
    }
    mesh
}

async fn bad_links(transport: Transport) {
    const SEED: u64 = 11;
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new();
    let mut testnet = Testnet::create(&dir.path().join("net"), Options::default()).unwrap();
    let mesh = through_links(&testnet, transport, SEED).await;
    let nodes = testnet.start_all().await.unwrap();
    let load = Load::start(&client, &nodes);
    load.more(20).await;

    // Slow links, of which one validator's stall or break at any time.
    let mut rng = StdRng::seed_from_u64(SEED);
    let slow = Conditions { delay: Duration::from_millis(25), loss: 0.01, ..Conditions::default() };
    mesh.set(slow, |_, _| true);
    load.more(20).await;
    for _ in 0..6 {
        let victim = rng.random_range(0..VALIDATORS);
        let other = (victim + rng.random_range(1..VALIDATORS)) % VALIDATORS;
        let of_victim = |from, to| from == victim || to == victim;
        match rng.random_range(0..3) {
            0 => mesh.cut(of_victim),
            1 => mesh.cut(|from, to| of_victim(from, to) && (from == other || to == other)),
            _ => mesh.set(Conditions { held: true, ..slow }, of_victim),
        }
        load.more(15).await;
        mesh.set(slow, |_, _| true);
    }
    let accepted = load.finish().await;

    // Two halves, none of which has a quorum: nothing is accepted, so nothing final can differ.
    let half = |index| index < VALIDATORS / 2;
    mesh.set(Conditions { held: true, ..slow }, |from, to| half(from) != half(to));
    let held = submit_raw(&nodes[0].grpc, YARD_C, vec![raw_payload(u64::MAX, 0, 64)]).await.unwrap();
    assert!(matches!(held[..], [Sent::Unclear(..)]), "{held:?}");

    // Healed, without any help.
    mesh.set(Conditions::default(), |_, _| true);
    let before = tip(&client, &nodes[0]).await;
    for node in &nodes {
        caught_up(&client, &node.grpc, before + 3, SECONDS_60).await.unwrap();
        until_peers(&client, node, 3.0).await;
    }
    let sent = submit_raw(&nodes[VICTIM].grpc, YARD_C, vec![raw_payload(u64::MAX, 1, 64)]).await.unwrap();
    let [Sent::Accepted(late)] = sent[..] else { panic!("{sent:?}") };
    let before = tip(&client, &nodes[VICTIM]).await;
    caught_up(&client, &nodes[0].grpc, before + 2, SECONDS_60).await.unwrap();

    nothing_lost(&client, &nodes, &testnet.dir().genesis().unwrap(), VICTIM, &[accepted, vec![late]].concat()).await;
    nobody_is_at_fault(&client, &nodes).await;
    if transport != Transport::Own {
        for (index, node) in nodes.iter().enumerate() {
            assert_eq!(gossiped(&client, node, "\"published\"").await > 0.0, index % 2 == 0, "{}", node.metrics);
            assert!(gossiped(&client, node, "\"accepted\"").await > 0.0, "{}", node.metrics);
            assert_eq!(gossiped(&client, node, "\"rejected\"").await, 0.0, "{}", node.metrics);
        }
    }
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_slow_links_that_break_the_network_goes_on_and_recovers_from_being_split() {
    bad_links(Transport::Libp2p).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_its_validator_alone_which_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new();
    let mut testnet = Testnet::create(&dir.path().join("net"), Options::default()).unwrap();
    // A process that may write no file longer than this: for it, the disk is full.
    let full = dir.path().join("full");
    let program = testnet.program().to_path_buf();
    fs::write(&full, format!("#!/bin/sh\ntrap '' XFSZ\nulimit -f 1024\nexec {} \"$@\"\n", program.display())).unwrap();
    fs::set_permissions(&full, fs::Permissions::from_mode(0o755)).unwrap();
    for index in 0..VICTIM {
        testnet.start(index).unwrap();
    }
    testnet.use_program(full);
    testnet.start(VICTIM).unwrap();
    testnet.use_program(program);
    let mut nodes = Vec::new();
    for index in 0..VALIDATORS {
        nodes.push(testnet.ready(index).await.unwrap());
    }

    let load = Load::start(&client, &nodes[..VICTIM]);
    let (mut round, grpc) = (1 << 32, nodes[0].grpc.clone());
    let how = async {
        loop {
            if let Some(how) = testnet.exited(VICTIM).unwrap() {
                return how;
            }
            let large = (0..4).map(|index| raw_payload(round, index, 32 << 10)).collect();
            submit_raw(&grpc, YARD_C, large).await.unwrap();
            round += 1;
        }
    };
    let how = tokio::time::timeout(SECONDS_60, how).await.expect("a validator that cannot write stops");
    assert!(how.contains("exit status: 1"), "{how}");
    let log = testnet.log_tail(VICTIM, 1);
    assert!(log.starts_with("switchyard: ") && log.contains("make room"), "{log}");
    let without = tip(&client, &nodes[0]).await;
    load.more(20).await;

    testnet.start(VICTIM).unwrap();
    nodes[VICTIM] = testnet.ready(VICTIM).await.unwrap();
    caught_up(&client, &nodes[VICTIM].grpc, without, SECONDS_60).await.unwrap();
    load.more(20).await;
    let accepted = load.finish().await;
    nothing_lost(&client, &nodes, &testnet.dir().genesis().unwrap(), VICTIM, &accepted).await;
    nobody_is_at_fault(&client, &nodes).await;
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}
