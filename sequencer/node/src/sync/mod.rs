//! Copies the log from other nodes: certificates and headers first, then blocks, from several sources at a time.
//!
//! ```text
//! each source: StreamFinality -> headers -> certificate checked -> skeleton (verified headers)
//!                                                                     |
//! each source: StreamBlocks  <- plan (chunks) <-----------------------+
//!                   |-> checked against its header -> in order -> events -> Finalizer, as from the engine
//! ```
//!
//! No source is trusted, for the tip neither: all of them are asked for proofs all the time, and what one hides another
//! brings. One that lies, hides, or is slow is left alone for a while, longer each time. With no good source nothing new
//! comes, and the node goes on serving what it has. Memory is bounded by `plan`'s window and `skeleton`'s headers.

mod begin;
mod bodies;
mod clocks;
pub mod fault;
mod headers;
mod plan;
mod skeleton;
mod sources;
pub mod trust;

pub use begin::{Begin, begin_at};
pub use clocks::watch_clocks;
pub use sources::{Source, Sources};

use crate::metrics::{Metrics, gauge};
use plan::Plan;
use skeleton::Skeleton;
use std::{sync::Arc, time::Duration};
use switchyard_consensus_core::EngineEvent;
use switchyard_primitives::{Header, Limits};
use switchyard_rpc::HubTip;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use trust::Judge;

/// Events that wait for the finalizer, as with the engine.
const EVENTS: usize = 64;
/// Requests for blocks that one source answers at a time.
const FETCHES: usize = 2;

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A source's answer to a request, and the start of a stream.
    pub answer: Duration,
    /// A chunk of blocks, 4 MiB at the most unless one block has more.
    pub chunk: Duration,
    /// After so long another source is asked for a chunk that holds everything up.
    pub patience: Duration,
    /// How long a source may not prove what others have proven, or what it says it has.
    pub silent: Duration,
    /// How often that is looked at.
    pub tick: Duration,
    /// How long a source is left alone that was away.
    pub away: Duration,
    /// How long a source is left alone that was bad, doubled each time.
    pub bad: Duration,
    /// The longest that a source is left alone.
    pub bad_max: Duration,
    /// How long a new node looks for its checkpoint's block.
    pub checkpoint: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            answer: seconds(5),
            chunk: seconds(15),
            patience: seconds(2),
            silent: seconds(10),
            tick: Duration::from_millis(500),
            away: seconds(2),
            bad: seconds(15),
            bad_max: seconds(600),
            checkpoint: seconds(60),
        }
    }
}

/// What copying has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncStatus {
    /// The highest block that a certificate has proven here.
    pub proven_height: u64,
    /// Its timestamp in milliseconds.
    pub proven_timestamp_ms: u64,
    /// Sources that have answered and are not left alone.
    pub good_sources: usize,
    /// All sources.
    pub sources: usize,
}

/// What [`start`] needs.
pub struct SyncParts {
    /// The nodes to copy from.
    pub sources: Arc<Sources>,
    /// What makes a block final.
    pub judge: Judge,
    /// Bounds of a block.
    pub limits: Limits,
    /// The node's durable tip: its header.
    pub header: Header,
    /// The durable tip, which moves with the events that are taken.
    pub tip: watch::Receiver<HubTip>,
    /// When things happen.
    pub timing: Timing,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// What the tasks share.
struct Shared {
    sources: Arc<Sources>,
    judge: Arc<Judge>,
    limits: Limits,
    skeleton: Skeleton,
    plan: Plan,
    /// There may be a chunk to take.
    work: Notify,
    /// A block was taken in.
    arrived: Notify,
    tip: watch::Receiver<HubTip>,
    timing: Timing,
    metrics: Arc<Metrics>,
}

impl Shared {
    /// Waits until the seats of an epoch are known, or all proven blocks are here and they still are not.
    async fn seats_for(&self, epoch: u64) {
        let mut tip = self.tip.clone();
        while !self.judge.knows(epoch) && tip.borrow_and_update().height < self.skeleton.tip().height {
            if tip.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Copying, to be taken apart.
pub struct Sync {
    /// Final blocks in order, as the engine reports them.
    pub events: mpsc::Receiver<EngineEvent>,
    /// What it has come to.
    pub status: watch::Receiver<SyncStatus>,
    /// Does the work; ends only when it is dropped, or when `events` is.
    pub run: futures::future::BoxFuture<'static, ()>,
}

/// Copying from the node's tip on. Nothing happens before `run` is polled, on a task of its own.
pub fn start(parts: SyncParts) -> Sync {
    let SyncParts { sources, judge, limits, header, tip, timing, metrics } = parts;
    let (events, received) = mpsc::channel(EVENTS);
    let initial = SyncStatus {
        proven_height: header.height,
        proven_timestamp_ms: header.timestamp_ms,
        good_sources: 0,
        sources: sources.all().len(),
    };
    let (status, seen) = watch::channel(initial);
    let shared = Arc::new(Shared {
        sources,
        judge: Arc::new(judge),
        limits,
        skeleton: Skeleton::new(&header, header.hash()),
        plan: Plan::new(header.height),
        work: Notify::new(),
        arrived: Notify::new(),
        tip,
        timing,
        metrics,
    });
    Sync { events: received, status: seen, run: Box::pin(run(shared, events, status)) }
}

async fn run(shared: Arc<Shared>, events: mpsc::Sender<EngineEvent>, status: watch::Sender<SyncStatus>) {
    // Aborts them all when this future is dropped.
    let mut tasks = tokio::task::JoinSet::new();
    for (index, source) in shared.sources.all().iter().enumerate() {
        tasks.spawn(headers::follow(shared.clone(), source.clone()));
        for fetch in 0..FETCHES {
            // The two of one source count as one: what it does not bring, another one must.
            let _ = fetch;
            tasks.spawn(bodies::fetch(shared.clone(), source.clone(), index));
        }
    }
    tasks.spawn(keep_status(shared.clone(), status));
    tasks.spawn(deliver(shared, events));
    // Each of them runs for ever; one that ends has panicked, or the node has no use for events any more.
    let ended = tasks.join_next().await;
    if let Some(Err(error)) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Hands blocks on in order.
async fn deliver(shared: Arc<Shared>, events: mpsc::Sender<EngineEvent>) {
    loop {
        let arrived = shared.arrived.notified();
        while let Some((height, fetched)) = shared.plan.next() {
            let plan::Fetched { block, certificate } = fetched;
            // Whoever waits for it watches the durable tip instead.
            let (ack, _) = oneshot::channel();
            if events.send(EngineEvent::Final { block, certificate, ack }).await.is_err() {
                return;
            }
            shared.skeleton.deliver(height);
            shared.work.notify_waiters();
        }
        arrived.await;
    }
}

async fn keep_status(shared: Arc<Shared>, status: watch::Sender<SyncStatus>) {
    let (mut tip, mut good) = (shared.skeleton.watch(), shared.sources.good());
    let sources = shared.sources.all().len();
    let mut silent_since: Option<Instant> = None;
    loop {
        let (proven, good_sources) = (*tip.borrow_and_update(), *good.borrow_and_update());
        shared.metrics.sync_proven_height.set(gauge(proven.height));
        status.send_replace(SyncStatus {
            proven_height: proven.height,
            proven_timestamp_ms: proven.timestamp_ms,
            good_sources,
            sources,
        });
        match (good_sources, silent_since) {
            (0, None) => silent_since = Some(Instant::now()),
            (1.., Some(since)) => {
                let after_ms = since.elapsed().as_millis();
                tracing::info!(good_sources, sources, height = proven.height, after_ms, "a source answers");
                silent_since = None;
            }
            _ => {}
        }
        let lost = async {
            match silent_since {
                Some(since) => tokio::time::sleep_until(since + shared.timing.silent).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = tip.changed() => if changed.is_err() { return },
            changed = good.changed() => if changed.is_err() { return },
            () = lost => {
                tracing::error!(
                    sources,
                    height = shared.plan.deliver().saturating_sub(1),
                    "no source answers: this node serves what it has and goes on trying; check [sync] sources"
                );
                silent_since = Some(Instant::now() + shared.timing.bad_max);
            }
        }
    }
}

/// Asks every source once, and says how high the highest tip is that one of them claims to have.
pub async fn ask(sources: &Sources, judge: &Judge, timing: &Timing) -> Option<u64> {
    let greetings = sources.all().iter().map(|source| source.greet(judge.network(), timing));
    futures::future::join_all(greetings).await;
    sources.claimed()
}

/// Waits until the durable tip is what the sources that answer say they have, or `patience` is over without any source that
/// answers. `false` for the latter.
pub async fn caught_up(
    sources: &Sources,
    status: &mut watch::Receiver<SyncStatus>,
    tip: &mut watch::Receiver<HubTip>,
    patience: Duration,
) -> bool {
    let mut deadline = Instant::now() + patience;
    loop {
        let (now, durable) = (*status.borrow_and_update(), tip.borrow_and_update().height);
        match sources.claimed() {
            Some(claimed) if durable >= claimed && durable >= now.proven_height => return true,
            Some(_) => deadline = Instant::now() + patience,
            None => {}
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return false },
            changed = tip.changed() => if changed.is_err() { return false },
            () = tokio::time::sleep_until(deadline) => return false,
        }
    }
}
