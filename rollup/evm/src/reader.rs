//! Reads: every block, every state, proofs.

use crate::{
    call,
    chain::Chain,
    records::{corrupt, decode, decode_outcome},
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
use switchyard_primitives::Level;
use switchyard_rollup_core::{
    TxOutcome,
    evm::{EvmAccount, EvmChain, EvmError, ExecutedBlock},
};
use tokio::sync::broadcast;

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

    /// An account at the newest written block.
    pub(crate) fn head_account(&self, address: Address) -> Result<Option<TrieAccount>, StateError> {
        let key = address.as_slice();
        let bytes = self.chain.store.get(Column::Accounts, key)?;
        bytes.map(|bytes| decode(Column::Accounts, key, &bytes)).transpose()
    }

    fn state(&self, number: u64) -> Result<StateView<'_>, EvmError> {
        StateView::at(&self.chain.store, number)?.ok_or(EvmError::NoState(number))
    }

    fn state_root(&self, number: u64) -> Result<B256, EvmError> {
        let record = view::header(&self.chain.store, number)?.ok_or(EvmError::NoState(number))?;
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
            // Nobody attests or settles yet.
            Level::Attested | Level::Settled => 0,
        }
    }

    fn next_base_fee(&self) -> u64 {
        self.chain.next_base_fee()
    }

    fn block_by_number(&self, number: u64) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        Ok(self.chain.block(number)?)
    }

    fn block_by_hash(&self, hash: B256) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        let Some(number) = self.chain.store.get(Column::Hashes, hash.as_slice())? else { return Ok(None) };
        let number = <[u8; 8]>::try_from(&*number).map_err(|e| corrupt(Column::Hashes, hash.as_slice(), e))?;
        Ok(self.chain.block(u64::from_be_bytes(number))?)
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
        let bytes = self.chain.store.get(Column::Transactions, tx.as_slice())?;
        Ok(bytes.map(|bytes| decode_outcome(tx.as_slice(), &bytes)).transpose()?)
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
        let header = self.header(number)?.ok_or(EvmError::NoState(number))?;
        call::call(self.state(number)?, &header, self.chain.chain_id, request, state)
    }

    fn estimate_gas(
        &self,
        number: u64,
        request: TransactionRequest,
        state: Option<StateOverride>,
    ) -> Result<u64, EvmError> {
        let header = self.header(number)?.ok_or(EvmError::NoState(number))?;
        call::estimate_gas(self.state(number)?, &header, self.chain.chain_id, request, state)
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<ExecutedBlock>> {
        self.chain.subscribe()
    }
}
