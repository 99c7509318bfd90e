//! The published test vectors are what this crate does, and what the contracts do (`bridge/contracts/test/Vectors.t.sol`).

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

mod atomic;
mod bounds;
mod bundles;
mod challenges;
mod deposits;
mod honest;
mod messages;
mod state;

use serde_json::Value;
use std::path::PathBuf;
use switchyard_primitives::B256;

/// Compares what this crate makes with `docs/specs/vectors/NAME`. After a change of the layouts, `UPDATE_VECTORS=1 cargo
/// test` writes the file anew.
fn check(name: &str, expected: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/specs/vectors").join(name);
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(expected).unwrap() + "\n").unwrap();
    }
    let published: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(published == *expected, "{name} is not what this crate makes: see above");
}

/// A hash that is recognised by its bytes.
fn hash(byte: u8) -> B256 {
    B256::repeat_byte(byte)
}
