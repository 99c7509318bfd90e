//! Where a message is, and why it waits.

use crate::{
    Anchor, Delivery, Failed, Hub,
    proof::{checkpoint_call, deliver_call},
    queue::settled_bits,
    relayer::refund_calls,
};
use alloy::{rpc::types::TransactionRequest, sol_types::SolCall};
use alloy_primitives::B256;
use std::{collections::BTreeMap, sync::Arc};
use switchyard_bridge_contracts::Inbox;
use switchyard_bridge_core::{MessageState, predeploys};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::{EvmChain, SentMessage};

/// A message, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageStatus {
    /// The message.
    pub sent: SentMessage,
    /// How far it has come.
    pub state: MessageState,
}

/// Looks for a message in the rollups that run here; none if none of them has sent it.
pub fn status(
    hub: &dyn Hub,
    chains: &BTreeMap<RollupId, Arc<dyn EvmChain>>,
    id: B256,
) -> Result<Option<MessageStatus>, Failed> {
    for (rollup, chain) in chains {
        let failed = |source| Failed::Rollup { rollup: *rollup, source };
        let Some(sent) = chain.sent_by_id(id).map_err(failed)? else { continue };
        let state = state(hub, chains, &**chain, id, &sent)?;
        return Ok(Some(MessageStatus { sent, state }));
    }
    Ok(None)
}

fn state(
    hub: &dyn Hub,
    chains: &BTreeMap<RollupId, Arc<dyn EvmChain>>,
    source: &dyn EvmChain,
    id: B256,
    sent: &SentMessage,
) -> Result<MessageState, Failed> {
    let message = &sent.message;
    let number = source.head().header.number;
    let call = Inbox::returnedCall { destination: message.destination.0, id };
    let request = TransactionRequest::default().to(predeploys::INBOX).input(call.abi_encode().into());
    let returned = source.call(number, request, None).ok().and_then(|answer| answer.last().copied());
    match returned {
        Some(1) => return Ok(MessageState::Returned),
        Some(2) => return Ok(MessageState::Refunded),
        _ => {}
    }
    if let Some(to) = chains.get(&message.destination) {
        match settled_bits(&**to, message.destination, message.source, message.index)? {
            0 if to.head().header.timestamp > message.deadline => return Ok(MessageState::Late),
            0 => {}
            1 => return Ok(MessageState::Delivered),
            _ => return Ok(MessageState::Expired),
        }
    }
    let certified = hub.rollups().into_iter().find(|r| r.rollup == message.source).and_then(|r| r.certified);
    let is_attested = certified.is_some_and(|certified| certified.checkpoint.number >= sent.block);
    Ok(if is_attested { MessageState::Attested } else { MessageState::Sent })
}

/// What anyone can send for a message to come further, in this order; nothing where it has to wait, or has arrived.
pub fn delivery(
    hub: &dyn Hub,
    chains: &BTreeMap<RollupId, Arc<dyn EvmChain>>,
    id: B256,
) -> Result<Option<Vec<Delivery>>, Failed> {
    let Some(MessageStatus { sent, state }) = status(hub, chains, id)? else { return Ok(None) };
    let message = &sent.message;
    let (source, to) = (chains.get(&message.source), chains.get(&message.destination));
    let (Some(source), Some(to)) = (source, to) else { return Ok(Some(Vec::new())) };
    let expired = match state {
        MessageState::Attested => false,
        MessageState::Late => true,
        MessageState::Returned => return Ok(Some(refund_calls(&sent))),
        _ => return Ok(Some(Vec::new())),
    };
    let certified = hub.rollups().into_iter().find(|r| r.rollup == message.source).and_then(|r| r.certified);
    let Some((certified, anchor)) = certified.zip(Anchor::newest(hub, &**to)?) else { return Ok(Some(Vec::new())) };
    let failed = |error| Failed::Rollup { rollup: message.source, source: error };
    let count = source.storage(certified.checkpoint.number, predeploys::OUTBOX, B256::ZERO).map_err(failed)?;
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let Some(show) = checkpoint_call(hub, message.destination, &certified, &anchor)? else {
        return Ok(Some(Vec::new()));
    };
    let Some(path) = source.outbox_path(message.index, count).map_err(failed)? else { return Ok(Some(Vec::new())) };
    Ok(Some(vec![show, deliver_call(&sent, count, path, message.gas_limit, expired)]))
}
