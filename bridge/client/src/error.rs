//! Why something did not come about.

use alloy_primitives::B256;
use switchyard_bridge_contracts::LegError;
use switchyard_primitives::RollupId;
use switchyard_proto::ConvertError;
use tonic::Status;
use tonic_types::StatusExt as _;

/// Why a call of the client fails.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The node cannot be reached.
    #[error("cannot connect to {url}: {source}")]
    Connect {
        /// Its gRPC endpoint.
        url: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The node answers with an error; [`Self::code`] is its stable word.
    #[error("{}", .0.message())]
    Call(#[from] Status),
    /// The node's answer does not make sense.
    #[error("the node's answer: {0}")]
    Answer(#[from] ConvertError),
    /// A transaction or a bundle is refused.
    #[error("{message}")]
    Refused {
        /// A stable word: those of `docs/specs/grpc.md`.
        code: String,
        /// The reason with its values.
        message: String,
    },
    /// A transaction was executed, and reverted.
    #[error("{0} reverted")]
    Reverted(B256),
    /// A transaction is in the log, and could not be executed.
    #[error("{hash} was skipped: {reason}")]
    Skipped {
        /// The transaction.
        hash: B256,
        /// Why.
        reason: String,
    },
    /// The stream of changes ended before it should.
    #[error("the node says no more of {0}")]
    Ended(B256),
    /// The rollup does not run on this node.
    #[error("rollup {0} has no accounts on this node")]
    NoAccounts(RollupId),
    /// Legs that make no bundle.
    #[error(transparent)]
    Leg(#[from] LegError),
    /// The key does not sign.
    #[error("cannot sign: {0}")]
    Signer(#[from] alloy::signers::Error),
}

impl ClientError {
    /// A stable snake_case word: the node's, where it is the node's error.
    pub fn code(&self) -> String {
        match self {
            Self::Connect { .. } => "connect".into(),
            Self::Call(status) => {
                let reason = status.get_details_error_info().map(|info| info.reason);
                reason.unwrap_or_else(|| format!("{:?}", status.code()).to_lowercase())
            }
            Self::Answer(_) => "answer".into(),
            Self::Refused { code, .. } => code.clone(),
            Self::Reverted(_) | Self::Skipped { .. } => "execution".into(),
            Self::Ended(_) => "ended".into(),
            Self::NoAccounts(_) => "not_executed_here".into(),
            Self::Leg(_) => "leg".into(),
            Self::Signer(_) => "signature".into(),
        }
    }
}
