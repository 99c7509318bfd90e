//! Operators: they change the stake table while the network runs, with records that a quorum of the validators signs, or the
//! one that a record is about.
//!
//! One change at a time, each until it is in the log: sent again, for the epoch and the state that a validator tells then. What
//! would give the liars more seats than may fail, or leave too few validators, is not asked for.

use crate::{
    check::committees::{Committees, Table, committee_of},
    run::rng_for,
    witness::Witness,
    world::{World, bls_key},
};
use rand::{rngs::StdRng, seq::SliceRandom as _};
use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
};
use switchyard_consensus_core::{
    Committee, HubState, keys,
    record::{Change, Record, StakeChange, Update, UpdateKind},
};
use switchyard_primitives::{B256, Bytes};

/// Something that is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A validator's stake.
    Stake {
        /// Whose.
        validator: usize,
        /// How much.
        stake: u64,
    },
    /// A validator comes into the table.
    Join {
        /// Who.
        validator: usize,
        /// Its stake.
        stake: u64,
    },
    /// A validator is taken out of it.
    Remove {
        /// Who.
        validator: usize,
    },
    /// A validator gives up its stake.
    Leave {
        /// Who.
        validator: usize,
    },
    /// A validator votes with another of its keys.
    Keys {
        /// Who.
        validator: usize,
        /// Which.
        key: usize,
    },
    /// A validator is started again at another address.
    Move {
        /// Who.
        validator: usize,
    },
}

impl Edit {
    /// Whom it is about.
    pub fn validator(&self) -> usize {
        match *self {
            Self::Stake { validator, .. }
            | Self::Join { validator, .. }
            | Self::Remove { validator }
            | Self::Leave { validator }
            | Self::Keys { validator, .. }
            | Self::Move { validator } => validator,
        }
    }
}

/// A change is asked for again after so long.
const AGAIN_MS: u64 = 700;
/// Validators with stake, at the least.
const VALIDATORS_MIN: usize = 4;

/// What the operators still want.
pub struct Operators {
    world: Arc<World>,
    witness: Arc<Witness>,
    liars: BTreeSet<B256>,
    edits: VecDeque<Edit>,
    asked_ms: Option<u64>,
    /// The table that was judged last, and how: it is asked for ten times a second, and a committee's keys cost curve points.
    judged: Option<(Table, bool)>,
    rng: StdRng,
}

impl Operators {
    /// Operators of a network of whose validators these lie.
    pub fn new(world: Arc<World>, witness: Arc<Witness>, liars: &BTreeSet<usize>, seed: u64) -> Self {
        let liars = liars.iter().map(|place| world.validators[*place].identity).collect();
        let rng = rng_for(seed, "operators");
        Self { world, witness, liars, edits: VecDeque::new(), asked_ms: None, judged: None, rng }
    }

    /// They want something else too.
    pub fn want(&mut self, edit: Edit) {
        self.edits.push_back(edit);
    }

    /// Whether there is nothing left.
    pub fn are_content(&self) -> bool {
        self.edits.is_empty()
    }

    /// What to ask for now, if anything; `listens` tells where each validator listens. What the log holds by now, or what
    /// cannot be, is given up.
    pub fn due(&mut self, now_ms: u64, listens: impl Fn(usize) -> SocketAddr) -> Option<Edit> {
        while let Some(edit) = self.edits.front().copied() {
            let mut open = false;
            let (at, witness) = (listens(edit.validator()), self.witness.clone());
            witness.tell(|w| open = self.is_open(&edit, &w.committees, at));
            if open {
                let waits = self.asked_ms.is_some_and(|asked| now_ms < asked + AGAIN_MS);
                return (!waits).then_some(edit);
            }
            self.edits.pop_front();
            self.asked_ms = None;
        }
        None
    }

    fn is_open(&mut self, edit: &Edit, committees: &Committees, listens: SocketAddr) -> bool {
        let identity = self.world.validators[edit.validator()].identity;
        let (mut table, found) = (committees.table().clone(), committees.table().get(&identity));
        let entry = table.get_mut(&identity);
        match (*edit, entry) {
            (Edit::Stake { stake, .. }, Some(entry)) => entry.stake = stake,
            (Edit::Leave { .. }, Some(entry)) => entry.stake = 0,
            (Edit::Keys { validator, key }, Some(entry)) => {
                entry.bls = bls_key(&self.world.secrets[validator].bls[key])
            }
            (Edit::Move { .. }, Some(entry)) => entry.address = Some(listens),
            (Edit::Remove { .. }, Some(_)) => drop(table.remove(&identity)),
            (Edit::Join { validator, stake }, None) => {
                let bls = bls_key(&self.world.secrets[validator].bls[0]);
                let entry = crate::check::committees::Entry { bls, stake, address: None, serial: 0 };
                table.insert(identity, entry);
            }
            _ => return false,
        }
        table.get(&identity) != found && self.judge(table, committees)
    }

    fn judge(&mut self, table: Table, committees: &Committees) -> bool {
        if let Some((_, sound)) = self.judged.as_ref().filter(|(judged, _)| *judged == table) {
            return *sound;
        }
        let sound = self.is_sound(&table, committees);
        self.judged = Some((table, sound));
        sound
    }

    /// Whether a table leaves enough validators, and the liars no more seats than may fail.
    fn is_sound(&self, table: &Table, committees: &Committees) -> bool {
        let Some(committee) = committee_of(0, table, committees.rules()) else { return false };
        let lies = |m: &&switchyard_consensus_core::Member| self.liars.contains(&m.seat.identity);
        let faulty: usize = committee.members().iter().filter(lies).map(|m| m.seats as usize).sum();
        let (seats, quorum) = (committee.seats().seats().len(), committee.seats().quorum());
        let staked = table.values().filter(|entry| entry.stake > 0).count();
        faulty <= seats - quorum && staked >= VALIDATORS_MIN
    }

    /// The record that asks for a change, made for the state that a validator tells; `listens` is where the one that it is
    /// about listens.
    pub fn record(&mut self, edit: &Edit, state: &HubState, listens: SocketAddr, now_ms: u64) -> Option<Bytes> {
        self.asked_ms = Some(now_ms);
        let identity = self.world.validators[edit.validator()].identity;
        let record = match *edit {
            Edit::Stake { stake, .. } => self.change(state, identity, Change::Stake(stake)),
            Edit::Remove { .. } => self.change(state, identity, Change::Remove),
            Edit::Join { validator, stake } => {
                let secret = &self.world.secrets[validator].bls[0];
                let possession = keys::prove_possession(secret, identity).expect("a secret");
                let bls = bls_key(secret);
                self.change(state, identity, Change::Join { bls, possession, stake, address: listens })
            }
            Edit::Leave { validator } => self.update(state, validator, UpdateKind::Leave),
            Edit::Keys { validator, key } => {
                let secret = &self.world.secrets[validator].bls[key];
                let possession = keys::prove_possession(secret, identity).expect("a secret");
                self.update(state, validator, UpdateKind::Keys { bls: bls_key(secret), possession })
            }
            Edit::Move { validator } => self.update(state, validator, UpdateKind::Address(listens)),
        };
        let record = record?.encode();
        self.witness.tell(|w| w.committees.issue(&record));
        Some(record)
    }

    fn change(&mut self, state: &HubState, identity: B256, change: Change) -> Option<Record> {
        let (network, committee, serial) = (self.world.network, state.current(), state.serial());
        let changes = vec![(identity, change)];
        let sign =
            |secret: &[u8; 32]| StakeChange::sign_part(network, committee.epoch(), serial, &changes, secret).ok();
        let parts = quorum_parts(&self.world, committee, &mut self.rng, sign)?;
        StakeChange::combine(network, committee, serial, changes, &parts).ok().map(Record::Stake)
    }

    fn update(&self, state: &HubState, validator: usize, kind: UpdateKind) -> Option<Record> {
        let identity = self.world.validators[validator].identity;
        let listed = state.validators().get(&identity)?;
        let secret = self.world.secrets[validator].bls.iter().find(|secret| bls_key(secret) == listed.bls)?;
        Update::sign(self.world.network, identity, listed.serial, kind, secret).ok().map(Record::Update)
    }
}

/// What validators with a quorum of the seats sign, whoever they are.
pub(crate) fn quorum_parts(
    world: &World,
    committee: &Committee,
    rng: &mut StdRng,
    sign: impl Fn(&[u8; 32]) -> Option<[u8; 96]>,
) -> Option<Vec<(B256, [u8; 96])>> {
    let mut members: Vec<_> = committee.members().iter().collect();
    members.shuffle(rng);
    let (mut parts, mut seats) = (Vec::new(), 0);
    for member in members {
        if seats >= committee.seats().quorum() {
            break;
        }
        let secret = secret_in(world, committee, &member.seat.identity)?;
        parts.push((member.seat.identity, sign(&secret)?));
        seats += member.seats as usize;
    }
    Some(parts)
}

/// The secret with which a validator signs in a committee.
fn secret_in(world: &World, committee: &Committee, identity: &B256) -> Option<[u8; 32]> {
    let own = committee.member(identity)?.seat.bls;
    world.secrets[world.place(identity)?].bls.iter().find(|secret| bls_key(secret) == own).copied()
}
