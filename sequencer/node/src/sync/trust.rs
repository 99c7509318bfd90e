//! What makes a block final for this node: the only place where catching up knows of seats.

use crate::{cli::light::Trust, config::Checkpoint};
use parking_lot::RwLock;
use std::sync::Arc;
use switchyard_consensus_core::{
    CertificateError, LightClient, LightError, SeatSet, verify_certificate, verify_finality,
};
use switchyard_primitives::{B256, FinalityCertificate, FinalityProof, Header};

/// Checks what sources say against the seats.
#[derive(Debug)]
pub struct Judge {
    network: B256,
    seats: RwLock<LightClient>,
    checkpoint: Option<Checkpoint>,
}

/// Why a source's word does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrue {
    /// The seats have not signed it.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Signed in an epoch whose seats are not known, or the seats are not the next ones.
    #[error(transparent)]
    Seats(#[from] LightError),
    /// Another block than the one that the operator trusts.
    #[error("block {} is not the checkpoint's {}", .0.height, .0.hash)]
    Checkpoint(Checkpoint),
}

impl Judge {
    /// Trusts the genesis and, where there is one, the operator's checkpoint.
    pub fn new(trust: Trust, checkpoint: Option<Checkpoint>) -> Self {
        let Trust { network, seats, .. } = trust;
        Self { network, seats: RwLock::new(LightClient::new(network, seats)), checkpoint }
    }

    /// The network.
    pub fn network(&self) -> B256 {
        self.network
    }

    /// The seats of an epoch. The lock is not held while signatures are checked.
    fn seats(&self, epoch: u64) -> Result<Arc<SeatSet>, LightError> {
        let known = self.seats.read();
        let (oldest, newest) = (known.oldest(), known.newest());
        known.seats(epoch).cloned().ok_or(LightError::UnknownEpoch { found: epoch, oldest, newest })
    }

    /// That every header of the proof is final. Slow (a pairing): not on an async thread.
    pub fn check_proof(&self, proof: &FinalityProof) -> Result<(), Untrue> {
        verify_finality(self.network, self.seats(proof.certificate.epoch)?.as_ref(), proof)?;
        match self.checkpoint {
            Some(point) if proof.headers.iter().any(|h| h.height == point.height && h.hash() != point.hash) => {
                Err(Untrue::Checkpoint(point))
            }
            _ => Ok(()),
        }
    }

    /// That a certificate is one for this very header. Slow (a pairing): not on an async thread.
    pub fn check_certificate(&self, header: &Header, certificate: &FinalityCertificate) -> Result<(), Untrue> {
        let (expected, found) = (header.hash(), certificate.block);
        if found != expected {
            return Err(CertificateError::Block { found, expected }.into());
        }
        if certificate.epoch != header.epoch {
            return Err(CertificateError::Epoch { found: certificate.epoch, expected: header.epoch }.into());
        }
        Ok(verify_certificate(self.network, self.seats(certificate.epoch)?.as_ref(), certificate)?)
    }

    /// Takes up the seats of the next epoch, which the last block of the newest known one names.
    pub fn advance(&self, boundary: &FinalityProof, next: SeatSet) -> Result<(), Untrue> {
        Ok(self.seats.write().advance(boundary, next)?)
    }
}
