//! `BlockService`: final blocks with their proofs.

use super::{
    ApiError,
    api::{Api, below_tip, block_ref, block_segment, present},
    log,
    segments::{self, Cursor},
    snapshot,
};
use crate::EpochAt;
use futures::stream::BoxStream;
use std::{ops::RangeInclusive, sync::Arc};
use switchyard_consensus_core::{Seat, SeatSet};
use switchyard_primitives::Level;
use switchyard_proto::{level, to_bytes, v1};
use tonic::{Request, Response, Status};

/// How far above the tip a stream may start.
const AHEAD_BLOCKS: u64 = 1024;

#[tonic::async_trait]
impl v1::block_service_server::BlockService for Api {
    async fn get_info(
        self: Arc<Self>,
        request: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        Ok(Response::new(self.info(request.into_inner().include_manifests)))
    }

    async fn get_header(
        self: Arc<Self>,
        request: Request<v1::GetHeaderRequest>,
    ) -> Result<Response<v1::GetHeaderResponse>, Status> {
        let height = request.into_inner().height;
        let header = self.read(move |gateway| {
            below_tip(gateway, height)?;
            present(gateway.header(height)?, "header", height)
        });
        Ok(Response::new(v1::GetHeaderResponse { header: to_bytes(header.await?.encode()) }))
    }

    async fn get_epoch(
        self: Arc<Self>,
        request: Request<v1::GetEpochRequest>,
    ) -> Result<Response<v1::GetEpochResponse>, Status> {
        let asked = request.into_inner().epoch;
        let epoch = self.read(move |gateway| {
            let epoch = asked.unwrap_or_else(|| gateway.hub_state().current().epoch());
            gateway.epoch(epoch)?.ok_or(ApiError::EpochNotBegun { epoch })
        });
        let EpochAt { epoch, first_height, seats, boundary } = epoch.await?;
        let boundary = boundary.as_ref().map(Into::into);
        Ok(Response::new(v1::GetEpochResponse { epoch, first_height, seats: wire_seats(&seats), boundary }))
    }

    async fn get_hub_state(
        self: Arc<Self>,
        _request: Request<v1::GetHubStateRequest>,
    ) -> Result<Response<v1::GetHubStateResponse>, Status> {
        Ok(Response::new(v1::GetHubStateResponse { state: self.gateway.hub_state().encode().into() }))
    }

    async fn get_finality_proof(
        self: Arc<Self>,
        request: Request<v1::GetFinalityProofRequest>,
    ) -> Result<Response<v1::GetFinalityProofResponse>, Status> {
        let height = request.into_inner().height;
        let proof = self.read(move |gateway| {
            below_tip(gateway, height)?;
            gateway.finality(height)?.ok_or(ApiError::CertificatePending { height })
        });
        Ok(Response::new(v1::GetFinalityProofResponse { finality: Some((&proof.await?).into()) }))
    }

    async fn get_segment(
        self: Arc<Self>,
        request: Request<v1::GetSegmentRequest>,
    ) -> Result<Response<v1::GetSegmentResponse>, Status> {
        let v1::GetSegmentRequest { rollup_id, height } = request.into_inner();
        let rollup = self.rollup(rollup_id)?;
        let read = self.read(move |gateway| {
            below_tip(gateway, height)?;
            let segment = present(gateway.segment(rollup, height)?, "segment", height)?;
            let finality = gateway.finality(height)?.ok_or(ApiError::CertificatePending { height })?;
            Ok((segment, finality))
        });
        let (segment, finality) = read.await?;
        let (block, finality) = (Some(block_segment(segment)), Some((&finality).into()));
        Ok(Response::new(v1::GetSegmentResponse { block, finality }))
    }

    type StreamSegmentsStream = BoxStream<'static, Result<v1::StreamSegmentsResponse, Status>>;

    async fn stream_segments(
        self: Arc<Self>,
        request: Request<v1::StreamSegmentsRequest>,
    ) -> Result<Response<Self::StreamSegmentsStream>, Status> {
        let request = request.into_inner();
        let rollup = self.rollup(request.rollup_id)?;
        check_level(request.level)?;
        let heights = self.range(request.from_height, request.to_height)?;
        self.check_kept(*heights.start())?;
        let slot = self.stream_slot()?;
        let cursor = Cursor::new(self, rollup, heights, request.merge_empty, slot);
        Ok(Response::new(segments::stream(cursor)))
    }

    type StreamFinalityStream = BoxStream<'static, Result<v1::StreamFinalityResponse, Status>>;

    async fn stream_finality(
        self: Arc<Self>,
        request: Request<v1::StreamFinalityRequest>,
    ) -> Result<Response<Self::StreamFinalityStream>, Status> {
        let v1::StreamFinalityRequest { from_height, to_height } = request.into_inner();
        let heights = self.range(from_height, to_height)?;
        let slot = self.stream_slot()?;
        Ok(Response::new(log::stream(self, heights, slot, log::finality)))
    }

    type StreamBlocksStream = BoxStream<'static, Result<v1::StreamBlocksResponse, Status>>;

    async fn stream_blocks(
        self: Arc<Self>,
        request: Request<v1::StreamBlocksRequest>,
    ) -> Result<Response<Self::StreamBlocksStream>, Status> {
        let v1::StreamBlocksRequest { from_height, to_height } = request.into_inner();
        let heights = self.range(from_height, to_height)?;
        self.check_kept(*heights.start())?;
        let slot = self.stream_slot()?;
        Ok(Response::new(log::stream(self, heights, slot, log::block)))
    }

    async fn get_hub_state_at(
        self: Arc<Self>,
        request: Request<v1::GetHubStateAtRequest>,
    ) -> Result<Response<v1::GetHubStateAtResponse>, Status> {
        let height = request.into_inner().height;
        let state = self.read(move |gateway| {
            below_tip(gateway, height)?;
            Ok(gateway.hub_state_at(height)?)
        });
        Ok(Response::new(v1::GetHubStateAtResponse { state: state.await?.into() }))
    }

    type StreamSnapshotStream = BoxStream<'static, Result<v1::StreamSnapshotResponse, Status>>;

    async fn stream_snapshot(
        self: Arc<Self>,
        request: Request<v1::StreamSnapshotRequest>,
    ) -> Result<Response<Self::StreamSnapshotStream>, Status> {
        let rollup = self.rollup(request.into_inner().rollup_id)?;
        let chain = self.gateway.evm(rollup).ok_or(ApiError::NotExecutedHere(rollup))?;
        let slot = self.snapshot_slot()?;
        Ok(Response::new(snapshot::stream(&self, chain, slot)))
    }
}

/// Blocks are served once they are final; nothing earlier or later exists yet.
fn check_level(value: i32) -> Result<(), ApiError> {
    match level("level", value)? {
        None | Some(Level::Final) => Ok(()),
        Some(Level::Accepted) => {
            Err(ApiError::Field { field: "level", description: "blocks have no level accepted".to_owned() })
        }
        Some(level @ (Level::Ordered | Level::Attested | Level::Settled)) => Err(ApiError::LevelUnavailable { level }),
    }
}

fn wire_seats(seats: &SeatSet) -> Vec<v1::Seat> {
    let seat = |seat: &Seat| v1::Seat { identity: to_bytes(seat.identity), bls_key: to_bytes(seat.bls) };
    seats.seats().iter().map(seat).collect()
}

impl Api {
    /// The heights that a stream is asked for.
    fn range(&self, from: u64, to: Option<u64>) -> Result<RangeInclusive<u64>, ApiError> {
        let to = to.unwrap_or(u64::MAX);
        if to < from {
            let description = format!("{to} is below from_height {from}");
            return Err(ApiError::Field { field: "to_height", description });
        }
        let tip = self.gateway.tip().borrow().height;
        if from > tip.saturating_add(AHEAD_BLOCKS) {
            return Err(ApiError::TooFarAhead { height: from, tip, limit: AHEAD_BLOCKS });
        }
        Ok(from..=to)
    }

    fn check_kept(&self, height: u64) -> Result<(), ApiError> {
        let earliest = self.gateway.earliest();
        if height < earliest { Err(ApiError::Pruned { height, earliest }) } else { Ok(()) }
    }

    fn info(&self, include_manifests: bool) -> v1::GetInfoResponse {
        let info = self.gateway.info();
        let rollups = info.rollups.iter().zip(self.manifests()).map(|(manifest, json)| v1::Rollup {
            rollup_id: manifest.id.0,
            name: manifest.name.clone(),
            manifest_json: if include_manifests { json.clone() } else { bytes::Bytes::new() },
            executed_here: self.gateway.evm(manifest.id).is_some(),
        });
        let tip = *self.gateway.tip().borrow();
        v1::GetInfoResponse {
            network: info.name.clone(),
            network_id: to_bytes(info.id),
            genesis_hash: to_bytes(info.genesis_hash),
            seats: wire_seats(self.gateway.hub_state().current().seats()),
            rollups: rollups.collect(),
            limits: Some(self.wire_limits()),
            tip: Some(block_ref(tip)),
            earliest_height: self.gateway.earliest(),
            client_version: info.client_version.clone(),
            forwards_submissions: info.forwards_submissions,
        }
    }

    fn wire_limits(&self) -> v1::Limits {
        let limits = self.gateway.info().limits;
        v1::Limits {
            body_bytes: limits.body_bytes as u64,
            segments: limits.segments as u64,
            transactions: limits.transactions as u64,
            transaction_bytes: limits.transaction_bytes as u64,
            submit_transactions: self.limits.submit_transactions as u64,
            submit_bytes: self.submit_bytes() as u64,
            response_bytes: self.response_bytes() as u64,
        }
    }
}
