//! Accepting connections within bounds: so many at a time, and none that is silent for long.

use futures::{StreamExt, stream, stream::BoxStream};
use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Bounds of a server's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open at a time; one more is closed as soon as it is accepted.
    pub connections: usize,
    /// A connection from which nothing arrives for this long, in milliseconds, is closed.
    pub idle_ms: u64,
}

/// Connections within the bounds. Cancelling `abort` breaks every one of them.
pub fn bounded(
    listener: TcpListener,
    limits: ConnectionLimits,
    abort: CancellationToken,
) -> BoxStream<'static, Result<Connection, Infallible>> {
    let listener = BoundedListener::new(listener, limits, abort);
    stream::unfold(listener, |mut listener| async {
        let (connection, _) = listener.next().await;
        Some((Ok(connection), listener))
    })
    .boxed()
}

/// How long to wait before accepting again when the process has run out of something, such as file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// A listener that keeps [`ConnectionLimits`].
pub(crate) struct BoundedListener {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    idle: Duration,
    abort: CancellationToken,
}

impl BoundedListener {
    /// Cancelling `abort` breaks every connection accepted here.
    pub(crate) fn new(listener: TcpListener, limits: ConnectionLimits, abort: CancellationToken) -> Self {
        Self {
            listener,
            slots: Arc::new(Semaphore::new(limits.connections)),
            idle: Duration::from_millis(limits.idle_ms),
            abort,
        }
    }

    /// The next connection within the bounds.
    pub(crate) async fn next(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_peer_error(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let Ok(slot) = self.slots.clone().try_acquire_owned() else {
                tracing::debug!(%peer, "connection refused: as many as allowed are open");
                continue;
            };
            // Without it small answers wait for the peer's delayed acknowledgement; a socket that refuses is closing.
            let _ = stream.set_nodelay(true);
            return (Connection::new(stream, peer, self.idle, slot, self.abort.clone()), peer);
        }
    }

    /// The address.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Errors of the connection that was about to be accepted, after which the next can be accepted at once.
fn is_peer_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

impl axum::serve::Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

/// A connection that holds its slot until it is dropped, and fails when it was silent for too long.
pub struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    fn new(
        stream: TcpStream,
        peer: SocketAddr,
        idle: Duration,
        slot: OwnedSemaphorePermit,
        abort: CancellationToken,
    ) -> Self {
        Self {
            stream,
            peer,
            idle,
            deadline: Box::pin(sleep(idle)),
            aborted: Box::pin(abort.cancelled_owned()),
            _slot: slot,
        }
    }

    /// The error that ends this connection, if one is due.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.aborted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped"));
        }
        self.deadline.as_mut().poll(cx).map(|()| io::Error::new(io::ErrorKind::TimedOut, "the peer is silent"))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            let deadline = Instant::now() + self.idle;
            self.deadline.as_mut().reset(deadline);
        }
        match polled {
            Poll::Pending => self.poll_broken(cx).map(Err),
            ready => ready,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}
