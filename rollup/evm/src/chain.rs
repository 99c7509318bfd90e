//! What the driver and the readers of one rollup share.

use crate::{
    execute::next_base_fee,
    open_block::OpenView,
    records::{BodyRecord, decode, executed_block},
    senders::Senders,
    store::{Column, StateError, Store},
    view,
};
use alloy::consensus::Transaction;
use alloy_primitives::map::DefaultHashBuilder;
use arc_swap::ArcSwap;
use lru::LruCache;
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Sealing, evm::ExecutedBlock};
use tokio::sync::{broadcast, watch};

/// Blocks that a subscriber may fall behind before it is told that it missed some.
const FEED_BLOCKS: usize = 256;
/// Memory for recently used blocks.
const RECENT_BYTES_MAX: usize = 8 << 20;

/// One rollup's chain.
pub(crate) struct Chain {
    pub(crate) store: Store,
    pub(crate) rollup: RollupId,
    pub(crate) chain_id: u64,
    pub(crate) sealing: Sealing,
    pub(crate) senders: Senders,
    tip: ArcSwap<Tip>,
    recent: Mutex<Recent>,
    feed: broadcast::Sender<Arc<ExecutedBlock>>,
    pending_feed: watch::Sender<()>,
    head_feed: watch::Sender<u64>,
    /// The greatest block number that the hub has said is attested.
    attested: AtomicU64,
}

/// The end of the chain, which changes as one.
#[derive(Clone)]
struct Tip {
    head: Arc<ExecutedBlock>,
    /// On top of the head.
    open: Option<OpenView>,
    /// Messages that were sent up to the head.
    outbox_count: u64,
    /// Whether so little waits that a leader adds to it.
    has_room: bool,
}

impl Chain {
    pub(crate) fn new(store: Store, rollup: RollupId, chain_id: u64, sealing: Sealing, head: ExecutedBlock) -> Self {
        let number = head.header.number;
        Self {
            store,
            rollup,
            chain_id,
            sealing,
            senders: Senders::new(chain_id),
            tip: ArcSwap::from_pointee(Tip { head: Arc::new(head), open: None, outbox_count: 0, has_room: true }),
            recent: Mutex::new(Recent::default()),
            feed: broadcast::Sender::new(FEED_BLOCKS),
            pending_feed: watch::Sender::new(()),
            head_feed: watch::Sender::new(number),
            attested: AtomicU64::new(0),
        }
    }

    pub(crate) fn head(&self) -> Arc<ExecutedBlock> {
        self.tip.load().head.clone()
    }

    /// The open block, which may be one in which everything was skipped so far.
    pub(crate) fn open(&self) -> Option<OpenView> {
        self.tip.load().open.clone()
    }

    /// The open block if it holds a transaction, so that it will be closed with this number.
    pub(crate) fn pending(&self) -> Option<OpenView> {
        self.open().filter(|open| !open.block.transactions.is_empty())
    }

    pub(crate) fn outbox_count(&self) -> u64 {
        self.tip.load().outbox_count
    }

    /// Takes note that a block is attested, whether or not it is closed here.
    pub(crate) fn set_attested(&self, number: u64) {
        self.attested.fetch_max(number, Ordering::AcqRel);
    }

    /// The newest closed block that is attested; genesis while there is none.
    pub(crate) fn attested(&self) -> u64 {
        self.attested.load(Ordering::Acquire).min(self.tip.load().head.header.number)
    }

    /// The same in every block.
    pub(crate) fn gas_limit(&self) -> u64 {
        self.tip.load().head.header.gas_limit
    }

    /// Whether so little waits that a leader adds to it.
    pub(crate) fn has_room(&self) -> bool {
        self.tip.load().has_room
    }

    pub(crate) fn next_base_fee(&self) -> u64 {
        next_base_fee(&self.tip.load().head.header)
    }

    /// A block by number; none if there is no such block.
    pub(crate) fn block(&self, number: u64) -> Result<Option<Arc<ExecutedBlock>>, StateError> {
        let head = &self.tip.load().head;
        if number >= head.header.number {
            return Ok((number == head.header.number).then(|| head.clone()));
        }
        if let Some(block) = self.recent.lock().get(number) {
            return Ok(Some(block));
        }
        let block = read_block(&self.store, number)?.map(Arc::new);
        if let Some(block) = &block {
            self.recent.lock().put(block.clone());
        }
        Ok(block)
    }

    /// Shows blocks that have been written, the number of messages sent up to them, the open block on top of them, and
    /// whether leaders may add to what waits, to readers and subscribers.
    pub(crate) fn advance(
        &self,
        blocks: Vec<Arc<ExecutedBlock>>,
        open: Option<OpenView>,
        outbox_count: u64,
        has_room: bool,
    ) {
        let before = self.tip.load_full();
        let has_changed = match (&before.open, &open) {
            (Some(before), Some(open)) => !Arc::ptr_eq(&before.block, &open.block),
            (before, open) => before.is_some() || open.is_some(),
        };
        let head = blocks.last().unwrap_or(&before.head).clone();
        for block in &blocks {
            self.recent.lock().put(block.clone());
        }
        let number = head.header.number;
        self.tip.store(Arc::new(Tip { head, open, outbox_count, has_room }));
        if !blocks.is_empty() {
            self.head_feed.send_replace(number);
        }
        for block in blocks {
            // An error only says that nobody listens.
            let _ = self.feed.send(block);
        }
        if has_changed {
            self.pending_feed.send_replace(());
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<ExecutedBlock>> {
        self.feed.subscribe()
    }

    pub(crate) fn watch_head(&self) -> watch::Receiver<u64> {
        self.head_feed.subscribe()
    }

    pub(crate) fn subscribe_pending(&self) -> watch::Receiver<()> {
        self.pending_feed.subscribe()
    }
}

/// Reads a block; none if there is no such block.
pub(crate) fn read_block(store: &Store, number: u64) -> Result<Option<ExecutedBlock>, StateError> {
    let key = number.to_be_bytes();
    let Some(header) = view::header(store, number)? else { return Ok(None) };
    let Some(body) = store.get(Column::Bodies, &key)? else { return Ok(None) };
    let body: BodyRecord = decode(Column::Bodies, &key, &body)?;
    Ok(Some(executed_block(header, body)))
}

/// Recently used blocks, bounded by an estimate of their size in memory.
struct Recent {
    blocks: LruCache<u64, (usize, Arc<ExecutedBlock>), DefaultHashBuilder>,
    bytes: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { blocks: LruCache::unbounded_with_hasher(DefaultHashBuilder::default()), bytes: 0 }
    }
}

impl Recent {
    fn get(&mut self, number: u64) -> Option<Arc<ExecutedBlock>> {
        self.blocks.get(&number).map(|(_, block)| block.clone())
    }

    fn put(&mut self, block: Arc<ExecutedBlock>) {
        let bytes = size(&block);
        self.bytes += bytes;
        if let Some((replaced, _)) = self.blocks.put(block.header.number, (bytes, block)) {
            self.bytes -= replaced;
        }
        while self.bytes > RECENT_BYTES_MAX
            && let Some((_, (bytes, _))) = self.blocks.pop_lru()
        {
            self.bytes -= bytes;
        }
    }
}

fn size(block: &ExecutedBlock) -> usize {
    let transactions: usize = block.transactions.iter().map(|tx| 512 + tx.input().len()).sum();
    let logs = block.receipts.iter().flat_map(|receipt| receipt.logs());
    let receipts: usize = logs.map(|log| 192 + log.data.data.len()).sum();
    // A receipt's bloom alone has 256 bytes.
    1024 + transactions + block.receipts.len() * 320 + receipts + block.withdrawals.len() * 48
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::consensus::{Header, Signed, TxEip1559, TxEnvelope};
    use alloy_primitives::{B256, Bytes, Signature};

    fn block(number: u64, bytes: usize) -> Arc<ExecutedBlock> {
        let tx = TxEip1559 { input: Bytes::from(vec![1; bytes]), ..Default::default() };
        let tx = TxEnvelope::from(Signed::new_unchecked(tx, Signature::test_signature(), B256::ZERO));
        Arc::new(ExecutedBlock {
            header: Header { number, ..Default::default() },
            hash: B256::ZERO,
            hub_height: 0,
            transactions: vec![tx],
            senders: vec![],
            receipts: vec![],
            withdrawals: vec![],
        })
    }

    #[test]
    fn recent_blocks_stay_within_their_bound_and_the_newest_stay() {
        let mut recent = Recent::default();
        for number in 0..100 {
            recent.put(block(number, 1 << 20));
            recent.put(block(number, 1 << 20));
            assert!(recent.bytes <= RECENT_BYTES_MAX);
        }
        assert!(recent.get(99).is_some() && recent.get(0).is_none());
        assert_eq!(recent.bytes, recent.blocks.iter().map(|(_, (bytes, _))| bytes).sum::<usize>());
    }
}
