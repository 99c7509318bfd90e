//! Puts the parts together and takes them apart again.

use crate::{
    builder::{HubBuilder, Rules},
    config::{Config, Endpoints},
    executor::{Executor, ExecutorError},
    finalizer::Finalizer,
    gateway::NodeGateway,
    genesis::{Genesis, GenesisError},
    ingest::{Ingest, IngestParts, Outbox},
    keys::{KeyError, NodeKeys},
    logging::RecentErrors,
    metrics::{Metrics, gauge},
    servers::Listeners,
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use parking_lot::Mutex;
use switchyard_consensus_core::SeatSet;
use switchyard_consensus_engine::{Engine, EngineConfig, EngineHandle, EngineError, EngineStatus};
use switchyard_mempool::{Mempool, MempoolConfig};
use switchyard_primitives::{B256, RollupId};
use switchyard_rollup_core::{Admission, RollupManifest, Vm, evm::EvmChain};
use switchyard_rollup_evm::{EvmConfig, EvmDriver, EvmOpenError, EvmReader, EvmRollup};
use switchyard_rpc::{Gateway, HubTip, NetworkInfo, Readiness};
use switchyard_store::{RocksStore, Store, StoreError, RocksOptions};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Threads of consensus and its network.
const ENGINE_THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");
/// How long servers and the engine may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a node does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The genesis is not usable.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A key file is not usable.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The keys do not belong to a validator of this network.
    #[error("{0}")]
    NotAValidator(String),
    /// The configuration names what the genesis does not have.
    #[error("config: {0}")]
    Config(String),
    /// A folder or file cannot be made.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The store.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// A rollup's state cannot be opened.
    #[error("rollup {rollup}: {source}")]
    Rollup {
        /// The rollup.
        rollup: RollupId,
        /// Why.
        source: Box<EvmOpenError>,
    },
    /// A port cannot be bound.
    #[error("cannot listen on {address} for {what}: {source}; free the port or change the address in the config")]
    Listen {
        /// The server.
        what: &'static str,
        /// Its address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A server does not start.
    #[error("{what}: {reason}")]
    Server {
        /// The server.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The engine.
    #[error("consensus: {0}")]
    Engine(#[from] EngineError),
    /// The engine ended while the node ran.
    #[error("consensus: {0}")]
    EngineFailed(Arc<EngineError>),
    /// A rollup's execution stopped.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// A part ended without a reason.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

impl NodeError {
    /// 2 for what the operator must change before a start can succeed, 1 for failures while running.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Executor(_) | Self::Ended(_) | Self::EngineFailed(_) => 1,
            Self::Store(StoreError::Database(_)) => 1,
            _ => 2,
        }
    }
}

struct OpenRollup {
    manifest: RollupManifest,
    driver: EvmDriver,
    reader: Arc<EvmReader>,
}

/// A running node.
pub struct Node {
    /// Where it answers.
    pub endpoints: Endpoints,
    engine: EngineHandle,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    failures: mpsc::Receiver<NodeError>,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> NodeError + '_ {
    |source| NodeError::Io { path: path.display().to_string(), source }
}

fn open_rollups(config: &Config, genesis: &Genesis) -> Result<Vec<OpenRollup>, NodeError> {
    let mut open = Vec::new();
    for manifest in &genesis.rollups {
        let Vm::Evm { genesis } = &manifest.vm else { continue };
        let path = config.data_dir.join("rollups").join(manifest.id.to_string());
        std::fs::create_dir_all(&path).map_err(io(&path))?;
        let evm = EvmConfig { rollup: manifest.id, genesis: genesis.clone(), sealing: manifest.sealing };
        let (driver, reader) = EvmRollup::open(&path, evm)
            .map_err(|source| NodeError::Rollup { rollup: manifest.id, source: Box::new(source) })?;
        open.push(OpenRollup { manifest: manifest.clone(), driver, reader });
    }
    Ok(open)
}

fn own_seat(seats: &SeatSet, keys: &NodeKeys) -> Result<(), NodeError> {
    let refuse = |text: String| Err(NodeError::NotAValidator(text));
    let identity = keys.identity_public();
    let Some(index) = seats.index_of(&identity) else {
        return refuse(format!("identity {identity} has no seat in this network's genesis"));
    };
    let expected = seats.seats()[index as usize].bls;
    let bls = keys.bls_public()?;
    if bls != expected {
        return refuse(format!("BLS key {bls} is not the one of seat {index}, which is {expected}"));
    }
    Ok(())
}

impl Node {
    /// Starts everything; returns once every server answers.
    pub async fn start(config: Config, errors: RecentErrors) -> Result<Self, NodeError> {
        let genesis = Genesis::load(&config.genesis)?;
        let (network, header, seats) = (genesis.id()?, genesis.header()?, genesis.seats()?);
        let keys = NodeKeys::load(&config.keys)?;
        own_seat(&seats, &keys)?;
        std::fs::create_dir_all(&config.data_dir).map_err(io(&config.data_dir))?;

        let metrics = Arc::new(Metrics::default());
        let store_path = config.data_dir.join("store");
        let store: Arc<dyn Store> =
            Arc::new(RocksStore::open(&store_path, network, header, RocksOptions::default())?);
        let rollups = open_rollups(&config, &genesis)?;
        let mempool = Arc::new(Mempool::new(
            mempool_config(&config.mempool),
            genesis.limits(),
            genesis.rollups.iter().map(|m| (m.id, admission(&rollups, m.id))),
        ));
        let (waiting, waiting_rx) = watch::channel(0);
        let (tip, tip_rx) = {
            let (header, hash) = store.tip();
            watch::channel(HubTip { height: header.height, hash, timestamp_ms: header.timestamp_ms })
        };
        metrics.height.set(gauge(tip_rx.borrow().height));
        let rules = Rules {
            limits: genesis.limits(),
            rollups: genesis.rollup_ids().into_iter().collect(),
            replay_window_blocks: genesis.replay_window_blocks,
        };
        let builder =
            HubBuilder::new(rules, config.consensus, store.clone(), mempool.clone(), waiting_rx, metrics.clone());
        let listeners = Listeners::bind(&config)?;
        let heartbeat = Duration::from_millis(config.consensus.heartbeat_ms);
        let engine = engine_config(&config, &genesis, &keys, network, seats.clone(), store.tip().0.height)?;
        let engine = switchyard_consensus_engine::start(engine, builder.clone()).await?;
        let Engine { events, gossip, handle } = engine;

        let (ingest, outbox) = Ingest::new(IngestParts {
            mempool: mempool.clone(),
            store: store.clone(),
            limits: genesis.limits(),
            validators: seats.seats().iter().map(|s| s.identity).collect(),
            need: seats.quorum(),
            gossip: gossip.sender,
            waiting,
            rollups: genesis.rollup_ids(),
            metrics: metrics.clone(),
        });
        let stop = CancellationToken::new();
        let (fail, failures) = mpsc::channel(16);
        spawn_gossip(ingest.clone(), outbox, gossip.receiver, &stop);
        spawn_status(handle.status.clone(), metrics.clone(), mempool.clone(), &stop);

        let chains: HashMap<RollupId, Arc<dyn EvmChain>> =
            rollups.iter().map(|r| (r.manifest.id, r.reader.clone() as Arc<dyn EvmChain>)).collect();
        let mut threads = Vec::new();
        let mut progress = Vec::new();
        for rollup in rollups {
            let next = Arc::new(AtomicU64::new(0));
            progress.push(next.clone());
            let executor = Executor {
                rollup: rollup.manifest.id,
                driver: rollup.driver,
                store: store.clone(),
                mempool: mempool.clone(),
                tip: tip_rx.clone(),
                next,
                metrics: metrics.clone(),
            };
            let (runtime, stop) = (tokio::runtime::Handle::current(), stop.clone());
            let name = format!("rollup-{}", rollup.manifest.id);
            threads.push(spawn_part(name, fail.clone(), move || Ok(executor.run(&runtime, &stop)?))?);
        }
        let finalizer = Finalizer {
            store: store.clone(),
            mempool: mempool.clone(),
            tip,
            metrics: metrics.clone(),
            keep_from: keep_from(&config, &genesis, progress),
        };
        threads.push(spawn_part("finalizer".into(), fail.clone(), move || Ok(finalizer.run(events)?))?);

        let gateway = Arc::new(NodeGateway {
            info: NetworkInfo {
                name: genesis.name.clone(),
                id: network,
                genesis_hash: header.hash(),
                seats,
                rollups: genesis.rollups.clone(),
                limits: genesis.limits(),
                client_version: concat!("switchyard/", env!("CARGO_PKG_VERSION")).into(),
            },
            store,
            mempool,
            ingest,
            builder,
            tip: tip_rx,
            chains,
            errors,
            metrics: metrics.clone(),
        });
        let ready = readiness(gateway.tip(), heartbeat, &stop);
        let endpoints = listeners.serve(&gateway, &metrics, handle.metrics.clone(), ready, fail, &stop)?;
        write_endpoints(&config.data_dir, &endpoints)?;
        tracing::info!(grpc = endpoints.grpc, metrics = endpoints.metrics, "ready");
        Ok(Self { endpoints, engine: handle, threads, stop, failures })
    }

    /// Waits for the first part that fails.
    pub async fn failed(&mut self) -> NodeError {
        tokio::select! {
            Some(error) = self.failures.recv() => error,
            ended = self.engine.stopped.wait() => match ended {
                Err(error) => NodeError::EngineFailed(error),
                Ok(()) => NodeError::Ended("consensus"),
            },
        }
    }

    /// Stops servers, engine and executors; what was final and durable stays so.
    pub async fn shutdown(self) {
        self.stop.cancel();
        match tokio::time::timeout(STOP_TIMEOUT, self.engine.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the engine did not stop cleanly"),
            Err(_) => {
                tracing::error!("the engine did not stop in time");
                return;
            }
        }
        let join = tokio::task::spawn_blocking(move || self.threads.into_iter().for_each(|t| drop(t.join())));
        if tokio::time::timeout(STOP_TIMEOUT, join).await.is_err() {
            tracing::error!("a thread did not stop in time");
        }
    }
}

fn admission(rollups: &[OpenRollup], id: RollupId) -> Option<Arc<dyn Admission>> {
    rollups.iter().find(|r| r.manifest.id == id).map(|r| r.reader.clone() as Arc<dyn Admission>)
}

fn mempool_config(config: &crate::config::Mempool) -> MempoolConfig {
    MempoolConfig {
        bytes: config.bytes,
        transactions: config.transactions,
        rollup_bytes: config.rollup_bytes,
        rollup_transactions: config.rollup_transactions,
        sender_transactions: config.sender_transactions,
        ttl: Duration::from_secs(config.ttl_seconds),
    }
}

fn engine_config(
    config: &Config,
    genesis: &Genesis,
    keys: &NodeKeys,
    network: B256,
    seats: SeatSet,
    acknowledged_height: u64,
) -> Result<EngineConfig, NodeError> {
    let pace = &config.consensus;
    Ok(EngineConfig {
        network_id: network,
        seats,
        genesis: genesis.header()?,
        limits: genesis.limits(),
        identity_secret: keys.identity,
        bls_secret: keys.bls,
        listen: config.network.listen,
        peers: config.network.peers.iter().map(|p| (p.identity, p.address)).collect(),
        data_dir: config.data_dir.join("consensus"),
        leader_timeout: Duration::from_millis(pace.leader_timeout_ms),
        certification_timeout: Duration::from_millis(pace.certification_timeout_ms),
        skip_timeout: Duration::from_millis(pace.skip_timeout_ms),
        worker_threads: ENGINE_THREADS,
        acknowledged_height,
    })
}

/// The lowest height to keep at a tip: by the setting, by the replay window, and by the slowest rollup.
fn keep_from(config: &Config, genesis: &Genesis, progress: Vec<Arc<AtomicU64>>) -> Box<dyn Fn(u64) -> u64 + Send> {
    let keep = config.store.keep_blocks.map(|blocks| blocks.max(genesis.replay_window_blocks));
    Box::new(move |tip| {
        let by_setting = keep.map_or(0, |keep| tip.saturating_sub(keep));
        progress.iter().map(|next| next.load(Ordering::Acquire)).fold(by_setting, u64::min)
    })
}

/// Ready while blocks keep coming: at least one within ten heartbeats.
fn readiness(mut tip: watch::Receiver<HubTip>, heartbeat: Duration, stop: &CancellationToken) -> Readiness {
    let newest: Arc<Mutex<Option<Instant>>> = Arc::default();
    let seen = newest.clone();
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        while tip.changed().await.is_ok() {
            *seen.lock() = Some(Instant::now());
        }
    }));
    Arc::new(move || match newest.lock().map(|at| at.elapsed()) {
        Some(age) if age <= heartbeat * 10 => Ok(()),
        Some(age) => Err(format!("no final block for {} s", age.as_secs())),
        None => Err("no final block since the start".into()),
    })
}

fn spawn_part(
    name: String,
    fail: mpsc::Sender<NodeError>,
    part: impl FnOnce() -> Result<(), NodeError> + Send + 'static,
) -> Result<JoinHandle<()>, NodeError> {
    let run = move || {
        if let Err(error) = part() {
            tracing::error!(%error, "stopping");
            // The node may be stopping already.
            let _ = fail.blocking_send(error);
        }
    };
    let path = name.clone();
    std::thread::Builder::new().name(name).spawn(run).map_err(|source| NodeError::Io { path, source })
}

fn spawn_gossip(
    ingest: Arc<Ingest>,
    outbox: Outbox,
    mut incoming: mpsc::Receiver<(B256, bytes::Bytes)>,
    stop: &CancellationToken,
) {
    let (receiver, token) = (ingest.clone(), stop.clone());
    tokio::spawn(token.run_until_cancelled_owned(async move {
        while let Some((from, bytes)) = incoming.recv().await {
            // `admit` holds a permit a batch, so this neither queues without bound nor lets one peer stop the others.
            let ingest = receiver.clone();
            tokio::spawn(async move { ingest.on_message(from, bytes.into()).await });
        }
    }));
    tokio::spawn(stop.clone().run_until_cancelled_owned(ingest.run(outbox)));
}

fn spawn_status(
    status: watch::Receiver<EngineStatus>,
    metrics: Arc<Metrics>,
    mempool: Arc<Mempool>,
    stop: &CancellationToken,
) {
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tick.tick().await;
            let engine = *status.borrow();
            metrics.view.set(gauge(engine.view));
            metrics.peers.set(gauge(engine.peers_connected));
            for (rollup, usage) in mempool.usage_by_rollup() {
                metrics.mempool_transactions.get_or_create(&rollup.into()).set(gauge(usage.transactions));
                metrics.mempool_bytes.get_or_create(&rollup.into()).set(gauge(usage.bytes));
            }
        }
    }));
}

fn write_endpoints(data_dir: &Path, endpoints: &Endpoints) -> Result<(), NodeError> {
    let path = data_dir.join("endpoints.json");
    let draft = data_dir.join("endpoints.json.new");
    let text = serde_json::to_vec_pretty(endpoints)
        .map_err(|e| NodeError::Server { what: "endpoints.json", reason: e.to_string() })?;
    std::fs::write(&draft, text).map_err(io(&draft))?;
    std::fs::rename(&draft, &path).map_err(io(&path))
}
