//! The relayer: shows certified checkpoints to the rollups that messages go to, delivers the messages, and brings the hub's decisions on
//! bundles to the vaults.
//!
//! Nobody trusts it: what it sends is proven to the contracts, anyone may send the same, and whoever comes second is refused
//! cheaply. It keeps nothing: what is to be done follows from the hub and the rollups, so one that is started anew goes on where
//! any other one has stopped. `docs/specs/messages.md` has the way of a message.

mod desk;
mod proof;
mod queue;
mod relayer;
mod settle;
mod status;
#[cfg(test)]
mod tests;
mod vault;

pub use proof::{Anchor, Delivery, checkpoint_call, deliver_call};
pub use relayer::{Relayer, RelayerParts, Settings};
pub use settle::{OnHub, bundle_status, settlement};
pub use status::{MessageStatus, delivery, status};

use alloy_primitives::{B256, Bytes};
use switchyard_bridge_core::{Certified, HubLeaf};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::EvmError;

/// A rollup as the hub knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub rollup: RollupId,
    /// Its chain id.
    pub chain: u64,
    /// Index of the leaf that says so.
    pub leaf: u64,
    /// Its newest certified checkpoint.
    pub certified: Option<Certified>,
}

/// What the relayer needs of the hub's log. Methods block on storage.
pub trait Hub: Send + Sync + 'static {
    /// The rollups that make checkpoints; none below protocol 3. Cheap.
    fn rollups(&self) -> Vec<Registered>;
    /// Timestamp of the newest final block, seconds: what is sent now comes into a later one. Cheap.
    fn now_s(&self) -> u64;
    /// Leaves of the hub's accumulator after a hub block.
    fn count_at(&self, hub_height: u64) -> Result<u64, Failed>;
    /// The accumulator's root when it had so many leaves; none if they are not known here.
    fn root_at(&self, count: u64) -> Result<Option<B256>, Failed>;
    /// Leaves of the hub's accumulator now. Cheap.
    fn leaves(&self) -> u64;
    /// The leaf from which a relayer looks for decisions when it starts: those before are of bundles whose deadlines are over.
    fn recent(&self) -> Result<u64, Failed>;
    /// A leaf of the hub's accumulator; none if it is not known here.
    fn leaf(&self, index: u64) -> Result<Option<HubLeaf>, Failed>;
    /// A bundle whose legs are in the log; none where they are not, or not kept here any more.
    fn bundle(&self, id: &B256) -> Result<Option<OnHub>, Failed>;
    /// Siblings of a leaf when the accumulator had so many leaves; none if they are not known here.
    fn path(&self, index: u64, count: u64) -> Result<Option<Vec<B256>>, Failed>;
}

/// The way into rollups.
pub trait Submit: Send + Sync + 'static {
    /// Offers signed transactions; of each whether it may come into a block, or why it will not. One that waits already may, and one
    /// that too few validators have confirmed yet.
    /// Blocks for a short while at most: what is not answered by then is missing from the answers, and counts as taken.
    fn submit(&self, rollup: RollupId, transactions: Vec<Bytes>) -> Vec<Result<(), Refusal>>;
}

/// Why a transaction that was offered will not come into a block. Each has the refusing node's reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// For what it says itself: too large, or with more gas than a block has. It is not offered again.
    #[error("refused for itself: {0}")]
    Itself(String),
    /// Another one with its nonce waits and pays about as much. It is signed again, and pays more.
    #[error("{0}")]
    Underpriced(String),
    /// For something else, which may pass.
    #[error("{0}")]
    Other(String),
}

/// Something that was asked could not be read. The relayer tries again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The log.
    #[error("the hub's log: {0}")]
    Hub(String),
    /// A rollup's state.
    #[error("rollup {rollup}: {source}")]
    Rollup {
        /// The rollup.
        rollup: RollupId,
        /// Why.
        source: EvmError,
    },
}
