//! `net_*`, `web3_*` and what is the same on every node.

use super::{
    errors::EthError,
    node::{Json, Node, json},
    params::Args,
};
use alloy_primitives::{Address, Bytes, U64, keccak256};
use std::{collections::BTreeMap, sync::Arc};

/// `eth_syncing`: this node answers for what it has executed, which is final.
pub(super) async fn syncing(_: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json(&false)
}

/// `net_version`
pub(super) async fn net_version(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json(&node.chain.chain_id().to_string())
}

/// `net_listening`
pub(super) async fn net_listening(_: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json(&true)
}

/// `net_peerCount`: the other validators of the network.
pub(super) async fn net_peer_count(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json(&U64::from(node.gateway.hub_state().current().members().len().saturating_sub(1)))
}

/// `web3_clientVersion`
pub(super) async fn client_version(node: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json(&node.gateway.info().client_version)
}

/// `web3_sha3`: keccak-256.
pub(super) async fn sha3(_: Arc<Node>, mut args: Args) -> Result<Json, EthError> {
    json(&keccak256(args.required::<Bytes>()?))
}

/// `eth_accounts`: the node keeps nobody's keys.
pub(super) async fn accounts(_: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json::<[Address]>(&[])
}

/// `rpc_modules`
pub(super) async fn modules(_: Arc<Node>, _: Args) -> Result<Json, EthError> {
    json(&BTreeMap::from([("eth", "1.0"), ("net", "1.0"), ("rpc", "1.0"), ("web3", "1.0")]))
}
