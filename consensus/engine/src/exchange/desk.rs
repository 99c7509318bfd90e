//! What is done with each message: a state machine without sockets.

use super::{cache::Cache, message::Message};
use crate::block::{HubBlock, digest};
use commonware_cryptography::{Digested, Digestible as _, ed25519::PublicKey};
use commonware_utils::sync::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};
use switchyard_consensus_core::BlockBuilder;
use switchyard_primitives::{B256, Bytes, CompactBlock, FillError, Limits, RollupId, TxKey};
use tracing::debug;

/// What became of a message, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// A block that came whole.
    Whole,
    /// A compact block of which everything was here.
    Filled,
    /// A compact block of which something was asked for.
    Asked,
    /// An answer that made a block whole.
    Completed,
    /// A request that was answered.
    Answered,
    /// A block that was here, a request for one that is not (any more) or was answered before, an answer to no request.
    Stale,
    /// From a peer that is not one of the validators.
    Stranger,
    /// What no honest validator sends.
    Malformed,
}

/// A compact block some of whose transactions are still to come.
struct Partial {
    hash: B256,
    compact: CompactBlock,
    held: Vec<Option<Bytes>>,
}

/// Takes messages, keeps blocks, and says what to send back.
pub(crate) struct Desk<B> {
    builder: B,
    limits: Limits,
    /// Blocks whose encoding is shorter are sent whole.
    compact_from_bytes: usize,
    per_validator: usize,
    cache: Arc<Mutex<Cache>>,
    /// Of each validator, newest first.
    partials: HashMap<PublicKey, VecDeque<Partial>>,
}

impl<B: BlockBuilder> Desk<B> {
    pub(crate) fn new(
        builder: B,
        limits: Limits,
        compact_from_bytes: usize,
        per_validator: usize,
        cache: Arc<Mutex<Cache>>,
    ) -> Self {
        Self { builder, limits, compact_from_bytes, per_validator, cache, partials: HashMap::new() }
    }

    /// The message in which a block goes to the others. What it names is hashed already in a block made or checked here.
    pub(crate) fn announcement(&self, block: &HubBlock) -> Message {
        let whole = block.encoded().len();
        if whole >= self.compact_from_bytes {
            let compact = CompactBlock::of(block.block());
            let system = block.block().segments().iter().filter(|segment| segment.rollup == RollupId::SYSTEM);
            let carried: Vec<Bytes> = system.flat_map(|segment| segment.transactions.iter().cloned()).collect();
            let bytes: usize = carried.iter().map(|tx| 4 + tx.len()).sum();
            // Names of tiny transactions are longer than the transactions.
            if compact.encoded_len() + bytes < whole {
                return Message::Compact { block: Box::new(compact), carried };
            }
        }
        Message::Whole(block.clone())
    }

    /// Takes a message; returns the one to send back, if any.
    pub(crate) fn receive(&mut self, peer: &PublicKey, bytes: bytes::Bytes) -> (Outcome, Option<Message>) {
        if !self.cache.lock().admits(peer) {
            return (Outcome::Stranger, None);
        }
        match Message::decode(bytes, &self.limits) {
            Ok(Message::Whole(block)) => {
                let block = HubBlock::digested(block);
                self.forget(peer, hash(&block));
                self.cache.lock().insert(peer, &block);
                (Outcome::Whole, None)
            }
            Ok(Message::Compact { block, carried }) => self.fill(peer, *block, carried),
            Ok(Message::Request { block, wanted }) => self.answer(peer, block, &wanted),
            Ok(Message::Answer { block, transactions }) => (self.complete(peer, block, transactions), None),
            Err(error) => {
                // Counted by the caller: a line for each would let a validator fill the log.
                debug!(%peer, %error, "malformed message on the blocks channel");
                (Outcome::Malformed, None)
            }
        }
    }

    fn fill(&mut self, peer: &PublicKey, compact: CompactBlock, carried: Vec<Bytes>) -> (Outcome, Option<Message>) {
        let hash = compact.header().hash();
        let found = self.cache.lock().find(&digest(hash));
        if let Some(block) = found {
            self.cache.lock().insert(peer, &block);
            return (Outcome::Stale, None);
        }
        if self.partials.get(peer).is_some_and(|own| own.iter().any(|partial| partial.hash == hash)) {
            return (Outcome::Stale, None);
        }
        let keys: Vec<TxKey> = compact.keys().collect();
        let mut held = self.builder.held(&keys);
        debug_assert_eq!(held.len(), keys.len());
        if !carried.is_empty() {
            let system = keys.iter().zip(&mut held).filter(|(key, _)| key.rollup == RollupId::SYSTEM);
            let mut carried = carried.into_iter();
            for (key, slot) in system {
                *slot = carried.next().filter(|tx| TxKey::of(key.rollup, tx) == *key);
                if slot.is_none() {
                    return (Outcome::Malformed, None);
                }
            }
            if carried.next().is_some() {
                return (Outcome::Malformed, None);
            }
        }
        let partial = Partial { hash, compact, held };
        let wanted: Vec<bool> = partial.held.iter().map(Option::is_none).collect();
        if wanted.contains(&true) {
            // A block that names more than fits would only be found out at the end, and hold on to it until then.
            let bytes: usize = partial.held.iter().flatten().map(|tx| tx.len()).sum();
            if bytes > self.limits.body_bytes {
                return (Outcome::Malformed, None);
            }
            let own = self.partials.entry(peer.clone()).or_default();
            own.push_front(partial);
            own.truncate(self.per_validator);
            return (Outcome::Asked, Some(Message::Request { block: hash, wanted }));
        }
        match self.keep(peer, partial) {
            Ok(()) => (Outcome::Filled, None),
            Err(error) => {
                debug!(%peer, %hash, %error, "a compact block does not make a block");
                (Outcome::Malformed, None)
            }
        }
    }

    fn answer(&self, peer: &PublicKey, hash: B256, wanted: &[bool]) -> (Outcome, Option<Message>) {
        let Some(block) = self.cache.lock().answer(&digest(hash), peer) else { return (Outcome::Stale, None) };
        let block = block.inner().block();
        if wanted.len() != block.transaction_count() {
            return (Outcome::Malformed, None);
        }
        let transactions = block.segments().iter().flat_map(|segment| &segment.transactions);
        let transactions = transactions.zip(wanted).filter(|(_, wanted)| **wanted).map(|(tx, _)| tx.clone()).collect();
        (Outcome::Answered, Some(Message::Answer { block: hash, transactions }))
    }

    fn complete(&mut self, peer: &PublicKey, hash: B256, transactions: Vec<Bytes>) -> Outcome {
        let Some(mut partial) = self.forget(peer, hash) else { return Outcome::Stale };
        let mut came = transactions.into_iter();
        let missing = partial.held.iter_mut().zip(partial.compact.keys()).filter(|(held, _)| held.is_none());
        for (slot, key) in missing {
            *slot = came.next().filter(|tx| TxKey::of(key.rollup, tx) == key);
            if slot.is_none() {
                debug!(%peer, %hash, "an answer without what was asked for");
                return Outcome::Malformed;
            }
        }
        if came.next().is_some() {
            return Outcome::Malformed;
        }
        match self.keep(peer, partial) {
            Ok(()) => Outcome::Completed,
            Err(error) => {
                debug!(%peer, %hash, %error, "an answer does not make a block");
                Outcome::Malformed
            }
        }
    }

    fn forget(&mut self, peer: &PublicKey, hash: B256) -> Option<Partial> {
        let own = self.partials.get_mut(peer)?;
        let at = own.iter().position(|partial| partial.hash == hash)?;
        own.remove(at)
    }

    fn keep(&self, peer: &PublicKey, partial: Partial) -> Result<(), FillError> {
        let Partial { hash, compact, held, .. } = partial;
        let transactions: Vec<Bytes> = held.into_iter().flatten().collect();
        let (block, encoded) = compact.fill(&transactions, &self.limits)?;
        let block = Digested::precomputed(HubBlock::from_parts(block, encoded.0), digest(hash));
        self.cache.lock().insert(peer, &block);
        Ok(())
    }
}

fn hash(block: &Digested<HubBlock>) -> B256 {
    crate::block::hash(block.digest())
}
