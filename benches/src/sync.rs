//! How fast a new follower copies and executes the log of a running network, against the time in which it was made.

use eyre::{Result, WrapErr, ensure, eyre};
use serde::Serialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};
use switchyard_node::{
    config::{Config, Consensus, Listen, Mempool, Role, RollupRpc, Store, Sync},
    logging::RecentErrors,
    node::Node,
};
use switchyard_primitives::NEWEST_PROTOCOL;
use switchyard_proto::{header, v1};
use switchyard_testnet_local::NetworkDir;
use tonic::transport::Channel;
use v1::{block_service_client::BlockServiceClient, status_service_client::StatusServiceClient};

/// How often the follower is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A new follower in this process, in a folder that is removed afterwards.
#[derive(Clone, Debug, clap::Args)]
pub struct SyncArguments {
    /// The network: folder of a local one that runs
    #[arg(long, default_value = "./testnet-data")]
    dir: PathBuf,
    /// Copy from this many of its validators [default: all]
    #[arg(long)]
    sources: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    /// Up to the tip at the start.
    blocks: u64,
    /// Of segments, as far as the bodies' lengths tell.
    body_bytes: u64,
    /// From the first block's timestamp to the last one's, in seconds.
    log_seconds: f64,
    /// Until the last block was in the store.
    copied_seconds: f64,
    /// Until all rollups had executed it too.
    executed_seconds: f64,
    copied_times_real_time: f64,
    executed_times_real_time: f64,
}

/// Measures and prints.
pub async fn run(arguments: SyncArguments) -> Result<()> {
    let network = NetworkDir::open(&arguments.dir)?;
    let genesis = network.genesis()?;
    let count = arguments.sources.unwrap_or(usize::MAX).min(network.validators());
    let sources = (0..count).filter_map(|index| network.endpoints(index).transpose());
    let sources: Vec<String> = sources.map(|endpoints| Ok(endpoints?.grpc)).collect::<Result<_>>()?;
    let first = sources.first().ok_or_else(|| eyre!("no validator of {} runs", arguments.dir.display()))?;
    let (tip, heads) = look(first).await?;
    let body_bytes = body_bytes(first, tip.height).await?;
    let start = timestamp(first, 1).await?;
    ensure!(tip.height > 1, "the log is empty");

    let folder = tempfile::tempdir()?;
    let free = || Listen { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
    let config = Config {
        genesis: network.genesis_path(),
        data_dir: folder.path().join("data"),
        role: Role::Follower,
        keys: None,
        network: None,
        sync: Sync { sources, checkpoint: None },
        consensus: Consensus::default(),
        grpc: free(),
        metrics: free(),
        rpc: Vec::<RollupRpc>::new(),
        mempool: Mempool::default(),
        store: Store::default(),
        operator: None,
        relayer: None,
        newest_protocol: NEWEST_PROTOCOL,
    };
    let began = Instant::now();
    let mut node = Node::start(config, RecentErrors::default()).await?;
    let grpc = node.endpoints.grpc.clone();
    let measured = async {
        let mut copied = None;
        loop {
            let (now, reached) = look(&grpc).await?;
            if now.height >= tip.height {
                let copied = *copied.get_or_insert_with(|| began.elapsed());
                if reached.iter().zip(&heads).all(|(reached, head)| reached >= head) {
                    return Ok::<_, eyre::Report>((copied, began.elapsed()));
                }
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let (copied, executed) = tokio::select! {
        measured = measured => measured?,
        error = node.failed() => return Err(error).wrap_err("the follower failed"),
    };
    node.shutdown().await;
    let log_seconds = Duration::from_millis(tip.timestamp_ms.saturating_sub(start)).as_secs_f64();
    let (copied_seconds, executed_seconds) = (copied.as_secs_f64(), executed.as_secs_f64());
    let figures = Figures {
        blocks: tip.height,
        body_bytes,
        log_seconds,
        copied_seconds,
        executed_seconds,
        copied_times_real_time: log_seconds / copied_seconds,
        executed_times_real_time: log_seconds / executed_seconds,
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    println!(
        "network  {}: {} blocks with {} bytes of bodies in {log_seconds:.1} s",
        genesis.name, tip.height, body_bytes
    );
    println!("copied   in {copied_seconds:.2} s, {:.1} times real time", figures.copied_times_real_time);
    println!("executed in {executed_seconds:.2} s, {:.1} times real time", figures.executed_times_real_time);
    Ok(())
}

async fn channel(url: &str) -> Result<Channel> {
    Ok(Channel::from_shared(url.to_owned())?.connect().await?)
}

/// The tip and the rollups' heads.
async fn look(url: &str) -> Result<(v1::BlockRef, Vec<u64>)> {
    let mut client = StatusServiceClient::new(channel(url).await?);
    let status = client.get_status(v1::GetStatusRequest {}).await?.into_inner();
    let tip = status.tip.ok_or_else(|| eyre!("{url} has no tip"))?;
    Ok((tip, status.rollups.iter().map(|rollup| rollup.number).collect()))
}

async fn timestamp(url: &str, height: u64) -> Result<u64> {
    let mut client = BlockServiceClient::new(channel(url).await?);
    let answer = client.get_header(v1::GetHeaderRequest { height }).await?.into_inner();
    Ok(header("header", &answer.header)?.timestamp_ms)
}

async fn body_bytes(url: &str, tip: u64) -> Result<u64> {
    let mut client = BlockServiceClient::new(channel(url).await?);
    let request = v1::StreamFinalityRequest { from_height: 1, to_height: Some(tip) };
    let mut proofs = client.stream_finality(request).await?.into_inner();
    let mut bytes = 0;
    while let Some(message) = proofs.message().await? {
        for encoded in message.finality.unwrap_or_default().headers {
            let header = header("header", &encoded)?;
            bytes += if header.height <= tip { u64::from(header.body_bytes) } else { 0 };
        }
    }
    Ok(bytes)
}
