//! The rules of appending, which every store shares.

use crate::StoreError;
use switchyard_primitives::{
    B256, Block, BlockError, FinalityCertificate, Header, Segment, SegmentTable, TableEntry, TxHash, keccak256,
};

/// A block that agrees with its own header, with all that was hashed to see it.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    pub(crate) block: &'a Block,
    pub(crate) hash: B256,
    pub(crate) table: Vec<TableEntry>,
    /// The transactions' hashes, a list for each segment.
    pub(crate) transactions: Vec<Vec<TxHash>>,
}

/// Where an appended block goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// On top of the tip.
    Next,
    /// It is there already.
    Held,
}

impl<'a> Checked<'a> {
    /// Hashes the block and compares it with its header and certificate. Slow (megabytes of keccak): outside locks.
    pub(crate) fn new(block: &'a Block, certificate: Option<&FinalityCertificate>) -> Result<Self, StoreError> {
        let height = block.header.height;
        let hash = block.hash();
        if let Some(found) = certificate.map(|c| c.block).filter(|found| *found != hash) {
            return Err(StoreError::Certificate { height, block: hash, found });
        }
        let transactions: Vec<Vec<TxHash>> =
            block.segments.iter().map(|s| s.transactions.iter().map(keccak256).collect()).collect();
        let row = |(segment, hashes): (&Segment, &Vec<TxHash>)| TableEntry {
            rollup: segment.rollup,
            commitment: Segment::commitment_of(segment.rollup, hashes.iter().copied()),
        };
        let table = SegmentTable::from_entries(block.segments.iter().zip(&transactions).map(row).collect());
        check_commitments(block, &table).map_err(|source| StoreError::Commitment { height, source })?;
        Ok(Self { block, hash, table: table.entries().to_vec(), transactions })
    }

    /// Where the block goes, given the tip and the hash that is held at a height at or below it.
    pub(crate) fn place(
        &self,
        tip: &(Header, B256),
        held: impl FnOnce(u64) -> Result<B256, StoreError>,
    ) -> Result<Placement, StoreError> {
        let (height, tip_height) = (self.block.header.height, tip.0.height);
        if height <= tip_height {
            let have = held(height)?;
            if have != self.hash {
                return Err(StoreError::Conflict { height, have, offered: self.hash });
            }
            return Ok(Placement::Held);
        }
        if height - tip_height != 1 || self.block.header.parent != tip.1 {
            return Err(StoreError::Gap { height, tip: tip_height });
        }
        Ok(Placement::Next)
    }
}

fn check_commitments(block: &Block, table: &SegmentTable) -> Result<(), BlockError> {
    let header = &block.header;
    let root = table.root();
    if root != header.segment_root {
        return Err(BlockError::SegmentRoot { header: header.segment_root, actual: root });
    }
    let body_bytes = block.encoded_len() - Header::LEN;
    if usize::try_from(header.body_bytes) != Ok(body_bytes) {
        return Err(BlockError::BodyBytes { header: header.body_bytes, actual: body_bytes });
    }
    Ok(())
}
