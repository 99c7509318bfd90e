//! Who speaks to whom: each process's list of peers, as its engine tells it, and where every process listens.
//!
//! It takes the place of `consensus/network`'s rosters, with their rules: two processes are connected while each has the other
//! in one of its two newest sets, neither refuses the other, and one of them knows where the other listens.

use commonware_actor::Feedback;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    BlockedSubscription, Blocker, PeerSetSubscription, PeerSetUpdate, Provider, Recipients, TrackedPeers,
    utils::limited,
};
use commonware_utils::{
    NZUsize,
    channel::{mpsc, ring},
    ordered::Set,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};
use switchyard_consensus_network::{Connected, NetworkError, Roster, public_key, to_b256};
use switchyard_primitives::B256;

/// Sets of peers that count at a time, as in the real network.
const SETS: usize = 2;

/// All processes that there may be, by place.
pub struct Directory {
    keys: Vec<PublicKey>,
    nodes: Mutex<Vec<Node>>,
    /// Who has ever refused whom.
    refusals: Mutex<BTreeSet<(usize, usize)>>,
}

/// One process.
#[derive(Default)]
struct Node {
    /// Where it listens, once it has begun.
    address: Option<SocketAddr>,
    sets: BTreeMap<u64, TrackedPeers<PublicKey>>,
    /// Where it dials whom: everyone in a set.
    members: BTreeMap<PublicKey, SocketAddr>,
    refused: BTreeSet<usize>,
    updates: Vec<mpsc::UnboundedSender<PeerSetUpdate<PublicKey>>>,
    blocked: Vec<ring::Sender<Set<PublicKey>>>,
}

impl Node {
    fn all(&self) -> TrackedPeers<PublicKey> {
        let primary = Set::from_iter_dedup(self.sets.values().flat_map(|set| set.primary.iter().cloned()));
        let secondary = self.sets.values().flat_map(|set| set.secondary.iter().cloned());
        let secondary = Set::from_iter_dedup(secondary.filter(|key| primary.position(key).is_none()));
        TrackedPeers::new(primary, secondary)
    }
}

impl Directory {
    /// A directory in which nobody has begun.
    pub fn new(keys: Vec<PublicKey>) -> Arc<Self> {
        let nodes = keys.iter().map(|_| Node::default()).collect();
        Arc::new(Self { keys, nodes: Mutex::new(nodes), refusals: Mutex::default() })
    }

    /// Everyone's key, by place.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The place of a key.
    pub fn place(&self, key: &PublicKey) -> Option<usize> {
        self.keys.iter().position(|known| known == key)
    }

    /// A process begins, or begins anew, at an address; `known` is whom its operator has told it of.
    pub fn join(self: &Arc<Self>, me: usize, address: SocketAddr, known: &[(PublicKey, SocketAddr)]) -> Members {
        self.nodes.lock()[me] = Node { address: Some(address), ..Node::default() };
        let members = Members { directory: self.clone(), me };
        members.set(0, known, &[]);
        members
    }

    /// A process is gone.
    pub fn leave(&self, me: usize) {
        self.nodes.lock()[me] = Node::default();
    }

    /// Whether a message from `a` reaches `b`.
    pub fn connected(&self, a: usize, b: usize) -> bool {
        let nodes = self.nodes.lock();
        self.are_connected(&nodes, a, b)
    }

    fn are_connected(&self, nodes: &[Node], a: usize, b: usize) -> bool {
        let (first, second) = (&nodes[a], &nodes[b]);
        let (Some(to), Some(from)) = (first.members.get(&self.keys[b]), second.members.get(&self.keys[a])) else {
            return false;
        };
        let dialled = second.address == Some(*to) || first.address == Some(*from);
        a != b && dialled && !first.refused.contains(&b) && !second.refused.contains(&a)
    }

    /// The places that one is connected to, ascending.
    pub fn connected_to(&self, me: usize) -> Vec<usize> {
        let nodes = self.nodes.lock();
        (0..nodes.len()).filter(|other| self.are_connected(&nodes, me, *other)).collect()
    }

    /// Whom a process takes to belong to the network, and where it would dial them; itself among them.
    pub fn known_to(&self, me: usize) -> BTreeMap<B256, SocketAddr> {
        self.nodes.lock()[me].members.iter().map(|(key, address)| (to_b256(key), *address)).collect()
    }

    /// Who has ever refused whom.
    pub fn refusals(&self) -> BTreeSet<(usize, usize)> {
        self.refusals.lock().clone()
    }
}

/// The network's members, as one process knows them. Clones share everything.
#[derive(Clone)]
pub struct Members {
    directory: Arc<Directory>,
    me: usize,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Members {
    /// Whose they are.
    pub fn me(&self) -> usize {
        self.me
    }

    /// The directory that they are from.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Tells how many there are.
    pub fn count(&self) -> Connected {
        let this = self.clone();
        Connected::counted_by(move || Some(this.directory.connected_to(this.me).len()))
    }

    /// Those of the recipients that are connected.
    pub fn reached(&self, recipients: Recipients<PublicKey>) -> Recipients<PublicKey> {
        let keys = &self.directory.keys;
        let connected = self.directory.connected_to(self.me);
        let reached = |key: &PublicKey| connected.iter().any(|place| keys[*place] == *key);
        Recipients::Some(match recipients {
            Recipients::All => connected.iter().map(|place| keys[*place].clone()).collect(),
            Recipients::Some(named) => named.into_iter().filter(reached).collect(),
            Recipients::One(named) => Some(named).into_iter().filter(reached).collect(),
        })
    }

    /// Whether a message from `key` is listened to.
    pub fn hears(&self, key: &PublicKey) -> bool {
        self.directory.place(key).is_some_and(|place| self.directory.connected(place, self.me))
    }

    fn set(&self, id: u64, validators: &[(PublicKey, SocketAddr)], followers: &[(PublicKey, SocketAddr)]) {
        let keys = |peers: &[(PublicKey, SocketAddr)]| Set::from_iter_dedup(peers.iter().map(|p| p.0.clone()));
        let primary = keys(validators);
        let secondary = keys(followers).into_iter().filter(|key| primary.position(key).is_none());
        let latest = TrackedPeers::new(primary.clone(), Set::from_iter_dedup(secondary));
        let mut nodes = self.directory.nodes.lock();
        let node = &mut nodes[self.me];
        if node.sets.keys().next_back().is_some_and(|newest| *newest >= id) {
            return;
        }
        node.sets.insert(id, latest.clone());
        while node.sets.len() > SETS {
            node.sets.pop_first();
        }
        let told: BTreeMap<_, _> = validators.iter().chain(followers).cloned().collect();
        let (all, before) = (node.all(), std::mem::take(&mut node.members));
        for key in all.clone().union() {
            if let Some(address) = told.get(&key).or(before.get(&key)) {
                node.members.insert(key, *address);
            }
        }
        let update = PeerSetUpdate { index: id, latest, all };
        node.updates.retain(|subscriber| subscriber.send(update.clone()).is_ok());
    }
}

impl Provider for Members {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.directory.nodes.lock()[self.me].sets.get(&id).cloned()
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut nodes = self.directory.nodes.lock();
        let node = &mut nodes[self.me];
        if let Some((index, latest)) = node.sets.last_key_value() {
            let _ = sender.send(PeerSetUpdate { index: *index, latest: latest.clone(), all: node.all() });
        }
        node.updates.push(sender);
        receiver
    }
}

impl Blocker for Members {
    type PublicKey = PublicKey;

    /// A ban ends with the process: it is longer than a run.
    fn block(&mut self, peer: PublicKey) -> Feedback {
        let Some(place) = self.directory.place(&peer) else { return Feedback::Ok };
        tracing::debug!(me = self.me, peer = place, "refused");
        self.directory.refusals.lock().insert((self.me, place));
        let mut nodes = self.directory.nodes.lock();
        let node = &mut nodes[self.me];
        node.refused.insert(place);
        let refused = Set::from_iter_dedup(node.refused.iter().map(|place| self.directory.keys[*place].clone()));
        node.blocked.retain(|subscriber| subscriber.send_lossy(refused.clone()));
        Feedback::Ok
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        let (sender, receiver) = ring::channel(NZUsize!(1));
        sender.send_lossy(Set::default());
        self.directory.nodes.lock()[self.me].blocked.push(sender);
        receiver
    }
}

fn located(peers: &[(B256, SocketAddr)]) -> Result<Vec<(PublicKey, SocketAddr)>, NetworkError> {
    peers.iter().map(|(identity, address)| Ok((public_key(*identity)?, *address))).collect()
}

impl Roster for Members {
    fn track(
        &mut self,
        id: u64,
        validators: &[(B256, SocketAddr)],
        followers: &[(B256, SocketAddr)],
    ) -> Result<(), NetworkError> {
        self.set(id, &located(validators)?, &located(followers)?);
        Ok(())
    }

    fn relocate(&mut self, identity: B256, address: SocketAddr) -> Result<(), NetworkError> {
        let key = public_key(identity)?;
        if let Some(known) = self.directory.nodes.lock()[self.me].members.get_mut(&key) {
            *known = address;
        }
        Ok(())
    }
}

/// For networks whose members do not change: there are no updates.
impl limited::Connected for Members {
    type PublicKey = PublicKey;

    fn peers(&self) -> Vec<PublicKey> {
        let connected = self.directory.connected_to(self.me);
        connected.into_iter().map(|place| self.directory.keys[place].clone()).collect()
    }

    fn subscribe(&self) -> ring::Receiver<Vec<PublicKey>> {
        let (_, receiver) = ring::channel(NZUsize!(1));
        receiver
    }
}
