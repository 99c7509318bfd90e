//! All of the hub's state: what consensus needs of it, and the bridge.

use crate::{
    BridgeError, BridgeRecord, BridgeState, CertifiedCheckpoint, Checkpoint, Cut, Operator, SystemError, justice::Cuts,
    state::Contents,
};
use std::{collections::BTreeMap, ops::Deref, sync::Arc};
use switchyard_consensus_core::{
    HubState,
    record::{Record, RecordError},
    stake::RECORDS_PER_BLOCK,
};
use switchyard_primitives::{B256, Block, Bytes, DecodeError, Header, Reader, RollupId, Writer, keccak256};

/// The protocol version with which the bridge begins.
pub const BRIDGE_FROM: u8 = 3;

/// What the bridge begins with: the genesis says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Founding {
    /// Rollups that make checkpoints, with their EIP-155 chain ids; at most [`Self::ROLLUPS_MAX`].
    pub rollups: BTreeMap<RollupId, u64>,
    /// The first operators; their proofs of possession have been checked.
    pub operators: BTreeMap<B256, Operator>,
}

impl Founding {
    /// Most rollups that make checkpoints.
    pub const ROLLUPS_MAX: usize = 1 << 16;
}

/// The hub's state after a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemState {
    hub: HubState,
    /// None below protocol 3.
    bridge: Option<BridgeState>,
    founding: Arc<Founding>,
}

/// For what consensus needs. What this type says itself, of roots and records, goes before.
impl Deref for SystemState {
    type Target = HubState;

    fn deref(&self) -> &HubState {
        &self.hub
    }
}

impl SystemState {
    /// The state of the genesis block, or of one below protocol 3.
    pub fn new(hub: HubState, founding: Arc<Founding>) -> Result<Self, SystemError> {
        let mut state = Self { hub, bridge: None, founding };
        state.begin()?;
        Ok(state)
    }

    /// The bridge begins on the state on which the first block of protocol 3 stands.
    fn begin(&mut self) -> Result<(), SystemError> {
        if self.bridge.is_none() && self.hub.protocol() >= BRIDGE_FROM {
            self.bridge = Some(BridgeState::begin(&self.founding).map_err(BridgeError::from)?);
        }
        Ok(())
    }

    /// The bridge's state; none below protocol 3.
    pub fn bridge(&self) -> Option<&BridgeState> {
        self.bridge.as_ref()
    }

    /// What the bridge begins with.
    pub fn founding(&self) -> &Arc<Founding> {
        &self.founding
    }

    /// What consensus needs of it.
    pub fn hub(&self) -> &HubState {
        &self.hub
    }

    /// What the next header commits to: below protocol 3 the root of what consensus needs, from then on
    /// keccak-256 of `hub root 32 | bridge root 32`.
    pub fn root(&self) -> B256 {
        match &self.bridge {
            None => self.hub.root(),
            Some(bridge) => keccak256([self.hub.root(), bridge.root()].concat()),
        }
    }

    /// The header with what this state says of the next block.
    pub fn stamp(&self, header: Header) -> Header {
        Header { system_root: self.root(), ..self.hub.stamp(header) }
    }

    /// Checks what a block says of this state, and its records; returns the state after it.
    pub fn follow(self: &Arc<Self>, block: &Block) -> Result<Arc<Self>, SystemError> {
        let Header { height, .. } = block.header;
        if height != self.hub.next_height() || block.header != self.stamp(block.header) {
            return Err(RecordError::Header { height }.into());
        }
        let records = block.transactions(RollupId::SYSTEM);
        let proposers = records.iter().filter(|record| BridgeRecord::is_proposers(record)).count();
        let found = records.len() - proposers;
        if found > RECORDS_PER_BLOCK {
            return Err(RecordError::TooMany { found }.into());
        }
        let mut state = Self::clone(self);
        state.open_block();
        let contents = records.iter().any(|record| BridgeRecord::is_bundle(record)).then(|| contents(block));
        for record in records {
            state.apply(record, contents.as_ref())?;
        }
        state.close_block(!records.is_empty())?;
        Ok(Arc::new(state))
    }

    /// What the records of the next block, which is valid, certify: each checkpoint with who has signed it, ascending.
    pub fn certified_by(&self, records: &[Bytes]) -> Vec<(Checkpoint, Vec<B256>)> {
        let mut draft = self.draft();
        for record in records {
            if let Ok(BridgeRecord::Certificate(certificate)) = BridgeRecord::decode(record)
                && let Some(bridge) = draft.0.bridge()
            {
                let signers = |entry: &CertifiedCheckpoint| {
                    let attesters = bridge.attesters(&draft.0.hub, entry.checkpoint.rollup);
                    let signed = entry.signers.signers().filter_map(|i| attesters.get(usize::try_from(i).ok()?));
                    signed.map(|(identity, _, _)| *identity).collect()
                };
                return certificate.entries.iter().map(|entry| (entry.checkpoint, signers(entry))).collect();
            }
            if draft.add(record).is_err() {
                break;
            }
        }
        Vec::new()
    }

    /// The next block's records, to be put together one by one.
    pub fn draft(&self) -> Draft {
        let mut state = self.clone();
        state.open_block();
        Draft(state)
    }

    fn open_block(&mut self) {
        if let Some(bridge) = &mut self.bridge {
            bridge.open_block();
        }
    }

    fn apply(&mut self, record: &[u8], contents: Option<&Contents>) -> Result<(), SystemError> {
        if !BridgeRecord::is_one(record) {
            let record = Record::decode(record).map_err(RecordError::from)?;
            if let Some(bridge) = &self.bridge {
                bridge.admits(&record)?;
            }
            return Ok(self.hub.apply(&record)?);
        }
        let protocol = self.hub.protocol();
        let bridge = self.bridge.as_mut().ok_or(BridgeError::Protocol { protocol })?;
        let mut cuts = Cuts::new();
        match BridgeRecord::decode(record).map_err(BridgeError::from)? {
            BridgeRecord::Operator(change) => bridge.change(&self.hub, &change)?,
            BridgeRecord::Certificate(certificate) => bridge.certify(&self.hub, &certificate)?,
            BridgeRecord::Bundle(bundle) => bridge.include(&self.hub, &bundle, contents)?,
            BridgeRecord::Evidence(evidence) => cuts = bridge.convict(&self.hub, &evidence)?,
            BridgeRecord::Challenge(challenge) => bridge.challenge(&self.hub, &challenge)?,
            BridgeRecord::Verdict(verdict) => cuts = bridge.rule(&self.hub, &verdict)?,
            BridgeRecord::Deposits(deposits) => bridge.deposit(&self.hub, &deposits)?,
        }
        self.cut(cuts)
    }

    /// Cuts stakes in the table.
    fn cut(&mut self, cuts: Cuts) -> Result<(), SystemError> {
        if cuts.is_empty() {
            return Ok(());
        }
        let stake = |identity| self.hub.validators().get(&identity).map_or(0, |v| v.stake);
        let cuts =
            cuts.into_iter().map(|(identity, offence)| Cut { identity, offence, amount: offence.cut(stake(identity)) });
        let cuts: Vec<Cut> = cuts.collect();
        self.hub.cut(cuts.iter().map(|cut| (cut.identity, cut.amount)))?;
        if let Some(bridge) = &mut self.bridge {
            bridge.added.cuts.extend(cuts);
        }
        Ok(())
    }

    fn close_block(&mut self, changed: bool) -> Result<(), SystemError> {
        let height = self.hub.next_height();
        if let Some(bridge) = self.bridge.as_mut().filter(|_| changed) {
            bridge.retire(&self.hub);
        }
        self.hub.close_block(changed)?;
        if let Some(bridge) = &mut self.bridge {
            bridge.close_block(height, changed).map_err(BridgeError::from)?;
        }
        self.begin()
    }

    /// This state as it is at a later height if nothing changes it until then; `None` if an epoch ends between.
    pub fn unchanged_until(self, next: u64) -> Option<Self> {
        Some(Self { hub: self.hub.unchanged_until(next)?, ..self })
    }

    /// The consensus part's encoding, and from protocol 3 on [`BridgeState::write`]'s.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&self.hub.encode());
        if let Some(bridge) = &self.bridge {
            bridge.write(&mut w);
        }
        w.into_vec()
    }

    /// Reads [`Self::encode`]'s layout.
    pub fn decode(network: B256, founding: Arc<Founding>, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(Bytes::copy_from_slice(bytes));
        let hub = HubState::read(network, &mut r)?;
        let bridge = if hub.protocol() >= BRIDGE_FROM { Some(BridgeState::read(&mut r)?) } else { None };
        r.finish()?;
        Ok(Self { hub, bridge, founding })
    }
}

/// The transactions of a block.
fn contents(block: &Block) -> Contents {
    let rows = block.segments().iter().zip(block.tx_hashes());
    rows.flat_map(|(segment, hashes)| hashes.iter().map(|hash| (segment.rollup, *hash))).collect()
}

/// The state in the middle of the block after it: what that block's proposer has put into it so far.
#[derive(Clone, Debug)]
pub struct Draft(SystemState);

impl Draft {
    /// Adds a record, if it may come next; else nothing changes. Checks its signatures: not on the async threads. That a
    /// bundle's legs are in the block is for who makes it to see to.
    pub fn add(&mut self, record: &[u8]) -> Result<(), SystemError> {
        self.add_all(&[record])
    }

    /// Adds records one after the other, as [`Self::add`] does; if one may not come next nothing changes.
    pub fn add_all<T: AsRef<[u8]>>(&mut self, records: &[T]) -> Result<(), SystemError> {
        let mut tried = self.0.clone();
        records.iter().try_for_each(|record| tried.apply(record.as_ref(), None))?;
        self.0 = tried;
        Ok(())
    }

    /// The records of `candidates` that may come next, in their order; the others are left out, and certificates, which are the
    /// proposer's own.
    pub fn admissible<T: AsRef<[u8]>>(mut self, candidates: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut admits = |record: &T| {
            let record = record.as_ref();
            !BridgeRecord::is_proposers(record) && self.add(record).is_ok()
        };
        candidates.into_iter().filter(|record| admits(record)).take(RECORDS_PER_BLOCK).collect()
    }
}
