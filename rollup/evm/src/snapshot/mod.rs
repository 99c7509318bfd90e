//! A rollup's state after one block in a file: what a new node starts from instead of deriving everything.
//!
//! The file says nothing that its reader must believe: headers, code, state and receipts are all under the hash of the one
//! block, which the reader gets elsewhere. The hub block to go on with is in that header too (`docs/specs/snapshot.md`).

mod format;
mod restore;
mod write;

pub use restore::{inspect, restore};
pub(crate) use write::write;

use crate::{genesis::GenesisError, store::StateError};
use alloy_primitives::B256;
use std::{io, path::PathBuf};

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The rollup block's number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Its state root.
    pub state_root: B256,
    /// The hub block with which derivation goes on.
    pub next_hub_height: u64,
    /// Accounts of the state.
    pub accounts: u64,
    /// Slots of the state.
    pub slots: u64,
}

/// Why a snapshot cannot be made or is refused.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Transactions, votes or deposits of the newest block's hub block still wait, so the state after it is not all that there is.
    #[error(
        "transactions, votes or deposits of a hub block wait that is partly in block {number}: try again a second later"
    )]
    Waiting {
        /// The newest block.
        number: u64,
    },
    /// Not a snapshot, or not one of this version.
    #[error("not a snapshot that this version reads: {0}")]
    Format(&'static str),
    /// A field that no true snapshot has.
    #[error("the snapshot is damaged or forged: {0}")]
    Invalid(String),
    /// Of another rollup, or of another genesis of this one.
    #[error("the snapshot is of another rollup: its {what} is {found}, not {expected}")]
    OtherRollup {
        /// What differs.
        what: &'static str,
        /// The snapshot's.
        found: String,
        /// The configuration's.
        expected: String,
    },
    /// Of another block than the trusted one.
    #[error("the snapshot is of block {found}, not of the trusted {expected}")]
    OtherBlock {
        /// The trusted block.
        expected: B256,
        /// The snapshot's.
        found: B256,
    },
    /// Its accounts and slots are not the state of its block.
    #[error("the snapshot's state has root {found}, its block has {expected}: do not use it")]
    StateRoot {
        /// The block's.
        expected: B256,
        /// What the accounts and slots give.
        found: B256,
    },
    /// There is a state already.
    #[error("{path} exists: a snapshot is restored only where the rollup has no state; move it away first")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The rollup's genesis is refused.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The database failed.
    #[error("rollup state: {0}")]
    Storage(String),
}

impl From<StateError> for SnapshotError {
    fn from(error: StateError) -> Self {
        Self::Storage(error.to_string())
    }
}
