//! Which transactions may wait in a mempool.

use alloy_primitives::{Address, B256, U256};
use switchyard_primitives::{Bytes, RollupId, TxHash};

/// Why a submission is refused, or was dropped after it had been accepted. [`Rejection::code`] is the stable word that
/// metrics, gRPC details and the shell use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The bytes are not a transaction of this rollup's VM.
    #[error("malformed transaction: {0}")]
    Malformed(String),
    /// A transaction type that rollups do not take (blobs).
    #[error("transaction type {0} is not supported")]
    UnsupportedType(u8),
    /// Above the network's limit.
    #[error("transaction of {bytes} bytes is above the limit of {limit}")]
    Oversized {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An empty payload.
    #[error("empty transaction")]
    Empty,
    /// No such rollup, or the system rollup.
    #[error("unknown rollup {0}")]
    UnknownRollup(RollupId),
    /// Signed for another chain.
    #[error("invalid chain id: transaction is for {found:?}, the rollup is {expected}")]
    WrongChainId {
        /// The transaction's chain id, none for a transaction without replay protection.
        found: Option<u64>,
        /// The rollup's.
        expected: u64,
    },
    /// No account could have made this signature.
    #[error("invalid signature")]
    BadSignature,
    /// The nonce was used already.
    #[error("nonce too low: next nonce {expected}, tx nonce {found}")]
    NonceTooLow {
        /// The account's next nonce.
        expected: u64,
        /// The transaction's.
        found: u64,
    },
    /// So far above the account's nonce that it will not be kept.
    #[error("nonce too high: next nonce {expected}, tx nonce {found}, at most {limit} ahead are kept")]
    NonceTooHigh {
        /// The account's next nonce.
        expected: u64,
        /// The transaction's.
        found: u64,
        /// How far ahead a nonce may be.
        limit: u64,
    },
    /// The balance does not cover value and gas.
    #[error("insufficient funds for gas * price + value: address {address} have {have} want {want}")]
    InsufficientFunds {
        /// The sender.
        address: Address,
        /// Its balance, less what its earlier waiting transactions may cost.
        have: U256,
        /// What the transaction may cost.
        want: U256,
    },
    /// The gas limit is below what any execution needs.
    #[error("intrinsic gas too low: gas {have}, minimum needed {need}")]
    IntrinsicGas {
        /// The gas limit.
        have: u64,
        /// What is needed.
        need: u64,
    },
    /// The gas limit is above a block's.
    #[error("exceeds block gas limit: gas {have}, limit {limit}")]
    GasLimit {
        /// The gas limit.
        have: u64,
        /// The block's.
        limit: u64,
    },
    /// The fee cap is below the base fee.
    #[error("max fee per gas less than block base fee: maxFeePerGas {have}, baseFee {base_fee}")]
    FeeTooLow {
        /// The transaction's fee cap.
        have: u128,
        /// The base fee.
        base_fee: u64,
    },
    /// The tip is above the fee cap.
    #[error("max priority fee per gas higher than max fee per gas: {tip} > {cap}")]
    TipAboveFeeCap {
        /// The tip.
        tip: u128,
        /// The cap.
        cap: u128,
    },
    /// Another transaction with this nonce waits and pays about as much.
    #[error("replacement transaction underpriced: needs at least {need} per gas, has {have}")]
    ReplacementUnderpriced {
        /// The fee cap that would replace it.
        need: u128,
        /// The transaction's.
        have: u128,
    },
    /// Waits already.
    #[error("already known: {0}")]
    AlreadyKnown(TxHash),
    /// Is in the log already.
    #[error("already final in block {height}: {hash}")]
    AlreadyFinal {
        /// The transaction.
        hash: TxHash,
        /// The hub block that holds it.
        height: u64,
    },
    /// The mempool, or the rollup's share of it, is full.
    #[error("mempool full for rollup {rollup}: {detail}")]
    PoolFull {
        /// The rollup.
        rollup: RollupId,
        /// Which bound was reached.
        detail: String,
    },
    /// Was replaced by another transaction with the same nonce.
    #[error("replaced by {by}")]
    Replaced {
        /// The replacement.
        by: TxHash,
    },
    /// Waited too long without becoming includable.
    #[error("expired: not includable for {seconds} s")]
    Expired {
        /// How long it waited.
        seconds: u64,
    },
    /// A record of the system rollup that the hub's state does not allow.
    #[error("record refused: {0}")]
    Record(String),
    /// A bundle's leg has this nonce, or is this transaction: what becomes of it is the bundle's.
    #[error("bundle {id} has this nonce, or this transaction")]
    OfBundle {
        /// The bundle.
        id: B256,
    },
    /// Validators with too few seats have confirmed that they hold it; it may still be included.
    #[error("not replicated: validators with {held} of {need} seats hold it")]
    NotReplicated {
        /// Seats of the validators that hold it.
        held: usize,
        /// Seats that must.
        need: usize,
    },
    /// The node is stopping or behind.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// A validator's reason, as it gave it to this node.
    #[error("{message}")]
    PassedOn {
        /// Its word.
        code: &'static str,
        /// The reason with its values.
        message: String,
    },
}

impl Rejection {
    /// Every word of [`Self::code`].
    const CODES: [&'static str; 23] = [
        "malformed",
        "unsupported_type",
        "oversized",
        "empty",
        "unknown_rollup",
        "wrong_chain_id",
        "bad_signature",
        "nonce_too_low",
        "nonce_too_high",
        "insufficient_funds",
        "intrinsic_gas",
        "gas_limit",
        "fee_too_low",
        "tip_above_fee_cap",
        "replacement_underpriced",
        "already_known",
        "already_final",
        "pool_full",
        "replaced",
        "expired",
        "of_bundle",
        "not_replicated",
        "unavailable",
    ];

    /// What a validator has answered to this node. A word that this version does not know becomes `unavailable`, so that
    /// nobody can make up labels of metrics.
    pub fn passed_on(code: &str, message: String) -> Self {
        let known = Self::CODES.into_iter().find(|known| *known == code);
        Self::PassedOn { code: known.unwrap_or("unavailable"), message }
    }

    /// Whether the transaction's bytes alone are the reason, whatever the state: every node that holds to the same rules
    /// refuses it, and none passes it on. [`Self::UnknownRollup`] is not, since the rollups may change.
    pub fn is_of_the_bytes(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::UnsupportedType(_)
                | Self::Oversized { .. }
                | Self::Empty
                | Self::WrongChainId { .. }
                | Self::BadSignature
                | Self::IntrinsicGas { .. }
                | Self::GasLimit { .. }
                | Self::TipAboveFeeCap { .. }
        )
    }

    /// A stable snake_case word for this reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UnsupportedType(_) => "unsupported_type",
            Self::Oversized { .. } => "oversized",
            Self::Empty => "empty",
            Self::UnknownRollup(_) => "unknown_rollup",
            Self::WrongChainId { .. } => "wrong_chain_id",
            Self::BadSignature => "bad_signature",
            Self::NonceTooLow { .. } => "nonce_too_low",
            Self::NonceTooHigh { .. } => "nonce_too_high",
            Self::InsufficientFunds { .. } => "insufficient_funds",
            Self::IntrinsicGas { .. } => "intrinsic_gas",
            Self::GasLimit { .. } => "gas_limit",
            Self::FeeTooLow { .. } => "fee_too_low",
            Self::TipAboveFeeCap { .. } => "tip_above_fee_cap",
            Self::ReplacementUnderpriced { .. } => "replacement_underpriced",
            Self::AlreadyKnown(_) => "already_known",
            Self::AlreadyFinal { .. } => "already_final",
            Self::PoolFull { .. } => "pool_full",
            Self::Replaced { .. } => "replaced",
            Self::Expired { .. } => "expired",
            Self::Record(_) => "record",
            Self::OfBundle { .. } => "of_bundle",
            Self::NotReplicated { .. } => "not_replicated",
            Self::Unavailable(_) => "unavailable",
            Self::PassedOn { code, .. } => code,
        }
    }
}

/// What the mempool needs to know of a transaction whose sender numbers its transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// Who signed it.
    pub sender: Address,
    /// Its place in the sender's order.
    pub nonce: u64,
    /// Gas limit.
    pub gas_limit: u64,
    /// Most that it pays per gas, in wei.
    pub fee_cap: u128,
    /// Tip per gas, in wei.
    pub tip_cap: u128,
    /// Most that it can cost its sender: value plus gas limit times fee cap.
    pub max_cost: U256,
}

/// A sender's account at the executed head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Next nonce.
    pub nonce: u64,
    /// Balance in wei.
    pub balance: U256,
}

/// A rollup's rules of admission. The node holds one for each rollup whose state it has.
pub trait Admission: Send + Sync + 'static {
    /// Everything that can be said without state: decoding, signature, chain id, intrinsic gas, gas limit. Expensive
    /// (a signature recovery): call it outside locks. `None` for a VM without senders and nonces.
    fn inspect(&self, payload: &Bytes) -> Result<Option<Sequenced>, Rejection>;

    /// The account at the executed head, empty where there is none; cheap. `None` if the state cannot be read: nothing is
    /// admitted then, and nothing dropped.
    fn account(&self, sender: Address) -> Option<Account>;

    /// Base fee of the next block in wei; cheap.
    fn base_fee(&self) -> u64;

    /// Gas of a block; cheap.
    fn block_gas_limit(&self) -> u64;

    /// Sum of the gas limits that a leader puts into the next segment at the most; cheap. What one rollup block holds, or
    /// nothing while, at the executed head, enough waits for its block already. Derivation does not rely on it.
    fn segment_gas_limit(&self) -> u64 {
        self.block_gas_limit()
    }
}
