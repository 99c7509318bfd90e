//! What a validator has accepted for a client is in the log in the end.
//!
//! `accepted` says that validators with a quorum of the epoch's seats held the transaction. A mempool does not survive a crash,
//! and who has lost its seats makes no more blocks. So the promise stands as long as one honest validator that held it then has
//! not crashed since and either has seats, or is the one that accepted it and still in the stake table: that one sends it to the
//! others again and again. The others do not: each of them puts it into its own block when its turn to lead comes, which where one
//! is left with few seats, and blocks are empty, takes a round of all seats ([`turn_within`]).

use super::{Verdict, violated};
use std::collections::{BTreeMap, BTreeSet};
use switchyard_primitives::{B256, TxKey};

/// Blocks within which every one of so many seats has been the leader's, in a network that is well and whatever the moment.
///
/// View `v` of epoch `e` is led by seat `(e + v) mod seats`, and views begin anew with each epoch. In an epoch that is no shorter
/// than a round of the seats each has its turn; the round that an epoch's end breaks off is followed by a whole one. Each
/// shorter epoch begins one seat after the one before: a seat that it leaves out has its turn after at most
/// `seats - epoch_blocks` others that do so too, and the epoch that runs may have passed it already.
pub fn turn_within(seats: u64, epoch_blocks: u64) -> u64 {
    match seats.checked_sub(epoch_blocks) {
        None | Some(0) => seats.saturating_mul(2),
        Some(missing) => (missing + 2).saturating_mul(epoch_blocks),
    }
}

/// Who held a transaction when it was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The validator that accepted it, if it is honest.
    pub by: Option<usize>,
    /// Honest validators that held it.
    pub holders: BTreeSet<usize>,
}

/// Seats in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Of the honest holders.
    pub held: usize,
    /// Of those that are not honest.
    pub faulty: usize,
    /// A quorum.
    pub quorum: usize,
}

/// Who can still put a transaction into the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Able {
    /// Has seats.
    pub seated: BTreeSet<usize>,
    /// Is in the stake table.
    pub listed: BTreeSet<usize>,
}

/// Remembers promises.
#[derive(Debug, Default)]
pub struct Accepted {
    promises: BTreeMap<(u64, [u8; 32]), Held>,
    total: usize,
}

fn place(key: &TxKey) -> (u64, [u8; 32]) {
    (key.rollup.0, key.hash.0)
}

fn verdict(open: Option<(&(u64, [u8; 32]), &Held)>, able: &Able) -> Verdict {
    let Some(((rollup, hash), held)) = open else { return Ok(()) };
    let hash = B256::from(*hash);
    violated("accepted", format!("of rollup {rollup}, {hash} was accepted and is not in the log; {held:?}, {able:?}"))
}

impl Accepted {
    /// A client was told that its transaction is accepted, which these hold. `weights` are those of the epochs that may have
    /// been the one when it was: in one of them a quorum must have held it, of which the faulty seats may be a part.
    pub fn accepted(&mut self, key: &TxKey, held: Held, weights: &[Weight]) -> Verdict {
        self.total += 1;
        self.promises.insert(place(key), held);
        match weights.iter().any(|w| w.held + w.faulty >= w.quorum) {
            true => Ok(()),
            false => violated("accepted", format!("{} was accepted with no quorum: {weights:?}", key.hash)),
        }
    }

    /// A validator has crashed, and its mempool is gone.
    pub fn crashed(&mut self, validator: usize) {
        for held in self.promises.values_mut() {
            held.holders.remove(&validator);
            held.by = held.by.filter(|by| *by != validator);
        }
    }

    /// A transaction is final.
    pub fn ordered(&mut self, key: &TxKey) {
        self.promises.remove(&place(key));
    }

    fn open<'a>(&'a self, able: &'a Able) -> impl Iterator<Item = (&'a (u64, [u8; 32]), &'a Held)> {
        let stands = |held: &Held| {
            !held.holders.is_disjoint(&able.seated) || held.by.is_some_and(|by| able.listed.contains(&by))
        };
        self.promises.iter().filter(move |(_, held)| stands(held))
    }

    /// What is promised, can be kept and is not in the log.
    pub fn outstanding(&self, able: &Able) -> usize {
        self.open(able).count()
    }

    /// Once the network was well for long enough for what a validator has accepted and sends again.
    pub fn sent_again(&self, able: &Able) -> Verdict {
        let accepting = |held: &Held| held.by.is_some_and(|by| able.listed.contains(&by));
        verdict(self.open(able).find(|(_, held)| accepting(held)), able)
    }

    /// At the end of a run whose network was well until every seat has led.
    pub fn finish(&self, able: &Able) -> Verdict {
        verdict(self.open(able).next(), able)
    }

    /// How many promises there were.
    pub fn count(&self) -> usize {
        self.total
    }
}
