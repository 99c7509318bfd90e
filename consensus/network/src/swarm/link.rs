//! What goes over a connection: frames of four bytes of length, big-endian, and that many bytes of message.
//!
//! One task writes all channels of a connection. It fills the streams of small messages first and then gives each other
//! stream one piece, so a vote waits for at most one piece of each larger message.

use super::{metrics::Fate, roster::Shared};
use crate::CHANNELS;
use commonware_cryptography::ed25519::PublicKey;
use commonware_runtime::{Clock as _, IoBuf, RateLimiter, Supervisor as _, tokio::Context};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, ready};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};
use tokio::sync::mpsc;

/// The queues of one connection, by channel.
pub(super) type Queues = Arc<[mpsc::Sender<IoBuf>]>;

/// What is written to a large stream before the small ones are looked at again; also how much of small messages goes into
/// one write.
const PIECE_BYTES: usize = 32 << 10;
/// Rounds over all streams before other tasks get a turn.
const ROUNDS: usize = 16;
/// Length of a frame's head.
const HEAD_BYTES: usize = 4;

/// Opens the queues of a connection: how many messages each holds is the channel's.
pub(super) fn queues() -> (Queues, Vec<mpsc::Receiver<IoBuf>>) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        CHANNELS.iter().map(|channel| mpsc::channel(channel.send_queue)).unzip();
    (senders.into(), receivers)
}

/// One channel's stream with what is being written to it.
struct Lane<S> {
    queue: mpsc::Receiver<IoBuf>,
    stream: S,
    /// Heads, small messages, and the beginning of a large one.
    front: Vec<u8>,
    /// The message whose beginning is in `front`, and how much of it is there.
    rest: Option<IoBuf>,
    /// Bytes of `front` and `rest` that are written.
    written: usize,
    unflushed: bool,
}

impl<S: AsyncWrite + Unpin> Lane<S> {
    fn new(queue: mpsc::Receiver<IoBuf>, stream: S) -> Self {
        Self { queue, stream, front: Vec::new(), rest: None, written: 0, unflushed: false }
    }

    /// Takes messages from the queue. Pending when there is none; an error when the queue is closed.
    fn poll_fill(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_none() && self.front.len() < PIECE_BYTES {
            let message = match self.queue.poll_recv(cx) {
                Poll::Ready(Some(message)) => message,
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Poll::Pending if self.front.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            };
            let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            self.front.extend_from_slice(&length.to_be_bytes());
            let room = PIECE_BYTES.saturating_sub(self.front.len());
            if message.len() <= room {
                self.front.extend_from_slice(message.as_ref());
            } else {
                self.front.extend_from_slice(&message.as_ref()[..room]);
                self.rest = Some(message.slice(room..));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes one piece, or flushes when there is nothing to write. Ready when a piece is written.
    fn poll_piece(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        if self.front.is_empty() {
            match self.poll_fill(cx)? {
                Poll::Ready(()) => {}
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        let mut budget = PIECE_BYTES;
        loop {
            let rest = self.rest.as_ref().map_or(&[][..], AsRef::as_ref);
            let left = match self.front.get(self.written..) {
                Some(front) if !front.is_empty() => front,
                _ => &rest[(self.written - self.front.len()).min(rest.len())..],
            };
            if left.is_empty() {
                self.front.clear();
                self.rest = None;
                self.written = 0;
                return Poll::Ready(Ok(()));
            }
            if budget == 0 {
                return Poll::Ready(Ok(()));
            }
            let piece = &left[..left.len().min(budget)];
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, piece))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.written += written;
            budget -= written;
        }
    }
}

/// Writes what is queued until a stream breaks or the queues are closed. Streams are in the order of the channels.
pub(super) async fn write<S: AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    receivers: Vec<mpsc::Receiver<IoBuf>>,
    streams: Vec<S>,
) {
    let mut lanes: Vec<Lane<S>> =
        receivers.into_iter().zip(streams).map(|(queue, stream)| Lane::new(queue, stream)).collect();
    let _broken: io::Result<()> = std::future::poll_fn(|cx| {
        for _ in 0..ROUNDS {
            let mut busy = false;
            for (lane, channel) in lanes.iter_mut().zip(&CHANNELS) {
                while lane.poll_piece(cx)?.is_ready() {
                    busy = true;
                    if !channel.first {
                        break;
                    }
                }
            }
            if !busy {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    for (index, lane) in lanes.iter_mut().enumerate() {
        lane.queue.close();
        while lane.queue.try_recv().is_ok() {
            shared.metrics.message(index, Fate::Lost);
        }
    }
}

/// Why reading a stream has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The stream, or whoever takes the messages, is gone.
    Closed,
    /// The peer announced a message longer than allowed.
    Oversized,
}

/// Reads a frame.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> Result<IoBuf, End> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await.map_err(|_| End::Closed)?;
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > bytes_max {
        return Err(End::Oversized);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.map_err(|_| End::Closed)?;
    Ok(IoBuf::from(message))
}

/// For `testnet/fuzz`: all messages of a stream, and whether it was given up for one that is too long.
pub(crate) async fn frames(stream: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
    let mut messages = Vec::new();
    loop {
        match read_frame(stream, bytes_max).await {
            Ok(message) => messages.push(message.as_ref().to_vec()),
            Err(end) => return (messages, end == End::Oversized),
        }
    }
}

/// Reads a channel's messages from one peer and delivers them. A peer above its quota is not read from until it is below
/// it, and so is everyone while `deliver` is full: then their senders' queues fill up, and they drop.
pub(super) async fn read(
    context: Context,
    shared: Arc<Shared>,
    channel: usize,
    peer: PublicKey,
    mut stream: impl AsyncRead + Unpin,
    bytes_max: usize,
    deliver: mpsc::Sender<(PublicKey, IoBuf)>,
) -> End {
    let limiter = RateLimiter::direct_with_clock(CHANNELS[channel].quota, context.child("limiter"));
    loop {
        let message = match read_frame(&mut stream, bytes_max).await {
            Ok(message) => message,
            Err(end) => {
                if end == End::Oversized {
                    shared.metrics.message(channel, Fate::Oversized);
                }
                return end;
            }
        };
        shared.metrics.message(channel, Fate::Received);
        if let Err(not_until) = limiter.check() {
            shared.metrics.message(channel, Fate::Throttled);
            context.sleep_until(not_until.earliest_possible()).await;
        }
        if deliver.send((peer.clone(), message)).await.is_err() {
            return End::Closed;
        }
    }
}
