//! How a proposed block reaches the other validators.
//!
//! A leader sends a small block whole. Of a large one it sends the header and the transactions' hashes: the validators hold
//! nearly all of them, since a transaction is accepted only when a quorum does, and ask the leader for the rest. A leader
//! that does not answer has withheld its block, which costs it the view; validators that vote for a block hold it whole, so
//! whoever missed it gets it from them by backfill.

mod cache;
mod desk;
mod message;
#[cfg(test)]
mod tests;

use crate::{Runtime, block::HubBlock};
use cache::Cache;
use commonware_consensus::{
    marshal::{core::Buffer, standard::Standard},
    types::Round,
};
use commonware_cryptography::{Digested, ed25519::PublicKey, keccak256::Digest};
use commonware_p2p::{Provider, Receiver, Recipients, Sender};
use commonware_runtime::{
    Handle,
    telemetry::metrics::{CounterFamily, EncodeStruct, MetricsExt as _},
};
use commonware_utils::{channel::oneshot, sync::Mutex};
use desk::{Desk, Outcome};
pub(crate) use message::{ENVELOPE_BYTES, recoded};
use std::sync::Arc;
use switchyard_consensus_core::BlockBuilder;
use switchyard_primitives::Limits;
use tokio::sync::mpsc;
use tracing::warn;

/// Blocks of one validator kept in memory until they are decided.
const BLOCKS_PER_VALIDATOR: usize = 6;
/// Own blocks that wait to be sent.
const OUTBOUND: usize = 16;

/// Where the library puts its own blocks and looks for those of others. Clones share everything.
#[derive(Clone)]
pub(crate) struct Exchange {
    me: PublicKey,
    cache: Arc<Mutex<Cache>>,
    outbound: mpsc::Sender<(HubBlock, Recipients<PublicKey>)>,
}

/// What the exchange is told at its start.
pub(crate) struct Config<B, P> {
    pub(crate) me: PublicKey,
    /// Asked for the transactions that compact blocks name.
    pub(crate) builder: B,
    pub(crate) limits: Limits,
    /// Blocks whose encoding is shorter are sent whole.
    pub(crate) compact_from_bytes: usize,
    /// Whose blocks are taken.
    pub(crate) validators: P,
}

impl Exchange {
    /// Starts to exchange blocks on `channel`, until the engine stops or the network ends.
    pub(crate) fn start<B: BlockBuilder, P: Provider<PublicKey = PublicKey>>(
        context: &impl Runtime,
        config: Config<B, P>,
        channel: (impl Sender<PublicKey = PublicKey>, impl Receiver<PublicKey = PublicKey>),
    ) -> (Self, Handle<()>) {
        let cache = Arc::new(Mutex::new(Cache::new(BLOCKS_PER_VALIDATOR)));
        let (outbound, queue) = mpsc::channel(OUTBOUND);
        let Config { me, builder, limits, compact_from_bytes, validators } = config;
        let desk = Desk::new(builder, limits, compact_from_bytes, BLOCKS_PER_VALIDATOR, cache.clone());
        let messages = context.family("messages", "messages on the blocks channel by what became of them");
        let task = Task { desk, cache: cache.clone(), queue, validators, messages };
        let task = context.child("exchange").spawn(move |context| task.run(context, channel));
        (Self { me, cache, outbound }, task)
    }
}

impl Buffer<Standard<HubBlock>> for Exchange {
    type PublicKey = PublicKey;

    async fn find_by_digest(&self, digest: Digest) -> Option<Digested<HubBlock>> {
        self.cache.lock().find(&digest)
    }

    async fn find_by_commitment(&self, commitment: Digest) -> Option<Digested<HubBlock>> {
        self.find_by_digest(commitment).await
    }

    fn subscribe_by_digest(&self, digest: Digest) -> Option<oneshot::Receiver<Digested<HubBlock>>> {
        let (waiter, block) = oneshot::channel();
        self.cache.lock().subscribe(digest, waiter);
        Some(block)
    }

    fn subscribe_by_commitment(&self, commitment: Digest) -> Option<oneshot::Receiver<Digested<HubBlock>>> {
        self.subscribe_by_digest(commitment)
    }

    fn send(&self, round: Round, block: Digested<HubBlock>, recipients: Recipients<PublicKey>) {
        self.cache.lock().insert(&self.me, &block);
        if self.outbound.try_send((HubBlock::clone(block.inner()), recipients)).is_err() {
            warn!(%round, "a proposed block is not sent: {OUTBOUND} are waiting");
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeStruct)]
struct Label {
    outcome: &'static str,
}

impl From<Outcome> for Label {
    fn from(outcome: Outcome) -> Self {
        let outcome = match outcome {
            Outcome::Whole => "whole",
            Outcome::Filled => "filled",
            Outcome::Asked => "asked",
            Outcome::Completed => "completed",
            Outcome::Answered => "answered",
            Outcome::Stale => "stale",
            Outcome::Stranger => "stranger",
            Outcome::Malformed => "malformed",
        };
        Self { outcome }
    }
}

struct Task<B, P> {
    desk: Desk<B>,
    cache: Arc<Mutex<Cache>>,
    queue: mpsc::Receiver<(HubBlock, Recipients<PublicKey>)>,
    validators: P,
    messages: CounterFamily<Label>,
}

impl<B: BlockBuilder, P: Provider<PublicKey = PublicKey>> Task<B, P> {
    async fn run(
        mut self,
        context: impl Runtime,
        (mut sender, mut receiver): (impl Sender<PublicKey = PublicKey>, impl Receiver<PublicKey = PublicKey>),
    ) {
        let mut updates = self.validators.subscribe().await;
        let mut stopped = context.stopped();
        loop {
            tokio::select! {
                // A fixed order: the simulation repeats a run exactly.
                biased;
                _ = &mut stopped => return,
                update = updates.recv() => match update {
                    Some(update) => self.cache.lock().set_validators(update.all.primary),
                    None => return,
                },
                Some((block, recipients)) = self.queue.recv() => {
                    sender.send(recipients, self.desk.announcement(&block).encode(), false);
                }
                message = receiver.recv() => {
                    let Ok((peer, bytes)) = message else { return };
                    let (outcome, reply) = self.desk.receive(&peer, bytes.into());
                    self.messages.get_or_create(&outcome.into()).inc();
                    if let Some(reply) = reply {
                        sender.send(Recipients::One(peer), reply.encode(), false);
                    }
                }
            }
        }
    }
}
