//! Votes and answers as gRPC has them.

use switchyard_consensus_core::{Proposal, Vote};
use switchyard_consensus_guard::{Refusal, Signature};
use switchyard_primitives::B256;
use switchyard_proto::{
    ConvertError, fixed, hash,
    signer_v1::{self as v1, refusal::Reason, sign_response::Answer},
    to_bytes,
};

pub(super) fn request(network: B256, vote: &Vote) -> v1::SignRequest {
    let (epoch, view) = vote.round();
    let (kind, proposal) = match vote {
        Vote::Notarize(proposal) => (v1::VoteKind::Notarize, Some(proposal)),
        Vote::Nullify { .. } => (v1::VoteKind::Nullify, None),
        Vote::Finalize(proposal) => (v1::VoteKind::Finalize, Some(proposal)),
    };
    v1::SignRequest {
        network_id: to_bytes(network),
        kind: kind.into(),
        epoch,
        view,
        parent_view: proposal.map_or(0, |p| p.parent_view),
        block: proposal.map(|p| to_bytes(p.block)).unwrap_or_default(),
    }
}

/// The vote, and the network it is for.
pub(super) fn vote(request: &v1::SignRequest) -> Result<(B256, Vote), ConvertError> {
    let network = hash("network_id", &request.network_id)?;
    let v1::SignRequest { kind, epoch, view, parent_view, .. } = *request;
    let proposal = || Ok(Proposal { epoch, view, parent_view, block: hash("block", &request.block)? });
    let vote = match v1::VoteKind::try_from(kind) {
        Ok(v1::VoteKind::Notarize) => Vote::Notarize(proposal()?),
        Ok(v1::VoteKind::Finalize) => Vote::Finalize(proposal()?),
        Ok(v1::VoteKind::Nullify) => {
            // What is not signed is not sent: who sends it means something else.
            fixed::<0>("block", &request.block)?;
            if parent_view != 0 {
                return Err(ConvertError::UnknownValue { field: "parent_view", value: -1 });
            }
            Vote::Nullify { epoch, view }
        }
        Ok(v1::VoteKind::Unspecified) => return Err(ConvertError::Missing { field: "kind" }),
        Err(_) => return Err(ConvertError::UnknownValue { field: "kind", value: kind }),
    };
    Ok((network, vote))
}

pub(super) fn response(answer: Result<Signature, &Refusal>) -> v1::SignResponse {
    let answer = match answer {
        Ok(signature) => Answer::Signature(to_bytes(signature)),
        Err(refusal) => {
            let reason = match refusal {
                Refusal::Conflict { .. } => Reason::Conflict,
                Refusal::Excluded { .. } => Reason::Excluded,
                Refusal::BelowLowWater { .. } => Reason::BelowLowWater,
                Refusal::Exhausted { .. } => Reason::Exhausted,
                Refusal::Unwritable(_) => Reason::Unwritable,
            };
            Answer::Refusal(v1::Refusal { reason: reason.into(), text: refusal.to_string() })
        }
    };
    v1::SignResponse { answer: Some(answer) }
}
