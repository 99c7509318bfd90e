//! One validator: what survives its crashes, and the life that a crash ends.

use crate::{
    context::{Context, Disk},
    machine::{Simulated, elapsed_ms},
    network::{Disorder, Joined},
    witness::Witness,
    world::{EVM, OPAQUE, REPLAY_WINDOW, World, address, bls_key},
};
use commonware_runtime::{Handle, Spawner as _, Supervisor as _, deterministic};
use serde_json::json;
use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use switchyard_consensus_core::{BlockBuilder, EngineEvent};
use switchyard_consensus_engine::{Embedded, EngineConfig, embedded};
use switchyard_consensus_guard::{LocalSigner, SignGuard, VoteSigner};
use switchyard_consensus_network::Transport;
use switchyard_mempool::{Mempool, MempoolConfig};
use switchyard_node::{
    StoreHistory,
    attest::Pool,
    builder::{BuilderParts, HubBuilder, Rules},
    config,
    executor::Executor,
    finalizer::Finalizer,
    hub::{HubError, HubStates, SystemAdmission},
    ingest::{Ingest, IngestParts, Timing},
    machine::Machine,
    metrics::Metrics,
    records::Records,
};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Admission, Applied, Driver, DriverError, Sealing, SegmentInput};
use switchyard_rollup_evm::{EvmConfig, EvmRollup};
use switchyard_rpc::HubTip;
use switchyard_store::{MemoryStore, Store, StoreError};
use tokio::sync::{oneshot, watch};

/// How a validator is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Pace and timeouts.
    pub pace: config::Consensus,
    /// Blocks of at least this length travel by their transactions' hashes.
    pub compact_from_bytes: usize,
    /// How far the validator's clock is ahead.
    pub clock_ahead_ms: i64,
    /// How badly its messages arrive.
    pub disorder: Disorder,
    /// Whether it listens for another with its key before it votes.
    pub doppelganger_check: bool,
    /// Of a thousand writes, so many reach the disk before their sync.
    pub early_per_mille: u32,
    /// Whether it executes the EVM rollup.
    pub executes: bool,
    /// Blocks that the engine's archive keeps.
    pub archive_blocks: u64,
    /// Whether it holds its second key beside the first.
    pub rekeys: bool,
}

/// What survives a crash.
pub struct Validator {
    /// Its seat.
    pub index: usize,
    /// Its disk.
    pub disk: Arc<Disk>,
    /// How it is run.
    pub settings: Settings,
    /// How many times it has been moved to another address.
    pub moves: u16,
    world: Arc<World>,
    witness: Arc<Witness>,
    folder: PathBuf,
    store: Arc<MemoryStore>,
    /// Up to here the log was copied from another one, and is on the disk: the engine's archive could not fill it.
    copied: u64,
    life: Option<Life>,
    lives: u64,
    /// Of earlier lives: dropping one would stop its engine, and with it the whole simulated runtime.
    stops: Vec<oneshot::Sender<()>>,
    /// Whether the checkers look at what it does: not where it is faulty.
    honest: bool,
}

/// What does not.
pub struct Life {
    task: Handle<()>,
    /// Where clients go.
    pub ingest: Arc<Ingest>,
    /// What waits.
    pub mempool: Arc<Mempool>,
    /// The hub's state, as it knows it.
    pub hub: HubStates,
    /// The node's machine.
    pub machine: Arc<dyn Machine>,
    over: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
}

impl Validator {
    /// A validator that has not started, with its files in `folder`.
    pub fn new(
        index: usize,
        world: Arc<World>,
        witness: Arc<Witness>,
        settings: Settings,
        folder: PathBuf,
        disk: Arc<Disk>,
        honest: bool,
    ) -> Self {
        let store = Arc::new(MemoryStore::new(world.genesis));
        let (life, stops) = (None, Vec::new());
        let (moves, copied, lives) = (0, 0, 0);
        Self { index, disk, settings, moves, world, witness, folder, store, copied, life, lives, stops, honest }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        address(self.index, self.moves)
    }

    /// How many lives it has had.
    pub fn lives(&self) -> u64 {
        self.lives
    }

    /// Its present life.
    pub fn life(&self) -> Option<&Life> {
        self.life.as_ref().filter(|life| !life.over.load(Ordering::Acquire))
    }

    /// Whether it does not run, and has not just ended by itself.
    pub fn is_down(&self) -> bool {
        self.life.is_none()
    }

    /// Whether it has ended by itself.
    pub fn has_failed(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.over.load(Ordering::Acquire))
    }

    /// Its log.
    pub fn store(&self) -> &Arc<MemoryStore> {
        &self.store
    }

    /// Ends its life at once, wherever its tasks are; `lost` of the newest blocks were not yet on the store's disk.
    pub fn crash(&mut self, time_ms: u64, lost: u64) -> Result<(), StoreError> {
        let Some(life) = self.life.take() else { return Ok(()) };
        life.task.abort();
        self.stops.push(life.stop);
        self.witness.event(time_ms, self.index, "crash");
        self.witness.tell(|w| w.crashes += 1);
        if self.honest {
            self.witness.tell(|w| w.accepted.crashed(self.index));
        }
        let kept = self.store.tip().0.height.saturating_sub(lost).max(self.copied);
        self.store = Arc::new(copied(&self.store, kept, &self.world)?);
        Ok(())
    }

    /// Begins with the log of another one, as who has copied it from there. It must not have begun.
    pub fn take_log(&mut self, of: &MemoryStore) -> Result<(), StoreError> {
        self.copied = of.tip().0.height;
        self.store = Arc::new(copied(of, self.copied, &self.world)?);
        Ok(())
    }

    /// Begins a life on `network`. `wrap` may put something between the engine and the node's builder.
    pub async fn start<B: BlockBuilder>(
        &mut self,
        context: &deterministic::Context,
        network: Joined,
        wrap: impl FnOnce(HubBuilder, HubStates) -> B,
    ) {
        self.lives += 1;
        let inner = context.child("validator").with_attribute("index", self.index).with_attribute("life", self.lives);
        let context = Context::new(inner, self.disk.clone());
        let store: Arc<dyn Store> = self.store.clone();
        let (header, hash) = store.tip();
        self.witness.event(elapsed_ms(&context), self.index, &format!("start at {}", header.height));
        if self.honest {
            self.witness.tell(|w| w.agreement.started(self.index, header.height));
        }

        let hub = HubStates::open(store.clone(), self.world.network, self.world.hub.clone());
        let hub = hub.expect("the state that was stored with the log");
        let metrics = Arc::new(Metrics::default());
        let (announce, tip) = watch::channel(HubTip { height: header.height, hash, timestamp_ms: header.timestamp_ms });
        let (waiting, waiting_out) = watch::channel(0);
        let rollup = self.settings.executes.then(|| {
            let path = self.folder.join("evm");
            std::fs::create_dir_all(&path).expect("the run's own folder");
            let evm = EvmConfig { rollup: EVM, genesis: evm_genesis(), sealing: Sealing::default() };
            EvmRollup::open(&path, evm).expect("a rollup in the run's own folder")
        });
        let admission = rollup.as_ref().map(|(_, reader)| reader.clone() as Arc<dyn Admission>);
        let system: Arc<dyn Admission> = Arc::new(SystemAdmission(hub.clone()));
        let pools = [(EVM, admission), (OPAQUE, None), (RollupId::SYSTEM, Some(system))];
        let mempool = Arc::new(Mempool::new(MempoolConfig::default(), self.world.limits, pools));
        let over = Arc::new(AtomicBool::new(false));
        let task = context.child("tasks");
        // What belongs to a life hangs below its one task, and is aborted with it.
        let (built, parts) = oneshot::channel();
        let world = self.world.clone();
        let (index, settings, witness, disk) = (self.index, self.settings, self.witness.clone(), self.disk.clone());
        let honest = self.honest;
        let (guard, next_guard) = (self.guard(0), settings.rekeys.then(|| self.guard(1)));
        let ended = over.clone();
        let (pool, states) = (mempool.clone(), hub.clone());
        let attestations = Arc::new(Pool::new(hub.clone(), metrics.clone()));
        let (attested, closed) = (attestations.clone(), watch::channel(0).0);
        let wrapped = {
            let machine: Arc<dyn Machine> = Arc::new(Simulated::new(context.child("builder"), settings.clock_ahead_ms));
            let builder = HubBuilder::new(BuilderParts {
                rules: Rules {
                    limits: world.limits,
                    rollups: [EVM, OPAQUE].into(),
                    replay_window_blocks: REPLAY_WINDOW,
                },
                pace: settings.pace,
                store: store.clone(),
                hub: hub.clone(),
                mempool: mempool.clone(),
                tip: tip.clone(),
                pool: attestations.clone(),
                waiting: waiting_out,
                metrics: metrics.clone(),
                machine,
            });
            wrap(builder, hub.clone())
        };
        let handle = task.spawn(move |context| async move {
            let signers = (signer(&world, index, 0, guard), next_guard.map(|guard| signer(&world, index, 1, guard)));
            let config = engine_config(&world, index, &settings, signers, hub.clone(), store.clone());
            let Embedded { events, gossip, stop, run, .. } =
                embedded(context.child("engine"), config, wrapped, network);
            let machine: Arc<dyn Machine> = Arc::new(Simulated::new(context.child("node"), settings.clock_ahead_ms));
            let (ingest, outbox) = Ingest::new(IngestParts {
                mempool: pool.clone(),
                store: store.clone(),
                limits: world.limits,
                hub: hub.clone(),
                me: world.validators[index].identity,
                gossip: gossip.sender,
                gossip_from: usize::MAX,
                pool: attested,
                waiting,
                rollups: vec![EVM, OPAQUE],
                timing: Timing::default(),
                metrics: metrics.clone(),
                machine: machine.clone(),
            });
            // Who waits for it has gone only if the run is over.
            let _ = built.send((ingest.clone(), machine, stop));
            let receiving = context.child("gossip").spawn({
                let ingest = ingest.clone();
                move |_| ingest.receive(gossip.receiver)
            });
            let replicating = context.child("replication").spawn(move |_| ingest.run(outbox));
            let finalizer = Finalizer {
                store: store.clone(),
                hub,
                mempool: pool.clone(),
                tip: announce,
                metrics: metrics.clone(),
                // Nobody takes them: the simulation's stake is changed by its own records.
                records: Records::new().0,
                keep_from: Box::new(|_| 0),
            };
            let finalizing = context.child("finalizer").spawn({
                let witness = witness.clone();
                move |context| finalize(context, index, finalizer, events, honest.then_some(witness))
            });
            let executing = context.child("executor").spawn({
                let witness = witness.clone();
                move |_| async move {
                    match rollup {
                        Some((driver, _reader)) => {
                            let driver = Watched { inner: driver, index, rollup: EVM, witness };
                            let next = Arc::new(AtomicU64::new(0));
                            let watched = tip.clone();
                            let executor =
                                Executor { rollup: EVM, driver, store, mempool: pool, closed, tip, next, metrics };
                            execute(executor, watched).await
                        }
                        None => std::future::pending().await,
                    }
                }
            });
            let engine = context.child("run").spawn(move |_| run);
            let mut panicked = context.panicked();
            let how = tokio::select! {
                biased;
                Ok(reason) = panicked.wait_for(Option::is_some) => format!("panic: {}", reason.clone().unwrap_or_default()),
                ended = engine => match ended {
                    Ok(Ok(())) => "engine: stopped".to_string(),
                    Ok(Err(error)) => format!("engine: {error}"),
                    Err(error) => format!("engine: {error}"),
                },
                ended = finalizing => format!("finalizer: {ended:?}"),
                ended = executing => format!("executor: {ended:?}"),
                ended = receiving => format!("gossip: {ended:?}"),
                ended = replicating => format!("replication: {ended:?}"),
            };
            // A broken disk may end a validator, nothing else may.
            witness.event(elapsed_ms(&context), index, &format!("ended: {how}"));
            let _ = witness.tell(|_| {
                let excused = disk.failures() > 0 || !honest;
                match excused {
                    true => Ok(()),
                    false => crate::check::violated("engine", format!("validator {index} has ended: {how}")),
                }
            });
            ended.store(true, Ordering::Release);
        });
        let (ingest, machine, stop) = parts.await.expect("the task begins");
        self.life = Some(Life { task: handle, ingest, mempool, hub: states, machine, over, stop });
    }

    /// The record of one of its keys.
    fn guard(&self, key: usize) -> Arc<SignGuard> {
        std::fs::create_dir_all(&self.folder).expect("the run's own folder");
        let (file, bls) = (format!("signed-{key}"), bls_key(&self.world.secrets[self.index].bls[key]));
        let guard = SignGuard::open(&self.folder.join(file), self.world.network, bls.0);
        Arc::new(guard.expect("the record of an earlier life"))
    }
}

fn signer(world: &World, index: usize, key: usize, guard: Arc<SignGuard>) -> Arc<dyn VoteSigner> {
    Arc::new(LocalSigner::new(world.secrets[index].bls[key], guard).expect("the record is of this key"))
}

/// What a store holds up to a height.
fn copied(of: &MemoryStore, to: u64, world: &World) -> Result<MemoryStore, StoreError> {
    let copy = MemoryStore::new(world.genesis);
    let mut newest = None;
    for height in 1..=to {
        // Each where it was written: a later crash may lose the newest ones.
        let state = of.hub_state(height)?;
        if let Some(state) = state.filter(|state| newest.as_ref() != Some(state)) {
            copy.put_hub_state(height, &state)?;
            newest = Some(state);
        }
        let block = of.block(height)?;
        let certificate = of.certificate_from(height)?.filter(|(at, _)| *at == height).map(|(_, c)| c);
        if let Some(block) = block {
            copy.append(&block, certificate.as_ref())?;
        }
    }
    Ok(copy)
}

fn engine_config(
    world: &World,
    index: usize,
    settings: &Settings,
    (signer, next_signer): (Arc<dyn VoteSigner>, Option<Arc<dyn VoteSigner>>),
    hub: HubStates,
    store: Arc<dyn Store>,
) -> EngineConfig {
    let secrets = world.secrets[index];
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let ms = Duration::from_millis;
    EngineConfig {
        network_id: world.network,
        committees: Arc::new(hub),
        epochs: world.epochs,
        genesis: world.genesis,
        limits: world.limits,
        identity_secret: secrets.identity,
        signer,
        next_signer,
        doppelganger_check: settings.doppelganger_check,
        listen: nowhere,
        transport: Transport::default(),
        peers: Vec::new(),
        data_dir: PathBuf::new(),
        leader_timeout: ms(settings.pace.leader_timeout_ms),
        certification_timeout: ms(settings.pace.certification_timeout_ms),
        skip_timeout: ms(settings.pace.skip_timeout_ms),
        worker_threads: NonZeroUsize::MIN,
        acknowledged_height: store.tip().0.height,
        history: Some(Arc::new(StoreHistory(store))),
        archive_blocks: settings.archive_blocks,
        compact_from_bytes: settings.compact_from_bytes,
    }
}

async fn finalize(
    context: Context,
    index: usize,
    mut finalizer: Finalizer,
    mut events: tokio::sync::mpsc::Receiver<EngineEvent>,
    witness: Option<Arc<Witness>>,
) -> Result<(), HubError> {
    while let Some(event) = events.recv().await {
        if let Some(witness) = &witness {
            witness.engine(elapsed_ms(&context), index, &event);
        }
        let is_final = matches!(event, EngineEvent::Final { .. });
        finalizer.take(event)?;
        if let Some(witness) = witness.as_ref().filter(|_| is_final) {
            witness.state(index, &finalizer.hub.tip());
        }
        // The node's finalizer has a thread of its own: others may come between two blocks.
        commonware_runtime::reschedule().await;
    }
    Ok(())
}

async fn execute<D: Driver>(
    mut executor: Executor<D>,
    mut tip: watch::Receiver<HubTip>,
) -> Result<(), switchyard_node::executor::ExecutorError> {
    loop {
        executor.catch_up(|| false)?;
        if tip.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// A driver whose checkpoints are told to the witness.
struct Watched<D> {
    inner: D,
    index: usize,
    rollup: RollupId,
    witness: Arc<Witness>,
}

impl<D: Driver> Driver for Watched<D> {
    fn next_hub_height(&self) -> u64 {
        self.inner.next_hub_height()
    }

    fn apply(&mut self, input: &SegmentInput) -> Result<Applied, DriverError> {
        let applied = self.inner.apply(input)?;
        for checkpoint in &applied.checkpoints {
            let place = (self.rollup, checkpoint.number);
            self.witness.derived(self.index, place, checkpoint.hash(), checkpoint.state_root);
        }
        Ok(applied)
    }
}

/// Whoever sends transactions on the EVM rollup.
pub const SENDER_SECRET: [u8; 32] = [0x51; 32];

/// The EVM rollup's genesis: one rich account.
pub fn evm_genesis() -> serde_json::Value {
    let signer = alloy::signers::local::PrivateKeySigner::from_bytes(&SENDER_SECRET.into()).expect("a secret");
    json!({
        "config": {
            "chainId": 7, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
            "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0,
            "londonBlock": 0, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "terminalTotalDifficulty": 0,
            "terminalTotalDifficultyPassed": true
        },
        "nonce": "0x0", "timestamp": "0x0", "extraData": "0x", "difficulty": "0x0", "gasLimit": "0x1c9c380",
        "baseFeePerGas": "0x7", "coinbase": "0x0000000000000000000000000000000000000000",
        "alloc": { signer.address().to_string(): { "balance": "0xffffffffffffffffffffffffffff" } },
    })
}

impl Life {
    /// Hands a transaction to this validator as a client does; the answer comes when a quorum holds it, or when not.
    pub fn submit(
        &self,
        rollup: RollupId,
        payload: switchyard_primitives::Bytes,
    ) -> impl Future<Output = bool> + Send + 'static {
        let (ingest, (done, answer)) = (self.ingest.clone(), oneshot::channel());
        // On the validator: it ends with the validator's life, and then the client hears nothing.
        self.machine.spawn(Box::pin(async move {
            let _ = done.send(ingest.submit(rollup, vec![payload]).await.iter().all(Result::is_ok));
        }));
        async move { answer.await.unwrap_or(false) }
    }
}
