//! Validators give coin to accounts of rollups, with records that a quorum of them signs.

use crate::{operators::quorum_parts, run::rng_for, validator::Life, witness::Witness, world::World};
use alloy::primitives::{Address, keccak256};
use rand::{RngExt as _, rngs::StdRng};
use std::{collections::BTreeMap, sync::Arc};
use switchyard_bridge_core::{BridgeRecord, Deposit, Deposits, SystemState};
use switchyard_primitives::{Bytes, RollupId};

/// Deposits that the log does not hold are asked for again after so long.
const AGAIN_MS: u64 = 800;
/// Most deposits of one record here.
const TOGETHER_MAX: usize = 3;

/// What is to be deposited on one rollup, in order, and when it was last asked for.
#[derive(Default)]
struct Wanted {
    deposits: Vec<Deposit>,
    asked_ms: Option<u64>,
}

/// Who signs deposits.
pub struct Depositors {
    world: Arc<World>,
    witness: Arc<Witness>,
    rollups: BTreeMap<RollupId, Wanted>,
    made: u64,
    rng: StdRng,
}

impl Depositors {
    /// Those of a network.
    pub fn new(world: Arc<World>, witness: Arc<Witness>, seed: u64) -> Self {
        let rng = rng_for(seed, "depositors");
        Self { world, witness, rollups: BTreeMap::new(), made: 0, rng }
    }

    /// An account that has nothing is to get coin.
    pub fn want(&mut self, rollup: RollupId) {
        self.made += 1;
        let named = keccak256([&b"depositor"[..], &self.made.to_be_bytes()].concat());
        let recipient = Address::from_slice(&named[..20]);
        let deposit = Deposit { recipient, gwei: self.rng.random_range(1..=u64::MAX) };
        self.witness.tell(|w| w.conservation.granted(rollup, deposit));
        self.rollups.entry(rollup).or_default().deposits.push(deposit);
    }

    /// Sends what a validator's state does not hold, through that validator.
    pub fn send(&mut self, now_ms: u64, life: &Life) {
        let state = life.hub.tip();
        let made = |rollup| state.bridge().and_then(|bridge| bridge.rollups().get(rollup)).map(|r| r.deposits);
        let mut due = Vec::new();
        for (rollup, wanted) in &mut self.rollups {
            let left = made(rollup).and_then(|made| wanted.deposits.get(usize::try_from(made).ok()?..).zip(Some(made)));
            if let Some((left, first)) = left.filter(|(left, _)| !left.is_empty())
                && wanted.asked_ms.is_none_or(|asked| now_ms >= asked + AGAIN_MS)
            {
                wanted.asked_ms = Some(now_ms);
                let count = self.rng.random_range(1..=left.len().min(TOGETHER_MAX));
                due.push((*rollup, first, left[..count].to_vec()));
            }
        }
        for (rollup, first, deposits) in due {
            if let Some(record) = self.sign(&state, (rollup, first), deposits) {
                // Whether it was taken shows in the log.
                drop(life.submit(RollupId::SYSTEM, record));
            }
        }
    }

    fn sign(&mut self, state: &SystemState, at: (RollupId, u64), deposits: Vec<Deposit>) -> Option<Bytes> {
        let (network, committee) = (self.world.network, state.current());
        let of = (at.0, committee.epoch(), at.1);
        let sign = |secret: &[u8; 32]| Deposits::sign_part(network, of, &deposits, secret).ok();
        let parts = quorum_parts(&self.world, committee, &mut self.rng, sign)?;
        let record = Deposits::combine(network, committee, at, deposits, &parts).ok()?;
        Some(BridgeRecord::Deposits(record).encode())
    }
}
