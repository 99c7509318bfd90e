//! Final transactions that wait for their rollup block.
//!
//! With a block for each hub block nothing waits any more when the hub block has been applied. With one-second sealing all
//! that came since the last closed block waits, whether the open block has taken it or it does not fit, and it is in the
//! database as well: in hub blocks, of which the first may be used up in part. From that the open block is made again
//! after a restart.

use crate::{
    records::{PendingRecord, corrupt, decode},
    senders::Senders,
    store::{Column, StateError, Store},
};
use alloy::consensus::{Transaction, TxEnvelope, transaction::Recovered};
use alloy_primitives::B256;
use std::{collections::VecDeque, ops::AddAssign};

/// More than this many blocks' worth of gas must not wait: then blocks are closed ahead of the hub's clock. Part of the
/// derivation rules.
const WAITING_BLOCKS_MAX: u128 = 8;
/// Nor more bytes of calldata than this.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// What is limited of that which waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Sum of gas limits.
    gas: u128,
    /// Of calldata.
    bytes: usize,
}

impl Weight {
    pub(crate) fn of(tx: &Recovered<TxEnvelope>) -> Self {
        Self { gas: tx.gas_limit().into(), bytes: tx.input().len() }
    }

    /// More than may wait: see [`WAITING_BLOCKS_MAX`].
    fn is_too_much(self, block_gas_limit: u64) -> bool {
        self.gas > WAITING_BLOCKS_MAX * u128::from(block_gas_limit) || self.bytes > WAITING_BYTES_MAX
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Self) {
        self.gas += other.gas;
        self.bytes += other.bytes;
    }
}

/// A hub block of which something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) hub_height: u64,
    pub(crate) hub_hash: B256,
    pub(crate) timestamp_ms: u64,
    /// Its transactions that are in closed blocks, or skipped with them.
    taken: usize,
    /// Its transactions that wait.
    left: usize,
}

/// The queue.
#[derive(Default)]
pub(crate) struct Pending {
    /// What the open block has not taken, in the log's order. Taken from the front only.
    pub(crate) queue: VecDeque<Recovered<TxEnvelope>>,
    sources: VecDeque<Source>,
}

impl Pending {
    /// Reads the queue that the database holds; `taken` of the first hub block's transactions are used up.
    pub(crate) fn load(store: &Store, senders: &Senders, taken: u64) -> Result<Self, StateError> {
        let mut pending = Self::default();
        for (key, value) in store.scan(Column::Pending)? {
            let height = <[u8; 8]>::try_from(&*key).map_err(|e| corrupt(Column::Pending, &key, e))?;
            let record: PendingRecord = decode(Column::Pending, &key, &value)?;
            let recovered = senders.recover_all(&record.transactions).into_iter().map(|(_, tx)| tx);
            let recovered: Result<Vec<_>, _> = recovered.collect();
            let transactions = recovered.map_err(|e| corrupt(Column::Pending, &key, e))?;
            pending.push(u64::from_be_bytes(height), record.hub_hash, record.timestamp_ms, transactions);
        }
        let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(pending.sources.front().map_or(0, |s| s.left));
        pending.queue.drain(..taken);
        pending.used();
        Ok(pending)
    }

    /// Adds a hub block's transactions; nothing if there are none.
    pub(crate) fn push(
        &mut self,
        hub_height: u64,
        hub_hash: B256,
        timestamp_ms: u64,
        transactions: Vec<Recovered<TxEnvelope>>,
    ) {
        if !transactions.is_empty() {
            self.sources.push_back(Source { hub_height, hub_hash, timestamp_ms, taken: 0, left: transactions.len() });
            self.queue.extend(transactions);
        }
    }

    /// The oldest hub block of which something waits.
    pub(crate) fn oldest(&self) -> Option<Source> {
        self.sources.front().copied()
    }

    /// The newest hub block of which something waits.
    pub(crate) fn newest(&self) -> Option<Source> {
        self.sources.back().copied()
    }

    /// The oldest hub block of which the open block has not taken everything.
    pub(crate) fn oldest_left(&self) -> Option<Source> {
        let mut taken = self.taken_by_open_block();
        for source in &self.sources {
            if taken < source.left {
                return Some(*source);
            }
            taken -= source.left;
        }
        None
    }

    fn taken_by_open_block(&self) -> usize {
        self.sources.iter().map(|s| s.left).sum::<usize>() - self.queue.len()
    }

    /// What was taken from the front of `queue` waits no longer: its block is closed. Returns the hub blocks that are
    /// used up.
    pub(crate) fn used(&mut self) -> Vec<u64> {
        let mut taken = self.taken_by_open_block();
        let mut done = Vec::new();
        while taken > 0
            && let Some(first) = self.sources.front_mut()
        {
            let part = taken.min(first.left);
            first.left -= part;
            first.taken += part;
            taken -= part;
            if first.left == 0 {
                done.push(first.hub_height);
                self.sources.pop_front();
            }
        }
        done
    }

    /// How many of the first hub block's transactions are in closed blocks.
    pub(crate) fn taken(&self) -> u64 {
        self.sources.front().map_or(0, |s| s.taken as u64)
    }

    /// More waits than may, what the open block has taken included.
    pub(crate) fn is_overfull(&self, mut taken: Weight, block_gas_limit: u64) -> bool {
        for tx in &self.queue {
            taken += Weight::of(tx);
        }
        taken.is_too_much(block_gas_limit)
    }
}
