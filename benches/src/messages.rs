//! Messages from one rollup to another: a backlog of them, and how long live ones take meanwhile.

use crate::{
    cli::write_json,
    evm::fund,
    report::{Latency, Quantiles},
    rpc::Rpc,
    target::Target,
    wallet::accounts,
};
use alloy::{signers::local::PrivateKeySigner, sol_types::SolCall};
use alloy_primitives::{Address, B256, U256};
use clap::Args;
use eyre::{Result, WrapErr, bail, ensure, eyre};
use serde::Serialize;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use switchyard_bridge_client::{Account, Call, Client, ClientError, Tx, sign};
use switchyard_bridge_contracts::{IMessageAttributes, Outbox, interoperable_address};
use switchyard_bridge_core::predeploys::OUTBOX;
use switchyard_primitives::{Bytes, RollupId, TxHash};
use switchyard_proto::v1;
use tokio::time::sleep;

/// Gas of a message that carries coin.
const SEND_GAS: u64 = 150_000;
/// High enough for the base fees of a run.
const BASE_FEE_WEI: u64 = 20_000_000_000;
/// Transactions in one call.
const BATCH: usize = 500;
/// Between two looks at a live message.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Messages of one account.
const PER_ACCOUNT: usize = 500;
/// What a single wait may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Messages on a running network.
#[derive(Debug, Args)]
pub struct MessagesArguments {
    /// The network: folder of a local one
    #[arg(long, default_value = "./testnet-data")]
    dir: PathBuf,
    /// Sends so many messages first, and ends when they are executed at their source: a backlog, where no relayer runs
    #[arg(long, default_value_t = 0)]
    backlog: usize,
    /// Then so many live messages, one after the other, and how long each takes until it is delivered
    #[arg(long, default_value_t = 0)]
    live: usize,
    /// Write the result to this file as JSON
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What came of a run.
#[derive(Debug, Default, Serialize)]
struct Report {
    backlog: usize,
    /// From the first of them sent to the last one executed at its source.
    backlog_seconds: f64,
    /// From sending to delivery.
    live: Quantiles,
    /// Of the backlog, while the live ones went.
    delivered_per_second: f64,
}

struct Route {
    from: RollupId,
    /// Chain ids of the source and the destination.
    chains: [u64; 2],
}

impl Route {
    fn message(&self, recipient: Address) -> Call {
        let transfer = IMessageAttributes::transferCall {}.abi_encode();
        let recipient = interoperable_address(self.chains[1], recipient);
        let call =
            Outbox::sendMessageCall { recipient, payload: Default::default(), attributes: vec![transfer.into()] };
        Call { rollup: self.from, to: OUTBOX, value: U256::from(1), data: call.abi_encode().into(), gas: SEND_GAS }
    }

    fn sign(&self, key: &PrivateKeySigner, nonce: u64, to: Address) -> Result<Bytes, ClientError> {
        let account = Account { chain_id: self.chains[0], nonce, balance: U256::MAX, base_fee: BASE_FEE_WEI };
        Ok(sign(key, &account, Tx::Call(self.message(to)))?.1)
    }
}

/// Runs what was asked for and prints what came of it.
pub async fn run(arguments: MessagesArguments) -> Result<u8> {
    let target = Target::open(None, &arguments.dir).await?;
    let [from, to, ..] = target.rollups(&[], true)?[..] else { bail!("messages need two EVM rollups") };
    let chain = |rollup| target.json_rpc(rollup).first().map_or(0, |served| served.chain_id);
    let route = Route { from, chains: [chain(from), chain(to)] };
    let served = |rollup| target.json_rpc(rollup).iter().map(|served| served.http.clone()).collect();
    let (source, destination) = (Rpc::new(served(from), 16)?, Rpc::new(served(to), 16)?);
    let keys = accounts(rand::random(), arguments.backlog.div_ceil(PER_ACCOUNT) + 1)?;
    fund(&source, route.chains[0], &keys).await.wrap_err("funding the accounts")?;
    let (live, senders) = keys.split_last().ok_or_else(|| eyre!("no accounts"))?;
    let mut report = Report { backlog: arguments.backlog, ..Report::default() };
    let backlog = Address::repeat_byte(0xb6);
    if arguments.backlog > 0 {
        let began = Instant::now();
        send(&target, &route, senders, arguments.backlog, backlog).await?;
        report.backlog_seconds = began.elapsed().as_secs_f64();
    }
    let (began, before) = (Instant::now(), destination.balance(backlog).await?);
    let mut latency = Latency::default();
    let mut client = Client::over(target.channel(target.len().saturating_sub(1)));
    for nonce in 0..arguments.live as u64 {
        let began = Instant::now();
        let raw = route.sign(live, nonce, Address::repeat_byte(0xb7))?;
        let sent = client.submit(from, raw).await?;
        delivered(&mut client, from, sent).await?;
        latency.record(began.elapsed());
    }
    report.live = latency.quantiles();
    let more = destination.balance(backlog).await? - before;
    report.delivered_per_second = u64::try_from(more)? as f64 / began.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string_pretty(&report)?);
    if let Some(path) = &arguments.out {
        write_json(path, &report)?;
    }
    Ok(0)
}

/// Sends messages of several accounts in turn, and waits until each account's last one is executed.
async fn send(target: &Target, route: &Route, keys: &[PrivateKeySigner], count: usize, to: Address) -> Result<()> {
    let mut client = Client::over(target.channel(0));
    let mut pending: Vec<Bytes> = Vec::with_capacity(count);
    for number in 0..count {
        let (account, nonce) = (number % keys.len(), number / keys.len());
        pending.push(route.sign(&keys[account], nonce as u64, to)?);
    }
    let mut last = B256::ZERO;
    for batch in pending.chunks(BATCH) {
        let request = v1::SubmitRequest {
            rollup_id: route.from.0,
            transactions: batch.iter().map(|raw| raw.0.clone()).collect(),
        };
        for result in client.sequencer.submit(request).await?.into_inner().results {
            match result.result {
                Some(v1::submit_result::Result::Hash(hash)) => last = B256::try_from(&hash[..])?,
                Some(v1::submit_result::Result::Rejection(why)) => bail!("{}: {}", why.code, why.message),
                None => bail!("no answer"),
            }
        }
    }
    client.executed(route.from, last).await?;
    Ok(())
}

/// Waits until the message that a transaction sends is delivered.
async fn delivered(client: &mut Client, from: RollupId, sent: TxHash) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut id = None;
    loop {
        ensure!(Instant::now() < until, "not delivered within {} s", PATIENCE.as_secs());
        if id.is_none() {
            id = client.sent(from, sent).await?.first().copied();
        }
        if let Some(id) = id
            && client.new_message(id).await?.is_some_and(|message| message.state == "delivered")
        {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}
