use crate::{
    EvmConfig, EvmDriver, EvmReader, EvmRollup,
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
    SegmentInput { hub_height, hub_hash, timestamp_ms, transactions: transactions.to_vec() }
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
