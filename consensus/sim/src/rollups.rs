//! The EVM rollups that a validator executes, and its operator.

use crate::{
    bundles,
    context::Context,
    messages, relays,
    witness::Witness,
    world::{World, chain_id},
};
use alloy::{
    consensus::{SignableTransaction as _, TxEip1559, TxEnvelope},
    eips::Encodable2718 as _,
    primitives::{Address, Bytes, TxKind, U256},
    signers::{SignerSync as _, local::PrivateKeySigner},
};
use commonware_runtime::{Spawner as _, Supervisor as _};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use switchyard_bridge_core::predeploys::INBOX;
use switchyard_consensus_engine::GossipSender;
use switchyard_mempool::Mempool;
use switchyard_node::{
    attest::{Attest, AttestParts, Operator, Pool},
    executor::Executor,
    hub::HubStates,
    machine::Machine,
    metrics::Metrics,
    records::Records,
};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{
    Applied, Driver, DriverError, Sealing, SegmentInput,
    evm::{EvmChain, EvmError},
};
use switchyard_rollup_evm::{EvmConfig, EvmDriver, EvmReader, EvmRollup, prague_system_contracts};
use switchyard_rpc::HubTip;
use switchyard_store::Store;
use tokio::sync::watch;

/// An operator looks again after so long without any event.
const ATTEST_EVERY: Duration = Duration::from_secs(2);

/// Whoever sends transactions on the EVM rollup.
pub const SENDER_SECRET: [u8; 32] = [0x51; 32];

/// A rollup whose database is open.
pub struct OpenRollup {
    /// Which.
    pub rollup: RollupId,
    /// Its only writer.
    driver: EvmDriver,
    /// What others read.
    pub reader: Arc<EvmReader>,
}

impl OpenRollup {
    /// Opens a rollup's database in a validator's folder.
    pub fn new(world: &World, rollup: RollupId, folder: &Path) -> Self {
        let path = folder.join(format!("evm-{rollup}"));
        std::fs::create_dir_all(&path).expect("the run's own folder");
        let evm = EvmConfig { rollup, genesis: genesis(world, rollup), sealing: Sealing::default() };
        let (driver, reader) = EvmRollup::open(&path, evm).expect("a rollup in the run's own folder");
        Self { rollup, driver, reader }
    }
}

/// Who has coin in an EVM rollup's genesis: one rich account, and with a bridge the parties of bundles, the senders of messages, what
/// Inboxes may pay out for these, and the relayers.
pub fn funds(world: &World) -> Vec<(Address, U256)> {
    let rich = PrivateKeySigner::from_bytes(&SENDER_SECRET.into()).expect("a secret").address();
    let mut funds = vec![(rich, (U256::ONE << 112) - U256::ONE)];
    if world.hub.bridge().is_some() {
        funds.extend(relays::accounts().map(|account| (account, U256::from(1_000_000_000_000_000_000u64))));
        funds.extend(bundles::funds().chain(messages::funds()));
        funds.push((INBOX, U256::from(messages::FREE) * U256::from(world.evms.len() - 1)));
    }
    funds
}

/// A signed transaction, encoded.
pub fn transaction(
    signer: &PrivateKeySigner,
    rollup: RollupId,
    nonce: u64,
    to: Address,
    value: U256,
    input: Bytes,
    gas_limit: u64,
) -> Bytes {
    let tx = TxEip1559 {
        chain_id: chain_id(rollup),
        nonce,
        gas_limit,
        max_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(to),
        value,
        input,
        ..Default::default()
    };
    let signature = signer.sign_hash_sync(&tx.signature_hash()).expect("a key in memory");
    TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
}

/// An EVM rollup's genesis; with a bridge it has the contracts.
fn genesis(world: &World, rollup: RollupId) -> Value {
    let funded = funds(world).into_iter().map(|(account, wei)| (account.to_string(), json!({ "balance": wei })));
    let mut alloc = Map::from_iter(funded);
    if world.hub.bridge().is_some() {
        for (address, code) in prague_system_contracts() {
            alloc.insert(address.to_string(), json!({ "balance": "0x0", "nonce": "0x1", "code": code }));
        }
        let others = || world.evms.iter().filter(|other| **other != rollup);
        let known: Vec<_> = others().map(|other| (*other, chain_id(*other))).collect();
        let funds: Vec<_> = others().map(|other| (*other, messages::FREE)).collect();
        for (address, account) in switchyard_bridge_contracts::genesis(rollup, &known, &funds) {
            alloc.insert(address.to_string(), json!(account));
        }
    }
    json!({
        "config": {
            "chainId": chain_id(rollup), "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
            "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0,
            "londonBlock": 0, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "terminalTotalDifficulty": 0,
            "terminalTotalDifficultyPassed": true
        },
        "nonce": "0x0", "timestamp": "0x0", "extraData": "0x", "difficulty": "0x0", "gasLimit": "0x1c9c380",
        "baseFeePerGas": "0x7", "coinbase": "0x0000000000000000000000000000000000000000",
        "alloc": alloc,
    })
}

/// The parts of a validator's life that run its rollups.
pub struct Running {
    /// The validator.
    pub index: usize,
    /// The network.
    pub world: Arc<World>,
    /// Told of what it derives.
    pub witness: Arc<Witness>,
    /// Its view of the hub's state.
    pub hub: HubStates,
    /// Its log.
    pub store: Arc<dyn Store>,
    /// Its mempool.
    pub mempool: Arc<Mempool>,
    /// Its durable tip.
    pub tip: watch::Receiver<HubTip>,
    /// Where operators' words are collected.
    pub pool: Arc<Pool>,
    /// Its operator, if it has one.
    pub operator: Option<Operator>,
    /// Its way to the others.
    pub gossip: GossipSender,
    /// Where it hands on what it would put into the log.
    pub records: Records,
    /// Where it keeps what it finds certified and has not computed.
    pub evidence: PathBuf,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Its machine.
    pub machine: Arc<dyn Machine>,
}

impl Running {
    /// Executes, compares and attests until one of them fails, and says which and why.
    pub async fn run(self, context: Context, opened: Vec<OpenRollup>) -> String {
        let closed = watch::channel(0).0;
        let mut nexts = BTreeMap::<RollupId, Arc<AtomicU64>>::new();
        let readers = opened.iter().map(|open| (open.rollup, open.reader.clone() as Arc<dyn EvmChain>)).collect();
        let (mut tasks, mut told) = (Vec::new(), Vec::new());
        for OpenRollup { rollup, driver, reader } in opened {
            let witness = self.witness.clone();
            let driver = Watched { inner: driver, index: self.index, rollup, reader: reader.clone(), witness };
            let executor = Executor {
                rollup,
                driver,
                store: self.store.clone(),
                mempool: self.mempool.clone(),
                closed: closed.clone(),
                tip: self.tip.clone(),
                next: nexts.entry(rollup).or_default().clone(),
                metrics: self.metrics.clone(),
            };
            let (tick, ticks) = watch::channel(());
            told.push(tick);
            let halted = self.world.halted.clone();
            let halted = move || halted.lock().contains(&rollup);
            tasks.push(context.child("executor").spawn(move |_| execute(executor, ticks, halted)));
        }
        if self.hub.tip().bridge().is_some() {
            let attest = Attest::new(AttestParts {
                hub: self.hub,
                store: self.store,
                chains: readers,
                next: nexts,
                tip: self.tip.clone(),
                closed: closed.subscribe(),
                operator: self.operator,
                pool: self.pool,
                gossip: Some(self.gossip),
                records: self.records,
                evidence: self.evidence,
                metrics: self.metrics,
            });
            let (tick, ticks) = watch::channel(());
            told.push(tick);
            let (heard, machine) = (closed.subscribe(), self.machine);
            tasks.push(context.child("attestation").spawn(move |_| run_attest(attest, machine, ticks, heard)));
        }
        if tasks.is_empty() {
            return std::future::pending().await;
        }
        let tip = self.tip;
        tasks.push(context.child("tip").spawn(move |_| tell(tip, told)));
        let (ended, ..) = futures::future::select_all(tasks).await;
        match ended {
            Ok(how) => how,
            Err(error) => error.to_string(),
        }
    }
}

/// Tells tasks of the tip, in their order: of several that wait on one channel of tokio's, chance says which is woken first.
async fn tell(mut tip: watch::Receiver<HubTip>, told: Vec<watch::Sender<()>>) -> String {
    while tip.changed().await.is_ok() {
        told.iter().for_each(|task| task.send_replace(()));
    }
    "the node has ended".into()
}

async fn run_attest(
    mut attest: Attest,
    machine: Arc<dyn Machine>,
    mut tip: watch::Receiver<()>,
    mut closed: watch::Receiver<u64>,
) -> String {
    loop {
        tip.mark_unchanged();
        closed.mark_unchanged();
        if let Err(error) = attest.round(machine.instant()) {
            return format!("attestation: {error}");
        }
        let more = tokio::select! {
            biased;
            changed = tip.changed() => changed.is_ok(),
            changed = closed.changed() => changed.is_ok(),
            () = machine.sleep(ATTEST_EVERY) => true,
        };
        if !more {
            return "attestation: the node has ended".into();
        }
    }
}

async fn execute<D: Driver>(
    mut executor: Executor<D>,
    mut tip: watch::Receiver<()>,
    halted: impl Fn() -> bool,
) -> String {
    loop {
        if let Err(error) = executor.catch_up(&halted) {
            return format!("execution: {error}");
        }
        if tip.changed().await.is_err() {
            return "execution: the node has ended".into();
        }
    }
}

/// A driver whose checkpoints are told to the witness.
struct Watched<D> {
    inner: D,
    index: usize,
    rollup: RollupId,
    reader: Arc<EvmReader>,
    witness: Arc<Witness>,
}

impl<D: Driver> Driver for Watched<D> {
    fn next_hub_height(&self) -> u64 {
        self.inner.next_hub_height()
    }

    fn apply(&mut self, input: &SegmentInput) -> Result<Applied, DriverError> {
        let applied = self.inner.apply(input)?;
        for checkpoint in &applied.checkpoints {
            let place = (self.rollup, checkpoint.number);
            self.witness.derived(self.index, place, checkpoint.hash(), checkpoint.state_root);
            if let Ok(Some(block)) = self.reader.block_by_number(checkpoint.number) {
                self.witness.executed(self.rollup, &block, |account| {
                    let found = self.reader.account(checkpoint.number, account)?;
                    Ok::<_, EvmError>(found.map_or(U256::ZERO, |account| account.balance))
                });
            }
        }
        Ok(applied)
    }
}
