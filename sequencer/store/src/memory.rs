//! A store that forgets everything when it is dropped.

use crate::{
    BridgeRows, Store, StoreError, bridge,
    placement::{Checked, Placement},
    record::Location,
};
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use switchyard_primitives::{B256, Block, Bytes, FinalityCertificate, Header, RollupId, TableEntry, TxKey};

/// The log in memory, for tests. Not bounded.
#[derive(Debug)]
pub struct MemoryStore(RwLock<Log>);

#[derive(Debug)]
struct Log {
    tip: (Header, B256),
    earliest: u64,
    headers: BTreeMap<u64, (Header, B256)>,
    heights: HashMap<B256, u64>,
    bodies: BTreeMap<u64, (Block, Vec<TableEntry>)>,
    certificates: BTreeMap<u64, FinalityCertificate>,
    index: HashMap<TxKey, Location>,
    hub_states: BTreeMap<u64, Vec<u8>>,
    bridge: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryStore {
    /// A log that holds only this genesis.
    pub fn new(genesis: Header) -> Self {
        let hash = genesis.hash();
        Self(RwLock::new(Log {
            tip: (genesis, hash),
            earliest: 0,
            headers: BTreeMap::from([(0, (genesis, hash))]),
            heights: HashMap::from([(hash, 0)]),
            bodies: BTreeMap::from([(0, (Block::genesis(genesis), Vec::new()))]),
            certificates: BTreeMap::new(),
            index: HashMap::new(),
            hub_states: BTreeMap::new(),
            bridge: BTreeMap::new(),
        }))
    }
}

impl Log {
    fn held(&self, height: u64) -> Result<B256, StoreError> {
        self.headers
            .get(&height)
            .map(|(_, hash)| *hash)
            .ok_or(StoreError::Corrupt { column: "headers", detail: format!("no header at {height}") })
    }

    fn insert(&mut self, checked: &Checked<'_>) {
        let header = checked.block.header;
        let height = header.height;
        for (segment, hashes) in checked.block.segments().iter().zip(checked.block.tx_hashes()) {
            for (hash, index) in hashes.iter().zip(0..) {
                self.index.insert(TxKey { rollup: segment.rollup, hash: *hash }, (height, index));
            }
        }
        self.headers.insert(height, (header, checked.hash));
        self.heights.insert(checked.hash, height);
        self.bodies.insert(height, (checked.block.clone(), checked.table.clone()));
        self.tip = (header, checked.hash);
    }
}

impl Store for MemoryStore {
    fn append(&self, block: &Block, certificate: Option<&FinalityCertificate>) -> Result<(), StoreError> {
        let checked = Checked::new(block, certificate)?;
        let mut log = self.0.write();
        if checked.place(&log.tip, |height| log.held(height))? == Placement::Next {
            log.insert(&checked);
        }
        if let Some(certificate) = certificate {
            log.certificates.entry(block.header.height).or_insert_with(|| certificate.clone());
        }
        Ok(())
    }

    fn begin_at(&self, block: &Block, certificate: Option<&FinalityCertificate>) -> Result<(), StoreError> {
        let checked = Checked::new(block, certificate)?;
        let mut log = self.0.write();
        checked.begins(&log.tip)?;
        log.insert(&checked);
        let height = block.header.height;
        log.earliest = height;
        log.bodies = log.bodies.split_off(&height);
        if let Some(certificate) = certificate {
            log.certificates.insert(height, certificate.clone());
        }
        Ok(())
    }

    fn tip(&self) -> (Header, B256) {
        self.0.read().tip
    }

    fn earliest(&self) -> u64 {
        self.0.read().earliest
    }

    fn header(&self, height: u64) -> Result<Option<Header>, StoreError> {
        Ok(self.0.read().headers.get(&height).map(|(header, _)| *header))
    }

    fn height_of(&self, hash: B256) -> Result<Option<u64>, StoreError> {
        Ok(self.0.read().heights.get(&hash).copied())
    }

    fn table(&self, height: u64) -> Result<Option<Vec<TableEntry>>, StoreError> {
        Ok(self.0.read().bodies.get(&height).map(|(_, table)| table.clone()))
    }

    fn transactions(&self, rollup: RollupId, height: u64) -> Result<Option<Vec<Bytes>>, StoreError> {
        let log = self.0.read();
        let transactions = log.bodies.get(&height).map(|(block, _)| block.transactions(rollup));
        Ok(transactions.filter(|txs| !txs.is_empty()).map(<[Bytes]>::to_vec))
    }

    fn block(&self, height: u64) -> Result<Option<Block>, StoreError> {
        Ok(self.0.read().bodies.get(&height).map(|(block, _)| block.clone()))
    }

    fn certificate_from(&self, height: u64) -> Result<Option<(u64, FinalityCertificate)>, StoreError> {
        Ok(self.0.read().certificates.range(height..).next().map(|(height, c)| (*height, c.clone())))
    }

    fn certificate_to(&self, height: u64) -> Result<Option<(u64, FinalityCertificate)>, StoreError> {
        Ok(self.0.read().certificates.range(..=height).next_back().map(|(height, c)| (*height, c.clone())))
    }

    fn locate(&self, key: TxKey) -> Result<Option<Location>, StoreError> {
        Ok(self.0.read().index.get(&key).copied())
    }

    fn locate_many(&self, keys: &[TxKey]) -> Result<Vec<Option<Location>>, StoreError> {
        let log = self.0.read();
        Ok(keys.iter().map(|key| log.index.get(key).copied()).collect())
    }

    fn put_hub_state(&self, height: u64, state: &[u8]) -> Result<(), StoreError> {
        self.0.write().hub_states.insert(height, state.to_vec());
        Ok(())
    }

    fn hub_state(&self, height: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.read().hub_states.range(..=height).next_back().map(|(_, state)| state.clone()))
    }

    fn put_bridge(&self, height: u64, rows: &BridgeRows) -> Result<(), StoreError> {
        let rows_of = &mut self.0.write().bridge;
        rows_of.extend(rows.puts(height));
        let states = rows_of.range(..=bridge::state_key(height)).rev().map_while(|(key, _)| bridge::height_of(key));
        for gone in rows.forgotten(height, states) {
            rows_of.remove(&bridge::state_key(gone));
        }
        Ok(())
    }

    fn bridge_state(&self, height: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let log = self.0.read();
        let newest = log.bridge.range(bridge::state_key(0)..=bridge::state_key(height)).next_back();
        Ok(newest.and_then(|(key, row)| Some((bridge::height_of(key)?, row.clone()))))
    }

    fn bridge_count(&self, height: u64) -> Result<u64, StoreError> {
        let log = self.0.read();
        let newest = log.bridge.range(bridge::count_key(0)..=bridge::count_key(height)).next_back();
        newest.map_or(Ok(0), |(_, row)| bridge::count_of(row))
    }

    fn bridge_leaf(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.read().bridge.get(&bridge::leaf_key(index)).cloned())
    }

    fn bridge_node(&self, level: u8, position: u64) -> Result<Option<B256>, StoreError> {
        self.0.read().bridge.get(&bridge::node_key(level, position)).map(|row| bridge::node_of(row)).transpose()
    }

    fn bridge_bundle(&self, id: &B256) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.read().bridge.get(&bridge::bundle_key(id)).cloned())
    }

    fn bridge_record(&self, id: &B256) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.read().bridge.get(&bridge::record_key(id)).cloned())
    }

    fn prune(&self, height: u64) -> Result<(), StoreError> {
        let mut log = self.0.write();
        let earliest = height.min(log.tip.0.height);
        if earliest > log.earliest {
            log.earliest = earliest;
            log.bodies = log.bodies.split_off(&earliest);
            log.index.retain(|_, (height, _)| *height >= earliest);
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.0.read().bodies.values().map(|(block, _)| block.encoded_len() as u64).sum()
    }
}
