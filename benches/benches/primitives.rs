//! Encoding, commitments and proofs of blocks.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use switchyard_benches::payload::payload;
use switchyard_primitives::{B256, Block, Header, Limits, RollupId, Segment, SegmentTable};

const SEGMENTS: u64 = 16;

fn block(transactions: u64, bytes: usize) -> Block {
    let segments = (1..=SEGMENTS).map(|id| Segment {
        rollup: RollupId(id),
        transactions: (0..transactions / SEGMENTS).map(|seq| payload(id, seq, bytes).into()).collect(),
    });
    Block::new(Header::genesis(B256::ZERO, 0, B256::ZERO), segments.collect())
}

fn blocks(c: &mut Criterion) {
    for transactions in [64, 1024] {
        let block = block(transactions, 1024);
        let bytes = bytes::Bytes::from(block.encode());
        let mut bench = |operation: &str, run: &dyn Fn()| {
            let mut group = c.benchmark_group(format!("block::{operation}"));
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(format!("transactions={transactions}"), |b| b.iter(run));
            group.finish();
        };
        bench("encode", &|| drop(black_box(block.encode())));
        bench("decode", &|| drop(black_box(Block::decode(bytes.clone().into(), &Limits::default()).unwrap())));
        bench("check_commitments", &|| block.check_commitments().unwrap());
    }
}

fn tables(c: &mut Criterion) {
    for rollups in [16_u64, 1024] {
        let segments: Vec<Segment> = (1..=rollups)
            .map(|id| Segment { rollup: RollupId(id), transactions: vec![payload(id, 0, 128).into()] })
            .collect();
        let table = SegmentTable::new(&segments);
        let (root, rollup) = (table.root(), RollupId(rollups / 2));
        let proof = table.prove(rollup);
        let transactions = &segments[usize::try_from(rollup.0 - 1).unwrap()].transactions;
        let id = |operation: &str| format!("table::{operation}/rollups={rollups}");
        c.bench_function(&id("root"), |b| b.iter(|| black_box(&table).root()));
        c.bench_function(&id("prove"), |b| b.iter(|| black_box(&table).prove(rollup)));
        c.bench_function(&id("verify"), |b| {
            b.iter(|| proof.verify(root, rollup, black_box(transactions)).unwrap());
        });
    }
}

criterion_group!(benches, blocks, tables);
criterion_main!(benches);
