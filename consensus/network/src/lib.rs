//! The validators' network: direct, mutually authenticated, encrypted connections between the validators of an epoch,
//! with one channel for each kind of message.
//!
//! Two transports stand behind one API, chosen by [`Config::transport`]: the consensus library's own network (TCP, one
//! connection for all channels) and libp2p (TCP with Noise and yamux, or QUIC; a stream for each channel). The engine sees
//! nothing of either but [`Network`]: channels that implement the library's `Sender` and `Receiver`, and [`Peers`], which
//! implements its `Provider` and `Blocker`. Nodes of one network must all use the same transport.
//!
//! Both compare clocks first: validators whose clocks differ by more than five seconds do not connect.
//!
//! On libp2p messages may also go by gossip, [`Network::gossip`]: from peer to peer, each to a few others.
//!
//! Sending never waits: a message to a peer that is away, too slow or above its quota is dropped, and the protocols above
//! ask again. Memory is bounded by the quotas and queues in [`CHANNELS`].

mod gossip;
mod handles;
mod identity;
mod own;
mod swarm;

use commonware_cryptography::ed25519;
use commonware_runtime::{Handle, Quota, tokio::Context};
use commonware_utils::{NZU32, NZUsize};
pub use gossip::{GOSSIP_BYTES_MAX, Gossip, Gossiped, Judge, Publisher, Verdict};
pub use handles::{Checked, Closed, Connected, Connections, Peers, Receiver, Roster, Sender};
pub use identity::{InvalidIdentity, identity, public_key, to_b256};
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr, num::NonZeroUsize, str::FromStr};
use switchyard_primitives::B256;

/// What is said of one kind of message.
#[derive(Debug)]
pub struct ChannelKind {
    /// In metrics, and in libp2p's protocol names.
    pub name: &'static str,
    /// Messages from or to one peer; a burst of a second's worth may come at once.
    pub quota: Quota,
    /// Written before the messages of channels that are not: short, and consensus waits for them. libp2p only.
    pub first: bool,
    /// Messages queued for one peer before further ones are dropped. Messages are shared between the queues of all peers, so a
    /// peer that takes nothing costs at most this many distinct messages. libp2p only: see [`SEND_QUEUE`].
    pub send_queue: usize,
    /// Messages of all peers that wait for the engine before no more are read. libp2p only: the own network holds a burst
    /// of the quota from every peer.
    pub receive_queue: NonZeroUsize,
}

const fn kind(
    name: &'static str,
    per_second: u32,
    first: bool,
    send_queue: usize,
    receive_queue: usize,
) -> ChannelKind {
    let (quota, receive_queue) = (Quota::per_second(NZU32!(per_second)), NZUsize!(receive_queue));
    ChannelKind { name, quota, first, send_queue, receive_queue }
}

/// The channels, in the order of [`Network`]'s fields.
pub static CHANNELS: [ChannelKind; 6] = [
    // Three votes for each view, two certificates.
    kind("votes", 1024, true, 256, 1024),
    kind("certificates", 1024, true, 256, 1024),
    kind("resolver", 256, true, 64, 256),
    kind("blocks", 96, false, 16, 32),
    kind("backfill", 256, false, 64, 32),
    kind("transactions", 512, false, 64, 256),
];

/// In the own network: messages queued for one peer, at each of two priorities, before further ones are dropped.
pub const SEND_QUEUE: NonZeroUsize = NZUsize!(64);

/// What carries the channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The consensus library's network.
    Own,
    /// libp2p. Peers are dialled with TCP, and with QUIC where that fails; both are accepted.
    #[default]
    Libp2p,
    /// libp2p, dialling with QUIC first.
    Libp2pQuic,
}

impl Transport {
    /// All transports.
    pub const ALL: [Self; 3] = [Self::Own, Self::Libp2p, Self::Libp2pQuic];

    /// Its name in config files and arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Libp2p => "libp2p",
            Self::Libp2pQuic => "libp2p-quic",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(name: &str) -> Result<Self, UnknownTransport> {
        Self::ALL.into_iter().find(|t| t.name() == name).ok_or_else(|| UnknownTransport(name.into()))
    }
}

/// No transport has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown transport {0:?}: must be own, libp2p or libp2p-quic")]
pub struct UnknownTransport(pub String);

/// What the network needs to know.
#[derive(Clone)]
pub struct Config {
    /// What carries the channels.
    pub transport: Transport,
    /// Seed of this validator's ed25519 key.
    pub identity_secret: [u8; 32],
    /// Where to listen: TCP, with libp2p also UDP. libp2p takes port 0 for a free one, see [`Network::address`].
    pub listen: SocketAddr,
    /// Identities and addresses of the other validators. Others may not connect.
    pub peers: Vec<(B256, SocketAddr)>,
    /// Keeps connections of different networks apart.
    pub namespace: Vec<u8>,
    /// Largest message on any channel; must be the same everywhere, since a peer that sends more is disconnected.
    pub message_bytes_max: usize,
}

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another address in network.listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A peer's identity is not a key.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// The peer list names one identity twice.
    #[error("peer list: an identity appears twice, or is this validator's own")]
    DuplicatePeer,
    /// The own network cannot grow beyond the size with which it was started.
    #[error("{peers} peers: this network was started for {limit}; restart to take up the new ones")]
    PeerCount {
        /// Peers of the new set.
        peers: usize,
        /// The most that fit.
        limit: usize,
    },
    /// The block limits of the genesis ask for messages larger than a connection can carry.
    #[error("messages of {bytes} bytes are above the limit of {limit}; lower the genesis limits")]
    MessageBytes {
        /// The size asked for.
        bytes: usize,
        /// The largest possible.
        limit: u32,
    },
    /// libp2p cannot be set up.
    #[error("libp2p: {0}")]
    Libp2p(String),
}

/// A real network's sender and its receiver.
pub type Channel = (Sender, Receiver);

/// The channels. The default types are those of a real network, open once [`Network::start`] has returned; a simulated one
/// has others.
pub struct Network<S = Sender, R = Receiver, P = Peers> {
    /// Single votes.
    pub votes: (S, R),
    /// Certificates.
    pub certificates: (S, R),
    /// Requests for missing certificates and the answers.
    pub resolver: (S, R),
    /// Proposed blocks.
    pub blocks: (S, R),
    /// Requests for missing blocks and the answers.
    pub backfill: (S, R),
    /// Transactions, at which the engine does not look.
    pub transactions: (S, R),
    /// The same by gossip, where the transport has it.
    pub gossip: Option<Gossip>,
    /// The validators.
    pub peers: P,
    /// Who is connected.
    pub connected: Connected,
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends when the network stops.
    pub task: Handle<()>,
}

impl Network {
    /// Opens the listener, registers the channels and starts to connect. Must be called on the runtime of `context`.
    pub fn start(context: Context, config: Config) -> Result<Self, NetworkError> {
        let mut peers = Vec::with_capacity(config.peers.len());
        for (identity, address) in &config.peers {
            peers.push((public_key(*identity)?, *address));
        }
        let me = public_key(identity(&config.identity_secret))?;
        let mut keys: Vec<&ed25519::PublicKey> = peers.iter().map(|(key, _)| key).chain([&me]).collect();
        keys.sort();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(NetworkError::DuplicatePeer);
        }
        match config.transport {
            Transport::Own => own::start(&context, &config, me, peers),
            Transport::Libp2p | Transport::Libp2pQuic => {
                swarm::network(&context, &config, me, peers, swarm::Tuning::default())
            }
        }
    }
}

/// Ways in for `testnet/fuzz`; no part of the interface.
#[doc(hidden)]
pub mod fuzz {
    /// The messages of a stream that ends after these bytes, and whether it was given up for a frame that is too long.
    pub fn frames(mut stream: &[u8], bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
        futures::executor::block_on(crate::swarm::frames(&mut stream, bytes_max))
    }

    /// What gossipsub's library would see of a stream that ends after these bytes, each frame with its head, and whether the
    /// stream was given up for something that no node sends.
    pub fn gossip_frames(stream: &[u8], topic: &str, bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
        crate::swarm::screened(stream, topic, bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_is_read_as_it_is_written() {
        for transport in Transport::ALL {
            assert_eq!(transport.to_string().parse(), Ok(transport));
        }
        assert!("tcp".parse::<Transport>().is_err());
    }
}
