//! Relayers: the node's own, each beside a validator until that ends, or it does; then another one goes on elsewhere, which knows
//! nothing of what the first has done.

use crate::{run::rng_for, validator::Validator};
use alloy::{
    primitives::{Address, Bytes, keccak256},
    signers::local::PrivateKeySigner,
};
use rand::{RngExt as _, rngs::StdRng};
use std::sync::{Arc, LazyLock};
use switchyard_node::{ingest::Ingest, machine::Machine};
use switchyard_primitives::RollupId;
use switchyard_relayer::{Refusal, Relayer, Settings, Submit};

/// Ranks of the relayers of a run.
const RANKS: u32 = 2;
/// Of so many rounds of a relayer, one is its last.
const ROUNDS: u32 = 80;

static SIGNERS: LazyLock<Vec<PrivateKeySigner>> = LazyLock::new(|| {
    let secret = |rank: u32| keccak256([b"relayer".as_slice(), &rank.to_be_bytes()].concat());
    (0..RANKS).map(|rank| PrivateKeySigner::from_bytes(&secret(rank)).expect("a secret")).collect()
});

/// The relayers' accounts.
pub fn accounts() -> impl Iterator<Item = Address> {
    SIGNERS.iter().map(PrivateKeySigner::address)
}

/// The way into rollups through one validator. Nobody waits for its answers.
pub struct Lane {
    /// The validator's.
    pub ingest: Arc<Ingest>,
    /// What it runs on.
    pub machine: Arc<dyn Machine>,
}

impl Submit for Lane {
    fn submit(&self, rollup: RollupId, transactions: Vec<Bytes>) -> Vec<Result<(), Refusal>> {
        let ingest = self.ingest.clone();
        let payloads = transactions.into_iter().map(|raw| raw.0.into()).collect();
        self.machine.spawn(Box::pin(async move { drop(ingest.submit(rollup, payloads).await) }));
        Vec::new()
    }
}

/// One of a rank, at the validator of a place in its present life.
struct Working {
    place: usize,
    life: u64,
    relayer: Relayer,
}

/// The relayers of a run.
pub struct Relays {
    ranks: Vec<Option<Working>>,
    rng: StdRng,
}

impl Relays {
    /// Those of a seed; none works yet.
    pub fn new(seed: u64) -> Self {
        Self { ranks: (0..RANKS).map(|_| None).collect(), rng: rng_for(seed, "relays") }
    }

    /// A validator ends, and the relayers beside it, which hold its rollups' databases open.
    pub fn lose(&mut self, place: usize) {
        for working in &mut self.ranks {
            working.take_if(|working| working.place == place);
        }
    }

    /// Each does what there is to do. One that has no validator goes to one of `open`, which take transactions.
    pub fn work(&mut self, validators: &[Validator], open: &[usize]) {
        for (signer, (rank, working)) in SIGNERS.iter().zip((0..).zip(&mut self.ranks)) {
            let stays = |w: &Working| open.contains(&w.place) && validators[w.place].lives() == w.life;
            *working = working.take().filter(|w| stays(w) && self.rng.random_range(0..ROUNDS) > 0);
            if working.is_none() && !open.is_empty() {
                let place = open[self.rng.random_range(0..open.len())];
                let relayer = validators[place].life().map(|life| life.relayer(signer.clone(), Settings { rank }));
                *working = relayer.map(|relayer| Working { place, life: validators[place].lives(), relayer });
            }
            if let Some(Working { place, relayer, .. }) = working
                && let Some(life) = validators[*place].life()
            {
                relayer.round(life.machine.instant());
            }
        }
    }
}
