//! `BridgeService`: messages and bundles between rollups.

use super::{ApiError, api::Api, bundle};
use std::sync::Arc;
use switchyard_bridge_core::{Dispute, Held, SystemState};
use switchyard_primitives::RollupId;
use switchyard_proto::{fixed, hash, to_bytes, v1};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl v1::bridge_service_server::BridgeService for Api {
    async fn get_message(
        self: Arc<Self>,
        request: Request<v1::GetMessageRequest>,
    ) -> Result<Response<v1::GetMessageResponse>, Status> {
        let id = hash("id", &request.into_inner().id).map_err(ApiError::from)?;
        let found = self.read(move |gateway| gateway.message(id)?.ok_or(ApiError::UnknownMessage { id })).await?;
        let message = &found.sent.message;
        Ok(Response::new(v1::GetMessageResponse {
            state: found.state.as_str().to_owned(),
            source: message.source.0,
            destination: message.destination.0,
            index: message.index,
            block: found.sent.block,
            message: message.encode().into(),
            payload: found.sent.payload.0,
        }))
    }

    async fn get_delivery(
        self: Arc<Self>,
        request: Request<v1::GetDeliveryRequest>,
    ) -> Result<Response<v1::GetDeliveryResponse>, Status> {
        let id = hash("id", &request.into_inner().id).map_err(ApiError::from)?;
        let calls = self.read(move |gateway| gateway.delivery(id)?.ok_or(ApiError::UnknownMessage { id })).await?;
        Ok(Response::new(v1::GetDeliveryResponse { calls: calls.into_iter().map(wire_call).collect() }))
    }

    async fn submit_bundle(
        self: Arc<Self>,
        request: Request<v1::SubmitBundleRequest>,
    ) -> Result<Response<v1::SubmitBundleResponse>, Status> {
        Ok(Response::new(self.offer_bundle(request.into_inner()).await?))
    }

    async fn get_bundle(
        self: Arc<Self>,
        request: Request<v1::GetBundleRequest>,
    ) -> Result<Response<v1::GetBundleResponse>, Status> {
        let id = hash("id", &request.into_inner().id).map_err(ApiError::from)?;
        let bundle = Some(self.look_at_bundle(id).await?);
        Ok(Response::new(v1::GetBundleResponse { bundle }))
    }

    type WatchBundleStream = bundle::Changes;

    async fn watch_bundle(
        self: Arc<Self>,
        request: Request<v1::WatchBundleRequest>,
    ) -> Result<Response<Self::WatchBundleStream>, Status> {
        let slot = self.stream_slot()?;
        Ok(Response::new(self.bundle_changes(request.into_inner(), slot)?))
    }

    async fn get_settlement(
        self: Arc<Self>,
        request: Request<v1::GetSettlementRequest>,
    ) -> Result<Response<v1::GetSettlementResponse>, Status> {
        let id = hash("id", &request.into_inner().id).map_err(ApiError::from)?;
        let calls = self.read(move |gateway| gateway.settlement(id)?.ok_or(ApiError::UnknownBundle { id })).await?;
        Ok(Response::new(v1::GetSettlementResponse { calls: calls.into_iter().map(wire_call).collect() }))
    }

    async fn get_sent(
        self: Arc<Self>,
        request: Request<v1::GetSentRequest>,
    ) -> Result<Response<v1::GetSentResponse>, Status> {
        let v1::GetSentRequest { rollup_id, transaction } = request.into_inner();
        let rollup = self.rollup(rollup_id)?;
        let transaction = hash("transaction", &transaction).map_err(ApiError::from)?;
        let ids = self.read(move |gateway| Ok(gateway.sent_by(rollup, transaction)?)).await?;
        Ok(Response::new(v1::GetSentResponse { ids: ids.into_iter().map(to_bytes).collect() }))
    }

    async fn get_settleable(
        self: Arc<Self>,
        request: Request<v1::GetSettleableRequest>,
    ) -> Result<Response<v1::GetSettleableResponse>, Status> {
        let rollup = RollupId(request.into_inner().rollup_id);
        let answer =
            self.read(move |gateway| settleable(&gateway.hub_state(), rollup).ok_or(ApiError::UnknownRollup(rollup)));
        Ok(Response::new(answer.await?))
    }

    async fn get_account(
        self: Arc<Self>,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        let v1::GetAccountRequest { rollup_id, address } = request.into_inner();
        let rollup = self.rollup(rollup_id)?;
        let address = fixed::<20>("address", &address).map_err(ApiError::from)?.into();
        let account = self.read(move |gateway| account(gateway, rollup, address)).await?;
        Ok(Response::new(account))
    }
}

/// None for a rollup that makes no checkpoints.
fn settleable(state: &SystemState, rollup: RollupId) -> Option<v1::GetSettleableResponse> {
    let bridge = state.bridge().filter(|bridge| bridge.rollups().contains_key(&rollup))?;
    let settleable = bridge.settleable(state, rollup);
    let (held, until) = match bridge.held(state, rollup) {
        None => ("", 0),
        Some(Held::Challenged { until }) => ("challenged", until),
        Some(Held::Refuted) => ("refuted", 0),
    };
    let of_it = bridge.disputes().filter(|dispute| dispute.certified.rollup == rollup);
    let challenge = |dispute: &Dispute| v1::Challenge {
        id: to_bytes(dispute.id),
        certified: dispute.certified.encode().into(),
        own: dispute.own.encode().into(),
        challenger: to_bytes(dispute.challenger),
        opened: dispute.opened,
        verdict: dispute.ruling.map_or("", |ruling| if ruling.is_right { "right" } else { "wrong" }).to_owned(),
    };
    Some(v1::GetSettleableResponse {
        checkpoint: settleable.map(|certified| certified.checkpoint.encode().into()).unwrap_or_default(),
        leaf: settleable.map_or(0, |certified| certified.index),
        held: held.to_owned(),
        until,
        challenges: of_it.map(challenge).collect(),
    })
}

fn wire_call(call: crate::OpenCall) -> v1::Call {
    v1::Call { rollup_id: call.rollup.0, to: to_bytes(call.to), data: call.data.0, gas: call.gas }
}

fn account(
    gateway: &dyn crate::Gateway,
    rollup: RollupId,
    address: alloy_primitives::Address,
) -> Result<v1::GetAccountResponse, ApiError> {
    let chain = gateway.evm(rollup).ok_or(ApiError::NotExecutedHere(rollup))?;
    let number = chain.pending().map_or_else(|| chain.head().header.number, |open| open.header.number);
    let found = chain.account(number, address).map_err(|_| ApiError::Storage)?;
    let nonce = found.map_or(0, |account| account.nonce);
    let nonce = gateway.pending_nonce(rollup, address).map_or(nonce, |pending| pending.max(nonce));
    let balance = found.map_or_else(Default::default, |account| account.balance);
    let balance = balance.to_be_bytes::<32>().to_vec().into();
    Ok(v1::GetAccountResponse { chain_id: chain.chain_id(), nonce, balance, base_fee: chain.next_base_fee() })
}
