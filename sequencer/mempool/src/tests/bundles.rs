//! Bundles beside transactions that wait alone.

use super::*;
use crate::bundles::{BUNDLES, GAPPED, SENDER_LEGS};
use proptest::prelude::*;
use switchyard_bridge_core::{BridgeRecord, SignedBundle, SignedLeg};
use switchyard_rollup_core::BundleRefusal;

const DEADLINE: u64 = 50;

fn bundle_until(deadline: u64, salt: u64, legs: &[(RollupId, Tx)]) -> Arc<SignedBundle> {
    let leg = |(rollup, tx): &(RollupId, Tx)| SignedLeg {
        rollup: *rollup,
        terms: keccak256(tx.bytes()),
        transaction: tx.bytes(),
    };
    let salt = B256::from(U256::from(salt));
    Arc::new(SignedBundle { deadline, salt, legs: legs.iter().map(leg).collect() })
}

fn bundle(legs: &[(RollupId, Tx)]) -> Arc<SignedBundle> {
    bundle_until(DEADLINE, 0, legs)
}

/// A leg of one sender on each EVM rollup.
fn pair(sender: u8, nonce: u64) -> [(RollupId, Tx); 2] {
    [(EVM, Tx::new(sender, nonce)), (OTHER_EVM, Tx::new(sender, nonce))]
}

fn offer(f: &Fixture, bundle: &Arc<SignedBundle>) -> Result<B256, BundleRefusal> {
    let checked = f.pool.check_bundle(bundle)?;
    let id = checked.id();
    let inserted = f.pool.insert_bundle(checked, Origin::Local, f.start);
    f.pool.assert_consistent();
    inserted.map(|()| id)
}

fn all(_: &B256, _: &BundleRecord) -> bool {
    true
}

fn select_within(f: &Fixture, budget: Budget, exclude: &[TxKey]) -> (Vec<Segment>, Vec<B256>) {
    let selection = f.pool.select(budget, &exclude.iter().copied().collect(), all);
    let ids = selection.bundles.iter().map(BundleRecord::id).collect();
    let held: HashSet<(RollupId, B256)> =
        selection.segments.iter().flat_map(|s| s.hashes.iter().map(|hash| (s.segment.rollup, *hash))).collect();
    for leg in selection.bundles.iter().flat_map(|bundle| &bundle.legs) {
        assert!(held.contains(&(leg.rollup, leg.tx)), "a bundle without one of its legs");
    }
    (segments(selection), ids)
}

fn select(f: &Fixture, exclude: &[TxKey]) -> (Vec<Segment>, Vec<B256>) {
    select_within(f, Budget::from(&Limits::default()), exclude)
}

fn keys(segments: &[Segment]) -> Vec<TxKey> {
    segments.iter().flat_map(|s| s.transactions.iter().map(|tx| TxKey::of(s.rollup, tx))).collect()
}

#[test]
fn all_legs_go_in_before_what_waits_alone() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0).pays(1000, 1000), Tx::new(2, 1)]);
    let id = offer(&f, &bundle(&pair(2, 0))).unwrap();
    let (segments, bundles) = select(&f, &[]);
    assert_eq!(bundles, [id]);
    assert_eq!(evm_order(&segments), [(2, 0), (1, 0), (2, 1)]);
    assert_eq!(segments[1].transactions, [Tx::new(2, 0).bytes()]);
    // The legs wait for nobody else, and what follows them knows it.
    assert_eq!(f.pool.get(&Tx::new(2, 0).key(EVM)), Some(Tx::new(2, 0).bytes()));
    assert_eq!(f.pool.pending_nonce(OTHER_EVM, address(2)), Some(1));
    assert_eq!(f.add(Tx::new(2, 0)), Err(Rejection::OfBundle { id }));
    assert_eq!(f.add(Tx::new(2, 0).pays(900, 900)), Err(Rejection::OfBundle { id }));
}

#[test]
fn a_bundle_waits_until_each_leg_is_next() {
    let f = Fixture::new();
    let id = offer(&f, &bundle(&pair(1, 1))).unwrap();
    assert_eq!(select(&f, &[]), (vec![], vec![]));
    f.add_all(&[Tx::new(1, 0)]);
    assert!(select(&f, &[]).1.is_empty());
    let other = f.pool.check(OTHER_EVM, &Tx::new(1, 0).bytes()).unwrap();
    f.pool.insert(other, Origin::Local, f.start).unwrap();
    // Now both are, behind what comes before them in the same block.
    let (segments, bundles) = select(&f, &[]);
    assert_eq!((evm_order(&segments), bundles), (vec![(1, 0), (1, 1)], vec![id]));
    // What is in flight counts, and a bundle that is goes in no second time.
    let before = [Tx::new(1, 0).key(EVM), Tx::new(1, 0).key(OTHER_EVM)];
    assert_eq!(select(&f, &before).1, [id]);
    assert_eq!(select(&f, &keys(&segments)), (vec![], vec![]));
}

#[test]
fn a_final_bundle_leaves_with_its_nonces_counted() {
    let f = Fixture::new();
    let id = offer(&f, &bundle(&pair(1, 0))).unwrap();
    f.add_all(&[Tx::new(1, 1)]);
    let (segments, _) = select_within(&f, Budget { transactions: 4, ..Budget::from(&Limits::default()) }, &[]);
    let record = BridgeRecord::Bundle(bundle(&pair(1, 0)).record());
    let system = Segment { rollup: RollupId::SYSTEM, transactions: vec![record.encode()] };
    f.finalise(1, &[&[system], &segments[..]].concat());
    assert!(f.pool.bundle(&id).is_none());
    assert_eq!(f.pool.bundles(), 0);
    // It was not refused, nor were its legs, however long ago that is.
    assert_eq!(f.pool.bundle_refusal(&id), None);
    assert_eq!(f.pool.drop_reason(&Tx::new(1, 0).key(EVM)), None);
    // Not executed yet: the log is what counts.
    let late = offer(&f, &bundle_until(DEADLINE, 1, &pair(1, 0)));
    assert_eq!(late, Err(BundleRefusal::SentAlone { leg: 0, height: 1 }));
    let used = [(EVM, Tx::new(1, 0).pays(101, 10)), (OTHER_EVM, Tx::new(2, 0))];
    let reason = Rejection::NonceTooLow { expected: 1, found: 0 };
    let refused = offer(&f, &bundle(&used));
    assert!(
        matches!(&refused, Err(BundleRefusal::Leg { leg: 0, reason: found }) if *found == reason || matches!(found, Rejection::NonceTooLow { .. })),
        "{refused:?}"
    );
    assert_eq!(f.pool.pending_nonce(OTHER_EVM, address(2)), None, "a refused bundle leaves nothing behind");
}

#[test]
fn a_leg_that_is_sent_alone_ends_its_bundle() {
    let f = Fixture::new();
    let id = offer(&f, &bundle(&pair(1, 0))).unwrap();
    f.finalise(3, &[Segment { rollup: OTHER_EVM, transactions: vec![Tx::new(1, 0).bytes()] }]);
    assert_eq!(f.pool.bundle_refusal(&id), Some(BundleRefusal::SentAlone { leg: 1, height: 3 }));
    assert_eq!(f.pool.drop_reason(&Tx::new(1, 0).key(OTHER_EVM)), None, "in the log");
    assert_eq!(select(&f, &[]), (vec![], vec![]));
    // The other leg's nonce is free again.
    f.add_all(&[Tx::new(1, 0)]);
    let key = Tx::new(1, 0).key(OTHER_EVM);
    assert_eq!(f.pool.known(&key), Some(Rejection::AlreadyFinal { hash: key.hash, height: 3 }));
}

#[test]
fn a_bundle_ends_when_an_account_moves_on_without_it() {
    let f = Fixture::new();
    let id = offer(&f, &bundle(&pair(1, 0))).unwrap();
    // Another validator's block has a transaction with the nonce.
    let block = f.finalise_txs(1, &[Tx::new(1, 0).pays(500, 20)]);
    f.execute(1, &block);
    let reason = Rejection::NonceTooLow { expected: 1, found: 0 };
    assert_eq!(f.pool.bundle_refusal(&id), Some(BundleRefusal::Leg { leg: 0, reason }));

    let id = offer(&f, &bundle_until(DEADLINE, 2, &pair(2, 0))).unwrap();
    f.chain.set_account(2, 0, 5);
    f.pool.on_executed(EVM, 2, [address(2)]);
    f.pool.assert_consistent();
    let refusal = f.pool.bundle_refusal(&id);
    assert!(
        matches!(refusal, Some(BundleRefusal::Leg { leg: 0, reason: Rejection::InsufficientFunds { .. } })),
        "{refusal:?}"
    );
}

#[test]
fn a_bundle_ends_before_its_deadline() {
    let f = Fixture::new();
    let id = offer(&f, &bundle_until(9, 0, &pair(1, 1))).unwrap();
    f.finalise(7, &[]);
    assert!(f.pool.bundle(&id).is_some());
    // Block 9 can hold it no more, and block 8 is final.
    f.finalise(8, &[]);
    assert_eq!(f.pool.bundle_refusal(&id), Some(BundleRefusal::Overdue { deadline: 9 }));
    assert_eq!(f.pool.bundle_refusal(&id).unwrap().code(), "overdue");
    f.add_all(&[Tx::new(1, 0), Tx::new(1, 1)]);
    assert_eq!(f.order(&[]), [(1, 0), (1, 1)]);
    // Gossip does not bring it back.
    let again = f.pool.check_bundle(&bundle_until(9, 0, &pair(1, 1))).unwrap();
    let gossiped = f.pool.insert_bundle(again, Origin::Gossip, f.start);
    assert_eq!(gossiped, Err(BundleRefusal::Overdue { deadline: 9 }));
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing_behind() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0)]);
    let waits = offer(&f, &bundle(&[(OTHER_EVM, Tx::new(1, 0)), (EVM, Tx::new(1, 0).pays(800, 80))]));
    assert_eq!(waits, Err(BundleRefusal::NonceTaken { leg: 1, by: Tx::new(1, 0).key(EVM).hash }));
    let alone = offer(&f, &bundle(&[(OTHER_EVM, Tx::new(1, 0)), (EVM, Tx::new(1, 0))]));
    let hash = Tx::new(1, 0).key(EVM).hash;
    assert_eq!(alone, Err(BundleRefusal::Leg { leg: 1, reason: Rejection::AlreadyKnown(hash) }));
    let opaque = offer(&f, &bundle(&[(EVM, Tx::new(2, 0)), (OPAQUE, Tx::new(2, 0))]));
    assert_eq!(opaque.unwrap_err().to_string(), "malformed bundle: rollup 7 has no accounts to sign legs");
    let twice = offer(&f, &bundle(&[(EVM, Tx::new(2, 0)), (EVM, Tx::new(2, 0).pays(200, 20))]));
    assert!(twice.unwrap_err().is_of_the_bytes());
    let poor = Tx { fee_cap: RICH / 50, ..Tx::new(2, 0) };
    let unaffordable = offer(
        &f,
        &bundle(&[
            (OTHER_EVM, Tx::new(2, 0)),
            (EVM, poor),
            (EVM, Tx { nonce: 1, ..poor }),
            (EVM, Tx { nonce: 2, ..poor }),
        ]),
    );
    assert_eq!(unaffordable.unwrap_err().code(), "leg");
    assert_eq!(f.pool.bundles(), 0);
    for (rollup, sender) in [(OTHER_EVM, 1), (EVM, 2), (OTHER_EVM, 2)] {
        assert_eq!(f.pool.pending_nonce(rollup, address(sender)), None);
    }
    assert!(select(&f, &[]).1.is_empty());
    let id = offer(&f, &bundle(&pair(3, 0))).unwrap();
    assert_eq!(offer(&f, &bundle(&pair(3, 0))), Err(BundleRefusal::Known(id)));
    // Two bundles over the same nonce: the first has it.
    let reason = Rejection::OfBundle { id };
    let second = offer(&f, &bundle(&[(EVM, Tx::new(3, 0).pays(900, 90)), (OTHER_EVM, Tx::new(4, 0))]));
    assert_eq!(second, Err(BundleRefusal::Leg { leg: 0, reason }));
}

#[test]
fn as_many_wait_as_may() {
    let f = Fixture::new();
    let insert = |sender: u8, nonce, salt| {
        let checked = f.pool.check_bundle(&bundle_until(DEADLINE, salt, &pair(sender, nonce))).unwrap();
        f.pool.insert_bundle(checked, Origin::Gossip, f.start)
    };
    for nonce in 0..SENDER_LEGS as u64 {
        insert(0, nonce, nonce).unwrap();
    }
    assert_eq!(insert(0, SENDER_LEGS as u64, 0).unwrap_err().code(), "bundles_full");
    for number in SENDER_LEGS..BUNDLES {
        insert((number / SENDER_LEGS) as u8, (number % SENDER_LEGS) as u64, number as u64).unwrap();
    }
    assert_eq!(insert(200, 0, 0).unwrap_err().code(), "bundles_full");
    f.pool.assert_consistent();
    // Each sender's next ones, oldest first; nothing is looked at twice.
    let (_, bundles) = select(&f, &[]);
    assert_eq!(bundles.len(), BUNDLES);
}

/// The same bundle with another transaction of a leg.
fn resigned(bundle: &SignedBundle, leg: usize, tx: Tx) -> Arc<SignedBundle> {
    let mut resigned = bundle.clone();
    resigned.legs[leg].transaction = tx.bytes();
    Arc::new(resigned)
}

#[test]
fn a_bundle_that_is_signed_again_for_more_takes_the_place_of_the_one_that_waits() {
    let f = Fixture::new();
    let first = bundle(&pair(1, 0));
    let id = offer(&f, &first).unwrap();
    let dearer = resigned(&first, 0, Tx::new(1, 0).pays(110, 11));
    assert_eq!(offer(&f, &dearer), Ok(id));
    assert_eq!((f.pool.bundles(), f.pool.bundle(&id)), (1, Some(dearer.clone())));
    let (old, new) = (Tx::new(1, 0).key(EVM), Tx::new(1, 0).pays(110, 11).key(EVM));
    assert_eq!(f.pool.drop_reason(&old), Some(Rejection::Replaced { by: new.hash }));
    assert_eq!((f.pool.get(&old), f.pool.get(&new).is_some()), (None, true));
    let (segments, bundles) = select(&f, &[]);
    assert_eq!((keys(&segments), bundles), (vec![new, Tx::new(1, 0).key(OTHER_EVM)], vec![id]));
    assert_eq!(offer(&f, &dearer), Err(BundleRefusal::Known(id)));
    // What others still have does not come back.
    let late = f.pool.insert_bundle(f.pool.check_bundle(&first).unwrap(), Origin::Gossip, f.start);
    assert_eq!(late, Err(BundleRefusal::NotReplaced { leg: 0, by: new.hash }));
    assert_eq!(f.pool.bundle_refusal(&id), None);
}

#[test]
fn a_bundle_that_waits_gives_way_to_nothing_less() {
    let f = Fixture::new();
    let first = bundle(&pair(1, 0));
    let id = offer(&f, &first).unwrap();
    let by = Tx::new(1, 0).key(OTHER_EVM).hash;
    // Too little more, another's, or another nonce; each with a first leg that would do.
    let better = resigned(&first, 0, Tx::new(1, 0).pays(200, 20));
    for other in [Tx::new(1, 0).pays(109, 20), Tx::new(2, 0).pays(200, 20), Tx::new(1, 1).pays(200, 20)] {
        let refused = offer(&f, &resigned(&better, 1, other));
        assert_eq!(refused, Err(BundleRefusal::NotReplaced { leg: 1, by }));
        assert_eq!(refused.unwrap_err().code(), "not_replaced");
    }
    // More than its sender has.
    let poor = Tx { fee_cap: RICH / 20, ..Tx::new(1, 0).pays(0, 20) };
    assert_eq!(offer(&f, &resigned(&first, 1, poor)).unwrap_err().code(), "leg");
    assert_eq!((f.pool.bundle(&id), f.pool.bundle_refusal(&id)), (Some(first), None));
    assert_eq!(select(&f, &[]).1, [id]);
    assert_eq!(f.pool.pending_nonce(OTHER_EVM, address(1)), Some(1));
    assert_eq!(f.pool.pending_nonce(EVM, address(2)), None);
}

#[test]
fn what_a_validator_has_accepted_is_not_refused_by_a_follower_that_is_behind() {
    let f = Fixture::new();
    f.chain.set_account(1, 0, 0);
    let accepted = bundle(&pair(1, 0));
    let id = accepted.id();
    f.pool.refuse_bundle(id, BundleRefusal::Full("before"));
    f.pool.keep_bundle(&accepted, f.start);
    assert_eq!((f.pool.bundle(&id), f.pool.bundle_refusal(&id)), (None, None));
    assert_eq!(f.pool.bundle_elsewhere(&id), Some(DEADLINE));

    let tx = f.pool.check(EVM, &Tx::new(1, 0).bytes()).unwrap();
    let key = tx.key();
    assert_eq!(f.pool.insert(tx.clone(), Origin::Local, f.start).unwrap_err().code(), "insufficient_funds");
    assert!(f.pool.drop_reason(&key).is_some());
    f.pool.insert(tx, Origin::Forwarded, f.start).unwrap_err();
    assert_eq!(f.pool.drop_reason(&key), None);

    // Funds that this node has not seen yet go on being none, and the account's nonce is what it is.
    let behind = bundle(&pair(2, 1));
    f.pool.keep_bundle(&behind, f.start);
    let alone = f.pool.check(EVM, &Tx::new(3, 1).bytes()).unwrap();
    f.pool.insert(alone, Origin::Forwarded, f.start).unwrap();
    for (sender, block) in [(2, 1), (3, 2)] {
        f.chain.set_account(sender, 1, 0);
        assert_eq!(f.pool.on_executed(EVM, block, [address(sender)]), 0);
    }
    assert!(f.pool.bundle(&behind.id()).is_some() && f.pool.get(&Tx::new(3, 1).key(EVM)).is_some());
    f.chain.set_account(2, 2, 0);
    f.pool.on_executed(EVM, 3, [address(2)]);
    f.pool.assert_consistent();
    assert_eq!(f.pool.bundle_refusal(&behind.id()).unwrap().code(), "leg");
}

#[test]
fn the_bundles_of_this_nodes_users_are_sent_again_however_many_others_wait() {
    let f = Fixture::new();
    for sender in 0..5 {
        let gossiped = f.pool.check_bundle(&bundle(&pair(sender, 0))).unwrap();
        f.pool.insert_bundle(gossiped, Origin::Gossip, f.start).unwrap();
    }
    let own = bundle(&pair(5, 0));
    offer(&f, &own).unwrap();
    assert_eq!(f.pool.waiting_bundles(f.start, 3), [own]);
}

/// Offers of bundles over `pair`, each with a salt of its own, without a look at all of the state after each.
fn flood(f: &Fixture, senders: std::ops::Range<u8>, first: u64) -> Vec<Result<B256, BundleRefusal>> {
    let offers = senders.flat_map(|sender| (first..first + SENDER_LEGS as u64).map(move |nonce| (sender, nonce)));
    let offer = |(sender, nonce): (u8, u64)| {
        let bundle = bundle_until(DEADLINE, (u64::from(sender) << 8) | nonce, &pair(sender, nonce));
        let checked = f.pool.check_bundle(&bundle).unwrap();
        let id = checked.id();
        f.pool.insert_bundle(checked, Origin::Local, f.start).map(|()| id)
    };
    offers.map(offer).collect()
}

#[test]
fn bundles_behind_a_gap_keep_nobody_out_who_has_none() {
    let f = Fixture::new();
    // For free: nobody sends what comes before them.
    let free = flood(&f, 0..64, 1);
    assert_eq!(free.iter().filter(|result| result.is_ok()).count(), GAPPED);
    assert_eq!(free[GAPPED].as_ref().unwrap_err().code(), "bundles_full");
    f.pool.assert_consistent();
    let ready = flood(&f, 100..148, 0);
    assert!(ready.iter().all(Result::is_ok));
    assert_eq!(f.pool.bundles(), BUNDLES);

    let id = offer(&f, &bundle(&pair(200, 0))).unwrap();
    assert_eq!(f.pool.bundles(), BUNDLES);
    assert!(f.pool.bundle(&id).is_some());
    let last = free[GAPPED - 1].as_ref().unwrap();
    assert_eq!(f.pool.bundle_refusal(last), Some(BundleRefusal::Displaced));
    assert_eq!(f.pool.bundle_refusal(last).unwrap().code(), "displaced");
    assert!(f.pool.bundle(free[0].as_ref().unwrap()).is_some(), "the newest goes first");
    // There is no room for it, and when there is others may hand it back.
    let again = f.pool.check_bundle(&bundle_until(DEADLINE, (15 << 8) | 64, &pair(15, 64))).unwrap();
    assert_eq!(again.id(), *last);
    let again = |origin| f.pool.insert_bundle(again.clone(), origin, f.start);
    assert_eq!(again(Origin::Gossip).unwrap_err().code(), "bundles_full");
    let first = |rollup| Segment { rollup, transactions: vec![Tx::new(100, 0).bytes()] };
    f.finalise(1, &[first(EVM), first(OTHER_EVM)]);
    assert_eq!(again(Origin::Gossip), Ok(()));
    f.pool.assert_consistent();
}

#[test]
fn long_bundles_behind_a_gap_have_a_quarter_of_the_bytes() {
    let f = Fixture::new();
    let long = |sender, nonce| {
        let leg = Tx { len: 40 << 10, ..Tx::new(sender, nonce) };
        bundle(&[(EVM, leg), (OTHER_EVM, leg)])
    };
    let taken = (1..=60).filter(|nonce| offer(&f, &long(1, *nonce)).is_ok()).count();
    assert_eq!(taken, 51);
    for sender in 2..155 {
        offer(&f, &long(sender, 0)).unwrap();
    }
    let bundles = f.pool.bundles();
    offer(&f, &long(155, 0)).unwrap();
    assert_eq!(f.pool.bundles(), bundles);
}

#[test]
fn what_follows_a_bundle_behind_a_gap_is_behind_it_too() {
    let f = Fixture::new();
    let gapped = || f.pool.gapped_bundles();
    let gap = bundle(&[(EVM, Tx::new(1, 0)), (OTHER_EVM, Tx::new(2, 1))]);
    let follows = bundle(&[(EVM, Tx::new(1, 1)), (OTHER_EVM, Tx::new(3, 0))]);
    // Each waits for the other.
    let ring = [
        bundle(&[(EVM, Tx::new(4, 0)), (OTHER_EVM, Tx::new(5, 1))]),
        bundle(&[(EVM, Tx::new(4, 1)), (OTHER_EVM, Tx::new(5, 0))]),
    ];
    for (count, bundle) in (1..).zip([&gap, &follows, &ring[0], &ring[1]]) {
        offer(&f, bundle).unwrap();
        assert_eq!(gapped(), count);
    }
    let missing = f.pool.check(OTHER_EVM, &Tx::new(2, 0).bytes()).unwrap();
    f.pool.insert(missing, Origin::Local, f.start).unwrap();
    f.finalise(1, &[]);
    assert_eq!((gapped(), f.pool.bundles()), (2, 4), "the ring");
    assert_eq!(select(&f, &[]).1.len(), 2);
    // The fee of what comes first rises above what its sender pays: nothing goes in.
    *f.chain.base_fee.lock() = 101;
    f.pool.on_executed(EVM, 1, []);
    f.finalise(2, &[]);
    assert_eq!(gapped(), 4);
}

#[test]
fn legs_that_no_block_has_gas_for_are_refused() {
    let f = Fixture::new();
    *f.chain.gas_limit.lock() = Some(2 * 21);
    let legs = [(EVM, Tx::new(1, 0)), (EVM, Tx::new(2, 0)), (OTHER_EVM, Tx::new(1, 0)), (EVM, Tx::new(3, 0))];
    let reason = Rejection::GasLimit { have: 63, limit: 42 };
    assert_eq!(offer(&f, &bundle(&legs)), Err(BundleRefusal::Leg { leg: 3, reason }));
    offer(&f, &bundle(&legs[..3])).unwrap();
}

#[test]
fn bundles_take_a_quarter_and_what_is_left() {
    let f = Fixture::new();
    for sender in 0..20 {
        offer(&f, &bundle_until(DEADLINE, sender.into(), &pair(sender, 0))).unwrap();
    }
    for sender in 100..130 {
        f.add_all(&[Tx::new(sender, 0)]);
    }
    let count = |transactions| {
        let budget = Budget { transactions, ..Budget::from(&Limits::default()) };
        let (segments, bundles) = select_within(&f, budget, &[]);
        let chosen = segments.iter().map(|s| s.transactions.len()).sum::<usize>();
        assert!(chosen + bundles.len() <= transactions, "records count");
        (bundles.len(), chosen - 2 * bundles.len())
    };
    // Three places each: two legs and the record.
    assert_eq!(count(36), (3, 27));
    assert_eq!(count(60), (10, 30));
    assert_eq!(count(500), (20, 30));
    // However small the block, one may go first.
    assert_eq!(count(4), (1, 1));
    assert_eq!(count(2), (0, 2));
}

#[test]
fn bundles_stay_within_their_part_of_a_rollups_gas() {
    let f = Fixture::new();
    *f.chain.gas_limit.lock() = Some(40 * 21);
    for sender in 0..30 {
        offer(&f, &bundle_until(DEADLINE, sender.into(), &pair(sender, 0))).unwrap();
    }
    for sender in 100..135 {
        f.add_all(&[Tx::new(sender, 0)]);
    }
    let (segments, bundles) = select(&f, &[]);
    assert_eq!(bundles.len(), 10);
    assert_eq!(evm_order(&segments).len(), 40);
}

/// A body's length with the records of bundles of two legs (`docs/specs/blocks.md`, `docs/specs/bundles.md`).
fn body_len(segments: &[Segment], bundles: &[B256]) -> usize {
    const RECORD: usize = 2 + 8 + 32 + 4 + 2 * 72;
    let records = if bundles.is_empty() { 0 } else { 12 + bundles.len() * (4 + RECORD) };
    4 + segments.iter().map(Segment::encoded_len).sum::<usize>() + records
}

#[test]
fn a_block_is_filled_to_the_last_byte() {
    let f = Fixture::new();
    offer(&f, &bundle(&pair(1, 0))).unwrap();
    let whole = select(&f, &[]);
    let bytes = body_len(&whole.0, &whole.1);
    let within = |bytes| select_within(&f, Budget { bytes, ..Budget::from(&Limits::default()) }, &[]);
    assert_eq!(within(bytes).1.len(), 1);
    assert!(within(bytes - 1).1.is_empty());
}

#[test]
fn a_bundle_does_not_come_before_a_transaction_that_does_not_fit() {
    let f = Fixture::new();
    f.add_all(&[Tx { len: 1000, ..Tx::new(1, 0) }]);
    offer(&f, &bundle(&[(EVM, Tx::new(1, 1)), (OTHER_EVM, Tx::new(1, 0))])).unwrap();
    let budget = Budget { bytes: 900, ..Budget::from(&Limits::default()) };
    let (segments, bundles) = select_within(&f, budget, &[]);
    assert!(bundles.is_empty(), "a leg without the transaction before it: {segments:?}");
}

proptest! {
    /// Whatever is offered, whole bundles or nothing, each sender's nonces in order, within the budget.
    #[test]
    fn a_block_holds_whole_bundles_only(
        offers in proptest::collection::vec((any::<bool>(), 0u8..4, 0u64..4, 0u8..4, 0u64..4, 30usize..400), 1..40),
        transactions in 1usize..30, bytes in 100usize..6000,
    ) {
        let f = Fixture::new();
        for (salt, (alone, sender, nonce, other, next, len)) in offers.into_iter().enumerate() {
            let (first, second) = (Tx { len, ..Tx::new(sender, nonce) }, Tx::new(other, next));
            if alone {
                let _ = f.add(first);
            } else {
                let _ = offer(&f, &bundle_until(DEADLINE, salt as u64, &[(EVM, first), (OTHER_EVM, second)]));
            }
        }
        let budget = Budget { transactions, bytes, segments: 4 };
        let (segments, bundles) = select_within(&f, budget, &[]);
        let length = body_len(&segments, &bundles);
        prop_assert!(segments.is_empty() || length <= bytes.max(4), "{length} of {bytes}");
        for segment in &segments {
            let mut next: HashMap<u8, u64> = HashMap::new();
            for tx in segment.transactions.iter().filter_map(|bytes| Tx::read(bytes)) {
                let expected = next.entry(tx.sender).or_default();
                prop_assert_eq!(tx.nonce, *expected);
                *expected += 1;
            }
        }
    }
}
