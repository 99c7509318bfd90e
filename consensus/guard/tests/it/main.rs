//! The sign guard as its users meet it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy's exemption of tests does not reach their helpers")]

mod damage;
mod record;
mod rules;

use std::path::{Path, PathBuf};
use switchyard_consensus_guard::{GuardError, Key, Kind, Position, Refusal, SignGuard, Statement};
use switchyard_primitives::{B256, keccak256};
use tempfile::TempDir;

const NETWORK: B256 = B256::repeat_byte(1);
const KEY: Key = [2; 48];

/// A record in a folder of its own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("record")
    }

    fn open(&self) -> SignGuard {
        open(&self.path()).unwrap()
    }
}

fn open(path: &Path) -> Result<SignGuard, GuardError> {
    SignGuard::open(path, NETWORK, KEY)
}

fn vote(kind: Kind, view: u64, what: u8) -> Statement {
    at(kind, Position { epoch: 0, number: view }, what)
}

fn at(kind: Kind, position: Position, what: u8) -> Statement {
    Statement { kind, scope: 0, position, digest: keccak256([what]) }
}

fn checkpoint(rollup: u64, block: u64, what: u8) -> Statement {
    let position = Position { epoch: 0, number: block };
    Statement { kind: Kind::Checkpoint, scope: rollup, position, digest: keccak256([what]) }
}

fn is_conflict(answer: &Result<(), Refusal>) -> bool {
    matches!(answer, Err(Refusal::Conflict { .. }))
}

fn is_low(answer: &Result<(), Refusal>) -> bool {
    matches!(answer, Err(Refusal::BelowLowWater { .. }))
}
