//! Bundles on their way to `accepted`: as transactions are, each as one.

use super::{Held, Ingest, Outgoing, What, seats, wire, wire::Message};
use alloy_primitives::B256;
use std::{sync::Arc, time::Instant};
use switchyard_bridge_core::{BridgeError, SignedBundle};
use switchyard_consensus_engine::To;
use switchyard_consensus_network::{Judge, Verdict};
use switchyard_mempool::Origin;
use switchyard_rollup_core::BundleRefusal;
use tokio::sync::oneshot;

impl Ingest {
    /// Checks bundles and puts them into the mempool, off the async threads; none while the node stops.
    async fn admit_bundles(
        self: &Arc<Self>,
        bundles: Vec<Arc<SignedBundle>>,
        origin: Origin,
    ) -> Option<Vec<Result<B256, BundleRefusal>>> {
        self.checked(origin, move |this| {
            let admitted: Vec<_> = bundles.iter().map(|bundle| this.admit_bundle(bundle, origin)).collect();
            let added = admitted.iter().filter(|result| result.is_ok()).count() as u64;
            if added > 0 {
                this.waiting.send_modify(|n| *n = n.wrapping_add(added));
            }
            admitted
        })
        .await
    }

    fn admit_bundle(&self, bundle: &Arc<SignedBundle>, origin: Origin) -> Result<B256, BundleRefusal> {
        let state = self.hub.tip();
        let bridge = state.bridge().ok_or(BundleRefusal::Protocol)?;
        let id = bundle.id();
        // The id says nothing of the transactions: others may replace those that wait.
        if self.mempool.bundle(&id).is_some_and(|waiting| waiting == *bundle) {
            return Err(BundleRefusal::Known(id));
        }
        switchyard_bridge_contracts::bundle::check(bundle).map_err(|e| BundleRefusal::Malformed(e.to_string()))?;
        let checked = self.mempool.check_bundle(bundle)?;
        match bridge.may_include(&id, checked.record(), state.next_height()) {
            // There is room again when others are decided.
            Ok(()) | Err(BridgeError::BundlesFull) => {}
            Err(BridgeError::BundleKnown { id }) => return Err(BundleRefusal::Known(id)),
            Err(error) => return Err(BundleRefusal::Hub(error.to_string())),
        }
        let known = crate::hub::bundle_at(&*self.store, &id).map_err(|error| {
            tracing::error!(%error, "cannot look up a bundle");
            BundleRefusal::Unavailable("the store failed")
        })?;
        if known.is_some() {
            return Err(BundleRefusal::Known(id));
        }
        self.mempool.insert_bundle(checked, origin, self.machine.instant())?;
        Ok(id)
    }

    /// Takes a client's bundle; answers when a quorum holds it, or with the reason why not. One that is known already is as good.
    #[tracing::instrument(skip_all)]
    pub async fn submit_bundle(self: &Arc<Self>, bundle: Arc<SignedBundle>) -> Result<B256, BundleRefusal> {
        let admitted = self.admit_bundles(vec![bundle.clone()], Origin::Local).await.and_then(|mut all| all.pop());
        let id = match admitted.unwrap_or(Err(BundleRefusal::Unavailable("stopping"))) {
            // Who asks again may not have heard the first answer.
            Ok(id) | Err(BundleRefusal::Known(id)) => id,
            Err(refusal) => {
                self.metrics.bundle_refused(refusal.code());
                return Err(refusal);
            }
        };
        let committee = self.hub.tip().current().clone();
        if committee.seats().quorum() <= seats(&committee, &self.me) || self.mempool.bundle(&id).is_none() {
            return Ok(id);
        }
        let (done, held) = oneshot::channel();
        let out = Outgoing { what: What::Bundle(bundle), done: Some(done) };
        self.outbox.send(out).await.map_err(|_| BundleRefusal::Unavailable("stopping"))?;
        let Held { held, need } = held.await.unwrap_or_default();
        // It may have come into the log meanwhile.
        if held >= need && need > 0 || self.mempool.bundle(&id).is_none() && self.mempool.bundle_refusal(&id).is_none()
        {
            return Ok(id);
        }
        let refusal = BundleRefusal::NotReplicated { held, need };
        self.metrics.bundle_refused(refusal.code());
        Err(refusal)
    }

    /// Takes bundles that another validator has sent, and tells it which of them are held here.
    pub(super) async fn answer_bundles(
        self: &Arc<Self>,
        from: B256,
        id: u64,
        bundles: Vec<Arc<SignedBundle>>,
        judge: Option<Judge>,
    ) {
        let Some(admitted) = self.admit_bundles(bundles, Origin::Gossip).await else { return };
        let is_held = |result: &Result<B256, BundleRefusal>| matches!(result, Ok(_) | Err(BundleRefusal::Known(_)));
        if let Some(judge) = judge {
            let is_of_the_bytes = |r: &Result<_, BundleRefusal>| r.as_ref().is_err_and(BundleRefusal::is_of_the_bytes);
            judge.decide(match () {
                () if admitted.iter().any(is_of_the_bytes) => Verdict::Reject,
                () if admitted.iter().any(is_held) => Verdict::Accept,
                () => Verdict::Ignore,
            });
        }
        let held = admitted.iter().map(is_held).collect();
        self.gossip.send(To::One(from), Message::Ack { id, held }.encode().0);
    }

    /// Sends the bundles of this node's users that have waited for a while to the others again.
    pub(super) fn send_bundles_again(&self, older_than: Instant) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for bundle in self.mempool.waiting_bundles(older_than, wire::BATCH_BUNDLES) {
            bytes += bundle.encoded_len();
            batch.push(Outgoing { what: What::Bundle(bundle), done: None });
            if bytes >= wire::BATCH_BYTES {
                self.send_batch(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        self.send_batch(batch);
    }
}
