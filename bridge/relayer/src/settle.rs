//! Bundles: how far they have come, and bringing the hub's decisions to the vaults.

use crate::{Anchor, Delivery, Failed, Hub, proof};
use alloy_primitives::{B256, U256, keccak256};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use switchyard_bridge_contracts::Prepare;
use switchyard_bridge_core::{
    BundleRecord, BundleState, BundleStatus, HubBundle, HubLeaf, LegState, LegStatus, VaultState, predeploys,
};
use switchyard_primitives::{Bytes, RollupId};
use switchyard_rollup_core::evm::EvmChain;

/// Leaves of the hub's accumulator looked at in one round.
const SCAN_MAX: u64 = 4096;
/// Legs that wait here; decisions above wait in the accumulator.
const WAITING_MAX: usize = 65_536;
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Attempts to carry out items that fail; anyone may go on.
const ATTEMPTS_MAX: u32 = 3;

/// A bundle whose legs are in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHub {
    /// How far it has come.
    pub bundle: HubBundle,
    /// What the log has of it.
    pub record: BundleRecord,
    /// The legs' transactions; none for one that is not kept here any more.
    pub transactions: Vec<Option<Bytes>>,
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
    for (index, (leg, transaction)) in (0u8..).zip(on_hub.record.legs.iter().zip(&on_hub.transactions)) {
        let Some(chain) = chains.get(&leg.rollup) else { continue };
        let Some(terms) = terms(index, transaction.as_ref()) else { continue };
        let waiting = Waiting::new(terms, Verdict::Decided { committed, height }, on_hub.bundle.included);
        let vault = vault_state(&**chain, leg.rollup, &id, index)?;
        if let Some(anchor) = Anchor::newest(hub, &**chain)? {
            calls.extend(waiting.call(hub, leg.rollup, leaf, vault, &anchor)?);
        }
    }
    Ok(Some(calls))
}

/// What anyone can send to have a leg given back that was prepared outside its bundle; `leaf` is the index of the hub's leaf that
/// releases it. None where its vault does not hold it, or the rollup has not seen the leaf.
pub fn release(hub: &dyn Hub, chain: &dyn EvmChain, terms: &Prepare, leaf: u64) -> Result<Option<Delivery>, Failed> {
    let rollup = terms.leg.rollup;
    let vault = vault_state(chain, rollup, &terms.bundle.id(), terms.index)?;
    let waiting = Waiting::new(terms.clone(), Verdict::Released, 0);
    let call = Anchor::newest(hub, chain)?.map(|anchor| waiting.call(hub, rollup, leaf, vault, &anchor));
    Ok(call.transpose()?.flatten())
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

/// What a leg's transaction tells the vault; none where another contract does, whose users settle themselves.
fn terms(index: u8, transaction: Option<&Bytes>) -> Option<Prepare> {
    let prepare = Prepare::of_transaction(usize::from(index), transaction?).ok()??;
    (prepare.index == index).then_some(prepare)
}

/// The terms of a leg that was prepared outside its bundle, whose release is a leaf of the hub: from the rollup's block whose certified
/// checkpoint told of it, the leaf of which comes before.
fn stray_terms(
    hub: &dyn Hub,
    chain: &dyn EvmChain,
    rollup: RollupId,
    leaf: u64,
    (bundle, leg): (B256, u8),
) -> Result<Option<Prepare>, Failed> {
    for index in (leaf.saturating_sub(SCAN_MAX)..leaf).rev() {
        let Some(HubLeaf::Checkpoint(checkpoint)) = hub.leaf(index)? else { continue };
        if checkpoint.rollup != rollup {
            continue;
        }
        let block = chain.block_by_number(checkpoint.number);
        let Some(block) = block.map_err(|source| Failed::Rollup { rollup, source })? else { return Ok(None) };
        let mut prepared = block.transactions.iter().filter_map(|tx| Prepare::of(usize::from(leg), tx).ok()?);
        return Ok(prepared.find(|prepare| prepare.index == leg && prepare.bundle.id() == bundle));
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
    terms: Prepare,
    verdict: Verdict,
    /// Of the hub block that holds the leg.
    included: u64,
    attempts: u32,
    not_before: Option<Instant>,
}

impl Waiting {
    fn new(terms: Prepare, verdict: Verdict, included: u64) -> Self {
        Self { terms, verdict, included, attempts: 0, not_before: None }
    }

    /// What brings the leg further; none where nothing does, or the anchor has not seen the decision.
    fn call(
        &self,
        hub: &dyn Hub,
        rollup: RollupId,
        leaf: u64,
        vault: VaultState,
        anchor: &Anchor,
    ) -> Result<Option<Delivery>, Failed> {
        match vault.state {
            LegState::Prepared => proof::settle_call(hub, rollup, &self.terms, self.verdict, vault.held, leaf, anchor),
            LegState::Committed | LegState::Aborted if vault.held != 0 => {
                Ok(Some(proof::retry_call(rollup, &self.terms, vault.held)))
            }
            _ => Ok(None),
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
    pub(crate) fn scan(&mut self, hub: &dyn Hub, chain: &dyn EvmChain, delay: Duration) -> Result<(), Failed> {
        let mut index = match self.scanned {
            Some(scanned) => scanned,
            None => hub.recent()?,
        };
        let end = hub.leaves().min(index.saturating_add(SCAN_MAX));
        while index < end && self.waiting.len() < WAITING_MAX {
            for (leg, waiting) in self.told(hub, chain, index)? {
                let not_before = Instant::now().checked_add(delay).filter(|_| !delay.is_zero());
                self.waiting.insert((index, leg), Waiting { not_before, ..waiting });
            }
            index += 1;
            self.scanned = Some(index);
        }
        self.scanned = Some(index);
        Ok(())
    }

    /// The legs here that a leaf is about.
    fn told(&self, hub: &dyn Hub, chain: &dyn EvmChain, index: u64) -> Result<Vec<(u8, Waiting)>, Failed> {
        Ok(match hub.leaf(index)? {
            Some(HubLeaf::Decision { bundle, committed, height }) => {
                let Some(OnHub { bundle, record, transactions }) = hub.bundle(&bundle)? else { return Ok(Vec::new()) };
                let legs = (0u8..).zip(record.legs.iter().zip(&transactions));
                let here = legs.filter(|(_, (leg, _))| leg.rollup == self.rollup);
                let waiting = |terms| Waiting::new(terms, Verdict::Decided { committed, height }, bundle.included);
                here.filter_map(|(leg, (_, tx))| Some((leg, waiting(terms(leg, tx.as_ref())?)))).collect()
            }
            Some(HubLeaf::Release { bundle, rollup, leg }) if rollup == self.rollup => {
                let terms = stray_terms(hub, chain, rollup, index, (bundle, leg))?;
                terms.map(|terms| (leg, Waiting::new(terms, Verdict::Released, 0))).into_iter().collect()
            }
            _ => Vec::new(),
        })
    }

    /// Up to `limit` calls that are due, half of them for the newest decisions, and whether some wait for the rollup to see more
    /// of the hub. What is over is forgotten.
    pub(crate) fn due(
        &mut self,
        hub: &dyn Hub,
        chain: &dyn EvmChain,
        anchor: Option<&Anchor>,
        limit: usize,
    ) -> Result<(Vec<Due>, bool), Failed> {
        let (now, hub_height) = (Instant::now(), chain.head().hub_height);
        let is_due = |waiting: &Waiting| waiting.not_before.is_none_or(|at| at <= now);
        let due = self.waiting.iter().filter(|(_, waiting)| is_due(waiting)).map(|(leg, _)| *leg);
        let due: Vec<(u64, u8)> = due.collect();
        let (old, new) = due.split_at(due.len() / 2);
        let mut chosen: Vec<(u64, u8)> = new.iter().rev().take(limit - limit / 2).copied().collect();
        chosen.extend(old.iter().take(limit - chosen.len()));
        chosen.extend(new.iter().rev().skip(limit - limit / 2).take(limit - chosen.len()));
        let (mut calls, mut blind) = (Vec::new(), false);
        for (leaf, leg) in chosen {
            let Some(waiting) = self.waiting.get(&(leaf, leg)) else { continue };
            let vault = vault_state(chain, self.rollup, &waiting.terms.bundle.id(), leg)?;
            if waiting.is_over(vault, hub_height) {
                self.waiting.remove(&(leaf, leg));
                continue;
            }
            let call = anchor.map(|anchor| waiting.call(hub, self.rollup, leaf, vault, anchor)).transpose()?;
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
            waiting.not_before = Instant::now().checked_add(PAUSE_MAX);
        }
    }

    /// What was sent is decided.
    pub(crate) fn decided(&mut self, leg: (u64, u8), success: bool) {
        if let Some(waiting) = self.waiting.get_mut(&leg) {
            let pause = Duration::from_secs(1 << waiting.attempts.min(9)).min(PAUSE_MAX);
            waiting.not_before = if success { None } else { Instant::now().checked_add(pause) };
        }
    }
}
