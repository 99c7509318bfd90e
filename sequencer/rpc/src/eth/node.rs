//! What every method handler works with.

use super::{EthLimits, errors::EthError, fees::TipCache, filters::Filters, lanes::Lane};
use crate::Gateway;
use alloy::eips::{BlockId, BlockNumberOrTag};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use switchyard_primitives::{Level, RollupId, TxHash, TxKey};
use switchyard_rollup_core::evm::{EvmChain, ExecutedBlock};
use tokio::sync::Semaphore;

/// A result that is serialised already, so that the async threads only copy it.
pub(super) type Json = Box<RawValue>;

/// One rollup as its JSON-RPC server sees it.
pub(super) struct Node {
    pub(super) rollup: RollupId,
    pub(super) gateway: Arc<dyn Gateway>,
    pub(super) chain: Arc<dyn EvmChain>,
    pub(super) limits: EthLimits,
    pub(super) filters: Filters,
    pub(super) tip: TipCache,
    /// Submissions that wait for the mempool or for a receipt.
    pub(super) submissions: Semaphore,
    reads: Lane,
    calls: Lane,
    scans: Lane,
}

impl Node {
    pub(super) fn new(
        rollup: RollupId,
        gateway: Arc<dyn Gateway>,
        chain: Arc<dyn EvmChain>,
        limits: EthLimits,
    ) -> Self {
        Self {
            rollup,
            gateway,
            chain,
            filters: Filters::new(limits.max_filters, limits.filter_idle),
            tip: TipCache::default(),
            submissions: Semaphore::new(limits.max_submissions),
            reads: Lane::new(limits.read_threads, limits.max_waiting),
            calls: Lane::new(limits.call_threads, limits.max_waiting),
            scans: Lane::new(limits.scan_threads, limits.max_waiting),
            limits,
        }
    }

    /// Runs a read of a few look-ups off the async threads.
    pub(super) async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<Json, EthError>
    where
        T: Serialize,
        F: FnOnce(&Self) -> Result<T, EthError> + Send + 'static,
    {
        self.get(move |node| json(&work(node)?)).await
    }

    /// As [`Self::read`], for work whose result goes on to be used here.
    pub(super) async fn get<T, F>(self: &Arc<Self>, work: F) -> Result<T, EthError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, EthError> + Send + 'static,
    {
        let node = self.clone();
        self.reads.run(move || work(&node)).await
    }

    /// Runs what executes code, in a lane of its own so that look-ups never wait for it.
    pub(super) async fn execute<T, F>(self: &Arc<Self>, work: F) -> Result<Json, EthError>
    where
        T: Serialize,
        F: FnOnce(&Self) -> Result<T, EthError> + Send + 'static,
    {
        let node = self.clone();
        self.calls.run(move || json(&work(&node)?)).await
    }

    /// Runs what goes through many blocks. It must look at the deadline before each of them.
    pub(super) async fn scan<T, F>(self: &Arc<Self>, work: F) -> Result<Json, EthError>
    where
        T: Serialize,
        F: FnOnce(&Self, Deadline) -> Result<T, EthError> + Send + 'static,
    {
        let node = self.clone();
        let scan = move || json(&work(&node, Deadline::after(node.limits.scan_timeout))?);
        self.scans.run(scan).await
    }

    /// The rollup's key of a transaction.
    pub(super) fn key(&self, hash: TxHash) -> TxKey {
        TxKey { rollup: self.rollup, hash }
    }

    /// The number of the closed block that a tag stands for; a number stands for itself, whether or not there is such a
    /// block.
    pub(super) fn tag(&self, tag: BlockNumberOrTag) -> u64 {
        match tag {
            BlockNumberOrTag::Latest | BlockNumberOrTag::Pending => self.chain.head().header.number,
            BlockNumberOrTag::Safe => self.chain.number_at(Level::Attested),
            BlockNumberOrTag::Finalized => self.chain.number_at(Level::Settled),
            BlockNumberOrTag::Earliest => 0,
            BlockNumberOrTag::Number(number) => number,
        }
    }

    /// The number of the block whose state is asked for: `pending` is the open block where there is one. Blocks on storage.
    pub(super) fn state_number(&self, id: BlockId) -> Result<u64, EthError> {
        match self.chain.pending().filter(|_| id.is_pending()) {
            Some(open) => Ok(open.header.number),
            None => self.number(id),
        }
    }

    /// The number of a closed block. Blocks on storage.
    pub(super) fn number(&self, id: BlockId) -> Result<u64, EthError> {
        let number = match id {
            BlockId::Number(tag) => Some(self.tag(tag)).filter(|n| *n <= self.chain.head().header.number),
            BlockId::Hash(hash) => self.chain.block_by_hash(hash.block_hash)?.map(|b| b.header.number),
        };
        number.ok_or(EthError::HeaderNotFound)
    }

    /// A block, none if there is no such block; `pending` is the open block where there is one. Blocks on storage.
    pub(super) fn block(&self, id: BlockId) -> Result<Option<Arc<ExecutedBlock>>, EthError> {
        match id {
            BlockId::Number(BlockNumberOrTag::Latest) => Ok(Some(self.chain.head())),
            BlockId::Number(BlockNumberOrTag::Pending) => Ok(Some(match self.chain.pending() {
                Some(open) => Arc::new(open.to_block()),
                None => self.chain.head(),
            })),
            BlockId::Number(tag) => self.block_at(self.tag(tag)),
            BlockId::Hash(hash) => Ok(self.chain.block_by_hash(hash.block_hash)?),
        }
    }

    /// The block of this number, none above the head. Blocks on storage.
    pub(super) fn block_at(&self, number: u64) -> Result<Option<Arc<ExecutedBlock>>, EthError> {
        let head = self.chain.head();
        if head.header.number == number {
            return Ok(Some(head));
        }
        Ok(self.chain.block_by_number(number)?)
    }
}

/// When a scan has to give up its thread.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    allowed: Duration,
}

impl Deadline {
    fn after(allowed: Duration) -> Self {
        Self { at: Instant::now() + allowed, allowed }
    }

    /// An error once the time is over.
    pub(super) fn check(self) -> Result<(), EthError> {
        if Instant::now() < self.at {
            return Ok(());
        }
        Err(EthError::Limit(format!("query takes longer than {} ms: ask for fewer blocks", self.allowed.as_millis())))
    }
}

/// Serialises a result.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Json, EthError> {
    to_raw_value(value).map_err(|e| EthError::Internal(format!("serialise result: {e}")))
}
