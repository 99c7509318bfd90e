//! A rollup's ordered transactions in one block.

use crate::{B256, Bytes, DecodeError, Reader, RollupId, TxHash, Writer, keccak256, merkle};

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
        Self::commitment_of(self.rollup, self.transactions.iter().map(keccak256))
    }

    /// [`Self::commitment`] for one who has the transactions' hashes already.
    pub fn commitment_of(rollup: RollupId, hashes: impl ExactSizeIterator<Item = TxHash>) -> B256 {
        let count = hashes.len();
        let root = merkle::root(hashes);
        let mut w = Writer::with_capacity(44);
        w.u64(rollup.0);
        w.count(count);
        w.raw(root.as_slice());
        keccak256(w.into_vec())
    }

    /// Reads what stands before a segment's transactions in a block: rollup and number of transactions, `last` being the
    /// rollup of the segment before and `left` the transactions that the block may still hold, which is lowered.
    pub(crate) fn read_head(
        r: &mut Reader,
        last: Option<RollupId>,
        left: &mut usize,
    ) -> Result<(RollupId, usize), DecodeError> {
        let rollup = RollupId(r.u64("segment.rollup")?);
        if last.is_some_and(|last| last >= rollup) {
            return Err(DecodeError::Invalid { field: "segment.rollup", reason: "not in ascending order" });
        }
        let txs = r.count("segment.transactions", *left)?;
        if txs == 0 {
            return Err(DecodeError::Invalid { field: "segment.transactions", reason: "empty segment" });
        }
        *left -= txs;
        Ok((rollup, txs))
    }

    /// Length of the encoding inside a block body.
    pub fn encoded_len(&self) -> usize {
        12 + self.transactions.iter().map(|tx| 4 + tx.len()).sum::<usize>()
    }
}
