//! Runs seeds.

fn main() {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let start = std::time::Instant::now();
    let outcome = switchyard_consensus_sim::run::run(1);
    println!("{outcome:?} {:?}", start.elapsed());
    let outcome = switchyard_consensus_sim::run::run(1);
    println!("{outcome:?} {:?}", start.elapsed());
}
