//! Bytes that are no request, written to the socket or into a request's body.

use super::{Server, check_error};
use crate::fake::FakeHub;
use axum::http::{HeaderMap, Request};
use switchyard_proto::v1;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, Status, body::Body};
use tower::{Service, ServiceExt};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// The status that answers a gRPC request with this body.
async fn post(server: &Server, path: &str, body: &[u8]) -> Status {
    let request = Request::post(format!("http://{}{path}", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(axum::body::Body::from(body.to_vec())))
        .unwrap();
    let mut channel = server.channel().await;
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    let headers: HeaderMap = response.headers().clone();
    Status::from_header_map(&headers).unwrap_or_else(|| Status::ok(""))
}

async fn still_serves(server: &Server) {
    server.status().await.get_status(v1::GetStatusRequest {}).await.unwrap();
}

#[tokio::test]
async fn truncated_and_garbled_frames_end_their_connection_only() {
    let server = Server::start(&FakeHub::new()).await;
    let headers_cut = [PREFACE, EMPTY_SETTINGS, &[0, 0, 200, 1, 4, 0, 0, 0, 1, 0x82]].concat();
    let unknown_hpack = [PREFACE, EMPTY_SETTINGS, &[0, 0, 2, 1, 4, 0, 0, 0, 1, 0xff, 0xff]].concat();
    let huge_frame = [PREFACE, EMPTY_SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat();
    let cases: [&[u8]; 6] =
        [b"", &PREFACE[..10], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &headers_cut, &unknown_hpack, &huge_frame];
    for bytes in cases {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        still_serves(&server).await;
    }
}

#[tokio::test]
async fn a_body_that_is_no_message_is_an_error_and_changes_nothing() {
    let hub = FakeHub::new();
    let server = Server::start(&hub).await;
    let submit = "/switchyard.v1.SequencerService/Submit";
    // A message's prefix: compressed or not, then its length.
    let truncated = [&[0, 0, 0, 0, 100][..], &[8, 7]].concat();
    let not_protobuf = [&[0, 0, 0, 0, 4][..], &[0xff; 4]].concat();
    let compressed = [&[1, 0, 0, 0, 2][..], &[8, 7]].concat();
    let bad_flag = [&[9, 0, 0, 0, 2][..], &[8, 7]].concat();
    let too_long = [0, 0xff, 0xff, 0xff, 0xff];
    for (name, body, code, reason) in [
        ("empty", &[][..], Code::InvalidArgument, "malformed_request"),
        ("truncated", &truncated, Code::InvalidArgument, "malformed_request"),
        ("not protobuf", &not_protobuf, Code::InvalidArgument, "malformed_request"),
        ("bad flag", &bad_flag, Code::InvalidArgument, "malformed_request"),
        ("compressed", &compressed, Code::InvalidArgument, "malformed_request"),
        ("too long", &too_long, Code::OutOfRange, "message_too_large"),
    ] {
        println!("{name}");
        check_error(&post(&server, submit, body).await, code, reason);
    }
    assert_eq!(hub.submitted(), []);
    still_serves(&server).await;
}

#[tokio::test]
async fn methods_that_do_not_exist_are_unimplemented_and_counted_together() {
    let server = Server::start(&FakeHub::new()).await;
    for path in ["/switchyard.v1.BlockService/Nothing", "/switchyard.v2.BlockService/GetInfo", "/"] {
        check_error(&post(&server, path, &[0; 5]).await, Code::Unimplemented, "unimplemented");
    }
    assert_eq!(server.metrics.calls("other", Code::Unimplemented), 3);
}
