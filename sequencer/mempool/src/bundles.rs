//! Bundles that wait: all legs of one go into the same block, or none does.
//!
//! A bundle's legs are not among the transactions that wait alone, and nothing takes them apart. Each holds its sender's nonce, so
//! that no other transaction is accepted with it, and its cost. A bundle goes into a block in which each leg has its sender's next
//! nonce; it leaves by that, or with a reason that [`crate::Mempool::bundle_refusal`] tells for a while.
//!
//! One with a leg behind a nonce gap costs its makers nothing. So those take up a part of the room only, and give way
//! where others need theirs (`ready.rs`).

use crate::{
    CheckedBundle, Included, Origin,
    state::{DroppedLeg, State, check_replacement, check_sender},
};
use alloy_primitives::{Address, B256};
use lru::LruCache;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
    time::Instant,
};
use switchyard_bridge_core::{BridgeRecord, BundleRecord, SignedBundle};
use switchyard_primitives::{Bytes, RollupId, TxHash, TxKey, keccak256};
use switchyard_rollup_core::{Account, BundleRefusal, Rejection, Sequenced};

/// Most bundles that wait.
pub(crate) const BUNDLES: usize = 4096;
/// Most bytes of them.
pub(crate) const BUNDLE_BYTES: usize = 16 << 20;
/// Most bundles that wait behind a nonce gap.
pub(crate) const GAPPED: usize = BUNDLES / 4;
/// Most bytes of those.
pub(crate) const GAPPED_BYTES: usize = BUNDLE_BYTES / 4;
/// Most legs of one account on one rollup.
pub(crate) const SENDER_LEGS: usize = 64;
/// Reasons for refusing that are remembered.
const REASONS: NonZeroUsize = NonZeroUsize::new(1 << 13).unwrap();

/// A leg's transaction.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub(crate) key: TxKey,
    pub(crate) sequenced: Sequenced,
}

/// A bundle that waits.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: B256,
    pub(crate) record: BundleRecord,
    /// The record's length in the system rollup's segment.
    pub(crate) record_len: usize,
    pub(crate) bundle: Arc<SignedBundle>,
    pub(crate) legs: Vec<Leg>,
    bytes: usize,
    origin: Origin,
    since: Instant,
}

/// Those that wait.
#[derive(Debug)]
pub(crate) struct Bundles {
    by_arrival: BTreeMap<u64, Entry>,
    by_id: HashMap<B256, u64>,
    /// The bundle of each leg, and which leg it is.
    by_leg: HashMap<TxKey, (u64, usize)>,
    by_nonce: BTreeMap<(RollupId, Address, u64), u64>,
    bytes: usize,
    /// Those that could not go into a block when that was last looked at, and their bytes.
    gapped: BTreeSet<u64>,
    gapped_bytes: usize,
    refused: LruCache<B256, BundleRefusal>,
    /// Deadlines of those that validators have accepted from this follower.
    elsewhere: LruCache<B256, u64>,
}

impl Default for Bundles {
    fn default() -> Self {
        Self {
            by_arrival: BTreeMap::new(),
            by_id: HashMap::new(),
            by_leg: HashMap::new(),
            by_nonce: BTreeMap::new(),
            bytes: 0,
            gapped: BTreeSet::new(),
            gapped_bytes: 0,
            refused: LruCache::new(REASONS),
            elsewhere: LruCache::new(REASONS),
        }
    }
}

impl Bundles {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_arrival.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_arrival.len()
    }

    /// Those that wait, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_arrival.values()
    }

    pub(crate) fn get(&self, id: &B256) -> Option<&Entry> {
        self.by_arrival.get(self.by_id.get(id)?)
    }

    pub(crate) fn leg(&self, key: &TxKey) -> Option<&Leg> {
        let (arrival, index) = self.by_leg.get(key)?;
        self.by_arrival.get(arrival)?.legs.get(*index)
    }

    /// The transaction of a leg.
    pub(crate) fn payload(&self, key: &TxKey) -> Option<&Bytes> {
        let (arrival, index) = self.by_leg.get(key)?;
        Some(&self.by_arrival.get(arrival)?.bundle.legs.get(*index)?.transaction)
    }

    /// The bundle that a transaction is a leg of.
    pub(crate) fn id_of(&self, key: &TxKey) -> Option<B256> {
        let (arrival, _) = self.by_leg.get(key)?;
        self.by_arrival.get(arrival).map(|entry| entry.id)
    }

    /// The bundle of which a leg has a transaction's sender and nonce.
    pub(crate) fn id_at(&self, rollup: RollupId, tx: &Sequenced) -> Option<B256> {
        let arrival = self.by_nonce.get(&(rollup, tx.sender, tx.nonce))?;
        self.by_arrival.get(arrival).map(|entry| entry.id)
    }

    pub(crate) fn refusal(&self, id: &B256) -> Option<&BundleRefusal> {
        self.refused.peek(id)
    }

    pub(crate) fn refuse(&mut self, id: B256, reason: BundleRefusal) {
        self.refused.put(id, reason);
    }

    fn put(&mut self, arrival: u64, entry: Entry, ready: bool) {
        self.bytes += entry.bytes;
        if !ready {
            self.gapped.insert(arrival);
            self.gapped_bytes += entry.bytes;
        }
        self.by_id.insert(entry.id, arrival);
        for (index, Leg { key, sequenced }) in entry.legs.iter().enumerate() {
            self.by_leg.insert(*key, (arrival, index));
            self.by_nonce.insert((key.rollup, sequenced.sender, sequenced.nonce), arrival);
        }
        self.by_arrival.insert(arrival, entry);
    }

    /// Takes note of a bundle that a validator has accepted.
    pub(crate) fn note_elsewhere(&mut self, id: B256, deadline: u64) {
        self.refused.pop(&id);
        self.elsewhere.put(id, deadline);
    }

    /// The deadline of a bundle that a validator has accepted.
    pub(crate) fn elsewhere(&self, id: &B256) -> Option<u64> {
        self.elsewhere.peek(id).copied()
    }

    /// Of the bundles of which a block holds a leg: the arrival, and the first such leg.
    pub(crate) fn held_by(&self, included: &[Included]) -> BTreeMap<u64, usize> {
        let mut found = BTreeMap::new();
        if !self.is_empty() {
            let keys = included.iter().flat_map(|included| {
                let rollup = included.rollup;
                included.hashes.iter().map(move |hash| TxKey { rollup, hash: *hash })
            });
            for (arrival, leg) in keys.filter_map(|key| self.by_leg.get(&key)) {
                found.entry(*arrival).or_insert(*leg);
            }
        }
        found
    }

    /// Those that wait, by arrival.
    pub(crate) fn by_arrival(&self) -> &BTreeMap<u64, Entry> {
        &self.by_arrival
    }

    /// Of each account with legs on a rollup: both, once.
    pub(crate) fn accounts(&self) -> Vec<(RollupId, Address)> {
        let mut accounts: Vec<_> = self.by_nonce.keys().map(|(rollup, sender, _)| (*rollup, *sender)).collect();
        accounts.dedup();
        accounts
    }

    /// The bundle that has a nonce, by arrival.
    pub(crate) fn at(&self, rollup: RollupId, sender: Address, nonce: u64) -> Option<u64> {
        self.by_nonce.get(&(rollup, sender, nonce)).copied()
    }

    /// Whether a bundle that waits could not go into a block when that was last looked at.
    pub(crate) fn is_gapped(&self, arrival: u64) -> bool {
        self.gapped.contains(&arrival)
    }

    /// Whether a validator has seen what it is paid with; this node's state comes to that.
    fn is_forwarded(&self, arrival: u64) -> bool {
        self.by_arrival.get(&arrival).is_some_and(|entry| entry.origin == Origin::Forwarded)
    }

    /// Takes note of those that could not go into a block now.
    pub(crate) fn set_gapped(&mut self, gapped: BTreeSet<u64>) {
        self.gapped_bytes = gapped.iter().filter_map(|arrival| self.by_arrival.get(arrival)).map(|e| e.bytes).sum();
        self.gapped = gapped;
    }

    /// Which bundles give way to another one of so many bytes, which can go into a block now or cannot.
    fn victims(&self, bytes: usize, ready: bool) -> Result<Vec<u64>, BundleRefusal> {
        if !ready && self.gapped.len() >= GAPPED {
            return Err(BundleRefusal::Full("1024 bundles behind a nonce gap; send first what comes before its legs"));
        }
        if !ready && self.gapped_bytes + bytes > GAPPED_BYTES {
            return Err(BundleRefusal::Full(
                "4 MiB of bundles behind a nonce gap; send first what comes before its legs",
            ));
        }
        let (mut count, mut held) = (self.by_arrival.len(), self.bytes);
        let (mut gapped, mut victims) = (self.gapped.iter().rev(), Vec::new());
        while count >= BUNDLES || held + bytes > BUNDLE_BYTES {
            let full = BundleRefusal::Full(if count >= BUNDLES { "4096 bundles" } else { "16 MiB of bundles" });
            let Some(victim) = gapped.next().filter(|_| ready) else { return Err(full) };
            count -= 1;
            held -= self.by_arrival.get(victim).map_or(0, |entry| entry.bytes);
            victims.push(*victim);
        }
        Ok(victims)
    }

    fn overdue(&self, height: u64) -> Vec<(u64, u64)> {
        let deadlines = self.by_arrival.iter().map(|(arrival, entry)| (*arrival, entry.record.deadline));
        deadlines.filter(|(_, deadline)| *deadline <= height).collect()
    }

    /// Bundles with legs of an account, with the legs.
    fn of(&self, rollup: RollupId, sender: Address) -> Vec<(u64, usize, &Sequenced)> {
        let legs = self.by_nonce.range((rollup, sender, 0)..=(rollup, sender, u64::MAX));
        let leg = |((_, _, nonce), arrival): (&(RollupId, Address, u64), &u64)| {
            let legs = self.by_arrival.get(arrival)?.legs.iter().enumerate();
            let is_it =
                |leg: &Leg| (leg.key.rollup, leg.sequenced.sender, leg.sequenced.nonce) == (rollup, sender, *nonce);
            legs.into_iter().find(|(_, leg)| is_it(leg)).map(|(index, leg)| (*arrival, index, &leg.sequenced))
        };
        legs.filter_map(leg).collect()
    }

    /// Up to `limit` of this node's users that have waited since `older_than`, oldest first.
    pub(crate) fn waiting(&self, older_than: Instant, limit: usize) -> Vec<Arc<SignedBundle>> {
        let old = self.by_arrival.values().take_while(|entry| entry.since <= older_than);
        let local = old.filter(|entry| entry.origin == Origin::Local);
        local.take(limit).map(|entry| entry.bundle.clone()).collect()
    }

    #[cfg(test)]
    pub(crate) fn gapped(&self) -> usize {
        self.gapped.len()
    }

    #[cfg(test)]
    pub(crate) fn assert_consistent(&self, pools: &BTreeMap<RollupId, crate::pool::Pool>) {
        assert_eq!(self.by_id.len(), self.by_arrival.len());
        assert_eq!(self.bytes, self.by_arrival.values().map(|entry| entry.bytes).sum::<usize>());
        let legs: Vec<&Leg> = self.by_arrival.values().flat_map(|entry| &entry.legs).collect();
        assert_eq!((self.by_leg.len(), self.by_nonce.len()), (legs.len(), legs.len()));
        for leg in &legs {
            let sender = pools[&leg.key.rollup].sender(&leg.sequenced.sender).expect("a sender with a leg");
            assert!(sender.is_leg(leg.sequenced.nonce));
        }
        assert!(self.by_arrival.len() <= BUNDLES && self.bytes <= BUNDLE_BYTES);
        let gapped = self.gapped.iter().map(|arrival| self.by_arrival[arrival].bytes).sum::<usize>();
        assert_eq!(self.gapped_bytes, gapped);
    }
}

impl State {
    /// Takes a bundle in; `accounts` are those of its legs' senders.
    pub(crate) fn insert_bundle(
        &mut self,
        checked: CheckedBundle,
        origin: Origin,
        now: Instant,
        accounts: &[Account],
    ) -> Result<(), BundleRefusal> {
        let id = checked.id;
        let inserted = self.try_insert_bundle(checked, origin, now, accounts);
        match &inserted {
            Ok(()) => {
                self.bundles.refused.pop(&id);
            }
            // One that waits is not refused because another version of it is.
            Err(refusal) if origin == Origin::Local && self.bundles.get(&id).is_none() => {
                self.bundles.refuse(id, refusal.clone());
            }
            Err(_) => {}
        }
        inserted
    }

    fn try_insert_bundle(
        &mut self,
        checked: CheckedBundle,
        origin: Origin,
        now: Instant,
        accounts: &[Account],
    ) -> Result<(), BundleRefusal> {
        let replaced = self.replaced_by(&checked)?;
        // Else validators that dropped it at different times would keep handing it back to one another. What lacked room may
        // find some.
        let of_room = |refused: &BundleRefusal| matches!(refused, BundleRefusal::Full(_) | BundleRefusal::Displaced);
        let refused = self.bundles.refusal(&checked.id).filter(|refused| !of_room(refused));
        if let (Origin::Gossip, Some(refused)) = (origin, refused) {
            return Err(refused.clone());
        }
        // The replaced one makes room first, and comes back if the new one is not taken after all.
        let ready_before = replaced.is_some_and(|arrival| !self.bundles.is_gapped(arrival));
        let taken = replaced.and_then(|arrival| Some((arrival, self.remove_bundle(arrival)?)));
        let admitted = self.admit_bundle(&checked, accounts);
        if let (Err(_), Some((_, entry))) = (&admitted, &taken) {
            self.reserve(&entry.legs, accounts);
        }
        for leg in &checked.legs {
            if let Some(pool) = self.pools.get_mut(&leg.key.rollup) {
                pool.settle(leg.sequenced.sender);
            }
        }
        let ready = match (admitted, taken) {
            (Ok(ready), taken) => {
                if let Some((_, entry)) = taken {
                    self.remember_replaced(entry, &checked.legs);
                }
                ready
            }
            (Err(refusal), taken) => {
                if let Some((arrival, entry)) = taken {
                    self.bundles.put(arrival, entry, ready_before);
                }
                return Err(refusal);
            }
        };
        let CheckedBundle { id, record, record_len, bundle, legs } = checked;
        let (arrival, bytes) = (self.arrive(), bundle.encoded_len());
        let entry = Entry { id, record, record_len, bundle, legs, bytes, origin, since: now };
        self.bundles.put(arrival, entry, ready);
        Ok(())
    }

    /// The waiting bundle with the same id that this one takes the place of: its legs' transactions are others. Each of those must
    /// replace the one that waits by the rules of transactions that wait alone. So nobody but a leg's signer replaces it.
    fn replaced_by(&self, checked: &CheckedBundle) -> Result<Option<u64>, BundleRefusal> {
        let Some(arrival) = self.bundles.by_id.get(&checked.id) else { return Ok(None) };
        let Some(waiting) = self.bundles.by_arrival.get(arrival) else { return Ok(None) };
        let place = |leg: &Leg| (leg.key.rollup, leg.sequenced.sender, leg.sequenced.nonce);
        let mut differs = false;
        for (leg, (old, new)) in waiting.legs.iter().zip(&checked.legs).enumerate() {
            if old.key == new.key {
                continue;
            }
            differs = true;
            if place(old) != place(new) || check_replacement(&old.sequenced, &new.sequenced).is_err() {
                return Err(BundleRefusal::NotReplaced { leg, by: old.key.hash });
            }
        }
        if differs { Ok(Some(*arrival)) } else { Err(BundleRefusal::Known(checked.id)) }
    }

    fn remember_replaced(&mut self, replaced: Entry, by: &[Leg]) {
        for (Leg { key, sequenced }, new) in replaced.legs.into_iter().zip(by) {
            if key != new.key {
                self.remember_leg(DroppedLeg { key, reason: Rejection::Replaced { by: new.key.hash }, sequenced });
            }
        }
    }

    /// Takes nonces and funds of legs that had them just now.
    fn reserve(&mut self, legs: &[Leg], accounts: &[Account]) {
        for (Leg { key, sequenced: tx }, account) in legs.iter().zip(accounts) {
            if let Some(pool) = self.pools.get_mut(&key.rollup) {
                pool.sender_mut(tx.sender, *account).insert_leg(tx.nonce, tx.max_cost);
            }
        }
    }

    /// Reserves nonces and funds of the legs' senders and makes room; all or nothing. Says whether all legs could go into a
    /// block now.
    fn admit_bundle(&mut self, checked: &CheckedBundle, accounts: &[Account]) -> Result<bool, BundleRefusal> {
        for (index, (leg, account)) in checked.legs.iter().zip(accounts).enumerate() {
            if let Err(refusal) = self.admit_leg(index, leg, *account) {
                self.free_legs(&checked.legs[..index]);
                return Err(refusal);
            }
        }
        let ready = self.is_ready(&checked.legs);
        match self.bundles.victims(checked.bundle.encoded_len(), ready) {
            Ok(victims) => victims.into_iter().for_each(|arrival| self.drop_bundle(arrival, BundleRefusal::Displaced)),
            Err(full) => {
                self.free_legs(&checked.legs);
                return Err(full);
            }
        }
        Ok(ready)
    }

    fn admit_leg(&mut self, index: usize, leg: &Leg, account: Account) -> Result<(), BundleRefusal> {
        let refused = |reason| BundleRefusal::Leg { leg: index, reason };
        let Leg { key, sequenced: tx } = leg;
        if let Some(height) = self.final_at(key) {
            return Err(BundleRefusal::SentAlone { leg: index, height });
        }
        if let Some(known) = self.known(key) {
            return Err(refused(known));
        }
        let limit = self.sender_limit();
        let unknown = || refused(Rejection::UnknownRollup(key.rollup));
        let pool = self.pools.get_mut(&key.rollup).ok_or_else(unknown)?;
        let sender = pool.sender_mut(tx.sender, account);
        if let Some(by) = sender.at(tx.nonce) {
            return Err(BundleRefusal::NonceTaken { leg: index, by });
        }
        if let Some(id) = self.bundles.id_at(key.rollup, tx) {
            return Err(refused(Rejection::OfBundle { id }));
        }
        if sender.legs() >= SENDER_LEGS {
            return Err(BundleRefusal::Full("64 legs of one account on one rollup"));
        }
        check_sender(pool, tx, account, limit).map_err(refused)?;
        pool.sender_mut(tx.sender, account).insert_leg(tx.nonce, tx.max_cost);
        Ok(())
    }

    fn free_leg(&mut self, rollup: RollupId, tx: &Sequenced) {
        let Some(pool) = self.pools.get_mut(&rollup) else { return };
        pool.remove_leg(tx.sender, tx.nonce);
    }

    fn free_legs(&mut self, legs: &[Leg]) {
        for Leg { key, sequenced } in legs {
            self.free_leg(key.rollup, sequenced);
        }
    }

    fn remove_bundle(&mut self, arrival: u64) -> Option<Entry> {
        let entry = self.bundles.by_arrival.remove(&arrival)?;
        self.bundles.by_id.remove(&entry.id);
        self.bundles.bytes -= entry.bytes;
        if self.bundles.gapped.remove(&arrival) {
            self.bundles.gapped_bytes -= entry.bytes;
        }
        for Leg { key, sequenced } in &entry.legs {
            self.bundles.by_leg.remove(key);
            self.bundles.by_nonce.remove(&(key.rollup, sequenced.sender, sequenced.nonce));
            self.free_leg(key.rollup, sequenced);
        }
        Some(entry)
    }

    pub(crate) fn drop_bundle(&mut self, arrival: u64, reason: BundleRefusal) {
        let Some(entry) = self.remove_bundle(arrival) else { return };
        self.bundles.refuse(entry.id, reason);
        for Leg { key, sequenced } in entry.legs {
            if self.final_at(&key).is_none() {
                self.remember_leg(DroppedLeg { key, reason: Rejection::OfBundle { id: entry.id }, sequenced });
            }
        }
    }

    /// Block `height` holds legs of these bundles. One that it holds whole, with its record, is not refused: what becomes of it
    /// is for the log to say.
    pub(crate) fn bundles_final(&mut self, height: u64, included: &[Included], held: BTreeMap<u64, usize>) {
        let system = included.iter().filter(|included| included.rollup == RollupId::SYSTEM);
        let records: HashSet<&TxHash> = system.flat_map(|included| &included.hashes).collect();
        for (arrival, leg) in held {
            let record = self.bundles.by_arrival.get(&arrival).map(|entry| BridgeRecord::Bundle(entry.record.clone()));
            if record.is_some_and(|record| records.contains(&keccak256(record.encode()))) {
                self.remove_bundle(arrival);
            } else {
                self.drop_bundle(arrival, BundleRefusal::SentAlone { leg, height });
            }
        }
        for (arrival, deadline) in self.bundles.overdue(height.saturating_add(1)) {
            self.drop_bundle(arrival, BundleRefusal::Overdue { deadline });
        }
        self.find_gapped();
    }

    /// Drops the bundles that an account's state no longer lets in.
    pub(crate) fn refresh_bundles(&mut self, rollup: RollupId, address: Address, account: Account) {
        let mut dropped: BTreeMap<u64, BundleRefusal> = BTreeMap::new();
        for (arrival, leg, tx) in self.bundles.of(rollup, address) {
            let reason = if tx.nonce < account.nonce {
                Rejection::NonceTooLow { expected: account.nonce, found: tx.nonce }
            } else if tx.max_cost > account.balance && !self.bundles.is_forwarded(arrival) {
                Rejection::InsufficientFunds { address, have: account.balance, want: tx.max_cost }
            } else {
                continue;
            };
            dropped.insert(arrival, BundleRefusal::Leg { leg, reason });
        }
        for (arrival, reason) in dropped {
            self.drop_bundle(arrival, reason);
        }
    }
}

/// Whether the legs of each account on a rollup come in the order of its nonces.
pub(crate) fn in_order(legs: &[Leg]) -> bool {
    let mut last: HashMap<(RollupId, Address), u64> = HashMap::new();
    legs.iter().all(|Leg { key, sequenced: tx }| {
        last.insert((key.rollup, tx.sender), tx.nonce).is_none_or(|before| before < tx.nonce)
    })
}
