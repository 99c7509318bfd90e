//! The servers through real sockets, over a gateway that holds real blocks.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

mod fake;
mod grpc;
mod http;
