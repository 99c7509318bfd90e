//! The channel on which nodes exchange transactions. The engine carries its bytes and does not look at them.

use bytes::Bytes;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::IoBuf;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use switchyard_consensus_network::{Gossip, Gossiped, InvalidIdentity, Judge, Publisher, public_key, to_b256};
use switchyard_primitives::B256;
use tokio::sync::mpsc;

/// Messages that wait in one direction before further ones are dropped.
const QUEUE: usize = 256;

/// Whom to send to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// Every connected validator, each directly.
    All,
    /// One validator, by its identity.
    One(B256),
    /// These validators.
    Some(Arc<[B256]>),
    /// Every validator, by gossip: each receives it from some other one. [`To::All`] where the network has no gossip.
    Mesh,
}

impl To {
    fn recipients(&self) -> Result<Recipients<PublicKey>, InvalidIdentity> {
        Ok(match self {
            Self::All | Self::Mesh => Recipients::All,
            Self::One(identity) => Recipients::One(public_key(*identity)?),
            Self::Some(identities) => {
                Recipients::Some(identities.iter().map(|identity| public_key(*identity)).collect::<Result<_, _>>()?)
            }
        })
    }
}

/// A message of another validator.
#[derive(Debug)]
pub struct Incoming {
    /// Who wrote it: authenticated.
    pub from: B256,
    /// Whatever it chose to write.
    pub message: Bytes,
    /// Of a message that came by gossip: decides whether it is passed on.
    pub judge: Option<Judge>,
}

/// Messages dropped since the start.
#[derive(Debug, Default)]
struct Drops {
    outbound: AtomicU64,
    inbound: AtomicU64,
}

/// Sends to other validators. Clones share one queue.
#[derive(Clone, Debug)]
pub struct GossipSender {
    queue: mpsc::Sender<(To, Bytes)>,
    drops: Arc<Drops>,
    message_bytes_max: usize,
}

impl GossipSender {
    /// Queues a message without waiting. It is dropped, counted, and `false` returned where the queue is full or the
    /// message is longer than [`Self::message_bytes_max`]. Delivery is best effort: what must arrive has to be sent again.
    pub fn send(&self, to: To, message: Bytes) -> bool {
        let sent = message.len() <= self.message_bytes_max && self.queue.try_send((to, message)).is_ok();
        if !sent {
            self.drops.outbound.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// The longest message that can be sent.
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// Messages dropped before they were sent, or because a peer was above its quota.
    pub fn dropped_outbound(&self) -> u64 {
        self.drops.outbound.load(Ordering::Relaxed)
    }

    /// Messages received and dropped because [`GossipHandle::receiver`] was full.
    pub fn dropped_inbound(&self) -> u64 {
        self.drops.inbound.load(Ordering::Relaxed)
    }
}

/// The node's end of the transactions channel.
#[derive(Debug)]
pub struct GossipHandle {
    /// Sends.
    pub sender: GossipSender,
    /// What others have sent.
    pub receiver: mpsc::Receiver<Incoming>,
}

/// The other end of a [`GossipHandle::detached`].
#[derive(Debug)]
pub struct Detached {
    /// What the handle's user has sent.
    pub sent: mpsc::Receiver<(To, Bytes)>,
    /// Delivers messages to the handle's user.
    pub deliver: mpsc::Sender<Incoming>,
}

impl GossipHandle {
    /// A handle on no network, with its other end: to test what uses the channel.
    pub fn detached(message_bytes_max: usize) -> (Self, Detached) {
        let (handle, Relay { outbound, inbound, .. }) = channel(message_bytes_max);
        (handle, Detached { sent: outbound, deliver: inbound })
    }
}

/// The engine's end.
pub(crate) struct Relay {
    outbound: mpsc::Receiver<(To, Bytes)>,
    inbound: mpsc::Sender<Incoming>,
    drops: Arc<Drops>,
}

pub(crate) fn channel(message_bytes_max: usize) -> (GossipHandle, Relay) {
    let (queue, outbound) = mpsc::channel(QUEUE);
    let (inbound, receiver) = mpsc::channel(QUEUE);
    let drops = Arc::new(Drops::default());
    let sender = GossipSender { queue, drops: Arc::clone(&drops), message_bytes_max };
    (GossipHandle { sender, receiver }, Relay { outbound, inbound, drops })
}

impl Relay {
    /// Carries messages until the network closes. A node that no longer listens or sends stops nothing.
    pub(crate) async fn run(
        self,
        (sender, mut receiver): (impl Sender<PublicKey = PublicKey>, impl Receiver<PublicKey = PublicKey>),
        gossip: Option<Gossip>,
    ) {
        let Self { outbound, inbound, drops } = self;
        let (publisher, gossiped) = gossip.map(|gossip| (gossip.publisher, gossip.incoming)).unzip();
        let deliver = |incoming| {
            if inbound.try_send(incoming).is_err() {
                drops.inbound.fetch_add(1, Ordering::Relaxed);
            }
        };
        let send = send(outbound, sender, publisher, &drops);
        let receive = async {
            while let Ok((peer, message)) = receiver.recv().await {
                deliver(Incoming { from: to_b256(&peer), message: Bytes::from(message), judge: None });
            }
        };
        let hear = async {
            if let Some(mut gossiped) = gossiped {
                while let Some(Gossiped { author, message, judge }) = gossiped.recv().await {
                    deliver(Incoming { from: to_b256(&author), message, judge: Some(judge) });
                }
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            // A fixed order: the simulation repeats a run exactly.
            biased;
            () = send => {}
            () = receive => {}
            () = hear => {}
        }
    }
}

/// Sends until the end.
async fn send(
    mut outbound: mpsc::Receiver<(To, Bytes)>,
    mut sender: impl Sender<PublicKey = PublicKey>,
    publisher: Option<Publisher>,
    drops: &Drops,
) {
    while let Some((to, message)) = outbound.recv().await {
        if let (To::Mesh, Some(publisher)) = (&to, &publisher) {
            if !publisher.publish(message) {
                drops.outbound.fetch_add(1, Ordering::Relaxed);
            }
            continue;
        }
        let reached: Vec<PublicKey> = match to.recipients() {
            Ok(recipients) => sender.send(recipients, IoBuf::from(message), false),
            Err(_) => Vec::new(),
        };
        if reached.is_empty() {
            drops.outbound.fetch_add(1, Ordering::Relaxed);
        }
    }
    std::future::pending::<()>().await
}
