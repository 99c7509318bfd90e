//! Fills proposals from the mempool at the hub's pace, and judges those of others.

use crate::{
    attest::{self, Pool},
    config,
    hub::HubStates,
    machine::{Machine, blocking},
    metrics::Metrics,
};
use alloy_primitives::{B256, keccak256};
use futures::StreamExt;
use parking_lot::Mutex;
use std::{collections::HashSet, num::NonZeroUsize, sync::Arc, time::Duration};
use switchyard_bridge_core::{BridgeError, BridgeRecord, BridgeState, BundleRecord, Draft, SystemError, SystemState};
use switchyard_consensus_core::{Ancestors, BlockBuilder, InvalidBlock};
use switchyard_mempool::{Budget, Mempool, Selected, Selection};
use switchyard_primitives::{Block, Bytes, Header, Limits, RollupId, Segment, TxKey};
use switchyard_rpc::HubTip;
use switchyard_store::{Store, StoreError};
use tokio::sync::watch;

/// How far ahead of this node's clock a block's timestamp may be before the node waits with its vote.
const MAX_CLOCK_AHEAD_MS: u64 = 500;

/// Blocks whose transaction keys are kept: those between the durable tip and the newest proposals.
const PENDING_BLOCKS: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// The rules by which blocks are made and judged; part of the network's genesis.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Block limits.
    pub limits: Limits,
    /// Rollups that may have a segment.
    pub rollups: HashSet<RollupId>,
    /// A transaction may not be in the log twice within this many blocks.
    pub replay_window_blocks: u64,
}

/// The node's [`BlockBuilder`].
#[derive(Clone)]
pub struct HubBuilder(Arc<Inner>);

/// What [`HubBuilder::new`] needs.
pub struct BuilderParts {
    /// The rules of the network.
    pub rules: Rules,
    /// How fast blocks are made.
    pub pace: config::Consensus,
    /// The log.
    pub store: Arc<dyn Store>,
    /// The hub's state.
    pub hub: HubStates,
    /// What waits.
    pub mempool: Arc<Mempool>,
    /// The newest block that is in the store and taken out of the mempool: the blocks above it are looked at one by one.
    pub tip: watch::Receiver<HubTip>,
    /// Where operators' signatures become certificates.
    pub pool: Arc<Pool>,
    /// Bumped whenever a transaction enters the mempool.
    pub waiting: watch::Receiver<u64>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Clock, timers and threads.
    pub machine: Arc<dyn Machine>,
}

struct Inner {
    parts: BuilderParts,
    /// Transaction keys of valid blocks above the tip, by block hash.
    pending: Mutex<lru::LruCache<B256, Arc<HashSet<TxKey>>>>,
    /// The height last proposed here, and how many times the byte budget is halved.
    proposed: Mutex<(u64, u32)>,
}

/// With this part of a block's bytes to include, a block is made without regard to the minimum interval.
const BUSY_PART: usize = 8;

/// A budget is halved at most this many times: to a 1024th.
const HALVINGS_MAX: u32 = 10;
/// How often a leader tries to make a certificate, after it has found words that are not signed.
const SIFTINGS_MAX: usize = 4;
/// What one transaction takes in a body besides its bytes.
const ENVELOPE_BYTES: usize = 32;
/// What a segment takes in a body besides its transactions, at the most.
const SEGMENT_BYTES: usize = 32;

/// What is left of `interval_ms` since a block's timestamp; never more than the whole, whatever the clocks say.
fn until(parent: &Header, interval_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(interval_ms.saturating_sub(now_ms.saturating_sub(parent.timestamp_ms)))
}

/// How long to wait with the vote for a block whose leader's clock is ahead of this node's.
fn ahead(block: &Header, now_ms: u64) -> Duration {
    Duration::from_millis(block.timestamp_ms.saturating_sub(now_ms.saturating_add(MAX_CLOCK_AHEAD_MS)))
}

/// A budget without what one more record takes.
fn less(budget: Budget, bytes: usize) -> Budget {
    Budget {
        bytes: budget.bytes.saturating_sub(bytes + SEGMENT_BYTES + ENVELOPE_BYTES),
        transactions: budget.transactions.saturating_sub(1),
        segments: budget.segments.saturating_sub(1),
    }
}

fn rule(rule: &'static str, detail: impl Into<String>) -> InvalidBlock {
    InvalidBlock::Rule { rule, detail: detail.into() }
}

/// What lies between the tip and a new block.
struct Above {
    /// The keys of the transactions in each block.
    keys: Vec<Arc<HashSet<TxKey>>>,
    /// The hub's state after all of it.
    state: Arc<SystemState>,
}

/// What a proposal holds of operators' signatures: the records, and the state with them.
struct Certified {
    records: Vec<Bytes>,
    draft: Draft,
}

/// Puts a block's system segment together: the certificate and the verdicts, the records of the bundles whose legs were selected, and of those that
/// were submitted the ones that the state allows, one after the other. The others' segments as they are.
fn segments(
    state: &SystemState,
    certified: Option<Certified>,
    Selection { segments: mut selected, bundles }: Selection,
) -> Result<Vec<Selected>, SystemError> {
    let is_system = |selected: &Selected| selected.segment.rollup == RollupId::SYSTEM;
    let candidates = selected.iter().position(is_system).map(|place| selected.remove(place).segment.transactions);
    let (records, mut draft) = match certified {
        Some(Certified { records, draft }) => (records, draft),
        None => (Vec::new(), state.draft()),
    };
    let bundles: Vec<Bytes> = bundles.into_iter().map(|bundle| BridgeRecord::Bundle(bundle).encode()).collect();
    draft.add_all(&bundles)?;
    let admissible = candidates.map_or_else(Vec::new, |candidates| draft.admissible(candidates));
    let transactions: Vec<Bytes> = records.into_iter().chain(bundles).chain(admissible).collect();
    if !transactions.is_empty() {
        let hashes = transactions.iter().map(keccak256).collect();
        // Segments are in the order of their rollups, and this is the first.
        selected.insert(0, Selected { segment: Segment { rollup: RollupId::SYSTEM, transactions }, hashes });
    }
    Ok(selected)
}

impl HubBuilder {
    /// A builder over a node's store and mempool.
    pub fn new(parts: BuilderParts) -> Self {
        let pending = Mutex::new(lru::LruCache::new(PENDING_BLOCKS));
        Self(Arc::new(Inner { parts, pending, proposed: Mutex::default() }))
    }

    /// Whether one of the last valid blocks seen here holds the transaction.
    pub fn is_ordered(&self, key: &TxKey) -> bool {
        self.0.pending.lock().iter().any(|(_, keys)| keys.contains(key))
    }
}

impl Inner {
    fn known_keys(&self, hash: &B256) -> Option<Arc<HashSet<TxKey>>> {
        self.pending.lock().get(hash).cloned()
    }

    /// The keys of a block's transactions, computed once and off the async threads.
    async fn keys(self: &Arc<Self>, block: Arc<Block>) -> Option<Arc<HashSet<TxKey>>> {
        let hash = block.hash();
        if let Some(keys) = self.known_keys(&hash) {
            return Some(keys);
        }
        let hashed = blocking(&*self.parts.machine, move || block.keys().collect::<HashSet<TxKey>>()).await;
        let keys = hashed.inspect_err(|error| tracing::error!(%error, "hashing a block failed")).ok()?;
        let keys = Arc::new(keys);
        self.pending.lock().put(hash, keys.clone());
        Some(keys)
    }

    /// What the blocks from `parent` down to the tip, which may rise meanwhile, hold and lead to.
    async fn above_tip(self: &Arc<Self>, parent: &Arc<Block>, mut ancestors: Ancestors) -> Option<Above> {
        let (mut keys, mut blocks) = (Vec::new(), Vec::new());
        let mut next = Some(parent.clone());
        while let Some(block) = next.take().filter(|b| b.header.height > self.parts.tip.borrow().height) {
            let height = block.header.height;
            keys.push(self.keys(block.clone()).await?);
            blocks.push(block);
            next = ancestors.next().await;
            // An ancestry that breaks off says nothing of what is below.
            if next.is_none() && height > self.parts.tip.borrow().height + 1 {
                return None;
            }
        }
        let state = match self.parts.hub.after(parent) {
            Some(state) => state,
            None => {
                let inner = self.clone();
                let followed = blocking(&*self.parts.machine, move || inner.state_after(&blocks));
                followed.await.inspect_err(|error| tracing::error!(%error, "following blocks failed")).ok()??
            }
        };
        // What follows a protocol that is not known here is neither built nor voted for.
        self.parts.hub.knows(&state).then_some(Above { keys, state })
    }

    /// The state after the newest of these blocks, which come newest first and down to the tip. `None` if the tip has risen
    /// past them: then nobody waits for an answer any more.
    fn state_after(&self, blocks: &[Arc<Block>]) -> Option<Arc<SystemState>> {
        let hub = &self.parts.hub;
        let known = blocks.iter().enumerate().find_map(|(i, block)| Some((i, hub.after(block)?)));
        let (above, mut state) = known.unwrap_or_else(|| (blocks.len(), hub.tip()));
        for block in blocks[..above].iter().rev() {
            let followed = hub.follow(&state, block);
            state = followed.inspect_err(|error| tracing::debug!(%error, "an ancestor does not follow")).ok()?;
        }
        Some(state)
    }

    /// What the mempool has for a block on a state, on top of ancestors that hold `excluded`, off the async threads.
    async fn select(
        self: &Arc<Self>,
        state: &Arc<SystemState>,
        excluded: &Arc<HashSet<TxKey>>,
        budget: Budget,
    ) -> Option<Selection> {
        let (inner, excluded, state) = (self.clone(), excluded.clone(), state.clone());
        let selected = blocking(&*self.parts.machine, move || {
            let height = state.next_height();
            let (mut taken, mut legs) = (0, 0);
            inner.parts.mempool.select(budget, &excluded, |id, record| {
                let has_room =
                    |bridge: &BridgeState| bridge.bundles_left(record.deadline.saturating_sub(height)) > taken;
                let may = |bridge: &BridgeState| bridge.may_include(id, record, height).is_ok() && has_room(bridge);
                let has_place = legs + record.legs.len() <= BundleRecord::LEGS_PER_BLOCK;
                let may = has_place && state.bridge().is_some_and(may);
                if may {
                    (taken, legs) = (taken + 1, legs + record.legs.len());
                }
                may
            })
        })
        .await;
        selected.inspect_err(|error| tracing::error!(%error, "selecting transactions failed")).ok()
    }

    /// The certificate and the verdicts that a block on `state` brings, if operators have signed some; off the async threads.
    async fn certify(self: &Arc<Self>, state: &Arc<SystemState>) -> Option<Certified> {
        let (inner, state) = (self.clone(), state.clone());
        let certified = blocking(&*self.parts.machine, move || {
            let pool = &inner.parts.pool;
            let (mut records, mut draft) = (Vec::new(), state.draft());
            let mut add = |record: Bytes| match draft.add(&record) {
                Ok(()) => {
                    records.push(record);
                    false
                }
                Err(error) => {
                    tracing::warn!(%error, "operators' signatures make no record");
                    error == SystemError::Bridge(BridgeError::Signature)
                }
            };
            for _ in 0..SIFTINGS_MAX {
                let certificate = pool.certificate(&state, inner.parts.rules.limits.transaction_bytes);
                let Some(certificate) = certificate else { break };
                let is_unsigned = add(attest::record(certificate.clone()));
                if !is_unsigned || !pool.sift(&state, &certificate.entries) {
                    break;
                }
            }
            for (challenge, verdict) in pool.verdicts(&state) {
                if add(BridgeRecord::Verdict(verdict).encode()) {
                    pool.sift_verdict(&state, &challenge);
                }
            }
            (!records.is_empty()).then_some(Certified { records, draft })
        });
        certified.await.inspect_err(|error| tracing::error!(%error, "making a certificate failed")).ok()?
    }

    /// What a block at `height` may hold. Where machines are too slow for full blocks, each leader in turn would miss its
    /// timeout with one: so a height that is proposed again gets half of it, and later heights grow back.
    fn budget(&self, height: u64) -> Budget {
        let mut proposed = self.proposed.lock();
        let (last, halvings) = *proposed;
        let halvings = match height == last {
            true => (halvings + 1).min(HALVINGS_MAX),
            false => halvings.saturating_sub(1),
        };
        *proposed = (height, halvings);
        let Limits { body_bytes, transaction_bytes, .. } = self.parts.rules.limits;
        let least = (transaction_bytes + ENVELOPE_BYTES).min(body_bytes);
        Budget { bytes: (body_bytes >> halvings).max(least), ..Budget::from(&self.parts.rules.limits) }
    }

    fn check_static(&self, block: &Block, parent: &Block) -> Result<(), InvalidBlock> {
        let Header { timestamp_ms, origins_root, .. } = block.header;
        if timestamp_ms < parent.header.timestamp_ms {
            let detail = format!("{timestamp_ms} is before the parent's {}", parent.header.timestamp_ms);
            return Err(rule("timestamp", detail));
        }
        if origins_root != B256::ZERO {
            return Err(rule("origins", format!("{origins_root}: nothing can back it on this network")));
        }
        let known = |id| id == RollupId::SYSTEM || self.parts.rules.rollups.contains(&id);
        match block.segments().iter().find(|s| !known(s.rollup)) {
            Some(segment) => Err(rule("rollup", format!("unknown rollup {}", segment.rollup))),
            None => Ok(()),
        }
    }

    /// Refuses a transaction that the log already holds within the replay window.
    fn check_replays(
        &self,
        block: &Block,
        keys: &HashSet<TxKey>,
        above: &[Arc<HashSet<TxKey>>],
    ) -> Result<Result<(), InvalidBlock>, StoreError> {
        if keys.len() != block.transaction_count() {
            return Ok(Err(rule("replay", "a transaction is in the block twice")));
        }
        if let Some(key) = keys.iter().find(|key| above.iter().any(|set| set.contains(key))) {
            return Ok(Err(rule("replay", format!("{} is in an ancestor", key.hash))));
        }
        let keys: Vec<TxKey> = keys.iter().copied().collect();
        let height = block.header.height;
        let window = height.saturating_sub(self.parts.rules.replay_window_blocks)..height;
        for (key, place) in keys.iter().zip(self.parts.store.locate_many(&keys)?) {
            if let Some((at, _)) = place.filter(|(at, _)| window.contains(at)) {
                return Ok(Err(rule("replay", format!("{} is in block {at}", key.hash))));
            }
        }
        Ok(Ok(()))
    }
}

impl BlockBuilder for HubBuilder {
    async fn build(&self, parent: Arc<Block>, ancestors: Ancestors) -> Option<Block> {
        let inner = &self.0;
        let Above { keys, state } = inner.above_tip(&parent, ancestors).await?;
        let excluded: Arc<HashSet<TxKey>> = Arc::new(keys.iter().flat_map(|keys| keys.iter().copied()).collect());
        let BuilderParts { rules, pace, machine, .. } = &inner.parts;
        let (mut waiting, mut ready) = (inner.parts.waiting.clone(), inner.parts.pool.ready());
        let mut heartbeat = machine.sleep(until(&parent.header, pace.heartbeat_ms, machine.now_ms()));
        let budget = inner.budget(parent.header.height + 1);
        let mut due = false;
        let (selected, certified) = loop {
            // Before the look at the mempool, so that nothing that comes after it goes unnoticed.
            waiting.mark_unchanged();
            ready.mark_unchanged();
            let certified = inner.certify(&state).await;
            let records = certified.iter().flat_map(|certified| &certified.records);
            let budget = records.fold(budget, |budget, record| less(budget, record.len()));
            let selected = inner.select(&state, &excluded, budget).await?;
            let bytes: usize = selected.segments.iter().map(|s| s.segment.encoded_len()).sum();
            if due || bytes >= rules.limits.body_bytes / BUSY_PART {
                break (selected, certified);
            }
            if !selected.segments.is_empty() || certified.is_some() {
                let early = until(&parent.header, pace.min_interval_ms, machine.now_ms());
                if early.is_zero() {
                    break (selected, certified);
                }
                machine.sleep(early).await;
                continue;
            }
            tokio::select! {
                // A fixed order: the simulation repeats a run exactly.
                biased;
                // Not everything that becomes includable says so (accounts and fees move on with execution): look again.
                () = &mut heartbeat => due = true,
                changed = waiting.changed() => changed.ok()?,
                changed = ready.changed() => changed.ok()?,
            }
        };
        let header = state.stamp(Header {
            parent: parent.hash(),
            height: parent.header.height + 1,
            timestamp_ms: machine.now_ms().max(parent.header.timestamp_ms),
            ..Header::genesis(B256::ZERO, 0, B256::ZERO)
        });
        let inner = inner.clone();
        let built = blocking(&**machine, move || {
            // What was selected is what the state allows.
            let selected = segments(&state, certified, selected)
                .inspect_err(|error| tracing::error!(%error, "bundles that may be included were refused"))
                .ok()?;
            let (segments, hashes) = selected.into_iter().map(|s| (s.segment, s.hashes)).unzip();
            let block = Block::with_hashes(header, segments, hashes);
            inner.pending.lock().put(block.hash(), Arc::new(block.keys().collect()));
            Some(block)
        });
        built.await.inspect_err(|error| tracing::error!(%error, "building a block failed")).ok()?
    }

    fn held(&self, keys: &[TxKey]) -> Vec<Option<Bytes>> {
        self.0.parts.mempool.get_many(keys)
    }

    async fn judge(&self, block: Arc<Block>, parent: Arc<Block>, ancestors: Ancestors) -> Result<(), InvalidBlock> {
        let verdict = self.judge_inner(block, parent, ancestors).await;
        if let Err(error) = &verdict {
            let reason = match error {
                InvalidBlock::Commitment(_) => "commitment",
                InvalidBlock::Rule { rule, .. } => rule,
            };
            self.0.parts.metrics.invalid_blocks.get_or_create(&crate::metrics::ReasonLabel { reason }).inc();
        }
        verdict
    }
}

impl HubBuilder {
    async fn judge_inner(
        &self,
        block: Arc<Block>,
        parent: Arc<Block>,
        ancestors: Ancestors,
    ) -> Result<(), InvalidBlock> {
        let inner = &self.0;
        inner.check_static(&block, &parent)?;
        let machine = &*inner.parts.machine;
        machine.sleep(ahead(&block.header, machine.now_ms())).await;
        // A verdict must not depend on this node's troubles: without its store it does not vote.
        let above = inner.above_tip(&parent, ancestors).await;
        let Some(Above { keys: above, state }) = above else { return std::future::pending().await };
        let worker = inner.clone();
        let checked = blocking(machine, move || {
            let keys = block.keys().collect();
            let verdict = match worker.parts.hub.follow(&state, &block) {
                Ok(_) => worker.check_replays(&block, &keys, &above),
                Err(error) => Ok(Err(rule("hub_state", error.to_string()))),
            };
            if matches!(verdict, Ok(Ok(()))) {
                worker.pending.lock().put(block.hash(), Arc::new(keys));
            }
            verdict
        });
        match checked.await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot judge a proposal");
                std::future::pending().await
            }
            Err(error) => {
                tracing::error!(%error, "judging a proposal failed");
                std::future::pending().await
            }
        }
    }
}

#[cfg(test)]
mod tests;
