use crate::{
    EvmConfig, EvmDriver, EvmReader, EvmRollup,
    records::{FORMAT, FORMAT_OLDEST, IDENTITY, Identity, OUTBOX_FIRST, PendingRecord},
    store::{Column, WriteBatch},
};
use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::Encodable2718,
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use serde_json::json;
use std::{path::Path, sync::Arc};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Admission, Driver, DriverError, Sealing, SegmentInput, evm::EvmChain};

const CONTRACT: Address = Address::repeat_byte(0xcc);
/// Counts its calls.
const CODE: &[u8] = &[0x5f, 0x54, 0x60, 1, 0x01, 0x5f, 0x55];

fn signer() -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(1)).unwrap()
}

fn open(path: &Path) -> (EvmDriver, Arc<EvmReader>) {
    let genesis = json!({
        "config": {
            "chainId": 7, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
            "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0,
            "londonBlock": 0, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "terminalTotalDifficulty": 0,
            "terminalTotalDifficultyPassed": true
        },
        "nonce": "0x0", "timestamp": "0x0", "extraData": "0x", "difficulty": "0x0", "gasLimit": "0x1c9c380",
        "baseFeePerGas": "0x7", "coinbase": Address::ZERO,
        "alloc": {
            signer().address().to_string(): { "balance": U256::MAX >> 1 },
            CONTRACT.to_string(): { "balance": "0x0", "nonce": "0x1", "code": Bytes::from_static(CODE) },
        },
    });
    EvmRollup::open(path, EvmConfig { rollup: RollupId(1), genesis, sealing: Sealing::OneSecond }).unwrap()
}

fn sent(nonce: u64, to: Address) -> Bytes {
    let tx = TxEip1559 {
        chain_id: 7,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 1_000,
        to: TxKind::Call(to),
        ..Default::default()
    };
    let signature = signer().sign_hash_sync(&tx.signature_hash()).unwrap();
    TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
}

fn hub_block(hub_height: u64, timestamp_ms: u64, transactions: &[Bytes]) -> SegmentInput {
    let hub_hash = keccak256(hub_height.to_be_bytes());
    let (hub_root, legs) = (B256::ZERO, Vec::new());
    SegmentInput {
        hub_height,
        hub_hash,
        timestamp_ms,
        hub_root,
        transactions: transactions.to_vec(),
        legs,
        deposits: vec![],
    }
}

fn set_code(driver: &EvmDriver, code: Option<&[u8]>) {
    let (store, hash) = (&driver.chain.store, keccak256(CODE));
    let mut batch = WriteBatch::default();
    match code {
        Some(code) => batch.put_cf(store.column(Column::Code).unwrap(), hash, code),
        None => batch.delete_cf(store.column(Column::Code).unwrap(), hash),
    }
    store.write(batch, false).unwrap();
}

#[test]
fn nothing_of_a_hub_block_that_failed_half_way_is_shown_and_it_can_be_applied_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut driver, reader) = open(folder.path());
    let other = Address::repeat_byte(9);
    let segment = [sent(1, other), sent(2, CONTRACT), sent(3, other)];
    driver.apply(&hub_block(1, 1_000, &[sent(0, other)])).unwrap();
    let before = reader.pending().unwrap();

    // A damaged database: found out by the second transaction, when the first has been executed.
    set_code(&driver, None);
    let failed = driver.apply(&hub_block(2, 1_100, &segment));
    assert!(matches!(&failed, Err(DriverError::Storage(e)) if e.contains("column code")), "{failed:?}");
    let still = reader.pending().unwrap();
    assert!(Arc::ptr_eq(&still, &before));
    assert_eq!(reader.outcome(keccak256(&segment[0])).unwrap(), None);
    assert_eq!(Admission::account(&*reader, signer().address()).unwrap().nonce, 1);
    assert_eq!(EvmChain::account(&*reader, 1, signer().address()).unwrap().unwrap().nonce, 1);

    set_code(&driver, Some(CODE));
    let applied = driver.apply(&hub_block(2, 1_100, &segment)).unwrap();
    assert_eq!((applied.outcomes.len(), applied.executed_to), (3, 2));
    let after = reader.pending().unwrap();
    assert_eq!((after.transactions.len(), &after.transactions[0]), (4, &before.transactions[0]));
    assert_eq!(reader.storage(1, CONTRACT, B256::ZERO).unwrap(), U256::from(1));
    driver.apply(&hub_block(3, 2_000, &[])).unwrap();

    let undisturbed_folder = tempfile::tempdir().unwrap();
    let (mut undisturbed, undisturbed_reader) = open(undisturbed_folder.path());
    undisturbed.apply(&hub_block(1, 1_000, &[sent(0, other)])).unwrap();
    undisturbed.apply(&hub_block(2, 1_100, &segment)).unwrap();
    assert_eq!(undisturbed_reader.pending(), Some(after));
    undisturbed.apply(&hub_block(3, 2_000, &[])).unwrap();
    assert_eq!(undisturbed_reader.head(), reader.head());
}

/// Makes the open database one of format 2.
fn make_old(driver: &EvmDriver) {
    let store = &driver.chain.store;
    let mut batch = WriteBatch::default();
    let meta = store.column(Column::Meta).unwrap();
    let identity: Identity = alloy_rlp::decode_exact(store.get(Column::Meta, IDENTITY).unwrap().unwrap()).unwrap();
    batch.put_cf(meta, IDENTITY, alloy_rlp::encode(Identity { format: FORMAT_OLDEST, ..identity }));
    batch.delete_cf(meta, OUTBOX_FIRST);
    for (key, value) in store.scan(Column::Pending).unwrap() {
        let record: PendingRecord = alloy_rlp::decode_exact(&value).unwrap();
        let old = PendingRecord { hub_root: None, legs: None, ..record };
        batch.put_cf(store.column(Column::Pending).unwrap(), key, alloy_rlp::encode(old));
    }
    for column in [Column::Checkpoints, Column::Votes, Column::OutboxNodes, Column::Messages, Column::MessageIds] {
        for (key, _) in store.scan(column).unwrap() {
            batch.delete_cf(store.column(column).unwrap(), key);
        }
    }
    store.write(batch, true).unwrap();
}

#[test]
fn a_database_of_format_2_is_taken_over_with_what_waits_in_it() {
    let (folder, undisturbed_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = Address::repeat_byte(9);
    let log = [
        hub_block(1, 1_000, &[sent(0, other)]),
        hub_block(2, 2_000, &[sent(1, CONTRACT)]),
        hub_block(3, 2_100, &[sent(2, other), sent(3, CONTRACT)]),
    ];
    let rest = [hub_block(4, 2_200, &[sent(4, other)]), hub_block(5, 3_000, &[])];
    let (mut undisturbed, undisturbed_reader) = open(undisturbed_folder.path());
    let (mut driver, reader) = open(folder.path());
    for input in &log {
        driver.apply(input).unwrap();
        undisturbed.apply(input).unwrap();
    }
    assert_eq!(reader.pending().unwrap().transactions.len(), 3);
    make_old(&driver);
    drop((driver, reader));

    let (mut driver, reader) = open(folder.path());
    let identity = driver.chain.store.get(Column::Meta, IDENTITY).unwrap().map(|bytes| bytes.to_vec()).unwrap();
    assert_eq!(Identity::format_of(&identity), Some(FORMAT));
    assert_eq!(reader.pending(), undisturbed_reader.pending());
    for input in &rest {
        assert_eq!(driver.apply(input).unwrap(), undisturbed.apply(input).unwrap());
    }
    assert_eq!(reader.head(), undisturbed_reader.head());
    // What was made before is not attested, what comes is.
    assert_eq!(reader.checkpoint(1).unwrap(), None);
    assert_eq!(reader.checkpoint(2).unwrap(), undisturbed_reader.checkpoint(2).unwrap());
    assert!(reader.checkpoint(2).unwrap().is_some());
}
