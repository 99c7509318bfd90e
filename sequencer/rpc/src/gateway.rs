//! What the servers need of the node behind them.

use alloy_primitives::{Address, B256, Bytes};
use futures::future::BoxFuture;
use std::sync::Arc;
use switchyard_bridge_core::{BundleStatus, MessageState, SignedBundle, SystemState};
use switchyard_consensus_core::SeatSet;
use switchyard_primitives::{
    FinalityCertificate, FinalityProof, Header, Level, Limits, RollupId, SegmentProof, TxHash, TxKey,
};
use switchyard_rollup_core::{
    BundleRefusal, Rejection, RollupManifest, TxOutcome,
    evm::{EvmChain, SentMessage},
};
use tokio::sync::{broadcast, watch};

/// What does not change while a node runs.
#[derive(Clone, Debug)]
pub struct NetworkInfo {
    /// The network's name.
    pub name: String,
    /// Hash of the network's genesis: the domain of its signatures.
    pub id: B256,
    /// Hash of the genesis header.
    pub genesis_hash: B256,
    /// The rollups.
    pub rollups: Vec<RollupManifest>,
    /// Block limits.
    pub limits: Limits,
    /// `switchyard/VERSION`.
    pub client_version: String,
    /// Whether submissions are handed on to a validator.
    pub forwards_submissions: bool,
}

/// An epoch that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochAt {
    /// Its number.
    pub epoch: u64,
    /// Its first block's height.
    pub first_height: u64,
    /// Its seats.
    pub seats: SeatSet,
    /// Shows that the last block of the epoch before is final, whose header names the seats; none for epoch 0.
    pub boundary: Option<FinalityProof>,
}

/// The newest final block that is durable here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubTip {
    /// Its height.
    pub height: u64,
    /// Its hash.
    pub hash: B256,
    /// Its timestamp in milliseconds.
    pub timestamp_ms: u64,
}

/// Where a transaction is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxStatus {
    /// The level reached; none if this node knows nothing of it, or has refused it. `Accepted` says that this node holds
    /// it; that a quorum does is what the answer to its submission said.
    pub level: Option<Level>,
    /// The hub block and the position in the rollup's segment, once final.
    pub included: Option<(u64, u32)>,
    /// What execution made of it, for rollups that this node runs.
    pub outcome: Option<TxOutcome>,
    /// Why it was refused or dropped, while remembered.
    pub rejection: Option<Rejection>,
}

/// A rollup's part of one final block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentAt {
    /// The block's header.
    pub header: Header,
    /// The rollup's transactions, empty where the block has none.
    pub transactions: Vec<Bytes>,
    /// Shows that these are all.
    pub proof: SegmentProof,
}

/// A whole final block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockAt {
    /// The encoded block.
    pub block: Bytes,
    /// Its own certificate, where there is one.
    pub certificate: Option<FinalityCertificate>,
}

/// A message between rollups, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageAt {
    /// The message.
    pub sent: SentMessage,
    /// How far it has come.
    pub state: MessageState,
}

/// A call of a contract that anyone may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCall {
    /// The rollup.
    pub rollup: RollupId,
    /// The contract.
    pub to: Address,
    /// Calldata.
    pub data: Bytes,
    /// Gas that suffices.
    pub gas: u64,
}

/// Where a bundle is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleAt {
    /// This node holds it, and its legs are not final yet.
    Waiting {
        /// Hub height.
        deadline: u64,
    },
    /// Its legs are in the log.
    InLog(BundleStatus),
    /// It was refused, or dropped before its legs were in the log.
    Refused(BundleRefusal),
}

/// Why the node cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// Removed by the retention setting.
    #[error("block {height} is not kept here: the earliest is {earliest}")]
    Pruned {
        /// The height asked for.
        height: u64,
        /// The earliest height kept.
        earliest: u64,
    },
    /// The store failed.
    #[error("store: {0}")]
    Store(String),
}

/// The node, as its servers see it. Reads block on storage for at most a few point look-ups.
pub trait Gateway: Send + Sync + 'static {
    /// Fixed facts.
    fn info(&self) -> &NetworkInfo;

    /// Offers transactions to the mempool; answers once a quorum of validators holds each one, or with the reason.
    fn submit(&self, rollup: RollupId, payloads: Vec<Bytes>) -> BoxFuture<'_, Vec<Result<TxHash, Rejection>>>;

    /// Where a transaction is.
    fn status(&self, key: TxKey) -> Result<TxStatus, GatewayError>;

    /// The durable tip and its changes.
    fn tip(&self) -> watch::Receiver<HubTip>;

    /// The lowest height kept.
    fn earliest(&self) -> u64;

    /// A final header; none above the tip.
    fn header(&self, height: u64) -> Result<Option<Header>, GatewayError>;

    /// A rollup's part of a final block; none above the tip.
    fn segment(&self, rollup: RollupId, height: u64) -> Result<Option<SegmentAt>, GatewayError>;

    /// Proof that a block is final; none above the tip, or while no certificate above it is known.
    fn finality(&self, height: u64) -> Result<Option<FinalityProof>, GatewayError>;

    /// The longest proof of finality that begins with a block: up to the last certificate that one proof can reach. None
    /// like [`Self::finality`].
    fn finality_run(&self, from: u64) -> Result<Option<FinalityProof>, GatewayError>;

    /// A whole final block; none above the tip.
    fn block(&self, height: u64) -> Result<Option<BlockAt>, GatewayError>;

    /// The hub's encoded state after a final block, as of the last block that changed it; empty while it is that of
    /// genesis. Above the tip: that at the tip.
    fn hub_state_at(&self, height: u64) -> Result<Vec<u8>, GatewayError>;

    /// The state after the durable tip: who signs, and with which stake.
    fn hub_state(&self) -> Arc<SystemState>;

    /// An epoch; none that has not begun, or whose first block's parent has no certificate here yet.
    fn epoch(&self, epoch: u64) -> Result<Option<EpochAt>, GatewayError>;

    /// A transaction that waits in the mempool.
    fn pending(&self, key: TxKey) -> Option<Bytes>;

    /// The nonce after `sender`'s waiting transactions; none if it has none waiting.
    fn pending_nonce(&self, rollup: RollupId, sender: Address) -> Option<u64>;

    /// Hashes of newly accepted transactions.
    fn subscribe_pending(&self, rollup: RollupId) -> broadcast::Receiver<TxHash>;

    /// The executed chain of an EVM rollup that this node runs.
    fn evm(&self, rollup: RollupId) -> Option<Arc<dyn EvmChain>>;

    /// A message between rollups that run here, by its id; none if none of them has sent it.
    fn message(&self, _id: B256) -> Result<Option<MessageAt>, GatewayError> {
        Ok(None)
    }

    /// What brings a message further, in order; none as [`Self::message`].
    fn delivery(&self, _id: B256) -> Result<Option<Vec<OpenCall>>, GatewayError> {
        Ok(None)
    }

    /// The messages that a transaction has sent, as far as it is executed here.
    fn sent_by(&self, _rollup: RollupId, _transaction: TxHash) -> Result<Vec<B256>, GatewayError> {
        Ok(Vec::new())
    }

    /// Offers a bundle; answers once a quorum of validators holds it, or with the reason why not.
    fn submit_bundle(&self, _bundle: SignedBundle) -> BoxFuture<'_, Result<B256, BundleRefusal>> {
        Box::pin(std::future::ready(Err(BundleRefusal::Protocol)))
    }

    /// Where a bundle is; none if nothing is known of it.
    fn bundle(&self, _id: B256) -> Result<Option<BundleAt>, GatewayError> {
        Ok(None)
    }

    /// What carries out the decision on a bundle; none where its legs are not in the log.
    fn settlement(&self, _id: B256) -> Result<Option<Vec<OpenCall>>, GatewayError> {
        Ok(None)
    }

    /// One line a problem, newest last, at most 16: what an operator should look at.
    fn recent_errors(&self) -> Vec<String>;
}
