//! The `switchyard` program.

use clap::{Parser, Subcommand};
use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Command, ExitCode},
    time::Duration,
};
use switchyard_node::{
    cli::{self, CliError},
    config::Config,
    disk, logging,
    node::Node,
    operate::{self, OperateError},
    prepare::catch_up,
    signer::{self, SignerConfig, SignerError},
};
use switchyard_primitives::NEWEST_PROTOCOL;

/// RocksDB's allocations too: the system's allocator keeps what threads have freed, megabytes for each of them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long tasks may take to end after the node has stopped.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A shared, decentralised sequencer for rollups.
#[derive(Parser)]
#[command(name = "switchyard", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Run a validator until it is told to stop (SIGTERM or Ctrl-C).
    Run {
        /// The node's configuration, a TOML file.
        #[arg(long)]
        config: PathBuf,
        /// Vote at once, without listening for another machine with this key
        #[arg(long)]
        no_doppelganger_check: bool,
        /// Follow no protocol above this version, as a program does that knows no newer one: to rehearse an upgrade
        #[arg(long, value_name = "VERSION", default_value_t = NEWEST_PROTOCOL, value_parser = clap::value_parser!(u8).range(1..))]
        newest_protocol: u8,
    },
    /// Run a remote signer, which has a validator's BLS key, until it is told to stop.
    Signer {
        /// The signer's configuration, a TOML file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Submit opaque transactions to a rollup.
    Submit(cli::SubmitArgs),
    /// How a node is doing; or where a transaction is, with the reason where it failed.
    Status(cli::StatusArgs),
    /// A rollup's segments, from any height on.
    Stream(cli::StreamArgs),
    /// Check a rollup's segments against the validator set alone.
    Verify(cli::VerifyArgs),
    /// Make, list, import and export keys.
    #[command(subcommand)]
    Keys(operate::KeysCommand),
    /// Make a new node's folder: configuration and keys.
    Init(operate::InitArgs),
    /// Look at a configuration.
    #[command(subcommand)]
    Config(operate::ConfigCommand),
    /// Check this machine, its peers and the running node.
    Doctor(operate::DoctorArgs),
    /// Who validates: show it, propose, sign and send changes.
    Stake(cli::StakeArgs),
    /// Which protocol version the network follows: show it, propose, sign and send the decision that another one begins.
    Upgrade(cli::UpgradeArgs),
    /// Coin for a rollup's accounts from outside: propose, sign and send deposits
    Deposit(cli::DepositArgs),
    /// Send coin or a token to another rollup, and follow it
    Transfer(cli::TransferArgs),
    /// Where a message between rollups is
    Message(cli::MessageArgs),
    /// Atomic bundles: all legs happen, or none does
    Bundle(cli::BundleArgs),
    /// Who attests rollups, and becoming or ceasing to be one who does
    Operator(cli::OperatorArgs),
    /// The record of what this validator has signed: export, import, begin.
    SignRecord(cli::SignRecordArgs),
    /// A rollup's state as a file: create, restore.
    Snapshot(cli::SnapshotArgs),
    /// `switchyard NAME` runs the program `switchyard-NAME` beside this one: `testnet`, `bench`.
    #[command(external_subcommand)]
    External(Vec<String>),
}

fn main() -> ExitCode {
    match Args::parse().command {
        Cmd::Run { config, no_doppelganger_check, newest_protocol } => {
            run(&config, !no_doppelganger_check, newest_protocol)
        }
        Cmd::Signer { config } => sign(&config),
        Cmd::Submit(args) => client(|out| Box::pin(cli::submit(args, out))),
        Cmd::Status(args) => client(|out| Box::pin(cli::status(args, out))),
        Cmd::Stream(args) => client(|out| Box::pin(cli::stream(args, out))),
        Cmd::Verify(args) => client(|out| Box::pin(cli::verify(args, out))),
        Cmd::Keys(command) => operated(operate::keys(command, &mut std::io::stdout())),
        Cmd::Init(args) => operated(operate::init(args, &mut std::io::stdout())),
        Cmd::Config(command) => operated(operate::config(command, &mut std::io::stdout())),
        Cmd::Doctor(args) => doctor(args),
        Cmd::Stake(args) => client(|out| Box::pin(cli::stake(args, out))),
        Cmd::Upgrade(args) => client(|out| Box::pin(cli::upgrade(args, out))),
        Cmd::Deposit(args) => client(|out| Box::pin(cli::deposit(args, out))),
        Cmd::Transfer(args) => client(|out| Box::pin(cli::transfer(args, out))),
        Cmd::Message(args) => client(|out| Box::pin(cli::message(args, out))),
        Cmd::Bundle(args) => client(|out| Box::pin(cli::bundle(args, out))),
        Cmd::Operator(args) => client(|out| Box::pin(cli::operator(args, out))),
        Cmd::SignRecord(args) => match cli::sign_record(args, &mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(2, error),
        },
        Cmd::Snapshot(args) => snapshot(args),
        Cmd::External(words) => external(&words),
    }
}

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<(), CliError>> + 'a>>;

/// Runs a command's future to its end, on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map(|runtime| runtime.block_on(future)).map_err(|error| refuse(1, format!("cannot start: {error}")))
}

fn client(command: impl for<'a> FnOnce(&'a mut (dyn Write + Send)) -> Outcome<'a>) -> ExitCode {
    match block_on(command(&mut std::io::stdout())) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => refuse(error.exit_code(), error),
        Err(code) => code,
    }
}

fn operated(outcome: Result<(), OperateError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(error.exit_code(), error),
    }
}

fn doctor(args: operate::DoctorArgs) -> ExitCode {
    block_on(operate::doctor(args, &mut std::io::stdout())).map_or_else(|code| code, operated)
}

fn snapshot(args: cli::SnapshotArgs) -> ExitCode {
    match block_on(cli::snapshot(args, &mut std::io::stdout())) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => refuse(error.exit_code(), error.line()),
        Err(code) => code,
    }
}

fn refuse(code: u8, text: impl std::fmt::Display) -> ExitCode {
    eprintln!("switchyard: {text}");
    ExitCode::from(code)
}

fn run(path: &Path, doppelganger_check: bool, newest_protocol: u8) -> ExitCode {
    let mut config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return refuse(2, error),
    };
    config.consensus.doppelganger_check &= doppelganger_check;
    config.newest_protocol = newest_protocol.min(NEWEST_PROTOCOL);
    let of_errors = config.clone();
    let errors = logging::init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(1, format!("cannot start: {error}")),
    };
    let outcome = runtime.block_on(async {
        let stop = stop_signal();
        tokio::pin!(stop);
        // Without an end of its own: what is half started ends with the process, as in a crash.
        let start = async {
            catch_up(&config, &errors).await?;
            Node::start(config, errors).await
        };
        let mut node = tokio::select! {
            () = &mut stop => return Ok(()),
            node = start => node?,
        };
        let outcome = tokio::select! {
            () = stop => Ok(()),
            error = node.failed() => Err(error),
        };
        tracing::info!("stopping");
        node.shutdown().await;
        outcome
    });
    // Tasks that still hold a database close it before the process ends: RocksDB aborts where its threads outlive its statics.
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(error.exit_code(), error.line(&of_errors)),
    }
}

fn sign(path: &Path) -> ExitCode {
    let config = match SignerConfig::load(path) {
        Ok(config) => config,
        Err(error) => return refuse(2, error),
    };
    logging::init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(1, format!("cannot start: {error}")),
    };
    let outcome = runtime.block_on(async {
        let stop = stop_signal();
        let failed = |code| {
            let folder = config.sign_record.parent().unwrap_or(Path::new("."));
            move |error: SignerError| (code, disk::line(&error, folder))
        };
        let mut serving = signer::serve(&config).await.map_err(failed(2))?;
        tokio::select! {
            () = stop => serving.stop().await.map_err(failed(1)),
            ended = serving.ended() => ended.map_err(failed(1)),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => refuse(code, error),
    }
}

/// Listens from the call on, so that no signal kills a node that has just told where it answers.
fn stop_signal() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut term), Ok(mut int)) = signals else {
            tracing::error!("cannot listen for signals: stop this process with SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}

fn external(words: &[String]) -> ExitCode {
    let Some((name, rest)) = words.split_first() else { return refuse(2, "no command") };
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(format!("switchyard-{name}"))));
    match beside.filter(|program| name.chars().all(|c| c.is_ascii_lowercase()) && program.is_file()) {
        Some(program) => {
            let error = Command::new(&program).args(rest).exec();
            refuse(1, format!("cannot run {}: {error}", program.display()))
        }
        None => refuse(2, format!("unknown command {name:?}; `switchyard help` lists those there are")),
    }
}
