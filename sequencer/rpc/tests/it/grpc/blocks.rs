//! Single blocks and their proofs.

use super::{Server, check_error, detail};
use crate::fake::{FakeHub, ROLLUPS, segment};
use std::sync::atomic::Ordering;
use switchyard_consensus_core::verify_finality;
use switchyard_primitives::{FinalityProof, Header, RollupId};
use switchyard_proto::{ProvenSegment, v1};
use switchyard_rpc::Gateway;
use tonic::Code;

#[tokio::test]
async fn info_names_the_network_its_rollups_and_limits() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.push(vec![]);
    let mut client = server.blocks().await;
    let info = client.get_info(v1::GetInfoRequest { include_manifests: false }).await.unwrap().into_inner();
    let expected = hub.info();
    assert_eq!(info.network_id, expected.id.as_slice());
    assert_eq!(info.genesis_hash, expected.genesis_hash.as_slice());
    assert_eq!(info.seats.len(), 4);
    assert_eq!(info.seats[0].bls_key, hub.seats().seats()[0].bls.as_slice());
    assert_eq!(info.rollups.iter().map(|r| r.rollup_id).collect::<Vec<_>>(), ROLLUPS);
    assert!(info.rollups.iter().all(|r| r.manifest_json.is_empty()));
    assert_eq!(info.tip.unwrap().height, 1);
    let limits = info.limits.unwrap();
    assert_eq!((limits.submit_transactions, limits.submit_bytes), (4, 256 << 10));
    assert!(limits.response_bytes > limits.body_bytes);

    let info = client.get_info(v1::GetInfoRequest { include_manifests: true }).await.unwrap().into_inner();
    let manifest: serde_json::Value = serde_json::from_slice(&info.rollups[0].manifest_json).unwrap();
    assert_eq!(manifest, serde_json::to_value(&expected.rollups[0]).unwrap());
}

#[tokio::test]
async fn headers_and_finality_proofs_are_those_of_the_log() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.push_block(vec![segment(7, &[b"tx"])], false);
    hub.push(vec![]);
    let mut client = server.blocks().await;
    for height in 0..=2 {
        let header = client.get_header(v1::GetHeaderRequest { height }).await.unwrap().into_inner().header;
        assert_eq!(Header::decode(&header), Ok(hub.block(height).header));
        let request = v1::GetFinalityProofRequest { height };
        let proof = client.get_finality_proof(request).await.unwrap().into_inner().finality.unwrap();
        let proof = FinalityProof::try_from(&proof).unwrap();
        assert_eq!(verify_finality(hub.info().id, hub.seats(), &proof), Ok(hub.block(height).header));
    }
}

#[tokio::test]
async fn a_segment_comes_with_proofs_that_hold() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.push(vec![segment(0, &[b"record"]), segment(7, &[b"a", b"b"]), segment(9, &[b"c"])]);
    hub.push(vec![segment(9, &[b"d"])]);
    let mut client = server.blocks().await;
    for (rollup_id, height, count) in [(0, 1, 1), (7, 1, 2), (9, 1, 1), (0, 2, 0), (7, 2, 0), (9, 2, 1)] {
        let request = v1::GetSegmentRequest { rollup_id, height };
        let answer = client.get_segment(request).await.unwrap().into_inner();
        let proof = FinalityProof::try_from(&answer.finality.unwrap()).unwrap();
        let header = verify_finality(hub.info().id, hub.seats(), &proof).unwrap();
        let segment = ProvenSegment::try_from(answer.block.unwrap()).unwrap();
        assert_eq!(segment.header, header);
        assert_eq!(segment.transactions.len(), count);
        assert_eq!(segment.proof.verify(header.segment_root, RollupId(rollup_id), &segment.transactions), Ok(()));
    }
}

#[tokio::test]
async fn what_the_node_does_not_have_is_named() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.push(vec![]);
    hub.push(vec![]);
    hub.push_block(vec![], false);
    let mut client = server.blocks().await;

    let error = client.get_header(v1::GetHeaderRequest { height: 4 }).await.unwrap_err();
    check_error(&error, Code::NotFound, "above_tip");
    assert_eq!((detail(&error, "height"), detail(&error, "tip")), ("4".to_owned(), "3".to_owned()));
    let error = client.get_finality_proof(v1::GetFinalityProofRequest { height: u64::MAX }).await.unwrap_err();
    check_error(&error, Code::NotFound, "above_tip");
    let error = client.get_segment(v1::GetSegmentRequest { rollup_id: 7, height: 4 }).await.unwrap_err();
    check_error(&error, Code::NotFound, "above_tip");

    let error = client.get_finality_proof(v1::GetFinalityProofRequest { height: 3 }).await.unwrap_err();
    check_error(&error, Code::Unavailable, "certificate_pending");
    let error = client.get_segment(v1::GetSegmentRequest { rollup_id: 7, height: 3 }).await.unwrap_err();
    check_error(&error, Code::Unavailable, "certificate_pending");

    let error = client.get_segment(v1::GetSegmentRequest { rollup_id: 8, height: 1 }).await.unwrap_err();
    check_error(&error, Code::NotFound, "unknown_rollup");

    hub.earliest.store(2, Ordering::SeqCst);
    let error = client.get_segment(v1::GetSegmentRequest { rollup_id: 7, height: 1 }).await.unwrap_err();
    check_error(&error, Code::OutOfRange, "pruned");
    assert_eq!((detail(&error, "height"), detail(&error, "earliest")), ("1".to_owned(), "2".to_owned()));
}

#[tokio::test]
async fn a_failing_store_is_an_internal_error_without_its_details() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.fail_reads.store(true, Ordering::SeqCst);
    hub.push(vec![]);
    let error = server.blocks().await.get_segment(v1::GetSegmentRequest { rollup_id: 7, height: 1 }).await.unwrap_err();
    check_error(&error, Code::Internal, "storage");
    assert!(!error.message().contains("disk on fire"));
}
