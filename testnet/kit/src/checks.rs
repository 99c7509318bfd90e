//! What must hold in every network, whatever was done to it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use switchyard_node::config::Endpoints;
use switchyard_primitives::{B256, Bytes, Header, RollupId, SegmentProof, TxKey};
use switchyard_proto::v1::{GetSegmentRequest, block_service_client::BlockServiceClient};
use switchyard_rollup_core::SegmentInput;
use switchyard_testnet_local::Client;

const POLL: Duration = Duration::from_millis(100);

/// One validator's log of one rollup, each block checked against its own header.
#[derive(Debug, Default)]
pub struct HubLog {
    /// What the rollup's driver gets, from height 1.
    pub inputs: Vec<SegmentInput>,
}

impl HubLog {
    /// Reads heights 1 to `to` from a validator.
    pub async fn read(grpc: &str, rollup: RollupId, to: u64) -> eyre::Result<Self> {
        let mut client = BlockServiceClient::new(Client::channel(grpc)?);
        let mut log = Self::default();
        for height in 1..=to {
            let answer = client.get_segment(GetSegmentRequest { rollup_id: rollup.0, height }).await?.into_inner();
            let block = answer.block.ok_or_else(|| eyre::eyre!("no block at {height}"))?;
            let header = Header::decode(&block.header)?;
            eyre::ensure!(header.height == height, "asked for {height}, got {}", header.height);
            let transactions: Vec<Bytes> = block.transactions.into_iter().map(Into::into).collect();
            SegmentProof::decode(&block.proof)?.verify(header.segment_root, rollup, &transactions)?;
            log.inputs.push(SegmentInput {
                hub_height: height,
                hub_hash: header.hash(),
                timestamp_ms: header.timestamp_ms,
                hub_root: B256::ZERO,
                transactions,
                legs: Vec::new(),
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
