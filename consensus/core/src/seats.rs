//! Seats: the equal votes of an epoch.

use blst::min_pk::PublicKey;
use serde::{Deserialize, Serialize};
use switchyard_primitives::{B256, Writer, keccak256};

/// One equal vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// The validator's ed25519 key: its identity on the network.
    pub identity: B256,
    /// Its BLS12-381 key, compressed G1, 48 bytes: what its votes are signed with.
    pub bls: alloy_primitives::FixedBytes<48>,
}

/// Why a list of seats is not a seat set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// No seats, or more than a certificate can speak of.
    #[error("{0} seats: must be between 1 and 4096")]
    Count(usize),
    /// Two seats with one identity.
    #[error("identity {0} appears twice")]
    DuplicateIdentity(B256),
    /// Two seats with one BLS key.
    #[error("BLS key {0} appears twice")]
    DuplicateBls(alloy_primitives::FixedBytes<48>),
    /// Not a point of the right subgroup, or the point at infinity.
    #[error("BLS key {0} is not a valid public key")]
    InvalidBls(alloy_primitives::FixedBytes<48>),
}

/// The seats of one epoch, in ascending order of identity. A seat's index is its position here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatSet {
    seats: Vec<Seat>,
    // Decompressed once, since certificates are checked far more often than seats change.
    keys: Vec<PublicKey>,
}

impl SeatSet {
    /// Sorts and checks the seats, BLS subgroup checks included. Proofs of possession are checked at registration.
    pub fn new(mut seats: Vec<Seat>) -> Result<Self, SeatError> {
        if seats.is_empty() || seats.len() > switchyard_primitives::SignerBitmap::MAX_SEATS {
            return Err(SeatError::Count(seats.len()));
        }
        seats.sort_by_key(|s| s.identity);
        let mut seen = std::collections::HashSet::new();
        let mut keys = Vec::with_capacity(seats.len());
        if let Some([twice, _]) = seats.array_windows().find(|[a, b]| a.identity == b.identity) {
            return Err(SeatError::DuplicateIdentity(twice.identity));
        }
        for seat in &seats {
            if !seen.insert(seat.bls) {
                return Err(SeatError::DuplicateBls(seat.bls));
            }
            keys.push(PublicKey::key_validate(seat.bls.as_slice()).map_err(|_| SeatError::InvalidBls(seat.bls))?);
        }
        Ok(Self { seats, keys })
    }

    /// The seats in order.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The seats' BLS keys in order, checked to be in the subgroup.
    pub(crate) fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Signatures that a certificate needs: `n - f` with `f = (n - 1) / 3`, which is more than two thirds.
    pub fn quorum(&self) -> usize {
        self.seats.len() - (self.seats.len() - 1) / 3
    }

    /// The index of the seat with this identity.
    pub fn index_of(&self, identity: &B256) -> Option<u32> {
        self.seats.binary_search_by_key(identity, |s| s.identity).ok().and_then(|i| u32::try_from(i).ok())
    }

    /// keccak-256 of `count u32 | (identity 32 | bls 48)*`.
    pub fn hash(&self) -> B256 {
        let mut w = Writer::with_capacity(4 + self.seats.len() * 80);
        w.count(self.seats.len());
        for seat in &self.seats {
            w.raw(seat.identity.as_slice());
            w.raw(seat.bls.as_slice());
        }
        keccak256(w.into_vec())
    }
}
