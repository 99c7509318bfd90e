//! The log on disk: what a node does for each final block.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::{cell::Cell, hint::black_box};
use switchyard_benches::payload::payload;
use switchyard_primitives::{B256, Block, Header, RollupId, Segment, TxKey};
use switchyard_store::{RocksOptions, RocksStore, Store};

const ROLLUP: RollupId = RollupId(1);
const NETWORK: B256 = B256::repeat_byte(7);

/// The block after `parent` with `count` transactions of 1 KiB that no other block has.
fn next(parent: &Header, count: u64) -> Block {
    let first = parent.height * count;
    let transactions = (first..first + count).map(|seq| payload(1, seq, 1024).into()).collect();
    let header = Header { parent: parent.hash(), height: parent.height + 1, ..*parent };
    Block::new(header, vec![Segment { rollup: ROLLUP, transactions }])
}

fn log(c: &mut Criterion) {
    for count in [64_u64, 1024] {
        let dir = tempfile::tempdir().unwrap();
        let genesis = Header::genesis(NETWORK, 0, B256::ZERO);
        let store = RocksStore::open(dir.path(), NETWORK, genesis, RocksOptions::default()).unwrap();
        let tip = Cell::new(genesis);
        let mut group = c.benchmark_group("store::append");
        group.throughput(Throughput::Bytes(count * 1024));
        group.sample_size(20);
        group.bench_function(format!("transactions={count}"), |b| {
            let make = || {
                let block = next(&tip.get(), count);
                tip.set(block.header);
                block
            };
            b.iter_batched(make, |block| store.append(&block, None).unwrap(), BatchSize::PerIteration);
        });
        group.finish();
        // Half of them are in the log: what judging a proposal costs.
        let height = store.tip().0.height;
        let seqs = (height - 1) * count..(height + 1) * count;
        let keys: Vec<TxKey> = seqs.step_by(2).map(|seq| TxKey::of(ROLLUP, &payload(1, seq, 1024))).collect();
        c.bench_function(&format!("store::locate_many/keys={count}"), |b| {
            b.iter(|| store.locate_many(black_box(&keys)).unwrap())
        });
    }
}

criterion_group!(benches, log);
criterion_main!(benches);
