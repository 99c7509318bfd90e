//! One rollup block: the rules of `docs/specs/evm-rollup.md` around alloy-evm's Ethereum block executor.

use crate::{genesis::PragueSpec, store::StateError, trie::AccountUpdate, view::StateView};
use alloy::{
    consensus::ReceiptEnvelope,
    consensus::{
        Header, Transaction, TxEnvelope, TxReceipt,
        constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_WITHDRAWALS},
        proofs::{calculate_receipt_root, calculate_transaction_root},
        transaction::Recovered,
    },
    eips::{eip1559::BaseFeeParams, eip7840::BlobParams},
};
use alloy_evm::{
    EvmEnv, EvmFactory,
    block::{BlockExecutionError, BlockExecutionResult, BlockExecutor, BlockValidationError},
    eth::{EthBlockExecutionCtx, EthBlockExecutor, EthEvmFactory, receipt_builder::AlloyReceiptBuilder},
};
use alloy_primitives::{Address, B256, Bloom, Bytes, U256, keccak256, map::B256Map};
use revm::database::{BundleState, State, states::bundle_state::BundleRetention};
use std::{borrow::Cow, collections::VecDeque};
use switchyard_primitives::{RollupId, TxHash};

/// Room made beforehand for a block's receipts: what waits may be far more than one block takes.
const TX_COUNT_HINT_MAX: usize = 1024;

/// What a rollup block takes from the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The newest hub block that the rollup block is derived from.
    pub(crate) hub_height: u64,
    pub(crate) hub_hash: B256,
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

/// What was taken from the queue.
pub(crate) struct Outcome {
    /// None if no transaction could be executed: a block without transactions is not made.
    pub(crate) block: Option<Executed>,
    /// Transactions that are not in the block and never will be in another, with the reason.
    pub(crate) skipped: Vec<(TxHash, String)>,
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

/// Executes transactions from the front of `queue` until it is empty or the next one does not fit.
pub(crate) fn execute(
    rollup: RollupId,
    chain_id: u64,
    parent: (&Header, B256),
    attributes: Attributes,
    view: StateView<'_>,
    queue: &mut VecDeque<Recovered<TxEnvelope>>,
) -> Result<Outcome, StateError> {
    let mut header = open_header(rollup, parent, attributes);
    let mut state = State::builder().with_database_ref(view).with_bundle_update().build();
    let evm = EthEvmFactory::default().create_evm(&mut state, environment(&header, chain_id));
    let context = EthBlockExecutionCtx {
        parent_hash: header.parent_hash,
        parent_beacon_block_root: header.parent_beacon_block_root,
        ommers: &[],
        withdrawals: Some(Cow::Borrowed(&[])),
        extra_data: header.extra_data.clone(),
        tx_count_hint: Some(queue.len().min(TX_COUNT_HINT_MAX)),
        slot_number: None,
    };
    let mut executor = EthBlockExecutor::new(evm, context, PragueSpec, AlloyReceiptBuilder::default());
    executor.apply_pre_execution_changes().map_err(failed)?;
    let (included, skipped) = take_from(&mut executor, queue, header.gas_limit)?;
    if included.is_empty() {
        return Ok(Outcome { block: None, skipped });
    }
    let (evm, result) = executor.finish().map_err(failed)?;
    drop(evm);
    state.merge_transitions(BundleRetention::PlainState);
    let bundle = state.take_bundle();
    let (transactions, senders): (Vec<_>, Vec<_>) = included.into_iter().map(Recovered::into_parts).unzip();
    close_header(&mut header, &transactions, &result);
    let codes = bundle.contracts.iter().map(|(hash, code)| (*hash, code.original_bytes())).collect();
    let executed =
        Executed { header, transactions, senders, receipts: result.receipts, updates: updates(bundle), codes };
    Ok(Outcome { block: Some(executed), skipped })
}

type Taken = (Vec<Recovered<TxEnvelope>>, Vec<(TxHash, String)>);

fn take_from<E>(
    executor: &mut E,
    queue: &mut VecDeque<Recovered<TxEnvelope>>,
    gas_limit: u64,
) -> Result<Taken, StateError>
where
    E: BlockExecutor<Transaction = TxEnvelope>,
    for<'t> &'t Recovered<TxEnvelope>: alloy_evm::block::ExecutableTx<E>,
{
    let (mut included, mut skipped) = (Vec::new(), Vec::new());
    while let Some(tx) = queue.pop_front() {
        if tx.gas_limit() > gas_limit {
            let reason = format!("exceeds block gas limit: gas {}, limit {gas_limit}", tx.gas_limit());
            skipped.push((*tx.tx_hash(), reason));
            continue;
        }
        match executor.execute_transaction(&tx) {
            Ok(_) => included.push(tx),
            Err(BlockExecutionError::Validation(BlockValidationError::InvalidTx { error, .. })) => {
                skipped.push((*tx.tx_hash(), error.to_string()));
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
    Ok((included, skipped))
}

fn failed(e: BlockExecutionError) -> StateError {
    StateError::Execution(e.to_string())
}

/// The header's fields that execution needs.
fn open_header(rollup: RollupId, (parent, parent_hash): (&Header, B256), attributes: Attributes) -> Header {
    let Attributes { hub_height, hub_hash, timestamp } = attributes;
    Header {
        parent_hash,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: parent.beneficiary,
        number: parent.number + 1,
        gas_limit: parent.gas_limit,
        timestamp,
        extra_data: Bytes::copy_from_slice(&hub_height.to_be_bytes()),
        mix_hash: keccak256([hub_hash.as_slice(), &rollup.0.to_be_bytes()].concat()),
        base_fee_per_gas: Some(next_base_fee(parent)),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        ..Default::default()
    }
}

/// The fields that execution gives, but the state root.
fn close_header(header: &mut Header, transactions: &[TxEnvelope], result: &BlockExecutionResult<ReceiptEnvelope>) {
    header.transactions_root = calculate_transaction_root(transactions);
    header.receipts_root = calculate_receipt_root(&result.receipts);
    header.logs_bloom = result.receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | receipt.bloom());
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
