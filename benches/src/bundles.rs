//! Bundles of two legs over two rollups: from when each was due to its decision, as one who reads the hub's records sees it.

use crate::{
    evm::fund,
    report::{Latency, Quantiles},
    rpc::Rpc,
    target::Target,
    wallet::accounts,
};
use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, B256, U256};
use clap::Args;
use eyre::{Result, WrapErr, bail, ensure};
use serde::Serialize;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use switchyard_bridge_client::{
    Account, BundleDraft, Client, ClientError, Leg, Move, MoveKind, SignedBundle, Tx, assemble, sign,
};
use switchyard_bridge_core::{Ballot, BridgeRecord, predeploys::ATOMIC_VAULT};
use switchyard_primitives::{Header, RollupId};
use switchyard_proto::v1::{Level, StreamSegmentsRequest};
use tokio::{
    sync::{Mutex, Semaphore, mpsc},
    task::JoinSet,
    time::sleep,
};

/// Calls under way.
const CALLS_MAX: usize = 1024;
/// Gas of a leg that gives one move of coin.
const LEG_GAS: u64 = 220_000;
/// High enough for the base fees of a run.
const BASE_FEE_WEI: u64 = 20_000_000_000;
/// Requests under way while accounts are funded.
const REQUESTS_MAX: usize = 64;
const RETRY: Duration = Duration::from_millis(50);

/// Load of bundles on a running network.
#[derive(Debug, Args)]
pub struct BundlesArguments {
    /// The network: folder of a local one
    #[arg(long, default_value = "./testnet-data")]
    dir: PathBuf,
    /// Bundles a second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// As fast as the network decides them instead of at a rate: keeps this many undecided
    #[arg(long, conflicts_with = "rate")]
    window: Option<usize>,
    /// Seconds for which new bundles are due
    #[arg(long, default_value_t = 30.0)]
    duration: f64,
    /// Seconds to wait for the last decisions after that
    #[arg(long, default_value_t = 30.0)]
    grace: f64,
    /// Accounts that sign, each on both rollups
    #[arg(long, default_value_t = 200)]
    accounts: usize,
    /// Hub blocks from a bundle's signing to its deadline
    #[arg(long, default_value_t = 1200)]
    deadline: u64,
    /// Write the result to this file as JSON
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What came of a run.
#[derive(Debug, Serialize)]
struct Report {
    sent: u64,
    refused: u64,
    committed: u64,
    aborted: u64,
    undecided: u64,
    committed_per_second: f64,
    accepted: Quantiles,
    decided: Quantiles,
    /// Hub blocks from the tip when a bundle was due to the one that decided.
    decided_blocks: Blocks,
    /// To the one with its legs.
    included_blocks: Blocks,
    /// From that one to the decision.
    legs_to_decision_blocks: Blocks,
    /// From the last decision until both vaults held nothing more; none if they still do at the end.
    settled_after_ms: Option<u64>,
}

/// Numbers of hub blocks.
#[derive(Debug, Serialize)]
struct Blocks {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Blocks {
    fn of(counts: &mut [u64]) -> Self {
        counts.sort_unstable();
        let at = |part: usize| {
            counts.get((counts.len() * part / 100).min(counts.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// A bundle that is not decided.
struct Open {
    due: Instant,
    tip: u64,
    /// Height of the block with its legs, once its record was seen.
    legs: u64,
    /// Yeses by leg.
    votes: [bool; 2],
}

#[derive(Default)]
struct Ledger {
    open: HashMap<B256, Open>,
    accepted: Latency,
    decided: Latency,
    /// From due to decision, from due to legs, from there to the decision.
    blocks: [Vec<u64>; 3],
    refused: u64,
    reasons: HashMap<String, u64>,
    committed: u64,
    aborted: u64,
    last: Option<Instant>,
}

/// Runs the load and prints what came of it. 0, or 1 where a bundle is undecided at the end.
pub async fn run(arguments: BundlesArguments) -> Result<u8> {
    let target = Target::open(None, &arguments.dir).await?;
    let rollups = target.rollups(&[], true)?;
    let [a, b, ..] = rollups[..] else { bail!("bundles need two EVM rollups") };
    ensure!(arguments.rate > 0.0 && arguments.rate <= 10_000.0, "--rate {}: 0 to 10,000", arguments.rate);
    ensure!(arguments.accounts > 0, "--accounts must be at least 1");
    let keys = accounts(rand::random(), arguments.accounts)?;
    let (mut chains, mut rpcs) = ([0; 2], Vec::new());
    for (rollup, chain) in [a, b].into_iter().zip(&mut chains) {
        let served = target.json_rpc(rollup);
        *chain = served.first().map_or(0, |served| served.chain_id);
        let rpc = Rpc::new(served.iter().map(|served| served.http.clone()).collect(), REQUESTS_MAX)?;
        fund(&rpc, *chain, &keys).await.wrap_err("funding the accounts")?;
        rpcs.push(rpc);
    }

    let (ledger, tip) = (Arc::new(Mutex::new(Ledger::default())), Arc::new(AtomicU64::new(target.tip())));
    let open = Arc::new(Semaphore::new(arguments.window.unwrap_or(Semaphore::MAX_PERMITS / 2)));
    let follower = tokio::spawn(follow(target.clone(), ledger.clone(), tip.clone(), open.clone()));
    let (to_sign, mut signed) = mpsc::channel(256);
    let signer = Signer { keys: keys.clone(), rollups: [a, b], chains, blocks: arguments.deadline, tip: tip.clone() };
    std::thread::spawn(move || signer.run(&to_sign));
    while signed.len() < 64 {
        sleep(RETRY).await;
    }

    let (mut calls, slots) = (JoinSet::new(), Arc::new(Semaphore::new(CALLS_MAX)));
    let (start, mut sent) = (Instant::now(), 0u64);
    let end = start + Duration::from_secs_f64(arguments.duration);
    loop {
        let due = match arguments.window {
            Some(_) => {
                // Given back with the decision.
                let turn = tokio::time::timeout_at(end.into(), open.acquire()).await;
                let Ok(Ok(turn)) = turn else { break };
                turn.forget();
                Instant::now()
            }
            None => start + Duration::from_secs_f64(sent as f64 / arguments.rate),
        };
        if due >= end {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let Some((account, bundle)) = signed.recv().await else { break };
        let slot = slots.clone().acquire_owned().await?;
        // An account's bundles go one way, so that they come in order.
        let (client, ledger) = (Client::over(target.channel(account)), ledger.clone());
        let (height, open) = (tip.load(Ordering::Relaxed), open.clone());
        sent += 1;
        calls.spawn(async move {
            if !submit(client, ledger, &bundle, due, height).await {
                open.add_permits(1);
            }
            drop(slot);
        });
        while calls.try_join_next().is_some() {}
    }
    drop(signed);
    while calls.join_next().await.is_some() {}
    let grace = Instant::now() + Duration::from_secs_f64(arguments.grace);
    while Instant::now() < grace && !ledger.lock().await.open.is_empty() {
        sleep(RETRY).await;
    }
    follower.abort();
    let mut ledger = ledger.lock().await;
    let seconds = ledger.last.map_or(1.0, |last| last.duration_since(start).as_secs_f64());
    let settled = settled(&rpcs, Instant::now() + Duration::from_secs_f64(arguments.grace)).await?;
    let after_ms = |settled: Instant| ledger.last.map(|last| settled.duration_since(last).as_millis());
    let settled_after_ms = settled.and_then(after_ms).and_then(|ms| u64::try_from(ms).ok());
    let [decided, included, from_legs] = &mut ledger.blocks;
    let (decided, included, from_legs) = (Blocks::of(decided), Blocks::of(included), Blocks::of(from_legs));
    let report = Report {
        sent,
        refused: ledger.refused,
        committed: ledger.committed,
        aborted: ledger.aborted,
        undecided: ledger.open.len() as u64,
        committed_per_second: ledger.committed as f64 / seconds,
        accepted: ledger.accepted.quantiles(),
        decided: ledger.decided.quantiles(),
        decided_blocks: decided,
        included_blocks: included,
        legs_to_decision_blocks: from_legs,
        settled_after_ms,
    };
    println!("{}", serde_json::to_string_pretty(&report)?);
    for (reason, count) in &ledger.reasons {
        println!("refused {count}: {reason}");
    }
    if let Some(path) = &arguments.out {
        crate::cli::write_json(path, &report)?;
    }
    Ok(u8::from(report.undecided > 0))
}

/// Signs bundles ahead: round the accounts, each with its next nonce.
struct Signer {
    keys: Vec<PrivateKeySigner>,
    rollups: [RollupId; 2],
    chains: [u64; 2],
    blocks: u64,
    tip: Arc<AtomicU64>,
}

impl Signer {
    fn run(&self, out: &mpsc::Sender<(usize, SignedBundle)>) {
        for number in 0u64.. {
            let account = usize::try_from(number).unwrap_or(0) % self.keys.len();
            let nonce = number / self.keys.len() as u64;
            let Ok(bundle) = self.sign(&self.keys[account], number, nonce) else { return };
            if out.blocking_send((account, bundle)).is_err() {
                return;
            }
        }
    }

    fn sign(&self, key: &PrivateKeySigner, number: u64, nonce: u64) -> Result<SignedBundle, ClientError> {
        let give = |rollup| {
            let to = Address::repeat_byte(0xb5);
            let (kind, amount) = (MoveKind::Coin, U256::from(1));
            let given = Move { kind, token: Address::ZERO, amount, to, refund: key.address() };
            Leg { rollup, signer: key.address(), moves: vec![given], calls: vec![] }
        };
        let draft = BundleDraft {
            deadline: self.tip.load(Ordering::Relaxed) + self.blocks,
            salt: B256::from(U256::from(number)),
            legs: self.rollups.into_iter().map(give).collect(),
        };
        let mut transactions = Vec::with_capacity(2);
        for (call, chain_id) in draft.calls().into_iter().zip(self.chains) {
            let account = Account { chain_id, nonce, balance: U256::MAX, base_fee: BASE_FEE_WEI };
            transactions.push(sign(key, &account, Tx::Leg(call, LEG_GAS))?.1.0.into());
        }
        Ok(assemble(transactions)?)
    }
}

/// Whether it was taken.
async fn submit(mut client: Client, ledger: Arc<Mutex<Ledger>>, bundle: &SignedBundle, due: Instant, tip: u64) -> bool {
    let id = bundle.id();
    ledger.lock().await.open.insert(id, Open { due, tip, legs: 0, votes: [false; 2] });
    let result = client.submit_bundle(bundle).await;
    let mut ledger = ledger.lock().await;
    match result {
        Ok(_) => {
            ledger.accepted.record(due.elapsed());
            true
        }
        Err(error) => {
            ledger.refused += 1;
            *ledger.reasons.entry(error.code()).or_default() += 1;
            ledger.open.remove(&id).is_none()
        }
    }
}

/// Reads the hub's records. Never returns.
async fn follow(target: Target, ledger: Arc<Mutex<Ledger>>, tip: Arc<AtomicU64>, open: Arc<Semaphore>) {
    for validator in 0.. {
        let request = StreamSegmentsRequest {
            rollup_id: RollupId::SYSTEM.0,
            from_height: tip.load(Ordering::Relaxed) + 1,
            to_height: None,
            level: Level::Final.into(),
            merge_empty: false,
        };
        if let Ok(stream) = target.blocks(validator).stream_segments(request).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                let mut ledger = ledger.lock().await;
                for block in &message.blocks {
                    let Ok(header) = Header::decode(&block.header) else { continue };
                    tip.fetch_max(header.height, Ordering::Relaxed);
                    for record in &block.transactions {
                        open.add_permits(ledger.note(header.height, record));
                    }
                }
            }
        }
        sleep(RETRY).await;
    }
}

impl Ledger {
    /// How many bundles a record has decided.
    fn note(&mut self, height: u64, record: &[u8]) -> usize {
        let certificate = match BridgeRecord::decode(record) {
            Ok(BridgeRecord::Certificate(certificate)) => certificate,
            Ok(BridgeRecord::Bundle(bundle)) => {
                self.open.entry(bundle.id()).and_modify(|open| open.legs = height);
                return 0;
            }
            _ => return 0,
        };
        let mut decided = 0;
        for vote in certificate.entries.iter().flat_map(|entry| &entry.votes) {
            let Some(open) = self.open.get_mut(&vote.bundle) else { continue };
            let yes = vote.ballot == Ballot::Yes;
            if let Some(of_leg) = open.votes.get_mut(usize::from(vote.leg)) {
                *of_leg = yes;
            }
            if yes && open.votes != [true; 2] {
                continue;
            }
            let Some(Open { due, tip, legs, .. }) = self.open.remove(&vote.bundle) else { continue };
            decided += 1;
            if !yes {
                self.aborted += 1;
                continue;
            }
            self.committed += 1;
            self.decided.record(due.elapsed());
            for (counts, (from, to)) in self.blocks.iter_mut().zip([(tip, height), (tip, legs), (legs, height)]) {
                counts.push(to.saturating_sub(from));
            }
            self.last = Some(Instant::now());
        }
        decided
    }
}

/// When the vaults hold nothing more, if they do in time.
async fn settled(rpcs: &[Rpc], until: Instant) -> Result<Option<Instant>> {
    for rpc in rpcs {
        while !rpc.balance(ATOMIC_VAULT).await?.is_zero() {
            if Instant::now() > until {
                return Ok(None);
            }
            sleep(RETRY).await;
        }
    }
    Ok(Some(Instant::now()))
}
