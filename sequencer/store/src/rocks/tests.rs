//! What pruning and compaction do to the files, which the trait does not show.

use super::*;
use rocksdb::WaitForCompactOptions;
use tempfile::TempDir;

const NETWORK: B256 = B256::repeat_byte(7);

/// A store in which each block is in table files of its own, as many small flushes would leave it.
fn flushed(blocks: u64) -> (TempDir, RocksStore) {
    let dir = tempfile::tempdir().unwrap();
    let genesis = Header::genesis(NETWORK, 1, B256::ZERO);
    let store = RocksStore::open(dir.path(), NETWORK, genesis, RocksOptions::default()).unwrap();
    for height in 1..=blocks {
        let (tip, parent) = store.tip();
        let transactions = vec![Bytes::from(height.to_be_bytes().repeat(100)), Bytes::from_static(b"again")];
        let segments = vec![Segment { rollup: RollupId(1), transactions }];
        store.append(&Block::new(Header { parent, height, ..tip }, segments), None).unwrap();
        for column in Column::ALL {
            store.db.flush_cf(store.column(column).unwrap()).unwrap();
        }
    }
    store.db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
    (dir, store)
}

fn keys(store: &RocksStore, column: Column) -> usize {
    store.iterate(column, IteratorMode::Start).unwrap().map(Result::unwrap).count()
}

#[test]
fn compaction_drops_index_entries_of_pruned_blocks_and_no_others() {
    let (_dir, store) = flushed(10);
    assert_eq!(keys(&store, Column::TxIndex), 11);
    store.prune(8).unwrap();
    store.db.compact_range_cf(store.column(Column::TxIndex).unwrap(), None::<&[u8]>, None::<&[u8]>);
    assert_eq!(keys(&store, Column::TxIndex), 4, "three blocks with one of their own, and the one in all of them");
    for height in 8..=10u64 {
        let key = TxKey::of(RollupId(1), &height.to_be_bytes().repeat(100));
        assert_eq!(store.locate(key).unwrap(), Some((height, 0)));
    }
    assert_eq!(store.locate(TxKey::of(RollupId(1), b"again")).unwrap(), Some((10, 1)));
}

#[test]
fn compaction_of_a_log_that_is_not_pruned_drops_nothing() {
    let (_dir, store) = flushed(10);
    for column in Column::ALL {
        let before = keys(&store, column);
        store.db.compact_range_cf(store.column(column).unwrap(), None::<&[u8]>, None::<&[u8]>);
        assert_eq!(keys(&store, column), before, "{column:?}");
    }
}

#[test]
fn segments_are_moved_and_not_rewritten_so_that_pruning_drops_whole_files() {
    let (_dir, store) = flushed(40);
    let files = |column: Column| {
        store.db.live_files().unwrap().iter().filter(|f| f.column_family_name == column.name()).count()
    };
    for column in [Column::Segments, Column::Tables] {
        assert!(files(column) >= 40, "{column:?} was merged into {} files", files(column));
    }
    store.prune(31).unwrap();
    for column in [Column::Segments, Column::Tables] {
        // The newest few are in level 0, which is left alone.
        assert!(files(column) <= 15, "{column:?} still has {} files", files(column));
    }
    for height in 31..=40 {
        assert!(store.block(height).unwrap().is_some());
    }
    assert!(keys(&store, Column::Segments) < 15);
}
