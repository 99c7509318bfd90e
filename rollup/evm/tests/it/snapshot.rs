//! A rollup that goes on from a snapshot derives what the one that it was taken of derives.

use crate::support::{GAS_LIMIT, Rollup, config, deploy_store, hub_block, init_code, sign, transfer, tx, wallet, word};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use proptest::prelude::*;
use std::{path::Path, sync::LazyLock};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{
    Driver, Sealing,
    evm::{EvmChain, EvmError},
};
use switchyard_rollup_evm::{
    EvmConfig, EvmRollup,
    snapshot::{SnapshotError, SnapshotInfo, restore},
};

/// Writes the hash of the block before its own, and of the one 200 before that, to slots 0 and 1.
const HASHES_RUNTIME: [u8; 16] = hex!("6001 43 03 40 5f 55 60c9 43 03 40 6001 55 00");

fn snapshot(rollup: &Rollup) -> Vec<u8> {
    let mut bytes = Vec::new();
    rollup.reader.write_snapshot(&mut bytes).unwrap();
    bytes
}

fn restored(at: &Path, config: &EvmConfig, trusted: B256, bytes: &[u8]) -> Result<SnapshotInfo, SnapshotError> {
    restore(at, config, trusted, &mut &*bytes)
}

/// A rollup with contracts, slots that were set and unset, and blocks enough for every ancestor.
fn lived_in(sealing: Sealing, hub_blocks: u64) -> (Rollup, Address, Address) {
    let mut rollup = Rollup::new(sealing);
    let (deploy, store) = deploy_store(0, 0);
    let hashes = sign(1, tx(0, TxKind::Create, 0, init_code(&HASHES_RUNTIME), 200_000));
    rollup.apply(vec![deploy, hashes]);
    for i in 1..hub_blocks {
        let call = sign(0, tx(i, TxKind::Call(store), 0, word(i % 3), 100_000));
        rollup.apply(vec![call, transfer(2, i - 1, Address::with_last_byte(i as u8), 5)]);
    }
    (rollup, store, wallet(1).address().create(0))
}

/// Both go on with the same hub blocks, the restored one from where it says.
fn goes_on(sealing: Sealing, hub_blocks: u64) {
    let (mut old, store, hashes) = lived_in(sealing, hub_blocks);
    let bytes = snapshot(&old);
    let head = old.reader.head();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("rollup");
    let info = restored(&at, &config(sealing), head.hash, &bytes).unwrap();
    assert_eq!((info.number, info.hash), (head.header.number, head.hash));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the draft is left");

    let (mut driver, reader) = EvmRollup::open(&at, config(sealing)).unwrap();
    assert_eq!((driver.next_hub_height(), reader.head()), (info.next_hub_height, head.clone()));
    let call = |height: u64, nonce: u64| {
        let stored = sign(0, tx(hub_blocks + nonce, TxKind::Call(store), 0, word(height), 100_000));
        vec![stored, sign(1, tx(1 + nonce, TxKind::Call(hashes), 0, Bytes::new(), 100_000))]
    };
    let reached = old.driver.next_hub_height();
    for height in reached..reached + 30 {
        old.driver.apply(&hub_block(height, call(height, height - reached))).unwrap();
    }
    // What the first one had applied after the snapshot's block comes again: nothing but what waited.
    let (lived, ..) = lived_in(sealing, hub_blocks);
    assert_eq!(lived.reader.head(), head);
    for height in info.next_hub_height..reached {
        let i = height - 1;
        let call = sign(0, tx(i, TxKind::Call(store), 0, word(i % 3), 100_000));
        let waits = vec![call, transfer(2, i - 1, Address::with_last_byte(i as u8), 5)];
        driver.apply(&hub_block(height, waits)).unwrap();
    }
    for height in reached..reached + 30 {
        driver.apply(&hub_block(height, call(height, height - reached))).unwrap();
    }
    assert_eq!(reader.head(), old.reader.head());
    assert!(reader.head().header.number > head.header.number);
    assert_eq!(reader.pending(), old.reader.pending());
    let newest = reader.head().header.number;
    for (account, slot) in [(store, 0), (hashes, 0), (hashes, 1)] {
        let slot = B256::with_last_byte(slot);
        let value = reader.storage(newest, account, slot).unwrap();
        assert_eq!(value, old.reader.storage(newest, account, slot).unwrap());
    }
    assert_ne!(reader.storage(newest, hashes, B256::ZERO).unwrap(), U256::ZERO, "no block hash was found");
    assert_eq!(reader.proof(newest, store, &[]).unwrap(), old.reader.proof(newest, store, &[]).unwrap());
    // A snapshot of the restored one is as good.
    let mut again = Vec::new();
    reader.write_snapshot(&mut again).unwrap();
    assert_eq!(again, snapshot(&old));
    let below = head.header.number - 1;
    assert_eq!(reader.account(below, store), Err(EvmError::NoState(below)));
    assert_eq!(reader.header(below).unwrap(), old.reader.header(below).unwrap());
    assert_eq!(reader.block_by_number(below).unwrap(), None);
}

#[test]
fn a_rollup_goes_on_from_a_snapshot_as_the_one_that_it_was_taken_of() {
    goes_on(Sealing::HubBlock, 260);
    goes_on(Sealing::HubBlock, 3);
}

#[test]
fn what_waits_in_the_open_block_is_derived_again() {
    // The hub's blocks are 100 ms apart: the last one is in the middle of a second.
    goes_on(Sealing::OneSecond, 35);
}

#[test]
fn another_block_another_rollup_or_a_state_that_is_there_are_refused_and_nothing_is_left() {
    let (rollup, ..) = lived_in(Sealing::HubBlock, 3);
    let (bytes, trusted) = (snapshot(&rollup), rollup.reader.head().hash);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("rollup");
    let own = config(Sealing::HubBlock);
    let refused = |config: &EvmConfig, trusted, bytes: &[u8]| restored(&at, config, trusted, bytes).unwrap_err();
    assert!(matches!(refused(&own, B256::ZERO, &bytes), SnapshotError::OtherBlock { .. }));
    let other = EvmConfig { rollup: RollupId(8), ..own.clone() };
    assert!(matches!(refused(&other, trusted, &bytes), SnapshotError::OtherRollup { what: "rollup id", .. }));
    let other = config(Sealing::OneSecond);
    assert!(matches!(refused(&other, trusted, &bytes), SnapshotError::OtherRollup { what: "sealing", .. }));
    for cut in [0, 7, 8, 100, bytes.len() - 1] {
        assert!(matches!(refused(&own, trusted, &bytes[..cut]), SnapshotError::Invalid(_) | SnapshotError::Format(_)));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something is left");
    restored(&at, &own, trusted, &bytes).unwrap();
    assert!(matches!(refused(&own, trusted, &bytes), SnapshotError::Exists { .. }));
}

#[test]
fn while_a_hub_block_is_partly_in_a_block_there_is_no_snapshot() {
    let mut rollup = Rollup::new(Sealing::OneSecond);
    // Code that burns all of its gas, more than one block's: the rest waits for the next second.
    let burn = Bytes::from_static(&[0xfe]);
    rollup.apply((0..3).map(|i| sign(i, tx(0, TxKind::Create, 0, burn.clone(), GAS_LIMIT / 3 * 2))).collect());
    let mut bytes = Vec::new();
    while rollup.reader.head().header.number == 0 {
        rollup.apply(vec![]);
    }
    let refused = rollup.reader.write_snapshot(&mut bytes).unwrap_err();
    assert!(matches!(refused, EvmError::Busy(_)), "{refused}");
    for _ in 0..40 {
        rollup.apply(vec![]);
    }
    bytes.clear();
    rollup.reader.write_snapshot(&mut bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_forged_snapshot_is_refused_and_leaves_nothing(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        static HONEST: LazyLock<(B256, Vec<u8>)> = LazyLock::new(|| {
            let (rollup, ..) = lived_in(Sealing::HubBlock, 3);
            (rollup.reader.head().hash, snapshot(&rollup))
        });
        let (trusted, mut bytes) = HONEST.clone();
        let end = bytes.len() - 32;
        // The forger makes the digest right again.
        bytes[at.index(end)] ^= 1 << bit;
        let digest = keccak256(&bytes[..end]);
        bytes[end..].copy_from_slice(digest.as_slice());
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("rollup");
        let refused = restored(&into, &config(Sealing::HubBlock), trusted, &bytes);
        prop_assert!(refused.is_err(), "{refused:?}");
        prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
