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
mod deposits;
mod driver;
mod execute;
mod genesis;
mod open;
mod open_block;
mod outbox;
mod overlay;
mod pending;
mod reader;
mod records;
mod senders;
pub mod snapshot;
mod store;
mod trie;
mod view;
mod votes;

pub use driver::EvmDriver;
pub use genesis::{GenesisError, prague_system_contracts};
pub use open::{EvmConfig, EvmOpenError, EvmRollup};
pub use reader::EvmReader;

/// Ways in for `testnet/fuzz`. No part of the interface.
#[doc(hidden)]
pub mod fuzz {
    use crate::{
        deposits::DepositRecord,
        genesis::Genesis,
        records::{
            self, BodyRecord, CheckpointRecord, HeaderRecord, Identity, MessageRecord, PendingRecord, Progress,
            VoteRecord,
        },
        store::Column,
    };
    use alloy_primitives::U256;
    use alloy_rlp::{Decodable, Encodable, encode};

    /// A record of the database by its kind, decoded and encoded again.
    pub fn record(kind: u8, bytes: &[u8]) -> Option<Vec<u8>> {
        fn recoded<T: Decodable + Encodable>(bytes: &[u8]) -> Option<Vec<u8>> {
            records::decode::<T>(Column::Meta, &[], bytes).ok().map(encode)
        }
        match kind {
            0 => records::decode_outcome(&[], bytes).ok().map(|outcome| records::encode_outcome(&outcome)),
            1 => {
                // Readable in every version, so in this one too.
                let identity = recoded::<Identity>(bytes)?;
                Identity::format_of(bytes).map(|_| identity)
            }
            2 => recoded::<Progress>(bytes),
            3 => recoded::<HeaderRecord>(bytes),
            4 => recoded::<BodyRecord>(bytes),
            5 => recoded::<PendingRecord>(bytes),
            6 => recoded::<U256>(bytes),
            7 => recoded::<CheckpointRecord>(bytes),
            8 => recoded::<MessageRecord>(bytes),
            9 => recoded::<VoteRecord>(bytes),
            10 => recoded::<DepositRecord>(bytes),
            _ => None,
        }
    }

    /// Whether a rollup's genesis is accepted.
    pub fn genesis(value: &serde_json::Value) -> bool {
        Genesis::parse(value).is_ok()
    }
}
