//! The stream of segments.

use super::{Server, check_error, check_field, limits};
use crate::fake::{FakeHub, segment};
use std::sync::{Arc, atomic::Ordering};
use switchyard_consensus_core::verify_finality;
use switchyard_primitives::{FinalityProof, Level, RollupId};
use switchyard_proto::{ProvenSegment, v1};
use switchyard_rpc::{Gateway, grpc::GrpcLimits};
use tonic::{Code, Status, Streaming};

type Messages = Streaming<v1::StreamSegmentsResponse>;

fn from(height: u64) -> v1::StreamSegmentsRequest {
    v1::StreamSegmentsRequest { rollup_id: 7, from_height: height, ..Default::default() }
}

async fn open(server: &Server, request: v1::StreamSegmentsRequest) -> Result<Messages, Status> {
    Ok(server.blocks().await.stream_segments(request).await?.into_inner())
}

/// The next message's heights and transaction counts, after all of its proofs have been checked.
async fn next(hub: &FakeHub, messages: &mut Messages) -> Option<Vec<(u64, usize)>> {
    let message = messages.message().await.unwrap()?;
    let proof = FinalityProof::try_from(&message.finality.unwrap()).unwrap();
    let last = verify_finality(hub.info().id, hub.seats(), &proof).unwrap();
    let blocks: Vec<ProvenSegment> = message.blocks.into_iter().map(|b| b.try_into().unwrap()).collect();
    assert_eq!(blocks.last().unwrap().header, last);
    for pair in blocks.windows(2) {
        assert_eq!(pair[1].header.parent, pair[0].header.hash());
        assert!(pair[0].transactions.is_empty());
    }
    for block in &blocks {
        assert_eq!(block.proof.verify(block.header.segment_root, RollupId(7), &block.transactions), Ok(()));
    }
    Some(blocks.iter().map(|block| (block.header.height, block.transactions.len())).collect())
}

#[tokio::test]
async fn a_stream_follows_the_tip_and_resumes_where_it_stopped() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.push(vec![segment(7, &[b"a"])]);
    hub.push(vec![segment(9, &[b"other"])]);
    let mut messages = open(&server, from(0)).await.unwrap();
    for expected in [(0, 0), (1, 1), (2, 0)] {
        assert_eq!(next(&hub, &mut messages).await, Some(vec![expected]));
    }
    hub.push(vec![segment(7, &[b"b", b"c"])]);
    assert_eq!(next(&hub, &mut messages).await, Some(vec![(3, 2)]));
    drop(messages);

    hub.push(vec![]);
    let mut messages = open(&server, from(4)).await.unwrap();
    assert_eq!(next(&hub, &mut messages).await, Some(vec![(4, 0)]));
    hub.push(vec![segment(7, &[b"d"])]);
    assert_eq!(next(&hub, &mut messages).await, Some(vec![(5, 1)]));
}

#[tokio::test]
async fn a_stream_ends_after_its_last_height() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    for _ in 0..5 {
        hub.push(vec![]);
    }
    for merge_empty in [false, true] {
        let request = v1::StreamSegmentsRequest { to_height: Some(3), merge_empty, ..from(2) };
        let mut messages = open(&server, request).await.unwrap();
        let mut blocks = Vec::new();
        while let Some(more) = next(&hub, &mut messages).await {
            blocks.extend(more);
        }
        assert_eq!(blocks, [(2, 0), (3, 0)]);
    }
}

#[tokio::test]
async fn a_block_waits_for_the_certificate_that_proves_it() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.push_block(vec![segment(7, &[b"a"])], false);
    let request = v1::StreamSegmentsRequest { to_height: Some(1), ..from(1) };
    let mut messages = open(&server, request).await.unwrap();
    let mut waiting = tokio::spawn(async move { messages.message().await });
    assert!(futures::poll!(&mut waiting).is_pending());
    hub.push_block(vec![], false);
    hub.push(vec![]);
    let message = waiting.await.unwrap().unwrap().unwrap();
    let proof = FinalityProof::try_from(&message.finality.unwrap()).unwrap();
    assert_eq!(proof.headers.len(), 3);
    assert_eq!(verify_finality(hub.info().id, hub.seats(), &proof), Ok(hub.block(1).header));
}

#[tokio::test]
async fn merged_runs_leave_no_block_without_a_proof() {
    let hub = FakeHub::new();
    let limits = GrpcLimits { merge_ms: 3_600_000, ..limits() };
    let server = Server::start_with(&hub, limits, Arc::new(|| Ok(()))).await;
    for height in 1..=200 {
        let rollup = if height == 3 || height == 4 || height == 150 { 7 } else { 9 };
        hub.push_block(vec![segment(rollup, &[b"tx"])], height % 3 == 0);
    }
    let mut messages = open(&server, v1::StreamSegmentsRequest { merge_empty: true, ..from(1) }).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..5 {
        let run = next(&hub, &mut messages).await.unwrap();
        runs.push((run[0].0, run[run.len() - 1]));
    }
    assert_eq!(runs, [(1, (3, 1)), (4, (4, 1)), (5, (68, 0)), (69, (132, 0)), (133, (150, 1))]);
    // The run at the tip waits until something ends it.
    hub.push(vec![segment(7, &[b"end"])]);
    let run = next(&hub, &mut messages).await.unwrap();
    assert_eq!((run[0], run[run.len() - 1]), ((151, 0), (201, 1)));
}

#[tokio::test]
async fn a_merged_run_is_sent_when_it_is_due() {
    let hub = FakeHub::new();
    let limits = GrpcLimits { merge_ms: 20, ..limits() };
    let server = Server::start_with(&hub, limits, Arc::new(|| Ok(()))).await;
    hub.push(vec![]);
    let mut messages = open(&server, v1::StreamSegmentsRequest { merge_empty: true, ..from(1) }).await.unwrap();
    assert_eq!(next(&hub, &mut messages).await, Some(vec![(1, 0)]));
}

#[tokio::test]
async fn a_slow_reader_is_held_by_flow_control() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    let payload = vec![5; 8 << 10];
    for _ in 0..200 {
        hub.push(vec![segment(7, &[&payload])]);
    }
    let endpoint = server.endpoint().initial_stream_window_size(64 << 10).initial_connection_window_size(64 << 10);
    let mut client = v1::block_service_client::BlockServiceClient::new(endpoint.connect().await.unwrap());
    let mut messages = client.stream_segments(from(1)).await.unwrap().into_inner();
    assert_eq!(next(&hub, &mut messages).await, Some(vec![(1, 1)]));
    // Gives a server that ignores flow control time to read everything.
    let mut status = server.status().await;
    for _ in 0..100 {
        status.get_status(v1::GetStatusRequest {}).await.unwrap();
    }
    let read = hub.segment_reads.load(Ordering::SeqCst);
    assert!(read < 120, "{read} blocks of 200 were read for a client that took one");
    for height in 2..=200 {
        assert_eq!(next(&hub, &mut messages).await, Some(vec![(height, 1)]));
    }
}

#[tokio::test]
async fn retention_that_overtakes_a_reader_ends_its_stream() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.push(vec![]);
    let mut messages = open(&server, from(1)).await.unwrap();
    assert_eq!(next(&hub, &mut messages).await, Some(vec![(1, 0)]));
    hub.earliest.store(10, Ordering::SeqCst);
    hub.push(vec![]);
    check_error(&messages.message().await.unwrap_err(), Code::OutOfRange, "pruned");
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_refused_at_once() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.push(vec![]);
    hub.earliest.store(1, Ordering::SeqCst);
    let refused = async |request| open(&server, request).await.err().unwrap();

    check_error(&refused(from(0)).await, Code::OutOfRange, "pruned");
    check_error(&refused(from(1026)).await, Code::OutOfRange, "too_far_ahead");
    check_error(&refused(from(u64::MAX)).await, Code::OutOfRange, "too_far_ahead");
    assert!(open(&server, from(1025)).await.is_ok());
    let unknown = v1::StreamSegmentsRequest { rollup_id: 8, ..from(1) };
    check_error(&refused(unknown).await, Code::NotFound, "unknown_rollup");
    check_field(&refused(v1::StreamSegmentsRequest { to_height: Some(0), ..from(1) }).await, "to_height");

    let at = |level: i32| v1::StreamSegmentsRequest { level, ..from(1) };
    check_field(&refused(at(v1::Level::from(Level::Accepted).into())).await, "level");
    check_field(&refused(at(6)).await, "level");
    check_field(&refused(at(-1)).await, "level");
    for level in [Level::Ordered, Level::Attested, Level::Settled] {
        check_error(&refused(at(v1::Level::from(level).into())).await, Code::Unimplemented, "level_unavailable");
    }
    assert!(open(&server, at(v1::Level::Final.into())).await.is_ok());
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_until_one_ends() {
    let hub = FakeHub::new();
    let server = Server::start_with(&hub, GrpcLimits { streams: 1, ..limits() }, Arc::new(|| Ok(()))).await;
    hub.push(vec![]);
    let mut first = open(&server, v1::StreamSegmentsRequest { to_height: Some(2), ..from(1) }).await.unwrap();
    let error = open(&server, from(1)).await.err().unwrap();
    check_error(&error, Code::ResourceExhausted, "too_many_streams");
    hub.push(vec![]);
    while next(&hub, &mut first).await.is_some() {}
    assert!(open(&server, from(1)).await.is_ok());
}
