//! From final segments to rollup blocks.

use alloy_primitives::Address;
use switchyard_bridge_core::{Checkpoint, Deposit};
use switchyard_primitives::{B256, Bytes, TxHash};

/// What a rollup gets from one final hub block. A driver sees every hub block in order, those without a segment too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInput {
    /// The hub block's height.
    pub hub_height: u64,
    /// Its hash.
    pub hub_hash: B256,
    /// Its timestamp in milliseconds.
    pub timestamp_ms: u64,
    /// Root of the hub's accumulator after this block; zero before protocol version 3.
    pub hub_root: B256,
    /// The rollup's transactions, empty where the block has none.
    pub transactions: Vec<Bytes>,
    /// The legs of bundles among them, in the log's order.
    pub legs: Vec<LegAt>,
    /// Coin that the block gives to the rollup's accounts, each with its number, ascending.
    pub deposits: Vec<(u64, Deposit)>,
}

/// A transaction of a segment that is a leg of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LegAt {
    /// The bundle's id.
    pub bundle: B256,
    /// The leg's index in it.
    pub leg: u8,
    /// Hash of the leg's transaction. Where the segment has it more than once, the first one is meant.
    pub tx: TxHash,
}

/// What became of one transaction of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxOutcome {
    /// Executed in a rollup block.
    Executed {
        /// The rollup block's number.
        block: u64,
        /// Position in it.
        index: u32,
        /// False where execution reverted or halted.
        success: bool,
    },
    /// Not executed, and it never will be by this inclusion.
    Skipped {
        /// Why, for its sender to read.
        reason: String,
    },
}

/// What one hub block did to a rollup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// A checkpoint for each rollup block that was closed.
    pub checkpoints: Vec<Checkpoint>,
    /// The outcome of each transaction that is now decided, in the log's order. With one-second sealing that is before its
    /// block is closed, and only of what does not fit into the open block later than its own hub block.
    pub outcomes: Vec<(TxHash, TxOutcome)>,
    /// Senders of what was executed, with repetitions: whose accounts may be others now.
    pub senders: Vec<Address>,
    /// The hub height up to which everything has been executed or skipped: behind the applied one where transactions do
    /// not fit into the open block and wait for the next.
    pub executed_to: u64,
}

/// Why a driver cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Not the next hub block.
    #[error("expected hub block {expected}, got {found}")]
    OutOfOrder {
        /// The next height.
        expected: u64,
        /// The height offered.
        found: u64,
    },
    /// The state database failed or holds what it should not.
    #[error("rollup state: {0}")]
    Storage(String),
}

/// A power cut takes a driver's state back by at most this many hub blocks.
pub const UNSYNCED_HUB_BLOCKS_MAX: u64 = 64;

/// Runs one rollup. Pure with respect to the log: the same inputs in order give the same blocks on every node. Each
/// call is atomic: after a crash, `next_hub_height` says where to go on.
pub trait Driver: Send + 'static {
    /// The height of the first hub block that has not been applied.
    fn next_hub_height(&self) -> u64;

    /// Applies one hub block. Blocking.
    fn apply(&mut self, input: &SegmentInput) -> Result<Applied, DriverError>;
}
