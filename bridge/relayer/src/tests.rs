//! A relayer between two rollups with the real contracts, and a hub that is made by hand: each hub block is one call, and nothing
//! happens in between but rounds.

mod desk;
mod legs;
mod live;
mod refunds;
mod strangers;

use crate::{Failed, Hub, OnHub, Refusal, Registered, Relayer, RelayerParts, Settings, Submit, queue::settled_bits};
use alloy::{
    consensus::{
        SignableTransaction as _, Transaction as _, TxEip1559, TxEnvelope, transaction::SignerRecoverable as _,
    },
    eips::{Decodable2718 as _, Encodable2718 as _},
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol_types::SolCall as _,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, hex, keccak256};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Instant};
use switchyard_bridge_contracts::{IMessageAttributes, Outbox, genesis as contracts, interoperable_address};
use switchyard_bridge_core::{Accumulator, Certified, HubLeaf, NodeId, path, predeploys};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Driver as _, Sealing, SegmentInput, evm::EvmChain};
use switchyard_rollup_evm::{EvmConfig, EvmDriver, EvmReader, EvmRollup, prague_system_contracts};
use tempfile::TempDir;
use tokio::sync::watch;

const A: (RollupId, u64) = (RollupId(1), 71_001);
const B: (RollupId, u64) = (RollupId(2), 71_002);
const GENESIS_S: u64 = 1_700_000_000;
/// Of the first blocks, wei.
const BASE_FEE: u64 = 1_000_000_000;
/// Of a block: a dozen deliveries, by what they state.
const GAS_LIMIT: u64 = 6_000_000;
/// Of each of the user's transactions.
const TX_GAS: u64 = 500_000;
const ETHER: u128 = 1_000_000_000_000_000_000;
/// Passes on what it is called with to the vault, coin too, and reverts if that reverts.
const WALLET: Address = address!("00000000000000000000000000000000000000aa");
const WALLET_CODE: &str = "0x365f5f375f5f365f347353590000000000000000000000000000000000065af115602557005b5f5ffd";

/// Participants of bundles, which always prepare. At the end this one burns all that it is given,
const BURNS: Address = Address::repeat_byte(0xbb);
/// this one burns all but 100,000 of it and succeeds,
const WASTES: Address = Address::repeat_byte(0xbe);
/// this one writes six slots,
const WRITES: Address = Address::repeat_byte(0xbc);
/// and this one burns in blocks of odd numbers only.
const BURNS_IF_ODD: Address = Address::repeat_byte(0xbd);

/// Of a participant whose `commit` and `abort` are the code `end`.
fn participant(end: &str) -> String {
    let prepare = hex::encode(&keccak256("prepare(bytes32,uint8,uint8,address,bytes)")[..4]);
    let at = 14 + end.len() / 2;
    format!("0x5f3560e01c63{prepare}1460{at:02x}57{end}5b63{prepare}60e01b5f5260205ff3")
}

fn key(i: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_slice(&[i; 32]).unwrap()
}

/// Who uses the rollups.
fn user() -> PrivateKeySigner {
    key(1)
}

fn genesis(of: (RollupId, u64), other: Option<(RollupId, u64)>) -> Value {
    let code = |code: &Bytes| json!({ "balance": "0x0", "nonce": "0x1", "code": code.to_string() });
    let mut alloc: Map<String, Value> =
        prague_system_contracts().iter().map(|(address, c)| (address.to_string(), code(c))).collect();
    for (address, account) in other.into_iter().flat_map(|other| contracts(of.0, &[other], &[(other.0, ETHER)])) {
        alloc.insert(address.to_string(), json!(account));
    }
    for rich in [user(), key(2), key(3)] {
        alloc.insert(rich.address().to_string(), json!({ "balance": U256::from(1_000 * ETHER) }));
    }
    // JUMPDEST at 0x0e; JUMPI(0x0e, GAS > 100000); STOP.
    let wastes = "5b5a620186a010600e5700";
    let slots: String = (1..=6).map(|slot| format!("600160{slot:02x}55")).collect();
    let burns_if_odd = "43600116601657005bfe".to_string();
    let codes = [
        (WALLET, WALLET_CODE.to_string()),
        (BURNS, participant("fe")),
        (WRITES, participant(&(slots + "00"))),
        (WASTES, participant(wastes)),
    ];
    for (address, code) in codes.into_iter().chain([(BURNS_IF_ODD, participant(&burns_if_odd))]) {
        alloc.insert(address.to_string(), json!({ "balance": "0x0", "code": code }));
    }
    json!({
        "config": {
            "chainId": of.1, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
            "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0,
            "londonBlock": 0, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "terminalTotalDifficulty": 0,
            "terminalTotalDifficultyPassed": true
        },
        "nonce": "0x0", "timestamp": format!("{GENESIS_S:#x}"), "extraData": "0x", "difficulty": "0x0",
        "gasLimit": format!("{GAS_LIMIT:#x}"), "baseFeePerGas": format!("{BASE_FEE:#x}"),
        "coinbase": "0x0000000000000000000000000000000000000000", "alloc": alloc,
    })
}

struct Rollup {
    of: (RollupId, u64),
    driver: EvmDriver,
    reader: Arc<EvmReader>,
    nonce: u64,
    _folder: TempDir,
}

impl Rollup {
    /// With the contracts, if they know the `other` one.
    fn new(of: (RollupId, u64), other: Option<(RollupId, u64)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = EvmConfig { rollup: of.0, genesis: genesis(of, other), sealing: Sealing::HubBlock };
        let (driver, reader) = EvmRollup::open(folder.path(), config).unwrap();
        Self { of, driver, reader, nonce: 0, _folder: folder }
    }

    /// The user's next transaction.
    fn tx(&mut self, to: Address, value: u128, input: Bytes) -> Bytes {
        let tx = TxEip1559 {
            chain_id: self.of.1,
            nonce: self.nonce,
            gas_limit: TX_GAS,
            max_fee_per_gas: 1_000_000_000_000,
            to: TxKind::Call(to),
            value: U256::from(value),
            input,
            ..TxEip1559::default()
        };
        self.nonce += 1;
        let signature = user().sign_hash_sync(&tx.signature_hash()).unwrap();
        TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
    }

    fn nonce_of(&self, account: Address) -> u64 {
        let head = self.reader.head().header.number;
        self.reader.account(head, account).unwrap().map_or(0, |account| account.nonce)
    }

    fn balance(&self, account: Address) -> U256 {
        let head = self.reader.head().header.number;
        self.reader.account(head, account).unwrap().map_or(U256::ZERO, |account| account.balance)
    }
}

/// What the hub has said.
#[derive(Default)]
struct Said {
    tree: Accumulator,
    nodes: BTreeMap<NodeId, B256>,
    leaves: Vec<HubLeaf>,
    /// Of the tree, after each block.
    counts: Vec<u64>,
    certified: BTreeMap<RollupId, Certified>,
    bundles: BTreeMap<B256, OnHub>,
    /// A rollup that is not what its leaf says.
    stranger: Option<Registered>,
    now_ms: u64,
}

impl Said {
    fn append(&mut self, leaf: HubLeaf) -> u64 {
        let nodes = &mut self.nodes;
        self.leaves.push(leaf);
        self.tree.append(leaf.hash(), |id, hash| assert_eq!(nodes.insert(id, hash), None)).unwrap()
    }
}

struct HandHub(Mutex<Said>);

impl Hub for HandHub {
    fn rollups(&self) -> Vec<Registered> {
        let said = self.0.lock();
        let of = |(leaf, (rollup, chain))| Registered {
            rollup,
            chain,
            leaf,
            certified: said.certified.get(&rollup).copied(),
        };
        (0..).zip([A, B]).map(of).chain(said.stranger).collect()
    }

    fn now_s(&self) -> u64 {
        self.0.lock().now_ms / 1000
    }

    fn count_at(&self, hub_height: u64) -> Result<u64, Failed> {
        Ok(self.0.lock().counts[usize::try_from(hub_height).unwrap()])
    }

    fn root_at(&self, count: u64) -> Result<Option<B256>, Failed> {
        let said = self.0.lock();
        Ok(Accumulator::at(count, |id| said.nodes.get(&id).copied()).map(|tree| tree.root()))
    }

    fn leaves(&self) -> u64 {
        self.0.lock().tree.count()
    }

    fn recent(&self) -> Result<u64, Failed> {
        Ok(0)
    }

    fn leaf(&self, index: u64) -> Result<Option<HubLeaf>, Failed> {
        Ok(self.0.lock().leaves.get(usize::try_from(index).unwrap()).copied())
    }

    fn bundle(&self, id: &B256) -> Result<Option<OnHub>, Failed> {
        Ok(self.0.lock().bundles.get(id).cloned())
    }

    fn path(&self, index: u64, count: u64) -> Result<Option<Vec<B256>>, Failed> {
        let said = self.0.lock();
        Ok(path(index, count, |id| said.nodes.get(&id).copied()))
    }
}

/// A transaction that waits.
struct Waits {
    raw: Bytes,
    tx: TxEnvelope,
    sender: Address,
}

/// What waits for a block, in the order of its arrival.
#[derive(Default)]
struct Pool {
    waiting: Mutex<BTreeMap<RollupId, Vec<Waits>>>,
    /// Takes nothing while this is set.
    is_closed: Mutex<bool>,
    /// The longest transaction that it takes.
    bytes_max: Mutex<Option<usize>>,
    /// Whose transactions no leader takes while this is set.
    passed_over: Mutex<Option<Address>>,
    /// How many it has refused for what they are.
    refused: Mutex<u64>,
}

impl Submit for Pool {
    fn submit(&self, rollup: RollupId, transactions: Vec<Bytes>) -> Vec<Result<(), Refusal>> {
        if *self.is_closed.lock() {
            return vec![Err(Refusal::Other("closed".to_string())); transactions.len()];
        }
        transactions.into_iter().map(|raw| self.add(rollup, raw)).collect()
    }
}

impl Pool {
    fn add(&self, rollup: RollupId, raw: Bytes) -> Result<(), Refusal> {
        let tx = TxEnvelope::decode_2718_exact(&raw).unwrap();
        if self.bytes_max.lock().is_some_and(|most| raw.len() > most) || tx.gas_limit() > GAS_LIMIT {
            *self.refused.lock() += 1;
            return Err(Refusal::Itself(format!("{} bytes, {} gas", raw.len(), tx.gas_limit())));
        }
        let sender = tx.recover_signer().unwrap();
        let mut waiting = self.waiting.lock();
        let waiting = waiting.entry(rollup).or_default();
        match waiting.iter_mut().find(|waits| (waits.sender, waits.tx.nonce()) == (sender, tx.nonce())) {
            Some(waits) if waits.raw == raw => {}
            Some(waits) => {
                let fees = |tx: &TxEnvelope| [tx.max_fee_per_gas(), tx.max_priority_fee_per_gas().unwrap()];
                if fees(&tx).iter().zip(fees(&waits.tx)).any(|(new, old)| *new < old * 110 / 100) {
                    return Err(Refusal::Underpriced("replacement transaction underpriced".to_string()));
                }
                *waits = Waits { raw, tx, sender };
            }
            None => waiting.push(Waits { raw, tx, sender }),
        }
        Ok(())
    }

    /// What fits into a block, each sender's by their nonces; the rest keeps waiting.
    fn take(&self, rollup: &Rollup) -> Vec<Bytes> {
        let mut waiting = self.waiting.lock();
        let waiting = waiting.entry(rollup.of.0).or_default();
        waiting.retain(|waits| waits.tx.nonce() >= rollup.nonce_of(waits.sender));
        let passed_over = *self.passed_over.lock();
        let (base_fee, mut next) = (u128::from(rollup.reader.next_base_fee()), BTreeMap::new());
        let (mut taken, mut left) = (Vec::new(), GAS_LIMIT);
        loop {
            let is_ready = |waits: &Waits| {
                let nonce: &mut u64 = next.entry(waits.sender).or_insert_with(|| rollup.nonce_of(waits.sender));
                let is_next = waits.tx.nonce() == *nonce && Some(waits.sender) != passed_over;
                is_next && waits.tx.max_fee_per_gas() >= base_fee
            };
            let Some(at) = waiting.iter().position(is_ready) else { return taken };
            let Some(less) = left.checked_sub(waiting[at].tx.gas_limit()) else { return taken };
            left = less;
            let Waits { raw, sender, .. } = waiting.remove(at);
            *next.get_mut(&sender).unwrap() += 1;
            taken.push(raw);
        }
    }

    fn len(&self, rollup: RollupId) -> usize {
        self.waiting.lock().get(&rollup).map_or(0, Vec::len)
    }
}

struct Network {
    hub: Arc<HandHub>,
    pool: Arc<Pool>,
    a: Rollup,
    b: Rollup,
    /// To be leaves in the next block.
    leaves: Vec<HubLeaf>,
}

impl Network {
    fn new() -> Self {
        let mut said = Said { now_ms: GENESIS_S * 1000, ..Said::default() };
        for (rollup, chain) in [A, B] {
            said.append(HubLeaf::Rollup { rollup, chain });
        }
        said.counts.push(2);
        Self {
            hub: Arc::new(HandHub(Mutex::new(said))),
            pool: Arc::default(),
            a: Rollup::new(A, Some(B)),
            b: Rollup::new(B, Some(A)),
            leaves: Vec::new(),
        }
    }

    fn chains(&self) -> BTreeMap<RollupId, Arc<dyn EvmChain>> {
        let chain = |rollup: &Rollup| (rollup.of.0, rollup.reader.clone() as Arc<dyn EvmChain>);
        BTreeMap::from([chain(&self.a), chain(&self.b)])
    }

    /// A relayer that has just been started.
    fn relayer(&self, rank: u32) -> Relayer {
        Relayer::new(RelayerParts {
            hub: self.hub.clone(),
            chains: self.chains(),
            submit: self.pool.clone(),
            signer: key(2 + u8::try_from(rank).unwrap()),
            tip: watch::channel(0).1,
            settings: Settings { rank },
        })
    }

    fn round(&self, relayer: &mut Relayer) {
        relayer.round(Instant::now());
    }

    /// Time passes, without a block.
    fn pass(&self, seconds: u64) {
        self.hub.0.lock().now_ms += 1000 * seconds;
    }

    /// The next hub block, 100 ms later: what was executed before is certified in it, and what waits is executed.
    fn block(&mut self) {
        let (height, now_ms, root) = {
            let mut said = self.hub.0.lock();
            for leaf in std::mem::take(&mut self.leaves) {
                let index = said.append(leaf);
                if let HubLeaf::Checkpoint(checkpoint) = leaf {
                    said.certified.insert(checkpoint.rollup, Certified { checkpoint, index });
                }
            }
            said.now_ms += 100;
            let count = said.tree.count();
            said.counts.push(count);
            (said.counts.len() as u64 - 1, said.now_ms, said.tree.root())
        };
        for rollup in [&mut self.a, &mut self.b] {
            let input = SegmentInput {
                hub_height: height,
                hub_hash: B256::from(U256::from(height)),
                timestamp_ms: now_ms,
                hub_root: root,
                transactions: self.pool.take(rollup),
                legs: Vec::new(),
                deposits: Vec::new(),
            };
            let applied = rollup.driver.apply(&input).unwrap();
            self.leaves.extend(applied.checkpoints.into_iter().map(HubLeaf::Checkpoint));
        }
    }

    /// The user's transaction on A waits for the next block.
    fn submit(&mut self, to: Address, value: u128, input: Bytes) -> Bytes {
        let raw = self.a.tx(to, value, input);
        self.pool.add(A.0, raw.clone()).unwrap();
        raw
    }

    /// Coin from A to an account on B waits for the next block.
    fn send(&mut self, to: Address, value: u128, deadline: Option<u64>) {
        let deadline =
            deadline.map(|deadline| IMessageAttributes::deadlineCall { timestamp: deadline }.abi_encode().into());
        let transfer = IMessageAttributes::transferCall {}.abi_encode().into();
        let attributes = deadline.into_iter().chain([transfer]).collect();
        let recipient = interoperable_address(B.1, to);
        let call = Outbox::sendMessageCall { recipient, payload: Bytes::new(), attributes };
        self.submit(predeploys::OUTBOX, value, call.abi_encode().into());
    }

    /// Whether a message of A has arrived on B, or was ended there.
    fn is_settled(&self, index: u64) -> bool {
        settled_bits(&*self.b.reader, B.0, A.0, index).unwrap() != 0
    }
}
