//! The embedded EVM rollup: derives Ethereum blocks (Prague rules) from final segments, keeps them with their state in
//! one RocksDB, and answers every read that a JSON-RPC server needs.
//!
//! One [`EvmDriver`] writes; any number of threads read through one [`EvmReader`]. State is kept twice: flat, for
//! execution and reads at the head, and as a hash-keyed Merkle Patricia trie, for roots, proofs and every past block.
//!
//! **Derivation rules** (`docs/specs/evm-rollup.md`) are a pure function of the hub blocks: same log, same block hashes.
//!
//! With one-second sealing what waits is executed after each hub block, in a block that stays open until its second is
//! over; readers see it as it grows, and closing it executes nothing again. Nothing of it is written before it is closed:
//! a restart executes what waits once more.
//!
//! **Invariant:** everything that one hub block changes is one atomic write, so a crash leaves the database at a hub
//! height, and [`Driver::next_hub_height`](switchyard_rollup_core::Driver::next_hub_height) says which.

mod admission;
mod call;
mod chain;
mod changes;
mod driver;
mod execute;
mod genesis;
mod open;
mod open_block;
mod overlay;
mod pending;
mod reader;
mod records;
mod senders;
pub mod snapshot;
mod store;
mod trie;
mod view;

pub use driver::EvmDriver;
pub use genesis::{GenesisError, prague_system_contracts};
pub use open::{EvmConfig, EvmOpenError, EvmRollup};
pub use reader::EvmReader;
