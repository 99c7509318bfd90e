//! The consensus library's finalisation as Switchyard's finality certificate.

use crate::{Finalization, block::hash};
use commonware_codec::Encode as _;
use switchyard_primitives::{FinalityCertificate, SignerBitmap};

/// `None` only for a signature of another length than the scheme's, which the library never makes.
pub(crate) fn convert(finalization: &Finalization) -> Option<FinalityCertificate> {
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
