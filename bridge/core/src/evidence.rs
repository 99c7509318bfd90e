//! Proof that somebody has signed two things that exclude each other: `docs/specs/challenges.md`.

use crate::{Attestation, Checkpoint};
use alloy_primitives::FixedBytes;
use switchyard_consensus_core::{
    VoteConflict,
    keys::{aggregate, verify_aggregate},
};
use switchyard_primitives::{B256, DecodeError, Reader, Writer};

/// Two attestations of one operator of the same rollup block, and the sum of its signatures of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationConflict {
    operator: B256,
    /// Ascending by hash, so that the same two are always the same bytes.
    checkpoints: [Checkpoint; 2],
    signature: [u8; 96],
}

impl AttestationConflict {
    /// Of two attestations, in any order. None if one may sign both, or a signature is none.
    pub fn new(first: &Attestation, second: &Attestation) -> Option<Self> {
        let mut checkpoints = [first.checkpoint, second.checkpoint];
        checkpoints.sort_by_key(Checkpoint::hash);
        let signature = aggregate([&first.signature, &second.signature])?;
        let conflict = Self { operator: first.operator, checkpoints, signature };
        (first.operator == second.operator && conflict.is_one()).then_some(conflict)
    }

    fn is_one(&self) -> bool {
        let [first, second] = &self.checkpoints;
        let same_block = (first.rollup, first.number) == (second.rollup, second.number);
        same_block && first.hash() < second.hash()
    }

    /// Who has signed both.
    pub fn operator(&self) -> B256 {
        self.operator
    }

    /// What it has signed, ascending by hash.
    pub fn checkpoints(&self) -> &[Checkpoint; 2] {
        &self.checkpoints
    }

    /// Whether the holder of this key has signed both: three pairings. The key's possession was proven.
    pub fn holds(&self, network: B256, bls: FixedBytes<48>) -> bool {
        let statements = self.checkpoints.map(|checkpoint| (Attestation::message(network, &checkpoint), vec![bls]));
        verify_aggregate(&statements, &self.signature)
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.operator.as_slice());
        self.checkpoints.iter().for_each(|checkpoint| w.raw(&checkpoint.encode()));
        w.raw(&self.signature);
    }

    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let operator = r.b256("evidence.operator")?;
        let checkpoints = [Checkpoint::read(r)?, Checkpoint::read(r)?];
        let conflict = Self { operator, checkpoints, signature: r.array("evidence.signature")? };
        let reason = "not two of one block, ascending by hash";
        let invalid = DecodeError::Invalid { field: "evidence.checkpoints", reason };
        if conflict.is_one() { Ok(conflict) } else { Err(invalid) }
    }
}

/// What anyone may put into the log about somebody who has contradicted itself. It proves itself: nobody's word is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// By an operator about a rollup's block.
    Attestations(AttestationConflict),
    /// By a validator in consensus.
    Votes(VoteConflict),
}

impl Evidence {
    /// Whom it is about.
    pub fn accused(&self) -> B256 {
        match self {
            Self::Attestations(conflict) => conflict.operator(),
            Self::Votes(conflict) => conflict.validator(),
        }
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        match self {
            Self::Attestations(conflict) => {
                w.u8(0);
                conflict.write(w);
            }
            Self::Votes(conflict) => {
                w.u8(1);
                conflict.write(w);
            }
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        match r.u8("evidence.kind")? {
            0 => AttestationConflict::read(r).map(Self::Attestations),
            1 => VoteConflict::read(r).map(Self::Votes),
            _ => Err(DecodeError::Invalid { field: "evidence.kind", reason: "unknown" }),
        }
    }
}
