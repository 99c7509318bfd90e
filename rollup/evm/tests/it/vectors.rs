//! A log with everything that Prague has, and the blocks that both sealings make of it, kept in `tests/vectors`: a change
//! of any byte of any block is a change of the derivation rules. `tests/ethereumjs/run.sh` replays the same blocks in an
//! implementation that is not ours. This log is one of protocol versions 1 and 2; one with roots of the hub's accumulator is
//! in `bridge/vectors.rs`.
//!
//! After an intended change of the rules: `UPDATE_VECTORS=1 cargo test --workspace vectors`, and raise the format.

use crate::support::*;
use alloy::{
    consensus::{Block, BlockBody, TxEip2930, TxEip7702, TxLegacy},
    eips::{
        eip2930::{AccessList, AccessListItem},
        eip4895::Withdrawals,
        eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
        eip7702::Authorization,
    },
    signers::SignerSync,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use switchyard_bridge_core::{Deposit, Vote};
use switchyard_rollup_core::{Driver, LegAt, Sealing, SegmentInput, evm::EvmChain};
use switchyard_rollup_evm::EvmConfig;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vectors {
    rollup: u64,
    genesis: Value,
    genesis_hash: B256,
    hub: Vec<HubBlock>,
    /// RLP of each block after genesis, as Ethereum has it.
    one_second: Vec<Bytes>,
    /// The same for a block for each hub block.
    hub_block: Vec<Bytes>,
    /// Of both, what operators sign, and the votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoints: Option<Checkpoints>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Checkpoints {
    one_second: Vec<CheckpointAt>,
    hub_block: Vec<CheckpointAt>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CheckpointAt {
    /// As it is signed.
    encoded: Bytes,
    /// Hashes of its votes.
    votes: Vec<B256>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HubBlock {
    height: u64,
    hash: B256,
    timestamp_ms: u64,
    #[serde(default, skip_serializing_if = "B256::is_zero")]
    root: B256,
    transactions: Vec<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    legs: Vec<LegOf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deposits: Vec<DepositOf>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DepositOf {
    number: u64,
    recipient: Address,
    gwei: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LegOf {
    bundle: B256,
    leg: u8,
    tx: B256,
}

#[test]
fn the_same_log_gives_the_blocks_that_were_published() {
    let vectors = Vectors::derive(config(Sealing::HubBlock), genesis_with_gas_limit(2_000_000), hub_blocks(), false);
    assert!(vectors.one_second.len() > 10 && vectors.hub_block.len() > vectors.one_second.len());
    vectors.check("prague.json");
}

impl Vectors {
    pub(crate) fn derive(config: EvmConfig, genesis: Value, log: Vec<SegmentInput>, with_checkpoints: bool) -> Self {
        let config = |sealing| EvmConfig { genesis: genesis.clone(), sealing, ..config.clone() };
        let (genesis_hash, one_second, of_one_second) = blocks(config(Sealing::OneSecond), &log);
        let (_, hub_block, of_hub_block) = blocks(config(Sealing::HubBlock), &log);
        let checkpoints =
            with_checkpoints.then_some(Checkpoints { one_second: of_one_second, hub_block: of_hub_block });
        let leg = |leg: LegAt| LegOf { bundle: leg.bundle, leg: leg.leg, tx: leg.tx };
        let deposit = |(number, Deposit { recipient, gwei })| DepositOf { number, recipient, gwei };
        let hub = log.into_iter().map(|input| HubBlock {
            height: input.hub_height,
            hash: input.hub_hash,
            timestamp_ms: input.timestamp_ms,
            root: input.hub_root,
            transactions: input.transactions,
            legs: input.legs.into_iter().map(leg).collect(),
            deposits: input.deposits.into_iter().map(deposit).collect(),
        });
        let hub = hub.collect();
        Self { rollup: 7, genesis, genesis_hash, hub, one_second, hub_block, checkpoints }
    }

    /// Compares with what was published.
    pub(crate) fn check(&self, file: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
        if std::env::var_os("UPDATE_VECTORS").is_some() {
            std::fs::write(&path, serde_json::to_string_pretty(self).unwrap() + "\n").unwrap();
        }
        let kept: Self = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept.hub, self.hub, "the log itself has changed");
        assert_eq!(&kept, self);
    }
}

fn blocks(config: EvmConfig, log: &[SegmentInput]) -> (B256, Vec<Bytes>, Vec<CheckpointAt>) {
    let mut rollup = Rollup::with_config(config);
    for input in log {
        rollup.driver.apply(input).unwrap();
    }
    let encoded = |number| {
        let block = rollup.reader.block_by_number(number).unwrap().unwrap();
        let body = BlockBody {
            transactions: block.transactions.clone(),
            ommers: vec![],
            withdrawals: Some(Withdrawals::new(block.withdrawals.clone())),
        };
        alloy_rlp::encode(Block { header: block.header.clone(), body }).into()
    };
    let checkpoint = |number| {
        let kept = rollup.reader.checkpoint(number).unwrap().unwrap();
        CheckpointAt { encoded: kept.checkpoint.encode().into(), votes: kept.votes.iter().map(Vote::hash).collect() }
    };
    let numbers = 1..=rollup.reader.head().header.number;
    (rollup.hashes()[0], numbers.clone().map(encoded).collect(), numbers.map(checkpoint).collect())
}

/// Builds segments; keeps each wallet's nonce.
#[derive(Default)]
struct Script {
    nonces: [u64; 10],
    hub: Vec<SegmentInput>,
    segment: Vec<Bytes>,
}

impl Script {
    fn nonce(&mut self, i: u8) -> u64 {
        let nonce = &mut self.nonces[usize::from(i)];
        *nonce += 1;
        *nonce - 1
    }

    fn send(&mut self, i: u8, to: TxKind, value: u128, input: impl Into<Bytes>, gas: u64) {
        let nonce = self.nonce(i);
        self.segment.push(sign(i, tx(nonce, to, value, input, gas)));
    }

    /// Deploys `runtime` from wallet `i`.
    fn deploy(&mut self, i: u8, runtime: &[u8]) -> Address {
        let address = wallet(i).address().create(self.nonces[usize::from(i)]);
        self.send(i, TxKind::Create, 0, init_code(runtime), 300_000);
        address
    }

    /// Ends the hub block, `ms` after genesis.
    fn hub_block(&mut self, ms: u64) {
        let segment = std::mem::take(&mut self.segment);
        let height = self.hub.len() as u64 + 1;
        self.hub.push(hub_block_at(height, GENESIS_SECONDS * 1000 + ms, segment));
    }
}

fn hub_blocks() -> Vec<SegmentInput> {
    let mut script = Script::default();
    transfers_and_bad_transactions(&mut script);
    contracts(&mut script);
    set_code(&mut script);
    precompiles(&mut script);
    requests(&mut script);
    full_blocks(&mut script);
    script.hub_block(60_000);
    script.hub_block(61_000);
    script.hub
}

fn transfers_and_bad_transactions(script: &mut Script) {
    script.send(0, TxKind::Call(Address::repeat_byte(0x11)), ETHER, Bytes::new(), 21_000);
    script.hub_block(1_100);
    script.segment.push(Bytes::from_static(b"no transaction at all"));
    script.segment.push(transfer(1, 9, Address::ZERO, 1));
    let nonce = script.nonce(1);
    let legacy = TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce,
        gas_price: 7 * GWEI,
        gas_limit: 21_000,
        to: TxKind::Call(Address::repeat_byte(0x12)),
        value: U256::from(5),
        ..Default::default()
    };
    script.segment.push(sign(1, legacy));
    script.hub_block(1_700);
    // Not even one transaction of this one can be executed.
    script.segment.push(transfer(2, 0, Address::ZERO, 5_000 * ETHER));
    script.hub_block(2_300);
    // EIP-7623: the floor is above what execution costs.
    script.send(2, TxKind::Call(Address::repeat_byte(0x13)), 0, vec![1; 2_000], 200_000);
    // To itself, and nothing at all to an account that does not exist.
    script.send(2, TxKind::Call(wallet(2).address()), 1, Bytes::new(), 21_000);
    script.send(2, TxKind::Call(Address::repeat_byte(0x14)), 0, Bytes::new(), 21_000);
    script.hub_block(3_000);
}

fn contracts(script: &mut Script) {
    let store = script.deploy(3, &STORE_RUNTIME);
    script.send(3, TxKind::Call(store), 0, word(41), 100_000);
    script.send(3, TxKind::Call(store), 0, Bytes::from_static(b"revert"), 100_000);
    script.send(3, TxKind::Call(store), 0, word(42), 26_000);
    script.hub_block(4_000);
    // Clears the slot: a refund.
    script.send(3, TxKind::Call(store), 0, word(0), 100_000);
    let list = AccessListItem { address: store, storage_keys: vec![B256::ZERO, B256::with_last_byte(1)] };
    let listed = TxEip2930 {
        chain_id: CHAIN_ID,
        nonce: script.nonce(4),
        gas_price: 9 * GWEI,
        gas_limit: 100_000,
        to: TxKind::Call(store),
        access_list: AccessList(vec![list]),
        input: word(43),
        ..Default::default()
    };
    script.segment.push(sign(4, listed));
    // Environment: number, timestamp, prevrandao, base fee, blob base fee, coinbase, gas limit, chain id, self balance and
    // two block hashes, each to its slot.
    let environment = script.deploy(
        4,
        &hex!(
            "43 5f 55 42 6001 55 44 6002 55 48 6003 55 4a 6004 55 41 6005 55 45 6006 55 46 6007 55 47 6008 55"
            "6001 43 03 40 6009 55 6003 43 03 40 600a 55 00"
        ),
    );
    script.hub_block(5_000);
    script.send(4, TxKind::Call(environment), 17, Bytes::new(), 500_000);
    // CREATE2 of empty code and of the creator's calldata; transient storage; mcopy; logs with four topics.
    let factory = script.deploy(4, &hex!("36 5f 5f 37 60aa 36 5f 5f f5 5f 55 6001 6002 5d 6002 5c 6001 55 6020 5f 6040 5e 6004 6003 6002 6001 6020 5f a4 00"));
    script.send(4, TxKind::Call(factory), 0, init_code(&STORE_RUNTIME), 500_000);
    // The same address again: a collision, so CREATE2 gives zero.
    script.send(4, TxKind::Call(factory), 0, init_code(&STORE_RUNTIME), 1_000_000);
    script.hub_block(6_000);
    // Made and destroyed in one transaction; and a contract of its own that only sends its balance away (EIP-6780).
    script.send(5, TxKind::Create, 7, Bytes::from_static(&hex!("6001 5f 55 33 ff")), 200_000);
    let mortal = script.deploy(5, &hex!("33 ff"));
    script.send(5, TxKind::Call(mortal), 9, Bytes::new(), 100_000);
    script.send(5, TxKind::Call(mortal), 0, Bytes::new(), 100_000);
    // Out of gas, invalid opcode, code that starts with 0xEF (EIP-3541), init code that reverts.
    let endless = script.deploy(5, &hex!("5b 5f 56"));
    script.send(5, TxKind::Call(endless), 1, Bytes::new(), 60_000);
    script.send(5, TxKind::Create, 0, Bytes::from_static(&[0xfe]), 60_000);
    script.send(5, TxKind::Create, 0, Bytes::from_static(&hex!("60ef 5f 53 6001 5f f3")), 100_000);
    script.send(5, TxKind::Create, 0, Bytes::from_static(&hex!("5f 5f fd")), 100_000);
    script.hub_block(7_000);
}

/// EIP-7702: delegate, use, delegate again by somebody else's transaction, and clear; one authorization is stale.
fn set_code(script: &mut Script) {
    let store = script.deploy(6, &STORE_RUNTIME);
    let authorize = |i: u8, address: Address, nonce: u64, chain_id: u64| {
        let authorization = Authorization { chain_id: U256::from(chain_id), address, nonce };
        let signature = wallet(i).sign_hash_sync(&authorization.signature_hash()).unwrap();
        authorization.into_signed(signature)
    };
    let set = |script: &mut Script, list: Vec<_>, input: Bytes| {
        let set = TxEip7702 {
            chain_id: CHAIN_ID,
            nonce: script.nonce(6),
            gas_limit: 300_000,
            max_fee_per_gas: 100 * GWEI,
            max_priority_fee_per_gas: 2 * GWEI,
            to: wallet(7).address(),
            authorization_list: list,
            input,
            ..Default::default()
        };
        script.segment.push(sign(6, set));
    };
    set(script, vec![authorize(7, store, 0, CHAIN_ID), authorize(8, store, 5, CHAIN_ID)], word(70));
    script.hub_block(8_000);
    script.nonces[7] = 1;
    script.send(7, TxKind::Call(wallet(7).address()), 0, word(71), 100_000);
    script.send(6, TxKind::Call(wallet(7).address()), 3, Bytes::new(), 100_000);
    script.hub_block(9_000);
    // Any chain's authorization (chain id 0) clears it; one for another chain does nothing.
    set(script, vec![authorize(7, Address::ZERO, 2, 0), authorize(8, store, 0, 1)], Bytes::new());
    script.nonces[7] = 3;
    script.send(7, TxKind::Call(Address::repeat_byte(0x15)), 1, Bytes::new(), 21_000);
    script.hub_block(10_000);
}

/// Every precompile of Prague with input that it takes, and with input that it does not.
fn precompiles(script: &mut Script) {
    // Calls the precompile that calldata's first word names with the rest; keeps the output's hash and the success.
    let prober = script
        .deploy(8, &hex!("6020 36 03 80 6020 5f 37 5f 5f 91 5f 5f 35 5a f1 5f 55 3d 5f 5f 3e 3d 5f 20 6001 55 00"));
    for precompile in 1u64..=0x11 {
        for input in precompile_inputs(precompile) {
            script.send(8, TxKind::Call(prober), 0, [word(precompile), input].concat(), 600_000);
        }
        if precompile % 4 == 0 {
            script.hub_block(10_000 + precompile * 1_000);
        }
    }
    script.hub_block(29_000);
}

fn precompile_inputs(precompile: u64) -> Vec<Bytes> {
    let zeros = |n: usize| Bytes::from(vec![0; n]);
    let good = match precompile {
        // ecrecover of a signature of wallet 0.
        1 => {
            let hash = B256::repeat_byte(0x42);
            let signature = wallet(0).sign_hash_sync(&hash).unwrap();
            let v = U256::from(27 + u8::from(signature.v())).to_be_bytes::<32>();
            let (r, s) = (signature.r().to_be_bytes::<32>(), signature.s().to_be_bytes::<32>());
            Bytes::from([hash.as_slice(), &v, &r, &s].concat())
        }
        2..=4 => Bytes::from_static(b"switchyard"),
        // 3^5 mod 7.
        5 => [word(1), word(1), word(1), Bytes::from_static(&[3, 5, 7])].concat().into(),
        // (1, 2) + (1, 2) and (1, 2) * 9 on bn254.
        6 => [word(1), word(2), word(1), word(2)].concat().into(),
        7 => [word(1), word(2), word(9)].concat().into(),
        // The empty product of pairings, of bn254 and of BLS12-381 further down.
        8 => Bytes::new(),
        // Twelve rounds of BLAKE2b over nothing.
        9 => [&[0, 0, 0, 12][..], &[0; 208], &[1]].concat().into(),
        // The zero polynomial's commitment and proof are the point at infinity.
        10 => {
            let infinity = [&[0xc0][..], &[0; 47]].concat();
            let hash = hex!("010657f37554c781402a22917dee2f75def7ab966d7b770905398eba3c444014");
            [&hash[..], &[0; 64], &infinity, &infinity].concat().into()
        }
        // Infinity plus infinity, times one, mapped from zero.
        11 => zeros(256),
        12 => zeros(160),
        13 => zeros(512),
        14 => zeros(288),
        15 => zeros(384),
        16 => zeros(64),
        _ => zeros(128),
    };
    vec![good, Bytes::from(vec![0xff; 300])]
}

/// EIP-7002: a withdrawal request makes the block's requests hash another than that of no requests.
fn requests(script: &mut Script) {
    let request = [&[0xab; 48][..], &1_000u64.to_be_bytes()].concat();
    script.send(9, TxKind::Call(WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS), 1, request, 300_000);
    script.hub_block(30_000);
}

/// More than blocks hold: what is left over comes later, and the base fee rises.
fn full_blocks(script: &mut Script) {
    let endless = script.deploy(0, &hex!("5b 5f 56"));
    for round in 0..4 {
        for i in 0..10 {
            script.send(i, TxKind::Call(endless), 0, Bytes::new(), 400_000);
        }
        script.hub_block(31_000 + round * 700);
    }
    script.hub_block(45_000);
}
