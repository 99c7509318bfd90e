//! The folder of a network with one validator, and the real program over it.

use alloy_primitives::{B256, hex};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};
use switchyard_consensus_core::{Seat, keys::prove_possession};
use switchyard_node::{
    config::Endpoints,
    genesis::{Genesis, GenesisEpochs, GenesisLimits, GenesisValidator},
    keys::NodeKeys,
};
use switchyard_primitives::RollupId;
use switchyard_proto::v1::{GetInfoRequest, block_service_client::BlockServiceClient};
use switchyard_rollup_core::{RollupManifest, Sealing, Vm};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Far more than anything takes, for machines with much else to do.
const TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
/// How long a node may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The program with these arguments.
pub(crate) fn switchyard(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchyard"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).env("SWITCHYARD_LOG", "warn");
    command
}

/// Runs the program to its end.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    tokio::time::timeout(TIMEOUT, switchyard(arguments).output()).await.expect("no end").unwrap()
}

/// The one line of an end with code 2: what the operator must mend.
pub(crate) fn refusal(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!((text.lines().count(), output.stdout.len()), (1, 0), "{text}");
    text
}

pub(crate) fn validator_keys(byte: u8) -> NodeKeys {
    NodeKeys { identity: [byte; 32], bls: [byte; 32] }
}

pub(crate) fn genesis_validator(keys: &NodeKeys) -> GenesisValidator {
    let seat = Seat { identity: keys.identity_public(), bls: keys.bls_public().unwrap() };
    let possession = prove_possession(&keys.bls, seat.identity).unwrap();
    GenesisValidator::new(seat, possession)
}

fn evm_genesis() -> Value {
    json!({
        "config": {
            "chainId": 71001, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
            "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0,
            "muirGlacierBlock": 0, "berlinBlock": 0, "londonBlock": 0, "arrowGlacierBlock": 0, "grayGlacierBlock": 0,
            "mergeNetsplitBlock": 0, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0,
            "terminalTotalDifficulty": 0, "terminalTotalDifficultyPassed": true,
        },
        "nonce": "0x0", "timestamp": "0x65000000", "extraData": "0x", "gasLimit": "0x3938700", "difficulty": "0x0",
        "mixHash": B256::ZERO, "coinbase": "0x0000000000000000000000000000000000000000", "alloc": {},
        "number": "0x0", "gasUsed": "0x0", "parentHash": B256::ZERO, "baseFeePerGas": "0x3b9aca00",
        "excessBlobGas": "0x0", "blobGasUsed": "0x0",
    })
}

/// The id of the network's EVM rollup.
pub(crate) const EVM: u64 = 1;
/// The id of the network's opaque rollup, as an argument.
pub(crate) const OPAQUE: &str = "7";

/// A validator's folder: configuration, genesis, keys, data.
pub(crate) struct Folder {
    dir: TempDir,
}

impl Folder {
    /// The only validator of a network.
    pub(crate) fn new() -> Self {
        let folder = Self { dir: tempfile::tempdir().unwrap() };
        let keys = validator_keys(1);
        let rollup =
            |id, name: &str, vm| RollupManifest { id: RollupId(id), name: name.into(), vm, sealing: Sealing::HubBlock };
        folder.write_genesis(&Genesis {
            protocol: 1,
            name: "one".into(),
            timestamp_ms: 1_700_000_000_000,
            validators: vec![genesis_validator(&keys)],
            rollups: vec![rollup(EVM, "evm", Vm::Evm { genesis: evm_genesis() }), rollup(7, "opaque", Vm::Opaque)],
            operators: Vec::new(),
            limits: GenesisLimits::default(),
            epochs: GenesisEpochs::default(),
            replay_window_blocks: 100,
        });
        folder.write_keys(&keys);
        folder.write_config(&folder.config_text());
        folder
    }

    /// A configuration with free ports.
    pub(crate) fn config_text(&self) -> String {
        let listen = "listen = \"127.0.0.1:0\"";
        format!(
            "genesis = \"genesis.json\"\ndata_dir = \"data\"\n\
             [keys]\nidentity = \"identity.key\"\nbls = \"bls.key\"\n\
             [network]\n{listen}\npeers = []\n\
             [consensus]\nheartbeat_ms = 100\nmin_interval_ms = 10\n\
             [grpc]\n{listen}\n[metrics]\n{listen}\n[[rpc]]\nrollup = {EVM}\n{listen}\n"
        )
    }

    /// Makes the folder of a follower of this network inside this one; `more` goes into its `[sync]` table.
    pub(crate) fn follower(&self, name: &str, sources: &[&str], more: &str) -> PathBuf {
        let listen = "listen = \"127.0.0.1:0\"";
        let sources = serde_json::to_string(sources).unwrap();
        let text = format!(
            "role = \"follower\"\ngenesis = \"../genesis.json\"\ndata_dir = \"data\"\n\
             [sync]\nsources = {sources}\n{more}\n[consensus]\nheartbeat_ms = 100\nmin_interval_ms = 10\n\
             [grpc]\n{listen}\n[metrics]\n{listen}\n[[rpc]]\nrollup = {EVM}\n{listen}\n"
        );
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("node.toml"), text).unwrap();
        dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> String {
        self.path("node.toml").to_str().unwrap().to_owned()
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn genesis(&self) -> Genesis {
        serde_json::from_slice(&fs::read(self.path("genesis.json")).unwrap()).unwrap()
    }

    pub(crate) fn write_genesis(&self, genesis: &Genesis) {
        fs::write(self.path("genesis.json"), serde_json::to_vec(genesis).unwrap()).unwrap();
    }

    pub(crate) fn write_keys(&self, keys: &NodeKeys) {
        for (name, secret) in [("identity.key", keys.identity), ("bls.key", keys.bls)] {
            fs::write(self.path(name), hex::encode(secret)).unwrap();
            set_mode(&self.path(name), 0o600);
        }
    }

    /// Starts a node that does not come up; returns its line.
    pub(crate) async fn refused(&self) -> String {
        refusal(&run(&["run", "--config", &self.config()]).await)
    }

    /// Starts the node and waits until it answers. What a killed one has left must not be taken for its answer.
    pub(crate) async fn start(&self) -> Process {
        self.start_at(self.dir.path()).await
    }

    /// The same for the node of another folder.
    pub(crate) async fn start_at(&self, dir: &Path) -> Process {
        let stale = endpoints_in(dir).map(|endpoints| endpoints.pid);
        let log = fs::File::create(self.path("node.log")).unwrap();
        let config = dir.join("node.toml");
        let mut child = switchyard(&["run", "--config", config.to_str().unwrap()]).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let ended = child.try_wait().unwrap();
            let log = || fs::read_to_string(self.path("node.log")).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}\n{}", log());
            if let Some(endpoints) = endpoints_in(dir).filter(|endpoints| Some(endpoints.pid) != stale) {
                assert_eq!(Some(endpoints.pid), child.id(), "another process's endpoints");
                return Process { child, endpoints };
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Where a running node answers.
    pub(crate) fn endpoints(&self) -> Option<Endpoints> {
        endpoints_in(self.dir.path())
    }
}

fn endpoints_in(dir: &Path) -> Option<Endpoints> {
    let text = fs::read(dir.join("data/endpoints.json")).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A running node. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    pub(crate) endpoints: Endpoints,
}

impl Process {
    /// SIGTERM; the node must end well and in time.
    pub(crate) async fn stop(mut self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await;
        let status = ended.expect("still runs").unwrap();
        assert!(status.success(), "{status}");
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Submits to the opaque rollup, waits for finality, and returns the last line.
    pub(crate) async fn submit(&self, hex: &str) -> String {
        let grpc = &self.endpoints.grpc;
        let output =
            run(&["submit", "--grpc", grpc, "--rollup", OPAQUE, "--hex", hex, "--wait", "final", "--json"]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text.lines().last().unwrap().to_owned()
    }

    /// What the node says of a transaction of the opaque rollup.
    pub(crate) async fn status(&self, hash: &str) -> Value {
        let output = run(&["status", "--grpc", &self.endpoints.grpc, "--rollup", OPAQUE, "--json", hash]).await;
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until the durable tip is at least so high.
    pub(crate) async fn reaches(&self, height: u64) {
        let reached = async {
            while self.height().await < height {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(TIMEOUT, reached).await.expect("what was final stays final");
    }

    /// Height of the durable tip.
    pub(crate) async fn height(&self) -> u64 {
        let mut client = BlockServiceClient::connect(self.endpoints.grpc.clone()).await.unwrap();
        let info = client.get_info(GetInfoRequest { include_manifests: false }).await.unwrap().into_inner();
        info.tip.unwrap().height
    }
}
