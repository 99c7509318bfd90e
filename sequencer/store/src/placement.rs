//! The rules of appending, which every store shares.

use crate::StoreError;
use switchyard_primitives::{B256, Block, FinalityCertificate, Header, TableEntry};

/// A block that agrees with its own header, with all that was hashed to see it.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    pub(crate) block: &'a Block,
    pub(crate) hash: B256,
    pub(crate) table: Vec<TableEntry>,
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
        let table = block.checked_table().map_err(|source| StoreError::Commitment { height, source })?;
        Ok(Self { block, hash, table: table.entries().to_vec() })
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

    /// Whether the log may begin with the block.
    pub(crate) fn begins(&self, tip: &(Header, B256)) -> Result<(), StoreError> {
        let (height, tip) = (self.block.header.height, tip.0.height);
        if tip == 0 && height > 0 { Ok(()) } else { Err(StoreError::NotEmpty { height, tip }) }
    }
}
