//! Storage for validators that do not crash: what many of them write is kept once.
//!
//! The runtime's own storage keeps each file twice, as it is and as it was synced, and copies the whole file at each sync. Of
//! a hundred validators' archives with blocks of 5 MiB that is more than a machine has.

use bytes::Bytes;
use commonware_runtime::{BlobVersion, Error, IoBufMut, IoBufs, IoBufsMut};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    ops::RangeInclusive,
    sync::{Arc, Weak},
};

/// Writes of at least this length are looked up.
const SHARED_FROM_BYTES: usize = 32 << 10;

/// What was written lately, by a hash that need not be strong: equality is looked at.
#[derive(Default)]
pub(crate) struct Pool(Mutex<HashMap<u64, Weak<Bytes>>>);

impl Pool {
    /// The same bytes as an earlier caller has, if one has them still.
    fn share(&self, bytes: Bytes) -> Arc<Bytes> {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let mut known = self.0.lock();
        let entry = known.entry(hasher.finish()).or_default();
        match entry.upgrade().filter(|same| **same == bytes) {
            Some(same) => same,
            None => {
                let bytes = Arc::new(bytes);
                *entry = Arc::downgrade(&bytes);
                bytes
            }
        }
    }
}

/// A partition's files by name.
type Partition = BTreeMap<Vec<u8>, Arc<File>>;

/// One validator's files.
#[derive(Default)]
pub(crate) struct Shelf {
    pool: Arc<Pool>,
    files: Mutex<BTreeMap<String, Partition>>,
}

/// One file: what was written where, without overlaps.
#[derive(Default)]
pub struct File {
    pool: Arc<Pool>,
    pieces: Mutex<BTreeMap<u64, Arc<Bytes>>>,
}

impl Shelf {
    /// An empty shelf, whose large writes are shared with the others of `pool`.
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, files: Mutex::default() }
    }

    /// Opens a file, or makes it; tells its length.
    pub(crate) fn open(
        &self,
        partition: &str,
        name: &[u8],
        versions: &RangeInclusive<BlobVersion>,
    ) -> (Arc<File>, u64, BlobVersion) {
        let mut files = self.files.lock();
        let partition = files.entry(partition.into()).or_default();
        let new = || Arc::new(File { pool: self.pool.clone(), pieces: Mutex::default() });
        let file = partition.entry(name.into()).or_insert_with(new).clone();
        let len = file.len();
        (file, len, *versions.end())
    }

    /// Removes a file, or a whole partition.
    pub(crate) fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        let mut files = self.files.lock();
        let missing = || Error::PartitionMissing(partition.into());
        match name {
            None => files.remove(partition).map(drop).ok_or_else(missing),
            Some(name) => {
                let removed = files.get_mut(partition).ok_or_else(missing)?.remove(name);
                removed.map(drop).ok_or_else(|| Error::BlobMissing(partition.into(), format!("{name:x?}")))
            }
        }
    }

    /// The files of a partition.
    pub(crate) fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        let files = self.files.lock();
        let found = files.get(partition).ok_or_else(|| Error::PartitionMissing(partition.into()))?;
        Ok(found.keys().cloned().collect())
    }
}

fn end(at: u64, bytes: &Bytes) -> u64 {
    at + bytes.len() as u64
}

impl File {
    fn len(&self) -> u64 {
        self.pieces.lock().last_key_value().map_or(0, |(at, bytes)| end(*at, bytes))
    }

    /// Takes `from..to` out of the file: what lies across an end is cut.
    fn cut(pieces: &mut BTreeMap<u64, Arc<Bytes>>, from: u64, to: u64) {
        let first = pieces.range(..from).next_back().map_or(from, |(at, _)| *at);
        let touched: Vec<u64> = pieces.range(first..to).map(|(at, _)| *at).collect();
        for at in touched {
            let Some(bytes) = pieces.remove(&at) else { continue };
            let until = end(at, &bytes);
            let part = |from: u64, to: u64| {
                let index = |place: u64| usize::try_from(place - at).unwrap_or(usize::MAX);
                Arc::new(bytes.slice(index(from)..index(to)))
            };
            if at < from {
                pieces.insert(at, part(at, until.min(from)));
            }
            if until > to {
                pieces.insert(to, part(to, until));
            }
        }
    }

    pub(crate) fn write(&self, offset: u64, bufs: IoBufs) {
        let bytes: Bytes = bufs.coalesce().into();
        if bytes.is_empty() {
            return;
        }
        let bytes = match bytes.len() >= SHARED_FROM_BYTES {
            true => self.pool.share(bytes),
            // A slice would keep all that it is a part of.
            false => Arc::new(Bytes::copy_from_slice(&bytes)),
        };
        let mut pieces = self.pieces.lock();
        // What was skipped is zero.
        let len = pieces.last_key_value().map_or(0, |(at, bytes)| end(*at, bytes));
        if let Some(gap) = offset.checked_sub(len).filter(|gap| *gap > 0) {
            pieces.insert(len, Arc::new(vec![0; usize::try_from(gap).unwrap_or(0)].into()));
        }
        Self::cut(&mut pieces, offset, end(offset, &bytes));
        pieces.insert(offset, bytes);
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<IoBufsMut, Error> {
        let until = offset.checked_add(len as u64).ok_or(Error::OffsetOverflow)?;
        let pieces = self.pieces.lock();
        if pieces.last_key_value().map_or(0, |(at, bytes)| end(*at, bytes)) < until {
            return Err(Error::BlobInsufficientLength);
        }
        let mut read = Vec::with_capacity(len);
        let first = pieces.range(..=offset).next_back().map_or(0, |(at, _)| *at);
        for (at, bytes) in pieces.range(first..until) {
            let index = |place: u64| usize::try_from(place.saturating_sub(*at)).unwrap_or(usize::MAX).min(bytes.len());
            read.extend_from_slice(&bytes[index(offset)..index(until)]);
        }
        Ok(IoBufMut::from(read.as_slice()).into())
    }

    pub(crate) fn resize(&self, len: u64) {
        let old = self.len();
        if len > old {
            let zeros = usize::try_from(len - old).unwrap_or(0);
            self.write(old, vec![0; zeros].into());
        } else {
            Self::cut(&mut self.pieces.lock(), len, u64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::BlobVersion;
    use proptest::prelude::*;

    fn open(shelf: &Shelf, name: &[u8]) -> (Arc<File>, u64) {
        let version = BlobVersion::new(3);
        let (file, len, found) = shelf.open("a", name, &(version..=version));
        assert_eq!(found, version);
        (file, len)
    }

    fn content(file: &File, len: usize) -> Vec<u8> {
        file.read(0, len).unwrap().coalesce().as_ref().to_vec()
    }

    proptest! {
        #[test]
        fn a_file_holds_what_an_array_would(
            steps in proptest::collection::vec((0usize..60, proptest::collection::vec(any::<u8>(), 0..30), any::<bool>()), 0..20),
            window in (0usize..100, 0usize..100),
        ) {
            let (shelf, mut model) = (Shelf::default(), Vec::new());
            let (file, _) = open(&shelf, b"x");
            for (at, bytes, resize) in steps {
                if resize {
                    file.resize(at as u64);
                    model.resize(at, 0);
                } else {
                    if !bytes.is_empty() && model.len() < at + bytes.len() {
                        model.resize(at + bytes.len(), 0);
                    }
                    if !bytes.is_empty() {
                        model[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                    file.write(at as u64, bytes.into());
                }
                prop_assert_eq!(content(&file, model.len()), model.clone());
            }
            let found = file.read(window.0 as u64, window.1).ok().map(|read| read.coalesce().as_ref().to_vec());
            prop_assert_eq!(found, model.get(window.0..window.0 + window.1).map(<[u8]>::to_vec));
            prop_assert_eq!(open(&shelf, b"x").1, model.len() as u64);
        }
    }

    #[test]
    fn what_two_validators_write_is_kept_once_until_both_have_removed_it() {
        let pool = Arc::new(Pool::default());
        let shelves = [Shelf::new(pool.clone()), Shelf::new(pool)];
        let block = vec![7; SHARED_FROM_BYTES];
        for shelf in &shelves {
            open(shelf, b"x").0.write(5, block.clone().into());
        }
        let kept = |shelf: &Shelf| Arc::clone(&open(shelf, b"x").0.pieces.lock()[&5]);
        assert!(Arc::ptr_eq(&kept(&shelves[0]), &kept(&shelves[1])));
        let weak = Arc::downgrade(&kept(&shelves[0]));
        for shelf in &shelves {
            assert!(weak.upgrade().is_some());
            shelf.remove("a", None).unwrap();
        }
        assert!(weak.upgrade().is_none());
        assert!(shelves[0].scan("a").is_err() && shelves[0].remove("a", Some(b"x")).is_err());
    }
}
