//! Why a call fails, and the gRPC status that says so.

use std::collections::HashMap;
use switchyard_primitives::{B256, Level, RollupId};
use switchyard_proto::ConvertError;
use switchyard_rollup_core::Rejection;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every `google.rpc.ErrorInfo` that this server sends.
pub const ERROR_DOMAIN: &str = "switchyard";

/// Why a call fails. The status carries [`ApiError::reason`] as `ErrorInfo`, with the values as its metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A field of the request is wrong; nothing was done.
    #[error("{field}: {description}")]
    Field {
        /// The field, as in the `.proto` file.
        field: &'static str,
        /// What is wrong with it.
        description: String,
    },
    /// The network has no such rollup, or it is not one to submit to.
    #[error("unknown rollup {0}")]
    UnknownRollup(RollupId),
    /// The block is not final here yet.
    #[error("block {height} is not final here yet: the tip is {tip}")]
    AboveTip {
        /// The height asked for.
        height: u64,
        /// The node's tip.
        tip: u64,
    },
    /// The epoch has not begun here, or the block before it has no certificate here yet.
    #[error("epoch {epoch} has not begun here")]
    EpochNotBegun {
        /// The epoch asked for.
        epoch: u64,
    },
    /// A stream was to start too far above the tip.
    #[error(
        "height {height} is more than {limit} above this node's tip {tip}: the height is wrong or the node is behind"
    )]
    TooFarAhead {
        /// The height asked for.
        height: u64,
        /// The node's tip.
        tip: u64,
        /// How far above the tip a stream may start.
        limit: u64,
    },
    /// The block is final, and the certificate that proves it has not reached this node; try again in a second.
    #[error("no certificate at or above block {height} is known here yet; try again")]
    CertificatePending {
        /// The height asked for.
        height: u64,
    },
    /// The node does not keep the block any more; ask an archive.
    #[error("block {height} is not kept here: the earliest is {earliest}")]
    Pruned {
        /// The height asked for.
        height: u64,
        /// The earliest height kept.
        earliest: u64,
    },
    /// The level does not exist yet.
    #[error("level {level} is not available yet: ask for final")]
    LevelUnavailable {
        /// The level asked for.
        level: Level,
    },
    /// The node does not run the rollup, so it learns of no outcomes.
    #[error("rollup {0} is not executed by this node, so it has no outcomes")]
    NotExecutedHere(RollupId),
    /// No rollup that runs here has sent such a message, as far as this node knows.
    #[error("no rollup that runs here has sent message {id}")]
    UnknownMessage {
        /// The id asked for.
        id: B256,
    },
    /// A bundle that is neither in the log nor waits here, nor was refused here a while ago.
    #[error("nothing is known here of bundle {id}")]
    UnknownBundle {
        /// The id asked for.
        id: B256,
    },
    /// As many streams as this server holds are open; end one or try another node.
    #[error("as many streams as this server holds ({limit}) are open")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// The transaction has not come as far as asked.
    #[error("the transaction has not come as far as asked in {timeout_ms} ms")]
    WatchTimeout {
        /// How long was waited.
        timeout_ms: u64,
    },
    /// The node is stopping; go on with another one.
    #[error("the node is stopping")]
    Stopping,
    /// The node's storage failed; its log has the details.
    #[error("the node's storage failed")]
    Storage,
}

impl ApiError {
    /// A stable snake_case word for this error; the words of [`Rejection::code`] where it is one.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "invalid_request",
            Self::UnknownRollup(id) => Rejection::UnknownRollup(*id).code(),
            Self::AboveTip { .. } => "above_tip",
            Self::EpochNotBegun { .. } => "epoch_not_begun",
            Self::TooFarAhead { .. } => "too_far_ahead",
            Self::CertificatePending { .. } => "certificate_pending",
            Self::Pruned { .. } => "pruned",
            Self::LevelUnavailable { .. } => "level_unavailable",
            Self::NotExecutedHere(_) => "not_executed_here",
            Self::UnknownMessage { .. } => "unknown_message",
            Self::UnknownBundle { .. } => "unknown_bundle",
            Self::TooManyStreams { .. } => "too_many_streams",
            Self::WatchTimeout { .. } => "watch_timeout",
            Self::Stopping => Rejection::Unavailable("").code(),
            Self::Storage => "storage",
        }
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::Field { .. } => Code::InvalidArgument,
            Self::UnknownRollup(_)
            | Self::AboveTip { .. }
            | Self::EpochNotBegun { .. }
            | Self::UnknownMessage { .. }
            | Self::UnknownBundle { .. } => Code::NotFound,
            Self::TooFarAhead { .. } | Self::Pruned { .. } => Code::OutOfRange,
            Self::CertificatePending { .. } | Self::Stopping => Code::Unavailable,
            Self::LevelUnavailable { .. } => Code::Unimplemented,
            Self::NotExecutedHere(_) => Code::FailedPrecondition,
            Self::TooManyStreams { .. } => Code::ResourceExhausted,
            Self::WatchTimeout { .. } => Code::DeadlineExceeded,
            Self::Storage => Code::Internal,
        }
    }

    fn metadata(&self) -> HashMap<String, String> {
        let values: Vec<(&str, String)> = match self {
            Self::Field { .. } | Self::Stopping | Self::Storage => vec![],
            Self::UnknownRollup(id) | Self::NotExecutedHere(id) => vec![("rollup_id", id.to_string())],
            Self::EpochNotBegun { epoch } => vec![("epoch", epoch.to_string())],
            Self::AboveTip { height, tip } => vec![("height", height.to_string()), ("tip", tip.to_string())],
            Self::TooFarAhead { height, tip, limit } => {
                vec![("height", height.to_string()), ("tip", tip.to_string()), ("limit", limit.to_string())]
            }
            Self::CertificatePending { height } => vec![("height", height.to_string())],
            Self::Pruned { height, earliest } => {
                vec![("height", height.to_string()), ("earliest", earliest.to_string())]
            }
            Self::LevelUnavailable { level } => vec![("level", level.to_string())],
            Self::UnknownMessage { id } | Self::UnknownBundle { id } => vec![("id", id.to_string())],
            Self::TooManyStreams { limit } => vec![("limit", limit.to_string())],
            Self::WatchTimeout { timeout_ms } => vec![("timeout_ms", timeout_ms.to_string())],
        };
        values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut details = ErrorDetails::with_error_info(error.reason(), ERROR_DOMAIN, error.metadata());
        if let ApiError::Field { field, description } = &error {
            details.add_bad_request_violation(*field, description);
        }
        Status::with_error_details(error.code(), error.to_string(), details)
    }
}

/// Gives an error that the transport made the details that ours have, and a request that does not decode, which it
/// reports as the server's fault, the code that says whose it is.
pub(super) fn describe(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    let (code, reason) = match status.code() {
        Code::Internal => (Code::InvalidArgument, "malformed_request"),
        Code::OutOfRange => (Code::OutOfRange, "message_too_large"),
        Code::Unimplemented => (Code::Unimplemented, "unimplemented"),
        _ => return status,
    };
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, status.message(), details)
}

impl From<ConvertError> for ApiError {
    fn from(error: ConvertError) -> Self {
        let text = error.to_string();
        let field = error.field();
        let description = text.strip_prefix(field).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text);
        Self::Field { field, description: description.to_owned() }
    }
}

impl From<crate::GatewayError> for ApiError {
    fn from(error: crate::GatewayError) -> Self {
        match error {
            crate::GatewayError::Pruned { height, earliest } => Self::Pruned { height, earliest },
            crate::GatewayError::Store(detail) => {
                tracing::error!(%detail, "a read for gRPC failed");
                Self::Storage
            }
        }
    }
}
