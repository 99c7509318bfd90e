//! Why a node does not start, or stopped.

use crate::{executor::ExecutorError, genesis::GenesisError, hub::HubError, keys::KeyError, signer::SignerError};
use std::{net::SocketAddr, path::Path, sync::Arc};
use switchyard_consensus_engine::EngineError;
use switchyard_consensus_guard::GuardError;
use switchyard_primitives::RollupId;
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
        "{path}: the sign record is missing, but the node's store is at height {height}: starting could sign a second vote \
         for a view and be slashed. Restore the record, or import its newest export (switchyard sign-record import)"
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
            Self::Executor(_) | Self::Panicked { .. } | Self::Ended(_) | Self::EngineFailed(_) => 1,
            Self::Store(StoreError::Database(_)) => 1,
            Self::Signer(error) if matches!(**error, SignerError::Away { .. }) => 1,
            _ => 2,
        }
    }
}

/// Names the path that an I/O error is about.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> NodeError + '_ {
    |source| NodeError::Io { path: path.display().to_string(), source }
}
