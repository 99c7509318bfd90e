//! The composition root: one process that is a validator, the store, the rollups' drivers and the servers.

pub mod attest;
pub mod builder;
pub mod cli;
mod clock;
pub mod config;
pub mod disk;
pub mod error;
pub mod executor;
pub mod finalizer;
pub mod forward;
pub mod gateway;
pub mod genesis;
mod health;
pub mod hub;
pub mod ingest;
pub mod keys;
pub mod logging;
pub mod machine;
pub mod metrics;
pub mod node;
mod opened;
pub mod operate;
pub mod prepare;
pub mod records;
pub mod relay;
mod servers;
pub mod signer;
pub mod sync;

pub use opened::StoreHistory;
