//! Attestation: what this node's operator says of its rollups' blocks, and how what a stake quorum says compares with what this
//! node has computed itself.
//!
//! Every node compares: `safe` follows, and a rollup of which something else was certified than what came out here is
//! diverged: the operator of this node challenges that, and attests nothing of the rollup unless VITAL finds the certified one
//! wrong. Ordering waits for none of this.

mod echo;
mod pool;
mod verdicts;
mod vital;

pub use pool::{Pool, WINDOW, record};

use crate::{
    hub::{HubError, HubStates},
    ingest::wire::{ATTESTATION_BYTES, ATTESTATIONS, Message},
    metrics::{Metrics, gauge},
    records::Records,
};
use alloy_primitives::B256;
use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use switchyard_bridge_core::{Attestation, Certified, Checkpoint, HubLeaf, Vote};
use switchyard_consensus_engine::{GossipSender, To};
use switchyard_consensus_guard::{Kind, Position, SignGuard, Statement};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::{EvmChain, EvmError};
use switchyard_rpc::HubTip;
use switchyard_store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vital::{Diverged, Judged, Step};
use zeroize::Zeroizing;

/// What is not certified for so long is sent again: a message may have been lost.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Certified checkpoints that wait until the rollup's execution here has come so far.
const UNCOMPARED_MAX: usize = 4096;

/// This node's operator.
pub struct Operator {
    /// Who it is.
    pub identity: B256,
    /// What it signs checkpoints with.
    pub secret: Zeroizing<[u8; 32]>,
    /// What it has signed.
    pub guard: SignGuard,
}

/// What [`Attest::run`] needs.
pub struct AttestParts {
    /// The hub's state.
    pub hub: HubStates,
    /// The log.
    pub store: Arc<dyn Store>,
    /// The rollups that run here.
    pub chains: BTreeMap<RollupId, Arc<dyn EvmChain>>,
    /// The next hub height that each of them executes.
    pub next: BTreeMap<RollupId, Arc<AtomicU64>>,
    /// The durable tip.
    pub tip: watch::Receiver<HubTip>,
    /// Changes when a rollup has made a block.
    pub closed: watch::Receiver<u64>,
    /// None where this node attests nothing.
    pub operator: Option<Operator>,
    /// Where operators' words are collected.
    pub pool: Arc<Pool>,
    /// The way to the other validators; none for a follower.
    pub gossip: Option<GossipSender>,
    /// The way into the log for challenges and evidence.
    pub records: Records,
    /// Where evidence of divergence is kept.
    pub evidence: PathBuf,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Why attestation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The log could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A rollup's state could not be read.
    #[error("rollup {rollup}: {source}")]
    Rollup {
        /// The rollup.
        rollup: RollupId,
        /// Why.
        source: EvmError,
    },
    /// The hub's state could not be read.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A leaf of the hub's accumulator does not decode.
    #[error("the hub's accumulator: leaf {index} is damaged")]
    Leaf {
        /// Its index.
        index: u64,
    },
}

/// Compares, and attests.
pub struct Attest {
    parts: AttestParts,
    /// Leaves of the hub's accumulator that were looked at.
    looked_at: u64,
    /// What was certified of rollups that run here and is ahead of their execution, oldest first.
    uncompared: BTreeMap<RollupId, VecDeque<Seen>>,
    /// Rollups of which there was more than is kept waiting: the first leaf to look at again.
    skipped: BTreeMap<RollupId, u64>,
    diverged: BTreeMap<RollupId, Diverged>,
    judged: Judged,
    /// The last number said of each rollup, and since when nothing of it was certified.
    said: BTreeMap<RollupId, Said>,
    /// What was not signed last of each rollup: said once.
    unsigned: BTreeMap<RollupId, u64>,
}

/// A certified checkpoint that is to be compared.
#[derive(Clone, Copy)]
struct Seen {
    /// Its leaf.
    leaf: u64,
    certified: Checkpoint,
    /// The height of the log when it was seen: its rollup has the block once it has come there, or never.
    at: u64,
}

#[derive(Clone, Copy)]
struct Said {
    next: u64,
    up_to: u64,
    since: Instant,
}

impl Attest {
    /// Begins with what is certified at the tip: earlier checkpoints were compared before, or are covered by that one.
    pub fn new(parts: AttestParts) -> Self {
        for rollup in parts.chains.keys() {
            // Alerts compare with what there is from the beginning.
            parts.metrics.certified_height.get_or_create(&(*rollup).into()).set(0);
            parts.metrics.diverged.get_or_create(&(*rollup).into()).set(0);
            parts.metrics.held.get_or_create(&(*rollup).into()).set(0);
        }
        let state = parts.hub.tip();
        let (mut uncompared, mut looked_at) = (BTreeMap::<_, VecDeque<_>>::new(), 0);
        let at = state.next_height();
        if let Some(bridge) = state.bridge() {
            looked_at = bridge.tree().count();
            let certified = bridge.rollups().iter().filter_map(|(id, rollup)| Some((*id, rollup.certified?)));
            let here = certified.filter(|(id, _)| parts.chains.contains_key(id));
            let seen = |c: Certified| Seen { leaf: c.index, certified: c.checkpoint, at };
            uncompared = here.map(|(id, c)| (id, VecDeque::from([seen(c)]))).collect();
        }
        let (skipped, diverged, judged) = (BTreeMap::new(), BTreeMap::new(), Judged::new());
        let (said, unsigned) = (BTreeMap::new(), BTreeMap::new());
        Self { parts, looked_at, uncompared, skipped, diverged, judged, said, unsigned }
    }

    /// Runs until cancelled. Blocking: on a thread of its own, with `runtime` to wait on.
    pub fn run(mut self, runtime: &tokio::runtime::Handle, stop: &CancellationToken) -> Result<(), AttestError> {
        while !stop.is_cancelled() {
            self.parts.tip.mark_unchanged();
            self.parts.closed.mark_unchanged();
            self.round(Instant::now())?;
            let (tip, closed) = (&mut self.parts.tip, &mut self.parts.closed);
            let more = runtime.block_on(async {
                tokio::select! {
                    changed = tip.changed() => changed.is_ok(),
                    changed = closed.changed() => changed.is_ok(),
                    () = tokio::time::sleep(AGAIN_AFTER) => true,
                    () = stop.cancelled() => false,
                }
            });
            if !more {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Compares what was certified since the last round, challenges what is wrong, judges what is challenged, passes on words that
    /// others may not have heard, and attests what is new. Blocking.
    pub fn round(&mut self, now: Instant) -> Result<(), AttestError> {
        self.read_certified()?;
        self.forgive()?;
        for rollup in self.uncompared.keys().copied().collect::<Vec<_>>() {
            self.compare(rollup)?;
        }
        self.show_held();
        self.pass_on();
        self.prove();
        self.challenge(now)?;
        self.judge(now)?;
        self.attest(now)
    }

    fn read_certified(&mut self) -> Result<(), AttestError> {
        let state = self.parts.hub.tip();
        let (count, at) = (state.bridge().map_or(0, |bridge| bridge.tree().count()), state.next_height());
        while self.looked_at < count {
            self.read_leaf(self.looked_at, at, None)?;
            self.looked_at += 1;
        }
        for (rollup, from) in self.skipped.clone() {
            if self.uncompared.get(&rollup).is_none_or(VecDeque::is_empty) {
                self.skipped.remove(&rollup);
                for index in from..count {
                    self.read_leaf(index, at, Some(rollup))?;
                }
            }
        }
        Ok(())
    }

    /// Takes note of a leaf; of one that was passed over before, if it is of this rollup.
    fn read_leaf(&mut self, index: u64, at: u64, only: Option<RollupId>) -> Result<(), AttestError> {
        // Those below a checkpoint with which the log begins are not here.
        let leaf = self.parts.store.bridge_leaf(index)?;
        let leaf = leaf.map(|leaf| HubLeaf::decode(&leaf)).transpose().map_err(|_| AttestError::Leaf { index })?;
        let Some(HubLeaf::Checkpoint(certified)) = leaf else { return Ok(()) };
        let rollup = certified.rollup;
        if only.is_none() {
            self.parts.pool.certified(&certified);
        }
        let is_here = self.parts.chains.contains_key(&rollup) && only.is_none_or(|only| only == rollup);
        if !is_here || self.skipped.contains_key(&rollup) {
            return Ok(());
        }
        let queue = self.uncompared.entry(rollup).or_default();
        if queue.len() < UNCOMPARED_MAX {
            queue.push_back(Seen { leaf: index, certified, at });
        } else {
            self.skipped.insert(rollup, index);
        }
        Ok(())
    }

    /// Holds a rollup's certified checkpoints against those that were computed here.
    fn compare(&mut self, rollup: RollupId) -> Result<(), AttestError> {
        let (Some(chain), Some(queue)) = (self.parts.chains.get(&rollup), self.uncompared.get_mut(&rollup)) else {
            return Ok(());
        };
        let failed = |source| AttestError::Rollup { rollup, source };
        while let Some(Seen { leaf, certified, at }) = queue.front().copied() {
            let Some(own) = self.parts.own(&**chain, &certified, at).map_err(failed)? else { break };
            queue.pop_front();
            let Own::Computed(own) = own else { continue };
            if own == certified {
                chain.set_attested(certified.number);
                self.parts.metrics.certified_height.get_or_create(&rollup.into()).set(gauge(certified.number));
                continue;
            }
            let found = Diverged { leaf, certified, own, challenge: Step::New };
            let before = self.diverged.get(&rollup).map(|diverged| &diverged.challenge);
            let is_first = before.is_none();
            // What comes later is challenged only where that is done with what came before.
            if is_first || matches!(before, Some(Step::Given)) {
                self.diverged.insert(rollup, found);
            }
            if is_first {
                self.parts.metrics.diverged.get_or_create(&rollup.into()).set(1);
                let evidence = keep_evidence(&self.parts.evidence, &certified, &own);
                tracing::error!(
                    %rollup,
                    number = certified.number,
                    certified_block = %certified.block_hash,
                    own_block = %own.block_hash,
                    certified_state = %certified.state_root,
                    own_state = %own.state_root,
                    evidence,
                    "a quorum of operators has certified another block than this node has computed: this node attests nothing \
                     of this rollup unless VITAL finds that wrong"
                );
            }
        }
        Ok(())
    }

    fn attest(&mut self, now: Instant) -> Result<(), AttestError> {
        let Some(operator) = &self.parts.operator else { return Ok(()) };
        let state = self.parts.hub.tip();
        let Some(bridge) = state.bridge() else { return Ok(()) };
        let Some(own) = bridge.operators().get(&operator.identity).filter(|own| own.gone_at.is_none()) else {
            return Ok(());
        };
        let mut words = Vec::new();
        for rollup in own.rollups.iter().filter(|rollup| !self.diverged.contains_key(rollup)) {
            let (Some(chain), Some(next)) = (self.parts.chains.get(rollup), bridge.next_number(*rollup)) else {
                continue;
            };
            let failed = |source| AttestError::Rollup { rollup: *rollup, source };
            let head = chain.head().header.number;
            // The hub cannot know with which block a rollup begins. So no other one is attested before that is certified: a proposer
            // that left it out would lose its votes.
            let (next, window) = match next {
                Some(next) => (next, WINDOW),
                None => (first_number(&**chain, head).map_err(failed)?, 1),
            };
            let begun = Said { next, up_to: next.saturating_sub(1), since: now };
            let said = self.said.entry(*rollup).or_insert(begun);
            if said.next != next {
                *said = Said { next, up_to: said.up_to.max(next.saturating_sub(1)), since: now };
            } else if now.duration_since(said.since) > AGAIN_AFTER {
                *said = begun;
            }
            let last = head.min(next.saturating_add(window - 1));
            for number in said.up_to.saturating_add(1)..=last {
                let Some(own) = chain.checkpoint(number).map_err(failed)? else { break };
                match operator.sign(state.network(), own.checkpoint, own.votes) {
                    Ok(word) => words.push(word),
                    Err(error) => {
                        if self.unsigned.insert(*rollup, number) != Some(number) {
                            tracing::error!(%rollup, number, error, "a checkpoint is not attested");
                        }
                        break;
                    }
                }
                said.up_to = number;
            }
        }
        self.parts.say(words);
        Ok(())
    }
}

impl Operator {
    /// Signs what the guard lets it sign.
    fn sign(&self, network: B256, checkpoint: Checkpoint, votes: Vec<Vote>) -> Result<Attestation, String> {
        let position = Position { epoch: 0, number: checkpoint.number };
        let (scope, digest) = (checkpoint.rollup.0, checkpoint.hash());
        let statement = Statement { kind: Kind::Checkpoint, scope, position, digest };
        self.guard.permit(statement).map_err(|refusal| refusal.to_string())?;
        Attestation::sign(network, self.identity, checkpoint, votes, &self.secret).map_err(|error| error.to_string())
    }
}

/// What a node has of a certified block.
enum Own {
    /// This.
    Computed(Checkpoint),
    /// Nothing any more, or it was never computed here.
    Unknown,
}

impl AttestParts {
    /// What this node has in the place of a certified block that was in the log by a height; none while it has not come so far. Of a block
    /// that its rollup has not made by then there is no hash and no root.
    fn own(&self, chain: &dyn EvmChain, certified: &Checkpoint, at: u64) -> Result<Option<Own>, EvmError> {
        let Checkpoint { rollup, number, hub_height, .. } = *certified;
        // Read before the head: what was executed by then is in it.
        let next = self.next.get(&rollup).map_or(0, |next| next.load(Ordering::Acquire));
        if chain.head().header.number < number {
            return Ok((next > at).then_some(Own::Computed(Checkpoint::none(rollup, number, hub_height))));
        }
        Ok(Some(chain.checkpoint(number)?.map_or(Own::Unknown, |own| Own::Computed(own.checkpoint))))
    }

    /// Tells everyone this operator's words.
    fn say(&self, words: Vec<Attestation>) {
        let (mut message, mut bytes) = (Vec::new(), 0);
        for word in words {
            bytes += Checkpoint::LEN + 140 + 34 * word.votes.len();
            message.push(word.clone());
            self.pool.add(word);
            if message.len() == ATTESTATIONS || bytes >= ATTESTATION_BYTES {
                self.tell(std::mem::take(&mut message));
                bytes = 0;
            }
        }
        if !message.is_empty() {
            self.tell(message);
        }
    }

    /// Tells the other validators words of whomever.
    fn tell(&self, attestations: Vec<Attestation>) {
        // One that is lost is sent again.
        self.send(Message::Attestations { id: 0, attestations });
    }

    fn send(&self, message: Message) {
        if let Some(gossip) = &self.gossip {
            gossip.send(To::All, message.encode().0);
        }
    }
}

/// Where attestation of a rollup begins: its first block that has seen the hub's accumulator. Earlier blocks are of a protocol
/// without operators.
fn first_number(chain: &dyn EvmChain, head: u64) -> Result<u64, EvmError> {
    let (mut low, mut high) = (1, head.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let root = chain.header(middle)?.and_then(|header| header.parent_beacon_block_root);
        if root.is_some_and(|root| !root.is_zero()) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// Writes both checkpoints to a file; returns its name, or why there is none.
fn keep_evidence(folder: &std::path::Path, certified: &Checkpoint, own: &Checkpoint) -> String {
    let shown = |c: &Checkpoint| {
        serde_json::json!({
            "rollup": c.rollup, "number": c.number, "hub_height": c.hub_height, "block_hash": c.block_hash,
            "state_root": c.state_root, "outbox_root": c.outbox_root, "votes_root": c.votes_root,
        })
    };
    let text = serde_json::json!({ "certified": shown(certified), "own": shown(own) }).to_string();
    let path = folder.join(format!("rollup-{}-block-{}.json", own.rollup, own.number));
    match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text)) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("not kept: {error}"),
    }
}

#[cfg(test)]
mod tests;
