//! What goes into the mempool and what comes out.

use crate::bundles::Leg;
use alloy_primitives::B256;
use std::{sync::Arc, time::Duration};
use switchyard_bridge_core::{BundleRecord, SignedBundle};
use switchyard_primitives::{Bytes, Limits, RollupId, Segment, TxHash, TxKey, keccak256};
use switchyard_rollup_core::Sequenced;

/// Bounds. Bytes are those of the transactions themselves; count on about a kilobyte of memory more for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Bytes over all rollups.
    pub bytes: usize,
    /// Transactions over all rollups.
    pub transactions: usize,
    /// Bytes of one rollup.
    pub rollup_bytes: usize,
    /// Transactions of one rollup.
    pub rollup_transactions: usize,
    /// Transactions of one sender, and how far above the account's nonce a nonce may be.
    pub sender_transactions: usize,
    /// How long a transaction may wait.
    pub ttl: Duration,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            transactions: 100_000,
            rollup_bytes: 32 << 20,
            rollup_transactions: 50_000,
            sender_transactions: 1024,
            ttl: Duration::from_secs(3600),
        }
    }
}

/// Where a transaction came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A user of this node.
    Local,
    /// Another validator.
    Gossip,
    /// A user of this follower, and a validator has accepted it: what this node's own state, which may be behind, has against it is
    /// no reason to call it refused.
    Forwarded,
}

/// A transaction that passed every check that needs no state. Made by [`crate::Mempool::check`].
#[derive(Clone, Debug)]
pub struct Checked {
    pub(crate) key: TxKey,
    pub(crate) payload: Bytes,
    pub(crate) sequenced: Option<Sequenced>,
}

impl Checked {
    /// Its identity.
    pub fn key(&self) -> TxKey {
        self.key
    }

    /// Its bytes, in an allocation of their own.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }
}

/// A transaction that waits from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its identity.
    pub key: TxKey,
    /// The sender's transaction with the same nonce that it took the place of.
    pub replaced: Option<TxHash>,
}

/// A bundle that passed every check that needs no state. Made by [`crate::Mempool::check_bundle`].
#[derive(Clone, Debug)]
pub struct CheckedBundle {
    pub(crate) id: B256,
    pub(crate) record: BundleRecord,
    pub(crate) record_len: usize,
    pub(crate) bundle: Arc<SignedBundle>,
    pub(crate) legs: Vec<Leg>,
}

impl CheckedBundle {
    /// Its id.
    pub fn id(&self) -> B256 {
        self.id
    }

    /// What the log will have of it.
    pub fn record(&self) -> &BundleRecord {
        &self.record
    }
}

/// What one block may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Encoded body, in bytes.
    pub bytes: usize,
    /// Transactions over all segments.
    pub transactions: usize,
    /// Segments.
    pub segments: usize,
}

impl From<&Limits> for Budget {
    fn from(limits: &Limits) -> Self {
        Self { bytes: limits.body_bytes, transactions: limits.transactions, segments: limits.segments }
    }
}

/// One rollup's part of a block to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its transactions.
    pub segment: Segment,
    /// The transactions' hashes, in order.
    pub hashes: Vec<TxHash>,
}

/// A block to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Segments, sorted by rollup id, none empty.
    pub segments: Vec<Selected>,
    /// Bundles of which these hold all legs: each needs its record in the block.
    pub bundles: Vec<BundleRecord>,
}

/// What a final block holds for one rollup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    /// The rollup.
    pub rollup: RollupId,
    /// The segment's length in bytes.
    pub bytes: usize,
    /// The transactions' hashes, in order.
    pub hashes: Vec<TxHash>,
}

impl Included {
    /// A segment whose transactions' hashes are known.
    pub fn new(segment: &Segment, hashes: Vec<TxHash>) -> Self {
        Self { rollup: segment.rollup, bytes: segment.encoded_len(), hashes }
    }
}

impl From<&Segment> for Included {
    /// Hashes every transaction: not on an async thread for a full block.
    fn from(segment: &Segment) -> Self {
        let hashes = segment.transactions.iter().map(keccak256).collect();
        Self::new(segment, hashes)
    }
}

/// A transaction that waits, to be passed on again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Counts up with each accepted transaction: where to go on from.
    pub arrival: u64,
    /// Its identity.
    pub key: TxKey,
    /// Its bytes.
    pub payload: Bytes,
    /// Where it came from.
    pub origin: Origin,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Transactions.
    pub transactions: usize,
    /// Their bytes.
    pub bytes: usize,
}
