//! The commands of `switchyard testnet`.

use crate::{
    Error,
    accounts::{ACCOUNTS, BALANCE_ETHER},
    client::Client,
    demo::demo,
    dir::{NetworkDir, Options, Ports},
    network::{READY_TIMEOUT, Testnet, check_ports, refuse_running, stop},
    process::exec_in_session,
    status::{NetworkEndpoints, NetworkStatus, endpoints, status},
    view::View,
};
use clap::{Args, Parser, Subcommand};
use std::{
    ffi::OsString,
    fs,
    future::Future,
    io::{IsTerminal, Write, stdout},
    path::PathBuf,
    pin::pin,
};
use switchyard_rollup_core::Sealing;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Duration, Instant, MissedTickBehavior},
};

/// Where the ports of a new network start.
const BASE_PORT: u16 = 7100;

/// Runs a local network of real validator processes.
#[derive(Debug, Parser)]
#[command(
    name = "switchyard-testnet",
    bin_name = "switchyard testnet",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: Up,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the network, making it first if there is none, and show a live view (the default)
    Up(Up),
    /// Stop the network and wait until it has stopped; its state is kept
    Down(Dir),
    /// Where every server is, and funded keys
    Endpoints(Show),
    /// How every validator is doing; fails if one is down or they disagree
    Status(Show),
    /// Show a swap between two rollups and a transfer that is refunded, each stage with its time
    Demo(Dir),
    /// Run a command in a session of its own
    #[command(hide = true)]
    InSession {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    dir: Dir,
    /// Number of validators of a new network, 1 to 64 [default: 4]
    #[arg(long)]
    validators: Option<usize>,
    /// EVM rollups of a new network close a block a second, with receipts before that, instead of one for each hub block
    #[arg(long)]
    one_second: bool,
    /// Return once every server answers; the validators go on running
    #[arg(long)]
    detach: bool,
    /// Show no swap and no transfer once every server answers
    #[arg(long)]
    no_demo: bool,
    /// First of the ports to listen on; 0 takes free ones [default: 7100, or those the network had before]
    #[arg(long)]
    base_port: Option<u16>,
}

#[derive(Debug, Args)]
struct Dir {
    /// Folder of the network's keys, state and logs
    #[arg(long, default_value = "./testnet-data")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    dir: Dir,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the program on the process's arguments and returns its exit code: 0; 1 where something failed; 2 where other
/// arguments are needed.
pub fn main() -> u8 {
    let cli = Cli::parse();
    if let Some(Command::InSession { command }) = &cli.command {
        eprintln!("error: cannot run {command:?}: {}", exec_in_session(command));
        return 1;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return 1;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e}");
            e.exit_code()
        }
    }
}

async fn run(cli: Cli) -> Result<u8, Error> {
    match cli.command.unwrap_or(Command::Up(cli.up)) {
        Command::Up(arguments) => up(&arguments).await,
        Command::Down(dir) => down(&dir).await,
        Command::Endpoints(show) => {
            let all = endpoints(&NetworkDir::open(&show.dir.dir)?)?;
            if show.json {
                print_json(&all)
            } else {
                print_endpoints(&all)
            }
            Ok(u8::from(all.validators.is_empty()))
        }
        Command::Status(show) => {
            let status = status(&NetworkDir::open(&show.dir.dir)?, &Client::new()).await?;
            if show.json {
                print_json(&status)
            } else {
                print_status(&status)
            }
            Ok(u8::from(!status.ok))
        }
        Command::Demo(Dir { dir }) => {
            show(&NetworkDir::open(&dir)?).await?;
            Ok(0)
        }
        // Handled before the runtime was made.
        Command::InSession { .. } => Ok(1),
    }
}

async fn up(arguments: &Up) -> Result<u8, Error> {
    // Held until this process ends: two launchers must not work in one folder.
    let _lock = lock(arguments)?;
    let mut testnet = open_or_create(arguments)?;
    check_ports(testnet.dir())?;
    if arguments.detach {
        testnet.use_sessions()?;
    }
    let mut signals = Signals::new()?;
    let started = tokio::select! {
        started = start(&mut testnet) => Some(started),
        () = signals.next() => None,
    };
    match started {
        Some(Ok(())) => {}
        Some(Err(e)) => {
            testnet.stop_all().await;
            return Err(e);
        }
        None => return finish(&mut testnet, &mut signals).await,
    }
    print_endpoints(&endpoints(testnet.dir())?);
    if !arguments.no_demo {
        let shown = tokio::select! {
            shown = show(testnet.dir()) => shown,
            () = signals.next() => return finish(&mut testnet, &mut signals).await,
        };
        if let Err(e) = shown {
            say(format!(
                "\n{e}\nthe network is up; `switchyard testnet demo --dir {}` tries again",
                arguments.dir.dir.display()
            ));
        }
    }
    if arguments.detach {
        say(format!("\nstop it with: switchyard testnet down --dir {}", arguments.dir.dir.display()));
        testnet.detach();
        return Ok(0);
    }
    watch(&mut testnet, &mut signals).await?;
    finish(&mut testnet, &mut signals).await
}

fn lock(arguments: &Up) -> Result<fs::File, Error> {
    let dir = &arguments.dir.dir;
    fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    let path = dir.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::file("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            refuse_running(&NetworkDir::open(dir)?)?;
            Err(Error::Running {
                dir: dir.clone(),
                pids: "none yet: another launcher is starting or stopping it".into(),
            })
        }
        Err(fs::TryLockError::Error(e)) => Err(Error::file("lock", &path)(e)),
    }
}

fn open_or_create(arguments: &Up) -> Result<Testnet, Error> {
    let dir = &arguments.dir.dir;
    match NetworkDir::open(dir) {
        Ok(mut existing) => {
            refuse_running(&existing)?;
            if let Some(wanted) = arguments.validators.filter(|n| *n != existing.validators()) {
                return Err(Error::OtherSize { dir: dir.clone(), found: existing.validators(), wanted });
            }
            if arguments.one_second && !has_one_second(&existing)? {
                return Err(Error::OtherSealing { dir: dir.clone() });
            }
            if let Some(base) = arguments.base_port.filter(|base| existing.base_port().unwrap_or(0) != *base) {
                existing.move_to(base)?;
            }
            say(format!("going on with the network in {}", dir.display()));
            Testnet::open(dir)
        }
        Err(Error::NoNetwork { .. }) => {
            say(format!("making a network in {}", dir.display()));
            let ports = match arguments.base_port {
                Some(0) => Ports::Free,
                base => Ports::From(base.unwrap_or(BASE_PORT)),
            };
            let sealing = if arguments.one_second { Sealing::OneSecond } else { Sealing::HubBlock };
            let validators = arguments.validators.unwrap_or(4);
            let options = Options { validators, ports, sealing, ..Options::default() };
            Testnet::create(dir, options)
        }
        Err(e) => Err(e),
    }
}

/// Whether the network's EVM rollups close a block a second.
fn has_one_second(network: &NetworkDir) -> Result<bool, Error> {
    let rollups = network.genesis()?.rollups;
    Ok(rollups.iter().any(|rollup| rollup.sealing == Sealing::OneSecond))
}

/// Starts every validator and waits for all, saying how far it is.
async fn start(testnet: &mut Testnet) -> Result<(), Error> {
    let terminal = stdout().is_terminal();
    for index in 0..testnet.len() {
        testnet.start(index)?;
    }
    say(format!("started {} validators, waiting until their servers answer", testnet.len()));
    let mut said = Instant::now();
    for index in 0..testnet.len() {
        testnet
            .ready_within(index, READY_TIMEOUT, |waiting_for| {
                if terminal {
                    let _ =
                        write!(stdout(), "\r\x1b[Kvalidator {index}: {waiting_for}").and_then(|()| stdout().flush());
                } else if said.elapsed() >= Duration::from_secs(5) {
                    said = Instant::now();
                    say(format!("validator {index}: {waiting_for}"));
                }
            })
            .await?;
        say(format!("{}validator {index} answers", if terminal { "\r\x1b[K" } else { "" }));
    }
    Ok(())
}

/// A swap and a transfer through the first validator that runs.
async fn show(dir: &NetworkDir) -> Result<(), Error> {
    let all = endpoints(dir)?.validators;
    let first = all.first().ok_or_else(|| Error::Stopped { dir: dir.root().to_path_buf() })?;
    demo(&first.endpoints, &mut |line| say(line)).await
}

/// Draws the live view until a signal comes.
async fn watch(testnet: &mut Testnet, signals: &mut Signals) -> Result<(), Error> {
    let mut view = View::new();
    let mut ticks = tokio::time::interval(view.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frame = async {
            ticks.tick().await;
            view.draw(testnet).await
        };
        tokio::select! {
            drawn = frame => drawn?,
            () = signals.next() => return Ok(()),
        }
    }
}

/// Stops the network; a second signal kills what is left.
async fn finish(testnet: &mut Testnet, signals: &mut Signals) -> Result<u8, Error> {
    say(format!("\nstopping {} validators", testnet.len()));
    let stopping: std::pin::Pin<&mut dyn Future<Output = Vec<u32>>> = pin!(testnet.stop_all());
    tokio::select! {
        killed = stopping => {
            for pid in &killed {
                eprintln!("pid {pid} did not stop in time and was killed");
            }
            say("stopped; start it again with the same command");
            Ok(u8::from(!killed.is_empty()))
        }
        () = signals.next() => {
            eprintln!("killed what had not stopped yet");
            Ok(1)
        }
    }
}

async fn down(dir: &Dir) -> Result<u8, Error> {
    let (ran, killed) = stop(&NetworkDir::open(&dir.dir)?).await;
    for pid in &killed {
        eprintln!("pid {pid} did not stop in time and was killed");
    }
    say(format!("stopped {ran} validators"));
    Ok(0)
}

/// The signals that ask this program to stop.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Result<Self, Error> {
        let one = |kind| signal(kind).map_err(Error::file("handle signals of", "this process"));
        Ok(Self([one(SignalKind::interrupt())?, one(SignalKind::terminate())?, one(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Prints a line. A closed pipe on the other side is no reason to fail.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(stdout(), "{line}");
}

fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(text),
        Err(e) => eprintln!("error: {e}"),
    }
}

fn print_endpoints(all: &NetworkEndpoints) {
    for v in &all.validators {
        let e = &v.endpoints;
        say(format!("\nvalidator {}  pid {}", v.index, e.pid));
        say(format!("  gRPC     {}", e.grpc));
        say(format!("  metrics  {}/metrics", e.metrics));
        for r in &e.rollups {
            say(format!("  {:<8} {}  {}  (rollup {}, chain id {})", r.name, r.http, r.ws, r.rollup, r.chain_id));
        }
    }
    say(format!("\nfunded accounts on each EVM rollup ({BALANCE_ETHER} ether each; everyone knows these keys)"));
    for account in ACCOUNTS {
        say(format!("  {}  {}", account.address, account.private_key));
    }
    say(format!("\ngenesis  {}", all.genesis.display()));
}

fn print_status(all: &NetworkStatus) {
    let number = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
    for v in &all.validators {
        let state = if v.alive { "up" } else { "down" };
        let heads: String = v.rollups.iter().map(|r| format!("  {} {}", r.name, r.head)).collect();
        say(format!("validator {:<2} {state:<4}  height {:<8}{heads}", v.index, number(v.height)));
        v.errors.iter().for_each(|e| say(format!("    {e}")));
    }
    say(format!("common height {}", number(all.common_height)));
    all.problems.iter().for_each(|p| say(format!("problem: {p}")));
    say(if all.ok { "all validators are up and agree" } else { "NOT ok" });
}
