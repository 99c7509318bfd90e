//! What the network counts.

use super::roster::Refusal;
use crate::{CHANNELS, ChannelKind};
use commonware_runtime::{
    telemetry::metrics::{Counter, CounterFamily, EncodeStruct, Gauge, GaugeExt as _, MetricsExt as _, raw},
    tokio::Context,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeStruct)]
pub(super) struct MessageLabel {
    channel: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeStruct)]
pub(super) struct Label {
    outcome: &'static str,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Put into a peer's queue.
    Queued,
    /// Dropped because the peer's queue was full.
    Full,
    /// Dropped because the peer is not connected.
    Away,
    /// Was in the queue of a connection that ended.
    Lost,
    /// Received.
    Received,
    /// Received, and then the peer was above its quota: nothing more is read from it until it is not.
    Throttled,
    /// Longer than allowed.
    Oversized,
}

impl Fate {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Queued, "queued"),
        (Self::Full, "full"),
        (Self::Away, "away"),
        (Self::Lost, "lost"),
        (Self::Received, "received"),
        (Self::Throttled, "throttled"),
        (Self::Oversized, "oversized"),
    ];
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// All streams are open.
    Ready,
    /// Ended after it was ready.
    Ended,
    /// Closed because a newer one with the same peer took its place.
    Duplicate,
    /// The peer belongs to another network or speaks another version.
    OtherNetwork,
    /// A stream could not be opened, or was opened twice.
    Broken,
    /// The peer's clock and this node's are too far apart.
    Clock,
    /// The peer did not answer a ping.
    Silent,
    /// A dial came to nothing.
    DialFailed,
}

/// What became of a message by gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GossipFate {
    /// This node's, sent to its mesh.
    Published,
    /// This node's, sent to each peer directly instead.
    Direct,
    /// Passed on.
    Accepted,
    /// No honest node would have passed it on.
    Rejected,
    /// Without its author's signature, or not formed as the library wants it.
    Unsigned,
    /// Its author is no peer, or banned.
    Stranger,
    /// Too old, or from the future.
    Stale,
    /// Its author is above its share.
    AboveShare,
    /// Too many wait for the node.
    Full,
    /// The node had no use for it.
    Ignored,
    /// The node did not judge it in time.
    Late,
}

impl GossipFate {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Published, "published"),
        (Self::Direct, "direct"),
        (Self::Accepted, "accepted"),
        (Self::Rejected, "rejected"),
        (Self::Unsigned, "unsigned"),
        (Self::Stranger, "stranger"),
        (Self::Stale, "stale"),
        (Self::AboveShare, "above_share"),
        (Self::Full, "full"),
        (Self::Ignored, "ignored"),
        (Self::Late, "late"),
    ];
}

/// Counters; docs/specs/network.md says what they mean.
pub(super) struct Metrics {
    /// By channel, then by [`Fate`]. Looked up once: they are counted for every message and recipient.
    messages: Vec<[raw::Counter; Fate::ALL.len()]>,
    _messages: CounterFamily<MessageLabel>,
    connections: CounterFamily<Label>,
    pub(super) bans: Counter,
    pub(super) connected: Gauge,
    gossip: [raw::Counter; GossipFate::ALL.len()],
    gossip_received: raw::Counter,
    gossip_duplicates: raw::Counter,
    gossip_bytes: Counter,
    mesh: Gauge,
    _gossip: CounterFamily<Label>,
}

impl Metrics {
    pub(super) fn new(context: &Context) -> Self {
        let family: CounterFamily<MessageLabel> =
            context.family("messages", "messages of each channel by what became of them");
        let counter = |channel, outcome| family.get_or_create_owned(&MessageLabel { channel, outcome });
        let of_channel = |kind: &ChannelKind| Fate::ALL.map(|(_, outcome)| counter(kind.name, outcome));
        let gossip: CounterFamily<Label> = context.family("gossip", "messages by gossip by what became of them");
        let gossiped = |outcome| gossip.get_or_create_owned(&Label { outcome });
        Self {
            messages: CHANNELS.iter().map(of_channel).collect(),
            _messages: family,
            connections: context.family("connections", "connections and dials by what became of them"),
            bans: context.counter("bans", "peers banned"),
            connected: context.gauge("connected", "peers with an open connection"),
            gossip: GossipFate::ALL.map(|(_, outcome)| gossiped(outcome)),
            gossip_received: gossiped("received"),
            gossip_duplicates: gossiped("duplicate"),
            gossip_bytes: context.counter("gossip_bytes", "bytes of messages received by gossip, duplicates included"),
            mesh: context.gauge("mesh", "peers to which each message by gossip is sent"),
            _gossip: gossip,
        }
    }

    pub(super) fn message(&self, channel: usize, fate: Fate) {
        self.messages[channel][fate as usize].inc();
    }

    pub(super) fn link(&self, link: Link) {
        let outcome = match link {
            Link::Ready => "ready",
            Link::Ended => "ended",
            Link::Duplicate => "duplicate",
            Link::OtherNetwork => "other_network",
            Link::Broken => "broken",
            Link::Clock => "clock",
            Link::Silent => "silent",
            Link::DialFailed => "dial_failed",
        };
        self.connections.get_or_create(&Label { outcome }).inc();
    }

    pub(super) fn gossip(&self, fate: GossipFate) {
        self.gossip[fate as usize].inc();
    }

    /// Messages that have arrived, those among them that had arrived before, and the bytes of all.
    pub(super) fn gossip_arrived(&self, messages: u64, duplicates: u64, bytes: u64) {
        self.gossip_received.inc_by(messages);
        self.gossip_duplicates.inc_by(duplicates);
        self.gossip_bytes.inc_by(bytes);
    }

    pub(super) fn mesh(&self, peers: usize) {
        let _ = self.mesh.try_set(peers);
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        let outcome = match refusal {
            Refusal::Stranger => "stranger",
            Refusal::Banned => "banned",
            Refusal::Crowded => "crowded",
        };
        self.connections.get_or_create(&Label { outcome }).inc();
    }
}
