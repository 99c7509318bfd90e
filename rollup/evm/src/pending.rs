//! Final transactions that wait for their rollup block.
//!
//! With a block for each hub block nothing waits any more when the hub block has been applied. With one-second sealing all
//! that came since the last closed block waits, whether the open block has taken it or it does not fit, and it is in the
//! database as well: in hub blocks, of which the first may be used up in part. From that the open block is made again
//! after a restart.

use crate::{
    records::{LegRecord, PendingRecord, corrupt, decode},
    senders::Senders,
    store::{Column, StateError, Store},
    votes::Leg,
};
use alloy::{
    consensus::{Transaction, TxEnvelope, transaction::Recovered},
    eips::Encodable2718,
};
use alloy_primitives::B256;
use std::{collections::VecDeque, ops::AddAssign};
use switchyard_primitives::TxHash;
use switchyard_rollup_core::SegmentInput;

/// More than this many blocks' worth of gas must not wait: then blocks are closed ahead of the hub's clock and, where that
/// may run no further ahead, what comes is skipped. Part of the derivation rules.
pub(crate) const WAITING_BLOCKS_MAX: u128 = 8;
/// Nor more bytes of calldata than this.
pub(crate) const WAITING_BYTES_MAX: usize = 16 << 20;

/// While more than this many blocks' worth of gas waits, honest leaders add nothing: the next block's worth is there, and the
/// other half of the bound is for what they order before they see that. No part of the derivation rules.
const ROOM_BLOCKS: u128 = WAITING_BLOCKS_MAX / 2;
/// Nor while more bytes of calldata wait than this.
const ROOM_BYTES: usize = WAITING_BYTES_MAX / 2;

/// What is limited of that which waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Sum of gas limits; of what was executed, of the gas that it has used.
    gas: u128,
    /// Of calldata.
    bytes: usize,
}

impl Weight {
    pub(crate) fn of(tx: &Recovered<TxEnvelope>) -> Self {
        Self { gas: tx.gas_limit().into(), bytes: tx.input().len() }
    }

    /// Of a transaction that the open block has executed: what it asked for and did not need is there for others.
    pub(crate) fn executed(tx: &Recovered<TxEnvelope>, gas_used: u64) -> Self {
        Self { gas: gas_used.into(), bytes: tx.input().len() }
    }

    /// More than may wait: see [`WAITING_BLOCKS_MAX`].
    pub(crate) fn is_too_much(self, block_gas_limit: u64) -> bool {
        self.gas > WAITING_BLOCKS_MAX * u128::from(block_gas_limit) || self.bytes > WAITING_BYTES_MAX
    }

    /// So little that honest leaders add to it: see [`ROOM_BLOCKS`].
    pub(crate) fn has_room(self, block_gas_limit: u64) -> bool {
        self.gas <= ROOM_BLOCKS * u128::from(block_gas_limit) && self.bytes <= ROOM_BYTES
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Self) {
        self.gas += other.gas;
        self.bytes += other.bytes;
    }
}

/// What a rollup block that a hub block opens takes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HubBlock {
    pub(crate) height: u64,
    pub(crate) hash: B256,
    pub(crate) timestamp_ms: u64,
    /// Of the hub's accumulator after it.
    pub(crate) root: B256,
}

impl From<&SegmentInput> for HubBlock {
    fn from(input: &SegmentInput) -> Self {
        let SegmentInput { hub_height, hub_hash, timestamp_ms, hub_root, .. } = *input;
        Self { height: hub_height, hash: hub_hash, timestamp_ms, root: hub_root }
    }
}

/// What of a hub block is to be executed.
#[derive(Default)]
pub(crate) struct Fresh {
    pub(crate) transactions: Vec<Recovered<TxEnvelope>>,
    /// The legs among them, by position, ascending.
    pub(crate) legs: Vec<(usize, Leg)>,
}

impl Fresh {
    /// As the database keeps it.
    pub(crate) fn record(&self, hub: HubBlock) -> PendingRecord {
        let leg = |(index, leg): &(usize, Leg)| {
            let Leg { place, bundle, leg, .. } = *leg;
            LegRecord { index: *index as u64, place, bundle, leg }
        };
        PendingRecord {
            hub_hash: hub.hash,
            timestamp_ms: hub.timestamp_ms,
            transactions: self.transactions.iter().map(|tx| tx.encoded_2718().into()).collect(),
            hub_root: Some(hub.root),
            legs: Some(self.legs.iter().map(leg).collect()),
        }
    }

    fn read(senders: &Senders, key: &[u8], value: &[u8]) -> Result<(HubBlock, Self), StateError> {
        let height = <[u8; 8]>::try_from(key).map_err(|e| corrupt(Column::Pending, key, e))?;
        let height = u64::from_be_bytes(height);
        let record: PendingRecord = decode(Column::Pending, key, value)?;
        let recovered = senders.recover_all(&record.transactions).into_iter().map(|(_, tx)| tx);
        let recovered: Result<Vec<_>, _> = recovered.collect();
        let transactions = recovered.map_err(|e| corrupt(Column::Pending, key, e))?;
        let leg = |LegRecord { index, place, bundle, leg }| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            (index, Leg { hub_height: height, place, bundle, leg })
        };
        let legs = record.legs.unwrap_or_default().into_iter().map(leg).collect();
        let root = record.hub_root.unwrap_or_default();
        let hub = HubBlock { height, hash: record.hub_hash, timestamp_ms: record.timestamp_ms, root };
        Ok((hub, Self { transactions, legs }))
    }
}

/// A hub block of which something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) hub: HubBlock,
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
    /// Number of transactions that were ever put into the queue and not turned away.
    pushed: u64,
    /// The legs in the queue, each with the number of transactions that were put into it before the leg's own.
    legs: VecDeque<(u64, Leg)>,
    sources: VecDeque<Source>,
}

impl Pending {
    /// Reads the queue that the database holds; `taken` of the first hub block's transactions are used up.
    pub(crate) fn load(store: &Store, senders: &Senders, taken: u64) -> Result<Self, StateError> {
        let mut pending = Self::default();
        for (key, value) in store.scan(Column::Pending)? {
            let (hub, fresh) = Fresh::read(senders, &key, &value)?;
            pending.push(hub, fresh);
        }
        let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(pending.sources.front().map_or(0, |s| s.left));
        pending.queue.drain(..taken);
        // Their votes are cast.
        pending.take_legs();
        pending.used();
        Ok(pending)
    }

    /// Adds a hub block's transactions; nothing if there are none.
    pub(crate) fn push(&mut self, hub: HubBlock, fresh: Fresh) {
        let Fresh { transactions, legs } = fresh;
        if !transactions.is_empty() {
            self.sources.push_back(Source { hub, taken: 0, left: transactions.len() });
            self.legs.extend(legs.into_iter().map(|(index, leg)| (self.pushed + index as u64, leg)));
            self.pushed += transactions.len() as u64;
            self.queue.extend(transactions);
        }
    }

    /// Number of transactions that were ever taken from the front of `queue`.
    pub(crate) fn popped(&self) -> u64 {
        self.pushed - self.queue.len() as u64
    }

    /// The legs whose transactions were taken from the front of `queue` since the last call, each with the number of
    /// transactions that were taken before its own.
    pub(crate) fn take_legs(&mut self) -> Vec<(u64, Leg)> {
        let popped = self.popped();
        let taken = self.legs.iter().take_while(|(before, _)| *before < popped).count();
        self.legs.drain(..taken).collect()
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
                done.push(first.hub.height);
                self.sources.pop_front();
            }
        }
        done
    }

    /// How many of the first hub block's transactions are in closed blocks.
    pub(crate) fn taken(&self) -> u64 {
        self.sources.front().map_or(0, |s| s.taken as u64)
    }

    /// Of all that waits; `taken` is the weight of what the open block has taken.
    pub(crate) fn weight(&self, mut taken: Weight) -> Weight {
        for tx in &self.queue {
            taken += Weight::of(tx);
        }
        taken
    }

    /// How many of the queue may wait beside what the open block has taken: all of earlier hub blocks than `height`, and of
    /// its own what comes before the first that is too much.
    pub(crate) fn fitting(&self, height: u64, mut taken: Weight, block_gas_limit: u64) -> usize {
        let newest = self.sources.back().filter(|source| source.hub.height == height);
        let own = newest.map_or(0, |source| source.left.min(self.queue.len()));
        let earlier = self.queue.len() - own;
        let is_too_much = |(place, tx): (usize, &Recovered<TxEnvelope>)| {
            taken += Weight::of(tx);
            place >= earlier && taken.is_too_much(block_gas_limit)
        };
        self.queue.iter().enumerate().position(is_too_much).unwrap_or(self.queue.len())
    }

    /// Turns away all but the first `len` of the queue. Returns their hashes and the legs among them.
    pub(crate) fn truncate(&mut self, len: usize) -> (Vec<TxHash>, Vec<Leg>) {
        let turned = self.queue.split_off(len.min(self.queue.len()));
        self.pushed -= turned.len() as u64;
        let legs = self.legs.split_off(self.legs.partition_point(|(before, _)| *before < self.pushed));
        let mut count = turned.len();
        while count > 0
            && let Some(newest) = self.sources.back_mut()
        {
            let part = count.min(newest.left);
            newest.left -= part;
            count -= part;
            if newest.left == 0 {
                self.sources.pop_back();
            }
        }
        (turned.iter().map(|tx| *tx.tx_hash()).collect(), legs.into_iter().map(|(_, leg)| leg).collect())
    }

    /// How many of hub block `height`'s transactions were not turned away, if it is the newest and some of them wait.
    pub(crate) fn kept(&self, height: u64) -> Option<usize> {
        let newest = self.sources.back().filter(|source| source.hub.height == height)?;
        Some(newest.taken + newest.left)
    }
}
