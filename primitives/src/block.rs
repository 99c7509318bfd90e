//! The hub block.

use crate::{
    B256, Bytes, DecodeError, Header, Reader, RollupId, Segment, SegmentTable, TableEntry, TxHash, TxKey, Writer,
    keccak256,
};
use std::sync::OnceLock;

/// Bounds of one block. Part of the network's genesis: a block outside them is invalid for everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Encoded body, in bytes.
    pub body_bytes: usize,
    /// Rollups with a segment.
    pub segments: usize,
    /// Transactions over all segments.
    pub transactions: usize,
    /// One transaction, in bytes.
    pub transaction_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: 2 << 20, segments: 1024, transactions: 32_768, transaction_bytes: 128 << 10 }
    }
}

impl Limits {
    /// Upper bound of an encoded block.
    pub const fn block_bytes(&self) -> usize {
        Header::LEN + self.body_bytes
    }
}

/// A header and one segment per rollup that has something in the block.
///
/// Its transactions and its table are hashed once, when first asked for: on the way from the network to the store several
/// parts need the hashes, and hashing is what costs most there.
#[derive(Clone, Debug)]
pub struct Block {
    /// The header, which commits to the segments.
    pub header: Header,
    segments: Vec<Segment>,
    hashes: OnceLock<Vec<Vec<TxHash>>>,
    table: OnceLock<SegmentTable>,
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.header == other.header && self.segments == other.segments
    }
}

impl Eq for Block {}

/// Why a block contradicts its own header or the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The header commits to another segment table.
    #[error("segment root is {actual}, the header says {header}")]
    SegmentRoot {
        /// What the header says.
        header: B256,
        /// What the segments give.
        actual: B256,
    },
    /// The header names another body length.
    #[error("body has {actual} bytes, the header says {header}")]
    BodyBytes {
        /// What the header says.
        header: u32,
        /// What the segments give.
        actual: usize,
    },
}

impl Block {
    /// The block with these segments, to which its header is made to commit. `segments` must be sorted by rollup id,
    /// without empty ones.
    pub fn new(header: Header, segments: Vec<Segment>) -> Self {
        Self::committed(Self::from_parts(header, segments))
    }

    /// [`Self::new`] for one who has the transactions' hashes already, each segment's in order.
    pub fn with_hashes(header: Header, segments: Vec<Segment>, hashes: Vec<Vec<TxHash>>) -> Self {
        Self::committed(Self { header, segments, hashes: hashes.into(), table: OnceLock::new() })
    }

    fn committed(mut block: Self) -> Self {
        block.header.segment_root = block.table().root();
        block.header.body_bytes = u32::try_from(body_len(&block.segments)).unwrap_or(u32::MAX);
        block
    }

    /// A header with segments that it may or may not commit to ([`Self::check_commitments`]).
    pub fn from_parts(header: Header, segments: Vec<Segment>) -> Self {
        Self { header, segments, hashes: OnceLock::new(), table: OnceLock::new() }
    }

    /// A decoded block whose transactions' hashes, and the table that they make, are known. They must be those of its
    /// transactions: nothing checks them again.
    pub(crate) fn hashed(self, hashes: Vec<Vec<TxHash>>, table: SegmentTable) -> Self {
        Self { hashes: hashes.into(), table: table.into(), ..self }
    }

    /// The block of height 0.
    pub fn genesis(header: Header) -> Self {
        Self::from_parts(header, Vec::new())
    }

    /// Sorted by rollup id, none empty.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The hashes of each segment's transactions. The first call hashes every one: not on an async thread.
    pub fn tx_hashes(&self) -> &[Vec<TxHash>] {
        self.hashes.get_or_init(|| {
            self.segments.iter().map(|segment| segment.transactions.iter().map(keccak256).collect()).collect()
        })
    }

    /// The keys of all transactions, segment by segment.
    pub fn keys(&self) -> impl Iterator<Item = TxKey> + '_ {
        let rows = self.segments.iter().zip(self.tx_hashes());
        rows.flat_map(|(segment, hashes)| hashes.iter().map(|hash| TxKey { rollup: segment.rollup, hash: *hash }))
    }

    /// The segment table. The first call hashes every transaction, as [`Self::tx_hashes`] does.
    pub fn table(&self) -> &SegmentTable {
        self.table.get_or_init(|| self.make_table())
    }

    fn make_table(&self) -> SegmentTable {
        let row = |(segment, hashes): (&Segment, &Vec<TxHash>)| TableEntry {
            rollup: segment.rollup,
            commitment: Segment::commitment_of(segment.rollup, hashes.iter().copied()),
        };
        SegmentTable::from_entries(self.segments.iter().zip(self.tx_hashes()).map(row).collect())
    }

    /// The header's hash.
    pub fn hash(&self) -> B256 {
        self.header.hash()
    }

    /// The transactions of `rollup`, empty where the block has none.
    pub fn transactions(&self, rollup: RollupId) -> &[Bytes] {
        self.segments
            .binary_search_by_key(&rollup, |s| s.rollup)
            .ok()
            .and_then(|i| self.segments.get(i))
            .map_or(&[], |s| &s.transactions)
    }

    /// Number of transactions over all segments.
    pub fn transaction_count(&self) -> usize {
        self.segments.iter().map(|s| s.transactions.len()).sum()
    }

    /// Length of [`Self::encode`]'s result.
    pub fn encoded_len(&self) -> usize {
        Header::LEN + body_len(&self.segments)
    }

    /// `header | segment count u32 | segments`; a segment is `rollup u64 | count u32 | transactions` and a transaction
    /// `length u32 | bytes`.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(self.encoded_len());
        w.raw(&self.header.encode());
        w.count(self.segments.len());
        for segment in &self.segments {
            w.u64(segment.rollup.0);
            w.count(segment.transactions.len());
            for tx in &segment.transactions {
                w.count(tx.len());
                w.raw(tx);
            }
        }
        w.into_vec()
    }

    /// Reads a block that is all of `bytes`. Refuses what is out of order or above `limits`; whether the header
    /// commits to the body is [`Self::check_commitments`]'s question.
    pub fn decode(bytes: Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        let too_large = |field, value: usize, limit: usize| DecodeError::TooLarge {
            field,
            value: value as u64,
            limit: limit as u64,
        };
        if bytes.len() > limits.block_bytes() {
            return Err(too_large("block", bytes.len(), limits.block_bytes()));
        }
        let mut r = Reader::new(bytes);
        let header = Header::read(&mut r)?;
        let count = r.count("segments", limits.segments)?;
        let mut segments: Vec<Segment> = Vec::with_capacity(count);
        let mut left = limits.transactions;
        for _ in 0..count {
            let (rollup, txs) = Segment::read_head(&mut r, segments.last().map(|last| last.rollup), &mut left)?;
            // Every transaction takes at least its length field, so a lying count cannot reserve more than was sent.
            let mut transactions = Vec::with_capacity(txs.min(r.remaining() / 4));
            for _ in 0..txs {
                let len = r.count("transaction", limits.transaction_bytes)?;
                transactions.push(r.bytes("transaction", len)?);
            }
            segments.push(Segment { rollup, transactions });
        }
        r.finish()?;
        Ok(Self::from_parts(header, segments))
    }

    /// Checks that the header commits to these segments.
    pub fn check_commitments(&self) -> Result<(), BlockError> {
        self.checked_table().map(|_| ())
    }

    /// The segment table, once it is sure that the header commits to it and to the body's length.
    pub fn checked_table(&self) -> Result<&SegmentTable, BlockError> {
        let table = self.table();
        let actual = table.root();
        if actual != self.header.segment_root {
            return Err(BlockError::SegmentRoot { header: self.header.segment_root, actual });
        }
        self.check_length()?;
        Ok(table)
    }

    /// Checks that the header names the body's length.
    pub(crate) fn check_length(&self) -> Result<(), BlockError> {
        let (header, actual) = (self.header.body_bytes, body_len(&self.segments));
        if usize::try_from(header) == Ok(actual) { Ok(()) } else { Err(BlockError::BodyBytes { header, actual }) }
    }
}

fn body_len(segments: &[Segment]) -> usize {
    4 + segments.iter().map(Segment::encoded_len).sum::<usize>()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn block() -> impl Strategy<Value = Block> {
        let txs = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from), 1..6);
        proptest::collection::btree_map(any::<u64>(), txs, 0..8).prop_map(|map| {
            let segments =
                map.into_iter().map(|(id, transactions)| Segment { rollup: RollupId(id), transactions }).collect();
            Block::new(Header::genesis(B256::repeat_byte(1), 5, B256::ZERO), segments)
        })
    }

    proptest! {
        #[test]
        fn a_block_survives_its_encoding(block in block()) {
            let bytes = block.encode();
            prop_assert_eq!(bytes.len(), block.encoded_len());
            let back = Block::decode(bytes.into(), &Limits::default()).unwrap();
            prop_assert_eq!(back.check_commitments(), Ok(()));
            prop_assert_eq!(back, block);
        }

        #[test]
        fn a_changed_byte_is_refused_or_changes_the_commitments_or_the_hash(
            block in block(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut bytes = block.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Block::decode(bytes.into(), &Limits::default()) {
                prop_assert!(other.check_commitments().is_err() || other.hash() != block.hash());
            }
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Block::decode(bytes.into(), &Limits::default());
        }

        #[test]
        fn a_truncated_block_is_refused(block in block(), at in any::<prop::sample::Index>()) {
            let bytes = block.encode();
            let at = at.index(bytes.len());
            prop_assert!(Block::decode(bytes[..at].to_vec().into(), &Limits::default()).is_err());
        }
    }

    #[test]
    fn each_limit_is_enforced() {
        let header = Header::genesis(B256::ZERO, 0, B256::ZERO);
        let segment =
            |id, txs: usize| Segment { rollup: RollupId(id), transactions: vec![Bytes::from(vec![1; 8]); txs] };
        let tight = Limits { body_bytes: 80, segments: 2, transactions: 3, transaction_bytes: 8 };
        let check =
            |segments: Vec<Segment>| Block::decode(Block::new(header, segments).encode().into(), &tight).is_ok();
        assert!(check(vec![segment(1, 1), segment(2, 2)]));
        assert!(!check(vec![segment(1, 1), segment(2, 1), segment(3, 1)]), "segments");
        assert!(!check(vec![segment(1, 2), segment(2, 2)]), "transactions");
        assert!(!check(vec![segment(2, 1), segment(1, 1)]), "order");
        assert!(!check(vec![segment(1, 1), segment(1, 1)]), "twice");
        assert!(!check(vec![segment(1, 0)]), "empty");
        let long = Segment { rollup: RollupId(1), transactions: vec![Bytes::from(vec![1; 9])] };
        assert!(!check(vec![long]), "transaction bytes");
    }
}
