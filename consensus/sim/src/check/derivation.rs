//! All validators derive the same rollup blocks, state roots included, across crashes too.

use super::{Verdict, violated};
use std::collections::BTreeMap;
use switchyard_primitives::{B256, RollupId};

/// Remembers each rollup's checkpoints.
#[derive(Debug, Default)]
pub struct Derivation {
    checkpoints: BTreeMap<(RollupId, u64), (B256, B256)>,
}

impl Derivation {
    /// A validator has derived a rollup block: `hash` is its checkpoint's, `state_root` its state's.
    pub fn derived(&mut self, validator: usize, place: (RollupId, u64), hash: B256, state_root: B256) -> Verdict {
        let (rollup, number) = place;
        match *self.checkpoints.entry(place).or_insert((hash, state_root)) {
            same if same == (hash, state_root) => Ok(()),
            other => violated(
                "derivation",
                format!(
                    "validator {validator}, rollup {rollup} block {number}: {hash}, {state_root}; others {other:?}"
                ),
            ),
        }
    }

    /// The hash of the checkpoint that all who have derived a rollup block have derived.
    pub fn of(&self, place: (RollupId, u64)) -> Option<B256> {
        self.checkpoints.get(&place).map(|(hash, _)| *hash)
    }

    /// The number of a rollup's newest block; 0 while there is none.
    pub fn newest(&self, rollup: RollupId) -> u64 {
        let mut blocks = self.checkpoints.range((rollup, 0)..=(rollup, u64::MAX));
        blocks.next_back().map_or(0, |((_, number), _)| *number)
    }

    /// Rollup blocks that somebody has derived.
    pub fn count(&self) -> usize {
        self.checkpoints.len()
    }
}
