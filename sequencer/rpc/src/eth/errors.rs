//! JSON-RPC errors, with the codes and texts of geth: wallets and libraries match on both.

use crate::GatewayError;
use alloy::sol_types::{Panic, Revert, SolError};
use alloy_primitives::{B256, Bytes};
use jsonrpsee::types::ErrorObjectOwned;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Rejection, evm::EvmError};

/// Invalid parameters (JSON-RPC 2.0).
const INVALID_PARAMS: i32 = -32602;
/// The method exists but cannot be used on this transport; geth answers subscriptions over HTTP with it.
const METHOD_UNAVAILABLE: i32 = -32601;
/// The node failed (JSON-RPC 2.0).
const INTERNAL: i32 = -32603;
/// Anything that geth has no better code for: refused transactions, failed calls, missing state.
const SERVER: i32 = -32000;
/// A limit of this server (EIP-1474).
const LIMIT_EXCEEDED: i32 = -32005;
/// A call reverted; `data` is what it returned.
const REVERTED: i32 = 3;
/// A transaction was accepted but has no receipt yet (EIP-7966).
const RECEIPT_TIMEOUT: i32 = 4;

/// Why a request is not answered with a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EthError {
    /// The parameters are not what the method takes: mend the request.
    #[error("{0}")]
    InvalidParams(String),
    /// The transaction was refused: the text says what to change.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The call reverted.
    #[error("{}", revert_message(.0))]
    Reverted(Bytes),
    /// The call or read cannot be done: the text says why.
    #[error("{0}")]
    Failed(String),
    /// The block that the request names does not exist.
    #[error("header not found")]
    HeaderNotFound,
    /// The block that a log query names does not exist.
    #[error("unknown block")]
    UnknownBlock,
    /// The filter was removed, expired, or never existed: make a new one.
    #[error("filter not found")]
    FilterNotFound,
    /// A limit of this server: ask for less, or later.
    #[error("{0}")]
    Limit(String),
    /// The transaction was ordered, but execution skipped it for good.
    #[error("transaction {hash} was skipped: {reason}")]
    Skipped {
        /// The transaction.
        hash: B256,
        /// Why.
        reason: String,
    },
    /// The transaction is accepted, and has no receipt within the time asked for.
    #[error("The transaction was added to the mempool but wasn't processed in {timeout_ms}ms.")]
    ReceiptTimeout {
        /// The transaction.
        hash: B256,
        /// How long was waited.
        timeout_ms: u64,
    },
    /// The kind of subscription does not exist.
    #[error("no {0:?} subscription in eth namespace")]
    UnknownSubscription(String),
    /// The node failed; the detail is logged and not told.
    #[error("internal error")]
    Internal(String),
}

impl EthError {
    /// The JSON-RPC error code.
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::InvalidParams(_) => INVALID_PARAMS,
            Self::Reverted(_) => REVERTED,
            Self::Limit(_) => LIMIT_EXCEEDED,
            Self::ReceiptTimeout { .. } => RECEIPT_TIMEOUT,
            Self::UnknownSubscription(_) => METHOD_UNAVAILABLE,
            Self::Internal(_) => INTERNAL,
            Self::Rejected(_)
            | Self::Failed(_)
            | Self::HeaderNotFound
            | Self::UnknownBlock
            | Self::FilterNotFound
            | Self::Skipped { .. } => SERVER,
        }
    }
}

impl From<EvmError> for EthError {
    fn from(error: EvmError) -> Self {
        match error {
            EvmError::Revert(data) => Self::Reverted(data),
            EvmError::Storage(detail) => Self::Internal(detail),
            EvmError::NoState(_) | EvmError::Halt(_) | EvmError::InvalidCall(_) | EvmError::Busy(_) => {
                Self::Failed(error.to_string())
            }
        }
    }
}

impl From<GatewayError> for EthError {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::Store(detail) => Self::Internal(detail),
            GatewayError::Pruned { .. } => Self::Failed(error.to_string()),
        }
    }
}

impl From<EthError> for ErrorObjectOwned {
    fn from(error: EthError) -> Self {
        let code = error.code();
        match &error {
            EthError::Internal(detail) => tracing::error!(%detail, "JSON-RPC request failed"),
            EthError::Reverted(data) => return Self::owned(code, error.to_string(), Some(data)),
            EthError::ReceiptTimeout { hash, .. } => return Self::owned(code, error.to_string(), Some(hash)),
            EthError::Rejected(Rejection::AlreadyFinal { hash, height }) => {
                // A wallet that sends again must see that nothing is left to do, in words that it matches on.
                return Self::owned(code, format!("already known: {hash} is final in hub block {height}"), None::<()>);
            }
            EthError::Rejected(Rejection::PassedOn { code: "already_final", message }) => {
                return Self::owned(code, format!("already known: {message}"), None::<()>);
            }
            _ => {}
        }
        Self::owned(code, error.to_string(), None::<()>)
    }
}

/// The server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// This node does not run the rollup, or it is not an EVM rollup.
    #[error("rollup {0} has no EVM chain on this node")]
    NotEvm(RollupId),
    /// The address cannot be listened on.
    #[error("cannot serve JSON-RPC: {0}")]
    Listen(#[from] std::io::Error),
    /// Two handlers for one method.
    #[error("JSON-RPC method table: {0}")]
    Methods(#[from] jsonrpsee::server::RegisterMethodError),
}

/// "execution reverted", with the reason where the contract gave one in Solidity's encoding.
fn revert_message(data: &[u8]) -> String {
    if let Ok(Revert { reason }) = Revert::abi_decode(data) {
        return format!("execution reverted: {reason}");
    }
    match Panic::abi_decode(data) {
        Ok(panic) => format!("execution reverted: {}", panic_text(&panic)),
        Err(_) => "execution reverted".to_owned(),
    }
}

/// geth's words for Solidity's panic codes.
fn panic_text(panic: &Panic) -> String {
    let code = u64::try_from(panic.code).unwrap_or(u64::MAX);
    let text = match code {
        0x00 => "generic panic",
        0x01 => "assert(false)",
        0x11 => "arithmetic underflow or overflow",
        0x12 => "division or modulo by zero",
        0x21 => "enum overflow",
        0x22 => "invalid encoded storage byte array accessed",
        0x31 => "out-of-bounds array access; popping on an empty array",
        0x32 => "out-of-bounds access of an array or bytesN",
        0x41 => "out of memory",
        0x51 => "uninitialized function",
        _ => return format!("unknown panic code: {:#x}", panic.code),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{U256, address};

    fn check(error: impl Into<EthError>, code: i32, message: &str) {
        let object = ErrorObjectOwned::from(error.into());
        assert_eq!((object.code(), object.message()), (code, message));
    }

    #[test]
    fn a_refused_transaction_has_geths_code_and_text() {
        check(Rejection::NonceTooLow { expected: 5, found: 3 }, -32000, "nonce too low: next nonce 5, tx nonce 3");
        check(
            Rejection::InsufficientFunds {
                address: address!("0x00000000000000000000000000000000000000aa"),
                have: U256::from(1),
                want: U256::from(2),
            },
            -32000,
            "insufficient funds for gas * price + value: address 0x00000000000000000000000000000000000000AA have 1 want 2",
        );
        let hash = B256::with_last_byte(1);
        check(Rejection::AlreadyKnown(hash), -32000, &format!("already known: {hash}"));
        check(
            Rejection::AlreadyFinal { hash, height: 7 },
            -32000,
            &format!("already known: {hash} is final in hub block 7"),
        );
        let underpriced =
            ErrorObjectOwned::from(EthError::from(Rejection::ReplacementUnderpriced { need: 2, have: 1 }));
        assert!(underpriced.message().starts_with("replacement transaction underpriced"));
    }

    #[test]
    fn a_reverted_call_tells_the_reason_and_carries_the_data() {
        let data = Bytes::from(Revert::from("too late").abi_encode());
        let object = ErrorObjectOwned::from(EthError::from(EvmError::Revert(data.clone())));
        assert_eq!((object.code(), object.message()), (3, "execution reverted: too late"));
        assert_eq!(object.data().map(|d| d.get().to_owned()), Some(format!("\"{data}\"")));
    }

    #[test]
    fn a_panic_is_told_in_geths_words() {
        let revert = |code: u64| EthError::Reverted(Panic { code: U256::from(code) }.abi_encode().into());
        check(revert(0x11), 3, "execution reverted: arithmetic underflow or overflow");
        check(revert(0x99), 3, "execution reverted: unknown panic code: 0x99");
    }

    #[test]
    fn other_revert_data_is_not_guessed_at() {
        for data in [Bytes::new(), Bytes::from_static(&[1, 2, 3]), Bytes::from_static(&[0x08, 0xc3, 0x79, 0xa0, 1])] {
            check(EthError::Reverted(data), 3, "execution reverted");
        }
    }

    #[test]
    fn a_node_failure_tells_nothing_of_the_inside() {
        check(EvmError::Storage("/data/rocksdb: disk full".into()), -32603, "internal error");
        check(GatewayError::Store("/data/rocksdb: disk full".into()), -32603, "internal error");
    }
}
