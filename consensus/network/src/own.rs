//! The consensus library's own network: TCP, ed25519 identities, ChaCha20-Poly1305.

use crate::{
    CHANNELS, Channel, Config, Network, NetworkError, SEND_QUEUE,
    handles::{Connected, Peers, Receiver, Sender},
    identity::private_key,
};
use commonware_cryptography::{ChaCha20Poly1305, ed25519};
use commonware_p2p::{
    Address, AddressableManager as _,
    authenticated::{lookup, max_size},
};
use commonware_runtime::{Quota, Supervisor as _, tokio::Context};
use commonware_stream::{
    SakeCups,
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZU32, NZUsize, ordered::Map};
use std::{
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    time::Duration,
};

type Handshake = SakeCups<ed25519::PrivateKey, ChaCha20Poly1305>;

pub(crate) type OwnSender = lookup::Sender<ed25519::PublicKey, Context>;
pub(crate) type OwnReceiver = lookup::Receiver<ed25519::PublicKey>;
pub(crate) type OwnPeers = lookup::Oracle<ed25519::PublicKey>;

/// Looks at who is connected; nothing is sent.
const PROBE: Quota = Quota::per_second(NZU32!(8));

pub(crate) fn start(
    context: &Context,
    config: &Config,
    me: ed25519::PublicKey,
    peers: Vec<(ed25519::PublicKey, SocketAddr)>,
) -> Result<Network, NetworkError> {
    let message_bytes_max = u32::try_from(config.message_bytes_max)
        .ok()
        .filter(|bytes| *bytes <= max_size::<Handshake>())
        .ok_or(NetworkError::MessageBytes { bytes: config.message_bytes_max, limit: max_size::<Handshake>() })?;
    let addresses = peers.into_iter().chain([(me, config.listen)]).map(|(key, a)| (key, Address::Symmetric(a)));
    let addresses = Map::try_from(addresses.collect::<Vec<_>>()).map_err(|_| NetworkError::DuplicatePeer)?;
    // The listener itself panics where it cannot bind; a named error is worth the small race.
    drop(TcpListener::bind(config.listen).map_err(|source| NetworkError::Listen { address: config.listen, source })?);

    let handshake = Cups::new(
        Sake {
            signer: private_key(&config.identity_secret),
            synchrony_bound: Duration::from_secs(5),
            max_handshake_age: Duration::from_secs(10),
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    let members = NonZeroUsize::new(addresses.len()).unwrap_or(NonZeroUsize::MIN);
    let (mut network, mut oracle) = lookup::Network::new(
        context.child("network"),
        settings(handshake, &config.namespace, config.listen, members, message_bytes_max),
    );
    oracle.track(0, addresses);
    let mut channel = |index: u64, quota| -> Channel {
        let (sender, receiver) = network.register(index, quota);
        (Sender::own(sender), Receiver::own(receiver))
    };
    Ok(Network {
        votes: channel(0, CHANNELS[0].quota),
        certificates: channel(1, CHANNELS[1].quota),
        resolver: channel(2, CHANNELS[2].quota),
        blocks: channel(3, CHANNELS[3].quota),
        backfill: channel(4, CHANNELS[4].quota),
        transactions: channel(5, CHANNELS[5].quota),
        gossip: None,
        connected: Connected::own(network.register(6, PROBE).0),
        peers: Peers::own(oracle, members.get()),
        address: config.listen,
        task: network.start(),
    })
}

fn settings(
    handshake: Handshake,
    namespace: &[u8],
    listen: SocketAddr,
    members: NonZeroUsize,
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
        block_duration: crate::swarm::BAN,
        ..lookup::Config::local(handshake, namespace, listen, members, message_bytes_max, SEND_QUEUE)
    }
}
