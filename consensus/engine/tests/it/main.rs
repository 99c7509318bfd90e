//! Engines that talk over loopback sockets and keep their state on disk.

mod agreement;
mod cluster;
mod errors;
mod gossip;
