//! How much memory the requests and answers of one server may hold at a time.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNIT: usize = 1024;

/// A number of bytes that is shared by all connections, counted in KiB.
#[derive(Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS))))
    }

    fn units(bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1)
    }

    /// Takes `bytes` if they are free now.
    pub(super) fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_many_owned(Self::units(bytes)).ok()
    }

    /// Waits until `bytes` are free. None only if the budget could never grant them.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_many_owned(Self::units(bytes)).await.ok()
    }
}

/// Text that gives its share of the budget back when the last byte of it has been sent.
pub(super) fn held(text: String, share: OwnedSemaphorePermit) -> Bytes {
    struct Held(String, #[allow(dead_code)] OwnedSemaphorePermit);
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }
    Bytes::from_owner(Held(text, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_its_share_until_it_is_dropped() {
        let budget = Budget::new(10 * UNIT);
        let bytes = held("x".repeat(6 * UNIT), budget.try_take(6 * UNIT).unwrap());
        let rest = bytes.slice(10..);
        drop(bytes);
        assert!(budget.try_take(5 * UNIT).is_none());
        drop(rest);
        assert!(budget.try_take(10 * UNIT).is_some());
    }
}
