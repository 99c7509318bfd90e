//! The library's signature scheme with the validator's signer in the secret's place: a vote is signed once the sign guard has
//! written down what it says.

use crate::{EngineError, listening::Listening};
use commonware_codec::{Copying, DecodeExt as _, Encode as _, types::lazy::Lazy};
use commonware_consensus::{
    simplex::{scheme::bls12381_multisig, types::Subject},
    types::Round,
};
use commonware_cryptography::{
    Digest, Signer as _,
    bls12381::primitives::{
        group,
        ops::compute_public,
        variant::{MinPk, Variant},
    },
    certificate::{AssemblyError, Attestation, Membership, Scheme, Signers, Verification, Verifier},
    ed25519::{self, PublicKey},
};
use commonware_parallel::Strategy;
use commonware_utils::{
    N3f1, Participant,
    iter::NonEmpty,
    ordered::{BiMap, Set},
};
use rand_core::CryptoRng;
use std::sync::Arc;
use switchyard_consensus_core::{Proposal, Vote};
use switchyard_consensus_guard::{Kind, Position, Refusal, Unsigned, VoteSigner};
use switchyard_primitives::B256;
use tokio::sync::watch;
use tracing::error;

type Inner = bls12381_multisig::Scheme<PublicKey, MinPk>;
type BlsPublic = <MinPk as Variant>::Public;

/// Why a validator must not go on.
#[derive(Clone, Debug)]
pub(crate) enum MustStop {
    SignRecord(Refusal),
    Twin { kind: Kind, view: u64 },
}

impl From<MustStop> for EngineError {
    fn from(reason: MustStop) -> Self {
        match reason {
            MustStop::SignRecord(refusal) => Self::SignRecord(refusal),
            MustStop::Twin { kind, view } => Self::Twin { kind, view },
        }
    }
}

/// BLS12-381 multisig (MinPk) whose signatures a [`VoteSigner`] makes.
#[derive(Clone, Debug)]
pub(crate) struct Guarded {
    /// Without a secret.
    inner: Inner,
    /// This validator's first seat, if it has one.
    seat: Option<(Participant, Arc<dyn VoteSigner>)>,
    listening: Listening,
    stop: watch::Sender<Option<MustStop>>,
}

impl Guarded {
    /// A scheme that has `signer` sign where a participant has its public key and `listening` has ended, and verifies in any
    /// case. `stop` becomes the reason when this validator must not go on: its record cannot be written, or its key signs
    /// elsewhere too.
    pub(crate) fn new(
        namespace: &[u8],
        participants: BiMap<PublicKey, BlsPublic>,
        signer: Option<Arc<dyn VoteSigner>>,
        listening: Listening,
        stop: watch::Sender<Option<MustStop>>,
    ) -> Self {
        let seat = |signer: Arc<dyn VoteSigner>| {
            let key = signer.key();
            let me = participants.values().iter().position(|participant| participant.encode().as_ref() == key)?;
            Some((Participant::from_usize(me), signer))
        };
        let seat = signer.and_then(seat);
        Self { inner: Inner::verifier(namespace, participants), seat, listening, stop }
    }

    #[cfg(test)]
    pub(crate) fn must_stop(&self) -> Option<MustStop> {
        self.stop.borrow().clone()
    }

    /// Looks whether a certificate that was verified holds a vote of this key that is not in its record: then another process
    /// signs with it, or the record is not the key's. Certificates below the low-water mark say nothing.
    pub(crate) fn look_for_twin(&self, kind: Kind, round: Round, signers: &Signers) {
        let (epoch, view) = (round.epoch().get(), round.view().get());
        let position = Position { epoch, number: view };
        if let Some((me, signer)) = &self.seat {
            let mine = signers.iter().any(|signer| signer == *me);
            if mine && signer.record().has_signed(kind, 0, position) == Some(false) {
                self.stop.send_replace(Some(MustStop::Twin { kind, view }));
                return;
            }
        }
        self.listening.hear(position);
    }
}

/// Moves a validator's signatures to those of one of its further seats.
pub(crate) struct Tweak(Inner);

impl Tweak {
    /// By a scalar that everyone knows.
    pub(crate) fn new(namespace: &[u8], scalar: group::Private) -> Option<Self> {
        // A scheme of one participant, for the bytes that it signs.
        let key = compute_public::<MinPk>(&scalar);
        let stand_in = ed25519::PrivateKey::from_seed(0).public_key();
        Inner::signer(namespace, BiMap::try_from(vec![(stand_in, key)]).ok()?, scalar).map(Self)
    }

    /// The seat's signature of what the validator has signed; `None` if its signature does not decode.
    pub(crate) fn moved<D: Digest>(
        &self,
        subject: Subject<'_, D>,
        own: &Attestation<Guarded>,
    ) -> Option<Lazy<<MinPk as Variant>::Signature>> {
        let part = self.0.sign(subject)?;
        let sum = *own.signature.get()? + part.signature.get()?;
        Some(Lazy::from(sum))
    }
}

/// What a vote says. None for a payload that is no hash, of which the engine has none.
pub(crate) fn vote<D: Digest>(subject: &Subject<'_, D>) -> Option<Vote> {
    let proposal = |p: &commonware_consensus::simplex::types::Proposal<D>| {
        let (epoch, view, parent_view) = (p.round.epoch().get(), p.round.view().get(), p.parent.get());
        Some(Proposal { epoch, view, parent_view, block: B256::try_from(p.payload.as_ref()).ok()? })
    };
    match subject {
        Subject::Notarize { proposal: p } => proposal(p).map(Vote::Notarize),
        Subject::Nullify { round } => Some(Vote::Nullify { epoch: round.epoch().get(), view: round.view().get() }),
        Subject::Finalize { proposal: p } => proposal(p).map(Vote::Finalize),
    }
}

fn unwrapped(attestation: Attestation<Guarded>) -> Attestation<Inner> {
    Attestation { signer: attestation.signer, signature: attestation.signature }
}

fn wrapped(attestation: Attestation<Inner>) -> Attestation<Guarded> {
    Attestation { signer: attestation.signer, signature: attestation.signature }
}

fn result(verification: Verification<Inner>) -> Verification<Guarded> {
    Verification::new(verification.verified.into_iter().map(wrapped).collect(), verification.invalid)
}

impl Verifier for Guarded {
    type Subject<'a, D: Digest> = Subject<'a, D>;
    type Faults = N3f1;
    type PublicKey = PublicKey;
    type Certificate = <Inner as Verifier>::Certificate;

    fn verify_certificate<R: CryptoRng, D: Digest>(
        &self,
        rng: &mut R,
        subject: Subject<'_, D>,
        certificate: &Self::Certificate,
        strategy: &impl Strategy,
    ) -> bool {
        self.inner.verify_certificate(rng, subject, certificate, strategy)
    }

    fn verify_certificates<'a, R, D, I>(&self, rng: &mut R, certificates: NonEmpty<I>, strategy: &impl Strategy) -> bool
    where
        R: CryptoRng,
        D: Digest,
        I: Iterator<Item = (Subject<'a, D>, &'a Self::Certificate)>,
    {
        self.inner.verify_certificates(rng, certificates, strategy)
    }

    fn is_batchable() -> bool {
        Inner::is_batchable()
    }

    fn max_certificate_size(participants: u32) -> usize {
        Inner::max_certificate_size(participants)
    }

    fn certificate_codec_config(&self) -> <Self::Certificate as commonware_codec::Read>::Cfg {
        self.inner.certificate_codec_config()
    }

    fn certificate_codec_config_unbounded() -> <Self::Certificate as commonware_codec::Read>::Cfg {
        Inner::certificate_codec_config_unbounded()
    }
}

impl Scheme for Guarded {
    type Signature = <Inner as Scheme>::Signature;

    fn me(&self) -> Option<Membership> {
        self.seat.as_ref().map(|(me, _)| Membership::Signer(*me))
    }

    fn participants(&self) -> &Set<PublicKey> {
        self.inner.participants()
    }

    fn sign<D: Digest>(&self, subject: Subject<'_, D>) -> Option<Attestation<Self>> {
        let ((me, signer), vote) = (self.seat.as_ref()?, vote(&subject)?);
        if self.listening.is_silent() {
            return None;
        }
        // Waits for the disk, or for another machine, so this thread's other tasks go on elsewhere.
        match tokio::task::block_in_place(|| signer.sign(&vote)) {
            Ok(signature) => {
                let signature = Self::Signature::decode(Copying(&signature)).ok()?;
                Some(Attestation { signer: *me, signature: signature.into() })
            }
            Err(reason) => {
                error!(%reason, "a vote is not signed");
                if let Unsigned::Refused(refusal @ Refusal::Unwritable(_)) = reason {
                    self.stop.send_replace(Some(MustStop::SignRecord(refusal)));
                }
                None
            }
        }
    }

    fn verify_attestation<R: CryptoRng, D: Digest>(
        &self,
        rng: &mut R,
        subject: Subject<'_, D>,
        attestation: &Attestation<Self>,
        strategy: &impl Strategy,
    ) -> bool {
        self.inner.verify_attestation(rng, subject, &unwrapped(attestation.clone()), strategy)
    }

    fn verify_attestations<R, D, I>(
        &self,
        rng: &mut R,
        subject: Subject<'_, D>,
        attestations: I,
        strategy: &impl Strategy,
    ) -> Verification<Self>
    where
        R: CryptoRng,
        D: Digest,
        I: IntoIterator<Item = Attestation<Self>>,
        I::IntoIter: Send,
    {
        let attestations = attestations.into_iter().map(unwrapped);
        result(self.inner.verify_attestations(rng, subject, attestations, strategy))
    }

    fn optimistic_assemble<'a, R, D, I, J>(
        &self,
        rng: &mut R,
        subject: Subject<'_, D>,
        pending: I,
        verified: J,
        strategy: &impl Strategy,
    ) -> Result<Self::Certificate, Verification<Self>>
    where
        R: CryptoRng,
        D: Digest,
        I: IntoIterator<Item = Attestation<Self>>,
        I::IntoIter: ExactSizeIterator + Send,
        J: IntoIterator<Item = &'a Attestation<Self>>,
        J::IntoIter: Send,
    {
        let pending = pending.into_iter().map(unwrapped);
        let verified: Vec<_> = verified.into_iter().cloned().map(unwrapped).collect();
        self.inner.optimistic_assemble(rng, subject, pending, &verified, strategy).map_err(result)
    }

    fn assemble<I>(
        &self,
        attestations: NonEmpty<I>,
        strategy: &impl Strategy,
    ) -> Result<Self::Certificate, AssemblyError>
    where
        I: Iterator<Item = Attestation<Self>> + Send,
    {
        let (first, rest) = attestations.into_parts();
        self.inner.assemble(NonEmpty::new(unwrapped(first), rest.map(unwrapped)), strategy)
    }

    fn is_attributable() -> bool {
        Inner::is_attributable()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use commonware_consensus::{
        simplex::types::{Finalize, Notarize, Nullify, Proposal},
        types::{Epoch, Round, View},
    };
    use commonware_cryptography::{certificate::Subject as _, keccak256::Digest};
    use commonware_runtime::Runner as _;
    use switchyard_consensus_core::{keys::bls_public_key, namespace};
    use switchyard_consensus_guard::{LocalSigner, SignGuard};

    const SECRET: [u8; 32] = [1; 32];

    /// A signer that has signed nothing yet. Its folder goes at once, the open record does not.
    pub(crate) fn new_signer(secret: [u8; 32]) -> Arc<dyn VoteSigner> {
        let folder = tempfile::TempDir::new().unwrap();
        let key = bls_public_key(&secret).unwrap().0;
        let guard = SignGuard::open(&folder.path().join("record"), B256::ZERO, key).unwrap();
        Arc::new(LocalSigner::new(secret, Arc::new(guard)).unwrap())
    }

    fn seats() -> (BiMap<PublicKey, BlsPublic>, group::Private) {
        let secret = group::Private::decode(Copying(&SECRET)).unwrap();
        let seat = (ed25519::PrivateKey::from_seed(0).public_key(), compute_public::<MinPk>(&secret));
        (BiMap::try_from(vec![seat]).unwrap(), secret)
    }

    fn scheme() -> Guarded {
        Guarded::new(
            &namespace(B256::ZERO),
            seats().0,
            Some(new_signer(SECRET)),
            Listening::default(),
            watch::Sender::default(),
        )
    }

    fn proposal(view: u64, payload: u8) -> Proposal<Digest> {
        Proposal::new(Round::new(Epoch::new(0), View::new(view)), View::new(view - 1), Digest([payload; 32]))
    }

    /// So a signer elsewhere, which has no consensus library, signs what the library verifies.
    #[test]
    fn a_signer_makes_the_signatures_that_the_library_would_make() {
        let (seats, secret) = seats();
        let library = Inner::signer(&namespace(B256::ZERO), seats, secret).unwrap();
        let signer = new_signer(SECRET);
        let (small, large) = (proposal(5, 1), Proposal { parent: View::new(700_000), ..proposal(u64::MAX, 9) });
        for subject in [
            Subject::Notarize { proposal: &small },
            Subject::Nullify { round: large.round },
            Subject::Notarize { proposal: &large },
            Subject::Finalize { proposal: &small },
        ] {
            let vote = vote(&subject).unwrap();
            assert_eq!(subject.message().as_ref(), vote.content());
            let theirs = library.sign(subject).unwrap().signature.get().unwrap().encode();
            assert_eq!(signer.sign(&vote).unwrap().as_slice(), theirs.as_ref());
        }
    }

    #[test]
    fn a_scheme_signs_nothing_that_contradicts_what_it_has_signed() {
        let folder = tempfile::TempDir::new().unwrap();
        let runtime = commonware_runtime::tokio::Config::new().with_storage_directory(folder.path());
        commonware_runtime::tokio::Runner::new(runtime).start(|_| async {
            let scheme = scheme();
            assert!(Notarize::sign(&scheme, proposal(5, 1)).is_some());
            assert!(Notarize::sign(&scheme, proposal(5, 1)).is_some(), "the same again");
            assert!(Notarize::sign(&scheme, proposal(5, 2)).is_none());
            let other_parent = Proposal { parent: View::new(2), ..proposal(5, 1) };
            assert!(Notarize::sign(&scheme, other_parent).is_none());
            assert!(Nullify::sign::<Digest>(&scheme, proposal(5, 1).round).is_some());
            assert!(Finalize::sign(&scheme, proposal(5, 1)).is_none());
            assert!(Finalize::sign(&scheme, proposal(6, 1)).is_some());
            assert!(Nullify::sign::<Digest>(&scheme, proposal(6, 1).round).is_none());
            assert!(Notarize::sign(&scheme, proposal(6, 2)).is_some(), "a view has two kinds of vote");
        });
    }
}
