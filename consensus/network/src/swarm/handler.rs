//! One connection: opens a stream for each channel, takes one of each from the peer, and compares clocks.
//!
//! `libp2p-stream` does nearly this, but it hands streams over without their connection, drops incoming ones while its
//! user is busy, and never forgets a connection.

use super::clock::{self, Apart, Clock};
use futures::future::BoxFuture;
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    io, iter,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// How long the peer may take to agree to a stream, and to tell its time.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What has become of a stream. Channels are named by their place in the list of protocols.
#[derive(Debug)]
pub(super) enum Opened {
    /// The peer takes messages of this channel here.
    Outbound { channel: usize, stream: Stream },
    /// The peer sends messages of this channel here.
    Inbound { channel: usize, stream: Stream },
    /// The peer has told its time.
    Clock(Apart),
    /// The peer does not speak the channel's protocol: another network, or another version.
    Unknown,
    /// The stream could not be opened.
    Failed,
    /// The peer has opened a channel's stream twice.
    Twice,
}

/// The names of the streams, and this node's clock.
#[derive(Debug)]
pub(super) struct Protocols {
    pub(super) channels: Vec<StreamProtocol>,
    pub(super) clock: StreamProtocol,
    pub(super) now_ms: Clock,
}

impl Protocols {
    /// All names; that of the clock is the last.
    fn all(&self) -> impl Iterator<Item = &StreamProtocol> {
        self.channels.iter().chain(iter::once(&self.clock))
    }
}

type Request = ConnectionHandlerEvent<Ask, (), Opened>;

/// Takes whichever stream the peer opens; tells it the time where it is that for which it asks.
#[derive(Clone, Debug)]
pub(super) struct Accept(Arc<Protocols>);

impl UpgradeInfo for Accept {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.all().cloned().collect::<Vec<_>>().into_iter()
    }
}

/// A stream of the peer's: its place in the list, and the stream, unless all is said on it.
pub(super) type Accepted = (usize, Option<Stream>);

impl InboundUpgrade<Stream> for Accept {
    type Output = Accepted;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Accepted, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            match self.0.channels.iter().position(|channel| *channel == protocol) {
                Some(channel) => Ok((channel, Some(stream))),
                None => {
                    // A peer that does not listen gives the connection up by itself.
                    let _ = clock::tell(stream, self.0.now_ms).await;
                    Ok((self.0.channels.len(), None))
                }
            }
        })
    }
}

/// Opens one stream.
#[derive(Debug)]
pub(super) struct Ask {
    protocols: Arc<Protocols>,
    /// Its place in the list.
    index: usize,
    asked_ms: u64,
}

impl UpgradeInfo for Ask {
    type Info = StreamProtocol;
    type InfoIter = iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(self.protocols.channels.get(self.index).unwrap_or(&self.protocols.clock).clone())
    }
}

impl OutboundUpgrade<Stream> for Ask {
    type Output = Opened;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Opened>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            match self.index < self.protocols.channels.len() {
                true => Ok(Opened::Outbound { channel: self.index, stream }),
                false => clock::compare(stream, self.asked_ms, self.protocols.now_ms).await.map(Opened::Clock),
            }
        })
    }
}

/// Opens and accepts the streams of one connection.
pub(super) struct Handler {
    protocols: Arc<Protocols>,
    accepted: Vec<bool>,
    /// At most three for each stream: the request, its outcome, and the peer's stream. Further ones end the connection.
    events: VecDeque<Request>,
    waker: Option<Waker>,
}

impl Handler {
    pub(super) fn new(protocols: Arc<Protocols>) -> Self {
        let (streams, asked_ms) = (protocols.all().count(), (protocols.now_ms)());
        let request = |index| {
            let ask = Ask { protocols: protocols.clone(), index, asked_ms };
            let protocol = SubstreamProtocol::new(ask, ()).with_timeout(OPEN_TIMEOUT);
            ConnectionHandlerEvent::OutboundSubstreamRequest { protocol }
        };
        let events = (0..streams).map(request).collect();
        Self { accepted: vec![false; streams], protocols, events, waker: None }
    }

    fn tell(&mut self, opened: Opened) {
        self.events.push_back(ConnectionHandlerEvent::NotifyBehaviour(opened));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn accept(&mut self, (index, stream): Accepted) {
        match std::mem::replace(&mut self.accepted[index], true) {
            false => {
                if let Some(stream) = stream {
                    self.tell(Opened::Inbound { channel: index, stream });
                }
            }
            // Told once: it ends the connection.
            true if !self.events.iter().any(|e| matches!(e, Request::NotifyBehaviour(Opened::Twice))) => {
                self.tell(Opened::Twice);
            }
            true => {}
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Opened;
    type InboundProtocol = Accept;
    type OutboundProtocol = Ask;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        SubstreamProtocol::new(Accept(self.protocols.clone()), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Request> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Accept, Ask>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: opened, .. }) => {
                self.tell(opened);
            }
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: accepted, .. }) => {
                self.accept(accepted);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => self.tell(match error {
                StreamUpgradeError::NegotiationFailed => Opened::Unknown,
                _ => Opened::Failed,
            }),
            _ => {}
        }
    }
}
