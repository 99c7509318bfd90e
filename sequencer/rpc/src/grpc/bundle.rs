//! `BridgeService`'s bundles.

use super::{
    ApiError,
    api::Api,
    sequencer::{watch_timeout, wire_reason},
};
use crate::{BundleAt, Gateway, HubTip};
use futures::{StreamExt, stream, stream::BoxStream};
use std::{sync::Arc, time::Duration};
use switchyard_bridge_core::{BundleState, BundleStatus, SignedBundle, SignedLeg};
use switchyard_primitives::{B256, Bytes, Reader, RollupId, Writer};
use switchyard_proto::{hash, to_bytes, v1};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};
use tonic::Status;

/// A bundle is looked at again at least this often: not every change comes with a hub block.
const RECHECK: Duration = Duration::from_millis(100);

pub(super) type Changes = BoxStream<'static, Result<v1::WatchBundleResponse, Status>>;

fn signed(request: v1::SubmitBundleRequest) -> Result<SignedBundle, ApiError> {
    let v1::SubmitBundleRequest { deadline, salt, legs } = request;
    let leg = |leg: v1::SignedLeg| {
        let transaction = Bytes(leg.transaction);
        Ok(SignedLeg { rollup: RollupId(leg.rollup_id), terms: hash("legs.terms", &leg.terms)?, transaction })
    };
    let legs = legs.into_iter().map(leg).collect::<Result<_, ApiError>>()?;
    let bundle = SignedBundle { deadline, salt: hash("salt", &salt)?, legs };
    // One place says what a bundle may be.
    let mut w = Writer::with_capacity(bundle.encoded_len());
    bundle.write(&mut w);
    let read = SignedBundle::read(&mut Reader::new(w.into_bytes()));
    read.map_err(|error| ApiError::Field { field: "legs", description: error.to_string() })
}

impl Api {
    pub(super) async fn offer_bundle(
        &self,
        request: v1::SubmitBundleRequest,
    ) -> Result<v1::SubmitBundleResponse, ApiError> {
        let result = match self.gateway.submit_bundle(signed(request)?).await {
            Ok(id) => v1::submit_bundle_response::Result::Id(to_bytes(id)),
            Err(refusal) => v1::submit_bundle_response::Result::Refusal(wire_reason(refusal.code(), &refusal)),
        };
        Ok(v1::SubmitBundleResponse { result: Some(result) })
    }

    pub(super) async fn look_at_bundle(&self, id: B256) -> Result<v1::Bundle, ApiError> {
        self.read(move |gateway| look(gateway, id)).await
    }

    /// The bundle now, then each change.
    pub(super) fn bundle_changes(
        self: Arc<Self>,
        request: v1::WatchBundleRequest,
        slot: OwnedSemaphorePermit,
    ) -> Result<Changes, ApiError> {
        let id = hash("id", &request.id)?;
        let timeout = watch_timeout(request.timeout_ms)?;
        let deadline = Instant::now() + timeout;
        let tip = self.gateway.tip();
        let until_settled = request.until_settled;
        let watch = Watch { api: self, id, until_settled, timeout, deadline, tip, sent: None, _slot: slot };
        let changes = stream::try_unfold(watch, |mut watch| async {
            let bundle = watch.advance().await?;
            Ok(bundle.map(|bundle| (v1::WatchBundleResponse { bundle: Some(bundle) }, watch)))
        });
        Ok(changes.boxed())
    }
}

struct Watch {
    api: Arc<Api>,
    id: B256,
    until_settled: bool,
    timeout: Duration,
    deadline: Instant,
    tip: watch::Receiver<HubTip>,
    /// What the client knows.
    sent: Option<v1::Bundle>,
    _slot: OwnedSemaphorePermit,
}

impl Watch {
    fn is_done(&self) -> bool {
        self.sent.as_ref().is_some_and(|bundle| match bundle.state.as_str() {
            "refused" => true,
            "committed" | "aborted" => bundle.settled || !self.until_settled,
            _ => false,
        })
    }

    /// The next state that differs from the last one sent; none once there is nothing more to wait for.
    async fn advance(&mut self) -> Result<Option<v1::Bundle>, ApiError> {
        while !self.is_done() {
            self.tip.mark_unchanged();
            let bundle = self.api.look_at_bundle(self.id).await?;
            if self.sent.as_ref() != Some(&bundle) {
                self.sent = Some(bundle.clone());
                return Ok(Some(bundle));
            }
            tokio::select! {
                changed = self.tip.changed() => changed.map_err(|_| ApiError::Stopping)?,
                () = self.api.shutdown.cancelled() => return Err(ApiError::Stopping),
                () = tokio::time::sleep_until(self.deadline) => {
                    let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
                    return Err(ApiError::WatchTimeout { timeout_ms });
                }
                () = tokio::time::sleep(RECHECK) => {}
            }
        }
        Ok(None)
    }
}

fn look(gateway: &dyn Gateway, id: B256) -> Result<v1::Bundle, ApiError> {
    let none = v1::Bundle::default();
    Ok(match gateway.bundle(id)?.ok_or(ApiError::UnknownBundle { id })? {
        BundleAt::Waiting { deadline } => v1::Bundle { state: "waiting".into(), deadline, ..none },
        BundleAt::Refused(refusal) => {
            v1::Bundle { state: "refused".into(), refusal: Some(wire_reason(refusal.code(), &refusal)), ..none }
        }
        BundleAt::InLog(status) => in_log(gateway, &status)?,
    })
}

fn in_log(gateway: &dyn Gateway, status: &BundleStatus) -> Result<v1::Bundle, ApiError> {
    let moment = |height| -> Result<v1::Moment, ApiError> {
        let timestamp_ms = gateway.header(height)?.map_or(0, |header| header.timestamp_ms);
        Ok(v1::Moment { height, timestamp_ms })
    };
    let (state, decided) = match status.bundle.state {
        BundleState::Open { .. } => ("open", None),
        BundleState::Decided { committed: true, height } => ("committed", Some(moment(height)?)),
        BundleState::Decided { committed: false, height } => ("aborted", Some(moment(height)?)),
    };
    let legs = status.legs.iter().map(|leg| v1::BundleLeg {
        rollup_id: leg.leg.rollup.0,
        leg: to_bytes(leg.leg.hash()),
        transaction: to_bytes(leg.leg.tx),
        voted: leg.voted,
        vault: leg.vault.map_or("", |vault| vault.state.as_str()).to_owned(),
        held: leg.vault.map_or(0, |vault| vault.held.into()),
    });
    Ok(v1::Bundle {
        state: state.into(),
        deadline: status.bundle.deadline,
        included: Some(moment(status.bundle.included)?),
        decided,
        legs: legs.collect(),
        settled: status.is_settled(),
        refusal: None,
    })
}
