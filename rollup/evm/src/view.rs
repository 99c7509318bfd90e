//! The state after one block, as the EVM reads it.

use crate::{
    changes::Changes,
    genesis::EMPTY_STORAGE,
    open_block::OpenView,
    records::{HeaderRecord, PROGRESS, Progress, corrupt, decode, slot_key},
    store::{Column, Snapshot, StateError, Store},
    trie,
};
use alloy::consensus::TrieAccount;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use revm::{
    database_interface::DatabaseRef,
    state::{AccountInfo, Bytecode},
};

/// Where a view takes accounts and slots from.
enum Source<'a> {
    /// Flat columns with what has not been written yet on top. For the driver alone: nobody else writes meanwhile.
    Latest(&'a Changes),
    /// Flat columns as they were when the view was made, so that a block written meanwhile is not seen by halves.
    Head(Snapshot<'a>),
    /// What the open block has changed, on top of the same.
    Open(Snapshot<'a>, OpenView),
    /// The trie under a past block's state root.
    Past(B256),
}

/// The state after one block.
pub(crate) struct StateView<'a> {
    store: &'a Store,
    source: Source<'a>,
}

impl std::fmt::Debug for StateView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let source = match &self.source {
            Source::Latest(_) => "latest".to_string(),
            Source::Head(_) => "head".to_string(),
            Source::Open(_, open) => format!("open block {}", open.number()),
            Source::Past(root) => root.to_string(),
        };
        f.debug_tuple("StateView").field(&source).finish()
    }
}

impl<'a> StateView<'a> {
    /// The state on which the driver's next block builds.
    pub(crate) fn latest(store: &'a Store, changes: &'a Changes) -> Self {
        Self { store, source: Source::Latest(changes) }
    }

    /// The state after block `number`, which may be the open one; none if there is no such block. `open` must have been
    /// read before this call, so that the database is not behind it.
    pub(crate) fn at(store: &'a Store, number: u64, open: Option<OpenView>) -> Result<Option<Self>, StateError> {
        let snapshot = store.snapshot();
        let head = store.get_at(Some(&snapshot), Column::Meta, PROGRESS)?.map(|bytes| bytes.to_vec());
        let head = head.map(|bytes| decode::<Progress>(Column::Meta, PROGRESS, &bytes)).transpose()?;
        if head.is_some_and(|progress| progress.head == number) {
            return Ok(Some(Self { store, source: Source::Head(snapshot) }));
        }
        if let Some(open) = open.filter(|open| open.number() == number)
            && head.is_some_and(|progress| progress.head + 1 == number)
        {
            return Ok(Some(Self { store, source: Source::Open(snapshot, open) }));
        }
        let header = header(store, number)?.filter(|_| number >= store.base());
        Ok(header.map(|record| Self { store, source: Source::Past(record.header.state_root) }))
    }

    /// An account, none if the state has none. What the open block has changed has no storage root yet: it is zero.
    pub(crate) fn account(&self, address: Address) -> Result<Option<TrieAccount>, StateError> {
        let snapshot = match &self.source {
            Source::Past(root) => return trie::account(self.store, *root, address),
            Source::Latest(changes) => {
                if let Some(account) = changes.accounts.get(&address) {
                    return Ok(*account);
                }
                None
            }
            Source::Open(snapshot, open) => {
                if let Some(account) = open.account(address) {
                    return Ok(account.map(unhashed));
                }
                Some(snapshot)
            }
            Source::Head(snapshot) => Some(snapshot),
        };
        let key = address.as_slice();
        let bytes = self.store.get_at(snapshot, Column::Accounts, key)?;
        bytes.map(|bytes| decode(Column::Accounts, key, &bytes)).transpose()
    }

    /// A storage slot, 0 if it was never set.
    pub(crate) fn slot(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        let snapshot = match &self.source {
            Source::Past(root) => {
                let account = trie::account(self.store, *root, address)?;
                return trie::slot(self.store, account.map_or(EMPTY_STORAGE, |a| a.storage_root), slot);
            }
            Source::Latest(changes) => {
                if let Some(value) = changes.slots.get(&(address, slot)) {
                    return Ok(*value);
                }
                None
            }
            Source::Open(snapshot, open) => {
                if let Some(value) = open.slot(address, slot) {
                    return Ok(value);
                }
                Some(snapshot)
            }
            Source::Head(snapshot) => Some(snapshot),
        };
        let key = slot_key(address, slot);
        let bytes = self.store.get_at(snapshot, Column::Storage, &key)?;
        bytes.map_or(Ok(U256::ZERO), |bytes| decode(Column::Storage, &key, &bytes))
    }

    /// Code by its hash; code is never removed.
    pub(crate) fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        if hash == KECCAK256_EMPTY || hash.is_zero() {
            return Ok(Bytes::new());
        }
        if let Source::Latest(changes) = &self.source
            && let Some(code) = changes.codes.get(&hash)
        {
            return Ok(code.clone());
        }
        if let Source::Open(_, open) = &self.source
            && let Some(code) = open.code(hash)
        {
            return Ok(code.original_bytes());
        }
        let code = self.store.get(Column::Code, hash.as_slice())?;
        let code = code.ok_or_else(|| corrupt(Column::Code, hash.as_slice(), "missing"))?;
        Ok(Bytes::copy_from_slice(&code))
    }
}

fn unhashed(info: AccountInfo) -> TrieAccount {
    TrieAccount { nonce: info.nonce, balance: info.balance, storage_root: B256::ZERO, code_hash: info.code_hash }
}

/// A stored header; none if there is no such block.
pub(crate) fn header(store: &Store, number: u64) -> Result<Option<HeaderRecord>, StateError> {
    let key = number.to_be_bytes();
    let bytes = store.get(Column::Headers, &key)?;
    bytes.map(|bytes| decode(Column::Headers, &key, &bytes)).transpose()
}

impl DatabaseRef for StateView<'_> {
    type Error = StateError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StateError> {
        let account = self.account(address)?;
        Ok(account.map(|a| AccountInfo {
            balance: a.balance,
            nonce: a.nonce,
            code_hash: a.code_hash,
            code: None,
            ..Default::default()
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, StateError> {
        self.store.cached_code(hash, || {
            Bytecode::new_raw_checked(self.code(hash)?).map_err(|e| corrupt(Column::Code, hash.as_slice(), e))
        })
    }

    fn storage_ref(&self, address: Address, index: U256) -> Result<U256, StateError> {
        self.slot(address, index)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StateError> {
        if let Source::Latest(changes) = &self.source
            && let Some(block) = changes.blocks.iter().find(|block| block.header.number == number)
        {
            return Ok(block.hash);
        }
        Ok(header(self.store, number)?.map_or(B256::ZERO, |record| record.hash))
    }
}
