//! The library's signature scheme behind the sign guard: a vote is signed once the guard has written down what it says.

use crate::EngineError;
use commonware_codec::types::lazy::Lazy;
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
    certificate::{AssemblyError, Attestation, Membership, Scheme, Signers, Subject as _, Verification, Verifier},
    ed25519::{self, PublicKey},
};
use commonware_parallel::Strategy;
use commonware_utils::{
    N3f1,
    iter::NonEmpty,
    ordered::{BiMap, Set},
};
use rand_core::CryptoRng;
use std::sync::Arc;
use switchyard_consensus_guard::{Kind, Position, Refusal, SignGuard, Statement};
use switchyard_primitives::keccak256;
use tokio::sync::watch;
use tracing::error;

type Inner = bls12381_multisig::Scheme<PublicKey, MinPk>;
type BlsPublic = <MinPk as commonware_cryptography::bls12381::primitives::variant::Variant>::Public;

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

/// BLS12-381 multisig (MinPk) whose signatures pass a [`SignGuard`].
#[derive(Clone, Debug)]
pub(crate) struct Guarded {
    inner: Inner,
    guard: Arc<SignGuard>,
    stop: watch::Sender<Option<MustStop>>,
}

impl Guarded {
    /// A scheme that signs with `secret` where a participant has its public key, and verifies in any case. `stop` becomes the
    /// reason when this validator must not go on: its record cannot be written, or its key signs elsewhere too.
    pub(crate) fn new(
        namespace: &[u8],
        participants: BiMap<PublicKey, BlsPublic>,
        secret: Option<group::Private>,
        guard: Arc<SignGuard>,
        stop: watch::Sender<Option<MustStop>>,
    ) -> Self {
        let signer = secret.and_then(|secret| Inner::signer(namespace, participants.clone(), secret));
        Self { inner: signer.unwrap_or_else(|| Inner::verifier(namespace, participants)), guard, stop }
    }

    #[cfg(test)]
    pub(crate) fn must_stop(&self) -> Option<MustStop> {
        self.stop.borrow().clone()
    }

    /// Looks whether a certificate that was verified holds a vote of this key that is not in its record: then another process
    /// signs with it, or the record is not the key's. Certificates below the low-water mark say nothing.
    pub(crate) fn look_for_twin(&self, kind: Kind, round: Round, signers: &Signers) {
        let Some(me) = self.inner.me().and_then(|me| me.signer()) else { return };
        if !signers.iter().any(|signer| signer == me) {
            return;
        }
        let (epoch, view) = (round.epoch().get(), round.view().get());
        if self.guard.has_signed(kind, 0, Position { epoch, number: view }) == Some(false) {
            self.stop.send_replace(Some(MustStop::Twin { kind, view }));
        }
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

fn statement<D: Digest>(subject: &Subject<'_, D>) -> Statement {
    let (kind, round) = match subject {
        Subject::Notarize { proposal } => (Kind::Notarize, proposal.round),
        Subject::Nullify { round } => (Kind::Nullify, *round),
        Subject::Finalize { proposal } => (Kind::Finalize, proposal.round),
    };
    let position = Position { epoch: round.epoch().get(), number: round.view().get() };
    Statement { kind, scope: 0, position, digest: keccak256(subject.message()) }
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
        self.inner.me()
    }

    fn participants(&self) -> &Set<PublicKey> {
        self.inner.participants()
    }

    fn sign<D: Digest>(&self, subject: Subject<'_, D>) -> Option<Attestation<Self>> {
        let statement = statement(&subject);
        // Waits for the disk, so this thread's other tasks go on elsewhere.
        let permitted = tokio::task::block_in_place(|| self.guard.permit(statement));
        if let Err(refusal) = permitted {
            error!(%refusal, "a vote is not signed");
            if matches!(refusal, Refusal::Unwritable(_)) {
                self.stop.send_replace(Some(MustStop::SignRecord(refusal)));
            }
            return None;
        }
        self.inner.sign(subject).map(wrapped)
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
    use commonware_codec::DecodeExt as _;
    use commonware_consensus::{
        simplex::types::{Finalize, Notarize, Nullify, Proposal},
        types::{Epoch, Round, View},
    };
    use commonware_cryptography::keccak256::Digest;
    use commonware_runtime::Runner as _;
    use switchyard_primitives::B256;

    /// A guard that has permitted nothing yet. Its folder goes at once, the open record does not.
    pub(crate) fn new_guard() -> Arc<SignGuard> {
        let folder = tempfile::TempDir::new().unwrap();
        Arc::new(SignGuard::open(&folder.path().join("record"), B256::ZERO, [0; 48]).unwrap())
    }

    fn scheme() -> Guarded {
        let secret = group::Private::decode(bytes::Bytes::from(vec![1; 32])).unwrap();
        let seat = (ed25519::PrivateKey::from_seed(0).public_key(), compute_public::<MinPk>(&secret));
        Guarded::new(b"test", BiMap::try_from(vec![seat]).unwrap(), Some(secret), new_guard(), watch::Sender::default())
    }

    fn proposal(view: u64, payload: u8) -> Proposal<Digest> {
        Proposal::new(Round::new(Epoch::new(0), View::new(view)), View::new(view - 1), Digest([payload; 32]))
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
