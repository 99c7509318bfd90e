//! Who may connect: the part of the swarm that sees each connection first.

use super::{
    handler::{Handler, Opened, Protocols},
    roster::{Refusal, Shared},
};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure},
    },
};
use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Incoming connections whose handshake is not done yet.
const PENDING_MAX: usize = 128;
/// Of them, those from one address: several validators may share one.
const PENDING_PER_IP_MAX: usize = 32;
/// Connections with one peer: two are usual for a moment when both have dialled.
const PER_PEER_MAX: usize = 4;

/// Refuses strangers, and gives each admitted connection its streams.
pub(super) struct Behaviour {
    shared: Arc<Shared>,
    protocols: Arc<Protocols>,
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    established: HashMap<ConnectionId, PeerId>,
    events: VecDeque<Told>,
    waker: Option<Waker>,
}

/// A stream's fate, with its connection.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) opened: Opened,
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

impl Behaviour {
    pub(super) fn new(shared: Arc<Shared>, protocols: Arc<Protocols>) -> Self {
        let (pending, established) = (HashMap::new(), HashMap::new());
        Self { shared, protocols, pending, established, events: VecDeque::new(), waker: None }
    }

    fn deny(&self, refusal: Refusal) -> ConnectionDenied {
        self.shared.metrics.refused(refusal);
        ConnectionDenied::new(refusal)
    }

    fn admit(&mut self, connection: ConnectionId, peer: PeerId) -> Result<Handler, ConnectionDenied> {
        self.pending.remove(&connection);
        self.shared.admits(&peer).map_err(|refusal| self.deny(refusal))?;
        if self.established.values().filter(|p| **p == peer).count() >= PER_PEER_MAX {
            return Err(self.deny(Refusal::Crowded));
        }
        Ok(Handler::new(self.protocols.clone()))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Told;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let ip = ip(remote);
        if self.pending.len() >= PENDING_MAX
            || self.pending.values().filter(|p| **p == ip).count() >= PENDING_PER_IP_MAX
        {
            return Err(self.deny(Refusal::Crowded));
        }
        self.pending.insert(connection, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.admit(connection, peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        self.admit(connection, peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                self.established.insert(connection_id, peer_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.established.remove(&connection_id);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, opened: Opened) {
        self.events.push_back(Told { peer, connection, opened });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Told, std::convert::Infallible>> {
        match self.events.pop_front() {
            Some(told) => Poll::Ready(ToSwarm::GenerateEvent(told)),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
