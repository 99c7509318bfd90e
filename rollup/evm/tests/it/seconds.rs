//! One-second sealing: plain Ethereum blocks.

use crate::support::*;
use alloy_primitives::{Address, Bytes};
use switchyard_rollup_core::{Applied, Driver, Sealing, evm::EvmChain};
use switchyard_rollup_evm::EvmConfig;

/// Applies the next hub block, `ms` milliseconds after genesis.
fn apply(rollup: &mut Rollup, ms: u64, transactions: Vec<Bytes>) -> Applied {
    let height = rollup.driver.next_hub_height();
    rollup.driver.apply(&hub_block_at(height, GENESIS_SECONDS * 1000 + ms, transactions)).unwrap()
}

fn pay(nonce: u64) -> Bytes {
    transfer(0, nonce, Address::repeat_byte(1), 1)
}

/// `(seconds after genesis, hub height, transactions)` of each block after genesis.
fn blocks(rollup: &Rollup) -> Vec<(u64, u64, usize)> {
    (1..=rollup.reader.head().header.number)
        .map(|n| rollup.reader.block_by_number(n).unwrap().unwrap())
        .map(|b| (b.header.timestamp - GENESIS_SECONDS, b.hub_height, b.transactions.len()))
        .collect()
}

fn small() -> Rollup {
    // Four transfers a block.
    Rollup::with_config(EvmConfig { genesis: genesis_with_gas_limit(100_000), ..config(Sealing::OneSecond) })
}

#[test]
fn the_hub_blocks_of_a_second_become_one_block_when_a_later_second_comes() {
    let mut rollup = Rollup::new(Sealing::OneSecond);
    assert!(apply(&mut rollup, 1_000, vec![pay(0)]).checkpoints.is_empty());
    let waiting = apply(&mut rollup, 1_500, vec![pay(1), pay(2)]);
    assert_eq!((waiting.checkpoints.len(), waiting.outcomes.len(), waiting.executed_to), (0, 2, 2));
    assert!(apply(&mut rollup, 1_999, vec![]).checkpoints.is_empty());
    assert_eq!(rollup.reader.head().header.number, 0);
    let closed = apply(&mut rollup, 2_000, vec![pay(3)]);
    assert_eq!((closed.checkpoints.len(), closed.outcomes.len()), (1, 1));
    // A hub block without a segment closes the second too.
    apply(&mut rollup, 9_000, vec![]);
    assert_eq!(blocks(&rollup), [(1, 2, 3), (2, 4, 1)]);
}

#[test]
fn timestamps_rise_strictly_even_from_the_genesis_second() {
    let mut rollup = Rollup::new(Sealing::OneSecond);
    apply(&mut rollup, 0, vec![pay(0)]);
    apply(&mut rollup, 1_000, vec![pay(1)]);
    apply(&mut rollup, 2_000, vec![pay(2)]);
    apply(&mut rollup, 5_000, vec![]);
    let times: Vec<_> = blocks(&rollup).iter().map(|b| b.0).collect();
    assert!(times.windows(2).all(|w| w[0] < w[1]) && times[0] > 0, "{times:?}");
    assert_eq!(rollup.nonce(0), 3);
}

#[test]
fn what_exceeds_the_gas_limit_waits_for_the_next_second_and_comes_first() {
    let mut rollup = small();
    apply(&mut rollup, 1_000, (0..6).map(pay).collect());
    apply(&mut rollup, 2_000, vec![pay(6)]);
    assert_eq!(blocks(&rollup), [(1, 1, 4)]);
    apply(&mut rollup, 3_000, vec![]);
    assert_eq!(blocks(&rollup), [(1, 1, 4), (2, 2, 3)]);
}

#[test]
fn seconds_without_hub_blocks_are_used_by_what_waits() {
    let mut rollup = small();
    apply(&mut rollup, 1_000, (0..10).map(pay).collect());
    apply(&mut rollup, 9_000, vec![]);
    assert_eq!(blocks(&rollup), [(1, 1, 4), (2, 1, 4), (3, 1, 2)]);
}

#[test]
fn no_more_than_the_bound_waits() {
    let mut rollup = small();
    // Eight blocks' worth of gas is 38 transfers.
    apply(&mut rollup, 1_000, (0..60).map(pay).collect());
    let made = blocks(&rollup);
    assert_eq!(made.iter().map(|b| b.0).collect::<Vec<_>>(), (1..=6).collect::<Vec<u64>>(), "{made:?}");
    apply(&mut rollup, 100_000, vec![]);
    assert_eq!(rollup.nonce(0), 60);
}

#[test]
fn what_waits_survives_a_restart_in_the_middle_of_a_hub_block() {
    let mut straight = small();
    let mut restarted = small();
    let inputs: [(u64, std::ops::Range<u64>); 6] =
        [(1_000, 0..6), (1_200, 6..9), (2_000, 9..9), (2_500, 9..10), (3_000, 10..10), (60_000, 10..10)];
    for (ms, nonces) in inputs {
        let segment: Vec<_> = nonces.map(pay).chain([Bytes::from_static(b"junk")]).collect();
        let applied = apply(&mut straight, ms, segment.clone());
        restarted = restarted.reopen();
        assert_eq!(apply(&mut restarted, ms, segment), applied);
    }
    assert_eq!(straight.nonce(0), 10);
    assert_eq!(straight.hashes(), restarted.hashes());
}

#[test]
fn a_rollup_that_was_used_gets_an_empty_block_each_twelve_seconds_and_one_that_was_not_gets_none() {
    for sealing in [Sealing::HubBlock, Sealing::OneSecond] {
        let mut rollup = Rollup::new(sealing);
        apply(&mut rollup, 100_000, vec![]);
        assert_eq!(blocks(&rollup), []);
        apply(&mut rollup, 101_000, vec![pay(0)]);
        for second in 102..140 {
            let applied = apply(&mut rollup, second * 1000, vec![]);
            assert_eq!(applied.executed_to, rollup.driver.next_hub_height() - 1);
            rollup = rollup.reopen();
        }
        assert_eq!(blocks(&rollup), [(101, 2, 1), (113, 14, 0), (125, 26, 0), (137, 38, 0)], "{sealing:?}");
        // What waits goes into a block of its own, not into an empty one.
        apply(&mut rollup, 149_500, vec![pay(1)]);
        apply(&mut rollup, 150_500, vec![]);
        assert_eq!(blocks(&rollup).last(), Some(&(149, 41, 1)), "{sealing:?}");
    }
}
