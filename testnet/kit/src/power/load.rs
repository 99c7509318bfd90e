//! Clients of a network whose nodes come and go: they send transactions, and note what they are told.

use super::trace::Marks;
use crate::{Sent, Wallet, raw_payload, submit_evm, submit_raw};
use alloy::primitives::{Address, U256};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use switchyard_node::config::Endpoints;
use switchyard_primitives::{B256, Block, Limits, RollupId};
use switchyard_proto::v1::{
    GetStatusRequest, StreamBlocksRequest, block_service_client::BlockServiceClient,
    status_service_client::StatusServiceClient,
};
use switchyard_testnet_local::{Client, NetworkDir, accounts::ACCOUNTS};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

const POLL: Duration = Duration::from_millis(3);
/// A node that does not answer is asked again after this.
const AWAY: Duration = Duration::from_millis(20);
/// Between two rounds of submissions.
const PAUSE: Duration = Duration::from_millis(12);
const OPAQUE: RollupId = RollupId(3);

/// The processes that answer, whichever they are by now.
fn endpoints(dir: &NetworkDir, index: usize) -> Option<Endpoints> {
    dir.endpoints(index).ok().flatten()
}

/// Submissions to one node.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    /// Sends to node 0 until it is stopped: payloads of all sizes, and transfers of the account with this number.
    pub(super) fn start(dir: &NetworkDir, account: usize) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let task = tokio::spawn(send(dir.clone(), account, stop.clone()));
        Self { stop, task }
    }

    pub(super) async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.task.await;
    }
}

async fn send(dir: NetworkDir, account: usize, stop: Arc<AtomicBool>) {
    let client = Client::new();
    let (mut wallets, mut round) = (Vec::<(RollupId, Wallet)>::new(), 0u64);
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(PAUSE).await;
        let Some(node) = endpoints(&dir, 0) else { continue };
        if wallets.is_empty() {
            let wallet = |r: &switchyard_node::config::RollupEndpoint| {
                Some((r.rollup, Wallet::new(ACCOUNTS.get(account)?, r.chain_id).ok()?))
            };
            wallets = node.rollups.iter().filter_map(wallet).collect();
        }
        round += 1;
        // Mostly small, sometimes large enough for a block to travel by its hashes.
        let len = if round.is_multiple_of(16) { 40 << 10 } else { usize::try_from(round % 7 * 300).unwrap_or(0) };
        let _ = submit_raw(&node.grpc, OPAQUE, vec![raw_payload(round, account as u64, len)]).await;
        for (rollup, wallet) in &mut wallets {
            let Some(server) = node.rollups.iter().find(|r| r.rollup == *rollup) else { continue };
            let Ok(raw) = wallet.transfer(Address::with_last_byte(0xd0), U256::from(1)) else { continue };
            if let Sent::Unclear(..) = submit_evm(&client, &server.http, *rollup, &raw).await {
                // Lost with the node's mempool, or not: the node knows.
                let params = serde_json::json!([wallet.address(), "latest"]);
                if let Ok(nonce) = client.json_rpc(&server.http, "eth_getTransactionCount", params).await
                    && let Ok(nonce) = serde_json::from_value::<U256>(nonce)
                {
                    wallet.resume(nonce.saturating_to());
                }
            }
        }
    }
}

/// What clients are told of the log.
pub(super) struct Attended {
    height: Arc<AtomicU64>,
    /// End when they are dropped.
    _tasks: JoinSet<()>,
}

impl Attended {
    /// The highest block that somebody was told of.
    pub(super) fn height(&self) -> u64 {
        self.height.load(Ordering::SeqCst)
    }
}

/// Asks every node all the time, and notes what it says.
pub(super) fn attend(dir: &NetworkDir, marks: &Arc<Marks>) -> Attended {
    let (height, mut tasks) = (Arc::<AtomicU64>::default(), JoinSet::new());
    for index in 0..dir.validators() {
        tasks.spawn(ask(dir.clone(), index, marks.clone(), height.clone()));
    }
    Attended { height, _tasks: tasks }
}

async fn ask(dir: NetworkDir, index: usize, marks: Arc<Marks>, height: Arc<AtomicU64>) {
    let mut told = 0;
    loop {
        tokio::time::sleep(AWAY).await;
        let Some(channel) = endpoints(&dir, index).and_then(|node| Client::channel(&node.grpc).ok()) else { continue };
        let mut client = StatusServiceClient::new(channel);
        while let Ok(status) = client.get_status(GetStatusRequest {}).await {
            let tip = status.into_inner().tip;
            if let Some(tip) = tip.filter(|tip| tip.height > told)
                && let Ok(hash) = B256::try_from(tip.hash.as_ref())
            {
                if marks.final_block(index, tip.height, hash).is_err() {
                    return;
                }
                told = tip.height;
                height.fetch_max(told, Ordering::SeqCst);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Reads the log of node 0 as it grows, before it is pruned.
pub(super) struct Reading {
    /// The height at which it ends.
    end: watch::Sender<u64>,
    task: JoinHandle<Vec<Block>>,
}

impl Reading {
    pub(super) fn start(dir: &NetworkDir) -> Self {
        let (end, until) = watch::channel(u64::MAX);
        Self { end, task: tokio::spawn(read_log(dir.clone(), until)) }
    }

    /// The blocks from height 1 up to this one, which the node has.
    pub(super) async fn up_to(self, height: u64) -> Vec<Block> {
        self.end.send_replace(height);
        self.task.await.unwrap_or_default()
    }
}

async fn read_log(dir: NetworkDir, until: watch::Receiver<u64>) -> Vec<Block> {
    let mut blocks = Vec::new();
    let is_done = |blocks: &[Block]| blocks.len() as u64 >= *until.borrow();
    while !is_done(&blocks) {
        tokio::time::sleep(AWAY).await;
        let Some(channel) = endpoints(&dir, 0).and_then(|node| Client::channel(&node.grpc).ok()) else { continue };
        let mut client = BlockServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let request = StreamBlocksRequest { from_height: blocks.len() as u64 + 1, to_height: None };
        let Ok(stream) = client.stream_blocks(request).await else { continue };
        let mut stream = stream.into_inner();
        while !is_done(&blocks) {
            let Ok(Ok(Some(next))) = tokio::time::timeout(AWAY * 10, stream.message()).await else { break };
            let Ok(block) = Block::decode(next.block.into(), &Limits::default()) else { return blocks };
            blocks.push(block);
        }
    }
    blocks
}
