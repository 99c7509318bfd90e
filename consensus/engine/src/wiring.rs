//! Puts the library's parts together and runs them until one ends.

use crate::{
    EPOCH, EngineConfig, EngineError, Runtime, Scheme,
    application::Chain,
    archive::{self, KEY_BUFFER, PREFIX, REPLAY_BUFFER, VALUE_BUFFER},
    block::{BlockLimits, HubBlock},
    delivery::{self, Courier, Ended, PENDING},
    exchange::{self, Exchange},
    gossip,
    guarded::MustStop,
    observer::Observer,
    runtime::{EngineStatus, MetricsReader, Ready},
};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_consensus::{
    marshal::{
        self, Start,
        core::{Actor, Processed},
        resolver::p2p as backfill,
        standard::{Inline, Standard},
    },
    simplex::{
        self, ForwardPolicy, SkipPolicy,
        config::{Floor, SkipBudget},
        elector::RoundRobin,
    },
    types::{Epoch, FixedEpocher, ViewDelta},
};
use commonware_cryptography::{
    Digestible as _, Sha256,
    bls12381::primitives::{group, variant::Variant},
    certificate::ConstantProvider,
    ed25519::PublicKey,
};
use commonware_p2p::{Receiver, Sender};
use commonware_parallel::Sequential;
use commonware_runtime::{Handle, buffer::paged::CacheRef};
use commonware_utils::{NZDuration, NZU16, NZU64, NZUsize, ordered::BiMap, sync::Mutex};
use std::{num::NonZeroUsize, sync::Arc, time::Duration};
use switchyard_consensus_core::{BlockBuilder, EngineEvent, SeatSet, keys::KeyError, namespace};
use switchyard_consensus_network::{self as network, Connected, Network, Roster, identity, public_key};
use switchyard_primitives::Block;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

/// Messages that wait for one of the library's actors before its overflow policy applies.
const MAILBOX: NonZeroUsize = NZUsize!(1024);
/// Views for which votes and undecided blocks are kept, for peers that are a little behind.
const VIEW_RETENTION: ViewDelta = ViewDelta::new(64);
/// How often status is refreshed.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// The node's side of the channels.
pub(crate) struct Ports {
    pub(crate) events: mpsc::Sender<EngineEvent>,
    pub(crate) gossip: gossip::Relay,
    pub(crate) status: watch::Sender<EngineStatus>,
    pub(crate) stop: oneshot::Receiver<()>,
}

fn scheme(config: &EngineConfig) -> Result<Scheme, EngineError> {
    let secret = group::Private::decode(Copying(&config.bls_secret)).map_err(|_| KeyError::Secret)?;
    let participants = participants(&config.seats)?;
    let identity = identity(&config.identity_secret);
    Scheme::signer(&namespace(config.network_id), participants, secret, config.guard.clone())
        .ok_or(EngineError::OtherBlsKey { identity })
}

type BlsPublic = <commonware_cryptography::bls12381::primitives::variant::MinPk as Variant>::Public;

fn participants(seats: &SeatSet) -> Result<BiMap<PublicKey, BlsPublic>, EngineError> {
    let mut keys = Vec::with_capacity(seats.seats().len());
    for seat in seats.seats() {
        let bls = BlsPublic::decode(Copying(seat.bls.as_slice())).map_err(|_| KeyError::Secret)?;
        keys.push((public_key(seat.identity).map_err(network::NetworkError::from)?, bls));
    }
    // Both kinds of key are unique in a seat set.
    BiMap::try_from(keys).map_err(|e| EngineError::Failed(format!("seats: {e}")))
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

pub(crate) struct Parts<S, R> {
    tasks: Vec<(&'static str, Handle<()>)>,
    courier: Courier,
    processed: u64,
    gossip: (gossip::Relay, (S, R)),
    status: StatusKeeper,
    /// Why this validator must not go on.
    must_stop: watch::Receiver<Option<MustStop>>,
    stop: oneshot::Receiver<()>,
}

/// The network's configuration as an engine's says it.
pub(crate) fn network_config(config: &EngineConfig) -> network::Config {
    let validators = u32::try_from(config.seats.seats().len()).unwrap_or(u32::MAX);
    let limits = BlockLimits(config.limits);
    network::Config {
        transport: config.transport,
        identity_secret: config.identity_secret,
        listen: config.listen,
        peers: config.peers.clone(),
        namespace: namespace(config.network_id),
        message_bytes_max: marshal::max_payload_size::<Standard<HubBlock>, Scheme>(validators, &limits)
            .max(config.limits.block_bytes() + exchange::ENVELOPE_BYTES)
            .max(crate::runtime::GOSSIP_BYTES_MAX),
    }
}

pub(crate) async fn assemble<E, B, S, R, P>(
    context: &E,
    config: EngineConfig,
    builder: B,
    ports: Ports,
    network: Network<S, R, P>,
) -> Result<Parts<S, R>, EngineError>
where
    E: Runtime,
    B: BlockBuilder,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    P: Roster,
{
    let scheme = scheme(&config)?;
    let me = public_key(identity(&config.identity_secret)).map_err(network::NetworkError::from)?;
    let must_stop = scheme.stop();
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
    let epocher = FixedEpocher::new(NZU64!(u64::MAX));
    let (actor, mailbox, floor) = Actor::init(
        context.child("marshal"),
        certificates,
        blocks,
        marshal::Config {
            provider: ConstantProvider::<_, Epoch>::new(scheme.clone()),
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
    let actor = actor.start(inbox, exchange, resolver);

    let chain = Chain { builder, limits: config.limits };
    let inline = Inline::new(context.child("chain"), chain, mailbox.clone(), epocher);
    let (view, view_out) = watch::channel(0);
    let (faults, faults_out) = mpsc::channel(64);
    let observer = Observer {
        inner: inline.clone(),
        scheme: scheme.clone(),
        rng: Arc::new(Mutex::new(context.child("observer"))),
        view,
        faults,
    };
    let simplex = simplex::Engine::new(
        context.child("simplex"),
        simplex::Config {
            scheme,
            elector: RoundRobin::<Sha256>::default(),
            blocker: network.peers.clone(),
            automaton: inline.clone(),
            relay: inline,
            reporter: observer,
            track_historical_votes: false,
            strategy: Sequential,
            partition: format!("simplex-{EPOCH}"),
            mailbox_size: MAILBOX,
            epoch: Epoch::new(EPOCH),
            floor: Floor::Genesis(genesis.digest()),
            replay_buffer: REPLAY_BUFFER,
            write_buffer: KEY_BUFFER,
            page_cache,
            leader_timeout: config.leader_timeout,
            certification_timeout: config.certification_timeout,
            timeout_retry: config.leader_timeout,
            view_retention: VIEW_RETENTION,
            skip: SkipPolicy::Enabled { timeout: config.skip_timeout, budget: SkipBudget::Participants },
            fetch_timeout: NZDuration!(Duration::from_secs(1)),
            fetch_retry_delay: Duration::from_millis(100),
            // A leader's connection either carries its block or breaks; who misses one asks for it.
            forward: ForwardPolicy::Disabled,
        },
    );
    let simplex = simplex.start(network.votes, network.certificates, network.resolver);
    let status =
        StatusKeeper { view: view_out, tip: mailroom.tip.clone(), connected: network.connected, status: ports.status };
    Ok(Parts {
        tasks: vec![("simplex", simplex), ("marshal", actor), ("blocks", blocks_task), ("network", network.task)],
        courier: Courier::new(
            mailroom,
            faults_out,
            ports.events,
            mailbox,
            config.acknowledged_height,
            config.history.is_some().then_some(config.archive_blocks),
        ),
        processed,
        gossip: (ports.gossip, network.transactions),
        status,
        must_stop,
        stop: ports.stop,
    })
}

impl<S: Sender<PublicKey = PublicKey>, R: Receiver<PublicKey = PublicKey>> Parts<S, R> {
    pub(crate) async fn run(self, context: impl Runtime) -> Result<(), EngineError> {
        let Self { tasks, courier, processed, gossip: (relay, transactions), status, mut must_stop, stop } = self;
        let courier = context.child("courier").spawn(move |_| courier.run(processed));
        let _gossip = context.child("gossip").spawn(move |_| relay.run(transactions));
        let _status = context.child("status").spawn(move |context| status.run(context));
        let tasks = tasks.into_iter().map(|(name, task)| Box::pin(async move { (name, task.await.err()) }));
        tokio::select! {
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
            ended = courier => match ended {
                Ok(Ended::NodeGone) => Ok(()),
                Ok(Ended::Missing { height }) => Err(EngineError::MissingBlock { height }),
                Ok(Ended::LibraryGone) => Err(EngineError::Failed("marshal has ended".into())),
                Err(e) => Err(EngineError::Failed(format!("courier: {e}"))),
            },
            ((name, error), _, _) = futures::future::select_all(tasks) => {
                Err(EngineError::Failed(error.map_or_else(|| name.into(), |e| format!("{name}: {e}"))))
            }
        }
    }
}

/// Keeps [`EngineStatus`] fresh.
struct StatusKeeper {
    view: watch::Receiver<u64>,
    tip: watch::Receiver<delivery::Tip>,
    connected: Connected,
    status: watch::Sender<EngineStatus>,
}

impl StatusKeeper {
    async fn run(mut self, context: impl Runtime) {
        loop {
            let view = *self.view.borrow();
            let height = self.tip.borrow().height;
            let connected = self.connected.count();
            self.status.send_if_modified(|status| {
                let new = EngineStatus {
                    view,
                    finalized_height: height,
                    peers_connected: connected.unwrap_or(status.peers_connected),
                };
                let changed = *status != new;
                *status = new;
                changed
            });
            context.sleep(STATUS_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::Encode as _;
    use commonware_cryptography::bls12381::primitives::{ops::compute_public, variant::MinPk};
    use proptest::prelude::*;
    use switchyard_consensus_core::keys::bls_public_key;

    fn same_key(secret: [u8; 32]) {
        let library = group::Private::decode(Copying(&secret)).ok().map(|k| compute_public::<MinPk>(&k).encode());
        let ours = bls_public_key(&secret).ok();
        assert_eq!(library.as_deref(), ours.as_ref().map(|k| k.as_slice()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_secret_is_the_same_key_here_and_in_the_library(secret in any::<[u8; 32]>()) {
            same_key(secret);
        }
    }

    #[test]
    fn secrets_at_the_ends_of_the_range_are_the_same_key_here_and_in_the_library() {
        let order = "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";
        let mut secret: switchyard_primitives::B256 = order.parse().unwrap();
        same_key(secret.0);
        secret.0[31] -= 1;
        assert!(bls_public_key(&secret.0).is_ok());
        same_key(secret.0);
        same_key([0; 32]);
    }
}
