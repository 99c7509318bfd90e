//! `switchyard snapshot`: a rollup's state as a file, from a running node into a new one.

use super::{CliError, Connect};
use crate::{
    config::{Config, ConfigError},
    disk::{self, Trouble},
    genesis::{Genesis, GenesisError},
};
use clap::Subcommand;
use std::{
    fs::File,
    io::{BufReader, Write},
    path::{Path, PathBuf},
};
use switchyard_primitives::{B256, RollupId};
use switchyard_proto::v1;
use switchyard_rollup_core::Vm;
use switchyard_rollup_evm::{
    EvmConfig,
    snapshot::{SnapshotError, SnapshotInfo, inspect, restore},
};

/// Makes a snapshot of a rollup's state, or starts a new node with one.
#[derive(Clone, Debug, clap::Args)]
pub struct SnapshotArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SnapshotCommand,
}

/// What to do with a snapshot.
#[derive(Clone, Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Write the state of an EVM rollup after its newest block to a file; the node goes on meanwhile
    Create {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// The rollup's id
        #[arg(long, value_name = "ID")]
        rollup: RollupId,
        /// The file, which must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a file the rollup's state of a node that has none; the node must not run
    Restore {
        /// The node's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The rollup's id
        #[arg(long, value_name = "ID")]
        rollup: RollupId,
        /// The hash of the rollup's block, from somebody you trust. Everything in the file is checked against it
        #[arg(long, value_name = "HASH")]
        block_hash: B256,
        /// The snapshot
        file: PathBuf,
    },
}

/// Why a snapshot is not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotCommandError {
    /// The node does not give it.
    #[error(transparent)]
    Node(#[from] CliError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// No EVM rollup of the network.
    #[error("rollup {0} is not an EVM rollup of this network")]
    NoRollup(RollupId),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The snapshot is refused.
    #[error("{path}: {source}")]
    Snapshot {
        /// The file.
        path: String,
        /// Why.
        source: SnapshotError,
    },
    /// What it holds cannot be written.
    #[error("{path}: {source}")]
    State {
        /// The folder that it was to become.
        path: String,
        /// Why.
        source: SnapshotError,
    },
}

impl SnapshotCommandError {
    /// The process's exit code: 1 where trying again can help, 2 for what must be changed first.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Node(_)) || self.trouble().is_some() { 1 } else { 2 }
    }

    /// This machine's disk, with the path whose disk it is.
    fn trouble(&self) -> Option<(Trouble, &Path)> {
        match self {
            Self::Io { path, .. } | Self::Snapshot { path, .. } | Self::State { path, .. } => {
                Some((Trouble::of(self)?, Path::new(path)))
            }
            // What a node says of its own disk is not of this one.
            _ => None,
        }
    }

    /// The error in one line, with what to do where the disk is the trouble.
    pub fn line(&self) -> String {
        self.trouble().map_or_else(|| self.to_string(), |(_, path)| disk::line(self, path))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SnapshotCommandError + '_ {
    |source| SnapshotCommandError::Io { path: path.display().to_string(), source }
}

/// `switchyard snapshot`.
pub async fn snapshot(args: SnapshotArgs, out: &mut (dyn Write + Send)) -> Result<(), SnapshotCommandError> {
    match args.command {
        SnapshotCommand::Create { connect, rollup, out: file } => create(&connect, rollup, &file, out).await,
        SnapshotCommand::Restore { config, rollup, block_hash, file } => {
            restore_file(&config, rollup, block_hash, &file, out)
        }
    }
}

async fn create(
    connect: &Connect,
    rollup: RollupId,
    path: &Path,
    out: &mut (dyn Write + Send),
) -> Result<(), SnapshotCommandError> {
    let mut node = connect.open().await?;
    let request = v1::StreamSnapshotRequest { rollup_id: rollup.0 };
    let mut pieces = node.blocks.stream_snapshot(request).await.map_err(CliError::from)?.into_inner();
    let first = pieces.message().await.map_err(CliError::from)?;
    // Only now: a node that refuses leaves no file.
    let mut file = File::create_new(path).map_err(io(path))?;
    let written = async {
        let (mut next, mut bytes) = (first, 0);
        while let Some(v1::StreamSnapshotResponse { piece }) = next {
            file.write_all(&piece).map_err(io(path))?;
            bytes += piece.len();
            next = pieces.message().await.map_err(CliError::from)?;
        }
        file.sync_all().map_err(io(path))?;
        Ok::<_, SnapshotCommandError>(bytes)
    };
    let refused = |source| SnapshotCommandError::Snapshot { path: path.display().to_string(), source };
    let checked = async {
        let bytes = written.await?;
        let file = File::open(path).map_err(io(path))?;
        Ok::<_, SnapshotCommandError>((bytes, inspect(&mut BufReader::new(file)).map_err(refused)?))
    };
    let (bytes, SnapshotInfo { number, hash, next_hub_height, .. }) = match checked.await {
        Ok(checked) => checked,
        Err(error) => {
            std::fs::remove_file(path).map_err(io(path))?;
            return Err(error);
        }
    };
    let path = path.display();
    let text = format!(
        "rollup {rollup}: block {number} {hash}, goes on with hub block {next_hub_height}; {bytes} bytes in {path}"
    );
    writeln!(out, "{text}").map_err(CliError::from)?;
    Ok(())
}

fn restore_file(
    config: &Path,
    rollup: RollupId,
    trusted: B256,
    path: &Path,
    out: &mut dyn Write,
) -> Result<(), SnapshotCommandError> {
    let config = Config::load(config)?;
    let genesis = Genesis::load(&config.genesis)?;
    let manifest = genesis.rollups.iter().find(|manifest| manifest.id == rollup);
    let Some((manifest, Vm::Evm { genesis: evm })) = manifest.map(|manifest| (manifest, &manifest.vm)) else {
        return Err(SnapshotCommandError::NoRollup(rollup));
    };
    let evm = EvmConfig { rollup, genesis: evm.clone(), sealing: manifest.sealing };
    let file = File::open(path).map_err(io(path))?;
    let into = config.rollup_state(rollup);
    let failed = |source| match Trouble::of(&source) {
        Some(_) => SnapshotCommandError::State { path: into.display().to_string(), source },
        None => SnapshotCommandError::Snapshot { path: path.display().to_string(), source },
    };
    let info = restore(&into, &evm, trusted, &mut BufReader::with_capacity(1 << 20, file)).map_err(failed)?;
    let text = format!(
        "rollup {rollup}: block {} with {} accounts and {} slots; derivation goes on with hub block {}",
        info.number, info.accounts, info.slots, info.next_hub_height
    );
    writeln!(out, "{text}").map_err(CliError::from)?;
    Ok(())
}
