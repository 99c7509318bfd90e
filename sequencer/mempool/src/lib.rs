//! Transactions that wait to be ordered: bounded, deduplicated, fair between rollups.
//!
//! ```text
//! submission or gossip -> check (stateless, outside the lock) -> insert (account, fees, room)
//!                                                                   |
//!      select (a leader's block; leaves everything in place) <------+
//!                                                                   |
//!      on_final (takes out what the log holds) -> on_executed (accounts have caught up: drops what can never go in)
//! ```
//!
//! A transaction leaves only by being final, or with a reason that [`Mempool::drop_reason`] tells for a while. Execution
//! runs behind the log, so an account as [`Admission::account`] gives it may lack transactions that are final: the mempool
//! adds those that it saw itself until [`Mempool::on_executed`] says that they are in.
//!
//! [`Admission::account`]: switchyard_rollup_core::Admission::account

mod bundles;
mod config;
mod mempool;
mod pool;
mod price;
mod ready;
mod select;
mod sender;
mod state;
#[cfg(test)]
mod tests;

pub use config::{
    Accepted, Budget, Checked, CheckedBundle, Included, MempoolConfig, Origin, Selected, Selection, Usage, Waiting,
};
pub use mempool::Mempool;
