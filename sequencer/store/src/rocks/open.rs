//! Opening a folder: creating a log in it, or seeing that the log in it is the right one and whole.

use super::{Column, RocksOptions, RocksStore};
use crate::{Store, StoreError, record::encode_table};
use parking_lot::{Mutex, RwLock};
use rocksdb::{ColumnFamilyDescriptor, DB, ErrorKind, IteratorMode, Options, WriteBatch};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use switchyard_primitives::{B256, Header};

/// Format of the database; one number for all columns. 1 had no hub states, and its headers no system root.
const FORMAT: u32 = 2;
const FORMAT_KEY: &[u8] = b"format";
const NETWORK_KEY: &[u8] = b"network";
pub(super) const EARLIEST_KEY: &[u8] = b"earliest";

pub(super) fn open(
    path: &Path,
    network: B256,
    genesis: Header,
    options: RocksOptions,
) -> Result<RocksStore, StoreError> {
    let earliest = Arc::new(AtomicU64::new(0));
    let (db, foreign) = open_database(path, &options, &earliest)?;
    let mut store = RocksStore {
        tip: RwLock::new((genesis, genesis.hash())),
        writer: Mutex::new(()),
        earliest,
        journal: options.journal,
        db,
    };
    match store.meta(FORMAT_KEY)? {
        Some(format) => store.check_identity(path, &format, network)?,
        None if foreign => return Err(Column::Meta.corrupt("not a switchyard database")),
        None => store.create(network, genesis)?,
    }
    store.load(genesis)?;
    tracing::info!(path = %path.display(), tip = store.tip.get_mut().0.height, "opened the store");
    Ok(store)
}

/// Opens with every column that is there, ours or not, and says whether the folder holds anything that is not ours.
fn open_database(path: &Path, options: &RocksOptions, earliest: &Arc<AtomicU64>) -> Result<(DB, bool), StoreError> {
    let database = options.database();
    let existing =
        if has_database(path)? { DB::list_cf(&database, path).map_err(|e| open_error(path, e))? } else { Vec::new() };
    let ours: BTreeSet<&str> = Column::ALL.iter().map(|c| c.name()).chain(["default"]).collect();
    let unknown: Vec<&String> = existing.iter().filter(|name| !ours.contains(name.as_str())).collect();
    let columns = options
        .columns(earliest)
        .into_iter()
        .chain(unknown.iter().map(|name| ColumnFamilyDescriptor::new(name.as_str(), Options::default())));
    let db = DB::open_cf_descriptors(&database, path, columns).map_err(|e| open_error(path, e))?;
    let foreign = !unknown.is_empty() || db.iterator(IteratorMode::Start).next().is_some();
    Ok((db, foreign))
}

/// Whether RocksDB would find a database. Without its `CURRENT` file it would begin a new one, on top of what is left of
/// a damaged one: that is refused.
fn has_database(path: &Path) -> Result<bool, StoreError> {
    let io = |e: std::io::Error| StoreError::Database(format!("{}: {e}", path.display()));
    if path.join("CURRENT").try_exists().map_err(io)? {
        return Ok(true);
    }
    let files = match std::fs::read_dir(path) {
        Ok(files) => files,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).map_err(io)?;
            return Ok(false);
        }
        Err(e) => return Err(io(e)),
    };
    for file in files {
        let file = file.map_err(io)?.path();
        if file.extension().is_some_and(|extension| extension == "sst" || extension == "log") {
            let detail = format!("{} is there but the CURRENT file is missing", file.display());
            return Err(StoreError::Corrupt { column: "database", detail });
        }
    }
    Ok(false)
}

fn open_error(path: &Path, error: rocksdb::Error) -> StoreError {
    let kind = error.kind();
    let detail = error.into_string();
    if kind == ErrorKind::IOError && (detail.contains("lock file") || detail.contains("lock hold by current process")) {
        return StoreError::InUse { path: path.display().to_string() };
    }
    match kind {
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotSupported => {
            StoreError::Corrupt { column: "database", detail }
        }
        // What the database names was there.
        ErrorKind::IOError if detail.contains("No such file") => StoreError::Corrupt { column: "database", detail },
        _ => StoreError::Database(detail),
    }
}

impl RocksStore {
    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(Column::Meta, key)
    }

    /// The format decides how everything else is read, so it comes first.
    fn check_identity(&self, path: &Path, format: &[u8], network: B256) -> Result<(), StoreError> {
        let path = path.display().to_string();
        let found = <[u8; 4]>::try_from(format).map(u32::from_be_bytes);
        let found = found.map_err(|_| Column::Meta.corrupt(format!("format of {} bytes", format.len())))?;
        if found > FORMAT {
            return Err(StoreError::NewerFormat { path, found, supported: FORMAT });
        }
        if found == 0 {
            return Err(Column::Meta.corrupt("format 0 never was"));
        }
        if found < FORMAT {
            return Err(StoreError::OlderFormat { path, found, supported: FORMAT });
        }
        let id = self.meta(NETWORK_KEY)?.unwrap_or_default();
        let found = B256::try_from(id.as_slice())
            .map_err(|_| Column::Meta.corrupt(format!("network id of {} bytes", id.len())))?;
        if found != network {
            return Err(StoreError::OtherNetwork { path, found, expected: network });
        }
        Ok(())
    }

    fn create(&self, network: B256, genesis: Header) -> Result<(), StoreError> {
        if self.iterate(Column::Headers, IteratorMode::Start)?.next().is_some() {
            return Err(Column::Meta.corrupt("no format number beside headers"));
        }
        let height = genesis.height.to_be_bytes();
        let mut batch = WriteBatch::default();
        batch.put_cf(self.column(Column::Meta)?, FORMAT_KEY, FORMAT.to_be_bytes());
        batch.put_cf(self.column(Column::Meta)?, NETWORK_KEY, network);
        batch.put_cf(self.column(Column::Meta)?, EARLIEST_KEY, 0u64.to_be_bytes());
        batch.put_cf(self.column(Column::Headers)?, height, genesis.encode());
        batch.put_cf(self.column(Column::Hashes)?, genesis.hash(), height);
        batch.put_cf(self.column(Column::Tables)?, height, encode_table(&[]));
        self.write(batch, true)
    }

    /// Reads what is cached, and sees that both ends of the log are whole.
    fn load(&mut self, genesis: Header) -> Result<(), StoreError> {
        if self.read_header(genesis.height)? != Some(genesis) {
            return Err(Column::Headers.corrupt("the genesis header is another one"));
        }
        let last = self.iterate(Column::Headers, IteratorMode::End)?.next();
        let (key, _) =
            last.ok_or_else(|| Column::Headers.corrupt("no header"))?.map_err(|e| Column::Headers.failed(e))?;
        let height = <[u8; 8]>::try_from(key.as_ref()).map(u64::from_be_bytes);
        let height = height.map_err(|_| Column::Headers.corrupt(format!("key of {} bytes", key.len())))?;
        let tip = self.read_header(height)?.ok_or_else(|| Column::Headers.corrupt(format!("no header at {height}")))?;
        *self.tip.get_mut() = (tip, tip.hash());

        let earliest = self.meta(EARLIEST_KEY)?.and_then(|v| <[u8; 8]>::try_from(v.as_slice()).ok());
        let earliest = earliest
            .map(u64::from_be_bytes)
            .filter(|earliest| *earliest <= height)
            .ok_or_else(|| Column::Meta.corrupt(format!("earliest height missing, or above the tip {height}")))?;
        self.earliest.store(earliest, Ordering::Release);
        if self.height_of(tip.hash())? != Some(height) || self.table(height)?.is_none() {
            return Err(Column::Tables.corrupt(format!("the tip {height} is not whole")));
        }
        Ok(())
    }
}
