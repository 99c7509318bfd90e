//! Load on a network of real processes, and what must hold after it.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol_types::SolCall,
};
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use switchyard_node::{config::Endpoints, genesis::Genesis};
use switchyard_primitives::{RollupId, TxKey};
use switchyard_testnet_kit::{
    HubLog, Sent, Wallet, agree_on_hub, agree_on_rollup, caught_up, conserved, raw_payload, submit_evm, submit_raw,
};
use switchyard_testnet_local::{Client, Options, Testnet, accounts::ACCOUNTS};
use tokio::task::JoinSet;

pub(crate) const YARD_A: RollupId = RollupId(1);
pub(crate) const YARD_B: RollupId = RollupId(2);
pub(crate) const YARD_C: RollupId = RollupId(3);
pub(crate) const SECONDS_60: Duration = Duration::from_secs(60);

pub(crate) fn recipient(rollup: RollupId) -> Address {
    Address::with_last_byte(0xd0 + u8::try_from(rollup.0).unwrap())
}

pub(crate) fn url(node: &Endpoints, rollup: RollupId) -> String {
    node.rollups.iter().find(|r| r.rollup == rollup).unwrap().http.clone()
}

/// A new network of four validators in a folder, all of them ready.
pub(crate) async fn four(dir: &Path) -> (Testnet, Vec<Endpoints>) {
    let mut testnet = Testnet::create(&dir.join("net"), Options::default()).unwrap();
    for index in 0..4 {
        testnet.start(index).unwrap();
    }
    let mut nodes = Vec::new();
    for index in 0..4 {
        nodes.push(testnet.ready(index).await.unwrap());
    }
    (testnet, nodes)
}

/// An account's coin after a rollup's newest block.
pub(crate) async fn balance(client: &Client, node: &Endpoints, rollup: RollupId, account: Address) -> U256 {
    let found = client.json_rpc(&url(node, rollup), "eth_getBalance", json!([account, "latest"])).await.unwrap();
    found.as_str().unwrap().parse().unwrap()
}

/// What a contract answers after a rollup's block: a number, or `latest`.
pub(crate) async fn view<C: SolCall>(client: &Client, at: (&str, &str), contract: Address, call: &C) -> C::Return {
    let (url, block) = at;
    let params = json!([{ "to": contract, "data": Bytes::from(call.abi_encode()) }, block]);
    let answer = client.json_rpc(url, "eth_call", params).await.unwrap();
    let answer: Bytes = serde_json::from_value(answer).unwrap();
    C::abi_decode_returns_validate(&answer).unwrap()
}

/// Keeps sending until told to stop: each wallet one transfer of 1 wei after the other, and payloads to the opaque
/// rollup. A submission that a validator does not answer goes to the next one.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    tasks: JoinSet<Vec<TxKey>>,
}

impl Load {
    pub(crate) fn start(client: &Client, nodes: &[Endpoints]) -> Self {
        let mut load = Self { stop: Arc::default(), accepted: Arc::default(), tasks: JoinSet::new() };
        for rollup in [YARD_A, YARD_B] {
            for account in &ACCOUNTS[..3] {
                let chain_id = nodes[0].rollups.iter().find(|r| r.rollup == rollup).unwrap().chain_id;
                let wallet = Wallet::new(account, chain_id).unwrap();
                let urls: Vec<String> = nodes.iter().map(|n| url(n, rollup)).collect();
                let (stop, accepted) = (load.stop.clone(), load.accepted.clone());
                load.tasks.spawn(transfers(client.clone(), rollup, wallet, urls, stop, accepted));
            }
        }
        let grpc = nodes.iter().map(|n| n.grpc.clone()).collect();
        load.tasks.spawn(payloads(grpc, load.stop.clone(), load.accepted.clone()));
        load
    }

    /// Returns once `count` more submissions were accepted.
    pub(crate) async fn more(&self, count: usize) {
        let target = self.accepted.load(Ordering::SeqCst) + count;
        let reached = async {
            while self.accepted.load(Ordering::SeqCst) < target {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SECONDS_60, reached).await.expect("submissions are still accepted");
    }

    pub(crate) async fn finish(self) -> Vec<TxKey> {
        self.stop.store(true, Ordering::SeqCst);
        self.tasks.join_all().await.concat()
    }
}

async fn transfers(
    client: Client,
    rollup: RollupId,
    mut wallet: Wallet,
    urls: Vec<String>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
) -> Vec<TxKey> {
    let mut keys = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let raw = wallet.transfer(recipient(rollup), U256::from(1)).unwrap();
        let mut at = keys.len();
        loop {
            match submit_evm(&client, &urls[at % urls.len()], rollup, &raw).await {
                Sent::Accepted(key) => {
                    keys.push(key);
                    break;
                }
                // A validator that died after it had passed the transaction on: another one has it.
                Sent::Unclear(key, why) if why.contains("already known") || why.contains("already final") => {
                    keys.push(key);
                    break;
                }
                Sent::Unclear(_, why) => {
                    at += 1;
                    assert!(at < keys.len() + 40, "{rollup}: nobody takes a transfer: {why}");
                }
            }
        }
        accepted.fetch_add(1, Ordering::SeqCst);
    }
    keys
}

async fn payloads(grpc: Vec<String>, stop: Arc<AtomicBool>, accepted: Arc<AtomicUsize>) -> Vec<TxKey> {
    let mut keys = Vec::new();
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        let batch = (0..8).map(|i| raw_payload(round, i, 300)).collect();
        let sent = submit_raw(&grpc[usize::try_from(round).unwrap() % grpc.len()], YARD_C, batch).await.unwrap();
        // What a dead validator did not answer was not accepted: it may be in the log or not, at most once.
        let taken = sent.into_iter().filter_map(|s| matches!(s, Sent::Accepted(_)).then(|| s.key()));
        keys.extend(taken.inspect(|_| {
            accepted.fetch_add(1, Ordering::SeqCst);
        }));
        round += 1;
    }
    keys
}

pub(crate) async fn tip(client: &Client, node: &Endpoints) -> u64 {
    client.status(&node.grpc).await.unwrap().tip.unwrap().height
}

/// Waits until a rollup has executed the hub's log up to `height` on every node, and returns its newest block.
pub(crate) async fn executed(client: &Client, nodes: &[Endpoints], rollup: RollupId, keys: &[TxKey]) -> u64 {
    let mut head = 0;
    for node in nodes {
        for key in keys {
            let receipt = async {
                loop {
                    let params = serde_json::json!([key.hash]);
                    let receipt = client.json_rpc(&url(node, rollup), "eth_getTransactionReceipt", params).await;
                    match receipt.unwrap() {
                        serde_json::Value::Null => tokio::time::sleep(Duration::from_millis(50)).await,
                        receipt => return receipt,
                    }
                }
            };
            let receipt =
                tokio::time::timeout(SECONDS_60, receipt).await.expect("every accepted transfer has a receipt");
            assert_eq!(receipt["status"], "0x1", "{receipt}");
            let number = receipt["blockNumber"].as_str().unwrap().trim_start_matches("0x");
            head = head.max(u64::from_str_radix(number, 16).unwrap());
        }
    }
    head
}

/// Every validator has the same log and the same rollups, what was accepted is in there once, and no coin was made or lost. Returns the height up to
/// which that was looked at, and the rollups' logs as `reader` has them.
pub(crate) async fn nothing_lost(
    client: &Client,
    nodes: &[Endpoints],
    genesis: &Genesis,
    reader: usize,
    accepted: &[TxKey],
) -> (u64, HashMap<RollupId, HubLog>) {
    for rollup in [YARD_A, YARD_B] {
        let keys: Vec<TxKey> = accepted.iter().filter(|k| k.rollup == rollup).copied().collect();
        let head = executed(client, nodes, rollup, &keys).await;
        let urls: Vec<String> = nodes.iter().map(|n| url(n, rollup)).collect();
        agree_on_rollup(client, &urls, head).await.unwrap();
        for url in &urls {
            let params = serde_json::json!([recipient(rollup), "latest"]);
            let balance = client.json_rpc(url, "eth_getBalance", params).await.unwrap();
            assert_eq!(balance, serde_json::json!(format!("{:#x}", keys.len())), "each transfer counts once");
        }
    }
    let height = tip(client, &nodes[0]).await;
    for node in nodes {
        caught_up(client, &node.grpc, height, SECONDS_60).await.unwrap();
    }
    agree_on_hub(client, nodes, height).await.unwrap();

    let (mut logs, mut held) = (HashMap::new(), HashMap::<TxKey, usize>::new());
    for rollup in [YARD_A, YARD_B, YARD_C] {
        let log = HubLog::read(&nodes[reader].grpc, rollup, height, genesis).await.unwrap();
        held.extend(log.counts(rollup));
        logs.insert(rollup, log);
    }
    let lost: Vec<&TxKey> = accepted.iter().filter(|key| !held.contains_key(key)).collect();
    assert!(lost.is_empty(), "accepted and not in the log: {lost:?}");
    let twice: Vec<_> = held.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "more than once in the log: {twice:?}");
    assert_eq!(accepted.iter().collect::<HashSet<_>>().len(), accepted.len());
    conserved(client, &nodes[reader], genesis).await.unwrap();
    (height, logs)
}
