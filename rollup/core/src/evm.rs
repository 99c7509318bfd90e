//! The read interface of an EVM rollup: what a JSON-RPC server needs. Methods block on storage; call them off the
//! async threads.

use crate::TxOutcome;
use alloy::{
    consensus::{Header, ReceiptEnvelope, TxEnvelope},
    eips::eip4895::Withdrawal,
    rpc::types::{EIP1186AccountProofResponse, TransactionRequest, state::StateOverride},
};
use alloy_primitives::{Address, B256, Bytes, U256};
use std::sync::Arc;
use switchyard_bridge_core::{Checkpoint, Message, Vote};
use switchyard_primitives::Level;
use tokio::sync::{broadcast, watch};

/// A rollup block with everything that was computed in executing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutedBlock {
    /// Its header.
    pub header: Header,
    /// The header's hash.
    pub hash: B256,
    /// The hub block that it was derived from (the last, with one-second sealing).
    pub hub_height: u64,
    /// Its transactions, in order.
    pub transactions: Vec<TxEnvelope>,
    /// Their senders.
    pub senders: Vec<Address>,
    /// Their receipts; logs carry consensus fields only.
    pub receipts: Vec<ReceiptEnvelope>,
    /// Deposits that it brings, as EIP-4895 has them; their amounts are in Gwei.
    pub withdrawals: Vec<Withdrawal>,
}

/// The open block of a rollup with one-second sealing, as far as it has come: a prefix of the block that will be closed.
///
/// Nothing in it can change but its end. The hub's order is final and the block's environment is fixed when it is opened
/// (`docs/specs/evm-rollup.md`), so each transaction's place, sender, receipt and gas are those in the closed block. Not
/// known yet are the block's hash, its roots, and what comes after the last transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingBlock {
    /// Parent hash, number, timestamp, base fee and all else that execution can observe are final. Gas used and bloom are
    /// those of the transactions so far; extra data is that of the hub blocks so far; the roots are zero.
    pub header: Header,
    /// At least one. Shared with earlier and later states of the same block.
    pub transactions: Vec<Arc<PendingTransaction>>,
}

/// An executed transaction of an open block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingTransaction {
    /// The transaction.
    pub transaction: TxEnvelope,
    /// Its sender.
    pub sender: Address,
    /// Its receipt; logs carry consensus fields only.
    pub receipt: ReceiptEnvelope,
    /// Gas that it used itself.
    pub gas_used: u64,
    /// Position in the block of its first log, if it has any.
    pub first_log: usize,
}

impl PendingBlock {
    /// The hash that stands for the open block's, which is not known: zero. No block has it.
    pub const HASH: B256 = B256::ZERO;

    /// The same in the shape of a closed block, with [`Self::HASH`]. Copies every transaction.
    pub fn to_block(&self) -> ExecutedBlock {
        ExecutedBlock {
            header: self.header.clone(),
            hash: Self::HASH,
            hub_height: 0,
            transactions: self.transactions.iter().map(|tx| tx.transaction.clone()).collect(),
            senders: self.transactions.iter().map(|tx| tx.sender).collect(),
            receipts: self.transactions.iter().map(|tx| tx.receipt.clone()).collect(),
            withdrawals: Vec::new(),
        }
    }
}

/// Why a read or a simulated call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvmError {
    /// No such block, or its state is not kept.
    #[error("state of block {0} is not available")]
    NoState(u64),
    /// The call reverted; the data is what the contract returned.
    #[error("execution reverted")]
    Revert(Bytes),
    /// The call halted (out of gas, invalid opcode, ...).
    #[error("{0}")]
    Halt(String),
    /// The call cannot be executed as asked (funds, nonce, gas below intrinsic, fields that exclude each other).
    #[error("{0}")]
    InvalidCall(String),
    /// Not possible at this moment; try again in a second.
    #[error("{0}")]
    Busy(String),
    /// The state database failed.
    #[error("rollup state: {0}")]
    Storage(String),
}

/// An account as the state trie holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvmAccount {
    /// Next nonce.
    pub nonce: u64,
    /// Balance in wei.
    pub balance: U256,
    /// keccak-256 of the code.
    pub code_hash: B256,
}

/// What operators attest of a block: the checkpoint, and the votes that its root commits to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestable {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The votes of bundles that it carries, in their order.
    pub votes: Vec<Vote>,
}

/// A message that the rollup has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentMessage {
    /// All of its fields.
    pub message: Message,
    /// What its `payload_hash` is the hash of.
    pub payload: Bytes,
    /// Number of the rollup block that sent it.
    pub block: u64,
}

/// The executed chain of one EVM rollup.
///
/// Where a method takes the number of a block for its state, that of the open block ([`Self::pending`]) stands for the
/// state after the transactions that it holds by then.
pub trait EvmChain: Send + Sync + 'static {
    /// EIP-155 chain id.
    fn chain_id(&self) -> u64;
    /// The newest block; genesis at first. Cheap.
    fn head(&self) -> Arc<ExecutedBlock>;
    /// Number of the newest block at `level`: `Final` is the head, `Attested` is `safe`, `Settled` is `finalized`; 0 while
    /// nothing has reached the level. Cheap.
    fn number_at(&self, level: Level) -> u64;
    /// Takes note that block `number` is attested; a lower one than before changes nothing. A block that is not closed here yet
    /// may be named: it counts from when it is. Not kept across restarts: the hub's log says it again. Cheap.
    fn set_attested(&self, number: u64);
    /// Number of the newest closed block that is attested, 0 while there is none. Cheap.
    fn attested(&self) -> u64;
    /// What operators attest of block `number`; none if there is no such block, if it is not among the newest 16,384, or was
    /// not made by this version on this node (genesis, blocks up to a snapshot's).
    fn checkpoint(&self, number: u64) -> Result<Option<Attestable>, EvmError>;
    /// Number of messages that the rollup has sent up to the newest block. Cheap.
    fn outbox_count(&self) -> u64;
    /// The message of this index; none if there is none yet, or it was sent before this node's state begins (a snapshot, or a
    /// database of an earlier version).
    fn sent(&self, index: u64) -> Result<Option<SentMessage>, EvmError>;
    /// As [`Self::sent`], by the message's id.
    fn sent_by_id(&self, id: B256) -> Result<Option<SentMessage>, EvmError>;
    /// Siblings of message `index` in the outbox of `count` messages, from the leaf up: against a checkpoint's `outbox_root`
    /// with that count. None where [`Self::sent`] is none, or the outbox has never had so many.
    fn outbox_path(&self, index: u64, count: u64) -> Result<Option<Vec<B256>>, EvmError>;
    /// Writes the state after the newest block and all that a new node needs to go on from it. May take minutes.
    fn write_snapshot(&self, out: &mut dyn std::io::Write) -> Result<(), EvmError>;
    /// Base fee of the block after the head, in wei. Cheap.
    fn next_base_fee(&self) -> u64;
    /// A block by number.
    fn block_by_number(&self, number: u64) -> Result<Option<Arc<ExecutedBlock>>, EvmError>;
    /// A block by hash.
    fn block_by_hash(&self, hash: B256) -> Result<Option<Arc<ExecutedBlock>>, EvmError>;
    /// A header alone, for scans over many blocks.
    fn header(&self, number: u64) -> Result<Option<Header>, EvmError>;
    /// Block number and position of an executed transaction, in a closed block or in the open one.
    fn locate(&self, tx: B256) -> Result<Option<(u64, usize)>, EvmError>;
    /// What became of a transaction that the log holds; none while it has not been executed or skipped.
    fn outcome(&self, tx: B256) -> Result<Option<TxOutcome>, EvmError>;
    /// The open block; none while there is none, and always with a block for each hub block. Cheap.
    fn pending(&self) -> Option<Arc<PendingBlock>>;
    /// What the open block makes of a transaction: [`Self::outcome`] without the closed blocks. Cheap.
    fn pending_outcome(&self, tx: B256) -> Option<TxOutcome>;
    /// An account after block `number`, none if it is empty.
    fn account(&self, number: u64, address: Address) -> Result<Option<EvmAccount>, EvmError>;
    /// A storage slot after block `number`.
    fn storage(&self, number: u64, address: Address, slot: B256) -> Result<U256, EvmError>;
    /// An account's code after block `number`.
    fn code(&self, number: u64, address: Address) -> Result<Bytes, EvmError>;
    /// `eth_getProof` after block `number`, which must be closed.
    fn proof(&self, number: u64, address: Address, slots: &[B256]) -> Result<EIP1186AccountProofResponse, EvmError>;
    /// `eth_call` on the state after block `number`; returns the output.
    fn call(&self, number: u64, request: TransactionRequest, state: Option<StateOverride>) -> Result<Bytes, EvmError>;
    /// `eth_estimateGas` on the state after block `number`.
    fn estimate_gas(
        &self,
        number: u64,
        request: TransactionRequest,
        state: Option<StateOverride>,
    ) -> Result<u64, EvmError>;
    /// New blocks from now on. A receiver that falls behind is told how many it missed.
    fn subscribe(&self) -> broadcast::Receiver<Arc<ExecutedBlock>>;
    /// Number of the newest closed block, now and whenever there is another one.
    fn watch_head(&self) -> watch::Receiver<u64>;
    /// Changes when the open block takes in more or is another one.
    fn subscribe_pending(&self) -> watch::Receiver<()>;
}
