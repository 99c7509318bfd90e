//! What a node does about wrong checkpoints and contradictions: it proves what it can, and its operator challenges and judges.

use super::{AGAIN_AFTER, Attest, AttestError, AttestParts, Operator, Own};
use crate::ingest::wire::{Message, VERDICT_WORDS};
use alloy_primitives::{B256, keccak256};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};
use switchyard_bridge_core::{
    BridgeRecord, BridgeState, CHALLENGE_WITHIN, Challenge, Checkpoint, Dispute, Evidence, Held, Ruling, Signed,
    SystemState, VerdictWord, signers_hash,
};
use switchyard_consensus_guard::{Kind, Position, Statement};
use switchyard_primitives::RollupId;

/// A challenge that is not in the log is submitted again.
const CHALLENGE_AGAIN_AFTER: Duration = Duration::from_secs(4);

/// Something else was certified than was computed here.
pub(super) struct Diverged {
    /// Its leaf in the hub's accumulator.
    pub(super) leaf: u64,
    pub(super) certified: Checkpoint,
    pub(super) own: Checkpoint,
    /// What this node's operator says to it.
    pub(super) challenge: Step,
}

/// How far a challenge has come.
pub(super) enum Step {
    /// Nothing was tried.
    New,
    /// It was submitted.
    Sent(Box<Challenge>, Instant),
    /// There will be none, or no other.
    Given,
}

impl Attest {
    /// Proves contradictions. Blocking: three pairings for each.
    pub(super) fn prove(&self) {
        let state = self.parts.hub.tip();
        let Some(bridge) = state.bridge() else { return };
        for conflict in self.parts.pool.suspects() {
            let operator = conflict.operator();
            let bls = bridge.operators().get(&operator).map(|operator| operator.bls);
            if bridge.has_fallen(&operator) || !bls.is_some_and(|bls| conflict.holds(state.network(), bls)) {
                continue;
            }
            let [first, _] = conflict.checkpoints();
            tracing::error!(%operator, rollup = %first.rollup, number = first.number, "an operator contradicts itself");
            self.parts.records.send(&BridgeRecord::Evidence(Evidence::Attestations(conflict)));
        }
    }

    /// Goes on with rollups of which VITAL has found wrong what was certified, and was computed otherwise here: what came
    /// before the verdict is not compared any more.
    pub(super) fn forgive(&mut self) -> Result<(), AttestError> {
        let state = self.parts.hub.tip();
        let Some(bridge) = state.bridge() else { return Ok(()) };
        for rollup in self.diverged.keys().copied().collect::<Vec<_>>() {
            let Some(diverged) = self.diverged.get(&rollup) else { continue };
            let compared_from = match self.refuted_below(bridge, &state, rollup, diverged)? {
                Some(count) => count,
                None => continue,
            };
            if let Some(queue) = self.uncompared.get_mut(&rollup) {
                queue.retain(|seen| seen.leaf >= compared_from);
            }
            self.skipped.entry(rollup).and_modify(|from| *from = compared_from.max(*from));
            self.diverged.remove(&rollup);
            self.parts.metrics.diverged.get_or_create(&rollup.into()).set(0);
            tracing::warn!(%rollup, "VITAL has found wrong what this node computes otherwise: it goes on with the rollup");
        }
        Ok(())
    }

    /// If a verdict has refuted what a rollup has diverged from: the number of leaves up to it.
    fn refuted_below(
        &self,
        bridge: &BridgeState,
        state: &SystemState,
        rollup: RollupId,
        diverged: &Diverged,
    ) -> Result<Option<u64>, AttestError> {
        let wrong = |dispute: &&Dispute| {
            let is_wrong = dispute.ruling.is_some_and(|ruling| !ruling.is_right);
            is_wrong && dispute.certified.rollup == rollup && dispute.certified.number <= diverged.certified.number
        };
        if let Some(ruling) =
            bridge.disputes().filter(wrong).filter_map(|dispute| dispute.ruling).max_by_key(|r| r.height)
        {
            let count = self.parts.store.bridge_count(ruling.height)?;
            return Ok(Some(count).filter(|count| diverged.leaf < *count));
        }
        let refuted = bridge.held(state, rollup) == Some(Held::Refuted);
        Ok(refuted.then(|| bridge.tree().count()))
    }

    /// Challenges what was certified and computed otherwise here. Blocking.
    pub(super) fn challenge(&mut self, now: Instant) -> Result<(), AttestError> {
        let Some(operator) = &self.parts.operator else { return Ok(()) };
        let state = self.parts.hub.tip();
        let Some(bridge) = state.bridge() else { return Ok(()) };
        let height = state.next_height();
        let is_vital = is_vital(bridge, &state, &operator.identity);
        let mut steps = Vec::new();
        for (rollup, diverged) in &self.diverged {
            let place = (*rollup, diverged.certified.number);
            let dispute = bridge.disputes().find(|d| (d.certified.rollup, d.certified.number) == place);
            let step = match (&diverged.challenge, dispute) {
                (Step::Given, _) => continue,
                (_, Some(Dispute { ruling: Some(Ruling { is_right: true, .. }), .. })) => {
                    self.overrule(*rollup);
                    Step::Given
                }
                (_, Some(dispute)) if dispute.is_open(height) || dispute.ruling.is_some() => continue,
                (_, Some(_)) => Step::Given,
                (Step::New, None) if !is_vital => continue,
                (Step::New, None) if self.overruled(*rollup).exists() => Step::Given,
                (Step::New, None) => match self.made(diverged)? {
                    Some(challenge) => Step::Sent(Box::new(challenge), now),
                    None => Step::Given,
                },
                (Step::Sent(challenge, _), None) if challenge.height.saturating_add(CHALLENGE_WITHIN) < height => {
                    Step::Given
                }
                (Step::Sent(challenge, sent), None) if now.duration_since(*sent) >= CHALLENGE_AGAIN_AFTER => {
                    Step::Sent(challenge.clone(), now)
                }
                (Step::Sent(..), None) => continue,
            };
            if let Step::Sent(challenge, _) = &step {
                self.parts.records.send(&BridgeRecord::Challenge((**challenge).clone()));
            }
            steps.push((*rollup, step));
        }
        for (rollup, step) in steps {
            if let Some(diverged) = self.diverged.get_mut(&rollup) {
                diverged.challenge = step;
            }
        }
        Ok(())
    }

    /// The file that says that this node was found wrong about a rollup: while it is there, nothing of the rollup is challenged.
    fn overruled(&self, rollup: RollupId) -> PathBuf {
        self.parts.evidence.join(format!("rollup-{rollup}-overruled"))
    }

    fn overrule(&self, rollup: RollupId) {
        let path = self.overruled(rollup);
        tracing::error!(
            %rollup,
            path = %path.display(),
            "VITAL has found right what this node computes otherwise: its state of the rollup is wrong. Nothing of it is challenged while \
             this file is there"
        );
        if let Err(error) = std::fs::create_dir_all(&self.parts.evidence).and_then(|()| std::fs::write(&path, [])) {
            tracing::error!(%error, path = %path.display(), "not written: after a restart the rollup is challenged again");
        }
    }

    /// The challenge of a certified checkpoint, signed; none where it is too late, or where the guard refuses.
    fn made(&self, diverged: &Diverged) -> Result<Option<Challenge>, AttestError> {
        let Some(operator) = &self.parts.operator else { return Ok(None) };
        let state = self.parts.hub.tip();
        let tip = state.next_height().saturating_sub(1);
        // The lowest height with the leaf.
        let (mut low, mut high) = (tip.saturating_sub(CHALLENGE_WITHIN), tip);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.parts.store.bridge_count(middle)? > diverged.leaf {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let Some(before) = low.checked_sub(1).map(|height| self.parts.hub.state_at(height)).transpose()?.flatten()
        else {
            return Ok(None);
        };
        let records = self.parts.store.transactions(RollupId::SYSTEM, low)?.unwrap_or_default();
        let certified = before.certified_by(&records);
        let entry = |(checkpoint, signers): &(Checkpoint, Vec<B256>)| Signed {
            checkpoint: checkpoint.hash(),
            signers: signers_hash(signers),
        };
        let entries = certified.iter().map(entry).collect();
        let found = certified.into_iter().find(|(checkpoint, _)| *checkpoint == diverged.certified);
        let Some((certified, signers)) = found else { return Ok(None) };
        let challenge = Challenge {
            height: low,
            entries,
            certified,
            own: diverged.own,
            signers,
            challenger: operator.identity,
            signature: [0; 96],
        };
        let (rollup, number) = (certified.rollup, certified.number);
        let signed = operator
            .permit(Kind::Challenge, &certified, challenge.id())
            .and_then(|()| challenge.sign(state.network(), &operator.secret).map_err(|error| error.to_string()));
        match signed {
            Ok(challenge) => {
                tracing::error!(%rollup, number, "this operator challenges a certified checkpoint; its stake answers for it");
                Ok(Some(challenge))
            }
            Err(error) => {
                tracing::error!(%rollup, number, error, "a checkpoint is not challenged");
                Ok(None)
            }
        }
    }

    /// Shows which rollups are held back.
    pub(super) fn show_held(&self) {
        let state = self.parts.hub.tip();
        for rollup in self.parts.chains.keys() {
            let held = state.bridge().and_then(|bridge| bridge.held(&state, *rollup));
            self.parts.metrics.held.get_or_create(&(*rollup).into()).set(held.is_some().into());
        }
    }

    /// Judges what others have challenged, and says so until there is a verdict. Blocking.
    pub(super) fn judge(&mut self, now: Instant) -> Result<(), AttestError> {
        let Some(operator) = &self.parts.operator else { return Ok(()) };
        let state = self.parts.hub.tip();
        let Some(bridge) = state.bridge() else { return Ok(()) };
        let height = state.next_height();
        let is_vital = is_vital(bridge, &state, &operator.identity);
        let open: Vec<_> = bridge.disputes().filter(|dispute| is_vital && dispute.is_open(height)).collect();
        self.judged.retain(|id, _| open.iter().any(|dispute| dispute.id == *id));
        let mut words = Vec::new();
        for dispute in open {
            if let Some((word, said)) = self.judged.get_mut(&dispute.id) {
                if now.duration_since(*said) >= AGAIN_AFTER {
                    *said = now;
                    words.push(word.clone());
                }
                continue;
            }
            let Checkpoint { rollup, number, .. } = dispute.certified;
            let Some(chain) = self.parts.chains.get(&rollup) else { continue };
            let own = self.parts.own(&**chain, &dispute.certified, dispute.certified_at);
            let own = own.map_err(|source| AttestError::Rollup { rollup, source })?;
            let Some(Own::Computed(own)) = own else { continue };
            let is_right = own == dispute.certified;
            if let Some(word) = operator.judge(state.network(), dispute, is_right) {
                tracing::warn!(%rollup, number, is_right, challenger = %dispute.challenger, "judged a challenge");
                self.judged.insert(dispute.id, (word.clone(), now));
                words.push(word);
            }
        }
        self.parts.say_verdicts(words);
        Ok(())
    }
}

fn is_vital(bridge: &BridgeState, state: &SystemState, identity: &B256) -> bool {
    bridge.vital(state).iter().any(|(operator, _, _)| operator == identity)
}

/// What was said of open challenges, and when.
pub(super) type Judged = BTreeMap<B256, (VerdictWord, Instant)>;

impl Operator {
    /// Asks the guard for what is said of a checkpoint.
    fn permit(&self, kind: Kind, checkpoint: &Checkpoint, digest: B256) -> Result<(), String> {
        let position = Position { epoch: 0, number: checkpoint.number };
        let statement = Statement { kind, scope: checkpoint.rollup.0, position, digest };
        self.guard.permit(statement).map_err(|refusal| refusal.to_string())
    }

    /// Its word on a challenge; none where the guard refuses.
    fn judge(&self, network: B256, dispute: &Dispute, is_right: bool) -> Option<VerdictWord> {
        let digest = keccak256([dispute.certified.hash().as_slice(), &[u8::from(is_right)]].concat());
        let word = self.permit(Kind::Verdict, &dispute.certified, digest).and_then(|()| {
            let word = VerdictWord::sign(network, self.identity, dispute.id, is_right, &self.secret);
            word.map_err(|error| error.to_string())
        });
        let (rollup, number) = (dispute.certified.rollup, dispute.certified.number);
        word.inspect_err(|error| tracing::debug!(%rollup, number, error, "a challenge is not judged")).ok()
    }
}

impl AttestParts {
    /// Tells everyone this operator's words on challenges.
    fn say_verdicts(&self, words: Vec<VerdictWord>) {
        for words in words.chunks(VERDICT_WORDS) {
            words.iter().for_each(|word| self.pool.add_verdict(word.clone()));
            // One that is lost is sent again.
            self.send(Message::Verdicts { id: 0, words: words.to_vec() });
        }
    }
}
