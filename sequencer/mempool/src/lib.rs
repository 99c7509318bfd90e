//! Provisional.
#![allow(missing_docs, clippy::all)]
use parking_lot::Mutex;
use std::{collections::{BTreeMap, HashMap, HashSet}, sync::Arc, time::{Duration, Instant}};
use switchyard_primitives::{Bytes, Limits, RollupId, Segment, TxKey};
use switchyard_rollup_core::{Admission, Rejection, Sequenced};
use alloy_primitives::Address;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin { Local, Gossip }
#[derive(Clone, Copy, Debug)]
pub struct Budget { pub bytes: usize, pub transactions: usize, pub segments: usize }
#[derive(Clone, Debug)]
pub struct MempoolConfig { pub bytes: usize, pub transactions: usize, pub rollup_bytes: usize, pub rollup_transactions: usize, pub sender_transactions: usize, pub ttl: Duration }
pub struct Checked { key: TxKey, payload: Bytes, meta: Option<Sequenced> }
struct Tx { payload: Bytes, at: Instant }
#[derive(Default)]
struct Inner { txs: HashMap<TxKey, Tx>, order: BTreeMap<u64, TxKey>, bytes: usize, seq: u64, seqs: HashMap<TxKey, u64>, nonces: HashMap<(RollupId, Address), u64> }
pub struct Mempool { inner: Mutex<Inner>, limits: Limits, rollups: HashMap<RollupId, Option<Arc<dyn Admission>>> }
impl Mempool {
    pub fn new(_c: MempoolConfig, limits: Limits, rollups: Vec<(RollupId, Option<Arc<dyn Admission>>)>) -> Self {
        Self { inner: Mutex::default(), limits, rollups: rollups.into_iter().collect() }
    }
    pub fn contains(&self, key: &TxKey) -> bool { self.inner.lock().txs.contains_key(key) }
    pub fn get(&self, key: &TxKey) -> Option<Bytes> { self.inner.lock().txs.get(key).map(|t| t.payload.clone()) }
    pub fn drop_reason(&self, _key: &TxKey) -> Option<Rejection> { None }
    pub fn pending_nonce(&self, rollup: RollupId, sender: Address) -> Option<u64> { self.inner.lock().nonces.get(&(rollup, sender)).copied() }
    pub fn check(&self, rollup: RollupId, payload: &Bytes) -> Result<Checked, Rejection> {
        let admission = self.rollups.get(&rollup).ok_or(Rejection::UnknownRollup(rollup))?;
        if payload.len() > self.limits.transaction_bytes { return Err(Rejection::Oversized { bytes: payload.len(), limit: self.limits.transaction_bytes }); }
        let meta = match admission { Some(a) => a.inspect(payload)?, None => None };
        Ok(Checked { key: TxKey::of(rollup, payload), payload: payload.clone(), meta })
    }
    pub fn insert(&self, c: Checked, _o: Origin, now: Instant) -> Result<TxKey, Rejection> {
        let mut i = self.inner.lock();
        if i.txs.contains_key(&c.key) { return Err(Rejection::AlreadyKnown(c.key.hash)); }
        i.seq += 1; let s = i.seq;
        i.bytes += c.payload.len();
        if let Some(m) = c.meta { i.nonces.insert((c.key.rollup, m.sender), m.nonce + 1); }
        i.order.insert(s, c.key); i.seqs.insert(c.key, s);
        i.txs.insert(c.key, Tx { payload: c.payload, at: now });
        Ok(c.key)
    }
    pub fn waiting_totals(&self) -> (usize, usize) { let i = self.inner.lock(); (i.txs.len(), i.bytes) }
    pub fn totals(&self, rollup: RollupId) -> (usize, usize) { let i = self.inner.lock(); (i.txs.keys().filter(|k| k.rollup == rollup).count(), 0) }
    pub fn select(&self, b: Budget, excluded: &[Arc<HashSet<TxKey>>]) -> Vec<Segment> {
        let i = self.inner.lock(); let mut out: BTreeMap<RollupId, Vec<Bytes>> = BTreeMap::new(); let (mut bytes, mut n) = (0, 0);
        for k in i.order.values() {
            if excluded.iter().any(|s| s.contains(k)) { continue; }
            let p = &i.txs[k].payload; bytes += p.len() + 16; n += 1;
            if bytes + 64 > b.bytes || n > b.transactions { break; }
            out.entry(k.rollup).or_default().push(p.clone());
        }
        out.into_iter().map(|(rollup, transactions)| Segment { rollup, transactions }).collect()
    }
    pub fn on_final(&self, _h: u64, keys: &HashMap<RollupId, Vec<TxKey>>) {
        let mut i = self.inner.lock();
        for k in keys.values().flatten() { if let Some(t) = i.txs.remove(k) { i.bytes -= t.payload.len(); if let Some(s) = i.seqs.remove(k) { i.order.remove(&s); } } }
    }
    pub fn on_executed(&self, _r: RollupId, _h: u64) {}
    pub fn expire(&self, _now: Instant) {}
    pub fn waiting(&self, older: Duration, limit: usize, now: Instant) -> Vec<(TxKey, Bytes)> {
        self.inner.lock().txs.iter().filter(|(_, t)| now.duration_since(t.at) > older).take(limit).map(|(k, t)| (*k, t.payload.clone())).collect()
    }
}
