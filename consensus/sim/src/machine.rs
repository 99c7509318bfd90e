//! The clock, timers and threads of a validator's node, in simulated time.

use crate::context::Context;
use commonware_runtime::{Clock as _, Spawner as _, Supervisor as _};
use futures::future::BoxFuture;
use std::{
    sync::LazyLock,
    time::{Duration, Instant, UNIX_EPOCH},
};
use switchyard_node::machine::Machine;

/// A simulated machine, whose clock may be wrong.
pub struct Simulated {
    context: Context,
    /// How far its clock is ahead of the others'.
    ahead_ms: i64,
}

impl Simulated {
    /// A machine on a validator's runtime; its blocking work ends with the validator's tasks.
    pub fn new(context: Context, ahead_ms: i64) -> Self {
        Self { context, ahead_ms }
    }
}

/// Milliseconds of simulated time.
pub fn elapsed_ms(context: &impl commonware_runtime::Clock) -> u64 {
    let since = context.current().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Any moment: only what lies between two counts. An hour after it, so that subtracting works.
static BEGINNING: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(3600));

impl Machine for Simulated {
    fn now_ms(&self) -> u64 {
        elapsed_ms(&self.context).saturating_add_signed(self.ahead_ms)
    }

    fn instant(&self) -> Instant {
        *BEGINNING + self.context.current().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.context.sleep(duration))
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        // A task of its own, so that others may come between.
        self.context.child("blocking").spawn(|_| async move { work() });
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.context.child("task").spawn(|_| task);
    }
}
