//! Words that were not said to everyone: an operator may tell one node this and another node that, and neither alone can show it.
//!
//! So a validator that holds a word which is not what was certified of the block passes it on to all others. Of two that contradict each
//! other one at least is passed on, and it meets the other wherever that was heard.

use super::{Attest, Pool, pool::KEPT};
use crate::ingest::wire::ATTESTATIONS;
use alloy_primitives::B256;
use std::collections::BTreeSet;
use switchyard_bridge_core::{Attestation, BridgeState, Checkpoint};

/// Words that wait to be passed on; more come from a quorum of liars only.
const STRAYS: usize = ATTESTATIONS;
/// Words that one validator has passed on and that wait to be checked.
const PASSED: usize = 32;

/// Words on their way between those who heard them.
#[derive(Default)]
pub(super) struct Echo {
    /// To be passed on.
    strays: Vec<Attestation>,
    /// Passed on by others, who come first.
    passed: Vec<(B256, Attestation)>,
    /// Who has passed on what was not signed: an honest validator checks before.
    forgers: BTreeSet<B256>,
}

impl Pool {
    /// Takes what a validator sends: its own words, and words of others that it has heard.
    pub fn hear(&self, from: B256, attestations: Vec<Attestation>) {
        let (own, others): (Vec<_>, Vec<_>) = attestations.into_iter().partition(|word| word.operator == from);
        own.into_iter().for_each(|word| self.add(word));
        for word in others.into_iter().filter(|word| !self.has_heard(word)) {
            let mut echo = self.echo.lock();
            let waiting = echo.passed.iter().filter(|(by, _)| *by == from).count();
            if echo.forgers.contains(&from) || waiting == PASSED {
                self.refused("passed_on");
            } else {
                echo.passed.push((from, word));
            }
        }
    }

    /// Takes note of a word that is not what was certified.
    pub(super) fn stray(&self, word: Attestation) {
        let mut echo = self.echo.lock();
        if echo.strays.len() < STRAYS {
            echo.strays.push(word);
        }
    }

    /// What others have passed on and can be looked at: of blocks that are certified here.
    fn passed(&self, bridge: &BridgeState) -> Vec<(B256, Attestation)> {
        let mut echo = self.echo.lock();
        let Echo { passed, forgers, .. } = &mut *echo;
        let next = |word: &Attestation| bridge.next_number(word.checkpoint.rollup).flatten();
        passed.retain(|(by, word)| {
            let is_late = next(word).is_some_and(|next| word.checkpoint.number.saturating_add(KEPT) < next);
            !is_late && !forgers.contains(by)
        });
        passed.extract_if(.., |(_, word)| next(word).is_some_and(|next| word.checkpoint.number < next)).collect()
    }
}

impl Attest {
    /// Takes what others have passed on, and passes on what they may not have heard. Blocking: two pairings for each word.
    pub(super) fn pass_on(&self) {
        let state = self.parts.hub.tip();
        let (Some(bridge), pool) = (state.bridge(), &self.parts.pool) else { return };
        // None of an operator that is not known here any more: whoever passes its word on may know it still.
        let is_signed = |word: &Attestation| {
            let operator = bridge.operators().get(&word.operator)?;
            Some(word.is_signed(state.network(), operator.bls))
        };
        for (from, word) in pool.passed(bridge) {
            if pool.has_heard(&word) || pool.echo.lock().forgers.contains(&from) {
                continue;
            }
            match is_signed(&word) {
                Some(true) => pool.take(word, true),
                Some(false) => {
                    tracing::error!(validator = %from, operator = %word.operator, "an attestation that was passed on is not signed");
                    pool.refused("passed_on");
                    pool.echo.lock().forgers.insert(from);
                }
                None => {}
            }
        }
        let strays = std::mem::take(&mut pool.echo.lock().strays);
        let (attestations, others): (Vec<_>, Vec<_>) =
            strays.into_iter().partition(|word| is_signed(word) == Some(true));
        let unsigned = others.iter().filter(|word| is_signed(word) == Some(false));
        unsigned.for_each(|word| pool.mute(word.operator, state.next_height()));
        let Some(first) = attestations.first() else { return };
        let (operator, Checkpoint { rollup, number, .. }) = (first.operator, first.checkpoint);
        tracing::warn!(%operator, %rollup, number, "an operator attests another block than was certified: the others are told");
        self.parts.tell(attestations);
    }
}
