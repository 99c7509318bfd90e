//! Coin that the log gives to rollups' accounts: who can, and that none is given twice.

use crate::state::{A, B, EPOCH, NETWORK, follow, identity, network, refusal, secret};
use alloy_primitives::Address;
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;
use switchyard_bridge_core::{BridgeError, BridgeRecord, Deposit, Deposits, SystemError, SystemState, deposits_of};
use switchyard_consensus_core::record::RecordError;
use switchyard_primitives::{Bytes, DecodeError, RollupId, SignerBitmap};

fn deposit(byte: u8, gwei: u64) -> Deposit {
    Deposit { recipient: Address::repeat_byte(byte), gwei }
}

/// What these validators sign together.
fn signed(state: &SystemState, (rollup, first): (RollupId, u64), deposits: &[Deposit], by: &[u8]) -> Deposits {
    let committee = state.current();
    let epoch = committee.epoch();
    let part =
        |i: &u8| (identity(*i), Deposits::sign_part(NETWORK, (rollup, epoch, first), deposits, &secret(*i)).unwrap());
    let parts: Vec<_> = by.iter().map(part).collect();
    Deposits::combine(NETWORK, committee, (rollup, first), deposits.to_vec(), &parts).unwrap()
}

fn record(deposits: Deposits) -> Bytes {
    BridgeRecord::Deposits(deposits).encode()
}

fn made(state: &SystemState, rollup: RollupId) -> u64 {
    state.bridge().unwrap().rollups()[&rollup].deposits
}

fn hub_refusal(result: Result<Arc<SystemState>, SystemError>) -> RecordError {
    match result {
        Err(SystemError::Hub(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_quorum_of_seats_gives_coin_and_each_deposit_has_one_number() {
    let state = network(&[1; 4], 3);
    let two = [deposit(1, 5), deposit(2, u64::MAX)];
    let first = record(signed(&state, (A, 0), &two, &[1, 2, 4]));
    let other = record(signed(&state, (B, 0), &two[..1], &[1, 2, 3, 4]));
    let second = record(signed(&state, (A, 2), &two[1..], &[2, 3, 4]));
    let records = vec![first.clone(), other, second.clone()];
    let after = follow(&state, records.clone()).unwrap();
    assert_eq!((made(&after, A), made(&after, B)), (3, 1));
    assert_eq!(deposits_of(&records, A), vec![(0, two[0]), (1, two[1]), (2, two[1])]);
    assert_eq!(deposits_of(&records, B), vec![(0, two[0])]);
    assert_ne!(after.root(), follow(&state, vec![]).unwrap().root());
    let decoded = SystemState::decode(NETWORK, after.founding().clone(), &after.encode()).unwrap();
    assert_eq!((decoded.root(), made(&decoded, A)), (after.root(), 3));

    // Again, and out of turn.
    assert_eq!(refusal(follow(&after, vec![first])), BridgeError::Serial { expected: 3, found: 0 });
    let early = refusal(follow(&state, vec![second]));
    assert_eq!(early, BridgeError::Serial { expected: 0, found: 2 });
    assert!(early.may_pass());
}

#[test]
fn neither_too_few_nor_others_nor_a_changed_word_give_coin() {
    let state = network(&[1; 4], 3);
    let good = signed(&state, (A, 0), &[deposit(1, 5)], &[1, 2, 3]);
    follow(&state, vec![record(good.clone())]).unwrap();
    let refused = |changed: Deposits| hub_refusal(follow(&state, vec![record(changed)]));

    let few = SignerBitmap::new(4, [0, 1]);
    let quorum = RecordError::Quorum { quorum: 3, found: 2 };
    assert_eq!(refused(Deposits { signers: few, ..good.clone() }), quorum);
    let others = SignerBitmap::new(4, [0, 1, 3]);
    assert_eq!(refused(Deposits { signers: others, ..good.clone() }), RecordError::Signature);
    assert_eq!(refused(Deposits { rollup: B, ..good.clone() }), RecordError::Signature);
    assert_eq!(refused(Deposits { deposits: vec![deposit(1, 6)], ..good.clone() }), RecordError::Signature);
    assert_eq!(refused(Deposits { deposits: vec![deposit(2, 5)], ..good.clone() }), RecordError::Signature);
    let more = vec![deposit(1, 5), deposit(1, 5)];
    assert_eq!(refused(Deposits { deposits: more, ..good.clone() }), RecordError::Signature);
    assert_eq!(refused(Deposits { epoch: 1, ..good.clone() }), RecordError::Epoch { current: 0, found: 1 });
    let unknown = RollupId(9);
    let nowhere = Deposits { rollup: unknown, ..good.clone() };
    assert_eq!(refusal(follow(&state, vec![record(nowhere)])), BridgeError::Rollup { rollup: unknown });
    let old = network(&[1; 4], 2);
    assert_eq!(refusal(follow(&old, vec![record(good)])), BridgeError::Protocol { protocol: 2 });
}

#[test]
fn what_an_epoch_has_signed_holds_until_the_next_one_ends() {
    let mut state = network(&[1; 4], 3);
    let signed = record(signed(&state, (A, 0), &[deposit(1, 5)], &[1, 2, 3]));
    while state.next_height() < 2 * EPOCH {
        state = follow(&state, vec![]).unwrap();
        let is_held = follow(&state, vec![signed.clone()]).is_ok();
        assert_eq!(is_held, state.next_height() < 2 * EPOCH, "height {}", state.next_height());
    }
}

#[test]
fn a_record_of_nothing_or_of_too_much_is_none() {
    let state = network(&[1; 4], 3);
    let good = signed(&state, (A, 0), &[deposit(1, 5)], &[1, 2, 3]);
    for deposits in [vec![], vec![deposit(1, 0)], vec![deposit(1, 1); Deposits::MAX + 1]] {
        let bytes = record(Deposits { deposits, ..good.clone() });
        let refused = refusal(follow(&state, vec![bytes]));
        assert!(
            matches!(refused, BridgeError::Malformed(DecodeError::Invalid { .. } | DecodeError::TooLarge { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn the_published_vectors_of_deposits_are_what_this_crate_makes() {
    let state = network(&[1; 4], 3);
    let deposits = [deposit(0x11, 1), deposit(0x22, u64::MAX)];
    let record = signed(&state, (A, 0), &deposits, &[1, 2, 4]);
    let expected = json!({
        "network": NETWORK,
        "rollup": A.0,
        "epoch": 0,
        "first": 0,
        "deposits": deposits.map(|Deposit { recipient, gwei }| json!({ "recipient": recipient, "gwei": gwei.to_string() })),
        "message": Bytes::from(Deposits::message(NETWORK, A, 0, 0, &deposits)),
        "bls": state.current().members().iter().map(|m| m.seat.bls).collect::<Vec<_>>(),
        "record": BridgeRecord::Deposits(record).encode(),
    });
    crate::check("deposits.json", &expected);
}

proptest! {
    #[test]
    fn deposits_survive_their_encoding(
        numbers in proptest::array::uniform3(any::<u64>()),
        given in proptest::collection::vec((any::<[u8; 20]>(), 1..=u64::MAX), 1..=Deposits::MAX),
        seats in 1u32..100,
        part: [u8; 32],
    ) {
        let [rollup, epoch, first] = numbers;
        let deposits = given.into_iter().map(|(to, gwei)| Deposit { recipient: Address::new(to), gwei }).collect();
        let signature = [part, part, part].concat().try_into().unwrap();
        let signers = SignerBitmap::new(seats, [seats - 1]);
        let record = BridgeRecord::Deposits(Deposits { rollup: RollupId(rollup), epoch, first, deposits, signers, signature });
        let bytes = record.encode();
        prop_assert!(BridgeRecord::is_deposits(&bytes) && !BridgeRecord::is_proposers(&bytes));
        prop_assert_eq!(BridgeRecord::decode(&bytes), Ok(record));
        for cut in 0..bytes.len() {
            prop_assert!(BridgeRecord::decode(&bytes[..cut]).is_err());
        }
    }
}
