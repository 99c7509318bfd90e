//! Puts the library's parts together and runs them until one ends.

use crate::{
    EngineConfig, EngineError, Runtime, Scheme,
    application::Chain,
    archive::{self, KEY_BUFFER, PREFIX, REPLAY_BUFFER, VALUE_BUFFER},
    block::{BlockLimits, HubBlock},
    committee::Schemes,
    delivery::{self, Courier, Ended, PENDING},
    epochs::{Epochs, MAILBOX, Muxed, Part, VIEW_RETENTION},
    exchange::{self, Exchange},
    gossip,
    guarded::MustStop,
    listening::{Listening, Plan},
    runtime::{EngineStatus, MetricsReader, Ready},
};
use commonware_consensus::{
    marshal::{
        self, Start,
        core::{Actor, Processed},
        resolver::p2p as backfill,
        standard::{Inline, Standard},
    },
    types::FixedEpocher,
};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Receiver, Sender};
use commonware_parallel::Sequential;
use commonware_runtime::{Handle, buffer::paged::CacheRef};
use commonware_utils::{NZDuration, NZU16, NZU64, NZUsize};
use std::{sync::atomic::Ordering, time::Duration};
use switchyard_consensus_core::{BlockBuilder, EngineEvent, allot, namespace};
use switchyard_consensus_guard::Family;
use switchyard_consensus_network::{self as network, Connected, Gossip, Network, Roster, identity, public_key};
use switchyard_primitives::Block;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

/// How often status is refreshed.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// The node's side of the channels.
pub(crate) struct Ports {
    pub(crate) events: mpsc::Sender<EngineEvent>,
    pub(crate) gossip: gossip::Relay,
    pub(crate) status: watch::Sender<EngineStatus>,
    pub(crate) stop: oneshot::Receiver<()>,
}

/// Runs the engine; returns when it was told to stop, or why it could not go on. `ready` is resolved once it runs.
pub(crate) async fn run<E, B, S, R, P>(
    context: E,
    config: EngineConfig,
    builder: B,
    ports: Ports,
    network: Result<Network<S, R, P>, network::NetworkError>,
    ready: Ready,
    metrics: MetricsReader,
) -> Result<(), EngineError>
where
    E: Runtime,
    B: BlockBuilder,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    P: Roster,
{
    let assembled = match network {
        Ok(network) => assemble(&context, config, builder, ports, network).await,
        Err(error) => Err(error.into()),
    };
    let engine = match assembled {
        Ok(engine) => engine,
        Err(error) => {
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let _ = ready.send(Ok(metrics));
    engine.run(context).await
}

pub(crate) struct Parts<E: Runtime, B: BlockBuilder, S: Sender<PublicKey = PublicKey>, R, P> {
    tasks: Vec<(&'static str, Handle<()>)>,
    epochs: Epochs<E, B, S, P>,
    courier: Courier,
    processed: u64,
    gossip: (gossip::Relay, (S, R), Option<Gossip>),
    status: StatusKeeper,
    /// Why this validator must not go on.
    must_stop: watch::Receiver<Option<MustStop>>,
    stop: oneshot::Receiver<()>,
}

/// The network's configuration as an engine's says it.
pub(crate) fn network_config(config: &EngineConfig) -> network::Config {
    // The same on all peers, whatever the committee of the day.
    let validators = allot::SEATS_MAX;
    let limits = BlockLimits(config.limits);
    network::Config {
        transport: config.transport,
        identity_secret: config.identity_secret,
        listen: config.listen,
        peers: config.peers.clone(),
        namespace: namespace(config.network_id),
        message_bytes_max: marshal::max_payload_size::<Standard<HubBlock>, Scheme>(validators, &limits)
            .max(config.limits.block_bytes() + exchange::ENVELOPE_BYTES)
            .max(network::GOSSIP_BYTES_MAX),
    }
}

/// Begins to listen for another process with the key; at once over where that is not asked for, or nobody is to be heard.
fn listen(context: &impl Runtime, config: &EngineConfig, ports: &Ports) -> Listening {
    let epoch = config.epochs.epoch_of(config.acknowledged_height.saturating_add(1));
    let me = identity(&config.identity_secret);
    // Where the log does not tell the committee yet, this validator has no seat in it that it knows of.
    let committee = config.committees.committee(epoch).filter(|_| config.doppelganger_check);
    let Some(plan) = committee.and_then(|c| Plan::new(&c, &me, config.certification_timeout)) else {
        return Listening::default();
    };
    let listening = Listening::since(config.signer.record().newest(Family::Consensus, 0));
    let (silence, status) = (listening.clone(), ports.status.subscribe());
    // Ends by itself, or with the runtime.
    context.child("listening").spawn(move |context| silence.run(context, plan, status));
    listening
}

pub(crate) async fn assemble<E, B, S, R, P>(
    context: &E,
    config: EngineConfig,
    builder: B,
    ports: Ports,
    network: Network<S, R, P>,
) -> Result<Parts<E, B, S, R, P>, EngineError>
where
    E: Runtime,
    B: BlockBuilder,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    P: Roster,
{
    let listening = listen(context, &config, &ports);
    let schemes = Schemes::new(&config, listening.clone());
    let me = public_key(schemes.me()).map_err(network::NetworkError::from)?;
    let must_stop = schemes.stop();
    let limits = BlockLimits(config.limits);
    let exchange = exchange::Config {
        me: me.clone(),
        builder: builder.clone(),
        limits: config.limits,
        compact_from_bytes: config.compact_from_bytes,
        validators: network.peers.clone(),
    };
    let (exchange, blocks_task) = Exchange::start(&context.child("blocks"), exchange, network.blocks);
    let resolver = backfill::init(
        context.child("backfill"),
        backfill::Config {
            public_key: me,
            peer_provider: network.peers.clone(),
            blocker: network.peers.clone(),
            mailbox_size: MAILBOX,
            fetch_timeout: NZDuration!(Duration::from_secs(2)),
            fetch_retry_delay: Duration::from_millis(100),
            priority_requests: false,
            priority_responses: false,
        },
        network.backfill,
    );

    // Pages of 4 KiB with their checksum; 4 MiB in all, since only keys are cached.
    let page_cache = CacheRef::new(NZU16!(4084), NZUsize!(1024));
    let (certificates, blocks) =
        archive::open_both(&context.child("archive"), &page_cache, limits, config.history.clone()).await?;
    let genesis = HubBlock::sealed(Block::genesis(config.genesis));
    let rules = config.epochs;
    let epocher = FixedEpocher::new(rules.blocks);
    let (actor, mailbox, floor) = Actor::init(
        context.child("marshal"),
        certificates,
        blocks,
        marshal::Config {
            provider: schemes.clone(),
            epocher: epocher.clone(),
            start: Start::Genesis(genesis.clone()),
            partition_prefix: PREFIX.to_string(),
            mailbox_size: MAILBOX,
            view_retention: VIEW_RETENTION,
            prunable_items_per_section: NZU64!(64),
            page_cache: page_cache.clone(),
            replay_buffer: REPLAY_BUFFER,
            key_write_buffer: KEY_BUFFER,
            value_write_buffer: VALUE_BUFFER,
            block_codec_config: limits,
            max_repair: NZUsize!(32),
            max_pending_acks: PENDING,
            strategy: Sequential,
        },
    )
    .await;
    let processed = floor.processed().map_or(0, |p: Processed| p.height().get());
    info!(processed, node = config.acknowledged_height, "consensus archive open");
    let (inbox, mailroom) = delivery::inbox();
    let tip = mailroom.tip.clone();
    let actor = actor.start(inbox, exchange, resolver);
    let history = config.history.clone();
    if let Some(floor) = archive::floor(&context.child("floor"), history, config.acknowledged_height, processed).await {
        info!(view = floor.proposal.round.view().get(), "the archive goes on from the node's log");
        mailbox.set_floor(floor);
    }

    let chain = Chain { builder, limits: config.limits, epochs: rules };
    let chain = Inline::new(context.child("chain"), chain, mailbox.clone(), epocher);
    let (view, view_out) = watch::channel((0, 0));
    let (part, part_out) = watch::channel(Part::default());
    let (faults, faults_out) = mpsc::channel(64);
    let (channels, cuts) = Muxed::start(&context.child("cut"), network.votes, network.certificates, network.resolver);
    let (courier, acknowledged) = Courier::new(
        mailroom,
        faults_out,
        ports.events,
        mailbox.clone(),
        config.acknowledged_height,
        config.history.is_some().then_some(config.archive_blocks),
    );
    let status = StatusKeeper {
        view: view_out,
        part: part_out,
        tip: tip.clone(),
        connected: network.connected,
        listening,
        status: ports.status,
    };
    let epochs = Epochs {
        genesis: config.genesis.hash(),
        config,
        rules,
        schemes,
        marshal: mailbox,
        chain,
        peers: network.peers,
        channels,
        page_cache,
        acknowledged,
        tip,
        view,
        part,
        faults,
    };
    let mut tasks = vec![("marshal", actor), ("blocks", blocks_task), ("network", network.task)];
    tasks.extend(cuts.into_iter().map(|cut| ("channels", cut)));
    Ok(Parts {
        tasks,
        epochs,
        courier,
        processed,
        gossip: (ports.gossip, network.transactions, network.gossip),
        status,
        must_stop,
        stop: ports.stop,
    })
}

impl<E, B, S, R, P> Parts<E, B, S, R, P>
where
    E: Runtime,
    B: BlockBuilder,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    P: Roster,
{
    pub(crate) async fn run(self, context: E) -> Result<(), EngineError> {
        let Self { tasks, epochs, courier, processed, gossip, status, mut must_stop, stop } = self;
        let (relay, transactions, gossip) = gossip;
        let node_gone = courier.node_gone();
        let courier = context.child("courier").spawn(move |_| courier.run(processed));
        let epochs = context.child("epochs").spawn(move |context| epochs.run(context, processed));
        let _gossip = context.child("gossip").spawn(move |_| relay.run(transactions, gossip));
        let _status = context.child("status").spawn(move |context| status.run(context));
        let tasks = tasks.into_iter().map(|(name, task)| Box::pin(async move { (name, task.await.err()) }));
        let outcome = tokio::select! {
            // A fixed order: the simulation repeats a run exactly.
            biased;
            // The sender's end goes with the node's handle.
            _ = stop => {
                info!("consensus stops");
                let _ = context.child("stop").stop(0, Some(Duration::from_secs(5))).await;
                Ok(())
            }
            Ok(reason) = async { must_stop.wait_for(Option::is_some).await.map(|reason| reason.clone()) } => {
                Err(reason.map_or_else(|| EngineError::Failed("the sign guard".into()), EngineError::from))
            }
            ended = epochs => {
                Err(ended.unwrap_or_else(|e| EngineError::Failed(format!("epochs: {e}"))))
            }
            ended = courier => match ended {
                Ok(Ended::NodeGone) => Ok(()),
                Ok(Ended::Missing { height }) => Err(EngineError::MissingBlock { height }),
                Ok(Ended::LibraryGone) => Err(EngineError::Failed("marshal has ended".into())),
                Err(e) => Err(EngineError::Failed(format!("courier: {e}"))),
            },
            ((name, error), _, _) = futures::future::select_all(tasks) => {
                Err(EngineError::Failed(error.map_or_else(|| name.into(), |e| format!("{name}: {e}"))))
            }
        };
        // Whatever failed after the node had gone failed for that.
        if node_gone.load(Ordering::Acquire) { Ok(()) } else { outcome }
    }
}

/// Keeps [`EngineStatus`] fresh.
struct StatusKeeper {
    view: watch::Receiver<(u64, u64)>,
    part: watch::Receiver<Part>,
    tip: watch::Receiver<delivery::Tip>,
    connected: Connected,
    listening: Listening,
    status: watch::Sender<EngineStatus>,
}

impl StatusKeeper {
    async fn run(mut self, context: impl Runtime) {
        loop {
            let (_, view) = *self.view.borrow();
            let Part { epoch, seats } = *self.part.borrow();
            let height = self.tip.borrow().height;
            let connected = self.connected.look();
            self.status.send_if_modified(|status| {
                let new = EngineStatus {
                    epoch,
                    seats,
                    view,
                    finalized_height: height,
                    peers_connected: connected.map_or(status.peers_connected, |now| now.open),
                    clocks_apart: connected.map_or(status.clocks_apart, |now| now.clocks_apart),
                    voting: !self.listening.is_silent(),
                };
                let changed = *status != new;
                *status = new;
                changed
            });
            context.sleep(STATUS_INTERVAL).await;
        }
    }
}
