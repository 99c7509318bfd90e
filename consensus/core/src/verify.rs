//! Checking certificates. Pure: seats, certificate and headers in, a verdict out.
//!
//! The layout of what is signed is the engine's (`docs/specs/consensus.md`).

use crate::{Proposal, SeatSet, Vote, vote::push_varint};
use blst::{
    BLST_ERROR,
    min_pk::{AggregatePublicKey, Signature},
};
use switchyard_primitives::{B256, FinalityCertificate, FinalityProof, Header};

/// Domain of votes.
pub const VOTE_DST: &[u8] = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";

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
    /// The certificate signs another block.
    #[error("the proof ends in block {found}, not {expected}")]
    Block {
        /// What the certificate signs.
        found: B256,
        /// What it should sign.
        expected: B256,
    },
    /// The certificate is of another epoch than the block it signs.
    #[error("a certificate of epoch {found} for a block of epoch {expected}")]
    Epoch {
        /// The certificate's epoch.
        found: u64,
        /// The certified header's epoch.
        expected: u64,
    },
    /// The proof has no header, or too many.
    #[error("{0} headers: must be between 1 and 1024")]
    Length(usize),
}

/// The domain under which the validators of `network` sign: `"switchyard" | network 32`.
pub fn namespace(network: B256) -> Vec<u8> {
    [b"switchyard".as_slice(), network.as_slice()].concat()
}

/// What every signed message begins with: `varint(length) | namespace | kind`, the length being that of the rest. So no
/// message of one kind can be taken for one of another.
pub fn domain(network: B256, kind: &[u8]) -> Vec<u8> {
    let domain = [namespace(network).as_slice(), kind].concat();
    let mut out = Vec::with_capacity(128);
    push_varint(&mut out, domain.len() as u64);
    out.extend_from_slice(&domain);
    out
}

/// The bytes that a finalize vote signs: [`Vote::message`].
pub fn finalize_message(network: B256, epoch: u64, view: u64, parent_view: u64, block: B256) -> Vec<u8> {
    Vote::Finalize(Proposal { epoch, view, parent_view, block }).message(network)
}

/// Checks that more than two thirds of `seats` have finalised `certificate.block` on `network`. The caller chooses the
/// seats of `certificate.epoch`.
pub fn verify_certificate(
    network: B256,
    seats: &SeatSet,
    certificate: &FinalityCertificate,
) -> Result<(), CertificateError> {
    let (expected, found) = (seats.seats().len(), certificate.signers.seats());
    if usize::try_from(found) != Ok(expected) {
        return Err(CertificateError::Seats { expected, found });
    }
    let keys: Vec<_> =
        certificate.signers.signers().filter_map(|i| seats.keys().get(usize::try_from(i).ok()?)).collect();
    let quorum = seats.quorum();
    if keys.len() < quorum {
        return Err(CertificateError::Quorum { quorum, found: keys.len() });
    }
    // The seat set has checked the keys' subgroup; the signature's is checked here.
    let (Ok(key), Ok(signature)) =
        (AggregatePublicKey::aggregate(&keys, false), Signature::sig_validate(&certificate.signature, true))
    else {
        return Err(CertificateError::Signature);
    };
    let FinalityCertificate { epoch, view, parent_view, block, .. } = *certificate;
    let message = finalize_message(network, epoch, view, parent_view, block);
    match signature.verify(false, &message, VOTE_DST, &[], &key.to_public_key(), false) {
        BLST_ERROR::BLST_SUCCESS => Ok(()),
        _ => Err(CertificateError::Signature),
    }
}

/// Checks that the first header of `proof` is final, and returns it. `seats` are those of the certificate's epoch.
pub fn verify_finality(network: B256, seats: &SeatSet, proof: &FinalityProof) -> Result<Header, CertificateError> {
    let (Some(first), Some(last)) = (proof.headers.first(), proof.headers.last()) else {
        return Err(CertificateError::Length(0));
    };
    if proof.headers.len() > FinalityProof::MAX_HEADERS {
        return Err(CertificateError::Length(proof.headers.len()));
    }
    for (index, pair) in proof.headers.windows(2).enumerate() {
        let linked = matches!(pair, [parent, child]
            if child.parent == parent.hash() && parent.height.checked_add(1) == Some(child.height));
        if !linked {
            return Err(CertificateError::Chain { index });
        }
    }
    let (found, expected) = (proof.certificate.block, last.hash());
    if found != expected {
        return Err(CertificateError::Block { found, expected });
    }
    if proof.certificate.epoch != last.epoch {
        return Err(CertificateError::Epoch { found: proof.certificate.epoch, expected: last.epoch });
    }
    verify_certificate(network, seats, &proof.certificate)?;
    Ok(*first)
}

#[cfg(test)]
mod tests;
