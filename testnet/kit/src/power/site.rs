//! A network's folder whose processes are started here, each with a signer that sees its votes.

use super::{
    shim::{Settings, Shim},
    tap::{Tap, Tls},
    trace::Marks,
};
use eyre::{Context as _, OptionExt as _, bail, ensure};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};
use switchyard_consensus_core::Vote;
use switchyard_node::config::{BlsKey, Endpoints};
use switchyard_testnet_local::{NetworkDir, find_binary, reserve_free};
use tokio::{process::Child, time::Instant};

/// How long a node may take until it answers, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A network's folder, and the processes over it.
pub(super) struct Site {
    dir: NetworkDir,
    program: PathBuf,
    taps: Vec<Tap>,
    children: Vec<Option<Child>>,
}

impl Site {
    /// Writes configurations with ports that are free and signers that run.
    pub(super) async fn open(folder: &Path, tls: &Tls, marks: Option<Arc<Marks>>) -> eyre::Result<Self> {
        let dir = NetworkDir::open(folder)?;
        let genesis = dir.genesis()?;
        let network = genesis.id()?;
        let mut taps = Vec::new();
        for index in 0..dir.validators() {
            let text = fs::read_to_string(dir.validator(index).dir.join("bls.key"))?;
            let secret: [u8; 32] = hex::decode(text.trim())?.try_into().map_err(|_| eyre::eyre!("not 32 bytes"))?;
            taps.push(Tap::start(tls, index, network, secret, marks.clone()).await?);
        }
        // Held all together, so that they differ.
        let free = |_| {
            let socket = reserve_free()?;
            eyre::Ok((socket.local_addr()?, socket))
        };
        let free = (0..dir.validators()).map(free).collect::<Result<Vec<_>, _>>()?;
        for index in 0..dir.validators() {
            let mut config = dir.config(index)?;
            let (keys, network) = (config.keys.as_mut(), config.network.as_mut());
            let (keys, network) = (keys.ok_or_eyre("no keys")?, network.ok_or_eyre("no network")?);
            keys.bls = BlsKey::Remote(taps[index].remote());
            network.listen = free[index].0;
            for peer in &mut network.peers {
                let place = genesis.validators.iter().position(|v| v.seat.identity == peer.identity);
                peer.address = free[place.ok_or_eyre("a peer that is no validator")?].0;
            }
            dir.write_config(index, &config)?;
        }
        let children = (0..dir.validators()).map(|_| None).collect();
        Ok(Self { dir, program: find_binary("switchyard")?, taps, children })
    }

    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    pub(super) fn dir(&self) -> &NetworkDir {
        &self.dir
    }

    /// The data folder of a validator.
    pub(super) fn data(&self, index: usize) -> PathBuf {
        data_of(&self.dir, index)
    }

    /// Every vote of a validator since the site was opened.
    pub(super) fn votes(&self, index: usize) -> Vec<Vote> {
        self.taps[index].votes()
    }

    /// What the validator's process has printed since its start.
    pub(super) fn log(&self, index: usize) -> String {
        fs::read_to_string(self.dir.validator(index).log).unwrap_or_default()
    }

    pub(super) fn start(&mut self, index: usize, shim: &Shim, settings: &Settings) -> eyre::Result<()> {
        let files = self.dir.validator(index);
        let _ = fs::remove_file(&files.endpoints);
        let log = File::create(&files.log)?;
        let mut command = shim.command(&self.program, &self.data(index), settings);
        command.arg("run").arg("--config").arg(&files.config).stdout(log.try_clone()?).stderr(log);
        self.children[index] = Some(command.spawn()?);
        Ok(())
    }

    /// Waits until a validator's servers answer.
    pub(super) async fn ready(&mut self, index: usize) -> eyre::Result<Endpoints> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.lives(index)?;
            let child = self.children[index].as_ref().ok_or_eyre("it was not started")?;
            if let Some(endpoints) = self.dir.endpoints(index)?.filter(|e| Some(e.pid) == child.id()) {
                return Ok(endpoints);
            }
            ensure!(Instant::now() < deadline, "validator {index} does not get ready:\n{}", self.log(index));
            tokio::time::sleep(POLL).await;
        }
    }

    /// An error if a validator has ended by itself.
    pub(super) fn lives(&mut self, index: usize) -> eyre::Result<()> {
        let Some(child) = &mut self.children[index] else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = self.log(index);
                let last = log.lines().filter(|line| line.starts_with("switchyard: ")).collect::<Vec<_>>();
                bail!("validator {index} has ended ({status}): {last:?}\n{log}");
            }
        }
    }

    /// SIGTERM, and waits.
    pub(super) async fn stop(&mut self, index: usize) -> eyre::Result<ExitStatus> {
        let mut child = self.children[index].take().ok_or_eyre("it was not started")?;
        if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        Ok(ended.wrap_err_with(|| format!("validator {index} does not stop:\n{}", self.log(index)))??)
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self, index: usize) -> eyre::Result<()> {
        if let Some(mut child) = self.children[index].take() {
            child.kill().await?;
        }
        Ok(())
    }
}

/// The data folder of a network's validator.
pub(super) fn data_of(dir: &NetworkDir, index: usize) -> PathBuf {
    dir.validator(index).dir.join("data")
}
