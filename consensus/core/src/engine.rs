//! Between a consensus engine and the node: who fills and judges proposals, and what comes out.

use crate::{Committee, SeatError, SeatSet, VoteConflict};
use futures::stream::BoxStream;
use std::{future::Future, net::SocketAddr, sync::Arc};
use switchyard_primitives::{B256, Block, BlockError, Bytes, FinalityCertificate, TxKey};
use tokio::sync::oneshot;

/// The blocks below a parent, newest first, down to genesis. Pull only as many as are needed: an ancestor that this
/// node does not hold yet is fetched from its peers, and the stream waits for it.
pub type Ancestors = BoxStream<'static, Arc<Block>>;

/// Why a validator will not vote for a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlock {
    /// The header and the body contradict each other.
    #[error(transparent)]
    Commitment(#[from] BlockError),
    /// A rule of the chain is broken.
    #[error("{rule}: {detail}")]
    Rule {
        /// The rule, a fixed word that also labels a metric.
        rule: &'static str,
        /// The values that break it.
        detail: String,
    },
}

/// Fills proposals and judges those of others.
///
/// Both are functions of the block's ancestry and, for `build`, of what waits in the mempool. `judge` must come to the
/// same verdict on every honest node: where something is missing it waits; it never answers for lack of data.
pub trait BlockBuilder: Clone + Send + Sync + 'static {
    /// The block to propose on top of `parent`. Waits for the pace (heartbeat or minimum interval) itself and is
    /// dropped when the view has moved on. `None` proposes nothing, and the view times out.
    fn build(&self, parent: Arc<Block>, ancestors: Ancestors) -> impl Future<Output = Option<Block>> + Send;

    /// Whether `block` may follow `parent`. The engine has already checked that the parent hash and height fit.
    fn judge(
        &self,
        block: Arc<Block>,
        parent: Arc<Block>,
        ancestors: Ancestors,
    ) -> impl Future<Output = Result<(), InvalidBlock>> + Send;

    /// The transactions among `keys` that this node holds, in the same order: a block that names them need not carry them.
    /// Called on the engine's threads, so it neither blocks nor reads from disk.
    fn held(&self, keys: &[TxKey]) -> Vec<Option<Bytes>>;
}

/// The final blocks that the node has acknowledged: what peers that catch up are served from, so that the engine itself
/// keeps only the newest. Each method may block; it is called on threads made for that.
pub trait History: Send + Sync + 'static {
    /// The whole block at a height; `None` where the node has not got it (any more).
    fn block(&self, height: u64) -> Option<Block>;

    /// The certificate for the very block at a height, not for a descendant.
    fn certificate(&self, height: u64) -> Option<FinalityCertificate>;

    /// The hash of the block at a height; kept for every final block.
    fn hash_of(&self, height: u64) -> Option<B256>;

    /// The height of a block. Asked for nearly every proposal before it has arrived, so a miss must be cheap.
    fn height_of(&self, hash: B256) -> Option<u64>;
}

/// Who signs in each epoch and where they are, as far as the node's log tells. Both methods are called on the engine's threads:
/// they neither block nor read from disk.
pub trait Committees: Send + Sync + 'static {
    /// The committee of an epoch; `None` where the log does not tell it yet, or not any more. The epoch of the block after the
    /// newest acknowledged one, and the epoch after that, are always told.
    fn committee(&self, epoch: u64) -> Option<Arc<Committee>>;

    /// Every validator of the stake table, with its address if the log tells one.
    fn addresses(&self) -> Vec<(B256, Option<SocketAddr>)>;
}

/// One committee for ever, for engines without a node.
#[derive(Clone, Debug)]
pub struct SingleEpoch(Arc<Committee>);

impl SingleEpoch {
    /// The committee of epoch 0, which must be so long that it does not end.
    pub fn new(seats: SeatSet) -> Result<Self, SeatError> {
        Ok(Self(Arc::new(Committee::of_equals(0, seats.seats().iter().cloned())?)))
    }

    /// A committee of epoch 0 whose validators may have several seats.
    pub fn of(committee: Committee) -> Self {
        Self(Arc::new(committee))
    }
}

impl Committees for SingleEpoch {
    fn committee(&self, epoch: u64) -> Option<Arc<Committee>> {
        (epoch == 0).then(|| self.0.clone())
    }

    fn addresses(&self) -> Vec<(B256, Option<SocketAddr>)> {
        self.0.members().iter().map(|m| (m.seat.identity, None)).collect()
    }
}

/// What an engine reports, in order.
#[derive(Debug)]
pub enum EngineEvent {
    /// A final block. Heights come without gaps, at least once each: after a restart they go on from the first one that
    /// was not acknowledged, so the receiver must take a height it already has as done.
    Final {
        /// The block.
        block: Arc<Block>,
        /// Its certificate, where consensus made one for it; else a descendant's finalises it.
        certificate: Option<FinalityCertificate>,
        /// To be sent once the block is durable with the receiver.
        ack: oneshot::Sender<()>,
    },
    /// The newest height known to be final, which may be far above the last [`EngineEvent::Final`] while catching up.
    Tip {
        /// Its height.
        height: u64,
        /// The view that finalised it.
        view: u64,
    },
    /// A validator has signed what no honest one signs.
    Fault(Fault),
}

/// A validator has signed two things that exclude each other; the signatures have been checked.
#[derive(Clone, Debug)]
pub struct Fault(pub VoteConflict);

/// Kinds of provable misbehaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Two notarize votes for different blocks in one view.
    ConflictingNotarize,
    /// Two finalize votes for different blocks in one view.
    ConflictingFinalize,
    /// A nullify and a finalize vote in one view.
    NullifyFinalize,
}
