//! Writing a snapshot of an open database, as it is at one moment, while its driver goes on.

use super::{
    SnapshotError, SnapshotInfo,
    format::{Record, Writer},
};
use crate::{
    deposits::waiting_deposit,
    records::{BodyRecord, HeaderRecord, IDENTITY, Identity, PROGRESS, Progress, corrupt, decode},
    store::{Column, Snapshot, StateError, Store},
    votes::waiting_vote,
};
use alloy::consensus::TrieAccount;
use alloy_primitives::{Address, U256};
use alloy_rlp::Decodable;
use std::io::Write;

/// Hashes of so many blocks below the next one are what execution can ask for (BLOCKHASH); the head is one of them.
pub(super) const ANCESTORS: u64 = 255;

/// Writes the state after the newest block.
pub(crate) fn write(store: &Store, out: &mut dyn Write) -> Result<SnapshotInfo, SnapshotError> {
    let at = store.snapshot();
    let read = Reading { store, at: &at };
    let identity: Identity = read.meta(IDENTITY)?;
    let progress: Progress = read.meta(PROGRESS)?;
    let head: HeaderRecord = read.record(Column::Headers, &progress.head.to_be_bytes())?;
    let body: BodyRecord = read.record(Column::Bodies, &progress.head.to_be_bytes())?;
    if waits(store, &at, head.hub_height)? {
        return Err(SnapshotError::Waiting { number: progress.head });
    }
    let mut writer = Writer::new(out)?;
    let Identity { rollup, chain_id, genesis, sealing, .. } = identity;
    writer.record(&Record::Rollup { rollup, chain_id, genesis, sealing })?;
    let mut info = SnapshotInfo {
        number: progress.head,
        hash: head.hash,
        state_root: head.header.state_root,
        next_hub_height: head.hub_height.saturating_add(1),
        accounts: 0,
        slots: 0,
    };
    writer.record(&Record::Head(Box::new((head.header, body))))?;
    for number in (progress.head.saturating_sub(ANCESTORS)..progress.head).rev() {
        let ancestor: HeaderRecord = read.record(Column::Headers, &number.to_be_bytes())?;
        writer.record(&Record::Ancestor(Box::new(ancestor.header)))?;
    }
    for entry in store.iterate(&at, Column::Code, &[])? {
        writer.record(&Record::Code(entry?.1.to_vec().into()))?;
    }
    let mut slots = store.iterate(&at, Column::Storage, &[])?.peekable();
    for entry in store.iterate(&at, Column::Accounts, &[])? {
        let (key, value) = entry?;
        let address = Address::try_from(&*key).map_err(|e| corrupt(Column::Accounts, &key, e))?;
        let TrieAccount { nonce, balance, code_hash, .. } = decode(Column::Accounts, &key, &value)?;
        writer.record(&Record::Account { address, nonce, balance, code_hash })?;
        info.accounts += 1;
        // Both are in the order of addresses.
        while let Some(entry) = slots.next_if(|entry| entry.as_ref().map_or(true, |(slot, _)| slot.starts_with(&key))) {
            let (slot, value) = entry?;
            let rest = slot.get(key.len()..).unwrap_or_default();
            let rest = <[u8; 32]>::try_from(rest).map_err(|e| corrupt(Column::Storage, &slot, e))?;
            let value = decode(Column::Storage, &slot, &value)?;
            writer.record(&Record::Slot { slot: U256::from_be_bytes(rest), value })?;
            info.slots += 1;
        }
    }
    if let Some(entry) = slots.next() {
        return Err(corrupt(Column::Storage, &entry?.0, "a slot without an account").into());
    }
    writer.record(&Record::End)?;
    Ok(info)
}

/// Whether something waits of hub blocks up to `hub_height`: it would be lost. What waits of later ones is derived again.
fn waits(store: &Store, at: &Snapshot<'_>, hub_height: u64) -> Result<bool, StateError> {
    if let Some(first) = store.first_key(at, Column::Pending)? {
        let height = <[u8; 8]>::try_from(first.as_ref()).map_err(|e| corrupt(Column::Pending, &first, e))?;
        if u64::from_be_bytes(height) <= hub_height {
            return Ok(true);
        }
    }
    for record in store.iterate(at, Column::Deposits, &[])? {
        let (key, value) = record?;
        if waiting_deposit(&key, &value)?.1.hub_height <= hub_height {
            return Ok(true);
        }
    }
    for record in store.iterate(at, Column::Votes, &[])? {
        let (key, value) = record?;
        if waiting_vote(&key, &value)?.0.is_of(hub_height) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads at one moment.
struct Reading<'a> {
    store: &'a Store,
    at: &'a Snapshot<'a>,
}

impl Reading<'_> {
    fn meta<T: Decodable>(&self, key: &[u8]) -> Result<T, StateError> {
        self.record(Column::Meta, key)
    }

    fn record<T: Decodable>(&self, column: Column, key: &[u8]) -> Result<T, StateError> {
        let bytes = self.store.get_at(Some(self.at), column, key)?.ok_or_else(|| corrupt(column, key, "missing"))?;
        decode(column, key, &bytes)
    }
}
