use super::*;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};
use switchyard_consensus_core::{
    Proposal, Vote, VoteConflict,
    keys::{bls_secret_from_entropy, sign_vote},
};
use switchyard_mempool::{MempoolConfig, Origin};
use switchyard_primitives::{B256, Bytes, Header, Limits, RollupId, TxKey};
use switchyard_store::MemoryStore;
use tokio::sync::oneshot;

const ROLLUP: RollupId = RollupId(7);

/// A finalizer at work, with what it works on.
struct Hub {
    store: Arc<MemoryStore>,
    mempool: Arc<Mempool>,
    metrics: Arc<Metrics>,
    tip: watch::Receiver<HubTip>,
    keep_from: Arc<AtomicU64>,
    events: mpsc::Sender<EngineEvent>,
    records: mpsc::Receiver<Bytes>,
    thread: std::thread::JoinHandle<Result<(), HubError>>,
    newest: Block,
    root: B256,
}

impl Hub {
    fn new() -> Self {
        let genesis = Header::genesis(B256::ZERO, 0, B256::ZERO);
        let store = Arc::new(MemoryStore::new(genesis));
        let mempool = Arc::new(Mempool::new(MempoolConfig::default(), Limits::default(), [(ROLLUP, None)]));
        let (metrics, keep_from) = (Arc::new(Metrics::default()), Arc::new(AtomicU64::new(0)));
        let (announce, tip) = watch::channel(HubTip { height: 0, hash: genesis.hash(), timestamp_ms: 0 });
        let keep = keep_from.clone();
        let hub = crate::hub::tests::of_equals(store.clone(), &[B256::repeat_byte(1)]);
        let root = hub.tip().root();
        let (records, submitted) = Records::new();
        let finalizer = Finalizer {
            store: store.clone(),
            hub,
            mempool: mempool.clone(),
            tip: announce,
            metrics: metrics.clone(),
            records,
            keep_from: Box::new(move |_| keep.load(Ordering::Relaxed)),
        };
        let (events, queue) = mpsc::channel(8);
        let thread = std::thread::spawn(move || finalizer.run(queue));
        Self {
            store,
            mempool,
            metrics,
            tip,
            keep_from,
            events,
            records: submitted,
            thread,
            newest: Block::genesis(genesis),
            root,
        }
    }

    /// The next block, holding one transaction.
    fn next(&mut self, payload: &[u8]) -> Block {
        let Header { height, timestamp_ms, .. } = self.newest.header;
        let header = Header {
            parent: self.newest.hash(),
            height: height + 1,
            timestamp_ms: timestamp_ms + 1,
            system_root: self.root,
            ..Header::genesis(B256::ZERO, 0, B256::ZERO)
        };
        let transactions = vec![Bytes::copy_from_slice(payload)];
        self.newest = Block::new(header, vec![Segment { rollup: ROLLUP, transactions }]);
        self.newest.clone()
    }

    /// Delivers a block; whether it was acknowledged.
    async fn deliver(&self, block: &Block) -> bool {
        let (ack, done) = oneshot::channel();
        let event = EngineEvent::Final { block: Arc::new(block.clone()), certificate: None, ack };
        self.events.send(event).await.is_ok() && done.await.is_ok()
    }

    async fn announced(&mut self, height: u64) -> HubTip {
        *self.tip.wait_for(|tip| tip.height >= height).await.unwrap()
    }
}

#[tokio::test]
async fn a_final_block_is_durable_when_acknowledged_and_out_of_the_mempool_when_announced() {
    let mut hub = Hub::new();
    let checked = hub.mempool.check(ROLLUP, &Bytes::from_static(b"a")).unwrap();
    hub.mempool.insert(checked, Origin::Local, Instant::now()).unwrap();
    let block = hub.next(b"a");
    assert!(hub.deliver(&block).await);
    assert_eq!(hub.store.tip(), (block.header, block.hash()));
    assert_eq!(hub.announced(1).await, HubTip { height: 1, hash: block.hash(), timestamp_ms: 1 });
    assert_eq!(hub.mempool.usage().transactions, 0);
    let key = TxKey::of(ROLLUP, b"a");
    assert!(hub.mempool.known(&key).is_some());

    drop(hub.events);
    hub.thread.join().unwrap().unwrap();
}

#[tokio::test]
async fn a_block_that_comes_again_is_acknowledged_and_not_counted_again() {
    let mut hub = Hub::new();
    let (first, second) = (hub.next(b"a"), hub.next(b"b"));
    for block in [&first, &second, &first, &second] {
        assert!(hub.deliver(block).await);
    }
    drop(hub.events);
    hub.thread.join().unwrap().unwrap();
    assert_eq!(hub.tip.borrow().height, 2);
    assert_eq!(hub.metrics.blocks.get(), 2);
    assert_eq!(hub.metrics.transactions.get_or_create(&ROLLUP.into()).get(), 2);
}

#[tokio::test]
async fn a_block_that_contradicts_the_log_ends_the_finalizer_without_an_acknowledgement() {
    let mut hub = Hub::new();
    let genesis = hub.newest.clone();
    let first = hub.next(b"a");
    hub.newest = genesis;
    let other = hub.next(b"b");
    assert!(hub.deliver(&first).await);
    assert!(!hub.deliver(&other).await);
    assert!(matches!(hub.thread.join().unwrap(), Err(HubError::Store(StoreError::Conflict { height: 1, .. }))));
    assert_eq!(hub.store.tip().1, first.hash());
}

#[tokio::test]
async fn what_retention_gives_up_is_removed_at_the_housekeeping_height_and_not_before() {
    let mut hub = Hub::new();
    hub.keep_from.store(10, Ordering::Relaxed);
    for height in 1..=HOUSEKEEPING_BLOCKS {
        let block = hub.next(&height.to_be_bytes());
        if height == HOUSEKEEPING_BLOCKS {
            hub.announced(height - 1).await;
            assert_eq!(hub.store.earliest(), 0);
        }
        assert!(hub.deliver(&block).await);
    }
    drop(hub.events);
    hub.thread.join().unwrap().unwrap();
    assert_eq!(hub.store.earliest(), 10);
}

#[tokio::test]
async fn a_validators_contradiction_is_counted_by_kind_and_becomes_a_record() {
    let mut hub = Hub::new();
    let block = |block| Proposal { epoch: 0, view: 2, parent_view: 1, block: B256::repeat_byte(block) };
    let nullify = Vote::Nullify { epoch: 0, view: 2 };
    let kinds = [
        (Vote::Notarize(block(1)), Vote::Notarize(block(2)), "conflicting_notarize"),
        (Vote::Finalize(block(1)), Vote::Finalize(block(2)), "conflicting_finalize"),
        (nullify, Vote::Finalize(block(1)), "nullify_finalize"),
    ];
    let secret = bls_secret_from_entropy(&[1; 32]).unwrap();
    let signed = |vote: &Vote| sign_vote(&secret, &vote.message(B256::ZERO)).unwrap();
    for (first, second, _) in kinds {
        let conflict = VoteConflict::new(B256::ZERO, (first, &signed(&first)), (second, &signed(&second))).unwrap();
        hub.events.send(EngineEvent::Fault(Fault(conflict.clone()))).await.unwrap();
        let record = BridgeRecord::decode(&hub.records.recv().await.unwrap());
        assert_eq!(record, Ok(BridgeRecord::Evidence(Evidence::Votes(conflict))));
    }
    drop(hub.events);
    hub.thread.join().unwrap().unwrap();
    for (_, _, reason) in kinds {
        assert_eq!(hub.metrics.faults.get_or_create(&ReasonLabel { reason }).get(), 1, "{reason}");
    }
}
