//! What is taken in and what is refused.

use super::*;
use crate::Usage;

#[track_caller]
fn refused(offered: Result<Accepted, Rejection>, code: &str) -> Rejection {
    let rejection = offered.unwrap_err();
    assert_eq!(rejection.code(), code, "{rejection}");
    rejection
}

#[test]
fn an_unknown_rollup_is_refused() {
    let f = Fixture::new();
    assert_eq!(f.offer(RollupId(77), &opaque(1, 9)), Err(Rejection::UnknownRollup(RollupId(77))));
}

#[test]
fn empty_and_oversized_payloads_are_refused_at_their_exact_bounds() {
    let f = Fixture::new();
    let limit = Limits::default().transaction_bytes;
    assert_eq!(f.offer(OPAQUE, &Bytes::new()), Err(Rejection::Empty));
    assert_eq!(f.offer(OPAQUE, &opaque(1, limit + 1)), Err(Rejection::Oversized { bytes: limit + 1, limit }));
    f.offer(OPAQUE, &opaque(1, limit)).unwrap();
}

#[test]
fn what_the_rollups_rules_refuse_is_refused() {
    let f = Fixture::new();
    refused(f.offer(EVM, &Bytes::from_static(b"short")), "malformed");
    f.offer(OPAQUE, &Bytes::from_static(b"short")).unwrap();
}

#[test]
fn the_same_bytes_are_taken_once_for_each_rollup() {
    let f = Fixture::new();
    let bytes = Tx::new(1, 0).bytes();
    f.offer(EVM, &bytes).unwrap();
    f.offer(OPAQUE, &bytes).unwrap();
    f.offer(OTHER_EVM, &bytes).unwrap();
    for rollup in [EVM, OPAQUE, OTHER_EVM] {
        refused(f.offer(rollup, &bytes), "already_known");
    }
    assert_eq!(f.pool.usage(), Usage { transactions: 3, bytes: 300 });
}

#[test]
fn of_two_threads_with_the_same_transaction_one_gets_it_in() {
    let f = Fixture::new();
    let one = f.pool.check(EVM, &Tx::new(1, 0).bytes()).unwrap();
    let other = one.clone();
    f.pool.insert(one, Origin::Local, f.start).unwrap();
    refused(f.pool.insert(other, Origin::Gossip, f.start), "already_known");
}

#[test]
fn a_nonce_must_be_unused_and_within_the_window() {
    let f = Fixture::with(|c| c.sender_transactions = 4);
    f.chain.set_account(1, 10, RICH);
    assert_eq!(f.add(Tx::new(1, 9)), Err(Rejection::NonceTooLow { expected: 10, found: 9 }));
    assert_eq!(f.add(Tx::new(1, 14)), Err(Rejection::NonceTooHigh { expected: 10, found: 14, limit: 4 }));
    f.add_all(&[Tx::new(1, 13), Tx::new(1, 11), Tx::new(1, 10), Tx::new(1, 12)]);
    assert_eq!(f.pool.pending_nonce(EVM, address(1)), Some(14));
    refused(f.add(Tx::new(1, u64::MAX)), "nonce_too_high");
}

#[test]
fn the_last_nonce_of_all_is_refused() {
    let f = Fixture::new();
    f.chain.set_account(1, u64::MAX - 1, RICH);
    f.add(Tx::new(1, u64::MAX - 1)).unwrap();
    refused(f.add(Tx::new(1, u64::MAX)), "nonce_too_high");
}

#[test]
fn a_balance_covers_all_that_waits() {
    let f = Fixture::new();
    f.chain.set_account(1, 0, 5000);
    // Each costs 21 * 100 at most.
    f.add_all(&[Tx::new(1, 0), Tx::new(1, 1)]);
    let (have, want) = (U256::from(800), U256::from(2100));
    assert_eq!(f.add(Tx::new(1, 2)), Err(Rejection::InsufficientFunds { address: address(1), have, want }));
    f.add(Tx { gas: 8, ..Tx::new(1, 2) }).unwrap();
    refused(f.add(Tx { gas: 1, ..Tx::new(1, 3) }.pays(1, 1)), "insufficient_funds");
}

#[test]
fn a_replacement_needs_funds_only_for_what_it_costs_more() {
    let f = Fixture::new();
    f.chain.set_account(1, 0, 2400);
    f.add(Tx::new(1, 0)).unwrap();
    refused(f.add(Tx::new(1, 0).pays(120, 12)), "insufficient_funds");
    f.add(Tx::new(1, 0).pays(110, 11)).unwrap();
}

#[test]
fn a_fee_cap_below_the_base_fee_is_refused() {
    let f = Fixture::new();
    *f.chain.base_fee.lock() = 101;
    assert_eq!(f.add(Tx::new(1, 0)), Err(Rejection::FeeTooLow { have: 100, base_fee: 101 }));
    f.add(Tx::new(1, 0).pays(101, 0)).unwrap();
}

#[test]
fn a_replacement_pays_a_tenth_more_both_at_most_and_as_a_tip() {
    // (waiting cap, tip), (offered cap, tip), whether it replaces.
    let table = [
        ((100, 10), (100, 10), false),
        ((100, 10), (109, 11), false),
        ((100, 10), (110, 10), false),
        ((100, 10), (110, 11), true),
        ((100, 10), (200, 10), false),
        ((100, 10), (200, 11), true),
        ((100, 0), (200, 0), false),
        ((100, 0), (110, 1), true),
        ((5, 5), (5, 5), false),
        ((5, 5), (6, 6), true),
        ((15, 15), (16, 16), true),
        ((30, 30), (32, 32), false),
        ((30, 30), (33, 33), true),
        ((100, 10), (50, 50), false),
    ];
    for ((cap, tip), (new_cap, new_tip), replaces) in table {
        let f = Fixture::new();
        let (old, new) = (Tx::new(1, 0).pays(cap, tip), Tx { len: 101, ..Tx::new(1, 0).pays(new_cap, new_tip) });
        f.add(old).unwrap();
        let offered = f.add(new);
        let case = format!("{cap}/{tip} -> {new_cap}/{new_tip}: {offered:?}");
        if replaces {
            let (old, new) = (old.key(EVM), new.key(EVM));
            assert_eq!(offered, Ok(Accepted { key: new, replaced: Some(old.hash) }), "{case}");
            assert_eq!(f.pool.get(&old), None, "{case}");
            assert_eq!(f.pool.drop_reason(&old), Some(Rejection::Replaced { by: new.hash }), "{case}");
        } else {
            refused(offered, "replacement_underpriced");
            assert!(f.pool.get(&old.key(EVM)).is_some(), "{case}");
        }
        assert_eq!(f.pool.usage().transactions, 1, "{case}");
    }
}

#[test]
fn an_underpriced_replacement_is_told_what_it_needs() {
    let f = Fixture::new();
    f.add(Tx::new(1, 0)).unwrap();
    assert_eq!(f.add(Tx::new(1, 0).pays(105, 50)), Err(Rejection::ReplacementUnderpriced { need: 110, have: 105 }));
    assert_eq!(f.add(Tx::new(1, 0).pays(200, 10)), Err(Rejection::ReplacementUnderpriced { need: 11, have: 10 }));
}

#[test]
fn a_replacement_in_the_middle_keeps_the_senders_other_transactions() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0), Tx::new(1, 1), Tx::new(1, 2)]);
    f.add(Tx::new(1, 1).pays(200, 20)).unwrap();
    assert_eq!(f.order(&[]), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(f.pool.pending_nonce(EVM, address(1)), Some(3));
}

#[test]
fn a_full_rollup_gives_up_the_last_transactions_of_its_cheapest_senders() {
    let f = Fixture::with(|c| c.rollup_transactions = 4);
    f.add_all(&[Tx::new(1, 0).pays(100, 5), Tx::new(1, 1).pays(100, 50), Tx::new(2, 0).pays(100, 20)]);
    f.add(Tx::new(3, 0).pays(100, 30)).unwrap();
    refused(f.add(Tx::new(4, 0).pays(100, 20)), "pool_full");
    // Sender 1's first transaction is the cheapest, but its last one is what goes first; its tip is 50.
    f.add(Tx::new(4, 0).pays(100, 21)).unwrap();
    assert_eq!(f.order(&[]), [(3, 0), (4, 0), (1, 0), (1, 1)]);
    assert_eq!(f.pool.drop_reason(&Tx::new(2, 0).pays(100, 20).key(EVM)).map(|r| r.code()), Some("pool_full"));
}

#[test]
fn what_waits_behind_a_gap_gives_way_first_whatever_it_pays() {
    let f = Fixture::with(|c| c.rollup_transactions = 2);
    f.add_all(&[Tx::new(1, 3).pays(1000, 1000), Tx::new(2, 0).pays(100, 5)]);
    refused(f.add(Tx::new(3, 9).pays(100, 50)), "pool_full");
    f.add(Tx::new(3, 0).pays(100, 1)).unwrap();
    assert_eq!(f.order(&[]), [(2, 0), (3, 0)]);
}

#[test]
fn a_transaction_never_displaces_one_that_it_builds_on() {
    let f = Fixture::with(|c| c.rollup_transactions = 2);
    f.add_all(&[Tx::new(1, 0).pays(100, 1), Tx::new(1, 1).pays(100, 2)]);
    refused(f.add(Tx::new(1, 2).pays(100, 90)), "pool_full");
    assert_eq!(f.order(&[]), [(1, 0), (1, 1)]);
}

#[test]
fn a_refused_transaction_displaces_nothing() {
    let f = Fixture::with(|c| c.rollup_bytes = 400);
    f.add_all(&[Tx::new(1, 0).pays(100, 1), Tx::new(2, 0).pays(100, 2), Tx::new(3, 0).pays(100, 50)]);
    f.add(Tx::new(4, 0).pays(100, 60)).unwrap();
    let before = f.order(&[]);
    // Room for it would take the third as well, which pays more.
    refused(f.add(Tx { len: 250, ..Tx::new(5, 0).pays(100, 40) }), "pool_full");
    assert_eq!(f.order(&[]), before);
    assert_eq!(f.pool.drop_reason(&Tx::new(1, 0).pays(100, 1).key(EVM)), None);
    f.add(Tx { len: 200, ..Tx::new(5, 0).pays(100, 40) }).unwrap();
    assert_eq!(f.order(&[]), [(4, 0), (3, 0), (5, 0)]);
}

#[test]
fn a_refused_replacement_leaves_the_old_one() {
    let f = Fixture::with(|c| c.rollup_bytes = 200);
    f.add_all(&[Tx::new(1, 0), Tx::new(2, 0).pays(500, 500)]);
    refused(f.add(Tx { len: 150, ..Tx::new(1, 0).pays(200, 20) }), "pool_full");
    assert_eq!(f.order(&[]), [(2, 0), (1, 0)]);
    f.add(Tx::new(1, 0).pays(200, 20)).unwrap();
    assert_eq!(f.pool.usage(), Usage { transactions: 2, bytes: 200 });
}

#[test]
fn an_opaque_rollup_at_its_bound_refuses() {
    let f = Fixture::with(|c| c.rollup_transactions = 2);
    f.offer(OPAQUE, &opaque(1, 9)).unwrap();
    f.offer(OPAQUE, &opaque(2, 9)).unwrap();
    let rejection = refused(f.offer(OPAQUE, &opaque(3, 9)), "pool_full");
    assert!(rejection.to_string().contains("2 transactions for a rollup"), "{rejection}");
    f.offer(OTHER_OPAQUE, &opaque(3, 9)).unwrap();
}

#[test]
fn in_a_full_mempool_a_rollup_above_its_share_gives_way_to_one_below() {
    let f = Fixture::with(|c| c.transactions = 6);
    for id in 0..6 {
        f.offer(OPAQUE, &opaque(id, 9)).unwrap();
    }
    refused(f.offer(OPAQUE, &opaque(6, 9)), "pool_full");
    // Two rollups: three each.
    for sender in 1..=3 {
        f.add(Tx::new(sender, 0)).unwrap();
    }
    refused(f.add(Tx::new(4, 0)), "pool_full");
    let usage = |id| f.pool.usage_by_rollup().into_iter().find(|(r, _)| *r == id).unwrap().1.transactions;
    assert_eq!((usage(OPAQUE), usage(EVM)), (3, 3));
    let dropped: Vec<u64> =
        (0..6).filter(|id| f.pool.drop_reason(&TxKey::of(OPAQUE, &opaque(*id, 9))).is_some()).collect();
    assert_eq!(dropped, [3, 4, 5], "the newest go first");
    // A third comes: two each.
    f.offer(OTHER_OPAQUE, &opaque(0, 9)).unwrap();
    f.offer(OTHER_OPAQUE, &opaque(1, 9)).unwrap();
    refused(f.offer(OTHER_OPAQUE, &opaque(2, 9)), "pool_full");
    assert_eq!((usage(OPAQUE), usage(EVM), usage(OTHER_OPAQUE)), (2, 2, 2));
}

#[test]
fn shares_of_a_full_mempool_are_counted_in_bytes_too() {
    let f = Fixture::with(|c| c.bytes = 1000);
    for id in 0..10 {
        f.offer(OPAQUE, &opaque(id, 100)).unwrap();
    }
    f.offer(OTHER_OPAQUE, &opaque(0, 450)).unwrap();
    assert_eq!(f.pool.usage(), Usage { transactions: 6, bytes: 950 });
    refused(f.offer(OTHER_OPAQUE, &opaque(1, 60)), "pool_full");
    f.offer(OTHER_OPAQUE, &opaque(1, 50)).unwrap();
}

#[test]
fn what_was_refused_is_remembered_for_this_nodes_users_only() {
    let f = Fixture::new();
    f.chain.set_account(1, 5, RICH);
    let tx = Tx::new(1, 2);
    let checked = f.pool.check(EVM, &tx.bytes()).unwrap();
    f.pool.insert(checked.clone(), Origin::Gossip, f.start).unwrap_err();
    assert_eq!(f.pool.drop_reason(&tx.key(EVM)), None);
    f.pool.insert(checked, Origin::Local, f.start).unwrap_err();
    assert_eq!(f.pool.drop_reason(&tx.key(EVM)), Some(Rejection::NonceTooLow { expected: 5, found: 2 }));
}

#[test]
fn a_waiting_payload_does_not_keep_the_frame_that_it_came_in() {
    let frame = Bytes::from(vec![3; 10_000]);
    let f = Fixture::new();
    let slice = frame.slice(100..200);
    let key = f.offer(OPAQUE, &slice).unwrap().key;
    let kept = f.pool.get(&key).unwrap();
    assert_eq!(kept, slice);
    assert!(!frame.as_ptr_range().contains(&kept.as_ptr()));
}
