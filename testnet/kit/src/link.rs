//! Links between validators that a test or a bench can make slow, hold up and cut.
//!
//! A link stands in front of one address, on a port of its own: who is told this port talks to the address through the link. It
//! passes TCP connections and UDP datagrams on. Datagrams can be lost; the bytes of a connection cannot, since the systems of
//! both ends would repeat them, and so what a bad line does to a connection is to make it late, hold it up, or end it.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Bytes that are read at a time; no datagram is longer.
const CHUNK: usize = 64 << 10;
/// Chunks on the way in one direction of a connection, or of a flow of datagrams. Above it a connection's sender waits, as with
/// a full window, and datagrams are lost, as in a router.
const QUEUE: usize = 1024;
/// Senders of datagrams that one link serves.
const FLOWS_MAX: usize = 64;
/// Tries to find a port that is free for both TCP and UDP.
const PORTS: usize = 16;

/// What a link does to what passes. The default does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conditions {
    /// How long everything is on its way, in each direction.
    pub delay: Duration,
    /// Nothing arrives while this is set. Connections stay, and what was sent arrives afterwards, as after a cable's being out.
    pub held: bool,
    /// The share of datagrams that are lost: 0 to 1.
    pub loss: f64,
}

/// What is on its way, and when it arrives.
type Late = (Instant, Vec<u8>);

/// A link to one address. Dropping it ends what passes.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    conditions: watch::Sender<Conditions>,
    cuts: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// Opens a link to `target`, an address of this machine, on a free port of 127.0.0.1. `seed` decides which datagrams are
    /// lost.
    pub async fn open(target: SocketAddr, seed: u64) -> io::Result<Self> {
        let (listener, socket) = ports().await?;
        let address = listener.local_addr()?;
        let (conditions, seen) = watch::channel(Conditions::default());
        let (cuts, cut) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(connections(listener, target, seen.clone(), cut.clone()));
        let rng = StdRng::seed_from_u64(seed);
        tasks.spawn(datagrams(Arc::new(socket), target, Line { conditions: seen, rng }, cut));
        Ok(Self { address, conditions, cuts, _tasks: tasks })
    }

    /// Where the link takes connections and datagrams.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the link, for what is sent from now on; holding also for what is on its way.
    pub fn set(&self, conditions: Conditions) {
        self.conditions.send_replace(conditions);
    }

    /// Ends every connection; what was on its way in it is lost. New ones are taken.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Links between all validators of a network: one from each that dials to each that is dialled.
#[derive(Debug)]
pub struct Mesh {
    links: HashMap<(usize, usize), Link>,
}

impl Mesh {
    /// Opens the links to validators that listen at `addresses`.
    pub async fn open(addresses: &[SocketAddr], seed: u64) -> io::Result<Self> {
        let mut links = HashMap::new();
        for from in 0..addresses.len() {
            for (to, target) in addresses.iter().enumerate().filter(|(to, _)| *to != from) {
                let seed = seed.wrapping_add((from * addresses.len() + to) as u64);
                links.insert((from, to), Link::open(*target, seed).await?);
            }
        }
        Ok(Self { links })
    }

    /// Where `from` must dial to reach `to`; none without such a link.
    pub fn address(&self, from: usize, to: usize) -> Option<SocketAddr> {
        self.links.get(&(from, to)).map(Link::address)
    }

    /// Changes the links for which `which` says so; it is asked once for each direction of dialling.
    pub fn set(&self, conditions: Conditions, which: impl Fn(usize, usize) -> bool) {
        self.links.iter().filter(|((from, to), _)| which(*from, *to)).for_each(|(_, link)| link.set(conditions));
    }

    /// Cuts the links for which `which` says so.
    pub fn cut(&self, which: impl Fn(usize, usize) -> bool) {
        self.links.iter().filter(|((from, to), _)| which(*from, *to)).for_each(|(_, link)| link.cut());
    }
}

/// A port of TCP and UDP.
async fn ports() -> io::Result<(TcpListener, UdpSocket)> {
    let mut outcome = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..PORTS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        outcome = UdpSocket::bind(listener.local_addr()?).await.map(|socket| (listener, socket));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

async fn connections(
    listener: TcpListener,
    target: SocketAddr,
    conditions: watch::Receiver<Conditions>,
    mut cut: watch::Receiver<u64>,
) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((near, _)) = accepted {
                // Cuts from before do not concern it.
                cut.mark_unchanged();
                open.spawn(connection(near, target, conditions.clone(), cut.clone()));
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn connection(
    near: TcpStream,
    target: SocketAddr,
    conditions: watch::Receiver<Conditions>,
    mut cut: watch::Receiver<u64>,
) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let both =
        async { tokio::join!(stream(near_in, far_out, conditions.clone()), stream(far_in, near_out, conditions)) };
    tokio::select! {
        _ = both => {}
        _ = cut.changed() => {}
    }
}

/// One direction of a connection.
async fn stream(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, conditions: watch::Receiver<Conditions>) {
    let (queue, mut queued) = mpsc::channel::<Late>(QUEUE);
    let mut weather = conditions.clone();
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + conditions.borrow().delay;
            if queue.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = queued.recv().await {
            sleep_until(due).await;
            if weather.wait_for(|now| !now.held).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// What decides over each datagram.
struct Line {
    conditions: watch::Receiver<Conditions>,
    rng: StdRng,
}

impl Line {
    /// Another direction, with chances of its own.
    fn another(&mut self) -> Self {
        Self { conditions: self.conditions.clone(), rng: StdRng::seed_from_u64(self.rng.random()) }
    }

    /// When a datagram that is sent now arrives; none if it is lost.
    fn due(&mut self) -> Option<Instant> {
        let now = *self.conditions.borrow();
        (self.rng.random::<f64>() >= now.loss).then(|| Instant::now() + now.delay)
    }

    /// Waits for what is on its way; none once nothing more comes.
    async fn next(&mut self, queued: &mut mpsc::Receiver<Late>) -> Option<Vec<u8>> {
        let (due, bytes) = queued.recv().await?;
        sleep_until(due).await;
        self.conditions.wait_for(|now| !now.held).await.ok()?;
        Some(bytes)
    }
}

async fn datagrams(socket: Arc<UdpSocket>, target: SocketAddr, mut line: Line, mut cut: watch::Receiver<u64>) {
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Late>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Ok(()) = cut.changed() => {
                flows.clear();
                tasks.abort_all();
                continue;
            }
            Some(_) = tasks.join_next() => continue,
        };
        let Ok((count, from)) = received else { continue };
        let Some(due) = line.due() else { continue };
        if !flows.contains_key(&from) && flows.len() < FLOWS_MAX {
            let (queue, queued) = mpsc::channel(QUEUE);
            flows.insert(from, queue);
            tasks.spawn(flow(socket.clone(), from, target, queued, line.another(), line.another()));
        }
        if let Some(queue) = flows.get(&from) {
            let _ = queue.try_send((due, buffer[..count].to_vec()));
        }
    }
}

/// What one sender of datagrams says, and the answers.
async fn flow(
    near: Arc<UdpSocket>,
    from: SocketAddr,
    target: SocketAddr,
    mut queued: mpsc::Receiver<Late>,
    mut forth: Line,
    mut back: Line,
) {
    let Ok(far) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { return };
    if far.connect(target).await.is_err() {
        return;
    }
    let (answer, mut answers) = mpsc::channel::<Late>(QUEUE);
    let mut returning = back.another();
    let send = async {
        while let Some(bytes) = forth.next(&mut queued).await {
            // Nobody may listen there yet.
            let _ = far.send(&bytes).await;
        }
    };
    let receive = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            if let Ok(count) = far.recv(&mut buffer).await
                && let Some(due) = back.due()
            {
                let _ = answer.try_send((due, buffer[..count].to_vec()));
            }
        }
    };
    let deliver = async {
        while let Some(bytes) = returning.next(&mut answers).await {
            let _ = near.send_to(&bytes, from).await;
        }
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
        () = deliver => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(30);

    fn late() -> Conditions {
        Conditions { delay: DELAY, ..Conditions::default() }
    }

    #[tokio::test]
    async fn a_connection_is_late_in_each_direction_and_ends_when_it_is_cut() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let link = Link::open(listener.local_addr().unwrap(), 0).await.unwrap();
        link.set(late());
        for _ in 0..2 {
            let mut near = TcpStream::connect(link.address()).await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            let (start, mut byte) = (Instant::now(), [0]);
            near.write_all(b"a").await.unwrap();
            far.read_exact(&mut byte).await.unwrap();
            assert!(start.elapsed() >= DELAY);
            far.write_all(b"b").await.unwrap();
            near.read_exact(&mut byte).await.unwrap();
            assert!(start.elapsed() >= 2 * DELAY && byte == *b"b");
            link.cut();
            assert!(matches!(near.read(&mut byte).await, Ok(0) | Err(_)));
            assert!(matches!(far.read(&mut byte).await, Ok(0) | Err(_)));
        }
    }

    #[tokio::test]
    async fn what_is_held_arrives_afterwards() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let link = Link::open(listener.local_addr().unwrap(), 0).await.unwrap();
        let mut near = TcpStream::connect(link.address()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        link.set(Conditions { held: true, ..Conditions::default() });
        near.write_all(b"a").await.unwrap();
        let mut byte = [0];
        let early = tokio::time::timeout(DELAY, far.read_exact(&mut byte)).await;
        assert!(early.is_err());
        link.set(Conditions::default());
        far.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"a");
    }

    #[tokio::test]
    async fn datagrams_are_late_in_each_direction() {
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let link = Link::open(far.local_addr().unwrap(), 0).await.unwrap();
        link.set(late());
        let (start, mut byte) = (Instant::now(), [0]);
        near.send_to(b"a", link.address()).await.unwrap();
        let (_, through) = far.recv_from(&mut byte).await.unwrap();
        assert!(start.elapsed() >= DELAY && byte == *b"a");
        far.send_to(b"b", through).await.unwrap();
        near.recv_from(&mut byte).await.unwrap();
        assert!(start.elapsed() >= 2 * DELAY && byte == *b"b");
    }

    #[test]
    fn datagrams_are_lost_by_the_seed() {
        let lost = |seed, loss| -> Vec<bool> {
            let (_keep, conditions) = watch::channel(Conditions { loss, ..late() });
            let mut line = Line { conditions, rng: StdRng::seed_from_u64(seed) };
            (0..64).map(|_| line.due().is_none()).collect()
        };
        assert_eq!(lost(7, 0.5), lost(7, 0.5));
        assert_ne!(lost(7, 0.5), lost(8, 0.5));
        assert!(lost(7, 0.0).iter().all(|lost| !lost));
        assert!(lost(7, 1.0).iter().all(|lost| *lost));
    }
}
