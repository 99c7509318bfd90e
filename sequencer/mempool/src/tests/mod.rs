//! Tests against rollups whose state is a table of accounts.

#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod bundles;
mod concurrency;
mod fairness;
mod lifecycle;
mod random;
mod rules;
mod selection;

use crate::{Accepted, Budget, Included, Mempool, MempoolConfig, Origin, Selected, Selection};
use alloy_primitives::{Address, B256, U256};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use switchyard_bridge_core::BundleRecord;
use switchyard_primitives::{Bytes, Limits, RollupId, Segment, TxKey, keccak256};
use switchyard_rollup_core::{Account, Admission, Rejection, Sequenced};

const EVM: RollupId = RollupId(1);
const OTHER_EVM: RollupId = RollupId(2);
const OPAQUE: RollupId = RollupId(7);
const OTHER_OPAQUE: RollupId = RollupId(9);
const RICH: u64 = u64::MAX;

/// A transaction of the test rollups. Its bytes are its fields and a filling up to `len`.
#[derive(Clone, Copy, Debug)]
struct Tx {
    sender: u8,
    nonce: u64,
    gas: u64,
    fee_cap: u64,
    tip_cap: u64,
    len: usize,
}

impl Tx {
    const HEADER: usize = 33;

    fn new(sender: u8, nonce: u64) -> Self {
        Self { sender, nonce, gas: 21, fee_cap: 100, tip_cap: 10, len: 100 }
    }

    fn pays(self, fee_cap: u64, tip_cap: u64) -> Self {
        Self { fee_cap, tip_cap, ..self }
    }

    fn bytes(&self) -> Bytes {
        let mut out = vec![self.sender];
        for field in [self.nonce, self.gas, self.fee_cap, self.tip_cap] {
            out.extend(field.to_be_bytes());
        }
        out.resize(self.len.max(Self::HEADER), 0);
        out.into()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let field = |i: usize| Some(u64::from_be_bytes(bytes.get(1 + 8 * i..9 + 8 * i)?.try_into().ok()?));
        Some(Self {
            sender: *bytes.first()?,
            nonce: field(0)?,
            gas: field(1)?,
            fee_cap: field(2)?,
            tip_cap: field(3)?,
            len: bytes.len(),
        })
    }

    fn max_cost(&self) -> U256 {
        U256::from(self.gas) * U256::from(self.fee_cap)
    }

    fn key(&self, rollup: RollupId) -> TxKey {
        TxKey::of(rollup, &self.bytes())
    }
}

fn address(sender: u8) -> Address {
    Address::with_last_byte(sender)
}

/// A rollup's state. Accounts that are not in the table have nonce 0 and [`RICH`].
#[derive(Default)]
struct Chain {
    accounts: Mutex<HashMap<Address, Account>>,
    base_fee: Mutex<u64>,
    gas_limit: Mutex<Option<u64>>,
    is_unreadable: AtomicBool,
}

impl Chain {
    fn set_account(&self, sender: u8, nonce: u64, balance: u64) {
        self.accounts.lock().insert(address(sender), Account { nonce, balance: U256::from(balance) });
    }

    /// Executes what is valid and skips the rest, as a driver does; returns the senders.
    fn execute(&self, transactions: &[Bytes]) -> Vec<Address> {
        let run = |tx: Tx| {
            let mut account = self.account(address(tx.sender)).unwrap();
            if account.nonce == tx.nonce && account.balance >= tx.max_cost() && tx.fee_cap >= self.base_fee() {
                account.nonce += 1;
                account.balance -= tx.max_cost();
                self.accounts.lock().insert(address(tx.sender), account);
            }
            address(tx.sender)
        };
        transactions.iter().filter_map(|bytes| Tx::read(bytes)).map(run).collect()
    }
}

impl Admission for Chain {
    fn inspect(&self, payload: &Bytes) -> Result<Option<Sequenced>, Rejection> {
        let tx = Tx::read(payload).ok_or_else(|| Rejection::Malformed("too short".into()))?;
        Ok(Some(Sequenced {
            sender: address(tx.sender),
            nonce: tx.nonce,
            gas_limit: tx.gas,
            fee_cap: tx.fee_cap.into(),
            tip_cap: tx.tip_cap.into(),
            max_cost: tx.max_cost(),
        }))
    }

    fn account(&self, sender: Address) -> Option<Account> {
        let rich = Account { nonce: 0, balance: U256::from(RICH) };
        (!self.is_unreadable.load(Ordering::Relaxed))
            .then(|| self.accounts.lock().get(&sender).copied().unwrap_or(rich))
    }

    fn base_fee(&self) -> u64 {
        *self.base_fee.lock()
    }

    fn block_gas_limit(&self) -> u64 {
        self.gas_limit.lock().unwrap_or(u64::MAX)
    }
}

/// A mempool with two EVM rollups and two opaque ones.
struct Fixture {
    pool: Mempool,
    chain: Arc<Chain>,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut MempoolConfig)) -> Self {
        let mut config = MempoolConfig::default();
        change(&mut config);
        let chain = Arc::new(Chain::default());
        let rules = |chain: &Arc<Chain>| Some(Arc::clone(chain) as Arc<dyn Admission>);
        let other = Arc::new(Chain::default());
        let rollups = [(EVM, rules(&chain)), (OTHER_EVM, rules(&other)), (OPAQUE, None), (OTHER_OPAQUE, None)];
        Self { pool: Mempool::new(config, Limits::default(), rollups), chain, start: Instant::now() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn offer(&self, rollup: RollupId, payload: &Bytes) -> Result<Accepted, Rejection> {
        let offered = self.pool.check(rollup, payload).and_then(|c| self.pool.insert(c, Origin::Local, self.start));
        self.pool.assert_consistent();
        offered
    }

    fn add(&self, tx: Tx) -> Result<Accepted, Rejection> {
        self.offer(EVM, &tx.bytes())
    }

    fn add_all(&self, transactions: &[Tx]) {
        transactions.iter().for_each(|tx| {
            self.add(*tx).unwrap();
        });
    }

    fn select(&self, exclude: &[TxKey]) -> Vec<Segment> {
        segments(self.pool.select(Budget::from(&Limits::default()), &exclude.iter().copied().collect(), no_bundles))
    }

    /// Sender and nonce of what is selected for the first EVM rollup.
    fn order(&self, exclude: &[TxKey]) -> Vec<(u8, u64)> {
        let exclude: HashSet<TxKey> = exclude.iter().copied().collect();
        evm_order(&segments(self.pool.select(Budget::from(&Limits::default()), &exclude, no_bundles)))
    }

    fn finalise(&self, height: u64, segments: &[Segment]) {
        self.pool.on_final(height, &segments.iter().map(Included::from).collect::<Vec<_>>());
        self.pool.assert_consistent();
    }

    fn finalise_txs(&self, height: u64, transactions: &[Tx]) -> Vec<Segment> {
        let transactions = transactions.iter().map(Tx::bytes).collect();
        let segments = vec![Segment { rollup: EVM, transactions }];
        self.finalise(height, &segments);
        segments
    }

    /// Executes the first EVM rollup's segment and tells the mempool.
    fn execute(&self, height: u64, segments: &[Segment]) -> usize {
        let transactions = segments.iter().find(|s| s.rollup == EVM).map_or(&[][..], |s| &s.transactions);
        let senders = self.chain.execute(transactions);
        let dropped = self.pool.on_executed(EVM, height, senders);
        self.pool.assert_consistent();
        dropped
    }
}

fn no_bundles(_: &B256, _: &BundleRecord) -> bool {
    panic!("a bundle waits")
}

/// What was selected, with the hashes that it came with found right.
fn segments(selection: Selection) -> Vec<Segment> {
    let checked = selection.segments.into_iter().map(|Selected { segment, hashes }| {
        assert!(segment.transactions.iter().map(keccak256).eq(hashes));
        segment
    });
    checked.collect()
}

fn evm_order(segments: &[Segment]) -> Vec<(u8, u64)> {
    let transactions = segments.iter().filter(|s| s.rollup == EVM).flat_map(|s| &s.transactions);
    transactions.filter_map(|bytes| Tx::read(bytes)).map(|tx| (tx.sender, tx.nonce)).collect()
}

fn opaque(id: u64, len: usize) -> Bytes {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.resize(len.max(8), 1);
    bytes.into()
}
