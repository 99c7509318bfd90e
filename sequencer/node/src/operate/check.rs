//! `switchyard config check`: everything that can be checked without starting the node.

use super::{Finding, Level, OperateError, finding::report};
use crate::{
    config::{BlsKey, Config, Keys, Network, Role},
    genesis::Genesis,
    keys::{KeyError, read_bls, read_plain},
    opened::{check_seat, check_servers},
    signer,
};
use alloy_primitives::FixedBytes;
use std::{
    collections::{HashMap, HashSet},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use switchyard_consensus_core::keys::bls_public_key;
use switchyard_consensus_guard::SignGuard;
use switchyard_primitives::B256;
use switchyard_rollup_core::Vm;

/// The configuration.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Check all that a node reads before it starts: configuration, genesis, keys, seat, peers, addresses
    Check {
        /// The node's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs one of the commands. Fails with [`OperateError::Unusable`] where a node would not start or not work.
pub fn config(command: ConfigCommand, out: &mut dyn Write) -> Result<(), OperateError> {
    let ConfigCommand::Check { config, json } = command;
    let config = Config::load(&config)?;
    let (findings, _) = check(&config);
    match report(&findings, json, out)? {
        0 => Ok(()),
        errors => Err(OperateError::Unusable(errors)),
    }
}

/// What the checks after these build on, as far as it is usable.
pub(super) struct Checked {
    pub(super) genesis: Option<Genesis>,
    pub(super) identity: Option<B256>,
    /// The BLS keys on this host.
    pub(super) bls: Vec<FixedBytes<48>>,
}

/// All findings on a configuration that was read.
pub(super) fn check(config: &Config) -> (Vec<Finding>, Checked) {
    let mut findings = vec![Finding::ok("config", "can be read")];
    let mut checked = Checked { genesis: None, identity: None, bls: Vec::new() };
    match Genesis::load(&config.genesis).and_then(|genesis| Ok((genesis.id()?, genesis))) {
        Ok((id, genesis)) => {
            let text = format!("network {} {id}, {} seats", genesis.name, genesis.validators.len());
            findings.push(Finding::ok("genesis", text));
            checked.genesis = Some(genesis);
        }
        Err(error) => findings.push(Finding::new(
            "genesis",
            Level::Error,
            error.to_string(),
            "the node does not know its network",
            "get the network's genesis file and name it in `genesis`",
        )),
    }
    if let Some(named) = &config.keys {
        let joining = config.network.as_ref().is_some_and(|network| network.joining);
        findings.push(keys(named, joining, &mut checked));
    }
    if let Some(genesis) = &checked.genesis {
        if let Err(error) = check_servers(config, genesis) {
            let remedy = "name EVM rollups of the genesis alone in [[rpc]]";
            findings.push(Finding::new("rpc", Level::Error, error.to_string(), "the node does not start", remedy));
        }
        if let Some(network) = &config.network {
            findings.extend(peers(network, genesis, checked.identity));
        }
    }
    findings.extend(sources(config));
    findings.extend(checked.genesis.as_ref().and_then(|genesis| snapshots(config, genesis)));
    findings.push(addresses(config));
    findings.push(data_dir(&config.data_dir));
    if config.role == Role::Validator {
        findings.push(sign_record(config));
    }
    (findings, checked)
}

fn keys(named: &Keys, joining: bool, checked: &mut Checked) -> Finding {
    let refused = |error: KeyError| {
        let means = "the node cannot sign and does not start";
        let remedy = "mend the file or its password, or make keys with `switchyard keys new`";
        Finding::new("keys", Level::Error, error.to_string(), means, remedy)
    };
    let identity = match read_plain(&named.identity) {
        Ok(secret) => switchyard_consensus_network::identity(&secret),
        Err(error) => return refused(error),
    };
    // Known even where the BLS key cannot be opened.
    checked.identity = Some(identity);
    let next = match named.next.as_ref().map(read_bls).transpose() {
        Ok(next) => next,
        Err(error) => return refused(error),
    };
    let (secret, whose) = match &named.bls {
        BlsKey::Remote(remote) => match signer::check_files(remote) {
            Ok(()) => (None, "has a seat, with the BLS key of its signer: `switchyard doctor` asks it"),
            Err(error) => return refused(error),
        },
        here => match read_bls(here) {
            Ok(secret) => (Some(secret), "and its BLS key have a seat"),
            Err(error) => return refused(error),
        },
    };
    let keys = secret.iter().chain(&next).map(|secret| bls_public_key(secret).map_err(|_| KeyError::Bls));
    match keys.collect() {
        Ok(keys) => checked.bls = keys,
        Err(error) => return refused(error),
    }
    let Some(genesis) = &checked.genesis else {
        return Finding::ok("keys", format!("identity {identity}; no genesis to look for its seat"));
    };
    let known =
        genesis.hub_state().map_err(Into::into).and_then(|state| check_seat(&state, identity, &checked.bls, joining));
    match known {
        Ok(()) => Finding::ok("keys", format!("identity {identity} {whose}")),
        Err(error) => Finding::new(
            "keys",
            Level::Error,
            error.to_string(),
            "the node is no validator of this network and does not start, unless the stake table has changed since the genesis",
            "use the keys that are in the genesis, or have the output of `switchyard keys show` put into it",
        ),
    }
}

/// Peers of the configuration and of the genesis must be the same.
fn peers(network: &Network, genesis: &Genesis, own: Option<B256>) -> Vec<Finding> {
    let seats: HashSet<B256> = genesis.validators.iter().map(|validator| validator.seat.identity).collect();
    let named: HashSet<B256> = network.peers.iter().map(|peer| peer.identity).collect();
    let mut findings = Vec::new();
    for identity in named.iter().filter(|id| !seats.contains(*id)) {
        findings.push(Finding::new(
            "peers",
            Level::Warning,
            format!("peer {identity} is no validator of the genesis"),
            "a wrong entry, or a validator that joined later: the log tells its address",
            "correct the identity or remove the entry from [[network.peers]]",
        ));
    }
    if own.is_some_and(|own| named.contains(&own)) {
        let remedy = "remove it from [[network.peers]]";
        findings.push(Finding::new("peers", Level::Warning, "this node is its own peer", "it has no effect", remedy));
    }
    let missing: Vec<_> = seats.iter().filter(|id| !named.contains(*id) && own != Some(**id)).collect();
    if !missing.is_empty() {
        let level = if own.is_some() { Level::Warning } else { Level::Unknown };
        findings.push(Finding::new(
            "peers",
            level,
            format!("{} of {} validators have no address here", missing.len(), seats.len()),
            "this node waits until they connect to it, and cannot reach them after a restart of its own",
            format!("add each one to [[network.peers]], first {}", missing[0]),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("peers", format!("{} other validators have addresses", named.len())));
    }
    findings
}

/// A log that begins at a checkpoint does not hold what the rollups' states would be derived from.
fn snapshots(config: &Config, genesis: &Genesis) -> Option<Finding> {
    let checkpoint = config.sync.checkpoint?;
    let evm = genesis.rollups.iter().filter(|rollup| matches!(rollup.vm, Vm::Evm { .. })).map(|rollup| rollup.id);
    let missing: Vec<String> = evm.filter(|id| !config.rollup_state(*id).exists()).map(|id| id.to_string()).collect();
    let found = format!(
        "the log begins at block {}, and there is no state of rollup {}",
        checkpoint.height,
        missing.join(", ")
    );
    let means = "the node stops when it comes to execute that rollup";
    let remedy = "`switchyard snapshot restore` for each, of a block whose hub block is not below the checkpoint";
    (!missing.is_empty()).then(|| Finding::new("snapshots", Level::Error, found, means, remedy))
}

/// Where a follower's blocks come from. With one source, that source decides how fresh this node is.
fn sources(config: &Config) -> Option<Finding> {
    let count = config.sync.sources.len();
    match (config.role, count) {
        (Role::Validator, 0) => None,
        (_, 2..) => Some(Finding::ok("sources", format!("{count} sources of final blocks"))),
        _ => Some(Finding::new(
            "sources",
            Level::Warning,
            "one source of final blocks",
            "it cannot make this node believe anything false, but it can keep new blocks from it, or be away",
            "name nodes of several operators in [sync] sources",
        )),
    }
}

/// Every address where the node listens, and for what.
pub(super) fn listeners(config: &Config) -> Vec<(String, SocketAddr)> {
    let mut all = vec![("grpc".to_owned(), config.grpc.listen), ("metrics".into(), config.metrics.listen)];
    all.extend(config.network.iter().map(|network| ("network".into(), network.listen)));
    all.extend(config.rpc.iter().map(|rpc| (format!("rpc of rollup {}", rpc.rollup), rpc.listen)));
    all
}

fn addresses(config: &Config) -> Finding {
    let all = listeners(config);
    let mut seen: HashMap<u16, Vec<&(String, SocketAddr)>> = HashMap::new();
    for listener in all.iter().filter(|(_, address)| address.port() != 0) {
        let taken = seen.entry(listener.1.port()).or_default();
        let overlap =
            |ip: &SocketAddr| *ip == listener.1 || ip.ip().is_unspecified() || listener.1.ip().is_unspecified();
        if let Some((other, _)) = taken.iter().find(|(_, address)| overlap(address)) {
            let found = format!("{other} and {} both listen on port {}", listener.0, listener.1.port());
            return Finding::new("addresses", Level::Error, found, "the node does not start", "give each a port");
        }
        taken.push(listener);
    }
    if config.network.as_ref().is_some_and(|network| network.listen.port() == 0 && !network.peers.is_empty()) {
        return Finding::new(
            "addresses",
            Level::Warning,
            "network.listen takes any free port",
            "the other validators do not know where this one is",
            "set the port that they have for it",
        );
    }
    Finding::ok("addresses", format!("{} servers, each on its own", all.len()))
}

/// A node that has taken part in something needs its record of it.
fn sign_record(config: &Config) -> Finding {
    let record = config.sign_record();
    match (SignGuard::exists(&record), config.data_dir.join("store").exists()) {
        (true, _) => Finding::ok("sign_record", format!("{} is there", record.display())),
        (false, false) => Finding::ok("sign_record", "the node has not run yet: it begins one"),
        (false, true) => Finding::new(
            "sign_record",
            Level::Error,
            format!("{} is missing and the store is there", record.display()),
            "the node does not know what it has signed; it does not start with blocks in its store",
            "`switchyard sign-record import`, or `begin` above every view that the key can have voted in",
        ),
    }
}

/// The nearest folder that exists must be one in which the node can make its own.
fn data_dir(path: &Path) -> Finding {
    let exists = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    let writable = rustix::fs::access(exists, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    match writable {
        Ok(()) if exists.is_dir() => Finding::ok("data_dir", format!("{} can be written", path.display())),
        _ => Finding::new(
            "data_dir",
            Level::Error,
            format!("{} is no folder that this user can write to", exists.display()),
            "the node does not start",
            "run as the node's user, or change data_dir",
        ),
    }
}
