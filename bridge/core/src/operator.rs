//! Operators: who attests which rollups, and how they say so in the log.

use alloy_primitives::FixedBytes;
use std::collections::BTreeSet;
use switchyard_consensus_core::{
    Seat, domain,
    keys::{KeyError, sign_vote, verify_aggregate, verify_possession},
};
use switchyard_primitives::{B256, DecodeError, Reader, RollupId, Writer};

/// An operator. Its stake is that of its identity in the stake table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// What it signs checkpoints with.
    pub bls: FixedBytes<48>,
    /// The rollups that it attests.
    pub rollups: BTreeSet<RollupId>,
    /// Number of its changes so far: the next one names it.
    pub serial: u64,
    /// Where it is leaving: the height from which on it is forgotten. Until then it can be held to what it has signed.
    pub gone_at: Option<u64>,
}

impl Operator {
    /// The serial of a record that registers in an epoch; the operator's further ones follow it.
    pub fn first_serial(epoch: u64) -> u64 {
        epoch << 32
    }

    /// Most rollups of one operator.
    pub const ROLLUPS_MAX: usize = 4096;
}

/// What an operator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorKind {
    /// It becomes one, for no rollup yet. Its identity must be in the stake table.
    Register {
        /// What it will sign checkpoints with: a key that nobody has registered. It may be that of its votes, but need not.
        bls: FixedBytes<48>,
        /// Proof of possession of the key for the identity.
        possession: FixedBytes<96>,
    },
    /// It attests these rollups from now on and no others; ascending, at most [`Operator::ROLLUPS_MAX`].
    Serve(Vec<RollupId>),
    /// It attests nothing from now on, and is forgotten two epochs later.
    Leave,
}

/// An operator's change of itself, signed with the key of its votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorChange {
    /// The operator.
    pub identity: B256,
    /// Number of its changes before this one; 0 to register.
    pub serial: u64,
    /// What changes.
    pub kind: OperatorKind,
    /// Its signature over [`Self::message`] with the BLS key that the stake table has for it, compressed G2.
    pub signature: [u8; 96],
}

impl OperatorChange {
    /// What is signed: `domain("_OPERATOR") | identity 32 | serial u64 | kind u8 | fields`.
    pub fn message(network: B256, identity: B256, serial: u64, kind: &OperatorKind) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&domain(network, b"_OPERATOR"));
        write_kind(&mut w, identity, serial, kind);
        w.into_vec()
    }

    /// Signs with the key of its votes.
    pub fn sign(
        network: B256,
        identity: B256,
        serial: u64,
        kind: OperatorKind,
        secret: &[u8; 32],
    ) -> Result<Self, KeyError> {
        let signature = sign_vote(secret, &Self::message(network, identity, serial, &kind))?;
        Ok(Self { identity, serial, kind, signature })
    }

    /// Whether it is signed with this key.
    pub(crate) fn is_signed(&self, network: B256, bls: FixedBytes<48>) -> bool {
        let message = Self::message(network, self.identity, self.serial, &self.kind);
        verify_aggregate(&[(message, vec![bls])], &self.signature)
    }

    /// A key that registers must be held by who registers it.
    pub(crate) fn check_possession(&self) -> Result<(), KeyError> {
        match &self.kind {
            OperatorKind::Register { bls, possession } => {
                verify_possession(&Seat { identity: self.identity, bls: *bls }, possession)
            }
            OperatorKind::Serve(_) | OperatorKind::Leave => Ok(()),
        }
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        write_kind(w, self.identity, self.serial, &self.kind);
        w.raw(&self.signature);
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let (identity, serial) = (r.b256("operator.identity")?, r.u64("operator.serial")?);
        let kind = match r.u8("operator.kind")? {
            0 => OperatorKind::Register {
                bls: FixedBytes(r.array("operator.bls")?),
                possession: FixedBytes(r.array("operator.possession")?),
            },
            1 => OperatorKind::Serve(read_rollups(r)?),
            2 => OperatorKind::Leave,
            _ => return Err(DecodeError::Invalid { field: "operator.kind", reason: "unknown" }),
        };
        Ok(Self { identity, serial, kind, signature: r.array("operator.signature")? })
    }
}

pub(crate) fn read_rollups(r: &mut Reader) -> Result<Vec<RollupId>, DecodeError> {
    let count = r.count("operator.rollups", Operator::ROLLUPS_MAX)?;
    let mut rollups: Vec<RollupId> = Vec::with_capacity(count.min(r.remaining() / 8));
    for _ in 0..count {
        let rollup = RollupId(r.u64("operator.rollup")?);
        if rollups.last().is_some_and(|last| *last >= rollup) {
            return Err(DecodeError::Invalid { field: "operator.rollup", reason: "not in ascending order" });
        }
        rollups.push(rollup);
    }
    Ok(rollups)
}

fn write_kind(w: &mut Writer, identity: B256, serial: u64, kind: &OperatorKind) {
    w.raw(identity.as_slice());
    w.u64(serial);
    match kind {
        OperatorKind::Register { bls, possession } => {
            w.u8(0);
            w.raw(bls.as_slice());
            w.raw(possession.as_slice());
        }
        OperatorKind::Serve(rollups) => {
            w.u8(1);
            w.count(rollups.len());
            rollups.iter().for_each(|rollup| w.u64(rollup.0));
        }
        OperatorKind::Leave => w.u8(2),
    }
}
