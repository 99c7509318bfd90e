//! The mempool under many waiting transactions.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::{collections::HashSet, hint::black_box, sync::Arc, time::Instant};
use switchyard_benches::payload::payload;
use switchyard_mempool::{Budget, Mempool, MempoolConfig, Origin};
use switchyard_primitives::{Limits, RollupId};
use switchyard_rollup_core::Admission;

const ROLLUPS: u64 = 3;

fn mempool() -> Mempool {
    let rollups = (1..=ROLLUPS).map(|id| (RollupId(id), None::<Arc<dyn Admission>>));
    Mempool::new(MempoolConfig::default(), Limits::default(), rollups)
}

fn insert(mempool: &Mempool, seq: u64, now: Instant) {
    let payload = payload(1, seq, 512).into();
    let checked = mempool.check(RollupId(1 + seq % ROLLUPS), &payload).unwrap();
    mempool.insert(checked, Origin::Local, now).unwrap();
}

fn waiting(c: &mut Criterion) {
    let now = Instant::now();
    for count in [1_000_u64, 50_000] {
        let full = || {
            let mempool = mempool();
            (0..count).for_each(|seq| insert(&mempool, seq, now));
            mempool
        };
        let pool = full();
        let budget = Budget::from(&Limits::default());
        c.bench_function(&format!("mempool::select/waiting={count}"), |b| {
            b.iter(|| pool.select(budget, black_box(&HashSet::new()), |_, _| false))
        });
        let mut seq = count;
        c.bench_function(&format!("mempool::insert/waiting={count}"), |b| {
            let next = || {
                seq += 1;
                let payload = payload(1, seq, 512).into();
                pool.check(RollupId(1 + seq % ROLLUPS), &payload).unwrap()
            };
            // Refusals of a full mempool are measured too: they must not cost more than insertions.
            b.iter_batched(next, |checked| pool.insert(checked, Origin::Local, now).is_ok(), BatchSize::SmallInput);
        });
    }
}

criterion_group!(benches, waiting);
criterion_main!(benches);
