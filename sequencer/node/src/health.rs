//! Whether the node lives, and whether it can serve: what `/livez` and `/readyz` answer.

use crate::{
    clock,
    hub::HubStates,
    metrics::{Metrics, gauge},
    sync::SyncStatus,
};
use futures::FutureExt;
use parking_lot::Mutex;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use switchyard_consensus_core::Committee;
use switchyard_consensus_engine::{EngineStatus, Stopped};
use switchyard_rpc::{
    HubTip,
    http::{Probe, Problem},
};
use tokio::sync::watch;

/// Heartbeats after which a head is too old to serve from.
const READY_HEARTBEATS: u32 = 10;
/// Final blocks that the store may be behind the engine. It writes them faster than they come.
const STORE_BEHIND_MAX: u64 = 256;
/// Most parts whose end is remembered.
const ENDED_MAX: usize = 16;
/// How often free space is looked up.
const DISK_INTERVAL: Duration = Duration::from_secs(10);

/// The parts of the node that have ended although it runs, and why.
#[derive(Clone, Default)]
pub(crate) struct Parts(Arc<Mutex<Vec<String>>>);

impl Parts {
    /// Remembers an end.
    pub(crate) fn ended(&self, why: String) {
        let mut ended = self.0.lock();
        if ended.len() < ENDED_MAX {
            ended.push(why);
        }
    }
}

/// Fails when a part has ended or the engine has stopped: only a restart helps.
pub(crate) fn live(parts: Parts, engine: Option<Stopped>) -> Probe {
    Arc::new(move || {
        let mut problems: Vec<Problem> =
            parts.0.lock().iter().map(|why| Problem { code: "part_ended", message: why.clone() }).collect();
        if let Some(ended) = engine.clone().and_then(|mut engine| engine.wait().now_or_never()) {
            let message = ended.map_or_else(|error| error.to_string(), |()| "consensus has stopped".into());
            problems.push(Problem { code: "engine_stopped", message });
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    })
}

/// Where final blocks come from.
#[derive(Clone)]
pub(crate) enum Feed {
    /// Consensus.
    Engine {
        /// What the engine does.
        status: watch::Receiver<EngineStatus>,
        /// Tells how many validators a quorum takes.
        hub: HubStates,
    },
    /// Other nodes.
    Sync(watch::Receiver<SyncStatus>),
}

impl Feed {
    /// What is wrong with it.
    fn problem(&self) -> Option<Problem> {
        match self {
            Self::Engine { status, hub } => {
                let EngineStatus { peers_connected, clocks_apart, .. } = *status.borrow();
                let reached = peers_connected + 1;
                // Which validators are connected is not known here: at least so many are needed, if they are those with
                // most seats.
                let quorum = fewest_of_a_quorum(hub.tip().current());
                let mut message =
                    format!("{reached} of the {quorum} validators of a quorum are connected, this one included");
                if clocks_apart > 0 {
                    message += &format!(
                        "; {clocks_apart} were refused because their clocks differ from this machine's: run chrony or \
                         systemd-timesyncd"
                    );
                }
                (reached < quorum).then_some(Problem { code: "no_quorum", message })
            }
            Self::Sync(status) => {
                let SyncStatus { good_sources, sources, .. } = *status.borrow();
                let message = format!("none of {sources} sources answers truly; check [sync] sources");
                (good_sources == 0).then_some(Problem { code: "no_source", message })
            }
        }
    }

    /// The highest block known to be final.
    fn final_height(&self) -> u64 {
        match self {
            Self::Engine { status, .. } => status.borrow().finalized_height,
            Self::Sync(status) => status.borrow().proven_height,
        }
    }
}

/// What readiness is judged by.
pub(crate) struct Ready {
    /// Where final blocks come from.
    pub(crate) feed: Feed,
    /// The durable tip.
    pub(crate) tip: watch::Receiver<HubTip>,
    /// An idle hub makes a block this often.
    pub(crate) heartbeat: Duration,
    /// Holds what is known of the clock.
    pub(crate) metrics: Arc<Metrics>,
}

impl Ready {
    /// Fails while what this node serves is stale, or will be.
    pub(crate) fn probe(self) -> Probe {
        Arc::new(move || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let problems = self.problems(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
            if problems.is_empty() { Ok(()) } else { Err(problems) }
        })
    }

    fn problems(&self, now_ms: u64) -> Vec<Problem> {
        let tip = *self.tip.borrow();
        let mut problems: Vec<Problem> = self.feed.problem().into_iter().collect();
        let age = Duration::from_millis(now_ms.saturating_sub(tip.timestamp_ms));
        let bound = self.heartbeat * READY_HEARTBEATS;
        if tip.height == 0 {
            problems.push(Problem { code: "head_old", message: "no final block yet".into() });
        } else if age > bound {
            let (age, bound) = (age.as_secs_f64(), bound.as_secs_f64());
            let message = format!("the newest final block, {}, is {age:.1} s old, at most {bound:.1} s", tip.height);
            problems.push(Problem { code: "head_old", message });
        }
        let lag_ms = self.metrics.clock_lag_ms.get();
        if lag_ms <= -clock::BEHIND_MS {
            let message = format!("this clock is at least {} ms behind a leader's", lag_ms.unsigned_abs());
            problems.push(Problem { code: "clock_behind", message });
        }
        let behind = self.feed.final_height().saturating_sub(tip.height);
        if behind > STORE_BEHIND_MAX {
            let message = format!("{behind} final blocks are not in the store yet");
            problems.push(Problem { code: "store_behind", message });
        }
        problems
    }
}

/// Fewest validators that hold a quorum of the seats.
fn fewest_of_a_quorum(committee: &Committee) -> usize {
    let mut seats: Vec<usize> = committee.members().iter().map(|m| m.seats as usize).collect();
    seats.sort_unstable_by_key(|seats| std::cmp::Reverse(*seats));
    let mut sum = 0;
    let below = seats.iter().take_while(|seats| {
        sum += **seats;
        sum < committee.seats().quorum()
    });
    below.count() + 1
}

/// Keeps the gauge of free space fresh. Never returns.
pub(crate) async fn keep_disk_gauge(metrics: Arc<Metrics>, data_dir: PathBuf) {
    let mut tick = tokio::time::interval(DISK_INTERVAL);
    loop {
        tick.tick().await;
        let path = data_dir.clone();
        match tokio::task::spawn_blocking(move || rustix::fs::statvfs(&path)).await {
            Ok(Ok(stat)) => drop(metrics.disk_free.set(gauge(stat.f_bavail.saturating_mul(stat.f_frsize)))),
            Ok(Err(error)) => tracing::warn!(%error, "free space of the data directory is not known"),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchyard_primitives::{B256, Header};
    use switchyard_store::MemoryStore;

    const NOW_MS: u64 = 1_000_000_000;

    /// A quorum is three validators.
    fn four() -> HubStates {
        let store = Arc::new(MemoryStore::new(Header::genesis(B256::ZERO, 0, B256::ZERO)));
        crate::hub::tests::of_equals(store, &[1, 2, 3, 4].map(B256::repeat_byte))
    }

    /// The codes of what keeps a node from being ready whose head is `age_ms` old.
    fn codes(peers_connected: usize, height: u64, finalized_height: u64, age_ms: u64) -> Vec<&'static str> {
        let engine = EngineStatus { peers_connected, finalized_height, voting: true, ..EngineStatus::default() };
        let tip = HubTip { height, hash: B256::ZERO, timestamp_ms: NOW_MS - age_ms };
        codes_of(Feed::Engine { status: watch::channel(engine).1, hub: four() }, tip)
    }

    fn codes_of(feed: Feed, tip: HubTip) -> Vec<&'static str> {
        let metrics = Arc::new(Metrics::default());
        metrics.saw(tip.timestamp_ms, NOW_MS);
        let ready = Ready { feed, tip: watch::channel(tip).1, heartbeat: Duration::from_secs(1), metrics };
        ready.problems(NOW_MS).iter().map(|problem| problem.code).collect()
    }

    #[test]
    fn a_node_whose_clock_is_behind_is_not_ready() {
        let codes = |ahead_ms| {
            let status = SyncStatus { proven_height: 5, proven_timestamp_ms: 0, good_sources: 1, sources: 1 };
            let tip = HubTip { height: 5, hash: B256::ZERO, timestamp_ms: NOW_MS + ahead_ms };
            codes_of(Feed::Sync(watch::channel(status).1), tip)
        };
        assert!(codes(499).is_empty());
        assert_eq!(codes(10_000), ["clock_behind"]);
    }

    #[test]
    fn a_node_without_a_quorum_says_whether_clocks_are_the_reason() {
        let message = |clocks_apart| {
            let engine = EngineStatus { clocks_apart, ..EngineStatus::default() };
            let feed = Feed::Engine { status: watch::channel(engine).1, hub: four() };
            feed.problem().unwrap().message
        };
        assert!(!message(0).contains("clocks"));
        assert!(message(2).contains("2 were refused because their clocks differ"), "{}", message(2));
    }

    #[test]
    fn a_follower_is_ready_with_a_source_and_a_fresh_head() {
        let codes = |good_sources, proven_height, age_ms| {
            let status = SyncStatus { proven_height, proven_timestamp_ms: 0, good_sources, sources: 2 };
            let tip = HubTip { height: 5, hash: B256::ZERO, timestamp_ms: NOW_MS - age_ms };
            codes_of(Feed::Sync(watch::channel(status).1), tip)
        };
        assert!(codes(1, 5, 0).is_empty());
        assert_eq!(codes(0, 5, 0), ["no_source"]);
        assert_eq!(codes(1, 6 + STORE_BEHIND_MAX, 20_000), ["head_old", "store_behind"]);
    }

    #[test]
    fn a_node_is_ready_with_a_quorum_a_fresh_head_and_a_store_that_keeps_up() {
        assert!(codes(2, 5, 5, 10_000).is_empty());
        assert!(codes(3, 5, 5 + STORE_BEHIND_MAX, 0).is_empty());
        assert_eq!(codes(1, 5, 5, 0), ["no_quorum"]);
        assert_eq!(codes(2, 5, 5, 10_001), ["head_old"]);
        assert_eq!(codes(2, 0, 0, 0), ["head_old"]);
        assert_eq!(codes(2, 5, 6 + STORE_BEHIND_MAX, 0), ["store_behind"]);
        assert_eq!(codes(0, 0, 1000, 0), ["no_quorum", "head_old", "store_behind"]);
    }
}
