//! What makes a block final for this node: the only place where catching up knows of seats.

use crate::{cli::light::Trust, config::Checkpoint};
use switchyard_consensus_core::{CertificateError, verify_certificate, verify_finality};
use switchyard_primitives::{FinalityCertificate, FinalityProof, Header};

/// Checks what sources say against the seats.
#[derive(Clone, Debug)]
pub struct Judge {
    trust: Trust,
    checkpoint: Option<Checkpoint>,
}

/// Why a source's word does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrue {
    /// The seats have not signed it.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Signed in an epoch whose seats are not known.
    #[error("a certificate of epoch {found}: the seats of epoch {known} are known")]
    Epoch {
        /// The certificate's epoch.
        found: u64,
        /// The epoch whose seats are known.
        known: u64,
    },
    /// Another block than the one that the operator trusts.
    #[error("block {} is not the checkpoint's {}", .0.height, .0.hash)]
    Checkpoint(Checkpoint),
}

impl Judge {
    /// Trusts the genesis and, where there is one, the operator's checkpoint.
    pub fn new(trust: Trust, checkpoint: Option<Checkpoint>) -> Self {
        Self { trust, checkpoint }
    }

    /// The network.
    pub fn network(&self) -> switchyard_primitives::B256 {
        self.trust.network
    }

    fn known_epoch(&self, found: u64) -> Result<(), Untrue> {
        let known = self.trust.genesis.epoch;
        if found == known { Ok(()) } else { Err(Untrue::Epoch { found, known }) }
    }

    /// That every header of the proof is final. Slow (a pairing): not on an async thread.
    pub fn check_proof(&self, proof: &FinalityProof) -> Result<(), Untrue> {
        self.known_epoch(proof.certificate.epoch)?;
        verify_finality(self.trust.network, &self.trust.seats, proof)?;
        match self.checkpoint {
            Some(point) if proof.headers.iter().any(|h| h.height == point.height && h.hash() != point.hash) => {
                Err(Untrue::Checkpoint(point))
            }
            _ => Ok(()),
        }
    }

    /// That a certificate is one for this very header. Slow (a pairing): not on an async thread.
    pub fn check_certificate(&self, header: &Header, certificate: &FinalityCertificate) -> Result<(), Untrue> {
        self.known_epoch(certificate.epoch)?;
        let (expected, found) = (header.hash(), certificate.block);
        if found != expected {
            return Err(CertificateError::Block { found, expected }.into());
        }
        if certificate.epoch != header.epoch {
            return Err(CertificateError::Epoch { found: certificate.epoch, expected: header.epoch }.into());
        }
        Ok(verify_certificate(self.trust.network, &self.trust.seats, certificate)?)
    }
}
