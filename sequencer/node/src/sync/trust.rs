//! What makes a block final for this node: the only place where catching up knows of seats.
//!
//! The seats of an epoch come from the hub's state, which follows the log that was copied so far: a proof of a later epoch
//! waits until the blocks before it are here.

use crate::config::Checkpoint;
use std::sync::Arc;
use switchyard_consensus_core::{CertificateError, Committee, Committees, verify_certificate, verify_finality};
use switchyard_primitives::{B256, FinalityCertificate, FinalityProof, Header};

/// Checks what sources say against the seats.
pub struct Judge {
    network: B256,
    committees: Arc<dyn Committees>,
    checkpoint: Option<Checkpoint>,
}

/// Why a source's word does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrue {
    /// The seats have not signed it.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Signed in an epoch whose seats are not known.
    #[error("a certificate of epoch {0}, whose seats are not known")]
    Epoch(u64),
    /// Another block than the one that the operator trusts.
    #[error("block {} is not the checkpoint's {}", .0.height, .0.hash)]
    Checkpoint(Checkpoint),
}

impl Judge {
    /// Trusts the seats of `committees` and, where there is one, the operator's checkpoint.
    pub fn new(network: B256, committees: Arc<dyn Committees>, checkpoint: Option<Checkpoint>) -> Self {
        Self { network, committees, checkpoint }
    }

    /// The network.
    pub fn network(&self) -> B256 {
        self.network
    }

    /// Whether the seats of an epoch are known.
    pub fn knows(&self, epoch: u64) -> bool {
        self.committees.committee(epoch).is_some()
    }

    fn committee(&self, epoch: u64) -> Result<Arc<Committee>, Untrue> {
        self.committees.committee(epoch).ok_or(Untrue::Epoch(epoch))
    }

    /// That every header of the proof is final. Slow (a pairing): not on an async thread.
    pub fn check_proof(&self, proof: &FinalityProof) -> Result<(), Untrue> {
        verify_finality(self.network, self.committee(proof.certificate.epoch)?.seats(), proof)?;
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
        Ok(verify_certificate(self.network, self.committee(certificate.epoch)?.seats(), certificate)?)
    }
}
