//! What the program says when it cannot start: exit code 2 and one line with what is wrong.

use crate::process::{Folder, OPAQUE, genesis_validator, refusal, run, set_mode, validator_keys};
use serde_json::{Value, json};
use std::fs;
use switchyard_node::genesis::Genesis;

/// A validator's folder after `spoil`; its refusal must contain all of `words`.
async fn check(spoil: impl FnOnce(&Folder), words: &[&str]) {
    let folder = Folder::new();
    spoil(&folder);
    let line = folder.refused().await;
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
    assert!(!folder.path("data").exists(), "made before the check: {line}");
}

fn spoil_genesis(change: impl FnOnce(&mut Genesis)) -> impl FnOnce(&Folder) {
    |folder| {
        let mut genesis = folder.genesis();
        change(&mut genesis);
        folder.write_genesis(&genesis);
    }
}

fn spoil_config(from: &'static str, to: &'static str) -> impl FnOnce(&Folder) {
    move |folder| {
        let text = folder.config_text();
        assert!(text.contains(from));
        folder.write_config(&text.replacen(from, to, 1));
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_refused_in_one_line() {
    check(|folder| fs::remove_file(folder.config()).unwrap(), &["node.toml", "cannot read config"]).await;
    check(spoil_config("[grpc]", "[grpc]\nsurprise = 1"), &["node.toml", "line 13", "surprise"]).await;
    check(spoil_config("data_dir = \"data\"", "data_dir = \"da"), &["node.toml", "line 2"]).await;
    check(spoil_config("data_dir = \"data\"\n", ""), &["data_dir"]).await;
    check(spoil_config("heartbeat_ms = 100", "heartbeat_ms = 5000"), &["heartbeat_ms 5000", "leader_timeout"]).await;
    check(spoil_config("rollup = 1", "rollup = 7"), &["rpc", "rollup 7"]).await;
    check(spoil_config("rollup = 1", "rollup = 99"), &["rpc", "rollup 99"]).await;
}

#[tokio::test]
async fn a_genesis_that_cannot_be_used_is_refused_in_one_line() {
    check(|folder| fs::remove_file(folder.path("genesis.json")).unwrap(), &["genesis.json", "cannot read"]).await;
    let unknown_key = |folder: &Folder| {
        let path = folder.path("genesis.json");
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        value["validators"][0]["surprise"] = json!(1);
        fs::write(&path, value.to_string()).unwrap();
    };
    check(unknown_key, &["genesis.json", "surprise"]).await;
    let other = genesis_validator(&validator_keys(2));
    let wrong = spoil_genesis(|genesis| genesis.validators[0].possession = other.possession);
    check(wrong, &["proof of possession", &genesis_validator(&validator_keys(1)).seat.bls.to_string()]).await;
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_refused_in_one_line() {
    check(|folder| set_mode(&folder.path("bls.key"), 0o640), &["bls.key", "640", "chmod 600"]).await;
    check(|folder| fs::remove_file(folder.path("identity.key")).unwrap(), &["identity.key"]).await;
    check(|folder| fs::write(folder.path("bls.key"), "no hex").unwrap(), &["bls.key", "32 bytes in hex"]).await;

    let stranger = validator_keys(3);
    let identity = stranger.identity_public().to_string();
    check(|folder| folder.write_keys(&stranger), &[&identity, "no seat"]).await;

    let (mut keys, second) = (validator_keys(1), validator_keys(2));
    keys.bls = second.bls;
    let both = [validator_keys(1).bls_public().unwrap().to_string(), second.bls_public().unwrap().to_string()];
    let swapped = |folder: &Folder| {
        spoil_genesis(|genesis| genesis.validators.push(genesis_validator(&second)))(folder);
        folder.write_keys(&keys);
    };
    check(swapped, &[&both[0], &both[1]]).await;
}

#[tokio::test]
async fn a_word_that_is_no_command_is_refused_and_never_a_path() {
    for word in ["nonsense", "../switchyard", "a/b", "/bin/sh", "Testnet", "test-net", "", "tést"] {
        let line = refusal(&run(&[word, "--rollup", OPAQUE]).await);
        assert!(line.contains("unknown command") && line.contains(&format!("{word:?}")), "{line}");
    }
}
