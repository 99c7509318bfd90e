//! Load and speed: the load generator `switchyard-bench` (run as `switchyard bench`). Criterion benches of single operations
//! are in `benches/`.

pub mod anvil;
pub mod bundles;
pub mod cli;
pub mod engine;
pub mod evm;
pub mod follow;
pub mod ledger;
pub mod line;
pub mod load;
pub mod messages;
pub mod pace;
pub mod payload;
pub mod raw;
pub mod receipts;
pub mod report;
pub mod rpc;
pub mod sync;
pub mod target;
pub mod wallet;
