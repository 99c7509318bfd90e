//! Operators' signatures on their way into a certificate.

use super::{echo::Echo, verdicts::Words};
use crate::{
    hub::HubStates,
    metrics::{Metrics, ReasonLabel},
};
use alloy_primitives::B256;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};
use switchyard_bridge_core::{
    Attestation, AttestationConflict, BridgeRecord, BridgeState, Certificate, CertifiedCheckpoint, Checkpoint,
    SystemState, Vote, votes_root,
};
use switchyard_consensus_core::keys::{aggregate, verify_aggregate};
use switchyard_primitives::{Bytes, RollupId, SignerBitmap};
use tokio::sync::watch;

/// So many of a rollup's blocks above the newest certified one are collected; operators attest no further.
pub const WINDOW: u64 = 128;
/// So many of a rollup's blocks below the newest certified one are remembered with their signatures: who then says something else
/// has contradicted itself.
pub(super) const KEPT: u64 = 32;
/// Votes that one operator may have waiting here, over all rollups: a checkpoint with more of them is the first to go.
const VOTES_PER_OPERATOR: usize = 64 * 1024;
/// Hub blocks for which an operator is not heard that has sent what it has not signed. An honest one never does.
pub(super) const MUTED: u64 = 256;
/// Bytes of one certificate, give or take a checkpoint with its votes.
const CERTIFICATE_BYTES: usize = 48 << 10;

/// What operators have said of blocks that are not certified yet. Signatures are not checked one by one: whoever makes a block
/// checks the sum, and looks for the bad ones if it does not hold.
pub struct Pool {
    pub(super) hub: HubStates,
    waiting: Mutex<Waiting>,
    pub(super) verdicts: Mutex<Words>,
    pub(super) conflicts: Mutex<VecDeque<AttestationConflict>>,
    pub(super) echo: Mutex<Echo>,
    /// Operators that have sent what they have not signed, and the height at which they are heard again.
    muted: Mutex<BTreeMap<B256, u64>>,
    /// Changes when a certificate or a verdict can be made.
    pub(super) ready: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Waiting {
    slots: BTreeMap<(RollupId, u64), Slot>,
    /// Votes of each operator.
    votes: HashMap<B256, usize>,
}

impl Waiting {
    /// Forgets blocks far below what is certified, and the votes of those that are near.
    fn forget_old(&mut self, bridge: &BridgeState) {
        let Self { slots, votes } = self;
        slots.retain(|(rollup, number), slot| {
            let Some(Some(next)) = bridge.next_number(*rollup) else { return true };
            if *number < next {
                slot.forget_votes(votes);
            }
            number.saturating_add(KEPT) >= next
        });
    }
}

/// One rollup block.
#[derive(Default)]
struct Slot {
    /// What each operator has said of it, first.
    said: BTreeMap<B256, B256>,
    /// By the checkpoint's hash.
    candidates: BTreeMap<B256, Candidate>,
    /// The certified checkpoint's hash, once this node has seen the certificate.
    certified: Option<B256>,
}

struct Candidate {
    checkpoint: Checkpoint,
    votes: Arc<Vec<Vote>>,
    signatures: BTreeMap<B256, [u8; 96]>,
}

impl Candidate {
    /// What was signed, without the votes.
    fn words(&self) -> impl Iterator<Item = Attestation> {
        let word = |(operator, signature): (&B256, &[u8; 96])| Attestation {
            operator: *operator,
            checkpoint: self.checkpoint,
            votes: Vec::new(),
            signature: *signature,
        };
        self.signatures.iter().map(word)
    }

    /// Who of the rollup's attesters has signed, if their stake is a quorum.
    fn quorum(&self, hub: &SystemState, bridge: &BridgeState) -> Option<(SignerBitmap, Vec<[u8; 96]>)> {
        let attesters = bridge.attesters(hub, self.checkpoint.rollup);
        let (mut total, mut found, mut positions, mut parts) = (0, 0, Vec::new(), Vec::new());
        for (position, (operator, _, stake)) in (0..).zip(&attesters) {
            total += u128::from(*stake);
            if let Some(signature) = self.signatures.get(operator) {
                found += u128::from(*stake);
                positions.push(position);
                parts.push(*signature);
            }
        }
        let seats = u32::try_from(attesters.len()).ok()?;
        BridgeState::is_quorum(found, total).then(|| (SignerBitmap::new(seats, positions), parts))
    }
}

impl Pool {
    /// An empty pool.
    pub fn new(hub: HubStates, metrics: Arc<Metrics>) -> Self {
        // Alerts compare with what there is from the beginning.
        metrics.attestations_refused.get_or_create(&ReasonLabel { reason: "signature" }).inc_by(0);
        Self {
            hub,
            waiting: Mutex::default(),
            verdicts: Mutex::default(),
            conflicts: Mutex::default(),
            echo: Mutex::default(),
            muted: Mutex::default(),
            ready: watch::channel(0).0,
            metrics,
        }
    }

    /// Changes when a certificate or a verdict can be made that could not be made before.
    pub fn ready(&self) -> watch::Receiver<u64> {
        self.ready.subscribe()
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.metrics.attestations_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Whether the operator has said the same here before.
    pub(super) fn has_heard(&self, word: &Attestation) -> bool {
        let place = (word.checkpoint.rollup, word.checkpoint.number);
        let waiting = self.waiting.lock();
        waiting.slots.get(&place).and_then(|slot| slot.said.get(&word.operator)) == Some(&word.checkpoint.hash())
    }

    /// Takes note of what was certified of a block.
    pub(super) fn certified(&self, checkpoint: &Checkpoint) {
        let state = self.hub.tip();
        let mut waiting = self.waiting.lock();
        let slot = waiting.slots.entry((checkpoint.rollup, checkpoint.number)).or_default();
        let hash = checkpoint.hash();
        slot.certified = Some(hash);
        let others = slot.candidates.iter().filter(|(candidate, _)| **candidate != hash);
        let strays: Vec<_> = others.flat_map(|(_, candidate)| candidate.words()).collect();
        if let Some(bridge) = state.bridge() {
            waiting.forget_old(bridge);
        }
        drop(waiting);
        strays.into_iter().for_each(|word| self.stray(word));
    }

    /// Takes what an operator says, if it can be of use.
    pub fn add(&self, attestation: Attestation) {
        self.take(attestation, false);
    }

    /// Takes what an operator says; `was_passed_on` to everyone, if it is not for this node to do so.
    pub(super) fn take(&self, attestation: Attestation, was_passed_on: bool) {
        let state = self.hub.tip();
        let Some(bridge) = state.bridge() else { return };
        let Attestation { operator, checkpoint, votes, signature } = attestation;
        let (rollup, number) = (checkpoint.rollup, checkpoint.number);
        let serves = bridge.operators().get(&operator).is_some_and(|o| o.rollups.contains(&rollup));
        let Some(next) = bridge.next_number(rollup).filter(|_| serves) else {
            return self.refused("not_an_operator");
        };
        if self.is_muted(&operator, state.next_height()) {
            return self.refused("muted");
        }
        // Before the first certificate any block may be it; genesis is none.
        let is_due = number > 0
            && next.is_none_or(|next| (next.saturating_sub(KEPT)..next.saturating_add(WINDOW)).contains(&number));
        if !is_due {
            // An honest operator's comes too late now and then.
            return;
        }
        // Of what is certified nothing but signatures is kept, and passed on.
        let is_certified = next.is_some_and(|next| number < next);
        let votes = if is_certified { Vec::new() } else { votes };
        if !is_certified && votes_root(&votes) != checkpoint.votes_root {
            return self.refused("votes");
        }
        let mut waiting = self.waiting.lock();
        waiting.forget_old(bridge);
        let Waiting { slots, votes: counts } = &mut *waiting;
        if next.is_none() {
            // Of many first blocks an operator has said the newest: so there are no more of them than operators.
            let others = slots.range_mut((rollup, 0)..=(rollup, u64::MAX)).filter(|((_, other), _)| *other != number);
            others.for_each(|(_, slot)| slot.forget_operator(&operator));
            slots.retain(|(of, _), slot| *of != rollup || !slot.said.is_empty());
        }
        let count = counts.entry(operator).or_default();
        if *count + votes.len() > VOTES_PER_OPERATOR {
            return self.refused("full");
        }
        let slot = slots.entry((rollup, number)).or_default();
        let hash = checkpoint.hash();
        match slot.said.get(&operator) {
            Some(before) if *before == hash => return,
            Some(before) => {
                let first = slot.candidates.get(before);
                let first = first.and_then(|candidate| candidate.words().find(|word| word.operator == operator));
                drop(waiting);
                let second = Attestation { operator, checkpoint, votes: Vec::new(), signature };
                let conflict = first.and_then(|first| AttestationConflict::new(&first, &second));
                conflict.into_iter().for_each(|conflict| self.suspect(conflict));
                return self.refused("conflict");
            }
            None => slot.said.insert(operator, hash),
        };
        *count += votes.len();
        let new = || Candidate { checkpoint, votes: Arc::new(votes), signatures: BTreeMap::new() };
        let candidate = slot.candidates.entry(hash).or_insert_with(new);
        candidate.signatures.insert(operator, signature);
        if !was_passed_on && slot.certified.is_some_and(|certified| certified != hash) {
            drop(waiting);
            return self.stray(Attestation { operator, checkpoint, votes: Vec::new(), signature });
        }
        let is_next = next.is_none_or(|next| next == number);
        if is_next && candidate.quorum(&state, bridge).is_some() {
            drop(waiting);
            self.ready.send_modify(|count| *count += 1);
        }
    }

    /// The certificate that a block on `state` can bring; none while there is none. As a record it has at most `most` bytes, and no
    /// more checkpoints than make a short one. Whether its sum holds is not checked: see [`Self::sift`].
    pub fn certificate(&self, state: &SystemState, most: usize) -> Option<Certificate> {
        loop {
            let (entries, parts) = self.entries(state, most)?;
            if let Some(signature) = aggregate(&parts) {
                return Some(Certificate { entries, signature });
            }
            // Bytes that are no signature at all.
            if !self.sift(state, &entries) {
                return None;
            }
        }
    }

    /// What stake quorums have signed, with the signatures. One checkpoint of each rollup, then the next of each; another rollup
    /// comes first at each height.
    fn entries(&self, state: &SystemState, most: usize) -> Option<(Vec<CertifiedCheckpoint>, Vec<[u8; 96]>)> {
        let bridge = state.bridge()?;
        let (mut entries, mut parts) = (Vec::new(), Vec::new());
        let (mut length, mut votes_left) = (128, Certificate::VOTES_MAX);
        let mut turns: VecDeque<_> =
            bridge.rollups().keys().map(|id| (*id, bridge.next_number(*id).flatten())).collect();
        let count = turns.len().max(1) as u64;
        turns.rotate_left(usize::try_from(state.next_height() % count).ok()?);
        let waiting = self.waiting.lock();
        while let Some((rollup, expected)) = turns.pop_front().filter(|_| entries.len() < Certificate::ENTRIES_MAX) {
            let numbers = expected.map_or((1, u64::MAX), |number| (number, number));
            let slots = waiting.slots.range((rollup, numbers.0)..=(rollup, numbers.1));
            let mut found = slots.flat_map(|(_, slot)| slot.candidates.values());
            let Some((candidate, (signers, signatures))) =
                found.find_map(|candidate| Some((candidate, candidate.quorum(state, bridge)?)))
            else {
                continue;
            };
            let bitmap = usize::try_from(signers.seats()).ok()?.div_ceil(8);
            let longer = length + Checkpoint::LEN + 34 * candidate.votes.len() + 16 + bitmap;
            let is_too_long = longer > most || longer > CERTIFICATE_BYTES && !entries.is_empty();
            if candidate.votes.len() > votes_left || is_too_long {
                continue;
            }
            length = longer;
            votes_left -= candidate.votes.len();
            parts.extend(signatures);
            let (checkpoint, votes) = (candidate.checkpoint, candidate.votes.as_ref().clone());
            entries.push(CertifiedCheckpoint { checkpoint, votes, signers });
            turns.push_back((rollup, Some(checkpoint.number.saturating_add(1))));
        }
        (!entries.is_empty()).then_some((entries, parts))
    }

    /// After the sum of these did not hold: finds a checkpoint of which it does not, and who has not signed it. They are not heard
    /// for 256 blocks, and what they have said is dropped. Whether there was one. Slow: two pairings for each checkpoint, and for
    /// each signer of the one.
    pub fn sift(&self, state: &SystemState, entries: &[CertifiedCheckpoint]) -> bool {
        let Some(bridge) = state.bridge() else { return false };
        entries.iter().any(|CertifiedCheckpoint { checkpoint, signers, .. }| {
            // Those of the sum and no others: with what somebody else has sent it may hold.
            let attesters = bridge.attesters(state, checkpoint.rollup);
            let signers = signers.signers().filter_map(|i| attesters.get(usize::try_from(i).ok()?));
            let said = self.said(checkpoint);
            let words: Vec<_> = signers.filter_map(|(id, bls, _)| Some((*id, *bls, *said.get(id)?))).collect();
            let message = Attestation::message(state.network(), checkpoint);
            let holds = |keys, signature: &_| verify_aggregate(&[(message.clone(), keys)], signature);
            let sum = aggregate(words.iter().map(|(_, _, signature)| signature));
            if sum.is_some_and(|sum| holds(words.iter().map(|(_, bls, _)| *bls).collect(), &sum)) {
                return false;
            }
            let liars: Vec<_> = words.iter().filter(|(_, bls, signature)| !holds(vec![*bls], signature)).collect();
            for (operator, _, _) in &liars {
                tracing::error!(%operator, rollup = %checkpoint.rollup, number = checkpoint.number, "an attestation is not signed");
                self.mute(*operator, state.next_height());
            }
            !liars.is_empty()
        })
    }

    /// The signatures for a checkpoint.
    fn said(&self, checkpoint: &Checkpoint) -> BTreeMap<B256, [u8; 96]> {
        let waiting = self.waiting.lock();
        let slot = waiting.slots.get(&(checkpoint.rollup, checkpoint.number));
        let candidate = slot.and_then(|slot| slot.candidates.get(&checkpoint.hash()));
        candidate.map_or_else(BTreeMap::new, |candidate| candidate.signatures.clone())
    }

    /// An operator has sent what it has not signed: it is not heard for a while, and what it has said is forgotten.
    pub(super) fn mute(&self, operator: B256, height: u64) {
        self.refused("signature");
        self.muted.lock().insert(operator, height.saturating_add(MUTED));
        let mut waiting = self.waiting.lock();
        let Waiting { slots, votes } = &mut *waiting;
        slots.values_mut().for_each(|slot| slot.forget_operator(&operator));
        votes.remove(&operator);
        drop(waiting);
        for words in self.verdicts.lock().values_mut() {
            words.remove(&operator);
        }
    }

    /// Whether an operator is not heard at a height.
    pub(super) fn is_muted(&self, operator: &B256, height: u64) -> bool {
        self.muted.lock().get(operator).is_some_and(|until| height < *until)
    }
}

impl Slot {
    /// Forgets what an operator has said; its votes are not counted any more.
    fn forget_operator(&mut self, operator: &B256) {
        let Some(hash) = self.said.remove(operator) else { return };
        if let Some(candidate) = self.candidates.get_mut(&hash) {
            candidate.signatures.remove(operator);
            if candidate.signatures.is_empty() {
                self.candidates.remove(&hash);
            }
        }
    }

    /// Forgets the votes, which are certified; what was signed stays.
    fn forget_votes(&mut self, counts: &mut HashMap<B256, usize>) {
        for candidate in self.candidates.values_mut() {
            for operator in candidate.signatures.keys() {
                if let Some(count) = counts.get_mut(operator) {
                    *count = count.saturating_sub(candidate.votes.len());
                }
            }
            candidate.votes = Arc::default();
        }
    }
}

/// A certificate as a record of the system rollup.
pub fn record(certificate: Certificate) -> Bytes {
    BridgeRecord::Certificate(certificate).encode()
}
