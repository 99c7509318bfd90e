//! The composition root: one process that is a validator, the store, the rollups' drivers and the servers.

pub mod cli;
pub mod config;
pub mod genesis;
