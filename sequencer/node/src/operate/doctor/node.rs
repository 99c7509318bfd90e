//! The node of the configuration, if it runs.

use super::ANSWER_TIMEOUT;
use crate::{
    config::{Config, Endpoints},
    operate::{Finding, Level},
};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use switchyard_primitives::B256;
use switchyard_proto::v1::{
    GetInfoRequest, GetStatusRequest, GetStatusResponse, block_service_client::BlockServiceClient,
    status_service_client::StatusServiceClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::{Channel, Endpoint};

/// Heartbeats within which a running network makes a block.
const WATCH_HEARTBEATS: u32 = 5;
const POLL: Duration = Duration::from_millis(50);
/// Blocks after which enough was seen.
const WATCH_BLOCKS: usize = 4;
/// Longest answer of the metrics server that is read, in bytes.
const HTTP_BYTES_MAX: u64 = 4 << 20;

/// A process that has written where it answers, and lives.
pub(super) struct Running {
    pub(super) endpoints: Endpoints,
}

/// The process that `endpoints.json` names.
pub(super) fn find(config: &Config) -> Option<Running> {
    let text = std::fs::read(config.data_dir.join("endpoints.json")).ok()?;
    let endpoints: Endpoints = serde_json::from_slice(&text).ok()?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(endpoints.pid).ok()?)?;
    match rustix::process::test_kill_process(pid) {
        // Of another user, and alive.
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(Running { endpoints }),
        Err(_) => None,
    }
}

/// A block that became final while it was looked at.
pub(super) struct Seen {
    /// The leader's clock, in milliseconds since 1970.
    pub(super) timestamp_ms: u64,
    /// This machine's clock then.
    pub(super) now_ms: u64,
}

/// What was seen of the node.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) findings: Vec<Finding>,
    pub(super) blocks: Vec<Seen>,
    /// How far this clock is ahead of other nodes', as the node has it from them, in milliseconds.
    pub(super) clock_offset_ms: Option<i64>,
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Connects to a node's gRPC; errors are one line.
pub(super) async fn connect(url: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(ANSWER_TIMEOUT).timeout(ANSWER_TIMEOUT);
    endpoint.connect().await.map_err(|error| crate::cli::causes(&error))
}

/// The id of the network that a node serves.
pub(super) async fn network_of(channel: Channel) -> Result<B256, String> {
    let request = GetInfoRequest { include_manifests: false };
    let info =
        BlockServiceClient::new(channel).get_info(request).await.map_err(|status| status.message().to_owned())?;
    B256::try_from(info.into_inner().network_id.as_ref()).map_err(|_| "its network id has not 32 bytes".into())
}

fn not_answering(error: String) -> Finding {
    let (means, remedy) = ("it hangs, or listens elsewhere", "look at its log; restart it if it does not recover");
    Finding::new("node", Level::Error, format!("the process lives and does not answer: {error}"), means, remedy)
}

/// Looks at the running node for a few heartbeats.
pub(super) async fn watch(
    running: Option<&Running>,
    network: Option<B256>,
    quorum: Option<usize>,
    heartbeat: Duration,
    validator: bool,
) -> Watched {
    let mut watched = Watched::default();
    let Some(running) = running else {
        let (means, remedy) = ("nothing of it could be checked", "start it, and run this again");
        watched.findings.push(Finding::new("node", Level::Unknown, "the node does not run", means, remedy));
        return watched;
    };
    match connect(&running.endpoints.grpc).await {
        Ok(channel) => follow(channel, network, heartbeat, &mut watched).await,
        Err(error) => watched.findings.push(not_answering(error)),
    }
    let metrics = &running.endpoints.metrics;
    let text = match get(metrics, "/metrics").await {
        Ok((200, text)) => Ok(text),
        Ok((code, _)) => Err(format!("the metrics answer with {code}")),
        Err(error) => Err(format!("metrics: {error}")),
    };
    watched.clock_offset_ms = text.as_deref().ok().and_then(|text| value(text, "switchyard_clock_offset_ms"));
    if validator {
        watched.findings.push(connections(text, quorum));
    }
    watched.findings.extend(probe(metrics, "/livez").await);
    watched.findings.extend(probe(metrics, "/readyz").await);
    watched
}

async fn follow(channel: Channel, network: Option<B256>, heartbeat: Duration, watched: &mut Watched) {
    match (network_of(channel.clone()).await, network) {
        (Ok(found), Some(expected)) if found != expected => {
            let found = format!("the node serves network {found}, the genesis is of {expected}");
            let (means, remedy) = ("it runs with another genesis", "restart it with this configuration");
            watched.findings.push(Finding::new("node", Level::Error, found, means, remedy));
        }
        (Ok(_), _) => {}
        (Err(error), _) => return watched.findings.push(not_answering(error)),
    }
    let mut client = StatusServiceClient::new(channel);
    let mut status = async || client.get_status(GetStatusRequest {}).await.map(tonic::Response::into_inner);
    let first = match status().await {
        Ok(first) => first,
        Err(error) => return watched.findings.push(not_answering(error.message().to_owned())),
    };
    let (start, mut newest) = (Instant::now(), first.clone());
    while start.elapsed() < heartbeat * WATCH_HEARTBEATS && watched.blocks.len() < WATCH_BLOCKS {
        tokio::time::sleep(POLL).await;
        let Ok(now) = status().await else { break };
        if height(&now) > height(&newest) {
            let timestamp_ms = now.tip.as_ref().map_or(0, |tip| tip.timestamp_ms);
            watched.blocks.push(Seen { timestamp_ms, now_ms: now_ms() });
            newest = now;
        }
    }
    watched.findings.push(progress(&first, &newest, start.elapsed()));
    if let Some(last) = newest.recent_errors.last() {
        let found = format!("{} recent errors, the last: {last}", newest.recent_errors.len());
        let remedy = "look at the log around them";
        watched.findings.push(Finding::new("log", Level::Warning, found, "the node has met problems", remedy));
    }
}

fn height(status: &GetStatusResponse) -> u64 {
    status.tip.as_ref().map_or(0, |tip| tip.height)
}

fn progress(first: &GetStatusResponse, newest: &GetStatusResponse, watched: Duration) -> Finding {
    let seconds = watched.as_secs_f64();
    let signers = newest.signers.map_or(String::new(), |signers| format!(", signed by {signers} of {}", newest.seats));
    let view = newest.view.map_or(String::new(), |view| format!(", view {view}"));
    if height(newest) > height(first) {
        let more = height(newest) - height(first);
        return Finding::ok(
            "node",
            format!("height {}{view}{signers}; {more} blocks in {seconds:.1} s", height(newest)),
        );
    }
    Finding::new(
        "node",
        Level::Error,
        format!("height {} has not changed for {seconds:.1} s{view}", height(newest)),
        "no block becomes final: the network stands still, or this node is cut off from it",
        "see the findings on peers and clock; ask the other operators whether their nodes move",
    )
}

/// GET over a connection of its own; status and body.
async fn get(base: &str, path: &str) -> Result<(u16, String), String> {
    let address = base.strip_prefix("http://").unwrap_or(base);
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.take(HTTP_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| "no answer in time".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let malformed = || "no HTTP answer".to_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    Ok((code, body.to_owned()))
}

/// A number among the metrics.
fn value<T: std::str::FromStr>(metrics: &str, name: &str) -> Option<T> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Connected validators, from the metrics.
fn connections(metrics: Result<String, String>, quorum: Option<usize>) -> Finding {
    let unknown = |why: String| {
        let remedy = "look whether the metrics address answers";
        Finding::new("connected", Level::Unknown, why, "connections are not known", remedy)
    };
    let text = match metrics {
        Ok(text) => text,
        Err(why) => return unknown(why),
    };
    let Some(connected) = value::<usize>(&text, "switchyard_peers") else {
        return unknown("switchyard_peers is missing".into());
    };
    let Some(quorum) = quorum else { return unknown(format!("{connected} connected; no genesis")) };
    let found = format!("{connected} other validators connected; a quorum needs {}", quorum - 1);
    if connected + 1 < quorum {
        let remedy = "see the finding `reachable`; check that others can reach network.listen from outside";
        return Finding::new("connected", Level::Error, found, "no block can become final here", remedy);
    }
    Finding::ok("connected", found)
}

/// The problems that a health endpoint lists.
async fn probe(metrics: &str, path: &'static str) -> Option<Finding> {
    let check = path.trim_start_matches('/');
    let remedy = "docs/operators.md explains each reason";
    match get(metrics, path).await {
        Ok((200, _)) => Some(Finding::ok(check, "yes")),
        Ok((503, body)) => {
            Some(Finding::new(check, Level::Error, body.trim(), "load balancers send nobody here", remedy))
        }
        Ok((code, _)) => {
            let found = format!("answers with {code}");
            Some(Finding::new(check, Level::Unknown, found, "the node is of another version", "upgrade it"))
        }
        // The finding on the metrics says it already.
        Err(_) => None,
    }
}
