//! Gossipsub on the swarm: the library's, with bounds around it.
//!
//! A message is handed to the node once, and passed on when the node accepts it. Before the library sees what a peer sends,
//! [`reader`] has screened it; here the author is checked, each author has a share, and peers whose messages no honest node
//! passes on are banned.

mod allowance;
mod reader;
mod rules;
mod screen;
#[cfg(test)]
mod tests;

use super::{
    metrics::GossipFate,
    roster::{Outbound, Shared},
};
use crate::{
    Gossip, NetworkError,
    gossip::{Gossiped, Judge, Publisher, Verdict},
};
use allowance::Allowance;
use bytes::Bytes;
use commonware_p2p::{Recipients, UnlimitedSender as _};
use commonware_runtime::IoBuf;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    gossipsub::{
        self, DataTransform, IdentTopic, Message, MessageAcceptance, MessageAuthenticity, MessageId, RawMessage,
        TopicHash, WhitelistSubscriptionFilter,
    },
    identity::Keypair,
    swarm::{ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, THandlerOutEvent, ToSwarm},
};
use reader::{LibraryEvent, Read, Reader};
pub(crate) use rules::Settings;
use rules::{FRESH_MS, RPC_BYTES_MAX, STAMP_BYTES};
pub(crate) use screen::screened;
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior},
};
use tracing::{debug, warn};

/// Messages that wait to be published.
const OUTBOX: usize = 64;
/// Messages of all authors that the node has not judged yet, and of one of them.
const UNJUDGED_MAX: usize = 256;
const UNJUDGED_PER_AUTHOR: usize = 32;
/// What a node takes of an author's share ([`Settings`]), so that its messages are within it wherever they arrive: at a steady rate, and at
/// once. The rest is for the second by which messages may have caught up with each other on their way.
const OWN_BYTES_PER_SECOND: u32 = 6 << 20;
const OWN_BYTES_AT_ONCE: u32 = 2 << 20;
/// What a message costs beside its bytes: a signature to check, an id to remember, an answer.
const MESSAGE_COST: u32 = 64 << 10;
/// Messages to blame a peer for, within [`STRIKES_TIME`], until it is banned. One could be a defect or an old version.
const STRIKES_MAX: u32 = 4;
const STRIKES_TIME: Duration = Duration::from_mins(10);
/// How often verdicts that are overdue are looked for.
const TICK: Duration = Duration::from_millis(250);

/// The library.
type Library = gossipsub::Behaviour<Meter, WhitelistSubscriptionFilter>;

/// Counts what arrives, before the library has dropped what it knows.
#[derive(Clone, Default)]
pub(super) struct Meter(Arc<Arrived>);

#[derive(Default)]
struct Arrived {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl DataTransform for Meter {
    fn inbound_transform(&self, raw: RawMessage) -> io::Result<Message> {
        self.0.messages.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(raw.data.len() as u64, Ordering::Relaxed);
        Ok(Message { source: raw.source, data: raw.data, sequence_number: raw.sequence_number, topic: raw.topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(data)
    }
}

/// A message that the node has not judged yet.
struct Unjudged {
    author: PeerId,
    from: PeerId,
    until: Instant,
}

/// What a peer is to blame for since `since`.
struct Strikes {
    count: u32,
    since: Instant,
}

/// The node's verdict on a message.
type Decided = (MessageId, Verdict);

/// The part of the swarm that gossips.
pub(super) struct Behaviour {
    library: Library,
    settings: Settings,
    topic: TopicHash,
    /// The same, for each connection's screen.
    name: Arc<str>,
    shared: Arc<Shared>,
    direct: Outbound,
    outbox: mpsc::Receiver<Bytes>,
    deliver: mpsc::Sender<Gossiped>,
    verdicts: (mpsc::Sender<Decided>, mpsc::Receiver<Decided>),
    unjudged: HashMap<MessageId, Unjudged>,
    /// Of peers alone, as are the strikes.
    authors: HashMap<PeerId, Allowance>,
    strikes: HashMap<PeerId, Strikes>,
    own: Allowance,
    meter: Meter,
    /// Messages and bytes that have arrived and are counted.
    counted: (u64, u64),
    /// Messages that have arrived and are new.
    fresh: u64,
    tick: Interval,
}

/// A message with the time at which it was sent.
fn stamped(now_ms: u64, message: &[u8]) -> Vec<u8> {
    [&now_ms.to_be_bytes(), message].concat()
}

/// The time at which a message was sent, and the message.
fn unstamped(data: Vec<u8>) -> Option<(u64, Bytes)> {
    let stamp = u64::from_be_bytes(data.get(..STAMP_BYTES)?.try_into().ok()?);
    Some((stamp, Bytes::from(data).slice(STAMP_BYTES..)))
}

/// What a message of this length takes of a share.
fn cost(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(MESSAGE_COST)
}

impl Behaviour {
    /// On the topic of this name; what cannot be published is sent by `direct`.
    pub(super) fn new(
        keypair: Keypair,
        name: String,
        settings: Settings,
        direct: Outbound,
    ) -> Result<(Self, Gossip), NetworkError> {
        let error = |e: &dyn std::fmt::Display| NetworkError::Libp2p(e.to_string());
        let topic = IdentTopic::new(name.clone());
        let only_ours = WhitelistSubscriptionFilter(std::iter::once(topic.hash()).collect());
        let meter = Meter::default();
        let mut library = Library::new_with_subscription_filter_and_transform(
            MessageAuthenticity::Signed(keypair),
            rules::config(settings.mesh)?,
            only_ours,
            meter.clone(),
        )
        .map_err(|e| error(&e))?;
        library.subscribe(&topic).map_err(|e| error(&e))?;
        let (publisher, outbox) = mpsc::channel(OUTBOX);
        let (deliver, incoming) = mpsc::channel(UNJUDGED_MAX);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let behaviour = Self {
            library,
            settings,
            topic: topic.hash(),
            name: name.into(),
            shared: direct.shared.clone(),
            direct,
            outbox,
            deliver,
            verdicts: mpsc::channel(UNJUDGED_MAX),
            unjudged: HashMap::new(),
            authors: HashMap::new(),
            strikes: HashMap::new(),
            own: Allowance::new(OWN_BYTES_PER_SECOND, OWN_BYTES_AT_ONCE),
            meter,
            counted: (0, 0),
            fresh: 0,
            tick,
        };
        Ok((behaviour, Gossip { publisher: Publisher(publisher), incoming }))
    }

    fn publish(&mut self, message: Bytes) {
        let data = stamped(self.shared.now_ms(), &message);
        let outcome = match self.own.take(cost(data.len()), Instant::now()) {
            Ok(()) => self.library.publish(self.topic.clone(), data).map_err(|e| e.to_string()),
            Err(_) => Err("above this node's share".into()),
        };
        match outcome {
            Ok(_) => self.shared.metrics.gossip(GossipFate::Published),
            Err(reason) => {
                debug!(reason, "sent directly instead of by gossip");
                self.shared.metrics.gossip(GossipFate::Direct);
                // What is lost here is sent again by the node.
                let _ = self.direct.send(Recipients::All, IoBuf::from(message), false);
            }
        }
    }

    /// Hands a new message to the node, or says why not.
    fn take_in(&mut self, from: PeerId, id: &MessageId, message: Message) -> Result<(), GossipFate> {
        let source = message.source.ok_or(GossipFate::Stranger)?;
        let author = self.shared.admits(&source).ok().and_then(|()| self.shared.key(&source));
        let author = author.ok_or(GossipFate::Stranger)?;
        let length = message.data.len();
        let (sent_ms, message) = unstamped(message.data).ok_or(GossipFate::Rejected)?;
        if self.shared.now_ms().abs_diff(sent_ms) > FRESH_MS {
            return Err(GossipFate::Stale);
        }
        let now = Instant::now();
        if !self.authors.contains_key(&source) {
            self.authors.retain(|author, _| self.shared.key(author).is_some());
        }
        let bytes = self.settings.author_bytes_per_second;
        let share = || Allowance::new(bytes, bytes);
        // Nobody is to blame: what has waited on its way comes at once.
        let within = self.authors.entry(source).or_insert_with(share).take(cost(length), now);
        within.map_err(|_| GossipFate::AboveShare)?;
        let of_author = self.unjudged.values().filter(|unjudged| unjudged.author == source).count();
        if self.unjudged.len() >= UNJUDGED_MAX || of_author >= UNJUDGED_PER_AUTHOR {
            return Err(GossipFate::Full);
        }
        let (verdicts, of) = (self.verdicts.0.clone(), id.clone());
        // Room for one verdict on each message that waits for one. What finds none was overdue.
        let judge = Judge::new(move |verdict| drop(verdicts.try_send((of, verdict))));
        self.unjudged.insert(id.clone(), Unjudged { author: source, from, until: now + self.settings.verdict });
        self.deliver.try_send(Gossiped { author, message, judge }).map_err(|_| GossipFate::Full)
    }

    fn on_message(&mut self, from: PeerId, id: &MessageId, message: Message) {
        self.fresh += 1;
        if let Err(fate) = self.take_in(from, id, message) {
            self.unjudged.remove(id);
            self.settle(from, id, fate);
        }
    }

    fn on_verdict(&mut self, id: &MessageId, verdict: Verdict) {
        // Overdue, or dropped by a full queue and settled.
        let Some(Unjudged { from, .. }) = self.unjudged.remove(id) else { return };
        let fate = match verdict {
            Verdict::Accept => GossipFate::Accepted,
            Verdict::Reject => GossipFate::Rejected,
            Verdict::Ignore => GossipFate::Ignored,
        };
        self.settle(from, id, fate);
    }

    fn settle(&mut self, from: PeerId, id: &MessageId, fate: GossipFate) {
        let acceptance = match fate {
            GossipFate::Accepted => MessageAcceptance::Accept,
            GossipFate::Rejected => MessageAcceptance::Reject,
            _ => MessageAcceptance::Ignore,
        };
        self.shared.metrics.gossip(fate);
        self.library.report_message_validation_result(id, &from, acceptance);
        if fate == GossipFate::Rejected {
            self.strike(from, "messages that no honest node passes on");
        }
    }

    fn strike(&mut self, peer: PeerId, why: &'static str) {
        let now = Instant::now();
        if !self.strikes.contains_key(&peer) {
            self.strikes.retain(|peer, strikes| {
                self.shared.key(peer).is_some() && now.duration_since(strikes.since) < STRIKES_TIME
            });
        }
        let strikes = self.strikes.entry(peer).or_insert(Strikes { count: 0, since: now });
        if now.duration_since(strikes.since) >= STRIKES_TIME {
            *strikes = Strikes { count: 0, since: now };
        }
        strikes.count += 1;
        debug!(%peer, strikes = strikes.count, why, "a peer is to blame");
        if strikes.count >= STRIKES_MAX {
            self.strikes.remove(&peer);
            self.ban(peer, why);
        }
    }

    fn ban(&self, peer: PeerId, why: &'static str) {
        warn!(%peer, why, "banned for its gossip");
        self.shared.ban(peer);
    }

    /// Ignores the messages on which there is no verdict yet. The library may have forgotten them.
    fn give_up_overdue(&mut self) {
        let now = Instant::now();
        let overdue = self.unjudged.iter().filter(|(_, unjudged)| unjudged.until <= now);
        let overdue: Vec<(MessageId, PeerId)> = overdue.map(|(id, unjudged)| (id.clone(), unjudged.from)).collect();
        for (id, from) in overdue {
            self.unjudged.remove(&id);
            self.settle(from, &id, GossipFate::Late);
        }
    }

    /// Counts what has arrived. The library must have told of all that is new: the rest are duplicates.
    fn count_arrivals(&mut self) {
        let (messages, bytes) =
            (self.meter.0.messages.load(Ordering::Relaxed), self.meter.0.bytes.load(Ordering::Relaxed));
        let arrived = messages - self.counted.0;
        let duplicates = arrived.saturating_sub(self.fresh);
        self.shared.metrics.gossip_arrived(arrived, duplicates, bytes - self.counted.1);
        self.counted = (messages, bytes);
        self.fresh = 0;
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Reader;
    type ToSwarm = gossipsub::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Reader, ConnectionDenied> {
        let handler = self.library.handle_established_inbound_connection(connection, peer, local, remote)?;
        Ok(Reader::new(handler, self.name.clone(), RPC_BYTES_MAX))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<Reader, ConnectionDenied> {
        let handler = self.library.handle_established_outbound_connection(connection, peer, address, role, port)?;
        Ok(Reader::new(handler, self.name.clone(), RPC_BYTES_MAX))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.library.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, read: THandlerOutEvent<Self>) {
        match read {
            Read::Library(event) => {
                // The library drops them, and has no peer to pay for it.
                if let LibraryEvent::Message { invalid_messages, .. } = &*event {
                    for _ in invalid_messages {
                        self.shared.metrics.gossip(GossipFate::Unsigned);
                        self.strike(peer, "messages that nobody has signed");
                    }
                }
                self.library.on_connection_handler_event(peer, connection, *event);
            }
            Read::Violation(why) => self.ban(peer, why),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            match self.library.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(gossipsub::Event::Message {
                    propagation_source,
                    message_id,
                    message,
                })) => {
                    self.on_message(propagation_source, &message_id, message);
                    continue;
                }
                Poll::Ready(event) => return Poll::Ready(event),
                Poll::Pending => self.count_arrivals(),
            }
            if let Poll::Ready(Some((id, verdict))) = self.verdicts.1.poll_recv(cx) {
                self.on_verdict(&id, verdict);
            } else if let Poll::Ready(Some(message)) = self.outbox.poll_recv(cx) {
                self.publish(message);
            } else if self.tick.poll_tick(cx).is_ready() {
                self.give_up_overdue();
                let mesh = self.library.mesh_peers(&self.topic).count();
                self.shared.metrics.mesh(mesh);
            } else {
                return Poll::Pending;
            }
        }
    }
}
