//! What users send to an EVM rollup, here to one that has just begun.

use crate::same;
use alloy::{
    consensus::TxEnvelope,
    eips::{Decodable2718, Encodable2718},
};
use alloy_primitives::{Address, U256};
use futures::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};
use std::{sync::Arc, sync::LazyLock, time::Duration};
use switchyard_bridge_core::SystemState;
use switchyard_primitives::{B256, Bytes, FinalityProof, Header, Limits, RollupId, TxHash, TxKey};
use switchyard_rollup_core::{Admission, Rejection, Sealing, evm::EvmChain};
use switchyard_rollup_evm::{EvmConfig, EvmReader, EvmRollup, prague_system_contracts};
use switchyard_rpc::{
    BlockAt, EpochAt, Gateway, GatewayError, HubTip, NetworkInfo, SegmentAt, TxStatus,
    eth::{EthLimits, fuzz::Requests},
};
use tokio::{
    runtime::Runtime,
    sync::{broadcast, watch},
};

/// The rollup that is asked.
pub(crate) const ROLLUP: RollupId = RollupId(7);
/// Its EIP-155 chain id.
pub(crate) const CHAIN_ID: u64 = 4242;

/// An account that has coins, and its key's bytes.
pub(crate) fn rich() -> (Address, [u8; 32]) {
    let secret = [7; 32];
    let signer = alloy::signers::local::PrivateKeySigner::from_slice(&secret).expect("a key");
    (signer.address(), secret)
}

/// geth's genesis with the system contracts and one rich account.
pub(crate) fn rollup_genesis() -> Value {
    let mut alloc = serde_json::Map::new();
    for (address, code) in prague_system_contracts() {
        alloc.insert(address.to_string(), json!({ "balance": "0x0", "nonce": "0x1", "code": code }));
    }
    alloc.insert(rich().0.to_string(), json!({ "balance": U256::from(10).pow(U256::from(21)) }));
    json!({
        "config": {
            "chainId": CHAIN_ID, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
            "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0,
            "londonBlock": 0, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "terminalTotalDifficulty": 0,
            "terminalTotalDifficultyPassed": true
        },
        "nonce": "0x0", "timestamp": "0x6553f100", "extraData": "0x", "difficulty": "0x0",
        "gasLimit": "0x1c9c380", "baseFeePerGas": "0x3b9aca00", "alloc": alloc,
    })
}

/// The rollup's database; its folder goes at once, the open files do not.
static READER: LazyLock<Arc<EvmReader>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = EvmConfig { rollup: ROLLUP, genesis: rollup_genesis(), sealing: Sealing::HubBlock };
    let (_, reader) = EvmRollup::open(folder.path(), config).expect("a new rollup");
    reader
});

static STATE: LazyLock<Arc<SystemState>> =
    LazyLock::new(|| Arc::new(crate::seeds::genesis().system_state().expect("a genesis")));

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().expect("a runtime")
});

static REQUESTS: LazyLock<Requests> = LazyLock::new(|| {
    let limits = EthLimits {
        read_threads: 1,
        call_threads: 1,
        scan_threads: 1,
        request_timeout: Duration::from_secs(5),
        ..EthLimits::default()
    };
    Requests::new(ROLLUP, Arc::new(Hub(info())), limits).expect("the rollup has an EVM")
});

/// A raw transaction through admission. What is admitted has one encoding.
pub(crate) fn transaction(input: &[u8]) -> bool {
    let payload = Bytes::copy_from_slice(input);
    if READER.inspect(&payload).is_err() {
        return false;
    }
    same(input, TxEnvelope::decode_2718_exact(input).ok().map(|tx| tx.encoded_2718()))
}

/// The body of an HTTP request to the rollup's JSON-RPC. Every answer is JSON.
pub(crate) fn json_rpc(input: &[u8]) -> bool {
    let Some(answer) = RUNTIME.block_on(REQUESTS.answer(input)) else { return false };
    let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
    let answers = answer.as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice);
    assert!(answers.iter().all(|answer| answer.get("result").is_some() != answer.get("error").is_some()));
    // -32700 to -32600: not JSON, not a request, no such method, no such parameters.
    answers
        .iter()
        .all(|answer| answer["error"]["code"].as_i64().is_none_or(|code| !(-32_700..=-32_600).contains(&code)))
}

/// A hub without validators: it takes every transaction and puts none into a block.
struct Hub(NetworkInfo);

fn info() -> NetworkInfo {
    NetworkInfo {
        name: "fuzz".into(),
        id: B256::ZERO,
        genesis_hash: B256::ZERO,
        rollups: Vec::new(),
        limits: Limits::default(),
        client_version: "switchyard/fuzz".into(),
        forwards_submissions: false,
    }
}

impl Gateway for Hub {
    fn info(&self) -> &NetworkInfo {
        &self.0
    }

    fn submit(&self, rollup: RollupId, payloads: Vec<Bytes>) -> BoxFuture<'_, Vec<Result<TxHash, Rejection>>> {
        let admit = |payload: &Bytes| READER.inspect(payload).map(|_| TxKey::of(rollup, payload).hash);
        futures::future::ready(payloads.iter().map(admit).collect()).boxed()
    }

    fn hub_state(&self) -> Arc<SystemState> {
        STATE.clone()
    }

    fn epoch(&self, _: u64) -> Result<Option<EpochAt>, GatewayError> {
        Ok(None)
    }

    fn status(&self, _: TxKey) -> Result<TxStatus, GatewayError> {
        Ok(TxStatus { level: None, included: None, outcome: None, rejection: None })
    }

    fn tip(&self) -> watch::Receiver<HubTip> {
        watch::channel(HubTip { height: 0, hash: B256::ZERO, timestamp_ms: 0 }).1
    }

    fn earliest(&self) -> u64 {
        0
    }

    fn header(&self, _: u64) -> Result<Option<Header>, GatewayError> {
        Ok(None)
    }

    fn segment(&self, _: RollupId, _: u64) -> Result<Option<SegmentAt>, GatewayError> {
        Ok(None)
    }

    fn finality(&self, _: u64) -> Result<Option<FinalityProof>, GatewayError> {
        Ok(None)
    }

    fn finality_run(&self, _: u64) -> Result<Option<FinalityProof>, GatewayError> {
        Ok(None)
    }

    fn block(&self, _: u64) -> Result<Option<BlockAt>, GatewayError> {
        Ok(None)
    }

    fn hub_state_at(&self, _: u64) -> Result<Vec<u8>, GatewayError> {
        Ok(Vec::new())
    }

    fn pending(&self, _: TxKey) -> Option<Bytes> {
        None
    }

    fn pending_nonce(&self, _: RollupId, _: Address) -> Option<u64> {
        None
    }

    fn subscribe_pending(&self, _: RollupId) -> broadcast::Receiver<TxHash> {
        broadcast::channel(1).1
    }

    fn evm(&self, rollup: RollupId) -> Option<Arc<dyn EvmChain>> {
        (rollup == ROLLUP).then(|| READER.clone() as Arc<dyn EvmChain>)
    }

    fn recent_errors(&self) -> Vec<String> {
        Vec::new()
    }
}
