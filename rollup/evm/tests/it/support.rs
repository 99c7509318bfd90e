//! A rollup in a temporary folder, a hub that never disagrees, and accounts that sign.

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope, TypedTransaction},
    eips::Encodable2718,
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Applied, Driver, Sealing, SegmentInput, TxOutcome, evm::EvmChain};
use switchyard_rollup_evm::{EvmConfig, EvmDriver, EvmReader, EvmRollup, prague_system_contracts};
use tempfile::TempDir;

pub(crate) const CHAIN_ID: u64 = 4242;
pub(crate) const GENESIS_SECONDS: u64 = 1_700_000_000;
pub(crate) const GAS_LIMIT: u64 = 30_000_000;
pub(crate) const COINBASE: Address = Address::repeat_byte(0xcb);
pub(crate) const GWEI: u128 = 1_000_000_000;
pub(crate) const ETHER: u128 = 1_000_000_000 * GWEI;

/// Genesis with the system contracts and ten rich accounts (`wallet(0)` to `wallet(9)`).
pub(crate) fn genesis() -> Value {
    genesis_with_gas_limit(GAS_LIMIT)
}

pub(crate) fn genesis_with_gas_limit(gas_limit: u64) -> Value {
    let mut alloc = serde_json::Map::new();
    for (address, code) in prague_system_contracts() {
        alloc.insert(address.to_string(), json!({ "balance": "0x0", "nonce": "0x1", "code": code }));
    }
    for i in 0..10 {
        alloc.insert(wallet(i).address().to_string(), json!({ "balance": U256::from(1_000 * ETHER) }));
    }
    json!({
        "config": {
            "chainId": CHAIN_ID, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
            "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0,
            "londonBlock": 0, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "terminalTotalDifficulty": 0,
            "terminalTotalDifficultyPassed": true
        },
        "nonce": "0x0", "timestamp": format!("{GENESIS_SECONDS:#x}"), "extraData": "0x", "difficulty": "0x0",
        "gasLimit": format!("{gas_limit:#x}"), "baseFeePerGas": "0x3b9aca00", "coinbase": COINBASE, "alloc": alloc,
    })
}

pub(crate) fn wallet(i: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_slice(&[i + 1; 32]).unwrap()
}

pub(crate) fn config(sealing: Sealing) -> EvmConfig {
    EvmConfig { rollup: RollupId(7), genesis: genesis(), sealing }
}

/// An open rollup.
pub(crate) struct Rollup {
    pub(crate) driver: EvmDriver,
    pub(crate) reader: Arc<EvmReader>,
    config: EvmConfig,
    folder: TempDir,
    /// Inside the folder, or the folder itself.
    path: PathBuf,
}

impl Rollup {
    pub(crate) fn new(sealing: Sealing) -> Self {
        Self::with_config(config(sealing))
    }

    pub(crate) fn with_config(config: EvmConfig) -> Self {
        Self::from_image(tempfile::tempdir().unwrap(), config)
    }

    /// A copy of the open database's files.
    pub(crate) fn image(&self) -> TempDir {
        copy(self.path())
    }

    pub(crate) fn from_image(folder: TempDir, config: EvmConfig) -> Self {
        let path = folder.path().into();
        Self::at(folder, path, config)
    }

    /// The database at `path`, which is inside `folder`.
    pub(crate) fn at(folder: TempDir, path: PathBuf, config: EvmConfig) -> Self {
        let (driver, reader) = EvmRollup::open(&path, config.clone()).unwrap();
        Self { driver, reader, config, folder, path }
    }

    /// As [`Self::reopen`], with a copy of the files as they were between.
    pub(crate) fn reopen_and_copy(self) -> (Self, Self) {
        let Self { driver, reader, config, folder, path } = self;
        drop((driver, reader));
        let image = copy(&path);
        (Self::at(folder, path, config.clone()), Self::from_image(image, config))
    }

    /// Closes everything and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self { driver, reader, config, folder, path } = self;
        drop((driver, reader));
        Self::at(folder, path, config)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Applies the next hub block; hub blocks are 100 ms apart.
    pub(crate) fn apply(&mut self, transactions: Vec<Bytes>) -> Applied {
        let height = self.driver.next_hub_height();
        self.driver.apply(&hub_block(height, transactions)).unwrap()
    }

    /// The outcome of one transaction, executed in the head block or skipped.
    pub(crate) fn outcome(&self, tx: &Bytes) -> TxOutcome {
        self.reader.outcome(keccak256(tx)).unwrap().unwrap()
    }

    pub(crate) fn nonce(&self, i: u8) -> u64 {
        let head = self.reader.head().header.number;
        self.reader.account(head, wallet(i).address()).unwrap().map_or(0, |a| a.nonce)
    }

    pub(crate) fn balance(&self, number: u64, address: Address) -> U256 {
        self.reader.account(number, address).unwrap().map_or(U256::ZERO, |a| a.balance)
    }

    /// Hashes of all blocks.
    pub(crate) fn hashes(&self) -> Vec<B256> {
        (0..=self.reader.head().header.number).map(|n| self.reader.block_by_number(n).unwrap().unwrap().hash).collect()
    }
}

fn copy(folder: &Path) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if file.file_name() != "LOCK" {
            std::fs::copy(file.path(), image.path().join(file.file_name())).unwrap();
        }
    }
    image
}

pub(crate) fn hub_block(height: u64, transactions: Vec<Bytes>) -> SegmentInput {
    hub_block_at(height, (GENESIS_SECONDS * 1000).wrapping_add(height.wrapping_mul(100)), transactions)
}

pub(crate) fn hub_block_at(height: u64, timestamp_ms: u64, transactions: Vec<Bytes>) -> SegmentInput {
    let (hub_hash, hub_root, legs, deposits) = (keccak256(height.to_be_bytes()), B256::ZERO, vec![], vec![]);
    SegmentInput { hub_height: height, hub_hash, timestamp_ms, hub_root, transactions, legs, deposits }
}

pub(crate) fn sign(i: u8, tx: impl Into<TypedTransaction>) -> Bytes {
    let tx: TypedTransaction = tx.into();
    let signature = wallet(i).sign_hash_sync(&tx.signature_hash()).unwrap();
    TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
}

/// A transaction of `wallet(i)` that pays well.
pub(crate) fn tx(nonce: u64, to: TxKind, value: u128, input: impl Into<Bytes>, gas_limit: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to,
        value: U256::from(value),
        access_list: Default::default(),
        input: input.into(),
    }
}

pub(crate) fn transfer(i: u8, nonce: u64, to: Address, value: u128) -> Bytes {
    sign(i, tx(nonce, TxKind::Call(to), value, Bytes::new(), 21_000))
}

/// Runtime code of a small contract. Without calldata it returns slot 0; 32 bytes go to slot 0 and into a log with topic
/// 0xaa; anything else reverts with 0xdeadbeef.
pub(crate) const STORE_RUNTIME: [u8; 50] = hex!(
    "3680 15 61001a 57 6020 14 610023 57 63deadbeef 5f 52 6004 601c fd"
    "5b 5f54 5f52 6020 5ff3"
    "5b 5f35 80 5f55 5f52 60aa 6020 5f a1 00"
);

/// Code that deploys `runtime`.
pub(crate) fn init_code(runtime: &[u8]) -> Bytes {
    let length = u8::try_from(runtime.len()).unwrap();
    [&[0x60, length, 0x80, 0x60, 9, 0x5f, 0x39, 0x5f, 0xf3], runtime].concat().into()
}

pub(crate) fn deploy_store(i: u8, nonce: u64) -> (Bytes, Address) {
    let deploy = tx(nonce, TxKind::Create, 0, init_code(&STORE_RUNTIME), 200_000);
    (sign(i, deploy), wallet(i).address().create(nonce))
}

pub(crate) fn word(value: u64) -> Bytes {
    U256::from(value).to_be_bytes_vec().into()
}
