//! The hub's own state beside the log: stake table and committees, at the tip and on the blocks above it.

use alloy_primitives::{Address, B256};
use parking_lot::Mutex;
use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};
use switchyard_bridge_core::{
    Accumulator, BRIDGE_FROM, BridgeRecord, Founding, HubBundle, NodeId, SystemError, SystemState,
};
use switchyard_consensus_core::{Committee, Committees, HubState};
use switchyard_primitives::{Block, Bytes, Header, NEWEST_PROTOCOL, Reader, Writer};
use switchyard_rollup_core::{Account, Admission, Rejection, Sequenced};
use switchyard_store::{BridgeRows, Store, StoreError};

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
        let state = match stored(&*store, height, &genesis)? {
            Some(bytes) => {
                SystemState::decode(network, genesis.founding().clone(), &bytes).map_err(|e| corrupt(e.to_string()))?
            }
            None => genesis.clone(),
        };
        let at_tip = height.checked_add(1).and_then(|next| state.unchanged_until(next));
        let state = at_tip.ok_or_else(|| corrupt("it is of another epoch".into()))?;
        let states = States { tip: Arc::new(state), after: lru::LruCache::new(PENDING_STATES) };
        let states = Self(Arc::new(Inner { store, network, genesis, newest, states: Mutex::new(states) }));
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
        if state.bridge().map(|bridge| bridge.root()) != tip.bridge().map(|bridge| bridge.root()) {
            put_bridge(&*self.0.store, height, state, Known::Before)?;
        }
        Ok(())
    }

    /// What a state's encoding is read with.
    pub fn founding(&self) -> &Arc<Founding> {
        self.0.genesis.founding()
    }

    /// The state after the block of a height, encoded, as others may begin with it; none where it is that of the genesis. Blocking.
    pub fn encoded_at(&self, height: u64) -> Result<Kept, StoreError> {
        let Some(bytes) = stored(&*self.0.store, height, &self.0.genesis)? else { return Ok(Kept::Genesis) };
        // The next header commits to it. Of the bridge's states those of most heights are not kept.
        let next = height.checked_add(1).map_or(Ok(None), |next| self.0.store.header(next))?;
        let is_it = next.filter(|next| next.protocol >= BRIDGE_FROM).is_none_or(|next| {
            let state = SystemState::decode(self.0.network, self.founding().clone(), &bytes);
            state.is_ok_and(|state| state.root() == next.system_root)
        });
        Ok(if is_it { Kept::State(bytes) } else { Kept::Forgotten })
    }

    /// The state after the block of a height; none where not all of it is kept. Blocking.
    pub fn state_at(&self, height: u64) -> Result<Option<SystemState>, HubError> {
        let state = match self.encoded_at(height)? {
            Kept::Genesis => Some(self.0.genesis.clone()),
            Kept::State(bytes) => {
                let state = SystemState::decode(self.0.network, self.founding().clone(), &bytes);
                Some(state.map_err(|e| HubError::Corrupt { height, detail: e.to_string() })?)
            }
            Kept::Forgotten => None,
        };
        Ok(state.and_then(|state| state.unchanged_until(height.saturating_add(1))))
    }

    /// Makes a state the tip's, once its block is in the store.
    pub fn advance(&self, state: Arc<SystemState>) {
        self.0.states.lock().tip = state;
    }
}

/// The state after the block of a height as it was stored, encoded; none where there is only that of the genesis. For a height that
/// is neither one of the newest nor an epoch's last it may be that of a lower one.
fn stored(store: &dyn Store, height: u64, genesis: &SystemState) -> Result<Option<Vec<u8>>, StoreError> {
    let (hub, bridge) = (store.hub_state(height)?, store.bridge_state(height)?);
    if hub.is_none() && bridge.is_none() {
        return Ok(None);
    }
    let hub = hub.unwrap_or_else(|| genesis.hub().encode());
    Ok(Some([hub, bridge.unwrap_or_default()].concat()))
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

/// What is kept of the hub's state after a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is that of the genesis.
    Genesis,
    /// It, encoded.
    State(Vec<u8>),
    /// Not all of it: the height is neither one of the newest nor an epoch's last.
    Forgotten,
}

/// What a store has of the hub's accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// All that there was before the block.
    Before,
    /// Nothing: the log begins here. Of what came before, the edge is kept, from which roots follow.
    Nothing,
}

/// Keeps what the bridge is after the block of a height.
pub fn put_bridge(store: &dyn Store, height: u64, state: &SystemState, known: Known) -> Result<(), StoreError> {
    let Some(bridge) = state.bridge() else { return Ok(()) };
    let mut w = Writer::default();
    bridge.write(&mut w);
    let added = bridge.added();
    let edge = if known == Known::Nothing { bridge.tree().edge() } else { Vec::new() };
    store.put_bridge(
        height,
        &BridgeRows {
            state: w.into_vec(),
            epoch_blocks: state.rules().blocks.get(),
            count: bridge.tree().count(),
            leaves: added.leaves.iter().map(|(index, leaf)| (*index, leaf.encode())).collect(),
            nodes: edge.iter().chain(&added.nodes).map(|(id, hash)| ((id.level, id.position), *hash)).collect(),
            bundles: added.bundles.iter().map(|(id, bundle)| (*id, encoded(bundle))).collect(),
        },
    )
}

fn encoded(bundle: &HubBundle) -> Vec<u8> {
    let mut w = Writer::default();
    bundle.write(&mut w);
    w.into_vec()
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
