//! The EVM rollup through its public interface.

// clippy.toml lets tests unwrap, but does not see that helpers here are part of tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod admission;
mod bridge;
mod calls;
mod clock;
mod derivation;
mod genesis;
mod pending;
mod proofs;
mod seconds;
mod snapshot;
mod support;
mod vectors;
