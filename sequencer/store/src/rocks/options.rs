//! How RocksDB is set up: little memory, whatever the size of the log.

use super::Column;
use crate::record::decode_location;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, LogLevel, Options,
};
use std::num::NonZeroU64;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What an operator or a test may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// What keeps an appended block until it is in a table file.
    pub journal: Journal,
    /// Cache of uncompressed index, filter and data blocks, in bytes.
    pub cache_bytes: usize,
    /// Writes held in memory before they go to a table file, in bytes over all columns. With a journal of the database's
    /// own, a restart replays up to four times as much.
    pub write_buffer_bytes: usize,
}

/// What keeps an appended block until it is in a table file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// The database's write-ahead log, which each [`crate::Store::append`] syncs: an appended block survives a power cut.
    Own,
    /// Whoever appends: it has each acknowledged block on disk until so many more were acknowledged. A crash takes back less
    /// than that, the newest, and the log goes on from where it ends then. Saves writing every byte once more.
    Elsewhere {
        /// At each height that this divides, `append` waits until everything so far is in table files.
        flush_every_blocks: NonZeroU64,
    },
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { journal: Journal::Own, cache_bytes: 24 << 20, write_buffer_bytes: 32 << 20 }
    }
}

impl RocksOptions {
    pub(super) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_db_write_buffer_size(self.write_buffer_bytes);
        // A crash must leave the columns of one moment, with and without a write-ahead log.
        options.set_atomic_flush(true);
        options.set_max_total_wal_size(4 * self.write_buffer_bytes as u64);
        options.set_max_open_files(256);
        options.set_max_background_jobs(2);
        // Spreads the writing of table files, so that syncing the write-ahead log does not wait for megabytes of theirs.
        options.set_bytes_per_sync(1 << 20);
        options.set_skip_stats_update_on_db_open(true);
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(1 << 20);
        options.set_keep_log_file_num(4);
        options
    }

    /// The descriptors of all columns; `earliest` tells compaction which index entries are of no use any more.
    pub(super) fn columns(&self, earliest: &Arc<AtomicU64>) -> Vec<ColumnFamilyDescriptor> {
        let cache = Cache::new_lru_cache(self.cache_bytes);
        Column::ALL.iter().map(|c| ColumnFamilyDescriptor::new(c.name(), self.column(*c, &cache, earliest))).collect()
    }

    fn column(&self, column: Column, cache: &Cache, earliest: &Arc<AtomicU64>) -> Options {
        // Indices and filters grow with the log: in parts, and inside the cache, they take no more than its size.
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(4096);
        table.set_format_version(6);
        let mut options = Options::default();
        options.set_write_buffer_size(self.write_buffer_bytes / if column == Column::Segments { 2 } else { 4 });
        match column {
            // Random bytes.
            Column::TxIndex | Column::Hashes | Column::Certificates => {
                options.set_compression_type(DBCompressionType::None);
            }
            Column::Meta | Column::Headers | Column::Tables | Column::Segments | Column::HubStates | Column::Bridge => {
                options.set_compression_type(DBCompressionType::Lz4);
            }
        }
        // Only these are asked for keys that are not there.
        if matches!(column, Column::TxIndex | Column::Hashes | Column::Segments) {
            table.set_bloom_filter(10.0, false);
        }
        // Each submission and each proposed transaction asks for a key that is not there.
        if column == Column::TxIndex {
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.1);
        }
        if column == Column::TxIndex {
            let earliest = Arc::clone(earliest);
            options.set_compaction_filter(c"pruned", move |_: u32, _: &[u8], value: &[u8]| {
                let pruned =
                    decode_location(value).is_some_and(|(height, _)| height < earliest.load(Ordering::Acquire));
                if pruned { rocksdb::CompactionDecision::Remove } else { rocksdb::CompactionDecision::Keep }
            });
        }
        options.set_block_based_table_factory(&table);
        options
    }
}
