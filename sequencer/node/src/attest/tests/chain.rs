//! A rollup of which only the checkpoints are of interest: one block for each hub block.

use super::*;
use alloy::{
    consensus::Header as EvmHeader,
    rpc::types::{EIP1186AccountProofResponse, TransactionRequest, state::StateOverride},
};
use alloy_primitives::{Address, Bytes, U256, keccak256};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use switchyard_primitives::Level;
use switchyard_rollup_core::{
    TxOutcome,
    evm::{Attestable, EvmAccount, ExecutedBlock, PendingBlock, SentMessage},
};
use tokio::sync::{broadcast, watch};

const NO_STATE: EvmError = EvmError::NoState(0);

/// What one node has executed of a rollup.
pub(super) struct Chain {
    rollup: RollupId,
    head: Mutex<Arc<ExecutedBlock>>,
    attested: AtomicU64,
    /// Blocks whose state is another one here than it should be.
    wrong: Vec<u64>,
}

/// What comes out of right execution.
pub(super) fn right(rollup: RollupId, number: u64) -> Checkpoint {
    let root = |what: u8| keccak256([&number.to_be_bytes()[..], &[what]].concat());
    let (block_hash, state_root, outbox_root) = (root(1), root(2), B256::ZERO);
    Checkpoint { rollup, number, hub_height: number, block_hash, state_root, outbox_root, votes_root: B256::ZERO }
}

fn block(number: u64) -> Arc<ExecutedBlock> {
    let header = EvmHeader { number, parent_beacon_block_root: Some(B256::repeat_byte(1)), ..EvmHeader::default() };
    let (transactions, senders, receipts, withdrawals) = (vec![], vec![], vec![], vec![]);
    let (hash, hub_height) = (B256::ZERO, number);
    Arc::new(ExecutedBlock { header, hash, hub_height, transactions, senders, receipts, withdrawals })
}

impl Chain {
    pub(super) fn new(rollup: RollupId, wrong: Vec<u64>) -> Arc<Self> {
        Arc::new(Self { rollup, head: Mutex::new(block(0)), attested: AtomicU64::new(0), wrong })
    }

    /// Executes up to a hub block.
    pub(super) fn execute(&self, number: u64) {
        *self.head.lock() = block(number);
    }
}

impl EvmChain for Chain {
    fn chain_id(&self) -> u64 {
        self.rollup.0
    }
    fn head(&self) -> Arc<ExecutedBlock> {
        self.head.lock().clone()
    }
    fn number_at(&self, _: Level) -> u64 {
        0
    }
    fn set_attested(&self, number: u64) {
        self.attested.fetch_max(number, Ordering::Relaxed);
    }
    fn attested(&self) -> u64 {
        self.attested.load(Ordering::Relaxed)
    }
    fn checkpoint(&self, number: u64) -> Result<Option<Attestable>, EvmError> {
        let right = right(self.rollup, number);
        let is_wrong = self.wrong.contains(&number);
        let checkpoint = if is_wrong { Checkpoint { state_root: B256::repeat_byte(0x66), ..right } } else { right };
        Ok((number <= self.head().header.number).then_some(Attestable { checkpoint, votes: vec![] }))
    }
    fn header(&self, number: u64) -> Result<Option<EvmHeader>, EvmError> {
        Ok((number > 0 && number <= self.head().header.number).then(|| block(number).header.clone()))
    }
    fn outbox_count(&self) -> u64 {
        0
    }
    fn sent(&self, _: u64) -> Result<Option<SentMessage>, EvmError> {
        Err(NO_STATE)
    }
    fn sent_by_id(&self, _: B256) -> Result<Option<SentMessage>, EvmError> {
        Err(NO_STATE)
    }
    fn outbox_path(&self, _: u64, _: u64) -> Result<Option<Vec<B256>>, EvmError> {
        Err(NO_STATE)
    }
    fn write_snapshot(&self, _: &mut dyn std::io::Write) -> Result<(), EvmError> {
        Err(NO_STATE)
    }
    fn next_base_fee(&self) -> u64 {
        0
    }
    fn block_by_number(&self, _: u64) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        Err(NO_STATE)
    }
    fn block_by_hash(&self, _: B256) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        Err(NO_STATE)
    }
    fn locate(&self, _: B256) -> Result<Option<(u64, usize)>, EvmError> {
        Err(NO_STATE)
    }
    fn outcome(&self, _: B256) -> Result<Option<TxOutcome>, EvmError> {
        Err(NO_STATE)
    }
    fn pending(&self) -> Option<Arc<PendingBlock>> {
        None
    }
    fn pending_outcome(&self, _: B256) -> Option<TxOutcome> {
        None
    }
    fn account(&self, _: u64, _: Address) -> Result<Option<EvmAccount>, EvmError> {
        Err(NO_STATE)
    }
    fn storage(&self, _: u64, _: Address, _: B256) -> Result<U256, EvmError> {
        Err(NO_STATE)
    }
    fn code(&self, _: u64, _: Address) -> Result<Bytes, EvmError> {
        Err(NO_STATE)
    }
    fn proof(&self, _: u64, _: Address, _: &[B256]) -> Result<EIP1186AccountProofResponse, EvmError> {
        Err(NO_STATE)
    }
    fn call(&self, _: u64, _: TransactionRequest, _: Option<StateOverride>) -> Result<Bytes, EvmError> {
        Err(NO_STATE)
    }
    fn estimate_gas(&self, _: u64, _: TransactionRequest, _: Option<StateOverride>) -> Result<u64, EvmError> {
        Err(NO_STATE)
    }
    fn subscribe(&self) -> broadcast::Receiver<Arc<ExecutedBlock>> {
        broadcast::channel(1).1
    }
    fn watch_head(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }
    fn subscribe_pending(&self) -> watch::Receiver<()> {
        watch::Sender::new(()).subscribe()
    }
}
