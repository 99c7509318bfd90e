//! What the bridge agrees on: checkpoints today; messages, bundles and the rules of stake build on them.
//!
//! Pure: no async, no clock, no I/O.

mod checkpoint;

pub use checkpoint::Checkpoint;
