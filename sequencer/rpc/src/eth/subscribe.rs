//! `eth_subscribe` over WebSocket.
//!
//! Heads and logs are never skipped: what a slow client has missed on the channel is read again by number, at the
//! client's own pace.

use super::{
    convert,
    errors::EthError,
    logs,
    node::{Json, Node, json},
    params::Args,
};
use alloy::rpc::types::Filter;
use alloy_primitives::B256;
use jsonrpsee::{
    PendingSubscriptionSink,
    core::traits::IdProvider,
    server::SubscriptionSink,
    types::{ErrorObjectOwned, Params, SubscriptionId},
};
use std::sync::Arc;
use switchyard_rollup_core::evm::ExecutedBlock;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Ids as geth writes them: libraries treat some ids as hex.
#[derive(Clone, Copy, Debug)]
pub(super) struct HexIds;

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        format!("{:#x}", rand::random::<u128>()).into()
    }
}

/// What a client subscribes to.
enum Kind {
    Heads,
    Logs(Box<Filter>),
    Pending { full: bool },
}

impl Kind {
    fn parse(params: &Params<'_>) -> Result<Self, EthError> {
        let mut args = Args::new(params, 2)?;
        let kind: String = args.required()?;
        match kind.as_str() {
            "newHeads" => Ok(Self::Heads),
            "logs" => {
                let filter: Filter = args.optional()?.unwrap_or_default();
                logs::check(&filter)?;
                Ok(Self::Logs(Box::new(filter)))
            }
            "newPendingTransactions" => Ok(Self::Pending { full: args.optional()?.unwrap_or(false) }),
            _ => Err(EthError::UnknownSubscription(kind)),
        }
    }
}

/// `eth_subscribe`: runs until the client unsubscribes, leaves, or the server stops.
pub(super) async fn subscribe(params: Params<'static>, pending: PendingSubscriptionSink, node: Arc<Node>) {
    let kind = match Kind::parse(&params) {
        Ok(kind) => kind,
        Err(error) => return pending.reject(ErrorObjectOwned::from(error)).await,
    };
    // Before the client knows of its subscription: from then on it misses nothing.
    let blocks = Blocks::new(&node);
    let transactions = node.gateway.subscribe_pending(node.rollup);
    let Ok(sink) = pending.accept().await else { return };
    let ended = match kind {
        Kind::Heads => forward_blocks(&node, &sink, blocks, |block| Ok(vec![json(&convert::header(block))?])).await,
        Kind::Logs(filter) => forward_blocks(&node, &sink, blocks, |block| matching(block, &filter)).await,
        Kind::Pending { full } => forward_pending(&node, &sink, transactions, full).await,
    };
    if let Err(error) = ended {
        tracing::warn!(%error, subscription = ?sink.subscription_id(), "subscription ended");
    }
}

fn matching(block: &ExecutedBlock, filter: &Filter) -> Result<Vec<Json>, EthError> {
    let mut messages = Vec::new();
    logs::matching(block, filter, &mut |log| {
        messages.push(json(&log)?);
        Ok(())
    })?;
    Ok(messages)
}

/// Every block after the head at the start, in order and without gaps.
struct Blocks {
    receiver: Receiver<Arc<ExecutedBlock>>,
    next: u64,
    /// Received ahead of `next`.
    ahead: Option<Arc<ExecutedBlock>>,
}

impl Blocks {
    fn new(node: &Node) -> Self {
        let receiver = node.chain.subscribe();
        Self { receiver, next: node.chain.head().header.number + 1, ahead: None }
    }

    /// The next block; none once the node stops.
    async fn next(&mut self, node: &Arc<Node>) -> Result<Option<Arc<ExecutedBlock>>, EthError> {
        while self.ahead.as_ref().is_none_or(|block| block.header.number < self.next) {
            self.ahead = match self.receiver.recv().await {
                Ok(block) => Some(block),
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return Ok(None),
            };
        }
        let number = self.next;
        let block = match self.ahead.take_if(|block| block.header.number == number) {
            Some(block) => block,
            None => node.get(move |node| node.block_at(number)?.ok_or(EthError::UnknownBlock)).await?,
        };
        self.next += 1;
        Ok(Some(block))
    }
}

async fn forward_blocks(
    node: &Arc<Node>,
    sink: &SubscriptionSink,
    mut blocks: Blocks,
    messages: impl Fn(&ExecutedBlock) -> Result<Vec<Json>, EthError>,
) -> Result<(), EthError> {
    loop {
        let block = tokio::select! {
            block = blocks.next(node) => block?,
            () = sink.closed() => return Ok(()),
        };
        let Some(block) = block else { return Ok(()) };
        for message in messages(&block)? {
            if sink.send(message).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn forward_pending(
    node: &Arc<Node>,
    sink: &SubscriptionSink,
    mut transactions: Receiver<B256>,
    full: bool,
) -> Result<(), EthError> {
    loop {
        let hash = tokio::select! {
            hash = transactions.recv() => match hash {
                Ok(hash) => hash,
                // What was missed is lost: these announcements promise nothing.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return Ok(()),
            },
            () = sink.closed() => return Ok(()),
        };
        let message = if full {
            let found = node.get(move |node| Ok(node.gateway.pending(node.key(hash)))).await?;
            let Some(tx) = found.as_ref().and_then(convert::pending_transaction) else { continue };
            json(&tx)?
        } else {
            json(&hash)?
        };
        if sink.send(message).await.is_err() {
            return Ok(());
        }
    }
}
