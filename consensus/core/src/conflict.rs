//! Proof that a validator has signed two votes that exclude each other (`docs/specs/challenges.md`).

use crate::{
    FaultKind, Proposal, Vote,
    keys::{aggregate, verify_aggregate},
};
use alloy_primitives::FixedBytes;
use switchyard_primitives::{B256, DecodeError, Reader, Writer};

/// Two votes of one validator in one view that no honest one signs both, and the sum of its signatures of them. Whoever knows the
/// validator's key can check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteConflict {
    validator: B256,
    /// In ascending order, so that the same two votes are always the same bytes.
    votes: [Vote; 2],
    kind: FaultKind,
    signature: [u8; 96],
}

impl VoteConflict {
    /// Of two votes with their signatures, in any order. None if one may sign both, or a signature is none.
    pub fn new(validator: B256, first: (Vote, &[u8; 96]), second: (Vote, &[u8; 96])) -> Option<Self> {
        let mut votes = [first.0, second.0];
        votes.sort_by_key(|vote| (code(vote), vote.content()));
        Some(Self { validator, votes, kind: kind(&votes)?, signature: aggregate([first.1, second.1])? })
    }

    /// Who has signed both.
    pub fn validator(&self) -> B256 {
        self.validator
    }

    /// The epoch and view of both.
    pub fn round(&self) -> (u64, u64) {
        self.votes[0].round()
    }

    /// How they exclude each other.
    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    /// Whether the holder of this key has signed both: three pairings. The key's possession was proven.
    pub fn holds(&self, network: B256, bls: FixedBytes<48>) -> bool {
        let statements = self.votes.map(|vote| (vote.message(network), vec![bls]));
        verify_aggregate(&statements, &self.signature)
    }

    /// `validator 32 | epoch u64 | view u64 | vote | vote | signature 96`, a vote being
    /// `kind u8 | parent view u64 | block 32`; the last two are zero for a nullify.
    pub fn write(&self, w: &mut Writer) {
        w.raw(self.validator.as_slice());
        let (epoch, view) = self.round();
        w.u64(epoch);
        w.u64(view);
        for vote in &self.votes {
            w.u8(code(vote));
            let (parent_view, block) = match vote {
                Vote::Notarize(p) | Vote::Finalize(p) => (p.parent_view, p.block),
                Vote::Nullify { .. } => (0, B256::ZERO),
            };
            w.u64(parent_view);
            w.raw(block.as_slice());
        }
        w.raw(&self.signature);
    }

    /// Reads [`Self::write`]'s layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let validator = r.b256("conflict.validator")?;
        let (epoch, view) = (r.u64("conflict.epoch")?, r.u64("conflict.view")?);
        let votes = [read_vote(r, epoch, view)?, read_vote(r, epoch, view)?];
        let invalid = |reason| DecodeError::Invalid { field: "conflict.votes", reason };
        if !votes.is_sorted_by_key(|vote| (code(vote), vote.content())) {
            return Err(invalid("not in ascending order"));
        }
        let kind = kind(&votes).ok_or(invalid("do not exclude each other"))?;
        Ok(Self { validator, votes, kind, signature: r.array("conflict.signature")? })
    }
}

/// The codes of the sign guard's record.
fn code(vote: &Vote) -> u8 {
    match vote {
        Vote::Notarize(_) => 1,
        Vote::Nullify { .. } => 2,
        Vote::Finalize(_) => 3,
    }
}

/// How votes in ascending order exclude each other.
fn kind([first, second]: &[Vote; 2]) -> Option<FaultKind> {
    let same_round = first.round() == second.round();
    match (first, second) {
        (Vote::Notarize(a), Vote::Notarize(b)) if same_round && a != b => Some(FaultKind::ConflictingNotarize),
        (Vote::Finalize(a), Vote::Finalize(b)) if same_round && a != b => Some(FaultKind::ConflictingFinalize),
        (Vote::Nullify { .. }, Vote::Finalize(_)) if same_round => Some(FaultKind::NullifyFinalize),
        _ => None,
    }
}

fn read_vote(r: &mut Reader, epoch: u64, view: u64) -> Result<Vote, DecodeError> {
    let kind = r.u8("vote.kind")?;
    let (parent_view, block) = (r.u64("vote.parent_view")?, r.b256("vote.block")?);
    let proposal = Proposal { epoch, view, parent_view, block };
    match kind {
        1 => Ok(Vote::Notarize(proposal)),
        2 if parent_view == 0 && block.is_zero() => Ok(Vote::Nullify { epoch, view }),
        3 => Ok(Vote::Finalize(proposal)),
        _ => Err(DecodeError::Invalid { field: "vote.kind", reason: "unknown, or a nullify of a block" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{bls_public_key, bls_secret_from_entropy, sign_vote};
    use switchyard_primitives::Bytes;

    const NETWORK: B256 = B256::repeat_byte(9);

    fn proposal(view: u64, parent_view: u64, block: u8) -> Proposal {
        Proposal { epoch: 3, view, parent_view, block: B256::repeat_byte(block) }
    }

    fn secret(i: u8) -> [u8; 32] {
        bls_secret_from_entropy(&[i; 32]).unwrap()
    }

    fn conflict(first: Vote, second: Vote) -> Option<VoteConflict> {
        let signed = |vote: &Vote| sign_vote(&secret(1), &vote.message(NETWORK)).unwrap();
        VoteConflict::new(B256::repeat_byte(1), (first, &signed(&first)), (second, &signed(&second)))
    }

    #[test]
    fn votes_that_exclude_each_other_are_proof_in_either_order_and_others_are_none() {
        let nullify = |view| Vote::Nullify { epoch: 3, view };
        let (a, b) = (proposal(7, 6, 1), proposal(7, 6, 2));
        let (other_parent, other_view) = (proposal(7, 5, 1), proposal(8, 6, 2));
        let cases = [
            (Vote::Notarize(a), Vote::Notarize(b), Some(FaultKind::ConflictingNotarize)),
            (Vote::Notarize(a), Vote::Notarize(other_parent), Some(FaultKind::ConflictingNotarize)),
            (Vote::Finalize(a), Vote::Finalize(b), Some(FaultKind::ConflictingFinalize)),
            (nullify(7), Vote::Finalize(a), Some(FaultKind::NullifyFinalize)),
            (Vote::Notarize(a), Vote::Notarize(a), None),
            (Vote::Notarize(a), Vote::Notarize(other_view), None),
            (Vote::Notarize(a), Vote::Finalize(b), None),
            (Vote::Notarize(a), nullify(7), None),
            (nullify(7), Vote::Finalize(other_view), None),
            (nullify(7), nullify(7), None),
        ];
        for (first, second, expected) in cases {
            let found = conflict(first, second);
            assert_eq!(found.as_ref().map(VoteConflict::kind), expected, "{first:?} {second:?}");
            assert_eq!(conflict(second, first), found);
            let Some(found) = found else { continue };
            assert!(found.holds(NETWORK, bls_public_key(&secret(1)).unwrap()));
            assert!(!found.holds(B256::ZERO, bls_public_key(&secret(1)).unwrap()), "of another network");
            assert!(!found.holds(NETWORK, bls_public_key(&secret(2)).unwrap()), "of another key");
            let mut w = Writer::default();
            found.write(&mut w);
            let bytes = w.into_vec();
            assert_eq!(bytes.len(), 32 + 16 + 2 * 41 + 96);
            let read = |bytes: &[u8]| {
                let mut r = Reader::new(Bytes::copy_from_slice(bytes));
                VoteConflict::read(&mut r)
            };
            assert_eq!(read(&bytes), Ok(found));
            let swapped = [&bytes[..48], &bytes[89..130], &bytes[48..89], &bytes[130..]].concat();
            assert!(read(&swapped).is_err());
        }
    }
}
