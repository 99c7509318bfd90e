//! Bundles: how far they have come, and bringing the hub's decisions to the vaults.

use crate::{
    Anchor, Delivery, Failed, Hub,
    desk::End,
    proof::{self, Room},
    queue::pause,
};
use alloy_primitives::{B256, U256, keccak256};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use switchyard_bridge_contracts::Prepare;
use switchyard_bridge_core::{
    BundleRecord, BundleState, BundleStatus, Checkpoint, HubBundle, HubLeaf, LegState, LegStatus, VaultState,
    predeploys,
};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::{EvmChain, ExecutedBlock};

/// Leaves of the hub's accumulator looked at in one round.
const SCAN_MAX: u64 = 4096;
/// Legs that wait here; decisions above wait in the accumulator.
const WAITING_MAX: usize = 65_536;
/// Attempts to carry out items that fail; anyone may go on.
const ATTEMPTS_MAX: u32 = 3;

/// A bundle whose legs are in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHub {
    /// How far it has come.
    pub bundle: HubBundle,
    /// What the log has of it.
    pub record: BundleRecord,
}

/// A leg's state in its rollup's vault, after the newest block.
pub(crate) fn vault_state(chain: &dyn EvmChain, rollup: RollupId, id: &B256, leg: u8) -> Result<VaultState, Failed> {
    // `states`, the contract's first variable: a mapping of mappings to `status u8, held u16`, packed from the right.
    let of_bundle = keccak256([id.as_slice(), B256::ZERO.as_slice()].concat());
    let slot = keccak256([B256::from(U256::from(leg)), of_bundle].concat());
    let number = chain.head().header.number;
    let word = chain.storage(number, predeploys::ATOMIC_VAULT, slot);
    let [low, ..] = *word.map_err(|source| Failed::Rollup { rollup, source })?.as_limbs();
    let held = u16::try_from((low >> 8) & 0xffff).unwrap_or(0);
    let state = match low & 0xff {
        0 => LegState::None,
        1 => LegState::Prepared,
        2 => LegState::Committed,
        _ => LegState::Aborted,
    };
    Ok(VaultState { state, held })
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
            calls.extend(waiting.call(hub, (&**chain, leg.rollup), leaf, vault, &anchor)?);
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

/// What the hub says of a leg.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// Its bundle is decided, in the block of this height.
    Decided { committed: bool, height: u64 },
    /// It was prepared outside its bundle.
    Released,
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
    attempts: u32,
    is_sent: bool,
    not_before: Option<Instant>,
}

impl Waiting {
    fn released(bundle: B256, included: u64) -> Self {
        let verdict = Verdict::Released;
        Self { bundle, tx: None, terms: None, verdict, included, attempts: 0, is_sent: false, not_before: None }
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
        &self,
        hub: &dyn Hub,
        (chain, rollup): (&dyn EvmChain, RollupId),
        leaf: u64,
        vault: VaultState,
        anchor: &Anchor,
    ) -> Result<Option<Delivery>, Failed> {
        let Some(terms) = &self.terms else { return Ok(None) };
        let room = Room { items: vault.held, block_gas: chain.head().header.gas_limit };
        match vault.state {
            LegState::Prepared => proof::settle_call(hub, rollup, terms, self.verdict, room, leaf, anchor),
            LegState::Committed | LegState::Aborted => Ok(proof::retry_call(rollup, terms, room)),
            LegState::None => Ok(None),
        }
    }

    /// Whether there is nothing more to do for a leg in this state, on a rollup that has come so far.
    fn is_over(&self, vault: VaultState, hub_height: u64) -> bool {
        match vault.state {
            // Not prepared, and not executed either.
            LegState::None => hub_height >= self.included,
            LegState::Prepared => false,
            LegState::Committed | LegState::Aborted => vault.held == 0 || self.attempts >= ATTEMPTS_MAX,
        }
    }
}

/// A leg, and the call that brings it further.
type Due = ((u64, u8), Delivery);

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

    /// Up to `limit` calls that are due, half of them for the newest decisions, and whether some wait for the rollup to see more
    /// of the hub. What is over is forgotten.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        hub: &dyn Hub,
        chain: &dyn EvmChain,
        anchor: Option<&Anchor>,
        limit: usize,
    ) -> Result<(Vec<Due>, bool), Failed> {
        let hub_height = chain.head().hub_height;
        let is_due = |waiting: &Waiting| !waiting.is_sent && waiting.not_before.is_none_or(|at| at <= now);
        let due = self.waiting.iter().filter(|(_, waiting)| is_due(waiting)).map(|(leg, _)| *leg);
        let due: Vec<(u64, u8)> = due.collect();
        let (old, new) = due.split_at(due.len() / 2);
        let mut chosen: Vec<(u64, u8)> = new.iter().rev().take(limit - limit / 2).copied().collect();
        chosen.extend(old.iter().take(limit - chosen.len()));
        chosen.extend(new.iter().rev().skip(limit - limit / 2).take(limit - chosen.len()));
        let (mut calls, mut blind) = (Vec::new(), false);
        for (leaf, leg) in chosen {
            let Some(waiting) = self.waiting.get_mut(&(leaf, leg)) else { continue };
            let vault = vault_state(chain, self.rollup, &waiting.bundle, leg)?;
            let is_there = vault.state != LegState::None;
            // Of what was prepared before this node's state began nothing is known here: that is another relayer's.
            if waiting.is_over(vault, hub_height) || is_there && !waiting.learn(hub, chain, self.rollup, (leaf, leg))? {
                self.waiting.remove(&(leaf, leg));
                continue;
            }
            let call = anchor.map(|anchor| waiting.call(hub, (chain, self.rollup), leaf, vault, anchor)).transpose()?;
            match call.flatten() {
                Some(call) => calls.push(((leaf, leg), call)),
                None => blind = true,
            }
        }
        Ok((calls, blind))
    }

    /// A call was sent: nothing is sent for the leg until it is decided.
    pub(crate) fn sent(&mut self, leg: (u64, u8)) {
        if let Some(waiting) = self.waiting.get_mut(&leg) {
            waiting.attempts += 1;
            waiting.is_sent = true;
        }
    }

    /// What was sent has ended. What cannot be in a block is given up: what brings it further will be as large then.
    pub(crate) fn ended(&mut self, now: Instant, leg: (u64, u8), end: End) {
        if end == End::Refused {
            self.waiting.remove(&leg);
        } else if let Some(waiting) = self.waiting.get_mut(&leg) {
            let pause = match end {
                End::Done => None,
                End::Failed => Some(pause(waiting.attempts.saturating_sub(1))),
                End::Unsent | End::Refused => {
                    waiting.attempts = waiting.attempts.saturating_sub(1);
                    None
                }
            };
            waiting.is_sent = false;
            waiting.not_before = pause.and_then(|pause| now.checked_add(pause));
        }
    }
}
