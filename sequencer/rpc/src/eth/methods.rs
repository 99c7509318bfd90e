//! The table of methods.

use super::{
    block,
    errors::EthError,
    fees, filters, logs,
    node::{Json, Node},
    params::Args,
    state, submit, subscribe, web3,
};
use jsonrpsee::{RpcModule, server::Methods, server::RegisterMethodError};
use std::{future::Future, sync::Arc};

/// Every method of a rollup's JSON-RPC.
pub(super) fn table(node: Arc<Node>) -> Result<Methods, RegisterMethodError> {
    let mut table = Table(RpcModule::from_arc(node));
    table.chain()?;
    table.state()?;
    table.blocks()?;
    table.logs()?;
    table.network()?;
    table.0.register_subscription(
        "eth_subscribe",
        "eth_subscription",
        "eth_unsubscribe",
        |params, pending, node, _| subscribe::subscribe(params, pending, node),
    )?;
    Ok(table.0.into())
}

struct Table(RpcModule<Node>);

impl Table {
    /// Adds a method that takes at most `max_args` parameters.
    fn add<F, R>(&mut self, name: &'static str, max_args: usize, handler: F) -> Result<(), RegisterMethodError>
    where
        F: Fn(Arc<Node>, Args) -> R + Copy + Send + Sync + 'static,
        R: Future<Output = Result<Json, EthError>> + Send + 'static,
    {
        self.0.register_async_method(name, move |params, node, _| async move {
            let args = Args::new(&params, max_args)?;
            handler(node, args).await
        })?;
        Ok(())
    }

    fn chain(&mut self) -> Result<(), RegisterMethodError> {
        self.add("eth_chainId", 0, state::chain_id)?;
        self.add("eth_blockNumber", 0, block::block_number)?;
        self.add("eth_gasPrice", 0, fees::gas_price)?;
        self.add("eth_maxPriorityFeePerGas", 0, fees::max_priority_fee)?;
        self.add("eth_blobBaseFee", 0, fees::blob_base_fee)?;
        self.add("eth_feeHistory", 3, fees::fee_history)?;
        self.add("eth_sendRawTransaction", 1, submit::send_raw)?;
        self.add("eth_sendRawTransactionSync", 2, submit::send_raw_sync)
    }

    fn state(&mut self) -> Result<(), RegisterMethodError> {
        self.add("eth_getBalance", 2, state::balance)?;
        self.add("eth_getTransactionCount", 2, state::transaction_count)?;
        self.add("eth_getCode", 2, state::code)?;
        self.add("eth_getStorageAt", 3, state::storage_at)?;
        self.add("eth_getProof", 3, state::proof)?;
        self.add("eth_call", 4, state::call)?;
        self.add("eth_estimateGas", 4, state::estimate_gas)
    }

    fn blocks(&mut self) -> Result<(), RegisterMethodError> {
        self.add("eth_getBlockByNumber", 2, block::block_by_number)?;
        self.add("eth_getBlockByHash", 2, block::block_by_hash)?;
        self.add("eth_getBlockReceipts", 1, block::block_receipts)?;
        self.add("eth_getBlockTransactionCountByNumber", 1, block::transaction_count_by_number)?;
        self.add("eth_getBlockTransactionCountByHash", 1, block::transaction_count_by_hash)?;
        self.add("eth_getUncleCountByBlockNumber", 1, block::uncle_count_by_number)?;
        self.add("eth_getUncleCountByBlockHash", 1, block::uncle_count_by_hash)?;
        self.add("eth_getTransactionByBlockNumberAndIndex", 2, block::transaction_by_number_and_index)?;
        self.add("eth_getTransactionByBlockHashAndIndex", 2, block::transaction_by_hash_and_index)?;
        self.add("eth_getTransactionByHash", 1, block::transaction_by_hash)?;
        self.add("eth_getRawTransactionByHash", 1, block::raw_transaction_by_hash)?;
        self.add("eth_getTransactionReceipt", 1, block::transaction_receipt)
    }

    fn logs(&mut self) -> Result<(), RegisterMethodError> {
        self.add("eth_getLogs", 1, logs::get_logs)?;
        self.add("eth_newFilter", 1, filters::new_filter)?;
        self.add("eth_newBlockFilter", 0, filters::new_block_filter)?;
        self.add("eth_newPendingTransactionFilter", 1, filters::new_pending_filter)?;
        self.add("eth_getFilterChanges", 1, filters::changes)?;
        self.add("eth_getFilterLogs", 1, filters::filter_logs)?;
        self.add("eth_uninstallFilter", 1, filters::uninstall)
    }

    fn network(&mut self) -> Result<(), RegisterMethodError> {
        self.add("eth_syncing", 0, web3::syncing)?;
        self.add("eth_accounts", 0, web3::accounts)?;
        self.add("net_version", 0, web3::net_version)?;
        self.add("net_listening", 0, web3::net_listening)?;
        self.add("net_peerCount", 0, web3::net_peer_count)?;
        self.add("web3_clientVersion", 0, web3::client_version)?;
        self.add("web3_sha3", 1, web3::sha3)?;
        self.add("rpc_modules", 0, web3::modules)
    }
}
