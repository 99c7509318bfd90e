//! Every validator has the same stake table and the same committees, and they are those that follow from the log.
//!
//! The log is followed here by other code than the validators': a plain table, and `allot` at each epoch's end. A record may
//! change the table only if somebody who may do so has signed it, which is known here without looking at signatures; but a liar's
//! own record, of which nobody else knows, is held against the key that the table has for it.

use super::{Verdict, violated};
use crate::world::World;
use alloy::primitives::FixedBytes;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
    sync::Arc,
};
use switchyard_bridge_core::BridgeRecord;
use switchyard_consensus_core::{
    Committee, EpochRules, HubState, Member, Seat,
    allot::{allot, targets},
    record::{Change, Record, StakeChange, Update, UpdateKind},
    stake::RECORDS_PER_BLOCK,
};
use switchyard_primitives::{B256, Block, Bytes, RollupId, keccak256};

/// A validator in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its BLS key.
    pub bls: FixedBytes<48>,
    /// Its stake.
    pub stake: u64,
    /// Where it listens.
    pub address: Option<SocketAddr>,
    /// Number of its own updates.
    pub serial: u64,
}

/// The stake table, by identity.
pub type Table = BTreeMap<B256, Entry>;

/// What follows from the log.
#[derive(Debug)]
pub struct Committees {
    network: B256,
    rules: EpochRules,
    height: u64,
    table: Table,
    /// Number of stake changes.
    serial: u64,
    /// Of every epoch that is known.
    committees: BTreeMap<u64, Arc<Committee>>,
    /// Records that may be in the log, by hash.
    issued: HashSet<B256>,
    /// Who may change itself as it likes.
    liars: BTreeSet<B256>,
    /// The commitment to the state after each block, as the first validator had it.
    roots: BTreeMap<u64, B256>,
    applied: usize,
    /// The height of the newest record that operators have asked for.
    changed: Option<u64>,
}

/// The committee of an epoch whose stake is as the table says.
pub fn committee_of(epoch: u64, table: &Table, rules: EpochRules) -> Option<Committee> {
    let stakes: Vec<(B256, u64)> = table.iter().map(|(identity, entry)| (*identity, entry.stake)).collect();
    let staked = stakes.iter().filter(|(_, stake)| *stake > 0).count();
    let (seats, cap) = targets(staked, rules.seats_per_validator);
    let allotted = allot(&stakes, seats, cap);
    let member = |((identity, entry), seats): ((&B256, &Entry), u32)| Member {
        seat: Seat { identity: *identity, bls: entry.bls },
        seats,
    };
    let members = table.iter().zip(allotted).filter(|(_, seats)| *seats > 0).map(member).collect();
    Committee::new(epoch, members).ok()
}

impl Committees {
    /// After the genesis, in which the `liars` are faulty.
    pub fn new(world: &World, liars: BTreeSet<B256>) -> Self {
        let entry = |(identity, v): (&B256, &switchyard_consensus_core::stake::Registration)| {
            (*identity, Entry { bls: v.bls, stake: v.stake, address: v.address, serial: v.serial })
        };
        let table: Table = world.hub.validators().iter().map(entry).collect();
        let first = |epoch| Some((epoch, Arc::new(committee_of(epoch, &table, world.epochs)?)));
        let committees = [0, 1].into_iter().filter_map(first).collect();
        let (issued, roots) = (HashSet::new(), BTreeMap::new());
        let rules = world.epochs;
        let network = world.network;
        Self {
            network,
            rules,
            height: 0,
            table,
            serial: 0,
            committees,
            issued,
            liars,
            roots,
            applied: 0,
            changed: None,
        }
    }

    /// The stake table after the newest final block.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// How epochs are cut and seats allotted.
    pub fn rules(&self) -> EpochRules {
        self.rules
    }

    /// The committee of an epoch.
    pub fn of(&self, epoch: u64) -> Option<&Arc<Committee>> {
        self.committees.get(&epoch)
    }

    /// The committee of the block after the newest final one.
    pub fn current(&self) -> Option<&Arc<Committee>> {
        self.of(self.rules.epoch_of(self.height + 1))
    }

    /// The newest epoch whose committee is known.
    pub fn newest(&self) -> u64 {
        self.committees.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    /// Records in the log.
    pub fn applied(&self) -> usize {
        self.applied
    }

    /// Committees that are not the one before them.
    pub fn changes(&self) -> usize {
        let pairs = self.committees.values().zip(self.committees.values().skip(1));
        pairs.filter(|(before, after)| before.members() != after.members()).count()
    }

    /// Whether the newest change that operators have asked for is in force: the committee that follows from it signs.
    pub fn are_in_force(&self) -> bool {
        let epoch = self.rules.epoch_of(self.height + 1);
        self.changed.is_none_or(|changed| epoch >= self.rules.epoch_of(changed) + 2)
    }

    /// Somebody who may change the table has signed a record.
    pub fn issue(&mut self, record: &Bytes) {
        self.issued.insert(keccak256(record));
    }

    /// A block is final; told once for each validator, the first time for each height in order.
    pub fn final_block(&mut self, block: &Block) -> Verdict {
        let height = block.header.height;
        if height != self.height + 1 {
            return Ok(());
        }
        self.height = height;
        // Those of the bridge are another checker's.
        let records = block.transactions(RollupId::SYSTEM).iter().filter(|record| !BridgeRecord::is_one(record));
        let records: Vec<&Bytes> = records.collect();
        if records.len() > RECORDS_PER_BLOCK {
            return violated("committees", format!("block {height} has {} records", records.len()));
        }
        for bytes in records {
            let wrong = |what: &str| violated("committees", format!("block {height}: {what}"));
            let Ok(record) = Record::decode(bytes) else { return wrong("a record does not decode") };
            let own = |u: &Update| {
                let key =
                    self.table.get(&u.identity).filter(|_| self.liars.contains(&u.identity)).map(|entry| entry.bls);
                key.is_some_and(|key| u.verify(self.network, &key).is_ok())
            };
            let asked = self.issued.contains(&keccak256(bytes));
            if !asked && !matches!(&record, Record::Update(u) if own(u)) {
                return wrong(&format!("nobody who may has signed {record:?}"));
            }
            let applied = match record {
                Record::Stake(change) => self.change(change),
                Record::Update(update) => self.update(update),
                Record::Upgrade(_) => Err("an upgrade, which nobody decides here"),
            };
            if let Err(what) = applied {
                return wrong(what);
            }
            self.applied += 1;
            self.changed = if asked { Some(height) } else { self.changed };
        }
        if self.rules.is_last(height) {
            let epoch = self.rules.epoch_of(height) + 2;
            let Some(committee) = committee_of(epoch, &self.table, self.rules) else {
                return violated("committees", format!("epoch {epoch} has no committee"));
            };
            self.committees.insert(epoch, Arc::new(committee));
        }
        Ok(())
    }

    fn change(&mut self, change: StakeChange) -> Result<(), &'static str> {
        let epoch = self.rules.epoch_of(self.height);
        if change.serial != self.serial || (change.epoch != epoch && change.epoch + 1 != epoch) {
            return Err("a stake change for another state");
        }
        self.serial += 1;
        for (identity, what) in change.changes {
            match what {
                Change::Remove => {
                    self.table.remove(&identity).ok_or("removed, and not in the table")?;
                }
                Change::Stake(stake) => {
                    self.table.get_mut(&identity).ok_or("staked, and not in the table")?.stake = stake
                }
                Change::Join { bls, stake, address, .. } => {
                    let entry = Entry { bls, stake, address: Some(address), serial: 0 };
                    if self.table.insert(identity, entry).is_some() {
                        return Err("joins, and was in the table");
                    }
                }
            }
        }
        Ok(())
    }

    fn update(&mut self, update: Update) -> Result<(), &'static str> {
        let entry = self.table.get_mut(&update.identity).ok_or("an update of nobody")?;
        if update.serial != entry.serial {
            return Err("an update for another state");
        }
        entry.serial += 1;
        match update.kind {
            UpdateKind::Address(address) => entry.address = Some(address),
            UpdateKind::Keys { bls, .. } => entry.bls = bls,
            UpdateKind::Leave => entry.stake = 0,
        }
        Ok(())
    }

    /// An honest validator's state after a final block.
    pub fn state(&mut self, validator: usize, state: &HubState) -> Verdict {
        let height = state.next_height() - 1;
        let wrong =
            |what: String| violated("committees", format!("validator {validator} after block {height}: {what}"));
        if let Some(root) = self.roots.get(&height) {
            // The root is over the table and the committees.
            return match *root == state.root() {
                true => Ok(()),
                false => wrong(format!("state {}, others {root}", state.root())),
            };
        }
        self.roots.insert(height, state.root());
        if height != self.height {
            return wrong(format!("it is the first to be there, the newest block is {}", self.height));
        }
        let entry = |(id, v): (&B256, &switchyard_consensus_core::stake::Registration)| {
            (*id, Entry { bls: v.bls, stake: v.stake, address: v.address, serial: v.serial })
        };
        let table: Table = state.validators().iter().map(entry).collect();
        if table != self.table || state.serial() != self.serial {
            return wrong(format!("its stake table is {table:?}, from the log follows {:?}", self.table));
        }
        let epoch = self.rules.epoch_of(height + 1);
        for epoch in [epoch.checked_sub(1), Some(epoch), epoch.checked_add(1)].into_iter().flatten() {
            let (own, expected) = (state.committee(epoch), self.of(epoch));
            if own != expected {
                return wrong(format!("its committee of epoch {epoch} is {own:?}, by the log {expected:?}"));
            }
        }
        Ok(())
    }

    /// At the end: whom a validator whose log ends at the newest block takes to belong to the network, and where it dials them.
    pub fn roster(&self, validator: usize, known: &BTreeMap<B256, SocketAddr>) -> Verdict {
        for (identity, entry) in &self.table {
            if entry.address != known.get(identity).copied() {
                return violated(
                    "committees",
                    format!(
                        "validator {validator} dials {identity} at {:?}, the log says {:?}",
                        known.get(identity),
                        entry.address
                    ),
                );
            }
        }
        Ok(())
    }
}
