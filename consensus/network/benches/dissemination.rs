//! What it costs to bring a batch of transactions to everyone, directly and by gossip.
//!
//! `cargo bench --workspace --bench dissemination -- 4 10 32` starts so many nodes in this process, on loopback sockets,
//! lets the first one send, and prints who has sent how much. Times are those of all nodes on one machine.

use bytes::Bytes;
use commonware_p2p::{Receiver as _, Recipients, Sender as _};
use commonware_runtime::{IoBuf, Metrics as _, Runner as _, Supervisor as _, tokio::Context};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use switchyard_consensus_network::{Config, Gossiped, Network, Roster as _, Transport, Verdict, identity};
use switchyard_primitives::{B256, keccak256};
use tokio::sync::mpsc;

const BATCHES: usize = 40;
const INTERVAL: Duration = Duration::from_millis(50);
const SIZES: [usize; 2] = [1 << 10, 48 << 10];

/// The sum of a counter's values at all nodes, or at one.
fn counted(context: &Context, parts: &[&str]) -> f64 {
    let metrics = context.encode();
    let lines = metrics.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Nodes that are all connected.
async fn nodes(context: &Context, count: usize) -> Vec<Network> {
    let secret = |node: usize| keccak256(node.to_be_bytes()).0;
    let node = |node: usize| {
        let config = Config {
            transport: Transport::Libp2p,
            identity_secret: secret(node),
            listen: ([127, 0, 0, 1], 0).into(),
            peers: Vec::new(),
            namespace: b"dissemination".to_vec(),
            message_bytes_max: 1 << 20,
        };
        let name: &'static str = if node == 0 { "first" } else { "other" };
        Network::start(context.child(name).with_attribute("node", node), config).expect("a free port")
    };
    let mut nodes: Vec<Network> = (0..count).map(node).collect();
    let peers: Vec<(B256, SocketAddr)> =
        nodes.iter().enumerate().map(|(node, network)| (identity(&secret(node)), network.address)).collect();
    for network in &nodes {
        network.peers.clone().track(1, &peers, &[]).expect("keys");
    }
    for network in &mut nodes {
        while network.connected.count() != Some(count - 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // Meshes settle at the library's heartbeats.
    tokio::time::sleep(Duration::from_secs(4)).await;
    nodes
}

/// Accepts whatever comes, and tells when.
async fn hear(network: &mut Network, heard: mpsc::UnboundedSender<Instant>) {
    let gossip = &mut network.gossip.as_mut().expect("libp2p gossips").incoming;
    loop {
        tokio::select! {
            Some(Gossiped { judge, .. }) = gossip.recv() => judge.decide(Verdict::Accept),
            Ok(_) = network.transactions.1.recv() => {}
        }
        if heard.send(Instant::now()).is_err() {
            return;
        }
    }
}

/// Sends batches one after the other; the times until the last node had each.
async fn send(nodes: &mut [Network], by_gossip: bool, size: usize) -> Vec<Duration> {
    let (first, others) = nodes.split_first_mut().expect("nodes");
    let count = others.len();
    let (tell, mut heard) = mpsc::unbounded_channel();
    let hearing = futures::future::join_all(others.iter_mut().map(|network| hear(network, tell.clone())));
    let sending = async {
        let mut times = Vec::new();
        for batch in 0..BATCHES {
            let message = [&batch.to_be_bytes()[..], &vec![u8::from(by_gossip); size]].concat();
            let began = Instant::now();
            if by_gossip {
                let gossip = first.gossip.as_ref().expect("libp2p gossips");
                assert!(gossip.publisher.publish(Bytes::from(message)));
            } else {
                first.transactions.0.send(Recipients::All, IoBuf::from(message), false);
            }
            let mut last = began;
            for _ in 0..count {
                let patience = tokio::time::timeout(Duration::from_secs(10), heard.recv());
                last = last.max(patience.await.expect("everyone hears").expect("still hearing"));
            }
            times.push(last - began);
            tokio::time::sleep(INTERVAL).await;
        }
        times
    };
    tokio::select! {
        times = sending => times,
        _ = hearing => unreachable!("nobody stops hearing"),
    }
}

async fn measure(context: Context, count: usize) {
    let mut nodes = nodes(&context, count).await;
    for size in SIZES {
        for by_gossip in [false, true] {
            let totals = || {
                let outcome = |outcome: &str| counted(&context, &["gossip_total", &format!("\"{outcome}\"")]);
                (outcome("received"), outcome("duplicate"))
            };
            let before = totals();
            let mut times = send(&mut nodes, by_gossip, size).await;
            // What is still on its way belongs to these batches.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let after = totals();
            times.sort();
            let each = (BATCHES * (count - 1)) as f64;
            let (received, duplicates) = ((after.0 - before.0) / each, (after.1 - before.1) / each);
            let mesh = counted(&context, &["first", "_mesh"]);
            let (way, copies, author) = if by_gossip {
                ("gossip", received, mesh.max(8.0).min((count - 1) as f64))
            } else {
                ("direct", 1.0, (count - 1) as f64)
            };
            // Whatever was received was sent by somebody.
            let others = (copies * (count - 1) as f64 - author) / (count - 1) as f64;
            let (p50, max) = (times[BATCHES / 2].as_secs_f64() * 1e3, times[BATCHES - 1].as_secs_f64() * 1e3);
            println!(
                "| {count} | {} KiB | {way} | {author:.0} | {others:.2} | {:.2} | {p50:.1} | {max:.1} |",
                size >> 10,
                duplicates
            );
        }
    }
}

fn main() {
    let counts: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![4, 10] } else { counts };
    println!(
        "| nodes | batch | way | copies the author sends | each other sends | duplicates a node | p50 ms | max ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for count in counts {
        commonware_runtime::tokio::Runner::default().start(|context| measure(context, count));
    }
}
