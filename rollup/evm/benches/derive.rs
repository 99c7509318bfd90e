//! How fast the rollup derives: hub blocks of plain transfers from a hundred accounts among a hundred thousand.
#![allow(clippy::unwrap_used, missing_docs)]

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::Encodable2718,
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use std::sync::Arc;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Admission, Driver, Sealing, SegmentInput};
use switchyard_rollup_evm::{EvmConfig, EvmDriver, EvmReader, EvmRollup, prague_system_contracts};

const CHAIN_ID: u64 = 4242;
const ACCOUNTS: u64 = 100_000;
const SENDERS: u64 = 100;

fn wallet(i: u64) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256(i.to_be_bytes())).unwrap()
}

fn receiver(i: u64) -> Address {
    Address::from_word(keccak256((i % ACCOUNTS).to_le_bytes()))
}

fn genesis() -> Value {
    let mut alloc = serde_json::Map::new();
    for (address, code) in prague_system_contracts() {
        alloc.insert(address.to_string(), json!({ "balance": "0x0", "nonce": "0x1", "code": code }));
    }
    for address in (0..SENDERS).map(|i| wallet(i).address()).chain((0..ACCOUNTS).map(receiver)) {
        alloc.insert(address.to_string(), json!({ "balance": "0xd3c21bcecceda1000000" }));
    }
    json!({
        "config": {
            "chainId": CHAIN_ID, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
            "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0,
            "londonBlock": 0, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "terminalTotalDifficulty": 0
        },
        "gasLimit": "0x5f5e100", "difficulty": "0x0", "alloc": alloc,
    })
}

struct Load {
    driver: EvmDriver,
    reader: Arc<EvmReader>,
    sent: u64,
}

impl Load {
    fn segment(&mut self, transfers: u64) -> Vec<Bytes> {
        let first = self.sent;
        self.sent += transfers;
        (first..self.sent).map(transfer).collect()
    }

    fn apply(&mut self, transactions: Vec<Bytes>) {
        let hub_height = self.driver.next_hub_height();
        let hub_hash = B256::from(U256::from(hub_height));
        let (timestamp_ms, hub_root, legs, deposits) = (hub_height * 1000, B256::ZERO, Vec::new(), Vec::new());
        let input = SegmentInput { hub_height, hub_hash, timestamp_ms, hub_root, transactions, legs, deposits };
        self.driver.apply(&input).unwrap();
    }
}

fn transfer(i: u64) -> Bytes {
    let tx = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce: i / SENDERS,
        gas_limit: 21_000,
        max_fee_per_gas: 1_000_000_000_000,
        to: TxKind::Call(receiver(i.wrapping_mul(7919))),
        value: U256::ONE,
        ..Default::default()
    };
    let signature = wallet(i % SENDERS).sign_hash_sync(&tx.signature_hash()).unwrap();
    TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
}

fn derive(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let config = EvmConfig { rollup: RollupId(1), genesis: genesis(), sealing: Sealing::HubBlock };
    let (driver, reader) = EvmRollup::open(folder.path(), config).unwrap();
    let mut load = Load { driver, reader, sent: 0 };
    let mut group = c.benchmark_group("derive");
    for transfers in [50, 500, 2_000] {
        group.throughput(Throughput::Elements(transfers));
        for admitted in [true, false] {
            let load = std::cell::RefCell::new(&mut load);
            group.bench_function(format!("transfers={transfers},admitted={admitted}"), |b| {
                b.iter_batched(
                    || {
                        let segment = load.borrow_mut().segment(transfers);
                        for payload in segment.iter().filter(|_| admitted) {
                            load.borrow().reader.inspect(payload).unwrap();
                        }
                        segment
                    },
                    |segment| load.borrow_mut().apply(segment),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, derive);
criterion_main!(benches);
