//! Proposed blocks that are not decided yet, by hash, and who waits for one.

use crate::block::HubBlock;
use commonware_cryptography::{Digested, Digestible as _, ed25519::PublicKey, keccak256::Digest};
use commonware_utils::{channel::oneshot, ordered::Set};
use std::collections::{HashMap, HashSet, VecDeque, hash_map::Entry};

/// A block, with how many validators' queues name it.
struct Item {
    block: Digested<HubBlock>,
    references: usize,
    /// Who was given its transactions: nobody is given them twice.
    answered: HashSet<PublicKey>,
}

/// The blocks that each validator sent last.
pub(crate) struct Cache {
    items: HashMap<Digest, Item>,
    /// For each validator the blocks it sent, newest first.
    queues: HashMap<PublicKey, VecDeque<Digest>>,
    waiters: HashMap<Digest, Vec<oneshot::Sender<Digested<HubBlock>>>>,
    /// Whose blocks are kept.
    validators: Set<PublicKey>,
    per_validator: usize,
}

impl Cache {
    /// An empty cache that keeps `per_validator` blocks of each validator.
    pub(crate) fn new(per_validator: usize) -> Self {
        Self {
            items: HashMap::new(),
            queues: HashMap::new(),
            waiters: HashMap::new(),
            validators: Set::default(),
            per_validator,
        }
    }

    /// Sets whose blocks are kept, and forgets those of others.
    pub(crate) fn set_validators(&mut self, validators: Set<PublicKey>) {
        self.validators = validators;
        let (kept, gone) = std::mem::take(&mut self.queues).into_iter().partition(|(peer, _)| self.admits(peer));
        self.queues = kept;
        let gone: HashMap<PublicKey, VecDeque<Digest>> = gone;
        for digest in gone.into_values().flatten() {
            self.release(digest);
        }
    }

    /// Whether a peer's blocks are kept.
    pub(crate) fn admits(&self, peer: &PublicKey) -> bool {
        self.validators.position(peer).is_some()
    }

    pub(crate) fn find(&self, digest: &Digest) -> Option<Digested<HubBlock>> {
        self.items.get(digest).map(|item| item.block.clone())
    }

    /// Resolves `waiter` with the block once it is there.
    pub(crate) fn subscribe(&mut self, digest: Digest, waiter: oneshot::Sender<Digested<HubBlock>>) {
        if let Some(block) = self.find(&digest) {
            let _ = waiter.send(block);
            return;
        }
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        self.waiters.entry(digest).or_default().push(waiter);
    }

    /// Takes a block that `peer` sent. Whoever waits for it gets it even where the peer's blocks are not kept.
    pub(crate) fn insert(&mut self, peer: &PublicKey, block: &Digested<HubBlock>) {
        let digest = block.digest();
        for waiter in self.waiters.remove(&digest).into_iter().flatten() {
            let _ = waiter.send(block.clone());
        }
        if !self.admits(peer) {
            return;
        }
        let queue = self.queues.entry(peer.clone()).or_default();
        if let Some(at) = queue.iter().position(|d| *d == digest) {
            queue.remove(at);
            queue.push_front(digest);
            return;
        }
        queue.push_front(digest);
        let oldest = if queue.len() > self.per_validator { queue.pop_back() } else { None };
        let item = Item { block: block.clone(), references: 0, answered: HashSet::new() };
        self.items.entry(digest).or_insert(item).references += 1;
        if let Some(oldest) = oldest {
            self.release(oldest);
        }
    }

    /// A block whose transactions `peer` asks for, the first time.
    pub(crate) fn answer(&mut self, digest: &Digest, peer: &PublicKey) -> Option<Digested<HubBlock>> {
        let item = self.items.get_mut(digest)?;
        item.answered.insert(peer.clone()).then(|| item.block.clone())
    }

    fn release(&mut self, digest: Digest) {
        if let Entry::Occupied(mut item) = self.items.entry(digest) {
            item.get_mut().references -= 1;
            if item.get().references == 0 {
                item.remove();
            }
        }
    }
}
