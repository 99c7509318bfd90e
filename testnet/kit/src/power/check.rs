//! What must hold in the folders of validators that had lost their power, have gone on, and were stopped.

use super::{
    cut::Cut,
    record::Recording,
    site::data_of,
    trace::{Op, Record},
};
use alloy_primitives::Address;
use eyre::{Context as _, bail, ensure};
use std::{collections::HashMap, num::NonZeroU64, path::Path};
use switchyard_consensus_core::{Vote, keys::bls_public_key};
use switchyard_consensus_guard::{Entry, FORMAT, Interchange, Kind, SignGuard, Statement};
use switchyard_node::{config::Config, genesis::Genesis, hub::tree_root};
use switchyard_primitives::{B256, Block, RollupId};
use switchyard_rollup_core::{Driver as _, RollupManifest, SegmentInput, Vm, evm::EvmChain as _};
use switchyard_rollup_evm::{EvmConfig, EvmReader, EvmRollup};
use switchyard_store::{Journal, RocksOptions, RocksStore, Store};
use switchyard_testnet_local::{NetworkDir, accounts::ACCOUNTS};

/// As the node opens it.
const FLUSH_EVERY_BLOCKS: NonZeroU64 = NonZeroU64::new(256).expect("not zero");

/// What had left the validators before the cut.
pub(super) struct Before {
    /// Of each validator.
    pub(super) votes: Vec<Vec<Vote>>,
    /// The highest block that a client was told is final.
    pub(super) told: Option<(u64, B256)>,
}

impl Before {
    pub(super) fn of(recording: &Recording, cut: &Cut) -> Self {
        let mut before = Self { votes: vec![Vec::new(); cut.fates.len()], told: None };
        for Record { node, op } in recording.before.0.iter().chain(&recording.trace.0[..=cut.record]) {
            match op {
                Op::Voted(vote) => before.votes[*node].push(*vote),
                Op::Final { height, hash } => {
                    before.told = before.told.max(Some((*height, *hash)));
                }
                _ => {}
            }
        }
        before
    }

    /// The height of what clients were told.
    pub(super) fn height(&self) -> u64 {
        self.told.map_or(0, |(height, _)| height)
    }
}

/// No two of a validator's votes exclude each other.
pub(super) fn no_contradiction<'a>(votes: impl Iterator<Item = &'a Vote>) -> eyre::Result<()> {
    let mut said = HashMap::<(Kind, (u64, u64)), Statement>::new();
    for vote in votes {
        let statement = Statement::from(vote);
        let first = said.entry((statement.kind, vote.round())).or_insert(statement);
        ensure!(*first == statement, "signed twice: {first:?} and {statement:?}");
        let other = match statement.kind {
            Kind::Nullify => Kind::Finalize,
            Kind::Finalize => Kind::Nullify,
            _ => continue,
        };
        if let Some(other) = said.get(&(other, vote.round())) {
            bail!("signed what excludes each other: {other:?} and {statement:?}");
        }
    }
    Ok(())
}

/// The record holds every vote, or forbids its view.
pub(super) fn record_holds(path: &Path, network: B256, secret: &[u8; 32], votes: &[Vote]) -> eyre::Result<()> {
    let key = bls_public_key(secret)?.0;
    let guard = SignGuard::open(path, network, key)?;
    for vote in votes {
        let Statement { kind, scope, position, digest } = Statement::from(vote);
        let (format, key) = (FORMAT, key.into());
        let low_water = Vec::new();
        let one =
            Interchange { format, network, key, low_water, signed: vec![Entry { kind, scope, position, digest }] };
        ensure!(guard.knows(&one)?, "the sign record lacks a vote that had left: {vote:?}");
    }
    Ok(())
}

/// Everything that the folders of a stopped network must have.
pub(super) fn check_folders(
    dir: &NetworkDir,
    recording: &Recording,
    before: &Before,
    after: &[Vec<Vote>],
    derive: bool,
) -> eyre::Result<()> {
    let genesis = dir.genesis()?;
    let network = genesis.id()?;
    let mut tips = Vec::new();
    for (index, after) in after.iter().enumerate() {
        let data = data_of(dir, index);
        let node = |what: &str| format!("validator {index}: {what}");
        let votes = before.votes[index].iter().chain(after);
        no_contradiction(votes.clone()).wrap_err_with(|| node("votes"))?;
        let secret = std::fs::read_to_string(dir.validator(index).dir.join("bls.key"))?;
        let secret = hex::decode(secret.trim())?.try_into().map_err(|_| eyre::eyre!("not 32 bytes"))?;
        let votes: Vec<Vote> = votes.copied().collect();
        record_holds(&data.join("sign-record"), network, &secret, &votes).wrap_err_with(|| node("record"))?;
        let store = open_store(&data, &genesis).wrap_err_with(|| node("store"))?;
        check_log(&store, before).wrap_err_with(|| node("log"))?;
        let mut config = dir.config(index)?;
        config.data_dir = data;
        for manifest in &genesis.rollups {
            let rollup = || node(&format!("rollup {}", manifest.id));
            check_rollup(&config, manifest, &store, recording, derive).wrap_err_with(rollup)?;
        }
        tips.push(store);
    }
    agree(&tips)
}

fn open_store(data: &Path, genesis: &Genesis) -> eyre::Result<RocksStore> {
    let journal = Journal::Elsewhere { flush_every_blocks: FLUSH_EVERY_BLOCKS };
    let options = RocksOptions { journal, ..RocksOptions::default() };
    Ok(RocksStore::open(&data.join("store"), genesis.id()?, genesis.header()?, options)?)
}

fn header_hash(store: &dyn Store, height: u64) -> eyre::Result<B256> {
    Ok(store.header(height)?.ok_or_else(|| eyre::eyre!("no header at {height}"))?.hash())
}

/// A whole chain, with what was announced in it.
fn check_log(store: &dyn Store, before: &Before) -> eyre::Result<()> {
    let (tip, hash) = store.tip();
    for height in 1..=tip.height {
        let header = store.header(height)?.ok_or_else(|| eyre::eyre!("no header at {height}"))?;
        ensure!(header.parent == header_hash(store, height - 1)?, "block {height} is not the child of {}", height - 1);
        if height >= store.earliest() {
            let block = store.block(height)?.ok_or_else(|| eyre::eyre!("no block at {height}"))?;
            ensure!(block.hash() == header.hash(), "block {height} has another header");
        }
    }
    ensure!(header_hash(store, tip.height)? == hash, "the tip is another block");
    if let Some((height, told)) = before.told {
        let held = header_hash(store, height)?;
        ensure!(held == told, "block {height} was final as {told}, and is {held}");
    }
    Ok(())
}

/// All logs are beginnings of one.
fn agree(stores: &[RocksStore]) -> eyre::Result<()> {
    let common = stores.iter().map(|store| store.tip().0.height).min().unwrap_or(0);
    let mut hashes = Vec::new();
    for store in stores {
        hashes.push(header_hash(store, common)?);
    }
    ensure!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "at {common}: {hashes:?}");
    Ok(())
}

/// The rollup's part of a block: from the log, or where that was pruned, from what was recorded. None where the network has
/// gone so far on that what it had pruned came after the cut.
fn input(store: &dyn Store, recorded: &[Block], rollup: RollupId, height: u64) -> eyre::Result<Option<SegmentInput>> {
    let header = store.header(height)?.ok_or_else(|| eyre::eyre!("no header at {height}"))?;
    let (hub_hash, timestamp_ms) = (header.hash(), header.timestamp_ms);
    let transactions = if height >= store.earliest() {
        store.transactions(rollup, height)?.unwrap_or_default()
    } else {
        let block = recorded.get(usize::try_from(height)? - 1).filter(|block| block.hash() == hub_hash);
        let Some(block) = block else { return Ok(None) };
        let segment = block.segments().iter().find(|segment| segment.rollup == rollup);
        segment.map(|segment| segment.transactions.clone()).unwrap_or_default()
    };
    // Neither bundles nor deposits are in these logs.
    let (hub_root, legs, deposits) = (tree_root(store, &header)?, Vec::new(), Vec::new());
    Ok(Some(SegmentInput { hub_height: height, hub_hash, timestamp_ms, hub_root, transactions, legs, deposits }))
}

/// Flat state and trie say the same of the accounts that were used.
fn check_state(reader: &EvmReader) -> eyre::Result<()> {
    let head = reader.head().header.number;
    for address in ACCOUNTS.iter().map(|account| account.address).chain([Address::with_last_byte(0xd0)]) {
        let flat = reader.account(head, address)?.map(|account| (account.nonce, account.balance)).unwrap_or_default();
        let proven = reader.proof(head, address, &[])?;
        let proven = (proven.nonce, proven.balance);
        ensure!(flat == proven, "{address}: {flat:?} in the flat state, {proven:?} in the trie");
    }
    Ok(())
}

/// The state is what the log makes of the genesis. With `derive`, all of it is derived once more.
fn check_rollup(
    config: &Config,
    manifest: &RollupManifest,
    store: &dyn Store,
    recording: &Recording,
    derive: bool,
) -> eyre::Result<()> {
    let Vm::Evm { genesis } = &manifest.vm else { return Ok(()) };
    let evm = || EvmConfig { rollup: manifest.id, genesis: genesis.clone(), sealing: manifest.sealing };
    let (driver, reader) = EvmRollup::open(&config.rollup_state(manifest.id), evm())?;
    let (next, tip) = (driver.next_hub_height(), store.tip().0.height);
    ensure!(next <= tip + 1, "it has executed hub block {} of a log of {tip}", next - 1);
    check_state(&reader)?;
    if !derive {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (mut fresh, derived) = EvmRollup::open(folder.path(), evm())?;
    for height in 1..next {
        let Some(input) = input(store, &recording.blocks, manifest.id, height)? else { return Ok(()) };
        fresh.apply(&input).map_err(|error| eyre::eyre!("{error}"))?;
    }
    let (found, expected) = (reader.head(), derived.head());
    ensure!(
        found.hash == expected.hash,
        "after hub block {}: block {} {} with state {}, derived anew {} {} with state {}",
        next - 1,
        found.header.number,
        found.hash,
        found.header.state_root,
        expected.header.number,
        expected.hash,
        expected.header.state_root
    );
    Ok(())
}
