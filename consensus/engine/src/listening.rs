//! Listening before the first vote: does somebody else sign with this validator's key?
//!
//! A second machine with the key (a copy, a backup that was started, a failover too many) has a record of its own, so the
//! sign guards do not see each other. Its votes are in certificates. So a validator signs nothing until it has heard enough of
//! them without its key in one that its record does not hold, or until there is nothing to hear.

use crate::runtime::EngineStatus;
use commonware_runtime::Clock;
use commonware_utils::sync::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use switchyard_consensus_core::Committee;
use switchyard_consensus_guard::Position;
use switchyard_primitives::B256;
use tokio::sync::watch;
use tracing::{debug, info};

/// Rounds of leaders whose certificates are listened to: in its own turn a twin's vote is the first one.
const TURNS: usize = 2;
/// A validator in a network that moves is silent for at most so long.
const LIMIT: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(100);

/// Whether this validator still listens, and what it has heard. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listening {
    silent: Arc<AtomicBool>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    newest: Option<Position>,
    views: usize,
}

/// When to stop listening.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Connections without which nothing can be decided, whether this validator votes or not.
    pub(crate) peers: usize,
    /// Where nothing new is certified for so long, the network waits for this validator.
    pub(crate) quiet: Duration,
    /// Views that are certified meanwhile.
    pub(crate) views: usize,
}

impl Plan {
    /// For a committee; none for a validator that is alone in it, and so has nobody to listen to.
    pub(crate) fn new(committee: &Committee, me: &B256, certification_timeout: Duration) -> Option<Self> {
        let mut others: Vec<u32> =
            committee.members().iter().filter(|m| m.seat.identity != *me).map(|m| m.seats).collect();
        if others.is_empty() {
            return None;
        }
        others.sort_unstable_by(|a, b| b.cmp(a));
        // The fewest that make a quorum with this one.
        let mut seats = committee.member(me).map_or(0, |m| m.seats as usize);
        let mut peers = 0;
        while seats < committee.seats().quorum() && peers < others.len() {
            seats += others[peers] as usize;
            peers += 1;
        }
        // In so long a leader that is down is passed, and the next one has its turn.
        Some(Self { peers, quiet: certification_timeout * 3, views: committee.seats().seats().len() * TURNS })
    }
}

impl Listening {
    /// One that is silent until [`Self::run`] has ended; views up to `known` are not new to it.
    pub(crate) fn since(known: Option<Position>) -> Self {
        let heard = Heard { newest: known, views: 0 };
        Self { silent: Arc::new(AtomicBool::new(true)), heard: Arc::new(Mutex::new(heard)) }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    /// A view has been certified.
    pub(crate) fn hear(&self, view: Position) {
        if self.is_silent() {
            let mut heard = self.heard.lock();
            if heard.newest.is_none_or(|newest| newest < view) {
                heard.newest = Some(view);
                heard.views += 1;
            }
        }
    }

    /// Ends the silence when it is time. Time counts while enough peers are connected; before that a vote could decide
    /// nothing, so nothing is lost.
    pub(crate) async fn run(self, clock: impl Clock, plan: Plan, status: watch::Receiver<EngineStatus>) {
        info!(views = plan.views, quiet_ms = plan.quiet.as_millis(), "listening for another validator with this key");
        let (mut connected, mut quiet, mut before) = (Duration::ZERO, Duration::ZERO, 0);
        loop {
            let views = self.heard.lock().views;
            quiet = if views == before { quiet } else { Duration::ZERO };
            before = views;
            if views >= plan.views || quiet >= plan.quiet || connected >= LIMIT {
                break;
            }
            clock.sleep(TICK).await;
            if status.borrow().peers_connected >= plan.peers {
                connected += TICK;
                quiet += TICK;
            } else {
                debug!(need = plan.peers, "listening: not enough validators are connected");
            }
        }
        self.silent.store(false, Ordering::Release);
        info!(views = before, waited_ms = connected.as_millis(), "nobody else signs with this key: voting begins");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic};

    const PLAN: Plan = Plan { peers: 2, quiet: Duration::from_secs(3), views: 8 };

    fn status(peers_connected: usize) -> (watch::Sender<EngineStatus>, watch::Receiver<EngineStatus>) {
        watch::channel(EngineStatus { peers_connected, ..EngineStatus::default() })
    }

    fn view(number: u64) -> Position {
        Position { epoch: 0, number }
    }

    /// How long a validator is silent that hears a new view each so often, in virtual time.
    fn silence(peers: usize, every: Option<Duration>) -> Option<Duration> {
        deterministic::Runner::timed(Duration::from_secs(100)).start(|clock| async move {
            let (_keep, status) = status(peers);
            let (start, listening) = (clock.current(), Listening::since(Some(view(9))));
            let run = listening.clone().run(clock.child("run"), PLAN, status);
            let talk = async {
                for number in 10.. {
                    clock.sleep(every.unwrap_or(Duration::from_secs(1000))).await;
                    listening.hear(view(number));
                }
            };
            futures::future::select(
                std::pin::pin!(run),
                std::pin::pin!(futures::future::select(
                    std::pin::pin!(talk),
                    std::pin::pin!(clock.sleep(Duration::from_secs(60))),
                )),
            )
            .await;
            (!listening.is_silent()).then(|| clock.current().duration_since(start).unwrap())
        })
    }

    #[test]
    fn a_validator_is_silent_until_it_has_heard_enough_or_there_is_nothing_to_hear() {
        let about = |found: Option<Duration>, seconds: f64| {
            let found = found.expect("silent for ever").as_secs_f64();
            assert!((found - seconds).abs() < 0.25, "{found} s, not {seconds}");
        };
        about(silence(2, None), 3.0);
        about(silence(3, Some(Duration::from_millis(500))), 4.0);
        about(silence(3, Some(Duration::from_millis(2900))), 23.2);
        // No view may be new for so long that the quiet ends first.
        about(silence(3, Some(Duration::from_secs(4))), 3.0);
        assert_eq!(silence(1, Some(Duration::from_secs(20))), None, "without a quorum nothing is lost by waiting");
    }

    #[test]
    fn only_views_above_the_record_and_above_each_other_count() {
        let listening = Listening::since(Some(view(9)));
        for number in [3, 9, 10, 10, 9, 12, 11] {
            listening.hear(view(number));
        }
        assert_eq!(listening.heard.lock().views, 2);
        let off = Listening::default();
        assert!(!off.is_silent());
    }
}
