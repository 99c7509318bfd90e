//! The state trie: `eth_trie` over the node column. Nodes are keyed by their hash and never removed, so every block's
//! state stays readable and provable (docs/adr/0002-state-trie.md).

use crate::{
    changes::Changes,
    genesis::EMPTY_STORAGE,
    records::{corrupt, decode},
    store::{Column, StateError, Store},
    view::StateView,
};
use alloy::consensus::{TrieAccount, constants::EMPTY_ROOT_HASH};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256, map::B256Map};
use eth_trie::{DB as NodeSource, EthTrie, Trie as _, TrieError};
use parking_lot::Mutex;
use std::sync::Arc;

impl From<TrieError> for StateError {
    fn from(e: TrieError) -> Self {
        Self::Trie(e.to_string())
    }
}

/// The trie library's view of the node column.
struct Nodes<'a> {
    store: &'a Store,
    /// Nodes of earlier blocks of the same hub block.
    unwritten: Option<&'a B256Map<Vec<u8>>>,
    /// Nodes made through this view.
    made: Mutex<B256Map<Vec<u8>>>,
}

impl<'a> Nodes<'a> {
    fn new(store: &'a Store, unwritten: Option<&'a B256Map<Vec<u8>>>) -> Arc<Self> {
        Arc::new(Self { store, unwritten, made: Mutex::default() })
    }

    fn trie(self: &Arc<Self>, root: B256) -> Result<EthTrie<Self>, StateError> {
        // The empty trie's only node is implied and never stored.
        if root == EMPTY_ROOT_HASH { Ok(EthTrie::new(self.clone())) } else { Ok(EthTrie::from(self.clone(), root)?) }
    }
}

impl NodeSource for Nodes<'_> {
    type Error = StateError;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let hash = B256::try_from(key).map_err(|e| corrupt(Column::Nodes, key, e))?;
        if let Some(node) = self.made.lock().get(&hash) {
            return Ok(Some(node.clone()));
        }
        if let Some(node) = self.unwritten.and_then(|nodes| nodes.get(&hash)) {
            return Ok(Some(node.clone()));
        }
        Ok(self.store.get(Column::Nodes, key)?.map(|node| node.to_vec()))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> Result<(), StateError> {
        let hash = B256::try_from(key).map_err(|e| corrupt(Column::Nodes, key, e))?;
        self.made.lock().insert(hash, value);
        Ok(())
    }

    fn insert_batch(&self, keys: Vec<Vec<u8>>, values: Vec<Vec<u8>>) -> Result<(), StateError> {
        keys.into_iter().zip(values).try_for_each(|(key, value)| self.insert(&key, value))
    }

    // Earlier blocks still need it.
    fn remove(&self, _key: &[u8]) -> Result<(), StateError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        Ok(())
    }
}

/// One account's change within one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccountUpdate {
    pub(crate) address: Address,
    /// Nonce, balance and code hash after the block; none if the account is gone.
    pub(crate) account: Option<(u64, U256, B256)>,
    /// Slots that changed, with their values after the block.
    pub(crate) slots: Vec<(U256, U256)>,
    /// The account was destroyed in the block (and may have been made again): its storage starts empty.
    pub(crate) destroyed: bool,
}

/// Applies a block's updates to the trie under `root` and to `changes`; returns the new root.
pub(crate) fn apply(
    store: &Store,
    changes: &mut Changes,
    root: B256,
    updates: Vec<AccountUpdate>,
) -> Result<B256, StateError> {
    let mut applied = Vec::with_capacity(updates.len());
    let (root, made) = {
        let view = StateView::latest(store, changes);
        let nodes = Nodes::new(store, Some(&changes.nodes));
        let mut accounts = nodes.trie(root)?;
        for update in updates {
            let storage_root = storage_root(&nodes, &view, &update)?;
            let account = update.account.map(|(nonce, balance, code_hash)| TrieAccount {
                nonce,
                balance,
                storage_root,
                code_hash,
            });
            let key = keccak256(update.address);
            match &account {
                Some(account) => accounts.insert(key.as_slice(), &alloy_rlp::encode(account))?,
                None => {
                    accounts.remove(key.as_slice())?;
                }
            }
            applied.push((update.address, account, update.slots));
        }
        let root = accounts.root_hash()?;
        let made = std::mem::take(&mut *nodes.made.lock());
        (root, made)
    };
    for (address, account, slots) in applied {
        changes.accounts.insert(address, account);
        changes.slots.extend(slots.into_iter().map(|(slot, value)| ((address, slot), value)));
    }
    changes.nodes.extend(made);
    Ok(root)
}

fn storage_root(nodes: &Arc<Nodes<'_>>, view: &StateView<'_>, update: &AccountUpdate) -> Result<B256, StateError> {
    let before = view.account(update.address)?.map_or(EMPTY_STORAGE, |a| a.storage_root);
    // Only an account made in the same transaction can be destroyed (EIP-6780), or one that is empty (EIP-161); neither
    // has storage from earlier blocks. Should that ever fail, stop rather than leave stale slots behind.
    if update.destroyed && before != EMPTY_STORAGE {
        return Err(StateError::Execution(format!("account {} was destroyed but has storage", update.address)));
    }
    if update.slots.is_empty() {
        return Ok(before);
    }
    let mut trie = nodes.trie(before)?;
    for (slot, value) in &update.slots {
        let key = keccak256(slot.to_be_bytes::<32>());
        if value.is_zero() {
            trie.remove(key.as_slice())?;
        } else {
            trie.insert(key.as_slice(), &alloy_rlp::encode(value))?;
        }
    }
    Ok(trie.root_hash()?)
}

/// An account under a state root.
pub(crate) fn account(store: &Store, root: B256, address: Address) -> Result<Option<TrieAccount>, StateError> {
    let key = keccak256(address);
    let value = Nodes::new(store, None).trie(root)?.get(key.as_slice())?;
    value.map(|bytes| decode(Column::Nodes, key.as_slice(), &bytes)).transpose()
}

/// A slot under an account's storage root.
pub(crate) fn slot(store: &Store, storage_root: B256, slot: U256) -> Result<U256, StateError> {
    let key = keccak256(slot.to_be_bytes::<32>());
    let value = Nodes::new(store, None).trie(storage_root)?.get(key.as_slice())?;
    value.map_or(Ok(U256::ZERO), |bytes| decode(Column::Nodes, key.as_slice(), &bytes))
}

/// The nodes from `root` towards a key: they show its value, or that it has none.
pub(crate) fn proof(store: &Store, root: B256, key: B256) -> Result<Vec<Bytes>, StateError> {
    let nodes = Nodes::new(store, None).trie(root)?.get_proof(key.as_slice())?;
    Ok(nodes.into_iter().map(Bytes::from).collect())
}
