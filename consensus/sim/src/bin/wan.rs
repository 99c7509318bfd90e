//! Measures finality over a wide area in simulated time.

use clap::Parser;
use switchyard_consensus_sim::wan::{Case, REGIONS, measure};

/// Real engines in ten regions, with simulated distances and lines.
#[derive(Parser)]
struct Arguments {
    /// Numbers of validators.
    #[arg(long, value_delimiter = ',', default_value = "10,50,100")]
    validators: Vec<usize>,
    /// Bytes of transactions in a block, in KiB.
    #[arg(long, value_delimiter = ',', default_value = "0,256,1024,5120")]
    block_kib: Vec<usize>,
    /// What a validator can send, in Mbit/s.
    #[arg(long, default_value_t = 1000)]
    mbit: u64,
    /// Blocks to measure in each case.
    #[arg(long, default_value_t = 10)]
    blocks: u64,
}

fn main() {
    let Arguments { validators, block_kib, mbit, blocks } = Arguments::parse();
    println!(
        "{} regions ({}); {mbit} Mbit/s up from each validator, for blocks only.",
        REGIONS.len(),
        REGIONS.join(", ")
    );
    println!("Time is simulated: signatures are made and checked, but the CPU time of it is not counted.");
    println!("whole: blocks travel whole. by hash: the validators hold the transactions, as after gossip.\n");
    println!(
        "| validators | block KiB | dissemination | finality p50 ms | p90 ms | hops | block interval ms | hop ms | real s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for validators in validators {
        for kib in &block_kib {
            for held in [false, true] {
                if held && *kib == 0 {
                    continue;
                }
                let case = Case { validators, block_bytes: kib << 10, held, bytes_per_second: mbit * 125_000, blocks };
                let figures = measure(case);
                println!(
                    "| {validators} | {kib} | {} | {} | {} | {:.1} | {} | {} | {:.0} |",
                    if held { "by hash" } else { "whole" },
                    figures.finality_p50.as_millis(),
                    figures.finality_p90.as_millis(),
                    figures.hops(),
                    figures.interval.as_millis(),
                    figures.hop.as_millis(),
                    figures.took.as_secs_f64(),
                );
            }
        }
    }
}
