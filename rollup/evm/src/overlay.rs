//! What an open block's transactions have changed, for readers.
//!
//! The driver adds what each hub block changed as a new version; a reader keeps to the version it began with, so that a
//! call never sees a hub block by halves. Nothing is copied when a version is added.

use alloy_primitives::{
    Address, B256, U256,
    map::{AddressMap, B256Map, HashMap},
};
use parking_lot::RwLock;
use revm::{
    database::TransitionState,
    state::{AccountInfo, Bytecode, EvmState},
};
use std::hash::Hash;
use switchyard_rollup_core::TxOutcome;

/// What some transactions have changed.
#[derive(Default)]
pub(crate) struct Delta {
    /// None for those that are gone. Such an account has no storage from earlier blocks (EIP-6780, EIP-161).
    accounts: AddressMap<Option<AccountInfo>>,
    slots: HashMap<(Address, U256), U256>,
    codes: B256Map<Bytecode>,
    /// What became of transactions.
    pub(crate) outcomes: B256Map<TxOutcome>,
}

impl Delta {
    /// Adds what one transaction changes, by the rules by which revm commits it.
    pub(crate) fn transaction(&mut self, changes: &EvmState) {
        for (address, account) in changes.iter().filter(|(_, account)| account.is_touched()) {
            if account.is_selfdestructed() || (account.is_empty() && !account.is_created()) {
                self.account(*address, None);
                continue;
            }
            self.account(*address, Some(&account.info));
            let slots = account.changed_storage_slots();
            self.slots.extend(slots.map(|(slot, value)| ((*address, *slot), value.present_value())));
        }
    }

    /// Adds what the calls before the first transaction changed.
    pub(crate) fn system_calls(&mut self, changes: &TransitionState) {
        for (address, account) in &changes.transitions {
            self.account(*address, account.info.as_ref());
            let slots = account.storage.iter();
            self.slots.extend(slots.map(|(slot, value)| ((*address, *slot), value.present_value())));
        }
    }

    fn account(&mut self, address: Address, info: Option<&AccountInfo>) {
        if let Some((hash, code)) = info.and_then(|info| Some((info.code_hash, info.code.as_ref()?))) {
            self.codes.entry(hash).or_insert_with(|| code.clone());
        }
        self.accounts.insert(address, info.map(|info| AccountInfo { code: None, ..info.clone() }));
    }
}

/// A value's versions, oldest first.
type Versions<T> = Vec<(u32, T)>;

#[derive(Default)]
struct Layers {
    accounts: AddressMap<Versions<Option<AccountInfo>>>,
    slots: HashMap<(Address, U256), Versions<U256>>,
    codes: B256Map<Bytecode>,
    outcomes: B256Map<TxOutcome>,
}

/// All that an open block has changed. Bounded as the block is: by its gas, and by what may wait.
#[derive(Default)]
pub(crate) struct Overlay(RwLock<Layers>);

impl Overlay {
    /// Adds what came since the version before.
    pub(crate) fn add(&self, version: u32, delta: Delta) {
        let Delta { accounts, slots, codes, outcomes } = delta;
        let mut layers = self.0.write();
        for (address, account) in accounts {
            layers.accounts.entry(address).or_default().push((version, account));
        }
        for (slot, value) in slots {
            layers.slots.entry(slot).or_default().push((version, value));
        }
        layers.codes.extend(codes);
        layers.outcomes.extend(outcomes);
    }

    /// An account, if it has been changed; the inner value is none if it is gone.
    pub(crate) fn account(&self, version: u32, address: Address) -> Option<Option<AccountInfo>> {
        newest(&self.0.read().accounts, &address, version)
    }

    /// A slot, if it has been changed.
    pub(crate) fn slot(&self, version: u32, address: Address, slot: U256) -> Option<U256> {
        newest(&self.0.read().slots, &(address, slot), version)
    }

    /// Code, if it has been deployed or used.
    pub(crate) fn code(&self, hash: B256) -> Option<Bytecode> {
        self.0.read().codes.get(&hash).cloned()
    }

    /// What became of a transaction, in any version.
    pub(crate) fn outcome(&self, tx: B256) -> Option<TxOutcome> {
        self.0.read().outcomes.get(&tx).cloned()
    }
}

fn newest<K: Eq + Hash, T: Clone, S: std::hash::BuildHasher>(
    map: &std::collections::HashMap<K, Versions<T>, S>,
    key: &K,
    version: u32,
) -> Option<T> {
    map.get(key)?.iter().rev().find(|(at, _)| *at <= version).map(|(_, value)| value.clone())
}
