//! `switchyard testnet` as scripts use it, over the real node. The binaries are those of the same build: `make test`, or
//! `cargo build --workspace --bins --tests` first.

// clippy.toml's exception for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod guide;

use serde_json::Value;
use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};
use switchyard_rollup_core::Sealing;
use switchyard_testnet_local::{Options, Testnet};

fn testnet(dir: &Path, arguments: &[&str]) -> Output {
    let (command, rest) = arguments.split_first().unwrap();
    Command::new(env!("CARGO_BIN_EXE_switchyard-testnet"))
        .arg(command)
        .arg("--dir")
        .arg(dir)
        .args(rest)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// The stages of a part of what a network has shown: the words behind the times.
fn stages<'a>(shown: &'a str, part: &str) -> Vec<&'a str> {
    let lines = shown.lines().skip_while(|line| !line.starts_with(part)).skip(1);
    lines.map_while(|line| line.split_once(" s  ")?.1.split_whitespace().next()).collect()
}

/// Takes the network down when a test ends early.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        testnet(self.0, &["down"]);
    }
}

#[test]
fn a_detached_network_shows_a_swap_and_a_refund_and_does_what_the_guide_says() {
    let dir = tempfile::tempdir().unwrap();
    let down = Down(dir.path());
    let up = testnet(dir.path(), &["up", "--detach", "--base-port", "0"]);
    assert!(up.status.success(), "{up:?}");
    let shown = String::from_utf8_lossy(&up.stdout);
    let swap = stages(&shown, "swap: 1 coin of yardA for 2 of yardB");
    assert!(swap.starts_with(&["accepted"]) && swap.contains(&"open") && swap.ends_with(&["settled"]), "{shown}");
    let transfer = stages(&shown, "transfer: 1 coin from yardA to a contract on yardB");
    assert_eq!((transfer.first(), transfer.last()), (Some(&"sent"), Some(&"refunded")), "{shown}");

    let endpoints = json(&testnet(dir.path(), &["endpoints", "--json"]));
    let validators = endpoints["validators"].as_array().unwrap();
    assert_eq!(validators.len(), 4);
    for validator in validators {
        let chains: Vec<_> = validator["rollups"].as_array().unwrap().iter().map(|r| r["chain_id"].as_u64()).collect();
        assert_eq!(chains, [Some(71001), Some(71002)]);
    }
    assert_eq!(endpoints["accounts"].as_array().unwrap().len(), 10);

    let status = testnet(dir.path(), &["status", "--json"]);
    assert!(status.status.success(), "{status:?}");
    assert_eq!(json(&status)["ok"], true);
    guide::follow(validators[3]["grpc"].as_str().unwrap(), &dir.path().join("genesis.json"));

    let second = testnet(dir.path(), &["up", "--detach"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("runs already"), "{second:?}");

    drop(down);
    let after = testnet(dir.path(), &["status", "--json"]);
    assert_eq!(after.status.code(), Some(1));
    assert!(json(&after)["validators"].as_array().unwrap().iter().all(|v| v["alive"] == false));
}

#[test]
fn a_taken_port_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let up = testnet(dir.path(), &["up", "--detach", "--validators", "1", "--base-port", &port]);
    assert_eq!(up.status.code(), Some(2), "{up:?}");
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(said.contains(&port) && said.contains("--base-port"), "{said}");
}

#[test]
fn one_second_sealing_is_a_choice_of_a_new_network() {
    let dir = tempfile::tempdir().unwrap();
    let sealing = |options: Options| {
        let network = Testnet::create(&dir.path().join(format!("{:?}", options.sealing)), options).unwrap();
        network.dir().genesis().unwrap().rollups.into_iter().map(|rollup| rollup.sealing).collect::<Vec<_>>()
    };
    let one_second = Options { validators: 1, sealing: Sealing::OneSecond, ..Options::default() };
    assert_eq!(sealing(one_second), [Sealing::OneSecond, Sealing::OneSecond, Sealing::HubBlock]);
    sealing(Options { validators: 1, ..Options::default() });
    let up = testnet(&dir.path().join("HubBlock"), &["up", "--detach", "--one-second"]);
    assert_eq!(up.status.code(), Some(2), "{up:?}");
    assert!(String::from_utf8_lossy(&up.stderr).contains("--one-second"), "{up:?}");
}

#[test]
fn a_folder_without_a_network_is_refused_by_all_but_up() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["down", "status", "endpoints"] {
        let output = testnet(dir.path(), &[command]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no local network"), "{output:?}");
    }
}
