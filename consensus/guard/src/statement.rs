//! What a signature says, and why it may be refused.

use serde::{Deserialize, Serialize};
use std::fmt;
use switchyard_primitives::B256;

/// Kinds of statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    /// A vote that a proposal is valid.
    Notarize = 1,
    /// A vote to give up a view.
    Nullify = 2,
    /// A vote that a proposal is final.
    Finalize = 3,
    /// An operator's attestation of a rollup's checkpoint.
    Checkpoint = 4,
    /// An operator's challenge of a certified checkpoint.
    Challenge = 5,
    /// A VITAL operator's word on a challenged checkpoint.
    Verdict = 6,
}

/// Kinds that share slots and a low-water mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Votes in consensus; slots are views of epochs.
    Consensus,
    /// Attestations; slots are a rollup's blocks.
    Checkpoints,
    /// Challenges and verdicts; slots are a rollup's blocks.
    Disputes,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Notarize, Self::Nullify, Self::Finalize, Self::Checkpoint, Self::Challenge, Self::Verdict];

    /// The family that the kind belongs to.
    pub const fn family(self) -> Family {
        match self {
            Self::Notarize | Self::Nullify | Self::Finalize => Family::Consensus,
            Self::Checkpoint => Family::Checkpoints,
            Self::Challenge | Self::Verdict => Family::Disputes,
        }
    }

    /// The kind that excludes this one in the same slot: who gives a view up does not call it final.
    pub(crate) const fn excludes(self) -> Option<Self> {
        match self {
            Self::Nullify => Some(Self::Finalize),
            Self::Finalize => Some(Self::Nullify),
            Self::Notarize | Self::Checkpoint | Self::Challenge | Self::Verdict => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notarize => "notarize",
            Self::Nullify => "nullify",
            Self::Finalize => "finalize",
            Self::Checkpoint => "checkpoint",
            Self::Challenge => "challenge",
            Self::Verdict => "verdict",
        })
    }
}

/// Where in its scope a statement belongs; ordered by epoch, then number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The epoch of a vote; else 0.
    pub epoch: u64,
    /// The view of a vote, the block number of a checkpoint or of what is said of it.
    pub number: u64,
}

impl Position {
    /// The one after this; none after the last.
    pub(crate) fn next(self) -> Option<Self> {
        match self.number.checked_add(1) {
            Some(number) => Some(Self { number, ..self }),
            None => Some(Self { epoch: self.epoch.checked_add(1)?, number: 0 }),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.number)
    }
}

/// What a signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Of which kind.
    pub kind: Kind,
    /// The rollup of a checkpoint or of what is said of it; 0 for votes.
    pub scope: u64,
    /// About which slot.
    pub position: Position,
    /// Hash of all that is signed.
    pub digest: B256,
}

/// Why a statement is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Something else was signed for the slot.
    #[error("{kind} {position} of {scope}: {signed} was signed, refused {asked}")]
    Conflict {
        /// The kind of both.
        kind: Kind,
        /// The scope of both.
        scope: u64,
        /// The slot of both.
        position: Position,
        /// What was signed.
        signed: B256,
        /// What was asked for.
        asked: B256,
    },
    /// A statement that excludes this one was signed for the slot.
    #[error("{kind} {position} of {scope}: refused after a {signed}")]
    Excluded {
        /// The kind asked for.
        kind: Kind,
        /// Its scope.
        scope: u64,
        /// Its slot.
        position: Position,
        /// The kind that was signed.
        signed: Kind,
    },
    /// The slot is below the low-water mark: what was signed for it is not known any more.
    #[error("{kind} {position} of {scope}: below the low-water mark {low}")]
    BelowLowWater {
        /// The kind asked for.
        kind: Kind,
        /// Its scope.
        scope: u64,
        /// Its slot.
        position: Position,
        /// The lowest slot that may be signed.
        low: Position,
    },
    /// Every slot has been used up or refused by an import.
    #[error("{kind} of {scope}: no slot is left")]
    Exhausted {
        /// The kind asked for.
        kind: Kind,
        /// Its scope.
        scope: u64,
    },
    /// The record cannot be written, so nothing is signed.
    #[error("the sign record cannot be written: {0}; nothing is signed until the node is started again")]
    Unwritable(String),
}
