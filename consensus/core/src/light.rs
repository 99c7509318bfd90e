//! Following the seats from epoch to epoch with nothing but the genesis to trust.

use crate::{CertificateError, SeatSet, verify_finality};
use std::{collections::BTreeMap, sync::Arc};
use switchyard_primitives::{B256, FinalityProof, Header};

/// Epochs whose seats are remembered.
const EPOCHS_KEPT: usize = 16;

/// Why a proof is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LightError {
    /// Signed by the seats of an epoch that is not known here: later than the newest, or long past.
    #[error("epoch {found}: the seats of epochs {oldest} to {newest} are known; follow the epochs between")]
    UnknownEpoch {
        /// The certificate's epoch.
        found: u64,
        /// The first known one.
        oldest: u64,
        /// The last known one.
        newest: u64,
    },
    /// The proof does not hold.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The header is not the last of the newest known epoch, or says that no seats follow.
    #[error("block {height} is not the last of epoch {epoch}")]
    NotABoundary {
        /// The header's height.
        height: u64,
        /// The newest known epoch.
        epoch: u64,
    },
    /// The seats offered are not those that the boundary block names.
    #[error("the seats of epoch {epoch} hash to {found}, the block before it names {expected}")]
    OtherSeats {
        /// Their epoch.
        epoch: u64,
        /// What the block names.
        expected: B256,
        /// The hash of what was offered.
        found: B256,
    },
}

/// Knows the seats of the newest epochs. Pure: proofs and seat sets in, verdicts out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LightClient {
    network: B256,
    seats: BTreeMap<u64, Arc<SeatSet>>,
}

impl LightClient {
    /// Starts with the seats of epoch 0, from the genesis.
    pub fn new(network: B256, seats: SeatSet) -> Self {
        Self::trusting(network, 0, seats)
    }

    /// Starts with the seats of a later epoch, which the caller trusts.
    pub fn trusting(network: B256, epoch: u64, seats: SeatSet) -> Self {
        Self { network, seats: BTreeMap::from([(epoch, Arc::new(seats))]) }
    }

    /// The newest epoch whose seats are known.
    pub fn newest(&self) -> u64 {
        self.seats.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    /// The seats of an epoch, if known.
    pub fn seats(&self, epoch: u64) -> Option<&Arc<SeatSet>> {
        self.seats.get(&epoch)
    }

    /// Checks that the first header of `proof` is final, and returns it.
    pub fn verify(&self, proof: &FinalityProof) -> Result<Header, LightError> {
        let found = proof.certificate.epoch;
        let oldest = self.seats.first_key_value().map_or(0, |(epoch, _)| *epoch);
        let unknown = LightError::UnknownEpoch { found, oldest, newest: self.newest() };
        let seats = self.seats.get(&found).ok_or(unknown)?;
        Ok(verify_finality(self.network, seats, proof)?)
    }

    /// Takes up the seats of the next epoch: `boundary` proves the last block of the newest known epoch final, whose header
    /// names them. After an error everything is as before.
    pub fn advance(&mut self, boundary: &FinalityProof, next: SeatSet) -> Result<(), LightError> {
        let header = self.verify(boundary)?;
        let epoch = self.newest();
        if header.height == 0 || header.epoch != epoch || header.next_seats_hash == B256::ZERO {
            return Err(LightError::NotABoundary { height: header.height, epoch });
        }
        let (epoch, expected, found) = (epoch.saturating_add(1), header.next_seats_hash, next.hash());
        if found != expected {
            return Err(LightError::OtherSeats { epoch, expected, found });
        }
        self.seats.insert(epoch, Arc::new(next));
        while self.seats.len() > EPOCHS_KEPT {
            self.seats.pop_first();
        }
        Ok(())
    }
}
