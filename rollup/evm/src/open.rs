//! Opening a rollup's database: a new one gets the genesis state; an existing one must be this rollup's.

use crate::{
    chain::{Chain, read_block},
    changes::Changes,
    driver::EvmDriver,
    genesis::{Genesis, GenesisError},
    outbox,
    reader::EvmReader,
    records::{FORMAT, FORMAT_OLDEST, IDENTITY, Identity, OUTBOX_FIRST, PROGRESS, Progress, decode},
    store::{Column, Peek, StateError, Store, WriteBatch},
    trie::{self, AccountUpdate},
};
use alloy_primitives::{KECCAK256_EMPTY, keccak256};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Sealing, evm::ExecutedBlock};

/// Height of the first hub block after the hub's genesis.
const FIRST_HUB_HEIGHT: u64 = 1;

/// Which rollup to run. The same on every node, or they derive different blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvmConfig {
    /// The rollup's id.
    pub rollup: RollupId,
    /// Genesis in geth's JSON format, chain id included. Prague rules must apply from the genesis block. `gasLimit` and
    /// `coinbase` hold for every block.
    pub genesis: serde_json::Value,
    /// When a rollup block is closed.
    pub sealing: Sealing,
}

/// Why a rollup cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EvmOpenError {
    /// The genesis is refused.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The folder holds a database that is no EVM rollup's: point the data directory elsewhere.
    #[error("{path} holds a database that is not an EVM rollup's")]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// A version of this software that this one does not know, or knows no more, wrote the database: use that version, or
    /// derive again into an empty folder.
    #[error("{path} has format {found}, this version reads formats {oldest} to {supported}")]
    Format {
        /// The folder.
        path: PathBuf,
        /// The database's format.
        found: u32,
        /// The oldest format that this version reads.
        oldest: u32,
        /// The newest, which it writes.
        supported: u32,
    },
    /// The database belongs to another rollup, or to another genesis of this one.
    #[error("{path} is of another rollup: its {what} is {found}, not {expected}")]
    OtherRollup {
        /// The folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// The database's.
        found: String,
        /// The configuration's.
        expected: String,
    },
    /// The database cannot be opened (another process has it, the disk is full) or is damaged.
    #[error("{path}: {reason}")]
    Storage {
        /// The folder.
        path: PathBuf,
        /// What RocksDB or the check said.
        reason: String,
    },
}

/// The entry to this crate.
pub struct EvmRollup;

impl EvmRollup {
    /// Opens the rollup's database in folder `path`, which is created if it does not exist. Returns its one writer and a
    /// reader to share. Blocking.
    pub fn open(path: &Path, config: EvmConfig) -> Result<(EvmDriver, Arc<EvmReader>), EvmOpenError> {
        let genesis = Genesis::parse(&config.genesis)?;
        let expected = Identity::new(config.rollup, genesis.chain_id, genesis.hash, config.sealing);
        let storage = |e: StateError| EvmOpenError::Storage { path: path.into(), reason: e.to_string() };
        let found = Store::peek(path, IDENTITY).map_err(storage)?;
        let is_new = match found {
            Peek::Foreign => return Err(EvmOpenError::Foreign { path: path.into() }),
            Peek::Absent => true,
            Peek::Record(bytes) => {
                check_identity(path, &bytes, expected)?;
                false
            }
        };
        let store = Store::open(path).map_err(storage)?;
        if is_new {
            write_genesis(&store, &genesis, expected).map_err(storage)?;
        }
        complete(&store, expected).map_err(storage)?;
        let (progress, head) = read_head(&store).map_err(storage)?;
        let chain = Chain::new(store, config.rollup, genesis.chain_id, config.sealing, head);
        let chain = Arc::new(chain);
        let driver = EvmDriver::new(chain.clone(), progress).map_err(storage)?;
        Ok((driver, Arc::new(EvmReader::new(chain))))
    }
}

fn check_identity(path: &Path, bytes: &[u8], expected: Identity) -> Result<(), EvmOpenError> {
    let path = path.to_path_buf();
    match Identity::format_of(bytes) {
        None => return Err(EvmOpenError::Foreign { path }),
        Some(FORMAT_OLDEST..=FORMAT) => {}
        Some(found) => {
            return Err(EvmOpenError::Format { path, found, oldest: FORMAT_OLDEST, supported: FORMAT });
        }
    }
    let found: Identity = decode(Column::Meta, IDENTITY, bytes)
        .map_err(|e| EvmOpenError::Storage { path: path.clone(), reason: e.to_string() })?;
    let sealing = |tag: u8| if tag == 0 { "hub_block" } else { "one_second" }.to_string();
    let fields = [
        ("rollup id", found.rollup.to_string(), expected.rollup.to_string()),
        ("chain id", found.chain_id.to_string(), expected.chain_id.to_string()),
        ("sealing", sealing(found.sealing), sealing(expected.sealing)),
        ("genesis block hash", found.genesis.to_string(), expected.genesis.to_string()),
    ];
    match fields.into_iter().find(|(_, found, expected)| found != expected) {
        Some((what, found, expected)) => Err(EvmOpenError::OtherRollup { path, what, found, expected }),
        None => Ok(()),
    }
}

fn write_genesis(store: &Store, genesis: &Genesis, identity: Identity) -> Result<(), StateError> {
    let mut changes = Changes::default();
    let mut updates = Vec::with_capacity(genesis.alloc.len());
    for (address, account) in &genesis.alloc {
        let code_hash = account.non_empty_code().map_or(KECCAK256_EMPTY, keccak256);
        if let Some(code) = account.non_empty_code() {
            changes.codes.insert(code_hash, code.clone());
        }
        updates.push(AccountUpdate {
            address: *address,
            account: Some((account.nonce.unwrap_or_default(), account.balance, code_hash)),
            slots: account.storage_slots().map(|(slot, value)| (slot.into(), value)).collect(),
            destroyed: false,
        });
    }
    let root = trie::apply(store, &mut changes, alloy::consensus::EMPTY_ROOT_HASH, updates)?;
    if root != genesis.header.state_root {
        return Err(StateError::Trie(format!("genesis root is {root}, expected {}", genesis.header.state_root)));
    }
    changes.blocks.push(Arc::new(ExecutedBlock {
        header: genesis.header.clone(),
        hash: genesis.hash,
        hub_height: 0,
        transactions: Vec::new(),
        senders: Vec::new(),
        receipts: Vec::new(),
        withdrawals: Vec::new(),
    }));
    let mut batch = WriteBatch::default();
    changes.fill(store, &mut batch)?;
    let progress = Progress { next_hub_height: FIRST_HUB_HEIGHT, head: 0, pending_taken: 0 };
    let meta = store.column(Column::Meta)?;
    batch.put_cf(meta, IDENTITY, alloy_rlp::encode(identity));
    batch.put_cf(meta, PROGRESS, alloy_rlp::encode(progress));
    store.write(batch, true)
}

/// Makes a database of this format of one of an earlier format, of a snapshot, or of a genesis: each has the state, and
/// nothing of the messages before.
fn complete(store: &Store, identity: Identity) -> Result<(), StateError> {
    let found = store.get(Column::Meta, IDENTITY)?;
    let has_outbox = store.get(Column::Meta, OUTBOX_FIRST)?.is_some();
    if has_outbox && found.is_some_and(|bytes| Identity::format_of(&bytes) == Some(FORMAT)) {
        return Ok(());
    }
    let mut batch = WriteBatch::default();
    if !has_outbox {
        outbox::adopt(store, &mut batch)?;
    }
    batch.put_cf(store.column(Column::Meta)?, IDENTITY, alloy_rlp::encode(identity));
    // A power cut that takes it takes all that is written after it too; then it is done again.
    store.write(batch, false)
}

fn read_head(store: &Store) -> Result<(Progress, ExecutedBlock), StateError> {
    let missing = |what: &str| StateError::Database(format!("{what} is missing: the database is damaged"));
    let progress = store.get(Column::Meta, PROGRESS)?.ok_or_else(|| missing("progress"))?;
    let progress: Progress = decode(Column::Meta, PROGRESS, &progress)?;
    let head = read_block(store, progress.head)?.ok_or_else(|| missing("head block"))?;
    Ok((progress, head))
}
