//! `eth_getLogs` and the matching that filters and subscriptions share.

use super::{
    convert,
    errors::EthError,
    node::{Deadline, Json, Node},
    params::Args,
};
use alloy::{
    eips::BlockNumberOrTag,
    rpc::types::{Filter, FilterBlockOption, Log},
};
use std::sync::Arc;
use switchyard_rollup_core::evm::ExecutedBlock;

/// Addresses, or topics of one position, in one query; as in geth.
const MAX_ALTERNATIVES: usize = 1000;

/// Logs as they are found, within the limits of one answer.
struct Found {
    logs: Vec<Log>,
    logs_max: usize,
    data_left: usize,
    data_max: usize,
}

impl Found {
    /// For an answer over `blocks` blocks. A block alone is always returned whole: nobody could ask for less.
    fn new(node: &Node, blocks: u64) -> Self {
        // Two hex digits a byte, and as much again for what surrounds the data.
        let data_max = node.limits.max_response_bytes as usize / 4;
        let logs_max = if blocks > 1 { node.limits.max_logs } else { usize::MAX };
        Self { logs: Vec::new(), logs_max, data_left: data_max, data_max }
    }

    fn push(&mut self, log: Log) -> Result<(), EthError> {
        if self.logs.len() >= self.logs_max {
            return Err(EthError::Limit(format!("query returned more than {} results", self.logs_max)));
        }
        let data = log.inner.data.data.len();
        self.data_left = self.data_left.checked_sub(data).ok_or_else(|| {
            EthError::Limit(format!("query returned logs with more than {} bytes of data", self.data_max))
        })?;
        self.logs.push(log);
        Ok(())
    }
}

/// A filter that a client has sent, checked against what one query may ask for.
pub(super) fn parse(args: &mut Args) -> Result<Filter, EthError> {
    let filter: Filter = args.required()?;
    check(&filter)?;
    Ok(filter)
}

/// Refuses a filter with too many alternatives.
pub(super) fn check(filter: &Filter) -> Result<(), EthError> {
    let longest = filter.topics.iter().map(|t| t.len()).chain([filter.address.len()]).max();
    if longest.is_some_and(|n| n > MAX_ALTERNATIVES) {
        return Err(EthError::InvalidParams("exceed max addresses or topics per search position".into()));
    }
    Ok(())
}

/// `eth_getLogs`
pub(super) async fn get_logs(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let filter = parse(&mut args)?;
    node.scan(move |node, deadline| query(node, &filter, deadline)).await
}

/// The logs that a filter selects. Blocks on storage.
pub(super) fn query(node: &Node, filter: &Filter, deadline: Deadline) -> Result<Vec<Log>, EthError> {
    match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => {
            let block = node.chain.block_by_hash(hash)?.ok_or(EthError::UnknownBlock)?;
            let mut found = Found::new(node, 1);
            matching(&block, filter, &mut |log| found.push(log))?;
            Ok(found.logs)
        }
        FilterBlockOption::Range { from_block, to_block } => {
            if let (Some(BlockNumberOrTag::Number(from)), Some(BlockNumberOrTag::Number(to))) = (from_block, to_block)
                && from > to
            {
                return Err(EthError::InvalidParams("invalid block range params".into()));
            }
            let from = node.tag(from_block.unwrap_or_default());
            let to = node.tag(to_block.unwrap_or_default()).min(node.chain.head().header.number);
            scan(node, filter, from, to, deadline)
        }
    }
}

/// The matching logs of blocks `from` to `to`, both included. Blocks on storage.
pub(super) fn scan(node: &Node, filter: &Filter, from: u64, to: u64, deadline: Deadline) -> Result<Vec<Log>, EthError> {
    let limit = node.limits.max_log_blocks;
    if to.saturating_sub(from) >= limit {
        return Err(EthError::Limit(format!("exceed maximum block range: {limit}")));
    }
    let mut found = Found::new(node, to.saturating_sub(from) + 1);
    for number in from..=to {
        deadline.check()?;
        let header = node.chain.header(number)?.ok_or(EthError::UnknownBlock)?;
        if !filter.matches_bloom(header.logs_bloom) {
            continue;
        }
        let block = node.block_at(number)?.ok_or(EthError::UnknownBlock)?;
        matching(&block, filter, &mut |log| found.push(log))?;
    }
    Ok(found.logs)
}

/// Hands a block's matching logs to `each`, in order. Looks at addresses and topics alone.
pub(super) fn matching(
    block: &ExecutedBlock,
    filter: &Filter,
    each: &mut impl FnMut(Log) -> Result<(), EthError>,
) -> Result<(), EthError> {
    if !filter.matches_bloom(block.header.logs_bloom) {
        return Ok(());
    }
    let mut log_index = 0;
    for (index, (tx, receipt)) in block.transactions.iter().zip(&block.receipts).enumerate() {
        for log in receipt.logs() {
            if filter.matches(log) {
                each(convert::log((block.hash, &block.header), *tx.tx_hash(), index, log_index, log.clone()))?;
            }
            log_index += 1;
        }
    }
    Ok(())
}
