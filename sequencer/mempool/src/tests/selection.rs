//! What a leader's block takes, and in which order.

use super::*;

#[test]
fn segments_are_sorted_by_rollup_and_none_is_empty() {
    let f = Fixture::new();
    assert_eq!(f.select(&[]), []);
    f.offer(OTHER_OPAQUE, &opaque(1, 9)).unwrap();
    f.offer(OPAQUE, &opaque(1, 9)).unwrap();
    f.add(Tx::new(1, 0)).unwrap();
    let rollups: Vec<RollupId> = f.select(&[]).iter().map(|s| s.rollup).collect();
    assert_eq!(rollups, [EVM, OPAQUE, OTHER_OPAQUE]);
}

#[test]
fn opaque_transactions_come_as_they_arrived() {
    let f = Fixture::new();
    let sent: Vec<Bytes> = (0..50).map(|id| opaque(id * 7919 % 50, 9)).collect();
    sent.iter().for_each(|tx| {
        f.offer(OPAQUE, tx).unwrap();
    });
    assert_eq!(f.select(&[])[0].transactions, sent);
    let exclude: Vec<TxKey> = sent[..20].iter().map(|tx| TxKey::of(OPAQUE, tx)).collect();
    assert_eq!(f.select(&exclude)[0].transactions, sent[20..]);
}

#[test]
fn senders_come_by_effective_tip_then_by_arrival_each_in_nonce_order() {
    let f = Fixture::new();
    *f.chain.base_fee.lock() = 50;
    f.add_all(&[
        Tx::new(1, 1).pays(200, 90),
        Tx::new(1, 0).pays(60, 30),  // 10
        Tx::new(2, 0).pays(200, 20), // 20
        Tx::new(3, 0).pays(200, 20), // 20, later
        Tx::new(4, 0).pays(80, 80),  // 30
        Tx::new(2, 1).pays(200, 1),  // 1
    ]);
    assert_eq!(f.order(&[]), [(4, 0), (2, 0), (3, 0), (1, 0), (1, 1), (2, 1)]);
}

#[test]
fn the_order_follows_the_base_fee_and_what_is_below_it_waits() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0).pays(100, 30), Tx::new(2, 0).pays(200, 20), Tx::new(1, 1).pays(300, 1)]);
    assert_eq!(f.order(&[]), [(1, 0), (2, 0), (1, 1)]);
    *f.chain.base_fee.lock() = 90;
    assert_eq!(f.order(&[]), [(2, 0), (1, 0), (1, 1)]);
    *f.chain.base_fee.lock() = 101;
    assert_eq!(f.order(&[]), [(2, 0)], "what follows on one that waits, waits too");
    *f.chain.base_fee.lock() = 0;
    assert_eq!(f.order(&[]), [(1, 0), (2, 0), (1, 1)]);
}

#[test]
fn nothing_behind_a_nonce_gap_is_selected_until_it_is_filled() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0), Tx::new(1, 2), Tx::new(1, 3), Tx::new(2, 1)]);
    assert_eq!(f.order(&[]), [(1, 0)]);
    assert_eq!(f.pool.pending_nonce(EVM, address(1)), Some(1));
    f.add(Tx::new(1, 1)).unwrap();
    assert_eq!(f.order(&[]), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    assert_eq!(f.pool.pending_nonce(EVM, address(1)), Some(4));
    assert_eq!(f.pool.pending_nonce(EVM, address(2)), Some(0));
    assert_eq!(f.pool.pending_nonce(EVM, address(3)), None);
}

#[test]
fn a_sender_goes_on_after_what_is_in_flight() {
    let f = Fixture::new();
    let txs = [Tx::new(1, 0).pays(100, 1), Tx::new(1, 1).pays(100, 50), Tx::new(1, 2), Tx::new(2, 0).pays(100, 20)];
    f.add_all(&txs);
    assert_eq!(f.order(&[txs[0].key(EVM)]), [(1, 1), (2, 0), (1, 2)]);
    assert_eq!(f.order(&[txs[0].key(EVM), txs[1].key(EVM), txs[3].key(EVM)]), [(1, 2)]);
    let all: Vec<TxKey> = txs.iter().map(|tx| tx.key(EVM)).collect();
    assert_eq!(f.select(&all), []);
    let unknown = TxKey::of(EVM, b"from another leader");
    assert_eq!(f.order(&[unknown]).len(), 4);
}

#[test]
fn gas_limits_hold_for_each_segment_and_smaller_transactions_may_still_fit() {
    let f = Fixture::new();
    *f.chain.gas_limit.lock() = Some(100);
    let tx = |sender, nonce, gas, tip| Tx { gas, ..Tx::new(sender, nonce).pays(100, tip) };
    f.add_all(&[tx(1, 0, 60, 50), tx(2, 0, 60, 40), tx(2, 1, 10, 40), tx(3, 0, 30, 30), tx(4, 0, 10, 20)]);
    assert_eq!(f.order(&[]), [(1, 0), (3, 0), (4, 0)], "sender 2's second may not overtake its first");
}

#[test]
fn a_rollup_that_has_no_room_gets_no_segment_and_the_others_theirs() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0), Tx::new(2, 0)]);
    f.offer(OPAQUE, &opaque(1, 100)).unwrap();
    *f.chain.gas_limit.lock() = Some(0);
    assert_eq!(f.select(&[]).iter().map(|segment| segment.rollup).collect::<Vec<_>>(), [OPAQUE]);
    *f.chain.gas_limit.lock() = None;
    assert_eq!(f.order(&[]).len(), 2, "what waits is kept");
}

#[test]
fn each_part_of_the_budget_is_kept_to_the_byte() {
    let f = Fixture::new();
    for id in 0..6 {
        f.offer(OPAQUE, &opaque(id, 100)).unwrap();
        f.offer(OTHER_OPAQUE, &opaque(id, 100)).unwrap();
    }
    let all = Budget { bytes: usize::MAX, transactions: usize::MAX, segments: usize::MAX };
    let select = |budget: Budget| -> Vec<usize> {
        let segments = segments(f.pool.select(budget, &HashSet::new(), no_bundles));
        let encoded = 4 + segments.iter().map(Segment::encoded_len).sum::<usize>();
        assert!(segments.is_empty() || encoded <= budget.bytes);
        segments.iter().map(|s| s.transactions.len()).collect()
    };
    assert_eq!(select(all), [6, 6]);
    assert_eq!(select(Budget { transactions: 5, ..all }), [3, 2]);
    assert_eq!(select(Budget { segments: 1, ..all }), [6]);
    assert_eq!(select(Budget { segments: 0, ..all }), [0; 0]);
    let two_each = 4 + 2 * 12 + 4 * 104;
    assert_eq!(select(Budget { bytes: two_each, ..all }), [2, 2]);
    assert_eq!(select(Budget { bytes: two_each - 1, ..all }), [2, 1]);
    assert_eq!(select(Budget { bytes: 4 + 12 + 103, ..all }), [0; 0]);
    assert_eq!(select(Budget { bytes: 0, ..all }), [0; 0]);
}

#[test]
fn a_block_within_the_default_limits_decodes() {
    let f = Fixture::new();
    for id in 0..3000 {
        f.pool.insert(f.pool.check(OPAQUE, &opaque(id, 1024)).unwrap(), Origin::Local, f.start).unwrap();
    }
    let limits = Limits::default();
    let segments = segments(f.pool.select(Budget::from(&limits), &HashSet::new(), no_bundles));
    let header = switchyard_primitives::Header::genesis(Default::default(), 0, Default::default());
    let block = switchyard_primitives::Block::new(header, segments);
    assert!(block.encoded_len() > limits.block_bytes() - 1100, "the block is full");
    assert_eq!(switchyard_primitives::Block::decode(block.encode().into(), &limits), Ok(block));
}

#[test]
fn selecting_changes_nothing() {
    let f = Fixture::new();
    f.add_all(&[Tx::new(1, 0), Tx::new(2, 0), Tx::new(1, 1)]);
    f.offer(OPAQUE, &opaque(1, 9)).unwrap();
    assert_eq!(f.select(&[]), f.select(&[]));
    f.pool.assert_consistent();
    assert_eq!(f.pool.usage().transactions, 4);
}

/// Some hundred transactions of twenty thousand, whether from few senders or from many.
#[test]
fn the_work_of_selecting_grows_with_what_is_selected_not_with_what_waits() {
    let budget = Budget { bytes: 40_000, transactions: 1000, segments: 10 };
    for senders in [20u64, 10_000] {
        let chain: Arc<dyn Admission> = Arc::new(Numbered);
        let pool = Mempool::new(MempoolConfig::default(), Limits::default(), [(EVM, Some(chain)), (OPAQUE, None)]);
        let now = Instant::now();
        for id in 0..10_000u64 {
            let numbered = [(id % senders).to_be_bytes(), (id / senders).to_be_bytes()].concat();
            let payload: Bytes = [numbered, vec![0; 48]].concat().into();
            pool.insert(pool.check(EVM, &payload).unwrap(), Origin::Local, now).unwrap();
            pool.insert(pool.check(OPAQUE, &opaque(id, 64)).unwrap(), Origin::Local, now).unwrap();
        }
        assert_eq!(pool.usage().transactions, 20_000);
        let (selected, examined) = pool.select_counted(budget, &HashSet::new(), no_bundles);
        let segments = segments(selected);
        let selected: usize = segments.iter().map(|s| s.transactions.len()).sum();
        assert!(selected > 500, "{selected}");
        assert!(examined <= 2 * selected + 10, "{examined} looked at for {selected}, {senders} senders");

        let exclude: HashSet<TxKey> =
            segments.iter().flat_map(|s| s.transactions.iter().map(|tx| TxKey::of(s.rollup, tx))).collect();
        let (next, examined) = pool.select_counted(budget, &exclude, no_bundles);
        assert!(next.segments.iter().flat_map(|s| &s.segment.transactions).count() > 500);
        assert!(examined <= 5 * selected, "{examined} looked at after {selected} in flight, {senders} senders");
    }
}

/// A rollup whose transactions begin with the sender's number and the nonce.
struct Numbered;

impl Admission for Numbered {
    fn inspect(&self, payload: &Bytes) -> Result<Option<Sequenced>, Rejection> {
        let field = |i: usize| u64::from_be_bytes(payload[8 * i..8 * i + 8].try_into().unwrap());
        let mut sender = Address::ZERO;
        sender[..8].copy_from_slice(&field(0).to_be_bytes());
        let tip_cap = (field(0) % 97).into();
        Ok(Some(Sequenced { sender, nonce: field(1), gas_limit: 1, fee_cap: 100, tip_cap, max_cost: U256::ZERO }))
    }
    fn account(&self, _: Address) -> Option<Account> {
        Some(Account::default())
    }
    fn base_fee(&self) -> u64 {
        7
    }
    fn block_gas_limit(&self) -> u64 {
        u64::MAX
    }
}
