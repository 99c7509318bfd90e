//! Validators join, move, change keys and leave while the network runs, by the program's own commands.

use serde_json::{Value, json};
use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};
use switchyard_consensus_core::keys::{bls_public_key, bls_secret_from_entropy};
use switchyard_node::{
    config::{BlsKey, Endpoints},
    genesis::GenesisEpochs,
};
use switchyard_primitives::B256;
use switchyard_testnet_kit::{agree_on_hub, caught_up};
use switchyard_testnet_local::{Client, Options, Testnet};

const SECONDS_60: Duration = Duration::from_secs(60);
const JOINER: usize = 4;

/// Runs a command to its end; its standard output.
pub(crate) fn run(testnet: &Testnet, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(testnet.program()).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "switchyard {args:?}: {status} {stderr}");
    String::from_utf8(stdout).unwrap()
}

/// Runs a command that must be refused; what it says.
pub(crate) fn refused(testnet: &Testnet, args: &[&str]) -> String {
    let Output { status, stderr, .. } = Command::new(testnet.program()).args(args).output().unwrap();
    assert!(!status.success(), "switchyard {args:?}");
    String::from_utf8(stderr).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A temporary folder.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

pub(crate) fn config(testnet: &Testnet, index: usize) -> PathBuf {
    testnet.dir().validator(index).config
}

/// What `keys show` prints.
fn shown(testnet: &Testnet, index: usize) -> Value {
    let config = config(testnet, index);
    serde_json::from_str(&run(testnet, &["keys", "show", "--config", text(&config)])).unwrap()
}

fn stakes(testnet: &Testnet, node: &Endpoints) -> Value {
    serde_json::from_str(&run(testnet, &["stake", "show", "--json", "--grpc", &node.grpc])).unwrap()
}

fn validator(table: &Value, identity: B256) -> Value {
    let validators = table["validators"].as_array().unwrap();
    validators.iter().find(|v| v["identity"] == json!(identity)).cloned().unwrap_or(Value::Null)
}

/// Waits until the stake table is as asked.
async fn until(testnet: &Testnet, node: &Endpoints, mut condition: impl FnMut(&Value) -> bool) -> Value {
    let reached = async {
        loop {
            let table = stakes(testnet, node);
            if condition(&table) {
                return table;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SECONDS_60, reached).await.expect("the stake table changes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_joins_moves_and_leaves_while_the_network_runs() {
    let files = Files::new();
    let client = Client::new();
    let mut options = Options { validators: 5, joining: 1, ..Options::default() };
    options.epochs = GenesisEpochs { blocks: 30, ..GenesisEpochs::default() };
    options.consensus.heartbeat_ms = 100;
    let mut testnet = Testnet::create(&files.path().join("net"), options).unwrap();
    let mut nodes = Vec::new();
    for index in 0..=JOINER {
        testnet.start(index).unwrap();
    }
    for index in 0..JOINER {
        nodes.push(testnet.ready(index).await.unwrap());
    }
    let node = nodes[0].clone();

    // It joins: one operator proposes, three of four sign, anyone sends.
    let joiner: Value = shown(&testnet, JOINER);
    let identity: B256 = joiner["identity"].as_str().unwrap().parse().unwrap();
    let address = testnet.dir().config(JOINER).unwrap().network.unwrap().listen;
    let mut entry = joiner.clone();
    entry["address"] = json!(address);
    let changes = files.write("changes.json", &json!([entry]).to_string());
    let proposal = run(&testnet, &["stake", "propose", "--grpc", &node.grpc, "--changes", text(&changes)]);
    let proposal = files.write("proposal.json", &proposal);
    let parts: Vec<PathBuf> = (0..3)
        .map(|i| {
            let config = config(&testnet, i);
            let part = run(&testnet, &["stake", "sign", "--config", text(&config), "--proposal", text(&proposal)]);
            files.write(&format!("part-{i}.json"), &part)
        })
        .collect();
    let submit = |parts: &[PathBuf]| {
        let mut args = vec!["stake", "submit", "--grpc", &node.grpc, "--proposal", text(&proposal)];
        for part in parts {
            args.extend(["--part", text(part)]);
        }
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let as_words = |words: &[String]| words.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let few = submit(&parts[..2]);
    let said = refused(&testnet, &as_words(&few).split('\n').collect::<Vec<_>>());
    assert!(said.contains("2 seats, 3 are needed"), "{said}");
    let all = submit(&parts);
    run(&testnet, &as_words(&all).split('\n').collect::<Vec<_>>());
    let table = stakes(&testnet, &node);
    assert_eq!((validator(&table, identity)["seats"].clone(), table["changes"].clone()), (json!(0), json!(1)));
    let table = until(&testnet, &node, |table| validator(table, identity)["seats"] == 1).await;
    let joined_in = table["epoch"].as_u64().unwrap();
    nodes.push(testnet.ready(JOINER).await.unwrap());

    // With five seats a quorum is four: the network needs the new one when another is away.
    testnet.kill(0).unwrap();
    let tip = client.status(&nodes[1].grpc).await.unwrap().tip.unwrap().height;
    caught_up(&client, &nodes[1].grpc, tip + 20, SECONDS_60).await.unwrap();
    caught_up(&client, &nodes[JOINER].grpc, tip + 20, SECONDS_60).await.unwrap();

    // It comes back at another address, which it has announced.
    let node = nodes[1].clone();
    let moved: Value = shown(&testnet, 0);
    let moved: B256 = moved["identity"].as_str().unwrap().parse().unwrap();
    let mut changed = testnet.dir().config(0).unwrap();
    changed.network.as_mut().unwrap().listen.set_ip([127, 0, 0, 2].into());
    let new_address = changed.network.as_ref().unwrap().listen;
    // And with a new key to change to.
    let next = testnet.dir().validator(0).dir.join("next.key");
    let secret = bls_secret_from_entropy(&[7; 32]).unwrap();
    std::fs::write(&next, alloy::hex::encode(secret)).unwrap();
    std::fs::set_permissions(&next, Permissions::from_mode(0o600)).unwrap();
    changed.keys.as_mut().unwrap().next = Some(BlsKey::Plain(next));
    testnet.dir().write_config(0, &changed).unwrap();
    let update = ["stake", "update", "--grpc", &node.grpc, "--config"];
    let own = config(&testnet, 0);
    let mut args = update.to_vec();
    let new_text = new_address.to_string();
    args.extend([text(&own), "address", &new_text]);
    run(&testnet, &args);
    assert_eq!(validator(&stakes(&testnet, &node), moved)["address"], json!(new_address));
    testnet.start(0).unwrap();
    let back = testnet.ready(0).await.unwrap();
    let tip = client.status(&node.grpc).await.unwrap().tip.unwrap().height;
    caught_up(&client, &back.grpc, tip, SECONDS_60).await.unwrap();

    let mut args = update.to_vec();
    args.extend([text(&own), "keys"]);
    run(&testnet, &args);
    let new_key = json!(bls_public_key(&secret).unwrap());
    assert_eq!(validator(&stakes(&testnet, &node), moved)["bls"], new_key);
    let changes_at = stakes(&testnet, &node)["epoch"].as_u64().unwrap() + 2;

    // One of the first leaves; the others go on without it.
    let leaver: Value = shown(&testnet, 2);
    let leaver: B256 = leaver["identity"].as_str().unwrap().parse().unwrap();
    let own = config(&testnet, 2);
    let mut args = update.to_vec();
    args.extend([text(&own), "leave"]);
    run(&testnet, &args);
    until(&testnet, &node, |table| validator(table, leaver)["seats"] == 0).await;
    // Of the four that are left three are a quorum, and one of them votes with its new key.
    until(&testnet, &node, |table| table["epoch"].as_u64().unwrap() >= changes_at).await;
    testnet.kill(2).unwrap();
    testnet.kill(3).unwrap();
    let tip = client.status(&node.grpc).await.unwrap().tip.unwrap().height;
    caught_up(&client, &node.grpc, tip + 20, SECONDS_60).await.unwrap();

    // Everyone who is left has the same log, and a light client follows the seats from the genesis on.
    let left = [back, nodes[1].clone(), nodes[JOINER].clone()];
    let height = client.status(&node.grpc).await.unwrap().tip.unwrap().height;
    for node in &left {
        caught_up(&client, &node.grpc, height, SECONDS_60).await.unwrap();
    }
    agree_on_hub(&client, &left, height).await.unwrap();
    let genesis = testnet.dir().genesis_path();
    let (height, grpc) = (height.to_string(), &left[2].grpc);
    let verify = ["verify", "--grpc", grpc, "--genesis", text(&genesis), "--rollup", "3", "--json"];
    let mut args = verify.to_vec();
    args.extend(["--from", "1", "--to", &height]);
    let proven: Value = serde_json::from_str(&run(&testnet, &args)).unwrap();
    assert_eq!(proven["to"].to_string(), height, "{proven}");
    let mut args = verify.to_vec();
    args.extend(["--height", &height]);
    run(&testnet, &args);
    assert!(stakes(&testnet, &left[0])["epoch"].as_u64().unwrap() > joined_in + 2);
}
