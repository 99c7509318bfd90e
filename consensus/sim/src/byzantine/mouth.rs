//! What faulty validators say.

use super::{Behaviour, Secret};
use crate::{
    check::guard::Wire,
    network::{Channel, Mouth, Said, split_epoch},
    witness::Witness,
    world::{World, bls_key},
};
use alloy::primitives::B256;
use bytes::Bytes;
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_consensus::{
    simplex::types::{Finalize, Notarize, Nullify, Proposal, Vote},
    types::Participant,
};
use commonware_cryptography::{
    bls12381::primitives::{group, variant::MinPk, variant::Variant},
    certificate::Scheme as _,
    ed25519::PublicKey,
    keccak256::Digest,
};
use commonware_p2p::Recipients;
use commonware_utils::ordered::BiMap;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use switchyard_bridge_core::{Attestation, Ballot, Checkpoint, votes_root};
use switchyard_consensus_core::{Committee, Seat, namespace};
use switchyard_consensus_network::public_key;
use switchyard_node::ingest::wire;
use switchyard_primitives::{Block, CompactBlock, RollupId};

/// First byte of a whole block on the blocks channel, and of a compact one.
const WHOLE: u8 = 1;
const COMPACT: u8 = 2;
/// Messages remembered to be said again.
const REMEMBERED: usize = 256;

/// The mouth of a faulty validator.
pub struct Liar {
    me: usize,
    behaviour: Behaviour,
    keys: Vec<PublicKey>,
    world: Arc<World>,
    /// Who tells the epochs' committees.
    witness: Arc<Witness>,
    secret: Arc<Mutex<Secret>>,
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    said: VecDeque<(Channel, Bytes)>,
    /// By epoch; none where it has no seat.
    schemes: BTreeMap<u64, Option<Arc<Wire>>>,
}

/// Signs as validator `me` in a committee, whatever it is told to; `None` where it has no seat.
pub(crate) fn scheme_in(world: &World, me: usize, committee: &Committee) -> Option<Wire> {
    let bls = |seat: &Seat| <MinPk as Variant>::Public::decode(Copying(seat.bls.as_slice())).expect("a seat's key");
    let key = |seat: &Seat| public_key(seat.identity).expect("a seat's identity");
    let participants: Vec<_> = committee.seats().seats().iter().map(|seat| (key(seat), bls(seat))).collect();
    let participants = BiMap::try_from(participants).expect("different keys");
    let own = committee.member(&world.validators[me].identity)?.seat.bls;
    let secret = world.secrets[me].bls.iter().find(|secret| bls_key(secret) == own)?;
    let key = group::Private::decode(Copying(secret)).expect("a secret");
    Wire::signer(&namespace(world.network), participants, key)
}

/// [`scheme_in`] the committee of the genesis.
pub(crate) fn scheme(world: &World, me: usize) -> Wire {
    scheme_in(world, me, world.hub.current()).expect("a validator of the genesis")
}

impl Liar {
    /// Validator `me` of `world`, with its key.
    pub fn new(
        world: Arc<World>,
        witness: Arc<Witness>,
        me: usize,
        behaviour: Behaviour,
        secret: Arc<Mutex<Secret>>,
        seed: u64,
    ) -> Self {
        let state = State { rng: StdRng::seed_from_u64(seed), said: VecDeque::new(), schemes: BTreeMap::new() };
        Self { me, behaviour, keys: world.keys(), world, witness, secret, state: Mutex::new(state) }
    }

    /// What it signs with in an epoch.
    fn scheme(&self, epoch: commonware_consensus::types::Epoch) -> Option<Arc<Wire>> {
        if let Some(made) = self.state.lock().schemes.get(&epoch.get()) {
            return made.clone();
        }
        let committee = self.witness.committee(epoch.get())?;
        let made = scheme_in(&self.world, self.me, &committee).map(Arc::new);
        self.state.lock().schemes.insert(epoch.get(), made.clone());
        made
    }

    fn others(&self) -> impl Iterator<Item = (usize, &PublicKey)> {
        self.keys.iter().enumerate().filter(|(i, _)| *i != self.me)
    }

    /// One half of the others, or the other one.
    fn half(&self, second: bool) -> Recipients<PublicKey> {
        Recipients::Some(self.others().filter(|(i, _)| (i % 2 == 1) == second).map(|(_, key)| key.clone()).collect())
    }

    fn other_block(&self, hash: B256) -> Option<Block> {
        self.secret.lock().other.get(&hash).cloned()
    }

    fn equivocate(&self, channel: Channel, message: &Bytes) -> Option<Said> {
        let other: Bytes = match channel {
            Channel::Blocks => {
                let (kind, body) = message.split_first()?;
                let body = body.to_vec().into();
                let hash = match *kind {
                    WHOLE => Block::decode(body, &self.world.limits).ok()?.hash(),
                    COMPACT => CompactBlock::decode(body, &self.world.limits).ok()?.header().hash(),
                    _ => return None,
                };
                [&[WHOLE], self.other_block(hash)?.encode().as_slice()].concat().into()
            }
            Channel::Votes => {
                let other = |proposal: &Proposal<Digest>| {
                    let block = self.other_block(B256::from(proposal.payload.0))?;
                    Some(Proposal { payload: Digest(block.hash().0), ..*proposal })
                };
                let (epoch, vote) = split_epoch(message)?;
                let vote = match Vote::<Wire, Digest>::decode(Copying(vote)).ok()? {
                    Vote::Notarize(v) => {
                        let scheme = self.scheme(v.proposal.round.epoch())?;
                        Vote::Notarize(Notarize::sign(&*scheme, other(&v.proposal)?)?)
                    }
                    Vote::Finalize(v) => {
                        let scheme = self.scheme(v.proposal.round.epoch())?;
                        Vote::Finalize(Finalize::sign(&*scheme, other(&v.proposal)?)?)
                    }
                    Vote::Nullify(_) => return None,
                };
                [epoch, vote.encode().as_ref()].concat().into()
            }
            _ => return None,
        };
        Some(vec![(self.half(false), message.clone()), (self.half(true), other)])
    }

    fn contradict(&self, message: &Bytes) -> Option<Said> {
        let (epoch, vote) = split_epoch(message)?;
        let vote = Vote::<Wire, Digest>::decode(Copying(vote)).ok()?;
        let choice: u8 = self.state.lock().rng.random_range(0..4);
        let strange = |proposal: &Proposal<Digest>| Proposal { payload: Digest([choice + 1; 32]), ..*proposal };
        let round = match &vote {
            Vote::Notarize(v) => v.proposal.round,
            Vote::Finalize(v) => v.proposal.round,
            Vote::Nullify(v) => v.round,
        };
        let scheme = &*self.scheme(round.epoch())?;
        let lie = match (&vote, choice) {
            (Vote::Notarize(v), 0 | 1) => Vote::Notarize(Notarize::sign(scheme, strange(&v.proposal))?),
            (Vote::Notarize(v), _) => {
                // In another's name; the signature is this one's.
                let (mut lie, seats) = (v.clone(), scheme.participants().len());
                let next = (usize::from(lie.attestation.signer) + 1) % seats;
                lie.attestation.signer = Participant::new(u32::try_from(next).ok()?);
                Vote::Notarize(lie)
            }
            (Vote::Finalize(v), 0 | 1) => Vote::Finalize(Finalize::sign(scheme, strange(&v.proposal))?),
            (Vote::Finalize(_), _) => Vote::Nullify(Nullify::sign::<Digest>(scheme, round)?),
            (Vote::Nullify(_), _) => {
                let parent = commonware_consensus::types::View::new(round.view().get().saturating_sub(1));
                let proposal = Proposal::new(round, parent, Digest([9; 32]));
                Vote::Finalize(Finalize::sign(scheme, proposal)?)
            }
        };
        let lie = [epoch, lie.encode().as_ref()].concat().into();
        Some(vec![(Recipients::All, message.clone()), (self.half(choice.is_multiple_of(2)), lie)])
    }

    fn stale(&self, channel: Channel, recipients: &Recipients<PublicKey>, message: &Bytes) -> Option<Said> {
        if !matches!(channel, Channel::Votes | Channel::Certificates) {
            return None;
        }
        let mut state = self.state.lock();
        state.said.push_back((channel, message.clone()));
        if state.said.len() > REMEMBERED {
            state.said.pop_front();
        }
        let mut said = vec![(recipients.clone(), message.clone())];
        for _ in 0..2 {
            let State { rng, said: old, .. } = &mut *state;
            let (on, again) = &old[rng.random_range(0..old.len())];
            if *on == channel {
                said.push((Recipients::All, again.clone()));
            }
        }
        Some(said)
    }

    fn garbage(&self, recipients: &Recipients<PublicKey>, message: &Bytes) -> Option<Said> {
        let mut state = self.state.lock();
        let mut bytes = message.to_vec();
        match state.rng.random_range(0..8) {
            0 => bytes = (0..state.rng.random_range(0..200)).map(|_| state.rng.random_range(0..=255)).collect(),
            1 => {
                let at = state.rng.random_range(0..bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << state.rng.random_range(0..8);
                }
            }
            2 => bytes.truncate(state.rng.random_range(0..=message.len())),
            _ => return None,
        }
        Some(vec![(recipients.clone(), message.clone()), (recipients.clone(), bytes.into())])
    }

    /// Asks everyone to hold what is forged.
    fn forge(&self, recipients: &Recipients<PublicKey>, message: &Bytes) -> Option<Said> {
        let forged = self.secret.lock().forged.clone();
        let id = self.state.lock().rng.random_range(0..u64::MAX);
        if forged.is_empty() || !id.is_multiple_of(4) {
            return None;
        }
        let transactions = forged.into_iter().map(|record| (RollupId::SYSTEM, record)).collect();
        let batch = wire::Message::Batch { id, transactions }.encode().0;
        Some(vec![(recipients.clone(), message.clone()), (Recipients::All, batch)])
    }
}

impl Liar {
    /// Attests to one half that its rollups' states are others, and that legs have voted otherwise.
    fn misattest(&self, message: &Bytes) -> Option<Said> {
        let decoded = wire::Message::decode(message.to_vec().into(), &self.world.limits).ok()?;
        let wire::Message::Attestations { id, attestations } = decoded else { return None };
        let secret = &self.world.secrets[self.me].operator;
        let lie = |word: Attestation| {
            let mut votes = word.votes;
            for vote in &mut votes {
                vote.ballot = if vote.ballot == Ballot::Yes { Ballot::No } else { Ballot::Yes };
            }
            let roots = (B256::repeat_byte(6), votes_root(&votes));
            let checkpoint = Checkpoint { state_root: roots.0, votes_root: roots.1, ..word.checkpoint };
            Attestation::sign(self.world.network, word.operator, checkpoint, votes, secret).ok()
        };
        let attestations = attestations.into_iter().filter_map(lie).collect();
        let lie = wire::Message::Attestations { id, attestations }.encode().0;
        Some(vec![(self.half(false), message.clone()), (self.half(true), lie)])
    }
}

impl Mouth for Liar {
    fn say(&self, channel: Channel, recipients: &Recipients<PublicKey>, message: &Bytes) -> Option<Said> {
        match self.behaviour {
            Behaviour::Silent => Some(Vec::new()),
            Behaviour::Voteless => (channel == Channel::Votes).then(Vec::new),
            Behaviour::Withholding => (channel == Channel::Blocks).then(|| {
                let to_some = self.state.lock().rng.random_range(0..2) == 0;
                let to_some = to_some.then(|| (self.half(false), message.clone()));
                to_some.into_iter().collect()
            }),
            Behaviour::Equivocating => self.equivocate(channel, message),
            Behaviour::Contradicting => (channel == Channel::Votes).then(|| self.contradict(message)).flatten(),
            Behaviour::Stale => self.stale(channel, recipients, message),
            Behaviour::Garbage => self.garbage(recipients, message),
            Behaviour::Forging => (channel == Channel::Transactions).then(|| self.forge(recipients, message)).flatten(),
            Behaviour::Tearing => (channel == Channel::Transactions).then(|| self.misattest(message)).flatten(),
            Behaviour::Invalid | Behaviour::Twins => None,
        }
    }
}
