//! Engines that talk over loopback sockets and keep their state on disk.
#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy's exemption of tests does not reach their helpers")]

mod agreement;
mod cluster;
mod doppelganger;
mod epochs;
mod errors;
mod gossip;
mod transport;
