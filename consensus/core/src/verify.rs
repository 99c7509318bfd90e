//! Checking certificates. Pure: seats, certificate and headers in, a verdict out.

use crate::SeatSet;
use switchyard_primitives::{B256, FinalityCertificate, FinalityProof, Header};

/// Why a certificate or a finality proof does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Made by another number of seats.
    #[error("certificate of {found} seats, the set has {expected}")]
    Seats {
        /// Seats in the set.
        expected: usize,
        /// Seats that the certificate speaks of.
        found: u32,
    },
    /// Too few signers.
    #[error("{found} signers, a quorum is {quorum}")]
    Quorum {
        /// Signers needed.
        quorum: usize,
        /// Signers found.
        found: usize,
    },
    /// The signature is not theirs.
    #[error("the aggregated signature does not verify")]
    Signature,
    /// The headers do not form a chain to the certified block.
    #[error("header {index} does not link to the next")]
    Chain {
        /// Position in the proof.
        index: usize,
    },
    /// The proof is for another block or epoch.
    #[error("the proof ends in block {found}, not {expected}")]
    Block {
        /// What the certificate signs.
        found: B256,
        /// What it should sign.
        expected: B256,
    },
    /// The proof has no header, or too many.
    #[error("{0} headers: must be between 1 and 1024")]
    Length(usize),
}

/// The domain under which the validators of `network` sign: `"switchyard" | network 32`.
pub fn namespace(network: B256) -> Vec<u8> {
    [b"switchyard".as_slice(), network.as_slice()].concat()
}

/// Checks that more than two thirds of `seats` have finalised `certificate.block` on `network`.
pub fn verify_certificate(
    network: B256,
    seats: &SeatSet,
    certificate: &FinalityCertificate,
) -> Result<(), CertificateError> {
    let _ = (network, seats, certificate);
    Err(CertificateError::Signature)
}

/// Checks that the first header of `proof` is final, and returns it.
pub fn verify_finality(network: B256, seats: &SeatSet, proof: &FinalityProof) -> Result<Header, CertificateError> {
    let _ = (network, seats, proof);
    Err(CertificateError::Signature)
}
