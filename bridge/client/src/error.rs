//! Why something did not come about.

use alloy_primitives::B256;
use std::fmt;
use switchyard_bridge_contracts::LegError;
use switchyard_primitives::{RollupId, TxHash};
use switchyard_proto::ConvertError;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A node's words (`docs/specs/grpc.md`) for what it, or another one, may hold.
const MAY_HAPPEN: [&str; 4] = ["already_known", "not_replaced", "not_replicated", "unavailable"];

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A transaction.
    Transaction {
        /// The rollup that it is for.
        rollup: RollupId,
        /// Its hash.
        hash: TxHash,
    },
    /// A bundle, by its id.
    Bundle(B256),
}

impl fmt::Display for Sent {
    /// With the command that tells what has become of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction { rollup, hash } => {
                write!(f, "transaction {hash} (switchyard status --rollup {rollup} {hash})")
            }
            Self::Bundle(id) => write!(f, "bundle {id} (switchyard bundle status {id})"),
        }
    }
}

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
    /// Something was sent, and what becomes of it is not known: it may happen, or have happened. Who signs another one in its place,
    /// with the next nonce, may pay twice: look at it, or submit the same bytes again, which is safe.
    #[error(
        "{source}; look first what becomes of {sent}: it may still happen, and another one in its place would come on top"
    )]
    Unsure {
        /// What may still happen.
        sent: Sent,
        /// Why no more is known.
        source: Box<ClientError>,
    },
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
    /// The error of something that was sent: [`Self::Unsure`] unless it says that it does not happen.
    pub(crate) fn of(self, sent: Sent) -> Self {
        let is_certain = match &self {
            Self::Connect { .. } | Self::Call(_) | Self::Answer(_) | Self::Ended(_) => self.is_not_taken(),
            Self::Refused { code, .. } => !MAY_HAPPEN.contains(&code.as_str()),
            _ => true,
        };
        if is_certain { self } else { Self::Unsure { sent, source: Box::new(self) } }
    }

    /// Whether a node says that it has not looked at what it was sent.
    fn is_not_taken(&self) -> bool {
        let Self::Call(status) = self else { return false };
        matches!(
            status.code(),
            Code::InvalidArgument
                | Code::OutOfRange
                | Code::ResourceExhausted
                | Code::Unimplemented
                | Code::PermissionDenied
                | Code::Unauthenticated
        )
    }

    /// A stable snake_case word: the node's, where it is the node's error.
    pub fn code(&self) -> String {
        match self {
            Self::Connect { .. } => "connect".into(),
            Self::Call(status) => {
                let reason = status.get_details_error_info().map(|info| info.reason);
                reason.unwrap_or_else(|| format!("{:?}", status.code()).to_lowercase())
            }
            Self::Answer(_) => "answer".into(),
            Self::Unsure { source, .. } => source.code(),
            Self::Refused { code, .. } => code.clone(),
            Self::Reverted(_) | Self::Skipped { .. } => "execution".into(),
            Self::Ended(_) => "ended".into(),
            Self::NoAccounts(_) => "not_executed_here".into(),
            Self::Leg(_) => "leg".into(),
            Self::Signer(_) => "signature".into(),
        }
    }
}
