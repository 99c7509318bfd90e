//! Bundles: how far they have come, and bringing the hub's decisions to the vaults.

use crate::{
    Anchor, Delivery, Failed, Hub,
    desk::End,
    queue::pause,
    vault::{ITEMS_GAS, MOVE_GAS, Room, VaultCall, Verdict, vault_state},
};
use alloy_primitives::B256;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use switchyard_bridge_contracts::Prepare;
use switchyard_bridge_core::{
    BundleRecord, BundleState, BundleStatus, Checkpoint, HubBundle, HubLeaf, LegState, LegStatus, VaultState,
};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::{EvmChain, ExecutedBlock};

/// Leaves of the hub's accumulator looked at in one round.
const SCAN_MAX: u64 = 4096;
/// Legs that wait here; decisions above wait in the accumulator.
const WAITING_MAX: usize = 65_536;
/// Looks in a row at a settled leg of which nothing goes through, each after a longer pause; anyone may go on.
const LOOKS_MAX: u32 = 6;
/// Gas that an item is given at the most, where it needs more than it is promised.
const RAISED_GAS_MAX: u64 = 5_000_000;

/// A bundle whose legs are in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHub {
    /// How far it has come.
    pub bundle: HubBundle,
    /// What the log has of it.
    pub record: BundleRecord,
}

/// How far a bundle whose legs are in the log has come, with its legs on the rollups that run here.
pub fn bundle_status(
    hub: &dyn Hub,
    chains: &BTreeMap<RollupId, Arc<dyn EvmChain>>,
    id: B256,
) -> Result<Option<BundleStatus>, Failed> {
    let Some(OnHub { bundle, record, .. }) = hub.bundle(&id)? else { return Ok(None) };
    let mut legs = Vec::with_capacity(record.legs.len());
    for (index, leg) in (0u8..).zip(&record.legs) {
        let chain = chains.get(&leg.rollup);
        let vault = chain.map(|chain| vault_state(&**chain, leg.rollup, &id, index)).transpose()?;
        let voted = match &bundle.state {
            BundleState::Open { legs } => legs.get(usize::from(index)).is_some_and(|(_, yes)| *yes),
            BundleState::Decided { committed, .. } => *committed,
        };
        legs.push(LegStatus { leg: *leg, voted, vault });
    }
    Ok(Some(BundleStatus { bundle, legs }))
}

/// What anyone can send for a decided bundle to be carried out; nothing where it has to wait, or is.
pub fn settlement(
    hub: &dyn Hub,
    chains: &BTreeMap<RollupId, Arc<dyn EvmChain>>,
    id: B256,
) -> Result<Option<Vec<Delivery>>, Failed> {
    let Some(on_hub) = hub.bundle(&id)? else { return Ok(None) };
    let BundleState::Decided { committed, height } = on_hub.bundle.state else { return Ok(Some(Vec::new())) };
    let Some(leaf) = decision_leaf(hub, &id, height)? else { return Ok(Some(Vec::new())) };
    let mut calls = Vec::new();
    for (index, leg) in (0u8..).zip(&on_hub.record.legs) {
        let Some(chain) = chains.get(&leg.rollup) else { continue };
        let mut waiting = Waiting::decided(&on_hub, index, committed, height);
        let vault = vault_state(&**chain, leg.rollup, &id, index)?;
        if vault.state != LegState::None
            && let Some(anchor) = Anchor::newest(hub, &**chain)?
            && waiting.learn(hub, &**chain, leg.rollup, (leaf, index))?
        {
            let call = waiting.call(hub, (&**chain, leg.rollup), leaf, vault, &anchor)?;
            let is_settle = vault.state == LegState::Prepared;
            calls.extend(call.filter(|call| is_settle || call.items != 0).map(|call| call.delivery()));
        }
    }
    Ok(Some(calls))
}

/// The index of a decision's leaf, which the hub block of a height has added.
fn decision_leaf(hub: &dyn Hub, id: &B256, height: u64) -> Result<Option<u64>, Failed> {
    for index in hub.count_at(height.saturating_sub(1))?..hub.count_at(height)? {
        if matches!(hub.leaf(index)?, Some(HubLeaf::Decision { bundle, .. }) if bundle == *id) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The terms of a leg, by the transaction that has prepared it in some block.
fn prepared_in(block: &ExecutedBlock, bundle: &B256, leg: u8) -> Option<Prepare> {
    let mut rows = block.transactions.iter().zip(&block.receipts);
    rows.find_map(|(tx, receipt)| Prepare::made(tx, receipt.logs(), bundle, leg))
}

/// The terms of a leg that its rollup has prepared and a leaf of the hub is about: from the block of its bundle's transaction; or, where
/// another transaction has prepared it, from the block whose certified checkpoint told of that, the leaf of which comes before.
fn terms(
    hub: &dyn Hub,
    chain: &dyn EvmChain,
    rollup: RollupId,
    (bundle, tx): (&B256, Option<B256>),
    (leaf, leg): (u64, u8),
) -> Result<Option<Prepare>, Failed> {
    let failed = |source| Failed::Rollup { rollup, source };
    let block = |number: u64| chain.block_by_number(number).map_err(failed);
    if let Some(tx) = tx
        && let Some((number, _)) = chain.locate(tx).map_err(failed)?
        && let Some(found) = block(number)?.and_then(|block| prepared_in(&block, bundle, leg))
    {
        return Ok(Some(found));
    }
    let told_by = told_by(hub, rollup, leaf)?.map(|checkpoint| block(checkpoint.number)).transpose()?.flatten();
    Ok(told_by.and_then(|block| prepared_in(&block, bundle, leg)))
}

/// The newest certified checkpoint of a rollup before a leaf of the hub.
fn told_by(hub: &dyn Hub, rollup: RollupId, leaf: u64) -> Result<Option<Checkpoint>, Failed> {
    for index in (leaf.saturating_sub(SCAN_MAX)..leaf).rev() {
        if let Some(HubLeaf::Checkpoint(checkpoint)) = hub.leaf(index)?
            && checkpoint.rollup == rollup
        {
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

/// A leg that is decided or released.
#[derive(Clone, Debug)]
struct Waiting {
    bundle: B256,
    /// The leg's transaction in the bundle; none where it is a release.
    tx: Option<B256>,
    /// What it was prepared with; none until that was looked up.
    terms: Option<Prepare>,
    verdict: Verdict,
    /// Of the hub block that holds the leg.
    included: u64,
    /// The items of what is under way, and the gas for them.
    sent: Option<(u16, u64)>,
    /// Gas for items that is left to be spent.
    gas_left: u64,
    /// Items that a transaction of this relayer's has carried out, or has failed to.
    executed: u16,
    /// Items that were looked at in this turn: the others come first.
    seen: u16,
    /// Looks and transactions since the last one that has changed something.
    in_vain: u32,
    not_before: Option<Instant>,
}

impl Waiting {
    fn released(bundle: B256, included: u64) -> Self {
        Self {
            bundle,
            tx: None,
            terms: None,
            verdict: Verdict::Released,
            included,
            sent: None,
            gas_left: ITEMS_GAS,
            executed: 0,
            seen: 0,
            in_vain: 0,
            not_before: None,
        }
    }

    fn decided(OnHub { bundle, record }: &OnHub, leg: u8, committed: bool, height: u64) -> Self {
        let tx = record.legs.get(usize::from(leg)).map(|leg| leg.tx);
        let verdict = Verdict::Decided { committed, height };
        Self { tx, verdict, ..Self::released(record.id(), bundle.included) }
    }

    /// Looks up the terms, if need be; whether they are known now.
    fn learn(&mut self, hub: &dyn Hub, chain: &dyn EvmChain, rollup: RollupId, leg: (u64, u8)) -> Result<bool, Failed> {
        if self.terms.is_none() {
            self.terms = terms(hub, chain, rollup, (&self.bundle, self.tx), leg)?;
        }
        Ok(self.terms.is_some())
    }

    /// What brings the leg further; none where nothing does, its terms are not known, or the anchor has not seen the decision.
    fn call(
        &mut self,
        hub: &dyn Hub,
        (chain, rollup): (&dyn EvmChain, RollupId),
        leaf: u64,
        vault: VaultState,
        anchor: &Anchor,
    ) -> Result<Option<VaultCall>, Failed> {
        let (items, each, gas) = (self.turn(vault), self.raised_gas(), self.gas_left);
        let room = Room { items, each, gas, block_gas: chain.head().header.gas_limit };
        let Some(terms) = &self.terms else { return Ok(None) };
        match vault.state {
            LegState::Prepared => VaultCall::settle(hub, rollup, terms, self.verdict, leaf, anchor, room),
            LegState::Committed | LegState::Aborted => Ok(Some(VaultCall::retry(rollup, terms, room))),
            LegState::None => Ok(None),
        }
    }

    /// The items whose turn it is. Where `settle` was in vain, it goes without any: they can be carried out later.
    fn turn(&mut self, vault: VaultState) -> u16 {
        if vault.state == LegState::Prepared && self.in_vain > 0 {
            return 0;
        }
        if vault.held & !self.seen == 0 {
            self.seen = 0;
        }
        vault.held & !self.seen
    }

    /// Gas for each item, where that is more than it is promised.
    fn raised_gas(&self) -> u64 {
        if self.in_vain == 0 { 0 } else { (MOVE_GAS << self.in_vain.min(8)).min(RAISED_GAS_MAX) }
    }

    /// A look or a transaction has changed nothing: the next one waits.
    fn was_in_vain(&mut self, now: Instant) {
        self.not_before = now.checked_add(pause(self.in_vain));
        self.in_vain = self.in_vain.saturating_add(1);
    }

    /// Whether there is nothing more to do for a leg in this state, on a rollup that has come so far.
    fn is_over(&self, vault: VaultState, hub_height: u64) -> bool {
        match vault.state {
            // Not prepared, and not executed either.
            LegState::None => hub_height >= self.included,
            LegState::Prepared => false,
            LegState::Committed | LegState::Aborted => vault.held == 0 || self.is_hopeless(vault),
        }
    }

    /// Whether the relayer leaves what is held to others: an item has failed that went through in the simulation, or too many looks
    /// were in vain.
    fn is_hopeless(&self, vault: VaultState) -> bool {
        vault.held & self.executed != 0 || self.in_vain >= LOOKS_MAX
    }
}

/// What is to be done next for a leg.
pub(crate) enum Next {
    /// Nothing, now or ever.
    Nothing,
    /// It waits for the rollup to see more of the hub.
    Blind,
    /// To try out a call.
    Try(Box<Attempt>),
}

/// A call to be tried out.
pub(crate) struct Attempt {
    pub(crate) bundle: B256,
    /// The leg before it.
    pub(crate) before: VaultState,
    pub(crate) call: VaultCall,
}

/// Decided legs of one rollup that are not settled there. A leg is named by its decision's leaf and its index.
pub(crate) struct Settling {
    rollup: RollupId,
    scanned: Option<u64>,
    waiting: BTreeMap<(u64, u8), Waiting>,
}

impl Settling {
    pub(crate) fn new(rollup: RollupId) -> Self {
        Self { rollup, scanned: None, waiting: BTreeMap::new() }
    }

    /// Looks at the hub's newer leaves.
    pub(crate) fn scan(&mut self, now: Instant, hub: &dyn Hub, delay: Duration) -> Result<(), Failed> {
        let mut index = match self.scanned {
            Some(scanned) => scanned,
            None => hub.recent()?,
        };
        let end = hub.leaves().min(index.saturating_add(SCAN_MAX));
        while index < end && self.waiting.len() < WAITING_MAX {
            for (leg, waiting) in self.told(hub, index)? {
                let not_before = now.checked_add(delay).filter(|_| !delay.is_zero());
                self.waiting.insert((index, leg), Waiting { not_before, ..waiting });
            }
            index += 1;
            self.scanned = Some(index);
        }
        self.scanned = Some(index);
        Ok(())
    }

    /// The legs here that a leaf is about.
    fn told(&self, hub: &dyn Hub, index: u64) -> Result<Vec<(u8, Waiting)>, Failed> {
        Ok(match hub.leaf(index)? {
            Some(HubLeaf::Decision { bundle, committed, height }) => {
                let Some(on_hub) = hub.bundle(&bundle)? else { return Ok(Vec::new()) };
                let legs = (0u8..).zip(&on_hub.record.legs);
                let here = legs.filter(|(_, leg)| leg.rollup == self.rollup);
                here.map(|(leg, _)| (leg, Waiting::decided(&on_hub, leg, committed, height))).collect()
            }
            Some(HubLeaf::Release { bundle, rollup, leg }) if rollup == self.rollup => {
                let included = told_by(hub, rollup, index)?.map_or(0, |checkpoint| checkpoint.hub_height);
                vec![(leg, Waiting::released(bundle, included))]
            }
            _ => Vec::new(),
        })
    }

    /// Up to `limit` legs that are due, by turns of the newest decisions and of the oldest.
    pub(crate) fn due(&self, now: Instant, limit: usize) -> Vec<(u64, u8)> {
        let is_due = |waiting: &Waiting| waiting.sent.is_none() && waiting.not_before.is_none_or(|at| at <= now);
        let due = self.waiting.iter().filter(|(_, waiting)| is_due(waiting)).map(|(leg, _)| *leg);
        let mut due: VecDeque<(u64, u8)> = due.collect();
        let next = |turn: usize| if turn.is_multiple_of(2) { due.pop_back() } else { due.pop_front() };
        (0..limit).map_while(next).collect()
    }

    /// What is to be done for a leg. One that is over is forgotten.
    pub(crate) fn next(
        &mut self,
        hub: &dyn Hub,
        chain: &dyn EvmChain,
        anchor: Option<&Anchor>,
        (leaf, leg): (u64, u8),
    ) -> Result<Next, Failed> {
        let Some(waiting) = self.waiting.get_mut(&(leaf, leg)) else { return Ok(Next::Nothing) };
        let vault = vault_state(chain, self.rollup, &waiting.bundle, leg)?;
        let is_there = vault.state != LegState::None;
        // Of what was prepared before this node's state began nothing is known here: that is another relayer's.
        if waiting.is_over(vault, chain.head().hub_height)
            || is_there && !waiting.learn(hub, chain, self.rollup, (leaf, leg))?
        {
            if is_there && vault.held != 0 {
                let (rollup, bundle, held) = (self.rollup, waiting.bundle, vault.held);
                tracing::warn!(%rollup, %bundle, leg, held, "items of a leg fail or are not known here: the relayer leaves them to others");
            }
            self.waiting.remove(&(leaf, leg));
            return Ok(Next::Nothing);
        }
        let Some(anchor) = anchor else { return Ok(Next::Blind) };
        let call = waiting.call(hub, (chain, self.rollup), leaf, vault, anchor)?;
        let attempt = |call| Next::Try(Box::new(Attempt { bundle: waiting.bundle, before: vault, call }));
        Ok(call.map_or(Next::Blind, attempt))
    }

    /// What is to be sent, after a call was tried out that leaves the leg so, or reverts: `settle` in any case where it goes through,
    /// with the items that do; `retry` where items do.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        leg: (u64, u8),
        attempt: Box<Attempt>,
        after: Option<VaultState>,
    ) -> Option<VaultCall> {
        let waiting = self.waiting.get_mut(&leg)?;
        let Attempt { before, mut call, .. } = *attempt;
        waiting.seen |= call.items;
        let done = after.map_or(0, |after| call.items & !after.held);
        if after.is_none() || before.state != LegState::Prepared && done == 0 {
            let (rollup, bundle, attempts) = (self.rollup, waiting.bundle, waiting.in_vain + 1);
            tracing::warn!(%rollup, %bundle, leg = leg.1, attempts, "nothing brings a leg further: the relayer will look again");
            waiting.was_in_vain(now);
            return None;
        }
        call.only(done);
        Some(call)
    }

    /// A call was sent: nothing else is sent for the leg until it is decided.
    pub(crate) fn sent(&mut self, leg: (u64, u8), call: &VaultCall) {
        if let Some(waiting) = self.waiting.get_mut(&leg) {
            waiting.sent = Some((call.items, call.items_gas()));
        }
    }

    /// What was sent has ended. What cannot be in a block is given up: what brings it further will be as large then.
    pub(crate) fn ended(&mut self, now: Instant, leg: (u64, u8), end: End) {
        let Some(waiting) = self.waiting.get_mut(&leg) else { return };
        let (items, gas) = waiting.sent.take().unwrap_or_default();
        if matches!(end, End::Done | End::Failed) {
            waiting.gas_left = waiting.gas_left.saturating_sub(gas);
        }
        match end {
            End::Done => {
                waiting.executed |= items;
                waiting.in_vain = 0;
            }
            End::Failed => waiting.was_in_vain(now),
            End::Unsent => {}
            End::Refused => {
                self.waiting.remove(&leg);
            }
        }
    }
}
