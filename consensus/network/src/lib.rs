//! The validators' network: direct, mutually authenticated, encrypted connections between the validators of an epoch,
//! with one channel for each kind of message.
//!
//! It is the consensus library's own network (TCP; ed25519 identities; ChaCha20-Poly1305). The engine sees nothing of it
//! but [`Network`]: channels that implement the library's `Sender` and `Receiver`, and [`Peers`], which implements its
//! `Provider` and `Blocker`; whatever implements those can take its place.
//!
//! The handshake compares clocks: validators whose clocks differ by more than five seconds do not connect.
//!
//! Sending never waits: a message to a peer that is away, too slow or above its quota is dropped, and the protocols above
//! ask again. Memory is bounded by the quotas in [`quota`] and the length of [`SEND_QUEUE`].

mod identity;

use commonware_cryptography::{ChaCha20Poly1305, Signer as _, ed25519};
use commonware_p2p::{
    Address, AddressableManager as _, CheckedSender as _, LimitedSender as _, Recipients,
    authenticated::{lookup, max_size},
};
use commonware_runtime::{Handle, Supervisor as _, tokio::Context};
use commonware_stream::{
    SakeCups,
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZU32, NZUsize, ordered::Map};
pub use identity::{InvalidIdentity, identity, public_key, to_b256};
use std::{
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    time::Duration,
};
use switchyard_primitives::B256;

type Handshake = SakeCups<ed25519::PrivateKey, ChaCha20Poly1305>;

/// Sends on one channel.
pub type Sender = lookup::Sender<ed25519::PublicKey, Context>;
/// Receives from one channel.
pub type Receiver = lookup::Receiver<ed25519::PublicKey>;
/// Which validators there are, and a way to refuse one that misbehaves.
pub type Peers = lookup::Oracle<ed25519::PublicKey>;

/// Messages queued for one peer, at each of two priorities, before further ones are dropped. Blocks are shared between the
/// queues of all peers, so a stalled peer costs at most this many distinct messages.
pub const SEND_QUEUE: NonZeroUsize = NZUsize!(64);

/// Messages a second from or to one peer. A burst of this many from every peer is also what a channel's queue holds.
pub mod quota {
    use commonware_runtime::Quota;
    use commonware_utils::NZU32;

    /// Single votes: three for each view.
    pub const VOTES: Quota = Quota::per_second(NZU32!(1024));
    /// Certificates: two for each view.
    pub const CERTIFICATES: Quota = Quota::per_second(NZU32!(1024));
    /// Requests for missing certificates and the answers.
    pub const RESOLVER: Quota = Quota::per_second(NZU32!(256));
    /// Proposed blocks.
    pub const BLOCKS: Quota = Quota::per_second(NZU32!(96));
    /// Requests for missing blocks and the answers.
    pub const BACKFILL: Quota = Quota::per_second(NZU32!(256));
    /// Gossip of transactions.
    pub const TRANSACTIONS: Quota = Quota::per_second(NZU32!(512));
    /// Looks at who is connected; nothing is sent.
    pub(crate) const PROBE: Quota = Quota::per_second(NZU32!(8));
}

/// What the network needs to know.
#[derive(Clone)]
pub struct Config {
    /// Seed of this validator's ed25519 key.
    pub identity_secret: [u8; 32],
    /// Where to listen.
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
    /// The block limits of the genesis ask for messages larger than a connection can carry.
    #[error("messages of {bytes} bytes are above the limit of {limit}; lower the genesis limits")]
    MessageBytes {
        /// The size asked for.
        bytes: usize,
        /// The largest possible.
        limit: u32,
    },
}

/// A sender and its receiver.
pub type Channel = (Sender, Receiver);

/// The channels, open once [`Network::start`] has returned.
pub struct Network {
    /// Single votes.
    pub votes: Channel,
    /// Certificates.
    pub certificates: Channel,
    /// Requests for missing certificates.
    pub resolver: Channel,
    /// Proposed blocks.
    pub blocks: Channel,
    /// Requests for missing blocks.
    pub backfill: Channel,
    /// Gossip of transactions, which the engine does not look at.
    pub transactions: Channel,
    /// The validators.
    pub peers: Peers,
    /// Who is connected.
    pub connected: Connected,
    /// Ends when the network stops.
    pub task: Handle<()>,
}

/// Tells how many validators are connected.
pub struct Connected(Sender);

impl Connected {
    /// Validators with an open connection. To be asked at most a few times a second; `None` when asked more often.
    pub fn count(&mut self) -> Option<usize> {
        self.0.check(Recipients::All).ok().map(|checked| checked.recipients().len())
    }
}

impl Network {
    /// Opens the listener, registers the channels and starts to connect.
    pub fn start(context: Context, config: Config) -> Result<Self, NetworkError> {
        let signer = identity::private_key(&config.identity_secret);
        let me = signer.public_key();
        let message_bytes_max = u32::try_from(config.message_bytes_max)
            .ok()
            .filter(|bytes| *bytes <= max_size::<Handshake>())
            .ok_or(NetworkError::MessageBytes { bytes: config.message_bytes_max, limit: max_size::<Handshake>() })?;
        let mut addresses = vec![(me, Address::Symmetric(config.listen))];
        for (identity, address) in &config.peers {
            addresses.push((public_key(*identity)?, Address::Symmetric(*address)));
        }
        let addresses = Map::try_from(addresses).map_err(|_| NetworkError::DuplicatePeer)?;
        // The listener itself panics where it cannot bind; a named error is worth the small race.
        drop(
            TcpListener::bind(config.listen)
                .map_err(|source| NetworkError::Listen { address: config.listen, source })?,
        );

        let handshake = Cups::new(
            Sake {
                signer,
                synchrony_bound: Duration::from_secs(5),
                max_handshake_age: Duration::from_secs(10),
                version: sake::Version::V1,
            },
            cups::Version::V1,
        );
        let validators = NonZeroUsize::new(addresses.len()).unwrap_or(NonZeroUsize::MIN);
        let (mut network, mut peers) = lookup::Network::new(
            context.child("network"),
            settings(handshake, config.namespace, config.listen, validators, message_bytes_max),
        );
        peers.track(0, addresses);
        Ok(Self {
            votes: network.register(0, quota::VOTES),
            certificates: network.register(1, quota::CERTIFICATES),
            resolver: network.register(2, quota::RESOLVER),
            blocks: network.register(3, quota::BLOCKS),
            backfill: network.register(4, quota::BACKFILL),
            transactions: network.register(5, quota::TRANSACTIONS),
            connected: Connected(network.register(6, quota::PROBE).0),
            peers,
            task: network.start(),
        })
    }
}

fn settings(
    handshake: Handshake,
    namespace: Vec<u8>,
    listen: SocketAddr,
    validators: NonZeroUsize,
    message_bytes_max: u32,
) -> lookup::Config<Handshake> {
    lookup::Config {
        // Identities are proven in the handshake, and validators sit behind address translation and private networks.
        bypass_ip_check: true,
        allow_private_ips: true,
        allow_dns: false,
        // One set at a time until epochs overlap: every further one multiplies the queues.
        tracked_peer_sets: NZUsize!(1),
        peer_connection_cooldown: Duration::from_millis(500),
        dial_frequency: Duration::from_millis(250),
        max_concurrent_handshakes: NZU32!(128),
        block_duration: Duration::from_mins(10),
        ..lookup::Config::local(handshake, &namespace, listen, validators, message_bytes_max, SEND_QUEUE)
    }
}
