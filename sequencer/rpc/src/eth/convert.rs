//! From executed blocks to the shapes of the Ethereum JSON-RPC.

use alloy::{
    consensus::{
        Block as ConsensusBlock, BlockBody, Header, ReceiptEnvelope, Transaction as _, TxEnvelope,
        transaction::{Recovered, SignerRecoverable},
    },
    eips::{eip2718::Decodable2718, eip4895::Withdrawals},
    rpc::types::{self as rpc, BlockTransactions, Log, TransactionReceipt},
};
use alloy_primitives::{Address, B256, Bytes, U256};
use switchyard_rollup_core::evm::{ExecutedBlock, PendingBlock, PendingTransaction};

/// A header, as `newHeads` notifies it.
pub(super) fn header(block: &ExecutedBlock) -> rpc::Header {
    rpc::Header { hash: block.hash, inner: block.header.clone(), total_difficulty: None, size: None }
}

/// A block with its transactions' hashes, or with the transactions themselves.
pub(super) fn block(block: &ExecutedBlock, full: bool) -> rpc::Block {
    // The field is there from Shanghai on, so in every rollup block.
    let withdrawals = block.header.withdrawals_root.map(|_| Withdrawals::new(block.withdrawals.clone()));
    let body =
        BlockBody { transactions: block.transactions.clone(), ommers: Vec::new(), withdrawals: withdrawals.clone() };
    let size = ConsensusBlock::<TxEnvelope>::rlp_length_for(&block.header, &body);
    let transactions = if full {
        BlockTransactions::Full((0..block.transactions.len()).filter_map(|i| transaction(block, i)).collect())
    } else {
        BlockTransactions::Hashes(block.transactions.iter().map(|tx| *tx.tx_hash()).collect())
    };
    let mut header = header(block);
    header.size = Some(U256::from(size));
    rpc::Block { header, uncles: Vec::new(), transactions, withdrawals }
}

/// A block's transaction; none beyond the last.
pub(super) fn transaction(block: &ExecutedBlock, index: usize) -> Option<rpc::Transaction> {
    let (tx, sender) = (block.transactions.get(index)?, block.senders.get(index)?);
    Some(transaction_in((block.hash, &block.header), tx, *sender, index))
}

/// The open block's transaction; none beyond the last.
pub(super) fn open_transaction(block: &PendingBlock, index: usize) -> Option<rpc::Transaction> {
    let tx = block.transactions.get(index)?;
    Some(transaction_in((PendingBlock::HASH, &block.header), &tx.transaction, tx.sender, index))
}

fn transaction_in((hash, header): (B256, &Header), tx: &TxEnvelope, sender: Address, index: usize) -> rpc::Transaction {
    rpc::Transaction {
        inner: Recovered::new_unchecked(tx.clone(), sender),
        block_hash: Some(hash),
        block_number: Some(header.number),
        transaction_index: Some(index as u64),
        effective_gas_price: Some(tx.effective_gas_price(header.base_fee_per_gas)),
        block_timestamp: Some(header.timestamp),
    }
}

/// A transaction that no block holds yet; none if the bytes are not a signed transaction.
pub(super) fn pending_transaction(payload: &Bytes) -> Option<rpc::Transaction> {
    let tx = TxEnvelope::decode_2718_exact(payload).ok()?;
    let sender = tx.recover_signer().ok()?;
    let price = tx.effective_gas_price(None);
    Some(rpc::Transaction {
        inner: Recovered::new_unchecked(tx, sender),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        effective_gas_price: Some(price),
        block_timestamp: None,
    })
}

/// A transaction's receipt; none beyond the last.
pub(super) fn receipt(block: &ExecutedBlock, index: usize) -> Option<TransactionReceipt> {
    let earlier = block.receipts.get(..index)?;
    let gas_before = earlier.last().map_or(0, |r| r.cumulative_gas_used());
    let first_log = earlier.iter().map(|r| r.logs().len()).sum();
    Done::of(block, index, gas_before, first_log).map(|done| done.receipt((block.hash, &block.header)))
}

/// The receipt of the open block's transaction; none beyond the last.
pub(super) fn open_receipt(block: &PendingBlock, index: usize) -> Option<TransactionReceipt> {
    let PendingTransaction { transaction, sender, receipt, gas_used, first_log } = &**block.transactions.get(index)?;
    let (gas_used, first_log) = (*gas_used, *first_log);
    let done = Done { index, transaction, sender: *sender, receipt, gas_used, first_log };
    Some(done.receipt((PendingBlock::HASH, &block.header)))
}

/// All receipts of a block.
pub(super) fn receipts(block: &ExecutedBlock) -> Vec<TransactionReceipt> {
    let (mut gas_before, mut first_log) = (0, 0);
    let mut all = Vec::with_capacity(block.receipts.len());
    for (index, receipt) in block.receipts.iter().enumerate() {
        let done = Done::of(block, index, gas_before, first_log);
        all.extend(done.map(|done| done.receipt((block.hash, &block.header))));
        gas_before = receipt.cumulative_gas_used();
        first_log += receipt.logs().len();
    }
    all
}

/// An executed transaction.
struct Done<'a> {
    index: usize,
    transaction: &'a TxEnvelope,
    sender: Address,
    receipt: &'a ReceiptEnvelope,
    gas_used: u64,
    first_log: usize,
}

impl<'a> Done<'a> {
    /// One of a block; none beyond the last.
    fn of(block: &'a ExecutedBlock, index: usize, gas_before: u64, first_log: usize) -> Option<Self> {
        let (transaction, sender) = (block.transactions.get(index)?, *block.senders.get(index)?);
        let receipt = block.receipts.get(index)?;
        let gas_used = receipt.cumulative_gas_used().saturating_sub(gas_before);
        Some(Self { index, transaction, sender, receipt, gas_used, first_log })
    }

    fn receipt(self, (hash, header): (B256, &Header)) -> TransactionReceipt {
        let Self { index, transaction: tx, sender, receipt, gas_used, first_log } = self;
        let mut log_index = first_log;
        let inner = receipt.clone().map_logs(|inner| {
            log_index += 1;
            log((hash, header), *tx.tx_hash(), index, log_index - 1, inner)
        });
        TransactionReceipt {
            inner,
            transaction_hash: *tx.tx_hash(),
            transaction_index: Some(index as u64),
            block_hash: Some(hash),
            block_number: Some(header.number),
            gas_used,
            effective_gas_price: tx.effective_gas_price(header.base_fee_per_gas),
            blob_gas_used: None,
            blob_gas_price: None,
            from: sender,
            to: tx.to(),
            contract_address: tx.is_create().then(|| sender.create(tx.nonce())),
        }
    }
}

/// A log with its place in the chain.
pub(super) fn log(
    (hash, header): (B256, &Header),
    transaction_hash: B256,
    transaction_index: usize,
    log_index: usize,
    inner: alloy_primitives::Log,
) -> Log {
    Log {
        inner,
        block_hash: Some(hash),
        block_number: Some(header.number),
        block_timestamp: Some(header.timestamp),
        transaction_hash: Some(transaction_hash),
        transaction_index: Some(transaction_index as u64),
        log_index: Some(log_index as u64),
        removed: false,
    }
}
