//! Which waiting bundles could go into a block now.
//!
//! Each leg must be its sender's next one, or follow, without a gap, transactions that wait and legs of other bundles that could go
//! in too, and pay the base fee. What follows a leg of a bundle that is behind a gap is behind that gap itself: else one such
//! bundle would make all that follow it look as good as those that can go in.

use crate::{
    bundles::{Entry, Leg},
    pool::Pool,
    sender::Sender,
    state::State,
};
use alloy_primitives::Address;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use switchyard_primitives::RollupId;

type Account = (RollupId, Address);

/// Of each account with legs among these the first nonce and how many there are; none where they leave a gap between them, or
/// one does not pay the base fee.
fn runs(legs: &[Leg], pools: &BTreeMap<RollupId, Pool>) -> Option<BTreeMap<Account, (u64, u64)>> {
    let mut runs: BTreeMap<Account, (u64, u64)> = BTreeMap::new();
    for Leg { key, sequenced: tx } in legs {
        let base_fee = pools.get(&key.rollup)?.base_fee();
        let (first, count) = runs.entry((key.rollup, tx.sender)).or_insert((tx.nonce, 0));
        if first.checked_add(*count) != Some(tx.nonce) || tx.fee_cap < u128::from(base_fee) {
            return None;
        }
        *count += 1;
    }
    Some(runs)
}

/// Whether a transaction that pays the base fee waits with a nonce.
fn waits(pool: &Pool, sender: &Sender, nonce: u64) -> bool {
    let waiting = sender.at(nonce).and_then(|hash| pool.get(&hash)?.sequenced.as_ref());
    waiting.is_some_and(|tx| tx.fee_cap >= u128::from(pool.base_fee()))
}

/// What was found of each bundle, and how far each account has come.
struct Search<'a> {
    state: &'a State,
    /// Of those not found to be ready: the first nonce and the number of legs of each account.
    runs: HashMap<u64, BTreeMap<Account, (u64, u64)>>,
    /// Accounts of which such a bundle's legs are not next yet.
    missing: HashMap<u64, usize>,
    next: HashMap<Account, u64>,
}

impl<'a> Search<'a> {
    fn new(state: &'a State) -> Self {
        let of = |(arrival, entry): (&u64, &Entry)| Some((*arrival, runs(&entry.legs, &state.pools)?));
        let runs: HashMap<u64, BTreeMap<Account, (u64, u64)>> =
            state.bundles.by_arrival().iter().filter_map(of).collect();
        let missing = runs.iter().map(|(arrival, runs)| (*arrival, runs.len())).collect();
        Self { state, runs, missing, next: HashMap::new() }
    }

    /// Goes on from an account's next nonce to the next leg; returns the bundle of that if all its legs are next now.
    fn advance(&mut self, account: Account) -> Option<u64> {
        let (rollup, address) = account;
        let pool = self.state.pools.get(&rollup)?;
        let sender = pool.sender(&address)?;
        let next = self.next.entry(account).or_insert_with(|| sender.next_nonce());
        while waits(pool, sender, *next) {
            *next = next.checked_add(1)?;
        }
        let arrival = self.state.bundles.at(rollup, address, *next)?;
        let (first, _) = self.runs.get(&arrival)?.get(&account)?;
        let missing = self.missing.get_mut(&arrival).filter(|_| *first == *next)?;
        *missing -= 1;
        (*missing == 0).then_some(arrival)
    }

    /// Those that could not go into a block.
    fn gapped(mut self) -> BTreeSet<u64> {
        let mut gapped: BTreeSet<u64> = self.state.bundles.by_arrival().keys().copied().collect();
        let mut accounts = self.state.bundles.accounts();
        // Each leg is come to once.
        while let Some(account) = accounts.pop() {
            let Some(ready) = self.advance(account) else { continue };
            gapped.remove(&ready);
            for (account, (first, count)) in self.runs.remove(&ready).unwrap_or_default() {
                self.next.insert(account, first.saturating_add(count));
                accounts.push(account);
            }
        }
        gapped
    }
}

impl State {
    /// Whether all of a bundle's legs could go into a block now, with what waits before them.
    pub(crate) fn is_ready(&self, legs: &[Leg]) -> bool {
        let Some(runs) = runs(legs, &self.pools) else { return false };
        runs.into_iter().all(|((rollup, address), (first, _))| {
            let Some(pool) = self.pools.get(&rollup) else { return false };
            let Some(sender) = pool.sender(&address) else { return false };
            let is_leg = |nonce| self.bundles.at(rollup, address, nonce).is_some_and(|at| !self.bundles.is_gapped(at));
            (sender.next_nonce()..first).all(|nonce| waits(pool, sender, nonce) || is_leg(nonce))
        })
    }

    /// Looks anew which bundles could not go into a block now: fees, accounts and what waits before them have changed.
    pub(crate) fn find_gapped(&mut self) {
        if !self.bundles.is_empty() {
            let gapped = Search::new(self).gapped();
            self.bundles.set_gapped(gapped);
        }
    }
}
