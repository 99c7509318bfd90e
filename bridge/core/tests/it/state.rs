//! The bridge's part of the hub's state: who may certify what.

use alloy_primitives::FixedBytes;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    sync::Arc,
};
use switchyard_bridge_core::{
    Accumulator, Attestation, Ballot, BridgeError, BridgeRecord, Certificate, CertifiedCheckpoint, Checkpoint,
    Founding, HubLeaf, Operator, OperatorChange, OperatorKind, SystemError, SystemState, Vote, path, votes_root,
};
use switchyard_consensus_core::{
    EpochRules, HubState,
    keys::{aggregate, bls_public_key, bls_secret_from_entropy, prove_possession},
    record::{Change, Record, RecordError, StakeChange},
    stake::Registration,
};
use switchyard_primitives::{B256, Block, Bytes, Header, RollupId, Segment, SignerBitmap, merkle};

pub(crate) const NETWORK: B256 = B256::repeat_byte(9);
pub(crate) const A: RollupId = RollupId(1);
pub(crate) const B: RollupId = RollupId(2);
pub(crate) const EPOCH: u64 = 4;

pub(crate) fn secret(i: u8) -> [u8; 32] {
    bls_secret_from_entropy(&[i; 32]).unwrap()
}

/// ed25519 keys are not looked at here.
pub(crate) fn identity(i: u8) -> B256 {
    B256::with_last_byte(i)
}

/// What a validator attests with.
pub(crate) fn operator_secret(i: u8) -> [u8; 32] {
    secret(100 + i)
}

pub(crate) fn hub(stakes: &[u64], protocol: u8) -> HubState {
    let rules = EpochRules { blocks: NonZeroU64::new(EPOCH).unwrap(), seats_per_validator: 1 };
    let registered = |(i, stake): (u8, &u64)| {
        let bls = bls_public_key(&secret(i)).unwrap();
        (identity(i), Registration { bls, stake: *stake, address: None, serial: 0 })
    };
    HubState::genesis(NETWORK, rules, (1..).zip(stakes).map(registered)).unwrap().with_protocol(protocol)
}

pub(crate) fn founding(operators: u8) -> Founding {
    let operator = |i| {
        let bls = bls_public_key(&operator_secret(i)).unwrap();
        (identity(i), Operator { bls, rollups: BTreeSet::from([A, B]), serial: 0, gone_at: None })
    };
    Founding { rollups: BTreeMap::from([(A, 71), (B, 72)]), operators: (1..=operators).map(operator).collect() }
}

pub(crate) fn network(stakes: &[u64], protocol: u8) -> Arc<SystemState> {
    let operators = u8::try_from(stakes.len()).unwrap();
    Arc::new(SystemState::new(hub(stakes, protocol), Arc::new(founding(operators))).unwrap())
}

fn block(state: &SystemState, records: Vec<Bytes>) -> Block {
    block_with(state, records, vec![])
}

pub(crate) fn block_with(state: &SystemState, records: Vec<Bytes>, others: Vec<Segment>) -> Block {
    let height = state.next_height();
    let header = state.stamp(Header { height, ..Header::genesis(NETWORK, 0, B256::ZERO) });
    let system = Segment { rollup: RollupId::SYSTEM, transactions: records };
    let system = Some(system).filter(|system| !system.transactions.is_empty());
    Block::new(header, system.into_iter().chain(others).collect())
}

pub(crate) fn follow(state: &Arc<SystemState>, records: Vec<Bytes>) -> Result<Arc<SystemState>, SystemError> {
    state.follow(&block(state, records))
}

pub(crate) fn checkpoint(rollup: RollupId, number: u64, hub_height: u64) -> Checkpoint {
    Checkpoint {
        rollup,
        number,
        hub_height,
        block_hash: B256::with_last_byte(u8::try_from(number).unwrap()),
        state_root: B256::repeat_byte(2),
        outbox_root: B256::repeat_byte(3),
        votes_root: B256::ZERO,
    }
}

/// What these operators sign together; of `of` that attest the rollup.
fn certificate(entries: &[(Checkpoint, Vec<Vote>, &[u8])], of: u32) -> Certificate {
    let mut parts = Vec::new();
    let entry = |(checkpoint, votes, signers): &(Checkpoint, Vec<Vote>, &[u8])| {
        for i in *signers {
            let word =
                Attestation::sign(NETWORK, identity(*i), *checkpoint, votes.clone(), &operator_secret(*i)).unwrap();
            let holds = word.holds(NETWORK, bls_public_key(&operator_secret(*i)).unwrap());
            assert_eq!(holds, votes_root(votes) == checkpoint.votes_root);
            parts.push(word.signature);
        }
        let signers = SignerBitmap::new(of, signers.iter().map(|i| u32::from(*i) - 1));
        CertifiedCheckpoint { checkpoint: *checkpoint, votes: votes.clone(), signers }
    };
    let entries = entries.iter().map(entry).collect();
    Certificate { entries, signature: aggregate(&parts).unwrap_or([0; 96]) }
}

pub(crate) fn certified(entries: &[(Checkpoint, Vec<Vote>, &[u8])], of: u32) -> Bytes {
    BridgeRecord::Certificate(certificate(entries, of)).encode()
}

pub(crate) fn refusal(result: Result<Arc<SystemState>, SystemError>) -> BridgeError {
    match result {
        Err(SystemError::Bridge(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The state after so many empty blocks.
pub(crate) fn after(mut state: Arc<SystemState>, blocks: u64) -> Arc<SystemState> {
    for _ in 0..blocks {
        state = follow(&state, vec![]).unwrap();
    }
    state
}

#[test]
fn a_quorum_certifies_one_block_after_the_other_and_each_is_a_leaf() {
    let state = after(network(&[1, 1, 1, 1], 3), 2);
    let bridge = state.bridge().unwrap();
    assert_eq!(bridge.tree().count(), 2, "a leaf for each rollup");
    let votes = vec![Vote { bundle: B256::repeat_byte(1), leg: 3, ballot: Ballot::Yes }];
    let first = Checkpoint { votes_root: votes_root(&votes), ..checkpoint(A, 1, 1) };
    let (second, other) = (checkpoint(A, 2, 2), checkpoint(B, 7, 1));
    let entries: [(Checkpoint, Vec<Vote>, &[u8]); 3] =
        [(first, votes, &[1, 2, 3]), (second, vec![], &[2, 3, 4]), (other, vec![], &[1, 2, 3, 4])];
    let next = follow(&state, vec![certified(&entries, 4)]).unwrap();

    let bridge = next.bridge().unwrap();
    assert_ne!((next.root(), bridge.root()), (state.root(), state.bridge().unwrap().root()));
    let newest = |rollup: &RollupId| bridge.rollups()[rollup].certified.unwrap();
    assert_eq!((newest(&A).checkpoint, newest(&A).index), (second, 3));
    assert_eq!((newest(&B).checkpoint, newest(&B).index), (other, 4));
    assert_eq!((bridge.next_number(A), bridge.next_number(B)), (Some(Some(3)), Some(Some(8))));
    assert_eq!(bridge.next_number(RollupId(3)), None);
    let leaves: Vec<_> = bridge.added().leaves.clone();
    let expected = [first, second, other].map(HubLeaf::Checkpoint);
    assert_eq!(leaves, (2..).zip(expected).collect::<Vec<_>>());

    // What blocks have added is enough for every path.
    let mut nodes: BTreeMap<_, _> = state_nodes(&network(&[1, 1, 1, 1], 3));
    nodes.extend(bridge.added().nodes.iter().copied());
    let tree = Accumulator::at(5, |id| nodes.get(&id).copied()).unwrap();
    assert_eq!(tree.root(), bridge.tree().root());
    let siblings = path(3, 5, |id| nodes.get(&id).copied()).unwrap();
    let root = merkle::root_from_path(HubLeaf::Checkpoint(second).hash(), 3, 5, &siblings);
    assert_eq!(root, Some(bridge.tree().tree_root()));
    // A block without records adds nothing.
    let idle = follow(&next, vec![]).unwrap();
    assert_eq!(idle.bridge().unwrap().added().leaves, vec![]);
    assert_eq!(idle.root(), next.root());
}

fn state_nodes(state: &SystemState) -> BTreeMap<switchyard_bridge_core::NodeId, B256> {
    state.bridge().unwrap().added().nodes.iter().copied().collect()
}

#[test]
fn exactly_two_thirds_of_the_stake_are_no_quorum_and_a_little_more_is() {
    let state = after(network(&[1, 1, 1], 3), 1);
    let two = follow(&state, vec![certified(&[(checkpoint(A, 1, 1), vec![], &[1, 2])], 3)]);
    assert_eq!(refusal(two), BridgeError::Quorum { rollup: A, found: 2, total: 3 });
    follow(&state, vec![certified(&[(checkpoint(A, 1, 1), vec![], &[1, 2, 3])], 3)]).unwrap();
    let state = after(network(&[201, 100, 1, 0], 3), 1);
    // Without stake one attests nothing: three operators are left.
    let one = follow(&state, vec![certified(&[(checkpoint(A, 1, 1), vec![], &[1])], 3)]);
    assert_eq!(refusal(one), BridgeError::Quorum { rollup: A, found: 201, total: 302 });
    follow(&state, vec![certified(&[(checkpoint(A, 1, 1), vec![], &[1, 3])], 3)]).unwrap();
    let nobody = follow(&state, vec![certified(&[(checkpoint(A, 1, 1), vec![], &[])], 3)]);
    assert_eq!(refusal(nobody), BridgeError::Quorum { rollup: A, found: 0, total: 302 });
}

#[test]
fn what_is_out_of_order_forged_or_of_others_is_refused_by_name() {
    let all: &[u8] = &[1, 2, 3, 4];
    let state = after(network(&[1; 4], 3), 5);
    let state = follow(&state, vec![certified(&[(checkpoint(A, 3, 4), vec![], all)], 4)]).unwrap();
    let refused = |record: Bytes| refusal(follow(&state, vec![record]));
    let one = |checkpoint: Checkpoint| certified(&[(checkpoint, vec![], all)], 4);

    for number in [2, 3, 5] {
        assert_eq!(
            refused(one(checkpoint(A, number, 5))),
            BridgeError::Order { rollup: A, expected: 4, found: number },
            "replayed, or with a gap"
        );
    }
    assert_eq!(refused(one(checkpoint(B, 0, 5))), BridgeError::Order { rollup: B, expected: 1, found: 0 });
    for hub_height in [state.next_height(), 3, u64::MAX] {
        assert_eq!(
            refused(one(checkpoint(A, 4, hub_height))),
            BridgeError::Height { rollup: A, number: 4, hub_height }
        );
    }
    assert_eq!(refused(one(checkpoint(RollupId(7), 1, 5))), BridgeError::Rollup { rollup: RollupId(7) });
    let votes = vec![Vote { bundle: B256::ZERO, leg: 0, ballot: Ballot::No }];
    let unlike = certified(&[(checkpoint(A, 4, 5), votes, all)], 4);
    assert_eq!(refused(unlike), BridgeError::Votes { rollup: A, number: 4 });
    let of_five = certified(&[(checkpoint(A, 4, 5), vec![], all)], 5);
    assert_eq!(refused(of_five), BridgeError::Operators { rollup: A, expected: 4, found: 5 });
    let empty = Certificate { entries: vec![], signature: [0; 96] };
    assert_eq!(refused(BridgeRecord::Certificate(empty).encode()), BridgeError::Empty);

    let right = certificate(&[(checkpoint(A, 4, 5), vec![], all), (checkpoint(B, 1, 5), vec![], all)], 4);
    let mut exchanged = right.clone();
    exchanged.entries[0].checkpoint.state_root = B256::ZERO;
    assert_eq!(refused(BridgeRecord::Certificate(exchanged).encode()), BridgeError::Signature);
    let mut fewer = right.clone();
    fewer.entries[1].signers = SignerBitmap::new(4, [0, 1, 2]);
    assert_eq!(refused(BridgeRecord::Certificate(fewer).encode()), BridgeError::Signature);
    for signature in [[0; 96], certificate(&[(checkpoint(A, 4, 5), vec![], all)], 4).signature] {
        let forged = Certificate { signature, ..right.clone() };
        assert_eq!(refused(BridgeRecord::Certificate(forged).encode()), BridgeError::Signature);
    }
    let second = certified(&[(checkpoint(A, 5, 5), vec![], all)], 4);
    let twice = follow(&state, vec![BridgeRecord::Certificate(right.clone()).encode(), second]);
    assert_eq!(refusal(twice), BridgeError::SecondCertificate);
    follow(&state, vec![BridgeRecord::Certificate(right).encode()]).unwrap();
}

#[test]
fn a_draft_takes_what_the_block_may_hold_and_forgets_what_it_refuses() {
    let all: &[u8] = &[1, 2, 3, 4];
    let state = after(network(&[1; 4], 3), 2);
    let good = certified(&[(checkpoint(A, 1, 1), vec![], all)], 4);
    let mut draft = state.draft();
    assert!(draft.add(&certified(&[(checkpoint(A, 1, 1), vec![], &[1])], 4)).is_err());
    draft.add(&good).unwrap();
    let leave = |i: u8| change(i, 0, OperatorKind::Leave);
    let candidates = vec![leave(1), Bytes::from_static(b"none"), good.clone(), leave(1), leave(2)];
    let admitted = draft.admissible(candidates);
    assert_eq!(admitted, [leave(1), leave(2)]);
    let records = [vec![good.clone()], admitted].concat();
    follow(&state, records.clone()).unwrap();
    // The other way round there are two operators left, of whom the certificate does not speak.
    let reversed = records.into_iter().rev().collect();
    assert_eq!(refusal(follow(&state, reversed)), BridgeError::Operators { rollup: A, expected: 2, found: 4 });
}

pub(crate) fn change(i: u8, serial: u64, kind: OperatorKind) -> Bytes {
    BridgeRecord::Operator(OperatorChange::sign(NETWORK, identity(i), serial, kind, &secret(i)).unwrap()).encode()
}

fn register(i: u8, key: u8) -> OperatorKind {
    let possession = prove_possession(&secret(key), identity(i)).unwrap();
    OperatorKind::Register { bls: bls_public_key(&secret(key)).unwrap(), possession }
}

#[test]
fn an_operator_registers_serves_leaves_and_is_forgotten_two_epochs_later() {
    let state = SystemState::new(hub(&[1, 1, 1], 3), Arc::new(founding(1))).unwrap();
    let state = Arc::new(state);
    let refused = |state: &Arc<SystemState>, record: Bytes| refusal(follow(state, vec![record]));
    let not_mine = OperatorKind::Register {
        bls: bls_public_key(&secret(50)).unwrap(),
        possession: prove_possession(&secret(51), identity(2)).unwrap(),
    };
    assert!(matches!(refused(&state, change(2, 0, not_mine)), BridgeError::Key(_)));
    let of_another = register(3, 50);
    assert!(matches!(refused(&state, change(2, 0, of_another)), BridgeError::Key(_)));
    assert_eq!(refused(&state, change(2, 1, register(2, 50))), BridgeError::Serial { expected: 0, found: 1 });
    assert_eq!(refused(&state, change(9, 0, register(9, 50))), BridgeError::NotStaked { identity: identity(9) });
    assert_eq!(refused(&state, change(1, 0, register(1, 50))), BridgeError::Known { identity: identity(1) });
    assert_eq!(refused(&state, change(2, 0, register(2, 101))), BridgeError::KeyTaken);
    let serve = |rollups: &[RollupId]| OperatorKind::Serve(rollups.to_vec());
    assert_eq!(refused(&state, change(2, 0, serve(&[A]))), BridgeError::Unknown { identity: identity(2) });
    let forged = OperatorChange::sign(NETWORK, identity(2), 0, register(2, 50), &secret(3)).unwrap();
    assert_eq!(refused(&state, BridgeRecord::Operator(forged).encode()), BridgeError::Signature);
    let elsewhere = OperatorChange::sign(B256::ZERO, identity(2), 0, register(2, 50), &secret(2)).unwrap();
    assert_eq!(refused(&state, BridgeRecord::Operator(elsewhere).encode()), BridgeError::Signature);

    // Height 1: two records of one operator, in their order.
    let state = follow(&state, vec![change(2, 0, register(2, 50)), change(2, 1, serve(&[A]))]).unwrap();
    assert_eq!(refused(&state, change(2, 1, serve(&[B]))), BridgeError::Serial { expected: 2, found: 1 });
    let nowhere = change(2, 2, serve(&[RollupId(8)]));
    assert_eq!(refused(&state, nowhere), BridgeError::Rollup { rollup: RollupId(8) });
    let attesters = |state: &SystemState, rollup| {
        let attesters = state.bridge().unwrap().attesters(state, rollup);
        attesters.into_iter().map(|(identity, _, stake)| (identity, stake)).collect::<Vec<_>>()
    };
    assert_eq!(attesters(&state, A), [(identity(1), 1), (identity(2), 1)]);
    assert_eq!(attesters(&state, B), [(identity(1), 1)]);

    // Height 2, epoch 0: forgotten with the last block of epoch 2.
    let state = follow(&state, vec![change(2, 2, OperatorKind::Leave)]).unwrap();
    assert_eq!(attesters(&state, A), [(identity(1), 1)]);
    let gone_at = 3 * EPOCH - 1;
    assert_eq!(refused(&state, change(2, 3, serve(&[A]))), BridgeError::Leaving { identity: identity(2), gone_at });
    let state = after(state, gone_at - 3);
    assert_eq!(state.next_height(), gone_at);
    assert_eq!(refused(&state, change(2, 0, register(2, 50))), BridgeError::Known { identity: identity(2) });
    let before = state.root();
    let state = after(state, 1);
    assert_ne!(state.root(), before, "the last block of an epoch, and an operator is gone");
    // Nothing of what it said before counts again, whoever brings it.
    let first = |epoch| Operator::first_serial(epoch);
    let replayed = BridgeError::Serial { expected: first(2), found: 0 };
    assert_eq!(refused(&state, change(2, 0, register(2, 50))), replayed);
    let too_early = BridgeError::Serial { expected: first(3), found: first(4) };
    assert_eq!(refused(&state, change(2, first(4), register(2, 60))), too_early);
    let state = follow(&state, vec![change(2, first(3), register(2, 60))]).unwrap();
    assert_eq!(attesters(&state, A), [(identity(1), 1)], "it serves nothing yet");
    let old = BridgeError::Serial { expected: first(3) + 1, found: 1 };
    assert_eq!(refused(&state, change(2, 1, serve(&[A]))), old);
    follow(&state, vec![change(2, first(3) + 1, serve(&[A]))]).unwrap();
}

#[test]
fn an_operator_that_the_stake_table_has_lost_leaves() {
    let state = network(&[1; 4], 3);
    let changes = vec![(identity(4), Change::Remove)];
    let part = |i| (identity(i), StakeChange::sign_part(NETWORK, 0, 0, &changes, &secret(i)).unwrap());
    let parts: Vec<_> = (1..=3).map(part).collect();
    let removed = StakeChange::combine(NETWORK, state.current(), 0, changes.clone(), &parts).unwrap();
    let removed = Record::Stake(removed).encode();
    let state = follow(&state, vec![removed]).unwrap();
    assert_eq!(state.bridge().unwrap().operators()[&identity(4)].gone_at, Some(3 * EPOCH - 1));
    let state = after(state, 3 * EPOCH);
    assert!(!state.bridge().unwrap().operators().contains_key(&identity(4)));
}

#[test]
fn a_record_that_may_come_later_is_signed_nevertheless() {
    let state = network(&[1; 4], 3);
    let forged = OperatorChange::sign(NETWORK, identity(2), 1, OperatorKind::Leave, &secret(3)).unwrap();
    let refusal = state.draft().add(&BridgeRecord::Operator(forged).encode()).unwrap_err();
    assert_eq!(refusal, SystemError::Bridge(BridgeError::Signature));
    let early = state.draft().add(&change(2, 1, OperatorKind::Leave)).unwrap_err();
    assert!(early.may_pass());
}

#[test]
fn below_protocol_3_there_is_no_bridge_and_nothing_of_it_in_the_state() {
    let old = network(&[1; 4], 2);
    assert!(old.bridge().is_none());
    assert_eq!((old.root(), old.encode()), (old.hub().root(), old.hub().encode()));
    let record = change(1, 0, OperatorKind::Leave);
    assert_eq!(refusal(follow(&old, vec![record])), BridgeError::Protocol { protocol: 2 });
}

#[test]
fn a_block_that_commits_to_another_state_is_refused() {
    let state = network(&[1; 4], 3);
    let mut wrong = block(&state, vec![]);
    wrong.header.system_root = state.hub().root();
    let found = state.follow(&Block::new(wrong.header, vec![]));
    assert_eq!(found, Err(SystemError::Hub(RecordError::Header { height: 1 })));
}

#[test]
fn seventeen_records_are_too_many_and_a_certificate_is_not_one_of_them() {
    let all: &[u8] = &[1, 2, 3, 4];
    let state = after(network(&[1; 4], 3), 1);
    let records = |count: u64| (0..count).map(|serial| change(1, serial, OperatorKind::Serve(vec![A, B])));
    let certificate = certified(&[(checkpoint(A, 1, 1), vec![], all)], 4);
    let with = |count| [certificate.clone()].into_iter().chain(records(count)).collect();
    follow(&state, with(16)).unwrap();
    assert_eq!(follow(&state, with(17)), Err(SystemError::Hub(RecordError::TooMany { found: 17 })));
    assert_eq!(state.draft().admissible(records(20)).len(), 16);
}

#[test]
fn the_state_is_read_as_it_was_written() {
    let all: &[u8] = &[1, 2, 3, 4];
    let state = after(network(&[1, 2, 3, 4], 3), 2);
    let entries: [(Checkpoint, Vec<Vote>, &[u8]); 1] = [(checkpoint(A, 1, 1), vec![], all)];
    let records =
        vec![certified(&entries, 4), change(3, 0, OperatorKind::Leave), change(2, 0, OperatorKind::Serve(vec![]))];
    let state = follow(&state, records).unwrap();
    let read = SystemState::decode(NETWORK, Arc::new(founding(4)), &state.encode()).unwrap();
    assert_eq!(read.root(), state.root());
    assert_eq!(read.encode(), state.encode());
    assert_eq!(read.bridge().unwrap().operators(), state.bridge().unwrap().operators());
    let bytes = state.encode();
    for cut in 0..bytes.len() {
        assert!(SystemState::decode(NETWORK, Arc::default(), &bytes[..cut]).is_err(), "{cut}");
    }
}

proptest! {
    #[test]
    fn records_survive_their_encoding(
        signature: [u8; 32],
        kind in 0u8..4,
        serial: u64,
        rollups in proptest::collection::btree_set(any::<u64>(), 0..10),
        votes in proptest::collection::vec((any::<[u8; 32]>(), any::<u8>(), 0u8..3), 0..10),
        numbers in proptest::collection::vec(any::<u64>(), 0..5),
        seats in 1u32..100,
    ) {
        let signature = [signature, signature, signature].concat().try_into().unwrap();
        let ballot = |kind| [Ballot::No, Ballot::Yes, Ballot::Stray][usize::from(kind)];
        let votes: Vec<_> =
            votes.into_iter().map(|(bundle, leg, b)| Vote { bundle: bundle.into(), leg, ballot: ballot(b) }).collect();
        let operator = |kind| BridgeRecord::Operator(OperatorChange { identity: identity(1), serial, kind, signature });
        let entry = |number| CertifiedCheckpoint {
            checkpoint: Checkpoint { number, ..checkpoint(A, 1, serial) },
            votes: votes.clone(),
            signers: SignerBitmap::new(seats, [seats - 1]),
        };
        let record = match kind {
            0 => operator(OperatorKind::Register { bls: FixedBytes([3; 48]), possession: FixedBytes([4; 96]) }),
            1 => operator(OperatorKind::Serve(rollups.into_iter().map(RollupId).collect())),
            2 => operator(OperatorKind::Leave),
            _ => BridgeRecord::Certificate(Certificate { entries: numbers.into_iter().map(entry).collect(), signature }),
        };
        let bytes = record.encode();
        prop_assert!(BridgeRecord::is_one(&bytes));
        prop_assert_eq!(BridgeRecord::is_certificate(&bytes), kind == 3);
        prop_assert_eq!(BridgeRecord::decode(&bytes), Ok(record));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 15u8..19) {
        let _ = BridgeRecord::decode(&bytes);
        let _ = BridgeRecord::decode(&[&[1, kind], bytes.as_slice()].concat());
        let _ = SystemState::decode(NETWORK, Arc::default(), &bytes);
        let _ = HubLeaf::decode(&bytes);
    }
}
