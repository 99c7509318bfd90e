//! Runs seeds, and says how to repeat one that fails.

use clap::Parser;
use parking_lot::Mutex;
use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};
use switchyard_consensus_sim::{plan::Plan, run::run, seen::Seen};

/// Runs a simulated network once for each seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs at a time; as many as there are cores if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Gives every network a bridge.
    #[arg(long)]
    bridge: bool,
    /// Shows each run's plan and what it saw.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let filter =
        tracing_subscriber::EnvFilter::builder().parse_lossy(std::env::var("RUST_LOG").unwrap_or("off".into()));
    tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    // A panic in a validator ends that validator, and is told with what it led to.
    std::panic::set_hook(Box::new(|panic| tracing::warn!(%panic)));
    let Arguments { seeds, from, threads, bridge, verbose } = Arguments::parse();
    let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let (next, failed, began) = (AtomicU64::new(from), AtomicBool::new(false), Instant::now());
    let total = Mutex::new(Seen::default());
    let work = || {
        while !failed.load(Ordering::Acquire) {
            let seed = next.fetch_add(1, Ordering::AcqRel);
            if seed >= from.saturating_add(seeds) {
                return;
            }
            let plan = if bridge { Plan::with_bridge(seed) } else { Plan::new(seed) };
            let start = Instant::now();
            let outcome = run(&plan);
            *total.lock() += outcome.seen;
            if verbose {
                let byzantine = &plan.byzantine;
                println!("seed {seed}: {:?} {byzantine:?} {:?} {}", start.elapsed(), outcome.seen, outcome.trace);
            }
            if let Some(violation) = outcome.violation {
                failed.store(true, Ordering::Release);
                let more = if bridge { " SIM_ARGS=--bridge" } else { "" };
                eprintln!("seed {seed} fails: {violation}\nrepeat it with: make sim SEEDS=1 FROM={seed}{more}");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let built = std::thread::Builder::new().stack_size(8 << 20).spawn_scoped(scope, work);
            if let Err(error) = built {
                eprintln!("cannot start a thread: {error}");
                failed.store(true, Ordering::Release);
            }
        }
    });
    let seen = total.into_inner();
    println!(
        "{seeds} seeds from {from}: {} blocks, {} simulated seconds; {} crashes, {} cut links, {} liars, {} seats caught, {} operators \
         and {} validators proven to have contradicted themselves; {} \
         transactions accepted, {} rollup blocks, {} of them certified, {} bundles committed and {} aborted, {} legs settled, {} messages delivered and {} refunded, {} deposits; {} records, {} committees that are not the one before, {} epochs; in {:?}",
        seen.blocks,
        seen.time_ms / 1000,
        seen.crashes,
        seen.cuts,
        seen.liars,
        seen.caught,
        seen.accused.0,
        seen.accused.1,
        seen.accepted,
        seen.derived,
        seen.certified,
        seen.bundles.0,
        seen.bundles.1,
        seen.settled,
        seen.messages.0,
        seen.messages.1,
        seen.deposited,
        seen.records,
        seen.committees,
        seen.followed,
        began.elapsed()
    );
    if failed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
