//! What stake quorums of operators certify is what validators have derived, each rollup block once and in order, and every
//! validator makes the same of it.

use super::{Verdict, derivation::Derivation, violated};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use switchyard_bridge_core::{BridgeRecord, BridgeState, CertifiedCheckpoint, Checkpoint, SystemState, votes_root};
use switchyard_primitives::{B256, Block, RollupId};

/// Follows the log's certificates.
#[derive(Debug, Default)]
pub struct Attested {
    height: u64,
    newest: BTreeMap<RollupId, Checkpoint>,
    certified: usize,
    votes: usize,
    /// After each final block, as the first validator had it.
    states: BTreeMap<u64, Arc<SystemState>>,
}

impl Attested {
    /// A block is final; told once for each validator, the first time for each height in order.
    pub fn final_block(&mut self, block: &Block, derivation: &Derivation) -> Verdict {
        let height = block.header.height;
        if height != self.height + 1 {
            return Ok(());
        }
        self.height = height;
        let mut certificates = 0;
        let records = block.transactions(RollupId::SYSTEM).iter().filter(|record| BridgeRecord::is_one(record));
        for record in records {
            let wrong = |what: String| violated("attested", format!("block {height}: {what}"));
            match BridgeRecord::decode(record) {
                Ok(BridgeRecord::Certificate(certificate)) => {
                    certificates += 1;
                    for entry in &certificate.entries {
                        self.certified(height, entry, derivation)?;
                    }
                }
                // Held against what was signed when rollups' blocks bring them (`conservation`).
                Ok(BridgeRecord::Bundle(_) | BridgeRecord::Deposits(_)) => {}
                other => return wrong(format!("a record that nobody has made: {other:?}")),
            }
            if certificates > 1 {
                return wrong(format!("{certificates} certificates"));
            }
        }
        Ok(())
    }

    fn certified(&mut self, height: u64, entry: &CertifiedCheckpoint, derivation: &Derivation) -> Verdict {
        let CertifiedCheckpoint { checkpoint, votes, .. } = entry;
        let Checkpoint { rollup, number, hub_height, .. } = *checkpoint;
        let wrong =
            |what: String| violated("attested", format!("block {height}, rollup {rollup} block {number}: {what}"));
        let before = self.newest.insert(rollup, *checkpoint);
        // Empty blocks aside, a rollup that is attested from its genesis on is certified from its first block on.
        let (expected, least) = before.map_or((1, 0), |before| (before.number + 1, before.hub_height));
        if number != expected {
            return wrong(format!("certified after {before:?}"));
        }
        if hub_height >= height || hub_height < least {
            return wrong(format!("said to be of hub block {hub_height}, after {before:?}"));
        }
        let derived = derivation.of((rollup, number));
        if derived != Some(checkpoint.hash()) {
            return wrong(format!("certified is {}, derived {derived:?}", checkpoint.hash()));
        }
        if votes_root(votes) != checkpoint.votes_root {
            return wrong("votes that its checkpoint does not commit to".into());
        }
        let cast: BTreeSet<_> = votes.iter().map(|vote| (vote.bundle, vote.leg, vote.ballot as u8)).collect();
        if cast.len() != votes.len() {
            return wrong(format!("a vote is cast twice: {votes:?}"));
        }
        self.certified += 1;
        self.votes += votes.len();
        Ok(())
    }

    /// A validator's state after a final block; `honest` names it if it is.
    pub fn state(&mut self, honest: Option<usize>, state: &Arc<SystemState>) -> Verdict {
        let height = state.next_height() - 1;
        let first = self.states.entry(height).or_insert_with(|| state.clone());
        match honest {
            Some(validator) if first.root() != state.root() => violated(
                "attested",
                format!("validator {validator} after block {height}: state {}, others {}", state.root(), first.root()),
            ),
            _ => Ok(()),
        }
    }

    /// The hub's state after a final block, as the first validator had it that came there.
    pub fn state_after(&self, height: u64) -> Option<&Arc<SystemState>> {
        self.states.get(&height)
    }

    /// The rollups of whose stake operators that are well have a quorum: honest, and always there in the end.
    pub fn able(&self, well: impl Fn(&B256) -> bool) -> BTreeSet<RollupId> {
        let Some((_, state)) = self.states.last_key_value() else { return BTreeSet::new() };
        let Some(bridge) = state.bridge() else { return BTreeSet::new() };
        let is_able = |rollup: RollupId| {
            let attesters = bridge.attesters(state, rollup);
            let stake = |all: bool| -> u128 {
                let counted = attesters.iter().filter(|(identity, ..)| all || well(identity));
                counted.map(|(_, _, stake)| u128::from(*stake)).sum()
            };
            BridgeState::is_quorum(stake(false), stake(true))
        };
        bridge.rollups().keys().copied().filter(|rollup| is_able(*rollup)).collect()
    }

    /// A rollup block that is not certified though [`Self::able`] operators are to.
    pub fn outstanding(&self, derivation: &Derivation, well: impl Fn(&B256) -> bool) -> Option<(RollupId, u64)> {
        let next = |rollup| (rollup, self.newest.get(&rollup).map_or(1, |newest| newest.number + 1));
        let mut due = self.able(well).into_iter().map(next);
        due.find(|(rollup, next)| derivation.newest(*rollup) >= *next)
    }

    /// Rollup blocks that are certified.
    pub fn count(&self) -> usize {
        self.certified
    }

    /// Votes of certified blocks.
    pub fn votes(&self) -> usize {
        self.votes
    }
}
