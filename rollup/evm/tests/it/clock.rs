//! One-second sealing under more than a block a second: how far the clock runs ahead, and what becomes of what is too much.

use crate::support::*;
use alloy_primitives::{Address, B256, Bytes, TxKind, keccak256};
use proptest::prelude::*;
use std::collections::HashMap;
use switchyard_rollup_core::{Admission, Applied, Driver, Sealing, TxOutcome, evm::EvmChain};
use switchyard_rollup_evm::EvmConfig;

/// Four transfers that ask for no more than they need.
const BLOCK_GAS: u64 = 100_000;
/// Seconds: what the specification allows.
const LEAD_MAX: u64 = 64;

fn configuration() -> EvmConfig {
    EvmConfig { genesis: genesis_with_gas_limit(BLOCK_GAS), ..config(Sealing::OneSecond) }
}

/// Applies the next hub block, `ms` milliseconds after genesis.
fn apply(rollup: &mut Rollup, ms: u64, transactions: Vec<Bytes>) -> Applied {
    let height = rollup.driver.next_hub_height();
    rollup.driver.apply(&hub_block_at(height, GENESIS_SECONDS * 1000 + ms, transactions)).unwrap()
}

/// A transfer that asks for `gas`. The value tells it from others of its nonce.
fn pay(i: u8, nonce: u64, value: u128, gas: u64) -> Bytes {
    sign(i, tx(nonce, TxKind::Call(Address::repeat_byte(1)), value, Bytes::new(), gas))
}

/// Seconds by which the newest block, open or closed, is ahead of hub time; 0 where it is behind.
fn lead(rollup: &Rollup, ms: u64) -> u64 {
    let open = rollup.reader.pending().map(|open| open.header.timestamp);
    let newest = open.unwrap_or_default().max(rollup.reader.head().header.timestamp);
    newest.saturating_sub(GENESIS_SECONDS + ms / 1000)
}

fn is_turned_away(outcome: &TxOutcome) -> bool {
    matches!(outcome, TxOutcome::Skipped { reason } if reason.contains("no room"))
}

/// Accounts that go on with the nonces that the chain leaves them, and what has become of all that they sent.
#[derive(Default)]
struct Sent {
    nonces: [u64; 5],
    /// In the log's order, with sender and nonce.
    log: Vec<(B256, usize, u64)>,
    /// As the driver tells them.
    outcomes: HashMap<B256, TxOutcome>,
}

impl Sent {
    fn pay(&mut self, i: u8, gas: u64) -> Bytes {
        let sender = usize::from(i);
        let sent = pay(i, self.nonces[sender], 1 + self.log.len() as u128, gas);
        self.log.push((keccak256(&sent), sender, self.nonces[sender]));
        // What asks for more than a block has is never executed.
        self.nonces[sender] += u64::from(gas <= BLOCK_GAS);
        sent
    }

    /// Takes note of outcomes; a nonce that was turned away is used again.
    fn take(&mut self, applied: &Applied) {
        self.outcomes.extend(applied.outcomes.iter().cloned());
        for (hash, _) in applied.outcomes.iter().filter(|(_, outcome)| is_turned_away(outcome)) {
            let (_, sender, nonce) = self.log.iter().rev().find(|(of, ..)| of == hash).unwrap();
            self.nonces[*sender] = self.nonces[*sender].min(*nonce);
        }
    }

    fn waiting(&self) -> usize {
        self.log.iter().filter(|(hash, ..)| !self.outcomes.contains_key(hash)).count()
    }
}

#[test]
fn cheap_transactions_that_ask_for_whole_blocks_drive_the_clock_no_further_than_the_bound() {
    let (mut rollup, mut sent) = (Rollup::with_config(configuration()), Sent::default());
    let (mut ms, mut most) = (1_000, 0);
    // Twenty hub blocks a second, each with what an honest leader may put in.
    for _ in 0..200 {
        ms += 50;
        let segment = vec![sent.pay(0, BLOCK_GAS)];
        let applied = apply(&mut rollup, ms, segment);
        sent.take(&applied);
        most = most.max(lead(&rollup, ms));
        assert!(lead(&rollup, ms) <= LEAD_MAX, "{} s at {ms} ms", lead(&rollup, ms));
        assert!(sent.waiting() <= 8);
    }
    assert_eq!(most, LEAD_MAX, "the attack does what it can");
    assert!(sent.outcomes.values().any(is_turned_away));
    // Time makes up for it.
    sent.take(&apply(&mut rollup, ms + 100_000, vec![]));
    assert_eq!(lead(&rollup, ms + 100_000), 0);
    let executed = sent.outcomes.values().filter(|outcome| matches!(outcome, TxOutcome::Executed { .. })).count();
    assert_eq!(executed as u64, rollup.nonce(0));
    assert!(
        sent.outcomes.values().all(|outcome| is_turned_away(outcome) || matches!(outcome, TxOutcome::Executed { .. }))
    );
}

#[test]
fn what_waits_stays_and_the_last_that_come_are_turned_away() {
    let mut rollup = Rollup::with_config(configuration());
    // Sixteen blocks for each hub block, until the clock is as far ahead as it may be.
    for nonces in [0..24, 24..40, 40..56, 56..72] {
        let segment = nonces.map(|nonce| pay(0, nonce, 1, BLOCK_GAS)).collect();
        let applied = apply(&mut rollup, 1_000, segment);
        assert_eq!(applied.checkpoints.len(), 16);
        assert!(!applied.outcomes.iter().any(|(_, outcome)| is_turned_away(outcome)));
    }
    assert_eq!(lead(&rollup, 1_000), LEAD_MAX);
    // Seven blocks' worth waits beside the open block's transaction: there is room for three more transfers.
    let small: Vec<Bytes> = (0..5).map(|nonce| pay(1, nonce, 1, 21_000)).collect();
    let applied = apply(&mut rollup, 1_000, small.clone());
    assert!(applied.checkpoints.is_empty() && applied.outcomes.iter().all(|(_, outcome)| is_turned_away(outcome)));
    let turned: Vec<B256> = applied.outcomes.iter().map(|(hash, _)| *hash).collect();
    assert_eq!(turned, [keccak256(&small[3]), keccak256(&small[4])]);
    let mut rollup = rollup.reopen();
    assert!(is_turned_away(&rollup.outcome(&small[3])));
    apply(&mut rollup, 200_000, vec![]);
    assert_eq!((rollup.nonce(0), rollup.nonce(1)), (72, 3));
    // It may come again.
    apply(&mut rollup, 200_000, vec![small[3].clone()]);
    assert!(matches!(rollup.outcome(&small[3]), TxOutcome::Executed { index: 0, success: true, .. }));
}

#[test]
fn a_copy_that_is_turned_away_takes_nothing_back() {
    let mut rollup = Rollup::with_config(configuration());
    let all: Vec<Bytes> = (0..72).map(|nonce| pay(0, nonce, 1, BLOCK_GAS)).collect();
    for segment in [&all[..24], &all[24..40], &all[40..56], &all[56..]] {
        apply(&mut rollup, 1_000, segment.to_vec());
    }
    // One in a closed block, the one in the open block, and the last one, which waits.
    let executed = [&all[0], &all[64]].map(|tx| (keccak256(tx), rollup.outcome(tx)));
    let copies = [0, 64, 71].map(|i| all[i].clone()).to_vec();
    let applied = apply(&mut rollup, 1_000, copies);
    assert_eq!(applied.outcomes[..2], executed);
    assert!(is_turned_away(&applied.outcomes[2].1));
    assert!(executed.iter().all(|(_, outcome)| matches!(outcome, TxOutcome::Executed { .. })));
    let mut rollup = rollup.reopen();
    apply(&mut rollup, 200_000, vec![]);
    assert_eq!(rollup.nonce(0), 72);
    for (i, tx) in all.iter().enumerate() {
        assert_eq!(rollup.outcome(tx), TxOutcome::Executed { block: i as u64 + 1, index: 0, success: true });
    }
}

#[test]
fn a_block_is_not_closed_for_what_its_transactions_ask_for_and_do_not_use() {
    let mut rollup = Rollup::new(Sealing::OneSecond);
    // Two transfers for each hub block ask for all of its gas, and forty of them for twenty blocks'.
    for at in 0..20 {
        let segment = [2 * at, 2 * at + 1].map(|nonce| pay(0, nonce, 1, GAS_LIMIT / 2)).to_vec();
        let applied = apply(&mut rollup, 1_000 + at * 49, segment);
        assert_eq!((applied.checkpoints.len(), applied.outcomes.len()), (0, 2));
        assert_eq!(rollup.reader.segment_gas_limit(), GAS_LIMIT);
    }
    assert_eq!(rollup.reader.pending().unwrap().transactions.len(), 40);
    assert_eq!(lead(&rollup, 1_950), 0);
}

#[test]
fn leaders_add_nothing_while_half_of_the_bound_waits_and_the_clock_does_not_run_ahead() {
    let (mut rollup, mut sent) = (Rollup::with_config(configuration()), Sent::default());
    let (mut ms, mut refused) = (1_000, 0);
    for _ in 0..200 {
        ms += 50;
        let room = rollup.reader.segment_gas_limit();
        assert!(room == 0 || room == BLOCK_GAS);
        refused += u64::from(room == 0);
        let segment = if room == 0 { vec![] } else { vec![sent.pay(0, BLOCK_GAS)] };
        sent.take(&apply(&mut rollup, ms, segment));
        assert!(sent.waiting() <= 4);
        assert_eq!(lead(&rollup, ms), 0);
        if refused == 1 {
            rollup = rollup.reopen();
        }
    }
    assert!(refused > 100);
    assert!(sent.outcomes.values().all(|outcome| matches!(outcome, TxOutcome::Executed { .. })));
    // A block a second is made all the same.
    assert_eq!(rollup.reader.head().header.number, 10);
}

/// What a segment holds: who sends it, and the gas that it asks for. None is no transaction.
type Segment = Vec<(u8, Option<u64>)>;

fn log() -> impl Strategy<Value = Vec<(u64, Segment)>> {
    let gas = prop_oneof![
        4 => Just(Some(BLOCK_GAS)),
        2 => Just(Some(21_000)),
        1 => (21_000..BLOCK_GAS).prop_map(Some),
        1 => Just(Some(BLOCK_GAS * 3)),
        1 => Just(None),
    ];
    let step = prop_oneof![6 => 0..200u64, 1 => 200..3_000u64, 1 => Just(20_000u64)];
    proptest::collection::vec((step, proptest::collection::vec((0..5u8, gas), 0..30)), 4..16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn whatever_the_log_holds_the_lead_is_bounded_nothing_is_lost_and_restarts_change_nothing(log in log()) {
        let mut rollup = Rollup::with_config(configuration());
        let mut restarted = Rollup::with_config(configuration());
        let (mut sent, mut ms) = (Sent::default(), 1_000);
        for (step, ops) in log {
            ms += step;
            let make = |(i, gas): (u8, Option<u64>)| match gas {
                Some(gas) => sent.pay(i, gas),
                None => Bytes::copy_from_slice(&[i; 9]),
            };
            let segment: Vec<Bytes> = ops.into_iter().map(make).collect();
            let applied = apply(&mut rollup, ms, segment.clone());
            prop_assert_eq!(&apply(&mut restarted, ms, segment), &applied);
            restarted = restarted.reopen();
            prop_assert_eq!(rollup.reader.pending(), restarted.reader.pending());
            prop_assert_eq!(rollup.reader.segment_gas_limit(), restarted.reader.segment_gas_limit());
            prop_assert!(lead(&rollup, ms) <= LEAD_MAX);
            sent.take(&applied);
            // None waits that asks for less than 21,000.
            prop_assert!(sent.waiting() <= 8 * 100_000 / 21_000);
        }
        let applied = apply(&mut rollup, ms + 1_000_000, vec![]);
        prop_assert_eq!(&apply(&mut restarted, ms + 1_000_000, vec![]), &applied);
        sent.take(&applied);
        prop_assert_eq!(sent.waiting(), 0);
        prop_assert_eq!(rollup.hashes(), restarted.hashes());
        for (hash, ..) in &sent.log {
            prop_assert_eq!(rollup.reader.outcome(*hash).unwrap(), sent.outcomes.get(hash).cloned());
        }
    }
}
