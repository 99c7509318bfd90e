//! Nodes over loopback sockets.

use super::{
    Tuning,
    behaviour::Behaviour,
    clock,
    link::{self, End, read_frame},
    network,
    roster::{Outbound, Peers, key_of, peer_id},
};
use crate::{CHANNELS, Config, Network, Roster as _, Transport, identity, public_key};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Blocker as _, Receiver as _, Recipients, Sender as _, UnlimitedSender as _};
use commonware_runtime::{IoBuf, Metrics as _, Runner as _, Supervisor as _, tokio::Context};
use futures::{AsyncWrite, FutureExt as _, StreamExt as _, io::Cursor};
use libp2p::{
    StreamProtocol, Swarm, identify,
    identity::Keypair,
    ping,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task,
    time::Duration,
};
use switchyard_primitives::{B256, keccak256};
use tokio::sync::mpsc;

pub(super) const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const BYTES_MAX: usize = 1 << 20;
/// Longer than any test should take on a busy machine; only so that a defect fails and does not hang.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

pub(super) fn run<F: Future<Output = ()>>(test: impl FnOnce(Context) -> F) {
    let config = commonware_runtime::tokio::Config::new().with_worker_threads(2);
    commonware_runtime::tokio::Runner::new(config).start(test);
}

pub(super) fn secret(name: &str) -> [u8; 32] {
    keccak256(name).0
}

fn id(name: &str) -> B256 {
    identity(&secret(name))
}

pub(super) fn key(name: &str) -> PublicKey {
    public_key(id(name)).unwrap()
}

/// A node's settings, changed by the tests that are about one of them.
pub(super) struct Node<'a> {
    pub(super) name: &'static str,
    pub(super) transport: Transport,
    pub(super) namespace: &'static str,
    pub(super) listen: SocketAddr,
    pub(super) peers: &'a [(&'static str, SocketAddr)],
    pub(super) message_bytes_max: usize,
    pub(super) tuning: Tuning,
}

impl<'a> Node<'a> {
    pub(super) fn new(name: &'static str, peers: &'a [(&'static str, SocketAddr)]) -> Self {
        let (transport, namespace, tuning) = (Transport::Libp2p, "a network", Tuning::default());
        Self { name, transport, namespace, listen: LOCALHOST, peers, message_bytes_max: BYTES_MAX, tuning }
    }

    pub(super) fn start(&self, context: &Context) -> Network {
        let config = Config {
            transport: self.transport,
            identity_secret: secret(self.name),
            listen: self.listen,
            peers: self.peers.iter().map(|(name, address)| (id(name), *address)).collect(),
            namespace: self.namespace.as_bytes().to_vec(),
            message_bytes_max: self.message_bytes_max,
        };
        let peers = self.peers.iter().map(|(name, address)| (key(name), *address)).collect();
        network(&context.child(self.name), &config, key(self.name), peers, self.tuning).unwrap()
    }
}

/// Makes `names` the peers of a node, known by their addresses.
pub(super) fn track(network: &Network, set: u64, names: &[(&str, SocketAddr)]) {
    let validators: Vec<_> = names.iter().map(|(name, address)| (id(name), *address)).collect();
    network.peers.clone().track(set, &validators, &[]).unwrap();
}

pub(super) async fn until(condition: impl FnMut() -> bool) {
    let mut condition = condition;
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(super) async fn until_connected(network: &mut Network, count: usize) {
    until(|| network.connected.count() == Some(count)).await;
}

/// The sum of the counters whose lines have these parts.
pub(super) fn counted(context: &Context, parts: &[&str]) -> u64 {
    let metrics = context.encode();
    let lines = metrics.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Two nodes that know each other, connected.
async fn pair(context: &Context, transport: Transport) -> (Network, Network) {
    let mut a = Node { transport, ..Node::new("alice", &[]) }.start(context);
    let known = [("alice", a.address)];
    let mut b = Node { transport, ..Node::new("bob", &known) }.start(context);
    track(&a, 1, &[("alice", a.address), ("bob", b.address)]);
    until_connected(&mut a, 1).await;
    until_connected(&mut b, 1).await;
    (a, b)
}

fn channels(network: Network) -> [crate::Channel; 6] {
    let Network { votes, certificates, resolver, blocks, backfill, transactions, .. } = network;
    [votes, certificates, resolver, blocks, backfill, transactions]
}

fn each_channel_arrives(transport: Transport) {
    run(|context| async move {
        let (a, b) = pair(&context, transport).await;
        let (a, b) = (channels(a), channels(b));
        for (index, ((mut sender, _), (_, mut receiver))) in a.into_iter().zip(b).enumerate() {
            for length in [0, 5, 100_000, BYTES_MAX] {
                let message = vec![u8::try_from(index).unwrap(); length];
                let reached = sender.send(Recipients::One(key("bob")), IoBuf::from(message.clone()), false);
                assert_eq!(reached, [key("bob")]);
                let (from, received) = within(receiver.recv()).await.unwrap();
                assert_eq!(from, key("alice"));
                assert_eq!(received, message.as_slice(), "{} of {length} bytes", CHANNELS[index].name);
            }
        }
    });
}

#[test]
fn messages_of_each_channel_arrive_with_their_senders_key_over_tcp() {
    each_channel_arrives(Transport::Libp2p);
}

#[test]
fn messages_of_each_channel_arrive_with_their_senders_key_over_quic() {
    each_channel_arrives(Transport::Libp2pQuic);
}

#[test]
fn a_message_for_all_reaches_everyone_and_its_order_is_kept() {
    run(|context| async move {
        let (mut a, mut b) = pair(&context, Transport::Libp2p).await;
        let known = [("alice", a.address), ("bob", b.address)];
        let mut c = Node::new("carol", &known).start(&context);
        let everyone = [("alice", a.address), ("bob", b.address), ("carol", c.address)];
        track(&a, 2, &everyone);
        track(&b, 2, &everyone);
        until_connected(&mut a, 2).await;
        for number in 0..100u8 {
            let mut reached = a.votes.0.send(Recipients::All, IoBuf::from(vec![number; 20]), true);
            reached.sort();
            let mut expected = vec![key("bob"), key("carol")];
            expected.sort();
            assert_eq!(reached, expected);
        }
        for receiver in [&mut b.votes.1, &mut c.votes.1] {
            for number in 0..100u8 {
                let (from, message) = within(receiver.recv()).await.unwrap();
                assert_eq!((from, message.as_ref()), (key("alice"), &[number; 20][..]));
            }
        }
    });
}

#[test]
fn a_stranger_is_refused_and_nothing_of_it_arrives() {
    run(|context| async move {
        let mut a = Node::new("alice", &[]).start(&context);
        let known = [("alice", a.address)];
        let mut stranger = Node::new("mallory", &known).start(&context);
        until(|| counted(&context, &["alice", "connections_total", "stranger"]) >= 2).await;
        assert_eq!(stranger.connected.count(), Some(0));
        assert_eq!(stranger.votes.0.send(Recipients::All, IoBuf::from(b"vote"), true), []);
        assert_eq!(stranger.votes.0.send(Recipients::One(key("alice")), IoBuf::from(b"vote"), true), []);
        assert_eq!(a.connected.count(), Some(0));
        assert!(a.votes.1.recv().now_or_never().is_none());
    });
}

#[test]
fn a_known_key_on_another_network_is_refused() {
    run(|context| async move {
        let mut a = Node::new("alice", &[]).start(&context);
        let known = [("alice", a.address)];
        let mut b = Node { namespace: "another network", ..Node::new("bob", &known) }.start(&context);
        track(&a, 1, &[("alice", a.address), ("bob", b.address)]);
        until(|| counted(&context, &["alice", "connections_total", "other_network"]) >= 1).await;
        until(|| counted(&context, &["bob", "connections_total", "other_network"]) >= 1).await;
        assert_eq!((a.connected.count(), b.connected.count()), (Some(0), Some(0)));
        assert_eq!(counted(&context, &["connections_total", "\"ready\""]), 0);
        assert_eq!(counted(&context, &["bans_total"]), 0);
        assert!(a.votes.1.recv().now_or_never().is_none());
    });
}

#[test]
fn an_oversized_message_bans_its_sender_for_a_time() {
    run(|context| async move {
        let tuning = Tuning { ban: Duration::from_secs(2), ..Tuning::default() };
        let mut a = Node { tuning, ..Node::new("alice", &[]) }.start(&context);
        let known = [("alice", a.address)];
        let mut b = Node { message_bytes_max: BYTES_MAX + 1, ..Node::new("bob", &known) }.start(&context);
        track(&a, 1, &[("alice", a.address), ("bob", b.address)]);
        let mut blocked = a.peers.blocked();
        until_connected(&mut b, 1).await;
        b.blocks.0.send(Recipients::All, IoBuf::from(vec![0; BYTES_MAX + 1]), false);
        until(|| counted(&context, &["alice", "bans_total"]) == 1).await;
        until(|| blocked.try_recv().is_ok_and(|set| set.position(&key("bob")).is_some())).await;
        until(|| counted(&context, &["alice", "connections_total", "banned"]) >= 1).await;
        assert_eq!(counted(&context, &["alice", "messages_total", "oversized"]), 1);
        assert_eq!(counted(&context, &["alice", "messages_total", "blocks", "received"]), 0);

        until(|| blocked.try_recv().is_ok_and(|set| set.is_empty())).await;
        until_connected(&mut a, 1).await;
        until_connected(&mut b, 1).await;
        b.blocks.0.send(Recipients::All, IoBuf::from(b"smaller"), false);
        assert_eq!(within(a.blocks.1.recv()).await.unwrap().1, b"smaller");
    });
}

/// A peer of alice's with streams of its choice.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Peer {
    links: Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

/// On its way to alice, with these channels.
fn peer_of(context: &Context, alice: &Network, channels: impl FnOnce(&mut Vec<StreamProtocol>)) -> Swarm<Peer> {
    track(alice, 1, &[("alice", alice.address), ("mallory", LOCALHOST)]);
    let shared = super::shared_for_tests(&context.child("mallory"));
    Peers(shared.clone()).track(0, &[(key("alice"), alice.address)], &[]);
    let mut protocols = super::protocols(&super::prefix(b"a network"), clock::system).unwrap();
    channels(&mut protocols.channels);
    let keypair = Keypair::ed25519_from_bytes(secret("mallory")).unwrap();
    let identify = identify::Behaviour::new(identify::Config::new("a tool".into(), keypair.public()));
    let links = Behaviour::new(shared, protocols.into());
    let mut peer = super::swarm(keypair, Peer { links, ping: ping::Behaviour::default(), identify }).unwrap();
    peer.dial(super::tcp_address(alice.address)).unwrap();
    peer
}

#[test]
fn a_peer_that_opens_a_channel_twice_is_banned() {
    run(|context| async move {
        let a = Node::new("alice", &[]).start(&context);
        let mallory = peer_of(&context, &a, |channels| channels.push(channels[0].clone()));
        // Its streams are kept, or their end would be that of the connection.
        let dishonest = mallory.collect::<Vec<_>>();
        let banned = until(|| counted(&context, &["alice", "bans_total"]) == 1);
        futures::future::select(std::pin::pin!(banned), std::pin::pin!(dishonest)).await;
        assert_eq!(counted(&context, &["alice", "bans_total"]), 1);
    });
}

fn ten_seconds_ahead() -> u64 {
    clock::system() + 10_000
}

fn four_seconds_ahead() -> u64 {
    clock::system() + 4_000
}

#[test]
fn a_peer_whose_clock_is_ten_seconds_off_is_refused_by_both() {
    run(|context| async move {
        let mut a = Node::new("alice", &[]).start(&context);
        let known = [("alice", a.address)];
        let tuning = Tuning { clock: ten_seconds_ahead, ..Tuning::default() };
        let mut b = Node { tuning, ..Node::new("bob", &known) }.start(&context);
        track(&a, 1, &[("alice", a.address), ("bob", b.address)]);
        for (name, network) in [("alice", &mut a), ("bob", &mut b)] {
            until(|| counted(&context, &[name, "connections_total", "\"clock\""]) >= 1).await;
            let apart = crate::Connections { open: 0, clocks_apart: 1 };
            assert_eq!(network.connected.look(), Some(apart));
        }
        assert_eq!(counted(&context, &["connections_total", "\"ready\""]), 0);
        assert_eq!(counted(&context, &["bans_total"]), 0);
        assert!(a.votes.1.recv().now_or_never().is_none());

        // Once its clock is right, it is let in.
        b.task.abort();
        let mut b = Node::new("bob", &known).start(&context.child("again"));
        until_connected(&mut a, 1).await;
        until_connected(&mut b, 1).await;
        assert_eq!(a.connected.look(), Some(crate::Connections { open: 1, clocks_apart: 0 }));
    });
}

#[test]
fn clocks_may_differ_by_a_few_seconds() {
    run(|context| async move {
        let mut a = Node::new("alice", &[]).start(&context);
        let known = [("alice", a.address)];
        let tuning = Tuning { clock: four_seconds_ahead, ..Tuning::default() };
        let mut b = Node { tuning, ..Node::new("bob", &known) }.start(&context);
        track(&a, 1, &[("alice", a.address), ("bob", b.address)]);
        until_connected(&mut a, 1).await;
        until_connected(&mut b, 1).await;
        assert_eq!(counted(&context, &["connections_total", "\"clock\""]), 0);
    });
}

#[test]
fn a_peer_is_told_the_program_and_its_protocols_but_not_where_it_listens() {
    run(|context| async move {
        let a = Node::new("alice", &[]).start(&context);
        let mut tool = peer_of(&context, &a, |_| {});
        let mut streams = Vec::new();
        let info = within(async {
            loop {
                match tool.select_next_some().await {
                    SwarmEvent::Behaviour(PeerEvent::Identify(identify::Event::Received { info, .. })) => break info,
                    other => streams.push(other),
                }
            }
        })
        .await;
        let prefix = super::prefix(b"a network");
        assert_eq!(info.agent_version, concat!("switchyard/", env!("CARGO_PKG_VERSION")));
        assert_eq!(info.protocol_version, prefix);
        for name in [format!("{prefix}/votes"), format!("{prefix}/clock"), "/meshsub/1.2.0".into()] {
            assert!(info.protocols.iter().any(|protocol| protocol.as_ref() == name), "{name}: {:?}", info.protocols);
        }
        assert!(info.listen_addrs.is_empty(), "{:?}", info.listen_addrs);
    });
}

#[test]
fn a_peer_above_its_quota_is_slowed_down_and_loses_nothing() {
    run(|context| async move {
        let (a, mut b) = pair(&context, Transport::Libp2p).await;
        // Without the quota that an honest sender keeps to.
        let mut sender = Outbound { channel: 3, shared: a.peers.over_libp2p().0.clone() };
        let burst = 2 * CHANNELS[3].quota.burst_size().get() as usize;
        let mut sent = 0;
        let receive = async {
            for number in 0..burst {
                assert_eq!(within(b.blocks.1.recv()).await.unwrap().1, number.to_be_bytes().as_slice());
            }
        };
        let send = async {
            while sent < burst {
                let message = IoBuf::from(sent.to_be_bytes().to_vec());
                sent += usize::from(sender.send(Recipients::One(key("bob")), message, false).accepted());
                tokio::task::yield_now().await;
            }
        };
        futures::join!(send, receive);
        assert!(counted(&context, &["bob", "messages_total", "blocks", "throttled"]) > 0);
    });
}

#[test]
fn a_blocked_peer_is_disconnected_and_kept_out() {
    run(|context| async move {
        let (mut a, mut b) = pair(&context, Transport::Libp2p).await;
        let _ = a.peers.block(key("bob"));
        until_connected(&mut a, 0).await;
        until_connected(&mut b, 0).await;
        until(|| counted(&context, &["alice", "connections_total", "banned"]) >= 2).await;
        assert_eq!(a.connected.count(), Some(0));
        assert_eq!(a.votes.0.send(Recipients::One(key("bob")), IoBuf::from(b"vote"), true), []);
    });
}

#[test]
fn a_full_queue_drops_and_counts_while_other_channels_go_on() {
    run(|context| async move {
        let (mut a, mut b) = pair(&context, Transport::Libp2p).await;
        // Nobody takes blocks at the other end. `send` is no future: it cannot wait.
        let block = IoBuf::from(vec![7; BYTES_MAX]);
        let reached = |a: &mut Network| a.blocks.0.send(Recipients::One(key("bob")), block.clone(), false).len();
        let outcomes: Vec<usize> = (0..90).map(|_| reached(&mut a)).collect();
        let queued = outcomes.iter().sum::<usize>();
        assert!(queued >= CHANNELS[3].send_queue && queued < 90, "{queued}");
        let full = counted(&context, &["alice", "messages_total", "blocks", "full"]);
        assert_eq!(full, 90 - queued as u64);
        a.votes.0.send(Recipients::All, IoBuf::from(b"a vote"), true);
        assert_eq!(within(b.votes.1.recv()).await.unwrap(), (key("alice"), IoBuf::from(b"a vote")));
        // What was queued arrives, in its order and whole.
        for _ in 0..queued {
            assert_eq!(within(b.blocks.1.recv()).await.unwrap().1, block);
        }
    });
}

#[test]
fn a_peer_that_restarts_is_connected_again() {
    run(|context| async move {
        let (mut a, b) = pair(&context, Transport::Libp2p).await;
        let address = b.address;
        b.task.abort();
        until_connected(&mut a, 0).await;
        assert_eq!(a.votes.0.send(Recipients::All, IoBuf::from(b"nobody there"), true), []);

        let known = [("alice", a.address)];
        let again = Node { listen: address, ..Node::new("bob", &known) };
        let mut b = again.start(&context.child("again"));
        until_connected(&mut a, 1).await;
        until_connected(&mut b, 1).await;
        a.votes.0.send(Recipients::All, IoBuf::from(b"welcome"), true);
        assert_eq!(within(b.votes.1.recv()).await.unwrap(), (key("alice"), IoBuf::from(b"welcome")));
    });
}

#[test]
fn a_peer_is_found_at_its_new_address() {
    run(|context| async move {
        let (mut a, b) = pair(&context, Transport::Libp2p).await;
        b.task.abort();
        until_connected(&mut a, 0).await;
        // Where alice is, bob does not know: nobody listens on port 1.
        let wrong = [("alice", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1))];
        let mut b = Node::new("bob", &wrong).start(&context.child("again"));
        a.peers.relocate(id("bob"), b.address).unwrap();
        until_connected(&mut a, 1).await;
        until_connected(&mut b, 1).await;
    });
}

#[test]
fn whoever_leaves_the_peer_sets_is_disconnected() {
    run(|context| async move {
        let (mut a, mut b) = pair(&context, Transport::Libp2p).await;
        let (alone, both) = ([("alice", a.address)], [("alice", a.address), ("bob", b.address)]);
        // Two sets count: those of this epoch and of the one before.
        track(&a, 2, &alone);
        a.votes.0.send(Recipients::All, IoBuf::from(b"still"), true);
        assert_eq!(within(b.votes.1.recv()).await.unwrap().1, b"still");
        track(&a, 3, &alone);
        until_connected(&mut a, 0).await;
        until(|| counted(&context, &["alice", "connections_total", "stranger"]) >= 1).await;
        track(&a, 4, &both);
        until_connected(&mut a, 1).await;
    });
}

#[test]
fn an_address_in_use_is_an_error() {
    run(|context| async move {
        let a = Node::new("alice", &[]).start(&context);
        let config = Config {
            transport: Transport::Libp2p,
            identity_secret: secret("bob"),
            listen: a.address,
            peers: Vec::new(),
            namespace: Vec::new(),
            message_bytes_max: BYTES_MAX,
        };
        let error = Network::start(context.child("bob"), config).err().unwrap();
        assert!(matches!(error, crate::NetworkError::Listen { address, .. } if address == a.address));
    });
}

#[test]
fn a_peer_id_and_a_key_are_the_same_thing() {
    for name in ["alice", "bob", "carol"] {
        let peer = peer_id(&key(name)).unwrap();
        assert_eq!(key_of(&peer), Some(key(name)));
        let keypair = Keypair::ed25519_from_bytes(secret(name)).unwrap();
        assert_eq!(keypair.public().to_peer_id(), peer);
    }
}

#[tokio::test]
async fn frames_are_read_up_to_the_limit_and_not_beyond() {
    let frame = |length: u32, body: usize| Cursor::new([&length.to_be_bytes()[..], &vec![1; body]].concat());
    assert_eq!(read_frame(&mut frame(5, 5), 5).await.unwrap(), &[1; 5]);
    assert_eq!(read_frame(&mut frame(6, 6), 5).await.unwrap_err(), End::Oversized);
    assert_eq!(read_frame(&mut frame(u32::MAX, 0), 5).await.unwrap_err(), End::Oversized);
    assert_eq!(read_frame(&mut frame(5, 4), 5).await.unwrap_err(), End::Closed);
    assert_eq!(read_frame(&mut Cursor::new([0; 3]), 5).await.unwrap_err(), End::Closed);
}

type Written = Arc<Mutex<Vec<(usize, usize)>>>;

/// Takes down which channel wrote how much; a vote comes up while the first piece of a block is written.
struct Tape {
    channel: usize,
    written: Written,
    vote: Option<mpsc::Sender<IoBuf>>,
}

impl AsyncWrite for Tape {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut task::Context<'_>, bytes: &[u8]) -> task::Poll<io::Result<usize>> {
        self.written.lock().unwrap().push((self.channel, bytes.len()));
        if let Some(vote) = self.vote.take() {
            vote.try_send(IoBuf::from(b"vote")).unwrap();
        }
        task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        task::Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        task::Poll::Ready(Ok(()))
    }
}

#[test]
fn a_vote_waits_for_one_piece_of_a_block_at_the_most() {
    run(|context| async move {
        let a = Node::new("alice", &[]);
        let shared = super::shared_for_tests(&context.child(a.name));
        let (queues, receivers) = link::queues();
        let written = Written::default();
        let tape = |channel: usize| Tape {
            channel,
            written: written.clone(),
            vote: (CHANNELS[channel].name == "blocks").then(|| queues[0].clone()),
        };
        let streams = (0..CHANNELS.len()).map(tape).collect();
        queues[3].try_send(IoBuf::from(vec![0; BYTES_MAX])).unwrap();
        let mut write = Box::pin(link::write(shared, receivers, streams));
        while written.lock().unwrap().iter().map(|(_, bytes)| bytes).sum::<usize>() < BYTES_MAX + 4 + 8 {
            assert!((&mut write).now_or_never().is_none());
        }
        let written = written.lock().unwrap();
        let votes: Vec<usize> = (0..written.len()).filter(|at| written[*at].0 == 0).collect();
        assert_eq!(votes, [1], "{written:?}");
        assert!(written.iter().all(|(_, bytes)| *bytes <= 32 << 10), "{written:?}");
        let mut totals: HashMap<usize, usize> = HashMap::new();
        written.iter().for_each(|(channel, bytes)| *totals.entry(*channel).or_default() += bytes);
        assert_eq!(totals, HashMap::from([(0, 8), (3, BYTES_MAX + 4)]));
    });
}
