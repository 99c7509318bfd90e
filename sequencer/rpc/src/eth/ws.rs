//! One WebSocket connection.

use super::{
    EthLimits,
    dispatch::{Answer, Dispatch, Session},
};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use jsonrpsee::server::{BoundedSubscriptions, ConnectionId, MethodSink};
use serde_json::value::RawValue;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error, Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Requests of one connection that are answered at the same time. While there are so many, its messages are not read.
const MAX_IN_FLIGHT: usize = 32;
/// Answers of one connection that wait to be sent; and as many notifications.
const MAX_QUEUED: usize = 32;
/// The client is pinged this often.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A client that has sent nothing for this long, not even a pong, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How long the closing handshake may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Serves a connection until the client leaves or the server stops.
pub(super) async fn serve(
    upgraded: Upgraded,
    id: ConnectionId,
    dispatch: Arc<Dispatch>,
    limits: &EthLimits,
    stop: CancellationToken,
) {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(16 << 10)
        .max_message_size(Some(limits.max_request_bytes as usize))
        .max_frame_size(Some(limits.max_request_bytes as usize));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (writer, reader) = socket.split();
    let (notify, notifications) = mpsc::channel(MAX_QUEUED);
    let (answer, answers) = mpsc::channel(MAX_QUEUED);
    let session = Arc::new(Session {
        id,
        // Room for the answer to a subscription at least: jsonrpsee panics if it does not fit.
        sink: MethodSink::new_with_limit(notify, limits.max_response_bytes.max(4096)),
        subscriptions: BoundedSubscriptions::new(limits.max_subscriptions_per_connection),
    });
    let (close, closing) = oneshot::channel();
    let mut writing = tokio::spawn(write(writer, answers, notifications, closing));
    let code = tokio::select! {
        code = read(reader, session, dispatch, answer) => code,
        () = stop.cancelled() => CloseCode::Away,
        // The client cannot be written to any more.
        _ = &mut writing => return,
    };
    if close.send(code).is_ok() {
        let _ = writing.await;
    }
}

/// Takes messages and starts their answers until the client leaves; returns why to close. Answers that are not ready by
/// then are dropped.
async fn read(
    mut reader: SplitStream<Socket>,
    session: Arc<Session>,
    dispatch: Arc<Dispatch>,
    answers: mpsc::Sender<Answer>,
) -> CloseCode {
    let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut tasks = JoinSet::new();
    loop {
        // Before the next message is read: a client that asks faster than it is answered waits.
        let Ok(slot) = in_flight.clone().acquire_owned().await else { return CloseCode::Error };
        while tasks.try_join_next().is_some() {}
        let request = match next_request(&mut reader).await {
            Ok(request) => request,
            Err(code) => return code,
        };
        let Some(share) = dispatch.budget.take(request.len()).await else { return CloseCode::Size };
        let (session, dispatch, answers) = (session.clone(), dispatch.clone(), answers.clone());
        tasks.spawn(async move {
            let answer = dispatch.answer(&request, Some(&session)).await;
            drop((request, share));
            if let Some(answer) = answer {
                let _ = answers.send(answer).await;
            }
            drop(slot);
        });
    }
}

/// The next message with content, or why to close.
async fn next_request(reader: &mut SplitStream<Socket>) -> Result<Bytes, CloseCode> {
    loop {
        match timeout(SILENCE_MAX, reader.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => return Ok(text.into()),
            Ok(Some(Ok(Message::Binary(bytes)))) => return Ok(bytes),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
            Ok(Some(Ok(Message::Close(_))) | None) => return Err(CloseCode::Normal),
            Ok(Some(Err(Error::Capacity(_)))) => return Err(CloseCode::Size),
            Ok(Some(Err(Error::Utf8(_)))) => return Err(CloseCode::Invalid),
            Ok(Some(Err(_))) => return Err(CloseCode::Protocol),
            Err(_) => return Err(CloseCode::Away),
        }
    }
}

/// Sends what is queued until the connection is closed or broken.
async fn write(
    mut writer: SplitSink<Socket, Message>,
    mut answers: mpsc::Receiver<Answer>,
    mut notifications: mpsc::Receiver<Box<RawValue>>,
    mut closing: oneshot::Receiver<CloseCode>,
) {
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    let code = loop {
        let (message, _share) = tokio::select! {
            code = &mut closing => break code.unwrap_or(CloseCode::Away),
            Some(answer) = answers.recv() => (Message::text(answer.text), answer.share),
            Some(json) = notifications.recv() => (Message::text(Box::<str>::from(json).into_string()), None),
            _ = ping.tick() => (Message::Ping(Bytes::new()), None),
        };
        if writer.send(message).await.is_err() {
            return;
        }
    };
    let frame = CloseFrame { code, reason: "".into() };
    let _ = timeout(CLOSE_MAX, writer.send(Message::Close(Some(frame)))).await;
}
