//! A block that names its transactions instead of carrying them, for peers that hold most of them already (as in BIP 152,
//! with whole hashes: short ones would let a sender make two of its transactions collide).

use crate::{
    Block, BlockError, Bytes, DecodeError, Header, Limits, Reader, RollupId, Segment, SegmentTable, TableEntry, TxHash,
    TxKey, Writer,
};

/// A block's header and its transactions' hashes, to which the header commits: so it proves itself to be what the header
/// names before a single transaction is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactBlock {
    header: Header,
    /// Sorted by rollup id, none empty.
    segments: Vec<(RollupId, Vec<TxHash>)>,
    /// The table that the hashes make.
    table: SegmentTable,
}

/// Why transactions do not make the block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// Not one transaction for each name.
    #[error("{actual} transactions for {named} names")]
    Count {
        /// Transactions that the block names.
        named: usize,
        /// Transactions given.
        actual: usize,
    },
    /// The header speaks of another length.
    #[error(transparent)]
    Commitment(#[from] BlockError),
    /// The transactions make a block outside the limits.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl CompactBlock {
    /// The names of a block's transactions. Hashes the transactions if nobody has before.
    pub fn of(block: &Block) -> Self {
        let rows = block.segments().iter().zip(block.tx_hashes());
        let segments = rows.map(|(segment, hashes)| (segment.rollup, hashes.clone())).collect();
        Self { header: block.header, segments, table: block.table().clone() }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The transactions' keys, segment by segment.
    pub fn keys(&self) -> impl Iterator<Item = TxKey> + '_ {
        let rows = self.segments.iter();
        rows.flat_map(|(rollup, hashes)| hashes.iter().map(|hash| TxKey { rollup: *rollup, hash: *hash }))
    }

    /// Number of transactions over all segments.
    pub fn transaction_count(&self) -> usize {
        self.segments.iter().map(|(_, hashes)| hashes.len()).sum()
    }

    /// Length of [`Self::encode`]'s result.
    pub fn encoded_len(&self) -> usize {
        Header::LEN + 4 + self.segments.len() * 12 + self.transaction_count() * 32
    }

    /// `header | segment count u32 | (rollup u64 | count u32 | hash 32 *)*`.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(self.encoded_len());
        w.raw(&self.header.encode());
        w.count(self.segments.len());
        for (rollup, hashes) in &self.segments {
            w.u64(rollup.0);
            w.count(hashes.len());
            hashes.iter().for_each(|hash| w.raw(hash.as_slice()));
        }
        w.into_vec()
    }

    /// Reads a compact block that is all of `bytes`. Refuses what is out of order or above `limits`, and hashes to which
    /// the header does not commit.
    pub fn decode(bytes: Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let header = Header::read(&mut r)?;
        if usize::try_from(header.body_bytes).is_ok_and(|body| body > limits.body_bytes) {
            let (value, limit) = (header.body_bytes.into(), limits.body_bytes as u64);
            return Err(DecodeError::TooLarge { field: "header.body_bytes", value, limit });
        }
        let count = r.count("segments", limits.segments)?;
        let mut segments: Vec<(RollupId, Vec<TxHash>)> = Vec::with_capacity(count);
        let mut left = limits.transactions;
        for _ in 0..count {
            let (rollup, txs) = Segment::read_head(&mut r, segments.last().map(|(last, _)| *last), &mut left)?;
            // A lying count cannot reserve more than was sent.
            let mut hashes = Vec::with_capacity(txs.min(r.remaining() / 32));
            for _ in 0..txs {
                hashes.push(r.b256("segment.hash")?);
            }
            segments.push((rollup, hashes));
        }
        r.finish()?;
        let row = |(rollup, hashes): &(RollupId, Vec<TxHash>)| TableEntry {
            rollup: *rollup,
            commitment: Segment::commitment_of(*rollup, hashes.iter().copied()),
        };
        let table = SegmentTable::from_entries(segments.iter().map(row).collect());
        if table.root() != header.segment_root {
            return Err(DecodeError::Invalid { field: "segment.hash", reason: "not what the header commits to" });
        }
        Ok(Self { header, segments, table })
    }

    /// The block with its encoding. `transactions` are those of [`Self::keys`], in order: that each is what its key names is
    /// for the caller to know ([`TxKey::of`]), since most were hashed when they came.
    ///
    /// # Errors
    /// What does not come to the length that the header names is refused before anything of that length is allocated.
    pub fn fill(self, transactions: &[Bytes], limits: &Limits) -> Result<(Block, Bytes), FillError> {
        let (named, actual) = (self.transaction_count(), transactions.len());
        if named != actual {
            return Err(FillError::Count { named, actual });
        }
        let mut rest = transactions.iter();
        let segment = |(rollup, hashes): &(RollupId, Vec<TxHash>)| Segment {
            rollup: *rollup,
            transactions: rest.by_ref().take(hashes.len()).cloned().collect(),
        };
        let whole = Block::from_parts(self.header, self.segments.iter().map(segment).collect());
        whole.check_length()?;
        let encoded = Bytes::from(whole.encode());
        let hashes = self.segments.into_iter().map(|(_, hashes)| hashes).collect();
        // Decoded again, so that the transactions are slices of the encoding and let go of what they were taken from.
        Ok((Block::decode(encoded.clone(), limits)?.hashed(hashes, self.table), encoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{B256, block::tests::block};
    use proptest::prelude::*;

    fn transactions(block: &Block) -> Vec<Bytes> {
        block.segments().iter().flat_map(|s| s.transactions.iter().cloned()).collect()
    }

    proptest! {
        #[test]
        fn names_and_transactions_make_the_block_again(block in block()) {
            let limits = Limits::default();
            let compact = CompactBlock::decode(CompactBlock::of(&block).encode().into(), &limits).unwrap();
            prop_assert!(compact.keys().eq(block.keys()));
            let (filled, encoded) = compact.fill(&transactions(&block), &limits).unwrap();
            prop_assert_eq!(&encoded[..], &block.encode()[..]);
            prop_assert_eq!(filled.tx_hashes(), block.tx_hashes());
            prop_assert_eq!(filled.check_commitments(), Ok(()));
            prop_assert_eq!(filled, block);
        }

        #[test]
        fn a_changed_byte_is_refused_or_changes_the_blocks_hash(
            block in block(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut bytes = CompactBlock::of(&block).encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = CompactBlock::decode(bytes.into(), &Limits::default()) {
                prop_assert_ne!(other.header().hash(), block.hash());
            }
        }

        #[test]
        fn transactions_of_another_length_are_refused(block in block(), at in any::<prop::sample::Index>()) {
            let mut txs = transactions(&block);
            prop_assume!(!txs.is_empty());
            let at = at.index(txs.len());
            txs[at] = Bytes::from([&txs[at][..], b"x"].concat());
            let fill = |txs: &[Bytes]| CompactBlock::of(&block).fill(txs, &Limits::default()).unwrap_err();
            let (header, named) = (block.header.body_bytes, txs.len());
            let longer = BlockError::BodyBytes { header, actual: block.encoded_len() - Header::LEN + 1 };
            prop_assert_eq!(fill(&txs), FillError::Commitment(longer));
            prop_assert_eq!(fill(&txs[1..]), FillError::Count { named, actual: named - 1 });
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = CompactBlock::decode(bytes.into(), &Limits::default());
        }

        #[test]
        fn a_truncated_one_is_refused(block in block(), at in any::<prop::sample::Index>()) {
            let bytes = CompactBlock::of(&block).encode();
            let at = at.index(bytes.len());
            prop_assert!(CompactBlock::decode(bytes[..at].to_vec().into(), &Limits::default()).is_err());
        }
    }

    #[test]
    fn each_limit_is_enforced() {
        let header = Header::genesis(B256::ZERO, 0, B256::ZERO);
        let segment = |id, txs: usize| Segment { rollup: RollupId(id), transactions: vec![vec![1; 8].into(); txs] };
        let tight = Limits { body_bytes: 80, segments: 2, transactions: 3, transaction_bytes: 8 };
        let check = |segments: Vec<Segment>| {
            CompactBlock::decode(CompactBlock::of(&Block::new(header, segments)).encode().into(), &tight).is_ok()
        };
        assert!(check(vec![segment(1, 1), segment(2, 2)]));
        assert!(!check(vec![segment(1, 1), segment(2, 1), segment(3, 1)]), "segments");
        assert!(!check(vec![segment(1, 2), segment(2, 2)]), "transactions");
        assert!(!check(vec![segment(2, 1), segment(1, 1)]), "order");
        assert!(!check(vec![segment(1, 0)]), "empty");
        let long = Segment { rollup: RollupId(1), transactions: vec![vec![1; 80].into()] };
        assert!(!check(vec![long]), "body bytes");
        let over = Block::new(header, vec![Segment { rollup: RollupId(1), transactions: vec![vec![1; 9].into()] }]);
        let filled = CompactBlock::of(&over).fill(over.transactions(RollupId(1)), &tight);
        assert!(matches!(filled, Err(FillError::Decode(_))), "transaction bytes");
    }
}
