//! The bridge's part of the hub's state: operators, what they have certified, and what rollups are told.
//!
//! A function of the log, like all of the hub's state (`docs/specs/checkpoints.md`).

use crate::{
    Accumulator, AccumulatorFull, Attestation, BridgeError, BundleRecord, Certificate, CertifiedCheckpoint, Checkpoint,
    Cut, Deposits, HubBundle, HubLeaf, NodeId, Operator, OperatorChange, OperatorKind, Signed, SystemError, Vote,
    bundles::Effect, disputes::Disputes, operator::read_rollups, remembered::Bundles, signers_hash, system::Founding,
    votes_root,
};
use alloy_primitives::FixedBytes;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};
use switchyard_consensus_core::{HubState, keys::verify_aggregate, stake::VALIDATORS_MAX};
use switchyard_primitives::{B256, DecodeError, Reader, RollupId, TxHash, Writer, keccak256};

/// The newest certified checkpoint of a rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its leaf's index in the hub's accumulator.
    pub index: u64,
}

/// What the hub knows of a rollup that makes checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollup {
    /// Its EIP-155 chain id.
    pub chain: u64,
    /// Number of deposits that the log has made to it.
    pub deposits: u64,
    /// Number of the first certified block; 0 before there is one.
    pub first: u64,
    /// None before the first.
    pub certified: Option<Certified>,
}

/// The bridge's state after a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeState {
    pub(crate) operators: Arc<BTreeMap<B256, Operator>>,
    rollups: Arc<BTreeMap<RollupId, Rollup>>,
    bundles: Arc<Bundles>,
    pub(crate) disputes: Arc<Disputes>,
    tree: Accumulator,
    /// Leaves that the newest block has added, with the full nodes that they made: of these the tree forgets all but the edge.
    pub(crate) added: Added,
    /// Whether the block that is being followed has brought a certificate.
    certified: bool,
    /// Verdicts that it has brought.
    pub(crate) verdicts: usize,
    /// Transactions that are legs in the block that is being followed.
    legs: BTreeSet<(RollupId, TxHash)>,
    root: B256,
}

/// What a block adds to the accumulator. No part of what the state commits to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Leaves with their indices.
    pub leaves: Vec<(u64, HubLeaf)>,
    /// Full nodes.
    pub nodes: Vec<(NodeId, B256)>,
    /// Bundles that were included or decided.
    pub bundles: Vec<(B256, HubBundle)>,
    /// Of those that were included, by id: what the log has of them.
    pub included: Vec<(B256, BundleRecord)>,
    /// Whose stake was cut.
    pub cuts: Vec<Cut>,
}

/// The transactions of a block, by rollup and hash.
pub(crate) type Contents = HashSet<(RollupId, TxHash)>;

impl BridgeState {
    /// Of the layout. 1 had the bundles themselves in what the root is of, 2 no first block of a rollup.
    const VERSION: u8 = 3;
    /// A rollup makes at most so many blocks for each hub block that there is: no number above that can be certified.
    pub const BLOCKS_PER_HUB_BLOCK: u64 = 1024;

    /// What the bridge begins with: a leaf for each rollup.
    pub fn begin(founding: &Founding) -> Result<Self, AccumulatorFull> {
        let rollups = founding
            .rollups
            .iter()
            .map(|(id, chain)| (*id, Rollup { chain: *chain, deposits: 0, first: 0, certified: None }));
        let rollups: BTreeMap<_, _> = rollups.collect();
        let mut state = Self {
            operators: Arc::new(founding.operators.clone()),
            rollups: Arc::default(),
            bundles: Arc::default(),
            disputes: Arc::default(),
            tree: Accumulator::default(),
            added: Added::default(),
            certified: false,
            verdicts: 0,
            legs: BTreeSet::new(),
            root: B256::ZERO,
        };
        for (rollup, Rollup { chain, .. }) in &rollups {
            state.append(HubLeaf::Rollup { rollup: *rollup, chain: *chain })?;
        }
        state.rollups = Arc::new(rollups);
        state.root = state.hashed();
        Ok(state)
    }

    /// Operators, ascending by identity.
    pub fn operators(&self) -> &BTreeMap<B256, Operator> {
        &self.operators
    }

    /// Rollups that make checkpoints, ascending by id.
    pub fn rollups(&self) -> &BTreeMap<RollupId, Rollup> {
        &self.rollups
    }

    /// The accumulator of all that rollups are told.
    pub fn tree(&self) -> &Accumulator {
        &self.tree
    }

    /// What the newest block has added to it.
    pub fn added(&self) -> &Added {
        &self.added
    }

    /// What headers commit to: keccak-256 of [`Self::write`]'s layout with hashes in place of the bundles.
    pub fn root(&self) -> B256 {
        self.root
    }

    /// A bundle that was included and is remembered: until its deadline at the least.
    pub fn bundle(&self, id: &B256) -> Option<&HubBundle> {
        self.bundles.get(id)
    }

    /// Who attests a rollup: operators with stake that serve it and are not leaving, with their keys and stakes, ascending by
    /// identity. Positions in certificates are positions here.
    pub fn attesters(&self, hub: &HubState, rollup: RollupId) -> Vec<(B256, FixedBytes<48>, u64)> {
        let serves = self.operators.iter().filter(|(_, o)| o.gone_at.is_none() && o.rollups.contains(&rollup));
        let stake = |identity: &B256| hub.validators().get(identity).map_or(0, |v| v.stake);
        let staked = serves.map(|(identity, o)| (*identity, o.bls, stake(identity)));
        staked.filter(|(_, _, stake)| *stake > 0).collect()
    }

    /// Whether attesters with this much stake of `total` are a quorum: more than two thirds.
    pub fn is_quorum(found: u128, total: u128) -> bool {
        found * 3 > total * 2
    }

    /// The next checkpoint of a rollup to be certified; none for a rollup that makes none. Before the first any will do.
    pub fn next_number(&self, rollup: RollupId) -> Option<Option<u64>> {
        let certified = self.rollups.get(&rollup)?.certified;
        Some(certified.map(|certified| certified.checkpoint.number.saturating_add(1)))
    }

    /// A rollup's first certified block was none: any may be its first again.
    pub(crate) fn begin_again(&mut self, rollup: RollupId, number: u64) {
        if self.rollups.get(&rollup).is_some_and(|known| known.first == number)
            && let Some(known) = Arc::make_mut(&mut self.rollups).get_mut(&rollup)
        {
            (known.first, known.certified) = (0, None);
        }
    }

    /// Forgets what the block before has added.
    pub(crate) fn open_block(&mut self) {
        self.added = Added::default();
        self.certified = false;
        self.verdicts = 0;
        self.legs.clear();
    }

    pub(crate) fn append(&mut self, leaf: HubLeaf) -> Result<u64, AccumulatorFull> {
        let nodes = &mut self.added.nodes;
        let index = self.tree.append(leaf.hash(), |id, hash| nodes.push((id, hash)))?;
        self.added.leaves.push((index, leaf));
        Ok(index)
    }

    /// An operator's change of itself, in a block on `hub`.
    pub(crate) fn change(&mut self, hub: &HubState, change: &OperatorChange) -> Result<(), BridgeError> {
        let OperatorChange { identity, serial, kind, .. } = change;
        let identity = *identity;
        let validator = hub.validators().get(&identity).ok_or(BridgeError::NotStaked { identity })?;
        let known = self.operators.get(&identity);
        match (kind, known) {
            (OperatorKind::Register { .. }, Some(_)) => return Err(BridgeError::Known { identity }),
            (OperatorKind::Serve(_) | OperatorKind::Leave, None) => return Err(BridgeError::Unknown { identity }),
            _ => {}
        }
        if let Some(gone_at) = known.and_then(|operator| operator.gone_at) {
            return Err(BridgeError::Leaving { identity, gone_at });
        }
        if !change.is_signed(hub.network(), validator.bls) {
            return Err(BridgeError::Signature);
        }
        change.check_possession()?;
        let expected = match known {
            Some(operator) => operator.serial,
            // Of this epoch or the last: nothing that it said before it was forgotten counts again.
            None => Operator::first_serial(
                (serial >> 32).clamp(hub.current().epoch().saturating_sub(1), hub.current().epoch()),
            ),
        };
        if *serial != expected {
            return Err(BridgeError::Serial { expected, found: *serial });
        }
        let mut operators = BTreeMap::clone(&self.operators);
        match kind {
            OperatorKind::Register { bls, .. } => {
                if operators.len() >= VALIDATORS_MAX {
                    return Err(BridgeError::Full);
                }
                if operators.values().any(|operator| operator.bls == *bls) {
                    return Err(BridgeError::KeyTaken);
                }
                let operator = Operator { bls: *bls, rollups: Default::default(), serial: *serial, gone_at: None };
                operators.insert(identity, operator);
            }
            OperatorKind::Serve(rollups) => {
                if let Some(rollup) = rollups.iter().find(|rollup| !self.rollups.contains_key(rollup)) {
                    return Err(BridgeError::Rollup { rollup: *rollup });
                }
                if let Some(own) = operators.get_mut(&identity) {
                    own.rollups = rollups.iter().copied().collect();
                }
            }
            OperatorKind::Leave => {
                let gone_at = gone_at(hub);
                if let Some(own) = operators.get_mut(&identity) {
                    own.gone_at = Some(gone_at);
                }
            }
        }
        if let Some(own) = operators.get_mut(&identity) {
            own.serial += 1;
        }
        self.operators = Arc::new(operators);
        Ok(())
    }

    /// Operators that the stake table does not know any more leave, in a block on `hub`.
    pub(crate) fn retire(&mut self, hub: &HubState) {
        let is_removed = |identity: &B256, operator: &Operator| {
            operator.gone_at.is_none() && !hub.validators().contains_key(identity)
        };
        if self.operators.iter().any(|(identity, operator)| is_removed(identity, operator)) {
            let removed =
                Arc::make_mut(&mut self.operators).iter_mut().filter(|(id, operator)| is_removed(id, operator));
            removed.for_each(|(_, operator)| operator.gone_at = Some(gone_at(hub)));
        }
    }

    /// Coin for a rollup's accounts, in a block on `hub`.
    pub(crate) fn deposit(&mut self, hub: &HubState, record: &Deposits) -> Result<(), SystemError> {
        let Deposits { rollup, epoch, first, .. } = *record;
        let known = self.rollups.get(&rollup).ok_or(BridgeError::Rollup { rollup })?;
        let expected = known.deposits;
        record.verify(hub.network(), hub.signing(epoch)?)?;
        if first != expected {
            return Err(BridgeError::Serial { expected, found: first }.into());
        }
        if let Some(known) = Arc::make_mut(&mut self.rollups).get_mut(&rollup) {
            known.deposits = expected.saturating_add(record.deposits.len() as u64);
        }
        Ok(())
    }

    /// Stake quorums' word on checkpoints, in a block on `hub`.
    pub(crate) fn certify(&mut self, hub: &HubState, certificate: &Certificate) -> Result<(), BridgeError> {
        if certificate.entries.is_empty() {
            return Err(BridgeError::Empty);
        }
        if std::mem::replace(&mut self.certified, true) {
            return Err(BridgeError::SecondCertificate);
        }
        // What a block certifies was signed before its verdicts were given, and is judged so.
        if self.verdicts > 0 {
            return Err(BridgeError::CertificateAfterVerdict);
        }
        let count = certificate.entries.len();
        let (mut statements, mut noted) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut rollups = BTreeMap::clone(&self.rollups);
        let height = hub.next_height();
        for entry in &certificate.entries {
            let rollup = rollups.get_mut(&entry.checkpoint.rollup);
            let rollup = rollup.ok_or(BridgeError::Rollup { rollup: entry.checkpoint.rollup })?;
            check_order(rollup, &entry.checkpoint, height)?;
            let (signed, message, keys) = self.signed(hub, entry)?;
            statements.push((message, keys));
            noted.push((entry.checkpoint.rollup, signed));
            let index = self.append(HubLeaf::Checkpoint(entry.checkpoint))?;
            if rollup.certified.is_none() {
                rollup.first = entry.checkpoint.number;
            }
            rollup.certified = Some(Certified { checkpoint: entry.checkpoint, index });
            self.count(entry.checkpoint.rollup, &entry.votes, height)?;
        }
        if !verify_aggregate(&statements, &certificate.signature) {
            return Err(BridgeError::Signature);
        }
        self.rollups = Arc::new(rollups);
        self.note_signed(height, &noted);
        Ok(())
    }

    /// Who has signed an entry, as it is kept; what they have signed, and with which keys, if they are a quorum.
    fn signed(
        &self,
        hub: &HubState,
        entry: &CertifiedCheckpoint,
    ) -> Result<(Signed, Vec<u8>, Vec<FixedBytes<48>>), BridgeError> {
        let CertifiedCheckpoint { checkpoint, votes, signers } = entry;
        let Checkpoint { rollup, number, .. } = *checkpoint;
        if votes_root(votes) != checkpoint.votes_root {
            return Err(BridgeError::Votes { rollup, number });
        }
        let attesters = self.attesters(hub, rollup);
        let (expected, found) = (attesters.len(), signers.seats());
        if usize::try_from(found) != Ok(expected) {
            return Err(BridgeError::Operators { rollup, expected, found });
        }
        let total = attesters.iter().map(|(_, _, stake)| u128::from(*stake)).sum();
        let signed = signers.signers().filter_map(|i| attesters.get(usize::try_from(i).ok()?));
        let (mut identities, mut keys, mut found) = (Vec::with_capacity(expected), Vec::with_capacity(expected), 0);
        for (identity, bls, stake) in signed {
            identities.push(*identity);
            keys.push(*bls);
            found += u128::from(*stake);
        }
        if !Self::is_quorum(found, total) {
            return Err(BridgeError::Quorum { rollup, found, total });
        }
        let signed = Signed { checkpoint: checkpoint.hash(), signers: signers_hash(&identities) };
        Ok((signed, Attestation::message(hub.network(), checkpoint), keys))
    }

    /// Whether the block of a height may include a bundle, whatever else is in it.
    pub fn may_include(&self, id: &B256, record: &BundleRecord, height: u64) -> Result<(), BridgeError> {
        let deadline = record.deadline;
        let most = height.saturating_add(BundleRecord::DEADLINE_BLOCKS_MAX);
        if deadline <= height || deadline > most {
            return Err(BridgeError::Deadline { height, most, deadline });
        }
        if self.bundles.has(id, deadline) {
            return Err(BridgeError::BundleKnown { id: *id });
        }
        if self.bundles.room(deadline.saturating_sub(height)) == 0 {
            return Err(BridgeError::BundlesFull);
        }
        match record.legs.iter().find(|leg| !self.rollups.contains_key(&leg.rollup)) {
            Some(leg) => Err(BridgeError::Rollup { rollup: leg.rollup }),
            None => Ok(()),
        }
    }

    /// How many more bundles may be included with a deadline so many blocks ahead.
    pub fn bundles_left(&self, ahead: u64) -> usize {
        self.bundles.room(ahead)
    }

    /// Includes a bundle, in a block on `hub` with these transactions; without them, whoever asks answers for the legs.
    pub(crate) fn include(
        &mut self,
        hub: &HubState,
        record: &BundleRecord,
        contents: Option<&Contents>,
    ) -> Result<(), BridgeError> {
        let (id, height) = (record.id(), hub.next_height());
        self.may_include(&id, record, height)?;
        if self.legs.len() + record.legs.len() > BundleRecord::LEGS_PER_BLOCK {
            return Err(BridgeError::TooManyLegs);
        }
        for (index, leg) in record.legs.iter().enumerate() {
            let transaction = (leg.rollup, leg.tx);
            let is_there = contents.is_none_or(|contents| contents.contains(&transaction));
            if !is_there || !self.legs.insert(transaction) {
                return Err(BridgeError::LegMissing { id, leg: index });
            }
        }
        Arc::make_mut(&mut self.bundles).open(id, record, height);
        self.added.included.push((id, record.clone()));
        self.tell(&id);
        Ok(())
    }

    /// Takes note that something has become of a bundle.
    fn tell(&mut self, id: &B256) {
        if let Some(bundle) = self.bundles.get(id) {
            self.added.bundles.push((*id, bundle.clone()));
        }
    }

    fn decide(&mut self, id: &B256, committed: bool, height: u64) -> Result<(), AccumulatorFull> {
        Arc::make_mut(&mut self.bundles).decide(id, committed, height);
        self.tell(id);
        self.append(HubLeaf::Decision { bundle: *id, committed, height }).map(|_| ())
    }

    /// Counts the votes of a certified checkpoint, in the block of a height.
    fn count(&mut self, rollup: RollupId, votes: &[Vote], height: u64) -> Result<(), AccumulatorFull> {
        for vote in votes {
            match Arc::make_mut(&mut self.bundles).vote(rollup, vote) {
                Effect::Nothing => {}
                Effect::Decides { committed } => self.decide(&vote.bundle, committed, height)?,
                Effect::Releases => {
                    self.append(HubLeaf::Release { bundle: vote.bundle, rollup, leg: vote.leg })?;
                }
            }
        }
        Ok(())
    }

    /// Ends the block of a height, which had records if `changed`: bundles whose deadline it is are aborted.
    pub(crate) fn close_block(&mut self, height: u64, changed: bool) -> Result<(), AccumulatorFull> {
        let overdue = self.bundles.overdue(height);
        for id in &overdue {
            self.decide(id, false, height)?;
        }
        let forgets = self.bundles.has_old(height);
        if forgets {
            Arc::make_mut(&mut self.bundles).forget(height);
        }
        let lapses = self.forget_disputes(height);
        let changed = changed || forgets || lapses || !overdue.is_empty();
        let is_gone = |operator: &Operator| operator.gone_at.is_some_and(|gone_at| gone_at <= height);
        if self.operators.values().any(is_gone) {
            let mut operators = BTreeMap::clone(&self.operators);
            operators.retain(|_, operator| !is_gone(operator));
            self.operators = Arc::new(operators);
            self.root = self.hashed();
        } else if changed {
            self.root = self.hashed();
        }
        Ok(())
    }

    fn hashed(&self) -> B256 {
        let mut w = Writer::default();
        self.write_around(&mut w, |bundles, w| bundles.write_hashes(w));
        keccak256(w.into_vec())
    }

    /// All of it: `docs/specs/checkpoints.md`.
    pub fn write(&self, w: &mut Writer) {
        self.write_around(w, |bundles, w| bundles.write(w));
    }

    fn write_around(&self, w: &mut Writer, write_bundles: impl FnOnce(&Bundles, &mut Writer)) {
        w.u8(Self::VERSION);
        w.count(self.operators.len());
        for (identity, operator) in self.operators.iter() {
            w.raw(identity.as_slice());
            w.raw(operator.bls.as_slice());
            w.u64(operator.serial);
            w.u64(operator.gone_at.unwrap_or(0));
            w.count(operator.rollups.len());
            operator.rollups.iter().for_each(|rollup| w.u64(rollup.0));
        }
        w.count(self.rollups.len());
        for (id, rollup) in self.rollups.iter() {
            w.u64(id.0);
            w.u64(rollup.chain);
            w.u64(rollup.deposits);
            w.u64(rollup.first);
            w.u8(u8::from(rollup.certified.is_some()));
            if let Some(Certified { checkpoint, index }) = &rollup.certified {
                w.raw(&checkpoint.encode());
                w.u64(*index);
            }
        }
        write_bundles(&self.bundles, w);
        self.disputes.write(w);
        self.tree.write(w);
    }

    /// Reads [`Self::write`]'s layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let version = r.u8("bridge.version")?;
        if version != Self::VERSION {
            return Err(DecodeError::Version { field: "bridge", value: version });
        }
        let mut operators = BTreeMap::new();
        for _ in 0..r.count("bridge.operators", VALIDATORS_MAX)? {
            let identity = r.b256("operator.identity")?;
            let (bls, serial) = (FixedBytes(r.array("operator.bls")?), r.u64("operator.serial")?);
            let gone_at = Some(r.u64("operator.gone_at")?).filter(|height| *height > 0);
            let rollups = read_rollups(r)?.into_iter().collect();
            if operators.last_key_value().is_some_and(|(last, _)| *last >= identity) {
                return Err(DecodeError::Invalid { field: "operator.identity", reason: "not in ascending order" });
            }
            operators.insert(identity, Operator { bls, rollups, serial, gone_at });
        }
        let mut rollups = BTreeMap::new();
        for _ in 0..r.count("bridge.rollups", Founding::ROLLUPS_MAX)? {
            let id = RollupId(r.u64("rollup.id")?);
            let (chain, deposits) = (r.u64("rollup.chain")?, r.u64("rollup.deposits")?);
            let first = r.u64("rollup.first")?;
            let certified = match r.u8("rollup.certified")? {
                0 => None,
                1 => Some(Certified { checkpoint: Checkpoint::read(r)?, index: r.u64("rollup.index")? }),
                _ => return Err(DecodeError::Invalid { field: "rollup.certified", reason: "neither 0 nor 1" }),
            };
            if rollups.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(DecodeError::Invalid { field: "rollup.id", reason: "not in ascending order" });
            }
            rollups.insert(id, Rollup { chain, deposits, first, certified });
        }
        let mut state = Self {
            operators: Arc::new(operators),
            rollups: Arc::new(rollups),
            bundles: Arc::new(Bundles::read(r)?),
            disputes: Arc::new(Disputes::read(r)?),
            tree: Accumulator::read(r)?,
            added: Added::default(),
            certified: false,
            verdicts: 0,
            legs: BTreeSet::new(),
            root: B256::ZERO,
        };
        state.root = state.hashed();
        Ok(state)
    }
}

/// The height at which an operator is forgotten that leaves in a block on `hub`: until then it answers for what it has signed.
fn gone_at(hub: &HubState) -> u64 {
    hub.rules().last_of(hub.current().epoch().saturating_add(2))
}

/// Whether a checkpoint is a rollup's next, in a block of this height.
fn check_order(rollup: &Rollup, checkpoint: &Checkpoint, height: u64) -> Result<(), BridgeError> {
    let Checkpoint { rollup: id, number, hub_height, .. } = *checkpoint;
    let before = rollup.certified.map(|certified| certified.checkpoint);
    let expected = before.map_or(number.max(1), |before| before.number.saturating_add(1));
    if number != expected {
        return Err(BridgeError::Order { rollup: id, expected, found: number });
    }
    if number > hub_height.saturating_add(1).saturating_mul(BridgeState::BLOCKS_PER_HUB_BLOCK) {
        return Err(BridgeError::Number { rollup: id, number, hub_height });
    }
    if hub_height >= height || before.is_some_and(|before| hub_height < before.hub_height) {
        return Err(BridgeError::Height { rollup: id, number, hub_height });
    }
    Ok(())
}
