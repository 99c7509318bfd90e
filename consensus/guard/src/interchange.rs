//! A record on its way from one machine to another, as JSON.

use crate::{
    GuardError, Key,
    statement::{Family, Kind, Position},
};
use serde::{Deserialize, Serialize};
use switchyard_primitives::{B256, Bytes};

/// Version of the interchange format.
pub const FORMAT: u32 = 1;

/// What a key has signed, and below which slots that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interchange {
    /// [`FORMAT`].
    pub format: u32,
    /// The network's id.
    pub network: B256,
    /// The key, compressed G1, 48 bytes.
    pub key: Bytes,
    /// The low-water marks.
    pub low_water: Vec<Mark>,
    /// What was signed at and above them.
    pub signed: Vec<Entry>,
}

/// The lowest slot of a family and scope that may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The family.
    pub family: Family,
    /// The rollup of checkpoints; 0 for votes.
    pub scope: u64,
    /// The slot; none where no slot may be signed any more.
    pub low: Option<Position>,
}

/// One signature that was made, or was about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Of which kind.
    pub kind: Kind,
    /// The rollup of a checkpoint; 0 for votes.
    pub scope: u64,
    /// About which slot.
    pub position: Position,
    /// Hash of what was signed.
    pub digest: B256,
}

impl Interchange {
    pub(crate) fn new(network: B256, key: Bytes, low_water: Vec<Mark>, signed: Vec<Entry>) -> Self {
        Self { format: FORMAT, network, key, low_water, signed }
    }

    /// Whether this is an export of the key's record on the network, in a format that this version reads: to be asked before
    /// a record is begun for it.
    ///
    /// # Errors
    /// [`GuardError::Import`], which says what differs.
    pub fn check(&self, network: B256, key: &Key) -> Result<(), GuardError> {
        let refuse = |field, found: String, expected: String| Err(GuardError::Import { field, found, expected });
        if self.format != FORMAT {
            return refuse("format", self.format.to_string(), FORMAT.to_string());
        }
        if self.network != network {
            return refuse("network", self.network.to_string(), network.to_string());
        }
        if self.key.as_ref() != key {
            return refuse("key", self.key.to_string(), Bytes::from(*key).to_string());
        }
        Ok(())
    }
}
