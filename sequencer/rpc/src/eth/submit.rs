//! Sending transactions.

use super::{
    block,
    errors::EthError,
    node::{Json, Node, json},
    params::Args,
};
use alloy::rpc::types::TransactionReceipt;
use alloy_primitives::{B256, Bytes, U64};
use std::{sync::Arc, time::Duration};
use switchyard_rollup_core::{Rejection, TxOutcome, evm::ExecutedBlock};
use tokio::sync::{
    broadcast::{Receiver, error::RecvError},
    watch,
};

/// How long `eth_sendRawTransactionSync` waits where the client does not say; as in geth.
const DEFAULT_WAIT_MS: u64 = 20_000;
/// The longest it waits; as in geth.
const MAX_WAIT_MS: u64 = 60_000;

/// Offers a transaction; answers once a quorum of validators holds it.
async fn submit(node: &Node, payload: Bytes) -> Result<B256, EthError> {
    let answers = node.gateway.submit(node.rollup, vec![payload]).await;
    let answer = answers.into_iter().next().unwrap_or(Err(Rejection::Unavailable("no answer from the mempool")));
    Ok(answer?)
}

fn slot(node: &Node) -> Result<tokio::sync::SemaphorePermit<'_>, EthError> {
    node.submissions.try_acquire().map_err(|_| EthError::Limit("too many submissions at once".into()))
}

/// `eth_sendRawTransaction`
pub(super) async fn send_raw(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let payload: Bytes = args.required()?;
    let _slot = slot(&node)?;
    json(&submit(&node, payload).await?)
}

/// `eth_sendRawTransactionSync` (EIP-7966): sends a transaction and answers with its receipt.
pub(super) async fn send_raw_sync(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let payload: Bytes = args.required()?;
    let timeout_ms = match args.optional::<Timeout>()? {
        Some(Timeout::Number(ms)) => ms,
        Some(Timeout::Quantity(ms)) => ms.to::<u64>(),
        None => DEFAULT_WAIT_MS,
    };
    if timeout_ms == 0 || timeout_ms > MAX_WAIT_MS {
        return Err(EthError::InvalidParams(format!("timeout must be 1 to {MAX_WAIT_MS} ms")));
    }
    let _slot = slot(&node)?;
    // Before the transaction is sent, so that its block cannot be missed.
    let (blocks, open) = (node.chain.subscribe(), node.chain.subscribe_pending());
    let hash = submit(&node, payload).await?;
    let wait = wait_for_receipt(&node, hash, blocks, open);
    match tokio::time::timeout(Duration::from_millis(timeout_ms), wait).await {
        Ok(receipt) => json(&receipt?),
        Err(_) => match settled(&node, hash).await? {
            Some(receipt) => json(&receipt),
            None => Err(EthError::ReceiptTimeout { hash, timeout_ms }),
        },
    }
}

/// Milliseconds as a JSON number (EIP-7966) or a hex quantity.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Timeout {
    Number(u64),
    Quantity(U64),
}

async fn wait_for_receipt(
    node: &Arc<Node>,
    hash: B256,
    mut blocks: Receiver<Arc<ExecutedBlock>>,
    mut open: watch::Receiver<()>,
) -> Result<TransactionReceipt, EthError> {
    let stopping = || EthError::from(Rejection::Unavailable("the node is stopping"));
    loop {
        // Each has a cheap look first: many may wait at once.
        tokio::select! {
            block = blocks.recv() => match block {
                Ok(block) if !block.transactions.iter().any(|tx| *tx.tx_hash() == hash) => continue,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(stopping()),
            },
            changed = open.changed() => {
                changed.map_err(|_| stopping())?;
                if node.chain.pending_outcome(hash).is_none() {
                    continue;
                }
            }
        }
        if let Some(receipt) = settled(node, hash).await? {
            return Ok(receipt);
        }
    }
}

/// The receipt, if there is one by now; an error if there never will be.
async fn settled(node: &Arc<Node>, hash: B256) -> Result<Option<TransactionReceipt>, EthError> {
    node.get(move |node| match block::receipt(node, hash)? {
        Some(receipt) => Ok(Some(receipt)),
        None => match node.chain.outcome(hash)? {
            Some(TxOutcome::Skipped { reason }) => Err(EthError::Skipped { hash, reason }),
            _ => Ok(None),
        },
    })
    .await
}
