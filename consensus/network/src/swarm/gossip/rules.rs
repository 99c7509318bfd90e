//! How gossipsub is set up. docs/specs/network.md has the numbers, and says why.

use crate::{GOSSIP_BYTES_MAX, NetworkError};
use libp2p::{
    PeerId,
    gossipsub::{self, ConfigBuilder, Message, MessageId, ValidationMode},
};
use std::time::Duration;
use switchyard_primitives::keccak256;

use super::screen::{ID_BYTES, IDS_MAX};

/// How many peers a node sends each message to: what it aims at, and the bounds within which it leaves its mesh as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mesh {
    pub(crate) low: usize,
    pub(crate) aim: usize,
    pub(crate) high: usize,
    /// Peers among them that this node has dialled.
    pub(crate) dialled: usize,
}

impl Mesh {
    /// For committees of up to a hundred: with eight, a message is everywhere after three hops.
    pub(crate) const USUAL: Self = Self { low: 6, aim: 8, high: 12, dialled: 2 };
}

/// What tests set otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) mesh: Mesh,
    /// An author's share: so many bytes a second, and as many at once.
    pub(crate) author_bytes_per_second: u32,
    /// How long the node may take for a verdict. The library keeps a message for at least two of its heartbeats.
    pub(crate) verdict: Duration,
}

impl Settings {
    pub(crate) const USUAL: Self =
        Self { mesh: Mesh::USUAL, author_bytes_per_second: 8 << 20, verdict: Duration::from_millis(1500) };
}

/// A message is good for so long after it was sent, by the clocks of its author and of this node.
pub(super) const FRESH_MS: u64 = 8_000;
/// How long message ids are remembered: longer than any message stays fresh, the future ones included.
pub(super) const REMEMBERED: Duration = Duration::from_secs(20);
/// The time that stands before each message, milliseconds since 1970.
pub(super) const STAMP_BYTES: usize = 8;
/// Author, number, topic, signature and the heads of all: what is around a message at the most.
const ENVELOPE_BYTES: usize = 512;
/// Longest frame of the protocol.
pub(super) const RPC_BYTES_MAX: usize = GOSSIP_BYTES_MAX + STAMP_BYTES + ENVELOPE_BYTES;
/// Messages that wait to be written to one peer; further ones to it are dropped.
const QUEUE: usize = 64;
/// Messages of this length are worth the word that they need not be sent.
const IDONTWANT_BYTES: usize = 4 << 10;
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The author is part of it: who repeats another's words must not take their place.
pub(super) fn id_of(author: Option<&PeerId>, data: &[u8]) -> MessageId {
    let author = author.map(|author| author.to_bytes()).unwrap_or_default();
    MessageId::new(&keccak256([&author, data].concat())[..ID_BYTES])
}

/// The library's settings.
pub(super) fn config(mesh: Mesh) -> Result<gossipsub::Config, NetworkError> {
    let mut config = ConfigBuilder::default();
    config
        .validate_messages()
        .validation_mode(ValidationMode::Strict)
        .message_id_fn(|message: &Message| id_of(message.source.as_ref(), &message.data))
        .duplicate_cache_time(REMEMBERED)
        .max_transmit_size(RPC_BYTES_MAX)
        // As the screen has it.
        .max_publish_messages(1)
        .max_control_messages_sent(IDS_MAX)
        .max_control_message_size(2 * IDS_MAX * ID_BYTES)
        .max_ihave_messages_heartbeat(4)
        .mesh_n_low(mesh.low)
        .mesh_n(mesh.aim)
        .mesh_n_high(mesh.high)
        .mesh_outbound_min(mesh.dialled)
        // The author would send to everyone, which is what gossip is to spare it.
        .flood_publish(false)
        .heartbeat_interval(HEARTBEAT)
        .heartbeat_initial_delay(HEARTBEAT / 10)
        .prune_backoff(10 * HEARTBEAT)
        // Kept for others: three heartbeats; told of to some peers outside the mesh: two.
        .history_length(3)
        .history_gossip(2)
        .gossip_lazy(3)
        .gossip_factor(0.1)
        .gossip_retransimission(2)
        .iwant_followup_time(HEARTBEAT)
        .connection_handler_queue_len(QUEUE)
        .publish_queue_duration(HEARTBEAT)
        .forward_queue_duration(HEARTBEAT)
        .idontwant_message_size_threshold(IDONTWANT_BYTES);
    config.build().map_err(|e| NetworkError::Libp2p(e.to_string()))
}
