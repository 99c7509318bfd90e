//! Random logs: the store on disk and the one in memory answer the same, before and after opening again.

use crate::{
    chain::{NETWORK, certificate, child, genesis},
    conformance::assert_holds,
};
use proptest::prelude::*;
use switchyard_primitives::{Block, Bytes, RollupId, Segment, TxKey};
use switchyard_store::{Journal, MemoryStore, RocksOptions, RocksStore, Store};

/// Few rollups and few distinct payloads, so that the same transaction comes again at other heights.
fn segments() -> impl Strategy<Value = Vec<Segment>> {
    let payload = prop_oneof![
        (0u8..12).prop_map(|b| Bytes::from(vec![b])),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from),
    ];
    proptest::collection::btree_map(0u64..6, proptest::collection::vec(payload, 1..6), 0..5).prop_map(|map| {
        map.into_iter().map(|(id, transactions)| Segment { rollup: RollupId(id), transactions }).collect()
    })
}

fn agree(one: &dyn Store, other: &dyn Store, blocks: &[Block]) {
    assert_eq!(one.tip(), other.tip());
    assert_eq!(one.earliest(), other.earliest());
    for height in 0..=blocks.len() as u64 + 1 {
        assert_eq!(one.header(height).unwrap(), other.header(height).unwrap());
        assert_eq!(one.table(height).unwrap(), other.table(height).unwrap());
        assert_eq!(one.block(height).unwrap(), other.block(height).unwrap());
        assert_eq!(one.certificate_from(height).unwrap(), other.certificate_from(height).unwrap());
    }
    let of_segment = |s: &Segment| s.transactions.iter().map(|tx| TxKey::of(s.rollup, tx)).collect::<Vec<_>>();
    let keys: Vec<TxKey> = blocks.iter().flat_map(|b| b.segments()).flat_map(of_segment).collect();
    let located = one.locate_many(&keys).unwrap();
    assert_eq!(located, other.locate_many(&keys).unwrap());
    for (key, location) in keys.iter().zip(located) {
        assert_eq!(one.locate(*key).unwrap(), location);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_log_is_read_back_and_both_stores_agree(
        bodies in proptest::collection::vec((segments(), any::<bool>()), 1..20),
        prune in 0u64..22,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = RocksOptions {
            journal: Journal::Elsewhere { flush_every_blocks: std::num::NonZeroU64::MAX },
            ..RocksOptions::default()
        };
        let rocks = RocksStore::open(dir.path(), NETWORK, genesis(), options).unwrap();
        let memory = MemoryStore::new(genesis());
        let mut blocks: Vec<Block> = Vec::new();
        for (segments, certified) in bodies {
            let block = child(blocks.last().map_or(&genesis(), |b| &b.header), segments);
            for store in [&rocks as &dyn Store, &memory] {
                store.append(&block, certified.then(|| certificate(&block)).as_ref()).unwrap();
            }
            blocks.push(block);
        }
        for block in &blocks {
            assert_holds(&rocks, block);
        }
        agree(&rocks, &memory, &blocks);
        rocks.prune(prune).unwrap();
        memory.prune(prune).unwrap();
        agree(&rocks, &memory, &blocks);
        drop(rocks);
        agree(&RocksStore::open(dir.path(), NETWORK, genesis(), options).unwrap(), &memory, &blocks);
    }
}
