//! The driver: from hub blocks to rollup blocks, one atomic write each.

use crate::{
    chain::Chain,
    changes::Changes,
    execute::{Attributes, Executed, Taken},
    open_block::OpenBlock,
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

/// Seconds of hub time after a rollup's newest block before it gets an empty one: Ethereum's slot. Part of the derivation
/// rules.
const IDLE_SECONDS: u64 = 12;

/// Derives one EVM rollup. There is one for each open database; it is the only writer.
pub struct EvmDriver {
    chain: Arc<Chain>,
    progress: Progress,
    pending: Pending,
    /// On top of the head; there is one between hub blocks if something waits.
    open: Option<OpenBlock>,
    /// A call failed half-way: what is in memory is not to be trusted.
    stale: bool,
}

impl EvmDriver {
    pub(crate) fn new(chain: Arc<Chain>, progress: Progress) -> Result<Self, StateError> {
        let mut driver = Self { chain, progress, pending: Pending::default(), open: None, stale: true };
        driver.restore()?;
        driver.show(Vec::new());
        Ok(driver)
    }

    /// Makes what is in memory from the database: executes what waits once more.
    fn restore(&mut self) -> Result<(), StateError> {
        self.pending = Pending::load(&self.chain.store, &self.chain.senders, self.progress.pending_taken)?;
        self.open = None;
        let mut step = Step::new(&self.chain, &mut self.pending, &mut self.open);
        step.fill()?;
        self.stale = false;
        Ok(())
    }

    fn step(&mut self, input: &SegmentInput) -> Result<Applied, StateError> {
        if self.stale {
            self.restore()?;
        }
        self.stale = true;
        let mut step = Step::new(&self.chain, &mut self.pending, &mut self.open);
        match self.chain.sealing {
            Sealing::HubBlock => step.seal_hub_block(input)?,
            Sealing::OneSecond => step.seal_by_second(input)?,
        }
        step.mark_time(input)?;
        let Step { changes, mut applied, parent, pending, .. } = step;
        applied.executed_to = pending.oldest_left().map_or(input.hub_height, |left| left.hub_height.saturating_sub(1));
        let progress = Progress {
            next_hub_height: input.hub_height + 1,
            head: parent.header.number,
            pending_taken: pending.taken(),
        };
        changes.write(&self.chain.store, progress)?;
        self.progress = progress;
        self.stale = false;
        self.show(changes.blocks);
        Ok(applied)
    }

    /// Shows readers what is in the database now.
    fn show(&mut self, blocks: Vec<Arc<ExecutedBlock>>) {
        let newest = self.pending.newest();
        let open = self.open.as_mut().zip(newest).map(|(open, newest)| open.show(newest.hub_height));
        self.chain.advance(blocks, open);
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
    open: &'a mut Option<OpenBlock>,
    changes: Changes,
    applied: Applied,
    /// The newest closed block, written or not.
    parent: Arc<ExecutedBlock>,
}

impl<'a> Step<'a> {
    fn new(chain: &'a Chain, pending: &'a mut Pending, open: &'a mut Option<OpenBlock>) -> Self {
        let (changes, applied) = (Changes::default(), Applied::default());
        Self { chain, pending, open, changes, applied, parent: chain.head() }
    }

    /// One block for the hub block, or as many as its transactions' gas needs.
    fn seal_hub_block(&mut self, input: &SegmentInput) -> Result<(), StateError> {
        let fresh = self.recover(input)?;
        self.pending.push(input.hub_height, input.hub_hash, input.timestamp_ms, fresh);
        for _ in 0..BLOCKS_PER_HUB_BLOCK {
            if self.pending.queue.is_empty() {
                return Ok(());
            }
            self.fill()?;
            self.close()?;
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
        while self.open.as_ref().is_some_and(|open| open.header().timestamp < now) {
            self.close()?;
            self.fill()?;
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
            if !self.is_overfull() {
                break;
            }
            self.fill()?;
            self.close()?;
        }
        if self.is_overfull() { self.skip_waiting() } else { self.fill() }
    }

    fn is_overfull(&self) -> bool {
        let taken = self.open.as_ref().map(OpenBlock::weight).unwrap_or_default();
        self.pending.is_overfull(taken, self.chain.gas_limit())
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

    /// Executes what waits into the open block, as far as it fits. Opens one if there is none.
    fn fill(&mut self) -> Result<(), StateError> {
        if self.open.is_none() {
            let Some(first) = self.pending.oldest() else { return Ok(()) };
            *self.open = Some(self.open_block(first.hub_hash, first.timestamp_ms)?);
        }
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        let view = StateView::latest(&self.chain.store, &self.changes);
        let index = u32::try_from(open.len()).unwrap_or(u32::MAX);
        let taken = open.extend(view, &mut self.pending.queue)?;
        self.decide(taken, index)
    }

    /// Opens a block. All that its transactions will observe is fixed here: by a hub block, that of which the first
    /// transaction waits, and by the parent.
    fn open_block(&self, hub_hash: B256, timestamp_ms: u64) -> Result<OpenBlock, StateError> {
        let is_one_second = self.chain.sealing == Sealing::OneSecond;
        let earliest = self.parent.header.timestamp + u64::from(is_one_second);
        let timestamp = (timestamp_ms / 1000).max(earliest);
        OpenBlock::open(
            self.chain.rollup,
            self.chain.chain_id,
            (&self.parent.header, self.parent.hash),
            Attributes { hub_hash, timestamp },
            StateView::latest(&self.chain.store, &self.changes),
            is_one_second,
        )
    }

    /// Takes note of what the open block made of transactions; the first that it executed is at `index`.
    fn decide(&mut self, taken: Vec<Taken>, mut index: u32) -> Result<(), StateError> {
        for Taken { hash, sender, result, .. } in taken {
            let outcome = match result {
                Ok(success) => {
                    self.applied.senders.push(sender);
                    index += 1;
                    TxOutcome::Executed { block: self.parent.header.number + 1, index: index - 1, success }
                }
                Err(reason) => self.standing(hash)?.unwrap_or(TxOutcome::Skipped { reason }),
            };
            if let Some(open) = self.open.as_mut() {
                open.decide(hash, outcome.clone());
            }
            self.applied.outcomes.push((hash, outcome));
        }
        Ok(())
    }

    /// Closes the open block: no more is executed. No block is made of it if all that it took was skipped.
    fn close(&mut self) -> Result<(), StateError> {
        let (Some(open), Some(newest)) = (self.open.take(), self.pending.newest()) else { return Ok(()) };
        for height in self.pending.used() {
            self.changes.pending.insert(height, None);
        }
        let is_empty = open.len() == 0;
        let (execution, outcomes) = open.into_parts();
        self.changes.outcomes.extend(outcomes);
        if is_empty {
            return Ok(());
        }
        let view = StateView::latest(&self.chain.store, &self.changes);
        let executed = execution.close(view, newest.hub_height)?;
        self.include(executed, newest.hub_height)
    }

    /// Makes an empty block for a rollup that has had none for a while: wallets' libraries look for a receipt, and count
    /// confirmations, when the block number changes. A rollup that was never used has no blocks.
    fn mark_time(&mut self, input: &SegmentInput) -> Result<(), StateError> {
        let is_idle = self.open.is_none() && self.pending.queue.is_empty() && self.parent.header.number > 0;
        if !is_idle || input.timestamp_ms / 1000 < self.parent.header.timestamp.saturating_add(IDLE_SECONDS) {
            return Ok(());
        }
        let (execution, _) = self.open_block(input.hub_hash, input.timestamp_ms)?.into_parts();
        let view = StateView::latest(&self.chain.store, &self.changes);
        let executed = execution.close(view, input.hub_height)?;
        self.include(executed, input.hub_height)
    }

    /// Adds an executed block to the changes.
    fn include(&mut self, executed: Executed, hub_height: u64) -> Result<(), StateError> {
        let Executed { mut header, transactions, senders, receipts, updates, codes } = executed;
        let before = self.parent.header.state_root;
        self.changes.codes.extend(codes);
        header.state_root = trie::apply(&self.chain.store, &mut self.changes, before, updates)?;
        let hash = header.hash_slow();
        self.applied.checkpoints.push(Checkpoint {
            rollup: self.chain.rollup,
            number: header.number,
            hub_height,
            block_hash: hash,
            state_root: header.state_root,
            outbox_root: B256::ZERO,
            votes_root: B256::ZERO,
        });
        self.parent = Arc::new(ExecutedBlock { header, hash, hub_height, transactions, senders, receipts });
        self.changes.blocks.push(self.parent.clone());
        Ok(())
    }

    /// Records why a transaction is not executed, unless the same transaction has been before.
    fn skip(&mut self, hash: TxHash, reason: String) -> Result<(), StateError> {
        let outcome = self.standing(hash)?.unwrap_or(TxOutcome::Skipped { reason });
        self.changes.outcomes.insert(hash, outcome.clone());
        self.applied.outcomes.push((hash, outcome));
        Ok(())
    }

    /// The outcome of a transaction that has been executed, which no other takes the place of.
    fn standing(&self, hash: TxHash) -> Result<Option<TxOutcome>, StateError> {
        let known = self.open.as_ref().and_then(|open| open.outcome(hash)).or_else(|| self.changes.outcomes.get(&hash));
        let found = match known {
            Some(outcome) => Some(outcome.clone()),
            None => {
                let bytes = self.chain.store.get(Column::Transactions, hash.as_slice())?;
                bytes.map(|bytes| decode_outcome(hash.as_slice(), &bytes)).transpose()?
            }
        };
        Ok(found.filter(|outcome| matches!(outcome, TxOutcome::Executed { .. })))
    }
}

#[cfg(test)]
mod tests;
