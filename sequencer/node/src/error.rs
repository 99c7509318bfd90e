//! Why a node does not start, or stopped.

use crate::{
    attest::AttestError,
    config::{Config, Role},
    disk::Trouble,
    executor::ExecutorError,
    genesis::GenesisError,
    hub::HubError,
    keys::KeyError,
    signer::SignerError,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use switchyard_consensus_engine::EngineError;
use switchyard_consensus_guard::GuardError;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::DriverError;
use switchyard_rollup_evm::EvmOpenError;
use switchyard_store::StoreError;

/// Why a node does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The genesis is not usable.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A key file is not usable.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The keys do not belong to a validator of this network.
    #[error("{0}")]
    NotAValidator(String),
    /// The configuration names what the genesis does not have.
    #[error("config: {0}")]
    Config(String),
    /// The log cannot begin where the operator wants it to.
    #[error("{0}")]
    Checkpoint(String),
    /// A folder or file cannot be made.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The record of what this validator has signed cannot be used.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The node has taken part in consensus, and nothing says what it has signed.
    #[error(
        "{path}: the sign record is missing, but this validator has taken part (its store is at height {height}): starting \
         could sign a second vote for a view and be slashed. Restore the record, or import its newest export (switchyard \
         sign-record import)"
    )]
    SignRecordLost {
        /// Where it should be.
        path: String,
        /// The node's durable tip.
        height: u64,
    },
    /// The remote signer.
    #[error(transparent)]
    Signer(#[from] Box<SignerError>),
    /// The store.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The hub's state.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A rollup's state cannot be opened.
    #[error("rollup {rollup}: {source}")]
    Rollup {
        /// The rollup.
        rollup: RollupId,
        /// Why.
        source: Box<EvmOpenError>,
    },
    /// A port cannot be bound.
    #[error("cannot listen on {address} for {what}: {source}; free the port or change the address in the config")]
    Listen {
        /// The server.
        what: &'static str,
        /// Its address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A server does not start.
    #[error("{what}: {reason}")]
    Server {
        /// The server.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The engine.
    #[error("consensus: {0}")]
    Engine(#[from] EngineError),
    /// The engine ended while the node ran.
    #[error("consensus: {0}")]
    EngineFailed(Arc<EngineError>),
    /// A rollup's execution stopped.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// Attestation failed.
    #[error("attestation: {0}")]
    Attest(#[from] AttestError),
    /// A part met a defect of this software.
    #[error("{part} panicked; please report the log")]
    Panicked {
        /// The part.
        part: String,
    },
    /// A part ended without a reason.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

impl NodeError {
    /// 2 for what the operator must change before a start can succeed, 1 for failures while running.
    pub fn exit_code(&self) -> u8 {
        match self {
            // There may be room again by itself.
            error if Trouble::of(error) == Some(Trouble::Full) => 1,
            Self::Executor(_) | Self::Attest(_) | Self::Panicked { .. } | Self::Ended(_) | Self::EngineFailed(_) => 1,
            Self::Store(StoreError::Database(_)) => 1,
            Self::Signer(error) if matches!(**error, SignerError::Away { .. }) => 1,
            _ => 2,
        }
    }
}

impl NodeError {
    /// The error as a node's last line, with what to do where its own text does not say it.
    pub fn line(&self, config: &Config) -> String {
        if let Some(trouble) = self.trouble(&config.data_dir) {
            return format!("{self}; {}", trouble.advice(&config.data_dir));
        }
        match self.damaged(config) {
            Some((folder, remedy)) => format!("{self}; {} is damaged: {remedy}", folder.display()),
            None => self.to_string(),
        }
    }

    /// What is wrong with the disk, if that is why.
    fn trouble(&self, data_dir: &Path) -> Option<Trouble> {
        Trouble::of(self).or_else(|| match self {
            // The engine's library does not always say why a write has failed: the disk does.
            Self::Engine(_) | Self::EngineFailed(_) | Self::Panicked { .. } => Trouble::found_in(data_dir),
            _ => None,
        })
    }

    /// The folder that is not what this node has written, and what to do about it.
    fn damaged(&self, config: &Config) -> Option<(PathBuf, String)> {
        let data = &config.data_dir;
        let store = || {
            let copied = match config.role {
                Role::Follower => "move it away and start again: it is copied from [sync] sources",
                Role::Validator => {
                    "move it away (not the sign record), name other nodes in [sync] sources and start again: it is copied \
                     from them"
                }
            };
            Some((data.join("store"), copied.to_owned()))
        };
        let state = |rollup| {
            let derived = "move it away and start again: it is derived from the log, or restored from a snapshot";
            Some((config.rollup_state(rollup), derived.to_owned()))
        };
        match self {
            Self::Store(StoreError::Corrupt { .. })
            | Self::Hub(HubError::Store(StoreError::Corrupt { .. }) | HubError::Corrupt { .. })
            | Self::Executor(ExecutorError::Store { source: StoreError::Corrupt { .. }, .. })
            | Self::Attest(AttestError::Store(StoreError::Corrupt { .. })) => store(),
            Self::Rollup { rollup, source } => match &**source {
                EvmOpenError::Storage { reason, .. } if says_damage(reason) => state(*rollup),
                _ => None,
            },
            Self::Executor(ExecutorError::Driver { rollup, source: DriverError::Storage(reason) })
                if says_damage(reason) =>
            {
                state(*rollup)
            }
            Self::Engine(error) if is_damage(error) => Some((config.consensus_dir(), begin_anew(data))),
            Self::EngineFailed(error) if is_damage(error) => Some((config.consensus_dir(), begin_anew(data))),
            _ => None,
        }
    }
}

/// Whether files are not what was written, by what a library says: in words alone.
fn says_damage(text: &str) -> bool {
    const SAID: [&str; 7] =
        ["corrupt", "checksum", "failed to init", "unable to init", "no such file", "cannot be read", "state trie"];
    SAID.iter().any(|said| text.to_lowercase().contains(said))
}

/// Whether the engine's files are not what it has written.
fn is_damage(error: &EngineError) -> bool {
    match error {
        EngineError::Archive { .. } => true,
        EngineError::Failed(text) => says_damage(text),
        _ => false,
    }
}

/// With the engine's journal lost, the sign record alone says what must not be signed again.
fn begin_anew(data: &Path) -> String {
    format!(
        "run `switchyard sign-record export`, move {} away, run `switchyard sign-record import` and start again: the log comes \
         from the other validators",
        data.display()
    )
}

/// Names the path that an I/O error is about.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> NodeError + '_ {
    |source| NodeError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = "role = \"follower\"\ngenesis = \"g\"\ndata_dir = \"data\"\n[sync]\nsources = [\"http://a:1\"]\n\
                    [grpc]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n";
        Config::parse(Path::new("/node/node.toml"), text).unwrap()
    }

    fn line(error: &NodeError) -> String {
        error.line(&config())
    }

    #[test]
    fn damage_is_told_with_its_folder_and_what_to_do() {
        let store = || StoreError::Corrupt { column: "headers", detail: "nothing at height 7".into() };
        let rollup = RollupId(3);
        for error in [
            NodeError::Store(store()),
            NodeError::Hub(HubError::Store(store())),
            NodeError::Hub(HubError::Corrupt { height: 7, detail: "short".into() }),
            NodeError::Executor(ExecutorError::Store { rollup, source: store() }),
        ] {
            let said = line(&error);
            assert!(said.contains("/node/data/store is damaged: move it away"), "{said}");
        }
        let storage = || DriverError::Storage("database: Corruption: block checksum mismatch".into());
        let said = line(&NodeError::Executor(ExecutorError::Driver { rollup, source: storage() }));
        assert!(said.contains("/node/data/rollups/3 is damaged: move it away"), "{said}");
        for error in [
            EngineError::Archive { name: "blocks", detail: "journal error".into() },
            EngineError::Failed("unable to init journal: corruption detected".into()),
        ] {
            let said = line(&NodeError::EngineFailed(Arc::new(error)));
            assert!(said.contains("/node/data/consensus is damaged") && said.contains("sign-record import"), "{said}");
        }
    }

    #[test]
    fn what_is_no_damage_is_not_called_so() {
        let rollup = RollupId(3);
        let driver = |text: &str| {
            line(&NodeError::Executor(ExecutorError::Driver { rollup, source: DriverError::Storage(text.into()) }))
        };
        assert!(!driver("database: Busy").contains("damaged"));
        let full = driver("database: IO error: No space left on device");
        assert!(full.contains("the disk of /node/data is full") && !full.contains("damaged"), "{full}");
        let files = driver("database: IO error: Too many open files");
        assert!(files.contains("LimitNOFILE") && !files.contains("damaged"), "{files}");
        let other = NodeError::Config("no".into());
        assert_eq!(line(&other), other.to_string());
    }
}
