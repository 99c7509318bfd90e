//! What one hub block changes, gathered in memory and written as one batch.

use crate::{
    deposits::DepositRecord,
    outbox::node_key,
    records::{
        BodyRecord, CheckpointRecord, HeaderRecord, MessageRecord, PROGRESS, PendingRecord, Progress, VoteRecord,
        encode_outcome, slot_key,
    },
    store::{Column, StateError, Store, WriteBatch},
    votes::Place,
};
use alloy::consensus::TrieAccount;
use alloy_primitives::{
    Address, B256, Bytes, U256,
    map::{AddressMap, B256Map, HashMap},
};
use std::{collections::BTreeMap, sync::Arc};
use switchyard_bridge_core::{NodeId, Vote};
use switchyard_rollup_core::{
    TxOutcome,
    evm::{Attestable, ExecutedBlock},
};

/// Hub heights at which the database waits for the disk. A power cut takes back at most this many; whoever prunes the hub's
/// log leaves as many below [`switchyard_rollup_core::Driver::next_hub_height`].
pub(crate) const SYNC_EVERY_HUB_BLOCKS: u64 = switchyard_rollup_core::UNSYNCED_HUB_BLOCKS_MAX;

/// Checkpoints that are kept, with their votes: of the newest blocks. An operator that has stood still attests what is newest
/// by then.
pub(crate) const CHECKPOINTS_KEPT: u64 = 16_384;

/// Changes that are not in the database yet; reads of the driver look here first.
#[derive(Default)]
pub(crate) struct Changes {
    /// Accounts at the new head; none for those that are gone.
    pub(crate) accounts: AddressMap<Option<TrieAccount>>,
    /// Slots at the new head.
    pub(crate) slots: HashMap<(Address, U256), U256>,
    pub(crate) codes: B256Map<Bytes>,
    pub(crate) nodes: B256Map<Vec<u8>>,
    pub(crate) blocks: Vec<Arc<ExecutedBlock>>,
    pub(crate) outcomes: B256Map<TxOutcome>,
    /// Pending hub blocks that were added, or none for those that are done.
    pub(crate) pending: BTreeMap<u64, Option<PendingRecord>>,
    pub(crate) checkpoints: Vec<Attestable>,
    /// Votes that wait for a checkpoint, or none for those that one has carried.
    pub(crate) votes: BTreeMap<Place, Option<Vote>>,
    /// Deposits that wait for a block, or none for those that one has brought.
    pub(crate) deposits: BTreeMap<u64, Option<DepositRecord>>,
    pub(crate) outbox_nodes: Vec<(NodeId, B256)>,
    /// Messages that were sent, with their ids.
    pub(crate) messages: Vec<(B256, MessageRecord)>,
}

impl Changes {
    /// Writes everything, and how far derivation has come with it.
    pub(crate) fn write(&self, store: &Store, progress: Progress) -> Result<(), StateError> {
        let mut batch = WriteBatch::default();
        self.fill(store, &mut batch)?;
        batch.put_cf(store.column(Column::Meta)?, PROGRESS, alloy_rlp::encode(progress));
        store.write(batch, progress.next_hub_height.is_multiple_of(SYNC_EVERY_HUB_BLOCKS))
    }

    /// Adds everything but the progress to a batch.
    pub(crate) fn fill(&self, store: &Store, batch: &mut WriteBatch) -> Result<(), StateError> {
        self.fill_state(store, batch)?;
        self.fill_blocks(store, batch)?;
        self.fill_bridge(store, batch)?;
        let transactions = store.column(Column::Transactions)?;
        for (hash, outcome) in &self.outcomes {
            batch.put_cf(transactions, hash, encode_outcome(outcome));
        }
        let pending = store.column(Column::Pending)?;
        for (height, record) in &self.pending {
            match record {
                Some(record) => batch.put_cf(pending, height.to_be_bytes(), alloy_rlp::encode(record)),
                None => batch.delete_cf(pending, height.to_be_bytes()),
            }
        }
        Ok(())
    }

    fn fill_state(&self, store: &Store, batch: &mut WriteBatch) -> Result<(), StateError> {
        let accounts = store.column(Column::Accounts)?;
        for (address, account) in &self.accounts {
            match account {
                Some(account) => batch.put_cf(accounts, address, alloy_rlp::encode(account)),
                None => batch.delete_cf(accounts, address),
            }
        }
        let storage = store.column(Column::Storage)?;
        for ((address, slot), value) in &self.slots {
            let key = slot_key(*address, *slot);
            if value.is_zero() {
                batch.delete_cf(storage, key);
            } else {
                batch.put_cf(storage, key, alloy_rlp::encode(value));
            }
        }
        let code = store.column(Column::Code)?;
        for (hash, bytes) in &self.codes {
            batch.put_cf(code, hash, bytes);
        }
        let nodes = store.column(Column::Nodes)?;
        for (hash, node) in &self.nodes {
            batch.put_cf(nodes, hash, node);
        }
        Ok(())
    }

    fn fill_bridge(&self, store: &Store, batch: &mut WriteBatch) -> Result<(), StateError> {
        let checkpoints = store.column(Column::Checkpoints)?;
        for attestable in &self.checkpoints {
            let number = attestable.checkpoint.number;
            batch.put_cf(checkpoints, number.to_be_bytes(), alloy_rlp::encode(CheckpointRecord::from(attestable)));
            if let Some(old) = number.checked_sub(CHECKPOINTS_KEPT) {
                batch.delete_cf(checkpoints, old.to_be_bytes());
            }
        }
        let votes = store.column(Column::Votes)?;
        for (place, vote) in &self.votes {
            match vote {
                Some(vote) => batch.put_cf(votes, place.key(), alloy_rlp::encode(VoteRecord::from(vote))),
                None => batch.delete_cf(votes, place.key()),
            }
        }
        let deposits = store.column(Column::Deposits)?;
        for (number, deposit) in &self.deposits {
            match deposit {
                Some(deposit) => batch.put_cf(deposits, number.to_be_bytes(), alloy_rlp::encode(deposit)),
                None => batch.delete_cf(deposits, number.to_be_bytes()),
            }
        }
        let nodes = store.column(Column::OutboxNodes)?;
        for (id, hash) in &self.outbox_nodes {
            batch.put_cf(nodes, node_key(*id), hash);
        }
        let (messages, ids) = (store.column(Column::Messages)?, store.column(Column::MessageIds)?);
        for (id, message) in &self.messages {
            batch.put_cf(messages, message.key(), alloy_rlp::encode(message));
            batch.put_cf(ids, id, message.key());
        }
        Ok(())
    }

    fn fill_blocks(&self, store: &Store, batch: &mut WriteBatch) -> Result<(), StateError> {
        let (headers, bodies) = (store.column(Column::Headers)?, store.column(Column::Bodies)?);
        let hashes = store.column(Column::Hashes)?;
        for block in &self.blocks {
            let number = block.header.number.to_be_bytes();
            let header = HeaderRecord { hash: block.hash, hub_height: block.hub_height, header: block.header.clone() };
            batch.put_cf(headers, number, alloy_rlp::encode(header));
            batch.put_cf(bodies, number, alloy_rlp::encode(BodyRecord::from(&**block)));
            batch.put_cf(hashes, block.hash, number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchyard_bridge_core::Checkpoint;
    use switchyard_primitives::RollupId;

    fn attestable(number: u64) -> Attestable {
        let (block_hash, state_root) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let (outbox_root, votes_root) = (B256::ZERO, B256::ZERO);
        let rollup = RollupId(7);
        let checkpoint = Checkpoint { rollup, number, hub_height: 9, block_hash, state_root, outbox_root, votes_root };
        Attestable { checkpoint, votes: vec![] }
    }

    #[test]
    fn the_newest_checkpoints_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for numbers in [vec![1, 2, 3], vec![CHECKPOINTS_KEPT, CHECKPOINTS_KEPT + 1], vec![CHECKPOINTS_KEPT + 2]] {
            let checkpoints = numbers.into_iter().map(attestable).collect();
            let mut batch = WriteBatch::default();
            Changes { checkpoints, ..Changes::default() }.fill(&store, &mut batch).unwrap();
            store.write(batch, false).unwrap();
        }
        let kept: Vec<_> = store.scan(Column::Checkpoints).unwrap().into_iter().map(|(key, _)| key.to_vec()).collect();
        let expected = [3, CHECKPOINTS_KEPT, CHECKPOINTS_KEPT + 1, CHECKPOINTS_KEPT + 2];
        assert_eq!(kept, expected.map(|number| number.to_be_bytes().to_vec()));
    }
}
