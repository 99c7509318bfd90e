//! Cuts the power of recorded networks, thousands of times: `make powercut`.

use clap::{Args, Parser, Subcommand};
use eyre::{WrapErr as _, bail, ensure};
use futures::StreamExt as _;
use std::{path::PathBuf, process::ExitCode, time::Instant};
use switchyard_rollup_core::Sealing;
use switchyard_testnet_kit::power::{Broken, CaseId, Cases, How, Lie, Plan, Recording, Shim};

/// Cuts the power of recorded networks and checks that they go on.
#[derive(Parser)]
#[command(name = "switchyard-powercut")]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Record a network and cut its power at many points.
    Run(RunArgs),
    /// Run one case of a recording once more.
    Case(CaseArgs),
}

#[derive(Args)]
struct HowArgs {
    /// Leave syncs of files whose path contains this without effect: then cases must fail
    #[arg(long, value_name = "PART", conflicts_with = "late_sync")]
    without_sync: Option<String>,
    /// Let syncs of files whose path contains this keep what the sync before was of: then cases must fail
    #[arg(long, value_name = "PART")]
    late_sync: Option<String>,
    /// Derive each rollup's state from genesis in every case, instead of in one of eight
    #[arg(long)]
    derive: bool,
    /// In one case of so many the power is cut again while the network recovers; 0 for none
    #[arg(long, value_name = "N", default_value_t = 8)]
    again_every: u64,
    /// Damage one file instead of cutting the power
    #[arg(long)]
    damage: bool,
}

#[derive(Args)]
struct RunArgs {
    /// Cuts
    #[arg(long, default_value_t = 500)]
    points: u64,
    /// Chooses them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Validators of the network
    #[arg(long, default_value_t = 1)]
    validators: usize,
    /// Blocks that are recorded
    #[arg(long, default_value_t = 600)]
    blocks: u64,
    /// Blocks that the stores keep; all, if absent
    #[arg(long)]
    keep_blocks: Option<u64>,
    /// Rollups close a block a second
    #[arg(long)]
    one_second: bool,
    /// How often a validator is killed and started again while it is recorded
    #[arg(long, default_value_t = 2)]
    kills: u64,
    /// Cases at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Where the recording and what fails are kept
    #[arg(long, default_value = "target/powercut")]
    dir: PathBuf,
    /// Use the recording that `dir` holds
    #[arg(long)]
    recorded: bool,
    /// Failures after which it stops
    #[arg(long, default_value_t = 5)]
    failures: usize,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args)]
struct CaseArgs {
    /// The recording
    #[arg(long)]
    dir: PathBuf,
    /// SEED:NUMBER
    #[arg(long)]
    case: CaseId,
    #[command(flatten)]
    how: HowArgs,
}

impl From<HowArgs> for How {
    fn from(HowArgs { without_sync, late_sync, derive, again_every, damage }: HowArgs) -> Self {
        let never = without_sync.map(|part| Broken { part, how: Lie::Never });
        let broken = never.or(late_sync.map(|part| Broken { part, how: Lie::Late }));
        Self { broken, derive, again_every, damage }
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("powercut: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match command {
            Cmd::Run(args) => run(args).await,
            Cmd::Case(args) => case(args).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("powercut: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: RunArgs) -> eyre::Result<()> {
    let shim = Shim::build()?;
    let dir = args.dir.join(format!("seed-{}-of-{}", args.seed, args.validators));
    let plan = Plan {
        validators: args.validators,
        blocks: args.blocks,
        keep_blocks: args.keep_blocks,
        sealing: if args.one_second { Sealing::OneSecond } else { Sealing::HubBlock },
        kills: args.kills,
        ..Plan::default()
    };
    let began = Instant::now();
    let recording = if args.recorded {
        Recording::open(&dir)?
    } else {
        ensure!(!dir.exists(), "{} is there already: remove it, or use it with --recorded", dir.display());
        Recording::make(&dir, &plan, &shim).await?
    };
    println!(
        "{}: {} changes by {} validators, in {:.1} s",
        dir.display(),
        recording.trace.changes(),
        recording.trace.nodes(),
        began.elapsed().as_secs_f64()
    );
    let again = repeat(&args.how);
    let cases = Cases { recording: &recording, shim: &shim, how: args.how.into() };
    let (began, mut cuts, mut failed) = (Instant::now(), 0, 0);
    let all = (0..args.points).map(|index| {
        let (cases, id) = (&cases, CaseId { seed: args.seed, index });
        let folder = dir.join(format!("case-{index}"));
        async move { (id, folder.clone(), cases.run(id, &folder).await) }
    });
    let mut all = std::pin::pin!(futures::stream::iter(all).buffer_unordered(args.jobs));
    while let Some((id, folder, outcome)) = all.next().await {
        match outcome {
            Ok(some) => {
                cuts += some;
                std::fs::remove_dir_all(&folder).wrap_err_with(|| folder.display().to_string())?;
            }
            Err(error) => {
                failed += 1;
                println!("FAILED {id}: {error:#}\nthe folders are in {}; repeat it with\n", folder.display());
                println!("    switchyard-powercut case --dir {} --case {id}{again}\n", dir.display());
                if failed >= args.failures {
                    bail!("{failed} cases failed");
                }
            }
        }
        if (id.index + 1).is_multiple_of(100) {
            println!("{cuts} cuts, {failed} failed, {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    println!("{cuts} cuts, {failed} failed, {:.0} s", began.elapsed().as_secs_f64());
    ensure!(failed == 0, "{failed} cases failed");
    Ok(())
}

/// The arguments that a case depends on.
fn repeat(how: &HowArgs) -> String {
    let broken = [("--without-sync", &how.without_sync), ("--late-sync", &how.late_sync)];
    let broken: String = broken.iter().filter_map(|(name, part)| Some(format!(" {name} {}", part.as_ref()?))).collect();
    let damage = if how.damage { " --damage" } else { "" };
    format!("{broken}{damage} --again-every {}", how.again_every)
}

async fn case(args: CaseArgs) -> eyre::Result<()> {
    let (shim, recording) = (Shim::build()?, Recording::open(&args.dir)?);
    let cases = Cases { recording: &recording, shim: &shim, how: args.how.into() };
    let folder = args.dir.join(format!("repeated-{}-{}", args.case.seed, args.case.index));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let cuts = cases.run(args.case, &folder).await?;
    println!("case {}: {cuts} cuts, and nothing is wrong", args.case);
    Ok(())
}
