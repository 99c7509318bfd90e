//! Bundles, as large as they may be.

use super::{Server, check_error, check_field};
use crate::fake::FakeHub;
use bytes::Bytes;
use switchyard_bridge_core::{Bundle, SignedBundle};
use switchyard_proto::v1::{
    SignedLeg, SubmitBundleRequest, bridge_service_client::BridgeServiceClient,
    submit_bundle_response::Result as Answer,
};
use tonic::Code;

/// As many legs as may be, with transactions that make the layout `bytes` long.
fn bundle(bytes: usize) -> SubmitBundleRequest {
    let (first, legs) = (44, Bundle::LEGS_MAX);
    let (each, rest) = ((bytes - first) / legs - 44, (bytes - first) % legs);
    let leg = |index| SignedLeg {
        rollup_id: u64::MAX,
        terms: Bytes::from(vec![1; 32]),
        transaction: Bytes::from(vec![2; if index == 0 { each + rest } else { each }]),
    };
    SubmitBundleRequest { deadline: u64::MAX, salt: Bytes::from(vec![3; 32]), legs: (0..legs).map(leg).collect() }
}

#[tokio::test]
async fn a_bundle_is_read_up_to_its_bound_and_no_further() {
    let server = Server::start(&FakeHub::new()).await;
    let mut client = BridgeServiceClient::new(server.channel().await);
    let answer = client.submit_bundle(bundle(SignedBundle::BYTES_MAX)).await.unwrap().into_inner();
    let Some(Answer::Refusal(refusal)) = answer.result else { panic!("the hub behind it has no bundles") };
    assert_eq!(refusal.code, "protocol");
    check_field(&client.submit_bundle(bundle(SignedBundle::BYTES_MAX + 1)).await.unwrap_err(), "legs");
    let error = client.submit_bundle(bundle(2 * SignedBundle::BYTES_MAX)).await.unwrap_err();
    check_error(&error, Code::OutOfRange, "message_too_large");
}
