//! A local network of real processes: made, started, watched, stopped. The library serves tests; the program
//! `switchyard-testnet` (run as `switchyard testnet`) serves people and scripts.

pub mod accounts;
pub mod cli;
mod client;
mod demo;
mod dir;
mod error;
mod histogram;
mod network;
mod process;
mod rollups;
mod status;
mod view;

pub use client::Client;
pub use demo::{DemoError, demo};
pub use dir::{NetworkDir, Options, Ports, VALIDATORS_MAX, ValidatorFiles};
pub use error::Error;
pub use histogram::Histogram;
pub use network::{READY_TIMEOUT, Testnet, reserve_free, stop};
pub use process::{STOP_TIMEOUT, exec_in_session, find_binary, running, tail};
pub use rollups::{BASE_FEE_WEI, COINBASE, FUNDS_ETHER, GAS_LIMIT, default_rollups, evm_genesis};
pub use status::{
    NetworkEndpoints, NetworkStatus, RollupStatus, ValidatorEndpoints, ValidatorStatus, endpoints, status, validators,
};
