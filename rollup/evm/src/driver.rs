//! The driver: from hub blocks to rollup blocks, one atomic write each.

use crate::{
    chain::Chain,
    changes::Changes,
    execute::{self, Attributes, Executed},
    pending::Pending,
    records::{PendingRecord, Progress, decode_outcome},
    store::{Column, StateError},
    trie,
    view::StateView,
};
use alloy::{
    consensus::{TxEnvelope, transaction::Recovered},
    eips::Encodable2718,
};
use alloy_primitives::B256;
use std::sync::Arc;
use switchyard_bridge_core::Checkpoint;
use switchyard_primitives::TxHash;
use switchyard_rollup_core::{Applied, Driver, DriverError, Sealing, SegmentInput, TxOutcome, evm::ExecutedBlock};

/// Most rollup blocks made at once because of one hub block's gas; what asks for more is skipped. An honest leader asks for
/// one; without a bound a dishonest one could keep every node busy with a block for each transaction. Part of the
/// derivation rules.
const BLOCKS_PER_HUB_BLOCK: usize = 16;

/// Derives one EVM rollup. There is one for each open database; it is the only writer.
pub struct EvmDriver {
    chain: Arc<Chain>,
    progress: Progress,
    pending: Pending,
    /// A call failed half-way: what is in memory is not to be trusted.
    stale: bool,
}

impl EvmDriver {
    pub(crate) fn new(chain: Arc<Chain>, progress: Progress) -> Result<Self, StateError> {
        let pending = Pending::load(&chain.store, &chain.senders, progress.pending_taken)?;
        Ok(Self { chain, progress, pending, stale: false })
    }

    fn step(&mut self, input: &SegmentInput) -> Result<Applied, StateError> {
        if self.stale {
            self.pending = Pending::load(&self.chain.store, &self.chain.senders, self.progress.pending_taken)?;
        }
        self.stale = true;
        let mut step = Step::new(&self.chain, &mut self.pending);
        match self.chain.sealing {
            Sealing::HubBlock => step.seal_hub_block(input)?,
            Sealing::OneSecond => step.seal_by_second(input)?,
        }
        let Step { changes, mut applied, parent, pending, .. } = step;
        applied.executed_to = pending.oldest().map_or(input.hub_height, |oldest| oldest.hub_height.saturating_sub(1));
        let progress = Progress {
            next_hub_height: input.hub_height + 1,
            head: parent.header.number,
            pending_taken: self.pending.taken(),
        };
        changes.write(&self.chain.store, progress)?;
        self.progress = progress;
        self.stale = false;
        self.chain.advance(changes.blocks);
        Ok(applied)
    }
}

impl Driver for EvmDriver {
    fn next_hub_height(&self) -> u64 {
        self.progress.next_hub_height
    }

    fn apply(&mut self, input: &SegmentInput) -> Result<Applied, DriverError> {
        let expected = self.progress.next_hub_height;
        if input.hub_height != expected {
            return Err(DriverError::OutOfOrder { expected, found: input.hub_height });
        }
        self.step(input).map_err(|e| DriverError::Storage(e.to_string()))
    }
}

/// One hub block on its way.
struct Step<'a> {
    chain: &'a Chain,
    pending: &'a mut Pending,
    changes: Changes,
    applied: Applied,
    /// The newest block, written or not.
    parent: Arc<ExecutedBlock>,
}

impl<'a> Step<'a> {
    fn new(chain: &'a Chain, pending: &'a mut Pending) -> Self {
        Self { chain, pending, changes: Changes::default(), applied: Applied::default(), parent: chain.head() }
    }

    /// One block for the hub block, or as many as its transactions' gas needs.
    fn seal_hub_block(&mut self, input: &SegmentInput) -> Result<(), StateError> {
        let fresh = self.recover(input)?;
        self.pending.push(input.hub_height, input.hub_hash, input.timestamp_ms, fresh);
        for _ in 0..BLOCKS_PER_HUB_BLOCK {
            if self.pending.queue.is_empty() {
                return Ok(());
            }
            let timestamp = (input.timestamp_ms / 1000).max(self.parent.header.timestamp);
            self.close_block(timestamp)?;
        }
        self.skip_waiting()
    }

    /// Skips what is left of a hub block that asks for more gas than any honest leader puts into one.
    fn skip_waiting(&mut self) -> Result<(), StateError> {
        let hashes: Vec<TxHash> = self.pending.queue.drain(..).map(|tx| *tx.tx_hash()).collect();
        for height in self.pending.used() {
            self.changes.pending.insert(height, None);
        }
        for hash in hashes {
            self.skip(hash, format!("the hub block asks for more than {BLOCKS_PER_HUB_BLOCK} blocks of gas"))?;
        }
        Ok(())
    }

    /// A plain Ethereum block for each second, closed when a hub block of a later second arrives. What does not fit
    /// waits for the next second, but never more than a bound: beyond it, blocks run ahead of the hub's clock.
    fn seal_by_second(&mut self, input: &SegmentInput) -> Result<(), StateError> {
        let now = input.timestamp_ms / 1000;
        while let Some(newest) = self.pending.newest() {
            let timestamp = (newest.timestamp_ms / 1000).max(self.parent.header.timestamp + 1);
            if timestamp >= now {
                break;
            }
            self.close_block(timestamp)?;
        }
        let fresh = self.recover(input)?;
        if !fresh.is_empty() {
            let record = PendingRecord {
                hub_hash: input.hub_hash,
                timestamp_ms: input.timestamp_ms,
                transactions: fresh.iter().map(|tx| tx.encoded_2718().into()).collect(),
            };
            self.changes.pending.insert(input.hub_height, Some(record));
            self.pending.push(input.hub_height, input.hub_hash, input.timestamp_ms, fresh);
        }
        for _ in 0..BLOCKS_PER_HUB_BLOCK {
            if !self.pending.is_overfull(self.chain.gas_limit()) {
                return Ok(());
            }
            let timestamp = now.max(self.parent.header.timestamp + 1);
            self.close_block(timestamp)?;
        }
        if self.pending.is_overfull(self.chain.gas_limit()) { self.skip_waiting() } else { Ok(()) }
    }

    /// The segment's transactions with their senders. Those that are no transactions of this chain are skipped here.
    fn recover(&mut self, input: &SegmentInput) -> Result<Vec<Recovered<TxEnvelope>>, StateError> {
        let mut fresh = Vec::with_capacity(input.transactions.len());
        for (hash, recovered) in self.chain.senders.recover_all(&input.transactions) {
            match recovered {
                Ok(tx) => fresh.push(tx),
                Err(rejection) => self.skip(hash, rejection.to_string())?,
            }
        }
        Ok(fresh)
    }

    /// Makes one block of what waits, as far as the gas limit allows; none if nothing of it can be executed.
    fn close_block(&mut self, timestamp: u64) -> Result<(), StateError> {
        let Some(newest) = self.pending.newest() else { return Ok(()) };
        let attributes = Attributes { hub_height: newest.hub_height, hub_hash: newest.hub_hash, timestamp };
        let outcome = execute::execute(
            self.chain.rollup,
            self.chain.chain_id,
            (&self.parent.header, self.parent.hash),
            attributes,
            StateView::latest(&self.chain.store, &self.changes),
            &mut self.pending.queue,
        )?;
        for height in self.pending.used() {
            self.changes.pending.insert(height, None);
        }
        if let Some(executed) = outcome.block {
            self.include(executed, newest.hub_height)?;
        }
        for (hash, reason) in outcome.skipped {
            self.skip(hash, reason)?;
        }
        Ok(())
    }

    /// Adds an executed block to the changes.
    fn include(&mut self, executed: Executed, hub_height: u64) -> Result<(), StateError> {
        let Executed { mut header, transactions, senders, receipts, updates, codes } = executed;
        let before = self.parent.header.state_root;
        self.changes.codes.extend(codes);
        header.state_root = trie::apply(&self.chain.store, &mut self.changes, before, updates)?;
        let hash = header.hash_slow();
        for (index, (tx, receipt)) in (0..).zip(transactions.iter().zip(&receipts)) {
            let outcome = TxOutcome::Executed { block: header.number, index, success: receipt.status() };
            self.changes.outcomes.insert(*tx.tx_hash(), outcome.clone());
            self.applied.outcomes.push((*tx.tx_hash(), outcome));
        }
        self.applied.checkpoints.push(Checkpoint {
            rollup: self.chain.rollup,
            number: header.number,
            hub_height,
            block_hash: hash,
            state_root: header.state_root,
            outbox_root: B256::ZERO,
            votes_root: B256::ZERO,
        });
        self.applied.senders.extend(&senders);
        self.parent = Arc::new(ExecutedBlock { header, hash, hub_height, transactions, senders, receipts });
        self.changes.blocks.push(self.parent.clone());
        Ok(())
    }

    /// Records why a transaction is not executed, unless the same transaction has been before.
    fn skip(&mut self, hash: TxHash, reason: String) -> Result<(), StateError> {
        let standing = match self.changes.outcomes.get(&hash) {
            Some(outcome) => Some(outcome.clone()),
            None => {
                let bytes = self.chain.store.get(Column::Transactions, hash.as_slice())?;
                bytes.map(|bytes| decode_outcome(hash.as_slice(), &bytes)).transpose()?
            }
        };
        let outcome = match standing {
            Some(executed @ TxOutcome::Executed { .. }) => executed,
            _ => TxOutcome::Skipped { reason },
        };
        self.changes.outcomes.insert(hash, outcome.clone());
        self.applied.outcomes.push((hash, outcome));
        Ok(())
    }
}
