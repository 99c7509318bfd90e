//! What every store promises.

use crate::chain::{NETWORK, blocks, certificate, child, genesis, key, segment};
use switchyard_primitives::{B256, Block, BlockError, RollupId, SegmentTable};
use switchyard_store::{BridgeRows, MemoryStore, RocksOptions, RocksStore, Store, StoreError};

fn filled(store: &dyn Store, count: usize) -> Vec<Block> {
    let blocks = blocks(count);
    for block in &blocks {
        store.append(block, Some(&certificate(block))).unwrap();
    }
    blocks
}

/// Everything that a store says of a block whose body it keeps.
pub(crate) fn assert_holds(store: &dyn Store, block: &Block) {
    let height = block.header.height;
    assert_eq!(store.header(height).unwrap(), Some(block.header));
    assert_eq!(store.height_of(block.hash()).unwrap(), Some(height));
    assert_eq!(store.table(height).unwrap().as_deref(), Some(SegmentTable::new(block.segments()).entries()));
    assert_eq!(store.block(height).unwrap().as_ref(), Some(block));
    for segment in block.segments() {
        assert_eq!(store.transactions(segment.rollup, height).unwrap().as_ref(), Some(&segment.transactions));
    }
}

fn a_new_store_holds_genesis_and_nothing_else(store: &dyn Store) {
    assert_eq!(store.tip(), (genesis(), genesis().hash()));
    assert_eq!(store.earliest(), 0);
    assert_holds(store, &Block::genesis(genesis()));
    assert_eq!(store.header(1).unwrap(), None);
    assert_eq!(store.table(1).unwrap(), None);
    assert_eq!(store.block(1).unwrap(), None);
    assert_eq!(store.height_of(B256::ZERO).unwrap(), None);
    assert_eq!(store.certificate_from(0).unwrap(), None);
    assert_eq!(store.locate(key(1, "x")).unwrap(), None);
}

fn what_was_appended_is_read_back(store: &dyn Store) {
    let blocks = filled(store, 9);
    for block in &blocks {
        assert_holds(store, block);
    }
    let last = blocks.last().unwrap();
    assert_eq!(store.tip(), (last.header, last.hash()));
    assert_eq!(store.transactions(RollupId(2), 3).unwrap(), None, "no segment at an odd height");
    assert_eq!(store.transactions(RollupId(99), 3).unwrap(), None, "no such rollup");
    assert_eq!(store.block(10).unwrap(), None);
    assert!(store.size_bytes() > 0);
}

fn a_transaction_is_located_where_it_was_last(store: &dyn Store) {
    filled(store, 5);
    assert_eq!(store.locate(key(1, "second of 4")).unwrap(), Some((4, 1)));
    assert_eq!(store.locate(key(2, "second of 4")).unwrap(), None, "the same bytes on another rollup");
    assert_eq!(store.locate(key(3, "again and again")).unwrap(), Some((5, 0)));
    let keys = [key(1, "first of 2"), key(1, "nowhere"), key(3, "again and again"), key(1, "first of 2")];
    assert_eq!(store.locate_many(&keys).unwrap(), [Some((2, 0)), None, Some((5, 0)), Some((2, 0))]);
    assert_eq!(store.locate_many(&[]).unwrap(), []);
}

fn the_next_certificate_is_found_across_blocks_without_one(store: &dyn Store) {
    let blocks = blocks(6);
    for block in &blocks {
        let height = block.header.height;
        store.append(block, [2, 5].contains(&height).then(|| certificate(block)).as_ref()).unwrap();
    }
    for (from, found) in [(0, Some(2)), (2, Some(2)), (3, Some(5)), (5, Some(5)), (6, None), (u64::MAX, None)] {
        let (height, proof) = store.certificate_from(from).unwrap().unzip();
        assert_eq!(height, found, "from {from}");
        assert_eq!(proof, height.map(|h| certificate(&blocks[h as usize - 1])));
    }
}

fn appending_again_changes_nothing_but_adds_the_certificate(store: &dyn Store) {
    let blocks = blocks(3);
    for block in &blocks {
        store.append(block, None).unwrap();
    }
    store.append(&blocks[0], None).unwrap();
    assert_eq!(store.certificate_from(0).unwrap(), None);
    assert_eq!(store.locate(key(3, "again and again")).unwrap(), Some((3, 0)));

    store.append(&blocks[1], Some(&certificate(&blocks[1]))).unwrap();
    let mut later = certificate(&blocks[1]);
    later.view += 10;
    store.append(&blocks[1], Some(&later)).unwrap();
    store.append(&blocks[1], None).unwrap();
    assert_eq!(store.certificate_from(0).unwrap(), Some((2, certificate(&blocks[1]))), "the first one stays");
    assert_eq!(store.tip().0.height, 3);
    for block in &blocks {
        assert_holds(store, block);
    }
}

fn a_gap_is_refused(store: &dyn Store) {
    let blocks = blocks(4);
    store.append(&blocks[0], None).unwrap();
    let refused = store.append(&blocks[2], None);
    assert!(matches!(refused, Err(StoreError::Gap { height: 3, tip: 1 })), "{refused:?}");
    assert_eq!(store.tip().0.height, 1);
    assert_eq!(store.block(3).unwrap(), None);
}

fn a_block_on_another_parent_is_refused(store: &dyn Store) {
    let blocks = filled(store, 2);
    let fork = child(&blocks[0].header, vec![segment(1, &["fork"])]);
    let stray = child(&fork.header, vec![]);
    let refused = store.append(&stray, None);
    assert!(matches!(refused, Err(StoreError::Gap { height: 3, tip: 2 })), "{refused:?}");
}

fn another_block_at_a_height_is_refused(store: &dyn Store) {
    let blocks = filled(store, 3);
    let fork = child(&blocks[0].header, vec![segment(1, &["fork"])]);
    let refused = store.append(&fork, Some(&certificate(&fork)));
    let (have, offered) = (blocks[1].hash(), fork.hash());
    assert!(
        matches!(refused, Err(StoreError::Conflict { height: 2, have: h, offered: o }) if h == have && o == offered),
        "{refused:?}"
    );
    assert_eq!(store.certificate_from(2).unwrap(), Some((2, certificate(&blocks[1]))));
    assert_eq!(store.locate(key(1, "fork")).unwrap(), None);
}

fn a_body_that_the_header_does_not_commit_to_is_refused(store: &dyn Store) {
    let honest = child(&genesis(), vec![segment(1, &["paid"])]);
    let swapped = Block::from_parts(honest.header, vec![segment(1, &["kept"])]);
    let refused = store.append(&swapped, None);
    let root = matches!(refused, Err(StoreError::Commitment { height: 1, source: BlockError::SegmentRoot { .. } }));
    assert!(root, "{refused:?}");

    let mut longer = honest.clone();
    longer.header.body_bytes += 1;
    let refused = store.append(&longer, None);
    let length = matches!(refused, Err(StoreError::Commitment { height: 1, source: BlockError::BodyBytes { .. } }));
    assert!(length, "{refused:?}");
    assert_eq!(store.tip().0.height, 0);
    store.append(&honest, None).unwrap();
}

fn a_certificate_for_another_block_is_refused(store: &dyn Store) {
    let blocks = blocks(2);
    let refused = store.append(&blocks[0], Some(&certificate(&blocks[1])));
    assert!(matches!(refused, Err(StoreError::Certificate { height: 1, .. })), "{refused:?}");
    assert_eq!(store.tip().0.height, 0);
    assert_eq!(store.certificate_from(0).unwrap(), None);
}

fn pruning_keeps_what_is_above_and_headers_and_certificates(store: &dyn Store) {
    let blocks = filled(store, 9);
    let id = B256::repeat_byte(7);
    let rows = |bundle: &[u8]| BridgeRows { bundles: vec![(id, bundle.to_vec())], ..BridgeRows::default() };
    store.put_bridge(2, &BridgeRows { records: vec![(id, b"record".to_vec())], ..rows(b"open") }).unwrap();
    store.put_bridge(3, &rows(b"decided")).unwrap();
    store.prune(6).unwrap();
    assert_eq!(store.earliest(), 6);
    assert_eq!(store.bridge_bundle(&id).unwrap().as_deref(), Some(&b"decided"[..]));
    assert_eq!(store.bridge_record(&id).unwrap().as_deref(), Some(&b"record"[..]));
    assert_eq!(store.bridge_record(&B256::ZERO).unwrap(), None);
    for block in &blocks {
        let height = block.header.height;
        assert_eq!(store.header(height).unwrap(), Some(block.header));
        assert_eq!(store.height_of(block.hash()).unwrap(), Some(height));
        assert_eq!(store.certificate_from(height).unwrap(), Some((height, certificate(block))));
        if height >= 6 {
            assert_holds(store, block);
            assert_eq!(store.locate(key(1, &format!("second of {height}"))).unwrap(), Some((height, 1)));
        } else {
            assert_eq!(store.block(height).unwrap(), None);
            assert_eq!(store.table(height).unwrap(), None);
            assert_eq!(store.transactions(RollupId(1), height).unwrap(), None);
            assert_eq!(store.locate(key(1, &format!("second of {height}"))).unwrap(), None);
        }
    }
    assert_eq!(store.header(0).unwrap(), Some(genesis()));
    let keys = [key(1, "first of 5"), key(1, "first of 6"), key(3, "again and again")];
    assert_eq!(store.locate_many(&keys).unwrap(), [None, Some((6, 0)), Some((9, 0))]);
}

fn pruning_never_goes_back_nor_takes_the_tip(store: &dyn Store) {
    let blocks = filled(store, 4);
    store.prune(3).unwrap();
    store.prune(1).unwrap();
    assert_eq!(store.earliest(), 3);
    store.prune(u64::MAX).unwrap();
    assert_eq!(store.earliest(), 4);
    assert_holds(store, &blocks[3]);
    let next = child(&blocks[3].header, vec![segment(1, &["goes on"])]);
    store.append(&next, None).unwrap();
    assert_holds(store, &next);
    store.append(&blocks[0], None).unwrap();
    assert_eq!(store.block(1).unwrap(), None, "a pruned block that is offered again stays pruned");
}

fn an_empty_block_has_an_empty_table(store: &dyn Store) {
    let block = child(&genesis(), vec![]);
    store.append(&block, None).unwrap();
    assert_eq!(store.table(1).unwrap(), Some(vec![]));
    assert_holds(store, &block);
}

fn one_may_read_while_another_appends_and_prunes(store: &dyn Store) {
    let blocks = blocks(60);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            loop {
                let (tip, hash) = store.tip();
                assert_eq!(tip.hash(), hash);
                assert_eq!(store.header(tip.height).unwrap(), Some(tip));
                for height in store.earliest()..=tip.height {
                    let (read, earliest) = (store.block(height).unwrap(), store.earliest());
                    assert!(read.is_some() || height < earliest, "block {height} missing, earliest {earliest}");
                }
                seen += 1;
                if tip.height == 60 {
                    return seen;
                }
            }
        });
        for block in &blocks {
            store.append(block, None).unwrap();
            store.prune(block.header.height.saturating_sub(5)).unwrap();
        }
        reader.join().unwrap()
    });
    assert!(seen > 0);
}

macro_rules! conformance {
    ($($case:ident),+ $(,)?) => {
        mod memory {
            use super::*;
            $(#[test] fn $case() { super::$case(&MemoryStore::new(genesis())); })+
        }
        mod rocks {
            use super::*;
            $(#[test] fn $case() {
                let dir = tempfile::tempdir().unwrap();
                super::$case(&RocksStore::open(dir.path(), NETWORK, genesis(), RocksOptions::default()).unwrap());
            })+
        }
    };
}

conformance!(
    a_new_store_holds_genesis_and_nothing_else,
    what_was_appended_is_read_back,
    a_transaction_is_located_where_it_was_last,
    the_next_certificate_is_found_across_blocks_without_one,
    appending_again_changes_nothing_but_adds_the_certificate,
    a_gap_is_refused,
    a_block_on_another_parent_is_refused,
    another_block_at_a_height_is_refused,
    a_body_that_the_header_does_not_commit_to_is_refused,
    a_certificate_for_another_block_is_refused,
    pruning_keeps_what_is_above_and_headers_and_certificates,
    pruning_never_goes_back_nor_takes_the_tip,
    an_empty_block_has_an_empty_table,
    one_may_read_while_another_appends_and_prunes,
);
