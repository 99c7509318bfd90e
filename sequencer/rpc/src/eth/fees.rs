//! Gas prices: what wallets offer by.

use super::{
    errors::EthError,
    node::{Deadline, Json, Node, json},
    params::Args,
};
use alloy::{
    consensus::{Header, Transaction as _},
    eips::{BlockNumberOrTag, eip7840::BlobParams},
    rpc::types::FeeHistory,
};
use alloy_primitives::U256;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use std::sync::Arc;
use switchyard_rollup_core::evm::ExecutedBlock;

/// Blocks that one `eth_feeHistory` covers at most, as in geth.
const MAX_HISTORY_BLOCKS: u64 = 1024;
/// The same with percentiles of rewards, for which all transactions of the blocks are read.
const MAX_REWARD_BLOCKS: u64 = 128;
/// Percentiles that one `eth_feeHistory` takes at most, as in geth.
const MAX_PERCENTILES: usize = 100;
/// What to offer where nobody has offered anything lately, in wei: geth's least tip.
const DEFAULT_TIP_WEI: u128 = 1_000_000;
/// A suggestion never goes above this, in wei (500 gwei, as in geth).
const MAX_TIP_WEI: u128 = 500_000_000_000;
/// Newest blocks that a suggestion looks at.
const TIP_BLOCKS: u64 = 10;
/// Of each of them, this many of the lowest tips.
const TIPS_PER_BLOCK: usize = 3;
/// A suggestion is this percentile of them.
const TIP_PERCENTILE: usize = 60;
/// A suggestion is good for this many blocks.
const TIP_KEPT_BLOCKS: u64 = 5;

/// The last suggestion and the head it was made at.
#[derive(Default)]
pub(super) struct TipCache(Mutex<Option<(u64, u128)>>);

/// A tip per gas with which a transaction is likely to be among the next, in wei. Blocks on storage.
fn suggest_tip(node: &Node) -> Result<u128, EthError> {
    let head = node.chain.head().header.number;
    let kept = *node.tip.0.lock();
    if let Some((_, tip)) = kept.filter(|(at, _)| head < at.saturating_add(TIP_KEPT_BLOCKS)) {
        return Ok(tip);
    }
    let mut tips = Vec::new();
    for number in head.saturating_sub(TIP_BLOCKS - 1)..=head {
        if let Some(block) = node.block_at(number)? {
            let mut of_block: Vec<u128> = rewards(&block).into_iter().map(|(tip, _)| tip).collect();
            of_block.sort_unstable();
            tips.extend(of_block.into_iter().take(TIPS_PER_BLOCK));
        }
    }
    tips.sort_unstable();
    let index = tips.len().saturating_sub(1) * TIP_PERCENTILE / 100;
    let tip = tips.get(index).copied().unwrap_or(DEFAULT_TIP_WEI).clamp(DEFAULT_TIP_WEI, MAX_TIP_WEI);
    *node.tip.0.lock() = Some((head, tip));
    Ok(tip)
}

/// Tip per gas and gas used of each transaction, in block order.
fn rewards(block: &ExecutedBlock) -> Vec<(u128, u64)> {
    let base_fee = block.header.base_fee_per_gas.unwrap_or_default();
    let mut before = 0;
    let with_gas = block.transactions.iter().zip(&block.receipts).map(|(tx, receipt)| {
        let gas = receipt.cumulative_gas_used().saturating_sub(before);
        before = receipt.cumulative_gas_used();
        (tx.effective_tip_per_gas(base_fee).unwrap_or_default(), gas)
    });
    with_gas.collect()
}

/// `eth_gasPrice`
pub(super) async fn gas_price(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    node.read(|node| Ok(U256::from(suggest_tip(node)?) + U256::from(node.chain.next_base_fee()))).await
}

/// `eth_maxPriorityFeePerGas`
pub(super) async fn max_priority_fee(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    node.read(|node| Ok(U256::from(suggest_tip(node)?))).await
}

/// `eth_blobBaseFee`: rollups take no blobs, so this is the protocol's least.
pub(super) async fn blob_base_fee(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json(&U256::from(next_blob_fee(&node.chain.head().header)))
}

fn blob_fee(header: &Header) -> u128 {
    header.blob_fee(BlobParams::prague()).unwrap_or_default()
}

fn next_blob_fee(header: &Header) -> u128 {
    header.next_block_blob_fee(BlobParams::prague()).unwrap_or_default()
}

/// A block count: a hex quantity, a decimal string or a number.
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let count = match &value {
            serde_json::Value::Number(n) => n.as_u64(),
            serde_json::Value::String(s) => match s.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => s.parse().ok(),
            },
            _ => None,
        };
        count.map(Self).ok_or_else(|| serde::de::Error::custom(format!("{value} is not a block count")))
    }
}

/// `eth_feeHistory`
pub(super) async fn fee_history(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let Count(count) = args.required()?;
    let newest: BlockNumberOrTag = args.required()?;
    let percentiles: Vec<f64> = args.optional()?.unwrap_or_default();
    check_percentiles(&percentiles)?;
    let limit = if percentiles.is_empty() { MAX_HISTORY_BLOCKS } else { MAX_REWARD_BLOCKS };
    node.scan(move |node, deadline| history(node, count.min(limit), newest, &percentiles, deadline)).await
}

fn check_percentiles(percentiles: &[f64]) -> Result<(), EthError> {
    let wrong = |text: String| Err(EthError::Failed(format!("invalid reward percentile: {text}")));
    if percentiles.len() > MAX_PERCENTILES {
        return wrong(format!("over the query limit {MAX_PERCENTILES}"));
    }
    let mut previous = None;
    for (i, p) in percentiles.iter().copied().enumerate() {
        if !(0.0..=100.0).contains(&p) {
            return wrong(format!("{p:.6}"));
        }
        if let Some(q) = previous.filter(|q| *q >= p) {
            return wrong(format!("#{}:{q:.6} >= #{i}:{p:.6}", i - 1));
        }
        previous = Some(p);
    }
    Ok(())
}

fn history(
    node: &Node,
    count: u64,
    newest: BlockNumberOrTag,
    percentiles: &[f64],
    deadline: Deadline,
) -> Result<FeeHistory, EthError> {
    if count == 0 {
        return Ok(FeeHistory::default());
    }
    let head = node.chain.head().header.number;
    let newest = node.tag(newest);
    if newest > head {
        return Err(EthError::Failed(format!("request beyond head block: requested {newest}, head {head}")));
    }
    let count = count.min(newest + 1);
    let mut history = FeeHistory { oldest_block: newest + 1 - count, ..Default::default() };
    let mut reward = Vec::new();
    let mut next_blob = 0;
    for number in history.oldest_block..=newest {
        deadline.check()?;
        let header = if percentiles.is_empty() {
            node.chain.header(number)?.ok_or(EthError::HeaderNotFound)?
        } else {
            let block = node.block_at(number)?.ok_or(EthError::HeaderNotFound)?;
            reward.push(percentile_rewards(&block, percentiles));
            block.header.clone()
        };
        history.base_fee_per_gas.push(u128::from(header.base_fee_per_gas.unwrap_or_default()));
        history.gas_used_ratio.push(ratio(header.gas_used, header.gas_limit));
        history.base_fee_per_blob_gas.push(blob_fee(&header));
        let blob_limit = BlobParams::prague().max_blob_gas_per_block();
        history.blob_gas_used_ratio.push(ratio(header.blob_gas_used.unwrap_or_default(), blob_limit));
        next_blob = next_blob_fee(&header);
    }
    history.base_fee_per_gas.push(u128::from(base_fee_after(node, newest)?));
    history.base_fee_per_blob_gas.push(next_blob);
    history.reward = (!percentiles.is_empty()).then_some(reward);
    Ok(history)
}

/// Base fee of the block after `number`, in wei.
fn base_fee_after(node: &Node, number: u64) -> Result<u64, EthError> {
    // Read before the head: if the head is still `number` afterwards, this was its successor's.
    let next = node.chain.next_base_fee();
    if node.chain.head().header.number == number {
        return Ok(next);
    }
    let header = node.chain.header(number + 1)?.ok_or(EthError::HeaderNotFound)?;
    Ok(header.base_fee_per_gas.unwrap_or_default())
}

fn ratio(used: u64, limit: u64) -> f64 {
    if limit == 0 { 0.0 } else { used as f64 / limit as f64 }
}

/// For each percentile, the tip of the transaction at that share of the block's gas, cheapest first; zeros for an empty
/// block.
#[allow(clippy::cast_possible_truncation)]
fn percentile_rewards(block: &ExecutedBlock, percentiles: &[f64]) -> Vec<u128> {
    let mut rewards = rewards(block);
    rewards.sort_unstable_by_key(|(tip, _)| *tip);
    let mut sorted = rewards.into_iter();
    let Some((mut tip, mut gas)) = sorted.next() else { return vec![0; percentiles.len()] };
    let mut at = |p: &f64| {
        let threshold = (block.header.gas_used as f64 * p / 100.0) as u64;
        while gas < threshold {
            let Some((next, used)) = sorted.next() else { break };
            tip = next;
            gas = gas.saturating_add(used);
        }
        tip
    };
    percentiles.iter().map(&mut at).collect()
}
