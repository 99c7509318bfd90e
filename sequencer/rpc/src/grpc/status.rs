//! `StatusService`: what an operator looks at.

use super::{
    ApiError,
    api::{Api, block_ref},
};
use crate::{Gateway, HubTip};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use switchyard_primitives::Level;
use switchyard_proto::{to_bytes, v1};
use switchyard_rollup_core::RollupManifest;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl v1::status_service_server::StatusService for Api {
    async fn get_status(
        self: Arc<Self>,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(self.read(status).await?))
    }
}

fn status(gateway: &dyn Gateway) -> Result<v1::GetStatusResponse, ApiError> {
    let info = gateway.info();
    let tip = *gateway.tip().borrow();
    let certificate = gateway.finality(tip.height)?.map(|proof| proof.certificate);
    Ok(v1::GetStatusResponse {
        network: info.name.clone(),
        client_version: info.client_version.clone(),
        tip: Some(block_ref(tip)),
        tip_age_ms: age_ms(tip),
        view: certificate.as_ref().map(|c| c.view),
        signers: certificate.as_ref().map(|c| u32::try_from(c.signers.signers().count()).unwrap_or(u32::MAX)),
        seats: u32::try_from(gateway.hub_state().current().seats().seats().len()).unwrap_or(u32::MAX),
        earliest_height: gateway.earliest(),
        rollups: info.rollups.iter().filter_map(|manifest| rollup_head(gateway, manifest)).collect(),
        recent_errors: gateway.recent_errors(),
    })
}

fn rollup_head(gateway: &dyn Gateway, manifest: &RollupManifest) -> Option<v1::RollupHead> {
    let chain = gateway.evm(manifest.id)?;
    let head = chain.head();
    Some(v1::RollupHead {
        rollup_id: manifest.id.0,
        name: manifest.name.clone(),
        chain_id: chain.chain_id(),
        number: head.header.number,
        hash: to_bytes(head.hash),
        hub_height: head.hub_height,
        safe_number: chain.number_at(Level::Attested),
        finalized_number: chain.number_at(Level::Settled),
    })
}

fn age_ms(tip: HubTip) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(tip.timestamp_ms)
}
