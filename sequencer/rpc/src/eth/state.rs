//! Accounts, storage, calls and proofs.

use super::{
    errors::EthError,
    node::{Json, Node, json},
    params::Args,
};
use alloy::{
    eips::BlockId,
    rpc::types::{TransactionRequest, state::StateOverride},
    serde::JsonStorageKey,
};
use alloy_primitives::{Address, B256, U64, U256};
use serde_json::Value;
use std::sync::Arc;

/// As many storage keys as geth takes in one `eth_getProof`.
const MAX_PROOF_KEYS: usize = 1024;

/// `eth_chainId`
pub(super) async fn chain_id(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json(&U64::from(node.chain.chain_id()))
}

/// `eth_getBalance`
pub(super) async fn balance(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let address: Address = args.required()?;
    let at = args.optional()?.unwrap_or_default();
    node.read(move |node| {
        let account = node.chain.account(node.state_number(at)?, address)?;
        Ok(account.map_or(U256::ZERO, |a| a.balance))
    })
    .await
}

/// `eth_getTransactionCount`; `pending` counts what the open block holds and what waits in the mempool.
pub(super) async fn transaction_count(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let address: Address = args.required()?;
    let at: BlockId = args.optional()?.unwrap_or_default();
    node.read(move |node| {
        let account = node.chain.account(node.state_number(at)?, address)?;
        let executed = account.map_or(0, |a| a.nonce);
        let waiting = if at.is_pending() { node.gateway.pending_nonce(node.rollup, address) } else { None };
        Ok(U64::from(waiting.map_or(executed, |nonce| nonce.max(executed))))
    })
    .await
}

/// `eth_getCode`
pub(super) async fn code(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let address: Address = args.required()?;
    let at = args.optional()?.unwrap_or_default();
    node.read(move |node| Ok(node.chain.code(node.state_number(at)?, address)?)).await
}

/// `eth_getStorageAt`
pub(super) async fn storage_at(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let address: Address = args.required()?;
    let slot: JsonStorageKey = args.required()?;
    let at = args.optional()?.unwrap_or_default();
    node.read(move |node| Ok(B256::from(node.chain.storage(node.state_number(at)?, address, slot.as_b256())?))).await
}

/// `eth_getProof`; `pending` is the newest closed block, since an open one has no root.
pub(super) async fn proof(node: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    let address: Address = args.required()?;
    let keys: Vec<JsonStorageKey> = args.required()?;
    let at = args.optional()?.unwrap_or_default();
    if keys.len() > MAX_PROOF_KEYS {
        return Err(EthError::Limit(format!("too many keys (max {MAX_PROOF_KEYS})")));
    }
    node.execute(move |node| {
        let slots: Vec<B256> = keys.iter().map(JsonStorageKey::as_b256).collect();
        let mut proof = node.chain.proof(node.number(at)?, address, &slots)?;
        // Clients look their keys up as they wrote them.
        for (answer, key) in proof.storage_proof.iter_mut().zip(keys) {
            answer.key = key;
        }
        Ok(proof)
    })
    .await
}

/// A call and where to run it.
struct Call {
    request: TransactionRequest,
    at: BlockId,
    state: Option<StateOverride>,
}

impl Call {
    fn parse(mut args: Args, default: BlockId) -> Result<Self, EthError> {
        let call = Self { request: args.required()?, at: args.optional()?.unwrap_or(default), state: args.optional()? };
        if args.optional::<Value>()?.is_some() {
            return Err(EthError::InvalidParams("block overrides are not supported".into()));
        }
        Ok(call)
    }
}

/// `eth_call`
pub(super) async fn call(node: Arc<Node>, args: Args) -> Result<Json, EthError> {
    let Call { request, at, state } = Call::parse(args, BlockId::latest())?;
    node.execute(move |node| Ok(node.chain.call(node.state_number(at)?, request, state)?)).await
}

/// `eth_estimateGas`; on the newest state where the client names none, so that a wallet that has just seen a receipt may
/// build on it.
pub(super) async fn estimate_gas(node: Arc<Node>, args: Args) -> Result<Json, EthError> {
    let Call { request, at, state } = Call::parse(args, BlockId::pending())?;
    node.execute(move |node| Ok(U64::from(node.chain.estimate_gas(node.state_number(at)?, request, state)?))).await
}
