//! What happened, as one hash: the same seed gives the same one.

use switchyard_primitives::{B256, keccak256};

/// A running hash over events.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hash: B256,
    events: u64,
}

impl Trace {
    /// Adds an event.
    pub fn add(&mut self, time_ms: u64, validator: usize, event: &str) {
        tracing::debug!(time_ms, validator, event, "event");
        let text = format!("{}|{time_ms}|{validator}|{event}", self.hash);
        self.hash = keccak256(text);
        self.events += 1;
    }

    /// The hash so far.
    pub fn hash(&self) -> B256 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }
}
