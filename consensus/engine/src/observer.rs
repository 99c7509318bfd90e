//! Watches what simplex reports: the view, and validators that contradict themselves.

use crate::{Activity, Scheme, guarded};
use commonware_actor::Feedback;
use commonware_codec::{Copying, Encode, Error, Read as _};
use commonware_consensus::{
    Reporter,
    simplex::types::{Attributable as _, Finalize, Notarize, Nullify, Subject},
    types::{Participant, Round},
};
use commonware_cryptography::{
    certificate::{Attestation, Signers},
    keccak256::Digest,
};
use commonware_parallel::Sequential;
use commonware_utils::sync::Mutex;
use rand_core::CryptoRng;
use std::sync::Arc;
use switchyard_consensus_core::{Committee, Fault, Vote, VoteConflict};
use switchyard_consensus_guard::Kind;
use tokio::sync::{mpsc, watch};
use tracing::error;

/// Passes every report on to `inner` and keeps what the node should know.
pub(crate) struct Observer<R, G> {
    pub(crate) inner: R,
    pub(crate) scheme: Scheme,
    pub(crate) committee: Arc<Committee>,
    pub(crate) rng: Arc<Mutex<G>>,
    /// The newest epoch and view.
    pub(crate) view: watch::Sender<(u64, u64)>,
    pub(crate) faults: mpsc::Sender<Fault>,
}

impl<R: Clone, G> Clone for Observer<R, G> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            scheme: self.scheme.clone(),
            committee: self.committee.clone(),
            rng: Arc::clone(&self.rng),
            view: self.view.clone(),
            faults: self.faults.clone(),
        }
    }
}

impl<R: Reporter<Activity = Activity>, G: CryptoRng + Send + 'static> Reporter for Observer<R, G> {
    type Activity = Activity;

    fn report(&mut self, activity: Activity) -> Feedback {
        match &activity {
            Activity::Notarization(c) => {
                self.certified(Kind::Notarize, c.proposal.round, &c.certificate.signers);
            }
            Activity::Nullification(c) => self.certified(Kind::Nullify, c.round, &c.certificate.signers),
            Activity::Finalization(c) => self.certified(Kind::Finalize, c.proposal.round, &c.certificate.signers),
            Activity::ConflictingNotarize(_) | Activity::ConflictingFinalize(_) | Activity::NullifyFinalize(_) => {
                self.fault(&activity);
            }
            Activity::Notarize(_) | Activity::Nullify(_) | Activity::Finalize(_) | Activity::Certification(_) => {}
        }
        self.inner.report(activity)
    }
}

impl<R, G: CryptoRng> Observer<R, G> {
    /// A certificate for a view means that the next one has begun.
    fn certified(&self, kind: Kind, round: Round, signers: &Signers) {
        self.scheme.look_for_twin(kind, round, signers);
        let next = (round.epoch().get(), round.view().get().saturating_add(1));
        self.view.send_if_modified(|seen| {
            let newer = *seen < next;
            *seen = (*seen).max(next);
            newer
        });
    }

    fn fault(&self, activity: &Activity) {
        // Votes are checked in batches, so evidence may hold a signature that nobody has checked yet.
        if !activity.verified() && !activity.verify(&mut *self.rng.lock(), &self.scheme, &Sequential) {
            return;
        }
        let Ok((seat, [first, second])) = votes(activity) else { return };
        // A validator's further seats say what its first seat says: once is enough.
        let Some((member, 0)) = self.committee.owner(seat.get()) else { return };
        let (Some((first, by_first)), Some((second, by_second))) = (first, second) else { return };
        let conflict = VoteConflict::new(member.seat.identity, (first, &by_first), (second, &by_second));
        let Some(conflict) = conflict else { return };
        error!(?conflict, "a validator has signed what no honest one signs");
        // Never waits: consensus must not depend on how fast the node reads. The log line remains where it is full.
        let _ = self.faults.try_send(Fault(conflict));
    }
}

/// A vote with its signature.
type Signed = Option<(Vote, [u8; 96])>;

fn signed(subject: &Subject<'_, Digest>, by: &Attestation<Scheme>) -> Signed {
    let signature = by.signature.get()?.encode();
    Some((guarded::vote(subject)?, signature.as_ref().try_into().ok()?))
}

fn notarize(vote: &Notarize<Scheme, Digest>) -> Signed {
    signed(&Subject::Notarize { proposal: &vote.proposal }, &vote.attestation)
}

fn finalize(vote: &Finalize<Scheme, Digest>) -> Signed {
    signed(&Subject::Finalize { proposal: &vote.proposal }, &vote.attestation)
}

/// The seat that evidence is about, and its two votes. The library shows them in the evidence's encoding only: one after the other.
fn votes(evidence: &Activity) -> Result<(Participant, [Signed; 2]), Error> {
    match evidence {
        Activity::ConflictingNotarize(e) => {
            let bytes = e.encode();
            let mut r = Copying(bytes.as_ref());
            Ok((e.signer(), [notarize(&Notarize::read_cfg(&mut r, &())?), notarize(&Notarize::read_cfg(&mut r, &())?)]))
        }
        Activity::ConflictingFinalize(e) => {
            let bytes = e.encode();
            let mut r = Copying(bytes.as_ref());
            Ok((e.signer(), [finalize(&Finalize::read_cfg(&mut r, &())?), finalize(&Finalize::read_cfg(&mut r, &())?)]))
        }
        Activity::NullifyFinalize(e) => {
            let bytes = e.encode();
            let mut r = Copying(bytes.as_ref());
            let nullify = Nullify::<Scheme>::read_cfg(&mut r, &())?;
            let nullify = signed(&Subject::Nullify { round: nullify.round }, &nullify.attestation);
            Ok((e.signer(), [nullify, finalize(&Finalize::read_cfg(&mut r, &())?)]))
        }
        _ => Err(Error::Invalid("evidence", "no evidence")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listening::Listening;
    use crate::{
        Finalization,
        guarded::{self, MustStop},
    };
    use commonware_codec::{Copying, DecodeExt as _};
    use commonware_consensus::{
        simplex::types::{
            ConflictingFinalize, ConflictingNotarize, Finalize, Notarize, Nullify, NullifyFinalize, Proposal,
        },
        types::{Epoch, Round, View},
    };
    use commonware_cryptography::{
        Signer as _,
        bls12381::primitives::{group::Private, ops::compute_public, variant::MinPk},
        certificate::Scheme as _,
        ed25519,
        keccak256::Digest,
    };
    use commonware_runtime::{Runner as _, Supervisor as _, tokio::Runner};
    use commonware_utils::{non_empty, ordered::BiMap};
    use switchyard_consensus_core::{FaultKind, Seat, keys::bls_public_key, namespace};
    use switchyard_consensus_network::to_b256;
    use switchyard_primitives::B256;

    /// Takes every report.
    #[derive(Clone)]
    struct Sink;

    impl Reporter for Sink {
        type Activity = Activity;

        fn report(&mut self, _: Activity) -> Feedback {
            Feedback::Ok
        }
    }

    fn schemes() -> Vec<Scheme> {
        let secrets: Vec<[u8; 32]> = (1u8..=4).map(|i| [i; 32]).collect();
        let keys: Vec<Private> = secrets.iter().map(|s| Private::decode(Copying(s)).unwrap()).collect();
        let seats: Vec<_> = (0u64..)
            .zip(&keys)
            .map(|(i, k)| (ed25519::PrivateKey::from_seed(i).public_key(), compute_public::<MinPk>(k)))
            .collect();
        let seats = BiMap::try_from(seats).unwrap();
        let namespace = namespace(B256::ZERO);
        let signer = |secret| {
            let signer = Some(guarded::tests::new_signer(secret));
            Scheme::new(&namespace, seats.clone(), signer, Listening::default(), watch::Sender::default())
        };
        secrets.into_iter().map(signer).collect()
    }

    /// The same seats.
    fn committee() -> Committee {
        let seat = |(i, secret): (u64, u8)| Seat {
            identity: to_b256(&ed25519::PrivateKey::from_seed(i).public_key()),
            bls: bls_public_key(&[secret; 32]).unwrap(),
        };
        Committee::of_equals(0, (0..).zip(1..=4).map(seat)).unwrap()
    }

    fn proposal(view: u64, payload: u8) -> Proposal<Digest> {
        Proposal::new(Round::new(Epoch::new(0), View::new(view)), View::new(view - 1), Digest([payload; 32]))
    }

    /// What a fresh observer, of the first seat, makes of reports.
    struct Seen {
        faults: Vec<Fault>,
        view: u64,
        must_stop: Option<MustStop>,
    }

    fn observe(reports: impl FnOnce(&[Scheme]) -> Vec<Activity> + Send + 'static) -> Seen {
        let folder = tempfile::TempDir::new().unwrap();
        let runtime = commonware_runtime::tokio::Config::new().with_storage_directory(folder.path());
        Runner::new(runtime).start(|context| async move {
            let schemes = schemes();
            let (faults, mut out) = mpsc::channel(8);
            let (view, seen) = watch::channel((0, 0));
            let mut observer = Observer {
                inner: Sink,
                scheme: schemes[0].clone(),
                committee: Arc::new(committee()),
                rng: Arc::new(Mutex::new(context.child("rng"))),
                view,
                faults,
            };
            for activity in reports(&schemes) {
                observer.report(activity);
            }
            let ((_, view), must_stop) = (*seen.borrow(), observer.scheme.must_stop());
            drop(observer);
            let mut faults = Vec::new();
            while let Some(fault) = out.recv().await {
                faults.push(fault);
            }
            Seen { faults, view, must_stop }
        })
    }

    fn finalization(view: u64, signers: &[Scheme]) -> Activity {
        let votes: Vec<_> = signers.iter().map(|s| Finalize::sign(s, proposal(view, 1)).unwrap()).collect();
        let certificate = Finalization::from_finalizes(&signers[0], non_empty![@&votes], &Sequential).unwrap();
        Activity::Finalization(certificate)
    }

    #[test]
    fn each_kind_of_contradiction_is_told_with_its_seat_and_view() {
        let Seen { faults, .. } = observe(|_| {
            // Each time another process, whose guard knows nothing of what the others have signed.
            let offender = || schemes().remove(2);
            let notarize = |payload| Notarize::sign(&offender(), proposal(7, payload)).unwrap();
            let finalize = |payload| Finalize::sign(&offender(), proposal(8, payload)).unwrap();
            let nullify = Nullify::sign::<Digest>(&offender(), proposal(8, 1).round).unwrap();
            vec![
                Activity::ConflictingNotarize(ConflictingNotarize::new(notarize(1), notarize(2))),
                Activity::ConflictingFinalize(ConflictingFinalize::new(finalize(1), finalize(2))),
                Activity::NullifyFinalize(NullifyFinalize::new(nullify, finalize(1))),
            ]
        });
        let committee = committee();
        let (member, _) = committee.owner(schemes()[2].me().unwrap().index().get()).unwrap();
        let seat = member.seat.identity;
        let told: Vec<_> = faults.iter().map(|Fault(f)| (f.validator(), f.kind(), f.round().1)).collect();
        assert_eq!(
            told,
            [
                (seat, FaultKind::ConflictingNotarize, 7),
                (seat, FaultKind::ConflictingFinalize, 8),
                (seat, FaultKind::NullifyFinalize, 8),
            ]
        );
        // Proof without the library.
        assert!(faults.iter().all(|Fault(conflict)| conflict.holds(B256::ZERO, member.seat.bls)));
    }

    #[test]
    fn evidence_with_a_forged_signature_is_not_told() {
        let Seen { faults, .. } = observe(|schemes| {
            let real = Notarize::sign(&schemes[2], proposal(7, 1)).unwrap();
            let mut forged = Notarize::sign(&schemes[1], proposal(7, 2)).unwrap();
            forged.attestation.signer = real.attestation.signer;
            vec![Activity::ConflictingNotarize(ConflictingNotarize::new(real, forged))]
        });
        assert!(faults.is_empty(), "{faults:?}");
    }

    #[test]
    fn the_view_is_the_one_after_the_newest_certificate() {
        let Seen { view, must_stop, .. } = observe(|schemes| vec![finalization(9, schemes), finalization(4, schemes)]);
        assert_eq!(view, 10);
        assert!(must_stop.is_none(), "{must_stop:?}");
    }

    #[test]
    fn a_certificate_with_a_vote_of_this_key_that_this_validator_has_not_made_stops_it() {
        // The votes of the first seat are another process's: its guard is another one.
        let Seen { must_stop, .. } =
            observe(|schemes| vec![finalization(3, &schemes[1..]), finalization(9, &self::schemes())]);
        assert!(matches!(must_stop, Some(MustStop::Twin { kind: Kind::Finalize, view: 9 })), "{must_stop:?}");
        let Seen { must_stop, .. } = observe(|schemes| vec![finalization(3, &schemes[1..])]);
        assert!(must_stop.is_none(), "a certificate of others says nothing: {must_stop:?}");
    }
}
