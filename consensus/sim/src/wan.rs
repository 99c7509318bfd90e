//! How long finality takes over a wide area: real engines, simulated distances.

use crate::{
    context::{Context, Disk},
    network::{Channel, Disorder, Fabric, Link, Mouth, Said},
    plan::pairs,
    uplink::Uplink,
    world::{OPAQUE, Shape, World},
};
use bytes::Bytes as Buffer;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::Recipients;
use commonware_runtime::{Clock as _, Runner as _, Spawner as _, Supervisor as _, deterministic};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use switchyard_consensus_core::{Ancestors, BlockBuilder, EngineEvent, InvalidBlock, SingleEpoch};
use switchyard_consensus_engine::{Embedded, EngineConfig, embedded};
use switchyard_consensus_guard::{LocalSigner, SignGuard};
use switchyard_consensus_network::Transport;
use switchyard_primitives::{B256, Block, Bytes, Header, Limits, Segment, TxHash, TxKey};

/// The regions.
pub const REGIONS: [&str; 10] =
    ["Dallas", "Toronto", "Washington DC", "Frankfurt", "London", "Madrid", "Osaka", "Sydney", "Tokyo", "Sao Paulo"];

/// Average round-trip times between the regions of IBM Cloud in milliseconds, row by row from the diagonal on. Source: IBM
/// Cloud Docs, Virtual Private Cloud, "Network latency", 17 August to 15 September 2024
/// (https://github.com/ibm-cloud-docs/vpc, `_include-segments/network-latency.md`).
const ROUND_TRIP_MS: [&[u64]; 9] = [
    &[34, 31, 123, 113, 117, 150, 185, 143, 145],
    &[19, 92, 82, 109, 169, 215, 161, 130],
    &[91, 76, 88, 173, 214, 166, 118],
    &[13, 29, 232, 250, 228, 197],
    &[27, 244, 261, 242, 187],
    &[259, 275, 256, 207],
    &[122, 9, 292],
    &[115, 327],
    &[284],
];
/// Between two machines of one region: what the same source gives for two zones.
const WITHIN_MS: u64 = 2;

/// One way, between the regions of two validators.
pub fn one_way(a: usize, b: usize) -> Duration {
    let (low, high) = ((a % REGIONS.len()).min(b % REGIONS.len()), (a % REGIONS.len()).max(b % REGIONS.len()));
    let round_trip_ms = if low == high { WITHIN_MS } else { ROUND_TRIP_MS[low][high - low - 1] };
    Duration::from_micros(round_trip_ms * 500)
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Validators, one region after the other.
    pub validators: usize,
    /// Bytes of transactions in a block.
    pub block_bytes: usize,
    /// Whether the validators hold the transactions already, so that blocks travel by their hashes.
    pub held: bool,
    /// What a validator can send, in bytes a second.
    pub bytes_per_second: u64,
    /// Blocks to measure.
    pub blocks: u64,
}

/// What was measured; times are of every validator and block.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// From the leader's block to finality, median.
    pub finality_p50: Duration,
    /// 90 of 100 are below.
    pub finality_p90: Duration,
    /// From a block to the next.
    pub interval: Duration,
    /// How long the nearest quorum is away, one way; median over the validators.
    pub hop: Duration,
    /// Real time that it took.
    pub took: Duration,
}

impl Figures {
    /// Median finality in hops.
    pub fn hops(&self) -> f64 {
        self.finality_p50.as_secs_f64() / self.hop.as_secs_f64()
    }
}

/// Length of a transaction.
const TRANSACTION_BYTES: usize = 1024;

/// What all builders share: every block holds the same transactions, which nobody executes.
struct Load {
    transactions: Vec<Bytes>,
    hashes: Vec<TxHash>,
    by_key: HashMap<TxKey, Bytes>,
    measured: Mutex<Measured>,
}

#[derive(Default)]
struct Measured {
    proposed: BTreeMap<B256, (u64, SystemTime)>,
    finality: Vec<(u64, Duration)>,
}

#[derive(Clone)]
struct Filler {
    load: Arc<Load>,
    context: Arc<Context>,
    held: bool,
}

impl BlockBuilder for Filler {
    async fn build(&self, parent: Arc<Block>, _: Ancestors) -> Option<Block> {
        let now = self.context.current();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let height = parent.header.height + 1;
        let header = Header {
            parent: parent.hash(),
            height,
            timestamp_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            ..Header::genesis(B256::ZERO, 0, B256::ZERO)
        };
        let Load { transactions, hashes, measured, .. } = &*self.load;
        let block = match transactions.is_empty() {
            true => Block::new(header, Vec::new()),
            false => {
                let segment = Segment { rollup: OPAQUE, transactions: transactions.clone() };
                Block::with_hashes(header, vec![segment], vec![hashes.clone()])
            }
        };
        measured.lock().proposed.insert(block.hash(), (height, now));
        Some(block)
    }

    async fn judge(&self, _: Arc<Block>, _: Arc<Block>, _: Ancestors) -> Result<(), InvalidBlock> {
        Ok(())
    }

    fn held(&self, keys: &[TxKey]) -> Vec<Option<Bytes>> {
        keys.iter().map(|key| self.load.by_key.get(key).filter(|_| self.held).cloned()).collect()
    }
}

struct Plain;

impl Mouth for Plain {
    fn say(&self, _: Channel, _: &Recipients<PublicKey>, _: &Buffer) -> Option<Said> {
        None
    }
}

/// Measures one case.
pub fn measure(case: Case) -> Figures {
    let began = std::time::Instant::now();
    let limits = Limits { body_bytes: 8 << 20, ..Limits::default() };
    let world = Arc::new(World::new(&Shape::equals(case.validators), limits));
    let count = case.block_bytes / TRANSACTION_BYTES;
    let transactions: Vec<Bytes> = (0..count)
        .map(|i| {
            let mut payload = vec![0xa5; TRANSACTION_BYTES];
            payload[..8].copy_from_slice(&i.to_be_bytes());
            payload.into()
        })
        .collect();
    let keys: Vec<TxKey> = transactions.iter().map(|tx| TxKey::of(OPAQUE, tx)).collect();
    let load = Arc::new(Load {
        hashes: keys.iter().map(|key| key.hash).collect(),
        by_key: keys.iter().copied().zip(transactions.iter().cloned()).collect(),
        transactions,
        measured: Mutex::default(),
    });
    let shm = std::path::Path::new("/dev/shm");
    let folder = if shm.is_dir() { tempfile::TempDir::new_in(shm) } else { tempfile::TempDir::new() };
    let folder = folder.expect("a temporary folder");
    let measured = load.clone();
    let path = folder.path().to_path_buf();
    deterministic::Runner::new(deterministic::Config::new()).start(|context| async move {
        play(context, case, world, load, path).await;
    });
    let hop = hop(case.validators);
    let measured = measured.measured.lock();
    let mut times: Vec<Duration> = measured.finality.iter().map(|(_, time)| *time).collect();
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    let began_at = |height: u64| measured.proposed.values().filter(|(h, _)| *h == height).map(|(_, at)| *at).min();
    let span = began_at(SKIPPED + case.blocks).zip(began_at(SKIPPED + 1));
    let span = span.and_then(|(last, first)| last.duration_since(first).ok()).unwrap_or_default();
    let interval = span / u32::try_from(case.blocks.saturating_sub(1).max(1)).unwrap_or(1);
    Figures { finality_p50: at(50), finality_p90: at(90), interval, hop, took: began.elapsed() }
}

/// Blocks at the beginning that are not measured.
const SKIPPED: u64 = 2;

fn hop(validators: usize) -> Duration {
    let quorum = validators - (validators - 1) / 3;
    let mut hops: Vec<Duration> = (0..validators)
        .map(|me| {
            let mut ways: Vec<Duration> =
                (0..validators).map(|other| if me == other { Duration::ZERO } else { one_way(me, other) }).collect();
            ways.sort();
            ways[quorum - 1]
        })
        .collect();
    hops.sort();
    hops[hops.len() / 2]
}

async fn play(context: deterministic::Context, case: Case, world: Arc<World>, load: Arc<Load>, folder: PathBuf) {
    let fabric = Fabric::start(&context, &world, 16 << 20).await;
    for (from, to) in pairs(case.validators) {
        let link = Link { latency: one_way(from, to), jitter: Duration::ZERO, lost_per_mille: 0 };
        fabric.set(from, to, Some(link)).await;
    }
    let mut stops = Vec::new();
    for index in 0..case.validators {
        let uplink = Arc::new(Uplink::new(context.child("line"), case.bytes_per_second));
        let network = fabric.join(index, Arc::new(Plain), Disorder::default(), 0, Some(uplink)).await;
        let inner = context.child("validator").with_attribute("index", index);
        let own = Context::new(inner, Disk::new(&format!("v{index}"), 0, 0));
        let builder = Filler { load: load.clone(), context: Arc::new(own.child("builder")), held: case.held };
        let config = config(&world, index, &folder, case);
        let Embedded { mut events, gossip, stop, run, .. } = embedded(own.child("engine"), config, builder, network);
        stops.push((stop, gossip));
        own.child("run").spawn(move |_| run);
        let load = load.clone();
        own.child("events").spawn(move |context| async move {
            while let Some(event) = events.recv().await {
                let EngineEvent::Final { block, ack, .. } = event else { continue };
                // The simulation may be over.
                let _ = ack.send(());
                let mut measured = load.measured.lock();
                let Some((height, at)) = measured.proposed.get(&block.hash()).copied() else { continue };
                if height > SKIPPED && height <= SKIPPED + case.blocks {
                    let took = context.current().duration_since(at).unwrap_or_default();
                    measured.finality.push((height, took));
                }
            }
        });
    }
    let wanted = usize::try_from(case.blocks).unwrap_or(usize::MAX).saturating_mul(case.validators);
    let deadline = context.current() + Duration::from_secs(3_600);
    while load.measured.lock().finality.len() < wanted && context.current() < deadline {
        context.sleep(Duration::from_millis(50)).await;
    }
}

fn config(world: &World, index: usize, folder: &std::path::Path, case: Case) -> EngineConfig {
    let (secrets, seat) = (world.secrets[index], &world.validators[index]);
    let record = SignGuard::open(&folder.join(index.to_string()), world.network, seat.bls.0);
    let record = Arc::new(record.expect("the run's own folder"));
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    EngineConfig {
        network_id: world.network,
        committees: Arc::new(SingleEpoch::new(world.seats.clone()).expect("the network's own seats")),
        epochs: world.epochs,
        genesis: world.genesis,
        limits: world.limits,
        identity_secret: secrets.identity,
        signer: Arc::new(LocalSigner::new(secrets.bls, record).expect("the validator's own key")),
        doppelganger_check: false,
        listen: nowhere,
        transport: Transport::default(),
        peers: Vec::new(),
        data_dir: PathBuf::new(),
        // Long enough for the largest block over the slowest line: what is measured is the case without faults.
        leader_timeout: Duration::from_secs(60),
        certification_timeout: Duration::from_secs(90),
        skip_timeout: Duration::from_secs(120),
        worker_threads: NonZeroUsize::MIN,
        acknowledged_height: 0,
        history: None,
        archive_blocks: EngineConfig::ARCHIVE_BLOCKS,
        compact_from_bytes: if case.held { EngineConfig::COMPACT_FROM_BYTES } else { usize::MAX },
    }
}
