//! The engine's threads, and the node's handle on them.

use crate::{
    EngineConfig, EngineError, GossipHandle, Runtime,
    folder::Folder,
    gossip,
    wiring::{self, Ports},
};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Receiver, Sender};
use commonware_runtime::{Metrics as _, Runner as _, Supervisor as _, tokio::Config};
use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};
use switchyard_consensus_core::{BlockBuilder, EngineEvent};
use switchyard_consensus_network::{GOSSIP_BYTES_MAX, Network, Roster};
use tokio::sync::{mpsc, oneshot, watch};

/// Events that wait for the node. Consensus itself never waits for it, only delivery does.
const EVENTS: usize = 64;
/// Threads for disk access; each is idle most of the time.
const BLOCKING_THREADS: usize = 16;
/// Enough for the library's deepest futures in builds without optimisation.
const STACK_BYTES: usize = 4 << 20;

/// What the engine is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// The epoch that runs.
    pub epoch: u64,
    /// This validator's seats in it; without any it follows.
    pub seats: u32,
    /// The newest view of the epoch that this validator has entered; 0 until the first certificate is seen.
    pub view: u64,
    /// The newest height known to be final.
    pub finalized_height: u64,
    /// Other validators with an open connection.
    pub peers_connected: usize,
    /// Other validators that were refused because their clocks and this machine's differ by seconds.
    pub clocks_apart: usize,
    /// Whether this validator votes; while it listens for another process with its key it does not.
    pub voting: bool,
}

/// Resolves when the engine has ended: `Ok` after [`EngineHandle::shutdown`] or when the node has dropped its channels, an error
/// when the engine failed. Clones see the same.
#[derive(Clone, Debug)]
pub struct Stopped(watch::Receiver<Option<Result<(), Arc<EngineError>>>>);

impl Stopped {
    /// Waits for the end.
    pub async fn wait(&mut self) -> Result<(), Arc<EngineError>> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(Arc::new(EngineError::Failed("its thread has vanished".into()))),
        }
    }
}

/// An engine on a runtime and over channels of the caller's, such as a simulation's: see [`embedded`].
pub struct Embedded<F> {
    /// What has happened, in order, as in [`Engine::events`].
    pub events: mpsc::Receiver<EngineEvent>,
    /// The transactions channel.
    pub gossip: GossipHandle,
    /// What the engine is doing, refreshed twice a second.
    pub status: watch::Receiver<EngineStatus>,
    /// Dropping it stops the engine.
    pub stop: oneshot::Sender<()>,
    /// Runs the engine to its end; to be spawned on the runtime.
    pub run: F,
}

/// The engine without threads, folder and sockets of its own: the same parts, put together in the same way, on `context` and
/// `network`. Of `config`, what concerns the folder and the sockets is not looked at; its storage is that of `context`.
pub fn embedded<E, S, R, P>(
    context: E,
    config: EngineConfig,
    builder: impl BlockBuilder,
    network: Network<S, R, P>,
) -> Embedded<impl Future<Output = Result<(), EngineError>> + Send>
where
    E: Runtime,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    P: Roster,
{
    let (events, events_out) = mpsc::channel(EVENTS);
    let (gossip, relay) = gossip::channel(GOSSIP_BYTES_MAX);
    let (status, status_out) = watch::channel(EngineStatus::default());
    let (stop, stop_in) = oneshot::channel();
    let ports = Ports { events, gossip: relay, status, stop: stop_in };
    let run = async move {
        config.check()?;
        wiring::assemble(&context, config, builder, ports, network).await?.run(context).await
    };
    Embedded { events: events_out, gossip, status: status_out, stop, run }
}

type Encode = dyn Fn() -> String + Send + Sync;

/// Reads the engine's metrics.
#[derive(Clone)]
pub struct MetricsReader(Weak<Encode>);

impl MetricsReader {
    /// All metrics of consensus, network and storage in Prometheus' text format; empty once the engine has ended.
    pub fn encode(&self) -> String {
        self.0.upgrade().map(|encode| encode()).unwrap_or_default()
    }
}

/// A running engine, to be taken apart: each field usually goes to a task of its own.
pub struct Engine {
    /// What has happened, in order. Must be read: delivery waits when it is full (votes do not).
    pub events: mpsc::Receiver<EngineEvent>,
    /// The transactions channel.
    pub gossip: GossipHandle,
    /// Status, metrics and the way to stop.
    pub handle: EngineHandle,
}

/// Keeps the engine running: dropping it stops the engine without waiting for the end.
pub struct EngineHandle {
    /// What the engine is doing, refreshed twice a second.
    pub status: watch::Receiver<EngineStatus>,
    /// The engine's metrics.
    pub metrics: MetricsReader,
    /// The engine's end. Whoever runs the node should watch it: without the engine the node is blind.
    pub stopped: Stopped,
    stop: oneshot::Sender<()>,
}

impl EngineHandle {
    /// Stops and waits until every thread has ended and the folder is free. Blocks that were not acknowledged come again
    /// after the next start.
    pub async fn shutdown(mut self) -> Result<(), Arc<EngineError>> {
        let _ = self.stop.send(());
        self.stopped.wait().await
    }
}

/// Starts an engine on threads of its own and returns when it is connected to its disk and listening. May be awaited on
/// any runtime.
pub async fn start(config: EngineConfig, builder: impl BlockBuilder) -> Result<Engine, EngineError> {
    config.check()?;
    let (events, events_out) = mpsc::channel(EVENTS);
    let (gossip, relay) = gossip::channel(GOSSIP_BYTES_MAX);
    let (status, status_out) = watch::channel(EngineStatus::default());
    let (stop, stop_in) = oneshot::channel();
    let (ready, is_ready) = oneshot::channel();
    let (ended, stopped) = watch::channel(None);
    let ports = Ports { events, gossip: relay, status, stop: stop_in };
    let spawned = thread::Builder::new().name("consensus".into()).stack_size(STACK_BYTES).spawn(move || {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run(config, builder, ports, ready)))
            .unwrap_or_else(|panic| Err(EngineError::Failed(panic_message(panic.as_ref()))));
        ended.send_replace(Some(outcome.map_err(Arc::new)));
    });
    spawned.map_err(|e| EngineError::Failed(format!("cannot start its thread: {e}")))?;
    let mut stopped = Stopped(stopped);
    let metrics = match is_ready.await {
        Ok(Ok(metrics)) => metrics,
        Ok(Err(error)) => {
            // Only then is the folder free for another attempt.
            let _ = stopped.wait().await;
            return Err(error);
        }
        // The thread has ended before it was ready, and left the reason.
        Err(_) => {
            let reason = stopped.wait().await.err().map_or_else(|| "ended early".into(), |e| e.to_string());
            return Err(EngineError::Failed(reason));
        }
    };
    let handle = EngineHandle { status: status_out, metrics, stopped, stop };
    Ok(Engine { events: events_out, gossip, handle })
}

pub(crate) type Ready = oneshot::Sender<Result<MetricsReader, EngineError>>;

fn run(config: EngineConfig, builder: impl BlockBuilder, ports: Ports, ready: Ready) -> Result<(), EngineError> {
    let folder = match Folder::open(&config) {
        Ok(folder) => folder,
        Err(error) => {
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let runtime = Config::new()
        .with_storage_directory(&folder.storage)
        .with_worker_threads(config.worker_threads.get())
        .with_max_blocking_threads(BLOCKING_THREADS)
        // A peer that takes nothing for so long is cut off, and what was queued for it is freed.
        .with_read_write_timeout(Duration::from_secs(20))
        .with_thread_stack_size(STACK_BYTES);
    commonware_runtime::tokio::Runner::new(runtime).start(|context| async move {
        let registry = context.child("metrics");
        let encode: Arc<Encode> = Arc::new(move || registry.encode());
        let reader = MetricsReader(Arc::downgrade(&encode));
        let network = Network::start(context.child("p2p"), wiring::network_config(&config));
        let outcome = wiring::run(context, config, builder, ports, network, ready, reader).await;
        drop(encode);
        outcome
    })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".into())
}
