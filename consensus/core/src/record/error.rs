//! Why a record is refused.

use crate::{SeatError, keys::KeyError};
use alloy_primitives::FixedBytes;
use switchyard_primitives::{B256, DecodeError};

/// Why a record is refused. A block that holds such a record is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are not a record.
    #[error("malformed record: {0}")]
    Malformed(#[from] DecodeError),
    /// The block's header says something else of the hub's state than the log does.
    #[error("block {height}: its epoch, system root or next seats are not those that follow from the log")]
    Header {
        /// The block's height.
        height: u64,
    },
    /// More records than a block may hold.
    #[error("{found} records in one block, at most 16")]
    TooMany {
        /// Records found.
        found: usize,
    },
    /// Made for another state: an earlier one (it is in the log already, or another one came first) or a later one.
    #[error("serial {found}, the next one is {expected}")]
    Serial {
        /// The number it must have.
        expected: u64,
        /// The number it has.
        found: u64,
    },
    /// Signed by the validators of an epoch that is neither this one nor the one before.
    #[error("signed by the validators of epoch {found}, the epoch is {current}; sign it anew")]
    Epoch {
        /// The block's epoch.
        current: u64,
        /// The record's.
        found: u64,
    },
    /// No such validator.
    #[error("{identity} is not in the stake table")]
    Unknown {
        /// The identity.
        identity: B256,
    },
    /// A validator that joins is there already.
    #[error("{identity} is in the stake table already")]
    Known {
        /// The identity.
        identity: B256,
    },
    /// The identity is not an ed25519 key.
    #[error("{identity} is not an ed25519 public key")]
    Identity {
        /// The identity.
        identity: B256,
    },
    /// Another validator, or this one, has the BLS key.
    #[error("BLS key {bls} is in the stake table already")]
    KeyTaken {
        /// The key.
        bls: FixedBytes<48>,
    },
    /// The BLS key's proof of possession does not hold.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The table is full.
    #[error("the stake table would have more than 1024 validators")]
    Full,
    /// A validator changes something of itself twice in one block, from protocol 2 on.
    #[error("{identity} changes something of itself twice in one block")]
    Twice {
        /// The validator.
        identity: B256,
    },
    /// Protocol versions follow each other one by one.
    #[error("protocol {found} cannot follow protocol {current}")]
    Protocol {
        /// What the next block follows.
        current: u8,
        /// What was to begin.
        found: u8,
    },
    /// Protocol versions begin with an epoch, and not before the one after next.
    #[error("a protocol version cannot begin at height {found}: at {earliest} or later, at a multiple of {blocks}")]
    ActivationHeight {
        /// The first height that is possible.
        earliest: u64,
        /// Blocks of an epoch.
        blocks: u64,
        /// The height named.
        found: u64,
    },
    /// No upgrade is decided that could be withdrawn, or a height is named where none is needed.
    #[error("protocol {protocol} is in force: with height 0 that withdraws an upgrade, and there is none")]
    NothingToWithdraw {
        /// What the next block follows.
        protocol: u8,
    },
    /// No validator with stake would be left.
    #[error("no validator with stake would be left")]
    NobodyLeft,
    /// Signed by validators with too few seats.
    #[error("signed by validators with {found} seats, {quorum} are needed")]
    Quorum {
        /// Seats needed.
        quorum: usize,
        /// Seats of the signers.
        found: usize,
    },
    /// The signature is not that of the named signers over this record.
    #[error("the signature does not verify")]
    Signature,
    /// No seats follow from the table.
    #[error(transparent)]
    Seats(#[from] SeatError),
}

impl RecordError {
    /// Whether waiting may help: the record is in order, but not for the present state.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Serial { expected, found } => found > expected,
            Self::Twice { .. } => true,
            _ => false,
        }
    }
}
