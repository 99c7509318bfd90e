//! A rollup that floods, and the others.

use super::*;
use switchyard_primitives::Block;

/// Blocks of this many body bytes.
const BLOCK: usize = 64 << 10;

struct Rollups {
    pool: Mempool,
    next: u64,
    height: u64,
    now: Instant,
}

impl Rollups {
    fn new(ids: impl Iterator<Item = u64>) -> Self {
        let limits = Limits { body_bytes: BLOCK, transaction_bytes: 8 << 10, ..Limits::default() };
        let pool = Mempool::new(MempoolConfig::default(), limits, ids.map(|id| (RollupId(id), None)));
        Self { pool, next: 0, height: 0, now: Instant::now() }
    }

    fn send(&mut self, rollup: u64, len: usize) -> TxKey {
        let payload = opaque(self.next, len);
        self.next += 1;
        let checked = self.pool.check(RollupId(rollup), &payload).unwrap();
        self.pool.insert(checked, Origin::Local, self.now).unwrap().key
    }

    fn flood(&mut self, rollup: u64, len: usize, bytes: usize) {
        for _ in 0..bytes / len {
            self.send(rollup, len);
        }
    }

    fn select(&self, in_flight: &HashSet<TxKey>) -> Vec<Segment> {
        let limits = Limits { body_bytes: BLOCK, ..Limits::default() };
        segments(self.pool.select(Budget::from(&limits), in_flight, no_bundles))
    }

    fn block(&mut self) -> Vec<Segment> {
        let segments = self.select(&HashSet::new());
        self.height += 1;
        self.pool.on_final(self.height, &segments.iter().map(Included::from).collect::<Vec<_>>());
        segments
    }
}

fn bytes_of(segments: &[Segment], rollup: u64) -> usize {
    segments.iter().filter(|s| s.rollup == RollupId(rollup)).map(Segment::encoded_len).sum()
}

fn holds(segments: &[Segment], key: &TxKey) -> bool {
    segments.iter().any(|s| s.transactions.iter().any(|tx| TxKey::of(s.rollup, tx) == *key))
}

#[test]
fn a_flood_does_not_delay_another_rollups_transaction_by_a_block() {
    let mut r = Rollups::new(1..=2);
    r.flood(1, 1000, 20 * BLOCK);
    for _ in 0..10 {
        let small = r.send(2, 500);
        assert!(holds(&r.block(), &small));
    }
}

#[test]
fn two_floods_share_each_block_whatever_the_size_of_their_transactions() {
    let mut r = Rollups::new(1..=2);
    r.flood(1, 100, 6 * BLOCK);
    r.flood(2, 8000, 6 * BLOCK);
    let mut total = [0, 0];
    for _ in 0..8 {
        let block = r.block();
        let (one, two) = (bytes_of(&block, 1), bytes_of(&block, 2));
        assert!(one.abs_diff(two) < 17_000, "{one} and {two} bytes of a block");
        total = [total[0] + one, total[1] + two];
    }
    assert!(total[0].abs_diff(total[1]) < 9_000, "{total:?} over all");
}

/// Ten blocks of one rollup's flood, and then another rollup's flood beside it.
fn late_flood() -> Rollups {
    let mut r = Rollups::new(1..=2);
    r.flood(1, 1000, 25 * BLOCK);
    for _ in 0..10 {
        r.block();
    }
    r.flood(2, 1000, 15 * BLOCK);
    r
}

#[test]
fn a_rollup_that_was_idle_has_one_transactions_length_of_credit_once() {
    let mut r = late_flood();
    let mut total = [0, 0];
    for _ in 0..8 {
        let block = r.block();
        total = [total[0] + bytes_of(&block, 1), total[1] + bytes_of(&block, 2)];
        assert!(total[0] + 11_000 > total[1] && total[1] > total[0], "{total:?}");
    }
}

#[test]
fn credit_is_spent_by_what_is_in_flight() {
    let r = late_flood();
    let mut in_flight = HashSet::new();
    let mut total = [0, 0];
    for _ in 0..5 {
        let block = r.select(&in_flight);
        total = [total[0] + bytes_of(&block, 1), total[1] + bytes_of(&block, 2)];
        assert!(total[0] + 11_000 > total[1] && total[1] > total[0], "{total:?}");
        in_flight.extend(block.iter().flat_map(|s| s.transactions.iter().map(|tx| TxKey::of(s.rollup, tx))));
    }
}

#[test]
fn more_rollups_than_a_block_has_room_for_take_turns() {
    let mut r = Rollups::new(1..=40);
    for rollup in 1..=40 {
        r.flood(rollup, 8000, 40_000);
    }
    let mut blocks_since = [0u32; 41];
    for _ in 0..24 {
        let block = r.block();
        for rollup in 1..=40u64 {
            let waited = &mut blocks_since[rollup as usize];
            *waited = if bytes_of(&block, rollup) > 0 { 0 } else { *waited + 1 };
            assert!(*waited <= 5, "rollup {rollup} waits for {waited} blocks: eight of forty fit in one");
        }
    }
}

#[test]
fn a_large_transaction_gets_its_turn_among_many_rollups_with_small_ones() {
    let mut r = Rollups::new(1..=30);
    for rollup in 2..=30 {
        r.flood(rollup, 200, 20_000);
    }
    let large = r.send(1, 8192);
    let included = (0..2).any(|_| holds(&r.block(), &large));
    assert!(included);
}

#[test]
fn what_is_in_flight_counts_as_served() {
    let mut r = Rollups::new(1..=40);
    for rollup in 1..=40 {
        r.flood(rollup, 8000, 16_000);
    }
    let mut in_flight = HashSet::new();
    let mut served = HashSet::new();
    for _ in 0..4 {
        let segments = r.select(&in_flight);
        for segment in &segments {
            assert!(served.insert(segment.rollup), "rollup {} comes again before all have come", segment.rollup);
            in_flight.extend(segment.transactions.iter().map(|tx| TxKey::of(segment.rollup, tx)));
        }
    }
    assert!(served.len() >= 28);
}

#[test]
fn validators_that_lead_in_turn_share_as_one_would() {
    let mut leaders: Vec<Rollups> = (0..4).map(|_| Rollups::new(1..=40)).collect();
    for r in &mut leaders {
        for rollup in 1..=40 {
            r.flood(rollup, 8000, 16_000);
        }
    }
    let mut served = HashSet::new();
    for turn in 0..5 {
        let segments = leaders[turn % 4].select(&HashSet::new());
        for r in &mut leaders {
            r.pool.on_final(turn as u64 + 1, &segments.iter().map(Included::from).collect::<Vec<_>>());
        }
        served.extend(segments.iter().map(|s| s.rollup));
    }
    assert!(served.len() >= 35, "five blocks of seven or eight: {}", served.len());
}

#[test]
fn a_full_block_is_filled_by_one_rollup_alone() {
    let mut r = Rollups::new(1..=5);
    r.flood(3, 1000, 4 * BLOCK);
    let segments = r.block();
    let header = switchyard_primitives::Header::genesis(Default::default(), 0, Default::default());
    assert!(Block::new(header, segments).header.body_bytes as usize > BLOCK - 1100);
}
