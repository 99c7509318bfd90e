//! An epoch's committee as the consensus library wants it: participants, schemes, leaders.
//!
//! The library knows equal participants, each with a key of its own. A validator takes part with its first seat: it is the one
//! that leads, asks and answers. Its further seats only vote, by what `votes.rs` derives from the validator's vote.

use crate::{EngineConfig, EngineError, Scheme, listening::Listening};
use commonware_actor::Feedback;
use commonware_codec::{Copying, DecodeExt as _};
use commonware_consensus::{
    simplex::elector::{self, Elector, RoundRobin, RoundRobinElector, Scheduled, Terms},
    types::{Epoch, Participant, Round},
};
use commonware_cryptography::{
    Sha256,
    bls12381::primitives::variant::{MinPk, Variant},
    certificate::{Provider, Scoped},
    ed25519::PublicKey,
};
use commonware_p2p::{BlockedSubscription, Blocker};
use commonware_utils::{
    ordered::{BiMap, Set},
    sync::Mutex,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};
use switchyard_consensus_core::{Committee, Committees, SeatSet, keys::KeyError, namespace};
use switchyard_consensus_guard::VoteSigner;
use switchyard_consensus_network::{self as network, identity, public_key};
use switchyard_primitives::B256;
use tokio::sync::watch;

type BlsPublic = <MinPk as Variant>::Public;

/// Epochs whose schemes stay in memory.
const SCHEMES_KEPT: usize = 4;

fn participants(seats: &SeatSet) -> Result<BiMap<PublicKey, BlsPublic>, EngineError> {
    let mut keys = Vec::with_capacity(seats.seats().len());
    for seat in seats.seats() {
        let bls = BlsPublic::decode(Copying(seat.bls.as_slice())).map_err(|_| KeyError::Secret)?;
        keys.push((public_key(seat.identity).map_err(network::NetworkError::from)?, bls));
    }
    // Both kinds of key are unique in a seat set.
    BiMap::try_from(keys).map_err(|e| EngineError::Failed(format!("seats: {e}")))
}

/// What is needed to take part, and what each epoch's scheme is made of.
#[derive(Clone)]
pub(crate) struct Schemes(Arc<Inner>);

struct Inner {
    namespace: Vec<u8>,
    me: B256,
    signer: Arc<dyn VoteSigner>,
    /// Shared by all schemes: whether this validator votes already.
    listening: Listening,
    committees: Arc<dyn Committees>,
    /// Shared by all schemes: why this validator must not go on.
    stop: watch::Sender<Option<crate::guarded::MustStop>>,
    made: Mutex<BTreeMap<u64, Arc<Scheme>>>,
}

impl fmt::Debug for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemes").field("me", &self.0.me).finish_non_exhaustive()
    }
}

impl Schemes {
    pub(crate) fn new(config: &EngineConfig, listening: Listening) -> Self {
        Self(Arc::new(Inner {
            namespace: namespace(config.network_id),
            me: identity(&config.identity_secret),
            signer: config.signer.clone(),
            listening,
            committees: config.committees.clone(),
            stop: watch::Sender::default(),
            made: Mutex::default(),
        }))
    }

    /// What every vote's message begins with.
    pub(crate) fn namespace(&self) -> &[u8] {
        &self.0.namespace
    }

    /// This validator's identity.
    pub(crate) fn me(&self) -> B256 {
        self.0.me
    }

    /// Becomes the reason when this validator must not go on.
    pub(crate) fn stop(&self) -> watch::Receiver<Option<crate::guarded::MustStop>> {
        self.0.stop.subscribe()
    }

    /// The scheme of an epoch: with this validator's signature where it has a seat under its key. `None` where the log does
    /// not tell the epoch's seats (yet).
    pub(crate) fn of_epoch(&self, epoch: u64) -> Option<Arc<Scheme>> {
        if let Some(made) = self.0.made.lock().get(&epoch) {
            return Some(made.clone());
        }
        let committee = self.0.committees.committee(epoch)?;
        let scheme = Arc::new(self.make(&committee).inspect_err(|e| tracing::error!(%e, epoch, "no scheme")).ok()?);
        let mut made = self.0.made.lock();
        made.insert(epoch, scheme.clone());
        while made.len() > SCHEMES_KEPT {
            made.pop_first();
        }
        Some(scheme)
    }

    fn make(&self, committee: &Committee) -> Result<Scheme, EngineError> {
        let inner = &self.0;
        let participants = participants(committee.seats())?;
        // Whoever has the key but not the identity of a seat must not sign for it: two nodes would.
        let signer = committee.member(&inner.me).map(|_| inner.signer.clone());
        Ok(Scheme::new(&inner.namespace, participants, signer, inner.listening.clone(), inner.stop.clone()))
    }
}

impl Provider for Schemes {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, epoch: Epoch) -> Option<Scoped<Scheme>> {
        self.of_epoch(epoch.get()).map(Scoped::scheme)
    }
}

/// Leaders by turns: every seat has its turn, which its validator's first seat takes.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Vec<Participant>>);

impl Turns {
    pub(crate) fn new(committee: &Committee) -> Self {
        let seats = committee.seats().seats();
        let first = |seat: u32| {
            let owner = committee.owner(seat).map(|(member, _)| member.seat.identity);
            Participant::new(owner.and_then(|id| committee.seats().index_of(&id)).unwrap_or(seat))
        };
        Self(Arc::new((0..u32::try_from(seats.len()).unwrap_or(u32::MAX)).map(first).collect()))
    }
}

/// [`Turns`], as the library's elector.
#[derive(Clone, Debug)]
pub(crate) struct InTurn {
    seats: RoundRobinElector<Scheme>,
    firsts: Turns,
}

impl elector::Config<Scheme> for Turns {
    type Elector = InTurn;

    fn build(self, participants: &Set<PublicKey>) -> InTurn {
        InTurn { seats: RoundRobin::<Sha256>::default().build(participants), firsts: self }
    }
}

impl Elector<Scheme> for InTurn {
    type Mode = Scheduled;

    fn terms(&self) -> Terms {
        Elector::<Scheme>::terms(&self.seats)
    }

    fn elect(&self, round: Round, (): ()) -> Participant {
        let seat = self.seats.elect(round, ());
        self.firsts.0.get(usize::from(seat)).copied().unwrap_or(seat)
    }
}

/// Blocks the validator of a seat.
#[derive(Clone)]
pub(crate) struct SeatBlocker<P> {
    peers: P,
    /// Of each further seat's stand-in: its validator.
    validators: Arc<HashMap<PublicKey, PublicKey>>,
}

impl<P> SeatBlocker<P> {
    pub(crate) fn new(peers: P, committee: &Committee) -> Self {
        let seats = (0u32..).zip(committee.seats().seats());
        let further = seats.filter_map(|(index, seat)| {
            let (owner, number) = committee.owner(index)?;
            let keys = (public_key(seat.identity).ok()?, public_key(owner.seat.identity).ok()?);
            (number > 0).then_some(keys)
        });
        Self { peers, validators: Arc::new(further.collect()) }
    }
}

impl<P: Blocker<PublicKey = PublicKey>> Blocker for SeatBlocker<P> {
    type PublicKey = PublicKey;

    fn block(&mut self, peer: PublicKey) -> Feedback {
        let validator = self.validators.get(&peer).cloned().unwrap_or(peer);
        self.peers.block(validator)
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        self.peers.blocked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::Encode as _;
    use commonware_cryptography::bls12381::primitives::{group, ops::compute_public, variant::MinPk};
    use proptest::prelude::*;
    use switchyard_consensus_core::keys::bls_public_key;

    fn same_key(secret: [u8; 32]) {
        let library = group::Private::decode(Copying(&secret)).ok().map(|k| compute_public::<MinPk>(&k).encode());
        let ours = bls_public_key(&secret).ok();
        assert_eq!(library.as_deref(), ours.as_ref().map(|k| k.as_slice()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_secret_is_the_same_key_here_and_in_the_library(secret in any::<[u8; 32]>()) {
            same_key(secret);
        }
    }

    #[test]
    fn secrets_at_the_ends_of_the_range_are_the_same_key_here_and_in_the_library() {
        let order = "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";
        let mut secret: switchyard_primitives::B256 = order.parse().unwrap();
        same_key(secret.0);
        secret.0[31] -= 1;
        assert!(bls_public_key(&secret.0).is_ok());
        same_key(secret.0);
        same_key([0; 32]);
    }
}
