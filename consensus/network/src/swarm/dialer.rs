//! When each peer is dialled.

use super::{
    Behaviours, quic_address,
    roster::{Shared, Target},
    tcp_address,
};
use crate::Transport;
use libp2p::{
    PeerId, Swarm,
    swarm::dial_opts::{DialOpts, PeerCondition},
};
use std::{collections::HashMap, net::SocketAddr, time::Duration};
use tokio::time::Instant;

/// From a failed dial to the next, at first; doubled with each further failure.
const RETRY: Duration = Duration::from_millis(250);
/// The longest time between dials.
const RETRY_MAX: Duration = Duration::from_secs(8);
/// One of so many dials in a row is with the other one of TCP and QUIC.
const SECOND_EVERY: u32 = 4;
/// Dials at a time.
const DIALS_MAX: usize = 32;

struct Attempt {
    address: SocketAddr,
    failures: u32,
    due: Instant,
    dialling: bool,
    connected: bool,
}

/// Dials peers that are not connected, less and less often while they do not answer.
pub(super) struct Dialer {
    transport: Transport,
    me: PeerId,
    attempts: HashMap<PeerId, Attempt>,
}

impl Dialer {
    pub(super) fn new(transport: Transport, me: PeerId) -> Self {
        Self { transport, me, attempts: HashMap::new() }
    }

    /// Both sides would dial at once; the one with the larger id gives the other a head start.
    fn head_start(&self, peer: &PeerId) -> Duration {
        if self.me.to_bytes() < peer.to_bytes() { Duration::ZERO } else { RETRY }
    }

    /// Takes up a changed roster: a new address is dialled at once.
    pub(super) fn review(&mut self, shared: &Shared) {
        let targets = shared.targets();
        let wanted: HashMap<PeerId, SocketAddr> = targets.iter().map(|t| (t.peer, t.address)).collect();
        self.attempts.retain(|peer, _| wanted.contains_key(peer));
        let now = Instant::now();
        for Target { peer, address } in targets {
            let due = now + self.head_start(&peer);
            let fresh = Attempt { address, failures: 0, due, dialling: false, connected: false };
            let attempt = self.attempts.entry(peer).or_insert(fresh);
            if attempt.address != address {
                (attempt.address, attempt.failures, attempt.due) = (address, 0, now);
            }
        }
    }

    /// Dials whoever is due.
    pub(super) fn dial_due(&mut self, swarm: &mut Swarm<Behaviours>, shared: &Shared) {
        if self.attempts.is_empty() {
            self.review(shared);
        }
        let now = Instant::now();
        let dialling = self.attempts.values().filter(|a| a.dialling).count();
        // Port 0 stands for an address that is not known.
        let due = |a: &Attempt| !a.dialling && !a.connected && a.due <= now && a.address.port() != 0;
        let due = self.attempts.iter_mut().filter(|(_, a)| due(a));
        for (peer, attempt) in due.take(DIALS_MAX.saturating_sub(dialling)) {
            if swarm.is_connected(peer) {
                continue;
            }
            attempt.dialling = swarm.dial(attempt.options(*peer, self.transport)).is_ok();
            if !attempt.dialling {
                attempt.retry_later();
            }
        }
    }

    /// A dial came to nothing.
    pub(super) fn failed(&mut self, peer: &PeerId) {
        if let Some(attempt) = self.attempts.get_mut(peer) {
            attempt.dialling = false;
            attempt.retry_later();
        }
    }

    /// All streams are open.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(attempt) = self.attempts.get_mut(peer) {
            (attempt.connected, attempt.dialling, attempt.failures) = (true, false, 0);
        }
    }

    /// The last connection has ended; one that never became `ready` counts as a failure.
    pub(super) fn lost(&mut self, peer: &PeerId, ready: bool) {
        let head_start = self.head_start(peer);
        if let Some(attempt) = self.attempts.get_mut(peer) {
            (attempt.connected, attempt.dialling) = (false, false);
            if ready {
                attempt.due = Instant::now() + RETRY + head_start;
            } else {
                attempt.retry_later();
            }
        }
    }
}

impl Attempt {
    /// Dials with the preferred one of TCP and QUIC, and now and then with the other. Not at once: where the peer is only
    /// not up yet, TCP is refused, but QUIC asks again until it is, and would always be first.
    fn options(&self, peer: PeerId, transport: Transport) -> DialOpts {
        let second = self.failures % SECOND_EVERY == SECOND_EVERY - 1;
        let quic = (transport == Transport::Libp2pQuic) != second;
        let address = if quic { quic_address(self.address) } else { tcp_address(self.address) };
        let options =
            DialOpts::peer_id(peer).addresses(vec![address]).condition(PeerCondition::DisconnectedAndNotDialing);
        // QUIC has one socket for everything. A TCP connection from the listening port could not be made again for a while
        // after it was closed, and two that cross would be one.
        if quic { options.build() } else { options.allocate_new_port().build() }
    }

    fn retry_later(&mut self) {
        let wait = RETRY.saturating_mul(1 << self.failures.min(8)).min(RETRY_MAX);
        // A little of chance, so that peers that failed together do not come back together.
        self.due = Instant::now() + wait.mul_f64(rand::random_range(0.75..1.25));
        self.failures = self.failures.saturating_add(1);
    }
}
