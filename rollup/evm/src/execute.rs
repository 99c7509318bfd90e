//! One rollup block: the rules of `docs/specs/evm-rollup.md` around alloy-evm's Ethereum block executor.

use crate::{genesis::PragueSpec, pending::Weight, store::StateError, trie::AccountUpdate, view::StateView};
use alloy::{
    consensus::ReceiptEnvelope,
    consensus::{
        Header, Transaction, TxEnvelope, TxReceipt,
        constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_WITHDRAWALS},
        proofs::{calculate_receipt_root, calculate_transaction_root, calculate_withdrawals_root},
        transaction::Recovered,
    },
    eips::{eip1559::BaseFeeParams, eip4895::Withdrawal, eip7840::BlobParams},
};
use alloy_evm::{
    EvmEnv, EvmFactory,
    block::{BlockExecutionError, BlockExecutionResult, BlockExecutor, BlockValidationError},
    eth::{EthBlockExecutionCtx, EthBlockExecutor, EthEvm, EthEvmFactory, receipt_builder::AlloyReceiptBuilder},
    precompiles::PrecompilesMap,
};
use alloy_primitives::{Address, B256, Bloom, Bytes, U256, keccak256, map::B256Map};
use revm::{
    database::{
        BundleState, CacheState, State, TransitionState, WrapDatabaseRef, states::bundle_state::BundleRetention,
    },
    inspector::NoOpInspector,
    state::EvmState,
};
use std::{borrow::Cow, collections::VecDeque};
use switchyard_primitives::{RollupId, TxHash};

/// Room made beforehand for what is taken: what waits may be far more than one block takes.
const TX_COUNT_HINT_MAX: usize = 1024;

/// What a rollup block takes from the hub when it is opened: all that its transactions can observe of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Of the hub block that holds the first transaction that waits.
    pub(crate) hub_hash: B256,
    /// Root of the hub's accumulator after the same block; zero before protocol version 3.
    pub(crate) hub_root: B256,
    /// Seconds.
    pub(crate) timestamp: u64,
}

/// A block that was executed; its state root is still to be computed.
pub(crate) struct Executed {
    /// All fields but the state root.
    pub(crate) header: Header,
    pub(crate) transactions: Vec<TxEnvelope>,
    pub(crate) senders: Vec<Address>,
    pub(crate) receipts: Vec<ReceiptEnvelope>,
    pub(crate) updates: Vec<AccountUpdate>,
    pub(crate) codes: B256Map<Bytes>,
}

/// The base fee rises no further, so that it stays within 64 bits whatever a rollup's native coin is worth.
pub(crate) const BASE_FEE_MAX: u64 = i64::MAX as u64;

/// Base fee of the block after `header`, in wei (EIP-1559).
pub(crate) fn next_base_fee(header: &Header) -> u64 {
    header.next_block_base_fee(BaseFeeParams::ethereum()).unwrap_or_default().min(BASE_FEE_MAX)
}

/// The EVM's environment in the block with this header.
pub(crate) fn environment(header: &Header, chain_id: u64) -> EvmEnv {
    EvmEnv::for_eth_block(header, PragueSpec, chain_id, Some(BlobParams::prague()))
}

type Db<'v> = State<WrapDatabaseRef<StateView<'v>>>;
type Executor<'s, 'v> =
    EthBlockExecutor<'static, EthEvm<&'s mut Db<'v>, NoOpInspector, PrecompilesMap>, PragueSpec, AlloyReceiptBuilder>;

/// A block whose environment is fixed and whose transactions are executed as they come. Between two calls it holds what
/// they have read and changed, so that nothing is executed twice.
///
/// Each call takes a view of the same state: that after the parent block.
pub(crate) struct Execution {
    chain_id: u64,
    /// Without the fields that closing gives.
    header: Header,
    cache: CacheState,
    transitions: TransitionState,
    gas: Gas,
    included: Vec<Recovered<TxEnvelope>>,
    receipts: Vec<ReceiptEnvelope>,
}

/// The executor's counters.
#[derive(Clone, Copy, Default)]
struct Gas {
    cumulative: u64,
    block_regular: u64,
    block_state: u64,
    blob: u64,
}

/// A transaction that was taken from the queue.
pub(crate) struct Taken {
    pub(crate) hash: TxHash,
    pub(crate) sender: Address,
    /// Whether it succeeded; the reason where it is not in the block and never will be in another.
    pub(crate) result: Result<bool, String>,
    pub(crate) weight: Weight,
}

impl Execution {
    /// Opens a block on `parent` and makes the system calls that come first, of which `changed` is told.
    pub(crate) fn open(
        rollup: RollupId,
        chain_id: u64,
        parent: (&Header, B256),
        attributes: Attributes,
        view: StateView<'_>,
        changed: impl FnOnce(&TransitionState),
    ) -> Result<Self, StateError> {
        let mut execution = Self {
            chain_id,
            header: open_header(rollup, parent, attributes),
            cache: CacheState::default(),
            transitions: TransitionState::default(),
            gas: Gas::default(),
            included: Vec::new(),
            receipts: Vec::new(),
        };
        execution.resume(view, |mut executor| {
            executor.apply_pre_execution_changes().map_err(failed)?;
            Ok(((), executor.receipts))
        })?;
        changed(&execution.transitions);
        Ok(execution)
    }

    /// Executes transactions from the front of `queue` until it is empty or the next one does not fit; `changed` is told
    /// what each one changes.
    pub(crate) fn extend(
        &mut self,
        view: StateView<'_>,
        queue: &mut VecDeque<Recovered<TxEnvelope>>,
        mut changed: impl FnMut(&EvmState),
    ) -> Result<Vec<Taken>, StateError> {
        let (mut gas, mut included) = (self.gas, std::mem::take(&mut self.included));
        let gas_limit = self.header.gas_limit;
        let taken = self.resume(view, |mut executor| {
            let taken = take_from(&mut executor, queue, gas_limit, &mut included, &mut changed)?;
            gas = Gas::of(&executor);
            Ok((taken, executor.receipts))
        })?;
        (self.gas, self.included) = (gas, included);
        Ok(taken)
    }

    /// Makes the system calls that come last, and gives accounts what is deposited. `hub_height` goes into the header, where no
    /// transaction of the block has seen it.
    pub(crate) fn close(
        mut self,
        view: StateView<'_>,
        hub_height: u64,
        withdrawals: &[Withdrawal],
    ) -> Result<Executed, StateError> {
        let (result, receipts) = self.resume(view, |mut executor| {
            executor.ctx.withdrawals = Some(Cow::Owned(withdrawals.to_vec()));
            let (_, mut result) = executor.finish().map_err(failed)?;
            let receipts = std::mem::take(&mut result.receipts);
            Ok(((result, receipts), Vec::new()))
        })?;
        let Self { mut header, cache, transitions, included, .. } = self;
        let mut state = State::builder().with_cached_prestate(cache).with_bundle_update().build();
        state.transition_state = Some(transitions);
        state.merge_transitions(BundleRetention::PlainState);
        let bundle = state.take_bundle();
        let (transactions, senders): (Vec<_>, Vec<_>) = included.into_iter().map(Recovered::into_parts).unzip();
        header.extra_data = extra_data(hub_height);
        header.withdrawals_root = Some(calculate_withdrawals_root(withdrawals));
        close_header(&mut header, &transactions, &receipts, &result);
        let codes = bundle.contracts.iter().map(|(hash, code)| (*hash, code.original_bytes())).collect();
        Ok(Executed { header, transactions, senders, receipts, updates: updates(bundle), codes })
    }

    /// The header, without the fields that closing gives.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Number of executed transactions.
    pub(crate) fn len(&self) -> usize {
        self.included.len()
    }

    /// The executed transactions with their receipts, in order.
    pub(crate) fn executed(&self) -> impl Iterator<Item = (&Recovered<TxEnvelope>, &ReceiptEnvelope)> {
        self.included.iter().zip(&self.receipts)
    }

    /// Runs the executor from where it stood. `work` hands back the receipts. After an error nothing can be done with
    /// this value any more.
    fn resume<'v, T>(
        &mut self,
        view: StateView<'v>,
        work: impl FnOnce(Executor<'_, 'v>) -> Result<(T, Vec<ReceiptEnvelope>), StateError>,
    ) -> Result<T, StateError> {
        let builder = State::builder().with_database_ref(view).with_bundle_update();
        let mut state = builder.with_cached_prestate(std::mem::take(&mut self.cache)).build();
        state.transition_state = Some(std::mem::take(&mut self.transitions));
        let evm = EthEvmFactory::default().create_evm(&mut state, environment(&self.header, self.chain_id));
        let context = EthBlockExecutionCtx {
            parent_hash: self.header.parent_hash,
            parent_beacon_block_root: self.header.parent_beacon_block_root,
            ommers: &[],
            withdrawals: Some(Cow::Borrowed(&[])),
            extra_data: Bytes::new(),
            tx_count_hint: None,
            slot_number: None,
        };
        let mut executor = EthBlockExecutor::new(evm, context, PragueSpec, AlloyReceiptBuilder::default());
        executor.receipts = std::mem::take(&mut self.receipts);
        executor.cumulative_tx_gas_used = self.gas.cumulative;
        executor.block_regular_gas_used = self.gas.block_regular;
        executor.block_state_gas_used = self.gas.block_state;
        executor.blob_gas_used = self.gas.blob;
        let (done, receipts) = work(executor)?;
        self.receipts = receipts;
        self.cache = state.cache;
        self.transitions = state.transition_state.unwrap_or_default();
        Ok(done)
    }
}

impl Gas {
    fn of(executor: &Executor<'_, '_>) -> Self {
        Self {
            cumulative: executor.cumulative_tx_gas_used,
            block_regular: executor.block_regular_gas_used,
            block_state: executor.block_state_gas_used,
            blob: executor.blob_gas_used,
        }
    }
}

fn take_from(
    executor: &mut Executor<'_, '_>,
    queue: &mut VecDeque<Recovered<TxEnvelope>>,
    gas_limit: u64,
    included: &mut Vec<Recovered<TxEnvelope>>,
    changed: &mut impl FnMut(&EvmState),
) -> Result<Vec<Taken>, StateError> {
    let mut taken = Vec::with_capacity(queue.len().min(TX_COUNT_HINT_MAX));
    while let Some(tx) = queue.pop_front() {
        let mut take = |result, weight| {
            taken.push(Taken { hash: *tx.tx_hash(), sender: tx.signer(), result, weight });
        };
        if tx.gas_limit() > gas_limit {
            let reason = format!("exceeds block gas limit: gas {}, limit {gas_limit}", tx.gas_limit());
            take(Err(reason), Weight::of(&tx));
            continue;
        }
        match executor.execute_transaction_with_result_closure(&tx, |result| changed(&result.result.state)) {
            Ok(gas) => {
                let success = executor.receipts.last().is_some_and(|receipt| receipt.status());
                take(Ok(success), Weight::executed(&tx, gas.tx_gas_used()));
                included.push(tx);
            }
            Err(BlockExecutionError::Validation(BlockValidationError::InvalidTx { error, .. })) => {
                take(Err(error.to_string()), Weight::of(&tx));
            }
            Err(BlockExecutionError::Validation(
                BlockValidationError::TransactionGasLimitMoreThanAvailableBlockGas { .. },
            )) => {
                queue.push_front(tx);
                break;
            }
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(taken)
}

fn failed(e: BlockExecutionError) -> StateError {
    StateError::Execution(e.to_string())
}

/// The header's fields that execution needs.
fn open_header(rollup: RollupId, (parent, parent_hash): (&Header, B256), attributes: Attributes) -> Header {
    let Attributes { hub_hash, hub_root, timestamp } = attributes;
    Header {
        parent_hash,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: parent.beneficiary,
        number: parent.number + 1,
        gas_limit: parent.gas_limit,
        timestamp,
        mix_hash: keccak256([hub_hash.as_slice(), &rollup.0.to_be_bytes()].concat()),
        base_fee_per_gas: Some(next_base_fee(parent)),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(hub_root),
        ..Default::default()
    }
}

/// Extra data of a block of which this is the newest hub block.
pub(crate) fn extra_data(hub_height: u64) -> Bytes {
    Bytes::copy_from_slice(&hub_height.to_be_bytes())
}

/// The fields that execution gives, but the state root.
fn close_header(
    header: &mut Header,
    transactions: &[TxEnvelope],
    receipts: &[ReceiptEnvelope],
    result: &BlockExecutionResult<ReceiptEnvelope>,
) {
    header.transactions_root = calculate_transaction_root(transactions);
    header.receipts_root = calculate_receipt_root(receipts);
    header.logs_bloom = receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | receipt.bloom());
    header.gas_used = result.gas_used;
    header.requests_hash = Some(result.requests.requests_hash());
}

/// The accounts and slots that the block really changed.
fn updates(bundle: BundleState) -> Vec<AccountUpdate> {
    let update = |(address, account): (Address, revm::database::BundleAccount)| {
        let destroyed = account.was_destroyed();
        let slots: Vec<(U256, U256)> = account
            .storage
            .iter()
            .filter(|(_, slot)| slot.is_changed())
            .map(|(slot, value)| (*slot, value.present_value))
            .collect();
        let changed = destroyed || account.is_info_changed() || !slots.is_empty();
        changed.then(|| AccountUpdate {
            address,
            account: account.info.map(|info| (info.nonce, info.balance, info.code_hash)),
            slots,
            destroyed,
        })
    };
    bundle.state.into_iter().filter_map(update).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_base_fee_moves_by_an_eighth_at_most_and_never_overflows(
            fee in 0..=BASE_FEE_MAX, gas_limit in 21_000..=i64::MAX as u64, used in 0.0..=1.0f64,
        ) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let gas_used = ((gas_limit as f64 * used) as u64).min(gas_limit);
            let header = Header { base_fee_per_gas: Some(fee), gas_limit, gas_used, ..Default::default() };
            let next = next_base_fee(&header);
            prop_assert!(next <= BASE_FEE_MAX);
            prop_assert!(next.abs_diff(fee) <= fee / 8 + fee / 1_000 + 1);
        }
    }
}
