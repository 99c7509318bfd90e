//! What must hold in every network, whatever was done to it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use switchyard_bridge_core::{BRIDGE_FROM, deposits_of, legs_of};
use switchyard_node::{config::Endpoints, genesis::Genesis};
use switchyard_primitives::{B256, Block, RollupId, TxKey};
use switchyard_proto::v1::{StreamBlocksRequest, block_service_client::BlockServiceClient};
use switchyard_rollup_core::{LegAt, SegmentInput};
use switchyard_testnet_local::Client;

/// More than a block.
const MESSAGE_BYTES: usize = 64 << 20;

const POLL: Duration = Duration::from_millis(100);

/// One validator's log of one rollup, each block checked against its own header.
#[derive(Debug, Default)]
pub struct HubLog {
    /// What the rollup's driver gets, from height 1.
    pub inputs: Vec<SegmentInput>,
}

impl HubLog {
    /// Reads heights 1 to `to` from a validator, and follows the hub's state from the genesis.
    pub async fn read(grpc: &str, rollup: RollupId, to: u64, genesis: &Genesis) -> eyre::Result<Self> {
        let mut client = BlockServiceClient::new(Client::channel(grpc)?).max_decoding_message_size(MESSAGE_BYTES);
        let mut log = Self::default();
        let mut state = Arc::new(genesis.system_state()?);
        let request = StreamBlocksRequest { from_height: 1, to_height: Some(to) };
        let mut blocks = client.stream_blocks(request).await?.into_inner();
        for height in 1..=to {
            let answer = blocks.message().await?.ok_or_else(|| eyre::eyre!("no block at {height}"))?;
            let block = Block::decode(answer.block.into(), &genesis.limits())?;
            let header = block.header;
            eyre::ensure!(header.height == height, "asked for {height}, got {}", header.height);
            block.check_commitments()?;
            state = state.follow(&block)?;
            let root = state.bridge().map_or(B256::ZERO, |bridge| bridge.tree().root());
            let leg = |(bundle, leg, tx)| LegAt { bundle, leg, tx };
            let records = block.transactions(RollupId::SYSTEM);
            log.inputs.push(SegmentInput {
                hub_height: height,
                hub_hash: header.hash(),
                timestamp_ms: header.timestamp_ms,
                hub_root: if header.protocol < BRIDGE_FROM { B256::ZERO } else { root },
                transactions: block.transactions(rollup).to_vec(),
                legs: legs_of(records, rollup).into_iter().map(leg).collect(),
                deposits: deposits_of(records, rollup),
            });
        }
        Ok(log)
    }

    /// How often each transaction is in the log.
    pub fn counts(&self, rollup: RollupId) -> HashMap<TxKey, usize> {
        let mut counts = HashMap::new();
        for tx in self.inputs.iter().flat_map(|input| &input.transactions) {
            *counts.entry(TxKey::of(rollup, tx)).or_default() += 1;
        }
        counts
    }
}

/// Waits until a validator's durable tip is at `height` or above.
pub async fn caught_up(client: &Client, grpc: &str, height: u64, within: Duration) -> eyre::Result<u64> {
    let start = Instant::now();
    loop {
        let last = match client.status(grpc).await {
            Ok(status) => {
                let tip = status.tip.map_or(0, |tip| tip.height);
                if tip >= height {
                    return Ok(tip);
                }
                format!("at {tip}")
            }
            Err(error) => error.to_string(),
        };
        eyre::ensure!(start.elapsed() < within, "{grpc} did not reach {height} within {within:?}: {last}");
        tokio::time::sleep(POLL).await;
    }
}

/// Every validator has the same hub block at each height up to `to`.
pub async fn agree_on_hub(client: &Client, nodes: &[Endpoints], to: u64) -> eyre::Result<()> {
    for height in 0..=to {
        let mut hashes = Vec::new();
        for node in nodes {
            hashes.push(client.hub_hash(&node.grpc, height).await?);
        }
        eyre::ensure!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "height {height}: {hashes:?}");
    }
    Ok(())
}

/// Every validator has the same block of a rollup at each number up to `to`.
pub async fn agree_on_rollup(client: &Client, urls: &[String], to: u64) -> eyre::Result<()> {
    for number in 0..=to {
        let mut hashes = Vec::new();
        for url in urls {
            hashes.push(client.rollup_hash(url, number).await?);
        }
        eyre::ensure!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "block {number}: {hashes:?}");
    }
    Ok(())
}
