//! Identifiers and the five finality levels.

use crate::B256;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// keccak-256 of a transaction's bytes. For an EVM rollup this is the Ethereum transaction hash.
pub type TxHash = B256;

/// One application chain. Id 0 is the system rollup: the hub's own records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RollupId(pub u64);

impl RollupId {
    /// The system rollup, which nobody but the hub itself writes to.
    pub const SYSTEM: Self = Self(0);
}

impl fmt::Display for RollupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RollupId {
    type Err = std::num::ParseIntError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

/// A transaction's identity: the same bytes sent to two rollups are two transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxKey {
    /// The rollup the transaction is for.
    pub rollup: RollupId,
    /// keccak-256 of its bytes.
    pub hash: TxHash,
}

impl TxKey {
    /// The key of `payload` on `rollup`.
    pub fn of(rollup: RollupId, payload: &[u8]) -> Self {
        Self { rollup, hash: crate::keccak256(payload) }
    }
}

/// How far a transaction or block has come. Each level implies those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A quorum of validators holds the transaction.
    Accepted,
    /// A leader's block holds it.
    Ordered,
    /// The block has a finality certificate.
    Final,
    /// The rollup's checkpoint has a certificate of a stake quorum of operators.
    Attested,
    /// The checkpoint is final on the settlement chain.
    Settled,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Ordered => "ordered",
            Self::Final => "final",
            Self::Attested => "attested",
            Self::Settled => "settled",
        })
    }
}
