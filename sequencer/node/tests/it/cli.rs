//! The shell's client commands against a node.

use crate::fake::{FakeHub, UNKNOWN, certify, opaque, seats, secrets, segment};
use alloy_primitives::{B256, Bytes, keccak256};
use blst::min_pk::SecretKey;
use clap::Parser;
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};
use switchyard_consensus_core::keys::prove_possession;
use switchyard_node::{
    cli::{self, CliError},
    genesis::{Genesis, GenesisEpochs, GenesisLimits, GenesisValidator},
};
use switchyard_primitives::{Level, RollupId, TxKey};
use switchyard_rollup_core::{Rejection, TxOutcome};
use switchyard_rpc::{
    RpcMetrics, TxStatus,
    grpc::{GrpcLimits, GrpcOptions, serve},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Parser)]
enum Command {
    Submit(cli::SubmitArgs),
    Status(cli::StatusArgs),
    Stream(cli::StreamArgs),
    Verify(cli::VerifyArgs),
}

/// A network, one node of it, and its genesis file.
struct Network {
    hub: Arc<FakeHub>,
    url: String,
    genesis: PathBuf,
    _folder: TempDir,
    _shutdown: DropGuard,
}

fn genesis(timestamp_ms: u64) -> Genesis {
    let secrets = secrets();
    let validator = |(secret, seat): (&SecretKey, _)| {
        let seat: switchyard_consensus_core::Seat = seat;
        let possession = prove_possession(&secret.to_bytes(), seat.identity).unwrap();
        GenesisValidator::new(seat, possession)
    };
    Genesis {
        protocol: 1,
        name: "local".to_owned(),
        timestamp_ms,
        validators: secrets.iter().zip(seats(&secrets)).map(validator).collect(),
        rollups: crate::fake::ROLLUPS.map(opaque).into(),
        operators: Vec::new(),
        limits: GenesisLimits::default(),
        epochs: GenesisEpochs::default(),
        replay_window_blocks: 100,
    }
}

/// Serves `hub` under a genesis file.
async fn network_of(hub: Arc<FakeHub>, genesis: &Genesis) -> Network {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("genesis.json");
    std::fs::write(&path, serde_json::to_vec(genesis).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let options =
        GrpcOptions { limits: GrpcLimits::default(), metrics: RpcMetrics::default(), ready: Arc::new(|| Ok(())) };
    tokio::spawn(serve(listener, hub.clone(), options, shutdown.clone()));
    Network { hub, url, genesis: path, _folder: folder, _shutdown: shutdown.drop_guard() }
}

async fn network() -> Network {
    let genesis = genesis(1_000);
    let hub = FakeHub::of(genesis.id().unwrap(), genesis.header().unwrap(), genesis.seats().unwrap(), secrets());
    network_of(hub, &genesis).await
}

impl Network {
    /// Runs a command; returns what it printed and how it ended.
    async fn run(&self, command: &str, arguments: &[&str]) -> (String, Result<(), CliError>) {
        let fixed = ["switchyard", command, "--grpc", &self.url, "--rollup", "7"];
        let command = Command::try_parse_from(fixed.iter().chain(arguments)).unwrap();
        let mut out = Vec::new();
        let result = match command {
            Command::Submit(args) => cli::submit(args, &mut out).await,
            Command::Status(args) => cli::status(args, &mut out).await,
            Command::Stream(args) => cli::stream(args, &mut out).await,
            Command::Verify(args) => cli::verify(args, &mut out).await,
        };
        (String::from_utf8(out).unwrap(), result)
    }

    /// Runs a command that succeeds; returns what it printed.
    async fn run_ok(&self, command: &str, arguments: &[&str]) -> String {
        let (out, result) = self.run(command, arguments).await;
        result.unwrap();
        out
    }

    /// Runs a command that fails; returns its exit code and its line.
    async fn run_err(&self, command: &str, arguments: &[&str]) -> (u8, String) {
        let error = self.run(command, arguments).await.1.unwrap_err();
        (error.exit_code(), error.to_string())
    }

    fn genesis(&self) -> &str {
        self.genesis.to_str().unwrap()
    }
}

fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn key(payload: &[u8]) -> TxKey {
    TxKey::of(RollupId(7), payload)
}

#[tokio::test]
async fn submit_prints_hashes_and_sends_every_kind_of_input() {
    let network = network().await;
    let file = network.genesis.with_file_name("tx");
    std::fs::write(&file, b"from a file").unwrap();
    let file = file.to_str().unwrap();
    let out = network.run_ok("submit", &["--hex", "0x6f6e65", "--file", file, "--hex", "74776f"]).await;
    let expected = ["one", "two", "from a file"].map(|tx| format!("accepted {}\n", keccak256(tx)));
    assert_eq!(out, expected.concat());
    let sent: Vec<_> = network.hub.submitted().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(sent, ["one", "two", "from a file"].map(Bytes::from));

    let out = network.run_ok("submit", &["--hex", "6f6e65", "--json"]).await;
    assert_eq!(objects(&out), [json!({ "hash": keccak256("one"), "level": "accepted" })]);
}

#[tokio::test]
async fn submit_tells_refusals_apart() {
    let network = network().await;
    let (out, result) = network.run("submit", &["--hex", "21", "--hex", "61", "--hex", ""]).await;
    let error = result.unwrap_err();
    assert_eq!((error.exit_code(), error.to_string()), (2, "2 of 3 transactions refused".to_owned()));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "refused malformed: malformed transaction: starts with !");
    assert!(lines[1].starts_with("accepted 0x"));
    assert_eq!(lines[2], "refused empty: empty transaction");

    let (out, _) = network.run("submit", &["--hex", "21", "--json"]).await;
    assert_eq!(objects(&out)[0]["rejection"]["code"], "malformed");
}

#[tokio::test]
async fn submit_waits_for_a_level() {
    let network = network().await;
    let included = TxStatus { level: Some(Level::Final), included: Some((3, 0)), ..UNKNOWN };
    network.hub.set_status(key(b"a"), included);
    let dropped = TxStatus { rejection: Some(Rejection::Expired { seconds: 5 }), ..UNKNOWN };
    network.hub.set_status(key(b"b"), dropped);
    let hash = keccak256("a");
    let out = network.run_ok("submit", &["--hex", "61", "--wait", "final"]).await;
    assert_eq!(out, format!("accepted {hash}\nfinal {hash} in block 3 at 0\n"));

    let (out, result) = network.run("submit", &["--hex", "62", "--wait", "final"]).await;
    assert_eq!(result.unwrap_err().exit_code(), 2);
    assert!(out.ends_with("expired: expired: not includable for 5 s\n"), "{out}");

    let wait = ["--hex", "63", "--wait", "final", "--timeout-seconds", "1"];
    assert_eq!(network.run_err("submit", &wait).await.0, 3);
    let (code, line) = network.run_err("submit", &["--hex", "63", "--wait", "settled"]).await;
    assert!(code == 1 && line.starts_with("level_unavailable: "), "{line}");
    let (code, line) = network.run_err("submit", &["--hex", "63", "--wait-outcome"]).await;
    assert!(code == 1 && line.starts_with("not_executed_here: "), "{line}");
}

#[tokio::test]
async fn wrong_arguments_are_named() {
    let network = network().await;
    let missing = network.genesis.with_file_name("missing");
    for (arguments, start) in [
        (vec![], "nothing to submit: "),
        (vec!["--hex", "0xzz"], "--hex: "),
        (vec!["--hex", "123"], "--hex: "),
        (vec!["--file", missing.to_str().unwrap()], "--file "),
    ] {
        let (code, line) = network.run_err("submit", &arguments).await;
        assert!(code == 1 && line.starts_with(start), "{line}");
    }
    for arguments in [
        vec!["submit", "--grpc", "http://x", "--hex", "00"],
        vec!["submit", "--grpc", "http://x", "--rollup", "-1", "--hex", "00"],
        vec!["submit", "--grpc", "http://x", "--rollup", "7", "other"],
        vec!["submit", "--grpc", "http://x", "--rollup", "7", "--hex", "00", "--wait", "soon"],
        vec!["status", "--grpc", "http://x", "--rollup", "7", "0x12"],
        vec!["status", "--grpc", "http://x", "--rollup", "7"],
        vec!["status", "--grpc", "http://x", "0x0000000000000000000000000000000000000000000000000000000000000012"],
        vec!["stream", "--grpc", "http://x", "--rollup", "7", "--from", "1", "--verify"],
        vec!["verify", "--grpc", "http://x", "--rollup", "7", "--height", "1"],
        vec!["verify", "--grpc", "http://x", "--rollup", "7", "--genesis", "g", "--height", "1", "--from", "1"],
    ] {
        assert!(Command::try_parse_from(["switchyard"].iter().chain(&arguments)).is_err(), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_not_there_is_named() {
    let mut network = network().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    network.url = format!("http://{free}");
    let (code, line) = network.run_err("submit", &["--hex", "00"]).await;
    assert!(code == 1 && line.starts_with(&format!("cannot connect to http://{free}: ")), "{line}");
    assert!(line.to_lowercase().contains("connection refused"), "{line}");
    network.url = "not a url".to_owned();
    assert_eq!(network.run_err("submit", &["--hex", "00"]).await.0, 1);
}

#[tokio::test]
async fn status_prints_the_level_and_its_exit_code() {
    let network = network().await;
    let hash = B256::repeat_byte(1);
    let text = hash.to_string();
    let (code, line) = network.run_err("status", &[&text]).await;
    assert_eq!((code, line), (3, format!("unknown transaction {hash}")));

    let set = |status| network.hub.set_status(TxKey { rollup: RollupId(7), hash }, status);
    let outcome = Some(TxOutcome::Executed { block: 2, index: 0, success: false });
    set(TxStatus { level: Some(Level::Final), included: Some((5, 1)), outcome, ..UNKNOWN });
    let line = format!("final {hash} in block 5 at 1, executed in rollup block 2 at 0: failed\n");
    assert_eq!(network.run_ok("status", &[&text]).await, line);
    let expected = json!({
        "hash": hash, "level": "final", "included": { "height": 5, "index": 1 }, "rejection": null,
        "outcome": { "executed": { "block": 2, "index": 0, "success": false } },
    });
    assert_eq!(objects(&network.run_ok("status", &[&text, "--json"]).await), [expected]);

    let outcome = Some(TxOutcome::Skipped { reason: "nonce too low".to_owned() });
    set(TxStatus { level: Some(Level::Final), included: Some((5, 1)), outcome, ..UNKNOWN });
    let line = format!("final {hash} in block 5 at 1, not executed: nonce too low\n");
    assert_eq!(network.run_ok("status", &[&text]).await, line);

    set(TxStatus { rejection: Some(Rejection::BadSignature), ..UNKNOWN });
    let (out, result) = network.run("status", &[&text]).await;
    assert_eq!(out, format!("refused {hash} bad_signature: invalid signature\n"));
    assert_eq!(result.unwrap_err().exit_code(), 2);
}

#[tokio::test]
async fn status_without_a_transaction_tells_of_the_node() {
    let network = network().await;
    let ask = |json| {
        let connect = cli::Connect { grpc: network.url.clone() };
        let args = cli::StatusArgs { connect, rollup: None, hash: None, json };
        async {
            let mut out = Vec::new();
            cli::status(args, &mut out).await.unwrap();
            String::from_utf8(out).unwrap()
        }
    };
    let lines = ask(false).await;
    for start in ["network  ", "block    0 0x", "epoch    0, to block ", "log      from block 0"] {
        assert!(lines.lines().any(|line| line.starts_with(start)), "{start}: {lines}");
    }
    let found = &objects(&ask(true).await)[0];
    assert_eq!((&found["height"], &found["epoch"], &found["protocol"]), (&json!(0), &json!(0), &json!(1)));
}

/// Six blocks, of which 2 and 5 hold something for the rollup.
fn fill(hub: &FakeHub) {
    for height in 1..=6 {
        let own = (height == 2 || height == 5).then(|| segment(7, &[b"first", b"second"]));
        hub.push_block(own.into_iter().chain([segment(9, &[b"other"])]).collect(), height != 4);
    }
}

#[tokio::test]
async fn stream_prints_the_rollups_blocks_with_and_without_verification() {
    let network = network().await;
    fill(&network.hub);
    let out = network.run_ok("stream", &["--from", "1", "--to", "6"]).await;
    let (two, five) = (network.hub.block(2), network.hub.block(5));
    let transactions = ["first", "second"].map(|tx| format!("  {} {} bytes\n", keccak256(tx), tx.len())).concat();
    let block = |b: &switchyard_primitives::Block, verified| {
        let (height, at) = (b.header.height, b.header.timestamp_ms);
        format!("block {height} {} at {at} ms: 2 transactions{verified}\n{transactions}", b.hash())
    };
    assert_eq!(out, block(&two, "") + &block(&five, ""));

    let verify = ["--from", "1", "--to", "6", "--verify", "--genesis", network.genesis()];
    assert_eq!(network.run_ok("stream", &verify).await, block(&two, " verified") + &block(&five, " verified"));

    let all = ["--from", "0", "--to", "3", "--all", "--json", "--verify", "--genesis", network.genesis()];
    let lines = objects(&network.run_ok("stream", &all).await);
    assert_eq!(lines.iter().map(|l| l["height"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(lines.iter().all(|l| l["verified"] == true));
    assert_eq!(lines[2]["transactions"][1], json!({ "hash": keccak256("second"), "bytes": "0x7365636f6e64" }));
}

#[tokio::test]
async fn a_broken_stream_says_where_to_go_on() {
    let network = network().await;
    fill(&network.hub);
    let (code, line) = network.run_err("stream", &["--from", "9999"]).await;
    assert!(code == 1 && line.starts_with("too_far_ahead: "), "{line}");
    let url = network.url.clone();
    let hub = network.hub.clone();
    let run = tokio::spawn(async move {
        let fixed = ["switchyard", "stream", "--grpc", &url, "--rollup", "7", "--from", "1", "--all"];
        let Command::Stream(args) = Command::try_parse_from(fixed).unwrap() else { unreachable!() };
        let mut out = Vec::new();
        let error = cli::stream(args, &mut out).await.unwrap_err();
        (String::from_utf8(out).unwrap(), error.to_string())
    });
    // Retention overtakes the reader once it waits for block 7.
    while hub.segment_reads.load(std::sync::atomic::Ordering::SeqCst) < 6 {
        tokio::task::yield_now().await;
    }
    hub.earliest.store(100, std::sync::atomic::Ordering::SeqCst);
    hub.push(vec![]);
    let (out, line) = run.await.unwrap();
    let next = out.lines().filter(|line| line.starts_with("block ")).count() + 1;
    assert!(line.starts_with(&format!("the stream ended; go on with --from {next}: pruned: ")), "{line}");
}

#[tokio::test]
async fn verify_prints_what_was_proven() {
    let network = network().await;
    fill(&network.hub);
    let genesis = ["--genesis", network.genesis()];
    let run = async |arguments: &[&str]| network.run_ok("verify", &[&genesis, arguments].concat()).await;
    let out = run(&["--from", "1"]).await;
    let id = super::cli::genesis(1_000).id().unwrap();
    let expected = [
        format!("network  local {id}"),
        "blocks   1 to 6: one chain, final, signed by at least 3 of 4 seats".to_owned(),
        "rollup   7: 4 transactions of 22 bytes in 2 blocks, complete".to_owned(),
        "absence  nothing for the rollup in 4 blocks".to_owned(),
        format!("last     {}", network.hub.block(6).hash()),
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);

    let one = objects(&run(&["--height", "2", "--json"]).await);
    assert_eq!((&one[0]["from"], &one[0]["to"], &one[0]["transactions"]), (&json!(2), &json!(2), &json!(2)));
    let newest = objects(&run(&["--json"]).await);
    assert_eq!((&newest[0]["to"], &newest[0]["blocks_without"]), (&json!(6), &json!(1)));
    let range = objects(&run(&["--from", "0", "--to", "4", "--json"]).await);
    assert_eq!((&range[0]["from"], &range[0]["to"], &range[0]["last_hash"]).2, &json!(network.hub.block(4).hash()));
}

#[tokio::test]
async fn verify_names_a_lie_and_exits_with_1() {
    // A node of the same network whose certificates strangers have signed.
    let genesis = genesis(1_000);
    let strangers: Vec<SecretKey> = (11..=14).map(|i| SecretKey::key_gen(&[i; 32], &[]).unwrap()).collect();
    let (id, header) = (genesis.id().unwrap(), genesis.header().unwrap());
    let hub = FakeHub::of(id, header, genesis.seats().unwrap(), strangers);
    fill(&hub);
    let network = network_of(hub, &genesis).await;
    for arguments in [["--height", "2"], ["--from", "1"]] {
        let (code, line) =
            network.run_err("verify", &[&["--genesis", network.genesis()][..], &arguments].concat()).await;
        assert!(code == 1 && line.starts_with("not_final: "), "{line}");
    }
    let stream = ["--from", "1", "--to", "6", "--verify", "--genesis", network.genesis()];
    let (out, result) = network.run("stream", &stream).await;
    assert!(result.unwrap_err().to_string().starts_with("not_final: "));
    assert_eq!(out, "", "nothing is printed that was not verified");
}

#[tokio::test]
async fn a_node_of_another_network_is_told_from_a_liar() {
    let network = network().await;
    fill(&network.hub);
    let other = genesis(2_000);
    std::fs::write(&network.genesis, serde_json::to_vec(&other).unwrap()).unwrap();
    let (code, line) = network.run_err("verify", &["--genesis", network.genesis(), "--height", "1"]).await;
    let expected = other.id().unwrap();
    assert!(code == 1 && line.ends_with(&format!("the genesis file is of network {expected}")), "{line}");

    std::fs::write(&network.genesis, b"{").unwrap();
    let (code, line) = network.run_err("verify", &["--genesis", network.genesis(), "--height", "1"]).await;
    assert!(code == 1 && line.starts_with("genesis "), "{line}");
    // Certificates of another network do not verify even if the node lies about its id.
    assert_ne!(certify(expected, &secrets(), &network.hub.block(1).header, 3).signature, [0; 96]);
}
