//! Bundles are in the log whole, and decided as the log says: committed where each leg's yes is certified, aborted by the first
//! other vote or at the deadline.
//!
//! The rules are followed here by other code than the validators'. What the hub's accumulator has gained in a block must be
//! what follows from its records, leaf for leaf.

use super::{Verdict, violated};
use std::collections::{BTreeMap, BTreeSet};
use switchyard_bridge_core::{
    Ballot, BridgeRecord, Bundle, BundleRecord, CertifiedCheckpoint, HubLeaf, SystemState, Vote,
};
use switchyard_primitives::{B256, Block, RollupId, TxKey};

/// What has become of a bundle that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// As the log has it.
    pub record: BundleRecord,
    /// The hub block that holds it.
    pub included: u64,
    /// Legs whose yes is certified.
    pub yes: BTreeSet<u8>,
    /// Whether it is committed, and by which hub block; none while it is open.
    pub decided: Option<(bool, u64)>,
}

/// Follows the log's bundles.
#[derive(Debug, Default)]
pub struct Bundles {
    height: u64,
    fates: BTreeMap<B256, Fate>,
    /// Legs that were prepared outside their bundle, and are given back.
    released: BTreeSet<(B256, RollupId, u8)>,
    /// What the newest block adds to the accumulator.
    leaves: Vec<HubLeaf>,
}

impl Bundles {
    /// A block is final; told once for each validator, the first time for each height in order.
    pub fn final_block(&mut self, block: &Block) -> Verdict {
        let height = block.header.height;
        if height != self.height + 1 {
            return Ok(());
        }
        self.height = height;
        self.leaves.clear();
        let mut legs = BTreeSet::new();
        for record in block.transactions(RollupId::SYSTEM) {
            match BridgeRecord::is_one(record).then(|| BridgeRecord::decode(record)) {
                Some(Ok(BridgeRecord::Certificate(certificate))) => {
                    certificate.entries.iter().for_each(|entry| self.certified(entry));
                }
                Some(Ok(BridgeRecord::Bundle(bundle))) => self.included(block, bundle, &mut legs)?,
                _ => {}
            }
        }
        let is_due = |fate: &Fate| fate.decided.is_none() && fate.record.deadline <= height;
        let due: Vec<B256> = self.fates.iter().filter(|(_, fate)| is_due(fate)).map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.decide(id, false));
        Ok(())
    }

    fn included(&mut self, block: &Block, record: BundleRecord, legs: &mut BTreeSet<TxKey>) -> Verdict {
        let (id, included) = (record.id(), self.height);
        let wrong = |what: String| violated("bundles", format!("block {included}, bundle {id}: {what}"));
        if record.deadline <= included || !(Bundle::LEGS_MIN..=Bundle::LEGS_MAX).contains(&record.legs.len()) {
            return wrong(format!("{record:?}"));
        }
        for (index, leg) in record.legs.iter().enumerate() {
            let there = block.transactions(leg.rollup).iter().any(|tx| TxKey::of(leg.rollup, tx).hash == leg.tx);
            if !there || !legs.insert(TxKey { rollup: leg.rollup, hash: leg.tx }) {
                return wrong(format!("leg {index} is not in the block, or another's too"));
            }
        }
        let fate = Fate { record, included, yes: BTreeSet::new(), decided: None };
        match self.fates.insert(id, fate) {
            None => Ok(()),
            Some(before) => wrong(format!("was included before: {before:?}")),
        }
    }

    fn certified(&mut self, entry: &CertifiedCheckpoint) {
        self.leaves.push(HubLeaf::Checkpoint(entry.checkpoint));
        for vote in &entry.votes {
            self.vote(entry.checkpoint.rollup, vote);
        }
    }

    fn vote(&mut self, rollup: RollupId, vote: &Vote) {
        let Vote { bundle, leg, ballot } = *vote;
        let open = self.fates.get_mut(&bundle).filter(|fate| fate.decided.is_none());
        let voted = open.filter(|fate| fate.record.legs.get(usize::from(leg)).is_some_and(|l| l.rollup == rollup));
        match (voted, ballot) {
            (Some(fate), Ballot::Yes) => {
                fate.yes.insert(leg);
                if fate.yes.len() == fate.record.legs.len() {
                    self.decide(bundle, true);
                }
            }
            (Some(_), Ballot::No | Ballot::Stray) => self.decide(bundle, false),
            (None, Ballot::Stray) => {
                self.released.insert((bundle, rollup, leg));
                self.leaves.push(HubLeaf::Release { bundle, rollup, leg });
            }
            (None, Ballot::Yes | Ballot::No) => {}
        }
    }

    fn decide(&mut self, bundle: B256, committed: bool) {
        let height = self.height;
        if let Some(fate) = self.fates.get_mut(&bundle) {
            fate.decided = Some((committed, height));
            self.leaves.push(HubLeaf::Decision { bundle, committed, height });
        }
    }

    /// A validator's state after a final block: the first is held against the log.
    pub fn state(&mut self, state: &SystemState) -> Verdict {
        let (height, Some(bridge)) = (state.next_height() - 1, state.bridge()) else { return Ok(()) };
        let added: Vec<HubLeaf> = bridge.added().leaves.iter().map(|(_, leaf)| *leaf).collect();
        match height == self.height && added != self.leaves {
            true => violated("bundles", format!("block {height} adds {added:?}, by the log {:?}", self.leaves)),
            false => Ok(()),
        }
    }

    /// What has become of a bundle; none while the log does not hold it.
    pub fn fate(&self, id: &B256) -> Option<&Fate> {
        self.fates.get(id)
    }

    /// All bundles in the log.
    pub fn fates(&self) -> &BTreeMap<B256, Fate> {
        &self.fates
    }

    /// Legs that were prepared outside their bundle.
    pub fn released(&self) -> &BTreeSet<(B256, RollupId, u8)> {
        &self.released
    }

    /// How many bundles are committed, and how many aborted.
    pub fn decided(&self) -> (usize, usize) {
        let decided = || self.fates.values().filter_map(|fate| fate.decided);
        let committed = decided().filter(|(committed, _)| *committed).count();
        (committed, decided().count() - committed)
    }
}
