//! The runtime as one validator sees it: the simulation's, with a disk of its own.
//!
//! All validators share one simulated runtime. Each has a part of its storage to itself, by a prefix, and its own disk
//! faults. What was not synced when a validator's tasks are aborted is lost: opening a file again shows what is durable.

use crate::wan::shelf::{File, Pool, Shelf};
use commonware_runtime::{
    Blob, BlobVersion, Clock, Error, Handle, IoBufs, IoBufsMut, Metrics, Name, ReadOptions, Spawner, Storage,
    Supervisor, WriteOptions, deterministic,
    signal::Signal,
    telemetry::metrics::{Metric, Registered},
};
use futures::FutureExt as _;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rand_core::{TryCryptoRng, TryRng};
use std::{
    any::Any,
    convert::Infallible,
    future::Future,
    io,
    ops::{Range, RangeInclusive},
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

/// One validator's disk; survives the validator's crashes.
pub struct Disk {
    prefix: String,
    faults: Mutex<Faults>,
    /// Its files, where they are not in the runtime's storage.
    shelf: Option<Shelf>,
}

struct Faults {
    rng: StdRng,
    /// Of a million writes and syncs, so many fail.
    per_million: u32,
    happened: u64,
    /// Of a thousand writes, so many reach the disk before their sync, whole or in part.
    early_per_mille: u32,
}

impl Disk {
    /// A disk that works, with a seed for when it does not. Of a thousand writes, `early_per_mille` reach it before their
    /// sync, whole or in part, as when a system writes its pages back in an order of its own.
    pub fn new(name: &str, seed: u64, early_per_mille: u32) -> Arc<Self> {
        let rng = StdRng::seed_from_u64(seed);
        let faults = Mutex::new(Faults { rng, per_million: 0, happened: 0, early_per_mille });
        Arc::new(Self { prefix: format!("{name}-"), faults, shelf: None })
    }

    /// A disk for a validator that neither crashes nor has faults, which shares what is large with others of `pool`.
    pub(crate) fn shelf(pool: Arc<Pool>) -> Arc<Self> {
        let faults = Faults { rng: StdRng::seed_from_u64(0), per_million: 0, happened: 0, early_per_mille: 0 };
        Arc::new(Self { prefix: String::new(), faults: Mutex::new(faults), shelf: Some(Shelf::new(pool)) })
    }

    /// From now on, of a million writes and syncs so many fail.
    pub fn set_failing(&self, per_million: u32) {
        self.faults.lock().per_million = per_million;
    }

    /// How many writes and syncs have failed.
    pub fn failures(&self) -> u64 {
        self.faults.lock().happened
    }

    /// Where a failing write stops, of `len` bytes; `None` if it does not fail.
    fn fails(&self, len: usize) -> Option<usize> {
        let mut faults = self.faults.lock();
        let per_million = faults.per_million;
        if per_million == 0 || faults.rng.random_range(0..1_000_000) >= per_million {
            return None;
        }
        faults.happened += 1;
        Some(faults.rng.random_range(0..=len))
    }

    /// Which bytes of a write of `len` reach the disk at once.
    fn early(&self, len: usize) -> Option<Range<usize>> {
        let mut faults = self.faults.lock();
        if faults.early_per_mille == 0 || faults.rng.random_range(0..1000) >= faults.early_per_mille {
            return None;
        }
        let (a, b) = (faults.rng.random_range(0..=len), faults.rng.random_range(0..=len));
        Some(if faults.rng.random_range(0..2) == 0 { 0..len } else { a.min(b)..a.max(b) })
    }

    fn own(&self, partition: &str) -> String {
        format!("{}{partition}", self.prefix)
    }
}

fn failure(what: &str) -> Error {
    Error::Io(Arc::new(io::Error::other(format!("simulated {what} failure"))))
}

/// The runtime with one validator's disk, for one of its lives.
pub struct Context {
    inner: deterministic::Context,
    own: Own,
}

/// What belongs to the validator.
#[derive(Clone)]
struct Own {
    disk: Arc<Disk>,
    /// Why a task has panicked. A node's runtime ends with its first panic, the simulation's must not.
    panicked: watch::Sender<Option<String>>,
}

impl Context {
    /// `inner` with `disk`.
    pub fn new(inner: deterministic::Context, disk: Arc<Disk>) -> Self {
        Self { inner, own: Own { disk, panicked: watch::Sender::default() } }
    }

    /// Why the first task of this life has panicked, once one has.
    pub fn panicked(&self) -> watch::Receiver<Option<String>> {
        self.own.panicked.subscribe()
    }
}

/// The text of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into())
}

impl Supervisor for Context {
    fn name(&self) -> Name {
        self.inner.name()
    }

    fn child(&self, label: &'static str) -> Self {
        Self { inner: self.inner.child(label), own: self.own.clone() }
    }

    fn with_attribute(self, key: &'static str, value: impl std::fmt::Display) -> Self {
        Self { inner: self.inner.with_attribute(key, value), own: self.own }
    }
}

impl Spawner for Context {
    fn shared(self, blocking: bool) -> Self {
        Self { inner: self.inner.shared(blocking), own: self.own }
    }

    fn dedicated(self) -> Self {
        Self { inner: self.inner.dedicated(), own: self.own }
    }

    fn spawn<F, Fut, T>(self, f: F) -> Handle<T>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let own = self.own;
        self.inner.spawn(move |inner| {
            let panicked = own.panicked.clone();
            let task = AssertUnwindSafe(f(Self { inner, own })).catch_unwind();
            async move {
                task.await.unwrap_or_else(|panic| {
                    panicked.send_if_modified(|reason| {
                        let first = reason.is_none();
                        reason.get_or_insert_with(|| panic_text(&*panic));
                        first
                    });
                    resume_unwind(panic)
                })
            }
        })
    }

    async fn stop(self, value: i32, timeout: Option<Duration>) -> Result<(), Error> {
        self.inner.stop(value, timeout).await
    }

    fn stopped(&self) -> Signal {
        self.inner.stopped()
    }
}

impl Metrics for Context {
    fn register<N: Into<String>, H: Into<String>, M: Metric>(&self, name: N, help: H, metric: M) -> Registered<M> {
        self.inner.register(name, help, metric)
    }

    fn encode(&self) -> String {
        self.inner.encode()
    }
}

impl governor::clock::Clock for Context {
    type Instant = SystemTime;

    fn now(&self) -> SystemTime {
        self.inner.current()
    }
}

impl governor::clock::ReasonablyRealtime for Context {}

impl Clock for Context {
    fn current(&self) -> SystemTime {
        self.inner.current()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.inner.sleep(duration)
    }

    fn sleep_until(&self, deadline: SystemTime) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.inner.sleep_until(deadline)
    }
}

impl TryRng for Context {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.inner.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.inner.try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.inner.try_fill_bytes(out)
    }
}

impl TryCryptoRng for Context {}

impl Storage for Context {
    type Blob = OwnBlob;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(OwnBlob, u64, BlobVersion), Error> {
        if let Some(shelf) = &self.own.disk.shelf {
            let (file, size, version) = shelf.open(partition, name, &versions);
            return Ok((OwnBlob::Shelved(file), size, version));
        }
        let (inner, size, version) = self.inner.open_versioned(&self.own.disk.own(partition), name, versions).await?;
        Ok((OwnBlob::OnDisk { inner, disk: self.own.disk.clone() }, size, version))
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        match &self.own.disk.shelf {
            Some(shelf) => shelf.remove(partition, name),
            None => self.inner.remove(&self.own.disk.own(partition), name).await,
        }
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        if let Some(shelf) = &self.own.disk.shelf {
            return shelf.scan(partition);
        }
        // Who has never written there must be told so in the words of the own partition.
        self.inner.scan(&self.own.disk.own(partition)).await.map_err(|error| match error {
            Error::PartitionMissing(_) => Error::PartitionMissing(partition.into()),
            other => other,
        })
    }
}

/// A file on a [`Disk`].
pub enum OwnBlob {
    /// In the runtime's storage, with the disk's faults.
    OnDisk {
        /// The file.
        inner: <deterministic::Context as Storage>::Blob,
        /// Whose faults it has.
        disk: Arc<Disk>,
    },
    /// On a shelf.
    Shelved(Arc<File>),
}

impl Blob for OwnBlob {
    async fn read_at_buf(
        &self,
        offset: u64,
        len: usize,
        bufs: impl Into<IoBufsMut> + Send,
        options: ReadOptions,
    ) -> Result<IoBufsMut, Error> {
        match self {
            Self::OnDisk { inner, .. } => inner.read_at_buf(offset, len, bufs, options).await,
            Self::Shelved(file) => file.read(offset, len),
        }
    }

    async fn read_at(&self, offset: u64, len: usize, options: ReadOptions) -> Result<IoBufsMut, Error> {
        match self {
            Self::OnDisk { inner, .. } => inner.read_at(offset, len, options).await,
            Self::Shelved(file) => file.read(offset, len),
        }
    }

    async fn write_at(&self, offset: u64, bufs: impl Into<IoBufs> + Send, options: WriteOptions) -> Result<(), Error> {
        let bufs = bufs.into();
        let (inner, disk) = match self {
            Self::OnDisk { inner, disk } => (inner, disk),
            Self::Shelved(file) => {
                file.write(offset, bufs);
                return Ok(());
            }
        };
        let Some(stops) = disk.fails(bufs.len()) else {
            let Some(early) = disk.early(bufs.len()) else {
                return inner.write_at(offset, bufs, options).await;
            };
            let whole: bytes::Bytes = bufs.coalesce().into();
            inner.write_at(offset, whole.clone(), options).await?;
            let at = offset + early.start as u64;
            return inner.write_at(at, whole.slice(early), WriteOptions::SYNC).await;
        };
        // Torn: some of it is there, and durable if a sync has come before the crash.
        let whole: bytes::Bytes = bufs.coalesce().into();
        let _ = inner.write_at(offset, whole.slice(..stops), WriteOptions::SYNC).await;
        Err(failure("write"))
    }

    async fn resize(&self, len: u64) -> Result<(), Error> {
        match self {
            Self::OnDisk { inner, .. } => inner.resize(len).await,
            Self::Shelved(file) => {
                file.resize(len);
                Ok(())
            }
        }
    }

    async fn sync(&self) -> Result<(), Error> {
        match self {
            Self::OnDisk { disk, .. } if disk.fails(0).is_some() => Err(failure("sync")),
            Self::OnDisk { inner, .. } => inner.sync().await,
            Self::Shelved(_) => Ok(()),
        }
    }

    async fn start_sync(&self) -> Handle<()> {
        match self {
            Self::OnDisk { disk, .. } if disk.fails(0).is_some() => Handle::ready(Err(failure("sync"))),
            Self::OnDisk { inner, .. } => inner.start_sync().await,
            Self::Shelved(_) => Handle::ready(Ok(())),
        }
    }
}
