//! The simulated network: the validators' channels with links whose delay, loss and direction the plan changes.
//!
//! Between an engine and its channels stand a [`Mouth`], which sees and may change what a validator says, and an ear, which
//! may deliver messages twice or out of order.

use crate::directory::{Directory, Members};
use bytes::Bytes;
use commonware_actor::{Feedback, Unreliable};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{CheckedSender, LimitedSender, Message, Receiver, Recipients, simulated};
use commonware_runtime::{IoBufs, Spawner as _, Supervisor as _, deterministic};
use commonware_utils::{NZUsize, Probability};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use switchyard_consensus_network::{CHANNELS, Network};
use tokio::sync::mpsc;

type Clock = deterministic::Context;
type Raw = simulated::Sender<PublicKey, Clock>;

/// Position of a channel in [`CHANNELS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// How badly a validator's messages arrive, until the network is well.
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
    directory: Arc<Directory>,
    /// Whether messages arrive in order, once each.
    is_well: Arc<AtomicBool>,
}

/// A process that takes part.
pub struct Process {
    /// Whose it is.
    pub place: usize,
    /// Where it listens.
    pub address: SocketAddr,
    /// How badly its messages arrive.
    pub disorder: Disorder,
    /// Decides which.
    pub seed: u64,
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
    /// A network without links, whose members the directory tells.
    pub async fn start(context: &Clock, directory: Arc<Directory>, max_size: u32) -> Self {
        let keys = directory.keys();
        let config = simulated::Config {
            max_size,
            max_peers_per_set: NonZeroUsize::new(keys.len()).unwrap_or(NZUsize!(1)),
            // Who refuses whom is the directory's.
            disconnect_on_block: false,
            tracked_peer_sets: NZUsize!(2),
        };
        let (network, oracle) =
            simulated::Network::new_with_peers(context.child("network"), config, keys.to_vec()).await;
        network.start();
        Self { oracle, directory, is_well: Arc::default() }
    }

    /// Ends all disorder: in a view in which every vote counts, a few that are held back are enough to have it given up.
    pub fn heal(&self) {
        self.is_well.store(true, Ordering::Relaxed);
    }

    fn ear(&self, inner: Hears, members: Members, disorder: Disorder, rng: StdRng) -> Ear {
        let (is_well, held) = (self.is_well.clone(), VecDeque::new());
        Ear { inner, members, disorder, is_well, rng, held, again: None }
    }

    /// Sets one direction, or cuts it.
    pub async fn set(&self, from: usize, to: usize, link: Option<Link>) {
        let keys = self.directory.keys();
        let (from, to) = (keys[from].clone(), keys[to].clone());
        // Without a link there is nothing to remove.
        let _ = self.oracle.remove_link(from.clone(), to.clone()).await;
        if let Some(Link { latency, jitter, lost_per_mille }) = link {
            let arrives = u64::from(1000 - lost_per_mille.min(1000));
            let success_rate = Probability::new(arrives, 1000).expect("at most one");
            let link = simulated::Link { latency, jitter, success_rate };
            self.oracle.add_link(from, to, link).await.expect("the network runs and the link was removed");
        }
    }

    /// Who speaks to whom.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Opens a process's channels anew, and closes those that it had. It is told of the others by its engine.
    pub async fn join(&self, process: Process, mouth: Arc<dyn Mouth>) -> Joined {
        let Process { place, address, disorder, seed } = process;
        let control = self.oracle.control(self.directory.keys()[place].clone());
        let members = self.directory.join(place, address, &[]);
        let mut channels = VecDeque::new();
        for (channel, kind) in Channel::ALL.into_iter().zip(&CHANNELS) {
            let (inner, receiver) = control.register(channel as u64, kind.quota).await.expect("the network runs");
            let rng = StdRng::seed_from_u64(seed ^ channel as u64);
            let inner_ear = Hears::Network(receiver);
            let members = members.clone();
            let ear = self.ear(inner_ear, members.clone(), disorder, rng);
            channels.push_back((Sender { inner, channel, mouth: mouth.clone(), members }, ear));
        }
        network(channels, members, address)
    }

    /// Opens a validator's channels for two processes with its key, each of which hears one half of the others. What other
    /// `twins` say begins with a byte that tells which of them it is from and for.
    pub async fn join_twins(
        &self,
        context: &Clock,
        process: Process,
        mouths: [Arc<dyn Mouth>; 2],
        twins: &[usize],
    ) -> [Joined; 2] {
        let Process { place, address, .. } = process;
        let control = self.oracle.control(self.directory.keys()[place].clone());
        let members = self.directory.join(place, address, &[]);
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
                let (rng, members) = (StdRng::seed_from_u64(0), members.clone());
                let disorder = Disorder::default();
                let ear = self.ear(inner_ear, members.clone(), disorder, rng);
                channels.push_back((Sender { inner: inner.clone(), channel, mouth: mouth.clone(), members }, ear));
            }
            let (directory, twins) = (self.directory.clone(), twins.to_vec());
            context.child("twins").spawn(move |_| async move {
                while let Ok((from, message)) = receiver.recv().await {
                    let place = directory.place(&from).unwrap_or(0);
                    let (half, message) = match twins.contains(&place) {
                        true => {
                            let whole = Bytes::from(message);
                            (usize::from(whole.first() == Some(&1)), whole.slice(1.min(whole.len())..).into())
                        }
                        false => (place % 2, message),
                    };
                    // A twin that has ended hears nothing.
                    let _ = ways[half].send((from, message));
                }
            });
        }
        [network(first, members.clone(), address), network(second, members, address)]
    }
}

fn network(mut channels: VecDeque<(Sender, Ear)>, members: Members, address: SocketAddr) -> Joined {
    let mut next = || channels.pop_front().expect("one for each channel");
    Network {
        votes: next(),
        certificates: next(),
        resolver: next(),
        blocks: next(),
        backfill: next(),
        transactions: next(),
        gossip: None,
        connected: members.count(),
        peers: members,
        address,
        task: commonware_runtime::Handle::from_future(std::future::pending()),
    }
}

/// Sends on one channel, through a validator's [`Mouth`].
#[derive(Clone)]
pub struct Sender {
    inner: Raw,
    channel: Channel,
    mouth: Arc<dyn Mouth>,
    /// Whom it reaches.
    members: Members,
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
    members: &'a Members,
}

impl LimitedSender for Sender {
    type PublicKey = PublicKey;
    type Checked<'a> = Checked<'a>;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Checked<'_>, SystemTime> {
        let recipients = self.members.reached(recipients);
        let other = self.inner.clone();
        let inner = self.inner.check(recipients.clone())?;
        let (channel, mouth, members) = (self.channel, &*self.mouth, &self.members);
        Ok(Checked { inner, recipients, other, channel, mouth, members })
    }
}

impl CheckedSender for Checked<'_> {
    type PublicKey = PublicKey;

    fn recipients(&self) -> Vec<PublicKey> {
        self.inner.recipients()
    }

    fn send(mut self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        let message: Bytes = message.into().coalesce().into();
        let Some(instead) = self.mouth.say(self.channel, &self.recipients, &message) else {
            return self.inner.send(message, priority);
        };
        for (recipients, message) in instead {
            if let Ok(checked) = self.other.check(self.members.reached(recipients)) {
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
    members: Members,
    disorder: Disorder,
    is_well: Arc<AtomicBool>,
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
        if self.is_well.load(Ordering::Relaxed)
            && let Some(message) = self.held.pop_front()
        {
            return Ok(message);
        }
        loop {
            let message = self.inner.recv().await?;
            if !self.members.hears(&message.0) {
                continue;
            }
            if self.is_well.load(Ordering::Relaxed) {
                return Ok(message);
            }
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
