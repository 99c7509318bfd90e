//! What the network counts.

use super::roster::Refusal;
use crate::{CHANNELS, ChannelKind};
use commonware_runtime::{
    telemetry::metrics::{Counter, CounterFamily, EncodeStruct, Gauge, MetricsExt as _, raw},
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
    /// The peer did not answer a ping.
    Silent,
    /// A dial came to nothing.
    DialFailed,
}

/// Counters; docs/specs/network.md says what they mean.
pub(super) struct Metrics {
    /// By channel, then by [`Fate`]. Looked up once: they are counted for every message and recipient.
    messages: Vec<[raw::Counter; Fate::ALL.len()]>,
    _messages: CounterFamily<MessageLabel>,
    connections: CounterFamily<Label>,
    pub(super) bans: Counter,
    pub(super) connected: Gauge,
}

impl Metrics {
    pub(super) fn new(context: &Context) -> Self {
        let family: CounterFamily<MessageLabel> =
            context.family("messages", "messages of each channel by what became of them");
        let counter = |channel, outcome| family.get_or_create_owned(&MessageLabel { channel, outcome });
        let of_channel = |kind: &ChannelKind| Fate::ALL.map(|(_, outcome)| counter(kind.name, outcome));
        Self {
            messages: CHANNELS.iter().map(of_channel).collect(),
            _messages: family,
            connections: context.family("connections", "connections and dials by what became of them"),
            bans: context.counter("bans", "peers banned"),
            connected: context.gauge("connected", "peers with an open connection"),
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
            Link::Silent => "silent",
            Link::DialFailed => "dial_failed",
        };
        self.connections.get_or_create(&Label { outcome }).inc();
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
