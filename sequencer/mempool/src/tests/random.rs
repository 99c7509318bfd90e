//! Random histories: whatever happens, every bound and every promise holds.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Evm {
        sender: u8,
        ahead: u64,
        fee_cap: u64,
        tip_cap: u64,
        gas: u64,
        len: usize,
    },
    Opaque {
        other: bool,
        id: u64,
        len: usize,
    },
    /// A leader's block; `foreign` adds a transaction with a sender's next nonce that nobody here has seen.
    Block {
        bytes: usize,
        transactions: usize,
        foreign: Option<u8>,
    },
    Finalise,
    Execute,
    Fund {
        sender: u8,
        balance: u64,
    },
    BaseFee(u64),
    Pass {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..5, 0u64..5, 0u64..60, 0u64..40, 1u64..30, 40usize..300).prop_map(
            |(sender, ahead, fee_cap, tip_cap, gas, len)| {
                Step::Evm { sender, ahead, fee_cap, tip_cap: tip_cap.min(fee_cap), gas, len }
            }),
        5 => (any::<bool>(), 0u64..60, 8usize..300).prop_map(|(other, id, len)| Step::Opaque { other, id, len }),
        4 => (0usize..1500, 0usize..12, proptest::option::weighted(0.2, 0u8..5)).prop_map(
            |(bytes, transactions, foreign)| Step::Block { bytes, transactions, foreign }),
        3 => Just(Step::Finalise),
        3 => Just(Step::Execute),
        1 => (0u8..5, 0u64..9000).prop_map(|(sender, balance)| Step::Fund { sender, balance }),
        1 => (0u64..50).prop_map(Step::BaseFee),
        1 => (0u64..50).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// The mempool, the log that it feeds, and what became of all that it accepted.
struct World {
    f: Fixture,
    seconds: u64,
    height: u64,
    in_flight: Vec<Vec<Segment>>,
    unexecuted: Vec<(u64, Vec<Segment>)>,
    accepted: BTreeMap<TxKey, Bytes>,
    in_log: HashSet<TxKey>,
}

impl World {
    fn new() -> Self {
        let f = Fixture::with(|c| {
            *c = MempoolConfig {
                bytes: 5000,
                transactions: 30,
                rollup_bytes: 3000,
                rollup_transactions: 18,
                sender_transactions: 6,
                ttl: Duration::from_secs(100),
            };
        });
        *f.chain.gas_limit.lock() = Some(60);
        Self {
            f,
            seconds: 0,
            height: 0,
            in_flight: Vec::new(),
            unexecuted: Vec::new(),
            accepted: BTreeMap::new(),
            in_log: HashSet::new(),
        }
    }

    fn offer(&mut self, rollup: RollupId, payload: &Bytes) {
        let now = self.f.at(self.seconds);
        let before = self.f.pool.usage();
        match self.f.pool.check(rollup, payload).and_then(|c| self.f.pool.insert(c, Origin::Local, now)) {
            Ok(Accepted { key, .. }) => {
                assert!(!self.in_log.contains(&key), "taken in although it is final");
                assert!(self.f.pool.get(&key).is_some());
                self.accepted.insert(key, payload.clone());
            }
            Err(_) => assert_eq!(self.f.pool.usage(), before, "a refusal changes nothing"),
        }
    }

    fn exclude(&self) -> HashSet<TxKey> {
        let segments = self.in_flight.iter().flatten();
        segments.flat_map(|s| s.transactions.iter().map(|tx| TxKey::of(s.rollup, tx))).collect()
    }

    fn block(&mut self, budget: Budget, foreign: Option<u8>) {
        let exclude = self.exclude();
        let mut segments = segments(self.f.pool.select(budget, &exclude, no_bundles));
        self.check_selection(&segments, budget, &exclude);
        if let Some(sender) = foreign {
            let nonce = self.f.chain.account(address(sender)).unwrap().nonce;
            let tx = Tx { len: 33 + self.height as usize, ..Tx::new(sender, nonce).pays(60, 1) };
            if !self.in_log.contains(&tx.key(EVM)) && !exclude.contains(&tx.key(EVM)) {
                match segments.iter_mut().find(|s| s.rollup == EVM) {
                    Some(segment) => segment.transactions.insert(0, tx.bytes()),
                    None => segments.insert(0, Segment { rollup: EVM, transactions: vec![tx.bytes()] }),
                }
            }
        }
        self.in_flight.push(segments);
    }

    fn check_selection(&self, segments: &[Segment], budget: Budget, exclude: &HashSet<TxKey>) {
        assert!(segments.is_sorted_by(|a, b| a.rollup < b.rollup));
        assert!(segments.len() <= budget.segments);
        assert!(segments.iter().map(|s| s.transactions.len()).sum::<usize>() <= budget.transactions);
        let encoded = 4 + segments.iter().map(Segment::encoded_len).sum::<usize>();
        assert!(segments.is_empty() || encoded <= budget.bytes);
        let mut nonces: HashMap<u8, u64> = HashMap::new();
        let mut gas = 0;
        for segment in segments {
            assert!(!segment.transactions.is_empty());
            for payload in &segment.transactions {
                let key = TxKey::of(segment.rollup, payload);
                assert!(!exclude.contains(&key) && !self.in_log.contains(&key), "selected twice");
                assert_eq!(self.f.pool.get(&key).as_ref(), Some(payload), "selected but does not wait");
                if segment.rollup == EVM {
                    let tx = Tx::read(payload).unwrap();
                    gas += tx.gas;
                    assert!(tx.fee_cap >= self.f.chain.base_fee());
                    let before = nonces.insert(tx.sender, tx.nonce);
                    assert!(before.is_none_or(|n| n + 1 == tx.nonce), "nonces out of order or with a gap");
                }
            }
        }
        assert!(gas <= self.f.chain.segment_gas_limit());
    }

    fn finalise(&mut self) {
        if !self.in_flight.is_empty() {
            let segments = self.in_flight.remove(0);
            self.height += 1;
            self.f.finalise(self.height, &segments);
            for segment in &segments {
                self.in_log.extend(segment.transactions.iter().map(|tx| TxKey::of(segment.rollup, tx)));
            }
            self.unexecuted.push((self.height, segments));
        }
    }

    fn execute(&mut self) {
        if !self.unexecuted.is_empty() {
            let (height, segments) = self.unexecuted.remove(0);
            self.f.execute(height, &segments);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Evm { sender, ahead, fee_cap, tip_cap, gas, len } => {
                let next = self.f.pool.pending_nonce(EVM, address(sender));
                let nonce = next.unwrap_or_else(|| self.f.chain.account(address(sender)).unwrap().nonce);
                let tx = Tx { sender, nonce: (nonce + ahead).saturating_sub(2), gas, fee_cap, tip_cap, len };
                self.offer(EVM, &tx.bytes());
            }
            Step::Opaque { other, id, len } => {
                self.offer(if other { OTHER_OPAQUE } else { OPAQUE }, &opaque(id, len));
            }
            Step::Block { bytes, transactions, foreign } => {
                self.block(Budget { bytes, transactions, segments: 2 }, foreign);
            }
            Step::Finalise => self.finalise(),
            Step::Execute => self.execute(),
            Step::Fund { sender, balance } => {
                let nonce = self.f.chain.account(address(sender)).unwrap().nonce;
                self.f.chain.set_account(sender, nonce, balance);
                let height = self.height - self.unexecuted.len() as u64;
                self.f.pool.on_executed(EVM, height, [address(sender)]);
            }
            Step::BaseFee(fee) => *self.f.chain.base_fee.lock() = fee,
            Step::Pass { seconds } => {
                self.seconds += seconds;
                self.f.pool.expire(self.f.at(self.seconds));
            }
        }
        self.f.pool.assert_consistent();
        self.nothing_is_lost();
    }

    /// Each accepted transaction waits, is final, or was dropped for a reason that is told; never two of these.
    fn nothing_is_lost(&self) {
        for key in self.accepted.keys() {
            let waits = self.f.pool.get(key).is_some();
            let dropped = self.f.pool.drop_reason(key).is_some();
            let is_final = self.in_log.contains(key);
            assert_eq!([waits, dropped, is_final].iter().filter(|state| **state).count(), 1, "{key:?}");
        }
    }

    /// Lets everything in flight become final and executed, and then makes blocks until nothing is selected.
    fn drain(&mut self) {
        *self.f.chain.base_fee.lock() = 0;
        for _ in 0..200 {
            while !self.in_flight.is_empty() {
                self.finalise();
            }
            while !self.unexecuted.is_empty() {
                self.execute();
            }
            self.f.pool.assert_consistent();
            self.nothing_is_lost();
            if self.f.select(&[]).is_empty() {
                return;
            }
            self.block(Budget { bytes: 2000, transactions: 100, segments: 3 }, None);
        }
        panic!("blocks without end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn in_any_history_bounds_hold_and_nothing_is_lost_or_selected_twice(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        world.drain();
        // What still waits could not have been selected: it is behind a nonce gap.
        for key in world.accepted.keys() {
            if let Some(payload) = world.f.pool.get(key) {
                assert_eq!(key.rollup, EVM);
                let tx = Tx::read(&payload).unwrap();
                let next = world.f.pool.pending_nonce(EVM, address(tx.sender)).unwrap();
                assert!(tx.nonce > next, "{tx:?} waits although it could be included");
                assert_eq!(next, world.f.chain.account(address(tx.sender)).unwrap().nonce);
            }
        }
        // And in the end nothing is left without a word.
        world.seconds += 1000;
        world.f.pool.expire(world.f.at(world.seconds));
        world.nothing_is_lost();
        assert_eq!(world.f.pool.usage().transactions, 0);
    }
}
