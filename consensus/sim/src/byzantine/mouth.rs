//! What faulty validators say.

use super::{Behaviour, Secret};
use crate::{
    check::guard::Wire,
    network::{Channel, Mouth, Said, split_epoch},
    world::World,
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
    ed25519::PublicKey,
    keccak256::Digest,
};
use commonware_p2p::Recipients;
use commonware_utils::ordered::BiMap;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{collections::VecDeque, sync::Arc};
use switchyard_consensus_core::{Seat, namespace};
use switchyard_consensus_network::public_key;
use switchyard_primitives::{Block, CompactBlock, Limits};

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
    scheme: Wire,
    limits: Limits,
    secret: Arc<Mutex<Secret>>,
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    said: VecDeque<(Channel, Bytes)>,
}

/// Signs as validator `me` of `world`, whatever it is told to.
pub(crate) fn scheme(world: &World, me: usize) -> Wire {
    let bls = |seat: &Seat| <MinPk as Variant>::Public::decode(Copying(seat.bls.as_slice())).expect("a seat's key");
    let key = |seat: &Seat| public_key(seat.identity).expect("a seat's identity");
    let participants: Vec<_> = world.seats.seats().iter().map(|seat| (key(seat), bls(seat))).collect();
    let participants = BiMap::try_from(participants).expect("different keys");
    let key = group::Private::decode(Copying(&world.secrets[me].bls)).expect("a secret");
    Wire::signer(&namespace(world.network), participants, key).expect("a seat's secret")
}

impl Liar {
    /// Validator `me` of `world`, with its key.
    pub fn new(world: &World, me: usize, behaviour: Behaviour, secret: Arc<Mutex<Secret>>, seed: u64) -> Self {
        let (keys, scheme) = (world.keys(), scheme(world, me));
        let state = Mutex::new(State { rng: StdRng::seed_from_u64(seed), said: VecDeque::new() });
        Self { me, behaviour, keys, scheme, limits: world.limits, secret, state }
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
                    WHOLE => Block::decode(body, &self.limits).ok()?.hash(),
                    COMPACT => CompactBlock::decode(body, &self.limits).ok()?.header().hash(),
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
                    Vote::Notarize(v) => Vote::Notarize(Notarize::sign(&self.scheme, other(&v.proposal)?)?),
                    Vote::Finalize(v) => Vote::Finalize(Finalize::sign(&self.scheme, other(&v.proposal)?)?),
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
        let lie = match (&vote, choice) {
            (Vote::Notarize(v), 0 | 1) => Vote::Notarize(Notarize::sign(&self.scheme, strange(&v.proposal))?),
            (Vote::Notarize(v), _) => {
                // In another's name; the signature is this one's.
                let mut lie = v.clone();
                lie.attestation.signer = Participant::new(u32::try_from((self.me + 1) % self.keys.len()).ok()?);
                Vote::Notarize(lie)
            }
            (Vote::Finalize(v), 0 | 1) => Vote::Finalize(Finalize::sign(&self.scheme, strange(&v.proposal))?),
            (Vote::Finalize(v), _) => Vote::Nullify(Nullify::sign::<Digest>(&self.scheme, v.proposal.round)?),
            (Vote::Nullify(v), _) => {
                let parent = commonware_consensus::types::View::new(v.round.view().get().saturating_sub(1));
                let proposal = Proposal::new(v.round, parent, Digest([9; 32]));
                Vote::Finalize(Finalize::sign(&self.scheme, proposal)?)
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
            let State { rng, said: old } = &mut *state;
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
            Behaviour::Invalid | Behaviour::Twins => None,
        }
    }
}
