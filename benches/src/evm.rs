//! EVM transfers over JSON-RPC.

use crate::{
    follow::{Known, follow},
    ledger::{Goal, Ledger},
    load::{Load, settle},
    pace::Pacer,
    receipts::watch,
    report::Report,
    rpc::{Rpc, Sent},
    target::Target,
    wallet::{Prepared, accounts, send_request, sign_ahead, transfer},
};
use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::U256;
use eyre::{Result, WrapErr, bail, ensure};
use std::{sync::Arc, time::Instant};
use switchyard_primitives::RollupId;
use switchyard_testnet_local::accounts::{ACCOUNTS, BALANCE_ETHER};
use tokio::{
    task::JoinSet,
    time::{Duration, sleep},
};

/// Requests under way, and so connections, for each server.
const REQUESTS_MAX: usize = 256;
/// Transfers that are signed before the run starts; a longer run signs the rest while it goes.
const AHEAD_MAX: usize = 200_000;
const AHEAD_UNPACED: usize = 50_000;
const FUNDING_TIMEOUT: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(50);

/// A chain under load: the servers that serve it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// JSON-RPC addresses, `http://` and `ws://`.
    pub servers: Vec<(String, String)>,
}

/// What carries a load of transfers.
pub struct Transfers {
    /// The chains, each with the same share of the load.
    pub chains: Vec<Chain>,
    /// Accounts that send, on each chain.
    pub accounts: usize,
    /// The hub beneath the chains, with each one's rollup; none for a plain Ethereum node.
    pub hub: Option<(Target, Vec<RollupId>)>,
}

/// Runs a load of transfers: funds the accounts, signs ahead, sends, and follows finality and receipts.
pub async fn run(transfers: Transfers, load: Load) -> Result<Report> {
    let Transfers { chains, accounts: count, hub } = transfers;
    ensure!(count > 0, "--accounts must be at least 1");
    let mut rpcs = Vec::with_capacity(chains.len());
    for chain in &chains {
        rpcs.push(Rpc::new(chain.servers.iter().map(|(http, _)| http.clone()).collect(), REQUESTS_MAX)?);
    }
    let keys = accounts(rand::random(), count)?;
    for (chain, rpc) in chains.iter().zip(&rpcs) {
        fund(rpc, chain.chain_id, &keys).await.wrap_err("funding the accounts")?;
    }

    let total = Pacer::total(load.pace, load.duration);
    let ahead = total.map_or(AHEAD_UNPACED, |n| usize::try_from(n).unwrap_or(AHEAD_MAX).min(AHEAD_MAX));
    let mut prepared = sign_ahead(keys, chains.iter().map(|c| c.chain_id).collect(), total, ahead);
    eprintln!("signing {ahead} transfers");
    while prepared.len() < ahead && !prepared.is_closed() {
        sleep(RETRY).await;
    }

    let ledger = Arc::new(Ledger::new(Goal { finality: hub.is_some(), receipt: true }));
    let mut watchers = JoinSet::new();
    if let Some((target, rollups)) = &hub {
        for rollup in rollups {
            watchers.spawn(follow(target.clone(), *rollup, target.tip() + 1, Known::Hash, ledger.clone()));
        }
    }
    for (chain, rpc) in chains.iter().zip(&rpcs) {
        let head = rpc.block_number().await?;
        watchers.spawn(watch(chain.servers.clone(), rpc.clone(), head + 1, ledger.clone()));
    }

    let mut calls = JoinSet::new();
    let mut pacer = Pacer::start(load.pace, load.duration);
    'run: while let Some(due) = pacer.due(&ledger).await {
        while calls.try_join_next().is_some() {}
        if ledger.open() + due.len() > load.open_max {
            // Nonces must not have gaps, so what is due is sent late instead of never.
            ledger.below(load.open_max.saturating_sub(due.len()).max(1)).await;
        }
        for (seq, at) in due {
            let Some(next) = prepared.recv().await else { break 'run };
            ledger.sent(seq, at, next.bytes, Some(next.hash));
            calls.spawn(send(rpcs[next.chain].clone(), seq, next, ledger.clone(), Instant::now() + load.grace));
        }
    }
    while calls.join_next().await.is_some() {}
    match &hub {
        Some((target, rollups)) => {
            // Transfers are signed and sent in the same order, round the chains.
            settle(target, &ledger, load.grace, |seq, open| {
                let chain = usize::try_from(seq % rollups.len() as u64).unwrap_or(0);
                (rollups[chain], open.hash.unwrap_or_default())
            })
            .await;
        }
        None => {
            let _ = tokio::time::timeout(load.grace, ledger.below(1)).await;
        }
    }
    Ok(ledger.report())
}

/// Sends a transfer until a server takes it. One that finds no room is sent again, as a wallet would: the sender's later
/// ones cannot execute without it.
async fn send(rpc: Rpc, seq: u64, transfer: Prepared, ledger: Arc<Ledger>, until: Instant) {
    let mut attempt = 0;
    loop {
        let sent = rpc.send(transfer.account + attempt, &transfer.request).await;
        let now = Instant::now();
        match sent {
            Sent::Accepted => return ledger.accepted(seq, now),
            Sent::Known if attempt > 0 => return ledger.accepted(seq, now),
            Sent::Known => return ledger.rejected(seq, "already_known", "already known"),
            Sent::Refused { code, message } if now >= until || !is_passing(&message) => {
                return ledger.rejected(seq, &code, &message);
            }
            Sent::Refused { .. } => {}
            // Whether the server has it is not known: left open unless another server answers.
            Sent::Silent if now >= until => return,
            Sent::Silent => attempt += 1,
        }
        ledger.retried();
        sleep(RETRY).await;
    }
}

/// The reason goes away by itself when blocks are made.
fn is_passing(message: &str) -> bool {
    ["mempool full", "txpool is full", "nonce too high", "unavailable", "not replicated", "too many"]
        .iter()
        .any(|reason| message.contains(reason))
}

/// Gives every account an equal part of what the funded accounts own, and waits until it has it.
pub(crate) async fn fund(rpc: &Rpc, chain_id: u64, keys: &[PrivateKeySigner]) -> Result<()> {
    let ether = |n: u64| U256::from(n) * U256::from(10).pow(U256::from(18));
    let share = keys.len().div_ceil(ACCOUNTS.len());
    let mut value = ether(BALANCE_ETHER);
    let mut funders = Vec::new();
    for account in ACCOUNTS {
        let signer = PrivateKeySigner::from_bytes(&account.private_key)?;
        value = value.min(rpc.balance(account.address).await?);
        funders.push((signer, rpc.nonce(account.address).await?));
    }
    // Half is kept for the next run.
    let value = value / U256::from(2 * share);
    ensure!(value > ether(1), "the funded accounts have too little left for {} accounts", keys.len());
    for (i, key) in keys.iter().enumerate() {
        let at = i % ACCOUNTS.len();
        let (funder, nonce) = &mut funders[at];
        let (_, raw) = transfer(funder, chain_id, *nonce, key.address(), value)?;
        *nonce += 1;
        let (request, mut sent) = (send_request(&raw), Sent::Silent);
        for server in 0..rpc.servers() {
            sent = rpc.send(at + server, &request).await;
            if sent != Sent::Silent {
                break;
            }
        }
        match sent {
            Sent::Accepted | Sent::Known => {}
            Sent::Refused { code, message } => bail!("{code}: {message}"),
            Sent::Silent => bail!("no server takes transactions"),
        }
    }
    let deadline = Instant::now() + FUNDING_TIMEOUT;
    for key in keys {
        while rpc.least_balance(key.address()).await? < value {
            ensure!(Instant::now() < deadline, "not executed within {} s", FUNDING_TIMEOUT.as_secs());
            sleep(RETRY).await;
        }
    }
    Ok(())
}
