use super::*;
use crate::{
    builder::{BuilderParts, Rules},
    config,
    ingest::{IngestParts, Timing},
    machine::Tokio,
    metrics::Metrics,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Instant;
use switchyard_consensus_core::{Seat, SeatSet, keys};
use switchyard_consensus_engine::GossipHandle;
use switchyard_mempool::{Included, MempoolConfig, Origin};
use switchyard_primitives::{Block, FinalityCertificate, Limits, Segment, TableEntry};
use switchyard_store::{BridgeRows, MemoryStore, StoreError};

const ROLLUP: RollupId = RollupId(7);

type Event = Box<dyn FnOnce(&MemoryStore) + Send>;

/// A store in which something happens right after the next look-up of a transaction.
struct Eventful {
    store: MemoryStore,
    event: Mutex<Option<Event>>,
}

type Stored<T> = Result<T, StoreError>;

impl Store for Eventful {
    fn locate(&self, key: TxKey) -> Stored<Option<(u64, u32)>> {
        let found = self.store.locate(key);
        if let Some(event) = self.event.lock().take() {
            event(&self.store);
        }
        found
    }

    fn put_hub_state(&self, height: u64, state: &[u8]) -> Stored<()> {
        self.store.put_hub_state(height, state)
    }

    fn put_bridge(&self, height: u64, rows: &BridgeRows) -> Stored<()> {
        self.store.put_bridge(height, rows)
    }

    fn bridge_state(&self, height: u64) -> Stored<Option<(u64, Vec<u8>)>> {
        self.store.bridge_state(height)
    }

    fn bridge_count(&self, height: u64) -> Stored<u64> {
        self.store.bridge_count(height)
    }

    fn bridge_leaf(&self, index: u64) -> Stored<Option<Vec<u8>>> {
        self.store.bridge_leaf(index)
    }

    fn bridge_bundle(&self, id: &B256) -> Stored<Option<Vec<u8>>> {
        self.store.bridge_bundle(id)
    }

    fn bridge_record(&self, id: &B256) -> Stored<Option<Vec<u8>>> {
        self.store.bridge_record(id)
    }

    fn bridge_node(&self, level: u8, position: u64) -> Stored<Option<B256>> {
        self.store.bridge_node(level, position)
    }

    fn hub_state(&self, height: u64) -> Stored<Option<Vec<u8>>> {
        self.store.hub_state(height)
    }

    fn append(&self, block: &Block, certificate: Option<&FinalityCertificate>) -> Stored<()> {
        self.store.append(block, certificate)
    }

    fn tip(&self) -> (Header, B256) {
        self.store.tip()
    }

    fn earliest(&self) -> u64 {
        self.store.earliest()
    }

    fn header(&self, height: u64) -> Stored<Option<Header>> {
        self.store.header(height)
    }

    fn height_of(&self, hash: B256) -> Stored<Option<u64>> {
        self.store.height_of(hash)
    }

    fn table(&self, height: u64) -> Stored<Option<Vec<TableEntry>>> {
        self.store.table(height)
    }

    fn transactions(&self, rollup: RollupId, height: u64) -> Stored<Option<Vec<Bytes>>> {
        self.store.transactions(rollup, height)
    }

    fn block(&self, height: u64) -> Stored<Option<Block>> {
        self.store.block(height)
    }

    fn begin_at(&self, block: &Block, certificate: Option<&FinalityCertificate>) -> Stored<()> {
        self.store.begin_at(block, certificate)
    }

    fn certificate_to(&self, height: u64) -> Stored<Option<(u64, FinalityCertificate)>> {
        self.store.certificate_to(height)
    }

    fn certificate_from(&self, height: u64) -> Stored<Option<(u64, FinalityCertificate)>> {
        self.store.certificate_from(height)
    }

    fn locate_many(&self, keys: &[TxKey]) -> Stored<Vec<Option<(u64, u32)>>> {
        self.store.locate_many(keys)
    }

    fn prune(&self, height: u64) -> Stored<()> {
        self.store.prune(height)
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}

/// A node without an engine and without executed rollups.
struct Hub {
    gateway: NodeGateway,
    store: Arc<Eventful>,
    mempool: Arc<Mempool>,
    genesis: Header,
}

impl Hub {
    fn new() -> Self {
        let seat = Seat { identity: B256::ZERO, bls: keys::bls_public_key(&[1; 32]).unwrap() };
        let seats = SeatSet::new(vec![seat]).unwrap();
        let genesis = Header::genesis(B256::ZERO, 0, seats.hash());
        let store = Arc::new(Eventful { store: MemoryStore::new(genesis), event: Mutex::default() });
        let limits = Limits::default();
        let mempool = Arc::new(Mempool::new(MempoolConfig::default(), limits, [(ROLLUP, None)]));
        let metrics = Arc::new(Metrics::default());
        let tip = watch::channel(HubTip { height: 0, hash: genesis.hash(), timestamp_ms: 0 }).1;
        let (waiting, waiting_rx) = watch::channel(0);
        let rules = Rules { limits, rollups: [ROLLUP].into(), replay_window_blocks: 100 };
        let pace = config::Consensus::default();
        let (store_, mempool_) = (store.clone(), mempool.clone());
        let hub = crate::hub::tests::of_equals(store.clone(), &[B256::ZERO]);
        let pool = Arc::new(crate::attest::Pool::new(hub.clone(), metrics.clone()));
        let builder = HubBuilder::new(BuilderParts {
            rules,
            pace,
            store: store_,
            hub: hub.clone(),
            mempool: mempool_,
            tip: tip.clone(),
            pool: pool.clone(),
            waiting: waiting_rx,
            metrics: metrics.clone(),
            machine: Arc::new(Tokio),
        });
        let (ingest, _) = Ingest::new(IngestParts {
            mempool: mempool.clone(),
            store: store.clone(),
            limits,
            hub: hub.clone(),
            me: B256::ZERO,
            gossip: GossipHandle::detached(1024).0.sender,
            gossip_from: usize::MAX,
            pool,
            waiting,
            rollups: vec![ROLLUP],
            timing: Timing::default(),
            metrics,
            machine: Arc::new(Tokio),
        });
        let info = NetworkInfo {
            name: "test".into(),
            id: B256::ZERO,
            genesis_hash: genesis.hash(),
            rollups: Vec::new(),
            limits,
            client_version: "switchyard/test".into(),
            forwards_submissions: false,
        };
        let (store_, mempool_) = (store.clone(), mempool.clone());
        let (chains, errors) = (BTreeMap::new(), RecentErrors::default());
        let entry = Entry::Validator { ingest, builder };
        let log = Log { hub: hub.clone(), store: store.clone() };
        let gateway = NodeGateway { info, store: store_, hub, mempool: mempool_, entry, tip, chains, log, errors };
        Self { gateway, store, mempool, genesis }
    }

    /// The first block, with one transaction.
    fn block(&self, payload: &Bytes) -> Block {
        let parent = self.genesis.hash();
        let header = Header { parent, height: 1, next_seats_hash: B256::ZERO, ..self.genesis };
        Block::new(header, vec![Segment { rollup: ROLLUP, transactions: vec![payload.clone()] }])
    }

    fn level(&self, key: TxKey) -> Option<Level> {
        self.gateway.status(key).unwrap().level
    }
}

fn make_final(store: &MemoryStore, mempool: &Mempool, block: &Block) {
    store.append(block, None).unwrap();
    let included: Vec<Included> = block.segments().iter().map(Included::from).collect();
    mempool.on_final(block.header.height, &included);
}

#[test]
fn a_transaction_that_becomes_final_while_it_is_looked_up_is_never_unknown() {
    let hub = Hub::new();
    let payload = Bytes::from_static(b"a");
    let key = TxKey::of(ROLLUP, &payload);
    assert_eq!(hub.level(key), None);
    let checked = hub.mempool.check(ROLLUP, &payload).unwrap();
    hub.mempool.insert(checked, Origin::Local, Instant::now()).unwrap();
    assert_eq!(hub.level(key), Some(Level::Accepted));

    let (block, mempool) = (hub.block(&payload), hub.mempool.clone());
    *hub.store.event.lock() = Some(Box::new(move |store| make_final(store, &mempool, &block)));
    assert_eq!(hub.level(key), Some(Level::Accepted));
    let status = hub.gateway.status(key).unwrap();
    assert_eq!((status.level, status.included), (Some(Level::Final), Some((1, 0))));
}

#[tokio::test]
async fn a_single_validator_is_its_own_quorum() {
    let hub = Hub::new();
    let payload = Bytes::from_static(b"a");
    let key = TxKey::of(ROLLUP, &payload);
    assert_eq!(hub.gateway.submit(ROLLUP, vec![payload.clone()]).await, [Ok(key.hash)]);
    assert_eq!(hub.gateway.pending(key), Some(payload.clone()));
    make_final(&hub.store.store, &hub.mempool, &hub.block(&payload));
    let refused = Rejection::AlreadyFinal { hash: key.hash, height: 1 };
    assert_eq!(hub.gateway.submit(ROLLUP, vec![payload]).await, [Err(refused)]);
}
