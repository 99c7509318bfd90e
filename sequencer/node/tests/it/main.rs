//! The node's parts against a node that serves real blocks.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

mod cli;
#[path = "../../../rpc/tests/it/fake.rs"]
mod fake;
mod light;
