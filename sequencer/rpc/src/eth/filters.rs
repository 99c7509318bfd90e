//! The polling filters: `eth_newFilter` and its family.
//!
//! Final blocks are never replaced, so a filter of blocks or logs is no more than the number of the next block to look
//! at. A filter of pending transactions holds its place in the bounded channel on which they are announced.

use super::{
    errors::EthError,
    logs,
    node::{Deadline, Json, Node, json},
    params::Args,
};
use alloy::{
    eips::BlockNumberOrTag,
    rpc::types::{Filter, FilterBlockOption, Log},
};
use alloy_primitives::{B256, U128};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use switchyard_primitives::TxHash;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

/// Hashes that one poll of a block or transaction filter returns at most; the next poll goes on from there.
const MAX_HASHES: usize = 10_000;

/// Blocks that one poll of a log filter covers at most.
const MAX_POLLED_BLOCKS: u64 = 1000;

/// What a filter watches, and how far it has been polled.
pub(super) enum State {
    /// Logs of the blocks from `next` on.
    Logs {
        /// What to match.
        filter: Box<Filter>,
        /// The first block that has not been polled.
        next: u64,
    },
    /// Hashes of the blocks from `next` on.
    Blocks {
        /// The first block that has not been polled.
        next: u64,
    },
    /// Hashes of transactions as they are accepted.
    Pending(Receiver<TxHash>),
}

struct Entry {
    state: Arc<Mutex<State>>,
    used: Instant,
}

/// The filters of all clients of one rollup. A filter that is not polled for a while is removed.
pub(super) struct Filters {
    entries: Mutex<HashMap<U128, Entry>>,
    limit: usize,
    idle: Duration,
}

impl Filters {
    pub(super) fn new(limit: usize, idle: Duration) -> Self {
        Self { entries: Mutex::default(), limit, idle }
    }

    /// Adds a filter under an id that nobody can guess.
    fn insert(&self, state: State, now: Instant) -> Result<U128, EthError> {
        let mut entries = self.entries.lock();
        if entries.len() >= self.limit {
            entries.retain(|_, entry| now.saturating_duration_since(entry.used) < self.idle);
        }
        if entries.len() >= self.limit {
            return Err(EthError::Limit(format!("too many filters: at most {} are kept", self.limit)));
        }
        let id = U128::from(rand::random::<u128>());
        entries.insert(id, Entry { state: Arc::new(Mutex::new(state)), used: now });
        Ok(id)
    }

    /// A filter that is still there, which counts as used now.
    fn get(&self, id: U128, now: Instant) -> Result<Arc<Mutex<State>>, EthError> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&id).ok_or(EthError::FilterNotFound)?;
        if now.saturating_duration_since(entry.used) >= self.idle {
            entries.remove(&id);
            return Err(EthError::FilterNotFound);
        }
        entry.used = now;
        Ok(entry.state.clone())
    }

    fn remove(&self, id: U128) -> bool {
        self.entries.lock().remove(&id).is_some()
    }
}

fn add(node: &Node, state: State) -> Result<Json, EthError> {
    json(&node.filters.insert(state, Instant::now())?)
}

fn after_head(node: &Node) -> u64 {
    node.chain.head().header.number + 1
}

/// `eth_newFilter`
pub(super) async fn new_filter(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let filter = Box::new(logs::parse(&mut args)?);
    if filter.block_option.is_block_hash() {
        return Err(EthError::InvalidParams("a filter cannot name a block hash: use eth_getLogs".into()));
    }
    let next = after_head(&node);
    add(&node, State::Logs { filter, next })
}

/// `eth_newBlockFilter`
pub(super) async fn new_block_filter(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    add(&node, State::Blocks { next: after_head(&node) })
}

/// `eth_newPendingTransactionFilter`
pub(super) async fn new_pending_filter(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    add(&node, State::Pending(node.gateway.subscribe_pending(node.rollup)))
}

/// `eth_uninstallFilter`
pub(super) async fn uninstall(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    json(&node.filters.remove(args.required()?))
}

/// `eth_getFilterChanges`
pub(super) async fn changes(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let state = node.filters.get(args.required()?, Instant::now())?;
    node.scan(move |node, deadline| {
        // Another poll of the same filter is at work and will return what is new.
        let Some(mut state) = state.try_lock() else { return json::<[B256]>(&[]) };
        match &mut *state {
            State::Logs { filter, next } => json(&log_changes(node, filter, next, deadline)?),
            State::Blocks { next } => json(&block_changes(node, next, deadline)?),
            State::Pending(receiver) => json(&pending_changes(receiver)),
        }
    })
    .await
}

fn log_changes(node: &Node, filter: &Filter, next: &mut u64, deadline: Deadline) -> Result<Vec<Log>, EthError> {
    let head = node.chain.head().header.number;
    let (mut from, mut to) = (*next, head);
    if let FilterBlockOption::Range { from_block, to_block } = filter.block_option {
        if let Some(BlockNumberOrTag::Number(first)) = from_block {
            from = from.max(first);
        }
        if let Some(BlockNumberOrTag::Number(last)) = to_block {
            to = to.min(last);
        }
    }
    if from > to {
        *next = head + 1;
        return Ok(Vec::new());
    }
    // A client that polls too seldom gets the rest with its next polls.
    let mut polled = to.min(from.saturating_add(node.limits.max_log_blocks.clamp(1, MAX_POLLED_BLOCKS) - 1));
    let found = loop {
        match logs::scan(node, filter, from, polled, deadline) {
            Err(EthError::Limit(_)) if polled > from => polled = from + (polled - from) / 2,
            found => break found?,
        }
    };
    *next = if polled < to { polled + 1 } else { head + 1 };
    Ok(found)
}

fn block_changes(node: &Node, next: &mut u64, deadline: Deadline) -> Result<Vec<B256>, EthError> {
    let head = node.chain.head().header.number;
    let mut hashes = Vec::new();
    while *next <= head && hashes.len() < MAX_HASHES && deadline.check().is_ok() {
        hashes.push(node.block_at(*next)?.ok_or(EthError::UnknownBlock)?.hash);
        *next += 1;
    }
    Ok(hashes)
}

fn pending_changes(receiver: &mut Receiver<TxHash>) -> Vec<TxHash> {
    let mut hashes = Vec::new();
    while hashes.len() < MAX_HASHES {
        match receiver.try_recv() {
            Ok(hash) => hashes.push(hash),
            // What was missed is lost: these announcements promise nothing.
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    hashes
}

/// `eth_getFilterLogs`: all logs that a log filter selects.
pub(super) async fn filter_logs(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let state = node.filters.get(args.required()?, Instant::now())?;
    node.scan(move |node, deadline| {
        let filter = match &*state.lock() {
            State::Logs { filter, .. } => filter.clone(),
            _ => return Err(EthError::FilterNotFound),
        };
        logs::query(node, &filter, deadline)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(300);

    fn blocks() -> State {
        State::Blocks { next: 0 }
    }

    #[test]
    fn a_filter_lives_while_it_is_polled_and_expires_when_it_is_not() {
        let filters = Filters::new(10, IDLE);
        let start = Instant::now();
        let id = filters.insert(blocks(), start).unwrap();
        assert!(filters.get(id, start + IDLE - Duration::from_secs(1)).is_ok());
        assert!(filters.get(id, start + IDLE * 2 - Duration::from_secs(2)).is_ok());
        assert_eq!(filters.get(id, start + IDLE * 3).err(), Some(EthError::FilterNotFound));
        assert!(!filters.remove(id), "an expired filter is gone");
    }

    #[test]
    fn filters_are_bounded_and_idle_ones_make_room() {
        let filters = Filters::new(2, IDLE);
        let start = Instant::now();
        filters.insert(blocks(), start).unwrap();
        let kept = filters.insert(blocks(), start + IDLE / 2).unwrap();
        assert!(matches!(filters.insert(blocks(), start + IDLE / 2), Err(EthError::Limit(_))));
        filters.insert(blocks(), start + IDLE).unwrap();
        assert!(filters.get(kept, start + IDLE).is_ok());
        assert!(matches!(filters.insert(blocks(), start + IDLE), Err(EthError::Limit(_))));
        assert!(filters.remove(kept));
        filters.insert(blocks(), start + IDLE).unwrap();
    }
}
