//! Making a database of a snapshot. It appears whole and checked, or not at all.

use super::{
    SnapshotError, SnapshotInfo,
    format::{Reader, Record},
    write::ANCESTORS,
};
use crate::{
    changes::Changes,
    genesis::Genesis,
    open::EvmConfig,
    records::{BASE, BodyRecord, HeaderRecord, IDENTITY, Identity, PROGRESS, Progress},
    senders::Senders,
    store::{Column, Store, WriteBatch},
    trie::{self, AccountUpdate},
};
use alloy::{
    consensus::{
        Header,
        constants::EMPTY_ROOT_HASH,
        proofs::{calculate_receipt_root, calculate_transaction_root, calculate_withdrawals_root},
    },
    eips::Encodable2718,
};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use std::{io::Read, path::Path, sync::Arc};
use switchyard_rollup_core::{TxOutcome, evm::ExecutedBlock};

/// Accounts and slots that are put into the trie and written at a time.
const BATCH: usize = 20_000;
/// Bytes of code that are written at a time.
const CODE_BATCH_BYTES: usize = 4 << 20;

/// Restores `input` into the folder `path`, which must not exist, if it is the state of the rollup of `config` after block
/// `trusted`. After an error there is nothing at `path`. Blocking.
pub fn restore(
    path: &Path,
    config: &EvmConfig,
    trusted: B256,
    input: &mut dyn Read,
) -> Result<SnapshotInfo, SnapshotError> {
    let genesis = Genesis::parse(&config.genesis)?;
    let identity = Identity::new(config.rollup, genesis.chain_id, genesis.hash, config.sealing);
    if path.symlink_metadata().is_ok() {
        return Err(SnapshotError::Exists { path: path.into() });
    }
    let draft = path.with_extension("restoring");
    // An attempt that was killed has left it.
    remove(&draft)?;
    std::fs::create_dir_all(&draft)?;
    let restored = Restore::run(&draft, identity, trusted, input).and_then(|info| {
        std::fs::rename(&draft, path)?;
        // Else a power cut could take the new name back.
        if let Some(parent) = path.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
        Ok(info)
    });
    if restored.is_err() {
        remove(&draft)?;
    }
    restored
}

/// What a snapshot says that it holds: that it is whole is checked, and nothing else.
pub fn inspect(input: &mut dyn Read) -> Result<SnapshotInfo, SnapshotError> {
    let mut reader = Reader::new(input)?;
    reader.record()?;
    let Record::Head(head) = reader.record()? else { return invalid("it has no head") };
    let header = head.0;
    let mut info = SnapshotInfo {
        number: header.number,
        hash: header.hash_slow(),
        state_root: header.state_root,
        next_hub_height: hub_height(&header)?.saturating_add(1),
        accounts: 0,
        slots: 0,
    };
    loop {
        match reader.record()? {
            Record::Account { .. } => info.accounts += 1,
            Record::Slot { .. } => info.slots += 1,
            Record::End => return Ok(info),
            _ => {}
        }
    }
}

fn remove(folder: &Path) -> Result<(), SnapshotError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

fn invalid<T>(what: impl Into<String>) -> Result<T, SnapshotError> {
    Err(SnapshotError::Invalid(what.into()))
}

/// The state as far as it was read.
struct Restore<'a> {
    store: &'a Store,
    root: B256,
    updates: Vec<AccountUpdate>,
    /// Accounts and slots in `updates`.
    waiting: usize,
    accounts: u64,
    slots: u64,
}

impl<'a> Restore<'a> {
    fn run(
        folder: &Path,
        identity: Identity,
        trusted: B256,
        input: &mut dyn Read,
    ) -> Result<SnapshotInfo, SnapshotError> {
        let store = Store::open(folder)?;
        let mut reader = Reader::new(input)?;
        check_rollup(&identity, &reader.record()?)?;
        let Record::Head(head) = reader.record()? else { return invalid("it has no head") };
        let head = check_head(&identity, trusted, *head)?;
        let (ancestors, mut next) = read_ancestors(&mut reader, &identity, &head.header)?;
        let mut last_code = None;
        let mut codes = Changes::default();
        let mut code_bytes = 0;
        while let Record::Code(code) = &next {
            let hash = keccak256(code);
            if last_code.is_some_and(|last| last >= hash) {
                return invalid("code is out of order");
            }
            last_code = Some(hash);
            code_bytes += code.len();
            codes.codes.insert(hash, code.clone());
            if code_bytes >= CODE_BATCH_BYTES {
                write(&store, &std::mem::take(&mut codes))?;
                code_bytes = 0;
            }
            next = reader.record()?;
        }
        write(&store, &codes)?;
        let mut state =
            Restore { store: &store, root: EMPTY_ROOT_HASH, updates: Vec::new(), waiting: 0, accounts: 0, slots: 0 };
        state.read(&mut reader, next)?;
        let (expected, found) = (head.header.state_root, state.root);
        if found != expected {
            return Err(SnapshotError::StateRoot { expected, found });
        }
        let info = SnapshotInfo {
            number: head.header.number,
            hash: head.hash,
            state_root: expected,
            next_hub_height: head.hub_height.saturating_add(1),
            accounts: state.accounts,
            slots: state.slots,
        };
        finish(&store, identity, head, ancestors)?;
        Ok(info)
    }

    /// Reads accounts and slots to the end.
    fn read(&mut self, reader: &mut Reader<&mut dyn Read>, mut next: Record) -> Result<(), SnapshotError> {
        let (mut last_account, mut last_slot): (Option<Address>, Option<U256>) = (None, None);
        loop {
            match next {
                Record::Account { address, nonce, balance, code_hash } => {
                    if last_account.is_some_and(|last| last >= address) {
                        return invalid("accounts are out of order");
                    }
                    (last_account, last_slot) = (Some(address), None);
                    self.account(address, nonce, balance, code_hash)?;
                }
                Record::Slot { slot, value } => {
                    if last_slot.is_some_and(|last| last >= slot) || value.is_zero() {
                        return invalid("slots are out of order or empty");
                    }
                    last_slot = Some(slot);
                    self.slot(slot, value)?;
                }
                Record::End => return self.flush(),
                _ => return invalid("a record is out of order"),
            }
            next = reader.record()?;
        }
    }

    fn account(&mut self, address: Address, nonce: u64, balance: U256, code: B256) -> Result<(), SnapshotError> {
        if code != KECCAK256_EMPTY && self.store.get(Column::Code, code.as_slice())?.is_none() {
            return invalid(format!("the code of account {address} is missing"));
        }
        if self.waiting >= BATCH {
            self.flush()?;
        }
        let account = Some((nonce, balance, code));
        self.updates.push(AccountUpdate { address, account, slots: Vec::new(), destroyed: false });
        self.waiting += 1;
        self.accounts += 1;
        Ok(())
    }

    fn slot(&mut self, slot: U256, value: U256) -> Result<(), SnapshotError> {
        let Some(last) = self.updates.last_mut() else { return invalid("a slot without an account") };
        last.slots.push((slot, value));
        self.waiting += 1;
        self.slots += 1;
        if self.waiting >= BATCH {
            // The account may have more: it goes on with what is written by then.
            let rest = AccountUpdate { slots: Vec::new(), ..last.clone() };
            self.flush()?;
            self.updates.push(rest);
            self.waiting = 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        let mut changes = Changes::default();
        self.root = trie::apply(self.store, &mut changes, self.root, std::mem::take(&mut self.updates))?;
        self.waiting = 0;
        write(self.store, &changes)
    }
}

fn write(store: &Store, changes: &Changes) -> Result<(), SnapshotError> {
    let mut batch = WriteBatch::default();
    changes.fill(store, &mut batch)?;
    Ok(store.write(batch, false)?)
}

fn check_rollup(identity: &Identity, record: &Record) -> Result<(), SnapshotError> {
    let Record::Rollup { rollup, chain_id, genesis, sealing } = record else {
        return invalid("it does not say of which rollup it is");
    };
    let fields = [
        ("rollup id", rollup.to_string(), identity.rollup.to_string()),
        ("chain id", chain_id.to_string(), identity.chain_id.to_string()),
        ("genesis block hash", genesis.to_string(), identity.genesis.to_string()),
        ("sealing", sealing.to_string(), identity.sealing.to_string()),
    ];
    match fields.into_iter().find(|(_, found, expected)| found != expected) {
        Some((what, found, expected)) => Err(SnapshotError::OtherRollup { what, found, expected }),
        None => Ok(()),
    }
}

/// The hub block that a block's header names; genesis stands for the hub's.
fn hub_height(header: &Header) -> Result<u64, SnapshotError> {
    if header.number == 0 {
        return Ok(0);
    }
    match <[u8; 8]>::try_from(header.extra_data.as_ref()) {
        Ok(height) => Ok(u64::from_be_bytes(height)),
        Err(_) => invalid(format!("block {} names no hub block", header.number)),
    }
}

/// That the head is the trusted block, and its body the header's.
fn check_head(
    identity: &Identity,
    trusted: B256,
    (header, body): (Header, BodyRecord),
) -> Result<ExecutedBlock, SnapshotError> {
    let hash = header.hash_slow();
    if hash != trusted {
        return Err(SnapshotError::OtherBlock { expected: trusted, found: hash });
    }
    let BodyRecord { transactions, senders, receipts, withdrawals } = body;
    let withdrawals = withdrawals.unwrap_or_default();
    if calculate_transaction_root(&transactions) != header.transactions_root
        || calculate_receipt_root(&receipts) != header.receipts_root
        || receipts.len() != transactions.len()
        || Some(calculate_withdrawals_root(&withdrawals)) != header.withdrawals_root
    {
        return invalid("transactions, receipts or withdrawals are not those of the head");
    }
    let payloads: Vec<_> = transactions.iter().map(|tx| tx.encoded_2718().into()).collect();
    let recovered = Senders::new(identity.chain_id).recover_all(&payloads);
    let found: Vec<Option<Address>> = recovered.into_iter().map(|(_, tx)| tx.ok().map(|tx| tx.signer())).collect();
    if found != senders.iter().copied().map(Some).collect::<Vec<_>>() {
        return invalid("senders are not those of the head's transactions");
    }
    let hub_height = hub_height(&header)?;
    Ok(ExecutedBlock { header, hash, hub_height, transactions, senders, receipts, withdrawals })
}

/// The headers below the head, newest first, and the record after them.
fn read_ancestors(
    reader: &mut Reader<&mut dyn Read>,
    identity: &Identity,
    head: &Header,
) -> Result<(Vec<HeaderRecord>, Record), SnapshotError> {
    let mut ancestors: Vec<HeaderRecord> = Vec::new();
    let (mut number, mut parent) = (head.number, head.parent_hash);
    if head.number == 0 && head.hash_slow() != identity.genesis {
        return invalid("block 0 is another genesis");
    }
    loop {
        let record = reader.record()?;
        let Record::Ancestor(header) = record else {
            if ancestors.len() as u64 != head.number.min(ANCESTORS) {
                return invalid("blocks below the head are missing");
            }
            return Ok((ancestors, record));
        };
        let hash = header.hash_slow();
        if hash != parent || number.checked_sub(1) != Some(header.number) {
            return invalid(format!("block {} is not the one below {number}", header.number));
        }
        if header.number == 0 && hash != identity.genesis {
            return invalid("the chain begins with another genesis");
        }
        (number, parent) = (header.number, header.parent_hash);
        ancestors.push(HeaderRecord { hash, hub_height: hub_height(&header)?, header: *header });
        if ancestors.len() as u64 > ANCESTORS {
            return invalid("too many blocks below the head");
        }
    }
}

/// Adds the blocks, and last of all what makes it a database of the rollup.
fn finish(
    store: &Store,
    identity: Identity,
    head: ExecutedBlock,
    ancestors: Vec<HeaderRecord>,
) -> Result<(), SnapshotError> {
    let mut changes = Changes::default();
    let number = head.header.number;
    for (tx, (receipt, index)) in head.transactions.iter().zip(head.receipts.iter().zip(0..)) {
        let outcome = TxOutcome::Executed { block: number, index, success: receipt.status() };
        changes.outcomes.insert(*tx.tx_hash(), outcome);
    }
    let progress = Progress { next_hub_height: head.hub_height.saturating_add(1), head: number, pending_taken: 0 };
    changes.blocks.push(Arc::new(head));
    let mut batch = WriteBatch::default();
    changes.fill(store, &mut batch)?;
    let (headers, hashes) = (store.column(Column::Headers)?, store.column(Column::Hashes)?);
    for ancestor in &ancestors {
        let number = ancestor.header.number.to_be_bytes();
        batch.put_cf(headers, number, alloy_rlp::encode(ancestor));
        batch.put_cf(hashes, ancestor.hash, number);
    }
    let meta = store.column(Column::Meta)?;
    batch.put_cf(meta, IDENTITY, alloy_rlp::encode(identity));
    batch.put_cf(meta, BASE, number.to_be_bytes());
    batch.put_cf(meta, PROGRESS, alloy_rlp::encode(progress));
    Ok(store.write(batch, true)?)
}
