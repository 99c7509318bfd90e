//! One vote of a validator counts for each of its seats.
//!
//! A validator sends and receives votes of first seats only. Where a vote arrives, the votes of the validator's further seats
//! are derived from it: a seat's key is the validator's key moved by a scalar that everyone knows, so the seat's signature is
//! the validator's plus what that scalar signs (`switchyard_consensus_core::seat_of`). What is derived from a bad vote is bad,
//! and found out as one.

use crate::{Scheme, guarded};
use bytes::Bytes;
use commonware_actor::{Feedback, Unreliable};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_consensus::simplex::types::{Attributable as _, Finalize, Notarize, Nullify, Subject, Vote};
use commonware_consensus::types::Participant;
use commonware_cryptography::{
    bls12381::primitives::group, certificate::Attestation, ed25519::PublicKey, keccak256::Digest,
};
use commonware_p2p::{CheckedSender, LimitedSender, Message, Receiver, Recipients};
use commonware_runtime::{IoBuf, IoBufs};
use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
    time::SystemTime,
};
use switchyard_consensus_core::{Committee, seat_tweak};
use switchyard_consensus_network::public_key;
use tokio::sync::mpsc;

/// Own votes that wait to be counted for the further seats.
const OWN_VOTES: usize = 64;

/// A further seat of a validator.
struct Further {
    index: Participant,
    stand_in: PublicKey,
    tweak: guarded::Tweak,
}

/// Derives the votes of further seats.
pub(crate) struct Expansion {
    /// By a validator's key: its first seat's index, and its further seats.
    validators: HashMap<PublicKey, (Participant, Vec<Further>)>,
}

impl Expansion {
    /// `None` for a seat or key that does not decode, which no committee has.
    pub(crate) fn new(namespace: &[u8], committee: &Committee) -> Option<Self> {
        let mut validators: HashMap<PublicKey, (Participant, Vec<Further>)> = HashMap::new();
        for member in committee.members().iter().filter(|m| m.seats > 1) {
            let first = Participant::new(committee.seats().index_of(&member.seat.identity)?);
            validators.insert(public_key(member.seat.identity).ok()?, (first, Vec::new()));
        }
        for (index, seat) in (0u32..).zip(committee.seats().seats()) {
            let (owner, number) = committee.owner(index)?;
            let Some(tweak) = seat_tweak(&owner.seat, number).ok()? else { continue };
            let tweak = group::Private::decode(Copying(&tweak)).ok()?;
            let further = Further {
                index: Participant::new(index),
                stand_in: public_key(seat.identity).ok()?,
                tweak: guarded::Tweak::new(namespace, tweak)?,
            };
            validators.get_mut(&public_key(owner.seat.identity).ok()?)?.1.push(further);
        }
        Some(Self { validators })
    }

    fn concerns(&self, validator: &PublicKey) -> bool {
        self.validators.contains_key(validator)
    }

    /// The votes of the sender's further seats that follow from a message; none from one that is not its vote.
    fn derive(&self, sender: &PublicKey, message: &[u8]) -> Vec<(PublicKey, Bytes)> {
        let Some((first, seats)) = self.validators.get(sender) else { return Vec::new() };
        let Ok(vote) = Vote::<Scheme, Digest>::decode(Copying(message)) else { return Vec::new() };
        let signer = match &vote {
            Vote::Notarize(v) => v.signer(),
            Vote::Nullify(v) => v.signer(),
            Vote::Finalize(v) => v.signer(),
        };
        if signer != *first {
            return Vec::new();
        }
        let derived = seats.iter().filter_map(|seat| Some((seat.stand_in.clone(), seat.vote(&vote)?)));
        derived.collect()
    }
}

impl Further {
    fn vote(&self, vote: &Vote<Scheme, Digest>) -> Option<Bytes> {
        let moved = |subject: Subject<'_, Digest>, own: &Attestation<Scheme>| {
            let signature = self.tweak.moved(subject, own)?;
            Some(Attestation::<Scheme> { signer: self.index, signature })
        };
        let vote = match vote {
            Vote::Notarize(v) => Vote::Notarize(Notarize {
                proposal: v.proposal.clone(),
                attestation: moved(Subject::Notarize { proposal: &v.proposal }, &v.attestation)?,
            }),
            Vote::Nullify(v) => Vote::Nullify(Nullify {
                round: v.round,
                attestation: moved(Subject::Nullify { round: v.round }, &v.attestation)?,
            }),
            Vote::Finalize(v) => Vote::Finalize(Finalize {
                proposal: v.proposal.clone(),
                attestation: moved(Subject::Finalize { proposal: &v.proposal }, &v.attestation)?,
            }),
        };
        Some(vote.encode())
    }
}

/// Both ends of an epoch's votes channel for the validator `me`.
pub(crate) fn channel<S, R>(
    (sender, receiver): (S, R),
    me: PublicKey,
    expansion: Expansion,
) -> (VoteSender<S>, VoteReceiver<R>) {
    let (own, own_votes) = mpsc::channel(OWN_VOTES);
    let own = expansion.concerns(&me).then_some(own);
    let receiver =
        VoteReceiver { inner: receiver, me, expansion: Arc::new(expansion), own_votes, derived: VecDeque::new() };
    (VoteSender { inner: sender, own }, receiver)
}

/// Sends votes, and lets this validator's receiver know of them where it has further seats.
#[derive(Clone)]
pub(crate) struct VoteSender<S> {
    inner: S,
    own: Option<mpsc::Sender<IoBuf>>,
}

/// A vote to peers that are below their quota.
pub(crate) struct CheckedVote<C> {
    inner: C,
    own: Option<mpsc::Sender<IoBuf>>,
}

impl<S: LimitedSender<PublicKey = PublicKey>> LimitedSender for VoteSender<S> {
    type PublicKey = PublicKey;
    type Checked<'a>
        = CheckedVote<S::Checked<'a>>
    where
        Self: 'a;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Self::Checked<'_>, SystemTime> {
        Ok(CheckedVote { inner: self.inner.check(recipients)?, own: self.own.clone() })
    }
}

impl<C: CheckedSender<PublicKey = PublicKey>> CheckedSender for CheckedVote<C> {
    type PublicKey = PublicKey;

    fn recipients(&self) -> Vec<PublicKey> {
        self.inner.recipients()
    }

    fn send(self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        let Some(own) = self.own else { return self.inner.send(message, priority) };
        let message: IoBuf = message.into().coalesce();
        // Full only if the engine has fallen behind by many votes; then it is of no use to itself either.
        let _ = own.try_send(message.clone());
        self.inner.send(message, priority)
    }
}

/// Receives votes, and those that follow from them.
pub(crate) struct VoteReceiver<R> {
    inner: R,
    me: PublicKey,
    expansion: Arc<Expansion>,
    own_votes: mpsc::Receiver<IoBuf>,
    derived: VecDeque<(PublicKey, Bytes)>,
}

impl<R> std::fmt::Debug for VoteReceiver<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VoteReceiver").field("me", &self.me).finish_non_exhaustive()
    }
}

impl<R: Receiver<PublicKey = PublicKey>> Receiver for VoteReceiver<R> {
    type Error = R::Error;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, R::Error> {
        loop {
            if let Some((seat, vote)) = self.derived.pop_front() {
                return Ok((seat, IoBuf::from(vote)));
            }
            tokio::select! {
                // A fixed order: the simulation repeats a run exactly.
                biased;
                Some(own) = self.own_votes.recv() => {
                    self.derived = self.expansion.derive(&self.me, own.as_ref()).into();
                }
                message = self.inner.recv() => {
                    let (peer, vote) = message?;
                    self.derived = self.expansion.derive(&peer, vote.as_ref()).into();
                    return Ok((peer, vote));
                }
            }
        }
    }

    fn capacity(&self) -> NonZeroUsize {
        self.inner.capacity()
    }
}
