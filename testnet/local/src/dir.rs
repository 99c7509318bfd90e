//! The folder of a local network: what is where, and what it must hold to be started again.

use crate::{Error, accounts::ACCOUNTS, rollups::default_rollups};
use alloy_primitives::{FixedBytes, hex};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use switchyard_bridge_core::BRIDGE_FROM;
use switchyard_consensus_core::{Seat, keys};
use switchyard_consensus_network::{Transport, identity as public_identity};
use switchyard_node::{
    config::{
        BlsKey, Config, Consensus, Endpoints, Keys, Listen, Mempool, Network, OperatorKey, Peer, Relayer, Role,
        RollupRpc, Store, Sync,
    },
    genesis::{Genesis, GenesisEpochs, GenesisLimits, GenesisOperator, GenesisValidator},
};
use switchyard_primitives::NEWEST_PROTOCOL;
use switchyard_rollup_core::{RollupManifest, Sealing, Vm};

/// Most validators of a local network.
pub const VALIDATORS_MAX: usize = 64;

/// Marks a folder that holds a whole network.
const MARKER: &str = "testnet.json";

/// Where a new network's servers listen, all on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The validators' network on ports that were free and stay reserved; every other server on a free port, which the
    /// node names in its `endpoints.json`.
    Free,
    /// Fixed ports upwards from this one.
    From(u16),
}

/// What a new network is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of validators: 1 to 64.
    pub validators: usize,
    /// How many of them, the last ones, are not in the genesis: they are about to join.
    pub joining: usize,
    /// Where they listen.
    pub ports: Ports,
    /// The rollups; none stands for [`default_rollups`] with `sealing`.
    pub rollups: Option<Vec<RollupManifest>>,
    /// When the default EVM rollups' blocks are closed.
    pub sealing: Sealing,
    /// Block limits.
    pub limits: GenesisLimits,
    /// The protocol version that the network begins with.
    pub protocol: u8,
    /// How the log is cut into epochs.
    pub epochs: GenesisEpochs,
    /// Blocks within which a transaction may not be in the log twice.
    pub replay_window_blocks: u64,
    /// Pace of consensus.
    pub consensus: Consensus,
    /// The mempools' bounds.
    pub mempool: Mempool,
    /// What the stores keep.
    pub store: Store,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            validators: 4,
            joining: 0,
            ports: Ports::Free,
            rollups: None,
            sealing: Sealing::default(),
            limits: GenesisLimits::default(),
            protocol: NEWEST_PROTOCOL,
            epochs: GenesisEpochs::default(),
            replay_window_blocks: 8192,
            consensus: Consensus::default(),
            mempool: Mempool::default(),
            store: Store::default(),
        }
    }
}

/// What the file [`MARKER`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    validators: usize,
    /// None where the servers take free ports.
    base_port: Option<u16>,
}

/// The files of one validator.
#[derive(Clone, Debug)]
pub struct ValidatorFiles {
    /// Its folder.
    pub dir: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// What it prints.
    pub log: PathBuf,
    /// Its process, while it runs.
    pub pid: PathBuf,
    /// Written by the node once every server answers.
    pub endpoints: PathBuf,
}

/// A folder that holds a network.
#[derive(Clone, Debug)]
pub struct NetworkDir {
    root: PathBuf,
    marker: Marker,
}

impl NetworkDir {
    /// Opens the network in `root`, which must have one.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let marker = root.join(MARKER);
        if !marker.exists() {
            return Err(Error::NoNetwork { dir: root.to_path_buf() });
        }
        let root = root.canonicalize().map_err(Error::file("open", root))?;
        let text = fs::read(&marker).map_err(Error::file("read", &marker))?;
        let parsed =
            serde_json::from_slice(&text).map_err(|e| Error::Format { path: marker.clone(), detail: e.to_string() })?;
        Ok(Self { root, marker: parsed })
    }

    /// Makes a network in `root`. The marker comes last: a folder without it is made anew. `p2p_ports` are the ports of
    /// the validators' network with [`Ports::Free`].
    pub(crate) fn create(root: &Path, options: &Options, p2p_ports: &[u16]) -> Result<Self, Error> {
        if options.validators == 0 || options.validators > VALIDATORS_MAX {
            return Err(Error::Size(options.validators));
        }
        if root.join(MARKER).exists() {
            return Err(Error::Exists { dir: root.to_path_buf() });
        }
        fs::create_dir_all(root).map_err(Error::file("create", root))?;
        let root = root.canonicalize().map_err(Error::file("open", root))?;
        let base_port = match options.ports {
            Ports::Free => None,
            Ports::From(base) => Some(base),
        };
        let dir = Self { root, marker: Marker { validators: options.validators, base_port } };
        let rollups = options.rollups.clone();
        let (mut validators, mut operators) = (Vec::with_capacity(options.validators), Vec::new());
        for index in 0..options.validators {
            let files = dir.validator(index);
            fs::create_dir_all(&files.dir).map_err(Error::file("create", &files.dir))?;
            let (validator, operator) = write_keys(&files.dir)?;
            if relays(index) {
                // The last of the accounts that everyone knows.
                secret(&files.dir.join("relayer.key"), || Ok(ACCOUNTS[9 - index].private_key.0))?;
            }
            validators.push(validator);
            operators.push(operator);
        }
        validators.truncate(options.validators.saturating_sub(options.joining));
        let now_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        let rollups = rollups.unwrap_or_else(|| default_rollups(now_ms / 1000, options.sealing));
        let genesis = Genesis {
            name: "local".into(),
            timestamp_ms: now_ms,
            protocol: options.protocol,
            operators: founders(&validators, &operators, &rollups, options.protocol),
            validators,
            rollups,
            limits: options.limits,
            epochs: options.epochs,
            replay_window_blocks: options.replay_window_blocks,
        };
        let json = serde_json::to_vec_pretty(&genesis).map_err(|e| Error::Genesis(e.to_string()))?;
        write(&dir.genesis_path(), &json, 0o644)?;
        dir.write_configs(&genesis, options, p2p_ports)?;
        dir.write_marker()?;
        Ok(dir)
    }

    /// Moves all servers to ports from `base`. Refused with 0: the validators' network has no free ports to name.
    pub fn move_to(&mut self, base: u16) -> Result<(), Error> {
        if base == 0 {
            return Err(Error::PortRange { base, needed: 1 });
        }
        let genesis = self.genesis()?;
        let mut configs = Vec::with_capacity(self.validators());
        for index in 0..self.validators() {
            let mut config = self.config(index)?;
            PortPlan { base, rollups: config.rpc.len() }.apply(index, &genesis, &mut config)?;
            configs.push(config);
        }
        for (index, config) in configs.iter().enumerate() {
            self.write_config(index, config)?;
        }
        self.marker.base_port = Some(base);
        self.write_marker()
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Number of validators.
    pub fn validators(&self) -> usize {
        self.marker.validators
    }

    /// The fixed ports' base; none where free ports are taken.
    pub fn base_port(&self) -> Option<u16> {
        self.marker.base_port
    }

    /// The network's genesis file.
    pub fn genesis_path(&self) -> PathBuf {
        self.root.join("genesis.json")
    }

    /// Reads and checks the genesis.
    pub fn genesis(&self) -> Result<Genesis, Error> {
        let path = self.genesis_path();
        Genesis::load(&path).map_err(|e| Error::Format { path, detail: e.to_string() })
    }

    /// Where the files of a validator are.
    pub fn validator(&self, index: usize) -> ValidatorFiles {
        let dir = self.root.join(format!("validator-{index}"));
        ValidatorFiles {
            config: dir.join("config.toml"),
            log: dir.join("node.log"),
            pid: dir.join("pid"),
            endpoints: dir.join("data/endpoints.json"),
            dir,
        }
    }

    /// A validator's configuration, paths as in the file.
    pub fn config(&self, index: usize) -> Result<Config, Error> {
        let path = self.validator(index).config;
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        toml::from_str(&text).map_err(|e| Error::Format { path, detail: e.to_string() })
    }

    /// Replaces a validator's configuration; it holds from the validator's next start.
    pub fn write_config(&self, index: usize, config: &Config) -> Result<(), Error> {
        let path = self.validator(index).config;
        let text = toml::to_string(config).map_err(|e| Error::Format { path: path.clone(), detail: e.to_string() })?;
        write(&path, text.as_bytes(), 0o644)
    }

    /// What the node has written; none before every server answers.
    pub fn endpoints(&self, index: usize) -> Result<Option<Endpoints>, Error> {
        let path = self.validator(index).endpoints;
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file("read", path)(e)),
        }
    }

    /// The fixed ports of the validators' network, which QUIC takes for UDP too.
    pub(crate) fn network_ports(&self) -> Result<Vec<u16>, Error> {
        let ports = (0..self.validators())
            .map(|index| Ok(self.config(index)?.network.map_or(0, |network| network.listen.port())));
        ports.filter(|port| !matches!(port, Ok(0))).collect()
    }

    /// Every fixed port with what it is for: `(port, server, validator)`. Empty where free ports are taken.
    pub fn fixed_ports(&self) -> Result<Vec<(u16, String, usize)>, Error> {
        let mut ports = Vec::new();
        for index in 0..self.validators() {
            let config = self.config(index)?;
            let network = config.network.map_or(0, |network| network.listen.port());
            ports.push((network, "the validators' network".to_string(), index));
            ports.push((config.grpc.listen.port(), "gRPC".to_string(), index));
            ports.push((config.metrics.listen.port(), "metrics".to_string(), index));
            ports.extend(
                config.rpc.iter().map(|r| (r.listen.port(), format!("JSON-RPC of rollup {}", r.rollup), index)),
            );
        }
        ports.retain(|(port, ..)| *port != 0);
        Ok(ports)
    }

    fn write_marker(&self) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(&self.marker).map_err(|e| Error::Genesis(e.to_string()))?;
        write(&self.root.join(MARKER), &json, 0o644)
    }

    fn write_configs(&self, genesis: &Genesis, options: &Options, p2p_ports: &[u16]) -> Result<(), Error> {
        let evm: Vec<_> = genesis.rollups.iter().filter(|r| matches!(r.vm, Vm::Evm { .. })).map(|r| r.id).collect();
        let p2p = |index: usize| local(p2p_ports.get(index).copied().unwrap_or(0));
        for index in 0..self.validators() {
            let others = genesis.validators.iter().enumerate().filter(|(other, _)| *other != index);
            let mut config = Config {
                genesis: "../genesis.json".into(),
                data_dir: "data".into(),
                role: Role::Validator,
                keys: Some(Keys { identity: "identity.key".into(), bls: BlsKey::Plain("bls.key".into()), next: None }),
                operator: Some(OperatorKey::plain("operator.key".into())),
                relayer: relays(index)
                    .then(|| Relayer { key: "relayer.key".into(), rank: u32::try_from(index).unwrap_or(0) }),
                network: Some(Network {
                    listen: p2p(index),
                    transport: Transport::default(),
                    gossip_from: Network::GOSSIP_FROM,
                    joining: index >= genesis.validators.len(),
                    peers: others.map(|(i, v)| Peer { identity: v.seat.identity, address: p2p(i) }).collect(),
                }),
                sync: Sync::default(),
                // These keys are nowhere else, and restarts are quick.
                consensus: Consensus { doppelganger_check: false, ..options.consensus },
                grpc: Listen { listen: local(0) },
                metrics: Listen { listen: local(0) },
                rpc: evm.iter().map(|rollup| RollupRpc { rollup: *rollup, listen: local(0) }).collect(),
                mempool: options.mempool,
                store: options.store,
                newest_protocol: NEWEST_PROTOCOL,
            };
            if let Some(base) = self.marker.base_port {
                PortPlan { base, rollups: evm.len() }.apply(index, genesis, &mut config)?;
            }
            self.write_config(index, &config)?;
        }
        Ok(())
    }
}

/// Fixed ports: of each validator its network, gRPC and metrics, then one for each EVM rollup, ten or more apart.
#[derive(Clone, Copy)]
struct PortPlan {
    base: u16,
    rollups: usize,
}

impl PortPlan {
    fn port(&self, index: usize, offset: usize) -> Result<u16, Error> {
        let stride = (3 + self.rollups).next_multiple_of(10);
        let above = index * stride + offset;
        u16::try_from(usize::from(self.base) + above)
            .map_err(|_| Error::PortRange { base: self.base, needed: above + 1 })
    }

    fn apply(&self, index: usize, genesis: &Genesis, config: &mut Config) -> Result<(), Error> {
        config.grpc.listen.set_port(self.port(index, 0)?);
        config.metrics.listen.set_port(self.port(index, 1)?);
        for (i, rpc) in config.rpc.iter_mut().enumerate() {
            rpc.listen.set_port(self.port(index, 3 + i)?);
        }
        let Some(network) = &mut config.network else { return Ok(()) };
        network.listen.set_port(self.port(index, 2)?);
        for peer in &mut network.peers {
            if let Some(at) = genesis.validators.iter().position(|v| v.seat.identity == peer.identity) {
                peer.address.set_port(self.port(at, 2)?);
            }
        }
        Ok(())
    }
}

/// Whether a validator relays messages: the second of the two takes over if the first one is gone.
fn relays(index: usize) -> bool {
    index < 2
}

/// Every validator is an operator of every EVM rollup, where the protocol has operators.
fn founders(
    validators: &[GenesisValidator],
    operators: &[(FixedBytes<48>, FixedBytes<96>)],
    rollups: &[RollupManifest],
    protocol: u8,
) -> Vec<GenesisOperator> {
    if protocol < BRIDGE_FROM {
        return Vec::new();
    }
    let evm = rollups.iter().filter(|rollup| matches!(rollup.vm, Vm::Evm { .. }));
    let mut rollups: Vec<_> = evm.map(|rollup| rollup.id).collect();
    rollups.sort_unstable();
    let operator = |(validator, (bls, possession)): (&GenesisValidator, &(FixedBytes<48>, FixedBytes<96>))| {
        let seat = Seat { identity: validator.seat.identity, bls: *bls };
        GenesisOperator { seat, possession: *possession, rollups: rollups.clone() }
    };
    validators.iter().zip(operators).map(operator).collect()
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Makes a validator's keys, or reads those that an interrupted start has left; also those of its operator, with their proof of
/// possession.
fn write_keys(dir: &Path) -> Result<(GenesisValidator, (FixedBytes<48>, FixedBytes<96>)), Error> {
    let mut rng = rand::rng();
    let identity_secret = secret(&dir.join("identity.key"), || Ok(rng.random()))?;
    let identity = public_identity(&identity_secret);
    let genesis = |e: keys::KeyError| Error::Genesis(e.to_string());
    let bls = |name| {
        let new = || keys::bls_secret_from_entropy(&rand::rng().random()).map_err(genesis);
        let bls = secret(&dir.join(name), new)?;
        let possession = keys::prove_possession(&bls, identity).map_err(genesis)?;
        Ok::<_, Error>((keys::bls_public_key(&bls).map_err(genesis)?, possession))
    };
    let (key, possession) = bls("bls.key")?;
    Ok((GenesisValidator::new(Seat { identity, bls: key }, possession), bls("operator.key")?))
}

/// The 32 bytes in `path`, made with `make` where there is no such file.
fn secret(path: &Path, make: impl FnOnce() -> Result<[u8; 32], Error>) -> Result<[u8; 32], Error> {
    match fs::read_to_string(path) {
        Ok(text) => hex::decode_to_array(text.trim())
            .map_err(|e| Error::Format { path: path.to_path_buf(), detail: format!("not 32 bytes in hex: {e}") }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let secret = make()?;
            write(path, hex::encode(secret).as_bytes(), 0o600)?;
            Ok(secret)
        }
        Err(e) => Err(Error::file("read", path)(e)),
    }
}

/// Replaces a file as a whole: a crash leaves the old one or the new one.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let next = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&next)
        .map_err(Error::file("write", &next))?;
    file.write_all(bytes).and_then(|()| file.write_all(b"\n")).map_err(Error::file("write", &next))?;
    drop(file);
    fs::rename(&next, path).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

    fn options(validators: usize, ports: Ports) -> Options {
        Options { validators, ports, ..Options::default() }
    }

    /// Each validator's peers, as its configuration has them, are where the others listen.
    fn check_peers(dir: &NetworkDir) {
        let genesis = dir.genesis().unwrap();
        let configs: Vec<Config> = (0..dir.validators()).map(|i| dir.config(i).unwrap()).collect();
        for (index, config) in configs.iter().enumerate() {
            let others: BTreeSet<_> = (0..configs.len())
                .filter(|i| *i != index)
                .map(|i| (genesis.validators[i].seat.identity, configs[i].network.as_ref().unwrap().listen))
                .collect();
            assert_eq!(
                config.network.as_ref().unwrap().peers.iter().map(|p| (p.identity, p.address)).collect::<BTreeSet<_>>(),
                others
            );
        }
    }

    #[test]
    fn a_new_network_is_valid_and_its_keys_are_private() {
        let root = tempfile::tempdir().unwrap();
        let dir = NetworkDir::create(root.path(), &options(4, Ports::From(7100)), &[]).unwrap();
        let genesis = dir.genesis().unwrap();
        assert_eq!(genesis.validators.len(), 4);
        for (index, validator) in genesis.validators.iter().enumerate() {
            keys::verify_possession(&validator.seat, &validator.possession).unwrap();
            let files = dir.validator(index);
            let config = Config::load(&files.config).unwrap();
            assert_eq!(Genesis::load(&config.genesis).unwrap(), genesis);
            let keys = config.keys.unwrap();
            let BlsKey::Plain(bls) = keys.bls else { panic!("{:?}", keys.bls) };
            for key in [keys.identity, bls] {
                assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
        let ports: BTreeSet<u16> = dir.fixed_ports().unwrap().into_iter().map(|(port, ..)| port).collect();
        assert_eq!(ports.len(), 4 * 5, "network, gRPC, metrics and two rollups, none twice");
        check_peers(&dir);
    }

    #[test]
    fn moving_changes_every_port_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = NetworkDir::create(root.path(), &options(3, Ports::From(7100)), &[]).unwrap();
        let genesis = fs::read(dir.genesis_path()).unwrap();
        dir.move_to(9000).unwrap();
        let again = NetworkDir::open(root.path()).unwrap();
        assert_eq!(again.base_port(), Some(9000));
        assert!(again.fixed_ports().unwrap().iter().all(|(port, ..)| *port >= 9000));
        assert_eq!(fs::read(dir.genesis_path()).unwrap(), genesis);
        check_peers(&again);

        assert!(matches!(dir.move_to(65_520), Err(Error::PortRange { .. })));
        assert!(dir.fixed_ports().unwrap().iter().all(|(port, ..)| (9000..9100).contains(port)));
    }

    #[test]
    fn free_ports_are_fixed_for_the_validators_network_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = NetworkDir::create(root.path(), &options(2, Ports::Free), &[40_001, 40_002]).unwrap();
        let ports: Vec<u16> = dir.fixed_ports().unwrap().into_iter().map(|(port, ..)| port).collect();
        assert_eq!(ports, [40_001, 40_002]);
        check_peers(&dir);
    }

    #[test]
    fn a_creation_that_was_interrupted_is_completed_with_the_same_keys() {
        let root = tempfile::tempdir().unwrap();
        let first = NetworkDir::create(root.path(), &options(2, Ports::From(7100)), &[]).unwrap();
        let validators = first.genesis().unwrap().validators;
        let again = NetworkDir::create(root.path(), &options(2, Ports::From(7100)), &[]);
        assert!(matches!(again, Err(Error::Exists { .. })), "a whole network is not made anew");
        fs::remove_file(root.path().join(MARKER)).unwrap();
        assert!(matches!(NetworkDir::open(root.path()), Err(Error::NoNetwork { .. })));
        let second = NetworkDir::create(root.path(), &options(2, Ports::From(7100)), &[]).unwrap();
        assert_eq!(second.genesis().unwrap().validators, validators);
    }

    #[test]
    fn a_key_that_is_not_32_bytes_of_hex_is_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("validator-0");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("bls.key"), "0xabc").unwrap();
        let error = NetworkDir::create(root.path(), &options(1, Ports::From(7100)), &[]).unwrap_err();
        assert!(error.to_string().contains("bls.key"), "{error}");
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for size in [0, VALIDATORS_MAX + 1] {
            let made = NetworkDir::create(root.path(), &options(size, Ports::From(7100)), &[]);
            assert!(matches!(made, Err(Error::Size(n)) if n == size));
        }
    }
}
