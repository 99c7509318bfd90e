//! Watches what simplex reports: the view, and validators that contradict themselves.

use crate::{Activity, Scheme};
use commonware_actor::Feedback;
use commonware_consensus::{Reporter, Viewable as _, simplex::types::Attributable as _};
use commonware_parallel::Sequential;
use commonware_runtime::tokio::Context;
use commonware_utils::sync::Mutex;
use std::sync::Arc;
use switchyard_consensus_core::{Fault, FaultKind};
use tokio::sync::{mpsc, watch};
use tracing::error;

/// Passes every report on to `inner` and keeps what the node should know.
#[derive(Clone)]
pub(crate) struct Observer<R> {
    pub(crate) inner: R,
    pub(crate) scheme: Scheme,
    pub(crate) rng: Arc<Mutex<Context>>,
    pub(crate) view: watch::Sender<u64>,
    pub(crate) faults: mpsc::Sender<Fault>,
}

impl<R: Reporter<Activity = Activity>> Reporter for Observer<R> {
    type Activity = Activity;

    fn report(&mut self, activity: Activity) -> Feedback {
        match &activity {
            Activity::Notarization(c) => self.entered(c.view().get()),
            Activity::Nullification(c) => self.entered(c.view().get()),
            Activity::Finalization(c) => self.entered(c.view().get()),
            Activity::ConflictingNotarize(_) | Activity::ConflictingFinalize(_) | Activity::NullifyFinalize(_) => {
                self.fault(&activity);
            }
            Activity::Notarize(_) | Activity::Nullify(_) | Activity::Finalize(_) | Activity::Certification(_) => {}
        }
        self.inner.report(activity)
    }
}

impl<R> Observer<R> {
    /// A certificate for `view` means that the next one has begun.
    fn entered(&self, view: u64) {
        let next = view.saturating_add(1);
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
        let (seat, kind, view) = match activity {
            Activity::ConflictingNotarize(e) => (e.signer(), FaultKind::ConflictingNotarize, e.view()),
            Activity::ConflictingFinalize(e) => (e.signer(), FaultKind::ConflictingFinalize, e.view()),
            Activity::NullifyFinalize(e) => (e.signer(), FaultKind::NullifyFinalize, e.view()),
            _ => return,
        };
        let fault = Fault { seat: seat.get(), kind, view: view.get() };
        error!(?fault, "a validator has signed what no honest one signs");
        // Never waits: consensus must not depend on how fast the node reads. The log line remains where it is full.
        let _ = self.faults.try_send(fault);
    }
}
