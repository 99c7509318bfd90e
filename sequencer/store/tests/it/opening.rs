//! Which folders are opened, and how the others are refused.

use crate::{
    chain::{NETWORK, blocks, genesis},
    conformance::assert_holds,
};
use std::path::Path;
use switchyard_primitives::{B256, Header};
use switchyard_store::{RocksOptions, RocksStore, Store, StoreError};

pub(crate) fn open(path: &Path) -> Result<RocksStore, StoreError> {
    RocksStore::open(path, NETWORK, genesis(), RocksOptions::default())
}

fn put_meta(path: &Path, key: &str, value: &[u8]) {
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), path, column_names(path)).unwrap();
    db.put_cf(db.cf_handle("meta").unwrap(), key, value).unwrap();
}

pub(crate) fn column_names(path: &Path) -> Vec<String> {
    rocksdb::DB::list_cf(&rocksdb::Options::default(), path).unwrap()
}

#[test]
fn a_log_goes_on_after_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks(6);
    for block in &blocks {
        let store = open(dir.path()).unwrap();
        assert_eq!(store.tip().0.height, block.header.height - 1);
        store.append(block, None).unwrap();
    }
    let store = open(dir.path()).unwrap();
    assert_eq!(store.tip(), (blocks[5].header, blocks[5].hash()));
    blocks.iter().for_each(|block| assert_holds(&store, block));
    store.prune(4).unwrap();
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!(store.earliest(), 4);
    assert_eq!(store.block(3).unwrap(), None);
    assert_holds(&store, &blocks[3]);
}

#[test]
fn the_folder_is_made_where_it_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(open(&dir.path().join("a/b/store")).unwrap().tip().0.height, 0);
}

#[test]
fn another_networks_log_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().append(&blocks(1)[0], None).unwrap();
    let other = B256::repeat_byte(8);
    let header = Header::genesis(other, 1, B256::ZERO);
    match RocksStore::open(dir.path(), other, header, RocksOptions::default()) {
        Err(StoreError::OtherNetwork { found: NETWORK, expected, path }) => {
            assert_eq!((expected, path), (other, dir.path().display().to_string()));
        }
        refused => panic!("{refused:?}"),
    }
    assert_eq!(open(dir.path()).unwrap().tip().0.height, 1);
}

#[test]
fn a_log_with_another_genesis_header_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let header = Header { timestamp_ms: 5, ..genesis() };
    let refused = RocksStore::open(dir.path(), NETWORK, header, RocksOptions::default());
    assert!(matches!(refused, Err(StoreError::Corrupt { column: "headers", .. })), "{refused:?}");
}

#[test]
fn a_newer_format_is_refused_even_with_columns_and_a_network_that_are_unknown() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    put_meta(dir.path(), "format", &3u32.to_be_bytes());
    put_meta(dir.path(), "network", b"whatever format 3 has here");
    let mut names = column_names(dir.path());
    names.push("of_the_future".into());
    let mut options = rocksdb::Options::default();
    options.create_missing_column_families(true);
    drop(rocksdb::DB::open_cf(&options, dir.path(), names).unwrap());
    let refused = open(dir.path());
    assert!(matches!(refused, Err(StoreError::NewerFormat { found: 3, supported: 2, .. })), "{refused:?}");
}

#[test]
fn an_older_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    put_meta(dir.path(), "format", &1u32.to_be_bytes());
    let refused = open(dir.path());
    assert!(matches!(refused, Err(StoreError::OlderFormat { found: 1, supported: 2, .. })), "{refused:?}");
}

#[test]
fn a_format_that_never_was_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    for value in [&0u32.to_be_bytes()[..], b"", b"five!"] {
        put_meta(dir.path(), "format", value);
        let refused = open(dir.path());
        assert!(matches!(refused, Err(StoreError::Corrupt { column: "meta", .. })), "{refused:?}");
    }
}

#[test]
fn a_database_of_something_else_is_refused() {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);

    let dir = tempfile::tempdir().unwrap();
    rocksdb::DB::open(&options, dir.path()).unwrap().put("a", "b").unwrap();
    let refused = open(dir.path());
    assert!(matches!(refused, Err(StoreError::Corrupt { column: "meta", .. })), "a value in default: {refused:?}");

    let dir = tempfile::tempdir().unwrap();
    drop(rocksdb::DB::open_cf(&options, dir.path(), ["trie"]).unwrap());
    let refused = open(dir.path());
    assert!(matches!(refused, Err(StoreError::Corrupt { column: "meta", .. })), "an unknown column: {refused:?}");
}

#[test]
fn a_log_that_is_open_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    match open(dir.path()) {
        Err(StoreError::InUse { path }) => assert_eq!(path, dir.path().display().to_string()),
        refused => panic!("{refused:?}"),
    }
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_path_that_is_a_file_is_a_named_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = open(file.path());
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
}
