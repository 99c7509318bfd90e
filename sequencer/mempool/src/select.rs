//! Filling a segment for each rollup.
//!
//! Fairness is start-time fair queueing (Goyal, Vin, Cheng 1996) over bytes: the next transaction comes from the rollup
//! that was served least. What was served is read off the log, final blocks and those in flight, and not counted by the
//! proposer, so every leader goes on where the last one stopped. A rollup that had nothing to send earns no more than one
//! transaction's length of credit by it: it is served at once when it comes back, and cannot shut out the others.

use crate::{
    Budget, Selected, Selection,
    bundles::{Entry, Leg},
    pool::Pool,
    price::{EffectiveTip, Placed, effective_tip},
    state::State,
};
use alloy_primitives::{Address, B256};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
};
use switchyard_bridge_core::BundleRecord;
use switchyard_primitives::{Bytes, RollupId, Segment, TxHash, TxKey};
use switchyard_rollup_core::Sequenced;

/// Senders passed over because their next transaction does not fit in the gas that is left, before a rollup's segment
/// counts as full.
const MISFITS: usize = 32;

/// Bytes of a block body before its first segment, of a segment before its first transaction, and of a transaction
/// before its first byte (`docs/specs/blocks.md`).
const BODY_PREFIX: usize = 4;
const SEGMENT_PREFIX: usize = 12;
const TX_PREFIX: usize = 4;

/// A transaction's length in a block body.
pub(crate) fn body_len(payload: &Bytes) -> usize {
    TX_PREFIX + payload.len()
}

/// A sender's next transaction; ordered by effective tip, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    tip: EffectiveTip,
    arrival: Reverse<u64>,
    sender: Address,
    nonce: u64,
    hash: TxHash,
}

/// What ancestors that are not final hold for one rollup.
#[derive(Default)]
struct InFlight {
    transactions: usize,
    bytes: u64,
    next_nonces: HashMap<Address, u64>,
}

/// One rollup's transactions in the order in which a segment takes them.
struct Lane<'a> {
    rollup: RollupId,
    pool: &'a Pool,
    exclude: &'a HashSet<TxKey>,
    fifo: Box<dyn Iterator<Item = TxHash> + 'a>,
    /// Senders' first transactions, from the index.
    heads: Box<dyn Iterator<Item = Placed> + 'a>,
    head: Option<Candidate>,
    /// Transactions that follow one that is taken or in flight.
    next: BinaryHeap<Candidate>,
    /// Senders with something in flight, or a leg in this block: their heads in the index are behind.
    in_flight: HashSet<Address>,
    /// Next nonces of the senders with something in flight or, where bundles wait, in this block.
    nonces: HashMap<Address, u64>,
    follows_nonces: bool,
    gas_left: u64,
    misfits: usize,
    taken: Vec<(TxHash, Bytes)>,
    /// Bytes served before and in this block.
    served: u64,
    examined: usize,
}

impl<'a> Lane<'a> {
    fn new(
        rollup: RollupId,
        pool: &'a Pool,
        exclude: &'a HashSet<TxKey>,
        in_flight: &InFlight,
        gas_left: u64,
        follows_nonces: bool,
    ) -> Self {
        let mut lane = Self {
            rollup,
            pool,
            exclude,
            fifo: Box::new(pool.fifo()),
            heads: Box::new(pool.heads().best()),
            head: None,
            next: BinaryHeap::new(),
            in_flight: in_flight.next_nonces.keys().copied().collect(),
            nonces: if follows_nonces { in_flight.next_nonces.clone() } else { HashMap::new() },
            follows_nonces,
            gas_left,
            misfits: 0,
            taken: Vec::new(),
            served: in_flight.bytes,
            examined: in_flight.transactions,
        };
        for (sender, nonce) in &in_flight.next_nonces {
            lane.next.extend(lane.candidate(*sender, *nonce));
        }
        lane
    }

    fn candidate(&self, sender: Address, nonce: u64) -> Option<Candidate> {
        let hash = self.pool.sender(&sender)?.at(nonce)?;
        let entry = self.pool.get(&hash)?;
        let tx = entry.sequenced.as_ref()?;
        let tip = effective_tip(tx.fee_cap, tx.tip_cap, self.pool.base_fee());
        (tip >= 0).then_some(Candidate { tip, arrival: Reverse(entry.arrival), sender, nonce, hash })
    }

    /// The dearest of the senders that nothing was taken from yet.
    fn head(&mut self) -> Option<Candidate> {
        while self.head.is_none() {
            let (_, _, sender) = self.heads.next().filter(|(tip, _, _)| *tip >= 0)?;
            self.examined += 1;
            if !self.in_flight.contains(&sender) {
                let nonce = self.pool.sender(&sender)?.next_nonce();
                self.head = self.candidate(sender, nonce);
            }
        }
        self.head
    }

    fn best(&mut self) -> Option<Candidate> {
        let head = self.head();
        if head.as_ref() > self.next.peek() { self.head.take() } else { self.next.pop() }
    }

    /// The next transaction, of at most `room` bytes in the body; none once the rollup has no more that fits. What does
    /// not fit leaves no trace: its sender's next nonce is still the one of before.
    fn pick(&mut self, room: usize) -> Option<(TxHash, Bytes)> {
        while let Some(candidate) = self.best() {
            let entry = self.pool.get(&candidate.hash).filter(|entry| body_len(&entry.payload) <= room)?;
            let gas = entry.sequenced.as_ref()?.gas_limit;
            if gas > self.gas_left {
                self.misfits += 1;
                if self.misfits > MISFITS {
                    return None;
                }
                continue;
            }
            self.examined += 1;
            self.gas_left -= gas;
            let next = candidate.nonce.checked_add(1).and_then(|nonce| self.candidate(candidate.sender, nonce));
            self.next.extend(next);
            if self.follows_nonces {
                self.nonces.insert(candidate.sender, candidate.nonce.saturating_add(1));
            }
            return Some((candidate.hash, entry.payload.clone()));
        }
        for hash in self.fifo.by_ref() {
            self.examined += 1;
            if !self.exclude.contains(&TxKey { rollup: self.rollup, hash }) {
                let payload = self.pool.get(&hash)?.payload.clone();
                return (body_len(&payload) <= room).then_some((hash, payload));
            }
        }
        None
    }

    /// The nonce of a sender's next transaction in this block.
    fn next_nonce(&self, sender: &Address) -> Option<u64> {
        let known = self.pool.sender(sender)?.next_nonce();
        Some(self.nonces.get(sender).map_or(known, |nonce| known.max(*nonce)))
    }

    fn take_leg(&mut self, tx: &Sequenced, hash: TxHash, payload: Bytes) {
        self.gas_left = self.gas_left.saturating_sub(tx.gas_limit);
        self.served += body_len(&payload) as u64;
        self.taken.push((hash, payload));
        let next = tx.nonce.saturating_add(1);
        self.nonces.insert(tx.sender, next);
        self.in_flight.insert(tx.sender);
        self.head = self.head.take().filter(|head| head.sender != tx.sender);
        self.next.extend(self.candidate(tx.sender, next));
    }
}

/// Bundles taken into a block.
struct Taking {
    left: Budget,
    /// Of each rollup, gas that bundles may still take before transactions have had theirs.
    gas: BTreeMap<RollupId, u64>,
    records: Vec<BundleRecord>,
    taken: HashSet<B256>,
}

impl Taking {
    /// What a bundle takes of a body, if each of its legs can come next.
    fn cost(&self, entry: &Entry, lanes: &BTreeMap<RollupId, Lane<'_>>) -> Option<Budget> {
        let mut cost = Budget { bytes: TX_PREFIX + entry.record_len, transactions: 1, segments: 0 };
        if self.records.is_empty() {
            cost = Budget { bytes: cost.bytes + SEGMENT_PREFIX, segments: 1, ..cost };
        }
        let mut before: Vec<&Leg> = Vec::with_capacity(entry.legs.len());
        for (leg, signed) in entry.legs.iter().zip(&entry.bundle.legs) {
            let (lane, tx) = (lanes.get(&leg.key.rollup)?, &leg.sequenced);
            let same = |other: &&&Leg| other.key.rollup == leg.key.rollup;
            let own = before.iter().filter(same).filter(|other| other.sequenced.sender == tx.sender).count() as u64;
            let gas: u64 = before.iter().filter(same).map(|other| other.sequenced.gas_limit).sum();
            if lane.exclude.contains(&leg.key)
                || lane.next_nonce(&tx.sender)?.checked_add(own)? != tx.nonce
                || effective_tip(tx.fee_cap, tx.tip_cap, lane.pool.base_fee()) < 0
                || gas.checked_add(tx.gas_limit)? > lane.gas_left
            {
                return None;
            }
            if lane.taken.is_empty() && before.iter().filter(same).count() == 0 {
                cost.bytes += SEGMENT_PREFIX;
                cost.segments += 1;
            }
            cost.bytes += body_len(&signed.transaction);
            cost.transactions += 1;
            before.push(leg);
        }
        Some(cost)
    }

    /// Whether what a bundle's legs may burn is within the bundles' part of each rollup's block.
    fn has_gas(&self, entry: &Entry) -> bool {
        let rollups: HashSet<RollupId> = entry.legs.iter().map(|leg| leg.key.rollup).collect();
        rollups.into_iter().all(|rollup| {
            let legs = entry.legs.iter().filter(|leg| leg.key.rollup == rollup);
            let need = legs.fold(0u64, |sum, leg| sum.saturating_add(leg.sequenced.gas_limit));
            self.gas.get(&rollup).is_none_or(|left| need <= *left)
        })
    }

    fn take(&mut self, entry: &Entry, cost: Budget, lanes: &mut BTreeMap<RollupId, Lane<'_>>) {
        self.left = less(self.left, cost);
        for (leg, signed) in entry.legs.iter().zip(&entry.bundle.legs) {
            if let Some(lane) = lanes.get_mut(&leg.key.rollup) {
                lane.take_leg(&leg.sequenced, leg.key.hash, signed.transaction.clone());
            }
            if let Some(gas) = self.gas.get_mut(&leg.key.rollup) {
                *gas = gas.saturating_sub(leg.sequenced.gas_limit);
            }
        }
        self.records.push(entry.record.clone());
        self.taken.insert(entry.id);
    }
}

fn fits(cost: Budget, left: Budget) -> bool {
    cost.bytes <= left.bytes && cost.transactions <= left.transactions && cost.segments <= left.segments
}

fn less(left: Budget, cost: Budget) -> Budget {
    Budget {
        bytes: left.bytes.saturating_sub(cost.bytes),
        transactions: left.transactions.saturating_sub(cost.transactions),
        segments: left.segments.saturating_sub(cost.segments),
    }
}

/// The part of a block that bundles may take before transactions have had theirs: a quarter.
const BUNDLES_PART: usize = 4;

impl State {
    /// Takes bundles that fit, oldest first: within `part` (or one), or with none within the whole.
    fn take_bundles(
        &self,
        taking: &mut Taking,
        lanes: &mut BTreeMap<RollupId, Lane<'_>>,
        mut part: Option<Budget>,
        may: &mut impl FnMut(&B256, &BundleRecord) -> bool,
    ) {
        let mut misfits = 0;
        for entry in self.bundles.iter() {
            if taking.left.transactions == 0 || taking.taken.contains(&entry.id) || !may(&entry.id, &entry.record) {
                continue;
            }
            let Some(cost) = taking.cost(entry, lanes) else { continue };
            let within = part.is_none_or(|part| taking.records.is_empty() || fits(cost, part) && taking.has_gas(entry));
            if !within || !fits(cost, taking.left) {
                misfits += 1;
                if misfits > MISFITS {
                    return;
                }
                continue;
            }
            taking.take(entry, cost, lanes);
            part = part.map(|part| less(part, cost));
        }
    }

    /// Segments within `budget`, sorted by rollup id, and how many transactions were looked at. `gas` is each rollup's
    /// [`switchyard_rollup_core::Admission::segment_gas_limit`].
    pub(crate) fn select(
        &self,
        budget: Budget,
        exclude: &HashSet<TxKey>,
        gas: &BTreeMap<RollupId, u64>,
        credit: u64,
        mut may: impl FnMut(&B256, &BundleRecord) -> bool,
    ) -> (Selection, usize) {
        let mut lanes = self.lanes(exclude, gas, credit);
        let left = Budget { bytes: budget.bytes.saturating_sub(BODY_PREFIX), ..budget };
        let quarter = |gas: &u64| gas / BUNDLES_PART as u64;
        let mut taking = Taking {
            left,
            gas: gas.iter().map(|(rollup, gas)| (*rollup, quarter(gas))).collect(),
            records: Vec::new(),
            taken: HashSet::new(),
        };
        let part = Budget {
            bytes: left.bytes / BUNDLES_PART,
            transactions: left.transactions / BUNDLES_PART,
            segments: left.segments,
        };
        self.take_bundles(&mut taking, &mut lanes, Some(part), &mut may);
        let most = lanes.values().map(|lane| lane.served).max().unwrap_or(0);
        let floor = most.saturating_sub(credit);
        let place = |lane: &Lane<'_>| Reverse((lane.served.max(floor), lane.rollup));
        let mut turns: BinaryHeap<_> = lanes.values().filter(|lane| lane.pool.len() > 0).map(place).collect();
        let mut left = taking.left;
        while left.transactions > 0
            && let Some(Reverse((served, rollup))) = turns.pop()
        {
            let Some(lane) = lanes.get_mut(&rollup) else { continue };
            let opens = lane.taken.is_empty();
            if opens && left.segments == 0 {
                continue;
            }
            let Some(room) = left.bytes.checked_sub(if opens { SEGMENT_PREFIX } else { 0 }) else { continue };
            let Some(transaction) = lane.pick(room) else { continue };
            let len = body_len(&transaction.1);
            left.bytes = room - len;
            left.transactions -= 1;
            left.segments -= usize::from(opens);
            lane.taken.push(transaction);
            turns.push(Reverse((served + len as u64, rollup)));
        }
        taking.left = left;
        self.take_bundles(&mut taking, &mut lanes, None, &mut may);
        let examined = lanes.values().map(|lane| lane.examined).sum();
        let served = lanes.into_values().filter(|lane| !lane.taken.is_empty());
        let selected = served.map(|lane| {
            let (hashes, transactions) = lane.taken.into_iter().unzip();
            Selected { segment: Segment { rollup: lane.rollup, transactions }, hashes }
        });
        (Selection { segments: selected.collect(), bundles: taking.records }, examined)
    }

    fn lanes<'a>(
        &'a self,
        exclude: &'a HashSet<TxKey>,
        gas: &BTreeMap<RollupId, u64>,
        credit: u64,
    ) -> BTreeMap<RollupId, Lane<'a>> {
        let mut in_flight: HashMap<RollupId, InFlight> = HashMap::new();
        for key in exclude {
            let rollup = in_flight.entry(key.rollup).or_default();
            rollup.transactions += 1;
            rollup.bytes += self.payload(key).map_or(0, |payload| body_len(payload) as u64);
            if let Some(tx) = self.sequenced(key) {
                let next = rollup.next_nonces.entry(tx.sender).or_default();
                *next = tx.nonce.saturating_add(1).max(*next);
            }
        }
        let (floor, nothing) = (self.floor(credit), InFlight::default());
        let lane = |(rollup, pool): (&RollupId, &'a Pool)| {
            let in_flight = in_flight.get(rollup).unwrap_or(&nothing);
            let gas = gas.get(rollup).copied().unwrap_or(u64::MAX);
            let mut lane = Lane::new(*rollup, pool, exclude, in_flight, gas, !self.bundles.is_empty());
            lane.served += pool.served.max(floor);
            (*rollup, lane)
        };
        self.pools.iter().map(lane).collect()
    }

    /// What a rollup counts as having been served at least.
    pub(crate) fn floor(&self, credit: u64) -> u64 {
        self.pools.values().map(|pool| pool.served).max().unwrap_or(0).saturating_sub(credit)
    }
}
