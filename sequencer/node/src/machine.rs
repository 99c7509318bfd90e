//! The clock, the timers and the threads for blocking work: a machine's, or a simulation's.

use futures::future::BoxFuture;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// What a part of the node uses of the machine that it runs on.
pub trait Machine: Send + Sync + 'static {
    /// Milliseconds since 1970 by this machine's clock.
    fn now_ms(&self) -> u64;

    /// Time that only goes forward.
    fn instant(&self) -> Instant;

    /// Waits.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs `work` where it may block, and does not wait for it.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>);

    /// Runs `task` beside the caller, and does not wait for it.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// Blocking work has panicked, or the runtime has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("blocking work gave no answer")]
pub struct Lost;

/// Runs `work` off the async threads and waits for its answer.
pub async fn blocking<T: Send + 'static>(
    machine: &dyn Machine,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    let (done, answer) = oneshot::channel();
    machine.run_blocking(Box::new(move || {
        // Whoever asked may have gone.
        let _ = done.send(work());
    }));
    answer.await.map_err(|_| Lost)
}

/// The machine of a tokio runtime; used within it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokio;

impl Machine for Tokio {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}
