//! The rules by which stake is cut, in the bridge's part of the hub's state: `docs/specs/challenges.md`.

use crate::{
    BridgeError, BridgeState, Certified, Challenge, Dispute, Evidence, Held, Offence, Ruling, Signed,
    VERDICTS_PER_BLOCK, Verdict, challenge::signers_hash, disputes::CHALLENGE_WITHIN,
};
use alloy_primitives::FixedBytes;
use std::{collections::BTreeMap, sync::Arc};
use switchyard_consensus_core::{
    HubState,
    keys::verify_aggregate,
    record::{Change, Record},
};
use switchyard_primitives::{B256, RollupId};

/// Whose stake a record cuts, and why.
pub(crate) type Cuts = Vec<(B256, Offence)>;

impl BridgeState {
    /// VITAL: all operators with stake that are not leaving, whatever they serve, with their keys and stakes, ascending by
    /// identity. Positions in verdicts are positions here.
    pub fn vital(&self, hub: &HubState) -> Vec<(B256, FixedBytes<48>, u64)> {
        let stake = |identity: &B256| hub.validators().get(identity).map_or(0, |v| v.stake);
        let staying = self.operators().iter().filter(|(_, operator)| operator.gone_at.is_none());
        let staked = staying.map(|(identity, operator)| (*identity, operator.bls, stake(identity)));
        staked.filter(|(_, _, stake)| *stake > 0).collect()
    }

    /// The stake of the whole table, of which a verdict needs more than two thirds: operators' or not, so that who is none
    /// counts as silent, and a verdict is as hard to forge as finality.
    pub fn stake_of_all(hub: &HubState) -> u128 {
        hub.validators().values().map(|v| u128::from(v.stake)).sum()
    }

    /// Challenges that say something still, by checkpoint.
    pub fn disputes(&self) -> impl Iterator<Item = &Dispute> {
        self.disputes.challenges.values()
    }

    /// Whether a validator or operator has contradicted itself: it never has stake again.
    pub fn has_fallen(&self, identity: &B256) -> bool {
        self.disputes.fallen.contains_key(identity)
    }

    /// Why nothing of a rollup may be settled by a block on `hub`; none where it may.
    pub fn held(&self, hub: &HubState, rollup: RollupId) -> Option<Held> {
        if self.disputes.refuted.contains(&rollup) {
            return Some(Held::Refuted);
        }
        let height = hub.next_height();
        let open = self.disputes.of(rollup).filter(|dispute| dispute.is_open(height));
        let until = open.map(Dispute::closes_at).max()?;
        Some(Held::Challenged { until })
    }

    /// The checkpoint of a rollup that a settlement chain may take: the newest certified one, if nothing holds it back.
    pub fn settleable(&self, hub: &HubState, rollup: RollupId) -> Option<Certified> {
        let certified = self.rollups().get(&rollup)?.certified?;
        self.held(hub, rollup).is_none().then_some(certified)
    }

    /// Refuses to give stake to one who has contradicted itself.
    pub(crate) fn admits(&self, record: &Record) -> Result<(), BridgeError> {
        let Record::Stake(change) = record else { return Ok(()) };
        let gives = |change: &Change| match change {
            Change::Remove => false,
            Change::Stake(stake) => *stake > 0,
            Change::Join { .. } => true,
        };
        match change.changes.iter().find(|(identity, change)| gives(change) && self.has_fallen(identity)) {
            Some((identity, _)) => Err(BridgeError::Fallen { identity: *identity }),
            None => Ok(()),
        }
    }

    /// Somebody is proven to have contradicted itself, in a block on `hub`.
    pub(crate) fn convict(&mut self, hub: &HubState, evidence: &Evidence) -> Result<Cuts, BridgeError> {
        let identity = evidence.accused();
        if self.has_fallen(&identity) {
            return Err(BridgeError::Fallen { identity });
        }
        let holds = match evidence {
            Evidence::Attestations(conflict) => {
                let operator = self.operators().get(&identity).ok_or(BridgeError::Unknown { identity })?;
                conflict.holds(hub.network(), operator.bls)
            }
            Evidence::Votes(conflict) => {
                let member = hub.committee(conflict.round().0).and_then(|committee| committee.member(&identity));
                let registered = || hub.validators().get(&identity).map(|v| v.bls);
                let bls = member.map(|member| member.seat.bls).or_else(registered);
                conflict.holds(hub.network(), bls.ok_or(BridgeError::NotStaked { identity })?)
            }
        };
        if !holds {
            return Err(BridgeError::Signature);
        }
        Arc::make_mut(&mut self.disputes).fall(identity, hub.next_height());
        Ok(vec![(identity, Offence::Contradiction)])
    }

    /// An operator says that a certified checkpoint is wrong, in a block on `hub`.
    pub(crate) fn challenge(&mut self, hub: &HubState, challenge: &Challenge) -> Result<(), BridgeError> {
        let Challenge { height: certified_at, certified, own, challenger, .. } = challenge;
        let (rollup, number, height) = (certified.rollup, certified.number, hub.next_height());
        let vital = self.vital(hub).into_iter().find(|(identity, _, _)| identity == challenger);
        let (_, bls, _) = vital.ok_or(BridgeError::NotVital { identity: *challenger })?;
        if (own.rollup, own.number) != (rollup, number) || own == certified {
            return Err(BridgeError::NothingChallenged { rollup, number });
        }
        let signed = Signed { checkpoint: certified.hash(), signers: signers_hash(&challenge.signers) };
        let is_it = self.disputes.certified.get(certified_at) == Some(&Signed::hash(&challenge.entries));
        let is_late = certified_at.saturating_add(CHALLENGE_WITHIN) < height;
        if !is_it || is_late || !challenge.entries.contains(&signed) {
            return Err(BridgeError::NotChallengeable { rollup, number, certified_at: *certified_at });
        }
        let is_known = self.disputes.challenges.contains_key(&(rollup, number));
        if is_known || self.disputes.have_paid(rollup, *certified_at, &challenge.signers) {
            return Err(BridgeError::Challenged { rollup, number });
        }
        let is_busy = |dispute: &Dispute| dispute.challenger == *challenger && dispute.ruling.is_none();
        if self.disputes().any(is_busy) {
            return Err(BridgeError::Busy { identity: *challenger });
        }
        if self.disputes.is_full(challenge.signers.len()) {
            return Err(BridgeError::ChallengesFull);
        }
        if !challenge.is_signed(hub.network(), bls) {
            return Err(BridgeError::Signature);
        }
        let dispute = Dispute {
            id: challenge.id(),
            certified: *certified,
            own: *own,
            challenger: *challenger,
            certified_at: *certified_at,
            opened: height,
            signers: challenge.signers.clone(),
            ruling: None,
        };
        Arc::make_mut(&mut self.disputes).challenges.insert((rollup, number), dispute);
        Ok(())
    }

    /// VITAL decides a challenge, in a block on `hub`.
    pub(crate) fn rule(&mut self, hub: &HubState, verdict: &Verdict) -> Result<Cuts, BridgeError> {
        let Verdict { rollup, number, is_right, signers, signature } = verdict;
        let (rollup, number, is_right, height) = (*rollup, *number, *is_right, hub.next_height());
        let dispute = self.disputes.challenges.get(&(rollup, number)).filter(|dispute| dispute.is_open(height));
        let dispute = dispute.ok_or(BridgeError::NoChallenge { rollup, number })?.clone();
        self.verdicts += 1;
        if self.verdicts > VERDICTS_PER_BLOCK {
            return Err(BridgeError::TooManyVerdicts);
        }
        let vital = self.vital(hub);
        let (expected, found) = (vital.len(), signers.seats());
        if usize::try_from(found) != Ok(expected) {
            return Err(BridgeError::Operators { rollup, expected, found });
        }
        let signed = signers.signers().filter_map(|i| vital.get(usize::try_from(i).ok()?));
        let (keys, stakes): (Vec<_>, Vec<_>) = signed.map(|(_, bls, stake)| (*bls, u128::from(*stake))).unzip();
        let (found, total) = (stakes.iter().sum(), Self::stake_of_all(hub));
        if !Self::is_quorum(found, total) {
            return Err(BridgeError::Quorum { rollup, found, total });
        }
        let message = Verdict::message(hub.network(), dispute.id, is_right);
        if !verify_aggregate(&[(message, keys)], signature) {
            return Err(BridgeError::Signature);
        }
        let paid = self.disputes.paid(rollup, dispute.certified_at);
        let disputes = Arc::make_mut(&mut self.disputes);
        if let Some(own) = disputes.challenges.get_mut(&(rollup, number)) {
            own.ruling = Some(Ruling { is_right, height });
        }
        if is_right {
            return Ok(vec![(dispute.challenger, Offence::WrongChallenge)]);
        }
        // Those who have paid keep nobody else from it who has signed what follows.
        let follows = disputes.of(rollup).filter(|other| other.certified.number > number && other.ruling.is_none());
        let moot = follows.filter(|other| disputes.have_paid(rollup, other.certified_at, &other.signers));
        let moot: Vec<u64> = moot.map(|other| other.certified.number).collect();
        moot.into_iter().for_each(|later| drop(disputes.challenges.remove(&(rollup, later))));
        disputes.refuted.insert(rollup);
        self.begin_again(rollup, number);
        let mut operators = BTreeMap::clone(self.operators());
        for signer in &dispute.signers {
            if let Some(operator) = operators.get_mut(signer) {
                operator.rollups.remove(&rollup);
            }
        }
        self.operators = Arc::new(operators);
        let others = dispute.signers.into_iter().filter(|signer| !paid.contains(signer));
        Ok(others.map(|signer| (signer, Offence::WrongCheckpoint)).collect())
    }

    /// Takes note of what the block has certified.
    pub(crate) fn note_signed(&mut self, height: u64, entries: &[(RollupId, Signed)]) {
        let signed: Vec<Signed> = entries.iter().map(|(_, signed)| *signed).collect();
        let rollups = entries.iter().map(|(rollup, _)| *rollup);
        Arc::make_mut(&mut self.disputes).certify(height, Signed::hash(&signed), rollups);
    }

    /// Forgets what says nothing any more with the block of a height; whether there was something.
    pub(crate) fn forget_disputes(&mut self, height: u64) -> bool {
        let lapses = self.disputes.lapses(height);
        if lapses {
            Arc::make_mut(&mut self.disputes).forget(height);
        }
        lapses
    }
}
