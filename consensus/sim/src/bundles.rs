//! Parties of bundles: they sign legs, hand the bundles to validators until the log holds them, and some of them cheat.

use crate::{plan::Stage, rollups::transaction, run::rng_for, validator::Life, witness::Witness};
use alloy::{
    primitives::{Address, B256, Bytes, U256, keccak256},
    signers::local::PrivateKeySigner,
};
use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};
use switchyard_bridge_contracts::{Prepare, bundle::assemble};
use switchyard_bridge_core::{Leg, Move, MoveKind, SignedBundle, predeploys::ATOMIC_VAULT};
use switchyard_primitives::RollupId;

/// What parties have in mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Each leg can be prepared.
    Sound,
    /// A leg's transaction brings other coin than its moves say, and reverts.
    WrongValue,
    /// A leg's transaction runs out of gas.
    OutOfGas,
    /// The account of a leg sends another transaction with the same nonce.
    Replaced,
    /// A leg is sent alone, too.
    Alone,
    /// Another bundle gives the same coin.
    Rival,
    /// The deadline is a few blocks ahead.
    Hasty,
}

impl Intent {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Sound, Self::WrongValue, Self::OutOfGas, Self::Replaced, Self::Alone, Self::Rival, Self::Hasty];
}

/// Accounts that sign legs, each of them one nonce of one bundle.
const PARTIES: usize = 48;
/// Most legs of a bundle here.
const LEGS_MAX: usize = 4;
/// What each of them has, wei.
const FUNDS: u64 = 1_000_000_000_000_000_000;
/// What a leg gives at the most in one move: not even half of that, so that fees are left, and two legs are too much.
const MOVE_MAX: u64 = FUNDS / 4;
/// A bundle that the log does not hold is sent again after so long.
const AGAIN_MS: u64 = 900;

static SIGNERS: LazyLock<Vec<PrivateKeySigner>> = LazyLock::new(|| {
    let secret = |party: usize| keccak256([b"party".as_slice(), &party.to_be_bytes()].concat());
    (0..PARTIES).map(|party| PrivateKeySigner::from_bytes(&secret(party)).expect("a secret")).collect()
});

/// The parties' accounts in each rollup's genesis.
pub fn funds() -> impl Iterator<Item = (Address, U256)> {
    SIGNERS.iter().map(|signer| (signer.address(), U256::from(FUNDS)))
}

/// A bundle that somebody wants in the log.
struct Wanted {
    bundle: Arc<SignedBundle>,
    sent_ms: Option<u64>,
}

/// The parties of a run.
pub struct Parties {
    witness: Arc<Witness>,
    evms: Vec<RollupId>,
    rng: StdRng,
    /// The next account that has signed nothing.
    next: usize,
    made: u64,
    wanted: BTreeMap<B256, Wanted>,
    /// The bundle that was signed last.
    newest: Option<B256>,
    /// Transactions that are to go in alone, with when.
    alone: Vec<(u64, RollupId, Bytes)>,
}

impl Parties {
    /// Parties on a network's EVM rollups.
    pub fn new(witness: Arc<Witness>, evms: Vec<RollupId>, seed: u64) -> Self {
        let (wanted, alone) = (BTreeMap::new(), Vec::new());
        Self { witness, evms, rng: rng_for(seed, "parties"), next: 0, made: 0, wanted, newest: None, alone }
    }

    /// Signs a bundle, and what its parties do against it. `height` is that of the next hub block.
    pub fn sign(&mut self, intent: Intent, height: u64, now_ms: u64) {
        let count = self.rng.random_range(2..=LEGS_MAX);
        if self.next + count > PARTIES || self.evms.is_empty() {
            return;
        }
        let signers: Vec<usize> = (self.next..self.next + count).collect();
        self.next += count;
        let cheat = self.rng.random_range(0..count);
        let legs = self.sign_legs(&signers, height, intent, cheat);
        match intent {
            Intent::Sound | Intent::WrongValue | Intent::OutOfGas | Intent::Hasty => {}
            Intent::Rival => {
                // The same accounts and nonces, so that one of the two is too much.
                self.sign_legs(&signers[..2], height, intent, 0);
            }
            Intent::Replaced | Intent::Alone => {
                let (rollup, leg) = legs[cheat].clone();
                let to = SIGNERS[signers[cheat]].address();
                let other = transaction(&SIGNERS[signers[cheat]], rollup, 0, to, U256::ONE, Bytes::new(), 21_000);
                let payload = if intent == Intent::Alone { leg } else { other };
                self.alone.push((now_ms + self.rng.random_range(0..600), rollup, payload));
            }
        }
    }

    fn sign_legs(&mut self, signers: &[usize], height: u64, intent: Intent, cheat: usize) -> Vec<(RollupId, Bytes)> {
        let ahead = if intent == Intent::Hasty { 1..4 } else { 6..40 };
        let deadline = height + self.rng.random_range(ahead);
        let mut evms = self.evms.clone();
        evms.shuffle(&mut self.rng);
        let legs: Vec<Leg> = (0u8..)
            .zip(signers)
            .map(|(index, signer)| Leg {
                rollup: evms[usize::from(index) % evms.len()],
                signer: SIGNERS[*signer].address(),
                moves: (0..self.rng.random_range(1..3)).map(|item| self.coin(index, item)).collect(),
                calls: Vec::new(),
            })
            .collect();
        self.made += 1;
        let salt = B256::from(U256::from(self.made));
        let prepares = Prepare::all(deadline, salt, legs);
        let (gas, value) = match intent {
            Intent::OutOfGas => (60_000, U256::ZERO),
            Intent::WrongValue => (400_000, U256::ONE),
            _ => (400_000, U256::ZERO),
        };
        let sign = |(index, prepare): (usize, &Prepare)| {
            let (gas, more) = if index == cheat { (gas, value) } else { (400_000, U256::ZERO) };
            let (signer, data) = (&SIGNERS[signers[index]], prepare.calldata());
            let rollup = prepare.leg.rollup;
            (rollup, transaction(signer, rollup, 0, ATOMIC_VAULT, prepare.value() + more, data, gas))
        };
        let signed: Vec<_> = prepares.iter().enumerate().map(sign).collect();
        let bundle = assemble(signed.iter().map(|(_, raw)| raw.clone()).collect()).expect("legs of one bundle");
        let id = bundle.id();
        self.witness.tell(|w| w.conservation.signed(id, prepares));
        self.newest = Some(id);
        self.wanted.insert(id, Wanted { bundle: Arc::new(bundle), sent_ms: None });
        signed
    }

    /// Coin for an account that has nothing, or back to another such.
    fn coin(&mut self, leg: u8, item: u8) -> Move {
        let account = |what: u8| {
            let named = [&self.made.to_be_bytes()[..], &[leg, item, what]].concat();
            Address::from_slice(&keccak256(named)[..20])
        };
        let (to, refund) = (account(0), account(1));
        let amount = U256::from(self.rng.random_range(1..MOVE_MAX));
        Move { kind: MoveKind::Coin, token: Address::ZERO, amount, to, refund }
    }

    /// Sends what is due to a validator; what the log holds by now, or can hold no more, is given up.
    pub fn send(&mut self, now_ms: u64, life: &Life) {
        let (height, witness) = (life.hub.tip().next_height(), self.witness.clone());
        witness.tell(|w| {
            self.wanted.retain(|id, wanted| w.bundles.fate(id).is_none() && wanted.bundle.deadline > height);
        });
        for wanted in self.wanted.values_mut() {
            if wanted.sent_ms.is_none_or(|sent| now_ms >= sent + AGAIN_MS) {
                wanted.sent_ms = Some(now_ms);
                life.submit_bundle(wanted.bundle.clone());
            }
        }
    }

    /// Sends what is to go in alone to another validator.
    pub fn send_alone(&mut self, now_ms: u64, life: &Life) {
        for (_, rollup, payload) in self.alone.extract_if(.., |(at, ..)| *at <= now_ms) {
            // Whether it was taken shows in the log.
            drop(life.submit(rollup, payload.0.into()));
        }
    }

    /// Whether the bundle that was signed last has come so far.
    pub fn have_reached(&self, stage: Stage) -> bool {
        let Some(id) = self.newest else { return false };
        let mut reached = self.wanted.get(&id).is_none_or(|wanted| wanted.sent_ms.is_some());
        self.witness.tell(|w| reached &= w.has_reached(&id, stage));
        reached
    }

    /// Whether the parties want nothing more.
    pub fn are_content(&self) -> bool {
        self.wanted.is_empty() && self.alone.is_empty()
    }
}
