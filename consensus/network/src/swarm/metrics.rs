//! What the network counts.

use super::roster::Refusal;
use crate::CHANNELS;
use commonware_runtime::{
    telemetry::metrics::{Counter, CounterFamily, EncodeStruct, Gauge, MetricsExt as _},
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

/// Counters, by name in docs/metrics.md.
pub(super) struct Metrics {
    messages: CounterFamily<MessageLabel>,
    connections: CounterFamily<Label>,
    pub(super) bans: Counter,
    pub(super) connected: Gauge,
}

impl Metrics {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            messages: context.family("messages", "messages of each channel by what became of them"),
            connections: context.family("connections", "connections and dials by what became of them"),
            bans: context.counter("bans", "peers banned"),
            connected: context.gauge("connected", "peers with an open connection"),
        }
    }

    pub(super) fn message(&self, channel: usize, fate: Fate) {
        let outcome = match fate {
            Fate::Queued => "queued",
            Fate::Full => "full",
            Fate::Away => "away",
            Fate::Lost => "lost",
            Fate::Received => "received",
            Fate::Throttled => "throttled",
            Fate::Oversized => "oversized",
        };
        self.messages.get_or_create(&MessageLabel { channel: CHANNELS[channel].name, outcome }).inc();
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
