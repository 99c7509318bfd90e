//! What a validator has accepted for a client is in the log in the end.
//!
//! `accepted` says that a quorum held the transaction. A mempool does not survive a crash, so the promise stands as long as
//! one honest validator that held it then has not crashed since.

use super::{Verdict, violated};
use std::collections::{BTreeMap, BTreeSet};
use switchyard_primitives::TxKey;

/// Remembers promises.
#[derive(Debug, Default)]
pub struct Accepted {
    holders: BTreeMap<(u64, [u8; 32]), BTreeSet<usize>>,
    total: usize,
}

fn place(key: &TxKey) -> (u64, [u8; 32]) {
    (key.rollup.0, key.hash.0)
}

impl Accepted {
    /// A client was told that its transaction is accepted; these honest validators hold it, with `held` seats. A quorum must,
    /// of which at most the `faulty` seats are not honest.
    pub fn accepted(
        &mut self,
        key: &TxKey,
        holders: BTreeSet<usize>,
        held: usize,
        (quorum, faulty): (usize, usize),
    ) -> Verdict {
        self.total += 1;
        self.holders.insert(place(key), holders);
        match held + faulty >= quorum {
            true => Ok(()),
            false => violated(
                "accepted",
                format!("{} was accepted with {held} honest seats, {faulty} faulty ones, quorum {quorum}", key.hash),
            ),
        }
    }

    /// A validator has crashed, and its mempool is gone.
    pub fn crashed(&mut self, validator: usize) {
        for holders in self.holders.values_mut() {
            holders.remove(&validator);
        }
    }

    /// A transaction is final.
    pub fn ordered(&mut self, key: &TxKey) {
        self.holders.remove(&place(key));
    }

    /// What is promised, held and not in the log.
    pub fn outstanding(&self) -> usize {
        self.holders.values().filter(|holders| !holders.is_empty()).count()
    }

    /// At the end of a run whose network was well for long enough.
    pub fn finish(&self) -> Verdict {
        match self.holders.iter().find(|(_, holders)| !holders.is_empty()) {
            Some(((rollup, hash), holders)) => violated(
                "accepted",
                format!(
                    "of rollup {rollup}, {} was accepted and is not in the log; held by {holders:?}",
                    switchyard_primitives::B256::from(*hash)
                ),
            ),
            None => Ok(()),
        }
    }

    /// How many promises there were.
    pub fn count(&self) -> usize {
        self.total
    }
}
