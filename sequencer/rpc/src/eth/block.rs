//! Blocks, transactions and receipts.

use super::{
    convert,
    errors::EthError,
    node::{Json, Node, json},
    params::Args,
};
use alloy::{
    consensus::TxEnvelope,
    eips::{BlockId, BlockNumberOrTag, eip2718::Encodable2718},
};
use alloy_primitives::{B256, Bytes, U64};
use std::sync::Arc;
use switchyard_rollup_core::{
    TxOutcome,
    evm::{ExecutedBlock, PendingBlock},
};

/// `eth_blockNumber`
pub(super) async fn block_number(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json(&U64::from(node.chain.head().header.number))
}

fn by_number(args: &mut Args) -> Result<BlockId, EthError> {
    Ok(BlockId::Number(args.required::<BlockNumberOrTag>()?))
}

fn by_hash(args: &mut Args) -> Result<BlockId, EthError> {
    Ok(BlockId::from(args.required::<B256>()?))
}

async fn block(node: Arc<Node>, id: BlockId, mut args: Args) -> Result<Json, EthError> {
    let full = args.optional()?.unwrap_or(false);
    node.read(move |node| Ok(node.block(id)?.map(|block| convert::block(&block, full)))).await
}

/// `eth_getBlockByNumber`
pub(super) async fn block_by_number(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let id = by_number(&mut args)?;
    block(node, id, args).await
}

/// `eth_getBlockByHash`
pub(super) async fn block_by_hash(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let id = by_hash(&mut args)?;
    block(node, id, args).await
}

/// `eth_getBlockReceipts`
pub(super) async fn block_receipts(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let id: BlockId = args.required()?;
    node.read(move |node| Ok(node.block(id)?.map(|block| convert::receipts(&block)))).await
}

async fn count(node: Arc<Node>, id: BlockId, count: fn(&ExecutedBlock) -> usize) -> Result<Json, EthError> {
    node.read(move |node| Ok(node.block(id)?.map(|block| U64::from(count(&block))))).await
}

/// `eth_getBlockTransactionCountByNumber`
pub(super) async fn transaction_count_by_number(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    count(node, by_number(&mut args)?, |block| block.transactions.len()).await
}

/// `eth_getBlockTransactionCountByHash`
pub(super) async fn transaction_count_by_hash(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    count(node, by_hash(&mut args)?, |block| block.transactions.len()).await
}

/// `eth_getUncleCountByBlockNumber`: there are no uncles.
pub(super) async fn uncle_count_by_number(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    count(node, by_number(&mut args)?, |_| 0).await
}

/// `eth_getUncleCountByBlockHash`: there are no uncles.
pub(super) async fn uncle_count_by_hash(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    count(node, by_hash(&mut args)?, |_| 0).await
}

async fn transaction_at(node: Arc<Node>, id: BlockId, mut args: Args) -> Result<Json, EthError> {
    let index: U64 = args.required()?;
    node.read(move |node| {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        Ok(node.block(id)?.and_then(|block| convert::transaction(&block, index)))
    })
    .await
}

/// `eth_getTransactionByBlockNumberAndIndex`
pub(super) async fn transaction_by_number_and_index(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let id = by_number(&mut args)?;
    transaction_at(node, id, args).await
}

/// `eth_getTransactionByBlockHashAndIndex`
pub(super) async fn transaction_by_hash_and_index(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let id = by_hash(&mut args)?;
    transaction_at(node, id, args).await
}

/// Where a transaction was found.
enum Found {
    /// In a block, at this position.
    Executed(Arc<ExecutedBlock>, usize),
    /// In the open block, at this position.
    Open(Arc<PendingBlock>, usize),
    /// Accepted or final, not executed yet.
    Pending(Bytes),
}

/// Looks a transaction up on its whole way: executed, waiting in the mempool, final and about to be executed.
fn find(node: &Node, hash: B256) -> Result<Option<Found>, EthError> {
    if let Some(found) = find_executed(node, hash)? {
        return Ok(Some(found));
    }
    if let Some(payload) = node.gateway.pending(node.key(hash)) {
        return Ok(Some(Found::Pending(payload)));
    }
    let status = node.gateway.status(node.key(hash))?;
    match (status.outcome, status.included) {
        (Some(TxOutcome::Skipped { .. }), _) | (None, None) => Ok(None),
        // It was executed since this look-up began.
        (Some(TxOutcome::Executed { .. }), _) => find_executed(node, hash),
        (None, Some((height, index))) => {
            let segment = node.gateway.segment(node.rollup, height)?;
            let payload = segment.and_then(|s| s.transactions.into_iter().nth(index as usize));
            Ok(payload.map(Found::Pending))
        }
    }
}

fn find_executed(node: &Node, hash: B256) -> Result<Option<Found>, EthError> {
    let Some((number, index)) = node.chain.locate(hash)? else { return Ok(None) };
    // If the open block is another one by now, the transaction's block is closed.
    if let Some(open) = node.chain.pending().filter(|open| open.header.number == number) {
        return Ok(Some(Found::Open(open, index)));
    }
    Ok(node.block_at(number)?.map(|block| Found::Executed(block, index)))
}

/// `eth_getTransactionByHash`
pub(super) async fn transaction_by_hash(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let hash: B256 = args.required()?;
    node.read(move |node| {
        Ok(match find(node, hash)? {
            Some(Found::Executed(block, index)) => convert::transaction(&block, index),
            Some(Found::Open(block, index)) => convert::open_transaction(&block, index),
            Some(Found::Pending(payload)) => convert::pending_transaction(&payload),
            None => None,
        })
    })
    .await
}

/// `eth_getRawTransactionByHash`
pub(super) async fn raw_transaction_by_hash(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let hash: B256 = args.required()?;
    node.read(move |node| {
        Ok(match find(node, hash)? {
            Some(Found::Executed(block, index)) => block.transactions.get(index).map(encoded),
            Some(Found::Open(block, index)) => block.transactions.get(index).map(|tx| encoded(&tx.transaction)),
            Some(Found::Pending(payload)) => Some(payload),
            None => None,
        })
    })
    .await
}

fn encoded(tx: &TxEnvelope) -> Bytes {
    tx.encoded_2718().into()
}

/// `eth_getTransactionReceipt`: null for what is not executed, whether it waits or was dropped.
pub(super) async fn transaction_receipt(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let hash: B256 = args.required()?;
    node.read(move |node| receipt(node, hash)).await
}

/// The receipt of an executed transaction. Blocks on storage.
pub(super) fn receipt(node: &Node, hash: B256) -> Result<Option<alloy::rpc::types::TransactionReceipt>, EthError> {
    Ok(match find_executed(node, hash)? {
        Some(Found::Executed(block, index)) => convert::receipt(&block, index),
        Some(Found::Open(block, index)) => convert::open_receipt(&block, index),
        Some(Found::Pending(_)) | None => None,
    })
}
