//! The channel on which nodes exchange transactions. The engine carries its bytes and does not look at them.

use bytes::Bytes;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::IoBuf;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use switchyard_consensus_network::{public_key, to_b256};
use switchyard_primitives::B256;
use tokio::sync::mpsc;

/// Messages that wait in one direction before further ones are dropped.
const QUEUE: usize = 256;

/// Whom to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Every connected validator.
    All,
    /// One validator, by its identity.
    One(B256),
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
    /// Who sent it, and what. The sender is authenticated, the bytes are whatever it chose to send.
    pub receiver: mpsc::Receiver<(B256, Bytes)>,
}

/// The other end of a [`GossipHandle::detached`].
#[derive(Debug)]
pub struct Detached {
    /// What the handle's user has sent.
    pub sent: mpsc::Receiver<(To, Bytes)>,
    /// Delivers messages to the handle's user.
    pub deliver: mpsc::Sender<(B256, Bytes)>,
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
    inbound: mpsc::Sender<(B256, Bytes)>,
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
        mut self,
        (mut sender, mut receiver): (impl Sender<PublicKey = PublicKey>, impl Receiver<PublicKey = PublicKey>),
    ) {
        let send = async {
            while let Some((to, message)) = self.outbound.recv().await {
                let recipients = match to {
                    To::All => Recipients::All,
                    To::One(identity) => match public_key(identity) {
                        Ok(key) => Recipients::One(key),
                        Err(_) => {
                            self.drops.outbound.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                    },
                };
                let reached: Vec<PublicKey> = sender.send(recipients, IoBuf::from(message), false);
                if reached.is_empty() {
                    self.drops.outbound.fetch_add(1, Ordering::Relaxed);
                }
            }
            std::future::pending::<()>().await
        };
        let receive = async {
            while let Ok((peer, message)) = receiver.recv().await {
                if self.inbound.try_send((to_b256(&peer), Bytes::from(message))).is_err() {
                    self.drops.inbound.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        futures::future::select(std::pin::pin!(send), std::pin::pin!(receive)).await;
    }
}
