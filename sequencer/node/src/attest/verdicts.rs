//! VITAL's words on challenges, on their way into a verdict; and operators that contradict themselves.

use super::Pool;
use alloy_primitives::B256;
use std::collections::{BTreeMap, VecDeque};
use switchyard_bridge_core::{
    AttestationConflict, BridgeState, Dispute, SystemState, VERDICTS_PER_BLOCK, Verdict, VerdictWord,
};
use switchyard_consensus_core::keys::aggregate;
use switchyard_primitives::SignerBitmap;

/// Challenges whose words are collected here at a time.
const CHALLENGES: usize = 256;
/// Contradictions that wait to be checked, at most one of an operator.
const CONFLICTS: usize = 64;

/// What VITAL's operators have said: by challenge, then operator.
pub(super) type Words = BTreeMap<B256, BTreeMap<B256, VerdictWord>>;

/// Who has said so of VITAL, if they have a quorum of the whole stake, with their signatures.
fn quorum(
    state: &SystemState,
    words: &BTreeMap<B256, VerdictWord>,
    is_right: bool,
) -> Option<(SignerBitmap, Vec<[u8; 96]>)> {
    let vital = state.bridge()?.vital(state);
    let (mut found, mut positions, mut parts) = (0, Vec::new(), Vec::new());
    for (position, (operator, _, stake)) in (0..).zip(&vital) {
        if let Some(word) = words.get(operator).filter(|word| word.is_right == is_right) {
            found += u128::from(*stake);
            positions.push(position);
            parts.push(word.signature);
        }
    }
    let seats = u32::try_from(vital.len()).ok()?;
    BridgeState::is_quorum(found, BridgeState::stake_of_all(state))
        .then(|| (SignerBitmap::new(seats, positions), parts))
}

impl Pool {
    /// Takes what an operator says of a challenge, if it can be of use. What it has said first counts.
    pub fn add_verdict(&self, word: VerdictWord) {
        let state = self.hub.tip();
        let Some(bridge) = state.bridge() else { return };
        let height = state.next_height();
        let is_open = |id: &B256| bridge.disputes().any(|dispute| dispute.id == *id && dispute.is_open(height));
        if !is_open(&word.challenge) {
            // An honest operator's comes too late now and then, or before the challenge is final here.
            return;
        }
        if !bridge.vital(&state).iter().any(|(operator, _, _)| *operator == word.operator) {
            return self.refused("not_an_operator");
        }
        if self.is_muted(&word.operator, height) {
            return self.refused("muted");
        }
        let mut all = self.verdicts.lock();
        all.retain(|id, _| is_open(id));
        if all.len() >= CHALLENGES && !all.contains_key(&word.challenge) {
            return self.refused("full");
        }
        let words = all.entry(word.challenge).or_default();
        let is_right = word.is_right;
        words.entry(word.operator).or_insert(word);
        let is_ready = quorum(&state, words, is_right).is_some();
        drop(all);
        if is_ready {
            self.ready.send_modify(|count| *count += 1);
        }
    }

    /// The verdicts that a block on `state` can bring, with their challenges' ids. Whether their sums hold is not checked: see
    /// [`Self::sift_verdict`].
    pub fn verdicts(&self, state: &SystemState) -> Vec<(B256, Verdict)> {
        let Some(bridge) = state.bridge() else { return Vec::new() };
        let height = state.next_height();
        let open = bridge.disputes().filter(|dispute| dispute.is_open(height));
        open.filter_map(|dispute| Some((dispute.id, self.verdict(state, dispute)?))).take(VERDICTS_PER_BLOCK).collect()
    }

    /// The verdict on a challenge, if a quorum has said the same of it.
    fn verdict(&self, state: &SystemState, dispute: &Dispute) -> Option<Verdict> {
        let (rollup, number) = (dispute.certified.rollup, dispute.certified.number);
        loop {
            let found = {
                let all = self.verdicts.lock();
                let words = all.get(&dispute.id)?;
                [false, true].into_iter().find_map(|is_right| Some((is_right, quorum(state, words, is_right)?)))
            };
            let (is_right, (signers, parts)) = found?;
            if let Some(signature) = aggregate(&parts) {
                return Some(Verdict { rollup, number, is_right, signers, signature });
            }
            // Bytes that are no signature at all.
            if !self.sift_verdict(state, &dispute.id) {
                return None;
            }
        }
    }

    /// After the verdict on a challenge did not hold: mutes who has not signed its word. Whether there was one. Slow: two pairings for each word.
    pub fn sift_verdict(&self, state: &SystemState, challenge: &B256) -> bool {
        let Some(bridge) = state.bridge() else { return false };
        let words = self.verdicts.lock().get(challenge).cloned().unwrap_or_default();
        let is_signed = |operator: &B256, word: &VerdictWord| {
            let bls = bridge.operators().get(operator).map(|operator| operator.bls);
            bls.is_none_or(|bls| word.holds(state.network(), bls))
        };
        let liars: Vec<B256> = words.iter().filter(|(by, word)| !is_signed(by, word)).map(|(by, _)| *by).collect();
        for operator in &liars {
            tracing::error!(%operator, %challenge, "a word on a challenge is not signed");
            self.mute(*operator, state.next_height());
        }
        !liars.is_empty()
    }

    /// Takes note that an operator seems to have contradicted itself.
    pub(super) fn suspect(&self, conflict: AttestationConflict) {
        let mut conflicts = self.conflicts.lock();
        let is_known = conflicts.iter().any(|known| known.operator() == conflict.operator());
        if !is_known && conflicts.len() < CONFLICTS {
            conflicts.push_back(conflict);
        }
    }

    /// Operators that seem to have contradicted themselves since the last call; their signatures are not checked yet.
    pub fn suspects(&self) -> VecDeque<AttestationConflict> {
        std::mem::take(&mut *self.conflicts.lock())
    }
}
