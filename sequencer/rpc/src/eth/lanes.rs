//! Where the blocking reads run: a bounded number at once, with a bounded number waiting.

use super::errors::EthError;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Runs closures on blocking threads, at most `width` at once. More wait; where too many wait, a request is refused.
pub(super) struct Lane {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Lane {
    /// A lane for `width` at once and `queue` waiting.
    pub(super) fn new(width: usize, queue: usize) -> Self {
        Self { running: Arc::new(Semaphore::new(width.max(1))), waiting: Semaphore::new(queue.max(1)) }
    }

    /// Runs `work` off the async threads. It goes on to its end even if the caller stops waiting, and counts as running
    /// until then.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, EthError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, EthError> + Send + 'static,
    {
        let waiting = self.waiting.try_acquire().map_err(|_| EthError::Limit("too many requests waiting".into()))?;
        let running =
            self.running.clone().acquire_owned().await.map_err(|_| EthError::Internal("lane closed".into()))?;
        drop(waiting);
        tokio::task::spawn_blocking(move || {
            let _running = running;
            work()
        })
        .await
        .map_err(|e| EthError::Internal(format!("request thread: {e}")))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_full_lane_refuses_and_recovers() {
        let lane = Arc::new(Lane::new(1, 1));
        let (release, hold) = mpsc::channel::<()>();
        let (started, mut running) = tokio::sync::mpsc::channel(1);
        let first = tokio::spawn({
            let lane = lane.clone();
            async move {
                lane.run(move || {
                    started.blocking_send(()).unwrap();
                    hold.recv().unwrap();
                    Ok(1)
                })
                .await
            }
        });
        running.recv().await.unwrap();
        let mut second = Box::pin(lane.run(|| Ok(2)));
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(lane.run(|| Ok(3)).await, Err(EthError::Limit("too many requests waiting".into())));
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(1));
        assert_eq!(second.await, Ok(2));
        assert_eq!(lane.run(|| Ok(4)).await, Ok(4));
    }
}
