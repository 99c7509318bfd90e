//! Validators in one process, each with sockets, threads and a folder of its own.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};
use switchyard_consensus_core::{
    Ancestors, BlockBuilder, Committee, Committees, EngineEvent, EpochRules, History, InvalidBlock, Member, Seat,
    SeatSet, keys,
};
use switchyard_consensus_engine::{Engine, EngineConfig, EngineHandle, GossipHandle, start};
use switchyard_consensus_guard::{LocalSigner, SignGuard};
use switchyard_consensus_network::{Transport, identity};
use switchyard_primitives::{
    B256, Block, Bytes, FinalityCertificate, Header, Limits, RollupId, Segment, TxKey, keccak256,
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};

/// Longer than any test should take on a busy machine; only so that a defect fails and does not hang.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

/// Addresses that no other test can have: on a loopback address of the test's own.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed));
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind((ip, 0)).unwrap()).collect();
    listeners.iter().map(|l| l.local_addr().unwrap()).collect()
}

/// How a builder behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Proposes bodies that its headers do not commit to.
    WrongCommitment,
    /// Proposes a transaction that every honest builder refuses.
    Forbidden,
    /// Has a defect.
    Panics,
}

pub(crate) const FORBIDDEN: &[u8] = b"forbidden";
const ROLLUP: RollupId = RollupId(7);

/// Puts the transactions that it was given, and one that names itself, into each of its blocks.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) name: usize,
    pub(crate) manner: Manner,
    pub(crate) given: Vec<Bytes>,
    /// What it need not be sent in others' blocks.
    pub(crate) holds: Vec<Bytes>,
    /// Between blocks, so that debug builds on two cores are not busy with empty blocks only.
    pub(crate) pace: Duration,
    pub(crate) built: Arc<AtomicU64>,
    pub(crate) epochs: EpochRules,
}

impl Builder {
    pub(crate) fn new(name: usize, manner: Manner) -> Self {
        Self {
            name,
            manner,
            given: Vec::new(),
            holds: Vec::new(),
            pace: Duration::from_millis(15),
            built: Arc::default(),
            epochs: one_epoch(),
        }
    }

    pub(crate) fn mark(name: usize) -> Bytes {
        Bytes::from(format!("proposed by {name}").into_bytes())
    }
}

impl BlockBuilder for Builder {
    async fn build(&self, parent: Arc<Block>, _: Ancestors) -> Option<Block> {
        tokio::time::sleep(self.pace).await;
        self.built.fetch_add(1, Ordering::Relaxed);
        let mut transactions = vec![Self::mark(self.name)];
        match self.manner {
            Manner::Panics => panic!("the builder has a defect"),
            Manner::Forbidden => transactions.push(Bytes::from_static(FORBIDDEN)),
            Manner::Honest | Manner::WrongCommitment => transactions.extend(self.given.iter().cloned()),
        }
        let header = Header {
            parent: parent.hash(),
            height: parent.header.height + 1,
            epoch: self.epochs.epoch_of(parent.header.height + 1),
            timestamp_ms: parent.header.timestamp_ms + 1,
            next_seats_hash: B256::ZERO,
            ..parent.header
        };
        let mut block = Block::new(header, vec![Segment { rollup: ROLLUP, transactions }]);
        if self.manner == Manner::WrongCommitment {
            block.header.segment_root = B256::repeat_byte(9);
        }
        Some(block)
    }

    fn held(&self, keys: &[TxKey]) -> Vec<Option<Bytes>> {
        let find = |key: &TxKey| self.holds.iter().find(|tx| TxKey::of(ROLLUP, tx) == *key).cloned();
        keys.iter().map(find).collect()
    }

    async fn judge(&self, block: Arc<Block>, _: Arc<Block>, _: Ancestors) -> Result<(), InvalidBlock> {
        if block.transactions(ROLLUP).iter().any(|tx| tx.as_ref() == FORBIDDEN) {
            return Err(InvalidBlock::Rule { rule: "forbidden", detail: "a forbidden transaction".into() });
        }
        Ok(())
    }
}

fn one_epoch() -> EpochRules {
    EpochRules { blocks: u64::MAX.try_into().unwrap(), seats_per_validator: 1 }
}

/// Who signs in which epoch, known ahead.
#[derive(Clone)]
pub(crate) struct Schedule {
    pub(crate) rules: EpochRules,
    committees: Vec<Vec<Member>>,
    everyone: Vec<B256>,
}

impl Committees for Schedule {
    fn committee(&self, epoch: u64) -> Option<Arc<Committee>> {
        let at = usize::try_from(epoch).unwrap().min(self.committees.len() - 1);
        Some(Arc::new(Committee::new(epoch, self.committees[at].clone()).unwrap()))
    }

    fn addresses(&self) -> Vec<(B256, Option<SocketAddr>)> {
        self.everyone.iter().map(|id| (*id, None)).collect()
    }
}

/// The keys and addresses of a network.
pub(crate) struct Cluster {
    pub(crate) network_id: B256,
    /// The seats of epoch 0.
    pub(crate) seats: SeatSet,
    pub(crate) schedule: Schedule,
    pub(crate) genesis: Header,
    pub(crate) identities: Vec<B256>,
    transport: Transport,
    addresses: Vec<SocketAddr>,
    folder: TempDir,
    guards: Mutex<BTreeMap<usize, Weak<SignGuard>>>,
}

fn identity_secret(i: usize) -> [u8; 32] {
    keccak256(format!("identity {i}")).0
}

fn bls_secret(i: usize) -> [u8; 32] {
    keys::bls_secret_from_entropy(&keccak256(format!("bls {i}")).0).unwrap()
}

impl Cluster {
    pub(crate) fn new(count: usize) -> Self {
        Self::over(Transport::Own, count)
    }

    pub(crate) fn over(transport: Transport, count: usize) -> Self {
        let everyone: Vec<_> = (0..count).map(|i| (i, 1)).collect();
        Self::with_epochs(transport, count, one_epoch(), &[&everyone])
    }

    /// `count` nodes of which, in each epoch, some are validators with a number of seats; the last entry holds for all later
    /// epochs.
    pub(crate) fn with_epochs(
        transport: Transport,
        count: usize,
        rules: EpochRules,
        committees: &[&[(usize, u32)]],
    ) -> Self {
        let network_id = keccak256("a network for tests");
        let identities: Vec<B256> = (0..count).map(|i| identity(&identity_secret(i))).collect();
        let member = |(i, seats): &(usize, u32)| {
            let seat = Seat { identity: identities[*i], bls: keys::bls_public_key(&bls_secret(*i)).unwrap() };
            Member { seat, seats: *seats }
        };
        let committees = committees.iter().map(|members| members.iter().map(member).collect()).collect();
        let schedule = Schedule { rules, committees, everyone: identities.clone() };
        let seats = schedule.committee(0).unwrap().seats().clone();
        let genesis = Header::genesis(network_id, 1_700_000_000_000, seats.hash());
        let folder = TempDir::new().unwrap();
        Self {
            network_id,
            seats,
            schedule,
            genesis,
            identities,
            transport,
            addresses: free_addresses(count),
            folder,
            guards: Mutex::default(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The validator's sign guard, the same one as long as somebody holds it.
    fn guard(&self, i: usize) -> Arc<SignGuard> {
        let mut guards = self.guards.lock().unwrap();
        if let Some(guard) = guards.get(&i).and_then(Weak::upgrade) {
            return guard;
        }
        let record = self.folder.path().join(format!("sign-record-{i}"));
        let key = keys::bls_public_key(&bls_secret(i)).unwrap();
        let guard = Arc::new(SignGuard::open(&record, self.network_id, key.0).unwrap());
        guards.insert(i, Arc::downgrade(&guard));
        guard
    }

    /// The validator's key behind a guard.
    pub(crate) fn signer(&self, i: usize, guard: Arc<SignGuard>) -> Arc<LocalSigner> {
        Arc::new(LocalSigner::new(bls_secret(i), guard).unwrap())
    }

    pub(crate) fn config(&self, i: usize, acknowledged_height: u64) -> EngineConfig {
        let others = |j: &usize| *j != i;
        EngineConfig {
            network_id: self.network_id,
            committees: Arc::new(self.schedule.clone()),
            epochs: self.schedule.rules,
            genesis: self.genesis,
            limits: Limits { body_bytes: 256 << 10, ..Limits::default() },
            identity_secret: identity_secret(i),
            signer: self.signer(i, self.guard(i)),
            doppelganger_check: false,
            listen: self.addresses[i],
            transport: self.transport,
            peers: (0..self.addresses.len()).filter(others).map(|j| (self.identities[j], self.addresses[j])).collect(),
            data_dir: self.folder.path().join(format!("validator-{i}")),
            leader_timeout: Duration::from_millis(1250),
            certification_timeout: Duration::from_millis(1350),
            skip_timeout: Duration::from_millis(1420),
            worker_threads: NonZeroUsize::new(2).unwrap(),
            acknowledged_height,
            history: None,
            archive_blocks: EngineConfig::ARCHIVE_BLOCKS,
            compact_from_bytes: 4 << 10,
        }
    }

    pub(crate) async fn start(&self, builder: Builder, acknowledged_height: u64) -> Validator {
        self.start_with(self.config(builder.name, acknowledged_height), builder).await
    }

    pub(crate) async fn start_with(&self, config: EngineConfig, builder: Builder) -> Validator {
        init_logs();
        let builder = Builder { epochs: self.schedule.rules, ..builder };
        let acknowledged_height = config.acknowledged_height;
        Validator::new(start(config, builder).await.unwrap(), acknowledged_height)
    }

    pub(crate) async fn start_honest(&self, names: impl IntoIterator<Item = usize>) -> Vec<Validator> {
        let mut validators = Vec::new();
        for name in names {
            validators.push(self.start(Builder::new(name, Manner::Honest), 0).await);
        }
        validators
    }
}

/// Shows the engines' logs when a test is run with `RUST_LOG` set.
pub(crate) fn init_logs() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    });
}

/// What a validator's node has received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) blocks: BTreeMap<u64, (Arc<Block>, Option<FinalityCertificate>)>,
}

impl Log {
    pub(crate) fn height(&self) -> u64 {
        self.blocks.keys().next_back().copied().unwrap_or_default()
    }

    pub(crate) fn proposed_by(&self, name: usize) -> bool {
        self.proposed_by_since(name, 0)
    }

    /// Whether a block above `height` is by this validator.
    pub(crate) fn proposed_by_since(&self, name: usize, height: u64) -> bool {
        self.blocks.range(height + 1..).any(|(_, (block, _))| block.transactions(ROLLUP).contains(&Builder::mark(name)))
    }

    pub(crate) fn transactions(&self) -> impl Iterator<Item = &Bytes> {
        self.blocks.values().flat_map(|(block, _)| block.transactions(ROLLUP))
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = (&Block, &FinalityCertificate)> {
        self.blocks.values().filter_map(|(block, c)| Some((&**block, c.as_ref()?)))
    }

    /// Parents link and no height is missing.
    pub(crate) fn assert_is_a_chain(&self) {
        for ((low, (parent, _)), (high, (child, _))) in self.blocks.iter().zip(self.blocks.iter().skip(1)) {
            assert_eq!(low + 1, *high);
            assert_eq!(child.header.parent, parent.hash(), "height {high}");
        }
    }
}

/// A node's log, lent to its engine.
pub(crate) struct LogHistory {
    log: watch::Receiver<Log>,
    /// Blocks that the engine has taken.
    pub(crate) served: AtomicU64,
}

impl History for LogHistory {
    fn block(&self, height: u64) -> Option<Block> {
        let block = self.log.borrow().blocks.get(&height).map(|(block, _)| Block::clone(block))?;
        self.served.fetch_add(1, Ordering::Relaxed);
        Some(block)
    }

    fn certificate(&self, height: u64) -> Option<FinalityCertificate> {
        self.log.borrow().blocks.get(&height)?.1.clone()
    }

    fn hash_of(&self, height: u64) -> Option<B256> {
        self.log.borrow().blocks.get(&height).map(|(block, _)| block.hash())
    }

    fn height_of(&self, hash: B256) -> Option<u64> {
        self.log.borrow().blocks.iter().find(|(_, (block, _))| block.hash() == hash).map(|(height, _)| *height)
    }
}

/// An engine and a node that takes down what it reports.
pub(crate) struct Validator {
    pub(crate) log: watch::Receiver<Log>,
    pub(crate) gossip: GossipHandle,
    pub(crate) handle: EngineHandle,
    reader: JoinHandle<()>,
}

impl Validator {
    /// A node that lends its engine what it has received.
    pub(crate) async fn with_history(config: EngineConfig, builder: Builder) -> (Self, Arc<LogHistory>) {
        let (log, reader) = watch::channel(Log::default());
        let history = Arc::new(LogHistory { log: reader, served: AtomicU64::new(0) });
        let config = EngineConfig { history: Some(history.clone()), ..config };
        (Self::reading(start(config, builder).await.unwrap(), 0, log), history)
    }

    fn new(engine: Engine, acknowledged: u64) -> Self {
        Self::reading(engine, acknowledged, watch::channel(Log::default()).0)
    }

    fn reading(engine: Engine, acknowledged: u64, write: watch::Sender<Log>) -> Self {
        let Engine { mut events, gossip, handle } = engine;
        let log = write.subscribe();
        let reader = tokio::spawn(async move {
            let mut next = acknowledged + 1;
            while let Some(event) = events.recv().await {
                match event {
                    EngineEvent::Final { block, certificate, ack } => {
                        assert_eq!(block.header.height, next, "heights come without gaps");
                        next += 1;
                        write.send_modify(|log| {
                            log.blocks.insert(block.header.height, (block, certificate));
                        });
                        let _ = ack.send(());
                    }
                    EngineEvent::Tip { .. } => {}
                    EngineEvent::Fault(fault) => panic!("nobody is at fault here: {fault:?}"),
                }
            }
        });
        Self { log, gossip, handle, reader }
    }

    /// Waits until the node's log is as asked.
    pub(crate) async fn until(&mut self, condition: impl FnMut(&Log) -> bool) -> Log {
        within(self.log.wait_for(condition)).await.expect("the node reads").clone()
    }

    pub(crate) async fn until_height(&mut self, height: u64) -> Log {
        self.until(|log| log.height() >= height).await
    }

    /// Stops and returns everything that the node has received.
    pub(crate) async fn stop(self) -> Log {
        let Self { log, handle, reader, gossip } = self;
        within(handle.shutdown()).await.unwrap();
        drop(gossip);
        within(reader).await.unwrap();
        log.borrow().clone()
    }
}

/// Stops all at once and returns their logs.
pub(crate) async fn stop_all(validators: Vec<Validator>) -> Vec<Log> {
    futures::future::join_all(validators.into_iter().map(Validator::stop)).await
}

/// No two validators have different blocks at one height.
pub(crate) fn assert_agree(logs: &[Log]) {
    for log in logs {
        log.assert_is_a_chain();
        for (height, (block, _)) in &log.blocks {
            for other in logs {
                if let Some((theirs, _)) = other.blocks.get(height) {
                    assert_eq!(block, theirs, "height {height}");
                }
            }
        }
    }
}
