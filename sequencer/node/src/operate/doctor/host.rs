//! The machine: its disk, its limits, its ports.

use super::node::Running;
use crate::{
    config::Config,
    operate::{Finding, Level, check::listeners},
};
use rustix::process::{Resource, getrlimit};
use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Bytes of one measured write: what a vote's journal entry is at most.
const WRITE_BYTES: usize = 4096;
/// The measurement ends here, however many writes are left.
const MEASURE_MAX: Duration = Duration::from_secs(10);
/// A vote waits for one synced write; blocks are 50 ms apart at the fastest.
const SYNC_P99_WARNING: Duration = Duration::from_millis(50);
/// At this pace a good part of a leader's time is the disk's.
const SYNC_P50_ERROR: Duration = Duration::from_millis(100);
const FREE_WARNING: u64 = 20 << 30;
const FREE_ERROR: u64 = 2 << 30;
/// Databases hold 256 files each; connections of all servers come on top.
const FILES_WARNING: u64 = 8192;
const FILES_ERROR: u64 = 1024;

/// A file of the measurement, removed in any case.
struct Probe(PathBuf, File);

impl Probe {
    fn new(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join(format!(".doctor-{:016x}", rand::random::<u64>()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self(path, file))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // A file of a few hundred KiB that stays does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(path)
}

fn measure(folder: &Path, writes: usize) -> std::io::Result<Vec<Duration>> {
    let mut probe = Probe::new(folder)?;
    let (started, mut took) = (Instant::now(), Vec::with_capacity(writes));
    while took.len() < writes && started.elapsed() < MEASURE_MAX {
        let write = Instant::now();
        probe.1.write_all(&[0xa5; WRITE_BYTES])?;
        probe.1.sync_data()?;
        took.push(write.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

/// Nearest rank; zero of nothing.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// How long small synced writes take.
pub(super) fn sync_latency(data_dir: &Path, writes: usize) -> Finding {
    let folder = existing(data_dir);
    let took = match measure(folder, writes) {
        Ok(took) => took,
        Err(error) => {
            let found = format!("cannot write to {}: {error}", folder.display());
            return Finding::new("sync", Level::Error, found, "the node cannot keep what it signs", "mend the disk");
        }
    };
    let (p50, p99) = (quantile(&took, 50), quantile(&took, 99));
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let found = format!("{} synced writes of 4 KiB: p50 {:.2} ms, p99 {:.2} ms", took.len(), ms(p50), ms(p99));
    let remedy = "a local SSD of its own with power-loss protection; no network disk";
    if p50 > SYNC_P50_ERROR {
        Finding::new("sync", Level::Error, found, "votes wait for the disk and come too late", remedy)
    } else if p99 > SYNC_P99_WARNING {
        Finding::new("sync", Level::Warning, found, "some votes wait for the disk longer than a block takes", remedy)
    } else {
        Finding::ok("sync", found)
    }
}

/// Free space for the data directory.
pub(super) fn free_space(data_dir: &Path) -> Finding {
    let folder = existing(data_dir);
    let free = match rustix::fs::statvfs(folder) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            let found = format!("{}: {error}", folder.display());
            return Finding::new("disk", Level::Unknown, found, "free space is not known", "look with `df`");
        }
    };
    #[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
    let found = format!("{:.1} GiB free at {}", free as f64 / f64::from(1 << 30), folder.display());
    let remedy = "make room, move data_dir to a larger disk, or set store.keep_blocks";
    match free {
        ..FREE_ERROR => Finding::new("disk", Level::Error, found, "the node stops when the disk is full", remedy),
        FREE_ERROR..FREE_WARNING => {
            Finding::new("disk", Level::Warning, found, "the log and the rollups' states grow", remedy)
        }
        _ => Finding::ok("disk", found),
    }
}

/// The soft limit of open files in a process's limits file.
fn files_of(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The limit of open files: the running node's, else this shell's.
pub(super) fn open_files(running: Option<&Running>) -> Finding {
    let of_node = running
        .and_then(|node| std::fs::read_to_string(format!("/proc/{}/limits", node.endpoints.pid)).ok())
        .and_then(|limits| files_of(&limits));
    let (limit, whose) = match of_node {
        Some(limit) => (limit, "the running node"),
        None => (getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), "this shell"),
    };
    let shown = if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() };
    let found = format!("{shown} open files for {whose}");
    let remedy = "LimitNOFILE=65536 in the systemd unit, or `ulimit -n 65536`";
    match limit {
        ..FILES_ERROR => Finding::new("files", Level::Error, found, "databases and connections do not fit", remedy),
        FILES_ERROR..FILES_WARNING => {
            Finding::new("files", Level::Warning, found, "many clients at a time would use them up", remedy)
        }
        _ => Finding::ok("files", found),
    }
}

/// Whether each port is free, or held while the node runs.
pub(super) fn ports(config: &Config, running: Option<&Running>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut fine = Vec::new();
    for (what, address) in listeners(config).into_iter().filter(|(_, address)| address.port() != 0) {
        let taken = match TcpListener::bind(address) {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::AddrInUse => true,
            Err(error) => {
                let (means, remedy) =
                    ("the node does not start", "name an address of this machine, or a port above 1023");
                findings.push(Finding::new(
                    "ports",
                    Level::Error,
                    format!("{what}: {address}: {error}"),
                    means,
                    remedy,
                ));
                continue;
            }
        };
        match (running, taken) {
            (None, false) | (Some(_), true) => fine.push(address.to_string()),
            (None, true) => findings.push(Finding::new(
                "ports",
                Level::Error,
                format!("{what}: {address} is taken by another process"),
                "the node does not start",
                "find it with `ss -ltnp`, end it, or change the address",
            )),
            (Some(node), false) => findings.push(Finding::new(
                "ports",
                Level::Error,
                format!("{what}: the node runs (process {}) and does not listen at {address}", node.endpoints.pid),
                "it runs with another configuration than this one",
                "restart it, or name its configuration",
            )),
        }
    }
    if !fine.is_empty() {
        let state = if running.is_some() { "held while the node runs" } else { "free" };
        findings.push(Finding::ok("ports", format!("{state}: {}", fine.join(", "))));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let of = |n: u64| (1..=n).map(Duration::from_millis).collect::<Vec<_>>();
        let ms = |sorted: &[Duration], percent| quantile(sorted, percent).as_millis();
        assert_eq!((ms(&of(200), 50), ms(&of(200), 99)), (100, 198));
        assert_eq!((ms(&of(1), 50), ms(&of(1), 99), ms(&[], 99)), (1, 1, 0));
    }

    #[test]
    fn writes_are_measured_where_the_data_will_be_and_nothing_stays() {
        let root = tempfile::tempdir().unwrap();
        let finding = sync_latency(&root.path().join("not/there/yet"), 5);
        assert!(finding.found.starts_with("5 synced writes"), "{finding:?}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(sync_latency(Path::new("/proc"), 5).level, Level::Error);
    }

    #[test]
    fn the_limit_of_a_process_is_read_as_linux_writes_it() {
        let text = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max open files            {soft}                 1048576              files     \n"
            )
        };
        assert_eq!(files_of(&text("1024")), Some(1024));
        assert_eq!(files_of(&text("unlimited")), Some(u64::MAX));
        assert_eq!((files_of(&text("many")), files_of("")), (None, None));
    }
}
