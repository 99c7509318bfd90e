//! Watches a chain's new blocks and reads their receipts.

use crate::{ledger::Ledger, rpc::Rpc};
use alloy::providers::{Provider, ProviderBuilder, WsConnect};
use eyre::Result;
use futures::StreamExt;
use std::{sync::Arc, time::Instant};
use tokio::time::{Duration, sleep, timeout};

const RECONNECT: Duration = Duration::from_millis(200);
/// Without a new head for this long, the server is asked whether it has one.
const SILENCE: Duration = Duration::from_secs(2);

/// Tells the ledger of every receipt from block `next` on, through a subscription to new heads. Goes to the next server
/// where one ends its subscription. Never returns.
pub async fn watch(servers: Vec<(String, String)>, rpc: Rpc, mut next: u64, ledger: Arc<Ledger>) {
    for server in 0_usize.. {
        let (_, ws) = &servers[server % servers.len()];
        if let Err(error) = subscribe(ws, server, &rpc, &mut next, &ledger).await {
            eprintln!("{ws}: {error}; going on with the next server");
        }
        sleep(RECONNECT).await;
    }
}

async fn subscribe(ws: &str, server: usize, rpc: &Rpc, next: &mut u64, ledger: &Ledger) -> Result<()> {
    let provider = ProviderBuilder::new().connect_ws(WsConnect::new(ws).with_max_retries(0)).await?;
    let mut heads = provider.subscribe_blocks().await?.into_stream();
    // Blocks from before the subscription.
    read(rpc, server, next, u64::MAX, ledger).await?;
    loop {
        match timeout(SILENCE, heads.next()).await {
            Ok(Some(head)) => read(rpc, server, next, head.number, ledger).await?,
            Ok(None) => return Ok(()),
            // A subscription may be dead without having ended.
            Err(_) => read(rpc, server, next, u64::MAX, ledger).await?,
        }
    }
}

/// Reads the receipts of the blocks from `next` to `last`, or to the newest.
async fn read(rpc: &Rpc, server: usize, next: &mut u64, last: u64, ledger: &Ledger) -> Result<()> {
    while *next <= last {
        let Some(receipts) = rpc.receipts(server, *next).await? else { return Ok(()) };
        let now = Instant::now();
        for receipt in receipts {
            ledger.executed(&receipt.transaction_hash, receipt.status.to::<u64>() == 1, now);
        }
        *next += 1;
    }
    Ok(())
}
