//! All validators' logs are prefixes of one log, across crashes too.

use super::{Verdict, violated};
use std::collections::BTreeMap;
use switchyard_primitives::{B256, Block};

/// Holds the one log.
#[derive(Debug)]
pub struct Agreement {
    log: BTreeMap<u64, B256>,
    /// The next height of each validator's present life, once it has had one.
    next: BTreeMap<usize, u64>,
}

impl Agreement {
    /// A log that holds only genesis.
    pub fn new(genesis: B256) -> Self {
        Self { log: BTreeMap::from([(0, genesis)]), next: BTreeMap::new() }
    }

    /// A validator begins anew, with a store that ends at `height`.
    pub fn started(&mut self, validator: usize, height: u64) {
        self.next.insert(validator, height + 1);
    }

    /// A validator was told that a block is final.
    pub fn final_block(&mut self, validator: usize, block: &Block) -> Verdict {
        let (height, hash) = (block.header.height, block.hash());
        let next = self.next.entry(validator).or_insert(height);
        if height != *next {
            return violated("agreement", format!("validator {validator} got block {height}, not {next}"));
        }
        *next += 1;
        let below = height.checked_sub(1).and_then(|below| self.log.get(&below));
        if below != Some(&block.header.parent) {
            let parent = block.header.parent;
            return violated("agreement", format!("validator {validator}, block {height}: on {parent}, not {below:?}"));
        }
        match *self.log.entry(height).or_insert(hash) {
            agreed if agreed == hash => Ok(()),
            agreed => violated("agreement", format!("validator {validator}, block {height}: {hash}, others {agreed}")),
        }
    }

    /// The highest block that any validator was told of.
    pub fn height(&self) -> u64 {
        self.log.last_key_value().map_or(0, |(height, _)| *height)
    }
}
