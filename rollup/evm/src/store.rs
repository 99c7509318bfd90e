//! The database: columns, options, raw access. Nothing else in this crate names RocksDB.

use alloy_primitives::{B256, map::DefaultHashBuilder};
use lru::LruCache;
use parking_lot::Mutex;
use revm::state::Bytecode;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DEFAULT_COLUMN_FAMILY_NAME,
    Options,
};
use std::{num::NonZeroUsize, path::Path};

use crate::records::{BASE, corrupt};
pub(crate) use rocksdb::{DBPinnableSlice, IteratorMode, Snapshot, WriteBatch};
use rocksdb::{Direction, ReadOptions, WriteOptions};

/// A column of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// What the database is and how far it has come.
    Meta,
    /// Address to account, at the head.
    Accounts,
    /// Address and slot to value, at the head.
    Storage,
    /// Code hash to code.
    Code,
    /// Node hash to trie node, of every block.
    Nodes,
    /// Block number to header.
    Headers,
    /// Block number to transactions, senders and receipts.
    Bodies,
    /// Block hash to number.
    Hashes,
    /// Transaction hash to outcome.
    Transactions,
    /// Hub height to transactions that wait for their block (one-second sealing), with the legs among them.
    Pending,
    /// Block number to checkpoint with its votes, of the newest blocks.
    Checkpoints,
    /// Place of a vote ([`crate::votes::Place::key`]) to vote, of those that wait for a checkpoint.
    Votes,
    /// Number of a deposit that waits for a block to the deposit.
    Deposits,
    /// Level and position of a full node of the outbox's tree ([`crate::outbox::node_key`]) to its hash.
    OutboxNodes,
    /// Index of a message that was sent to the message.
    Messages,
    /// Its id to its index.
    MessageIds,
}

impl Column {
    pub(crate) const ALL: [Self; 16] = [
        Self::Meta,
        Self::Accounts,
        Self::Storage,
        Self::Code,
        Self::Nodes,
        Self::Headers,
        Self::Bodies,
        Self::Hashes,
        Self::Transactions,
        Self::Pending,
        Self::Checkpoints,
        Self::Votes,
        Self::Deposits,
        Self::OutboxNodes,
        Self::Messages,
        Self::MessageIds,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Accounts => "accounts",
            Self::Storage => "storage",
            Self::Code => "code",
            Self::Nodes => "nodes",
            Self::Headers => "headers",
            Self::Bodies => "bodies",
            Self::Hashes => "hashes",
            Self::Transactions => "transactions",
            Self::Pending => "pending",
            Self::Checkpoints => "checkpoints",
            Self::Votes => "votes",
            Self::Deposits => "deposits",
            Self::OutboxNodes => "outbox_nodes",
            Self::Messages => "messages",
            Self::MessageIds => "message_ids",
        }
    }
}

/// Why the database could not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateError {
    /// RocksDB failed: the message says how (disk full, file missing, checksum).
    #[error("database: {0}")]
    Database(String),
    /// A record is not what this version writes: the files were changed from outside.
    #[error("column {column}: record {key} cannot be read: {reason}")]
    Corrupt {
        /// The column.
        column: &'static str,
        /// The record's key in hex.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The state trie contradicts itself or lacks a node.
    #[error("state trie: {0}")]
    Trie(String),
    /// The executor failed in a way that no transaction can cause.
    #[error("execution: {0}")]
    Execution(String),
}

impl revm::context_interface::DBErrorMarker for StateError {}

impl From<rocksdb::Error> for StateError {
    fn from(e: rocksdb::Error) -> Self {
        Self::Database(e.to_string())
    }
}

/// RocksDB's read cache, shared by all columns of one rollup.
const BLOCK_CACHE_BYTES: usize = 16 << 20;
/// Write buffers of all columns of one rollup together.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
const OPEN_FILES_MAX: i32 = 256;
/// Contracts whose analysed code is kept; at most 24 KiB of code each (EIP-170).
const CODES_KEPT: NonZeroUsize = NonZeroUsize::new(128).unwrap();

pub(crate) struct Store {
    db: DB,
    codes: Mutex<LruCache<B256, Bytecode, DefaultHashBuilder>>,
    /// The first block whose state is here: above genesis in a database that was made of a snapshot.
    base: u64,
}

impl Store {
    /// Opens or creates the database at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let columns = Column::ALL.map(|c| ColumnFamilyDescriptor::new(c.name(), column_options(&cache)));
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_db_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_max_total_wal_size(128 << 20);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(4 << 20);
        let db = DB::open_cf_descriptors(&options, path, columns)?;
        let codes = Mutex::new(LruCache::with_hasher(CODES_KEPT, DefaultHashBuilder::default()));
        let mut store = Self { db, codes, base: 0 };
        let base = store.get(Column::Meta, BASE)?.map(|bytes| <[u8; 8]>::try_from(&*bytes));
        if let Some(base) = base {
            store.base = u64::from_be_bytes(base.map_err(|e| corrupt(Column::Meta, BASE, e))?);
        }
        Ok(store)
    }

    /// The first block whose state is here.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The first key of a column.
    pub(crate) fn first_key(&self, at: &Snapshot<'_>, column: Column) -> Result<Option<Box<[u8]>>, StateError> {
        let first = at.iterator_cf(self.column(column)?, IteratorMode::Start).next().transpose()?;
        Ok(first.map(|(key, _)| key))
    }

    /// The records of a column from a key on, in key order.
    pub(crate) fn iterate<'a>(
        &self,
        at: &'a Snapshot<'_>,
        column: Column,
        from: &[u8],
    ) -> Result<impl Iterator<Item = Result<Record, StateError>> + 'a, StateError> {
        // A scan of everything would empty the cache for everyone else.
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let records = at.iterator_cf_opt(self.column(column)?, options, IteratorMode::From(from, Direction::Forward));
        Ok(records.map(|record| record.map_err(StateError::from)))
    }

    /// Reads one `Meta` record without opening the database for writing or creating anything.
    pub(crate) fn peek(path: &Path, key: &[u8]) -> Result<Peek, StateError> {
        if !path.join("CURRENT").exists() {
            return Ok(Peek::Absent);
        }
        let options = Options::default();
        let names = DB::list_cf(&options, path)?;
        let db = DB::open_cf_for_read_only(&options, path, &names, false)?;
        if let Some(meta) = db.cf_handle(Column::Meta.name())
            && let Some(record) = db.get_cf(meta, key)?
        {
            return Ok(Peek::Record(record));
        }
        // A crash while the database was made leaves some of our columns and nothing in them.
        let ours = |name: &String| name == DEFAULT_COLUMN_FAMILY_NAME || Column::ALL.iter().any(|c| c.name() == name);
        let mut columns = names.iter().filter_map(|name| db.cf_handle(name));
        let unfinished =
            names.iter().all(ours) && columns.all(|c| db.iterator_cf(c, IteratorMode::Start).next().is_none());
        Ok(if unfinished { Peek::Absent } else { Peek::Foreign })
    }

    pub(crate) fn column(&self, column: Column) -> Result<&ColumnFamily, StateError> {
        self.db
            .cf_handle(column.name())
            .ok_or_else(|| StateError::Database(format!("column {} is missing", column.name())))
    }

    pub(crate) fn get(&self, column: Column, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, StateError> {
        Ok(self.db.get_pinned_cf(self.column(column)?, key)?)
    }

    /// As [`Self::get`], at `snapshot` where one is given.
    pub(crate) fn get_at<'a>(
        &'a self,
        snapshot: Option<&'a Snapshot<'a>>,
        column: Column,
        key: &[u8],
    ) -> Result<Option<DBPinnableSlice<'a>>, StateError> {
        match snapshot {
            Some(snapshot) => Ok(snapshot.get_pinned_cf(self.column(column)?, key)?),
            None => self.get(column, key),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        self.db.snapshot()
    }

    /// Every record of a column, in key order.
    pub(crate) fn scan(&self, column: Column) -> Result<Vec<Record>, StateError> {
        let records: Result<_, _> = self.db.iterator_cf(self.column(column)?, IteratorMode::Start).collect();
        Ok(records?)
    }

    /// Writes a batch atomically. Not synced to the disk: after a power failure the database is at an earlier hub
    /// height, and what is missing is derived again from the log.
    pub(crate) fn write(&self, batch: WriteBatch, sync: bool) -> Result<(), StateError> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        Ok(self.db.write_opt(batch, &options)?)
    }

    /// Analysed code from the cache, or from `load`.
    pub(crate) fn cached_code(
        &self,
        hash: B256,
        load: impl FnOnce() -> Result<Bytecode, StateError>,
    ) -> Result<Bytecode, StateError> {
        if let Some(code) = self.codes.lock().get(&hash) {
            return Ok(code.clone());
        }
        let code = load()?;
        self.codes.lock().put(hash, code.clone());
        Ok(code)
    }
}

/// A key and its value.
pub(crate) type Record = (Box<[u8]>, Box<[u8]>);

/// What [`Store::peek`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    /// No database, or one that was never finished.
    Absent,
    /// A database of something else.
    Foreign,
    /// The record.
    Record(Vec<u8>),
}

fn column_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_block_size(8 << 10);
    // Index and filter blocks count against the cache's bound instead of growing with the database.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(4 << 20);
    options.set_max_write_buffer_number(2);
    options.set_target_file_size_base(32 << 20);
    options
}
