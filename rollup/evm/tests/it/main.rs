//! The EVM rollup through its public interface.

mod admission;
mod calls;
mod derivation;
mod genesis;
mod proofs;
mod seconds;
mod support;
mod vectors;
