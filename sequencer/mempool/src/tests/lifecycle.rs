//! From waiting to final, executed, or dropped.

use super::*;

#[test]
fn what_is_final_is_taken_out_and_does_not_come_back() {
    let f = Fixture::new();
    let tx = Tx::new(1, 0);
    f.add(tx).unwrap();
    f.offer(OPAQUE, &opaque(1, 9)).unwrap();
    let segments = f.select(&[]);
    f.finalise(5, &segments);
    assert_eq!(f.pool.usage().transactions, 0);
    for (rollup, bytes) in [(EVM, tx.bytes()), (OPAQUE, opaque(1, 9))] {
        let key = TxKey::of(rollup, &bytes);
        assert_eq!(f.offer(rollup, &bytes), Err(Rejection::AlreadyFinal { hash: key.hash, height: 5 }));
        assert_eq!(f.pool.drop_reason(&key), None);
    }
}

#[test]
fn what_was_final_before_it_came_here_is_refused() {
    let f = Fixture::new();
    f.finalise_txs(3, &[Tx::new(1, 0)]);
    assert_eq!(f.add(Tx::new(1, 0)).unwrap_err().code(), "already_final");
}

#[test]
fn a_final_transaction_that_is_not_executed_is_no_nonce_gap() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0), Tx::new(1, 1), Tx::new(1, 2)]);
    let block = f.finalise_txs(1, &[Tx::new(1, 0), Tx::new(1, 1)]);
    assert_eq!(f.order(&[]), [(1, 2)]);
    f.add(Tx::new(1, 3)).unwrap();
    assert_eq!(f.add(Tx::new(1, 1).pays(900, 900)), Err(Rejection::NonceTooLow { expected: 2, found: 1 }));
    assert_eq!(f.order(&[]), [(1, 2), (1, 3)]);
    f.execute(1, &block);
    assert_eq!(f.order(&[]), [(1, 2), (1, 3)]);
}

#[test]
fn pending_nonces_count_what_is_final_but_not_executed() {
    let f = Fixture::new();
    f.add(Tx::new(1, 0)).unwrap();
    let block = f.finalise_txs(1, &[Tx::new(1, 0)]);
    assert_eq!(f.pool.pending_nonce(EVM, address(1)), Some(1));
    f.execute(1, &block);
    assert_eq!(f.pool.pending_nonce(EVM, address(1)), None, "the account speaks for itself");
}

#[test]
fn what_execution_skipped_gives_its_nonce_back() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0), Tx::new(1, 1), Tx::new(1, 2)]);
    let block = f.finalise_txs(1, &[Tx::new(1, 0), Tx::new(1, 1)]);
    *f.chain.base_fee.lock() = 101;
    f.execute(1, &block);
    *f.chain.base_fee.lock() = 0;
    assert_eq!(f.order(&[]), [], "nonces 0 and 1 were not used: 2 is behind a gap");
    assert_eq!(f.pool.pending_nonce(EVM, address(1)), Some(0));
    f.add_all(&[Tx::new(1, 0).pays(200, 1), Tx::new(1, 1).pays(200, 1)]);
    assert_eq!(f.order(&[]), [(1, 0), (1, 1), (1, 2)]);
}

#[test]
fn execution_of_one_block_does_not_forget_the_next_ones_transactions() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0), Tx::new(1, 1), Tx::new(1, 2)]);
    let first = f.finalise_txs(1, &[Tx::new(1, 0)]);
    let second = f.finalise_txs(2, &[Tx::new(1, 1)]);
    f.execute(1, &first);
    assert_eq!(f.order(&[]), [(1, 2)]);
    f.execute(2, &second);
    assert_eq!(f.order(&[]), [(1, 2)]);
}

#[test]
fn funds_promised_to_final_transactions_are_not_spent_twice() {
    let f = Fixture::new();
    f.chain.set_account(1, 0, 3000);
    f.add(Tx::new(1, 0)).unwrap();
    let block = f.finalise_txs(1, &[Tx::new(1, 0)]);
    assert_eq!(f.add(Tx::new(1, 1)).unwrap_err().code(), "insufficient_funds");
    f.execute(1, &block);
    assert_eq!(f.add(Tx::new(1, 1)).unwrap_err().code(), "insufficient_funds");
    f.chain.set_account(1, 1, 2100);
    f.add(Tx::new(1, 1)).unwrap();
}

#[test]
fn an_account_that_is_ahead_of_the_notice_is_not_charged_twice() {
    let f = Fixture::new();
    f.chain.set_account(1, 0, 4200);
    f.add(Tx::new(1, 0)).unwrap();
    let block = f.finalise_txs(1, &[Tx::new(1, 0)]);
    f.chain.execute(&block[0].transactions);
    f.add(Tx::new(1, 1)).unwrap();
}

#[test]
fn another_transaction_with_the_nonce_makes_ours_stale() {
    let f = Fixture::new();
    let ours = Tx::new(1, 0);
    f.add_all(&[ours, Tx::new(1, 1)]);
    let theirs = Tx { len: 200, ..Tx::new(1, 0) };
    let block = f.finalise_txs(1, &[theirs]);
    assert_eq!(f.execute(1, &block), 1);
    let stale = Rejection::NonceTooLow { expected: 1, found: 0 };
    assert_eq!(f.pool.drop_reason(&ours.key(EVM)), Some(stale));
    assert_eq!(f.order(&[]), [(1, 1)]);
}

#[test]
fn what_the_balance_no_longer_covers_is_dropped_from_the_last_nonce_down() {
    let f = Fixture::new();
    f.chain.set_account(1, 0, 10_000);
    f.add_all(&[Tx::new(1, 0), Tx::new(1, 1), Tx::new(1, 2)]);
    f.chain.set_account(1, 0, 4_500);
    assert_eq!(f.pool.on_executed(EVM, 1, [address(1)]), 1);
    f.pool.assert_consistent();
    let (have, want) = (U256::from(300), U256::from(2100));
    let reason = f.pool.drop_reason(&Tx::new(1, 2).key(EVM));
    assert_eq!(reason, Some(Rejection::InsufficientFunds { address: address(1), have, want }));
    assert_eq!(f.order(&[]), [(1, 0), (1, 1)]);
}

#[test]
fn what_waits_too_long_expires_and_gossip_does_not_bring_it_back() {
    let f = Fixture::with(|c| c.ttl = Duration::from_secs(60));
    let (old, young) = (Tx::new(1, 0), Tx::new(2, 0));
    for (tx, seconds) in [(old, 0), (young, 30)] {
        f.pool.insert(f.pool.check(EVM, &tx.bytes()).unwrap(), Origin::Local, f.at(seconds)).unwrap();
    }
    assert_eq!(f.pool.expire(f.at(60)), 0);
    assert_eq!(f.pool.expire(f.at(61)), 1);
    f.pool.assert_consistent();
    assert_eq!(f.order(&[]), [(2, 0)]);
    let reason = Rejection::Expired { seconds: 61 };
    assert_eq!(f.pool.drop_reason(&old.key(EVM)), Some(reason.clone()));

    let again = f.pool.check(EVM, &old.bytes()).unwrap();
    assert_eq!(f.pool.insert(again.clone(), Origin::Gossip, f.at(62)), Err(reason));
    f.pool.insert(again, Origin::Local, f.at(62)).unwrap();
    assert_eq!(f.pool.drop_reason(&old.key(EVM)), None);
}

#[test]
fn waiting_transactions_are_listed_in_pages_oldest_first() {
    let f = Fixture::new();
    for id in 0..10u64 {
        let checked = f.pool.check(OPAQUE, &opaque(id, 9)).unwrap();
        let origin = if id % 2 == 0 { Origin::Local } else { Origin::Gossip };
        f.pool.insert(checked, origin, f.at(id)).unwrap();
    }
    let page = f.pool.waiting(0, f.at(6), 4);
    assert_eq!(
        page.iter().map(|w| w.payload.clone()).collect::<Vec<_>>(),
        (0..4).map(|id| opaque(id, 9)).collect::<Vec<_>>()
    );
    assert_eq!((page[0].origin, page[1].origin), (Origin::Local, Origin::Gossip));
    let rest = f.pool.waiting(page[3].arrival + 1, f.at(6), 100);
    assert_eq!(
        rest.iter().map(|w| w.key).collect::<Vec<_>>(),
        (4..7).map(|id| TxKey::of(OPAQUE, &opaque(id, 9))).collect::<Vec<_>>()
    );
}

#[test]
fn final_blocks_of_rollups_that_are_not_run_here_are_taken_note_of() {
    let f = Fixture::new();
    f.finalise(1, &[Segment { rollup: RollupId(500), transactions: vec![opaque(1, 9)] }]);
    assert_eq!(f.pool.on_executed(RollupId(500), 1, []), 0);
}

#[test]
fn a_stale_read_of_an_account_does_not_take_it_back() {
    let f = Fixture::new();
    f.chain.set_account(1, 5, RICH);
    f.add(Tx::new(1, 5)).unwrap();
    f.chain.set_account(1, 3, RICH);
    assert_eq!(f.add(Tx::new(1, 4)), Err(Rejection::NonceTooLow { expected: 5, found: 4 }));
    assert_eq!(f.order(&[]), [(1, 5)]);
}

#[test]
fn a_replaced_transaction_that_is_in_flight_after_all_keeps_its_nonce() {
    let f = Fixture::new();
    let (old, new) = (Tx::new(1, 0), Tx::new(1, 0).pays(200, 20));
    f.add_all(&[old, new, Tx::new(1, 1)]);
    assert_eq!(f.order(&[old.key(EVM)]), [(1, 1)], "its replacement could not be executed");
    let block = f.finalise_txs(1, &[old]);
    assert_eq!(f.order(&[]), [(1, 1)]);
    assert_eq!(f.execute(1, &block), 1);
    assert_eq!(f.pool.drop_reason(&old.key(EVM)), None);
    assert_eq!(f.pool.drop_reason(&new.key(EVM)), Some(Rejection::NonceTooLow { expected: 1, found: 0 }));
}

#[test]
fn while_accounts_cannot_be_read_nothing_is_admitted_and_nothing_is_dropped() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0), Tx::new(1, 1)]);
    f.chain.is_unreadable.store(true, Ordering::Relaxed);
    assert!(matches!(f.add(Tx::new(2, 0)), Err(Rejection::Unavailable(_))));
    assert_eq!(f.pool.on_executed(EVM, 1, [address(1)]), 0);
    assert_eq!(f.order(&[]), [(1, 0), (1, 1)]);
    f.chain.is_unreadable.store(false, Ordering::Relaxed);
    f.add(Tx::new(2, 0)).unwrap();
    assert_eq!(f.pool.on_executed(EVM, 2, [address(1)]), 0);
    assert_eq!(f.pool.usage().transactions, 3);
}
