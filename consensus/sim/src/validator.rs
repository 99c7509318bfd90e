//! One validator: what survives its crashes, and the life that a crash ends.

use crate::{
    context::{Context, Disk},
    machine::{Simulated, elapsed_ms},
    network::{Disorder, Joined},
    relays::Lane,
    rollups::{OpenRollup, Running},
    witness::Witness,
    world::{OPAQUE, REPLAY_WINDOW, World, address, bls_key},
};
use alloy::signers::local::PrivateKeySigner;
use commonware_runtime::{Handle, Spawner as _, Supervisor as _, deterministic};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use switchyard_bridge_core::SignedBundle;
use switchyard_consensus_core::{BlockBuilder, EngineEvent};
use switchyard_consensus_engine::{Embedded, EngineConfig, embedded};
use switchyard_consensus_guard::{LocalSigner, SignGuard, VoteSigner};
use switchyard_consensus_network::Transport;
use switchyard_mempool::{Mempool, MempoolConfig};
use switchyard_node::{
    StoreHistory,
    attest::{Operator, Pool},
    builder::{BuilderParts, HubBuilder, Rules},
    config,
    finalizer::Finalizer,
    hub::{HubError, HubStates, Known, SystemAdmission, put_bridge},
    ingest::{Ingest, IngestParts, Timing},
    machine::Machine,
    metrics::Metrics,
    records::Records,
    relay::Log,
};
use switchyard_primitives::RollupId;
use switchyard_relayer::{Relayer, RelayerParts, Settings as RelayerSettings};
use switchyard_rollup_core::{Admission, evm::EvmChain};
use switchyard_rpc::HubTip;
use switchyard_store::{MemoryStore, Store, StoreError};
use tokio::sync::{oneshot, watch};
use zeroize::Zeroizing;

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
    /// Whether it executes the EVM rollups.
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
    /// The rollups that it executes.
    pub chains: BTreeMap<RollupId, Arc<dyn EvmChain>>,
    log: Arc<Log>,
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
        self.store = Arc::new(copied(&self.store, kept, &self.world, &self.witness)?);
        Ok(())
    }

    /// Begins with the log of another one, as who has copied it from there. It must not have begun.
    pub fn take_log(&mut self, of: &MemoryStore) -> Result<(), StoreError> {
        self.copied = of.tip().0.height;
        self.store = Arc::new(copied(of, self.copied, &self.world, &self.witness)?);
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
        let open = |rollup: &RollupId| OpenRollup::new(&self.world, *rollup, &self.folder);
        let opened: Vec<OpenRollup> = self.world.evms.iter().filter(|_| self.settings.executes).map(open).collect();
        let system: Arc<dyn Admission> = Arc::new(SystemAdmission(hub.clone()));
        let others = [(OPAQUE, None), (RollupId::SYSTEM, Some(system))];
        let evms = self.world.evms.iter().map(|id| {
            let reader = opened.iter().find(|open| open.rollup == *id).map(|open| open.reader.clone());
            (*id, reader.map(|reader| reader as Arc<dyn Admission>))
        });
        let mempool = Arc::new(Mempool::new(MempoolConfig::default(), self.world.limits, evms.chain(others)));
        let chains = opened.iter().map(|open| (open.rollup, open.reader.clone() as Arc<dyn EvmChain>)).collect();
        let over = Arc::new(AtomicBool::new(false));
        let task = context.child("tasks");
        // What belongs to a life hangs below its one task, and is aborted with it.
        let (built, parts) = oneshot::channel();
        let world = self.world.clone();
        let (index, settings, witness, disk) = (self.index, self.settings, self.witness.clone(), self.disk.clone());
        let honest = self.honest;
        let (guard, next_guard) = (self.guard(0), settings.rekeys.then(|| self.guard(1)));
        let operates = world.hub.founding().operators.contains_key(&world.validators[index].identity);
        let operator_guard = operates.then(|| self.open_guard("checkpoints", &world.secrets[index].operator));
        let evidence = self.folder.join("evidence");
        let ended = over.clone();
        let (pool, states, view) = (mempool.clone(), hub.clone(), hub.clone());
        let attestations = Arc::new(Pool::new(hub.clone(), metrics.clone()));
        let attested = attestations.clone();
        let wrapped = {
            let machine: Arc<dyn Machine> = Arc::new(Simulated::new(context.child("builder"), settings.clock_ahead_ms));
            let builder = HubBuilder::new(BuilderParts {
                rules: Rules {
                    limits: world.limits,
                    rollups: world.evms.iter().copied().chain([OPAQUE]).collect(),
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
                gossip: gossip.sender.clone(),
                gossip_from: usize::MAX,
                pool: attested.clone(),
                waiting,
                rollups: world.evms.iter().copied().chain([OPAQUE]).collect(),
                timing: Timing::default(),
                metrics: metrics.clone(),
                machine: machine.clone(),
            });
            // Who waits for it has gone only if the run is over.
            let _ = built.send((ingest.clone(), machine.clone(), stop));
            let receiving = context.child("gossip").spawn({
                let ingest = ingest.clone();
                move |_| ingest.receive(gossip.receiver)
            });
            let replicating = context.child("replication").spawn(move |_| ingest.run(outbox));
            // The checkers take them, and not the log: the simulation's stake is changed by its own records.
            let (records, mut own_records) = Records::new();
            // It goes with the validator.
            drop(context.child("records").spawn({
                let witness = witness.clone();
                move |_| async move {
                    while let Some(record) = own_records.recv().await {
                        if honest {
                            witness.record(index, &record);
                        }
                    }
                }
            }));
            let finalizer = Finalizer {
                store: store.clone(),
                hub,
                mempool: pool.clone(),
                tip: announce,
                metrics: metrics.clone(),
                records: records.clone(),
                keep_from: Box::new(|_| 0),
            };
            let finalizing = context.child("finalizer").spawn({
                let witness = witness.clone();
                move |context| finalize(context, index, finalizer, events, (witness, honest))
            });
            let operator = operator_guard.map(|guard| Operator {
                identity: world.validators[index].identity,
                secret: Zeroizing::new(world.secrets[index].operator),
                guard,
            });
            let running = Running {
                index,
                world,
                witness: witness.clone(),
                hub: view,
                store,
                mempool: pool,
                tip,
                pool: attested,
                operator,
                gossip: gossip.sender,
                records,
                evidence,
                metrics,
                machine,
            };
            let executing = context.child("rollups").spawn(move |context| running.run(context, opened));
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
        let log = Arc::new(Log { hub: states.clone(), store: self.store.clone() });
        self.life = Some(Life { task: handle, ingest, mempool, hub: states, machine, chains, log, over, stop });
    }

    /// The record of one of the keys that it votes with.
    fn guard(&self, key: usize) -> Arc<SignGuard> {
        Arc::new(self.open_guard(&format!("signed-{key}"), &self.world.secrets[self.index].bls[key]))
    }

    fn open_guard(&self, file: &str, secret: &[u8; 32]) -> SignGuard {
        std::fs::create_dir_all(&self.folder).expect("the run's own folder");
        let guard = SignGuard::open(&self.folder.join(file), self.world.network, bls_key(secret).0);
        guard.expect("the record of an earlier life")
    }
}

fn signer(world: &World, index: usize, key: usize, guard: Arc<SignGuard>) -> Arc<dyn VoteSigner> {
    Arc::new(LocalSigner::new(world.secrets[index].bls[key], guard).expect("the record is of this key"))
}

/// What a store holds up to a height.
fn copied(of: &MemoryStore, to: u64, world: &World, witness: &Witness) -> Result<MemoryStore, StoreError> {
    let copy = MemoryStore::new(world.genesis);
    put_bridge(&copy, 0, &world.hub, Known::Before)?;
    let mut newest = None;
    for height in 1..=to {
        // Each where it was written: a later crash may lose the newest ones.
        let state = of.hub_state(height)?;
        if let Some(state) = state.filter(|state| newest.as_ref() != Some(state)) {
            copy.put_hub_state(height, &state)?;
            newest = Some(state);
        }
        if let Some(state) = witness.state_after(height) {
            put_bridge(&copy, height, &state, Known::Before)?;
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
    (witness, honest): (Arc<Witness>, bool),
) -> Result<(), HubError> {
    while let Some(event) = events.recv().await {
        if honest {
            witness.engine(elapsed_ms(&context), index, &event);
        }
        let is_final = matches!(event, EngineEvent::Final { .. });
        finalizer.take(event)?;
        if is_final {
            witness.state(honest.then_some(index), &finalizer.hub.tip());
        }
        // The node's finalizer has a thread of its own: others may come between two blocks.
        commonware_runtime::reschedule().await;
    }
    Ok(())
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

    /// Hands a bundle to this validator. Whether it was taken shows in the log.
    pub fn submit_bundle(&self, bundle: Arc<SignedBundle>) {
        let ingest = self.ingest.clone();
        self.machine.spawn(Box::pin(async move { drop(ingest.submit_bundle(bundle).await) }));
    }

    /// A relayer beside this validator.
    pub fn relayer(&self, signer: PrivateKeySigner, settings: RelayerSettings) -> Relayer {
        Relayer::new(RelayerParts {
            hub: self.log.clone(),
            chains: self.chains.clone(),
            submit: Arc::new(Lane { ingest: self.ingest.clone(), machine: self.machine.clone() }),
            signer,
            // The simulation says when its rounds are.
            tip: watch::channel(0).1,
            settings,
        })
    }
}
