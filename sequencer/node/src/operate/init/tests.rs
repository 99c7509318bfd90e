use super::*;
use crate::{
    config::{BlsKey, Consensus, Role},
    genesis::GenesisLimits,
};
use clap::Parser;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{RollupManifest, Sealing};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: InitArgs,
}

fn args(dir: &Path, more: &[&str]) -> InitArgs {
    let dir = dir.to_str().unwrap();
    Line::try_parse_from(["init", "--dir", dir, "--kdf", "pbkdf2"].iter().chain(more)).unwrap().args
}

fn keys(byte: u8) -> NodeKeys {
    NodeKeys { identity: [byte; 32], bls: [byte; 32] }
}

fn genesis(validators: &[NodeKeys]) -> Genesis {
    let evm = |id, name: &str| RollupManifest {
        id: RollupId(id),
        name: name.into(),
        vm: Vm::Evm { genesis: json!({ "config": { "chainId": 71000 + id } }) },
        sealing: Sealing::HubBlock,
    };
    Genesis {
        protocol: 1,
        name: "test".into(),
        timestamp_ms: 1,
        validators: validators.iter().map(|keys| keys.genesis_validator().unwrap()).collect(),
        rollups: vec![evm(4, "one"), evm(9, "two")],
        operators: Vec::new(),
        limits: GenesisLimits::default(),
        epochs: crate::genesis::GenesisEpochs::default(),
        replay_window_blocks: 100,
    }
}

fn loaded(text: &str) -> Config {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("node.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn the_configuration_has_what_was_asked_for_and_the_examples_comments() {
    let (own, second, third) = (keys(1), keys(2), keys(3));
    let genesis = genesis(&[keys(1), keys(2), keys(3)]);
    let peer = format!("{}@192.0.2.7:7100", second.identity_public());
    let args = args(Path::new("/x"), &["--peer", &peer, "--listen", "[::]:9000", "--rpc", "127.0.0.1:8000"]);
    let text = render(&args, &own, Some(&genesis), Some(Path::new("/etc/a \"password\"")));
    let config = loaded(&text);
    let network = config.network.unwrap();
    assert_eq!((network.listen, network.peers), (args.listen, args.peers.clone()));
    assert_eq!((config.grpc.listen, config.metrics.listen), (args.grpc, args.metrics));
    let rpc: Vec<_> = config.rpc.iter().map(|rpc| (rpc.rollup, rpc.listen.port())).collect();
    assert_eq!(rpc, [(RollupId(4), 8000), (RollupId(9), 8001)]);
    let BlsKey::Keystore { password_file, .. } = config.keys.unwrap().bls else { panic!("no keystore") };
    assert_eq!(password_file.as_deref(), Some(Path::new("/etc/a \"password\"")));
    assert_eq!(config.consensus, Consensus::default());
    assert!(text.contains("An idle hub makes a block each heartbeat"), "the example's comments are gone");
    assert!(!text.contains("192.0.2.10"), "the example's peer is left");
    let waits = format!("# identity = \"{}\"", third.identity_public());
    assert!(text.contains(&waits) && !text.contains(&own.identity_public().to_string()), "{text}");
}

#[test]
fn without_a_genesis_or_peers_the_configuration_still_loads() {
    let config = loaded(&render(&args(Path::new("/x"), &[]), &keys(1), None, None));
    assert!(config.network.unwrap().peers.is_empty() && config.rpc.is_empty());
    assert!(matches!(config.keys.unwrap().bls, BlsKey::Keystore { password_file: None, .. }));
}

#[test]
fn a_node_is_made_once_with_private_files_and_keys_that_stay() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("node");
    let password = root.path().join("password");
    file::create_private(&password, b"correct horse\n").unwrap();
    let run = || {
        let mut out = Vec::new();
        let args = args(&dir, &["--password-file", password.to_str().unwrap()]);
        init(args, &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    let printed = run().unwrap();
    let validator: crate::genesis::GenesisValidator = serde_json::from_str(&printed).unwrap();
    switchyard_consensus_core::keys::verify_possession(&validator.seat, &validator.possession).unwrap();
    for (name, mode) in [("", 0o700), ("keys", 0o700), (IDENTITY, 0o600), (BLS, 0o600), ("node.toml", 0o600)] {
        let found = std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    let config = Config::load(&dir.join("node.toml")).unwrap();
    assert_eq!(NodeKeys::load(config.validator_keys().unwrap()).unwrap().genesis_validator().unwrap(), validator);

    assert!(matches!(run(), Err(OperateError::Key(KeyError::Exists { .. }))));
    std::fs::remove_file(dir.join("node.toml")).unwrap();
    assert_eq!(run().unwrap(), printed, "the keys were made anew");
}

#[test]
fn a_followers_configuration_has_sources_and_no_keys() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("node");
    let source = "http://192.0.2.9:7200";
    let mut out = Vec::new();
    init(args(&dir, &["--follower", "--source", source]), &mut out).unwrap();
    let config = Config::load(&dir.join("node.toml")).unwrap();
    assert_eq!((config.role, config.sync.sources), (Role::Follower, vec![source.to_owned()]));
    assert!(config.keys.is_none() && config.network.is_none() && !dir.join("keys").exists());
    assert!(matches!(init(args(&dir, &["--follower", "--source", source]), &mut out), Err(OperateError::Key(_))));
}
