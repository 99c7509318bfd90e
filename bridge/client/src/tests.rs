use super::*;
use switchyard_primitives::keccak256;
use tokio::net::TcpListener;
use tonic::{Code, Status, transport::Endpoint};

const ROLLUP: RollupId = RollupId(7);

/// A client whose node is gone.
async fn without_a_node() -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    Client::over(Endpoint::from_shared(url).unwrap().connect_lazy())
}

fn bundle() -> SignedBundle {
    let leg = SignedLeg { rollup: ROLLUP, terms: B256::ZERO, transaction: Bytes::from_static(b"leg") };
    SignedBundle { deadline: 9, salt: B256::ZERO, legs: vec![leg; 2] }
}

#[tokio::test]
async fn an_error_after_something_was_sent_says_what_and_how_to_look() {
    let mut client = without_a_node().await;
    let payload = Bytes::from_static(b"a transaction");
    let hash = keccak256(&payload);
    let sent = Sent::Transaction { rollup: ROLLUP, hash };
    for error in [client.submit(ROLLUP, payload).await.unwrap_err(), client.executed(ROLLUP, hash).await.unwrap_err()] {
        assert!(matches!(&error, ClientError::Unsure { sent: found, .. } if *found == sent), "{error:?}");
        let look = format!("switchyard status --rollup 7 {hash}");
        assert!(error.to_string().contains(&look), "{error}");
    }
    let id = bundle().id();
    let submitted = client.submit_bundle(&bundle()).await.unwrap_err();
    for error in [submitted, client.follow_bundle(id, true, 1, |_| ()).await.unwrap_err()] {
        assert!(error.to_string().contains(&format!("switchyard bundle status {id}")), "{error}");
    }
}

#[test]
fn only_what_is_certain_not_to_happen_is_refused() {
    let sent = Sent::Bundle(B256::ZERO);
    let unsure = |error: ClientError| matches!(error.of(sent), ClientError::Unsure { .. });
    let refused = |code: &str| ClientError::Refused { code: code.into(), message: String::new() };
    for code in ["not_replicated", "unavailable", "already_known", "not_replaced"] {
        assert!(unsure(refused(code)), "{code}");
        assert_eq!(refused(code).of(sent).code(), code);
    }
    for code in ["nonce_too_low", "leg", "bundles_full", "pool_full", "malformed"] {
        assert!(!unsure(refused(code)), "{code}");
    }
    for code in [Code::DeadlineExceeded, Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled] {
        assert!(unsure(ClientError::Call(Status::new(code, ""))), "{code}");
    }
    for code in [Code::InvalidArgument, Code::ResourceExhausted, Code::Unimplemented] {
        assert!(!unsure(ClientError::Call(Status::new(code, ""))), "{code}");
    }
    assert!(unsure(ClientError::Answer(ConvertError::Missing { field: "id" })));
    assert!(!unsure(ClientError::Reverted(B256::ZERO)));
}
