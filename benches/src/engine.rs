//! The consensus engine alone: validators in one process, over loopback sockets and on disk, with ready-made blocks that
//! nobody has to build or check. The hub's ordering is measured against this.

use crate::{
    line::{HERE, Line, Packets, THERE},
    report::{Latency, Quantiles},
};
use bytes::Bytes;
use clap::Args;
use eyre::{Result, WrapErr, bail, ensure, eyre};
use serde::Serialize;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    num::NonZeroU64,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use switchyard_consensus_core::{
    Ancestors, BlockBuilder, Committee, EngineEvent, EpochRules, InvalidBlock, Member, Seat, SingleEpoch,
    allot::SEATS_MAX, keys::bls_public_key, keys::bls_secret_from_entropy,
};
use switchyard_consensus_engine::{Engine, EngineConfig, start};
use switchyard_consensus_guard::{LocalSigner, SignGuard};
use switchyard_consensus_network::{Transport, identity};
use switchyard_primitives::{B256, Block, Header, Limits, RollupId, Segment, SegmentTable, TxKey};
use switchyard_testnet_kit::{Conditions, Mesh};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, sleep_until},
};

/// Arguments of `switchyard bench engine`.
#[derive(Debug, Args)]
pub struct EngineArguments {
    /// Validators, all in this process
    #[arg(long, default_value_t = 4)]
    validators: usize,
    /// Seats of each validator; several numbers, separated by commas, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1024))]
    seats: Vec<u32>,
    /// Bytes of each block's body, such as 64KiB or 1MiB
    #[arg(long, default_value = "1MiB", value_parser = parse_size)]
    size: usize,
    /// Bytes of each transaction in a block
    #[arg(long, default_value_t = 1024)]
    transaction_bytes: usize,
    /// Seconds to measure
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Least milliseconds from a block to the next
    #[arg(long, default_value_t = 0)]
    min_interval_ms: u64,
    /// What carries the validators' messages: own, libp2p or libp2p-quic; several, separated by commas, one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [Transport::default()])]
    transport: Vec<Transport>,
    /// Milliseconds that everything is on its way from one validator to another, on top of what this machine takes
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Share of packets that are lost, 0 to 1: without --tun only those of libp2p-quic can be
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// TUN device, with the address 198.18.0.1/30, over which everything goes: delay and loss are of its packets, those of TCP too
    #[arg(long, value_name = "DEVICE")]
    tun: Option<String>,
    /// Seconds before the measurement, in which validators connect and time out on those that are not there yet
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Threads of each validator's engine
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    /// Write the result to this file as JSON
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The result.
#[derive(Debug, Serialize)]
struct EngineReport {
    transport: Transport,
    validators: usize,
    seats: u32,
    delay_ms: u64,
    loss: f64,
    /// What has become of the line's packets, from the start on; none where there is no line.
    packets: Option<Packets>,
    block_bytes: usize,
    seconds: f64,
    blocks: u64,
    blocks_per_second: f64,
    mb_per_second: f64,
    /// CPU time of a validator for each block, in milliseconds; where the system does not tell, none.
    cpu_ms: Option<f64>,
    /// From a block's proposal to its arrival at each validator.
    finality: Quantiles,
}

/// CPU time of this process so far, in seconds, from Linux' `/proc` (its clock ticks are hundredths).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses; user and system time are the 14th and 15th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

/// Bytes, with an optional suffix KiB or MiB.
fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.to_ascii_lowercase() {
        t if t.ends_with("mib") => (text[..text.len() - 3].to_string(), 1 << 20),
        t if t.ends_with("kib") => (text[..text.len() - 3].to_string(), 1 << 10),
        _ => (text.to_string(), 1),
    };
    let count: usize = digits.trim().parse().map_err(|e| format!("{text}: {e}; such as 1024, 64KiB or 1MiB"))?;
    count.checked_mul(unit).ok_or_else(|| format!("{text} is too large"))
}

/// Proposes blocks with the same body at once, and accepts every block.
#[derive(Clone)]
struct ReadyMade {
    template: Arc<Block>,
    min_interval: Duration,
    proposed: Arc<Mutex<HashMap<B256, Instant>>>,
    last: Arc<Mutex<Option<Instant>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlockBuilder for ReadyMade {
    async fn build(&self, parent: Arc<Block>, _: Ancestors) -> Option<Block> {
        let wake = lock(&self.last).map(|last| last + self.min_interval);
        if let Some(wake) = wake {
            sleep_until(wake.into()).await;
        }
        let mut block = (*self.template).clone();
        block.header.parent = parent.hash();
        block.header.height = parent.header.height + 1;
        block.header.timestamp_ms = parent.header.timestamp_ms + 1;
        let now = Instant::now();
        lock(&self.proposed).insert(block.hash(), now);
        *lock(&self.last) = Some(now);
        Some(block)
    }

    async fn judge(&self, _: Arc<Block>, _: Arc<Block>, _: Ancestors) -> Result<(), InvalidBlock> {
        Ok(())
    }

    fn held(&self, keys: &[TxKey]) -> Vec<Option<switchyard_primitives::Bytes>> {
        vec![None; keys.len()]
    }
}

/// A port of TCP and UDP, held until both are dropped.
fn reserve(ip: Ipv4Addr) -> std::io::Result<(TcpListener, UdpSocket)> {
    let both = || {
        let tcp = TcpListener::bind((ip, 0))?;
        let udp = UdpSocket::bind(tcp.local_addr()?)?;
        Ok((tcp, udp))
    };
    (1..16).map(|_| both()).find(Result::is_ok).unwrap_or_else(both)
}

/// A block whose body has about `size` bytes.
fn template(genesis: &Header, size: usize, transaction_bytes: usize) -> Result<Block> {
    ensure!(transaction_bytes > 0, "--transaction-bytes must be at least 1");
    let count = (size / (transaction_bytes + 4)).max(1);
    let run = rand::random();
    let transactions: Vec<Bytes> =
        (0..count as u64).map(|seq| crate::payload::payload(run, seq, transaction_bytes)).collect();
    let transactions = transactions.into_iter().map(Into::into).collect();
    let segments = vec![Segment { rollup: RollupId(1), transactions }];
    let header = Header { segment_root: SegmentTable::new(&segments).root(), ..*genesis };
    Ok(Block::new(header, segments))
}

struct Cluster {
    engines: Vec<Engine>,
    builder: ReadyMade,
    way: Way,
    _dir: tempfile::TempDir,
}

async fn cluster(arguments: &EngineArguments, transport: Transport, seats_each: u32) -> Result<Cluster> {
    let count = arguments.validators;
    ensure!((1..=32).contains(&count), "--validators {count}: must be 1 to 32");
    let total = u64::from(seats_each).saturating_mul(count as u64);
    ensure!(total <= u64::from(SEATS_MAX), "--seats {seats_each}: {total} in all, must be at most {SEATS_MAX}");
    let network_id = B256::from(rand::random::<[u8; 32]>());
    let host = if arguments.tun.is_some() { HERE } else { Ipv4Addr::LOCALHOST };
    let (mut secrets, mut seats, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (ed25519, bls) = (rand::random::<[u8; 32]>(), bls_secret_from_entropy(&rand::random())?);
        seats.push(Seat { identity: identity(&ed25519), bls: bls_public_key(&bls)? });
        secrets.push((ed25519, bls));
        listeners.push(reserve(host).wrap_err_with(|| format!("no port of {host}"))?);
    }
    let addresses: Vec<SocketAddr> = listeners.iter().map(|(tcp, _)| tcp.local_addr()).collect::<Result<_, _>>()?;
    let way = arguments.way(transport, &addresses).await?;
    let identities: Vec<B256> = seats.iter().map(|s| s.identity).collect();
    let members = seats.into_iter().map(|seat| Member { seat, seats: seats_each }).collect();
    let committee = Committee::new(0, members)?;
    let genesis = Header::genesis(network_id, 0, committee.seats().hash());
    let committees = Arc::new(SingleEpoch::of(committee));
    let block = template(&genesis, arguments.size, arguments.transaction_bytes)?;
    let limits = Limits {
        body_bytes: block.encoded_len(),
        transaction_bytes: arguments.transaction_bytes,
        transactions: block.transaction_count(),
        ..Limits::default()
    };
    let builder = ReadyMade {
        template: Arc::new(block),
        min_interval: Duration::from_millis(arguments.min_interval_ms),
        proposed: Arc::default(),
        last: Arc::default(),
    };
    let dir = tempfile::tempdir()?;
    let mut engines = Vec::new();
    for (index, (identity_secret, bls_secret)) in secrets.into_iter().enumerate() {
        let others = (0..count).filter(|other| *other != index);
        std::fs::create_dir_all(dir.path())?;
        let record = dir.path().join(format!("sign-record-{index}"));
        let guard = Arc::new(SignGuard::open(&record, network_id, bls_public_key(&bls_secret)?.0)?);
        let signer = Arc::new(LocalSigner::new(bls_secret, guard)?);
        let config = EngineConfig {
            network_id,
            committees: committees.clone(),
            epochs: EpochRules { blocks: NonZeroU64::MAX, seats_per_validator: seats_each },
            genesis,
            limits,
            identity_secret,
            signer,
            next_signer: None,
            doppelganger_check: false,
            listen: addresses[index],
            transport,
            peers: others.map(|other| (identities[other], way.address(index, other, addresses[other]))).collect(),
            data_dir: dir.path().join(index.to_string()),
            leader_timeout: Duration::from_millis(3000),
            certification_timeout: Duration::from_millis(6000),
            skip_timeout: Duration::from_millis(12_000),
            worker_threads: arguments.threads,
            acknowledged_height: 0,
            history: None,
            archive_blocks: EngineConfig::ARCHIVE_BLOCKS,
            compact_from_bytes: usize::MAX,
        };
        // Its port was held until now.
        drop(listeners.remove(0));
        std::fs::create_dir_all(&config.data_dir)?;
        engines.push(start(config, builder.clone()).await.wrap_err_with(|| format!("validator {index}"))?);
    }
    Ok(Cluster { engines, builder, way, _dir: dir })
}

/// What is between the validators.
enum Way {
    /// This machine's loopback.
    Loopback,
    /// Links that pass connections and datagrams on.
    Links(Mesh),
    /// A line that packets pass.
    Line(Line),
}

impl Way {
    /// Where `from` dials to reach `to`, which listens at `listening`.
    fn address(&self, from: usize, to: usize, listening: SocketAddr) -> SocketAddr {
        match self {
            Self::Loopback => listening,
            Self::Links(mesh) => mesh.address(from, to).unwrap_or(listening),
            Self::Line(_) => SocketAddr::new(IpAddr::V4(THERE), listening.port()),
        }
    }

    /// Closes it; what has become of packets, where it knows.
    async fn close(self) -> Option<Packets> {
        if let Self::Line(line) = self { Some(line.close().await) } else { None }
    }
}

impl EngineArguments {
    /// The way between the validators, as slow as it is to be.
    async fn way(&self, transport: Transport, addresses: &[SocketAddr]) -> Result<Way> {
        ensure!(self.delay_ms <= 10_000, "--delay-ms {}: must be at most 10,000", self.delay_ms);
        ensure!((0.0..=1.0).contains(&self.loss), "--loss {}: must be 0 to 1", self.loss);
        let delay = Duration::from_millis(self.delay_ms);
        if let Some(tun) = &self.tun {
            let line = Line::open(tun, delay, self.loss, 0).wrap_err_with(|| format!("--tun {tun}"))?;
            return Ok(Way::Line(line));
        }
        let datagrams = transport == Transport::Libp2pQuic;
        ensure!(
            self.loss == 0.0 || datagrams,
            "--loss: {transport} has no datagrams, so it takes --tun to lose anything of it"
        );
        if self.delay_ms == 0 && self.loss == 0.0 {
            return Ok(Way::Loopback);
        }
        let mesh = Mesh::open(addresses, 0).await?;
        mesh.set(Conditions { delay, loss: self.loss, ..Conditions::default() }, |_, _| true);
        Ok(Way::Links(mesh))
    }
}

/// Runs the bench with each transport and prints the results.
pub async fn run(arguments: EngineArguments) -> Result<u8> {
    ensure!((0.0..=600.0).contains(&arguments.warm_up), "--warm-up {}: must be 0 to 600", arguments.warm_up);
    ensure!(arguments.seconds > 0.0 && arguments.seconds <= 3600.0, "--seconds must be above 0 and at most 3600");
    let mut reports = Vec::new();
    for transport in &arguments.transport {
        for seats in &arguments.seats {
            reports.push(measure(&arguments, *transport, *seats).await?);
        }
    }
    if let Some(path) = &arguments.out {
        crate::cli::write_json(path, &reports)?;
    }
    if let Some(none) = reports.iter().find(|report| report.blocks == 0) {
        bail!("{}: no block became final", none.transport);
    }
    Ok(0)
}

async fn measure(arguments: &EngineArguments, transport: Transport, seats: u32) -> Result<EngineReport> {
    let Cluster { engines, builder, way, _dir } = cluster(arguments, transport, seats).await?;
    let block_bytes = builder.template.encoded_len();
    let (finals, mut seen) = mpsc::channel(1024);
    let (mut readers, mut handles) = (JoinSet::new(), Vec::new());
    for (index, Engine { mut events, gossip, handle }) in engines.into_iter().enumerate() {
        let finals = finals.clone();
        handles.push((handle, gossip));
        readers.spawn(async move {
            while let Some(event) = events.recv().await {
                if let EngineEvent::Final { block, ack, .. } = event {
                    let _ = ack.send(());
                    if finals.send((index, block.header.height, block.hash(), Instant::now())).await.is_err() {
                        return;
                    }
                }
            }
        });
    }

    // The first blocks are made while validators still connect.
    let warm_up = Instant::now() + Duration::from_secs_f64(arguments.warm_up);
    let duration = Duration::from_secs_f64(arguments.seconds);
    let mut heights = vec![(0_u64, 0_u64); arguments.validators];
    let mut latency = Latency::default();
    let end = warm_up + duration;
    let mut cpu = None;
    loop {
        let next = tokio::select! {
            next = seen.recv() => next.ok_or_else(|| eyre!("every engine has ended"))?,
            () = sleep_until(end.into()) => break,
        };
        if cpu.is_none() && next.3 >= warm_up {
            cpu = cpu_seconds();
        }
        let (index, height, hash, at) = next;
        let (first, last) = &mut heights[index];
        *last = height;
        if at < warm_up {
            *first = height;
        } else if let Some(proposed) = lock(&builder.proposed).get(&hash) {
            latency.record(at.saturating_duration_since(*proposed));
        }
        // Blocks that every validator has are not asked for again.
        if height % 256 == 0 {
            lock(&builder.proposed).retain(|_, proposed| proposed.elapsed() < Duration::from_secs(30));
        }
    }
    let cpu = cpu.zip(cpu_seconds()).map(|(before, after)| after - before);
    drop(seen);
    for (handle, _) in handles {
        tokio::select! {
            _ = handle.shutdown() => {}
            () = sleep(Duration::from_secs(10)) => bail!("an engine did not stop within 10 s"),
        }
    }
    let blocks = heights.iter().map(|(first, last)| last - first).min().unwrap_or(0);
    let report = EngineReport {
        transport,
        validators: arguments.validators,
        seats,
        delay_ms: arguments.delay_ms,
        loss: arguments.loss,
        packets: way.close().await,
        block_bytes,
        seconds: arguments.seconds,
        blocks,
        blocks_per_second: blocks as f64 / arguments.seconds,
        mb_per_second: (blocks * block_bytes as u64) as f64 / 1e6 / arguments.seconds,
        cpu_ms: cpu.map(|seconds| seconds * 1e3 / (blocks.max(1) * arguments.validators as u64) as f64),
        finality: latency.quantiles(),
    };
    println!(
        "{}, {} validators with {} seats each, {} ms of delay, blocks of {} bytes: {:.1} blocks/s, {:.2} MB/s final, finality \
         p50 {:.0} ms p99 {:.0} ms, {:.1} ms of CPU a block and validator",
        report.transport,
        report.validators,
        report.seats,
        report.delay_ms,
        report.block_bytes,
        report.blocks_per_second,
        report.mb_per_second,
        report.finality.p50_ms,
        report.finality.p99_ms,
        report.cpu_ms.unwrap_or(f64::NAN),
    );
    if let Some(Packets { passed, lost, overflowed }) = report.packets {
        println!(
            "  on the line {passed} packets passed, {lost} were lost by chance, {overflowed} as too many were on the way"
        );
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_suffixes() {
        assert_eq!(parse_size("1024"), Ok(1024));
        assert_eq!(parse_size("64KiB"), Ok(64 << 10));
        assert_eq!(parse_size("1mib"), Ok(1 << 20));
        assert!(parse_size("1GB").is_err());
        assert!(parse_size("99999999999999999999MiB").is_err());
    }

    #[test]
    fn the_time_that_a_process_has_worked_is_known_and_grows() {
        let before = cpu_seconds().unwrap();
        let mut work = 1_u64;
        while cpu_seconds().unwrap() < before + 0.02 {
            work = std::hint::black_box(work.wrapping_mul(3));
        }
        assert!(work != 0);
    }

    #[test]
    fn a_ready_made_block_has_about_the_size_asked_for_and_commits_to_its_body() {
        let block = template(&Header::genesis(B256::ZERO, 0, B256::ZERO), 1 << 20, 1024).unwrap();
        block.check_commitments().unwrap();
        let size = block.encoded_len();
        assert!((1 << 20) - 2048 < size && size < (1 << 20) + 512, "{size}");
    }
}
