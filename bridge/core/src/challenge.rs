//! What an operator says against a certified checkpoint, and what VITAL says to it: `docs/specs/challenges.md`.

use crate::{Certificate, Checkpoint};
use alloy_primitives::FixedBytes;
use switchyard_consensus_core::{
    domain,
    keys::{KeyError, sign_vote, verify_aggregate},
    stake::VALIDATORS_MAX,
};
use switchyard_primitives::{B256, DecodeError, Reader, RollupId, SignerBitmap, Writer, keccak256};

/// What one entry of a certificate comes to: the checkpoint, and who has signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// [`Checkpoint::hash`].
    pub checkpoint: B256,
    /// [`signers_hash`].
    pub signers: B256,
}

impl Signed {
    /// keccak-256 of `(checkpoint 32 | signers 32) *`: what the hub's state keeps of a block's certificate.
    pub fn hash(entries: &[Self]) -> B256 {
        let bytes: Vec<u8> = entries.iter().flat_map(|e| [e.checkpoint, e.signers]).flatten().collect();
        keccak256(bytes)
    }
}

/// keccak-256 of the identities one after the other, ascending.
pub fn signers_hash(signers: &[B256]) -> B256 {
    keccak256(signers.concat())
}

/// An operator says that a certified checkpoint is wrong. Its stake answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The hub block that has certified it.
    pub height: u64,
    /// All that this block has certified, in order; at most [`Certificate::ENTRIES_MAX`].
    pub entries: Vec<Signed>,
    /// What is said to be wrong.
    pub certified: Checkpoint,
    /// What the challenger has computed in its place.
    pub own: Checkpoint,
    /// Who has signed the certified one, ascending.
    pub signers: Vec<B256>,
    /// Who says so.
    pub challenger: B256,
    /// Its signature over [`Self::message`] with the key of its checkpoints, compressed G2.
    pub signature: [u8; 96],
}

impl Challenge {
    /// keccak-256 of `height u64 | certified checkpoint's hash 32 | own checkpoint's hash 32 | signers' hash 32 | challenger 32`.
    pub fn id(&self) -> B256 {
        let mut w = Writer::with_capacity(136);
        w.u64(self.height);
        for part in [self.certified.hash(), self.own.hash(), signers_hash(&self.signers), self.challenger] {
            w.raw(part.as_slice());
        }
        keccak256(w.into_vec())
    }

    /// What the challenger signs: `domain("_CHALLENGE") | id 32`.
    pub fn message(&self, network: B256) -> Vec<u8> {
        [domain(network, b"_CHALLENGE").as_slice(), self.id().as_slice()].concat()
    }

    /// This challenge, signed; whoever calls this has asked the sign guard.
    pub fn sign(self, network: B256, secret: &[u8; 32]) -> Result<Self, KeyError> {
        let signature = sign_vote(secret, &self.message(network))?;
        Ok(Self { signature, ..self })
    }

    /// Whether it is signed with this key. Two pairings.
    pub(crate) fn is_signed(&self, network: B256, bls: FixedBytes<48>) -> bool {
        verify_aggregate(&[(self.message(network), vec![bls])], &self.signature)
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.u64(self.height);
        w.count(self.entries.len());
        for Signed { checkpoint, signers } in &self.entries {
            w.raw(checkpoint.as_slice());
            w.raw(signers.as_slice());
        }
        w.raw(&self.certified.encode());
        w.raw(&self.own.encode());
        write_identities(w, &self.signers);
        w.raw(self.challenger.as_slice());
        w.raw(&self.signature);
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let height = r.u64("challenge.height")?;
        let count = r.count("challenge.entries", Certificate::ENTRIES_MAX)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(Signed { checkpoint: r.b256("entry.checkpoint")?, signers: r.b256("entry.signers")? });
        }
        Ok(Self {
            height,
            entries,
            certified: Checkpoint::read(r)?,
            own: Checkpoint::read(r)?,
            signers: read_identities(r)?,
            challenger: r.b256("challenge.challenger")?,
            signature: r.array("challenge.signature")?,
        })
    }
}

pub(crate) fn write_identities(w: &mut Writer, identities: &[B256]) {
    w.count(identities.len());
    identities.iter().for_each(|identity| w.raw(identity.as_slice()));
}

pub(crate) fn read_identities(r: &mut Reader) -> Result<Vec<B256>, DecodeError> {
    let count = r.count("signers", VALIDATORS_MAX)?;
    let mut identities: Vec<B256> = Vec::with_capacity(count.min(r.remaining() / 32));
    for _ in 0..count {
        let identity = r.b256("signers.identity")?;
        if identities.last().is_some_and(|last| *last >= identity) {
            return Err(DecodeError::Invalid { field: "signers.identity", reason: "not in ascending order" });
        }
        identities.push(identity);
    }
    Ok(identities)
}

/// One VITAL operator's word on a challenge, as it travels between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictWord {
    /// The operator.
    pub operator: B256,
    /// The challenge: [`Challenge::id`].
    pub challenge: B256,
    /// Whether the certified checkpoint is right, so the challenge wrong.
    pub is_right: bool,
    /// Its signature over [`Verdict::message`] with the key of its checkpoints, compressed G2.
    pub signature: [u8; 96],
}

impl VerdictWord {
    /// Length of the layout, bytes.
    pub const LEN: usize = 32 + 32 + 1 + 96;

    /// Signs; whoever calls this has asked the sign guard.
    pub fn sign(
        network: B256,
        operator: B256,
        challenge: B256,
        is_right: bool,
        secret: &[u8; 32],
    ) -> Result<Self, KeyError> {
        let signature = sign_vote(secret, &Verdict::message(network, challenge, is_right))?;
        Ok(Self { operator, challenge, is_right, signature })
    }

    /// Whether it is signed with this key. Two pairings.
    pub fn holds(&self, network: B256, bls: FixedBytes<48>) -> bool {
        let message = Verdict::message(network, self.challenge, self.is_right);
        verify_aggregate(&[(message, vec![bls])], &self.signature)
    }

    /// `operator 32 | challenge 32 | right u8 | signature 96`.
    pub fn write(&self, w: &mut Writer) {
        w.raw(self.operator.as_slice());
        w.raw(self.challenge.as_slice());
        w.u8(u8::from(self.is_right));
        w.raw(&self.signature);
    }

    /// Reads [`Self::write`]'s layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            operator: r.b256("verdict.operator")?,
            challenge: r.b256("verdict.challenge")?,
            is_right: read_bool(r, "verdict.right")?,
            signature: r.array("verdict.signature")?,
        })
    }
}

/// A stake quorum of VITAL decides a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The rollup whose checkpoint was challenged.
    pub rollup: RollupId,
    /// The checkpoint's number.
    pub number: u64,
    /// Whether the certified checkpoint is right.
    pub is_right: bool,
    /// Who says so, by position among VITAL's operators in the state that the record is on.
    pub signers: SignerBitmap,
    /// The sum of their signatures over [`Self::message`], compressed G2.
    pub signature: [u8; 96],
}

impl Verdict {
    /// What is signed: `domain("_VERDICT") | keccak(challenge 32 | right u8) 32`.
    pub fn message(network: B256, challenge: B256, is_right: bool) -> Vec<u8> {
        let digest = keccak256([challenge.as_slice(), &[u8::from(is_right)]].concat());
        [domain(network, b"_VERDICT").as_slice(), digest.as_slice()].concat()
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.u64(self.rollup.0);
        w.u64(self.number);
        w.u8(u8::from(self.is_right));
        self.signers.write(w);
        w.raw(&self.signature);
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            rollup: RollupId(r.u64("verdict.rollup")?),
            number: r.u64("verdict.number")?,
            is_right: read_bool(r, "verdict.right")?,
            signers: SignerBitmap::read(r)?,
            signature: r.array("verdict.signature")?,
        })
    }
}

pub(crate) fn read_bool(r: &mut Reader, field: &'static str) -> Result<bool, DecodeError> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid { field, reason: "neither 0 nor 1" }),
    }
}
