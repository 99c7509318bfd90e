//! The hub's own state beside the log: stake table and committees, at the tip and on the blocks above it.

use alloy_primitives::{Address, B256};
use parking_lot::Mutex;
use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};
use switchyard_bridge_core::{
    Accumulator, BRIDGE_FROM, BridgeRecord, BundleRecord, Founding, HubBundle, NodeId, SystemError, SystemState,
};
use switchyard_consensus_core::{Committee, Committees, HubState};
use switchyard_primitives::{Block, Bytes, Header, NEWEST_PROTOCOL, Reader, Writer};
use switchyard_rollup_core::{Account, Admission, Rejection, Sequenced};
use switchyard_store::{BridgeRows, Store, StoreError};

/// The bridge's state is written at every multiple of this height and at epochs' ends, for it may be large; another one follows
/// from it and the blocks since.
pub const STATE_EVERY: u64 = 64;
/// States on blocks that are not final yet.
const PENDING_STATES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Why a final block's state is not taken up.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The log breaks its own rules: a quorum of seats has, or the software differs.
    #[error("final block {height} breaks the hub's rules: {source}; upgrade switchyard if there is a newer version")]
    Rules {
        /// The block's height.
        height: u64,
        /// How.
        source: SystemError,
    },
    /// The network follows a protocol that this program does not know.
    #[error(
        "block {height} begins protocol {protocol}, and this program knows none above {newest}: install a newer switchyard \
         and start it again; nothing is lost"
    )]
    Protocol {
        /// The next block's height.
        height: u64,
        /// What it follows.
        protocol: u8,
        /// The newest known here.
        newest: u8,
    },
    /// The state in the store does not decode, or is not the tip's.
    #[error("hub state at height {height}: {detail}")]
    Corrupt {
        /// The tip's height.
        height: u64,
        /// What is wrong.
        detail: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The state at the tip and on the newest blocks. Clones share it.
#[derive(Clone)]
pub struct HubStates(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    network: B256,
    genesis: SystemState,
    /// The newest protocol version that is followed here.
    newest: u8,
    states: Mutex<States>,
    /// The state that was last asked for by height.
    asked: Mutex<Option<Arc<SystemState>>>,
}

struct States {
    /// After the newest final block here.
    tip: Arc<SystemState>,
    /// After valid blocks that were seen, by hash.
    after: lru::LruCache<B256, Arc<SystemState>>,
}

impl HubStates {
    /// The state at the store's tip; `genesis` is that of the genesis block. Blocking.
    pub fn open(store: Arc<dyn Store>, network: B256, genesis: SystemState) -> Result<Self, HubError> {
        Self::open_knowing(NEWEST_PROTOCOL, store, network, genesis)
    }

    /// [`Self::open`] for a node that follows no protocol above `newest`.
    pub fn open_knowing(
        newest: u8,
        store: Arc<dyn Store>,
        network: B256,
        genesis: SystemState,
    ) -> Result<Self, HubError> {
        let (tip, _) = store.tip();
        let height = tip.height;
        let corrupt = |detail: String| HubError::Corrupt { height, detail };
        if store.bridge_state(0)?.is_none() {
            put_bridge(&*store, 0, &genesis, Known::Before)?;
        }
        let state = known(&*store, network, &genesis, height, u64::MAX)?;
        let state = state.ok_or_else(|| corrupt("it is of another epoch, or blocks below the tip are gone".into()))?;
        let states = States { tip: state, after: lru::LruCache::new(PENDING_STATES) };
        let states = Self(Arc::new(Inner {
            store,
            network,
            genesis,
            newest,
            states: Mutex::new(states),
            asked: Mutex::default(),
        }));
        states.check_protocol()?;
        Ok(states)
    }

    /// Whether the block after the tip follows a protocol that is known here. A node that does not know it must stop.
    pub fn check_protocol(&self) -> Result<(), HubError> {
        let tip = self.tip();
        let (height, protocol, newest) = (tip.next_height(), tip.protocol(), self.0.newest);
        if self.knows(&tip) { Ok(()) } else { Err(HubError::Protocol { height, protocol, newest }) }
    }

    /// Whether the block after a state follows a protocol that is known here.
    pub fn knows(&self, state: &SystemState) -> bool {
        state.protocol() <= self.0.newest
    }

    /// The newest protocol version that is followed here.
    pub fn newest_protocol(&self) -> u8 {
        self.0.newest
    }

    /// The state after the newest final block here.
    pub fn tip(&self) -> Arc<SystemState> {
        self.0.states.lock().tip.clone()
    }

    /// The committee of an epoch that has begun, however long ago. Blocking.
    pub fn committee_of(&self, epoch: u64) -> Result<Arc<Committee>, HubError> {
        let tip = self.tip();
        if let Some(committee) = tip.committee(epoch) {
            return Ok(committee.clone());
        }
        let height = epoch.checked_sub(1).map_or(0, |before| tip.rules().last_of(before));
        let corrupt = |detail: String| HubError::Corrupt { height, detail };
        let state = match self.0.store.hub_state(height)? {
            Some(bytes) => HubState::decode(self.0.network, &bytes).map_err(|e| corrupt(e.to_string()))?,
            None => self.0.genesis.hub().clone(),
        };
        state.committee(epoch).cloned().ok_or_else(|| corrupt(format!("it does not tell the seats of epoch {epoch}")))
    }

    /// The state after a block that was followed here, or after the tip.
    pub fn after(&self, block: &Block) -> Option<Arc<SystemState>> {
        let mut states = self.0.states.lock();
        if states.tip.next_height() == block.header.height + 1 {
            return Some(states.tip.clone());
        }
        states.after.get(&block.hash()).cloned()
    }

    /// The state after a block on one whose state is known; remembered. Checks the block's header and records, which takes a
    /// pairing for each record: not on the async threads.
    pub fn follow(&self, on: &Arc<SystemState>, block: &Block) -> Result<Arc<SystemState>, SystemError> {
        let hash = block.hash();
        if let Some(known) = self.0.states.lock().after.get(&hash) {
            return Ok(known.clone());
        }
        let state = on.follow(block)?;
        self.0.states.lock().after.put(hash, state.clone());
        Ok(state)
    }

    /// The state after a final block, which is the tip's child; `None` if the tip is that high already.
    pub fn next(&self, block: &Block) -> Result<Option<Arc<SystemState>>, HubError> {
        let tip = self.tip();
        let height = block.header.height;
        if height < tip.next_height() {
            return Ok(None);
        }
        self.follow(&tip, block).map(Some).map_err(|source| HubError::Rules { height, source })
    }

    /// Writes down what changes with the next final block; to be called before the block is appended, so that no crash
    /// leaves the block without it. Blocking.
    pub fn write(&self, state: &SystemState) -> Result<(), HubError> {
        let (tip, height) = (self.tip(), state.next_height().saturating_sub(1));
        if state.hub().root() != tip.hub().root() {
            self.0.store.put_hub_state(height, &state.hub().encode())?;
        }
        let is_kept = height.is_multiple_of(STATE_EVERY)
            || state.next_height().is_multiple_of(state.rules().blocks.get())
            || tip.bridge().is_none();
        let changes = state.bridge().map(|bridge| bridge.root()) != tip.bridge().map(|bridge| bridge.root());
        if is_kept || changes {
            put_bridge(&*self.0.store, height, state, if is_kept { Known::Before } else { Known::State })?;
        }
        Ok(())
    }

    /// What a state's encoding is read with.
    pub fn founding(&self) -> &Arc<Founding> {
        self.0.genesis.founding()
    }

    /// The state after the block of a height, as others may begin with it; none where it cannot be known any more. Blocking:
    /// follows up to [`STATE_EVERY`] blocks, one caller at a time.
    pub fn state_at(&self, height: u64) -> Result<Option<Arc<SystemState>>, HubError> {
        let mut asked = self.0.asked.lock();
        if let Some(state) = asked.as_ref().filter(|state| Some(state.next_height()) == height.checked_add(1)) {
            return Ok(Some(state.clone()));
        }
        let state = known(&*self.0.store, self.0.network, &self.0.genesis, height, STATE_EVERY)?;
        asked.clone_from(&state);
        Ok(state)
    }

    /// Makes a state the tip's, once its block is in the store.
    pub fn advance(&self, state: Arc<SystemState>) {
        self.0.states.lock().tip = state;
    }
}

/// The state after the block of a height: stored, or at most so many blocks above one that is. None where it cannot be known.
fn known(
    store: &dyn Store,
    network: B256,
    genesis: &SystemState,
    height: u64,
    most: u64,
) -> Result<Option<Arc<SystemState>>, HubError> {
    match base(store, network, genesis, height)? {
        Some(base) if base.next_height().saturating_add(most) <= height => Ok(None),
        Some(base) => replayed(store, base, height),
        None => Ok(height.checked_add(1).and_then(|next| genesis.clone().unchanged_until(next)).map(Arc::new)),
    }
}

/// The newest state that was stored of a height or one below it; none where there is only that of the genesis.
fn base(
    store: &dyn Store,
    network: B256,
    genesis: &SystemState,
    height: u64,
) -> Result<Option<Arc<SystemState>>, HubError> {
    let bridge = store.bridge_state(height)?;
    let at = bridge.as_ref().map_or(height, |(at, _)| *at);
    let hub = store.hub_state(at)?;
    if hub.is_none() && bridge.is_none() {
        return Ok(None);
    }
    let bytes =
        [hub.unwrap_or_else(|| genesis.hub().encode()), bridge.map_or_else(Vec::new, |(_, state)| state)].concat();
    let corrupt = |detail: String| HubError::Corrupt { height: at, detail };
    let state = SystemState::decode(network, genesis.founding().clone(), &bytes).map_err(|e| corrupt(e.to_string()))?;
    let state = at.checked_add(1).and_then(|next| state.unchanged_until(next));
    Ok(Some(Arc::new(state.ok_or_else(|| corrupt("it is of another epoch".into()))?)))
}

/// The state after the block of a height, from an earlier one; none where a block between is not kept.
fn replayed(store: &dyn Store, base: Arc<SystemState>, height: u64) -> Result<Option<Arc<SystemState>>, HubError> {
    let mut state = base;
    while state.next_height() <= height {
        let at = state.next_height();
        let Some(block) = store.block(at)? else { return Ok(None) };
        state = state.follow(&block).map_err(|source| HubError::Rules { height: at, source })?;
    }
    Ok(Some(state))
}

/// The root of the hub's accumulator after the block with this header: what rollups see of the hub. Zero below protocol 3.
/// Blocking.
pub fn tree_root(store: &dyn Store, header: &Header) -> Result<B256, StoreError> {
    if header.protocol < BRIDGE_FROM {
        return Ok(B256::ZERO);
    }
    let count = store.bridge_count(header.height)?;
    let mut failed = None;
    let tree = Accumulator::at(count, |NodeId { level, position }| {
        store.bridge_node(level, position).unwrap_or_else(|error| {
            failed = Some(error);
            None
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let missing = || StoreError::Corrupt { column: "bridge", detail: format!("no edge of {count} leaves") };
    Ok(tree.ok_or_else(missing)?.root())
}

/// What a store has of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Of the accumulator all that there was before the block, and a state not far below, from which this one follows.
    State,
    /// Of the accumulator all that there was before the block.
    Before,
    /// Nothing: the log begins here. Of what came before, the edge is kept, from which roots follow.
    Nothing,
}

/// Keeps what the bridge is after the block of a height.
pub fn put_bridge(store: &dyn Store, height: u64, state: &SystemState, known: Known) -> Result<(), StoreError> {
    let Some(bridge) = state.bridge() else { return Ok(()) };
    let state_row = || {
        let mut w = Writer::default();
        bridge.write(&mut w);
        w.into_vec()
    };
    let added = bridge.added();
    let edge = if known == Known::Nothing { bridge.tree().edge() } else { Vec::new() };
    store.put_bridge(
        height,
        &BridgeRows {
            state: (known != Known::State).then(state_row),
            epoch_blocks: state.rules().blocks.get(),
            count: bridge.tree().count(),
            leaves: added.leaves.iter().map(|(index, leaf)| (*index, leaf.encode())).collect(),
            nodes: edge.iter().chain(&added.nodes).map(|(id, hash)| ((id.level, id.position), *hash)).collect(),
            bundles: added.bundles.iter().map(|(id, bundle)| (*id, encoded(bundle))).collect(),
            records: added.included.iter().map(|(id, record)| (*id, encoded_record(record))).collect(),
        },
    )
}

fn encoded(bundle: &HubBundle) -> Vec<u8> {
    let mut w = Writer::default();
    bundle.write(&mut w);
    w.into_vec()
}

fn encoded_record(record: &BundleRecord) -> Vec<u8> {
    BridgeRecord::Bundle(record.clone()).encode().to_vec()
}

/// How far a bundle has come whose legs are in the log; none where they are not, as far as this node knows. Blocking.
pub fn bundle_at(store: &dyn Store, id: &B256) -> Result<Option<HubBundle>, StoreError> {
    let Some(row) = store.bridge_bundle(id)? else { return Ok(None) };
    let mut r = Reader::new(row.into());
    let read = HubBundle::read(&mut r).map(Some);
    read.map_err(|error| StoreError::Corrupt { column: "bridge", detail: format!("bundle {id}: {error}") })
}

impl Committees for HubStates {
    fn committee(&self, epoch: u64) -> Option<Arc<Committee>> {
        self.0.states.lock().tip.committee(epoch).cloned()
    }

    fn addresses(&self) -> Vec<(B256, Option<SocketAddr>)> {
        self.tip().validators().iter().map(|(identity, v)| (*identity, v.address)).collect()
    }
}

/// The system rollup takes records that the next block could hold, or one soon after.
pub struct SystemAdmission(pub HubStates);

impl Admission for SystemAdmission {
    fn inspect(&self, payload: &Bytes) -> Result<Option<Sequenced>, Rejection> {
        if BridgeRecord::is_proposers(payload) {
            let text = "certificates, bundles and verdicts are records of those who propose blocks";
            return Err(Rejection::Record(text.into()));
        }
        match self.0.tip().draft().add(payload) {
            Err(error) if error.is_malformed() => Err(Rejection::Malformed(error.to_string())),
            Err(error) if !error.may_pass() => Err(Rejection::Record(error.to_string())),
            _ => Ok(None),
        }
    }

    fn account(&self, _: Address) -> Option<Account> {
        Some(Account::default())
    }

    fn base_fee(&self) -> u64 {
        0
    }

    fn block_gas_limit(&self) -> u64 {
        u64::MAX
    }
}

#[cfg(test)]
pub(crate) mod tests;
