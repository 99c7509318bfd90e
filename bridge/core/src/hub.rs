//! The leaves of the hub's accumulator: all that rollups learn from the hub.

use crate::Checkpoint;
use alloy_primitives::{B256, keccak256};
use switchyard_primitives::{Bytes, DecodeError, Reader, RollupId, Writer};

/// One leaf. Its first byte is its kind, so none can be taken for one of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HubLeaf {
    /// A stake quorum has certified a checkpoint.
    Checkpoint(Checkpoint),
    /// A bundle is decided. A bundle has one such leaf.
    Decision {
        /// The bundle's id.
        bundle: B256,
        /// Whether it is committed; else it is aborted.
        committed: bool,
        /// Height of the hub block that decided it.
        height: u64,
    },
    /// A leg was prepared outside its bundle; it is given back, on its rollup alone.
    Release {
        /// The bundle that it names.
        bundle: B256,
        /// The rollup on which it was prepared.
        rollup: RollupId,
        /// The leg's index.
        leg: u8,
    },
    /// A rollup has a chain id, which no other rollup of the hub has.
    Rollup {
        /// The rollup.
        rollup: RollupId,
        /// Its EIP-155 chain id.
        chain: u64,
    },
}

impl HubLeaf {
    /// The kind's byte, then the fields in order.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(1 + Checkpoint::LEN);
        match self {
            Self::Checkpoint(checkpoint) => {
                w.u8(1);
                w.raw(&checkpoint.encode());
            }
            Self::Decision { bundle, committed, height } => {
                w.u8(2);
                w.raw(bundle.as_slice());
                w.u8(u8::from(*committed));
                w.u64(*height);
            }
            Self::Release { bundle, rollup, leg } => {
                w.u8(3);
                w.raw(bundle.as_slice());
                w.u64(rollup.0);
                w.u8(*leg);
            }
            Self::Rollup { rollup, chain } => {
                w.u8(4);
                w.u64(rollup.0);
                w.u64(*chain);
            }
        }
        w.into_vec()
    }

    /// Reads [`Self::encode`]'s layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(Bytes::copy_from_slice(bytes));
        let leaf = match r.u8("leaf.kind")? {
            1 => Self::Checkpoint(Checkpoint::read(&mut r)?),
            2 => {
                let bundle = r.b256("leaf.bundle")?;
                let committed = match r.u8("leaf.committed")? {
                    0 => false,
                    1 => true,
                    _ => return Err(DecodeError::Invalid { field: "leaf.committed", reason: "neither 0 nor 1" }),
                };
                Self::Decision { bundle, committed, height: r.u64("leaf.height")? }
            }
            3 => Self::Release {
                bundle: r.b256("leaf.bundle")?,
                rollup: RollupId(r.u64("leaf.rollup")?),
                leg: r.u8("leaf.leg")?,
            },
            4 => Self::Rollup { rollup: RollupId(r.u64("leaf.rollup")?), chain: r.u64("leaf.chain")? },
            _ => return Err(DecodeError::Invalid { field: "leaf.kind", reason: "unknown" }),
        };
        r.finish()?;
        Ok(leaf)
    }

    /// The leaf's value in the accumulator: keccak-256 of the encoding.
    pub fn hash(&self) -> B256 {
        keccak256(self.encode())
    }
}
