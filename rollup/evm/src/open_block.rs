//! The block that is being made: its execution, and what readers are shown of it.

use crate::{
    execute::{Attributes, Execution, Taken, extra_data},
    overlay::{Delta, Overlay},
    pending::Weight,
    store::StateError,
    view::StateView,
    votes::Leg,
};
use alloy::consensus::{Header, ReceiptEnvelope, TxEnvelope, TxReceipt, transaction::Recovered};
use alloy_primitives::{Address, B256, U256, map::B256Map};
use revm::state::{AccountInfo, Bytecode};
use std::{collections::VecDeque, sync::Arc};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{
    TxOutcome,
    evm::{PendingBlock, PendingTransaction},
};

/// The open block as its driver has it.
pub(crate) struct OpenBlock {
    execution: Execution,
    /// Of all that was taken from the queue, skipped or not.
    weight: Weight,
    /// What became of each transaction.
    outcomes: B256Map<TxOutcome>,
    /// Legs among what was taken, with the positions of their receipts; none for those that were skipped.
    legs: Vec<(Leg, Option<usize>)>,
    /// What readers have not been shown yet.
    fresh: Delta,
    /// Whether it will be shown: not where it is closed within the same hub block.
    is_shown: bool,
    shown: PendingBlock,
    shown_logs: usize,
    overlay: Arc<Overlay>,
    version: u32,
    /// What was shown last.
    view: Option<OpenView>,
}

/// The open block as readers see it, at one time.
#[derive(Clone)]
pub(crate) struct OpenView {
    pub(crate) block: Arc<PendingBlock>,
    overlay: Arc<Overlay>,
    version: u32,
}

impl OpenBlock {
    /// Opens a block on `parent`.
    pub(crate) fn open(
        rollup: RollupId,
        chain_id: u64,
        parent: (&Header, B256),
        attributes: Attributes,
        view: StateView<'_>,
        is_shown: bool,
    ) -> Result<Self, StateError> {
        let mut fresh = Delta::default();
        let record = |changes: &_| {
            if is_shown {
                fresh.system_calls(changes);
            }
        };
        let execution = Execution::open(rollup, chain_id, parent, attributes, view, record)?;
        let shown = PendingBlock { header: execution.header().clone(), transactions: Vec::new() };
        Ok(Self {
            execution,
            weight: Weight::default(),
            outcomes: B256Map::default(),
            legs: Vec::new(),
            fresh,
            is_shown,
            shown,
            shown_logs: 0,
            overlay: Arc::default(),
            version: 0,
            view: None,
        })
    }

    /// Executes what waits, as far as it fits.
    pub(crate) fn extend(
        &mut self,
        view: StateView<'_>,
        queue: &mut VecDeque<Recovered<TxEnvelope>>,
    ) -> Result<Vec<Taken>, StateError> {
        let Self { execution, fresh, is_shown, weight, .. } = self;
        let taken = execution.extend(view, queue, |changes| {
            if *is_shown {
                fresh.transaction(changes);
            }
        })?;
        for taken in &taken {
            *weight += taken.weight;
        }
        Ok(taken)
    }

    /// Keeps what became of a transaction.
    pub(crate) fn decide(&mut self, hash: B256, outcome: TxOutcome) {
        if self.is_shown {
            self.fresh.outcomes.insert(hash, outcome.clone());
        }
        self.outcomes.insert(hash, outcome);
    }

    pub(crate) fn outcome(&self, hash: B256) -> Option<&TxOutcome> {
        self.outcomes.get(&hash)
    }

    /// Of all that was taken from the queue.
    pub(crate) fn weight(&self) -> Weight {
        self.weight
    }

    /// Transactions that were executed.
    pub(crate) fn len(&self) -> usize {
        self.execution.len()
    }

    pub(crate) fn header(&self) -> &Header {
        self.execution.header()
    }

    /// Keeps that a leg's transaction was taken, and where its receipt is if it was executed.
    pub(crate) fn take_leg(&mut self, leg: Leg, receipt: Option<usize>) {
        self.legs.push((leg, receipt));
    }

    /// The execution, to be closed, the outcomes, and the legs with the positions of their receipts.
    #[allow(clippy::type_complexity)]
    pub(crate) fn into_parts(self) -> (Execution, B256Map<TxOutcome>, Vec<(Leg, Option<usize>)>) {
        (self.execution, self.outcomes, self.legs)
    }

    /// The block for readers, with what it has taken in by now; `hub_height` is that of the newest hub block of which
    /// something waits. Only once all of that is in the database.
    pub(crate) fn show(&mut self, hub_height: u64) -> OpenView {
        let extra_data = extra_data(hub_height);
        if self.fresh.outcomes.is_empty()
            && let Some(view) = self.view.as_ref().filter(|view| view.block.header.extra_data == extra_data)
        {
            return view.clone();
        }
        self.version += 1;
        self.overlay.add(self.version, std::mem::take(&mut self.fresh));
        let PendingBlock { header, transactions } = &mut self.shown;
        header.extra_data = extra_data;
        for (tx, receipt) in self.execution.executed().skip(transactions.len()) {
            let gas_used = receipt.cumulative_gas_used().saturating_sub(header.gas_used);
            header.gas_used = receipt.cumulative_gas_used();
            header.logs_bloom |= receipt.bloom();
            transactions.push(Arc::new(pending_transaction(tx, receipt, gas_used, self.shown_logs)));
            self.shown_logs += receipt.logs().len();
        }
        let block = Arc::new(self.shown.clone());
        self.view.insert(OpenView { block, overlay: self.overlay.clone(), version: self.version }).clone()
    }
}

impl OpenView {
    pub(crate) fn number(&self) -> u64 {
        self.block.header.number
    }

    /// An account, if the block has changed it; the inner value is none if it is gone.
    pub(crate) fn account(&self, address: Address) -> Option<Option<AccountInfo>> {
        self.overlay.account(self.version, address)
    }

    /// A slot, if the block has changed it.
    pub(crate) fn slot(&self, address: Address, slot: U256) -> Option<U256> {
        self.overlay.slot(self.version, address, slot)
    }

    /// Code that the block has deployed, or used.
    pub(crate) fn code(&self, hash: B256) -> Option<Bytecode> {
        self.overlay.code(hash)
    }

    /// What the block makes of a transaction.
    pub(crate) fn outcome(&self, tx: B256) -> Option<TxOutcome> {
        let is_shown = |outcome: &TxOutcome| match outcome {
            TxOutcome::Executed { index, .. } => (*index as usize) < self.block.transactions.len(),
            TxOutcome::Skipped { .. } => true,
        };
        self.overlay.outcome(tx).filter(is_shown)
    }
}

fn pending_transaction(
    tx: &Recovered<TxEnvelope>,
    receipt: &ReceiptEnvelope,
    gas_used: u64,
    first_log: usize,
) -> PendingTransaction {
    let (transaction, sender) = (tx.inner().clone(), tx.signer());
    PendingTransaction { transaction, sender, receipt: receipt.clone(), gas_used, first_log }
}
