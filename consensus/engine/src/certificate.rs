//! The consensus library's finalisation as Switchyard's finality certificate, and back.

use crate::{
    Finalization,
    block::{digest, hash},
};
use bytes::Bytes;
use commonware_codec::{Encode as _, types::lazy::Lazy};
use commonware_consensus::{
    simplex::types::Proposal,
    types::{Epoch, Participant, Round, View},
};
use commonware_cryptography::{bls12381::certificate::multisig::Certificate, certificate::Signers};
use switchyard_primitives::{FinalityCertificate, SignerBitmap};

/// `None` only for a signature of another length than the scheme's, which the library never makes.
pub(crate) fn from_library(finalization: &Finalization) -> Option<FinalityCertificate> {
    let proposal = &finalization.proposal;
    let signers = &finalization.certificate.signers;
    Some(FinalityCertificate {
        epoch: proposal.round.epoch().get(),
        view: proposal.round.view().get(),
        parent_view: proposal.parent.get(),
        block: hash(proposal.payload),
        signers: SignerBitmap::new(u32::try_from(signers.len()).ok()?, signers.iter().map(|s| s.get())),
        signature: finalization.certificate.signature.encode().as_ref().try_into().ok()?,
    })
}

/// `None` where the bitmap speaks of signers that it does not have, which none does. The signature is decoded when used.
pub(crate) fn to_library(certificate: &FinalityCertificate) -> Option<Finalization> {
    let round = Round::new(Epoch::new(certificate.epoch), View::new(certificate.view));
    let signers = certificate.signers.signers().map(Participant::new);
    Some(Finalization {
        proposal: Proposal::new(round, View::new(certificate.parent_view), digest(certificate.block)),
        certificate: Certificate {
            signers: Signers::new(certificate.signers.seats(), signers).ok()?,
            signature: Lazy::deferred(&mut Bytes::copy_from_slice(&certificate.signature), ()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchyard_primitives::B256;

    #[test]
    fn a_certificate_survives_the_way_through_the_library() {
        let mut signature = [0; 96];
        signature[0] = 0xc0;
        for seats in [1, 4, 9, 100] {
            let certificate = FinalityCertificate {
                epoch: 3,
                view: 300,
                parent_view: 298,
                block: B256::repeat_byte(5),
                signers: SignerBitmap::new(seats, (0..seats).filter(|i| i % 3 != 1)),
                signature,
            };
            assert_eq!(from_library(&to_library(&certificate).unwrap()), Some(certificate));
        }
    }
}
