//! Transactions by gossip: what the node holds of it. Which messages travel is said in `docs/specs/gossip.md`; how, in
//! `docs/specs/network.md`.

use bytes::Bytes;
use commonware_cryptography::ed25519::PublicKey;
use std::fmt;
use tokio::sync::mpsc;

/// Longest message of the transactions channel, by gossip or direct.
pub const GOSSIP_BYTES_MAX: usize = 256 << 10;

/// What is to become of a message that came by gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is passed on to other peers.
    Accept,
    /// It is not passed on, and counts against the peer that sent it: no honest node would have passed it on.
    Reject,
    /// It is not passed on; nobody is to blame.
    Ignore,
}

/// Takes the verdict on one message. Without one in time, and when it is dropped, the message is ignored.
pub struct Judge(Option<Box<dyn FnOnce(Verdict) + Send>>);

impl Judge {
    /// Hands the verdict to `decide`.
    pub fn new(decide: impl FnOnce(Verdict) + Send + 'static) -> Self {
        Self(Some(Box::new(decide)))
    }

    /// Says what is to become of the message.
    pub fn decide(mut self, verdict: Verdict) {
        self.tell(verdict);
    }

    fn tell(&mut self, verdict: Verdict) {
        if let Some(decide) = self.0.take() {
            decide(verdict);
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.tell(Verdict::Ignore);
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").finish_non_exhaustive()
    }
}

/// A message that came by gossip, for the first time.
#[derive(Debug)]
pub struct Gossiped {
    /// Who wrote it: a peer that has signed it, though it may have come from another one.
    pub author: PublicKey,
    /// Whatever the author chose to send.
    pub message: Bytes,
    /// It is passed on only when this says so.
    pub judge: Judge,
}

/// Sends by gossip. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Publisher(pub(crate) mpsc::Sender<Bytes>);

impl Publisher {
    /// Queues a message for everyone, without waiting; `false` where the queue is full. What cannot go by gossip (no peer is
    /// there, or this node is above its share) is sent to each peer directly.
    pub fn publish(&self, message: Bytes) -> bool {
        message.len() <= GOSSIP_BYTES_MAX && self.0.try_send(message).is_ok()
    }
}

/// The gossip of one network.
#[derive(Debug)]
pub struct Gossip {
    /// Sends.
    pub publisher: Publisher,
    /// What others have sent, each message once. Where it is full, further ones are ignored.
    pub incoming: mpsc::Receiver<Gossiped>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_message_is_judged_once_and_ignored_when_nobody_judges() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let judge = || {
            let told = told.clone();
            Judge::new(move |verdict| told.lock().unwrap().push(verdict))
        };
        judge().decide(Verdict::Reject);
        drop(judge());
        assert_eq!(*told.lock().unwrap(), [Verdict::Reject, Verdict::Ignore]);
    }

    #[test]
    fn publishing_never_waits_and_has_a_bound() {
        let (queue, mut queued) = mpsc::channel(1);
        let publisher = Publisher(queue);
        assert!(!publisher.publish(vec![0; GOSSIP_BYTES_MAX + 1].into()));
        assert!(publisher.publish(vec![0; GOSSIP_BYTES_MAX].into()));
        assert!(!publisher.publish("one too many".into()));
        assert_eq!(queued.try_recv().unwrap().len(), GOSSIP_BYTES_MAX);
    }
}
