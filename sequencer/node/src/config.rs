//! One typed configuration a process, a TOML file whose unknown keys are refused.

mod keys;

pub(crate) use keys::KeyFiles;
pub use keys::{BlsKey, Keys, OperatorKey, RemoteKey};

use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};
use switchyard_consensus_network::Transport;
use switchyard_primitives::{B256, NEWEST_PROTOCOL, RollupId};

/// A node's configuration. Relative paths are relative to the file's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network's genesis file.
    pub genesis: PathBuf,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What the node is.
    #[serde(default)]
    pub role: Role,
    /// The validator's keys: `[keys]`, which a validator has and a follower has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// What this node's operator signs rollups' checkpoints with: `[operator]`, on a validator that is an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorKey>,
    /// The validators' network: `[network]`, which a validator has and a follower has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Where final blocks are copied from.
    #[serde(default, skip_serializing_if = "Sync::is_default")]
    pub sync: Sync,
    /// Pace of consensus.
    #[serde(default)]
    pub consensus: Consensus,
    /// gRPC.
    pub grpc: Listen,
    /// Prometheus metrics and health over HTTP.
    pub metrics: Listen,
    /// One Ethereum JSON-RPC server (HTTP and WebSocket on one port) for each EVM rollup to serve.
    #[serde(default)]
    pub rpc: Vec<RollupRpc>,
    /// Carries messages between the rollups that run here: `[relayer]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relayer: Option<Relayer>,
    /// The mempool's bounds.
    #[serde(default)]
    pub mempool: Mempool,
    /// What the store keeps.
    #[serde(default)]
    pub store: Store,
    /// The newest protocol version that is followed; not in the file, but an argument of `switchyard run`.
    #[serde(skip, default = "newest_protocol")]
    pub newest_protocol: u8,
}

fn newest_protocol() -> u8 {
    NEWEST_PROTOCOL
}

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Holds seats and votes.
    #[default]
    Validator,
    /// Holds no seat: checks every certificate and serves the same interfaces.
    Follower,
}

/// Where final blocks are copied from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sync {
    /// gRPC endpoints of other nodes, `http://HOST:PORT`: at most 16. None of them is trusted.
    pub sources: Vec<String>,
    /// The first block of a new log, which the operator trusts; absent: the log begins with genesis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

impl Sync {
    /// Most sources: each one is asked for proofs all the time.
    pub const SOURCES_MAX: usize = 16;

    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self, role: Role) -> Result<(), String> {
        if self.sources.len() > Self::SOURCES_MAX {
            return Err(format!("[sync] has {} sources, at most {} are asked", self.sources.len(), Self::SOURCES_MAX));
        }
        for source in &self.sources {
            let uri = source.parse::<tonic::codegen::http::Uri>().ok();
            let usable = uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
            if !usable {
                return Err(format!("[sync] source {source:?} is no gRPC endpoint, http://HOST:PORT"));
            }
        }
        let distinct: std::collections::HashSet<_> = self.sources.iter().collect();
        if distinct.len() != self.sources.len() {
            return Err("[sync] names a source twice".into());
        }
        match role {
            Role::Follower if self.sources.is_empty() => Err("a follower needs [sync] sources".into()),
            Role::Validator if self.checkpoint.is_some() && self.sources.is_empty() => {
                Err("a checkpoint needs [sync] sources, which hold its block".into())
            }
            _ => Ok(()),
        }
    }
}

/// A block that the operator trusts, `HEIGHT:HASH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its height, never 0.
    pub height: u64,
    /// Its hash.
    pub hash: B256,
}

impl std::fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.height, self.hash)
    }
}

impl std::str::FromStr for Checkpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "a checkpoint is HEIGHT:HASH, with a height above 0 and a hash of 32 bytes in hex";
        let (height, hash) = text.split_once(':').ok_or(SHAPE)?;
        match (height.parse(), hash.parse()) {
            (Ok(height), Ok(hash)) if height > 0 => Ok(Self { height, hash }),
            _ => Err(SHAPE),
        }
    }
}

impl Serialize for Checkpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Checkpoint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The validators' network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What carries messages: the same on all validators of a network.
    #[serde(default)]
    pub transport: Transport,
    /// From so many validators on, this one's transactions go to the others by gossip, over libp2p; before, to each of them
    /// directly. Each validator's own choice.
    #[serde(default = "Network::gossip_from")]
    pub gossip_from: usize,
    /// Where the other validators listen, as far as the log does not say so.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Whether this node may run with an identity that is not in the stake table yet: a validator that is about to join.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joining: bool,
}

impl Network {
    /// Unless the configuration says otherwise: `docs/adr/0006-gossip-for-large-committees.md`.
    pub const GOSSIP_FROM: usize = 32;

    fn gossip_from() -> usize {
        Self::GOSSIP_FROM
    }
}

/// Another validator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its ed25519 key.
    pub identity: B256,
    /// Its address.
    pub address: SocketAddr,
}

/// Pace of consensus. All validators of a network should have the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Consensus {
    /// An idle hub makes a block this often.
    pub heartbeat_ms: u64,
    /// Least time from a block to the next.
    pub min_interval_ms: u64,
    /// How long a leader may take to propose before its view is skipped.
    pub leader_timeout_ms: u64,
    /// How long a view may take from its start to a certificate.
    pub certification_timeout_ms: u64,
    /// A leader from which nothing was heard for this long is skipped at once.
    pub skip_timeout_ms: u64,
    /// Whether to listen for some seconds at each start, without voting, for another process that signs with this key. This
    /// validator's own business.
    pub doppelganger_check: bool,
}

impl Default for Consensus {
    fn default() -> Self {
        Self {
            heartbeat_ms: 1000,
            min_interval_ms: 50,
            leader_timeout_ms: 1250,
            certification_timeout_ms: 1350,
            skip_timeout_ms: 1420,
            doppelganger_check: true,
        }
    }
}

/// A server's address; port 0 takes a free one, which `endpoints.json` in the data directory then names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Where to listen.
    pub listen: SocketAddr,
}

/// A rollup's JSON-RPC server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollupRpc {
    /// The rollup.
    pub rollup: RollupId,
    /// Where to listen.
    pub listen: SocketAddr,
}

/// The relayer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relayer {
    /// secp256k1: the account that pays for gas, the same on all rollups. 32 secret bytes in hex, mode 0600.
    pub key: PathBuf,
    /// A relayer waits 2 s for each rank below its own.
    #[serde(default)]
    pub rank: u32,
}

/// The mempool's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mempool {
    /// Bytes over all rollups.
    pub bytes: usize,
    /// Transactions over all rollups.
    pub transactions: usize,
    /// Bytes of one rollup.
    pub rollup_bytes: usize,
    /// Transactions of one rollup.
    pub rollup_transactions: usize,
    /// Transactions of one sender.
    pub sender_transactions: usize,
    /// Seconds after which a transaction that cannot be included is dropped.
    pub ttl_seconds: u64,
}

impl Default for Mempool {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            transactions: 100_000,
            rollup_bytes: 32 << 20,
            rollup_transactions: 50_000,
            sender_transactions: 1024,
            ttl_seconds: 3600,
        }
    }
}

/// What the store keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Keep the segments of this many of the newest blocks; absent: all (an archive). Never less than the network's
    /// replay window, nor than a local rollup still needs.
    pub keep_blocks: Option<u64>,
}

/// What a running node writes to `endpoints.json` in its data directory once every server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The process.
    pub pid: u32,
    /// gRPC, `http://HOST:PORT`.
    pub grpc: String,
    /// Metrics and health, `http://HOST:PORT`.
    pub metrics: String,
    /// One entry for each EVM rollup served.
    pub rollups: Vec<RollupEndpoint>,
}

/// Where a rollup's JSON-RPC is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollupEndpoint {
    /// The rollup's name.
    pub name: String,
    /// The rollup's id.
    pub rollup: RollupId,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// `http://HOST:PORT`.
    pub http: String,
    /// `ws://HOST:PORT`.
    pub ws: String,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read config {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("config {path}, line {line}: {problem}")]
    Parse {
        /// The file.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there, in one line.
        problem: String,
    },
    /// A follower holds no keys.
    #[error("this is a follower's configuration: it has no keys and signs nothing")]
    Follower,
    /// What the role needs is missing, or what it has no use for is there.
    #[error("config {path}: {problem}")]
    Role {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// What is said of the BLS key does not fit together.
    #[error("config {path}: {problem}")]
    Key {
        /// The file.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// With these values an idle hub would make no blocks: every leader would be skipped while it waits.
    #[error(
        "config {path}: [consensus] must have min_interval_ms {min_interval_ms} <= heartbeat_ms {heartbeat_ms} < \
         leader_timeout_ms {leader_timeout_ms}"
    )]
    Pace {
        /// The file.
        path: String,
        /// [`Consensus::min_interval_ms`].
        min_interval_ms: u64,
        /// [`Consensus::heartbeat_ms`].
        heartbeat_ms: u64,
        /// [`Consensus::leader_timeout_ms`].
        leader_timeout_ms: u64,
    },
}

/// Reads a configuration of any kind; errors name the file and the line.
pub(crate) fn parse_toml<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| parse_error(path.display().to_string(), text, &error))
}

fn parse_error(path: String, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.as_bytes().get(..span.start)).unwrap_or_default();
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    ConfigError::Parse { path, line, problem: error.message().replace('\n', " ") }
}

impl Config {
    /// The record of what this validator has signed. Not in a folder of its own, so that nobody removes or restores it with
    /// one.
    pub fn sign_record(&self) -> PathBuf {
        self.data_dir.join("sign-record")
    }

    /// The record of what `[keys.next]` has signed.
    pub fn next_sign_record(&self) -> PathBuf {
        self.data_dir.join("sign-record-next")
    }

    /// The record of what the operator's key has signed.
    pub fn operator_sign_record(&self) -> PathBuf {
        self.data_dir.join("sign-record-operator")
    }

    /// Where what speaks against operators is kept.
    pub fn evidence_dir(&self) -> PathBuf {
        self.data_dir.join("evidence")
    }

    /// The engine's folder.
    pub fn consensus_dir(&self) -> PathBuf {
        self.data_dir.join("consensus")
    }

    fn check_role(&self) -> Result<(), String> {
        let (keys, network) = (self.keys.is_some(), self.network.is_some());
        match self.role {
            Role::Validator if !keys => Err("a validator needs [keys]; or set role = \"follower\"".into()),
            Role::Validator if !network => Err("a validator needs [network]; or set role = \"follower\"".into()),
            Role::Follower if keys => Err("a follower has no seat and no [keys]: remove the table".into()),
            Role::Follower if self.operator.is_some() => {
                Err("a follower attests nothing: remove [operator], or run a validator".into())
            }
            Role::Follower if network => Err("a follower is not on the validators' network: remove [network]".into()),
            role => self.sync.check(role),
        }
    }

    /// The folder of a rollup's state.
    pub fn rollup_state(&self, rollup: RollupId) -> PathBuf {
        self.data_dir.join("rollups").join(rollup.to_string())
    }

    /// The validator's keys; an error for a follower, which has none.
    pub fn validator_keys(&self) -> Result<&Keys, ConfigError> {
        self.keys.as_ref().ok_or(ConfigError::Follower)
    }

    /// Reads and checks a file, and makes its paths absolute.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |source| ConfigError::Read { path: path.display().to_string(), source };
        Self::parse(path, &std::fs::read_to_string(path).map_err(read_error)?)
    }

    /// [`Self::load`] of a file whose text this is.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let mut config: Self = parse_toml(path, text)?;
        let Consensus { min_interval_ms, heartbeat_ms, leader_timeout_ms, .. } = config.consensus;
        if min_interval_ms > heartbeat_ms || heartbeat_ms >= leader_timeout_ms {
            return Err(ConfigError::Pace { path: name, min_interval_ms, heartbeat_ms, leader_timeout_ms });
        }
        config.check_role().map_err(|problem| ConfigError::Role { path: name.clone(), problem })?;
        if let Some(BlsKey::Remote(signer)) = config.keys.as_ref().map(|keys| &keys.bls) {
            signer.check(leader_timeout_ms).map_err(|problem| ConfigError::Key { path: name, problem })?;
        }
        let base = path.parent().unwrap_or(Path::new("."));
        let keys = config.keys.iter_mut().flat_map(Keys::paths);
        let operator = config.operator.iter_mut().flat_map(OperatorKey::paths);
        let relayer = config.relayer.iter_mut().map(|relayer| &mut relayer.key);
        for p in [&mut config.genesis, &mut config.data_dir].into_iter().chain(keys).chain(operator).chain(relayer) {
            *p = base.join(&*p);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
