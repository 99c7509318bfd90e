//! What the launcher asks the validators' servers.

use crate::Error;
use alloy::transports::http::reqwest;
use serde_json::{Value, json};
use std::time::Duration;
use switchyard_node::config::Endpoints;
use switchyard_primitives::{B256, Header};
use switchyard_proto::v1::{
    GetHeaderRequest, GetStatusRequest, GetStatusResponse, block_service_client::BlockServiceClient,
    status_service_client::StatusServiceClient,
};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

const TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer that is read from a server.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Asks servers on this machine; answers take at most 3 s.
#[derive(Clone, Debug, Default)]
pub struct Client {
    http: reqwest::Client,
}

fn call(url: &str, detail: impl ToString) -> Error {
    Error::Call { url: url.to_string(), detail: detail.to_string() }
}

impl Client {
    /// A client without connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// A gRPC connection that is made when it is first used.
    pub fn channel(url: &str) -> Result<Channel, Error> {
        let endpoint = Channel::from_shared(url.to_string()).map_err(|e| call(url, e))?;
        Ok(endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect_lazy())
    }

    /// Whether every server of a validator answers; the first that does not is named in the error.
    pub async fn answers(&self, endpoints: &Endpoints) -> Result<(), Error> {
        let mut health = HealthClient::new(Self::channel(&endpoints.grpc)?);
        let answer = health.check(HealthCheckRequest { service: String::new() }).await;
        let status = answer.map_err(|e| call(&endpoints.grpc, e.message()))?.into_inner().status();
        if status != ServingStatus::Serving {
            return Err(call(&endpoints.grpc, format!("health is {}", status.as_str_name())));
        }
        self.metrics(&endpoints.metrics).await?;
        for rollup in &endpoints.rollups {
            let id = self.json_rpc(&rollup.http, "eth_chainId", json!([])).await?;
            if id != json!(format!("{:#x}", rollup.chain_id)) {
                return Err(call(&rollup.http, format!("chain id {id}, expected {}", rollup.chain_id)));
            }
        }
        Ok(())
    }

    /// `GetStatus` of a validator.
    pub async fn status(&self, grpc: &str) -> Result<GetStatusResponse, Error> {
        let mut client = StatusServiceClient::new(Self::channel(grpc)?);
        client.get_status(GetStatusRequest {}).await.map(|r| r.into_inner()).map_err(|e| call(grpc, e.message()))
    }

    /// Hash of the hub block at a height.
    pub async fn hub_hash(&self, grpc: &str, height: u64) -> Result<B256, Error> {
        let mut client = BlockServiceClient::new(Self::channel(grpc)?);
        let answer = client.get_header(GetHeaderRequest { height }).await.map_err(|e| call(grpc, e.message()))?;
        Header::decode(&answer.into_inner().header).map(|h| h.hash()).map_err(|e| call(grpc, e))
    }

    /// Hash of a rollup's block.
    pub async fn rollup_hash(&self, http: &str, number: u64) -> Result<B256, Error> {
        let block = self.json_rpc(http, "eth_getBlockByNumber", json!([format!("{number:#x}"), false])).await?;
        serde_json::from_value(block["hash"].clone()).map_err(|e| call(http, e))
    }

    /// One Ethereum JSON-RPC call.
    pub async fn json_rpc(&self, url: &str, method: &str, params: Value) -> Result<Value, Error> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let request = self.http.post(url).header("content-type", "application/json").body(body);
        let text = self.text(url, request).await?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|e| call(url, e))?;
        match answer.get("error") {
            Some(error) if !error.is_null() => Err(call(url, format!("{method}: {error}"))),
            _ => Ok(answer["result"].take()),
        }
    }

    /// A validator's metrics, in Prometheus' text format.
    pub async fn metrics(&self, url: &str) -> Result<String, Error> {
        let url = format!("{url}/metrics");
        self.text(&url, self.http.get(&url)).await
    }

    /// Whether a validator is ready, and what `/readyz` answers.
    pub async fn readiness(&self, metrics: &str) -> Result<(bool, String), Error> {
        let url = format!("{metrics}/readyz");
        let response = self.http.get(&url).timeout(TIMEOUT).send().await.map_err(|e| call(&url, causes(&e)))?;
        let is_ready = response.status().is_success();
        Ok((is_ready, response.text().await.map_err(|e| call(&url, causes(&e)))?))
    }

    async fn text(&self, url: &str, request: reqwest::RequestBuilder) -> Result<String, Error> {
        let mut response = request.timeout(TIMEOUT).send().await.map_err(|e| call(url, causes(&e)))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| call(url, causes(&e)))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(call(url, format!("the answer is above {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(bytes).map_err(|e| call(url, e))?;
        if status.is_success() { Ok(text) } else { Err(call(url, format!("HTTP {status}: {text}"))) }
    }
}

/// The innermost cause says more ("connection refused") than the outermost ("error sending request").
fn causes(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
