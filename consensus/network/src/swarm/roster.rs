//! What the handles and the swarm share: who belongs to the network, where they are, who is banned, and the queues of those
//! that are connected.

use super::{
    clock::Clock,
    link::Queues,
    metrics::{Fate, Metrics},
};
use crate::Connections;
use commonware_actor::{Feedback, Unreliable};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    BlockedSubscription, Blocker, PeerSetSubscription, PeerSetUpdate, Provider, Recipients, TrackedPeers,
    UnlimitedSender, utils::limited,
};
use commonware_runtime::{IoBuf, IoBufs, telemetry::metrics::GaugeExt as _};
use commonware_utils::{
    NZUsize,
    channel::{mpsc, ring},
    ordered::Set,
    sync::{Mutex, RwLock},
};
use libp2p::{
    PeerId,
    identity::{self, ed25519},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Peer sets that count at a time: those of the current and of the next epoch.
const SETS: usize = 2;

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("not one of the configured peers")]
    Stranger,
    #[error("banned")]
    Banned,
    #[error("too many connections")]
    Crowded,
}

/// The peer id of a key; `None` where the library does not take the key.
pub(super) fn peer_id(key: &PublicKey) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(key.as_ref()).ok()?;
    Some(PeerId::from_public_key(&identity::PublicKey::from(key)))
}

/// The key of a peer id. An ed25519 key is shorter than its hash, so the id holds it.
pub(super) fn key_of(peer: &PeerId) -> Option<PublicKey> {
    let key = identity::PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?.try_into_ed25519().ok()?;
    PublicKey::decode(Copying(&key.to_bytes())).ok()
}

#[derive(Clone)]
struct Member {
    key: PublicKey,
    address: SocketAddr,
}

#[derive(Default)]
struct Roster {
    sets: BTreeMap<u64, TrackedPeers<PublicKey>>,
    /// Everyone in a set.
    members: HashMap<PeerId, Member>,
    /// Until when a peer is banned. Only members are, so there are no more bans than members.
    bans: HashMap<PeerId, Instant>,
    /// Members that were refused for their clocks when they were connected last.
    apart: HashSet<PeerId>,
    updates: Vec<mpsc::UnboundedSender<PeerSetUpdate<PublicKey>>>,
    blocked: Vec<ring::Sender<Set<PublicKey>>>,
}

impl Roster {
    fn all(&self) -> TrackedPeers<PublicKey> {
        let primary = Set::from_iter_dedup(self.sets.values().flat_map(|set| set.primary.iter().cloned()));
        let secondary = self.sets.values().flat_map(|set| set.secondary.iter().cloned());
        let secondary = Set::from_iter_dedup(secondary.filter(|key| primary.position(key).is_none()));
        TrackedPeers::new(primary, secondary)
    }

    fn publish_bans(&mut self) {
        let banned = self.bans.keys().filter_map(|peer| Some(self.members.get(peer)?.key.clone()));
        let banned = Set::from_iter_dedup(banned);
        self.blocked.retain(|subscriber| subscriber.send_lossy(banned.clone()));
    }
}

/// A peer to dial.
pub(super) struct Target {
    pub(super) peer: PeerId,
    pub(super) address: SocketAddr,
}

/// State of one network.
pub(super) struct Shared {
    me: PeerId,
    ban: Duration,
    message_bytes_max: usize,
    clock: Clock,
    roster: Mutex<Roster>,
    /// The newest connection of each peer that is ready.
    links: RwLock<HashMap<PublicKey, Queues>>,
    watchers: Mutex<Vec<ring::Sender<Vec<PublicKey>>>>,
    /// The swarm looks at the roster again.
    pub(super) changed: Notify,
    pub(super) metrics: Metrics,
}

impl Shared {
    pub(super) fn new(me: PeerId, ban: Duration, clock: Clock, message_bytes_max: usize, metrics: Metrics) -> Self {
        let (roster, links, watchers) = Default::default();
        Self { me, ban, message_bytes_max, clock, roster, links, watchers, changed: Notify::new(), metrics }
    }

    /// This node's clock, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Remembers whether a member's clock is too far from this node's.
    pub(super) fn is_apart(&self, peer: PeerId, apart: bool) {
        let mut roster = self.roster.lock();
        if apart && roster.members.contains_key(&peer) {
            roster.apart.insert(peer);
        } else {
            roster.apart.remove(&peer);
        }
    }

    /// Members whose clocks are.
    pub(super) fn apart(&self) -> usize {
        self.roster.lock().apart.len()
    }

    /// Whether a peer may be connected.
    pub(super) fn admits(&self, peer: &PeerId) -> Result<(), Refusal> {
        let roster = self.roster.lock();
        if *peer == self.me || !roster.members.contains_key(peer) {
            return Err(Refusal::Stranger);
        }
        match roster.bans.get(peer) {
            Some(until) if *until > Instant::now() => Err(Refusal::Banned),
            _ => Ok(()),
        }
    }

    /// The key of a member.
    pub(super) fn key(&self, peer: &PeerId) -> Option<PublicKey> {
        self.roster.lock().members.get(peer).map(|member| member.key.clone())
    }

    /// Whom to keep connected: members that are not banned.
    pub(super) fn targets(&self) -> Vec<Target> {
        let now = Instant::now();
        let roster = self.roster.lock();
        let banned = |peer: &PeerId| roster.bans.get(peer).is_some_and(|until| *until > now);
        let wanted = roster.members.iter().filter(|(peer, _)| **peer != self.me && !banned(peer));
        wanted.map(|(peer, member)| Target { peer: *peer, address: member.address }).collect()
    }

    /// Forgets the bans that are over.
    pub(super) fn expire_bans(&self) {
        let now = Instant::now();
        let mut roster = self.roster.lock();
        let before = roster.bans.len();
        roster.bans.retain(|_, until| *until > now);
        if roster.bans.len() < before {
            roster.publish_bans();
            self.changed.notify_one();
        }
    }

    /// Bans a member; strangers have no connection to lose.
    pub(super) fn ban(&self, peer: PeerId) {
        let mut roster = self.roster.lock();
        if peer == self.me || !roster.members.contains_key(&peer) {
            return;
        }
        roster.bans.insert(peer, Instant::now() + self.ban);
        roster.publish_bans();
        drop(roster);
        self.metrics.bans.inc();
        self.changed.notify_one();
    }

    /// Sets the queues in which messages to a peer go; `None` when it is no longer connected.
    pub(super) fn link(&self, key: &PublicKey, queues: Option<Queues>) {
        let mut links = self.links.write();
        match queues {
            Some(queues) => links.insert(key.clone(), queues),
            None => links.remove(key),
        };
        let connected: Vec<PublicKey> = links.keys().cloned().collect();
        let _ = self.metrics.connected.try_set(connected.len());
        // Under the lock, so that watchers see changes in their order.
        self.watchers.lock().retain(|watcher| watcher.send_lossy(connected.clone()));
    }

    /// Peers that are connected.
    pub(super) fn connected(&self) -> Vec<PublicKey> {
        self.links.read().keys().cloned().collect()
    }
}

/// Who belongs to the network, and who is connected. Clones share everything.
#[derive(Clone)]
pub(crate) struct Peers(pub(super) Arc<Shared>);

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

impl Peers {
    /// How many are connected, and how many were refused for their clocks.
    pub(crate) fn connections(&self) -> Connections {
        Connections { open: self.0.links.read().len(), clocks_apart: self.0.apart() }
    }

    /// Sets who belongs to the network from peer set `id` on, and where they are. Sets below the newest two are forgotten,
    /// as are ids that were set before.
    pub(crate) fn track(&self, id: u64, validators: &[(PublicKey, SocketAddr)], followers: &[(PublicKey, SocketAddr)]) {
        let keys = |peers: &[(PublicKey, SocketAddr)]| Set::from_iter_dedup(peers.iter().map(|p| p.0.clone()));
        let primary = keys(validators);
        let secondary = keys(followers).into_iter().filter(|key| primary.position(key).is_none());
        let set = TrackedPeers::new(primary.clone(), Set::from_iter_dedup(secondary));

        let mut roster = self.0.roster.lock();
        if roster.sets.keys().next_back().is_some_and(|newest| *newest >= id) {
            return;
        }
        roster.sets.insert(id, set.clone());
        while roster.sets.len() > SETS {
            roster.sets.pop_first();
        }
        let located = validators.iter().chain(followers).map(|(key, address)| (key, *address));
        let addresses: HashMap<&PublicKey, SocketAddr> = located.collect();
        let all = roster.all();
        let before = std::mem::take(&mut roster.members);
        for key in all.clone().union() {
            let Some(peer) = peer_id(&key) else { continue };
            let known = before.get(&peer).map(|member| member.address);
            let Some(address) = addresses.get(&key).copied().or(known) else { continue };
            roster.members.insert(peer, Member { key, address });
        }
        let Roster { members, bans, apart, updates, .. } = &mut *roster;
        bans.retain(|peer, _| members.contains_key(peer));
        apart.retain(|peer| members.contains_key(peer));
        let update = PeerSetUpdate { index: id, latest: set, all };
        updates.retain(|subscriber| subscriber.send(update.clone()).is_ok());
        drop(roster);
        self.0.changed.notify_one();
    }

    /// Changes where a member is dialled from now on. Its open connection, if any, stays.
    pub(crate) fn relocate(&self, key: &PublicKey, address: SocketAddr) {
        let Some(peer) = peer_id(key) else { return };
        if let Some(member) = self.0.roster.lock().members.get_mut(&peer) {
            member.address = address;
        }
        self.0.changed.notify_one();
    }
}

impl Provider for Peers {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.0.roster.lock().sets.get(&id).cloned()
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        // The trait's choice; there is one message an epoch.
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut roster = self.0.roster.lock();
        if let Some((index, latest)) = roster.sets.last_key_value() {
            let _ = sender.send(PeerSetUpdate { index: *index, latest: latest.clone(), all: roster.all() });
        }
        roster.updates.push(sender);
        receiver
    }
}

impl Blocker for Peers {
    type PublicKey = PublicKey;

    fn block(&mut self, peer: PublicKey) -> Feedback {
        if let Some(peer) = peer_id(&peer) {
            self.0.ban(peer);
        }
        Feedback::Ok
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        let (sender, receiver) = ring::channel(NZUsize!(1));
        let mut roster = self.0.roster.lock();
        roster.blocked.push(sender);
        roster.publish_bans();
        receiver
    }
}

impl limited::Connected for Peers {
    type PublicKey = PublicKey;

    fn peers(&self) -> Vec<PublicKey> {
        self.0.connected()
    }

    fn subscribe(&self) -> ring::Receiver<Vec<PublicKey>> {
        let (sender, receiver) = ring::channel(NZUsize!(1));
        let links = self.0.links.read();
        sender.send_lossy(links.keys().cloned().collect());
        self.0.watchers.lock().push(sender);
        receiver
    }
}

/// Puts messages of one channel into the queues of connected peers.
#[derive(Clone)]
pub(crate) struct Outbound {
    pub(super) channel: usize,
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("channel", &crate::CHANNELS[self.channel].name).finish_non_exhaustive()
    }
}

impl Outbound {
    fn queue(&self, links: &HashMap<PublicKey, Queues>, key: &PublicKey, message: &IoBuf) -> bool {
        let fate = match links.get(key) {
            None => Fate::Away,
            Some(queues) => match queues[self.channel].try_send(message.clone()) {
                Ok(()) => Fate::Queued,
                Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => Fate::Full,
                Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => Fate::Away,
            },
        };
        self.shared.metrics.message(self.channel, fate);
        fate == Fate::Queued
    }
}

impl UnlimitedSender for Outbound {
    type PublicKey = PublicKey;

    /// Rejected where no recipient's queue has taken it. Within a channel the order is that of sending; `priority` is not
    /// looked at, since each channel has queues and streams of its own.
    fn send(
        &mut self,
        recipients: Recipients<PublicKey>,
        message: impl Into<IoBufs> + Send,
        _priority: bool,
    ) -> Unreliable<Feedback> {
        let message = message.into().coalesce();
        assert!(
            message.len() <= self.shared.message_bytes_max,
            "message too large: {} > {}",
            message.len(),
            self.shared.message_bytes_max
        );
        let links = self.shared.links.read();
        let queued = match &recipients {
            Recipients::One(key) => usize::from(self.queue(&links, key, &message)),
            Recipients::Some(keys) => keys.iter().filter(|key| self.queue(&links, key, &message)).count(),
            Recipients::All => links.keys().filter(|key| self.queue(&links, key, &message)).count(),
        };
        if queued > 0 { Unreliable::new(Feedback::Ok) } else { Unreliable::rejected() }
    }
}
