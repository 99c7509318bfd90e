//! Messages from one rollup to another that are neither delivered nor expired.

use crate::Failed;
use alloy_primitives::{B256, U256, keccak256};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use switchyard_bridge_core::predeploys;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::EvmChain;

/// Messages looked at in one round.
const SCAN_MAX: u64 = 4096;
/// Messages of one source that wait here; what is above waits in its outbox.
const WAITING_MAX: usize = 65_536;
/// A message younger than this, by its rollup's clock, goes before older ones.
const LIVE_SECONDS: u64 = 10;
/// Longest pause between two attempts to deliver a message whose recipient fails.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// A message that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Attempts so far that came to nothing.
    pub(crate) attempts: u32,
    not_before: Instant,
    /// By the source's block timestamps, seconds.
    sent_at: u64,
    /// The one that it must come after.
    previous: Option<u64>,
}

/// What one rollup has sent to another.
pub(crate) struct Queue {
    source: RollupId,
    destination: RollupId,
    /// Messages of the source's outbox that were looked at.
    scanned: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Messages under the newest root that the destination knows, or is about to.
    pub(crate) proven: Option<u64>,
}

impl Queue {
    pub(crate) fn new(source: RollupId, destination: RollupId) -> Self {
        Self { source, destination, scanned: 0, waiting: BTreeMap::new(), proven: None }
    }

    /// Looks at the outbox up to `count`, and leaves out what is settled at the destination already.
    pub(crate) fn scan(
        &mut self,
        from: &dyn EvmChain,
        to: &dyn EvmChain,
        count: u64,
        delay: Duration,
    ) -> Result<(), Failed> {
        let at_source = |source| Failed::Rollup { rollup: self.source, source };
        let end = count.min(self.scanned.saturating_add(SCAN_MAX));
        let not_before = Instant::now() + delay;
        let mut block = (0, 0);
        while self.scanned < end && self.waiting.len() < WAITING_MAX {
            let index = self.scanned;
            self.scanned += 1;
            // What was sent before this node's state began is another relayer's.
            let Some(sent) = from.sent(index).map_err(at_source)? else { continue };
            if sent.message.destination != self.destination || is_settled(to, self.destination, self.source, index)? {
                continue;
            }
            if block.0 != sent.block {
                block = (sent.block, from.header(sent.block).map_err(at_source)?.map_or(0, |header| header.timestamp));
            }
            let previous = sent.message.previous.checked_sub(1);
            self.waiting.insert(index, Waiting { attempts: 0, not_before, sent_at: block.1, previous });
        }
        Ok(())
    }

    /// Whether there may be something to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a message younger than the proven root waits.
    pub(crate) fn needs_proof(&self, count: u64) -> bool {
        let newest = self.waiting.range(..count).next_back();
        newest.is_some_and(|(index, _)| self.proven.is_none_or(|proven| *index >= proven))
    }

    /// What is to be tried now, live ones first: at most `live`, of which at most `old` are not. `now_s` is the source's clock.
    pub(crate) fn due(&self, now_s: u64, live: usize, old: usize) -> Vec<(u64, Waiting)> {
        let now = Instant::now();
        let known = |index: &u64| self.proven.is_some_and(|proven| *index < proven);
        let ready = |(index, w): &(&u64, &Waiting)| {
            // Behind the one that must come first only when that one is settled, or goes right before it.
            known(index)
                && w.not_before <= now
                && w.previous.is_none_or(|p| self.waiting.get(&p).is_none_or(|p| p.attempts == 0))
        };
        let is_live = |w: &Waiting| w.sent_at + LIVE_SECONDS >= now_s;
        let all = || self.waiting.iter().filter(ready).map(|(index, w)| (*index, *w));
        let first = all().filter(|(_, w)| is_live(w)).take(live).collect::<Vec<_>>();
        let rest = all().filter(|(_, w)| !is_live(w)).take(old.min(live - first.len()));
        first.iter().copied().chain(rest).collect()
    }

    /// An attempt that is under way: nothing more of it for a while.
    pub(crate) fn tried(&mut self, index: u64) {
        if let Some(waiting) = self.waiting.get_mut(&index) {
            waiting.not_before = Instant::now() + Duration::from_secs(30);
        }
    }

    /// An attempt that was decided.
    pub(crate) fn decided(&mut self, to: &dyn EvmChain, index: u64) -> Result<(), Failed> {
        if is_settled(to, self.destination, self.source, index)? {
            self.waiting.remove(&index);
        } else if let Some(waiting) = self.waiting.get_mut(&index) {
            waiting.attempts += 1;
            let pause = Duration::from_secs(1 << waiting.attempts.min(10));
            waiting.not_before = Instant::now() + pause.min(PAUSE_MAX);
        }
        Ok(())
    }
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
