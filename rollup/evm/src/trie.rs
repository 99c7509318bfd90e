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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::WriteBatch;
    use alloy_primitives::KECCAK256_EMPTY;
    use alloy_trie::root::{state_root_unhashed, storage_root_unhashed};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// One account's change: which, its new nonce (none: gone), and slots with their new values.
    type Change = (u8, Option<u64>, Vec<(u8, u8)>);

    #[derive(Clone, Default)]
    struct Model(BTreeMap<Address, (u64, BTreeMap<B256, U256>)>);

    impl Model {
        /// Applies a change; none if it is one that execution never makes (an account with storage that goes).
        fn apply(&mut self, (who, nonce, slots): &Change) -> Option<AccountUpdate> {
            let address = Address::with_last_byte(*who);
            let slots: BTreeMap<_, _> =
                slots.iter().map(|(slot, value)| (U256::from(*slot), U256::from(*value))).collect();
            if nonce.is_none() && self.0.get(&address).is_some_and(|(_, storage)| !storage.is_empty()) {
                return None;
            }
            let Some(nonce) = nonce else {
                self.0.remove(&address);
                return Some(AccountUpdate { address, account: None, slots: vec![], destroyed: true });
            };
            let (kept, storage) = self.0.entry(address).or_default();
            *kept = *nonce;
            storage.extend(slots.iter().map(|(slot, value)| (B256::from(*slot), *value)));
            storage.retain(|_, value| !value.is_zero());
            let account = Some((*nonce, U256::from(*nonce), KECCAK256_EMPTY));
            Some(AccountUpdate { address, account, slots: slots.into_iter().collect(), destroyed: false })
        }

        /// By alloy-trie's hash builder, which shares nothing with `eth_trie`.
        fn root(&self) -> B256 {
            state_root_unhashed(self.0.iter().map(|(address, (nonce, storage))| {
                let storage_root = storage_root_unhashed(storage.clone());
                let account = TrieAccount {
                    nonce: *nonce,
                    balance: U256::from(*nonce),
                    storage_root,
                    code_hash: KECCAK256_EMPTY,
                };
                (*address, account)
            }))
        }
    }

    fn block() -> impl Strategy<Value = BTreeMap<u8, Change>> {
        let slots = proptest::collection::vec((0u8..12, 0u8..3), 0..6);
        let change = (0u8..24, proptest::option::weighted(0.7, 1u64..1_000), slots);
        proptest::collection::btree_map(0u8..24, change, 1..10).prop_map(|changes| {
            changes.into_iter().map(|(who, (_, nonce, slots))| (who, (who, nonce, slots))).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn roots_and_reads_are_those_of_the_model_at_every_block(
            blocks in proptest::collection::vec((block(), any::<bool>()), 1..14),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let mut changes = Changes::default();
            let mut model = Model::default();
            let mut root = EMPTY_ROOT_HASH;
            let mut history = Vec::new();
            for (block, write) in blocks {
                let updates = block.values().filter_map(|change| model.apply(change)).collect();
                root = apply(&store, &mut changes, root, updates).unwrap();
                prop_assert_eq!(root, model.root());
                history.push((root, model.clone()));
                if write {
                    let mut batch = WriteBatch::default();
                    changes.fill(&store, &mut batch).unwrap();
                    store.write(batch, false).unwrap();
                    changes = Changes::default();
                }
            }
            let mut batch = WriteBatch::default();
            changes.fill(&store, &mut batch).unwrap();
            store.write(batch, false).unwrap();
            for (root, model) in history {
                for who in 0..24 {
                    let address = Address::with_last_byte(who);
                    let found = account(&store, root, address).unwrap();
                    let expected = model.0.get(&address);
                    prop_assert_eq!(found.map(|a| a.nonce), expected.map(|(nonce, _)| *nonce));
                    for i in 0..12 {
                        let value = expected.and_then(|(_, storage)| storage.get(&B256::with_last_byte(i)).copied());
                        let storage_root = found.map_or(EMPTY_STORAGE, |a| a.storage_root);
                        prop_assert_eq!(slot(&store, storage_root, U256::from(i)).unwrap(), value.unwrap_or_default());
                    }
                }
            }
        }
    }

    #[test]
    fn a_missing_node_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let root = B256::repeat_byte(1);
        assert!(matches!(account(&store, root, Address::ZERO), Err(StateError::Trie(_))));
        assert!(matches!(proof(&store, root, B256::ZERO), Err(StateError::Trie(_))));
    }
}
