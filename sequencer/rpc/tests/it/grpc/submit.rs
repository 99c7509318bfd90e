//! Submissions: single batches and streams of them.

use super::{Server, check_error, check_field};
use crate::fake::FakeHub;
use alloy_primitives::{Bytes, keccak256};
use futures::StreamExt;
use std::sync::atomic::Ordering;
use switchyard_primitives::RollupId;
use switchyard_proto::v1::{SubmitRequest, SubmitStreamRequest, submit_result::Result as Answer};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn batch(rollup_id: u64, transactions: &[&[u8]]) -> SubmitRequest {
    let transactions = transactions.iter().map(|tx| bytes::Bytes::copy_from_slice(tx)).collect();
    SubmitRequest { rollup_id, transactions }
}

fn streamed(batch: SubmitRequest) -> SubmitStreamRequest {
    SubmitStreamRequest { batch: Some(batch) }
}

#[tokio::test]
async fn each_transaction_gets_its_hash_or_its_rejection_in_order() {
    let server = Server::start(&FakeHub::new()).await;
    let answer = server.sequencer().await.submit(batch(7, &[b"one", b"!", b"", b"two"])).await.unwrap().into_inner();
    let words: Vec<String> = answer
        .results
        .into_iter()
        .map(|result| match result.result.unwrap() {
            Answer::Hash(hash) => format!("{:?}", Bytes(hash)),
            Answer::Rejection(rejection) => format!("{}: {}", rejection.code, rejection.message),
        })
        .collect();
    let (one, two) = (format!("{}", keccak256("one")), format!("{}", keccak256("two")));
    assert_eq!(words, [&one, "malformed: malformed transaction: starts with !", "empty: empty transaction", &two]);
    let accepted = ["one", "two"].map(|tx| (RollupId(7), Bytes::from(tx)));
    assert_eq!(server.hub.submitted(), accepted);
}

#[tokio::test]
async fn a_batch_outside_the_limits_is_refused_whole() {
    let server = Server::start(&FakeHub::new()).await;
    let mut client = server.sequencer().await;
    check_field(&client.submit(batch(7, &[])).await.unwrap_err(), "transactions");
    check_field(&client.submit(batch(7, &[b"1", b"2", b"3", b"4", b"5"])).await.unwrap_err(), "transactions");
    let half = vec![1; 128 << 10];
    client.submit(batch(7, &[&half, &half])).await.unwrap();
    check_field(&client.submit(batch(7, &[&half, &half, b"x"])).await.unwrap_err(), "transactions");
    assert_eq!(server.hub.submitted().len(), 2);
}

#[tokio::test]
async fn rollups_that_there_are_not_are_unknown() {
    let server = Server::start(&FakeHub::new()).await;
    for id in [8, u64::MAX] {
        let error = server.sequencer().await.submit(batch(id, &[b"tx"])).await.unwrap_err();
        check_error(&error, Code::NotFound, "unknown_rollup");
        assert_eq!(super::detail(&error, "rollup_id"), id.to_string());
    }
    assert_eq!(server.metrics.calls("SequencerService/Submit", Code::NotFound), 3);
    assert_eq!(server.metrics.calls("SequencerService/Submit", Code::Ok), 0);
}

#[tokio::test]
async fn a_request_above_the_message_limit_is_refused_before_it_is_read() {
    let server = Server::start(&FakeHub::new()).await;
    let mut client = server.sequencer().await;
    let error = client.submit(batch(7, &[&vec![1; 4 << 20]])).await.unwrap_err();
    check_error(&error, Code::OutOfRange, "message_too_large");
    client.submit(batch(7, &[b"tx"])).await.unwrap();
    assert_eq!(server.hub.submitted().len(), 1);
}

#[tokio::test]
async fn a_stream_answers_batches_in_order_and_ends_with_the_client() {
    let server = Server::start(&FakeHub::new()).await;
    let texts: Vec<String> = (0..50).map(|i| format!("tx {i}")).collect();
    let batches: Vec<_> = texts.iter().map(|text| streamed(batch(9, &[text.as_bytes()]))).collect();
    let mut client = server.sequencer().await;
    let answers = client.submit_stream(futures::stream::iter(batches)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().results[0].clone().result.unwrap()).collect().await;
    let expected: Vec<_> = texts.iter().map(|t| Answer::Hash(keccak256(t).to_vec().into())).collect();
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn a_wrong_batch_ends_the_stream_after_the_answers_before_it() {
    let server = Server::start(&FakeHub::new()).await;
    let batches = [streamed(batch(7, &[b"tx"])), SubmitStreamRequest { batch: None }, streamed(batch(7, &[b"lost"]))];
    let mut client = server.sequencer().await;
    let mut answers = client.submit_stream(futures::stream::iter(batches)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().results.len(), 1);
    check_field(&answers.message().await.unwrap_err(), "batch");
}

#[tokio::test]
async fn a_stream_takes_no_more_batches_than_it_can_answer() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    hub.admit.forget_permits(1_000_000);
    let payload = vec![1; 16 << 10];
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    let feed = tokio::spawn(async move {
        for _ in 0..200 {
            sender.send(streamed(batch(7, &[&payload]))).await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut client = server.sequencer().await;
    let mut answers = client.submit_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    // Gives a server without flow control time to take everything.
    let mut status = server.status().await;
    for _ in 0..50 {
        status.get_status(switchyard_proto::v1::GetStatusRequest {}).await.unwrap();
    }
    assert!(sent.load(Ordering::SeqCst) < 150, "{sent:?} batches were taken without one answer");
    hub.admit.add_permits(200);
    let mut count = 0;
    while answers.message().await.unwrap().is_some() {
        count += 1;
    }
    feed.await.unwrap();
    assert_eq!(count, 200);
    assert!(hub.submitting_max.load(Ordering::SeqCst) <= 4);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let hub = FakeHub::new();
    let limits = super::GrpcLimits { submit_streams: 1, ..super::limits() };
    let server = Server::start_with(&hub, limits, std::sync::Arc::new(|| Ok(()))).await;
    let mut client = server.sequencer().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut first = client.submit_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let error = client.submit_stream(futures::stream::empty()).await.unwrap_err();
    check_error(&error, Code::ResourceExhausted, "too_many_streams");
    sender.send(streamed(batch(7, &[b"tx"]))).await.unwrap();
    assert!(first.message().await.unwrap().is_some());
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up() {
    let hub = FakeHub::new();
    let limits = super::GrpcLimits { call_ms: 20, ..super::limits() };
    let server = Server::start_with(&hub, limits, std::sync::Arc::new(|| Ok(()))).await;
    hub.admit.forget_permits(1_000_000);
    let error = server.sequencer().await.submit(batch(7, &[b"tx"])).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Cancelled, "Timeout expired"));
    assert_eq!(server.metrics.calls("SequencerService/Submit", Code::Cancelled), 1);
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_their_turn() {
    let hub = FakeHub::new();
    let limits = super::GrpcLimits { calls: 2, ..super::limits() };
    let server = Server::start_with(&hub, limits, std::sync::Arc::new(|| Ok(()))).await;
    hub.admit.forget_permits(1_000_000);
    let client = server.sequencer().await;
    let calls: Vec<_> = (0..8u8)
        .map(|i| {
            let mut client = client.clone();
            tokio::spawn(async move { client.submit(batch(7, &[&[i]])).await })
        })
        .collect();
    while hub.submitting.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    hub.admit.add_permits(8);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(hub.submitting_max.load(Ordering::SeqCst), 2);
    assert_eq!(hub.submitted().len(), 8);
}
