//! The same transfers on one anvil process: what a single development node manages on this machine.

use crate::{
    cli::{PaceArguments, write_json},
    evm::{Chain, Transfers},
    report::Report,
    rpc::Rpc,
};
use clap::Args;
use eyre::{Result, WrapErr, bail, ensure};
use serde::Serialize;
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};
use switchyard_testnet_local::{GAS_LIMIT, accounts::BALANCE_ETHER};
use tokio::time::{Duration, sleep};

/// Where `npm i @foundry-rs/anvil` puts the program.
const INSTALLED: [&str; 2] = [
    "testnet/compat/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil",
    "testnet/compat/node_modules/@foundry-rs/anvil-linux-arm64/bin/anvil",
];
const CHAIN_ID: u64 = 31_337;
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Arguments of `switchyard bench anvil`.
#[derive(Debug, Args)]
pub struct AnvilArguments {
    /// Path of the program [default: where npm has installed it in testnet/compat]
    #[arg(long)]
    anvil: Option<PathBuf>,
    #[command(flatten)]
    pace: PaceArguments,
}

/// How anvil makes blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mining {
    /// A block for each transaction that comes.
    Automine,
    /// A block a second.
    EverySecond,
}

/// A process that is killed when the run ends.
struct Anvil(Child);

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the load on anvil in both ways of mining and prints both.
pub async fn run(arguments: AnvilArguments) -> Result<u8> {
    let program = match arguments.anvil {
        Some(path) => path,
        None => match INSTALLED.iter().map(PathBuf::from).find(|path| path.is_file()) {
            Some(path) => path,
            None => bail!("anvil is not installed: run `npm ci` in testnet/compat, or give its path with --anvil"),
        },
    };
    let mut results = Vec::new();
    for mining in [Mining::Automine, Mining::EverySecond] {
        let (_process, chain) = start(&program, mining).await?;
        let transfers = Transfers { chains: vec![chain], accounts: arguments.pace.accounts, hub: None };
        let report = crate::evm::run(transfers, arguments.pace.load(2000)?).await?;
        println!("anvil, {}", if mining == Mining::Automine { "automine" } else { "one block a second" });
        println!("{}", report.text());
        results.push((mining, report));
    }
    let best = results.iter().map(|(_, r)| r.receipts_per_second).fold(0.0, f64::max);
    println!("the better of the two: {best:.0} transactions/s with receipts");
    if let Some(path) = arguments.pace.out() {
        write_json(path, &serde_json::json!({ "best_per_second": best, "results": results }))?;
    }
    Ok(u8::from(!results.iter().all(|(_, report): &(_, Report)| report.accounted())))
}

async fn start(program: &PathBuf, mining: Mining) -> Result<(Anvil, Chain)> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().to_string();
    let (balance, gas_limit) = (BALANCE_ETHER.to_string(), GAS_LIMIT.to_string());
    let mut command = Command::new(program);
    command
        .args(["--silent", "--host", "127.0.0.1", "--port", &port, "--hardfork", "prague"])
        .args(["--balance", &balance, "--gas-limit", &gas_limit, "--order", "fifo"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if mining == Mining::EverySecond {
        command.args(["--block-time", "1"]);
    }
    let child = command.spawn().wrap_err_with(|| format!("cannot start {}", program.display()))?;
    let mut process = Anvil(child);
    let (http, ws) = (format!("http://127.0.0.1:{port}"), format!("ws://127.0.0.1:{port}"));
    let rpc = Rpc::new(vec![http.clone()], 1)?;
    let deadline = Instant::now() + START_TIMEOUT;
    while rpc.block_number().await.is_err() {
        if let Some(status) = process.0.try_wait()? {
            bail!("anvil ended: {status}");
        }
        ensure!(Instant::now() < deadline, "anvil did not answer within {} s", START_TIMEOUT.as_secs());
        sleep(Duration::from_millis(50)).await;
    }
    Ok((process, Chain { chain_id: CHAIN_ID, servers: vec![(http, ws)] }))
}
