//! A line between the validators of this process that delays and loses packets, whatever they carry.
//!
//! A proxy in front of an address cannot lose what TCP carries: it ends the connection, and the systems of both ends repeat
//! nothing. Here the system's own TCP runs over the packets. They go to [`THERE`] by way of a TUN device, and come back from
//! it as if a machine there had sent them: a connection to a port of `THERE` is one to the same port of [`HERE`], and each
//! packet of it, in both directions, has passed the line once.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_tun::Tun;

/// The address of this end, which the device must have. It and [`THERE`] are of RFC 2544's block for benches.
pub const HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The address beyond the device, of no machine.
pub const THERE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Packets on the way. Those above it are lost, as in a router.
const QUEUE: usize = 1 << 16;
/// No packet is longer, whatever the device's MTU.
const PACKET_BYTES_MAX: usize = 64 << 10;
/// Where an IPv4 header without options ends; it has the addresses last.
const HEADER_BYTES: usize = 20;

/// What has become of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Packets {
    /// Arrived.
    pub passed: u64,
    /// Lost by chance, as asked for.
    pub lost: u64,
    /// Lost because too many were on the way.
    pub overflowed: u64,
}

#[derive(Default)]
struct Counters {
    passed: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
}

/// An open line. The device stays when it is closed.
pub struct Line {
    counters: Arc<Counters>,
    tasks: JoinSet<()>,
}

impl Line {
    /// Opens a line over the TUN device `name`: packets take `delay`, and `loss` of them, 0 to 1, are lost as `seed` decides.
    ///
    /// # Errors
    ///
    /// Where the device is another program's, or this one may not open it.
    pub fn open(name: &str, delay: Duration, loss: f64, seed: u64) -> tokio_tun::Result<Self> {
        let device = Arc::new(Tun::builder().name(name).build()?.remove(0));
        let counters = Arc::<Counters>::default();
        let (queue, queued) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(deliver(device.clone(), queued));
        let rng = StdRng::seed_from_u64(seed);
        tasks.spawn(carry(device, Chance { rng, loss }, delay, queue, counters.clone()));
        Ok(Self { counters, tasks })
    }

    /// Lets go of the device, and tells what has become of packets.
    pub async fn close(mut self) -> Packets {
        self.tasks.shutdown().await;
        let Counters { passed, lost, overflowed } = &*self.counters;
        let [passed, lost, overflowed] = [passed, lost, overflowed].map(|counter| counter.load(Ordering::Relaxed));
        Packets { passed, lost, overflowed }
    }
}

/// What is on its way, and when it arrives.
type Late = (Instant, Vec<u8>);

struct Chance {
    rng: StdRng,
    loss: f64,
}

impl Chance {
    fn loses(&mut self) -> bool {
        self.rng.random::<f64>() < self.loss
    }
}

async fn carry(
    device: Arc<Tun>,
    mut chance: Chance,
    delay: Duration,
    queue: mpsc::Sender<Late>,
    counters: Arc<Counters>,
) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while let Ok(count) = device.recv(&mut buffer).await {
        let packet = &mut buffer[..count];
        if !turn_back(packet) {
            continue;
        }
        let fate = if chance.loses() {
            &counters.lost
        } else if queue.try_send((Instant::now() + delay, packet.to_vec())).is_err() {
            &counters.overflowed
        } else {
            &counters.passed
        };
        fate.fetch_add(1, Ordering::Relaxed);
    }
}

async fn deliver(device: Arc<Tun>, mut queued: mpsc::Receiver<Late>) {
    while let Some((due, packet)) = queued.recv().await {
        sleep_until(due).await;
        if device.send(&packet).await.is_err() {
            return;
        }
    }
}

/// Makes a packet from here to there one from there to here; false if it is another one, which stays as it is. Checksums hold,
/// since they are sums in which the order of the addresses does not count.
fn turn_back(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_BYTES>() else { return false };
    let addresses = [HERE.octets(), THERE.octets()].concat();
    let ours = header[0] >> 4 == 4 && header[12..] == addresses[..];
    if ours {
        header[12..].rotate_left(4);
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Internet checksum (RFC 1071).
    fn checksum(bytes: &[u8]) -> u16 {
        let sum: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
    }

    fn packet(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 24, 0, 1, 0, 0, 64, 17, 0, 0];
        header.extend([from.octets(), to.octets()].concat());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&header[..], b"body"].concat()
    }

    #[test]
    fn a_packet_comes_back_from_where_it_went_with_a_checksum_that_holds() {
        let mut turned = packet(HERE, THERE);
        assert!(turn_back(&mut turned));
        assert_eq!(turned, packet(THERE, HERE));
        assert_eq!(checksum(&turned[..HEADER_BYTES]), 0);
    }

    #[test]
    fn what_is_not_from_here_to_there_stays_as_it_is() {
        let elsewhere = Ipv4Addr::new(198, 18, 0, 3);
        let mut version_6 = packet(HERE, THERE);
        version_6[0] = 0x60;
        let short = packet(HERE, THERE)[..HEADER_BYTES - 1].to_vec();
        for other in [packet(THERE, HERE), packet(HERE, elsewhere), packet(elsewhere, THERE), version_6, short, vec![]]
        {
            let mut same = other.clone();
            assert!(!turn_back(&mut same));
            assert_eq!(same, other);
        }
    }

    #[test]
    fn the_seed_decides_what_is_lost() {
        let lost = |seed, loss| -> usize {
            let mut chance = Chance { rng: StdRng::seed_from_u64(seed), loss };
            (0..100_000).filter(|_| chance.loses()).count()
        };
        assert_eq!(lost(7, 0.01), lost(7, 0.01));
        assert!((900..1100).contains(&lost(7, 0.01)), "{}", lost(7, 0.01));
        assert_eq!((lost(7, 0.0), lost(7, 1.0)), (0, 100_000));
    }
}
