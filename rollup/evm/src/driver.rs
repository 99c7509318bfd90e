//! The driver: from hub blocks to rollup blocks, one atomic write each.

use crate::{
    chain::Chain,
    changes::Changes,
    deposits::WaitingDeposits,
    execute::{Attributes, Executed, Execution, Taken},
    open_block::OpenBlock,
    outbox::Outbox,
    pending::{Fresh, HubBlock, Pending, WAITING_BLOCKS_MAX, WAITING_BYTES_MAX, Weight},
    records::{Progress, decode_outcome},
    store::{Column, StateError},
    trie,
    view::StateView,
    votes::{self, Leg, WaitingVotes},
};
use alloy_primitives::map::B256Map;
use std::sync::Arc;
use switchyard_bridge_core::{Checkpoint, predeploys::OUTBOX, votes_root};
use switchyard_primitives::TxHash;
use switchyard_rollup_core::{
    Applied, Driver, DriverError, Sealing, SegmentInput, TxOutcome,
    evm::{Attestable, ExecutedBlock},
};

/// Most rollup blocks made at once because of one hub block's gas; what asks for more is skipped. An honest leader asks for
/// one; without a bound a dishonest one could keep every node busy with a block for each transaction. Part of the
/// derivation rules.
const BLOCKS_PER_HUB_BLOCK: usize = 16;

/// With one-second sealing, the most that a block's timestamp is ahead of the time of the hub block by which it is opened:
/// however much is sent, a deadline or a time lock comes no earlier than that. What makes a rollup's clock run ahead is
/// cheap, since a block is full of what its transactions ask for and paid for by what they use. Part of the derivation
/// rules.
const LEAD_SECONDS_MAX: u64 = 64;

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
    votes: WaitingVotes,
    deposits: WaitingDeposits,
    outbox: Outbox,
    /// A call failed half-way: what is in memory is not to be trusted.
    stale: bool,
}

impl EvmDriver {
    pub(crate) fn new(chain: Arc<Chain>, progress: Progress) -> Result<Self, StateError> {
        let outbox = Outbox::load(&StateView::latest(&chain.store, &Changes::default()))?;
        let (pending, votes, deposits) = (Pending::default(), WaitingVotes::default(), WaitingDeposits::default());
        let mut driver = Self { chain, progress, pending, open: None, votes, deposits, outbox, stale: true };
        driver.restore()?;
        driver.show(Vec::new());
        Ok(driver)
    }

    /// Makes what is in memory from the database: executes what waits once more.
    fn restore(&mut self) -> Result<(), StateError> {
        self.pending = Pending::load(&self.chain.store, &self.chain.senders, self.progress.pending_taken)?;
        self.votes = WaitingVotes::load(&self.chain.store)?;
        self.deposits = WaitingDeposits::load(&self.chain.store)?;
        self.outbox = Outbox::load(&StateView::latest(&self.chain.store, &Changes::default()))?;
        self.open = None;
        // Changes nothing but the open block.
        Step::new(self).fill()?;
        self.stale = false;
        Ok(())
    }

    fn step(&mut self, input: &SegmentInput) -> Result<Applied, StateError> {
        if self.stale {
            self.restore()?;
        }
        self.stale = true;
        let mut step = Step::new(self);
        step.deposits.add(&mut step.changes, input.hub_height, &input.deposits);
        match step.chain.sealing {
            Sealing::HubBlock => step.seal_hub_block(input)?,
            Sealing::OneSecond => step.seal_by_second(input)?,
        }
        step.mark_time(input)?;
        let Step { changes, mut applied, parent, pending, .. } = step;
        applied.executed_to = pending.oldest_left().map_or(input.hub_height, |left| left.hub.height.saturating_sub(1));
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
        let open = self.open.as_mut().zip(newest).map(|(open, newest)| open.show(newest.hub.height));
        let taken = self.open.as_ref().map(OpenBlock::weight).unwrap_or_default();
        let has_room = self.pending.weight(taken).has_room(self.chain.gas_limit());
        self.chain.advance(blocks, open, self.outbox.count(), has_room);
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
    votes: &'a mut WaitingVotes,
    deposits: &'a mut WaitingDeposits,
    outbox: &'a mut Outbox,
    changes: Changes,
    applied: Applied,
    /// The newest closed block, written or not.
    parent: Arc<ExecutedBlock>,
}

impl<'a> Step<'a> {
    fn new(driver: &'a mut EvmDriver) -> Self {
        let EvmDriver { chain, pending, open, votes, deposits, outbox, .. } = driver;
        let (changes, applied) = (Changes::default(), Applied::default());
        let parent = chain.head();
        Self { chain, pending, open, votes, deposits, outbox, changes, applied, parent }
    }

    /// One block for the hub block, or as many as its transactions' gas needs.
    fn seal_hub_block(&mut self, input: &SegmentInput) -> Result<(), StateError> {
        let fresh = self.recover(input)?;
        self.pending.push(input.into(), fresh);
        for _ in 0..BLOCKS_PER_HUB_BLOCK {
            if self.pending.queue.is_empty() {
                return Ok(());
            }
            self.fill()?;
            self.close()?;
        }
        self.turn_away(0, &format!("the hub block asks for more than {BLOCKS_PER_HUB_BLOCK} blocks of gas"))
    }

    /// Skips all but the first `len` of the queue.
    fn turn_away(&mut self, len: usize, reason: &str) -> Result<(), StateError> {
        let (hashes, legs) = self.pending.truncate(len);
        for leg in legs {
            self.votes.add(&mut self.changes, leg.no());
        }
        hashes.into_iter().try_for_each(|hash| self.skip(hash, reason.into()))
    }

    /// A plain Ethereum block for each second, closed when a hub block of a later second arrives. What does not fit
    /// waits for the next second, but never more than a bound: beyond it, blocks run ahead of the hub's clock, which has a
    /// bound too. Of what is then too much, the hub block's own last transactions are skipped: nothing that waits already
    /// gives way to what comes later.
    fn seal_by_second(&mut self, input: &SegmentInput) -> Result<(), StateError> {
        let now = input.timestamp_ms / 1000;
        while self.open.as_ref().is_some_and(|open| open.header().timestamp < now) {
            self.close()?;
            self.fill()?;
        }
        let fresh = self.recover(input)?;
        let mut record = fresh.record(input.into());
        self.pending.push(input.into(), fresh);
        for _ in 0..BLOCKS_PER_HUB_BLOCK {
            let may_lead = self.earliest() < now.saturating_add(LEAD_SECONDS_MAX);
            if !may_lead || !self.pending.weight(self.taken()).is_too_much(self.chain.gas_limit()) {
                break;
            }
            self.fill()?;
            self.close()?;
        }
        // Before anything more is executed: what the open block has taken stays.
        let fitting = self.pending.fitting(input.hub_height, self.taken(), self.chain.gas_limit());
        self.turn_away(fitting, &no_room())?;
        self.fill()?;
        if let Some(kept) = self.pending.kept(input.hub_height) {
            record.truncate(kept);
            self.changes.pending.insert(input.hub_height, Some(record));
        }
        Ok(())
    }

    /// The weight of what the open block has taken.
    fn taken(&self) -> Weight {
        self.open.as_ref().map(OpenBlock::weight).unwrap_or_default()
    }

    /// The segment's transactions with their senders. Those that are no transactions of this chain are skipped here.
    fn recover(&mut self, input: &SegmentInput) -> Result<Fresh, StateError> {
        let mut fresh = Fresh::default();
        let mut positions = B256Map::default();
        for (hash, recovered) in self.chain.senders.recover_all(&input.transactions) {
            match recovered {
                Ok(tx) => {
                    positions.entry(hash).or_insert(fresh.transactions.len());
                    fresh.transactions.push(tx);
                }
                Err(rejection) => self.skip(hash, rejection.to_string())?,
            }
        }
        for (place, leg) in (0..).zip(&input.legs) {
            let (bundle, index) = (leg.bundle, leg.leg);
            let queued = Leg { hub_height: input.hub_height, place, bundle, leg: index };
            match positions.get(&leg.tx) {
                Some(position) => fresh.legs.push((*position, queued)),
                None => self.votes.add(&mut self.changes, queued.no()),
            }
        }
        fresh.legs.sort_by_key(|(position, _)| *position);
        Ok(fresh)
    }

    /// Executes what waits into the open block, as far as it fits. Opens one if there is none.
    fn fill(&mut self) -> Result<(), StateError> {
        if self.open.is_none() {
            let Some(first) = self.pending.oldest() else { return Ok(()) };
            *self.open = Some(self.open_block(first.hub)?);
        }
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        let view = StateView::latest(&self.chain.store, &self.changes);
        let index = u32::try_from(open.len()).unwrap_or(u32::MAX);
        let first = self.pending.popped();
        let taken = open.extend(view, &mut self.pending.queue)?;
        // Legs and transactions are in the same order.
        let mut legs = self.pending.take_legs().into_iter().peekable();
        let mut receipt = index as usize;
        for (place, taken) in (first..).zip(&taken) {
            let own = taken.result.is_ok().then_some(receipt);
            while let Some((_, leg)) = legs.next_if(|(at, _)| *at == place) {
                open.take_leg(leg, own);
            }
            receipt += usize::from(own.is_some());
        }
        self.decide(taken, index)
    }

    /// Opens a block. All that its transactions will observe is fixed here: by a hub block, that of which the first
    /// transaction waits, and by the parent.
    fn open_block(&self, opener: HubBlock) -> Result<OpenBlock, StateError> {
        let is_one_second = self.chain.sealing == Sealing::OneSecond;
        let timestamp = (opener.timestamp_ms / 1000).max(self.earliest());
        OpenBlock::open(
            self.chain.rollup,
            self.chain.chain_id,
            (&self.parent.header, self.parent.hash),
            Attributes { hub_hash: opener.hash, hub_root: opener.root, timestamp },
            StateView::latest(&self.chain.store, &self.changes),
            is_one_second,
        )
    }

    /// Least timestamp of the next block.
    fn earliest(&self) -> u64 {
        self.parent.header.timestamp + u64::from(self.chain.sealing == Sealing::OneSecond)
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
        let (execution, outcomes, legs) = open.into_parts();
        self.changes.outcomes.extend(outcomes);
        if is_empty {
            legs.into_iter().for_each(|(leg, _)| self.votes.add(&mut self.changes, leg.no()));
            return Ok(());
        }
        self.include(execution, newest.hub.height, &legs)
    }

    /// Makes an empty block: for votes and deposits that no other block carries, so that those who wait for them need not wait for
    /// the rollup's next transaction; and for a rollup that has had none for a while, since wallets' libraries look for a receipt,
    /// and count confirmations, when the block number changes. A rollup that was never used has no blocks.
    fn mark_time(&mut self, input: &SegmentInput) -> Result<(), StateError> {
        if self.open.is_some() || !self.pending.queue.is_empty() {
            return Ok(());
        }
        let parent = &self.parent.header;
        let now = input.timestamp_ms / 1000;
        let has_some = !(self.votes.is_empty() && self.deposits.is_empty()) && now >= self.earliest();
        let is_idle = parent.number > 0 && now >= parent.timestamp.saturating_add(IDLE_SECONDS);
        if !has_some && !is_idle {
            return Ok(());
        }
        let (execution, ..) = self.open_block(input.into())?.into_parts();
        self.include(execution, input.hub_height, &[])
    }

    /// Ends a block and adds it to the changes. `legs` are those that it has taken, with the positions of their receipts.
    fn include(
        &mut self,
        execution: Execution,
        hub_height: u64,
        legs: &[(Leg, Option<usize>)],
    ) -> Result<(), StateError> {
        let withdrawals = self.deposits.take(&mut self.changes, hub_height);
        let view = StateView::latest(&self.chain.store, &self.changes);
        let executed = execution.close(view, hub_height, &withdrawals)?;
        let Executed { mut header, transactions, senders, receipts, updates, codes } = executed;
        let before = self.parent.header.state_root;
        let has_sent = updates.iter().any(|update| update.address == OUTBOX && !update.slots.is_empty());
        self.changes.codes.extend(codes);
        header.state_root = trie::apply(&self.chain.store, &mut self.changes, before, updates)?;
        let hash = header.hash_slow();
        self.outbox.take_in(&self.chain.store, &mut self.changes, header.number, &receipts, has_sent)?;
        for vote in votes::cast(header.number, &receipts, legs) {
            self.votes.add(&mut self.changes, vote);
        }
        let votes = self.votes.take(&self.chain.store, &mut self.changes, hub_height)?;
        let checkpoint = Checkpoint {
            rollup: self.chain.rollup,
            number: header.number,
            hub_height,
            block_hash: hash,
            state_root: header.state_root,
            outbox_root: self.outbox.root(),
            votes_root: votes_root(&votes),
        };
        self.applied.checkpoints.push(checkpoint);
        self.changes.checkpoints.push(Attestable { checkpoint, votes });
        self.parent =
            Arc::new(ExecutedBlock { header, hash, hub_height, transactions, senders, receipts, withdrawals });
        self.changes.blocks.push(self.parent.clone());
        Ok(())
    }

    /// Records why a transaction is not executed, unless the same transaction has been before.
    fn skip(&mut self, hash: TxHash, reason: String) -> Result<(), StateError> {
        let standing = self.standing(hash)?;
        if standing.is_none() {
            self.changes.outcomes.insert(hash, TxOutcome::Skipped { reason: reason.clone() });
        }
        self.applied.outcomes.push((hash, standing.unwrap_or(TxOutcome::Skipped { reason })));
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

/// Why a transaction is turned away.
fn no_room() -> String {
    let mib = WAITING_BYTES_MAX >> 20;
    format!(
        "no room: more than {WAITING_BLOCKS_MAX} blocks of gas or {mib} MiB of calldata would wait; its nonce is not used"
    )
}

#[cfg(test)]
mod tests;
