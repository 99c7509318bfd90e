//! Puts the parts together and takes them apart again.

use crate::{
    attest::{Attest, AttestParts, Operator, Pool},
    builder::{BuilderParts, HubBuilder},
    config::{Config, Endpoints},
    error::{NodeError, io},
    executor::Executor,
    finalizer::Finalizer,
    forward::Forward,
    gateway::{Entry, NodeGateway},
    health::{self, Feed, Parts, Ready},
    hub::{HubStates, STATE_EVERY},
    ingest::{self, Ingest, IngestParts},
    logging::RecentErrors,
    machine::Tokio,
    metrics::{Metrics, gauge},
    opened::{OpenRollup, Opened},
    records::{self, Records},
    relay::{Log, Way},
    servers::Listeners,
    sync::{self, Begin, Sources, Sync, SyncParts, SyncStatus, Timing},
};
use alloy::signers::local::PrivateKeySigner;
use futures::FutureExt;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use switchyard_consensus_core::EngineEvent;
use switchyard_consensus_engine::{Engine, EngineHandle, GossipHandle, GossipSender, Stopped};
use switchyard_consensus_guard::VoteSigner;
use switchyard_mempool::Mempool;
use switchyard_primitives::{B256, RollupId};
use switchyard_relayer::{Relayer, RelayerParts, Settings};
use switchyard_rollup_core::{UNSYNCED_HUB_BLOCKS_MAX, evm::EvmChain};
use switchyard_rpc::{HubTip, Probes};
use switchyard_store::{STATES_KEPT, Store};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How long servers and the engine may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);
/// How often gauges are refreshed.
const GAUGES_INTERVAL: Duration = Duration::from_millis(500);

/// A running node.
pub struct Node {
    /// Where it answers.
    pub endpoints: Endpoints,
    endpoints_file: PathBuf,
    /// None for a follower.
    engine: Option<EngineHandle>,
    /// None for a validator.
    pub(crate) copying: Option<Copying>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    failures: mpsc::Receiver<NodeError>,
}

/// How far a follower has come.
pub(crate) struct Copying {
    sources: Arc<Sources>,
    status: watch::Receiver<SyncStatus>,
    tip: watch::Receiver<HubTip>,
}

impl Copying {
    /// Waits until the durable tip is that of the sources; `false` if none answers for so long.
    pub(crate) async fn caught_up(&mut self, patience: Duration) -> bool {
        sync::caught_up(&self.sources, &mut self.status, &mut self.tip, patience).await
    }
}

/// What every part shares.
#[derive(Clone)]
struct Shared {
    store: Arc<dyn Store>,
    mempool: Arc<Mempool>,
    metrics: Arc<Metrics>,
    tip: watch::Receiver<HubTip>,
    /// Where operators' signatures are collected.
    pool: Arc<Pool>,
    /// Bumped when a rollup has made blocks.
    closed: watch::Sender<u64>,
    parts: Parts,
    stop: CancellationToken,
    fail: mpsc::Sender<NodeError>,
}

/// The next hub height that each rollup applies.
type Progress = Vec<(RollupId, Arc<AtomicU64>)>;

impl Node {
    /// Starts everything; returns once every server answers.
    pub async fn start(config: Config, errors: RecentErrors) -> Result<Self, NodeError> {
        let mut opened = Opened::open(config)?;
        let endpoints_file = opened.config.data_dir.join("endpoints.json");
        // What a node that was killed has left would mislead whoever waits for this one.
        remove_file(&endpoints_file)?;
        let listeners = Listeners::bind(&opened.config)?;
        let (header, hash) = opened.store.tip();
        let (announce, tip) = watch::channel(HubTip { height: header.height, hash, timestamp_ms: header.timestamp_ms });
        let (fail, failures) = mpsc::channel(16);
        let metrics = Arc::new(Metrics::default());
        let shared = Shared {
            store: opened.store.clone(),
            mempool: Arc::new(opened.mempool()),
            pool: Arc::new(Pool::new(opened.hub.clone(), metrics.clone())),
            closed: watch::channel(0).0,
            metrics,
            tip,
            parts: Parts::default(),
            stop: CancellationToken::new(),
            fail,
        };
        shared.metrics.height.set(gauge(header.height));
        shared.metrics.protocol_known.set(gauge(opened.hub.newest_protocol()));
        shared.metrics.quorum.set(gauge(opened.hub.tip().current().seats().quorum()));

        let Fed { events, entry, feed, engine, copying, operator, gossip } =
            match opened.signer(&shared.metrics).await? {
                Some(signer) => shared.validate(&opened, signer).await?,
                None => shared.follow(&opened).await?,
            };

        let rollups = std::mem::take(&mut opened.rollups);
        let chains: BTreeMap<_, _> =
            rollups.iter().map(|r| (r.manifest.id, r.reader.clone() as Arc<dyn EvmChain>)).collect();
        let (mut threads, progress) = shared.executors(rollups)?;
        let (records, own_records) = Records::new();
        threads.push(shared.attest(
            &opened,
            (chains.clone(), progress.clone()),
            (operator, gossip),
            records.clone(),
        )?);
        shared.keep_gauges(feed.clone(), opened.hub.clone(), progress.clone());
        let finalizer = Finalizer {
            store: shared.store.clone(),
            hub: opened.hub.clone(),
            mempool: shared.mempool.clone(),
            tip: announce,
            metrics: shared.metrics.clone(),
            records,
            keep_from: keep_from(&opened, progress),
        };
        threads.push(shared.thread("finalizer".into(), move || Ok(finalizer.run(events)?))?);

        let gateway = Arc::new(NodeGateway {
            info: opened.network_info(),
            store: shared.store.clone(),
            hub: opened.hub.clone(),
            mempool: shared.mempool.clone(),
            entry,
            tip: shared.tip.clone(),
            chains: chains.clone(),
            log: Log { hub: opened.hub.clone(), store: shared.store.clone() },
            errors,
        });
        shared.task("own records", records::submit(own_records, gateway.clone()));
        if let Some(relayer) = shared.relay(&opened, chains, gateway.clone())? {
            threads.push(relayer);
        }
        let probes = shared.probes(&opened, feed, engine.as_ref().map(|engine| engine.stopped.clone()));
        shared.task("disk gauge", health::keep_disk_gauge(shared.metrics.clone(), opened.config.data_dir.clone()));
        let Shared { metrics, stop, fail, .. } = shared;
        let endpoints = listeners.serve(
            &gateway,
            &metrics,
            engine.as_ref().map(|engine| engine.metrics.clone()),
            probes,
            fail,
            &stop,
        )?;
        write_endpoints(&endpoints_file, &endpoints)?;
        tracing::info!(grpc = endpoints.grpc, metrics = endpoints.metrics, "ready");
        Ok(Self { endpoints, endpoints_file, engine, copying, threads, stop, failures })
    }

    /// Waits for the first part that fails.
    pub async fn failed(&mut self) -> NodeError {
        let engine = async {
            match &mut self.engine {
                Some(engine) => engine.stopped.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(error) = self.failures.recv() => error,
            ended = engine => match ended {
                Err(error) => NodeError::EngineFailed(error),
                Ok(()) => NodeError::Ended("consensus"),
            },
        }
    }

    /// Stops servers, engine and executors; what was final and durable stays so.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = remove_file(&self.endpoints_file) {
            tracing::warn!(%error, "stale endpoints stay behind");
        }
        if let Some(engine) = self.engine {
            match tokio::time::timeout(STOP_TIMEOUT, engine.shutdown()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the engine did not stop cleanly"),
                Err(_) => {
                    tracing::error!("the engine did not stop in time");
                    return;
                }
            }
        }
        let join = tokio::task::spawn_blocking(move || self.threads.into_iter().for_each(|t| drop(t.join())));
        if tokio::time::timeout(STOP_TIMEOUT, join).await.is_err() {
            tracing::error!("a thread did not stop in time");
        }
    }
}

/// Where final blocks come from and transactions go.
struct Fed {
    events: mpsc::Receiver<EngineEvent>,
    entry: Entry,
    feed: Feed,
    /// None for a follower.
    engine: Option<EngineHandle>,
    /// None for a validator.
    copying: Option<Copying>,
    /// None where this node attests nothing.
    operator: Option<Operator>,
    /// The way to the other validators; none for a follower.
    gossip: Option<GossipSender>,
}

impl Shared {
    /// Takes part in consensus.
    async fn validate(&self, opened: &Opened, signer: Arc<dyn VoteSigner>) -> Result<Fed, NodeError> {
        let no_seat = || NodeError::Config("a follower takes no part in consensus".into());
        let config = opened.engine(signer)?.ok_or_else(no_seat)?;
        let (waiting, waiting_rx) = watch::channel(0);
        let builder = HubBuilder::new(BuilderParts {
            rules: opened.rules(),
            pace: opened.config.consensus,
            store: self.store.clone(),
            hub: opened.hub.clone(),
            mempool: self.mempool.clone(),
            tip: self.tip.clone(),
            pool: self.pool.clone(),
            waiting: waiting_rx,
            metrics: self.metrics.clone(),
            machine: Arc::new(Tokio),
        });
        let me = switchyard_consensus_network::identity(&config.identity_secret);
        // Its record exists before the engine's folder does.
        let operator = opened.operator()?;
        let Engine { events, gossip, handle } = switchyard_consensus_engine::start(config, builder.clone()).await?;
        let told = Some(gossip.sender.clone());
        let ingest = self.ingest(opened, me, gossip, waiting);
        let feed = Feed::Engine { status: handle.status.clone(), hub: opened.hub.clone() };
        let entry = Entry::Validator { ingest, builder };
        Ok(Fed { events, entry, feed, engine: Some(handle), copying: None, operator, gossip: told })
    }

    /// Copies what others have made final.
    async fn follow(&self, opened: &Opened) -> Result<Fed, NodeError> {
        let (urls, limits, timing) = (&opened.config.sync.sources, opened.genesis.limits(), Timing::default());
        let sources = Sources::new(urls, &limits, timing, self.metrics.clone());
        let sources = Arc::new(sources.map_err(|fault| NodeError::Config(format!("sync: {fault}")))?);
        let judge = opened.judge();
        if let Some(checkpoint) = opened.config.sync.checkpoint {
            let (store, hub) = (self.store.as_ref(), &opened.hub);
            let begin =
                Begin { checkpoint, store, hub, sources: &sources, judge: &judge, limits: &limits, timing: &timing };
            sync::begin_at(begin).await?;
        }
        let (store, mempool, metrics) = (self.store.clone(), self.mempool.clone(), self.metrics.clone());
        let rollups = opened.genesis.rollup_ids().into_iter().chain([RollupId::SYSTEM]).collect();
        let (header, tip) = (store.tip().0, self.tip.clone());
        let copied = (sources.clone(), tip.clone());
        let forward = Forward::new(sources.clone(), mempool, store, rollups, metrics.clone());
        let Sync { events, status, run } =
            sync::start(SyncParts { sources, judge, limits, header, tip, timing, metrics });
        self.task("sync", run);
        self.task("clock", sync::watch_clocks(copied.0.clone(), timing, self.metrics.clone()));
        self.task("expiry", forward.clone().run());
        let copying = Copying { sources: copied.0, status: status.clone(), tip: copied.1 };
        let (entry, feed) = (Entry::Follower(forward), Feed::Sync(status));
        Ok(Fed { events, entry, feed, engine: None, copying: Some(copying), operator: None, gossip: None })
    }

    /// The way in for transactions, with its tasks.
    fn ingest(&self, opened: &Opened, me: B256, gossip: GossipHandle, waiting: watch::Sender<u64>) -> Arc<Ingest> {
        let (ingest, outbox) = Ingest::new(IngestParts {
            mempool: self.mempool.clone(),
            store: self.store.clone(),
            limits: opened.genesis.limits(),
            hub: opened.hub.clone(),
            me,
            gossip: gossip.sender,
            gossip_from: opened.config.network.as_ref().map_or(usize::MAX, |network| network.gossip_from),
            pool: self.pool.clone(),
            waiting,
            rollups: opened.genesis.rollup_ids().into_iter().chain([RollupId::SYSTEM]).collect(),
            timing: ingest::Timing::default(),
            metrics: self.metrics.clone(),
            machine: Arc::new(Tokio),
        });
        self.task("gossip", ingest.clone().receive(gossip.receiver));
        self.task("replication", ingest.clone().run(outbox));
        ingest
    }

    /// A thread for each rollup.
    fn executors(&self, rollups: Vec<OpenRollup>) -> Result<(Vec<JoinHandle<()>>, Progress), NodeError> {
        let (mut threads, mut progress) = (Vec::new(), Progress::new());
        for OpenRollup { manifest, driver, .. } in rollups {
            let next = Arc::new(AtomicU64::new(0));
            progress.push((manifest.id, next.clone()));
            let executor = Executor {
                rollup: manifest.id,
                driver,
                store: self.store.clone(),
                mempool: self.mempool.clone(),
                closed: self.closed.clone(),
                tip: self.tip.clone(),
                next,
                metrics: self.metrics.clone(),
            };
            let (runtime, stop) = (tokio::runtime::Handle::current(), self.stop.clone());
            let name = format!("rollup-{}", manifest.id);
            threads.push(self.thread(name, move || Ok(executor.run(&runtime, &stop)?))?);
        }
        Ok((threads, progress))
    }

    /// A thread that compares what is certified with what is computed here, and attests.
    fn attest(
        &self,
        opened: &Opened,
        (chains, progress): (BTreeMap<RollupId, Arc<dyn EvmChain>>, Progress),
        (operator, gossip): (Option<Operator>, Option<GossipSender>),
        records: Records,
    ) -> Result<JoinHandle<()>, NodeError> {
        let attest = Attest::new(AttestParts {
            hub: opened.hub.clone(),
            store: self.store.clone(),
            chains,
            next: progress.into_iter().collect(),
            tip: self.tip.clone(),
            closed: self.closed.subscribe(),
            operator,
            pool: self.pool.clone(),
            gossip,
            records,
            evidence: opened.config.evidence_dir(),
            metrics: self.metrics.clone(),
        });
        let (runtime, stop) = (tokio::runtime::Handle::current(), self.stop.clone());
        self.thread("attestation".into(), move || Ok(attest.run(&runtime, &stop)?))
    }

    /// The relayer's thread; none where the configuration has no relayer.
    fn relay(
        &self,
        opened: &Opened,
        chains: BTreeMap<RollupId, Arc<dyn EvmChain>>,
        gateway: Arc<NodeGateway>,
    ) -> Result<Option<JoinHandle<()>>, NodeError> {
        let Some(config) = &opened.config.relayer else { return Ok(None) };
        let secret = crate::keys::read_plain(&config.key)?;
        let signer = PrivateKeySigner::from_slice(&*secret);
        let signer = signer.map_err(|e| NodeError::Config(format!("[relayer] key {}: {e}", config.key.display())))?;
        let (wake, tip) = watch::channel(0);
        let mut heights = self.tip.clone();
        self.task("relayer's clock", async move {
            while heights.changed().await.is_ok() {
                wake.send_replace(heights.borrow_and_update().height);
            }
        });
        let relayer = Relayer::new(RelayerParts {
            hub: Arc::new(Log { hub: opened.hub.clone(), store: self.store.clone() }),
            chains,
            submit: Arc::new(Way { gateway, runtime: tokio::runtime::Handle::current() }),
            signer,
            tip,
            settings: Settings { rank: config.rank },
        });
        let (runtime, stop) = (tokio::runtime::Handle::current(), self.stop.clone());
        let run = move || {
            relayer.run(&runtime, || stop.is_cancelled());
            Ok(())
        };
        self.thread("relayer".into(), run).map(Some)
    }

    /// Runs a blocking part; its failure stops the node.
    fn thread(
        &self,
        name: String,
        part: impl FnOnce() -> Result<(), NodeError> + Send + 'static,
    ) -> Result<JoinHandle<()>, NodeError> {
        let (fail, parts, path) = (self.fail.clone(), self.parts.clone(), name.clone());
        let run = move || {
            let panicked = |_| Err(NodeError::Panicked { part: name });
            if let Err(error) = catch_unwind(AssertUnwindSafe(part)).unwrap_or_else(panicked) {
                tracing::error!(%error, "stopping");
                parts.ended(error.to_string());
                // The node may be stopping already.
                let _ = fail.blocking_send(error);
            }
        };
        std::thread::Builder::new().name(path.clone()).spawn(run).map_err(|source| NodeError::Io { path, source })
    }

    /// Runs an async part until the node stops; a panic in it stops the node.
    fn task(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let (stop, fail, parts) = (self.stop.clone(), self.fail.clone(), self.parts.clone());
        tokio::spawn(async move {
            let ended = stop.run_until_cancelled_owned(AssertUnwindSafe(part).catch_unwind()).await;
            if let Some(Err(_)) = ended {
                let error = NodeError::Panicked { part: name.into() };
                tracing::error!(%error, "stopping");
                parts.ended(error.to_string());
                // The node may be stopping already.
                let _ = fail.send(error).await;
            }
        });
    }

    /// Refreshes what has no event of its own.
    fn keep_gauges(&self, feed: Feed, hub: HubStates, progress: Progress) {
        let Self { metrics, mempool, tip, .. } = self.clone();
        self.task("gauges", async move {
            let mut tick = tokio::time::interval(GAUGES_INTERVAL);
            loop {
                tick.tick().await;
                if let Feed::Engine { status, .. } = &feed {
                    let engine = *status.borrow();
                    metrics.epoch.set(gauge(engine.epoch));
                    metrics.seats.set(gauge(engine.seats));
                    metrics.view.set(gauge(engine.view));
                    metrics.peers.set(gauge(engine.peers_connected));
                    metrics.voting.set(engine.voting.into());
                }
                let (state, height) = (hub.tip(), tip.borrow().height);
                metrics.protocol.set(gauge(state.protocol()));
                metrics.protocol_decided.set(gauge(state.upgrade().map_or(0, |upgrade| upgrade.protocol)));
                for (rollup, next) in &progress {
                    let lag = (height + 1).saturating_sub(next.load(Ordering::Acquire));
                    metrics.execution_lag.get_or_create(&(*rollup).into()).set(gauge(lag));
                }
                metrics.mempool_bundles.set(gauge(mempool.bundles()));
                for (rollup, usage) in mempool.usage_by_rollup() {
                    metrics.mempool_transactions.get_or_create(&rollup.into()).set(gauge(usage.transactions));
                    metrics.mempool_bytes.get_or_create(&rollup.into()).set(gauge(usage.bytes));
                }
            }
        });
    }

    /// What `/livez` and `/readyz` answer.
    fn probes(&self, opened: &Opened, feed: Feed, engine: Option<Stopped>) -> Probes {
        let heartbeat = Duration::from_millis(opened.config.consensus.heartbeat_ms);
        let ready = Ready { feed, tip: self.tip.clone(), heartbeat, metrics: self.metrics.clone() };
        Probes { live: health::live(self.parts.clone(), engine), ready: ready.probe() }
    }
}

/// The lowest height to keep at a tip: by the setting, by the replay window, and by the slowest rollup.
fn keep_from(opened: &Opened, progress: Progress) -> Box<dyn Fn(u64) -> u64 + Send> {
    let keep = opened.config.store.keep_blocks.map(|blocks| blocks.max(opened.genesis.replay_window_blocks));
    Box::new(move |tip| {
        let by_setting = keep.map_or(0, |keep| tip.saturating_sub(keep.max(STATES_KEPT + STATE_EVERY)));
        let durable = |next: &AtomicU64| next.load(Ordering::Acquire).saturating_sub(UNSYNCED_HUB_BLOCKS_MAX);
        progress.iter().map(|(_, next)| durable(next)).fold(by_setting, u64::min)
    })
}

fn remove_file(path: &Path) -> Result<(), NodeError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(path)(e)),
        _ => Ok(()),
    }
}

/// Whole or not at all, for those who wait for it.
fn write_endpoints(path: &Path, endpoints: &Endpoints) -> Result<(), NodeError> {
    let draft = path.with_extension("json.new");
    let text = serde_json::to_vec_pretty(endpoints)
        .map_err(|e| NodeError::Server { what: "endpoints.json", reason: e.to_string() })?;
    std::fs::write(&draft, text).map_err(io(&draft))?;
    std::fs::rename(&draft, path).map_err(io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchyard_mempool::MempoolConfig;
    use switchyard_primitives::{B256, Header, Limits};
    use switchyard_store::MemoryStore;

    fn shared() -> (Shared, mpsc::Receiver<NodeError>) {
        let genesis = Header::genesis(B256::ZERO, 0, B256::ZERO);
        let (fail, failures) = mpsc::channel(16);
        let store = Arc::new(MemoryStore::new(genesis));
        let hub = crate::hub::tests::of_equals(store.clone(), &[B256::ZERO]);
        let shared = Shared {
            store,
            pool: Arc::new(Pool::new(hub, Arc::default())),
            closed: watch::channel(0).0,
            mempool: Arc::new(Mempool::new(MempoolConfig::default(), Limits::default(), [])),
            metrics: Arc::default(),
            tip: watch::channel(HubTip { height: 0, hash: genesis.hash(), timestamp_ms: 0 }).1,
            parts: Parts::default(),
            stop: CancellationToken::new(),
            fail,
        };
        (shared, failures)
    }

    #[tokio::test]
    async fn a_part_that_fails_or_panics_stops_the_node() {
        let (shared, mut failures) = shared();
        shared.thread("one".into(), || Err(NodeError::Ended("a part"))).unwrap();
        assert!(matches!(failures.recv().await, Some(NodeError::Ended("a part"))));
        shared.thread("two".into(), || panic!("as a test")).unwrap();
        assert!(matches!(failures.recv().await, Some(NodeError::Panicked { part }) if part == "two"));
        shared.task("three", async { panic!("as a test") });
        assert!(matches!(failures.recv().await, Some(NodeError::Panicked { part }) if part == "three"));
    }

    #[tokio::test]
    async fn a_part_that_ends_well_stops_nothing() {
        let (shared, mut failures) = shared();
        let thread = shared.thread("one".into(), || Ok(())).unwrap();
        shared.task("two", async {});
        shared.task("three", std::future::pending());
        shared.stop.cancel();
        thread.join().unwrap();
        drop(shared);
        assert!(failures.recv().await.is_none());
    }
}
