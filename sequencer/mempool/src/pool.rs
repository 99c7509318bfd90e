//! What waits for one rollup.

use crate::{
    Origin,
    price::{EffectiveTip, PriceIndex, Rank, effective_tip},
    sender::Sender,
};
use alloy_primitives::{Address, U256};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Instant,
};
use switchyard_primitives::{Bytes, TxHash};
use switchyard_rollup_core::{Account, Rejection, Sequenced};

/// Most senders that are remembered for having something final that is not executed; beyond that the oldest are forgotten,
/// which costs them selections that execution skips, and nothing else.
const UNEXECUTED_SENDERS: usize = 65_536;

/// A transaction that waits.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) payload: Bytes,
    pub(crate) origin: Origin,
    /// Counts up with each accepted transaction, over all rollups.
    pub(crate) arrival: u64,
    pub(crate) since: Instant,
    pub(crate) sequenced: Option<Sequenced>,
}

/// What a transaction is worth keeping for: those that can be included come before those behind a nonce gap.
pub(crate) type Worth = (bool, EffectiveTip);

/// Transactions behind a nonce gap, and others.
#[derive(Debug, Default)]
struct Tails {
    gapped: PriceIndex,
    ready: PriceIndex,
}

impl Tails {
    fn of(&mut self, ready: bool) -> &mut PriceIndex {
        if ready { &mut self.ready } else { &mut self.gapped }
    }
}

/// What waits for one rollup.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    entries: HashMap<TxHash, Entry>,
    bytes: usize,
    /// Transactions without a sender, by arrival.
    fifo: BTreeMap<u64, TxHash>,
    senders: HashMap<Address, Sender>,
    base_fee: u64,
    /// Each sender's next transaction, where it waits.
    heads: PriceIndex,
    /// Each sender's last one: what is given up first.
    tails: Tails,
    unexecuted: VecDeque<(u64, Vec<Address>)>,
    unexecuted_senders: usize,
    /// Bytes that final blocks held for this rollup, over all time or since it was last far behind the others.
    pub(crate) served: u64,
}

impl Pool {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, hash: &TxHash) -> Option<&Entry> {
        self.entries.get(hash)
    }

    pub(crate) fn sender(&self, address: &Address) -> Option<&Sender> {
        self.senders.get(address)
    }

    pub(crate) fn fifo(&self) -> impl Iterator<Item = TxHash> + '_ {
        self.fifo.values().copied()
    }

    pub(crate) fn heads(&self) -> &PriceIndex {
        &self.heads
    }

    pub(crate) fn base_fee(&self) -> u64 {
        self.base_fee
    }

    pub(crate) fn set_base_fee(&mut self, base_fee: u64) {
        if self.base_fee != base_fee {
            self.base_fee = base_fee;
            for index in [&mut self.heads, &mut self.tails.gapped, &mut self.tails.ready] {
                index.set_base_fee(base_fee);
            }
        }
    }

    /// The sender with its account as it was just read. Followed by [`Self::settle`] once it is as it shall be.
    pub(crate) fn sender_mut(&mut self, address: Address, account: Account) -> &mut Sender {
        let sender = self.senders.entry(address).or_insert_with(|| Sender::new(account));
        sender.observe(account);
        sender
    }

    pub(crate) fn insert(&mut self, hash: TxHash, entry: Entry) {
        self.bytes += entry.payload.len();
        match &entry.sequenced {
            None => {
                self.fifo.insert(entry.arrival, hash);
                self.entries.insert(hash, entry);
            }
            Some(Sequenced { sender: address, nonce, max_cost, .. }) => {
                let (address, nonce, cost) = (*address, *nonce, *max_cost);
                self.entries.insert(hash, entry);
                if let Some(sender) = self.senders.get_mut(&address) {
                    sender.insert(nonce, hash, cost);
                }
                self.settle(address);
            }
        }
    }

    /// Gives up the nonce that a bundle's leg has held.
    pub(crate) fn remove_leg(&mut self, address: Address, nonce: u64) {
        if let Some(sender) = self.senders.get_mut(&address) {
            sender.remove_leg(nonce);
        }
        self.settle(address);
    }

    pub(crate) fn remove(&mut self, hash: &TxHash) -> Option<Entry> {
        let entry = self.entries.remove(hash)?;
        self.bytes -= entry.payload.len();
        match &entry.sequenced {
            None => {
                self.fifo.remove(&entry.arrival);
            }
            Some(Sequenced { sender: address, nonce, .. }) => {
                if let Some(sender) = self.senders.get_mut(address) {
                    sender.remove(*nonce);
                }
                self.settle(*address);
            }
        }
        Some(entry)
    }

    /// Brings the price indices in line with a sender, and forgets one of whom nothing is left.
    pub(crate) fn settle(&mut self, address: Address) {
        let Some(sender) = self.senders.get_mut(&address) else { return };
        let rank = |hash: TxHash| -> Option<Rank> {
            let entry = self.entries.get(&hash)?;
            let Sequenced { sender, fee_cap, tip_cap, .. } = *entry.sequenced.as_ref()?;
            Some(Rank::new(sender, entry.arrival, fee_cap, tip_cap))
        };
        let head = sender.at(sender.next_nonce()).and_then(rank);
        let tail = sender.last().and_then(|(nonce, hash)| Some((nonce < sender.ready_end(), rank(hash)?)));
        if head != sender.head {
            if let Some(old) = sender.head.take() {
                self.heads.remove(&old);
            }
            if let Some(new) = head {
                self.heads.insert(new);
            }
            sender.head = head;
        }
        if tail != sender.tail {
            if let Some((ready, old)) = sender.tail.take() {
                self.tails.of(ready).remove(&old);
            }
            if let Some((ready, new)) = tail {
                self.tails.of(ready).insert(new);
            }
            sender.tail = tail;
        }
        if sender.is_idle() {
            self.senders.remove(&address);
        }
    }

    /// The transaction to give up first: of those with a price the last nonce of the cheapest sender; else the newest.
    pub(crate) fn worst(&self) -> Option<(Worth, TxHash)> {
        let tail = |ready, index: &PriceIndex| {
            let (tip, _, address) = index.worst()?;
            Some(((ready, tip), self.senders.get(&address)?.last()?.1))
        };
        tail(false, &self.tails.gapped)
            .or_else(|| tail(true, &self.tails.ready))
            .or_else(|| self.fifo.last_key_value().map(|(_, hash)| ((true, EffectiveTip::MAX), *hash)))
    }

    /// What a transaction is worth that is not in the pool yet.
    pub(crate) fn worth(&self, tx: &Sequenced, account: Account) -> Worth {
        let next = self.senders.get(&tx.sender).map_or(account.nonce, Sender::ready_end);
        (tx.nonce <= next, effective_tip(tx.fee_cap, tx.tip_cap, self.base_fee))
    }

    /// Notes that block `height` holds a sender's transaction, whether it still waits here or not.
    pub(crate) fn note_final(&mut self, height: u64, tx: &Sequenced) {
        if self.senders.get_mut(&tx.sender).is_some_and(|sender| sender.note_final(height, tx.nonce, tx.max_cost)) {
            self.remember_unexecuted(height, tx.sender);
        }
        self.settle(tx.sender);
    }

    fn remember_unexecuted(&mut self, height: u64, address: Address) {
        match self.unexecuted.back_mut() {
            Some((last, senders)) if *last == height => senders.push(address),
            _ => self.unexecuted.push_back((height, vec![address])),
        }
        self.unexecuted_senders += 1;
        while self.unexecuted_senders > UNEXECUTED_SENDERS && self.unexecuted.len() > 1 {
            let Some((oldest, senders)) = self.unexecuted.pop_front() else { return };
            self.unexecuted_senders -= senders.len();
            for address in senders {
                self.note_executed(oldest, address);
            }
        }
    }

    fn note_executed(&mut self, height: u64, address: Address) {
        if let Some(sender) = self.senders.get_mut(&address) {
            sender.note_executed(height);
        }
        self.settle(address);
    }

    /// The senders with final transactions up to `height` that were not executed until now.
    pub(crate) fn take_executed(&mut self, height: u64) -> Vec<Address> {
        let mut executed = Vec::new();
        while let Some((_, senders)) = self.unexecuted.pop_front_if(|(first, _)| *first <= height) {
            self.unexecuted_senders -= senders.len();
            executed.extend(senders);
        }
        executed
    }

    /// Takes a sender's account as it is after block `height`; returns what cannot be included any more, which is still
    /// in the pool.
    pub(crate) fn refresh(&mut self, height: u64, address: Address, account: Account) -> Vec<(TxHash, Rejection)> {
        let Some(sender) = self.senders.get_mut(&address) else { return Vec::new() };
        sender.observe(account);
        sender.note_executed(height);
        let expected = sender.account().nonce;
        let stale = sender.stale().into_iter().map(|hash| (hash, None));
        let unaffordable = sender.unaffordable().into_iter().map(|(hash, have, want)| (hash, Some((have, want))));
        let dropped: Vec<(TxHash, Option<(U256, U256)>)> = stale.chain(unaffordable).collect();
        self.settle(address);
        let reason = |(hash, funds): (TxHash, Option<(U256, U256)>)| {
            let found = self.entries.get(&hash)?.sequenced.as_ref()?.nonce;
            Some(match funds {
                None => (hash, Rejection::NonceTooLow { expected, found }),
                Some((have, want)) => (hash, Rejection::InsufficientFunds { address, have, want }),
            })
        };
        dropped.into_iter().filter_map(reason).collect()
    }
}

#[cfg(test)]
impl Pool {
    /// Recomputes everything that is kept beside the entries.
    pub(crate) fn assert_consistent(&self) {
        let bytes: usize = self.entries.values().map(|e| e.payload.len()).sum();
        assert_eq!(self.bytes, bytes);
        let sequenced = self.entries.values().filter(|e| e.sequenced.is_some()).count();
        assert_eq!(self.entries.len() - sequenced, self.fifo.len());
        assert_eq!(self.senders.values().map(Sender::len).sum::<usize>(), sequenced);
        let (mut heads, mut gapped, mut ready) = (Vec::new(), Vec::new(), Vec::new());
        for (address, sender) in &self.senders {
            assert!(!sender.is_idle(), "an idle sender is remembered");
            let nonces: Vec<u64> = sender.waiting().map(|(nonce, _)| nonce).collect();
            let mut end = sender.next_nonce();
            while nonces.contains(&end) || sender.is_leg(end) {
                end += 1;
            }
            assert_eq!(sender.ready_end(), end, "sender {address}");
            for (nonce, hash) in sender.waiting() {
                let tx = self.entries[&hash].sequenced.as_ref().unwrap();
                assert_eq!((tx.sender, tx.nonce), (*address, nonce));
                let rank = Rank::new(*address, self.entries[&hash].arrival, tx.fee_cap, tx.tip_cap);
                if nonce == sender.next_nonce() {
                    heads.push(rank);
                }
                if Some(&nonce) == nonces.last() {
                    if nonce < end { ready.push(rank) } else { gapped.push(rank) }
                }
            }
        }
        for (index, mut expected) in [(&self.heads, heads), (&self.tails.gapped, gapped), (&self.tails.ready, ready)] {
            let mut found = index.ranks();
            found.sort_by_key(Rank::arrival);
            expected.sort_by_key(Rank::arrival);
            assert_eq!(found, expected);
        }
        assert_eq!(self.unexecuted_senders, self.unexecuted.iter().map(|(_, s)| s.len()).sum::<usize>());
    }
}
