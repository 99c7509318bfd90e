//! What the engine holds: the same types whatever the transport.

use crate::{
    NetworkError,
    own::{OwnPeers, OwnReceiver, OwnSender},
    public_key, swarm,
};
use commonware_actor::{Feedback, Unreliable};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    Address, AddressableManager as _, AddressableTrackedPeers, BlockedSubscription, Blocker, CheckedSender,
    LimitedSender, Message, PeerSetSubscription, Provider, Recipients, TrackedPeers, utils::limited,
};
use commonware_runtime::IoBufs;
use commonware_utils::ordered::Map;
use std::{net::SocketAddr, num::NonZeroUsize, time::SystemTime};
use switchyard_primitives::B256;

/// Sends on one channel.
#[derive(Clone)]
pub struct Sender(Sending);

#[derive(Clone)]
enum Sending {
    Own(OwnSender),
    Swarm(swarm::Sender),
}

/// Sends one message to peers that are below their quota.
pub struct Checked<'a>(Checking<'a>);

enum Checking<'a> {
    Own(<OwnSender as LimitedSender>::Checked<'a>),
    Swarm(limited::CheckedSender<'a, swarm::Outbound>),
}

impl Sender {
    pub(crate) fn own(sender: OwnSender) -> Self {
        Self(Sending::Own(sender))
    }

    pub(crate) fn swarm(sender: swarm::Sender) -> Self {
        Self(Sending::Swarm(sender))
    }
}

impl LimitedSender for Sender {
    type PublicKey = PublicKey;
    type Checked<'a> = Checked<'a>;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Checked<'_>, SystemTime> {
        Ok(Checked(match &mut self.0 {
            Sending::Own(sender) => Checking::Own(sender.check(recipients)?),
            Sending::Swarm(sender) => Checking::Swarm(sender.check(recipients)?),
        }))
    }
}

impl CheckedSender for Checked<'_> {
    type PublicKey = PublicKey;

    fn recipients(&self) -> Vec<PublicKey> {
        match &self.0 {
            Checking::Own(sender) => sender.recipients(),
            Checking::Swarm(sender) => sender.recipients(),
        }
    }

    fn send(self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        match self.0 {
            Checking::Own(sender) => sender.send(message, priority),
            Checking::Swarm(sender) => sender.send(message, priority),
        }
    }
}

/// The network has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network has stopped")]
pub struct Closed;

/// Receives from one channel.
#[derive(Debug)]
pub struct Receiver(Receiving);

#[derive(Debug)]
enum Receiving {
    Own(OwnReceiver),
    Swarm(swarm::Receiver),
}

impl Receiver {
    pub(crate) fn own(receiver: OwnReceiver) -> Self {
        Self(Receiving::Own(receiver))
    }

    pub(crate) fn swarm(receiver: swarm::Receiver) -> Self {
        Self(Receiving::Swarm(receiver))
    }
}

impl commonware_p2p::Receiver for Receiver {
    type Error = Closed;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, Closed> {
        match &mut self.0 {
            Receiving::Own(receiver) => receiver.recv().await.map_err(|_| Closed),
            Receiving::Swarm(receiver) => receiver.queue.recv().await.ok_or(Closed),
        }
    }

    fn capacity(&self) -> NonZeroUsize {
        match &self.0 {
            Receiving::Own(receiver) => receiver.capacity(),
            Receiving::Swarm(receiver) => receiver.capacity,
        }
    }
}

/// Which validators there are, and a way to refuse one that misbehaves. Clones share everything.
#[derive(Clone, Debug)]
pub struct Peers(Registry);

#[derive(Clone, Debug)]
enum Registry {
    Own { oracle: Box<OwnPeers>, limit: usize },
    Swarm(swarm::Peers),
}

/// Identities with their addresses.
pub(crate) type Located = Vec<(PublicKey, SocketAddr)>;

fn located(peers: &[(B256, SocketAddr)]) -> Result<Located, NetworkError> {
    peers.iter().map(|(identity, address)| Ok((public_key(*identity)?, *address))).collect()
}

/// Who belongs to the network, and a way to change it.
pub trait Roster: Provider<PublicKey = PublicKey> + Blocker<PublicKey = PublicKey> {
    /// Sets who belongs to the network from now on: the validators, this one included, and others that may follow. `id` is
    /// the epoch; an id that is not above every earlier one is ignored. libp2p keeps the set before it too.
    fn track(
        &mut self,
        id: u64,
        validators: &[(B256, SocketAddr)],
        followers: &[(B256, SocketAddr)],
    ) -> Result<(), NetworkError>;

    /// Changes where a peer is dialled from now on.
    fn relocate(&mut self, identity: B256, address: SocketAddr) -> Result<(), NetworkError>;
}

impl Peers {
    pub(crate) fn own(oracle: OwnPeers, limit: usize) -> Self {
        Self(Registry::Own { oracle: Box::new(oracle), limit })
    }

    pub(crate) fn swarm(peers: swarm::Peers) -> Self {
        Self(Registry::Swarm(peers))
    }
}

impl Roster for Peers {
    fn track(
        &mut self,
        id: u64,
        validators: &[(B256, SocketAddr)],
        followers: &[(B256, SocketAddr)],
    ) -> Result<(), NetworkError> {
        let (validators, followers) = (located(validators)?, located(followers)?);
        match &mut self.0 {
            Registry::Own { oracle, limit } => {
                let peers = validators.len() + followers.len();
                if peers > *limit {
                    return Err(NetworkError::PeerCount { peers, limit: *limit });
                }
                let map = |located: Located| {
                    let addresses = located.into_iter().map(|(key, a)| (key, Address::Symmetric(a)));
                    Map::try_from(addresses.collect::<Vec<_>>()).map_err(|_| NetworkError::DuplicatePeer)
                };
                let _ = oracle.track(id, AddressableTrackedPeers::new(map(validators)?, map(followers)?));
            }
            Registry::Swarm(peers) => peers.track(id, &validators, &followers),
        }
        Ok(())
    }

    fn relocate(&mut self, identity: B256, address: SocketAddr) -> Result<(), NetworkError> {
        let key = public_key(identity)?;
        match &mut self.0 {
            Registry::Own { oracle, .. } => {
                let addresses = Map::try_from(vec![(key, Address::Symmetric(address))]);
                let _ = oracle.overwrite(addresses.map_err(|_| NetworkError::DuplicatePeer)?);
            }
            Registry::Swarm(peers) => peers.relocate(&key, address),
        }
        Ok(())
    }
}

#[cfg(test)]
impl Peers {
    pub(crate) fn over_libp2p(&self) -> &swarm::Peers {
        match &self.0 {
            Registry::Swarm(peers) => peers,
            Registry::Own { .. } => panic!("the own network"),
        }
    }
}

impl Provider for Peers {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        match &mut self.0 {
            Registry::Own { oracle, .. } => oracle.peer_set(id).await,
            Registry::Swarm(peers) => peers.peer_set(id).await,
        }
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        match &mut self.0 {
            Registry::Own { oracle, .. } => oracle.subscribe().await,
            Registry::Swarm(peers) => Provider::subscribe(peers).await,
        }
    }
}

impl Blocker for Peers {
    type PublicKey = PublicKey;

    fn block(&mut self, peer: PublicKey) -> Feedback {
        match &mut self.0 {
            Registry::Own { oracle, .. } => oracle.block(peer),
            Registry::Swarm(peers) => peers.block(peer),
        }
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        match &mut self.0 {
            Registry::Own { oracle, .. } => oracle.blocked(),
            Registry::Swarm(peers) => peers.blocked(),
        }
    }
}

/// How a node is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Peers with an open connection.
    pub open: usize,
    /// Peers that were refused because their clocks and this node's differ. libp2p only: the own network does not tell.
    pub clocks_apart: usize,
}

/// Tells how many validators are connected.
pub struct Connected(Box<dyn FnMut() -> Option<Connections> + Send>);

impl Connected {
    /// `count` tells of open connections; it may answer `None` where it is asked too often.
    pub fn counted_by(mut count: impl FnMut() -> Option<usize> + Send + 'static) -> Self {
        Self(Box::new(move || Some(Connections { open: count()?, ..Connections::default() })))
    }

    pub(crate) fn own(mut probe: OwnSender) -> Self {
        Self::counted_by(move || probe.check(Recipients::All).ok().map(|checked| checked.recipients().len()))
    }

    pub(crate) fn swarm(peers: swarm::Peers) -> Self {
        Self(Box::new(move || Some(peers.connections())))
    }

    /// To be asked at most a few times a second; `None` when asked more often.
    pub fn look(&mut self) -> Option<Connections> {
        (self.0)()
    }

    /// Validators with an open connection; as [`Self::look`].
    pub fn count(&mut self) -> Option<usize> {
        self.look().map(|connections| connections.open)
    }
}
