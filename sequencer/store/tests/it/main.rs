//! What both stores promise, and what the one on disk promises beyond.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests; clippy.toml reaches only the test functions themselves"
)]

mod chain;
mod conformance;
mod damage;
mod durability;
mod opening;
mod random;
