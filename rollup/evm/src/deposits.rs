//! Coin that the hub's log gives to accounts: withdrawals of EIP-4895 in the rollup's blocks (`docs/specs/deposits.md`).
//!
//! The next block that is closed brings them. Until then they wait, in the database too.

use crate::{
    changes::Changes,
    records::{corrupt, decode},
    store::{Column, StateError, Store},
};
use alloy::eips::eip4895::Withdrawal;
use alloy_primitives::Address;
use alloy_rlp::{RlpDecodable, RlpEncodable};
use std::collections::VecDeque;
use switchyard_bridge_core::Deposit;

/// A deposit that waits; its number is its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct DepositRecord {
    /// The hub block that has it.
    pub(crate) hub_height: u64,
    recipient: Address,
    gwei: u64,
}

/// The deposits that wait for a block, ascending by number: those of the hub blocks since the newest one.
#[derive(Debug, Default)]
pub(crate) struct WaitingDeposits(VecDeque<(u64, DepositRecord)>);

impl WaitingDeposits {
    pub(crate) fn load(store: &Store) -> Result<Self, StateError> {
        store
            .scan(Column::Deposits)?
            .iter()
            .map(|(key, value)| waiting_deposit(key, value))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a hub block's.
    pub(crate) fn add(&mut self, changes: &mut Changes, hub_height: u64, deposits: &[(u64, Deposit)]) {
        for (number, Deposit { recipient, gwei }) in deposits {
            let record = DepositRecord { hub_height, recipient: *recipient, gwei: *gwei };
            self.0.push_back((*number, record));
            changes.deposits.insert(*number, Some(record));
        }
    }

    /// Takes out those for a block that ends with hub block `hub_height`.
    pub(crate) fn take(&mut self, changes: &mut Changes, hub_height: u64) -> Vec<Withdrawal> {
        let count = self.0.iter().take_while(|(_, record)| record.hub_height <= hub_height).count();
        let withdrawal = |(index, DepositRecord { recipient, gwei, .. })| {
            changes.deposits.insert(index, None);
            Withdrawal { index, validator_index: 0, address: recipient, amount: gwei }
        };
        self.0.drain(..count).map(withdrawal).collect()
    }
}

/// Reads a record of [`Column::Deposits`].
pub(crate) fn waiting_deposit(key: &[u8], value: &[u8]) -> Result<(u64, DepositRecord), StateError> {
    let number = <[u8; 8]>::try_from(key).map_err(|e| corrupt(Column::Deposits, key, e))?;
    Ok((u64::from_be_bytes(number), decode(Column::Deposits, key, value)?))
}
