//! The log in RocksDB.
//!
//! | column | key | value |
//! |---|---|---|
//! | `meta` | name | format number, network id, earliest height |
//! | `headers` | height | header |
//! | `hashes` | block hash | height |
//! | `tables` | height | segment table rows |
//! | `segments` | height, rollup | transactions |
//! | `certificates` | height | finality certificate |
//! | `tx_index` | rollup, transaction hash | height, index |
//! | `hub_states` | height | what consensus needs of the hub's state after it, where it changed |
//! | `bridge` | `b`, id | a bundle, as it last changed |
//! | `bridge` | `s`, height | the bridge's state after it, where it changed |
//! | | `c`, height | leaves of the hub's accumulator after it |
//! | | `l`, index | a leaf |
//! | | `n`, level, position | a full node |
//!
//! The tip is the last key of `headers`: a block is one atomic batch over all columns, so no second record of the tip
//! can disagree. Pruning moves one number in `meta`. What is below it is hidden from then on; table files that lie wholly
//! below it are dropped, and compaction leaves out index entries that point below it.

mod open;
mod options;
#[cfg(test)]
mod tests;

pub use options::{Journal, RocksOptions};

use crate::{
    BridgeRows, Store, StoreError, bridge,
    placement::{Checked, Placement},
    record::{
        Location, decode_location, decode_table, decode_transactions, encode_location, encode_table,
        encode_transactions, segment_key, tx_key,
    },
};
use parking_lot::{Mutex, RwLock};
use rocksdb::{
    ColumnFamily, DB, DBIteratorWithThreadMode, Direction, ErrorKind, FlushOptions, IteratorMode, ReadOptions,
    WriteBatch, WriteOptions,
};
use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use switchyard_primitives::{
    B256, Block, Bytes, DecodeError, FinalityCertificate, Header, RollupId, Segment, TableEntry, TxKey,
};

/// The log on disk.
pub struct RocksStore {
    /// Header and hash of the tip.
    tip: RwLock<(Header, B256)>,
    /// Held by the one who appends or prunes.
    writer: Mutex<()>,
    /// Shared with compaction, and never above what is durable: compaction cannot take back what it removed.
    earliest: Arc<AtomicU64>,
    journal: Journal,
    db: DB,
}

/// The column families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Meta,
    Headers,
    Hashes,
    Tables,
    Segments,
    Certificates,
    TxIndex,
    HubStates,
    Bridge,
}

impl Column {
    const ALL: [Self; 9] = [
        Self::Meta,
        Self::Headers,
        Self::Hashes,
        Self::Tables,
        Self::Segments,
        Self::Certificates,
        Self::TxIndex,
        Self::HubStates,
        Self::Bridge,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Headers => "headers",
            Self::Hashes => "hashes",
            Self::Tables => "tables",
            Self::Segments => "segments",
            Self::Certificates => "certificates",
            Self::TxIndex => "tx_index",
            Self::HubStates => "hub_states",
            Self::Bridge => "bridge",
        }
    }

    fn corrupt(self, detail: impl Into<String>) -> StoreError {
        StoreError::Corrupt { column: self.name(), detail: detail.into() }
    }

    fn undecodable(self, height: u64) -> impl FnOnce(DecodeError) -> StoreError {
        move |e| self.corrupt(format!("height {height}: {e}"))
    }

    fn failed(self, error: rocksdb::Error) -> StoreError {
        match error.kind() {
            ErrorKind::Corruption => self.corrupt(error.into_string()),
            _ => StoreError::Database(format!("{}: {}", self.name(), error.into_string())),
        }
    }
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tip = self.tip.read().0.height;
        f.debug_struct("RocksStore").field("path", &self.db.path()).field("tip", &tip).finish_non_exhaustive()
    }
}

impl RocksStore {
    /// Opens the log in the folder `path`, or begins one there with `genesis`.
    ///
    /// # Errors
    /// [`StoreError::OtherNetwork`] and [`StoreError::NewerFormat`] for a log that is not for this node,
    /// [`StoreError::InUse`] if a process (or this one) has it open, [`StoreError::Corrupt`] if it is damaged or no log at
    /// all, [`StoreError::Database`] for what the system says.
    pub fn open(path: &Path, network: B256, genesis: Header, options: RocksOptions) -> Result<Self, StoreError> {
        open::open(path, network, genesis, options)
    }

    fn column(&self, column: Column) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(column.name()).ok_or_else(|| column.corrupt("the column is missing"))
    }

    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(self.column(column)?, key).map_err(|e| column.failed(e))
    }

    fn iterate(&self, column: Column, mode: IteratorMode<'_>) -> Result<DBIteratorWithThreadMode<'_, DB>, StoreError> {
        Ok(self.db.iterator_cf(self.column(column)?, mode))
    }

    /// Writes and, if `durable`, waits until the disk has this and everything before. Without a write-ahead log that takes
    /// a table file for each column.
    fn write(&self, batch: WriteBatch, durable: bool) -> Result<(), StoreError> {
        let failed = |e: rocksdb::Error| StoreError::Database(e.into_string());
        let own = self.journal == Journal::Own;
        let mut options = WriteOptions::default();
        options.disable_wal(!own);
        options.set_sync(own && durable);
        self.db.write_opt(batch, &options).map_err(failed)?;
        if durable && !own {
            let columns = Column::ALL.map(|column| self.column(column));
            let columns = columns.into_iter().collect::<Result<Vec<_>, _>>()?;
            self.db.flush_cfs_opt(&columns.iter().collect::<Vec<_>>(), &FlushOptions::default()).map_err(failed)?;
        }
        Ok(())
    }

    /// Whether an append at this height waits for the disk.
    fn is_durable_at(&self, height: u64) -> bool {
        match self.journal {
            Journal::Own => true,
            Journal::Elsewhere { flush_every_blocks } => height.is_multiple_of(flush_every_blocks.get()),
        }
    }

    /// Whether the bodies of this height are to be seen.
    fn keeps(&self, height: u64) -> bool {
        height >= self.earliest()
    }

    /// The answer where a record of a kept body is missing: the body has been pruned in the meantime, or the log is
    /// damaged.
    fn missing<T>(&self, column: Column, height: u64) -> Result<Option<T>, StoreError> {
        if self.keeps(height) { Err(column.corrupt(format!("nothing at height {height}"))) } else { Ok(None) }
    }

    fn read_header(&self, height: u64) -> Result<Option<Header>, StoreError> {
        let Some(record) = self.get(Column::Headers, &height.to_be_bytes())? else { return Ok(None) };
        let header = Header::decode(&record).map_err(Column::Headers.undecodable(height))?;
        if header.height != height {
            return Err(Column::Headers.corrupt(format!("header {} at height {height}", header.height)));
        }
        Ok(Some(header))
    }

    fn read_transactions(&self, rollup: RollupId, height: u64) -> Result<Option<Vec<Bytes>>, StoreError> {
        // One segment may be larger than a shard of the cache, and would empty it.
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let key = segment_key(height, rollup);
        let record = self.db.get_cf_opt(self.column(Column::Segments)?, key, &options);
        let Some(record) = record.map_err(|e| Column::Segments.failed(e))? else { return Ok(None) };
        decode_transactions(record).map(Some).map_err(Column::Segments.undecodable(height))
    }

    fn visible(&self, record: &[u8]) -> Result<Option<Location>, StoreError> {
        let location = decode_location(record)
            .ok_or_else(|| Column::TxIndex.corrupt(format!("location of {} bytes", record.len())))?;
        Ok(Some(location).filter(|(height, _)| self.keeps(*height)))
    }

    fn add_block(&self, batch: &mut WriteBatch, checked: &Checked<'_>) -> Result<(), StoreError> {
        let header = &checked.block.header;
        let height = header.height.to_be_bytes();
        batch.put_cf(self.column(Column::Headers)?, height, header.encode());
        batch.put_cf(self.column(Column::Hashes)?, checked.hash, height);
        batch.put_cf(self.column(Column::Tables)?, height, encode_table(&checked.table));
        let (segments, index) = (self.column(Column::Segments)?, self.column(Column::TxIndex)?);
        for (segment, hashes) in checked.block.segments().iter().zip(checked.block.tx_hashes()) {
            let key = segment_key(header.height, segment.rollup);
            batch.put_cf(segments, key, encode_transactions(&segment.transactions));
            for (hash, position) in hashes.iter().zip(0..) {
                let key = tx_key(&TxKey { rollup: segment.rollup, hash: *hash });
                batch.put_cf(index, key, encode_location((header.height, position)));
            }
        }
        Ok(())
    }

    /// The certificate at a height, or the nearest one in a direction.
    fn next_certificate(
        &self,
        height: u64,
        direction: Direction,
    ) -> Result<Option<(u64, FinalityCertificate)>, StoreError> {
        let from = height.to_be_bytes();
        let mut records = self.iterate(Column::Certificates, IteratorMode::From(&from, direction))?;
        let Some(record) = records.next() else { return Ok(None) };
        let (key, value) = record.map_err(|e| Column::Certificates.failed(e))?;
        let height = <[u8; 8]>::try_from(key.as_ref())
            .map(u64::from_be_bytes)
            .map_err(|_| Column::Certificates.corrupt(format!("key of {} bytes", key.len())))?;
        let certificate = FinalityCertificate::decode(&value).map_err(Column::Certificates.undecodable(height))?;
        Ok(Some((height, certificate)))
    }

    /// The bridge's keys from one down. What cannot be read ends them.
    fn bridge_from(&self, key: &[u8]) -> Result<impl Iterator<Item = Box<[u8]>> + '_, StoreError> {
        let rows = self.iterate(Column::Bridge, IteratorMode::From(key, Direction::Reverse))?;
        Ok(rows.map_while(|row| row.ok()).map(|(key, _)| key))
    }

    /// Drops the table files that hold nothing at or above `earliest`. Failing costs space, not correctness.
    fn reclaim(&self, earliest: u64) -> Result<(), StoreError> {
        let Some(last) = earliest.checked_sub(1) else { return Ok(()) };
        let (from, to) = (segment_key(0, RollupId(0)), segment_key(last, RollupId(u64::MAX)));
        let dropped = self.db.delete_file_in_range_cf(self.column(Column::Segments)?, from, to);
        let (from, to) = (0u64.to_be_bytes(), last.to_be_bytes());
        let dropped = dropped.and(self.db.delete_file_in_range_cf(self.column(Column::Tables)?, from, to));
        if let Err(error) = dropped {
            tracing::warn!(%error, earliest, "cannot give back the space of pruned blocks");
        }
        Ok(())
    }
}

impl Store for RocksStore {
    fn append(&self, block: &Block, certificate: Option<&FinalityCertificate>) -> Result<(), StoreError> {
        let checked = Checked::new(block, certificate)?;
        let height = block.header.height;
        let _writer = self.writer.lock();
        let held = |height| {
            let header = self.read_header(height)?;
            header.map(|h| h.hash()).ok_or_else(|| Column::Headers.corrupt(format!("nothing at height {height}")))
        };
        let placement = checked.place(&self.tip(), held)?;
        let mut batch = WriteBatch::with_capacity_bytes(block.encoded_len());
        if placement == Placement::Next {
            self.add_block(&mut batch, &checked)?;
        }
        if let Some(certificate) = certificate {
            let known =
                placement == Placement::Held && self.get(Column::Certificates, &height.to_be_bytes())?.is_some();
            if !known {
                batch.put_cf(self.column(Column::Certificates)?, height.to_be_bytes(), certificate.encode());
            }
        }
        if !batch.is_empty() {
            self.write(batch, self.is_durable_at(height))?;
        }
        if placement == Placement::Next {
            *self.tip.write() = (block.header, checked.hash);
        }
        Ok(())
    }

    fn begin_at(&self, block: &Block, certificate: Option<&FinalityCertificate>) -> Result<(), StoreError> {
        let checked = Checked::new(block, certificate)?;
        let height = block.header.height;
        let _writer = self.writer.lock();
        checked.begins(&self.tip())?;
        let mut batch = WriteBatch::with_capacity_bytes(block.encoded_len());
        self.add_block(&mut batch, &checked)?;
        if let Some(certificate) = certificate {
            batch.put_cf(self.column(Column::Certificates)?, height.to_be_bytes(), certificate.encode());
        }
        batch.put_cf(self.column(Column::Meta)?, open::EARLIEST_KEY, height.to_be_bytes());
        self.write(batch, true)?;
        self.earliest.store(height, Ordering::Release);
        *self.tip.write() = (block.header, checked.hash);
        Ok(())
    }

    fn tip(&self) -> (Header, B256) {
        *self.tip.read()
    }

    fn earliest(&self) -> u64 {
        self.earliest.load(Ordering::Acquire)
    }

    fn header(&self, height: u64) -> Result<Option<Header>, StoreError> {
        self.read_header(height)
    }

    fn height_of(&self, hash: B256) -> Result<Option<u64>, StoreError> {
        let Some(record) = self.get(Column::Hashes, hash.as_slice())? else { return Ok(None) };
        let height = <[u8; 8]>::try_from(record.as_slice()).map(u64::from_be_bytes);
        height.map(Some).map_err(|_| Column::Hashes.corrupt(format!("height of {} bytes", record.len())))
    }

    fn table(&self, height: u64) -> Result<Option<Vec<TableEntry>>, StoreError> {
        if !self.keeps(height) {
            return Ok(None);
        }
        let Some(record) = self.get(Column::Tables, &height.to_be_bytes())? else { return Ok(None) };
        decode_table(record).map(Some).map_err(Column::Tables.undecodable(height))
    }

    fn transactions(&self, rollup: RollupId, height: u64) -> Result<Option<Vec<Bytes>>, StoreError> {
        if self.keeps(height) { self.read_transactions(rollup, height) } else { Ok(None) }
    }

    fn block(&self, height: u64) -> Result<Option<Block>, StoreError> {
        let (Some(header), true) = (self.read_header(height)?, self.keeps(height)) else { return Ok(None) };
        let Some(table) = self.table(height)? else { return self.missing(Column::Tables, height) };
        let mut segments = Vec::with_capacity(table.len());
        for row in table {
            let Some(transactions) = self.read_transactions(row.rollup, height)? else {
                return self.missing(Column::Segments, height);
            };
            segments.push(Segment { rollup: row.rollup, transactions });
        }
        Ok(Some(Block::from_parts(header, segments)))
    }

    fn certificate_from(&self, height: u64) -> Result<Option<(u64, FinalityCertificate)>, StoreError> {
        self.next_certificate(height, Direction::Forward)
    }

    fn certificate_to(&self, height: u64) -> Result<Option<(u64, FinalityCertificate)>, StoreError> {
        self.next_certificate(height, Direction::Reverse)
    }

    fn locate(&self, key: TxKey) -> Result<Option<Location>, StoreError> {
        match self.get(Column::TxIndex, &tx_key(&key))? {
            Some(record) => self.visible(&record),
            None => Ok(None),
        }
    }

    fn locate_many(&self, keys: &[TxKey]) -> Result<Vec<Option<Location>>, StoreError> {
        let keys: Vec<_> = keys.iter().map(tx_key).collect();
        let records = self.db.batched_multi_get_cf(self.column(Column::TxIndex)?, &keys, false);
        let read = |record: Result<Option<rocksdb::DBPinnableSlice<'_>>, _>| match record {
            Ok(Some(record)) => self.visible(&record),
            Ok(None) => Ok(None),
            Err(e) => Err(Column::TxIndex.failed(e)),
        };
        records.into_iter().map(read).collect()
    }

    fn put_hub_state(&self, height: u64, state: &[u8]) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.column(Column::HubStates)?, height.to_be_bytes(), state);
        // Durable with the block, not before it.
        self.write(batch, false)
    }

    fn hub_state(&self, height: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let key = height.to_be_bytes();
        let newest = self.iterate(Column::HubStates, IteratorMode::From(&key, Direction::Reverse))?.next();
        let newest = newest.transpose().map_err(|e| Column::HubStates.failed(e))?;
        Ok(newest.map(|(_, state)| state.into_vec()))
    }

    fn put_bridge(&self, height: u64, rows: &BridgeRows) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let column = self.column(Column::Bridge)?;
        rows.puts(height).for_each(|(key, row)| batch.put_cf(column, key, row));
        let states = self.bridge_from(&bridge::state_key(height))?.map_while(|key| bridge::height_of(&key));
        for gone in rows.forgotten(height, std::iter::once(height).chain(states.filter(|state| *state < height))) {
            batch.delete_cf(column, bridge::state_key(gone));
        }
        self.write(batch, false)
    }

    fn bridge_state(&self, height: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let newest = self.bridge_from(&bridge::state_key(height))?.next();
        let Some((key, at)) = newest.and_then(|key| bridge::height_of(&key).map(|at| (key, at))) else {
            return Ok(None);
        };
        Ok(self.get(Column::Bridge, &key)?.map(|state| (at, state)))
    }

    fn bridge_count(&self, height: u64) -> Result<u64, StoreError> {
        let from = bridge::count_key(height);
        let newest = self.bridge_from(&from)?.next().filter(|found| found.first() == from.first());
        let row = newest.map_or(Ok(None), |key| self.get(Column::Bridge, &key))?;
        row.map_or(Ok(0), |row| bridge::count_of(&row))
    }

    fn bridge_leaf(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(Column::Bridge, &bridge::leaf_key(index))
    }

    fn bridge_node(&self, level: u8, position: u64) -> Result<Option<B256>, StoreError> {
        let row = self.get(Column::Bridge, &bridge::node_key(level, position))?;
        row.map(|row| bridge::node_of(&row)).transpose()
    }

    fn bridge_bundle(&self, id: &B256) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(Column::Bridge, &bridge::bundle_key(id))
    }

    fn bridge_record(&self, id: &B256) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(Column::Bridge, &bridge::record_key(id))
    }

    fn prune(&self, height: u64) -> Result<(), StoreError> {
        let _writer = self.writer.lock();
        let earliest = height.min(self.tip().0.height);
        if earliest <= self.earliest() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        batch.put_cf(self.column(Column::Meta)?, open::EARLIEST_KEY, earliest.to_be_bytes());
        self.write(batch, true)?;
        self.earliest.store(earliest, Ordering::Release);
        self.reclaim(earliest)
    }

    fn size_bytes(&self) -> u64 {
        let property = |column: Column, name| {
            let column = self.db.cf_handle(column.name())?;
            self.db.property_int_value_cf(column, name).ok().flatten()
        };
        Column::ALL
            .iter()
            .flat_map(|c| [c"rocksdb.live-sst-files-size", c"rocksdb.cur-size-all-mem-tables"].map(|p| property(*c, p)))
            .flatten()
            .sum()
    }
}
