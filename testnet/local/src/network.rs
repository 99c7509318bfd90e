//! A network whose processes this program has started.

use crate::{
    Error,
    client::Client,
    dir::{NetworkDir, Options, Ports},
    process,
};
use rand::RngExt as _;
use rustix::process::Signal;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};
use switchyard_node::config::Endpoints;
use tokio::{net::TcpSocket, time::Instant};

/// How long a validator may take until every server answers.
pub const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 12;

/// A local network: processes that this one has started and stops. Dropping it kills them.
///
/// ```no_run
/// # async fn f() -> Result<(), switchyard_testnet_local::Error> {
/// use switchyard_testnet_local::{Options, Testnet};
/// let mut testnet = Testnet::create("data".as_ref(), Options::default())?;
/// let endpoints = testnet.start_all().await?;
/// testnet.kill(3)?;
/// testnet.start(3)?;
/// testnet.ready(3).await?;
/// testnet.stop_all().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Testnet {
    dir: NetworkDir,
    binary: PathBuf,
    /// Path of `switchyard-testnet` where the processes get sessions of their own.
    session: Option<PathBuf>,
    validators: Vec<Validator>,
    client: Client,
}

#[derive(Debug, Default)]
struct Validator {
    process: Option<Child>,
    /// Keeps the port of its network while no process listens there.
    reserved: Option<TcpSocket>,
}

impl Testnet {
    /// Makes a network in `dir` without starting it.
    pub fn create(dir: &Path, options: Options) -> Result<Self, Error> {
        let mut reserved = Vec::new();
        if options.ports == Ports::Free {
            for _ in 0..options.validators {
                reserved.push(reserve_free()?);
            }
        }
        let mut ports = Vec::with_capacity(reserved.len());
        for socket in &reserved {
            ports.push(socket.local_addr().map_err(Error::NoPort)?.port());
        }
        let mut testnet = Self::over(NetworkDir::create(dir, &options, &ports)?)?;
        for (validator, socket) in testnet.validators.iter_mut().zip(reserved) {
            validator.reserved = Some(socket);
        }
        Ok(testnet)
    }

    /// The network that `dir` holds, without starting it. Refused while it runs.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let dir = NetworkDir::open(dir)?;
        refuse_running(&dir)?;
        let mut testnet = Self::over(dir)?;
        for index in 0..testnet.len() {
            testnet.keep_port(index)?;
        }
        Ok(testnet)
    }

    fn over(dir: NetworkDir) -> Result<Self, Error> {
        let validators = (0..dir.validators()).map(|_| Validator::default()).collect();
        Ok(Self { dir, binary: process::find_binary("switchyard")?, session: None, validators, client: Client::new() })
    }

    /// Gives the processes started from now on sessions of their own, through the launcher's binary.
    pub(crate) fn use_sessions(&mut self) -> Result<(), Error> {
        self.session = Some(process::find_binary("switchyard-testnet")?);
        Ok(())
    }

    /// The `switchyard` program.
    pub fn program(&self) -> &Path {
        &self.binary
    }

    /// Starts `program` in place of `switchyard` from now on: one that does something and then becomes it.
    pub fn use_program(&mut self, program: PathBuf) {
        self.binary = program;
    }

    /// The network's folder.
    pub fn dir(&self) -> &NetworkDir {
        &self.dir
    }

    /// Number of validators.
    pub fn len(&self) -> usize {
        self.validators.len()
    }

    /// Never true: a network has validators.
    pub fn is_empty(&self) -> bool {
        self.validators.is_empty()
    }

    fn validator(&mut self, index: usize) -> Result<&mut Validator, Error> {
        let count = self.validators.len();
        self.validators.get_mut(index).ok_or(Error::NoValidator { index, count })
    }

    /// Starts a validator's process and returns at once. Nothing happens if it runs.
    pub fn start(&mut self, index: usize) -> Result<(), Error> {
        self.start_with(index, &[])
    }

    /// [`Testnet::start`] with further arguments of `switchyard run`.
    pub fn start_with(&mut self, index: usize, arguments: &[&str]) -> Result<(), Error> {
        if self.exited(index)?.is_none() && self.validator(index)?.process.is_some() {
            return Ok(());
        }
        let files = self.dir.validator(index);
        match fs::remove_file(&files.endpoints) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", &files.endpoints)(e));
            }
            _ => {}
        }
        self.validator(index)?.reserved = None;
        let child = process::spawn(&self.binary, &files, arguments, self.session.as_deref())?;
        self.validator(index)?.process = Some(child);
        Ok(())
    }

    /// Waits until every server of a started validator answers.
    pub async fn ready(&mut self, index: usize) -> Result<Endpoints, Error> {
        self.ready_within(index, READY_TIMEOUT, |_| {}).await
    }

    /// As [`Testnet::ready`], telling `progress` what is being waited for.
    pub(crate) async fn ready_within(
        &mut self,
        index: usize,
        timeout: Duration,
        mut progress: impl FnMut(&str),
    ) -> Result<Endpoints, Error> {
        let log = self.dir.validator(index).log;
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(how) = self.exited(index)? {
                let tail = process::tail(&log, LOG_LINES);
                return Err(Error::Died { index, how, log, tail });
            }
            let pid = self.validator(index)?.process.as_ref().map(Child::id);
            let waiting_for = match self.dir.endpoints(index)? {
                Some(endpoints) if Some(endpoints.pid) == pid => match self.client.answers(&endpoints).await {
                    Ok(()) => return Ok(endpoints),
                    Err(e) => e.to_string(),
                },
                _ => "its servers are not up yet".into(),
            };
            progress(&waiting_for);
            if Instant::now() >= deadline {
                let tail = process::tail(&log, LOG_LINES);
                return Err(Error::NotReady { index, seconds: timeout.as_secs(), waiting_for, log, tail });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts every validator and waits until all of their servers answer.
    pub async fn start_all(&mut self) -> Result<Vec<Endpoints>, Error> {
        for index in 0..self.len() {
            self.start(index)?;
        }
        let mut all = Vec::with_capacity(self.len());
        for index in 0..self.len() {
            all.push(self.ready(index).await?);
        }
        Ok(all)
    }

    /// How a validator's process ended, once it has; none while it runs or before it was started.
    pub fn exited(&mut self, index: usize) -> Result<Option<String>, Error> {
        let Some(child) = &mut self.validator(index)?.process else { return Ok(None) };
        let status = child.try_wait().map_err(Error::file("wait for", "the validator's process"))?;
        Ok(status.map(|s| s.to_string()))
    }

    /// The pid of a validator's process while it runs.
    pub fn pid(&self, index: usize) -> Option<u32> {
        process::running(&self.dir.validator(index))
    }

    /// SIGKILL: the process gets no chance to write anything. Its port stays reserved for its next start.
    pub fn kill(&mut self, index: usize) -> Result<(), Error> {
        if let Some(mut child) = self.validator(index)?.process.take() {
            child.kill().map_err(Error::file("kill", "the validator's process"))?;
            child.wait().map_err(Error::file("wait for", "the validator's process"))?;
        }
        let _ = fs::remove_file(self.dir.validator(index).pid);
        self.keep_port(index)
    }

    /// SIGSTOP: the process stays, with its sockets, and does nothing until [`Testnet::resume`].
    pub fn pause(&mut self, index: usize) -> Result<(), Error> {
        self.signal(index, Signal::STOP)
    }

    /// SIGCONT: a paused process goes on where it was.
    pub fn resume(&mut self, index: usize) -> Result<(), Error> {
        self.signal(index, Signal::CONT)
    }

    fn signal(&mut self, index: usize, signal: Signal) -> Result<(), Error> {
        if let Some(child) = &self.validator(index)?.process {
            process::signal(child.id(), signal);
        }
        Ok(())
    }

    /// SIGTERM, then SIGKILL after [`process::STOP_TIMEOUT`]. True if it stopped by itself.
    pub async fn stop(&mut self, index: usize) -> Result<bool, Error> {
        let files = [self.dir.validator(index)];
        let validator = self.validator(index)?;
        let killed = process::stop(&files, || reap(validator)).await;
        if let Some(mut child) = validator.process.take() {
            // It has ended, or is about to: until then it would pass for one that runs.
            child.wait().map_err(Error::file("wait for", "the validator's process"))?;
        }
        self.keep_port(index)?;
        Ok(killed.is_empty())
    }

    /// Stops all validators at once, as [`Testnet::stop`] does. Returns the pids that had to be killed.
    pub async fn stop_all(&mut self) -> Vec<u32> {
        let files: Vec<_> = (0..self.len()).map(|i| self.dir.validator(i)).collect();
        process::stop(&files, || self.validators.iter_mut().for_each(reap)).await
    }

    /// Where a validator's servers are, once they answer.
    pub fn endpoints(&self, index: usize) -> Result<Option<Endpoints>, Error> {
        if self.pid(index).is_none() { Ok(None) } else { self.dir.endpoints(index) }
    }

    /// The last lines of a validator's log.
    pub fn log_tail(&self, index: usize, lines: usize) -> String {
        process::tail(&self.dir.validator(index).log, lines)
    }

    /// Leaves the processes running; `switchyard testnet down` or [`crate::stop`] stops them.
    pub fn detach(mut self) {
        for validator in &mut self.validators {
            validator.process = None;
        }
    }

    /// Holds the port of a stopped validator's network, so that no other program gets it before the next start.
    fn keep_port(&mut self, index: usize) -> Result<(), Error> {
        if self.dir.base_port().is_none() {
            let port = self.dir.config(index)?.network.map_or(0, |network| network.listen.port());
            self.validator(index)?.reserved = Some(reserve(port)?);
        }
        Ok(())
    }
}

impl Drop for Testnet {
    fn drop(&mut self) {
        for child in self.validators.iter_mut().filter_map(|v| v.process.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn reap(validator: &mut Validator) {
    if validator.process.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
        validator.process = None;
    }
}

/// Where ports are looked for: below those that systems give to outgoing connections, one of which may take a port between its
/// release and a process' use of it.
const FREE_PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A port that is free for TCP and UDP, held.
pub fn reserve_free() -> Result<TcpSocket, Error> {
    let mut last = None;
    for _ in 0..200 {
        let port = rand::rng().random_range(FREE_PORTS);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Not to be shared: whoever holds it, listening or not, keeps it.
        let bind = || {
            let socket = TcpSocket::new_v4()?;
            socket.bind(address)?;
            UdpSocket::bind(address)?;
            Ok(socket)
        };
        match bind() {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(Error::NoPort(error)),
        }
    }
    Err(last.unwrap_or(Error::NoPort(std::io::ErrorKind::AddrInUse.into())))
}

/// A socket that is bound but does not listen: connections to it are refused, as to a dead validator.
fn reserve(port: u16) -> Result<TcpSocket, Error> {
    let bind = || {
        let socket = TcpSocket::new_v4()?;
        // A restarted validator's old connections linger in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        Ok(socket)
    };
    bind().map_err(Error::NoPort)
}

/// Refuses a network of which a process runs.
pub(crate) fn refuse_running(dir: &NetworkDir) -> Result<(), Error> {
    let pids: Vec<String> =
        (0..dir.validators()).filter_map(|i| process::running(&dir.validator(i))).map(|pid| pid.to_string()).collect();
    if pids.is_empty() { Ok(()) } else { Err(Error::Running { dir: dir.root().to_path_buf(), pids: pids.join(", ") }) }
}

/// Checks that nothing listens on the network's fixed ports, with TCP or, where a validator has QUIC, UDP. Free ones are
/// reserved already.
pub(crate) fn check_ports(dir: &NetworkDir) -> Result<(), Error> {
    let Some(base) = dir.base_port() else { return Ok(()) };
    let (ports, quic) = (dir.fixed_ports()?, dir.network_ports()?);
    let free = |port: u16, udp: bool| {
        let address = (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(address).is_ok() && (!udp || UdpSocket::bind(address).is_ok())
    };
    for (port, what, validator) in &ports {
        if !free(*port, quic.contains(port)) {
            let moved = |port: &u16, to: u16| port.checked_sub(base).and_then(|above| to.checked_add(above));
            let fits = |to: &u16| ports.iter().all(|(p, ..)| moved(p, *to).is_some_and(|m| free(m, quic.contains(p))));
            let suggestion = (1..50).filter_map(|i| base.checked_add(i * 200)).find(fits).unwrap_or(base);
            return Err(Error::PortTaken { port: *port, what: what.clone(), validator: *validator, suggestion });
        }
    }
    Ok(())
}

/// Stops the processes of the network in `dir`, whoever started them. Returns how many ran, and the pids that had to
/// be killed.
pub async fn stop(dir: &NetworkDir) -> (usize, Vec<u32>) {
    let files: Vec<_> = (0..dir.validators()).map(|i| dir.validator(i)).collect();
    let ran = files.iter().filter(|f| process::running(f).is_some()).count();
    (ran, process::stop(&files, || {}).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A base with this many free ports after it.
    fn free_base(count: u16) -> u16 {
        let free = |base: u16| {
            (base..base + count).all(|port| {
                let address = (Ipv4Addr::LOCALHOST, port);
                TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
            })
        };
        // Below the ports that systems give away, from a place that differs between processes.
        let first = 10_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
        (first..30_000).step_by(usize::from(count)).find(|base| free(*base)).unwrap()
    }

    #[test]
    fn a_port_that_is_taken_for_tcp_or_for_quic_is_named() {
        let root = tempfile::tempdir().unwrap();
        let base = free_base(20);
        let options = Options { validators: 2, ports: Ports::From(base), ..Options::default() };
        let dir = NetworkDir::create(root.path(), &options, &[]).unwrap();
        check_ports(&dir).unwrap();
        let of = |what: &str| dir.fixed_ports().unwrap().into_iter().rfind(|(_, w, _)| w == what).unwrap().0;
        let (network, grpc) = (of("the validators' network"), of("gRPC"));

        // Nothing of this network speaks UDP there.
        let _elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, grpc)).unwrap();
        check_ports(&dir).unwrap();

        let check = |port| match check_ports(&dir) {
            Err(Error::PortTaken { port: taken, validator: 1, suggestion, .. }) => {
                assert_eq!(taken, port);
                assert_ne!(suggestion, base);
            }
            other => panic!("{other:?}"),
        };
        let quic = UdpSocket::bind((Ipv4Addr::LOCALHOST, network)).unwrap();
        check(network);
        drop(quic);
        let _tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, grpc)).unwrap();
        check(grpc);
    }
}
