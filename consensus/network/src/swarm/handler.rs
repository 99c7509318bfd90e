//! One connection: opens a stream for each channel, takes one of each from the peer.
//!
//! `libp2p-stream` does nearly this, but it hands streams over without their connection, drops incoming ones while its
//! user is busy, and never forgets a connection.

use futures::future::{Ready, ready};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// How long the peer may take to agree to a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What has become of a stream. Channels are named by their place in the list of protocols.
#[derive(Debug)]
pub(super) enum Opened {
    /// The peer takes messages of this channel here.
    Outbound { channel: usize, stream: Stream },
    /// The peer sends messages of this channel here.
    Inbound { channel: usize, stream: Stream },
    /// The peer does not speak the channel's protocol: another network, or another version.
    Unknown,
    /// The stream could not be opened.
    Failed,
    /// The peer has opened a channel's stream twice.
    Twice,
}

type Request = ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, usize, Opened>;

/// Takes whichever channel the peer opens.
#[derive(Clone, Debug)]
pub(super) struct Accept(Vec<StreamProtocol>);

impl UpgradeInfo for Accept {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Accept {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

/// Opens and accepts the streams of one connection.
pub(super) struct Handler {
    protocols: Arc<[StreamProtocol]>,
    accepted: Vec<bool>,
    /// At most three for each channel: the request, its outcome, and the peer's stream. Further streams end the connection.
    events: VecDeque<Request>,
    waker: Option<Waker>,
}

impl Handler {
    pub(super) fn new(protocols: Arc<[StreamProtocol]>) -> Self {
        let request = |(channel, protocol): (usize, &StreamProtocol)| {
            let upgrade = ReadyUpgrade::new(protocol.clone());
            let protocol = SubstreamProtocol::new(upgrade, channel).with_timeout(OPEN_TIMEOUT);
            ConnectionHandlerEvent::OutboundSubstreamRequest { protocol }
        };
        let events = protocols.iter().enumerate().map(request).collect();
        Self { accepted: vec![false; protocols.len()], protocols, events, waker: None }
    }

    fn tell(&mut self, opened: Opened) {
        self.events.push_back(ConnectionHandlerEvent::NotifyBehaviour(opened));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn accept(&mut self, stream: Stream, protocol: &StreamProtocol) {
        let Some(channel) = self.protocols.iter().position(|p| p == protocol) else { return };
        match self.accepted[channel] {
            false => {
                self.accepted[channel] = true;
                self.tell(Opened::Inbound { channel, stream });
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
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = usize;

    fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        SubstreamProtocol::new(Accept(self.protocols.to_vec()), ()).with_timeout(OPEN_TIMEOUT)
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

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Accept, ReadyUpgrade<StreamProtocol>, (), usize>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: channel }) => {
                self.tell(Opened::Outbound { channel, stream });
            }
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                self.accept(stream, &protocol);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => self.tell(match error {
                StreamUpgradeError::NegotiationFailed => Opened::Unknown,
                _ => Opened::Failed,
            }),
            _ => {}
        }
    }
}
