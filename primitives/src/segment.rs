//! A rollup's ordered transactions in one block.

use crate::{B256, Bytes, RollupId, Writer, keccak256, merkle};

/// The ordered transactions of one rollup in one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whose transactions these are.
    pub rollup: RollupId,
    /// The transactions' bytes in order; never empty in a valid block.
    pub transactions: Vec<Bytes>,
}

impl Segment {
    /// `keccak(rollup u64 | count u32 | transactions root 32)`, where the root is the Merkle root over the
    /// transactions' hashes.
    pub fn commitment(&self) -> B256 {
        let root = merkle::root(self.transactions.iter().map(keccak256));
        let mut w = Writer::with_capacity(44);
        w.u64(self.rollup.0);
        w.count(self.transactions.len());
        w.raw(root.as_slice());
        keccak256(w.into_vec())
    }

    /// Length of the encoding inside a block body.
    pub fn encoded_len(&self) -> usize {
        12 + self.transactions.iter().map(|tx| 4 + tx.len()).sum::<usize>()
    }
}
