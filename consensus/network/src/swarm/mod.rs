//! The network on libp2p: TCP with Noise and yamux, and QUIC; docs/specs/network.md is its specification.
//!
//! One task drives the swarm. Messages do not pass through it: senders put them into the queues of a connection
//! ([`roster::Outbound`]), a task of the connection writes them ([`link::write`]), and one task for each of the peer's streams
//! reads ([`link::read`]). What goes by gossip is in [`gossip`].

mod behaviour;
mod clock;
mod dialer;
mod gossip;
mod handler;
mod link;
mod metrics;
mod program;
mod roster;
#[cfg(test)]
mod tests;

use crate::{CHANNELS, Channel, Config, Network, NetworkError};
use behaviour::{Behaviour, Told};
use clock::{Apart, Clock};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::utils::limited::LimitedSender;
use commonware_runtime::{IoBuf, Spawner as _, Supervisor as _, signal::Signal, tokio::Context};
use dialer::Dialer;
use futures::StreamExt as _;
pub(crate) use gossip::screened;
use handler::{Opened, Protocols};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder,
    core::transport::TransportError,
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping,
    swarm::{ConnectionId, NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use link::End;
pub(crate) use link::frames;
use metrics::{Link, Metrics};
use roster::Shared;
pub(crate) use roster::{Outbound, Peers};
use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use switchyard_primitives::keccak256;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tracing::{debug, info, warn};

/// Version of the protocols: of the framing and of what the channels carry.
const VERSION: u32 = 1;
/// How long a peer that misbehaved stays out.
pub(crate) const BAN: Duration = Duration::from_mins(10);
/// How often peers are dialled that are due, and bans looked at that may be over.
const TICK: Duration = Duration::from_millis(50);
/// A peer is asked for a sign of life this often, and has as long to give it.
const PING: Duration = Duration::from_secs(5);
/// A connection's handshake takes no longer, or fails.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection stays when another one with the same peer has taken its place.
const RETIREMENT: Duration = Duration::from_secs(1);
/// How long connections may take to close at the end.
const FAREWELL: Duration = Duration::from_millis(300);
/// Streams of a connection, at any time: ours, the peer's, pings, and those being refused.
const STREAMS_MAX: u8 = 64;
/// Streams that a peer asks for at a time: those of the channels, clock, gossip, identify and ping, and as many again.
const NEGOTIATING_MAX: usize = 2 * (CHANNELS.len() + 4);
/// Tries to find a port that is free for both TCP and UDP where none is configured.
const PORTS: usize = 16;
/// The channel whose messages may also go by gossip.
const TRANSACTIONS: usize = 5;
/// Least time between two lines that tell of a peer's clock: a node whose own is wrong refuses everyone, again and again.
const CLOCK_LINES: Duration = Duration::from_secs(30);

/// What tests set otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// How long a ban lasts.
    pub(crate) ban: Duration,
    /// This node's clock.
    pub(crate) clock: Clock,
    /// How it gossips.
    pub(crate) gossip: gossip::Settings,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { ban: BAN, clock: clock::system, gossip: gossip::Settings::USUAL }
    }
}

/// Sends on one channel.
pub(crate) type Sender = LimitedSender<Context, Outbound, Peers>;

/// Receives from one channel.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) queue: mpsc::Receiver<(PublicKey, IoBuf)>,
    pub(crate) capacity: std::num::NonZeroUsize,
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviours {
    /// Refuses strangers, before the others hear of a connection.
    links: Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    gossip: gossip::Behaviour,
}

/// What the names of a network's protocols begin with. The network's part is half a hash of its namespace, which is enough
/// that nobody finds a network with the same.
fn prefix(namespace: &[u8]) -> String {
    let network: String = keccak256(namespace)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("/switchyard/{network}/{VERSION}")
}

/// The name of each stream's protocol. Nodes of another network, or of another version, agree on none.
fn protocols(prefix: &str, now_ms: Clock) -> Result<Protocols, NetworkError> {
    let name = |stream: &str| {
        StreamProtocol::try_from_owned(format!("{prefix}/{stream}")).map_err(|e| NetworkError::Libp2p(e.to_string()))
    };
    let channels = CHANNELS.iter().map(|channel| name(channel.name)).collect::<Result<_, _>>()?;
    Ok(Protocols { channels, clock: name("clock")?, now_ms })
}

fn tcp_address(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

fn quic_address(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Udp(address.port())).with(Protocol::QuicV1)
}

/// Starts the swarm and its task.
pub(crate) fn network(
    context: &Context,
    config: &Config,
    me: PublicKey,
    mut validators: Vec<(PublicKey, SocketAddr)>,
    tuning: Tuning,
) -> Result<Network, NetworkError> {
    let limit = u32::MAX;
    if u32::try_from(config.message_bytes_max).is_err() {
        return Err(NetworkError::MessageBytes { bytes: config.message_bytes_max, limit });
    }
    let mut secret = config.identity_secret;
    let keypair = Keypair::ed25519_from_bytes(&mut secret).map_err(|e| NetworkError::Libp2p(e.to_string()))?;
    let my_id = keypair.public().to_peer_id();
    let context = context.child("libp2p");
    let metrics = Metrics::new(&context);
    let shared = Arc::new(Shared::new(my_id, tuning.ban, tuning.clock, config.message_bytes_max, metrics));
    let prefix = prefix(&config.namespace);
    let protocols = Arc::new(protocols(&prefix, tuning.clock)?);
    let direct = Outbound { channel: TRANSACTIONS, shared: shared.clone() };
    let topic = format!("{prefix}/{}", CHANNELS[TRANSACTIONS].name);
    let (gossip, gossiping) = gossip::Behaviour::new(keypair.clone(), topic, tuning.gossip, direct)?;
    let behaviours = Behaviours {
        links: Behaviour::new(shared.clone(), protocols),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING).with_timeout(PING)),
        identify: program::behaviour(keypair.public(), &prefix),
        gossip,
    };
    let mut swarm = swarm(keypair, behaviours)?;
    let address = listen(&mut swarm, config.listen)?;
    let peers = Peers(shared.clone());
    validators.push((me, address));
    peers.track(0, &validators, &[]);

    let mut deliver = Vec::with_capacity(CHANNELS.len());
    let mut channel = |index: usize| -> Channel {
        let kind = &CHANNELS[index];
        let outbound = Outbound { channel: index, shared: shared.clone() };
        let sender = LimitedSender::new(outbound, kind.quota, context.child(kind.name), peers.clone());
        let (delivery, queue) = mpsc::channel(kind.receive_queue.get());
        deliver.push(delivery);
        (crate::Sender::swarm(sender), crate::Receiver::swarm(Receiver { queue, capacity: kind.receive_queue }))
    };
    let [votes, certificates, resolver, blocks, backfill, transactions] =
        [channel(0), channel(1), channel(2), channel(3), channel(4), channel(5)];
    let driver = Driver {
        context: context.child("driver"),
        dialer: Dialer::new(config.transport, my_id),
        programs: HashMap::new(),
        clock_line: None,
        shared,
        swarm,
        me: my_id,
        bytes_max: config.message_bytes_max,
        deliver,
        links: HashMap::new(),
        newest: HashMap::new(),
        retiring: Vec::new(),
        readers: JoinSet::new(),
        writers: JoinSet::new(),
    };
    let task = context.child("swarm").spawn(move |context| driver.run(context.stopped()));
    let connected = crate::Connected::swarm(peers.clone());
    let peers = crate::Peers::swarm(peers);
    let gossip = Some(gossiping);
    Ok(Network {
        votes,
        certificates,
        resolver,
        blocks,
        backfill,
        transactions,
        gossip,
        peers,
        connected,
        address,
        task,
    })
}

fn swarm<B: NetworkBehaviour>(keypair: Keypair, behaviour: B) -> Result<Swarm<B>, NetworkError> {
    let error = |e: &dyn std::fmt::Display| NetworkError::Libp2p(e.to_string());
    let streams = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX.into());
        config
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, streams)
        .map_err(|e| error(&e))?
        .with_quic_config(|mut config| {
            config.handshake_timeout = HANDSHAKE;
            config.max_concurrent_stream_limit = STREAMS_MAX.into();
            config
        })
        .with_behaviour(|_| behaviour)
        .map_err(|e| error(&e))?
        .with_swarm_config(|config| config.with_max_negotiating_inbound_streams(NEGOTIATING_MAX))
        .with_connection_timeout(HANDSHAKE)
        .build();
    Ok(swarm)
}

/// Listens with TCP and, on the same port, QUIC; returns the address. Port 0 takes a free one.
fn listen(swarm: &mut Swarm<Behaviours>, address: SocketAddr) -> Result<SocketAddr, NetworkError> {
    let error = |address, source| NetworkError::Listen { address, source };
    let mut outcome = try_listen(swarm, address);
    for _ in 1..PORTS {
        if outcome.is_ok() || address.port() != 0 {
            break;
        }
        outcome = try_listen(swarm, address);
    }
    outcome.map_err(|source| error(address, source))
}

fn try_listen(swarm: &mut Swarm<Behaviours>, address: SocketAddr) -> io::Result<SocketAddr> {
    // libp2p shares the port with whoever else is willing to; a second node on one address is a mistake.
    let probe = TcpListener::bind(address)?;
    let address = probe.local_addr()?;
    drop(probe);
    let tcp = swarm.listen_on(tcp_address(address)).map_err(|e| bind_error("TCP", e))?;
    if let Err(error) = swarm.listen_on(quic_address(address)) {
        swarm.remove_listener(tcp);
        return Err(bind_error("UDP", error));
    }
    Ok(address)
}

fn bind_error(protocol: &str, error: TransportError<io::Error>) -> io::Error {
    let (kind, detail) = match error {
        TransportError::Other(e) => (e.kind(), e.to_string()),
        TransportError::MultiaddrNotSupported(address) => (io::ErrorKind::Unsupported, address.to_string()),
    };
    io::Error::new(kind, format!("{protocol}: {detail}"))
}

/// A connection, from the moment it is admitted.
struct Connection {
    peer: PeerId,
    key: PublicKey,
    /// Our streams, by channel, until all are open.
    streams: Vec<Option<libp2p::Stream>>,
    /// Whether its clock is near enough to this node's.
    in_time: bool,
    identified: bool,
    queues: Option<link::Queues>,
    /// Stopped with the connection: one that waits for the engine would hold on to its message, connection after connection.
    readers: Vec<AbortHandle>,
}

/// Drives the swarm.
struct Driver {
    context: Context,
    shared: Arc<Shared>,
    swarm: Swarm<Behaviours>,
    me: PeerId,
    bytes_max: usize,
    deliver: Vec<mpsc::Sender<(PublicKey, IoBuf)>>,
    dialer: Dialer,
    /// Which program each peer says it is, as far as that was logged.
    programs: HashMap<PeerId, String>,
    /// When a peer's clock was last told of.
    clock_line: Option<Instant>,
    links: HashMap<ConnectionId, Connection>,
    /// Connections of each peer, the newest last.
    newest: HashMap<PeerId, Vec<ConnectionId>>,
    /// Connections that are given up, and when they are closed: newer ones are in their place, or a clock is wrong.
    retiring: Vec<(ConnectionId, Instant)>,
    readers: JoinSet<(ConnectionId, End)>,
    writers: JoinSet<ConnectionId>,
}

impl Driver {
    async fn run(mut self, mut stopped: Signal) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                () = shared.changed.notified() => self.review(),
                _ = tick.tick() => {
                    shared.expire_bans();
                    self.close_retired();
                    self.dialer.dial_due(&mut self.swarm, &shared);
                }
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(Ok((connection, end))) = self.readers.join_next() => self.on_read_end(connection, end),
                Some(Ok(connection)) = self.writers.join_next() => {
                    self.swarm.close_connection(connection);
                }
            }
        }
        self.farewell().await;
    }

    /// Closes every connection, so that peers need not find out by themselves.
    async fn farewell(mut self) {
        let connections: Vec<ConnectionId> = self.links.keys().copied().collect();
        for connection in connections {
            self.swarm.close_connection(connection);
        }
        let _ = tokio::time::timeout(FAREWELL, async {
            while self.swarm.network_info().connection_counters().num_established() > 0 {
                self.swarm.select_next_some().await;
            }
        })
        .await;
    }

    /// Closes the connections of those that do not belong here any more.
    fn review(&mut self) {
        let unwanted: Vec<(ConnectionId, PeerId)> = self
            .links
            .iter()
            .filter(|(_, link)| self.shared.admits(&link.peer).is_err())
            .map(|(connection, link)| (*connection, link.peer))
            .collect();
        for (connection, peer) in unwanted {
            info!(%peer, "disconnected: banned, or no longer one of the peers");
            self.swarm.close_connection(connection);
        }
        self.dialer.review(&self.shared);
        self.programs.retain(|peer, _| self.shared.key(peer).is_some());
    }

    fn on_event(&mut self, event: SwarmEvent<BehavioursEvent>) {
        match event {
            SwarmEvent::Behaviour(BehavioursEvent::Links(told)) => self.on_stream(told),
            SwarmEvent::Behaviour(BehavioursEvent::Ping(ping::Event { peer, connection, result: Err(error) })) => {
                debug!(%peer, %error, "no sign of life");
                self.drop_link(connection, Link::Silent);
            }
            SwarmEvent::Behaviour(BehavioursEvent::Identify(identify::Event::Received {
                peer_id,
                connection_id,
                info,
            })) => self.on_identified(peer_id, connection_id, &info),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.on_established(connection_id, peer_id);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                self.on_closed(connection_id, cause.map(|c| c.to_string()));
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                debug!(%peer, %error, "dial failed");
                self.shared.metrics.link(Link::DialFailed);
                self.dialer.failed(&peer);
            }
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "listener"),
            SwarmEvent::ListenerClosed { reason: Err(error), addresses, .. } => {
                warn!(%error, ?addresses, "listener closed");
            }
            _ => {}
        }
    }

    fn on_established(&mut self, connection: ConnectionId, peer: PeerId) {
        // The roster may have changed since the connection was admitted.
        let Some(key) = self.shared.key(&peer) else {
            self.swarm.close_connection(connection);
            return;
        };
        let streams = CHANNELS.iter().map(|_| None).collect();
        let (queues, readers) = (None, Vec::new());
        let link = Connection { peer, key, streams, in_time: false, identified: false, queues, readers };
        self.links.insert(connection, link);
        self.newest.entry(peer).or_default().push(connection);
    }

    /// Gives up the connections to a peer that are older than one that is ready. Both have dialled, or the older one is dead and
    /// its end not noticed. One side decides, or they might each close the one that the other keeps. Each sends on the
    /// newest that it has; what it sent before is on the older one, which therefore stays for a moment.
    fn retire_older(&mut self, connection: ConnectionId, peer: PeerId) {
        if self.me.to_bytes() > peer.to_bytes() {
            return;
        }
        let all = self.newest.get(&peer).cloned().unwrap_or_default();
        for older in all.into_iter().take_while(|older| *older != connection) {
            self.retire(older, Link::Duplicate);
        }
    }

    /// Gives up a connection. It is counted now, not when it is closed: the peer, which may give it up too, may be the first to
    /// close it.
    fn retire(&mut self, connection: ConnectionId, why: Link) {
        if self.retiring.iter().all(|(retiring, _)| *retiring != connection) {
            self.shared.metrics.link(why);
            self.retiring.push((connection, Instant::now() + RETIREMENT));
        }
    }

    /// Closes what was given up a moment ago.
    fn close_retired(&mut self) {
        let now = Instant::now();
        for (connection, _) in self.retiring.extract_if(.., |(_, until)| *until <= now) {
            self.swarm.close_connection(connection);
        }
    }

    fn on_stream(&mut self, Told { peer, connection, opened }: Told) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        match opened {
            Opened::Outbound { channel, stream } => {
                link.streams[channel] = Some(stream);
                self.open(connection);
            }
            Opened::Clock(apart) => {
                link.in_time = !apart.too_far();
                self.shared.is_apart(peer, apart.too_far());
                match apart.too_far() {
                    false => self.open(connection),
                    true => self.refuse_clock(connection, peer, apart),
                }
            }
            Opened::Inbound { channel, stream } => {
                let context = self.context.child("reader");
                let reader = link::read(
                    context,
                    self.shared.clone(),
                    channel,
                    link.key.clone(),
                    stream,
                    self.bytes_max,
                    self.deliver[channel].clone(),
                );
                link.readers.push(self.readers.spawn(async move { (connection, reader.await) }));
            }
            Opened::Unknown => {
                info!(%peer, "disconnected: of another network or version");
                self.drop_link(connection, Link::OtherNetwork);
            }
            Opened::Failed => self.drop_link(connection, Link::Broken),
            Opened::Twice => {
                self.shared.ban(peer);
                self.drop_link(connection, Link::Broken);
            }
        }
    }

    /// Gives up a connection to a peer in another time. Which of the two is wrong is not known here, so it is no fault; and the
    /// peer, which must find out too, gets a moment to.
    fn refuse_clock(&mut self, connection: ConnectionId, peer: PeerId, apart: Apart) {
        let now = Instant::now();
        if self.clock_line.is_none_or(|last| now.duration_since(last) >= CLOCK_LINES) {
            self.clock_line = Some(now);
            warn!(
                %peer, %apart, refused = self.shared.apart(),
                "refused: the peer's clock and this machine's differ by more than 5 s; run chrony or systemd-timesyncd where \
                 it is wrong: here, if most peers are refused"
            );
        }
        self.retire(connection, Link::Clock);
    }

    /// Takes down what a peer says it is, once a connection, and believes none of it.
    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        let Some(link) = self.links.get_mut(&connection).filter(|link| !link.identified) else { return };
        link.identified = true;
        let (program, observed) = (program::shown(&info.agent_version), program::observed(&info.observed_addr));
        debug!(%peer, program, observed, "identified");
        if self.programs.get(&peer).is_none_or(|known| *known != program) {
            info!(%peer, program, "a peer's program");
            self.programs.insert(peer, program);
        }
    }

    /// When all streams are there and the clock is right, messages may be sent.
    fn open(&mut self, connection: ConnectionId) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if !link.in_time || link.queues.is_some() || !link.streams.iter().all(Option::is_some) {
            return;
        }
        let (queues, receivers) = link::queues();
        link.queues = Some(queues);
        let streams = std::mem::take(&mut link.streams).into_iter().flatten().collect();
        let writer = link::write(self.shared.clone(), receivers, streams);
        self.writers.spawn(async move {
            writer.await;
            connection
        });
        let peer = link.peer;
        self.shared.metrics.link(Link::Ready);
        self.dialer.connected(&peer);
        debug!(%peer, ?connection, "connected");
        self.publish(peer);
        self.retire_older(connection, peer);
    }

    /// Sends to a peer on its newest connection that is ready.
    fn publish(&mut self, peer: PeerId) {
        let of_peer = self.newest.get(&peer).into_iter().flatten().rev();
        let mut ready = of_peer.filter_map(|c| self.links.get(c)).filter_map(|l| Some((&l.key, l.queues.clone()?)));
        match ready.next() {
            Some((key, queues)) => self.shared.link(key, Some(queues)),
            None => {
                // A peer that left the roster too: its key is still that of the id.
                if let Some(key) = roster::key_of(&peer) {
                    self.shared.link(&key, None);
                }
            }
        }
    }

    fn drop_link(&mut self, connection: ConnectionId, why: Link) {
        self.shared.metrics.link(why);
        self.swarm.close_connection(connection);
    }

    fn on_read_end(&mut self, connection: ConnectionId, end: End) {
        if let (End::Oversized, Some(link)) = (end, self.links.get(&connection)) {
            warn!(peer = %link.peer, "banned: announced a message above the limit");
            self.shared.ban(link.peer);
        }
        // A channel without its stream would stay silent; a new connection has all of them.
        self.swarm.close_connection(connection);
    }

    fn on_closed(&mut self, connection: ConnectionId, cause: Option<String>) {
        let Some(link) = self.links.remove(&connection) else { return };
        debug!(peer = %link.peer, ?connection, ?cause, "connection closed");
        link.readers.iter().for_each(AbortHandle::abort);
        if link.queues.is_some() {
            self.shared.metrics.link(Link::Ended);
        }
        if let Some(of_peer) = self.newest.get_mut(&link.peer) {
            of_peer.retain(|c| *c != connection);
            if of_peer.is_empty() {
                self.newest.remove(&link.peer);
                self.dialer.lost(&link.peer, link.queues.is_some());
            }
        }
        self.publish(link.peer);
    }
}

#[cfg(test)]
fn shared_for_tests(context: &Context) -> Arc<Shared> {
    let me = PeerId::random();
    Arc::new(Shared::new(me, BAN, clock::system, usize::MAX, Metrics::new(context)))
}
