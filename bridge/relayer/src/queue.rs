//! Messages from one rollup to another that are neither delivered nor expired.

use crate::Failed;
use alloy_primitives::{B256, U256, keccak256};
use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};
use switchyard_bridge_core::{MessageKind, predeploys};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::EvmChain;

/// Messages looked at in one round.
pub(crate) const SCAN_MAX: u64 = 4096;
/// Messages of one source that wait here; what is above waits in its outbox.
const WAITING_MAX: usize = 65_536;
/// Of these, what only new ones may take.
const FOR_NEW: usize = 16_384;
/// A message that is not of a backlog goes before those that are, for so long.
const LIVE: Duration = Duration::from_secs(10);
/// More new messages than this at one look are a backlog, but for the newest few: these may be live.
const LIVE_MAX: u64 = 64;
const NEWEST: u64 = 8;
/// First pause after an attempt that came to nothing; twice as long after each further one.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest pause between two attempts to deliver a message whose recipient fails.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// After so long a relayer of a higher rank leaves a message to nobody, whatever the others deliver.
const YIELD_MAX: Duration = Duration::from_secs(60);

/// A message that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Attempts so far that came to nothing.
    pub(crate) attempts: u32,
    /// Its deadline has passed: it is to be ended.
    pub(crate) is_late: bool,
    /// Whether it goes before older ones.
    pub(crate) is_live: bool,
    is_notice: bool,
    is_sent: bool,
    not_before: Instant,
    seen: Instant,
    /// By the destination's block timestamps, seconds.
    deadline: u64,
    /// The one that it must come after.
    previous: Option<u64>,
}

/// What one rollup has sent to another.
pub(crate) struct Queue {
    source: RollupId,
    destination: RollupId,
    /// How long others have for a message before this relayer begins with it.
    delay: Duration,
    /// Below this each message of the source's outbox was looked at, but for those in `left`.
    scanned: u64,
    /// Older messages, to be looked at when there is time. Some may be looked at twice.
    left: Range<u64>,
    waiting: BTreeMap<u64, Waiting>,
    /// Notices that have arrived, whoever has brought them; what they tell of is to be paid back.
    notices: Vec<u64>,
    /// When somebody else was last seen to deliver.
    others: Option<Instant>,
    /// When a message was last seen that is not of a backlog.
    live: Option<Instant>,
    /// Messages under the newest root that the destination knows, or is about to.
    pub(crate) proven: Option<u64>,
}

impl Queue {
    pub(crate) fn new(source: RollupId, destination: RollupId, delay: Duration) -> Self {
        let (waiting, notices) = (BTreeMap::new(), Vec::new());
        Self {
            source,
            destination,
            delay,
            scanned: 0,
            left: 0..0,
            waiting,
            notices,
            others: None,
            live: None,
            proven: None,
        }
    }

    /// Looks at up to `most` messages of an outbox of `count`, and leaves out what is settled at the destination already. New messages
    /// come first, so that none waits until all older ones have been looked at.
    pub(crate) fn scan(
        &mut self,
        now: Instant,
        (from, to): (&dyn EvmChain, &dyn EvmChain),
        count: u64,
        most: u64,
    ) -> Result<(), Failed> {
        let mut looked = 0;
        if count > self.scanned {
            let first = self.scanned.max(count.saturating_sub(most));
            let live = if count - self.scanned <= LIVE_MAX { first } else { first.max(count.saturating_sub(NEWEST)) };
            self.leave(self.scanned..first);
            for (indices, is_live) in [(live..count, true), (first..live, false)] {
                let end = self.look(now, (from, to), indices.clone(), (is_live, WAITING_MAX))?;
                looked += end - indices.start;
                self.leave(end..indices.end);
            }
            self.scanned = count;
        }
        let end = self.left.end.min(self.left.start.saturating_add(most - looked));
        self.left.start = self.look(now, (from, to), self.left.start..end, (false, WAITING_MAX - FOR_NEW))?;
        Ok(())
    }

    /// Leaves some messages for when there is time.
    fn leave(&mut self, indices: Range<u64>) {
        if !indices.is_empty() {
            let start = if self.left.is_empty() { indices.start } else { self.left.start.min(indices.start) };
            self.left = start..self.left.end.max(indices.end);
        }
    }

    /// Looks at some messages, while fewer than `limit` wait; returns where it has stopped.
    fn look(
        &mut self,
        seen: Instant,
        (from, to): (&dyn EvmChain, &dyn EvmChain),
        indices: Range<u64>,
        (is_live, limit): (bool, usize),
    ) -> Result<u64, Failed> {
        let at_source = |source| Failed::Rollup { rollup: self.source, source };
        for index in indices.clone() {
            if self.waiting.len() >= limit {
                return Ok(index);
            }
            // What was sent before this node's state began is another relayer's.
            let Some(sent) = from.sent(index).map_err(at_source)? else { continue };
            if sent.message.destination != self.destination || self.waiting.contains_key(&index) {
                continue;
            }
            let is_notice = sent.message.kind == MessageKind::Notice;
            if is_settled(to, self.destination, self.source, index)? {
                self.notices.extend(is_notice.then_some(index));
                continue;
            }
            let waiting = Waiting {
                attempts: 0,
                is_late: false,
                is_live,
                is_notice,
                is_sent: false,
                not_before: seen + self.delay,
                seen,
                deadline: sent.message.deadline,
                previous: sent.message.previous.checked_sub(1),
            };
            self.waiting.insert(index, waiting);
            self.live = if is_live { Some(seen) } else { self.live };
        }
        Ok(indices.end)
    }

    /// Whether there may be something to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a message that is younger than the proven root is to be tried.
    pub(crate) fn needs_proof(&self, now: Instant, count: u64) -> bool {
        let mut unproven = self.waiting.range(self.proven.unwrap_or(0)..count.max(self.proven.unwrap_or(0)));
        unproven.any(|(_, waiting)| self.is_ready(waiting, now))
    }

    /// Whether it is this relayer's turn with a message.
    fn is_ready(&self, waiting: &Waiting, now: Instant) -> bool {
        let is_left_to_others = self.yields(now) && now < waiting.seen + YIELD_MAX;
        !waiting.is_sent && waiting.not_before <= now && !is_left_to_others
    }

    /// Whether lower ranks are at work: a second transaction for what they are about to deliver is wasted.
    pub(crate) fn yields(&self, now: Instant) -> bool {
        self.others.is_some_and(|at| now < at + self.delay)
    }

    /// Whether a message was seen lately that is not of a backlog: more of them may come.
    pub(crate) fn is_live(&self, now: Instant) -> bool {
        self.live.is_some_and(|at| now < at + LIVE)
    }

    /// What is to be tried now, live ones first: at most `live`, of which at most `old` are not. `block_s` is the least timestamp of a
    /// destination's block that holds what is sent now.
    pub(crate) fn due(&mut self, now: Instant, block_s: u64, live: usize, old: usize) -> Vec<(u64, Waiting)> {
        for waiting in self.waiting.values_mut() {
            waiting.is_live &= now < waiting.seen + self.delay + LIVE;
            if !waiting.is_late && !waiting.is_sent && waiting.deadline < block_s {
                // What has failed so far was to deliver it: ending it waits for nothing more.
                (waiting.is_late, waiting.attempts, waiting.not_before) = (true, 0, now + self.delay);
            }
        }
        let mut due = BTreeMap::new();
        let first = self.choose(now, true, live, &mut due);
        let rest = self.choose(now, false, old.min(live - first.len()), &mut due);
        first.into_iter().chain(rest).filter_map(|index| Some((index, due.remove(&index)?))).collect()
    }

    /// Chooses from those that are live, or not; adds them to `due` and returns them in their order.
    fn choose(&self, now: Instant, is_live: bool, most: usize, due: &mut BTreeMap<u64, Waiting>) -> Vec<u64> {
        let Some(proven) = self.proven else { return Vec::new() };
        let mut chosen = Vec::new();
        for (index, waiting) in self.waiting.range(..proven) {
            if chosen.len() == most {
                break;
            }
            // Behind the one that must come first only when that one is settled, or goes before it.
            let follows = |previous: u64| match self.waiting.get(&previous) {
                Some(first) => first.attempts == 0 && (first.is_sent || due.contains_key(&previous)),
                None => true,
            };
            if waiting.is_live == is_live && self.is_ready(waiting, now) && waiting.previous.is_none_or(follows) {
                due.insert(*index, *waiting);
                chosen.push(*index);
            }
        }
        chosen
    }

    /// Whether a message was settled by somebody else meanwhile. If so this one looks what else they have done, and leaves the rest
    /// to them for a while.
    pub(crate) fn is_settled(&mut self, now: Instant, to: &dyn EvmChain, index: u64) -> Result<bool, Failed> {
        if !self.waiting.contains_key(&index) {
            return Ok(true);
        }
        if !is_settled(to, self.destination, self.source, index)? {
            return Ok(false);
        }
        self.others = Some(now);
        let most = usize::try_from(SCAN_MAX).unwrap_or(usize::MAX);
        let waiting: Vec<u64> = self.waiting.iter().filter(|(_, w)| !w.is_sent).map(|(i, _)| *i).take(most).collect();
        for other in waiting.into_iter().chain([index]) {
            if is_settled(to, self.destination, self.source, other)? {
                self.settled(other);
            }
        }
        Ok(true)
    }

    fn settled(&mut self, index: u64) {
        if self.waiting.remove(&index).is_some_and(|waiting| waiting.is_notice) {
            self.notices.push(index);
        }
    }

    /// Notices that have arrived since this was last asked.
    pub(crate) fn arrived(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.notices)
    }

    /// An attempt is under way.
    pub(crate) fn sent(&mut self, index: u64) {
        if let Some(waiting) = self.waiting.get_mut(&index) {
            waiting.is_sent = true;
        }
    }

    /// An attempt was not sent after all, which is no fault of the message.
    pub(crate) fn unsent(&mut self, index: u64) {
        if let Some(waiting) = self.waiting.get_mut(&index) {
            waiting.is_sent = false;
        }
    }

    /// An attempt was decided; `is_ours` if it has not failed.
    pub(crate) fn decided(&mut self, now: Instant, to: &dyn EvmChain, index: u64, is_ours: bool) -> Result<(), Failed> {
        if is_settled(to, self.destination, self.source, index)? {
            self.others = if is_ours { self.others } else { Some(now) };
            self.settled(index);
        } else {
            self.failed(now, index);
        }
        Ok(())
    }

    /// An attempt has come to nothing: the next one waits.
    pub(crate) fn failed(&mut self, now: Instant, index: u64) {
        if let Some(waiting) = self.waiting.get_mut(&index) {
            waiting.is_sent = false;
            waiting.not_before = now + pause(waiting.attempts);
            waiting.attempts += 1;
        }
    }
}

/// Pauses between attempts that come to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pauses {
    attempts: u32,
    until: Option<Instant>,
}

impl Pauses {
    /// Whether the next attempt is due.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Another attempt has come to nothing.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.until = now.checked_add(pause(self.attempts));
        self.attempts = self.attempts.saturating_add(1);
    }
}

/// Until the next attempt, after so many earlier ones and another one that have come to nothing.
pub(crate) fn pause(attempts: u32) -> Duration {
    PAUSE.saturating_mul(1 << attempts.min(16)).min(PAUSE_MAX)
}

/// Slot of `Inbox._settled`.
const SETTLED: u64 = 0;

/// Whether a message is delivered or expired at its destination: not zero of its two bits.
pub(crate) fn settled_bits(chain: &dyn EvmChain, at: RollupId, source: RollupId, index: u64) -> Result<u64, Failed> {
    let word = |number: u64| B256::from(U256::from(number));
    let of_source = keccak256([word(source.0), word(SETTLED)].concat());
    let slot = keccak256([word(index >> 7), of_source].concat());
    let number = chain.head().header.number;
    let bits =
        chain.storage(number, predeploys::INBOX, slot).map_err(|source| Failed::Rollup { rollup: at, source })?;
    let place = usize::try_from((index & 127) * 2).unwrap_or(0);
    Ok((bits >> place).as_limbs()[0] & 3)
}

fn is_settled(chain: &dyn EvmChain, at: RollupId, source: RollupId, index: u64) -> Result<bool, Failed> {
    Ok(settled_bits(chain, at, source, index)? != 0)
}
