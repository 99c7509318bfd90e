//! The status of transactions and of the node.

use super::{Server, check_error, check_field, detail};
use crate::fake::{FakeHub, UNKNOWN};
use alloy_primitives::B256;
use switchyard_primitives::{Level, RollupId, TxKey};
use switchyard_proto::v1::{self, transaction_status::Outcome};
use switchyard_rollup_core::{Rejection, TxOutcome};
use switchyard_rpc::TxStatus;
use tonic::Code;

const HASH: B256 = B256::repeat_byte(5);
const KEY: TxKey = TxKey { rollup: RollupId(7), hash: HASH };

fn accepted() -> TxStatus {
    TxStatus { level: Some(Level::Accepted), ..UNKNOWN }
}

fn included() -> TxStatus {
    TxStatus { level: Some(Level::Final), included: Some((12, 3)), ..UNKNOWN }
}

fn watch() -> v1::WatchTransactionRequest {
    let hash = bytes::Bytes::copy_from_slice(HASH.as_slice());
    v1::WatchTransactionRequest { rollup_id: 7, hash, timeout_ms: 600_000, ..Default::default() }
}

#[tokio::test]
async fn each_status_is_told_as_it_is() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    let mut client = server.sequencer().await;
    let mut get = async |status: Option<TxStatus>| {
        if let Some(status) = status {
            hub.set_status(KEY, status);
        }
        let request = v1::GetTransactionStatusRequest { rollup_id: 7, hash: HASH.to_vec().into() };
        client.get_transaction_status(request).await.unwrap().into_inner().status.unwrap()
    };
    assert_eq!(get(None).await, v1::TransactionStatus::default());
    assert_eq!(get(Some(accepted())).await.level(), v1::Level::Accepted);

    let skipped = TxOutcome::Skipped { reason: "nonce too low".to_owned() };
    let status = get(Some(TxStatus { outcome: Some(skipped), ..included() })).await;
    assert_eq!(status.level(), v1::Level::Final);
    assert_eq!(status.included, Some(v1::Inclusion { height: 12, index: 3 }));
    assert_eq!(status.outcome, Some(Outcome::Skipped(v1::Skipped { reason: "nonce too low".to_owned() })));

    let executed = TxOutcome::Executed { block: 4, index: 1, success: true };
    let status = get(Some(TxStatus { outcome: Some(executed), ..included() })).await;
    assert_eq!(status.outcome, Some(Outcome::Executed(v1::Executed { block: 4, index: 1, success: true })));

    let status = get(Some(TxStatus { rejection: Some(Rejection::Expired { seconds: 9 }), ..UNKNOWN })).await;
    assert_eq!(status.level(), v1::Level::Unspecified);
    assert_eq!(status.rejection.unwrap().code, "expired");
}

#[tokio::test]
async fn a_hash_that_is_none_is_refused() {
    let server = Server::start(&FakeHub::new()).await;
    let mut client = server.sequencer().await;
    for len in [0, 31, 33] {
        let hash = bytes::Bytes::from(vec![1; len]);
        let request = v1::GetTransactionStatusRequest { rollup_id: 7, hash: hash.clone() };
        check_field(&client.get_transaction_status(request).await.unwrap_err(), "hash");
        let request = v1::WatchTransactionRequest { hash, ..watch() };
        check_field(&client.watch_transaction(request).await.unwrap_err(), "hash");
    }
    let request = v1::GetTransactionStatusRequest { rollup_id: 1, hash: HASH.to_vec().into() };
    check_error(&client.get_transaction_status(request).await.unwrap_err(), Code::NotFound, "unknown_rollup");
}

#[tokio::test]
async fn a_watch_tells_each_change_until_the_level_is_reached() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    let mut changes = server.sequencer().await.watch_transaction(watch()).await.unwrap().into_inner();
    let mut next = async || Some(changes.message().await.unwrap()?.status.unwrap().level());
    assert_eq!(next().await, Some(v1::Level::Unspecified));
    hub.set_status(KEY, accepted());
    assert_eq!(next().await, Some(v1::Level::Accepted));
    hub.set_status(KEY, included());
    assert_eq!(next().await, Some(v1::Level::Final));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_watch_ends_with_a_rejection() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.set_status(KEY, TxStatus { rejection: Some(Rejection::Replaced { by: B256::ZERO }), ..UNKNOWN });
    let mut changes = server.sequencer().await.watch_transaction(watch()).await.unwrap().into_inner();
    let status = changes.message().await.unwrap().unwrap().status.unwrap();
    assert_eq!(status.rejection.unwrap().code, "replaced");
    assert!(changes.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_watch_that_takes_too_long_says_so() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    let request = v1::WatchTransactionRequest { timeout_ms: 20, ..watch() };
    let mut changes = server.sequencer().await.watch_transaction(request).await.unwrap().into_inner();
    assert!(changes.message().await.unwrap().is_some());
    let error = changes.message().await.unwrap_err();
    check_error(&error, Code::DeadlineExceeded, "watch_timeout");
    assert_eq!(detail(&error, "timeout_ms"), "20");
}

#[tokio::test]
async fn watches_that_cannot_end_are_refused() {
    let server = Server::start(&FakeHub::new()).await;
    let mut client = server.sequencer().await;
    let mut refused = async |request| client.watch_transaction(request).await.unwrap_err();
    check_field(&refused(v1::WatchTransactionRequest { timeout_ms: 600_001, ..watch() }).await, "timeout_ms");
    check_field(&refused(v1::WatchTransactionRequest { until: 9, ..watch() }).await, "until");
    for level in [v1::Level::Attested, v1::Level::Settled] {
        let request = v1::WatchTransactionRequest { until: level.into(), ..watch() };
        check_error(&refused(request).await, Code::Unimplemented, "level_unavailable");
    }
    let request = v1::WatchTransactionRequest { until_outcome: true, ..watch() };
    check_error(&refused(request).await, Code::FailedPrecondition, "not_executed_here");
}

#[tokio::test]
async fn the_nodes_status_tells_tip_view_and_errors() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.push(vec![]);
    let mut client = server.status().await;
    let status = client.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.tip.unwrap().height, 1);
    assert_eq!((status.view, status.signers, status.seats), (Some(11), Some(3), 4));
    assert_eq!(status.recent_errors, ["peer 3 is silent"]);
    assert!(status.tip_age_ms > 1_000_000_000, "the fake's clock starts in 1970");

    hub.push_block(vec![], false);
    let status = client.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.view, status.signers), (None, None));
}
