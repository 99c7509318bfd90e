//! No transaction is in the log twice within the replay window, so none is executed twice.

use super::{Verdict, violated};
use std::collections::HashMap;
use switchyard_primitives::{Block, TxKey};

/// Remembers where each transaction was.
#[derive(Debug, Default)]
pub struct Once {
    places: HashMap<TxKey, u64>,
}

impl Once {
    /// A block is final; told once for each validator.
    pub fn final_block(&mut self, block: &Block) -> Verdict {
        let height = block.header.height;
        let mut here = std::collections::HashSet::new();
        for key in block.keys() {
            let first = *self.places.entry(key).or_insert(height);
            if first != height || !here.insert(key) {
                return violated("once", format!("transaction {} is in block {first} and in block {height}", key.hash));
            }
        }
        Ok(())
    }

    /// Whether the log holds a transaction.
    pub fn holds(&self, key: &TxKey) -> bool {
        self.places.contains_key(key)
    }

    /// Transactions in the log.
    pub fn count(&self) -> usize {
        self.places.len()
    }
}
