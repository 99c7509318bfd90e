mod chain;
mod network;

use super::*;
use crate::hub::HubStates;
use std::num::NonZeroU64;
use switchyard_bridge_core::{
    BridgeError, BridgeRecord, Certificate, Checkpoint, Founding, Operator as Founder, OperatorChange, OperatorKind,
    SystemError, SystemState, Vote,
};
use switchyard_consensus_core::{
    EpochRules, HubState,
    keys::{aggregate, bls_public_key, bls_secret_from_entropy},
    stake::Registration,
};
use switchyard_primitives::{Block, Bytes, Header, RollupId, Segment};
use switchyard_store::MemoryStore;

const NETWORK: B256 = B256::repeat_byte(9);
const A: RollupId = RollupId(1);

fn secret(i: u8) -> [u8; 32] {
    bls_secret_from_entropy(&[i; 32]).unwrap()
}

fn identity(i: u8) -> B256 {
    B256::with_last_byte(i)
}

/// Four operators with a stake of one each, and so many rollups.
fn hub(rollups: u64) -> HubStates {
    let rules = EpochRules { blocks: NonZeroU64::MAX, seats_per_validator: 1 };
    let registered = |i: u8| {
        let bls = bls_public_key(&secret(i)).unwrap();
        (identity(i), Registration { bls, stake: 1, address: None, serial: 0 })
    };
    let hub = HubState::genesis(NETWORK, rules, (1..5).map(registered)).unwrap().with_protocol(3);
    let founder = |i: u8| {
        let bls = bls_public_key(&secret(100 + i)).unwrap();
        let rollups = (1..=rollups).map(RollupId).collect();
        (identity(i), Founder { bls, rollups, serial: 0, gone_at: None })
    };
    let chains = (1..=rollups).map(|id| (RollupId(id), 70 + id)).collect();
    let founding = Founding { rollups: chains, operators: (1..5).map(founder).collect() };
    let state = SystemState::new(hub, Arc::new(founding)).unwrap();
    let store = Arc::new(MemoryStore::new(Header::genesis(NETWORK, 0, B256::ZERO)));
    HubStates::open(store, NETWORK, state).unwrap()
}

fn pool() -> (Pool, Arc<SystemState>, Arc<Metrics>) {
    let (hub, metrics) = (hub(1), Arc::new(Metrics::default()));
    let state = hub.tip();
    (Pool::new(hub, metrics.clone()), state, metrics)
}

/// The next block is made of what the pool can certify.
fn certify(pool: &Pool) -> Arc<SystemState> {
    let state = pool.hub.tip();
    next(pool, &state, pool.certificate(&state, usize::MAX).map(record))
}

/// The next block has this record.
fn next(pool: &Pool, state: &SystemState, record: Option<Bytes>) -> Arc<SystemState> {
    let segment = record.map(|record| Segment { rollup: RollupId::SYSTEM, transactions: vec![record] });
    let header = state.stamp(Header { height: state.next_height(), ..Header::genesis(NETWORK, 0, B256::ZERO) });
    let next = pool.hub.next(&Block::new(header, segment.into_iter().collect())).unwrap().unwrap();
    pool.hub.advance(next.clone());
    next
}

fn checkpoint(number: u64) -> Checkpoint {
    let root = B256::repeat_byte(7);
    let roots = (root, root, root);
    Checkpoint {
        rollup: A,
        number,
        hub_height: 0,
        block_hash: roots.0,
        state_root: roots.1,
        outbox_root: roots.2,
        votes_root: B256::ZERO,
    }
}

fn word(i: u8, checkpoint: Checkpoint) -> Attestation {
    Attestation::sign(NETWORK, identity(i), checkpoint, Vec::new(), &secret(100 + i)).unwrap()
}

fn numbers(certificate: &Certificate) -> Vec<u64> {
    certificate.entries.iter().map(|entry| entry.checkpoint.number).collect()
}

fn refused(metrics: &Metrics, reason: &'static str) -> u64 {
    metrics.attestations_refused.get_or_create(&crate::metrics::ReasonLabel { reason }).get()
}

#[test]
fn a_quorum_makes_a_certificate_that_the_next_block_may_hold() {
    let (pool, state, _) = pool();
    let ready = pool.ready();
    for i in [1, 2] {
        pool.add(word(i, checkpoint(1)));
    }
    assert!(pool.certificate(&state, usize::MAX).is_none());
    assert!(!ready.has_changed().unwrap());
    pool.add(word(3, checkpoint(1)));
    assert!(ready.has_changed().unwrap());
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    assert_eq!(numbers(&certificate), [1]);
    state.draft().add(&record(certificate)).unwrap();
}

#[test]
fn blocks_are_certified_without_a_gap_as_many_as_fit() {
    let (pool, ..) = pool();
    (1..5).for_each(|i| pool.add(word(i, checkpoint(1))));
    let state = certify(&pool);
    for number in [2, 3, 4, 6] {
        (1..5).for_each(|i| pool.add(word(i, checkpoint(number))));
    }
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    assert_eq!(numbers(&certificate), [2, 3, 4]);
    state.draft().add(&record(certificate)).unwrap();
    assert_eq!(numbers(&pool.certificate(&state, 128 + 2 * 170).unwrap()), [2, 3]);
    assert!(record(pool.certificate(&state, 128 + 2 * 170).unwrap()).len() <= 128 + 2 * 170);
    // A block that holds more than a transaction may would be refused.
    assert!(pool.certificate(&state, 128).is_none());
}

#[test]
fn no_rollup_waits_for_ever_behind_others() {
    let rollups = Certificate::ENTRIES_MAX as u64 + 6;
    let pool = Pool::new(hub(rollups), Arc::default());
    let of = |rollup, number| Checkpoint { rollup: RollupId(rollup), ..checkpoint(number) };
    for rollup in 1..=rollups {
        (1..4).for_each(|i| pool.add(word(i, of(rollup, 1))));
    }
    certify(&pool);
    let state = certify(&pool);
    let bridge = state.bridge().unwrap();
    assert!(bridge.rollups().values().all(|rollup| rollup.certified.is_some()), "two certificates have room for all");

    // One with a backlog leaves room for the others.
    for number in 2..=70 {
        (1..4).for_each(|i| pool.add(word(i, of(1, number))));
    }
    (1..4).for_each(|i| pool.add(word(i, of(rollups, 2))));
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    assert!(certificate.entries.iter().any(|entry| entry.checkpoint == of(rollups, 2)));
    assert_eq!(certificate.entries.len(), Certificate::ENTRIES_MAX);
    state.draft().add(&record(certificate)).unwrap();
}

#[test]
fn a_signature_that_is_none_is_found_and_its_operator_is_not_heard_for_a_while() {
    let (pool, state, metrics) = pool();
    let forged = Attestation { signature: word(1, checkpoint(2)).signature, ..word(1, checkpoint(1)) };
    pool.add(forged);
    [2, 3].into_iter().for_each(|i| pool.add(word(i, checkpoint(1))));
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    let refusal = state.draft().add(&record(certificate.clone()));
    assert_eq!(refusal, Err(SystemError::Bridge(BridgeError::Signature)));
    assert!(pool.sift(&state, &certificate.entries));
    assert_eq!(refused(&metrics, "signature"), 1);
    assert!(pool.certificate(&state, usize::MAX).is_none(), "two are left");
    pool.add(word(1, checkpoint(1)));
    assert_eq!(refused(&metrics, "muted"), 1);
    pool.add(word(4, checkpoint(1)));
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    assert!(!pool.sift(&state, &certificate.entries), "all of it holds");
    state.draft().add(&record(certificate)).unwrap();

    certify(&pool);
    (0..super::pool::MUTED).for_each(|_| drop(certify(&pool)));
    pool.add(word(1, checkpoint(2)));
    assert!(pool.has_heard(&word(1, checkpoint(2))), "heard again");
}

#[test]
fn two_liars_whose_signatures_make_up_for_each_other_are_found() {
    let (pool, state, metrics) = pool();
    let leave = OperatorChange::sign(NETWORK, identity(4), 0, OperatorKind::Leave, &secret(4)).unwrap();
    let state = next(&pool, &state, Some(BridgeRecord::Operator(leave).encode()));
    // What one has too much, the other, who leaves and is no part of the sum, has too little.
    let more = word(1, checkpoint(9)).signature;
    let mut less = more;
    less[0] ^= 0x20;
    for (i, other) in [(1, more), (4, less)] {
        let word = word(i, checkpoint(1));
        pool.add(Attestation { signature: aggregate(&[word.signature, other]).unwrap(), ..word });
    }
    [2, 3].into_iter().for_each(|i| pool.add(word(i, checkpoint(1))));
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    let refusal = state.draft().add(&record(certificate.clone()));
    assert_eq!(refusal, Err(SystemError::Bridge(BridgeError::Signature)));
    assert!(pool.sift(&state, &certificate.entries));
    assert!(pool.is_muted(&identity(1), state.next_height()));
    assert_eq!(refused(&metrics, "signature"), 1);
}

#[test]
fn bytes_that_are_no_signature_stop_no_certificate() {
    let (pool, state, metrics) = pool();
    pool.add(Attestation { signature: [0; 96], ..word(1, checkpoint(1)) });
    (2..5).for_each(|i| pool.add(word(i, checkpoint(1))));
    state.draft().add(&record(pool.certificate(&state, usize::MAX).unwrap())).unwrap();
    assert_eq!(refused(&metrics, "signature"), 1);
}

#[test]
fn nobody_keeps_a_rollup_from_its_first_certificate() {
    let (pool, state, _) = pool();
    (0..2 * WINDOW).for_each(|number| pool.add(word(1, checkpoint(number))));
    pool.add(word(1, checkpoint(u64::MAX)));
    assert!(pool.certificate(&state, usize::MAX).is_none());
    (2..5).for_each(|i| pool.add(word(i, checkpoint(1))));
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    assert_eq!(numbers(&certificate), [1]);
    state.draft().add(&record(certificate)).unwrap();
}

#[test]
fn who_contradicts_itself_counts_once_and_a_minority_is_outvoted() {
    let (pool, state, metrics) = pool();
    let other = Checkpoint { state_root: B256::ZERO, ..checkpoint(1) };
    pool.add(word(1, other));
    pool.add(word(1, checkpoint(1)));
    assert_eq!(refused(&metrics, "conflict"), 1);
    [2, 3].into_iter().for_each(|i| pool.add(word(i, checkpoint(1))));
    assert!(pool.certificate(&state, usize::MAX).is_none(), "two for one, one for the other");
    pool.add(word(4, checkpoint(1)));
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    assert_eq!(certificate.entries[0].checkpoint, checkpoint(1));
    state.draft().add(&record(certificate)).unwrap();
}

#[test]
fn strangers_and_votes_that_do_not_fit_are_refused() {
    let (pool, state, metrics) = pool();
    pool.add(Attestation::sign(NETWORK, identity(9), checkpoint(1), Vec::new(), &secret(9)).unwrap());
    pool.add(word(1, Checkpoint { rollup: RollupId(2), ..checkpoint(1) }));
    assert_eq!(refused(&metrics, "not_an_operator"), 2);
    let vote = Vote { bundle: B256::ZERO, leg: 0, ballot: switchyard_bridge_core::Ballot::Yes };
    pool.add(Attestation { votes: vec![vote], ..word(1, checkpoint(1)) });
    assert_eq!(refused(&metrics, "votes"), 1);
    assert!(pool.certificate(&state, usize::MAX).is_none());
    assert!(BridgeRecord::is_certificate(&record(Certificate { entries: vec![], signature: [0; 96] })));
}
