//! Conservation of a network's coin, from what any of its nodes tells anyone over JSON-RPC.

use alloy::{
    genesis::Genesis as EvmGenesis,
    primitives::{Address, U256},
    rpc::types::{Block, TransactionReceipt},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};
use switchyard_bridge_contracts::{Books, Totals, ledger::Row};
use switchyard_node::{config::Endpoints, genesis::Genesis};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::Vm;
use switchyard_testnet_local::Client;

/// How long a rollup may be behind what others have of it.
const BEHIND: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(50);

/// A rollup's JSON-RPC server, and how far it was read.
struct Reader<'a> {
    client: &'a Client,
    url: &'a str,
    read: u64,
}

impl Reader<'_> {
    async fn ask<T: DeserializeOwned>(&self, method: &str, params: Value) -> eyre::Result<T> {
        Ok(serde_json::from_value(self.client.json_rpc(self.url, method, params).await?)?)
    }

    /// Takes all blocks up to the newest into the books.
    async fn read(&mut self, rollup: RollupId, books: &mut Books) -> eyre::Result<()> {
        let head: U256 = self.ask("eth_blockNumber", json!([])).await?;
        while self.read < head.to::<u64>() {
            let number = format!("{:#x}", self.read + 1);
            let block: Block = self.ask("eth_getBlockByNumber", json!([number, true])).await?;
            let receipts: Vec<TransactionReceipt> = self.ask("eth_getBlockReceipts", json!([number])).await?;
            let transactions = block.transactions.into_transactions_vec();
            eyre::ensure!(transactions.len() == receipts.len(), "{} receipts in {number}", receipts.len());
            let receipts: Vec<_> = receipts.into_iter().map(|r| r.into_primitives_receipt().inner).collect();
            let row = |(tx, receipt)| {
                let tx: &alloy::rpc::types::Transaction = tx;
                Row { transaction: tx.inner.inner(), sender: tx.inner.signer(), receipt }
            };
            let deposits = block.withdrawals.unwrap_or_default();
            books.block(rollup, &block.header.inner, transactions.iter().zip(&receipts).map(row), &deposits);
            self.read += 1;
        }
        Ok(())
    }

    async fn balance(&self, account: Address) -> eyre::Result<U256> {
        self.ask("eth_getBalance", json!([account, format!("{:#x}", self.read)])).await
    }
}

/// Reads all EVM rollups of a node from their genesis on, and holds what accounts have against it ([`Books`]): on each rollup, in its
/// vault and its Inbox, and on all of them together.
pub async fn conserved(client: &Client, node: &Endpoints, genesis: &Genesis) -> eyre::Result<Totals> {
    let (mut books, mut readers) = (Books::default(), BTreeMap::new());
    for manifest in &genesis.rollups {
        let Vm::Evm { genesis } = &manifest.vm else { continue };
        let genesis: EvmGenesis = serde_json::from_value(genesis.clone())?;
        books.begin(manifest.id, genesis.alloc.into_iter().map(|(address, account)| (address, account.balance)));
        let served = node.rollups.iter().find(|served| served.rollup == manifest.id);
        let served = served.ok_or_else(|| eyre::eyre!("rollup {} has no server", manifest.id))?;
        readers.insert(manifest.id, Reader { client, url: &served.http, read: 0 });
    }
    for (rollup, reader) in &mut readers {
        reader.read(*rollup, &mut books).await?;
    }
    let start = Instant::now();
    while let Some(behind) = books.behind() {
        eyre::ensure!(start.elapsed() < BEHIND, "rollup {behind} has not sent what was delivered elsewhere");
        let reader = readers.get_mut(&behind).ok_or_else(|| eyre::eyre!("{behind} is no EVM rollup"))?;
        tokio::time::sleep(POLL).await;
        reader.read(behind, &mut books).await?;
    }
    let mut balances = HashMap::new();
    for (rollup, accounts) in books.accounts() {
        for account in accounts {
            balances.insert((rollup, account), readers[&rollup].balance(account).await?);
        }
    }
    let known = |rollup, account| balances.get(&(rollup, account)).copied().ok_or(eyre::eyre!("{account} is unknown"));
    Ok(books.check(known)??)
}
