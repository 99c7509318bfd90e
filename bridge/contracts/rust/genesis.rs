//! The accounts of a rollup's genesis.

use crate::{AtomicVault, BridgedERC20, Hub, Inbox, Outbox, TokenBridge};
use alloy::genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use std::collections::BTreeMap;
use switchyard_bridge_core::predeploys;
use switchyard_primitives::RollupId;

/// Slot of `Inbox.accounts`.
const INBOX_ACCOUNTS: u64 = 1;
/// Slot of `Hub.chainOf`.
const HUB_CHAIN_OF: u64 = 1;
/// Slot of `Hub.rollupOf`.
const HUB_ROLLUP_OF: u64 = 2;

/// The contracts' accounts for the genesis of `rollup`: what an `alloc` holds besides those of Prague's system contracts.
///
/// `known` are other rollups, each with its chain id, that the Hub has in its list from the beginning, so that messages go there at once;
/// the rest is registered by proof. They must be rollups of the hub's genesis with these chain ids: an entry can never be changed.
///
/// `funds` is what messages from each other rollup may pay out here from the beginning, wei; the Inbox has the sum as its
/// balance. What is given twice for one rollup adds up, to 2^128 - 1 at most.
pub fn genesis(
    rollup: RollupId,
    known: &[(RollupId, u64)],
    funds: &[(RollupId, u128)],
) -> BTreeMap<Address, GenesisAccount> {
    let mut free = BTreeMap::<RollupId, u128>::new();
    for (from, wei) in funds {
        let free = free.entry(*from).or_default();
        *free = free.saturating_add(*wei);
    }
    let funded = free.iter().filter(|(_, wei)| **wei > 0);
    let inbox = GenesisAccount {
        balance: funded.clone().map(|(_, wei)| U256::from(*wei)).sum(),
        storage: storage(funded.map(|(from, wei)| (slot(INBOX_ACCOUNTS, from.0), word(*wei)))),
        ..contract(&Inbox::DEPLOYED_BYTECODE)
    };
    let listed = known.iter().flat_map(|(RollupId(other), chain)| {
        [(slot(HUB_CHAIN_OF, *other), word((*chain).into())), (slot(HUB_ROLLUP_OF, *chain), word((*other).into()))]
    });
    let own = (B256::ZERO, word(rollup.0.into()));
    let hub = GenesisAccount { storage: storage(listed.chain([own])), ..contract(&Hub::DEPLOYED_BYTECODE) };
    BTreeMap::from([
        (predeploys::HUB, hub),
        (predeploys::OUTBOX, contract(&Outbox::DEPLOYED_BYTECODE)),
        (predeploys::INBOX, inbox),
        (predeploys::TOKEN_BRIDGE, contract(&TokenBridge::DEPLOYED_BYTECODE)),
        (predeploys::BRIDGED_ERC20, contract(&BridgedERC20::DEPLOYED_BYTECODE)),
        (predeploys::ATOMIC_VAULT, contract(&AtomicVault::DEPLOYED_BYTECODE)),
    ])
}

fn contract(code: &Bytes) -> GenesisAccount {
    GenesisAccount { nonce: Some(1), code: Some(code.clone()), ..Default::default() }
}

fn storage(slots: impl IntoIterator<Item = (B256, B256)>) -> Option<BTreeMap<B256, B256>> {
    let slots: BTreeMap<_, _> = slots.into_iter().collect();
    Some(slots).filter(|slots| !slots.is_empty())
}

fn word(number: u128) -> B256 {
    U256::from(number).into()
}

/// Where a mapping in a slot keeps the value of a key. Of an account of the Inbox the low half is `free`; the other half, `inFlight`, is 0.
fn slot(mapping: u64, key: u64) -> B256 {
    keccak256([word(key.into()), word(mapping.into())].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;
    use serde_json::Value;

    fn artifact(name: &str) -> Value {
        let path = format!("{}/artifacts/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn slot_of(contract: &str, variable: &str) -> u64 {
        let layout = artifact(contract)["storage"].as_array().unwrap().clone();
        let entry = layout.into_iter().find(|entry| entry["label"] == variable).unwrap();
        entry["slot"].as_u64().unwrap()
    }

    #[test]
    fn each_account_has_its_artifacts_code_and_nonce_one() {
        let accounts = genesis(RollupId(7), &[], &[]);
        let names = ["Hub", "Outbox", "Inbox", "TokenBridge", "BridgedERC20", "AtomicVault"];
        assert_eq!(accounts.len(), names.len());
        // Addresses ascend in the order of the specification's table.
        for ((number, name), (address, account)) in (1..).zip(names).zip(&accounts) {
            assert_eq!(hex::encode(address), format!("5359{number:036}"));
            let code = account.code.as_ref().unwrap();
            assert_eq!(artifact(name)["deployedBytecode"], code.to_string(), "{name}");
            assert_eq!((account.nonce, account.balance), (Some(1), U256::ZERO), "{name}");
        }
        let written: Vec<_> = accounts.iter().filter(|(_, account)| account.storage.is_some()).collect();
        let [(address, hub)] = written[..] else { panic!("only the Hub has storage: {written:?}") };
        assert_eq!(*address, predeploys::HUB);
        assert_eq!(hub.storage, Some(BTreeMap::from([(B256::ZERO, B256::with_last_byte(7))])));
    }

    #[test]
    fn funds_stand_on_the_inbox_and_on_its_accounts() {
        let funds = [(RollupId(2), 5), (RollupId(3), 7), (RollupId(2), 1), (RollupId(4), 0)];
        let accounts = genesis(RollupId(1), &[], &funds);
        let inbox = &accounts[&predeploys::INBOX];
        assert_eq!(inbox.balance, U256::from(13));
        assert_eq!(slot_of("Inbox", "accounts"), INBOX_ACCOUNTS);
        let expected = [(slot(INBOX_ACCOUNTS, 2), word(6)), (slot(INBOX_ACCOUNTS, 3), word(7))];
        assert_eq!(inbox.storage, Some(BTreeMap::from(expected)));
        let most = genesis(RollupId(1), &[], &[(RollupId(2), u128::MAX), (RollupId(2), 9), (RollupId(3), 1)]);
        assert_eq!(most[&predeploys::INBOX].balance, U256::from(u128::MAX) + U256::from(1));
    }

    #[test]
    fn known_rollups_are_in_the_hubs_list_both_ways() {
        let hub = &genesis(RollupId(1), &[(RollupId(2), 71_002)], &[])[&predeploys::HUB];
        let (chain_of, rollup_of) = (slot(HUB_CHAIN_OF, 2), slot(HUB_ROLLUP_OF, 71_002));
        assert_eq!((slot_of("Hub", "chainOf"), slot_of("Hub", "rollupOf")), (HUB_CHAIN_OF, HUB_ROLLUP_OF));
        let expected = [(B256::ZERO, word(1)), (chain_of, word(71_002)), (rollup_of, word(2))];
        assert_eq!(hub.storage, Some(BTreeMap::from(expected)));
    }
}
