//! The mempool's interface: what is done outside the lock, and the lock.

use crate::{
    Accepted, Budget, Checked, CheckedBundle, Included, MempoolConfig, Origin, Selection, Usage, Waiting,
    bundles::{Leg, in_order},
    state::State,
};
use alloy_primitives::{Address, B256};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use switchyard_bridge_core::{BridgeRecord, BundleRecord, LegRecord, SignedBundle};
use switchyard_primitives::{Bytes, Limits, RollupId, TxKey};
use switchyard_rollup_core::{Account, Admission, BundleRefusal, Rejection};

/// A rollup's rules, and how often its state has moved on.
struct Rules {
    admission: Option<Arc<dyn Admission>>,
    executions: AtomicU64,
}

/// Transactions that wait to be ordered.
///
/// All methods are synchronous and hold one lock for a short time; signatures are checked, accounts read and payloads
/// copied outside it. Nothing here looks at a clock: the caller says what time it is, never going back.
pub struct Mempool {
    limits: Limits,
    rollups: BTreeMap<RollupId, Rules>,
    state: Mutex<State>,
}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mempool").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl Mempool {
    /// An empty mempool for these rollups. `None` in place of the rules stands for a rollup whose transactions are bytes
    /// that only its own nodes understand: they are ordered as they come.
    pub fn new(
        config: MempoolConfig,
        limits: Limits,
        rollups: impl IntoIterator<Item = (RollupId, Option<Arc<dyn Admission>>)>,
    ) -> Self {
        let rules = |admission| Rules { admission, executions: AtomicU64::new(0) };
        let rollups: BTreeMap<_, _> = rollups.into_iter().map(|(id, admission)| (id, rules(admission))).collect();
        let state = Mutex::new(State::new(config, rollups.keys().copied()));
        Self { limits, rollups, state }
    }

    /// Everything that can be said of a submission without the sender's account. May recover a signature: for many
    /// transactions, call it off the async threads.
    pub fn check(&self, rollup: RollupId, payload: &Bytes) -> Result<Checked, Rejection> {
        let rules = self.rules(rollup)?;
        let (bytes, limit) = (payload.len(), self.limits.transaction_bytes);
        if bytes == 0 {
            return Err(Rejection::Empty);
        }
        if bytes > limit {
            return Err(Rejection::Oversized { bytes, limit });
        }
        let key = TxKey::of(rollup, payload);
        if let Some(known) = self.known(&key) {
            return Err(known);
        }
        let sequenced = match &rules.admission {
            Some(admission) => admission.inspect(payload)?,
            None => None,
        };
        // A copy, because a slice of a received frame would keep the whole frame in memory.
        Ok(Checked { key, payload: Bytes::copy_from_slice(payload), sequenced })
    }

    /// Whether a transaction waits ([`Rejection::AlreadyKnown`]) or was final a short while ago
    /// ([`Rejection::AlreadyFinal`]): a cheap question before [`Self::check`]. For what was final earlier, ask the store.
    pub fn known(&self, key: &TxKey) -> Option<Rejection> {
        self.state.lock().known(key)
    }

    /// Takes a transaction in, if its sender's account allows it and there is room.
    ///
    /// A transaction with the sender and nonce of one that waits replaces it if fee cap and tip are at least a tenth
    /// higher. In a full mempool it displaces transactions of its own rollup that pay less, or those of a rollup that has
    /// more than its equal share while its own has not.
    pub fn insert(&self, checked: Checked, origin: Origin, now: Instant) -> Result<Accepted, Rejection> {
        let rollup = checked.key.rollup;
        let rules = self.rules(rollup)?;
        let (Some(admission), Some(sender)) = (&rules.admission, checked.sequenced.as_ref().map(|tx| tx.sender)) else {
            return self.state.lock().insert(checked, origin, now, Account::default());
        };
        let executions = rules.executions.load(Ordering::Acquire);
        let read = || admission.account(sender).ok_or(Rejection::Unavailable("the rollup's state cannot be read"));
        let (mut account, base_fee) = (read()?, admission.base_fee());
        let mut state = self.state.lock();
        if rules.executions.load(Ordering::Acquire) != executions {
            account = read()?;
        }
        state.set_base_fee(rollup, base_fee);
        state.insert(checked, origin, now, account)
    }

    /// Everything that can be said of a bundle without its senders' accounts. Recovers a signature for each leg: call it off
    /// the async threads.
    pub fn check_bundle(&self, bundle: &Arc<SignedBundle>) -> Result<CheckedBundle, BundleRefusal> {
        let record = bundle.record();
        let mut legs = Vec::with_capacity(bundle.legs.len());
        let mut gas: BTreeMap<RollupId, u64> = BTreeMap::new();
        for (index, (leg, LegRecord { rollup, tx, .. })) in bundle.legs.iter().zip(&record.legs).enumerate() {
            let refused = |reason| BundleRefusal::Leg { leg: index, reason };
            let rules = self.rules(*rollup).map_err(refused)?;
            let (bytes, limit) = (leg.transaction.len(), self.limits.transaction_bytes);
            if bytes > limit {
                return Err(refused(Rejection::Oversized { bytes, limit }));
            }
            let inspected = rules.admission.as_ref().map(|admission| admission.inspect(&leg.transaction)).transpose();
            let inspected = inspected.map_err(refused)?.flatten();
            let no_accounts = || BundleRefusal::Malformed(format!("rollup {rollup} has no accounts to sign legs"));
            let (key, sequenced) = (TxKey { rollup: *rollup, hash: *tx }, inspected.ok_or_else(no_accounts)?);
            let have = gas.entry(*rollup).or_default();
            *have = have.saturating_add(sequenced.gas_limit);
            // All of them are to be in one block: else it would wait until its deadline.
            let limit = rules.admission.as_ref().map_or(u64::MAX, |admission| admission.block_gas_limit());
            if *have > limit {
                return Err(refused(Rejection::GasLimit { have: *have, limit }));
            }
            legs.push(Leg { key, sequenced });
        }
        if !in_order(&legs) {
            let rule = "an account's legs on one rollup must be in the order of its nonces";
            return Err(BundleRefusal::Malformed(rule.into()));
        }
        let record_len = BridgeRecord::Bundle(record.clone()).encode().len();
        Ok(CheckedBundle { id: record.id(), record, record_len, bundle: bundle.clone(), legs })
    }

    /// Takes a bundle in, if its senders' accounts allow it and there is room. Its legs are then nobody else's: neither they nor
    /// others with their nonces are taken in alone.
    ///
    /// One with the id of a bundle that waits, and other transactions, replaces it if each of these has the sender and nonce of the
    /// one that waits, and fee cap and tip at least a tenth higher.
    ///
    /// One with a leg behind a nonce gap finds room in a quarter only, and is displaced in a full mempool by one that could
    /// go into a block now.
    pub fn insert_bundle(&self, checked: CheckedBundle, origin: Origin, now: Instant) -> Result<(), BundleRefusal> {
        let read = |leg: &Leg| -> Result<(u64, u64, Account), Rejection> {
            let rules = self.rules(leg.key.rollup)?;
            let executions = rules.executions.load(Ordering::Acquire);
            let admission = rules.admission.as_ref().ok_or(Rejection::UnknownRollup(leg.key.rollup))?;
            let account = admission.account(leg.sequenced.sender);
            let account = account.ok_or(Rejection::Unavailable("the rollup's state cannot be read"))?;
            Ok((executions, admission.base_fee(), account))
        };
        let all = || {
            let legs = checked.legs.iter().enumerate();
            legs.map(|(leg, l)| read(l).map_err(|reason| BundleRefusal::Leg { leg, reason }))
                .collect::<Result<Vec<_>, _>>()
        };
        let mut found = all()?;
        let mut state = self.state.lock();
        let is_now = |(leg, (executions, ..)): (&Leg, &(u64, u64, Account))| {
            self.rules(leg.key.rollup).is_ok_and(|rules| rules.executions.load(Ordering::Acquire) == *executions)
        };
        if !checked.legs.iter().zip(&found).all(is_now) {
            found = all()?;
        }
        for (leg, (_, base_fee, _)) in checked.legs.iter().zip(&found) {
            state.set_base_fee(leg.key.rollup, *base_fee);
        }
        let accounts: Vec<Account> = found.into_iter().map(|(.., account)| account).collect();
        state.insert_bundle(checked, origin, now, &accounts)
    }

    /// How many bundles wait.
    pub fn bundles(&self) -> usize {
        self.state.lock().bundles.len()
    }

    /// A bundle that waits.
    pub fn bundle(&self, id: &B256) -> Option<Arc<SignedBundle>> {
        self.state.lock().bundles.get(id).map(|entry| entry.bundle.clone())
    }

    /// Why a bundle was dropped after it had been accepted, or refused when a user of this node offered it, while that is
    /// remembered. What became of one whose legs are in the log is for the log to say.
    pub fn bundle_refusal(&self, id: &B256) -> Option<BundleRefusal> {
        self.state.lock().bundles.refusal(id).cloned()
    }

    /// Remembers why a bundle that a user of this node offered is refused.
    pub fn refuse_bundle(&self, id: B256, reason: BundleRefusal) {
        self.state.lock().bundles.refuse(id, reason);
    }

    /// Keeps a bundle that a validator has accepted from this follower, or holds. It may not be able to wait here, since this node's
    /// state may be behind; that is no reason to call it refused.
    pub fn keep_bundle(&self, bundle: &Arc<SignedBundle>, now: Instant) {
        self.state.lock().bundles.note_elsewhere(bundle.id(), bundle.deadline);
        if let Ok(checked) = self.check_bundle(bundle) {
            // It is as well without.
            let _ = self.insert_bundle(checked, Origin::Forwarded, now);
        }
    }

    /// The deadline of a bundle that a validator has accepted from this follower, whether it waits here or not, while that is
    /// remembered.
    pub fn bundle_elsewhere(&self, id: &B256) -> Option<u64> {
        self.state.lock().bundles.elsewhere(id)
    }

    /// Up to `limit` bundles of this node's users that have waited since `older_than`, oldest first: to gossip them again.
    pub fn waiting_bundles(&self, older_than: Instant, limit: usize) -> Vec<Arc<SignedBundle>> {
        self.state.lock().bundles.waiting(older_than, limit)
    }

    /// Segments for a block on top of ancestors that hold `exclude` and are not final, sorted by rollup id, none empty.
    ///
    /// Bundles that `may` be in it come first, in the order of their arrival, up to a quarter of the block (or one), and then
    /// transactions; what these leave is for more bundles. The records of bundles are counted, and are for the caller to add.
    ///
    /// Rollups are served by bytes, the one that the log served least first. An EVM rollup's senders come in order of
    /// effective tip, then of arrival, each with its nonces in order and without gaps, within
    /// [`Admission::segment_gas_limit`]; other transactions come as they arrived. What is selected goes on waiting until it is final. The work grows
    /// with what is selected and excluded, not with what waits.
    pub fn select(
        &self,
        budget: Budget,
        exclude: &HashSet<TxKey>,
        may: impl FnMut(&B256, &BundleRecord) -> bool,
    ) -> Selection {
        self.select_counted(budget, exclude, may).0
    }

    pub(crate) fn select_counted(
        &self,
        budget: Budget,
        exclude: &HashSet<TxKey>,
        may: impl FnMut(&B256, &BundleRecord) -> bool,
    ) -> (Selection, usize) {
        let rules = self.rollups.iter().filter_map(|(id, rules)| Some((*id, rules.admission.as_ref()?)));
        let rules: Vec<(RollupId, u64, u64)> =
            rules.map(|(id, admission)| (id, admission.base_fee(), admission.segment_gas_limit())).collect();
        let gas = rules.iter().map(|(id, _, gas)| (*id, *gas)).collect();
        let mut state = self.state.lock();
        for (rollup, base_fee, _) in rules {
            state.set_base_fee(rollup, base_fee);
        }
        state.select(budget, exclude, &gas, self.credit(), may)
    }

    /// Takes out what final block `height` holds. Call it for each block, in order, before [`Self::on_executed`] for the
    /// same block.
    pub fn on_final(&self, height: u64, included: &[Included]) {
        self.state.lock().on_final(height, included, self.credit());
    }

    /// Takes note that a rollup has executed the final blocks up to `height`, and so that [`Admission::account`] speaks
    /// of them. `senders` are the accounts that these blocks' transactions came from. Drops what those can no longer
    /// include; returns how many.
    pub fn on_executed(&self, rollup: RollupId, height: u64, senders: impl IntoIterator<Item = Address>) -> usize {
        let Ok(rules) = self.rules(rollup) else { return 0 };
        let Some(admission) = &rules.admission else { return 0 };
        let base_fee = admission.base_fee();
        let touched: BTreeSet<Address> = {
            let mut state = self.state.lock();
            rules.executions.fetch_add(1, Ordering::Release);
            state.set_base_fee(rollup, base_fee);
            let Some(pool) = state.pools.get_mut(&rollup) else { return 0 };
            let executed = pool.take_executed(height);
            executed.into_iter().chain(senders).filter(|sender| pool.sender(sender).is_some()).collect()
        };
        // A sender whose account cannot be read keeps what waits: the next execution looks again.
        let accounts = touched.into_iter().filter_map(|sender| Some((sender, admission.account(sender)?))).collect();
        self.state.lock().refresh(rollup, height, accounts)
    }

    /// Drops a transaction that waits, and remembers why.
    pub fn forget(&self, key: &TxKey, reason: Rejection) {
        self.state.lock().drop_because(*key, reason);
    }

    /// Drops what has waited longer than [`MempoolConfig::ttl`]; returns how many.
    pub fn expire(&self, now: Instant) -> usize {
        self.state.lock().expire(now)
    }

    /// A transaction that waits, alone or in a bundle.
    pub fn get(&self, key: &TxKey) -> Option<Bytes> {
        self.state.lock().payload(key).cloned()
    }

    /// Those of `keys` that wait, in the same order.
    pub fn get_many(&self, keys: &[TxKey]) -> Vec<Option<Bytes>> {
        let state = self.state.lock();
        keys.iter().map(|key| state.payload(key).cloned()).collect()
    }

    /// Why a transaction was dropped after it had been accepted, or refused when a user of this node offered it, while
    /// that is remembered.
    pub fn drop_reason(&self, key: &TxKey) -> Option<Rejection> {
        self.state.lock().drop_reason(key)
    }

    /// The nonce after those of a sender that wait, or are final and not executed, without a gap. None where there is
    /// neither: then the account's nonce is the answer.
    pub fn pending_nonce(&self, rollup: RollupId, sender: Address) -> Option<u64> {
        Some(self.state.lock().pools.get(&rollup)?.sender(&sender)?.ready_end())
    }

    /// Up to `limit` waiting transactions that arrived at or after `arrival` (0 at first, then one more than the last
    /// one's) and no later than `older_than`, oldest first: to gossip them again.
    pub fn waiting(&self, arrival: u64, older_than: Instant, limit: usize) -> Vec<Waiting> {
        self.state.lock().waiting(arrival, older_than, limit)
    }

    /// How much waits.
    pub fn usage(&self) -> Usage {
        self.state.lock().usage()
    }

    /// How much waits for each rollup.
    pub fn usage_by_rollup(&self) -> Vec<(RollupId, Usage)> {
        let state = self.state.lock();
        let usage = state.pools.iter().map(|(id, p)| (*id, Usage { transactions: p.len(), bytes: p.bytes() }));
        usage.collect()
    }

    fn rules(&self, rollup: RollupId) -> Result<&Rules, Rejection> {
        self.rollups.get(&rollup).ok_or(Rejection::UnknownRollup(rollup))
    }

    /// What a rollup that was idle is ahead of the others by: the length of one transaction.
    fn credit(&self) -> u64 {
        self.limits.transaction_bytes as u64
    }

    #[cfg(test)]
    pub(crate) fn gapped_bundles(&self) -> usize {
        self.state.lock().bundles.gapped()
    }

    #[cfg(test)]
    pub(crate) fn assert_consistent(&self) {
        self.state.lock().assert_consistent();
    }
}
