//! Measures finality over a wide area in simulated time.

use clap::Parser;
use switchyard_consensus_sim::wan::{Case, Dissemination, REGIONS, measure};

/// Real engines in ten regions, with simulated distances and lines.
#[derive(Parser)]
struct Arguments {
    /// Numbers of validators, each at least 4.
    #[arg(long, value_delimiter = ',', default_value = "10,50,100", value_parser = clap::value_parser!(u16).range(4..=1000))]
    validators: Vec<u16>,
    /// Bytes of transactions in a block, in KiB.
    #[arg(long, value_delimiter = ',', default_value = "0,256,1024,5120", value_parser = clap::value_parser!(u16).range(..=8000))]
    block_kib: Vec<u16>,
    /// How blocks travel: whole, by-hash (of transactions that everyone holds) or coded.
    #[arg(long, value_delimiter = ',', default_value = "whole,by-hash,coded")]
    dissemination: Vec<Dissemination>,
    /// What a validator can send, and what it can receive, in Mbit/s.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    mbit: u64,
    /// Blocks to measure in each case.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    blocks: u64,
}

fn main() {
    let Arguments { validators, block_kib, dissemination, mbit, blocks } = Arguments::parse();
    println!(
        "{} regions ({}); {mbit} Mbit/s out of each validator and into it, for blocks only.",
        REGIONS.len(),
        REGIONS.join(", ")
    );
    println!("Time is simulated: signatures are made and checked, but the CPU time of it is not counted.");
    println!("by-hash: the validators hold the transactions, as after gossip, which is not counted.\n");
    println!(
        "| validators | block KiB | dissemination | finality p50 ms | p90 ms | hops | block interval ms | hop ms | sent KiB | real s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for validators in validators {
        for kib in &block_kib {
            for dissemination in &dissemination {
                // Without transactions there are no names of them.
                if *dissemination == Dissemination::ByHash && *kib == 0 {
                    continue;
                }
                let figures = measure(Case {
                    validators: validators.into(),
                    block_bytes: usize::from(*kib) << 10,
                    dissemination: *dissemination,
                    bytes_per_second: mbit * 125_000,
                    blocks,
                });
                println!(
                    "| {validators} | {kib} | {} | {} | {} | {:.1} | {} | {} | {} | {:.0} |",
                    dissemination.name(),
                    figures.finality_p50.as_millis(),
                    figures.finality_p90.as_millis(),
                    figures.hops(),
                    figures.interval.as_millis(),
                    figures.hop.as_millis(),
                    figures.sent_bytes >> 10,
                    figures.took.as_secs_f64(),
                );
            }
        }
    }
}
