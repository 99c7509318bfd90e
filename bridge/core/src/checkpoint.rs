//! The checkpoint: what one rollup is after one of its blocks.

use alloy_primitives::{B256, keccak256};
use switchyard_primitives::{DecodeError, Reader, RollupId, Writer};

/// What operators attest and settlement chains accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// The rollup.
    pub rollup: RollupId,
    /// The rollup block's number.
    pub number: u64,
    /// The last hub block that the rollup block was derived from.
    pub hub_height: u64,
    /// The rollup block's hash.
    pub block_hash: B256,
    /// State root after the block.
    pub state_root: B256,
    /// Root of the messages sent so far ([`crate::Accumulator::root`]); zero while the rollup has no outbox.
    pub outbox_root: B256,
    /// Root of the bundle votes cast in the block ([`crate::votes_root`]); zero for none.
    pub votes_root: B256,
}

impl Checkpoint {
    /// What stands for a block that a rollup has not made.
    pub fn none(rollup: RollupId, number: u64, hub_height: u64) -> Self {
        let zero = B256::ZERO;
        Self { rollup, number, hub_height, block_hash: zero, state_root: zero, outbox_root: zero, votes_root: zero }
    }

    /// Length of the encoding, bytes.
    pub const LEN: usize = 152;

    /// `rollup u64 | number u64 | hub_height u64 | block_hash | state_root | outbox_root | votes_root`.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(Self::LEN);
        w.u64(self.rollup.0);
        w.u64(self.number);
        w.u64(self.hub_height);
        for root in [self.block_hash, self.state_root, self.outbox_root, self.votes_root] {
            w.raw(root.as_slice());
        }
        w.into_vec()
    }

    /// Reads [`Self::encode`]'s layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            rollup: RollupId(r.u64("checkpoint.rollup")?),
            number: r.u64("checkpoint.number")?,
            hub_height: r.u64("checkpoint.hub_height")?,
            block_hash: r.b256("checkpoint.block_hash")?,
            state_root: r.b256("checkpoint.state_root")?,
            outbox_root: r.b256("checkpoint.outbox_root")?,
            votes_root: r.b256("checkpoint.votes_root")?,
        })
    }

    /// keccak-256 of the encoding.
    pub fn hash(&self) -> B256 {
        keccak256(self.encode())
    }
}
