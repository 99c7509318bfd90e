//! Whoever sends coin from one rollup to another, to accounts that take it and to some that do not.

use crate::{rollups::transaction, run::rng_for, validator::Life, witness::Witness, world::chain_id};
use alloy::{
    primitives::{Address, Bytes, U256, keccak256},
    signers::local::PrivateKeySigner,
    sol_types::SolCall as _,
};
use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use std::sync::{Arc, LazyLock};
use switchyard_bridge_contracts::{IMessageAttributes, Outbox, interoperable_address};
use switchyard_bridge_core::predeploys::{HUB, OUTBOX};
use switchyard_primitives::{RollupId, TxKey};

/// What a sender has in mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Somebody takes it, and there is time.
    Sound,
    /// A contract that takes no coin: the sender has it back after the deadline.
    Refused,
    /// The deadline is a few seconds ahead.
    Hasty,
    /// More coin than may come out of the destination's Inbox: the sender has it back.
    Rich,
}

impl Errand {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sound, Self::Refused, Self::Hasty, Self::Rich];
}

/// Accounts that send, each of them one message.
const SENDERS: usize = 24;
/// What each of them has, wei.
const FUNDS: u64 = 1_000_000_000_000_000_000;
/// What an Inbox may pay out in the beginning for messages of each other rollup, wei.
pub const FREE: u128 = 500_000_000_000_000_000;
/// Most coin of a message that is to arrive: all of them together are no more than [`FREE`].
const VALUE_MAX: u64 = 20_000_000_000_000_000;
/// A message that no block holds is sent again after so long.
const AGAIN_MS: u64 = 900;

static SIGNERS: LazyLock<Vec<PrivateKeySigner>> = LazyLock::new(|| {
    let secret = |sender: usize| keccak256([b"sender".as_slice(), &sender.to_be_bytes()].concat());
    (0..SENDERS).map(|sender| PrivateKeySigner::from_bytes(&secret(sender)).expect("a secret")).collect()
});

/// The senders' accounts in each rollup's genesis.
pub fn funds() -> impl Iterator<Item = (Address, U256)> {
    SIGNERS.iter().map(|signer| (signer.address(), U256::from(FUNDS)))
}

/// A message that somebody wants to be sent.
struct Wanted {
    errand: Errand,
    rollups: (RollupId, RollupId),
    sender: usize,
    /// Signed when it is first sent: its deadline is told by its rollup's clock.
    signed: Option<(TxKey, Bytes)>,
    sent_ms: u64,
}

/// The senders of a run.
pub struct Senders {
    witness: Arc<Witness>,
    evms: Vec<RollupId>,
    rng: StdRng,
    next: usize,
    wanted: Vec<Wanted>,
}

impl Senders {
    /// Senders on a network's EVM rollups.
    pub fn new(witness: Arc<Witness>, evms: Vec<RollupId>, seed: u64) -> Self {
        Self { witness, evms, rng: rng_for(seed, "senders"), next: 0, wanted: Vec::new() }
    }

    /// Somebody wants to send coin.
    pub fn want(&mut self, errand: Errand) {
        let mut evms = self.evms.clone();
        evms.shuffle(&mut self.rng);
        if let ([from, to, ..], true) = (&evms[..], self.next < SENDERS) {
            let (rollups, sender) = ((*from, *to), self.next);
            self.wanted.push(Wanted { errand, rollups, sender, signed: None, sent_ms: 0 });
            self.next += 1;
        }
    }

    /// Sends what is due through a validator, until the log holds it.
    pub fn send(&mut self, now_ms: u64, life: &Life) {
        let witness = self.witness.clone();
        witness
            .tell(|w| self.wanted.retain(|wanted| !wanted.signed.as_ref().is_some_and(|(key, _)| w.once.holds(key))));
        for wanted in &mut self.wanted {
            let source = wanted.rollups.0;
            if wanted.signed.is_none() {
                let Some(chain) = life.chains.get(&source) else { continue };
                let raw = sign(wanted, chain.head().header.timestamp.max(now_ms / 1000), &mut self.rng);
                wanted.signed = Some((TxKey::of(source, &raw), raw));
            } else if now_ms < wanted.sent_ms + AGAIN_MS {
                continue;
            }
            wanted.sent_ms = now_ms;
            if let Some((_, raw)) = &wanted.signed {
                drop(life.submit(source, raw.0.clone().into()));
            }
        }
    }

    /// Whether nobody wants anything more.
    pub fn are_content(&self) -> bool {
        self.wanted.is_empty()
    }
}

/// Signs a message; `now_s` is about the time of the block that will hold it.
fn sign(wanted: &Wanted, now_s: u64, rng: &mut StdRng) -> Bytes {
    let Wanted { errand, rollups: (source, destination), sender, .. } = *wanted;
    let account = |what: &str| Address::from_slice(&keccak256(format!("{what} {sender}"))[..20]);
    let ahead = match errand {
        Errand::Sound => 1_000_000,
        Errand::Refused | Errand::Rich => rng.random_range(10..20),
        Errand::Hasty => rng.random_range(2..6),
    };
    let to = if errand == Errand::Refused { HUB } else { account("recipient") };
    let value = if errand == Errand::Rich { u128::from(FUNDS / 4 * 3) } else { rng.random_range(1..VALUE_MAX).into() };
    let attributes = [
        IMessageAttributes::transferCall {}.abi_encode(),
        IMessageAttributes::deadlineCall { timestamp: now_s + ahead }.abi_encode(),
        IMessageAttributes::refundToCall { account: account("refund") }.abi_encode(),
    ];
    let call = Outbox::sendMessageCall {
        recipient: interoperable_address(chain_id(destination), to),
        payload: Bytes::new(),
        attributes: attributes.map(Bytes::from).into(),
    };
    transaction(&SIGNERS[sender], source, 0, OUTBOX, U256::from(value), call.abi_encode().into(), 400_000)
}
