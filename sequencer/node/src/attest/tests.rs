mod chain;
mod network;

use super::*;
use crate::hub::HubStates;
use std::{collections::BTreeSet, num::NonZeroU64};
use switchyard_bridge_core::{
    BridgeError, BridgeRecord, Certificate, Checkpoint, Founding, Operator as Founder, SystemError, SystemState, Vote,
};
use switchyard_consensus_core::{
    EpochRules, HubState,
    keys::{bls_public_key, bls_secret_from_entropy},
    stake::Registration,
};
use switchyard_primitives::{Header, RollupId};
use switchyard_store::MemoryStore;

const NETWORK: B256 = B256::repeat_byte(9);
const A: RollupId = RollupId(1);

fn secret(i: u8) -> [u8; 32] {
    bls_secret_from_entropy(&[i; 32]).unwrap()
}

fn identity(i: u8) -> B256 {
    B256::with_last_byte(i)
}

/// Four operators with a stake of one each.
fn hub() -> HubStates {
    let rules = EpochRules { blocks: NonZeroU64::MAX, seats_per_validator: 1 };
    let registered = |i: u8| {
        let bls = bls_public_key(&secret(i)).unwrap();
        (identity(i), Registration { bls, stake: 1, address: None, serial: 0 })
    };
    let hub = HubState::genesis(NETWORK, rules, (1..5).map(registered)).unwrap().with_protocol(3);
    let founder = |i: u8| {
        let bls = bls_public_key(&secret(100 + i)).unwrap();
        (identity(i), Founder { bls, rollups: BTreeSet::from([A]), serial: 0, gone_at: None })
    };
    let founding = Founding { rollups: BTreeMap::from([(A, 71)]), operators: (1..5).map(founder).collect() };
    let state = SystemState::new(hub, Arc::new(founding)).unwrap();
    let store = Arc::new(MemoryStore::new(Header::genesis(NETWORK, 0, B256::ZERO)));
    HubStates::open(store, NETWORK, state).unwrap()
}

fn pool() -> (Pool, Arc<SystemState>, Arc<Metrics>) {
    let (hub, metrics) = (hub(), Arc::new(Metrics::default()));
    let state = hub.tip();
    (Pool::new(hub, metrics.clone()), state, metrics)
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
    let (pool, state, _) = pool();
    for number in [1, 2, 3, 5] {
        (1..5).for_each(|i| pool.add(word(i, checkpoint(number))));
    }
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    assert_eq!(numbers(&certificate), [1, 2, 3]);
    state.draft().add(&record(certificate)).unwrap();
    assert_eq!(numbers(&pool.certificate(&state, 128 + 2 * 170).unwrap()), [1, 2]);
    assert!(record(pool.certificate(&state, 128 + 2 * 170).unwrap()).len() <= 128 + 2 * 170);
    // A block that holds more than a transaction may would be refused.
    assert!(pool.certificate(&state, 128).is_none());
}

#[test]
fn a_signature_that_is_none_is_found_and_its_operator_can_speak_again() {
    let (pool, state, metrics) = pool();
    let forged = Attestation { signature: word(1, checkpoint(2)).signature, ..word(1, checkpoint(1)) };
    pool.add(forged);
    [2, 3].into_iter().for_each(|i| pool.add(word(i, checkpoint(1))));
    let certificate = pool.certificate(&state, usize::MAX).unwrap();
    let refusal = state.draft().add(&record(certificate.clone()));
    assert_eq!(refusal, Err(SystemError::Bridge(BridgeError::Signature)));
    pool.sift(&state, &certificate);
    assert_eq!(refused(&metrics, "signature"), 1);
    assert!(pool.certificate(&state, usize::MAX).is_none(), "two are left");
    pool.add(word(1, checkpoint(1)));
    state.draft().add(&record(pool.certificate(&state, usize::MAX).unwrap())).unwrap();
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
fn strangers_votes_that_do_not_fit_and_floods_are_refused() {
    let (pool, state, metrics) = pool();
    pool.add(Attestation::sign(NETWORK, identity(9), checkpoint(1), Vec::new(), &secret(9)).unwrap());
    pool.add(word(1, Checkpoint { rollup: RollupId(2), ..checkpoint(1) }));
    assert_eq!(refused(&metrics, "not_an_operator"), 2);
    let vote = Vote { bundle: B256::ZERO, leg: 0, ballot: switchyard_bridge_core::Ballot::Yes };
    pool.add(Attestation { votes: vec![vote], ..word(1, checkpoint(1)) });
    assert_eq!(refused(&metrics, "votes"), 1);
    // Before the first certificate any number may come, but not all of them.
    (1..2 * WINDOW).for_each(|number| pool.add(word(1, checkpoint(number))));
    assert_eq!(refused(&metrics, "full"), WINDOW - 1);
    assert!(pool.certificate(&state, usize::MAX).is_none());
    assert!(BridgeRecord::is_certificate(&record(Certificate { entries: vec![], signature: [0; 96] })));
}
