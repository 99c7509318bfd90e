//! No honest validator signs two things that exclude each other, and none refuses the other's connection.
//!
//! Seen from outside, in what leaves the validator, so that the sign guard is not its own witness.

use super::{Verdict, violated};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_consensus::simplex::{
    scheme::bls12381_multisig,
    types::{Attributable as _, Vote},
};
use commonware_cryptography::{bls12381::primitives::variant::MinPk, ed25519::PublicKey, keccak256::Digest};
use std::collections::{BTreeMap, BTreeSet};

/// The scheme of votes as they are on the wire.
pub type Wire = bls12381_multisig::Scheme<PublicKey, MinPk>;

/// What was said about a view.
#[derive(Debug, Default)]
struct Said {
    /// Proposals, encoded.
    notarize: Option<Vec<u8>>,
    finalize: Option<Vec<u8>>,
    nullify: bool,
}

/// Remembers votes.
#[derive(Debug, Default)]
pub struct Guard {
    votes: BTreeMap<(usize, u64, u64), Said>,
    faults: BTreeSet<usize>,
}

impl Guard {
    /// A vote that an honest validator sends, whose first seat in an epoch `seat` tells.
    pub fn vote(&mut self, validator: usize, seat: impl Fn(u64) -> Option<u32>, message: &[u8]) -> Verdict {
        let Ok(vote) = Vote::<Wire, Digest>::decode(Copying(message)) else {
            return violated("guard", format!("validator {validator} sent a vote that does not decode"));
        };
        let (signer, round) = match &vote {
            Vote::Notarize(v) => (v.signer(), v.proposal.round),
            Vote::Nullify(v) => (v.signer(), v.round),
            Vote::Finalize(v) => (v.signer(), v.proposal.round),
        };
        let epoch = round.epoch().get();
        if Some(signer.get()) != seat(epoch) {
            return violated("guard", format!("validator {validator} sent a vote of {signer:?} in epoch {epoch}"));
        }
        let said = self.votes.entry((validator, epoch, round.view().get())).or_default();
        let excludes = |earlier: &mut Option<Vec<u8>>, new: Vec<u8>| earlier.get_or_insert_with(|| new.clone()) != &new;
        let contradiction = match &vote {
            Vote::Notarize(v) => excludes(&mut said.notarize, v.proposal.encode().to_vec()),
            Vote::Finalize(v) => excludes(&mut said.finalize, v.proposal.encode().to_vec()) || said.nullify,
            Vote::Nullify(_) => {
                said.nullify = true;
                said.finalize.is_some()
            }
        };
        match contradiction {
            true => violated("guard", format!("validator {validator} contradicts itself in {round:?}: {vote:?}")),
            false => Ok(()),
        }
    }

    /// An engine reports that a validator has contradicted itself.
    pub fn fault(&mut self, validator: usize, honest: bool) -> Verdict {
        self.faults.insert(validator);
        match honest {
            true => violated("guard", format!("the honest validator {validator} is said to have contradicted itself")),
            false => Ok(()),
        }
    }

    /// A validator refuses another one.
    pub fn refused(&self, from: usize, to: usize, honest: bool) -> Verdict {
        match honest {
            true => violated("guard", format!("validator {from} refuses the honest validator {to}")),
            false => Ok(()),
        }
    }

    /// How many slots were voted in.
    pub fn count(&self) -> usize {
        self.votes.len()
    }

    /// How many validators were found to have contradicted themselves.
    pub fn caught(&self) -> usize {
        self.faults.len()
    }
}
