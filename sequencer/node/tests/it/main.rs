//! The node's parts against a node that serves real blocks, and the program itself.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

mod cli;
#[allow(clippy::cast_possible_truncation, reason = "counts of a test")]
#[path = "../../../rpc/tests/it/fake.rs"]
mod fake;
mod follower;
mod light;
mod operate;
mod process;
mod running;
mod signer;
mod startup;
mod sync;
