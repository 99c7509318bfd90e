//! The stake table, and the committees that follow from it: the part of the hub's state that decides who signs.
//!
//! Everything here is a function of the log: the genesis and the records of the system rollup (`docs/specs/stake.md`).

use crate::{
    Committee, Member, Seat, SeatError,
    allot::{allot, targets},
    record::{Activation, Change, Record, RecordError, StakeChange, Update, UpdateKind, Upgrade},
};
use alloy_primitives::FixedBytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU64,
    sync::Arc,
};
use switchyard_primitives::{B256, Block, DecodeError, Header, Reader, RollupId, Writer, keccak256};

/// Most validators in the table.
pub const VALIDATORS_MAX: usize = 1024;
/// Most records in one block: checking one costs a pairing or two, and every validator checks them before it votes.
pub const RECORDS_PER_BLOCK: usize = 16;

/// How epochs are cut and seats allotted: part of the genesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochRules {
    /// Blocks of an epoch; at least 2. Epoch `e` has the heights from `e * blocks` on.
    pub blocks: NonZeroU64,
    /// Seats for each validator with stake, on average.
    pub seats_per_validator: u32,
}

impl EpochRules {
    /// The epoch of a height.
    pub fn epoch_of(&self, height: u64) -> u64 {
        height / self.blocks
    }

    /// The last height of an epoch: its boundary, whose header names the next epoch's seats.
    pub fn last_of(&self, epoch: u64) -> u64 {
        epoch.saturating_add(1).saturating_mul(self.blocks.get()).saturating_sub(1)
    }

    /// Whether a height is an epoch's last.
    pub fn is_last(&self, height: u64) -> bool {
        self.last_of(self.epoch_of(height)) == height
    }
}

/// A validator in the stake table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What its votes are signed with from the epoch after next on.
    pub bls: FixedBytes<48>,
    /// Its stake; seats are allotted by it.
    pub stake: u64,
    /// Where it listens, if it has said so.
    pub address: Option<SocketAddr>,
    /// Number of its own updates so far: the next one names it.
    pub serial: u64,
}

/// The hub's state after a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubState {
    network: B256,
    rules: EpochRules,
    /// The next block's height.
    next: u64,
    validators: Arc<BTreeMap<B256, Registration>>,
    /// Number of quorum-signed changes so far: the next one names it.
    serial: u64,
    /// What the next block follows.
    protocol: u8,
    /// What a later one begins.
    upgrade: Option<Activation>,
    /// Who has changed something of itself in the block that is being followed; empty between blocks.
    updated: BTreeSet<B256>,
    /// Of the next block's epoch, and of the one after it. The one before is kept because a change that was signed at the
    /// end of an epoch arrives in the next.
    committees: [Arc<Committee>; 3],
    /// Hash of all of this but the height.
    root: B256,
}

impl HubState {
    /// The state of the genesis block, on which protocol 1 begins. The validators' proofs of possession have been checked.
    pub fn genesis(
        network: B256,
        rules: EpochRules,
        validators: impl IntoIterator<Item = (B256, Registration)>,
    ) -> Result<Self, SeatError> {
        let validators: BTreeMap<_, _> = validators.into_iter().collect();
        let first = Arc::new(snapshot(0, &validators, rules)?);
        let second = Arc::new(snapshot(1, &validators, rules)?);
        let committees = [first.clone(), first, second];
        let validators = validators.into();
        Ok(Self::new(network, rules, 1, validators, committees))
    }

    fn new(
        network: B256,
        rules: EpochRules,
        next: u64,
        validators: Arc<BTreeMap<B256, Registration>>,
        committees: [Arc<Committee>; 3],
    ) -> Self {
        let (updated, root) = (BTreeSet::new(), B256::ZERO);
        let state =
            Self { network, rules, next, validators, serial: 0, protocol: 1, upgrade: None, updated, committees, root };
        state.with_root()
    }

    /// This state with another protocol version for the next block: for a network that begins with it.
    pub fn with_protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }.with_root()
    }

    /// This state as it is at a later height if nothing changes it until then; `None` if an epoch ends between.
    pub fn unchanged_until(self, next: u64) -> Option<Self> {
        let same = next >= self.next && self.rules.epoch_of(next) == self.current().epoch();
        same.then_some(Self { next, ..self })
    }

    /// The rules of epochs.
    pub fn rules(&self) -> &EpochRules {
        &self.rules
    }

    /// The height of the next block.
    pub fn next_height(&self) -> u64 {
        self.next
    }

    /// The stake table, ascending by identity.
    pub fn validators(&self) -> &BTreeMap<B256, Registration> {
        &self.validators
    }

    /// The number that the next quorum-signed change must name.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The committee of the next block's epoch.
    pub fn current(&self) -> &Arc<Committee> {
        &self.committees[1]
    }

    /// The committee of the epoch after that.
    pub fn following(&self) -> &Arc<Committee> {
        &self.committees[2]
    }

    /// The committee of an epoch, if it is the next block's, the one before or the one after.
    pub fn committee(&self, epoch: u64) -> Option<&Arc<Committee>> {
        self.committees.iter().find(|c| c.epoch() == epoch)
    }

    /// The protocol version that the next block follows.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Which protocol version begins at which later height, if that is decided.
    pub fn upgrade(&self) -> Option<Activation> {
        self.upgrade
    }

    /// The header with what this state says of the next block: protocol version, epoch, the commitment to this state, and the
    /// next seats' hash where it is an epoch's last.
    pub fn stamp(&self, header: Header) -> Header {
        let last = self.rules.is_last(self.next);
        let next_seats_hash = if last { self.following().seats().hash() } else { B256::ZERO };
        let (protocol, epoch) = (self.protocol, self.current().epoch());
        Header { protocol, epoch, system_root: self.root, next_seats_hash, ..header }
    }

    /// keccak-256 of [`Self::encode`] without the height: what the next header commits to as `system_root`.
    pub fn root(&self) -> B256 {
        self.root
    }

    fn with_root(mut self) -> Self {
        self.root = self.hashed();
        self
    }

    fn hashed(&self) -> B256 {
        let mut w = Writer::default();
        self.write(&mut w);
        keccak256(w.into_vec())
    }

    /// The network's id.
    pub fn network(&self) -> B256 {
        self.network
    }

    /// Checks what a block of protocol 1 or 2 says of this state, and its records; returns the state after it. From protocol 3 on
    /// the hub's state has more parts, and who keeps them puts them together.
    pub fn follow(self: &Arc<Self>, block: &Block) -> Result<Arc<Self>, RecordError> {
        let Header { height, .. } = block.header;
        if height != self.next || block.header != self.stamp(block.header) {
            return Err(RecordError::Header { height });
        }
        let mut state = Self::clone(self);
        let records = block.transactions(RollupId::SYSTEM);
        if records.len() > RECORDS_PER_BLOCK {
            return Err(RecordError::TooMany { found: records.len() });
        }
        for record in records {
            state.apply(&Record::decode(record)?)?;
        }
        state.close_block(!records.is_empty())?;
        Ok(Arc::new(state))
    }

    /// The records of `candidates` that a block on this state may hold, in their order; the others are left out.
    pub fn admissible<T: AsRef<[u8]>>(&self, candidates: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut state = self.clone();
        let mut admits = |record: &T| Record::decode(record.as_ref()).is_ok_and(|record| state.apply(&record).is_ok());
        candidates.into_iter().filter(|record| admits(record)).take(RECORDS_PER_BLOCK).collect()
    }

    /// Whether a record could be in the next block.
    pub fn check(&self, record: &Record) -> Result<(), RecordError> {
        self.clone().apply(record)
    }

    /// Applies a record of the next block. What comes of it is in [`Self::root`] after [`Self::close_block`]; after an error this
    /// state is of no use.
    pub fn apply(&mut self, record: &Record) -> Result<(), RecordError> {
        match record {
            Record::Stake(change) => self.change(change),
            Record::Update(update) => self.update(update),
            Record::Upgrade(upgrade) => self.schedule(upgrade),
        }
    }

    /// Whether a signed change is the next one. Asked after the signatures: what may come later is kept until then.
    fn check_serial(&self, serial: u64) -> Result<(), RecordError> {
        match serial == self.serial {
            true => Ok(()),
            false => Err(RecordError::Serial { expected: self.serial, found: serial }),
        }
    }

    /// The committee of an epoch, if a quorum of its seats may sign records of the next block: that of its epoch, or of the one
    /// before.
    pub fn signing(&self, epoch: u64) -> Result<&Committee, RecordError> {
        let committee = self.committees[..2].iter().find(|c| c.epoch() == epoch);
        committee.map(|c| &**c).ok_or(RecordError::Epoch { current: self.current().epoch(), found: epoch })
    }

    fn schedule(&mut self, upgrade: &Upgrade) -> Result<(), RecordError> {
        upgrade.verify(self.network, self.signing(upgrade.epoch)?)?;
        self.check_serial(upgrade.serial)?;
        let activation = upgrade.activation;
        self.check_activation(&activation)?;
        self.upgrade = (activation.protocol != self.protocol).then_some(activation);
        self.serial += 1;
        Ok(())
    }

    /// Whether a protocol version may begin at a height, or be withdrawn.
    pub fn check_activation(&self, activation: &Activation) -> Result<(), RecordError> {
        let Activation { protocol, height } = *activation;
        if protocol == self.protocol {
            let withdrawn = self.upgrade.is_some() && height == 0;
            return if withdrawn { Ok(()) } else { Err(RecordError::NothingToWithdraw { protocol }) };
        }
        if Some(protocol) != self.protocol.checked_add(1) {
            return Err(RecordError::Protocol { current: self.protocol, found: protocol });
        }
        let earliest = self.rules.last_of(self.current().epoch().saturating_add(1)).saturating_add(1);
        if height < earliest || !height.is_multiple_of(self.rules.blocks.get()) {
            return Err(RecordError::ActivationHeight { earliest, blocks: self.rules.blocks.get(), found: height });
        }
        Ok(())
    }

    fn change(&mut self, change: &StakeChange) -> Result<(), RecordError> {
        change.verify(self.network, self.signing(change.epoch)?)?;
        self.check_serial(change.serial)?;
        let mut validators = BTreeMap::clone(&self.validators);
        for (identity, what) in &change.changes {
            match what {
                Change::Remove => {
                    validators.remove(identity).ok_or(RecordError::Unknown { identity: *identity })?;
                }
                Change::Stake(stake) => {
                    let found = validators.get_mut(identity).ok_or(RecordError::Unknown { identity: *identity })?;
                    found.stake = *stake;
                }
                Change::Join { bls, stake, address, .. } => {
                    if validators.contains_key(identity) {
                        return Err(RecordError::Known { identity: *identity });
                    }
                    check_key(&validators, bls)?;
                    let address = Some(*address);
                    let joined = Registration { bls: *bls, stake: *stake, address, serial: 0 };
                    validators.insert(*identity, joined);
                }
            }
        }
        if validators.len() > VALIDATORS_MAX {
            return Err(RecordError::Full);
        }
        self.replace(validators)?;
        self.serial += 1;
        Ok(())
    }

    fn update(&mut self, update: &Update) -> Result<(), RecordError> {
        let Update { identity, serial, kind, .. } = update;
        let found = self.validators.get(identity).ok_or(RecordError::Unknown { identity: *identity })?;
        update.verify(self.network, &found.bls)?;
        if *serial != found.serial {
            return Err(RecordError::Serial { expected: found.serial, found: *serial });
        }
        if self.protocol > 1 && self.updated.contains(identity) {
            return Err(RecordError::Twice { identity: *identity });
        }
        self.updated.insert(*identity);
        let mut validators = BTreeMap::clone(&self.validators);
        if let UpdateKind::Keys { bls, .. } = kind {
            check_key(&validators, bls)?;
        }
        if let Some(own) = validators.get_mut(identity) {
            own.serial += 1;
            match kind {
                UpdateKind::Address(address) => own.address = Some(*address),
                UpdateKind::Keys { bls, .. } => own.bls = *bls,
                UpdateKind::Leave => own.stake = 0,
            }
        }
        self.replace(validators)
    }

    /// Takes so much of each one's stake, as far as it has so much, in the next block. Seats that are allotted already stay; the
    /// next snapshot sees what is left.
    pub fn cut(&mut self, cuts: impl IntoIterator<Item = (B256, u64)>) -> Result<(), RecordError> {
        let mut validators = BTreeMap::clone(&self.validators);
        for (identity, amount) in cuts {
            if let Some(found) = validators.get_mut(&identity) {
                found.stake = found.stake.saturating_sub(amount);
            }
        }
        self.replace(validators)
    }

    /// Puts a table in place from which seats can be allotted.
    fn replace(&mut self, validators: BTreeMap<B256, Registration>) -> Result<(), RecordError> {
        if validators.values().all(|v| v.stake == 0) {
            return Err(RecordError::NobodyLeft);
        }
        self.validators = Arc::new(validators);
        Ok(())
    }

    /// Ends the next block, in which there was a record if `changed`: counts it; an epoch's last fixes the stake of the epoch
    /// after next.
    pub fn close_block(&mut self, changed: bool) -> Result<(), RecordError> {
        let closed = self.next;
        self.next += 1;
        self.updated.clear();
        if let Some(Activation { protocol, height }) = self.upgrade
            && height == self.next
        {
            (self.protocol, self.upgrade) = (protocol, None);
        }
        if self.rules.is_last(closed) {
            let epoch = self.rules.epoch_of(closed) + 2;
            let next = Arc::new(snapshot(epoch, &self.validators, self.rules)?);
            self.committees.rotate_left(1);
            self.committees[2] = next;
        }
        if changed || self.rules.is_last(closed) {
            self.root = self.hashed();
        }
        Ok(())
    }
}

fn check_key(validators: &BTreeMap<B256, Registration>, bls: &FixedBytes<48>) -> Result<(), RecordError> {
    if validators.values().any(|v| v.bls == *bls) { Err(RecordError::KeyTaken { bls: *bls }) } else { Ok(()) }
}

/// The committee of an epoch whose stake is as the table says.
fn snapshot(epoch: u64, table: &BTreeMap<B256, Registration>, rules: EpochRules) -> Result<Committee, SeatError> {
    let stakes: Vec<(B256, u64)> = table.iter().map(|(id, v)| (*id, v.stake)).collect();
    let staked = stakes.iter().filter(|(_, stake)| *stake > 0).count();
    let (seats, cap) = targets(staked, rules.seats_per_validator);
    let allotted = allot(&stakes, seats, cap);
    let members = table.iter().zip(allotted).filter(|(_, seats)| *seats > 0);
    let members =
        members.map(|((identity, v), seats)| Member { seat: Seat { identity: *identity, bls: v.bls }, seats });
    Committee::new(epoch, members.collect())
}

/// The encoding, for the disk and for the commitment.
impl HubState {
    /// `next height u64`, then what [`Self::root`] is the hash of (`docs/specs/stake.md`).
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.next);
        self.write(&mut w);
        w.into_vec()
    }

    fn write(&self, w: &mut Writer) {
        // A state of protocol 1 has no place for another one: networks that began before there was one agree on its hash.
        let plain = self.protocol == 1 && self.upgrade.is_none();
        w.u8(if plain { 1 } else { 2 });
        if !plain {
            w.u8(self.protocol);
            let Activation { protocol, height } = self.upgrade.unwrap_or(Activation { protocol: 0, height: 0 });
            w.u8(protocol);
            w.u64(height);
        }
        w.u64(self.rules.blocks.get());
        w.u32(self.rules.seats_per_validator);
        w.u64(self.serial);
        w.count(self.validators.len());
        for (identity, v) in self.validators.iter() {
            w.raw(identity.as_slice());
            w.raw(v.bls.as_slice());
            w.u64(v.stake);
            w.u64(v.serial);
            crate::record::write_address(w, v.address);
        }
        for committee in &self.committees {
            w.u64(committee.epoch());
            w.count(committee.members().len());
            for member in committee.members() {
                w.raw(member.seat.identity.as_slice());
                w.raw(member.seat.bls.as_slice());
                w.u32(member.seats);
            }
        }
    }

    /// Reads [`Self::encode`]'s layout.
    pub fn decode(network: B256, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(switchyard_primitives::Bytes::copy_from_slice(bytes));
        let state = Self::read(network, &mut r)?;
        r.finish()?;
        Ok(state)
    }

    /// [`Self::decode`] of what may have something else behind it.
    pub fn read(network: B256, r: &mut Reader) -> Result<Self, DecodeError> {
        let next = r.u64("state.next")?;
        let (protocol, upgrade) = match r.u8("state.version")? {
            1 => (1, None),
            2 => read_protocol(r)?,
            value => return Err(DecodeError::Version { field: "state", value }),
        };
        let blocks = NonZeroU64::new(r.u64("state.epoch_blocks")?).filter(|b| b.get() > 1);
        let blocks = blocks.ok_or(DecodeError::Invalid { field: "state.epoch_blocks", reason: "below 2" })?;
        let rules = EpochRules { blocks, seats_per_validator: r.u32("state.seats_per_validator")? };
        let serial = r.u64("state.serial")?;
        let mut validators = BTreeMap::new();
        for _ in 0..r.count("state.validators", VALIDATORS_MAX)? {
            let identity = r.b256("validator.identity")?;
            if validators.last_key_value().is_some_and(|(last, _)| *last >= identity) {
                return Err(DecodeError::Invalid { field: "validator.identity", reason: "not in ascending order" });
            }
            let registration = Registration {
                bls: FixedBytes(r.array("validator.bls")?),
                stake: r.u64("validator.stake")?,
                serial: r.u64("validator.serial")?,
                address: crate::record::read_address(r)?,
            };
            validators.insert(identity, registration);
        }
        let committees = [read_committee(r)?, read_committee(r)?, read_committee(r)?].map(Arc::new);
        let epoch = rules.epoch_of(next);
        let expected = [epoch.saturating_sub(1), epoch, epoch.saturating_add(1)];
        if next == 0 || committees.each_ref().map(|c| c.epoch()) != expected {
            return Err(DecodeError::Invalid { field: "committee.epoch", reason: "not those of the height" });
        }
        let state = Self::new(network, rules, next, validators.into(), committees);
        Ok(Self { serial, protocol, upgrade, ..state }.with_root())
    }
}

/// What a state of layout 2 says first: the next block's protocol version, and the one that begins later; zeros for none.
fn read_protocol(r: &mut Reader) -> Result<(u8, Option<Activation>), DecodeError> {
    let protocol = r.u8("state.protocol")?;
    let activation = Activation { protocol: r.u8("upgrade.protocol")?, height: r.u64("upgrade.height")? };
    let upgrade = (activation != Activation { protocol: 0, height: 0 }).then_some(activation);
    let follows = |a: Activation| protocol.checked_add(1) == Some(a.protocol);
    if protocol == 0 || !upgrade.is_none_or(follows) || (protocol == 1 && upgrade.is_none()) {
        return Err(DecodeError::Invalid { field: "state.protocol", reason: "not one that layout 2 is for" });
    }
    Ok((protocol, upgrade))
}

fn read_committee(r: &mut Reader) -> Result<Committee, DecodeError> {
    let epoch = r.u64("committee.epoch")?;
    let count = r.count("committee.members", VALIDATORS_MAX)?;
    let mut members: Vec<Member> = Vec::with_capacity(count);
    for _ in 0..count {
        let seat = Seat { identity: r.b256("member.identity")?, bls: FixedBytes(r.array("member.bls")?) };
        if members.last().is_some_and(|last| last.seat.identity >= seat.identity) {
            return Err(DecodeError::Invalid { field: "member.identity", reason: "not in ascending order" });
        }
        let seats = r.u32("member.seats")?;
        if seats == 0 {
            return Err(DecodeError::Invalid { field: "member.seats", reason: "none" });
        }
        members.push(Member { seat, seats });
    }
    Committee::new(epoch, members).map_err(|_| DecodeError::Invalid { field: "committee", reason: "not a seat set" })
}

#[cfg(test)]
mod tests;
