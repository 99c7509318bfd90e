//! One case: the folders after a cut, the network started on them, and what must hold then.

use super::{
    check::{Before, check_folders},
    cut::{CaseId, Cut},
    disk::Broken,
    load::{Load, attend},
    record::{Recording, network_of, tls_of, trace_of},
    shim::{Recorded, Settings, Shim},
    site::Site,
    tap::Tls,
    trace::Marks,
};
use alloy_primitives::U256;
use eyre::{Context as _, ensure};
use rand::{RngExt as _, rngs::StdRng};
use std::{fs, path::Path, sync::Arc, time::Duration};
use switchyard_node::config::Endpoints;
use switchyard_testnet_local::{Client, accounts::ACCOUNTS};
use tokio::time::Instant;

/// How long a network may take to go on.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Blocks that are made after a cut.
const MORE: u64 = 3;
/// Cuts of what a network does after a cut.
const AGAIN: u64 = 2;

/// How cases are run.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Some files' syncs are broken, which must be noticed.
    pub broken: Option<Broken>,
    /// Derive each rollup's state from genesis in every case, instead of in one of eight.
    pub derive: bool,
    /// In one case of so many, the power is cut again while the network recovers; 0 for none.
    pub again_every: u64,
    /// Instead of a cut, damage one file of a network of one: the node must go on, or say in one line what to do.
    pub damage: bool,
}

/// Runs cases of a recording.
#[derive(Debug)]
pub struct Cases<'a> {
    /// What was recorded.
    pub recording: &'a Recording,
    /// The library that records.
    pub shim: &'a Shim,
    /// How.
    pub how: How,
}

impl Cases<'_> {
    /// Runs a case in `dir`, which is made for it. Number of cuts that it was about.
    ///
    /// # Errors
    /// What does not hold. `dir` stays as it was found.
    pub async fn run(&self, id: CaseId, dir: &Path) -> eyre::Result<u64> {
        let mut rng = id.rng();
        if self.how.damage {
            return self.run_damaged(dir, &mut rng).await.map(|()| 1);
        }
        let cut = Cut::choose(&self.recording.trace, &mut rng)?;
        let again = self.how.again_every > 0 && rng.random_range(0..self.how.again_every) == 0;
        self.run_cut(&cut, dir, 1, again, &mut rng).await.wrap_err_with(|| format!("cut {cut}"))?;
        if !again {
            return Ok(1);
        }
        // What the network did after the cut is a recording too.
        let recording = Recording::open(dir)?;
        let cases = Cases { recording: &recording, shim: self.shim, how: self.how.clone() };
        for index in 0..AGAIN {
            let inner = Cut::choose(&recording.trace, &mut rng)?;
            let dir = dir.join(format!("again-{index}"));
            let run = cases.run_cut(&inner, &dir, 2, false, &mut rng);
            run.await.wrap_err_with(|| format!("cut {cut}, and again {inner}, in {}", dir.display()))?;
        }
        Ok(1 + AGAIN)
    }

    /// `life` counts the lives of the network after the first.
    async fn run_cut(&self, cut: &Cut, dir: &Path, life: usize, again: bool, rng: &mut StdRng) -> eyre::Result<()> {
        fs::create_dir_all(dir)?;
        let images = cut.images(self.recording, self.how.broken.as_ref(), rng)?;
        self.recording.prepare(dir, &images, cut.record)?;
        let before = Before::of(self.recording, cut);
        let marks = Arc::new(Marks::open(&trace_of(dir))?);
        let marked = again.then(|| marks.clone());
        let mut site = Site::open(&network_of(dir), &Tls::open(&tls_of(dir)), marked).await?;
        let settings = |node| {
            let record = again.then(|| Recorded { node, trace: trace_of(dir), sync_us: 300 });
            Settings { record, ..Settings::default() }
        };
        let mut nodes = Vec::new();
        for index in 0..site.len() {
            site.start(index, self.shim, &settings(index))?;
        }
        for index in 0..site.len() {
            nodes.push(site.ready(index).await?);
        }
        let clients = again.then(|| attend(site.dir(), &marks));
        goes_on(&mut site, &nodes, before.height() + MORE, life).await?;
        drop(clients);
        for index in 0..site.len() {
            let status = site.stop(index).await?;
            ensure!(status.success(), "validator {index}: {status}\n{}", site.log(index));
        }
        let derive = self.how.derive || rng.random_range(0..8) == 0;
        let after: Vec<_> = (0..site.len()).map(|index| site.votes(index)).collect();
        // Short, and nothing else is to be done meanwhile.
        tokio::task::block_in_place(|| check_folders(site.dir(), self.recording, &before, &after, derive))
    }
}

/// Waits until every validator's log is so high, and a transfer on each rollup is executed.
async fn goes_on(site: &mut Site, nodes: &[Endpoints], height: u64, account: usize) -> eyre::Result<()> {
    let (client, deadline) = (Client::new(), Instant::now() + PATIENCE);
    let load = Load::start(site.dir(), account);
    for (index, node) in nodes.iter().enumerate() {
        loop {
            site.lives(index)?;
            let last = match client.status(&node.grpc).await {
                Ok(status) if status.tip.as_ref().is_some_and(|tip| tip.height >= height) => break,
                Ok(status) => format!("{:?}, view {:?}", status.tip.map(|tip| tip.height), status.view),
                Err(error) => error.to_string(),
            };
            let log = site.log(index);
            ensure!(Instant::now() < deadline, "validator {index} does not reach {height}: {last}\n{log}");
            tokio::time::sleep(POLL).await;
        }
    }
    for rollup in &nodes[0].rollups {
        let params = serde_json::json!([ACCOUNTS[account].address, "latest"]);
        loop {
            site.lives(0)?;
            let nonce = client.json_rpc(&rollup.http, "eth_getTransactionCount", params.clone()).await;
            if nonce.is_ok_and(|nonce| serde_json::from_value(nonce).is_ok_and(|nonce: U256| !nonce.is_zero())) {
                break;
            }
            ensure!(Instant::now() < deadline, "no transfer on {}:\n{}", rollup.name, site.log(0));
            tokio::time::sleep(POLL).await;
        }
    }
    load.stop().await;
    for node in nodes {
        let metrics = loop {
            match client.metrics(&node.metrics).await {
                Ok(metrics) => break metrics,
                Err(error) => ensure!(Instant::now() < deadline, "{error}"),
            }
        };
        let faults = metrics.lines().find(|line| line.starts_with("switchyard_faults_total{") && !line.ends_with(" 0"));
        ensure!(faults.is_none(), "{}: {faults:?}", node.metrics);
    }
    Ok(())
}
