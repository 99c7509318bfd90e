//! The simulated network: the validators' channels with links whose delay, loss and direction the plan changes.
//!
//! Between an engine and its channels stand a [`Mouth`], which sees and may change what a validator says, and an ear, which
//! may deliver messages twice or out of order.

use crate::{uplink::Uplink, world::World};
use bytes::Bytes;
use commonware_actor::{Feedback, Unreliable};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    BlockedSubscription, Blocker, CheckedSender, LimitedSender, Message, PeerSetSubscription, Provider, Receiver,
    Recipients, TrackedPeers, simulated,
};
use commonware_runtime::{IoBufs, Spawner as _, Supervisor as _, deterministic};
use commonware_utils::{NZUsize, Probability};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, SystemTime},
};
use switchyard_consensus_network::{CHANNELS, Connected, Network, NetworkError, Roster};
use switchyard_primitives::B256;
use tokio::sync::mpsc;

type Clock = deterministic::Context;
type Raw = simulated::Sender<PublicKey, Clock>;

/// Position of a channel in [`CHANNELS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Single votes.
    Votes,
    /// Certificates.
    Certificates,
    /// Requests for certificates.
    Resolver,
    /// Proposed blocks.
    Blocks,
    /// Requests for blocks.
    Backfill,
    /// Gossip of transactions.
    Transactions,
}

impl Channel {
    /// All, in order.
    pub const ALL: [Self; 6] =
        [Self::Votes, Self::Certificates, Self::Resolver, Self::Blocks, Self::Backfill, Self::Transactions];
}

/// The epoch that a message of the channels of votes, certificates and the resolver begins with, and the rest. `None` for a
/// message without one.
pub fn split_epoch(message: &[u8]) -> Option<(&[u8], &[u8])> {
    // A varint ends with the first byte below 128.
    let end = message.iter().position(|byte| *byte < 0x80)?;
    message.split_at_checked(end + 1)
}

/// What goes out instead of a message: to whom, and what.
pub type Said = Vec<(Recipients<PublicKey>, Bytes)>;

/// Sees what a validator is about to send.
pub trait Mouth: Send + Sync + 'static {
    /// `None` lets the message go as it is; otherwise what is sent instead.
    fn say(&self, channel: Channel, recipients: &Recipients<PublicKey>, message: &Bytes) -> Option<Said>;
}

/// How badly a validator's messages arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disorder {
    /// Of a thousand messages, so many arrive twice.
    pub twice_per_mille: u32,
    /// Of a thousand messages, so many are held back until others have arrived.
    pub late_per_mille: u32,
}

/// All links and the way to change them.
#[derive(Clone)]
pub struct Fabric {
    oracle: simulated::Oracle<PublicKey, Clock>,
    keys: Arc<Vec<PublicKey>>,
}

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Mean delay.
    pub latency: Duration,
    /// Standard deviation of the delay.
    pub jitter: Duration,
    /// Of a thousand messages, so many are lost.
    pub lost_per_mille: u32,
}

impl Fabric {
    /// A network without links.
    pub async fn start(context: &Clock, world: &World, max_size: u32) -> Self {
        let keys = world.keys();
        let config = simulated::Config {
            max_size,
            max_peers_per_set: NonZeroUsize::new(keys.len()).unwrap_or(NZUsize!(1)),
            disconnect_on_block: true,
            tracked_peer_sets: NZUsize!(2),
        };
        let (network, oracle) =
            simulated::Network::new_with_peers(context.child("network"), config, keys.clone()).await;
        network.start();
        Self { oracle, keys: Arc::new(keys) }
    }

    /// Sets one direction, or cuts it.
    pub async fn set(&self, from: usize, to: usize, link: Option<Link>) {
        let (from, to) = (self.keys[from].clone(), self.keys[to].clone());
        // Without a link there is nothing to remove.
        let _ = self.oracle.remove_link(from.clone(), to.clone()).await;
        if let Some(Link { latency, jitter, lost_per_mille }) = link {
            let arrives = u64::from(1000 - lost_per_mille.min(1000));
            let success_rate = Probability::new(arrives, 1000).expect("at most one");
            let link = simulated::Link { latency, jitter, success_rate };
            self.oracle.add_link(from, to, link).await.expect("the network runs and the link was removed");
        }
    }

    /// Sets the bytes a second that a validator can send and receive.
    pub async fn limit(&self, validator: usize, bytes_per_second: usize) {
        let cap = Some(bytes_per_second);
        self.oracle.limit_bandwidth(self.keys[validator].clone(), cap, cap).await.expect("the network runs");
    }

    /// Who refuses whom.
    pub async fn refusals(&self) -> Vec<(usize, usize)> {
        let place = |key: &PublicKey| self.keys.iter().position(|k| k == key).expect("a validator");
        let blocked = self.oracle.blocked().await.expect("the network runs");
        blocked.iter().map(|(from, to)| (place(from), place(to))).collect()
    }

    /// Opens a validator's channels anew, and closes those that it had.
    pub async fn join(
        &self,
        me: usize,
        mouth: Arc<dyn Mouth>,
        disorder: Disorder,
        seed: u64,
        uplink: Option<Arc<Uplink>>,
    ) -> Joined {
        let control = self.oracle.control(self.keys[me].clone());
        let mut channels = VecDeque::new();
        for (channel, kind) in Channel::ALL.into_iter().zip(&CHANNELS) {
            let (inner, receiver) = control.register(channel as u64, kind.quota).await.expect("the network runs");
            let rng = StdRng::seed_from_u64(seed ^ channel as u64);
            let ear = Ear { inner: Hears::Network(receiver), disorder, rng, held: VecDeque::new(), again: None };
            let uplink = uplink.clone().filter(|_| channel == Channel::Blocks);
            channels.push_back((Sender { inner, channel, mouth: mouth.clone(), uplink }, ear));
        }
        self.network(me, channels)
    }

    /// Opens a validator's channels for two processes with its key, each of which hears one half of the others. What other
    /// `twins` say begins with a byte that tells which of them it is from and for.
    pub async fn join_twins(
        &self,
        context: &Clock,
        me: usize,
        mouths: [Arc<dyn Mouth>; 2],
        twins: &[usize],
    ) -> [Joined; 2] {
        let control = self.oracle.control(self.keys[me].clone());
        let (mut first, mut second) = (VecDeque::new(), VecDeque::new());
        for (channel, kind) in Channel::ALL.into_iter().zip(&CHANNELS) {
            let (inner, mut receiver) = control.register(channel as u64, kind.quota).await.expect("the network runs");
            let capacity = receiver.capacity();
            let mut ways = Vec::new();
            for (channels, mouth) in [&mut first, &mut second].into_iter().zip(&mouths) {
                // As the simulated network's own queues.
                let (way, queue) = mpsc::unbounded_channel();
                ways.push(way);
                let inner_ear = Hears::Twin { queue, capacity };
                let rng = StdRng::seed_from_u64(0);
                let ear =
                    Ear { inner: inner_ear, disorder: Disorder::default(), rng, held: VecDeque::new(), again: None };
                channels.push_back((Sender { inner: inner.clone(), channel, mouth: mouth.clone(), uplink: None }, ear));
            }
            let (keys, twins) = (self.keys.clone(), twins.to_vec());
            context.child("twins").spawn(move |_| async move {
                while let Ok((from, message)) = receiver.recv().await {
                    let seat = keys.iter().position(|key| *key == from).unwrap_or(0);
                    let (half, message) = match twins.contains(&seat) {
                        true => {
                            let whole = Bytes::from(message);
                            (usize::from(whole.first() == Some(&1)), whole.slice(1.min(whole.len())..).into())
                        }
                        false => (seat % 2, message),
                    };
                    // A twin that has ended hears nothing.
                    let _ = ways[half].send((from, message));
                }
            });
        }
        [self.network(me, first), self.network(me, second)]
    }

    fn network(&self, me: usize, mut channels: VecDeque<(Sender, Ear)>) -> Joined {
        let control = self.oracle.control(self.keys[me].clone());
        let mut next = || channels.pop_front().expect("one for each channel");
        let others = self.keys.len() - 1;
        Network {
            votes: next(),
            certificates: next(),
            resolver: next(),
            blocks: next(),
            backfill: next(),
            transactions: next(),
            gossip: None,
            peers: Members { manager: self.oracle.manager(), control },
            connected: Connected::counted_by(move || Some(others)),
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            task: commonware_runtime::Handle::from_future(std::future::pending()),
        }
    }
}

/// Sends on one channel, through a validator's [`Mouth`].
#[derive(Clone)]
pub struct Sender {
    inner: Raw,
    channel: Channel,
    mouth: Arc<dyn Mouth>,
    /// The line, where it is limited.
    uplink: Option<Arc<Uplink>>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// A message below its quota.
pub struct Checked<'a> {
    inner: <Raw as LimitedSender>::Checked<'a>,
    recipients: Recipients<PublicKey>,
    /// For what is sent instead.
    other: Raw,
    channel: Channel,
    mouth: &'a dyn Mouth,
    uplink: Option<&'a Uplink>,
}

impl LimitedSender for Sender {
    type PublicKey = PublicKey;
    type Checked<'a> = Checked<'a>;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Checked<'_>, SystemTime> {
        let other = self.inner.clone();
        let inner = self.inner.check(recipients.clone())?;
        Ok(Checked {
            inner,
            recipients,
            other,
            channel: self.channel,
            mouth: &*self.mouth,
            uplink: self.uplink.as_deref(),
        })
    }
}

impl CheckedSender for Checked<'_> {
    type PublicKey = PublicKey;

    fn recipients(&self) -> Vec<PublicKey> {
        self.inner.recipients()
    }

    fn send(mut self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        let message: Bytes = message.into().coalesce().into();
        if let Some(uplink) = self.uplink {
            uplink.send(self.other, self.inner.recipients(), message);
            return Unreliable::new(Feedback::Ok);
        }
        let Some(instead) = self.mouth.say(self.channel, &self.recipients, &message) else {
            return self.inner.send(message, priority);
        };
        for (recipients, message) in instead {
            if let Ok(checked) = self.other.check(recipients) {
                let _ = checked.send(message, priority);
            }
        }
        Unreliable::new(Feedback::Ok)
    }
}

/// The channels of a validator.
pub type Joined = Network<Sender, Ear, Members>;

/// Where messages come from.
#[derive(Debug)]
enum Hears {
    Network(simulated::Receiver<PublicKey>),
    Twin { queue: mpsc::UnboundedReceiver<Message<PublicKey>>, capacity: NonZeroUsize },
}

impl Hears {
    async fn recv(&mut self) -> Result<Message<PublicKey>, simulated::Error> {
        match self {
            Self::Network(receiver) => receiver.recv().await,
            Self::Twin { queue, .. } => queue.recv().await.ok_or(simulated::Error::NetworkClosed),
        }
    }
}

/// Receives on one channel, sometimes twice and sometimes late.
#[derive(Debug)]
pub struct Ear {
    inner: Hears,
    disorder: Disorder,
    rng: StdRng,
    held: VecDeque<Message<PublicKey>>,
    again: Option<Message<PublicKey>>,
}

/// Messages held back at a time; a message that is never overtaken is as good as lost.
const HELD: usize = 8;

impl Receiver for Ear {
    type Error = simulated::Error;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, simulated::Error> {
        if let Some(message) = self.again.take() {
            return Ok(message);
        }
        loop {
            let message = self.inner.recv().await?;
            let (twice, late) = (self.disorder.twice_per_mille, self.disorder.late_per_mille);
            if twice > 0 && self.rng.random_range(0..1000) < twice {
                self.again = Some(message.clone());
            }
            if late > 0 && self.held.len() < HELD && self.rng.random_range(0..1000) < late {
                self.held.push_back(message);
                continue;
            }
            if self.again.is_none() && self.rng.random_range(0..2) == 0 {
                self.again = self.held.pop_front();
            }
            return Ok(message);
        }
    }

    fn capacity(&self) -> NonZeroUsize {
        match &self.inner {
            Hears::Network(receiver) => receiver.capacity(),
            Hears::Twin { capacity, .. } => *capacity,
        }
    }
}

/// The validators, as one of them knows them.
#[derive(Clone)]
pub struct Members {
    manager: simulated::Manager<PublicKey, Clock>,
    control: simulated::Control<PublicKey, Clock>,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

impl Provider for Members {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.manager.peer_set(id).await
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        self.manager.subscribe().await
    }
}

impl Blocker for Members {
    type PublicKey = PublicKey;

    fn block(&mut self, peer: PublicKey) -> Feedback {
        self.control.block(peer)
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        self.control.blocked()
    }
}

impl Roster for Members {
    /// The simulation's validators do not change.
    fn track(&mut self, _: u64, _: &[(B256, SocketAddr)], _: &[(B256, SocketAddr)]) -> Result<(), NetworkError> {
        Ok(())
    }

    fn relocate(&mut self, _: B256, _: SocketAddr) -> Result<(), NetworkError> {
        Ok(())
    }
}
