//! One look at all validators: who is up, how far they are, and whether they agree.

use crate::{Error, client::Client, dir::NetworkDir, process};
use serde::Serialize;
use std::path::PathBuf;
use switchyard_node::config::Endpoints;
use switchyard_primitives::B256;

/// What `testnet endpoints --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkEndpoints {
    /// One entry for each validator whose servers answered since it was started.
    pub validators: Vec<ValidatorEndpoints>,
    /// Funded accounts of every EVM rollup.
    pub accounts: Vec<crate::accounts::Account>,
    /// The network's genesis file.
    pub genesis: PathBuf,
}

/// Where a validator's servers are.
#[derive(Clone, Debug, Serialize)]
pub struct ValidatorEndpoints {
    /// Its number, from 0.
    pub index: usize,
    /// Addresses and pid.
    #[serde(flatten)]
    pub endpoints: Endpoints,
}

/// Where the servers of the running validators are.
pub fn endpoints(dir: &NetworkDir) -> Result<NetworkEndpoints, Error> {
    let mut validators = Vec::new();
    for index in 0..dir.validators() {
        if process::running(&dir.validator(index)).is_some() {
            validators.extend(dir.endpoints(index)?.map(|endpoints| ValidatorEndpoints { index, endpoints }));
        }
    }
    Ok(NetworkEndpoints { validators, accounts: crate::accounts::ACCOUNTS.to_vec(), genesis: dir.genesis_path() })
}

/// What `testnet status --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkStatus {
    /// Every validator is up and all agree.
    pub ok: bool,
    /// Every validator that is up has the same hub block and rollup blocks at the highest common heights.
    pub agree: bool,
    /// The highest hub block that every validator that is up has.
    pub common_height: Option<u64>,
    /// One entry for each validator.
    pub validators: Vec<ValidatorStatus>,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
}

/// How a validator is doing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ValidatorStatus {
    /// Its number, from 0.
    pub index: usize,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// Whether it answers.
    pub alive: bool,
    /// Its newest final block.
    pub height: Option<u64>,
    /// That block's hash.
    pub hash: Option<B256>,
    /// Hash of its block at the common height.
    pub hash_at_common_height: Option<B256>,
    /// Milliseconds since its newest block was made.
    pub tip_age_ms: Option<u64>,
    /// The consensus view that finalised it.
    pub view: Option<u64>,
    /// Its executed rollups.
    pub rollups: Vec<RollupStatus>,
    /// What it says an operator should look at, newest last.
    pub errors: Vec<String>,
    #[serde(skip)]
    endpoints: Option<Endpoints>,
}

/// The head of an executed rollup.
#[derive(Clone, Debug, Serialize)]
pub struct RollupStatus {
    /// Its id.
    pub rollup: u64,
    /// Its name.
    pub name: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Number of its newest block.
    pub head: u64,
    /// That block's hash.
    pub hash: B256,
    /// The hub block that it was derived from.
    pub hub_height: u64,
    /// The highest block that every validator that is up has executed.
    pub common_head: Option<u64>,
    /// Hash of this validator's block there.
    pub hash_at_common_head: Option<B256>,
}

fn bytes32(bytes: &[u8]) -> Option<B256> {
    B256::try_from(bytes).ok()
}

/// How every validator is doing, without comparing them: two calls a validator.
pub async fn validators(dir: &NetworkDir, client: &Client) -> Result<Vec<ValidatorStatus>, Error> {
    let mut all = Vec::with_capacity(dir.validators());
    for index in 0..dir.validators() {
        all.push(validator(dir, client, index).await?);
    }
    Ok(all)
}

async fn validator(dir: &NetworkDir, client: &Client, index: usize) -> Result<ValidatorStatus, Error> {
    let mut status = ValidatorStatus { index, ..Default::default() };
    status.pid = process::running(&dir.validator(index));
    if status.pid.is_none() {
        return Ok(status);
    }
    let Some(endpoints) = dir.endpoints(index)? else { return Ok(status) };
    let answer = match client.status(&endpoints.grpc).await {
        Ok(answer) => answer,
        Err(e) => {
            status.errors.push(e.to_string());
            return Ok(status);
        }
    };
    status.alive = true;
    status.endpoints = Some(endpoints);
    if let Some(tip) = answer.tip {
        (status.height, status.hash) = (Some(tip.height), bytes32(&tip.hash));
    }
    (status.tip_age_ms, status.view) = (Some(answer.tip_age_ms), answer.view);
    status.errors = answer.recent_errors;
    status.rollups = answer
        .rollups
        .into_iter()
        .map(|r| RollupStatus {
            rollup: r.rollup_id,
            name: r.name,
            chain_id: r.chain_id,
            head: r.number,
            hash: bytes32(&r.hash).unwrap_or_default(),
            hub_height: r.hub_height,
            common_head: None,
            hash_at_common_head: None,
        })
        .collect();
    Ok(status)
}

/// How every validator is doing, and whether they agree at the highest heights that all have.
pub async fn status(dir: &NetworkDir, client: &Client) -> Result<NetworkStatus, Error> {
    let mut all = validators(dir, client).await?;
    let mut problems = Vec::new();
    for v in all.iter().filter(|v| !v.alive) {
        let what = if v.pid.is_some() { "does not answer" } else { "is down" };
        problems.push(format!("validator {} {what}", v.index));
    }
    let common_height = all.iter().filter(|v| v.alive).filter_map(|v| v.height).min();
    let down = problems.len();
    if let Some(height) = common_height {
        compare_hub(&mut all, client, height, &mut problems).await;
    }
    compare_rollups(&mut all, client, &mut problems).await;
    let agree = problems.len() == down && common_height.is_some();
    Ok(NetworkStatus { ok: agree && down == 0, agree, common_height, validators: all, problems })
}

async fn compare_hub(all: &mut [ValidatorStatus], client: &Client, height: u64, problems: &mut Vec<String>) {
    let mut first: Option<(usize, B256)> = None;
    for v in all.iter_mut() {
        let Some(endpoints) = &v.endpoints else { continue };
        match client.hub_hash(&endpoints.grpc, height).await {
            Ok(hash) => v.hash_at_common_height = Some(hash),
            Err(e) => problems.push(format!("validator {}: hub block {height}: {e}", v.index)),
        }
        if let Some(hash) = v.hash_at_common_height {
            let (other, expected) = *first.get_or_insert((v.index, hash));
            if hash != expected {
                problems.push(format!(
                    "hub block {height} is {expected} on validator {other} and {hash} on validator {}",
                    v.index
                ));
            }
        }
    }
}

async fn compare_rollups(all: &mut [ValidatorStatus], client: &Client, problems: &mut Vec<String>) {
    let ids: std::collections::BTreeSet<u64> = all.iter().flat_map(|v| &v.rollups).map(|r| r.rollup).collect();
    for id in ids {
        let heads = all.iter().flat_map(|v| &v.rollups).filter(|r| r.rollup == id).map(|r| r.head);
        let Some(number) = heads.min() else { continue };
        let mut first: Option<(usize, B256)> = None;
        for v in all.iter_mut() {
            let served = v.endpoints.iter().flat_map(|e| &e.rollups).find(|r| r.rollup.0 == id);
            let Some(http) = served.map(|r| r.http.clone()) else { continue };
            let Some(rollup) = v.rollups.iter_mut().find(|r| r.rollup == id) else { continue };
            rollup.common_head = Some(number);
            match client.rollup_hash(&http, number).await {
                Ok(hash) => rollup.hash_at_common_head = Some(hash),
                Err(e) => problems.push(format!("validator {}: {} block {number}: {e}", v.index, rollup.name)),
            }
            if let Some(hash) = rollup.hash_at_common_head {
                let (other, expected) = *first.get_or_insert((v.index, hash));
                if hash != expected {
                    problems.push(format!(
                        "{} block {number} is {expected} on validator {other} and {hash} on validator {}",
                        rollup.name, v.index
                    ));
                }
            }
        }
    }
}
