//! One account's transactions, in nonce order, and the nonces that its legs of bundles have.

use crate::price::Rank;
use alloy_primitives::U256;
use std::collections::{BTreeMap, VecDeque};
use switchyard_primitives::TxHash;
use switchyard_rollup_core::Account;

/// Transactions of one account that one final block holds and that have not been executed here yet. Until they are, the
/// account's state is older than the log.
#[derive(Debug)]
struct InLog {
    height: u64,
    next_nonce: u64,
    cost: U256,
}

/// An account that has something waiting, or something final that is not executed yet.
#[derive(Debug)]
pub(crate) struct Sender {
    account: Account,
    in_log: VecDeque<InLog>,
    waiting: BTreeMap<u64, (TxHash, U256)>,
    /// Nonces that legs of waiting bundles have, and what each may cost.
    legs: BTreeMap<u64, U256>,
    /// Sum over `waiting` and `legs` of what each may cost.
    cost: U256,
    /// The first nonce from [`Self::next_nonce`] on that neither waits nor is a leg's.
    ready_end: u64,
    /// What the price indices hold of this sender.
    pub(crate) head: Option<Rank>,
    pub(crate) tail: Option<(bool, Rank)>,
}

impl Sender {
    pub(crate) fn new(account: Account) -> Self {
        Self {
            account,
            in_log: VecDeque::new(),
            waiting: BTreeMap::new(),
            legs: BTreeMap::new(),
            cost: U256::ZERO,
            ready_end: account.nonce,
            head: None,
            tail: None,
        }
    }

    /// The nonce that the next final transaction must have: the account's, or the one after those that are final but not
    /// executed.
    pub(crate) fn next_nonce(&self) -> u64 {
        self.in_log.back().map_or(self.account.nonce, |last| last.next_nonce.max(self.account.nonce))
    }

    /// The nonce after the waiting ones that follow without a gap.
    pub(crate) fn ready_end(&self) -> u64 {
        self.ready_end
    }

    /// Balance less all that is waiting or final may cost, but for the transaction with nonce `without`.
    pub(crate) fn left(&self, without: u64) -> U256 {
        let replaced = self.waiting.get(&without).map_or(U256::ZERO, |(_, cost)| *cost);
        self.available().saturating_sub(self.cost.saturating_sub(replaced))
    }

    fn available(&self) -> U256 {
        self.in_log.iter().fold(self.account.balance, |left, final_| left.saturating_sub(final_.cost))
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.legs.is_empty() && self.in_log.is_empty()
    }

    pub(crate) fn at(&self, nonce: u64) -> Option<TxHash> {
        self.waiting.get(&nonce).map(|(hash, _)| *hash)
    }

    pub(crate) fn last(&self) -> Option<(u64, TxHash)> {
        self.waiting.last_key_value().map(|(nonce, (hash, _))| (*nonce, *hash))
    }

    /// Takes a newer state of the account. An older one (read before another thread's) is ignored.
    pub(crate) fn observe(&mut self, account: Account) {
        if account.nonce >= self.account.nonce {
            self.account = account;
            while self.in_log.front().is_some_and(|first| first.next_nonce <= account.nonce) {
                self.in_log.pop_front();
            }
            self.settle();
        }
    }

    pub(crate) fn insert(&mut self, nonce: u64, hash: TxHash, cost: U256) {
        self.waiting.insert(nonce, (hash, cost));
        self.cost = self.cost.saturating_add(cost);
        self.settle();
    }

    pub(crate) fn remove(&mut self, nonce: u64) {
        let removed = self.waiting.remove(&nonce).map(|(_, cost)| cost);
        self.removed(nonce, removed);
    }

    fn removed(&mut self, nonce: u64, cost: Option<U256>) {
        if let Some(cost) = cost {
            self.cost = self.cost.saturating_sub(cost);
            if (self.next_nonce()..self.ready_end).contains(&nonce) {
                self.ready_end = nonce;
            }
        }
    }

    pub(crate) fn insert_leg(&mut self, nonce: u64, cost: U256) {
        self.legs.insert(nonce, cost);
        self.cost = self.cost.saturating_add(cost);
        self.settle();
    }

    pub(crate) fn remove_leg(&mut self, nonce: u64) {
        let removed = self.legs.remove(&nonce);
        self.removed(nonce, removed);
    }

    #[cfg(test)]
    pub(crate) fn is_leg(&self, nonce: u64) -> bool {
        self.legs.contains_key(&nonce)
    }

    pub(crate) fn legs(&self) -> usize {
        self.legs.len()
    }

    /// Notes that block `height` holds a transaction of this sender; if that one waits, it is removed separately. Says
    /// whether this is the block's first one.
    pub(crate) fn note_final(&mut self, height: u64, nonce: u64, cost: U256) -> bool {
        if nonce < self.account.nonce {
            return false;
        }
        let next_nonce = nonce.saturating_add(1).max(self.next_nonce());
        let known = self.in_log.back_mut().filter(|last| last.height == height);
        let first = known.is_none();
        match known {
            Some(last) => {
                last.next_nonce = next_nonce;
                last.cost = last.cost.saturating_add(cost);
            }
            None => self.in_log.push_back(InLog { height, next_nonce, cost }),
        }
        self.settle();
        first
    }

    /// Blocks up to `height` are executed: the account's state speaks for them.
    pub(crate) fn note_executed(&mut self, height: u64) {
        while self.in_log.front().is_some_and(|first| first.height <= height) {
            self.in_log.pop_front();
        }
        // Where execution skipped some of them the account's nonce is below what the log promised.
        self.ready_end = self.next_nonce();
        self.settle();
    }

    /// Waiting transactions whose nonce the account has used.
    pub(crate) fn stale(&self) -> Vec<TxHash> {
        self.waiting.range(..self.account.nonce).map(|(_, (hash, _))| *hash).collect()
    }

    /// Waiting transactions that the balance no longer covers, from the last nonce down, with what is left for each.
    pub(crate) fn unaffordable(&self) -> Vec<(TxHash, U256, U256)> {
        let (mut cost, balance) = (self.cost, self.account.balance);
        let mut dropped = Vec::new();
        for (hash, own) in self.waiting.range(self.account.nonce..).rev().map(|(_, tx)| *tx) {
            if cost <= balance {
                break;
            }
            cost = cost.saturating_sub(own);
            dropped.push((hash, balance.saturating_sub(cost), own));
        }
        dropped
    }

    pub(crate) fn account(&self) -> Account {
        self.account
    }

    fn settle(&mut self) {
        self.ready_end = self.ready_end.max(self.next_nonce());
        while self.waiting.contains_key(&self.ready_end) || self.legs.contains_key(&self.ready_end) {
            self.ready_end = self.ready_end.saturating_add(1);
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (u64, TxHash)> + '_ {
        self.waiting.iter().map(|(nonce, (hash, _))| (*nonce, *hash))
    }
}
