//! Gossip over loopback sockets.

use super::{
    super::{
        Tuning, behaviour::Told, prefix, protocols, roster::Peers, shared_for_tests, swarm, tcp_address, tests::*,
    },
    rules::Mesh,
    *,
};
use crate::Network;
use commonware_p2p::Receiver as _;
use commonware_runtime::{Supervisor as _, tokio::Context};
use futures::{FutureExt as _, StreamExt as _};
use libp2p::{Swarm, swarm::SwarmEvent};
use std::net::SocketAddr;

/// Where nobody listens: an address that is not known.
const UNKNOWN: SocketAddr = LOCALHOST;
const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const SMALL: Mesh = Mesh { low: 2, aim: 3, high: 4, dialled: 1 };
/// Time stands still, so that no message gets old however slow the machine is.
const NOW_MS: u64 = 1_700_000_000_000;

fn tuning() -> Tuning {
    Tuning { clock: || NOW_MS, ..Tuning::default() }
}

/// Alice alone, who gossips as `change` says.
fn alice(context: &Context, change: impl FnOnce(&mut Settings)) -> Network {
    let mut tuning = tuning();
    change(&mut tuning.gossip);
    Node { tuning, ..Node::new("alice", &[]) }.start(context)
}

fn gossip(network: &mut Network) -> &mut Gossip {
    network.gossip.as_mut().unwrap()
}

fn publish(network: &mut Network, message: impl Into<Bytes>) {
    assert!(gossip(network).publisher.publish(message.into()));
}

async fn next(network: &mut Network) -> Gossiped {
    within(gossip(network).incoming.recv()).await.unwrap()
}

fn fates(context: &Context, node: &str, outcome: &str) -> u64 {
    counted(context, &[&format!("{node}_libp2p"), "gossip_total", &format!("\"{outcome}\"")])
}

/// Waits until a node has that many peers in its mesh.
async fn until_meshed(context: &Context, node: &str, peers: u64) {
    let peers = |context: &Context| counted(context, &[&format!("{node}_libp2p"), "_mesh"]) >= peers;
    until(|| peers(context)).await;
}

/// All nodes of a list are peers of each other, and each dials those that `knows` says by their places.
async fn connected(
    context: &Context,
    names: &[&'static str],
    mesh: Mesh,
    knows: fn(usize, usize) -> bool,
) -> Vec<Network> {
    let tuning = Tuning { gossip: Settings { mesh, ..Settings::USUAL }, ..tuning() };
    let mut nodes: Vec<Network> =
        names.iter().map(|name| Node { tuning, ..Node::new(name, &[]) }.start(context)).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    for (me, node) in nodes.iter().enumerate() {
        let address = |peer: usize| if peer == me || knows(me, peer) { addresses[peer] } else { UNKNOWN };
        let peers: Vec<_> = names.iter().enumerate().map(|(peer, name)| (*name, address(peer))).collect();
        track(node, 1, &peers);
    }
    for (me, node) in nodes.iter_mut().enumerate() {
        let peers = (0..names.len()).filter(|peer| *peer != me && (knows(me, *peer) || knows(*peer, me))).count();
        until_connected(node, peers).await;
    }
    nodes
}

/// Alice, who knows bob, who does not know carol: what alice publishes reaches carol through bob alone.
async fn line(context: &Context) -> [Network; 3] {
    let nodes = connected(context, &["alice", "bob", "carol"], Mesh::USUAL, |me, peer| peer + 1 == me).await;
    until_meshed(context, "bob", 2).await;
    nodes.try_into().ok().unwrap()
}

const MESSAGES: u8 = 6;

#[test]
fn a_batch_reaches_every_node_though_nobody_is_connected_to_everyone() {
    run(|context| async move {
        // A ring with chords: each is connected to six of eleven, and gossips with four of them at the most.
        let mut nodes =
            connected(&context, &NAMES, SMALL, |me, peer| [1, 3, 4].contains(&((peer + 12 - me) % 12))).await;
        for name in NAMES {
            until_meshed(&context, name, SMALL.low as u64).await;
        }
        let messages: Vec<Bytes> = (0..MESSAGES).map(|number| vec![number; 20_000].into()).collect();
        for message in &messages {
            publish(&mut nodes[0], message.clone());
        }
        let heard = nodes[1..].iter_mut().map(async |node| {
            assert_eq!(node.connected.count(), Some(6));
            let mut received = Vec::new();
            while received.len() < messages.len() {
                let Gossiped { author, message, judge } = next(node).await;
                assert_eq!(author, key("a"));
                judge.decide(Verdict::Accept);
                received.push(message);
            }
            received.sort();
            assert_eq!(received, messages, "each one once");
        });
        futures::future::join_all(heard).await;
        let all_others = 11 * u64::from(MESSAGES);
        let all = |outcome| NAMES.iter().map(|name| fates(&context, name, outcome)).sum::<u64>();
        until(|| all("accepted") == all_others).await;
        assert_eq!(all("published"), u64::from(MESSAGES));
        // A node sends each message to its mesh, so it gets it from no more peers than have it in theirs.
        until(|| all("received") == all_others + all("duplicate")).await;
        let duplicates = all("duplicate");
        assert!(duplicates <= all_others * SMALL.high as u64, "{duplicates}");
        for node in &mut nodes {
            assert!(gossip(node).incoming.recv().now_or_never().is_none());
        }
    });
}

#[test]
fn a_message_is_passed_on_when_it_is_accepted_and_not_before() {
    run(|context| async move {
        let [mut alice, mut bob, mut carol] = line(&context).await;
        publish(&mut alice, "one");
        let waiting = next(&mut bob).await;
        publish(&mut alice, "two");
        next(&mut bob).await.judge.decide(Verdict::Accept);
        let two = next(&mut carol).await;
        assert_eq!((two.author, &two.message[..]), (key("alice"), &b"two"[..]));
        waiting.judge.decide(Verdict::Accept);
        assert_eq!(next(&mut carol).await.message, "one");
    });
}

#[test]
fn rejected_messages_are_not_passed_on_and_ban_their_sender_in_the_end() {
    run(|context| async move {
        let [mut alice, mut bob, mut carol] = line(&context).await;
        for number in 0..STRIKES_MAX {
            assert_eq!(counted(&context, &["bob_libp2p", "bans_total"]), 0);
            publish(&mut alice, format!("bad {number}"));
            next(&mut bob).await.judge.decide(Verdict::Reject);
            until(|| fates(&context, "bob", "rejected") == u64::from(number + 1)).await;
        }
        until(|| counted(&context, &["bob_libp2p", "bans_total"]) == 1).await;
        // Alice is gone; carol, who was told nothing, is not.
        until_connected(&mut bob, 1).await;
        publish(&mut bob, "good");
        let good = next(&mut carol).await;
        assert_eq!((good.author, &good.message[..]), (key("bob"), &b"good"[..]));
        until(|| fates(&context, "carol", "received") > 0).await;
        assert_eq!(fates(&context, "carol", "received"), 1);
        assert_eq!(counted(&context, &["carol_libp2p", "bans_total"]), 0);
    });
}

#[test]
fn messages_that_are_ignored_or_not_judged_are_not_passed_on_and_ban_nobody() {
    run(|context| async move {
        let [mut alice, mut bob, mut carol] = line(&context).await;
        for number in 0..2 * STRIKES_MAX {
            publish(&mut alice, format!("useless {number}"));
            next(&mut bob).await.judge.decide(Verdict::Ignore);
        }
        publish(&mut alice, "slow");
        let slow = next(&mut bob).await;
        until(|| fates(&context, "bob", "late") == 1).await;
        slow.judge.decide(Verdict::Accept);
        publish(&mut alice, "useful");
        next(&mut bob).await.judge.decide(Verdict::Accept);
        assert_eq!(next(&mut carol).await.message, "useful");
        until(|| fates(&context, "carol", "received") > 0).await;
        assert_eq!(fates(&context, "carol", "received"), 1);
        assert_eq!(fates(&context, "bob", "ignored"), u64::from(2 * STRIKES_MAX));
        assert_eq!(counted(&context, &["bans_total"]), 0);
    });
}

#[test]
fn what_cannot_be_gossiped_is_sent_directly() {
    run(|context| async move {
        let nodes = connected(&context, &["alice", "bob"], Mesh::USUAL, |me, peer| peer + 1 == me).await;
        let [mut alice, mut bob] = nodes.try_into().ok().unwrap();
        until_meshed(&context, "alice", 1).await;
        // More at once than this node's share; the queue takes no more than so many.
        let count = u64::from(OWN_BYTES_AT_ONCE / MESSAGE_COST) + 8;
        let mut published = 0;
        while published < count {
            let taken = gossip(&mut alice).publisher.publish(published.to_be_bytes().to_vec().into());
            published += u64::from(taken);
            tokio::task::yield_now().await;
        }
        let (mut gossiped, mut direct) = (0, 0);
        while gossiped + direct < count {
            tokio::select! {
                message = within(bob.gossip.as_mut().unwrap().incoming.recv()) => {
                    message.unwrap().judge.decide(Verdict::Accept);
                    gossiped += 1;
                }
                message = within(bob.transactions.1.recv()) => {
                    assert_eq!(message.unwrap().0, key("alice"));
                    direct += 1;
                }
            }
        }
        assert_eq!(fates(&context, "alice", "published"), gossiped);
        assert_eq!(fates(&context, "alice", "direct"), direct);
        assert!(gossiped > 0 && direct > 0, "{gossiped} {direct}");
    });
}

#[test]
fn without_anyone_to_gossip_with_nothing_is_lost_but_the_message() {
    run(|context| async move {
        let mut alice = alice(&context, |_| {});
        publish(&mut alice, "hello?");
        until(|| fates(&context, "alice", "direct") == 1).await;
        assert_eq!(fates(&context, "alice", "published"), 0);
    });
}

/// A peer that has the library without our bounds.
struct Mallory {
    swarm: Swarm<Unbound>,
    topic: IdentTopic,
    /// The channels' streams: without them it would be disconnected.
    streams: Vec<Told>,
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Unbound {
    links: super::super::Behaviour,
    ping: libp2p::ping::Behaviour,
    gossip: gossipsub::Behaviour,
}

impl Mallory {
    /// On the way to alice, who knows the name; without other topics also connected.
    async fn at(alice: &mut Network, context: &Context, authenticity: MessageAuthenticity, topics: &[&str]) -> Self {
        track(alice, 1, &[("alice", alice.address), ("mallory", UNKNOWN)]);
        let config = gossipsub::ConfigBuilder::default()
            .validation_mode(gossipsub::ValidationMode::None)
            .message_id_fn(|message: &Message| rules::id_of(message.source.as_ref(), &message.data))
            .build()
            .unwrap();
        let mut gossip = gossipsub::Behaviour::new(authenticity, config).unwrap();
        let prefix = prefix(b"a network");
        let topic = IdentTopic::new(format!("{prefix}/transactions"));
        gossip.subscribe(&topic).unwrap();
        for name in topics {
            gossip.subscribe(&IdentTopic::new(*name)).unwrap();
        }
        let shared = shared_for_tests(&context.child("mallory"));
        Peers(shared.clone()).track(0, &[(key("alice"), alice.address)], &[]);
        let links = super::super::Behaviour::new(shared, protocols(&prefix, || NOW_MS).unwrap().into());
        let keypair = Keypair::ed25519_from_bytes(secret("mallory")).unwrap();
        let mut swarm = swarm(keypair, Unbound { links, ping: libp2p::ping::Behaviour::default(), gossip }).unwrap();
        swarm.dial(tcp_address(alice.address)).unwrap();
        let mut mallory = Self { swarm, topic, streams: Vec::new() };
        if topics.is_empty() {
            let mut heard = false;
            mallory
                .until(|event| {
                    heard |= matches!(event, Some(gossipsub::Event::Subscribed { .. }));
                    heard && alice.connected.count() == Some(1)
                })
                .await;
        }
        mallory
    }

    /// Goes on until the condition holds, of an event or at any time.
    async fn until(&mut self, mut condition: impl FnMut(Option<gossipsub::Event>) -> bool) {
        within(async {
            loop {
                let event = tokio::select! {
                    event = self.swarm.select_next_some() => event,
                    () = tokio::time::sleep(Duration::from_millis(5)) => {
                        if condition(None) {
                            break;
                        }
                        continue;
                    }
                };
                let gossip = match event {
                    SwarmEvent::Behaviour(UnboundEvent::Links(told)) => {
                        self.streams.push(told);
                        None
                    }
                    SwarmEvent::Behaviour(UnboundEvent::Gossip(event)) => Some(event),
                    _ => None,
                };
                if condition(gossip) {
                    break;
                }
            }
        })
        .await;
    }

    fn publish(&mut self, data: Vec<u8>) {
        let topic = self.topic.clone();
        self.swarm.behaviour_mut().gossip.publish(topic, data).unwrap();
    }
}

fn signed_by(name: &str) -> MessageAuthenticity {
    MessageAuthenticity::Signed(Keypair::ed25519_from_bytes(secret(name)).unwrap())
}

#[test]
fn what_a_stranger_has_written_is_ignored_whoever_brings_it() {
    run(|context| async move {
        let mut alice = alice(&context, |_| {});
        let mut mallory = Mallory::at(&mut alice, &context, signed_by("stranger"), &[]).await;
        for number in 0..10 {
            mallory.publish(stamped(NOW_MS, &[number]));
        }
        mallory.until(|_| fates(&context, "alice", "stranger") == 10).await;
        assert!(gossip(&mut alice).incoming.recv().now_or_never().is_none());
        assert_eq!(counted(&context, &["bans_total"]), 0);
    });
}

#[test]
fn messages_without_a_signature_ban_their_sender() {
    run(|context| async move {
        let mut alice = alice(&context, |_| {});
        let me = Keypair::ed25519_from_bytes(secret("mallory")).unwrap().public().to_peer_id();
        let mut mallory = Mallory::at(&mut alice, &context, MessageAuthenticity::Author(me), &[]).await;
        for number in 0..10 {
            mallory.publish(stamped(NOW_MS, &[number]));
        }
        mallory.until(|_| counted(&context, &["alice_libp2p", "bans_total"]) >= 1).await;
        assert!(fates(&context, "alice", "unsigned") >= u64::from(STRIKES_MAX));
        assert!(gossip(&mut alice).incoming.recv().now_or_never().is_none());
    });
}

#[test]
fn an_old_message_is_ignored_and_one_too_short_is_rejected() {
    run(|context| async move {
        let mut alice = alice(&context, |_| {});
        let mut mallory = Mallory::at(&mut alice, &context, signed_by("mallory"), &[]).await;
        mallory.publish(stamped(NOW_MS - FRESH_MS - 1_000, b"replayed"));
        mallory.publish(stamped(NOW_MS + FRESH_MS + 60_000, b"for later"));
        mallory.publish(vec![1; STAMP_BYTES - 1]);
        mallory.publish(stamped(NOW_MS, b"fresh"));
        let fresh = {
            let mut fresh = None;
            mallory
                .until(|_| {
                    fresh = fresh.take().or_else(|| gossip(&mut alice).incoming.try_recv().ok());
                    fresh.is_some()
                })
                .await;
            fresh.unwrap()
        };
        assert_eq!((fresh.author, &fresh.message[..]), (key("mallory"), &b"fresh"[..]));
        assert_eq!(fates(&context, "alice", "stale"), 2);
        assert_eq!(fates(&context, "alice", "rejected"), 1);
        assert!(gossip(&mut alice).incoming.recv().now_or_never().is_none());
    });
}

#[test]
fn an_author_above_its_share_is_ignored() {
    run(|context| async move {
        let mut alice = alice(&context, |gossip| gossip.author_bytes_per_second = 2 * (MESSAGE_COST + 100));
        let mut mallory = Mallory::at(&mut alice, &context, signed_by("mallory"), &[]).await;
        let mut sent = 0u32;
        mallory.publish(stamped(NOW_MS, b"within the share"));
        mallory.until(|_| gossip(&mut alice).incoming.try_recv().is_ok()).await;
        while fates(&context, "alice", "above_share") < 4 {
            mallory.publish(stamped(NOW_MS, &sent.to_be_bytes()));
            sent += 1;
            let arrived = || fates(&context, "alice", "received") > u64::from(sent);
            mallory.until(|_| arrived()).await;
        }
        assert_eq!(counted(&context, &["bans_total"]), 0);
    });
}

#[test]
fn a_node_that_judges_nothing_holds_a_bounded_number_of_messages() {
    run(|context| async move {
        let mut alice = alice(&context, |gossip| gossip.verdict = Duration::from_secs(3600));
        let mut mallory = Mallory::at(&mut alice, &context, signed_by("mallory"), &[]).await;
        let count = UNJUDGED_PER_AUTHOR as u64 + 10;
        for number in 0..count {
            mallory.publish(stamped(NOW_MS, &number.to_be_bytes()));
        }
        mallory.until(|_| fates(&context, "alice", "full") == 10).await;
        let mut held = Vec::new();
        while let Ok(message) = gossip(&mut alice).incoming.try_recv() {
            held.push(message);
        }
        assert_eq!(held.len(), UNJUDGED_PER_AUTHOR);
        // Nobody is to blame, and what is judged makes room.
        held.into_iter().for_each(|message| message.judge.decide(Verdict::Accept));
        mallory.until(|_| fates(&context, "alice", "accepted") == UNJUDGED_PER_AUTHOR as u64).await;
        mallory.publish(stamped(NOW_MS, b"one more"));
        mallory.until(|_| gossip(&mut alice).incoming.try_recv().is_ok()).await;
        assert_eq!(counted(&context, &["bans_total"]), 0);
    });
}

#[test]
fn what_no_node_sends_bans_its_sender() {
    run(|context| async move {
        let mut alice = alice(&context, |_| {});
        // Two topics in one message.
        let mut mallory = Mallory::at(&mut alice, &context, signed_by("mallory"), &["another topic"]).await;
        mallory.until(|_| counted(&context, &["alice_libp2p", "bans_total"]) == 1).await;
    });
}

#[test]
fn a_repeated_message_is_a_duplicate_and_another_author_of_the_same_words_is_not() {
    let id = |author: &str, data: &[u8]| {
        let author = Keypair::ed25519_from_bytes(secret(author)).unwrap().public().to_peer_id();
        rules::id_of(Some(&author), data)
    };
    assert_eq!(id("alice", b"a"), id("alice", b"a"));
    assert_ne!(id("alice", b"a"), id("bob", b"a"));
    assert_ne!(id("alice", b"a"), id("alice", b"b"));
    assert_eq!(id("alice", b"a").0.len(), screen::ID_BYTES);
    assert!(Duration::from_millis(2 * FRESH_MS) < rules::REMEMBERED, "or it could be repeated later");
}
