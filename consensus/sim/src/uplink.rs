//! What a validator can send in a time.
//!
//! The simulated network has bandwidth limits of its own, planned exactly for all messages in flight; with fifty validators
//! that takes longer than what is measured. Only blocks are large, so only they are limited here: a block goes to all its
//! recipients at an equal share of the line, and the next message of the channel waits until it has gone.

use bytes::Bytes;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{CheckedSender as _, LimitedSender as _, Recipients, simulated};
use commonware_runtime::{Clock as _, Spawner as _, Supervisor as _, deterministic};
use parking_lot::Mutex;
use std::time::{Duration, SystemTime};

/// One validator's line.
pub struct Uplink {
    context: deterministic::Context,
    bytes_per_second: u64,
    free: Mutex<SystemTime>,
}

impl Uplink {
    /// A line that carries so much.
    pub fn new(context: deterministic::Context, bytes_per_second: u64) -> Self {
        let free = Mutex::new(context.current());
        Self { context, bytes_per_second, free }
    }

    /// Sends when the line has carried the message to all of its recipients.
    pub(crate) fn send(
        &self,
        mut sender: simulated::Sender<PublicKey, deterministic::Context>,
        recipients: Vec<PublicKey>,
        message: Bytes,
    ) {
        let bytes = u64::try_from(message.len() * recipients.len()).unwrap_or(u64::MAX);
        let takes = Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_second.max(1));
        let gone = {
            let mut free = self.free.lock();
            *free = (*free).max(self.context.current()) + takes;
            *free
        };
        self.context.child("uplink").spawn(move |context| async move {
            context.sleep_until(gone).await;
            if let Ok(checked) = sender.check(Recipients::Some(recipients)) {
                let _ = checked.send(message, false);
            }
        });
    }
}
