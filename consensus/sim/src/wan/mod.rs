//! How long finality takes over a wide area: real engines, simulated distances.

mod coded;
mod post;
pub mod shelf;
mod shipped;

use crate::{
    context::{Context, Disk},
    directory::Directory,
    world::{Shape, World},
};
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, deterministic};
use parking_lot::Mutex;
use post::Post;
use shelf::Pool;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use switchyard_primitives::{B256, Limits};

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

/// How a block reaches the other validators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dissemination {
    /// Its leader sends it to everyone.
    Whole,
    /// Its leader sends its transactions' hashes; everyone holds the transactions already, as after gossip.
    ByHash,
    /// Its leader sends each validator a shard of it, and each validator its shard to everyone.
    Coded,
}

impl Dissemination {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Whole, Self::ByHash, Self::Coded];

    /// Its name, in arguments and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::ByHash => "by-hash",
            Self::Coded => "coded",
        }
    }
}

impl std::str::FromStr for Dissemination {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|d| d.name() == name);
        found.ok_or_else(|| format!("{name:?} is none of whole, by-hash and coded"))
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Validators, one region after the other; at least 4.
    pub validators: usize,
    /// Bytes of transactions in a block.
    pub block_bytes: usize,
    /// How blocks travel.
    pub dissemination: Dissemination,
    /// What a validator can send, and what it can receive, in bytes a second.
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
    /// What a validator has sent of each block on its line, mean over all of them.
    pub sent_bytes: u64,
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
/// Blocks at the beginning that are not measured.
const SKIPPED: u64 = 2;
/// How long an actor's turn takes. Everything else that a machine does takes no time.
const TURN: Duration = Duration::from_micros(1);
/// Long enough for the largest block over the slowest line: what is measured is the case without faults.
const TIMEOUTS: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(90), Duration::from_secs(120)];

/// What is seen of a run.
#[derive(Default)]
struct Measured {
    /// When each block was made, by hash.
    proposed: BTreeMap<B256, (u64, SystemTime)>,
    /// Height, and how long after it was made it was final at one of the validators.
    finality: Vec<(u64, Duration)>,
}

/// Shared by a run's validators.
struct Watch {
    blocks: u64,
    measured: Mutex<Measured>,
}

impl Watch {
    fn proposed(&self, block: B256, height: u64, now: SystemTime) {
        self.measured.lock().proposed.insert(block, (height, now));
    }

    /// A block is final at one more validator.
    fn last_seen(&self, block: B256, now: SystemTime) {
        let mut measured = self.measured.lock();
        let Some((height, at)) = measured.proposed.get(&block).copied() else { return };
        if height > SKIPPED && height <= SKIPPED + self.blocks {
            measured.finality.push((height, now.duration_since(at).unwrap_or_default()));
        }
    }
}

/// What a run's validators are given.
struct Run {
    case: Case,
    world: Arc<World>,
    watch: Arc<Watch>,
    post: Arc<Post>,
}

/// One validator of a run.
struct Seat {
    index: usize,
    context: Context,
    channels: post::Channels,
}

/// Runs a network of real engines until its blocks are final everywhere.
///
/// # Panics
///
/// Where a validator refuses another one, or the blocks are not final within an hour of simulated time: then nothing was measured.
pub fn measure(case: Case) -> Figures {
    let began = std::time::Instant::now();
    let limits = Limits { body_bytes: 8 << 20, ..Limits::default() };
    let world = Arc::new(World::new(&Shape::equals(case.validators), limits));
    let watch = Arc::new(Watch { blocks: case.blocks, measured: Mutex::default() });
    let shm = Path::new("/dev/shm");
    let folder = if shm.is_dir() { tempfile::TempDir::new_in(shm) } else { tempfile::TempDir::new() };
    let folder = folder.expect("a temporary folder");
    let (seen, path) = (watch.clone(), folder.path().to_path_buf());
    let runtime = deterministic::Config::new().with_cycle(TURN);
    let sent_bytes = deterministic::Runner::new(runtime).start(|context| async move {
        let directory = Directory::new(world.keys());
        let post = Post::start(&context, directory.clone(), case.bytes_per_second);
        let run = Run { case, world, watch, post };
        let sent = run.play(&context, &path).await;
        assert!(directory.refusals().is_empty(), "refused: {:?}", directory.refusals());
        sent
    });
    let measured = seen.measured.lock();
    let mut times: Vec<Duration> = measured.finality.iter().map(|(_, time)| *time).collect();
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    let began_at = |height: u64| measured.proposed.values().filter(|(h, _)| *h == height).map(|(_, at)| *at).min();
    let span = began_at(SKIPPED + case.blocks).zip(began_at(SKIPPED + 1));
    let span = span.and_then(|(last, first)| last.duration_since(first).ok()).unwrap_or_default();
    let interval = span / u32::try_from(case.blocks.saturating_sub(1).max(1)).unwrap_or(1);
    let (hop, took) = (hop(case.validators), began.elapsed());
    Figures { finality_p50: at(50), finality_p90: at(90), interval, hop, sent_bytes, took }
}

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

impl Run {
    /// Returns what a validator has sent on its line for each block, on the average.
    async fn play(&self, context: &deterministic::Context, folder: &Path) -> u64 {
        let Case { validators, block_bytes, dissemination, blocks, .. } = self.case;
        let body = vec![0xa5; block_bytes];
        let filler = shipped::Load::new(block_bytes, self.watch.clone(), dissemination);
        let body: bytes::Bytes = body.into();
        let pool = Arc::new(Pool::default());
        let mut keep = Vec::new();
        for index in 0..validators {
            let disk = Disk::shelf(pool.clone());
            let own = Context::new(context.child("validator").with_attribute("index", index), disk);
            let seat = Seat { index, context: own, channels: self.post.join(context, index) };
            match dissemination {
                Dissemination::Coded => coded::start(self, seat, &body).await,
                Dissemination::Whole | Dissemination::ByHash => keep.push(shipped::start(self, seat, &filler, folder)),
            }
        }
        let wanted = usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(validators);
        let deadline = context.current() + Duration::from_secs(3_600);
        while self.watch.measured.lock().finality.len() < wanted {
            assert!(context.current() < deadline, "no finality within an hour");
            context.sleep(Duration::from_millis(50)).await;
        }
        let sent: u64 = (0..validators).map(|place| self.post.carried(place)).sum();
        let made = self.watch.measured.lock().proposed.values().map(|(height, _)| *height).max().unwrap_or(0).max(1);
        sent / made / validators as u64
    }
}
