//! The commands of `switchyard bench`.

use crate::{
    evm::{Chain, Transfers},
    load::Load,
    pace::Pace,
    report::Report,
    target::Target,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use eyre::{Result, WrapErr, bail, ensure};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Measures a running network: sends transactions at a rate, whatever the answers, and follows each to its end.
#[derive(Debug, Parser)]
#[command(name = "switchyard-bench", bin_name = "switchyard bench", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    load: LoadArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load on a running network (the default)
    Load(LoadArguments),
    /// The consensus engine alone, with ready-made blocks: what ordering could reach at most
    Engine(crate::engine::EngineArguments),
    /// A new follower of a running local network: how fast it copies and executes the log
    Sync(crate::sync::SyncArguments),
    /// Atomic bundles of two legs over two rollups of a running local network
    Bundles(crate::bundles::BundlesArguments),
    /// Messages between two rollups of a running local network: a backlog, and live ones
    Messages(crate::messages::MessagesArguments),
    /// The same transfers on one anvil process, to compare with
    Anvil(crate::anvil::AnvilArguments),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Opaque payloads over gRPC
    Raw,
    /// EVM transfers over JSON-RPC
    Evm,
}

#[derive(Debug, Args)]
struct LoadArguments {
    /// The network: what `switchyard testnet endpoints --json` prints
    #[arg(long)]
    endpoints: Option<PathBuf>,
    /// The network: folder of a local one
    #[arg(long, default_value = "./testnet-data", conflicts_with = "endpoints")]
    dir: PathBuf,
    /// Raw payloads or EVM transfers
    #[arg(long, value_enum, default_value = "raw")]
    kind: Kind,
    /// Bytes of a raw payload
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Ids of the rollups, separated by commas [default: all that take this kind]
    #[arg(long, value_delimiter = ',')]
    rollups: Vec<u64>,
    #[command(flatten)]
    pace: PaceArguments,
}

/// Rate, duration and what depends on them.
#[derive(Clone, Debug, Args)]
pub struct PaceArguments {
    /// Transactions a second over all rollups
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// As fast as the network takes them instead of at a rate: keeps --window transactions open
    #[arg(long, conflicts_with = "rate")]
    max: bool,
    /// Open transactions with --max [default: 8 MiB of raw payloads, 2000 transfers]
    #[arg(long, requires = "max")]
    window: Option<usize>,
    /// Seconds for which new transactions are due
    #[arg(long, default_value_t = 30.0)]
    duration: f64,
    /// Seconds to wait for the last transactions after that
    #[arg(long, default_value_t = 30.0)]
    grace: f64,
    /// Accounts that send EVM transfers, on each rollup
    #[arg(long, default_value_t = 100)]
    pub accounts: usize,
    /// Most open transactions: what is due above it is not sent, and counted
    #[arg(long, default_value_t = 100_000)]
    open_max: usize,
    /// Write the result to this file as JSON
    #[arg(long)]
    out: Option<PathBuf>,
}

impl PaceArguments {
    /// The load that the arguments describe.
    pub fn load(&self, window: usize) -> Result<Load> {
        ensure!(self.rate > 0.0 && self.rate <= 1e6, "--rate {}: must be above 0 and at most 1,000,000", self.rate);
        let seconds = |name: &str, value: f64| {
            ensure!(value > 0.0 && value <= 86_400.0, "--{name} {value}: must be above 0 and at most 86,400 s");
            Ok(Duration::from_secs_f64(value))
        };
        let window = self.window.unwrap_or(window);
        ensure!(window > 0 && window <= self.open_max, "--window {window}: must be 1 to --open-max");
        Ok(Load {
            pace: if self.max { Pace::Window(window) } else { Pace::Rate(self.rate) },
            duration: seconds("duration", self.duration)?,
            grace: seconds("grace", self.grace)?,
            open_max: self.open_max,
        })
    }

    /// Where the result goes besides the terminal.
    pub fn out(&self) -> Option<&Path> {
        self.out.as_deref()
    }
}

/// Runs the program on the process's arguments and returns its exit code: 0, or 1 where something failed or a transaction
/// is not accounted for.
pub fn main() -> u8 {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.wrap_err("cannot start").and_then(|runtime| runtime.block_on(run(cli)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    }
}

async fn run(cli: Cli) -> Result<u8> {
    match cli.command.unwrap_or(Command::Load(cli.load)) {
        Command::Load(arguments) => load(arguments).await,
        Command::Engine(arguments) => crate::engine::run(arguments).await,
        Command::Sync(arguments) => crate::sync::run(arguments).await.map(|()| 0),
        Command::Bundles(arguments) => crate::bundles::run(arguments).await,
        Command::Messages(arguments) => crate::messages::run(arguments).await,
        Command::Anvil(arguments) => crate::anvil::run(arguments).await,
    }
}

async fn load(arguments: LoadArguments) -> Result<u8> {
    let target = Target::open(arguments.endpoints.as_deref(), &arguments.dir).await?;
    let rollups = target.rollups(&arguments.rollups, arguments.kind == Kind::Evm)?;
    let ids: Vec<u64> = rollups.iter().map(|r| r.0).collect();
    let report = match arguments.kind {
        Kind::Raw => {
            let window = ((8 << 20) / arguments.size.max(1)).clamp(1, 50_000);
            crate::raw::run(target, rollups, arguments.size, arguments.pace.load(window)?).await?
        }
        Kind::Evm => {
            let mut chains = Vec::new();
            for rollup in &rollups {
                let served = target.json_rpc(*rollup);
                let Some(first) = served.first() else { bail!("no validator serves rollup {rollup}") };
                let servers = served.iter().map(|r| (r.http.clone(), r.ws.clone())).collect();
                chains.push(Chain { chain_id: first.chain_id, servers });
            }
            let transfers =
                Transfers { chains, accounts: arguments.pace.accounts, hub: Some((target, rollups.clone())) };
            crate::evm::run(transfers, arguments.pace.load(2000)?).await?
        }
    };
    finish(&report, arguments.pace.out(), serde_json::json!({ "kind": arguments.kind, "rollups": ids }))
}

/// Prints a report, writes it where asked, and says whether all is accounted for.
pub fn finish(report: &Report, out: Option<&Path>, of: serde_json::Value) -> Result<u8> {
    print!("{}", report.text());
    if let Some(path) = out {
        write_json(path, &serde_json::json!({ "run": of, "result": report }))?;
    }
    if !report.accounted() {
        eprintln!(
            "error: {} transactions are not accounted for, {} are there more than once",
            report.counts.unaccounted, report.counts.duplicate
        );
    }
    Ok(u8::from(!report.accounted()))
}

/// Writes a value to a file as JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    std::fs::write(path, text + "\n").wrap_err_with(|| format!("cannot write {}", path.display()))
}
