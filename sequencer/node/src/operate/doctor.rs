//! `switchyard doctor`: looks at the machine, the network around it and the running node, and says what to do.

mod clock;
mod host;
mod node;
mod stake;

use super::{Finding, Level, OperateError, check::check, finding::report};
use crate::config::{BlsKey, Config, Network, RemoteKey};
use alloy_primitives::FixedBytes;
use futures::StreamExt;
use std::{
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};
use switchyard_primitives::B256;

/// How long anything on the network may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses that are tried at a time.
const PROBES: usize = 32;

/// Checks configuration, keys, clock, disk, limits, ports, peers and the running node.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The gRPC endpoint of another validator, to compare clocks with; may be given more than once
    #[arg(long = "against", value_name = "URL")]
    pub against: Vec<String>,
    /// Small synced writes into the data directory to measure: 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub writes: u16,
    /// Print JSON, one finding a line
    #[arg(long)]
    pub json: bool,
}

/// Prints what was found. Fails with [`OperateError::Sick`] where there are errors.
pub async fn doctor(args: DoctorArgs, out: &mut (dyn Write + Send)) -> Result<(), OperateError> {
    let findings = match Config::load(&args.config) {
        Ok(config) => look(&config, &args).await,
        Err(error) => {
            let (means, remedy) = ("nothing else can be checked", "correct the configuration");
            vec![Finding::new("config", Level::Error, error.to_string(), means, remedy)]
        }
    };
    match report(&findings, args.json, out)? {
        0 => Ok(()),
        errors => Err(OperateError::Sick(errors)),
    }
}

async fn look(config: &Config, args: &DoctorArgs) -> Vec<Finding> {
    let (mut findings, checked) = check(config);
    let network = checked.genesis.as_ref().and_then(|genesis| genesis.id().ok());
    let quorum = checked.genesis.as_ref().and_then(|genesis| genesis.seats().ok()).map(|seats| seats.quorum());
    let running = node::find(config);
    findings.push(host::sync_latency(&config.data_dir, args.writes.into()));
    findings.push(host::free_space(&config.data_dir));
    findings.push(host::open_files(running.as_ref()));
    findings.extend(host::ports(config, running.as_ref()));
    match &config.network {
        Some(network) => findings.push(peers(network, quorum, checked.identity).await),
        None => findings.push(sources(config, network).await),
    }
    if let Some(BlsKey::Remote(remote)) = config.keys.as_ref().map(|keys| &keys.bls) {
        let seats = checked.genesis.as_ref().and_then(|genesis| genesis.seats().ok());
        let identity = checked.identity;
        let key = seats.and_then(|seats| seats.seats().iter().find(|s| Some(s.identity) == identity).map(|s| s.bls));
        findings.push(signer(remote, network, key).await);
    }
    let heartbeat = Duration::from_millis(config.consensus.heartbeat_ms);
    let watched = node::watch(running.as_ref(), network, quorum, heartbeat, config.network.is_some()).await;
    findings.extend(watched.findings);
    if let (Some(running), Some(network), Some(identity)) = (&running, network, checked.identity)
        && let Ok(channel) = node::connect(&running.endpoints.grpc).await
    {
        findings.extend(stake::find(channel, network, identity, &checked.bls).await);
    }
    findings.push(clock::compare(&args.against, network, watched.clock_offset_ms, &watched.blocks).await);
    findings
}

/// Asks each source of a follower which network it serves.
async fn sources(config: &Config, network: Option<B256>) -> Finding {
    let probes = config.sync.sources.iter().map(|url| async move {
        let found = match node::connect(url).await {
            Ok(channel) => node::network_of(channel).await,
            Err(error) => Err(error),
        };
        match (found, network) {
            (Ok(found), Some(expected)) if found != expected => Some(format!("{url} serves another network, {found}")),
            (Ok(_), _) => None,
            (Err(error), _) => Some(format!("{url}: {error}")),
        }
    });
    let total = config.sync.sources.len();
    let away: Vec<String> = futures::future::join_all(probes).await.into_iter().flatten().collect();
    let remedy = "check the addresses, and with their operators whether the nodes run and let this machine in";
    match away.len() {
        0 => Finding::ok("sources", format!("all {total} sources answer")),
        all if all == total => {
            let means = "no new block reaches this node";
            Finding::new("sources", Level::Error, format!("no source answers: {}", away.join("; ")), means, remedy)
        }
        some => {
            let found = format!("{} of {total} sources answer; not: {}", total - some, away.join("; "));
            Finding::new("sources", Level::Warning, found, "the others serve this node as long as they last", remedy)
        }
    }
}

/// Asks the remote signer for its key, over the TLS that the node will use.
async fn signer(remote: &RemoteKey, network: Option<B256>, key: Option<FixedBytes<48>>) -> Finding {
    let started = Instant::now();
    let problem = match crate::signer::probe(remote).await {
        Ok(found) if network.is_some_and(|id| found.network != id) => format!("it is for network {}", found.network),
        Ok(found) if key.is_some_and(|key| found.key != key) => format!("it has key {}, not the seat's", found.key),
        Ok(_) => return Finding::ok("signer", format!("answers in {} ms", started.elapsed().as_millis())),
        Err(error) => error.to_string(),
    };
    let means = "this node cannot vote, and does not start";
    let remedy = "start `switchyard signer`, or mend [keys.signer], its certificates, or the signer's configuration";
    Finding::new("signer", Level::Error, problem, means, remedy)
}

/// Tries a TCP connection to each peer's address.
async fn peers(network: &Network, quorum: Option<usize>, own: Option<B256>) -> Finding {
    let others: Vec<SocketAddr> =
        network.peers.iter().filter(|peer| own != Some(peer.identity)).map(|peer| peer.address).collect();
    if others.is_empty() {
        return Finding::ok("reachable", "no other validators to reach");
    }
    let total = others.len();
    let probes = others.into_iter().map(|address| async move {
        let started = Instant::now();
        let connected = tokio::time::timeout(ANSWER_TIMEOUT, tokio::net::TcpStream::connect(address)).await;
        (address, matches!(connected, Ok(Ok(_))), started.elapsed())
    });
    let probed: Vec<_> = futures::stream::iter(probes).buffer_unordered(PROBES).collect().await;
    let away: Vec<String> = probed.iter().filter(|(_, up, _)| !up).map(|(address, ..)| address.to_string()).collect();
    let slowest = probed.iter().filter(|(_, up, _)| *up).map(|(.., took)| took.as_millis()).max().unwrap_or(0);
    let reached = total - away.len();
    if away.is_empty() {
        return Finding::ok("reachable", format!("all {total} peers take connections, the slowest in {slowest} ms"));
    }
    let shown = away.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    let found = format!("{reached} of {total} peers take connections; not: {shown}");
    let remedy = "check the addresses, firewalls both ways, and with their operators whether they run";
    match quorum {
        Some(quorum) if reached + 1 < quorum => {
            let means = format!("with this node that is less than the quorum of {quorum}: no blocks from here");
            Finding::new("reachable", Level::Error, found, means, remedy)
        }
        _ => Finding::new(
            "reachable",
            Level::Warning,
            found,
            "their votes may still come: they connect here too",
            remedy,
        ),
    }
}
