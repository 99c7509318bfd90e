//! Damaged records and files: a named error, never a panic, and never an empty log in place of a damaged one.

use crate::{
    chain::{blocks, certificate, key},
    opening::{column_names, open},
};
use std::path::Path;
use switchyard_primitives::RollupId;
use switchyard_store::{Store, StoreError};
use tempfile::TempDir;

fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for block in blocks(5) {
        store.append(&block, Some(&certificate(&block))).unwrap();
    }
    dir
}

/// Writes `value` over every record of `column`.
fn overwrite(path: &Path, column: &str, value: Option<&[u8]>) {
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), path, column_names(path)).unwrap();
    let cf = db.cf_handle(column).unwrap();
    let keys: Vec<Box<[u8]>> = db.iterator_cf(cf, rocksdb::IteratorMode::Start).map(|kv| kv.unwrap().0).collect();
    assert!(!keys.is_empty());
    for key in keys {
        match value {
            Some(value) => db.put_cf(cf, key, value).unwrap(),
            None => db.delete_cf(cf, key).unwrap(),
        }
    }
}

/// Opens and reads everything; what went wrong first.
fn first_error(path: &Path) -> Option<StoreError> {
    let read = || -> Result<(), StoreError> {
        let store = open(path)?;
        store.certificate_from(0)?;
        store.locate(key(1, "first of 2"))?;
        store.locate_many(&[key(1, "first of 2")])?;
        for height in 0..=5 {
            store.header(height)?;
            store.table(height)?;
            store.transactions(RollupId(1), height)?;
            store.block(height)?;
        }
        for block in blocks(5) {
            store.height_of(block.hash())?;
            store.append(&block, None)?;
        }
        Ok(())
    };
    read().err()
}

#[test]
fn garbage_in_any_column_is_named() {
    for garbage in [&b"?"[..], &[0xff; 43], &[0; 12], &[0; 500]] {
        for column in ["meta", "headers", "hashes", "tables", "segments", "certificates", "tx_index"] {
            // Twelve zero bytes are a location, and zeros are no rows or rows of zeros.
            let plausible =
                (column == "tx_index" && garbage.len() == 12) || (column == "segments" && garbage == [0; 12]);
            let dir = filled();
            overwrite(dir.path(), column, Some(garbage));
            match first_error(dir.path()) {
                Some(StoreError::Corrupt { .. }) => {}
                None if plausible => {}
                other => panic!("{column} with {} bytes: {other:?}", garbage.len()),
            }
        }
    }
}

#[test]
fn records_that_are_gone_are_named() {
    for column in ["meta", "headers", "hashes", "tables", "segments"] {
        let dir = filled();
        overwrite(dir.path(), column, None);
        let error = first_error(dir.path());
        assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{column}: {error:?}");
    }
}

#[test]
fn an_undecodable_record_says_its_column_and_height() {
    let dir = filled();
    let path = dir.path();
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), path, column_names(path)).unwrap();
    let key = [3u64.to_be_bytes(), 1u64.to_be_bytes()].concat();
    db.put_cf(db.cf_handle("segments").unwrap(), key, [0, 0, 0, 9]).unwrap();
    drop(db);
    let store = open(path).unwrap();
    match store.block(3) {
        Err(StoreError::Corrupt { column: "segments", detail }) => assert!(detail.contains("height 3"), "{detail}"),
        other => panic!("{other:?}"),
    }
    assert!(store.block(2).unwrap().is_some() && store.block(4).unwrap().is_some(), "only what is damaged is lost");
}

/// The same with all of it in table files.
fn flushed() -> TempDir {
    let dir = filled();
    let names = column_names(dir.path());
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir.path(), &names).unwrap();
    for name in &names {
        db.flush_cf(db.cf_handle(name).unwrap()).unwrap();
    }
    dir
}

fn files(path: &Path, part: &str) -> Vec<std::path::PathBuf> {
    let name = |p: &std::path::PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().contains(part));
    std::fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).filter(name).collect()
}

#[test]
fn damaged_files_are_named() {
    for part in ["CURRENT", "MANIFEST", ".sst"] {
        let dir = flushed();
        let damaged = files(dir.path(), part);
        assert!(!damaged.is_empty(), "no {part}");
        for file in damaged {
            let mut bytes = std::fs::read(&file).unwrap();
            bytes.iter_mut().for_each(|b| *b ^= 0x5a);
            std::fs::write(&file, bytes).unwrap();
        }
        let error = first_error(dir.path());
        assert!(matches!(error, Some(StoreError::Corrupt { .. } | StoreError::Database(_))), "{part}: {error:?}");
    }
}

#[test]
fn a_folder_that_lost_files_is_not_taken_for_an_empty_one() {
    for part in ["CURRENT", "MANIFEST", ".sst"] {
        let dir = flushed();
        files(dir.path(), part).iter().for_each(|file| std::fs::remove_file(file).unwrap());
        let error = first_error(dir.path());
        assert!(matches!(error, Some(StoreError::Corrupt { .. } | StoreError::Database(_))), "{part}: {error:?}");
    }
}
