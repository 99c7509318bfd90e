//! Why a bundle does not wait for its block.

use crate::Rejection;
use alloy_primitives::B256;
use switchyard_primitives::TxHash;

/// Why a bundle is refused, or was dropped after it had been accepted and before its legs were in the log: it has left
/// nothing behind. [`BundleRefusal::code`] is the stable word that gRPC details and the shell use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleRefusal {
    /// The network does not have bundles yet.
    #[error("this network has no bundles before protocol 3")]
    Protocol,
    /// What it says cannot be.
    #[error("malformed bundle: {0}")]
    Malformed(String),
    /// A leg's transaction cannot be included.
    #[error("leg {leg}: {reason}")]
    Leg {
        /// Its index.
        leg: usize,
        /// Why.
        reason: Rejection,
    },
    /// A transaction with a leg's sender and nonce waits already.
    #[error("leg {leg}: {by} waits with the same nonce")]
    NonceTaken {
        /// The leg's index.
        leg: usize,
        /// What waits.
        by: TxHash,
    },
    /// It waits already with another transaction of a leg, which this one does not replace.
    #[error(
        "leg {leg}: {by} waits in its place, and gives way only to a transaction of the same account and nonce whose fee cap and \
         tip are a tenth higher"
    )]
    NotReplaced {
        /// The leg's index.
        leg: usize,
        /// What waits.
        by: TxHash,
    },
    /// A leg is in the log without the others.
    #[error("leg {leg} was sent alone: it is in block {height}")]
    SentAlone {
        /// Its index.
        leg: usize,
        /// The hub block that holds it.
        height: u64,
    },
    /// The hub's state does not allow it in the next block, nor in a later one.
    #[error("{0}")]
    Hub(String),
    /// Its deadline has come before its block.
    #[error("not included before its deadline, block {deadline}")]
    Overdue {
        /// The height of its deadline.
        deadline: u64,
    },
    /// Waits already, or is in the log.
    #[error("already known: {0}")]
    Known(B256),
    /// As many bundles wait as may.
    #[error("as many bundles wait as may: {0}")]
    Full(&'static str),
    /// It has a leg behind a nonce gap, and gave way to one that has none.
    #[error("gave way to a bundle that can go into a block now: what comes before one of its legs is missing")]
    Displaced,
    /// Validators with too few seats have confirmed that they hold it; it may still be included.
    #[error("not replicated: validators with {held} of {need} seats hold it")]
    NotReplicated {
        /// Seats of the validators that hold it.
        held: usize,
        /// Seats that must.
        need: usize,
    },
    /// The node is stopping or behind.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// A validator's reason, as it gave it to this node.
    #[error("{message}")]
    PassedOn {
        /// Its word.
        code: &'static str,
        /// The reason with its values.
        message: String,
    },
}

impl BundleRefusal {
    /// Words of [`Self::code`] that are not those of a leg.
    const CODES: [&'static str; 13] = [
        "protocol",
        "malformed",
        "nonce_taken",
        "not_replaced",
        "sent_alone",
        "hub",
        "overdue",
        "already_known",
        "bundles_full",
        "displaced",
        "not_replicated",
        "unavailable",
        "leg",
    ];

    /// What a validator has answered to this node. A word that this version does not know becomes `unavailable`.
    pub fn passed_on(code: &str, message: String) -> Self {
        let known = Self::CODES.into_iter().find(|known| *known == code);
        Self::PassedOn { code: known.unwrap_or("unavailable"), message }
    }

    /// Whether the bundle's bytes alone are the reason: none that holds to the rules passes it on.
    pub fn is_of_the_bytes(&self) -> bool {
        match self {
            Self::Malformed(_) => true,
            Self::Leg { reason, .. } => reason.is_of_the_bytes(),
            _ => false,
        }
    }

    /// Whether it may come into the log all the same. By the word: a follower passes on a validator's.
    pub fn may_still_happen(&self) -> bool {
        matches!(self.code(), "not_replaced" | "already_known" | "not_replicated" | "unavailable")
    }

    /// A stable snake_case word for this reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Malformed(_) => "malformed",
            Self::Leg { .. } => "leg",
            Self::NonceTaken { .. } => "nonce_taken",
            Self::NotReplaced { .. } => "not_replaced",
            Self::SentAlone { .. } => "sent_alone",
            Self::Hub(_) => "hub",
            Self::Overdue { .. } => "overdue",
            Self::Known(_) => "already_known",
            Self::Full(_) => "bundles_full",
            Self::Displaced => "displaced",
            Self::NotReplicated { .. } => "not_replicated",
            Self::Unavailable(_) => "unavailable",
            Self::PassedOn { code, .. } => code,
        }
    }
}
