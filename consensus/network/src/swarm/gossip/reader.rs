//! The library's connection handler, with the reading taken out of its hands: what a peer sends is screened, and a peer that
//! sends more than its share is not read from for a while. The library itself reads whatever comes.

use super::{
    Library,
    allowance::Allowance,
    screen::{Broken, Frame, Screened},
};
use asynchronous_codec::{Decoder, Encoder, Framed, FramedRead};
use futures::{Stream, StreamExt as _, future::Either};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, NetworkBehaviour, SubstreamProtocol,
    handler::{ConnectionEvent, FullyNegotiatedInbound},
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep, sleep};

/// The library's handler.
type Inner = <Library as NetworkBehaviour>::ConnectionHandler;
/// What the library's handler tells its behaviour.
pub(super) type LibraryEvent = <Inner as ConnectionHandler>::ToBehaviour;
type Inbound = Pin<Box<dyn Stream<Item = Result<Frame<LibraryEvent>, Broken>> + Send>>;
type Event = ConnectionHandlerEvent<<Inner as ConnectionHandler>::OutboundProtocol, (), Read>;

/// What is read from a connection in a second, in bytes, and as much at once; each message counts as [`MESSAGE_COST`] more.
/// A mesh peer may be the one that sends what everybody has published.
const BYTES_PER_SECOND: u32 = 32 << 20;
/// So it is at most 2048 messages a second.
const MESSAGE_COST: u32 = 16 << 10;
/// Streams that a peer may open one after the other; the library opens another where one breaks, and gives up after five.
const STREAMS_MAX: usize = 5;

/// What has been read.
#[derive(Debug)]
pub(in crate::swarm) enum Read {
    /// For the library.
    Library(Box<LibraryEvent>),
    /// Something that no node sends.
    Violation(&'static str),
}

/// The handler of one connection.
pub(in crate::swarm) struct Reader {
    inner: Inner,
    topic: Arc<str>,
    bytes_max: usize,
    inbound: Option<Inbound>,
    streams: usize,
    allowance: Allowance,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Reader {
    pub(super) fn new(inner: Inner, topic: Arc<str>, bytes_max: usize) -> Self {
        let allowance = Allowance::new(BYTES_PER_SECOND, BYTES_PER_SECOND);
        Self { inner, topic, bytes_max, inbound: None, streams: 0, allowance, pause: None }
    }

    /// Reads from a stream that the peer has opened, in place of the one before it.
    fn read_from<D>(&mut self, stream: Framed<libp2p::Stream, D>)
    where
        D: Decoder<Item = LibraryEvent> + Encoder + Send + 'static,
    {
        self.streams += 1;
        if self.streams > STREAMS_MAX {
            return;
        }
        // The library has just made it: nothing is read yet.
        let parts = stream.into_parts();
        let screened = Screened { inner: parts.codec, topic: self.topic.clone(), bytes_max: self.bytes_max };
        self.inbound = Some(Box::pin(FramedRead::new(parts.io, screened)));
    }

    /// Waits before the next message until this one is paid for.
    fn pay(&mut self, bytes: usize) {
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(MESSAGE_COST);
        self.pause = self.allowance.owe(cost, Instant::now()).map(|wait| Box::pin(sleep(wait)));
    }

    /// The next message, once the peer may be read from.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let Some(inbound) = &mut self.inbound else { return Poll::Pending };
            let item = ready!(inbound.poll_next_unpin(cx));
            match item {
                Some(Ok(Frame { bytes, message })) => {
                    self.pay(bytes);
                    // None is about something else.
                    if let Some(event) = message {
                        return Poll::Ready(Read::Library(Box::new(event)));
                    }
                }
                Some(Err(Broken::Violation(problem))) => {
                    self.inbound = None;
                    return Poll::Ready(Read::Violation(problem));
                }
                Some(Err(Broken::Stream(_))) | None => self.inbound = None,
            }
        }
    }
}

impl ConnectionHandler for Reader {
    type FromBehaviour = <Inner as ConnectionHandler>::FromBehaviour;
    type ToBehaviour = Read;
    type InboundProtocol = <Inner as ConnectionHandler>::InboundProtocol;
    type OutboundProtocol = <Inner as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(event) = self.inner.poll(cx) {
            return Poll::Ready(event.map_custom(|event| Read::Library(Box::new(event))));
        }
        self.poll_read(cx).map(ConnectionHandlerEvent::NotifyBehaviour)
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => match protocol {
                Either::Left((stream, _)) => self.read_from(stream),
                Either::Right(never) => match never {},
            },
            event => self.inner.on_connection_event(event),
        }
    }
}
