//! What a source does wrong, and what follows from it.

use super::trust::Untrue;
use std::time::Duration;
use switchyard_primitives::{BlockError, DecodeError};
use switchyard_proto::ConvertError;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Away or busy for a moment, as any node may be.
    Away,
    /// It lies, or is of no use: left alone for longer each time.
    Bad,
}

/// What a source did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// A fixed word, which also labels a metric.
    pub reason: &'static str,
    /// How bad it is.
    pub kind: Kind,
    /// The values.
    pub detail: String,
}

impl Fault {
    /// A lie, or something as useless.
    pub fn bad(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, kind: Kind::Bad, detail: detail.into() }
    }

    /// Trouble that passes.
    pub fn away(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, kind: Kind::Away, detail: detail.into() }
    }

    /// It did not answer in time.
    pub fn slow(what: &'static str, limit: Duration) -> Self {
        Self::bad("slow", format!("{what} took more than {} ms", limit.as_millis()))
    }
}

/// The earliest height that a source keeps, where that is why it refuses.
pub(super) fn pruned(status: &Status) -> Option<u64> {
    let info = status.get_details_error_info().filter(|info| info.reason == "pruned")?;
    info.metadata.get("earliest")?.parse().ok()
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        let message: String = status.message().chars().take(200).collect();
        match status.code() {
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => {
                Self::away("unavailable", message)
            }
            Code::ResourceExhausted => Self::away("busy", message),
            Code::NotFound => Self::away("behind", message),
            Code::OutOfRange if status.get_details_error_info().is_some() => Self::away("behind", message),
            Code::Unimplemented => Self::bad("unimplemented", message),
            // A connection that breaks looks like this.
            Code::Unknown => Self::away("unavailable", message),
            // What does not decode, or is longer than any true message.
            _ => Self::bad("garbage", message),
        }
    }
}

impl From<ConvertError> for Fault {
    fn from(error: ConvertError) -> Self {
        Self::bad("garbage", error.to_string())
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::bad("garbage", error.to_string())
    }
}

impl From<BlockError> for Fault {
    fn from(error: BlockError) -> Self {
        Self::bad("wrong_body", error.to_string())
    }
}

impl From<Untrue> for Fault {
    fn from(error: Untrue) -> Self {
        let reason = match &error {
            Untrue::Certificate(_) => "bad_certificate",
            Untrue::Epoch(_) => "unknown_epoch",
            Untrue::Checkpoint(_) => "checkpoint",
        };
        Self::bad(reason, error.to_string())
    }
}
