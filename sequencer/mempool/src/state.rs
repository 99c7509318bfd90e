//! Everything behind the mempool's lock.

use crate::{
    Accepted, Checked, Included, MempoolConfig, Origin, Usage, Waiting,
    bundles::Bundles,
    pool::{Entry, Pool},
    sender::Sender,
};
use alloy_primitives::{Address, U256};
use lru::LruCache;
use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    time::{Duration, Instant},
};
use switchyard_primitives::{Bytes, RollupId, TxHash, TxKey};
use switchyard_rollup_core::{Account, Rejection, Sequenced};

/// Keys of final transactions that are remembered, so that late gossip does not bring them back. A few full blocks.
const FINAL_KEYS: NonZeroUsize = NonZeroUsize::new(1 << 17).unwrap();
/// Reasons for dropping, and reasons for refusing, that are remembered.
const REASONS: NonZeroUsize = NonZeroUsize::new(1 << 14).unwrap();
/// Transactions that one may displace. One that needs more room than so many give is refused.
const VICTIMS: usize = 1024;
/// Least rise of fee cap and tip, in percent, for a transaction to replace another: what geth asks for.
const REPLACEMENT_PERCENT: u128 = 10;

pub(crate) struct State {
    config: MempoolConfig,
    pub(crate) pools: BTreeMap<RollupId, Pool>,
    total: Usage,
    arrivals: u64,
    by_arrival: BTreeMap<u64, TxKey>,
    final_keys: LruCache<TxKey, u64>,
    dropped: LruCache<TxKey, Dropped>,
    refused: LruCache<TxKey, Rejection>,
    pub(crate) bundles: Bundles,
}

/// A transaction that was taken in and waits no more without being final. Other validators may still have it, so its nonce
/// can yet be used by it.
struct Dropped {
    reason: Rejection,
    sequenced: Option<Sequenced>,
}

/// What was dropped of a bundle, for the case that other validators include it.
pub(crate) struct DroppedLeg {
    pub(crate) key: TxKey,
    pub(crate) reason: Rejection,
    pub(crate) sequenced: Sequenced,
}

impl State {
    pub(crate) fn new(config: MempoolConfig, rollups: impl Iterator<Item = RollupId>) -> Self {
        Self {
            config,
            pools: rollups.map(|rollup| (rollup, Pool::default())).collect(),
            total: Usage::default(),
            arrivals: 0,
            by_arrival: BTreeMap::new(),
            final_keys: LruCache::new(FINAL_KEYS),
            dropped: LruCache::new(REASONS),
            refused: LruCache::new(REASONS),
            bundles: Bundles::default(),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.total
    }

    pub(crate) fn set_base_fee(&mut self, rollup: RollupId, base_fee: u64) {
        if let Some(pool) = self.pools.get_mut(&rollup) {
            pool.set_base_fee(base_fee);
        }
    }

    pub(crate) fn get(&self, key: &TxKey) -> Option<&Entry> {
        self.pools.get(&key.rollup)?.get(&key.hash)
    }

    /// A transaction that waits, alone or in a bundle.
    pub(crate) fn payload(&self, key: &TxKey) -> Option<&Bytes> {
        self.get(key).map(|entry| &entry.payload).or_else(|| self.bundles.payload(key))
    }

    /// Why a transaction need not be looked at, from its hash alone.
    pub(crate) fn known(&self, key: &TxKey) -> Option<Rejection> {
        if self.get(key).is_some() {
            return Some(Rejection::AlreadyKnown(key.hash));
        }
        if let Some(id) = self.bundles.id_of(key) {
            return Some(Rejection::OfBundle { id });
        }
        self.final_keys.peek(key).map(|height| Rejection::AlreadyFinal { hash: key.hash, height: *height })
    }

    /// What is known of a transaction with a sender, waiting or not.
    pub(crate) fn sequenced(&self, key: &TxKey) -> Option<&Sequenced> {
        match self.get(key) {
            Some(entry) => entry.sequenced.as_ref(),
            None => match self.bundles.leg(key) {
                Some(leg) => Some(&leg.sequenced),
                None => self.dropped.peek(key)?.sequenced.as_ref(),
            },
        }
    }

    pub(crate) fn drop_reason(&self, key: &TxKey) -> Option<Rejection> {
        let dropped = self.dropped.peek(key).map(|dropped| &dropped.reason);
        dropped.or_else(|| self.refused.peek(key)).cloned()
    }

    pub(crate) fn insert(
        &mut self,
        checked: Checked,
        origin: Origin,
        now: Instant,
        account: Account,
    ) -> Result<Accepted, Rejection> {
        let key = checked.key;
        let inserted = self.try_insert(checked, origin, now, account);
        match &inserted {
            Ok(_) => {
                self.dropped.pop(&key);
                self.refused.pop(&key);
            }
            // What gossip brings must not push out what this node's own users were told.
            Err(reason) if origin == Origin::Local && self.known(&key).is_none() => {
                self.refused.put(key, reason.clone());
            }
            // It was accepted since an earlier one was told.
            Err(_) if origin == Origin::Forwarded => {
                self.dropped.pop(&key);
                self.refused.pop(&key);
            }
            Err(_) => {}
        }
        inserted
    }

    fn try_insert(
        &mut self,
        Checked { key, payload, sequenced }: Checked,
        origin: Origin,
        now: Instant,
        account: Account,
    ) -> Result<Accepted, Rejection> {
        if let Some(known) = self.known(&key) {
            return Err(known);
        }
        // Else validators that dropped it at different times would keep handing it back to one another.
        if let (Origin::Gossip, Some(expired @ Rejection::Expired { .. })) = (origin, self.drop_reason(&key)) {
            return Err(expired);
        }
        let pool = self.pools.get_mut(&key.rollup).ok_or(Rejection::UnknownRollup(key.rollup))?;
        let replaces = match &sequenced {
            None => None,
            Some(tx) => {
                if let Some(id) = self.bundles.id_at(key.rollup, tx) {
                    return Err(Rejection::OfBundle { id });
                }
                let checked = check_sender(pool, tx, account, self.config.sender_transactions);
                pool.settle(tx.sender);
                checked?
            }
        };
        // The replaced one makes room first, and comes back if there is none after all.
        let replaced = replaces.and_then(|hash| self.take(TxKey { hash, ..key }));
        if let Err(full) = self.make_room(key.rollup, payload.len(), sequenced.as_ref(), account) {
            if let Some(taken) = replaced {
                self.put(taken);
            }
            return Err(full);
        }
        let arrival = self.arrive();
        self.put(Taken { key, entry: Entry { payload, origin, arrival, since: now, sequenced }, account });
        if let Some(taken) = replaced {
            self.remember(taken.key, taken.entry, Rejection::Replaced { by: key.hash });
        }
        Ok(Accepted { key, replaced: replaces })
    }

    fn put(&mut self, Taken { key, entry, account }: Taken) {
        let Some(pool) = self.pools.get_mut(&key.rollup) else { return };
        self.total.transactions += 1;
        self.total.bytes += entry.payload.len();
        self.by_arrival.insert(entry.arrival, key);
        if let Some(tx) = &entry.sequenced {
            pool.sender_mut(tx.sender, account);
        }
        pool.insert(key.hash, entry);
    }

    fn take(&mut self, key: TxKey) -> Option<Taken> {
        let pool = self.pools.get(&key.rollup)?;
        let sender = pool.get(&key.hash)?.sequenced.as_ref().and_then(|tx| pool.sender(&tx.sender));
        let account = sender.map(Sender::account).unwrap_or_default();
        Some(Taken { key, entry: self.remove(&key)?, account })
    }

    fn remove(&mut self, key: &TxKey) -> Option<Entry> {
        let entry = self.pools.get_mut(&key.rollup)?.remove(&key.hash)?;
        self.total.transactions -= 1;
        self.total.bytes -= entry.payload.len();
        self.by_arrival.remove(&entry.arrival);
        Some(entry)
    }

    pub(crate) fn drop_because(&mut self, key: TxKey, reason: Rejection) {
        if let Some(entry) = self.remove(&key) {
            self.remember(key, entry, reason);
        }
    }

    fn remember(&mut self, key: TxKey, entry: Entry, reason: Rejection) {
        self.dropped.put(key, Dropped { reason, sequenced: entry.sequenced });
    }

    pub(crate) fn remember_leg(&mut self, DroppedLeg { key, reason, sequenced }: DroppedLeg) {
        self.dropped.put(key, Dropped { reason, sequenced: Some(sequenced) });
    }

    /// Transactions that one sender may have waiting.
    pub(crate) fn sender_limit(&self) -> usize {
        self.config.sender_transactions
    }

    /// The height of a final block that holds a transaction, while that is remembered.
    pub(crate) fn final_at(&self, key: &TxKey) -> Option<u64> {
        self.final_keys.peek(key).copied()
    }

    /// The next place in the order of arrival.
    pub(crate) fn arrive(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals - 1
    }
}

/// Checks a transaction against its sender's account and what the sender has waiting; returns what it replaces.
pub(crate) fn check_sender(
    pool: &mut Pool,
    tx: &Sequenced,
    account: Account,
    limit: usize,
) -> Result<Option<TxHash>, Rejection> {
    let base_fee = pool.base_fee();
    if tx.fee_cap < u128::from(base_fee) {
        return Err(Rejection::FeeTooLow { have: tx.fee_cap, base_fee });
    }
    let sender = pool.sender_mut(tx.sender, account);
    let (expected, found, ahead) = (sender.next_nonce(), tx.nonce, limit as u64);
    let too_high = Rejection::NonceTooHigh { expected, found, limit: ahead };
    match found.checked_sub(expected) {
        None => return Err(Rejection::NonceTooLow { expected, found }),
        Some(distance) if distance >= ahead => return Err(too_high),
        // EIP-2681: no account gets past it.
        Some(_) if found == u64::MAX => return Err(too_high),
        Some(_) => {}
    }
    let replaces = sender.at(found);
    if replaces.is_none() && sender.len() >= limit {
        return Err(too_high);
    }
    let have = sender.left(found);
    if tx.max_cost > have {
        return Err(Rejection::InsufficientFunds { address: tx.sender, have, want: tx.max_cost });
    }
    if let Some(old) = replaces.and_then(|hash| pool.get(&hash)?.sequenced.as_ref()) {
        check_replacement(old, tx)?;
    }
    Ok(replaces)
}

/// A replacement must pay more, by [`REPLACEMENT_PERCENT`], both at most and as a tip.
pub(crate) fn check_replacement(old: &Sequenced, new: &Sequenced) -> Result<(), Rejection> {
    let least = |wei: u128| {
        let raised = U256::from(wei) * U256::from(100 + REPLACEMENT_PERCENT) / U256::from(100u8);
        u128::try_from(raised).unwrap_or(u128::MAX).max(wei.saturating_add(1))
    };
    for (have, need) in [(new.fee_cap, least(old.fee_cap)), (new.tip_cap, least(old.tip_cap))] {
        if have < need {
            return Err(Rejection::ReplacementUnderpriced { need, have });
        }
    }
    Ok(())
}

/// A transaction that was taken out and can be put back as it was.
struct Taken {
    key: TxKey,
    entry: Entry,
    account: Account,
}

/// Whose transactions give way.
enum Source {
    /// The rollup's own, those that are worth less.
    Own,
    /// Those of a rollup that has more than its equal share, whatever they are worth.
    Other(RollupId),
}

impl State {
    /// Displaces others until `bytes` more fit for `rollup`. Where they cannot fit, nothing is displaced.
    fn make_room(
        &mut self,
        rollup: RollupId,
        bytes: usize,
        tx: Option<&Sequenced>,
        account: Account,
    ) -> Result<(), Rejection> {
        let mut victims: Vec<Taken> = Vec::new();
        while let Some((detail, source)) = self.excess(rollup, bytes) {
            let victim = match source {
                Source::Own => self.cheaper(rollup, tx, account),
                Source::Other(rollup) => {
                    self.pools.get(&rollup).and_then(Pool::worst).map(|(_, hash)| TxKey { rollup, hash })
                }
            };
            let victim = victim.filter(|_| victims.len() < VICTIMS);
            let Some(taken) = victim.and_then(|key| self.take(key)) else {
                victims.into_iter().rev().for_each(|taken| self.put(taken));
                return Err(Rejection::PoolFull { rollup, detail });
            };
            victims.push(taken);
        }
        for Taken { key, entry, .. } in victims {
            let detail = "gave way to a transaction that pays more, or to a rollup with less than its share".to_owned();
            self.remember(key, entry, Rejection::PoolFull { rollup: key.rollup, detail });
        }
        Ok(())
    }

    /// The first bound that `bytes` more for `rollup` would break, and who gives way.
    fn excess(&self, rollup: RollupId, bytes: usize) -> Option<(String, Source)> {
        let pool = self.pools.get(&rollup)?;
        let config = &self.config;
        if pool.bytes() + bytes > config.rollup_bytes {
            return Some((format!("{} bytes for a rollup", config.rollup_bytes), Source::Own));
        }
        if pool.len() + 1 > config.rollup_transactions {
            return Some((format!("{} transactions for a rollup", config.rollup_transactions), Source::Own));
        }
        if self.total.bytes + bytes > config.bytes {
            let source = self.above_share(rollup, bytes, config.bytes, Pool::bytes);
            return Some((format!("{} bytes over all rollups", config.bytes), source));
        }
        if self.total.transactions + 1 > config.transactions {
            let source = self.above_share(rollup, 1, config.transactions, Pool::len);
            return Some((format!("{} transactions over all rollups", config.transactions), source));
        }
        None
    }

    /// Who gives way when the whole is full: the largest rollup, as long as `rollup` stays within its equal share.
    fn above_share(&self, rollup: RollupId, more: usize, bound: usize, size: fn(&Pool) -> usize) -> Source {
        let active = self.pools.iter().filter(|(id, pool)| **id == rollup || pool.len() > 0).count();
        let own = self.pools.get(&rollup).map_or(0, size) + more;
        let largest = self.pools.iter().filter(|(id, _)| **id != rollup).max_by_key(|(_, pool)| size(pool));
        match largest {
            Some((other, _)) if own <= bound / active.max(1) => Source::Other(*other),
            _ => Source::Own,
        }
    }

    /// The rollup's worst transaction, if it is worth less than `tx` and `tx` does not build on it.
    fn cheaper(&self, rollup: RollupId, tx: Option<&Sequenced>, account: Account) -> Option<TxKey> {
        let (tx, pool) = (tx?, self.pools.get(&rollup)?);
        let (worth, hash) = pool.worst()?;
        let victim = pool.get(&hash)?.sequenced.as_ref()?;
        let builds_on_it = victim.sender == tx.sender && victim.nonce < tx.nonce;
        (worth < pool.worth(tx, account) && !builds_on_it).then_some(TxKey { rollup, hash })
    }

    /// Takes what block `height` holds out of the pools.
    pub(crate) fn on_final(&mut self, height: u64, included: &[Included], credit: u64) {
        let floor = self.floor(credit);
        let bundles = self.bundles.held_by(included);
        for Included { rollup, bytes, hashes } in included {
            if let Some(pool) = self.pools.get_mut(rollup) {
                pool.served = pool.served.max(floor).saturating_add(*bytes as u64);
            }
            for hash in hashes {
                let key = TxKey { rollup: *rollup, hash: *hash };
                let sequenced = self.sequenced(&key).cloned();
                if let (Some(tx), Some(pool)) = (sequenced, self.pools.get_mut(rollup)) {
                    pool.note_final(height, &tx);
                }
                self.remove(&key);
                self.dropped.pop(&key);
                self.refused.pop(&key);
                self.final_keys.put(key, height);
            }
        }
        self.bundles_final(height, included, bundles);
    }

    /// Drops what has waited longer than the configured time.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let mut dropped = 0;
        while let Some(key) = self.by_arrival.first_key_value().map(|(_, key)| *key) {
            let waited = self.get(&key).map_or(Duration::ZERO, |entry| now.saturating_duration_since(entry.since));
            if waited <= self.config.ttl {
                break;
            }
            self.drop_because(key, Rejection::Expired { seconds: waited.as_secs() });
            dropped += 1;
        }
        dropped
    }

    /// Takes accounts as they are after block `height`.
    pub(crate) fn refresh(&mut self, rollup: RollupId, height: u64, accounts: Vec<(Address, Account)>) -> usize {
        let mut dropped = 0;
        for (address, account) in accounts {
            let Some(pool) = self.pools.get_mut(&rollup) else { return dropped };
            for (hash, reason) in pool.refresh(height, address, account) {
                // A validator has seen what it is paid with; this node's state comes to that.
                let is_forwarded = |entry: &Entry| entry.origin == Origin::Forwarded;
                let is_of_funds = matches!(reason, Rejection::InsufficientFunds { .. });
                if is_of_funds && self.get(&TxKey { rollup, hash }).is_some_and(is_forwarded) {
                    continue;
                }
                self.drop_because(TxKey { rollup, hash }, reason);
                dropped += 1;
            }
            self.refresh_bundles(rollup, address, account);
        }
        dropped
    }

    /// Up to `limit` transactions from `arrival` on that have waited since `older_than`, oldest first.
    pub(crate) fn waiting(&self, arrival: u64, older_than: Instant, limit: usize) -> Vec<Waiting> {
        let entries = self.by_arrival.range(arrival..).filter_map(|(_, key)| Some((*key, self.get(key)?)));
        entries
            .take_while(|(_, entry)| entry.since <= older_than)
            .take(limit)
            .map(|(key, Entry { payload, origin, arrival, .. })| Waiting {
                arrival: *arrival,
                key,
                payload: payload.clone(),
                origin: *origin,
            })
            .collect()
    }
}

#[cfg(test)]
impl State {
    pub(crate) fn assert_consistent(&self) {
        self.pools.values().for_each(Pool::assert_consistent);
        let (transactions, bytes) = self.pools.values().fold((0, 0), |(n, b), p| (n + p.len(), b + p.bytes()));
        assert_eq!(self.total, Usage { transactions, bytes });
        assert_eq!(self.by_arrival.len(), transactions);
        for (arrival, key) in &self.by_arrival {
            assert_eq!(self.get(key).map(|entry| entry.arrival), Some(*arrival));
            assert_eq!(self.drop_reason(key), None, "waits and is dropped");
        }
        self.bundles.assert_consistent(&self.pools);
        let config = &self.config;
        assert!(transactions <= config.transactions && bytes <= config.bytes);
        for pool in self.pools.values() {
            assert!(pool.len() <= config.rollup_transactions && pool.bytes() <= config.rollup_bytes);
        }
    }
}
