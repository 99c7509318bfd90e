//! Ethereum JSON-RPC over HTTP with kept connections.

use crate::target::http;
use alloy::transports::http::reqwest;
use alloy_primitives::{Address, B256, U64, U256};
use eyre::{Result, bail, eyre};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What a server said to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was taken.
    Accepted,
    /// It was known already.
    Known,
    /// It was refused.
    Refused {
        /// `rpc_` and the JSON-RPC error code.
        code: String,
        /// The reason.
        message: String,
    },
    /// No answer, or one that is not JSON-RPC.
    Silent,
}

/// The part of a receipt that a run needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The transaction.
    pub transaction_hash: B256,
    /// 1 for success.
    pub status: U64,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: Option<T>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    code: i64,
    message: String,
}

/// The servers of one chain. Clones share connections and the bound on requests under way.
#[derive(Clone, Debug)]
pub struct Rpc {
    http: reqwest::Client,
    servers: Arc<[String]>,
    permits: Arc<Semaphore>,
}

impl Rpc {
    /// Speaks to `servers`, with at most `requests_max` sends under way to each.
    pub fn new(servers: Vec<String>, requests_max: usize) -> Result<Self> {
        if servers.is_empty() {
            bail!("no validator serves this rollup's JSON-RPC");
        }
        let permits = Arc::new(Semaphore::new(requests_max * servers.len()));
        Ok(Self { http: http()?, servers: servers.into(), permits })
    }

    /// Number of servers.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Sends a prepared request to server `index`, counted around.
    pub async fn send(&self, index: usize, request: &str) -> Sent {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        match self.post::<Value>(index, request.to_string()).await {
            Ok(Answer { error: Some(failure), .. }) if failure.message.contains("already known") => Sent::Known,
            Ok(Answer { error: Some(failure), .. }) => {
                Sent::Refused { code: format!("rpc_{}", failure.code), message: failure.message }
            }
            Ok(Answer { result: Some(_), .. }) => Sent::Accepted,
            Ok(_) | Err(_) => Sent::Silent,
        }
    }

    /// Number of the newest block.
    pub async fn block_number(&self) -> Result<u64> {
        self.any::<U64>("eth_blockNumber", json!([])).await.map(|n| n.to())
    }

    /// An account's balance in wei.
    pub async fn balance(&self, address: Address) -> Result<U256> {
        self.any("eth_getBalance", json!([address, "latest"])).await
    }

    /// The lowest balance, wei, that any server that answers knows of an account: some are behind others.
    pub async fn least_balance(&self, address: Address) -> Result<U256> {
        let mut least = None;
        for index in 0..self.servers.len() {
            if let Ok(balance) = self.call(index, "eth_getBalance", json!([address, "latest"])).await {
                least = Some(least.map_or(balance, |least: U256| least.min(balance)));
            }
        }
        least.ok_or_else(|| eyre!("no server answers"))
    }

    /// The nonce after an account's waiting transactions.
    pub async fn nonce(&self, address: Address) -> Result<u64> {
        self.any::<U64>("eth_getTransactionCount", json!([address, "pending"])).await.map(|n| n.to())
    }

    /// The receipts of a block; none if server `index` does not have it yet.
    pub async fn receipts(&self, index: usize, number: u64) -> Result<Option<Vec<Receipt>>> {
        self.call(index, "eth_getBlockReceipts", json!([format!("{number:#x}")])).await
    }

    /// A call to the first server that answers it.
    async fn any<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T> {
        let mut failure = eyre!("no server");
        for index in 0..self.servers.len() {
            match self.call(index, method, params.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn call<T: DeserializeOwned>(&self, index: usize, method: &str, params: Value) -> Result<T> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let answer: Answer<Value> = self.post(index, body).await?;
        if let Some(failure) = answer.error {
            bail!("{method}: {} ({})", failure.message, failure.code);
        }
        serde_json::from_value(answer.result.unwrap_or(Value::Null)).map_err(|e| eyre!("{method}: {e}"))
    }

    async fn post<T: DeserializeOwned>(&self, index: usize, body: String) -> Result<Answer<T>> {
        let server = &self.servers[index % self.servers.len()];
        let request = self.http.post(server).header("content-type", "application/json").body(body);
        let bytes = request.send().await?.bytes().await?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}
