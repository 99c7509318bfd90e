//! Where final blocks are kept. One trait, two stores: [`RocksStore`] on disk, and [`MemoryStore`] for tests.
//!
//! A block is appended in one atomic batch, so that after a crash at any point the log ends with a whole block.
//! Headers and certificates are kept for ever, from [`Store::begin_at`]'s block on where it was used; segments, tables and the transaction index from [`Store::earliest`] on.

mod bridge;
mod memory;
mod placement;
mod record;
mod rocks;

pub use bridge::{BridgeRows, STATES_KEPT};
pub use memory::MemoryStore;
pub use rocks::{Journal, RocksOptions, RocksStore};

use switchyard_primitives::{B256, Block, BlockError, Bytes, FinalityCertificate, Header, RollupId, TableEntry, TxKey};

/// Ways in for `testnet/fuzz`: each decodes a record and encodes it again. No part of the interface.
#[doc(hidden)]
pub mod fuzz {
    use crate::record;

    /// A segment's transactions.
    pub fn transactions(bytes: &[u8]) -> Option<Vec<u8>> {
        record::decode_transactions(bytes.to_vec()).ok().map(|txs| record::encode_transactions(&txs))
    }

    /// A segment table.
    pub fn table(bytes: &[u8]) -> Option<Vec<u8>> {
        record::decode_table(bytes.to_vec()).ok().map(|rows| record::encode_table(&rows))
    }

    /// A transaction's place.
    pub fn location(bytes: &[u8]) -> Option<Vec<u8>> {
        record::decode_location(bytes).map(|place| record::encode_location(place).to_vec())
    }
}

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database belongs to another network.
    #[error("{path} holds network {found}, this node is configured for {expected}; use another data directory")]
    OtherNetwork {
        /// The database's folder.
        path: String,
        /// The network it holds.
        found: B256,
        /// The network of the configuration.
        expected: B256,
    },
    /// Written by newer software.
    #[error("{path} has format {found}, this version reads up to {supported}; upgrade switchyard")]
    NewerFormat {
        /// The database's folder.
        path: String,
        /// The format found.
        found: u32,
        /// The newest format this software reads.
        supported: u32,
    },
    /// Written by software whose log has other rules.
    #[error(
        "{path} has format {found}, this version reads {supported}; start with a new data directory, or with the version that wrote it"
    )]
    OlderFormat {
        /// The database's folder.
        path: String,
        /// The format found.
        found: u32,
        /// The format this software reads.
        supported: u32,
    },
    /// Another process has the database open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The database's folder.
        path: String,
    },
    /// A block that does not follow the tip: its height is not the next one, or its parent is another block.
    #[error("block {height} does not follow the tip {tip}")]
    Gap {
        /// The block's height.
        height: u64,
        /// The store's tip.
        tip: u64,
    },
    /// A log can begin above genesis only while it is empty.
    #[error(
        "the log holds blocks up to {tip} and cannot begin at {height}: leave out the checkpoint, or use another data directory"
    )]
    NotEmpty {
        /// The first block's height.
        height: u64,
        /// The store's tip.
        tip: u64,
    },
    /// A block whose header commits to another body.
    #[error("block {height} contradicts its header: {source}")]
    Commitment {
        /// The block's height.
        height: u64,
        /// How.
        source: BlockError,
    },
    /// A certificate that was offered with a block is for another one.
    #[error("block {height} is {block}, its certificate is for {found}")]
    Certificate {
        /// The block's height.
        height: u64,
        /// The block.
        block: B256,
        /// The block that the certificate finalises.
        found: B256,
    },
    /// A block at a height that already has another one.
    #[error("height {height} already holds {have}, refused {offered}")]
    Conflict {
        /// The height.
        height: u64,
        /// The block there.
        have: B256,
        /// The block offered.
        offered: B256,
    },
    /// A record that does not decode.
    #[error("corrupt record in {column}: {detail}")]
    Corrupt {
        /// The column family.
        column: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The database failed (disk full, I/O).
    #[error("database: {0}")]
    Database(String),
}

/// The log of final blocks. All methods block: they are point look-ups or one batch. Any number of threads may read
/// while one appends or prunes; a reader never waits for either.
pub trait Store: Send + Sync + 'static {
    /// Appends a final block with its certificate, atomically, and durably as far as the store was opened so. A block already held is accepted again
    /// (its certificate is added if it was missing). Refuses a block that contradicts its own header; whether the
    /// certificate's signature holds is the caller's question.
    fn append(&self, block: &Block, certificate: Option<&FinalityCertificate>) -> Result<(), StoreError>;
    /// Makes a block that its caller trusts the first one above genesis, durably: [`Store::earliest`] and the tip are its
    /// height then, and below it there are no headers but genesis. Only while the log holds nothing but genesis.
    fn begin_at(&self, block: &Block, certificate: Option<&FinalityCertificate>) -> Result<(), StoreError>;
    /// Header and hash of the highest block; genesis at first.
    fn tip(&self) -> (Header, B256);
    /// The lowest height whose segments are kept.
    fn earliest(&self) -> u64;
    /// A header by height.
    fn header(&self, height: u64) -> Result<Option<Header>, StoreError>;
    /// A height by block hash.
    fn height_of(&self, hash: B256) -> Result<Option<u64>, StoreError>;
    /// The segment table's rows of a block; none above the tip and below [`Store::earliest`].
    fn table(&self, height: u64) -> Result<Option<Vec<TableEntry>>, StoreError>;
    /// A rollup's transactions in a block; none where it has no segment there, above the tip and below
    /// [`Store::earliest`].
    fn transactions(&self, rollup: RollupId, height: u64) -> Result<Option<Vec<Bytes>>, StoreError>;
    /// Whole block; none above the tip and below [`Store::earliest`].
    fn block(&self, height: u64) -> Result<Option<Block>, StoreError>;
    /// The first certificate at or above a height, with its height.
    fn certificate_from(&self, height: u64) -> Result<Option<(u64, FinalityCertificate)>, StoreError>;
    /// The last certificate at or below a height, with its height.
    fn certificate_to(&self, height: u64) -> Result<Option<(u64, FinalityCertificate)>, StoreError>;
    /// The latest block that holds a transaction, with the position in the rollup's segment. Blocks below
    /// [`Store::earliest`] do not count.
    fn locate(&self, key: TxKey) -> Result<Option<(u64, u32)>, StoreError>;
    /// Many [`Store::locate`] at once, in the same order.
    fn locate_many(&self, keys: &[TxKey]) -> Result<Vec<Option<(u64, u32)>>, StoreError>;
    /// Keeps the hub's state after the block of a height, which is about to be appended: no block becomes durable without
    /// what was put before it. Only where it changes; for ever.
    fn put_hub_state(&self, height: u64, state: &[u8]) -> Result<(), StoreError>;
    /// The newest state that was put for a height or one below it; none where there is only that of the genesis.
    fn hub_state(&self, height: u64) -> Result<Option<Vec<u8>>, StoreError>;
    /// Keeps what the bridge is after the block of a height, which is about to be appended, and what that adds to the hub's
    /// accumulator: no block becomes durable without what was put before it. Only where it changes. Of the states only
    /// those stay from which the newest [`STATES_KEPT`] heights follow, and those of epochs' ends.
    fn put_bridge(&self, height: u64, rows: &BridgeRows) -> Result<(), StoreError>;
    /// The newest of the bridge's states that was put for a height or one below it and is kept, with the height that it is of.
    fn bridge_state(&self, height: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError>;
    /// Leaves of the hub's accumulator after the block of a height.
    fn bridge_count(&self, height: u64) -> Result<u64, StoreError>;
    /// A leaf of the hub's accumulator, by its index, encoded.
    fn bridge_leaf(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError>;
    /// A full node of the hub's accumulator, by level and position.
    fn bridge_node(&self, level: u8, position: u64) -> Result<Option<B256>, StoreError>;
    /// What was last put of a bundle, encoded.
    fn bridge_bundle(&self, id: &B256) -> Result<Option<Vec<u8>>, StoreError>;
    /// The record of a bundle that was included, encoded, whether its block is kept or not.
    fn bridge_record(&self, id: &B256) -> Result<Option<Vec<u8>>, StoreError>;
    /// Removes segments, tables and index entries below `height` (never the tip's), durably and at once for readers.
    /// Headers and certificates stay. Space on disk is given back by and by.
    fn prune(&self, height: u64) -> Result<(), StoreError>;
    /// Approximate bytes on disk.
    fn size_bytes(&self) -> u64;
}
