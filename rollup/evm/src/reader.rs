//! Reads: every block, every state, proofs.

use crate::{
    call,
    chain::Chain,
    open_block::OpenView,
    outbox::node_key,
    records::{CheckpointRecord, MessageRecord, OUTBOX_FIRST, corrupt, decode, decode_outcome},
    snapshot::{self, SnapshotError},
    store::{Column, StateError},
    trie,
    view::{self, StateView},
};
use alloy::{
    consensus::{Header, TrieAccount},
    rpc::types::{EIP1186AccountProofResponse, EIP1186StorageProof, TransactionRequest, state::StateOverride},
    serde::JsonStorageKey,
};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use std::sync::Arc;
use switchyard_bridge_core::path;
use switchyard_primitives::Level;
use switchyard_rollup_core::{
    Account, TxOutcome,
    evm::{Attestable, EvmAccount, EvmChain, EvmError, ExecutedBlock, PendingBlock, SentMessage},
};
use tokio::sync::{broadcast, watch};

/// Reads one EVM rollup and admits transactions to it. Shared by any number of threads while the driver writes.
pub struct EvmReader {
    pub(crate) chain: Arc<Chain>,
}

impl From<StateError> for EvmError {
    fn from(e: StateError) -> Self {
        Self::Storage(e.to_string())
    }
}

impl EvmReader {
    pub(crate) fn new(chain: Arc<Chain>) -> Self {
        Self { chain }
    }

    /// Nonce and balance of an account as the newest executed transactions have left it.
    pub(crate) fn newest_account(&self, address: Address) -> Result<Option<Account>, StateError> {
        // Before the database: if the block is closed meanwhile, its account is there.
        if let Some(account) = self.chain.open().and_then(|open| open.account(address)) {
            return Ok(account.map(|a| Account { nonce: a.nonce, balance: a.balance }));
        }
        let account = self.head_account(address)?;
        Ok(account.map(|a| Account { nonce: a.nonce, balance: a.balance }))
    }

    /// An account at the newest written block.
    fn head_account(&self, address: Address) -> Result<Option<TrieAccount>, StateError> {
        let key = address.as_slice();
        let bytes = self.chain.store.get(Column::Accounts, key)?;
        bytes.map(|bytes| decode(Column::Accounts, key, &bytes)).transpose()
    }

    fn state(&self, number: u64) -> Result<StateView<'_>, EvmError> {
        self.state_with(number, self.chain.pending())
    }

    fn state_with(&self, number: u64, open: Option<OpenView>) -> Result<StateView<'_>, EvmError> {
        StateView::at(&self.chain.store, number, open)?.ok_or(EvmError::NoState(number))
    }

    /// The state after block `number` and the environment of its transactions.
    fn state_and_header(&self, number: u64) -> Result<(StateView<'_>, Header), EvmError> {
        let open = self.chain.pending().filter(|open| open.number() == number);
        let header = match &open {
            Some(open) => open.block.header.clone(),
            None => self.header(number)?.ok_or(EvmError::NoState(number))?,
        };
        Ok((self.state_with(number, open)?, header))
    }

    fn state_root(&self, number: u64) -> Result<B256, EvmError> {
        let record = view::header(&self.chain.store, number)?.filter(|_| number >= self.chain.store.base());
        let record = record.ok_or(EvmError::NoState(number))?;
        Ok(record.header.state_root)
    }
}

impl EvmChain for EvmReader {
    fn chain_id(&self) -> u64 {
        self.chain.chain_id
    }

    fn head(&self) -> Arc<ExecutedBlock> {
        self.chain.head()
    }

    fn number_at(&self, level: Level) -> u64 {
        match level {
            Level::Accepted | Level::Ordered | Level::Final => self.chain.head().header.number,
            Level::Attested => self.chain.attested(),
            // Nobody settles yet.
            Level::Settled => 0,
        }
    }

    fn set_attested(&self, number: u64) {
        self.chain.set_attested(number);
    }

    fn attested(&self) -> u64 {
        self.chain.attested()
    }

    fn checkpoint(&self, number: u64) -> Result<Option<Attestable>, EvmError> {
        let key = number.to_be_bytes();
        let Some(bytes) = self.chain.store.get(Column::Checkpoints, &key)? else { return Ok(None) };
        let record: CheckpointRecord = decode(Column::Checkpoints, &key, &bytes)?;
        Ok(Some(record.attestable(self.chain.rollup, number)?))
    }

    fn outbox_count(&self) -> u64 {
        self.chain.outbox_count()
    }

    fn sent(&self, index: u64) -> Result<Option<SentMessage>, EvmError> {
        let key = index.to_be_bytes();
        let Some(bytes) = self.chain.store.get(Column::Messages, &key)? else { return Ok(None) };
        let record: MessageRecord = decode(Column::Messages, &key, &bytes)?;
        Ok(Some(record.sent()?))
    }

    fn sent_by_id(&self, id: B256) -> Result<Option<SentMessage>, EvmError> {
        match self.chain.store.get(Column::MessageIds, id.as_slice())? {
            Some(index) => self.sent(number(Column::MessageIds, id.as_slice(), &index)?),
            None => Ok(None),
        }
    }

    fn outbox_path(&self, index: u64, count: u64) -> Result<Option<Vec<B256>>, EvmError> {
        let store = &self.chain.store;
        let first = store.get(Column::Meta, OUTBOX_FIRST)?;
        let first = first.map_or(Ok(0), |bytes| number(Column::Meta, OUTBOX_FIRST, &bytes))?;
        if index < first || count > self.outbox_count() {
            return Ok(None);
        }
        let mut failed = None;
        let found = path(index, count, |id| {
            let key = node_key(id);
            let read = store.get(Column::OutboxNodes, &key).and_then(|bytes| {
                let hash =
                    bytes.map(|bytes| B256::try_from(&*bytes).map_err(|e| corrupt(Column::OutboxNodes, &key, e)));
                hash.transpose()
            });
            read.unwrap_or_else(|error| {
                failed.get_or_insert(error);
                None
            })
        });
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(found),
        }
    }

    fn write_snapshot(&self, out: &mut dyn std::io::Write) -> Result<(), EvmError> {
        match snapshot::write(&self.chain.store, out) {
            Ok(info) => {
                let snapshot::SnapshotInfo { number, hash, accounts, slots, .. } = info;
                tracing::info!(rollup = self.chain.rollup.0, number, %hash, accounts, slots, "snapshot given out");
                Ok(())
            }
            Err(error @ SnapshotError::Waiting { .. }) => Err(EvmError::Busy(error.to_string())),
            Err(error) => Err(EvmError::Storage(error.to_string())),
        }
    }

    fn next_base_fee(&self) -> u64 {
        self.chain.next_base_fee()
    }

    fn block_by_number(&self, number: u64) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        Ok(self.chain.block(number)?)
    }

    fn block_by_hash(&self, hash: B256) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        let Some(bytes) = self.chain.store.get(Column::Hashes, hash.as_slice())? else { return Ok(None) };
        Ok(self.chain.block(number(Column::Hashes, hash.as_slice(), &bytes)?)?)
    }

    fn header(&self, number: u64) -> Result<Option<Header>, EvmError> {
        Ok(view::header(&self.chain.store, number)?.map(|record| record.header))
    }

    fn locate(&self, tx: B256) -> Result<Option<(u64, usize)>, EvmError> {
        Ok(match self.outcome(tx)? {
            Some(TxOutcome::Executed { block, index, .. }) => Some((block, index as usize)),
            _ => None,
        })
    }

    fn outcome(&self, tx: B256) -> Result<Option<TxOutcome>, EvmError> {
        // Before the database: if the block is closed meanwhile, its outcomes are there.
        if let Some(outcome) = self.pending_outcome(tx) {
            return Ok(Some(outcome));
        }
        let bytes = self.chain.store.get(Column::Transactions, tx.as_slice())?;
        Ok(bytes.map(|bytes| decode_outcome(tx.as_slice(), &bytes)).transpose()?)
    }

    fn pending(&self) -> Option<Arc<PendingBlock>> {
        self.chain.pending().map(|open| open.block)
    }

    fn pending_outcome(&self, tx: B256) -> Option<TxOutcome> {
        self.chain.open()?.outcome(tx)
    }

    fn account(&self, number: u64, address: Address) -> Result<Option<EvmAccount>, EvmError> {
        let account = self.state(number)?.account(address)?;
        Ok(account.map(|a| EvmAccount { nonce: a.nonce, balance: a.balance, code_hash: a.code_hash }))
    }

    fn storage(&self, number: u64, address: Address, slot: B256) -> Result<U256, EvmError> {
        Ok(self.state(number)?.slot(address, slot.into())?)
    }

    fn code(&self, number: u64, address: Address) -> Result<Bytes, EvmError> {
        let state = self.state(number)?;
        let account = state.account(address)?;
        Ok(account.map_or(Ok(Bytes::new()), |a| state.code(a.code_hash))?)
    }

    fn proof(&self, number: u64, address: Address, slots: &[B256]) -> Result<EIP1186AccountProofResponse, EvmError> {
        let store = &self.chain.store;
        let root = self.state_root(number)?;
        let account = trie::account(store, root, address)?.unwrap_or_default();
        let storage_proof: Result<Vec<_>, StateError> = slots
            .iter()
            .map(|slot| {
                let value = trie::slot(store, account.storage_root, (*slot).into())?;
                let proof = trie::proof(store, account.storage_root, keccak256(slot))?;
                Ok(EIP1186StorageProof { key: JsonStorageKey::Hash(*slot), value, proof })
            })
            .collect();
        Ok(EIP1186AccountProofResponse {
            address,
            balance: account.balance,
            code_hash: account.code_hash,
            nonce: account.nonce,
            storage_hash: account.storage_root,
            account_proof: trie::proof(store, root, keccak256(address))?,
            storage_proof: storage_proof?,
        })
    }

    fn call(&self, number: u64, request: TransactionRequest, state: Option<StateOverride>) -> Result<Bytes, EvmError> {
        let (view, header) = self.state_and_header(number)?;
        call::call(view, &header, self.chain.chain_id, request, state)
    }

    fn estimate_gas(
        &self,
        number: u64,
        request: TransactionRequest,
        state: Option<StateOverride>,
    ) -> Result<u64, EvmError> {
        let (view, header) = self.state_and_header(number)?;
        call::estimate_gas(view, &header, self.chain.chain_id, request, state)
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<ExecutedBlock>> {
        self.chain.subscribe()
    }

    fn watch_head(&self) -> watch::Receiver<u64> {
        self.chain.watch_head()
    }

    fn subscribe_pending(&self) -> watch::Receiver<()> {
        self.chain.subscribe_pending()
    }
}

/// A record that is a number.
fn number(column: Column, key: &[u8], bytes: &[u8]) -> Result<u64, StateError> {
    let bytes = <[u8; 8]>::try_from(bytes).map_err(|e| corrupt(column, key, e))?;
    Ok(u64::from_be_bytes(bytes))
}
