//! What operators say of a rollup's blocks, and what a stake quorum of them says.

use crate::{
    Checkpoint, Vote,
    bundle::{read_votes, write_votes},
    votes_root,
};
use alloy_primitives::FixedBytes;
use switchyard_consensus_core::{
    domain,
    keys::{KeyError, sign_vote, verify_aggregate},
};
use switchyard_primitives::{B256, DecodeError, Reader, SignerBitmap, Writer};

/// One operator's word on one checkpoint, as it travels between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// The operator.
    pub operator: B256,
    /// What it attests.
    pub checkpoint: Checkpoint,
    /// What the checkpoint's `votes_root` is of; at most [`Vote::MAX`].
    pub votes: Vec<Vote>,
    /// Its signature over [`Self::message`], compressed G2.
    pub signature: [u8; 96],
}

impl Attestation {
    /// What an operator signs: `domain("_CHECKPOINT") | keccak(checkpoint) 32`.
    pub fn message(network: B256, checkpoint: &Checkpoint) -> Vec<u8> {
        let mut message = domain(network, b"_CHECKPOINT");
        message.extend_from_slice(checkpoint.hash().as_slice());
        message
    }

    /// Signs; whoever calls this has asked the sign guard.
    pub fn sign(
        network: B256,
        operator: B256,
        checkpoint: Checkpoint,
        votes: Vec<Vote>,
        secret: &[u8; 32],
    ) -> Result<Self, KeyError> {
        let signature = sign_vote(secret, &Self::message(network, &checkpoint))?;
        Ok(Self { operator, checkpoint, votes, signature })
    }

    /// Whether it is signed with this key, and the votes are the checkpoint's. Two pairings.
    pub fn holds(&self, network: B256, bls: FixedBytes<48>) -> bool {
        votes_root(&self.votes) == self.checkpoint.votes_root && self.is_signed(network, bls)
    }

    /// Whether the checkpoint is signed with this key, whatever the votes. Two pairings.
    pub fn is_signed(&self, network: B256, bls: FixedBytes<48>) -> bool {
        verify_aggregate(&[(Self::message(network, &self.checkpoint), vec![bls])], &self.signature)
    }

    /// `operator 32 | checkpoint | votes u32 | vote * | signature 96`.
    pub fn write(&self, w: &mut Writer) {
        w.raw(self.operator.as_slice());
        w.raw(&self.checkpoint.encode());
        write_votes(w, &self.votes);
        w.raw(&self.signature);
    }

    /// Reads [`Self::write`]'s layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            operator: r.b256("attestation.operator")?,
            checkpoint: Checkpoint::read(r)?,
            votes: read_votes(r)?,
            signature: r.array("attestation.signature")?,
        })
    }
}

/// A checkpoint in a [`Certificate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedCheckpoint {
    /// What is certified.
    pub checkpoint: Checkpoint,
    /// What its `votes_root` is of.
    pub votes: Vec<Vote>,
    /// Who has signed it, by position among the operators that attest the rollup in the state that the block is on.
    pub signers: SignerBitmap,
}

/// Stake quorums' signatures over checkpoints of any rollups: one aggregated signature for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// 1 to [`Self::ENTRIES_MAX`]; those of one rollup in the order of its blocks, without a gap.
    pub entries: Vec<CertifiedCheckpoint>,
    /// The sum of all signatures, compressed G2.
    pub signature: [u8; 96],
}

impl Certificate {
    /// Most checkpoints in one: checking it costs a pairing for each, and every validator checks it before it votes.
    pub const ENTRIES_MAX: usize = 64;
    /// Most votes in one, of all its checkpoints; a single checkpoint may have as many.
    pub const VOTES_MAX: usize = Vote::MAX;

    pub(crate) fn write(&self, w: &mut Writer) {
        w.count(self.entries.len());
        for CertifiedCheckpoint { checkpoint, votes, signers } in &self.entries {
            w.raw(&checkpoint.encode());
            write_votes(w, votes);
            signers.write(w);
        }
        w.raw(&self.signature);
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let count = r.count("certificate.entries", Self::ENTRIES_MAX)?;
        let mut entries = Vec::with_capacity(count);
        let mut left = Self::VOTES_MAX;
        for _ in 0..count {
            let (checkpoint, votes) = (Checkpoint::read(r)?, read_votes(r)?);
            left = left.checked_sub(votes.len()).ok_or(DecodeError::Invalid {
                field: "certificate.votes",
                reason: "more votes than one certificate may bring",
            })?;
            entries.push(CertifiedCheckpoint { checkpoint, votes, signers: SignerBitmap::read(r)? });
        }
        Ok(Self { entries, signature: r.array("certificate.signature")? })
    }
}
