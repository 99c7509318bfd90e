//! The network under load.

use alloy::transports::http::reqwest;
use eyre::{Context, Result, bail, eyre};
use serde::Deserialize;
use std::{path::Path, time::Duration};
use switchyard_node::config::{Endpoints, RollupEndpoint};
use switchyard_primitives::RollupId;
use switchyard_proto::v1::{
    GetInfoRequest, GetInfoResponse, block_service_client::BlockServiceClient,
    sequencer_service_client::SequencerServiceClient,
};
use switchyard_testnet_local::NetworkDir;
use tonic::transport::Channel;

/// How long any single call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The output of `switchyard testnet endpoints --json`.
#[derive(Debug, Deserialize)]
struct EndpointsFile {
    validators: Vec<Endpoints>,
}

/// A running network.
#[derive(Clone, Debug)]
pub struct Target {
    validators: Vec<Endpoints>,
    channels: Vec<Channel>,
    info: GetInfoResponse,
}

impl Target {
    /// The network that a file (what `testnet endpoints --json` prints) or a local network's folder describes.
    pub async fn open(file: Option<&Path>, dir: &Path) -> Result<Self> {
        let validators = match file {
            Some(file) => {
                let text = std::fs::read(file).wrap_err_with(|| format!("cannot read {}", file.display()))?;
                let parsed: EndpointsFile = serde_json::from_slice(&text)
                    .wrap_err_with(|| format!("{} is not what `testnet endpoints --json` prints", file.display()))?;
                parsed.validators
            }
            None => {
                let all = switchyard_testnet_local::endpoints(&NetworkDir::open(dir)?)?;
                all.validators.into_iter().map(|v| v.endpoints).collect()
            }
        };
        let Some(first) = validators.first() else { bail!("no validator of the network is running") };
        let mut channels = Vec::new();
        for validator in &validators {
            let endpoint = Channel::from_shared(validator.grpc.clone())
                .wrap_err_with(|| format!("{} is not an address", validator.grpc))?
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(2 * STREAM_WINDOW_BYTES)
                .connect_timeout(CALL_TIMEOUT);
            channels.push(endpoint.connect_lazy());
        }
        let channel = channels.first().cloned().ok_or_else(|| eyre!("no channel"))?;
        let info = BlockServiceClient::new(channel)
            .get_info(GetInfoRequest { include_manifests: false })
            .await
            .map_err(|e| eyre!("{}: {}", first.grpc, e.message()))?
            .into_inner();
        Ok(Self { validators, channels, info })
    }

    /// Number of validators.
    pub fn len(&self) -> usize {
        self.validators.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.validators.is_empty()
    }

    /// Height of the newest final block when the run began.
    pub fn tip(&self) -> u64 {
        self.info.tip.as_ref().map_or(0, |t| t.height)
    }

    /// The most transactions and bytes that one call to submit takes, and the most bytes of one transaction.
    pub fn submit_limits(&self) -> (usize, usize, usize) {
        let limits = self.info.limits.unwrap_or_default();
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        (size(limits.submit_transactions), size(limits.submit_bytes), size(limits.transaction_bytes))
    }

    /// Checks that the network has these rollups; none stands for all that fit.
    pub fn rollups(&self, asked: &[u64], evm: bool) -> Result<Vec<RollupId>> {
        let first = self.validators.first().map(|v| v.rollups.as_slice()).unwrap_or_default();
        let is_evm = |id: u64| first.iter().any(|r| r.rollup.0 == id);
        let known: Vec<u64> = self.info.rollups.iter().map(|r| r.rollup_id).collect();
        let wanted: Vec<u64> = if asked.is_empty() {
            known.iter().copied().filter(|id| is_evm(*id) == evm).collect()
        } else {
            asked.to_vec()
        };
        if wanted.is_empty() {
            bail!("the network has no rollup for this kind of load; it has {known:?}");
        }
        for id in &wanted {
            if !known.contains(id) {
                bail!("the network has no rollup {id}; it has {known:?}");
            }
            if is_evm(*id) != evm {
                bail!(
                    "rollup {id} does not take this kind of transaction: --kind evm is for EVM rollups, raw for others"
                );
            }
        }
        Ok(wanted.into_iter().map(RollupId).collect())
    }

    /// Submits to validator `index`, counted around.
    pub fn sequencer(&self, index: usize) -> SequencerServiceClient<Channel> {
        SequencerServiceClient::new(self.channel(index))
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(usize::MAX)
    }

    /// Reads from validator `index`, counted around.
    pub fn blocks(&self, index: usize) -> BlockServiceClient<Channel> {
        BlockServiceClient::new(self.channel(index)).max_decoding_message_size(usize::MAX)
    }

    /// The connection to validator `index`, counted around.
    pub fn channel(&self, index: usize) -> Channel {
        // `open` refuses a network without validators.
        self.channels[index % self.channels.len()].clone()
    }

    /// Where each validator serves a rollup's JSON-RPC.
    pub fn json_rpc(&self, rollup: RollupId) -> Vec<RollupEndpoint> {
        self.validators.iter().flat_map(|v| &v.rollups).filter(|r| r.rollup == rollup).cloned().collect()
    }
}

/// An HTTP client that keeps its connections.
pub fn http() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().pool_max_idle_per_host(1024).tcp_nodelay(true).timeout(CALL_TIMEOUT).build()?)
}
