//! Recording a network: what its validators write, while clients send transactions to it.

use super::{
    disk::Disk,
    image::Image,
    load::{Load, Reading, attend},
    shim::{Recorded, Settings, Shim},
    site::{Site, data_of},
    tap::Tls,
    trace::{Marks, Op, Trace},
};
use eyre::{Context as _, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use switchyard_node::{
    config::{Consensus, Store},
    genesis::GenesisEpochs,
};
use switchyard_primitives::{Block, Bytes, Limits};
use switchyard_rollup_core::Sealing;
use switchyard_testnet_local::{NetworkDir, Options, Testnet};
use tokio::time::Instant;

/// How long a network may take for its blocks.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is recorded.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of validators.
    pub validators: usize,
    /// The network runs until its log is so high.
    pub blocks: u64,
    /// Blocks of an epoch.
    pub epoch_blocks: u64,
    /// What the stores keep; all, if absent.
    pub keep_blocks: Option<u64>,
    /// When the EVM rollups' blocks are closed.
    pub sealing: Sealing,
    /// How often a validator is killed and started again meanwhile.
    pub kills: u64,
    /// How long a sync takes, in microseconds.
    pub sync_us: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            validators: 1,
            blocks: 300,
            epoch_blocks: 40,
            keep_blocks: None,
            sealing: Sealing::HubBlock,
            kills: 1,
            sync_us: 300,
        }
    }
}

impl Plan {
    fn options(&self) -> Options {
        // A leader that is away, or may not vote again for what it has voted for, costs little.
        let leader_timeout_ms = if self.validators == 1 { 400 } else { 900 };
        let consensus = Consensus {
            heartbeat_ms: 25,
            min_interval_ms: 5,
            leader_timeout_ms,
            certification_timeout_ms: leader_timeout_ms + 50,
            skip_timeout_ms: leader_timeout_ms + 100,
            doppelganger_check: false,
        };
        Options {
            validators: self.validators,
            sealing: self.sealing,
            epochs: GenesisEpochs { blocks: self.epoch_blocks, ..GenesisEpochs::default() },
            replay_window_blocks: 64,
            consensus,
            store: Store { keep_blocks: self.keep_blocks },
            ..Options::default()
        }
    }
}

/// What was recorded: a folder with the network, the trace, and what was before it.
#[derive(Debug)]
pub struct Recording {
    pub(super) dir: PathBuf,
    /// What happened.
    pub trace: Trace,
    /// The validators' folders before it.
    pub(super) base: Vec<Image>,
    /// What had left the validators before it: votes and announcements alone.
    pub(super) before: Trace,
    /// The final blocks, from height 1.
    pub(super) blocks: Vec<Block>,
}

fn base_of(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("base-{index}"))
}

pub(super) fn network_of(dir: &Path) -> PathBuf {
    dir.join("network")
}

pub(super) fn trace_of(dir: &Path) -> PathBuf {
    dir.join("trace")
}

pub(super) fn tls_of(dir: &Path) -> PathBuf {
    dir.join("tls")
}

fn before_of(dir: &Path) -> PathBuf {
    dir.join("before")
}

fn blocks_of(dir: &Path) -> PathBuf {
    dir.join("blocks")
}

impl Recording {
    /// Runs a network in the folder `dir`, which is made for it.
    pub async fn make(dir: &Path, plan: &Plan, shim: &Shim) -> eyre::Result<Self> {
        fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        drop(Testnet::create(&network_of(&dir), plan.options())?);
        let tls = Tls::create(&tls_of(&dir))?;
        let marks = Arc::new(Marks::open(&trace_of(&dir))?);
        let mut site = Site::open(&network_of(&dir), &tls, Some(marks.clone())).await?;
        let recorded = |node| {
            let record = Some(Recorded { node, trace: trace_of(&dir), sync_us: plan.sync_us });
            Settings { record, ..Settings::default() }
        };
        for index in 0..site.len() {
            site.start(index, shim, &recorded(index))?;
        }
        for index in 0..site.len() {
            site.ready(index).await?;
        }
        let (clients, reading) = (attend(site.dir(), &marks), Reading::start(site.dir()));
        let load = Load::start(site.dir(), 0);
        let deadline = Instant::now() + PATIENCE;
        for life in 1..=plan.kills + 1 {
            while clients.height() < plan.blocks * life / (plan.kills + 1) {
                for index in 0..site.len() {
                    site.lives(index)?;
                }
                ensure!(Instant::now() < deadline, "{} of {} blocks", clients.height(), plan.blocks);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if life <= plan.kills {
                let index = usize::try_from(life)? % site.len();
                site.kill(index).await?;
                site.start(index, shim, &recorded(index))?;
                site.ready(index).await?;
            }
        }
        load.stop().await;
        let blocks = reading.up_to(clients.height()).await;
        drop(clients);
        for index in 0..site.len() {
            let status = site.stop(index).await?;
            ensure!(status.success(), "validator {index}: {status}\n{}", site.log(index));
        }
        write_blocks(&blocks_of(&dir), &blocks)?;
        for index in 0..site.len() {
            Image::default().write(&base_of(&dir, index))?;
        }
        fs::write(before_of(&dir), [])?;
        let recording = Self::open(&dir)?;
        recording.check_whole(site.dir())?;
        Ok(recording)
    }

    /// One that was made before.
    pub fn open(dir: &Path) -> eyre::Result<Self> {
        let dir = dir.canonicalize().wrap_err_with(|| dir.display().to_string())?;
        let validators = NetworkDir::open(&network_of(&dir))?.validators();
        let base = (0..validators).map(|index| Image::read(&base_of(&dir, index)));
        Ok(Self {
            trace: Trace::read(&trace_of(&dir))?,
            base: base.collect::<Result<_, _>>()?,
            before: Trace::read(&before_of(&dir))?,
            blocks: read_blocks(&blocks_of(&dir))?,
            dir,
        })
    }

    /// Makes `dir` a recording of what follows: its network begins with these folders.
    pub(super) fn prepare(&self, dir: &Path, base: &[Image], cut: usize) -> eyre::Result<()> {
        copy_network(&network_of(&self.dir), &network_of(dir), base)?;
        for (index, image) in base.iter().enumerate() {
            image.write(&base_of(dir, index))?;
        }
        copy_folder(&tls_of(&self.dir), &tls_of(dir))?;
        fs::copy(blocks_of(&self.dir), blocks_of(dir))?;
        fs::write(before_of(dir), [])?;
        let marks = Marks::open(&before_of(dir))?;
        for record in self.before.0.iter().chain(&self.trace.0[..=cut]) {
            match &record.op {
                Op::Voted(vote) => marks.voted(record.node, vote)?,
                Op::Final { height, hash } => marks.final_block(record.node, *height, *hash)?,
                _ => {}
            }
        }
        fs::write(trace_of(dir), [])?;
        Ok(())
    }

    /// The disks before anything was recorded.
    pub(super) fn disks(&self) -> Vec<Disk> {
        self.base.iter().map(Disk::new).collect()
    }

    /// The records must make the folders that are there: so nothing was changed behind them.
    pub(super) fn check_whole(&self, network: &NetworkDir) -> eyre::Result<()> {
        let mut disks = self.disks();
        let mut begun = vec![false; disks.len()];
        for (place, record) in self.trace.0.iter().enumerate() {
            begun[record.node] |= matches!(record.op, Op::Start(_));
            disks[record.node].apply(&record.op).wrap_err_with(|| format!("record {place}"))?;
        }
        ensure!(begun.iter().all(|begun| *begun), "a process was not recorded: is it linked statically?");
        for (index, disk) in disks.iter().enumerate() {
            let (mut seen, mut found) = (disk.seen(), Image::read(&data_of(network, index))?);
            for path in disk.opaque() {
                ensure!(seen.files.remove(&path).is_some() == found.files.remove(&path).is_some(), "{path}");
            }
            ensure!(seen.folders == found.folders, "{:?} {:?}", seen.folders, found.folders);
            let names = |image: &Image| image.files.keys().cloned().collect::<Vec<_>>();
            ensure!(names(&seen) == names(&found), "{:?} {:?}", names(&seen), names(&found));
            for (path, content) in &seen.files {
                let there = &found.files[path];
                let differs = content.iter().zip(there).position(|(a, b)| a != b);
                let lens = (content.len(), there.len());
                ensure!(content == there, "{path} differs from its records at {differs:?}, {lens:?} bytes");
            }
        }
        Ok(())
    }
}

/// Configurations, keys and genesis of a network, with other data folders.
fn copy_network(from: &Path, to: &Path, data: &[Image]) -> eyre::Result<()> {
    fs::create_dir_all(to)?;
    for name in ["genesis.json", "testnet.json"] {
        fs::copy(from.join(name), to.join(name))?;
    }
    let network = NetworkDir::open(from)?;
    for (index, image) in data.iter().enumerate() {
        let files = network.validator(index);
        let folder = to.join(format!("validator-{index}"));
        fs::create_dir_all(&folder)?;
        // Not every validator relays.
        let names = ["config.toml", "identity.key", "bls.key", "operator.key", "relayer.key"];
        for name in names.into_iter().filter(|name| files.dir.join(name).exists()) {
            fs::copy(files.dir.join(name), folder.join(name))?;
        }
        image.write(&folder.join("data"))?;
    }
    Ok(())
}

/// Copies the files of a folder, with their modes.
fn copy_folder(from: &Path, to: &Path) -> eyre::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn write_blocks(path: &Path, blocks: &[Block]) -> eyre::Result<()> {
    let mut bytes = Vec::new();
    for block in blocks {
        let block = block.encode();
        bytes.extend(u32::try_from(block.len())?.to_le_bytes());
        bytes.extend(block);
    }
    Ok(fs::write(path, bytes)?)
}

fn read_blocks(path: &Path) -> eyre::Result<Vec<Block>> {
    let mut rest = Bytes::from(fs::read(path)?);
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        ensure!(rest.len() >= 4, "{} ends within a block", path.display());
        let len = u32::from_le_bytes(rest.0.split_to(4).as_ref().try_into()?) as usize;
        ensure!(rest.len() >= len, "{} ends within a block", path.display());
        let block = Bytes(rest.0.split_to(len));
        blocks.push(Block::decode(block, &Limits::default())?);
    }
    Ok(blocks)
}
