//! The votes on bundles that checkpoints carry (`docs/specs/bundles.md`).
//!
//! A leg's vote is cast when its transaction leaves the queue: by the block that executes it, or at once where no block will.
//! Another's `Prepared` is a stray vote of the block that it is in. What no checkpoint has carried yet waits, in the database
//! too.

use crate::{
    changes::Changes,
    records::{VoteRecord, corrupt, decode},
    store::{Column, StateError, Store},
};
use alloy::{consensus::ReceiptEnvelope, sol_types::SolEvent};
use alloy_primitives::{B256, map::HashMap};
use std::collections::BTreeMap;
use switchyard_bridge_contracts::AtomicVault::Prepared;
use switchyard_bridge_core::{Ballot, Vote, predeploys::ATOMIC_VAULT};

/// Most votes of one checkpoint; the rest waits for the next. Part of the derivation rules.
pub(crate) const VOTES_MAX: usize = Vote::MAX;

/// A leg of a bundle in a hub block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) hub_height: u64,
    /// Its place among the hub block's legs for this rollup.
    pub(crate) place: u32,
    pub(crate) bundle: B256,
    pub(crate) leg: u8,
}

impl Leg {
    fn vote(self, ballot: Ballot) -> (Place, Vote) {
        let place = Place::Leg { hub_height: self.hub_height, place: self.place };
        (place, Vote { bundle: self.bundle, leg: self.leg, ballot })
    }

    /// The vote of a leg that no block executes.
    pub(crate) fn no(self) -> (Place, Vote) {
        self.vote(Ballot::No)
    }
}

/// Where a vote stands: those of legs in the log's order, then strays in the order of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Leg { hub_height: u64, place: u32 },
    Stray { block: u64, log: u32 },
}

impl Place {
    /// Ordered like the places. Kind u8, number u64, place u32.
    pub(crate) fn key(self) -> [u8; 13] {
        let (kind, number, place) = match self {
            Self::Leg { hub_height, place } => (0, hub_height, place),
            Self::Stray { block, log } => (1, block, log),
        };
        let mut key = [kind; 13];
        key[1..9].copy_from_slice(&number.to_be_bytes());
        key[9..].copy_from_slice(&place.to_be_bytes());
        key
    }

    fn of_key(key: &[u8]) -> Option<Self> {
        let (kind, rest) = key.split_first()?;
        let (number, place) = rest.split_first_chunk()?;
        let (number, place) = (u64::from_be_bytes(*number), u32::from_be_bytes(place.try_into().ok()?));
        match kind {
            0 => Some(Self::Leg { hub_height: number, place }),
            1 => Some(Self::Stray { block: number, log: place }),
            _ => None,
        }
    }

    /// Whether it was cast by hub blocks up to `hub_height`, given that strays are of earlier blocks. What a checkpoint carries
    /// besides must come again if derivation goes on after the checkpoint's hub block.
    pub(crate) fn is_of(self, hub_height: u64) -> bool {
        match self {
            Self::Leg { hub_height: of, .. } => of <= hub_height,
            Self::Stray { .. } => true,
        }
    }
}

/// Reads a record of [`Column::Votes`].
pub(crate) fn waiting_vote(key: &[u8], value: &[u8]) -> Result<(Place, Vote), StateError> {
    let place = Place::of_key(key).ok_or_else(|| corrupt(Column::Votes, key, "not the place of a vote"))?;
    let vote = decode::<VoteRecord>(Column::Votes, key, value)?.vote(Column::Votes, key)?;
    Ok((place, vote))
}

/// The votes of one block: those of `legs`, each with the position of its transaction's receipt if it has one, and strays.
pub(crate) fn cast(number: u64, receipts: &[ReceiptEnvelope], legs: &[(Leg, Option<usize>)]) -> Vec<(Place, Vote)> {
    let mut prepared = Vec::new();
    let logs = receipts.iter().enumerate().flat_map(|(at, receipt)| receipt.logs().iter().map(move |log| (at, log)));
    for (log, (at, content)) in (0u32..).zip(logs) {
        if content.address != ATOMIC_VAULT {
            continue;
        }
        if let Ok(event) = Prepared::decode_log(content) {
            prepared.push((log, (at, event.id, event.leg)));
        }
    }
    let mut own: HashMap<_, _> = prepared.iter().enumerate().map(|(i, (_, what))| (*what, i)).collect();
    let mut is_stray = vec![true; prepared.len()];
    let mut votes = Vec::with_capacity(legs.len());
    for (leg, receipt) in legs {
        let found = receipt.and_then(|at| own.remove(&(at, leg.bundle, leg.leg)));
        if let Some(stray) = found.and_then(|i| is_stray.get_mut(i)) {
            *stray = false;
        }
        votes.push(leg.vote(if found.is_some() { Ballot::Yes } else { Ballot::No }));
    }
    let strays = prepared.into_iter().zip(is_stray).filter(|(_, is_stray)| *is_stray);
    votes.extend(strays.map(|((log, (_, bundle, leg)), _)| {
        (Place::Stray { block: number, log }, Vote { bundle, leg, ballot: Ballot::Stray })
    }));
    votes
}

/// The votes that wait for a checkpoint.
///
/// They are no more than the log and the blocks hold that are kept anyway: legs that no block executed, and strays above
/// [`VOTES_MAX`], which only blocks of more than 60 million gas can have. Memory holds their number.
#[derive(Debug, Default)]
pub(crate) struct WaitingVotes {
    count: u64,
}

impl WaitingVotes {
    pub(crate) fn load(store: &Store) -> Result<Self, StateError> {
        let at = store.snapshot();
        let mut count = 0;
        for record in store.iterate(&at, Column::Votes, &[])? {
            record?;
            count += 1;
        }
        Ok(Self { count })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a vote.
    pub(crate) fn add(&mut self, changes: &mut Changes, (place, vote): (Place, Vote)) {
        self.count += 1;
        changes.votes.insert(place, Some(vote));
    }

    /// Takes out the votes for the checkpoint of a block that ends with hub block `hub_height`.
    pub(crate) fn take(
        &mut self,
        store: &Store,
        changes: &mut Changes,
        hub_height: u64,
    ) -> Result<Vec<Vote>, StateError> {
        if self.count == 0 {
            return Ok(Vec::new());
        }
        let fresh = changes.votes.iter().filter_map(|(place, vote)| Some((*place, ((*vote)?, false))));
        let mut first: BTreeMap<Place, (Vote, bool)> = fresh.collect();
        let at = store.snapshot();
        let mut stored = 0;
        for record in store.iterate(&at, Column::Votes, &[])? {
            let (key, value) = record?;
            let (place, vote) = waiting_vote(&key, &value)?;
            if !place.is_of(hub_height) || changes.votes.contains_key(&place) {
                continue;
            }
            first.insert(place, (vote, true));
            stored += 1;
            if stored == VOTES_MAX {
                break;
            }
        }
        let taken = first.into_iter().filter(|(place, _)| place.is_of(hub_height)).take(VOTES_MAX);
        Ok(taken
            .map(|(place, (vote, is_stored))| {
                self.count -= 1;
                if is_stored {
                    changes.votes.insert(place, None);
                } else {
                    changes.votes.remove(&place);
                }
                vote
            })
            .collect())
    }
}

#[cfg(test)]
mod tests;
