//! `docs/specs/vectors/bundles.json`: legs, bundles, votes; what is submitted, and the record of it.

use crate::{check, hash};
use serde_json::{Value, json};
use switchyard_bridge_core::{
    Ballot, BridgeRecord, Bundle, Call, Leg, Move, MoveKind, SignedBundle, SignedLeg, Vote, votes_root,
};
use switchyard_primitives::{B256, Bytes, Reader, RollupId, Writer};

use alloy_primitives::{Address, U256};

fn legs() -> [Leg; 3] {
    let account = Address::repeat_byte;
    let coin = Move {
        kind: MoveKind::Coin,
        token: Address::ZERO,
        amount: U256::from(1_000_000_000_000_000_000u64),
        to: account(0xb0),
        refund: account(0xa1),
    };
    let token = Move {
        kind: MoveKind::Erc20,
        token: account(0x20),
        amount: U256::MAX,
        to: account(0xb1),
        refund: account(0xa2),
    };
    let art = Move { kind: MoveKind::Erc721, token: account(0x72), amount: U256::from(7), ..token };
    let swap = Call { participant: account(0xc1), gas_limit: 300_000, data: Bytes::from_static(b"swap") };
    let silent = Call { participant: account(0xc2), gas_limit: u64::MAX, data: Bytes::new() };
    [
        Leg { rollup: RollupId(1), signer: account(0xa1), moves: vec![coin], calls: vec![] },
        Leg { rollup: RollupId(u64::MAX), signer: account(0xa2), moves: vec![token, art], calls: vec![swap] },
        Leg { rollup: RollupId(1), signer: account(0xa3), moves: vec![], calls: vec![silent] },
    ]
}

fn move_json(m: &Move) -> Value {
    let kind: u8 = match m.kind {
        MoveKind::Coin => 0,
        MoveKind::Erc20 => 1,
        MoveKind::Erc721 => 2,
    };
    json!({
        "kind": kind, "token": m.token, "amount": m.amount.to_string(), "to": m.to, "refund": m.refund, "hash": m.hash(),
    })
}

fn call_json(c: &Call) -> Value {
    json!({
        "participant": c.participant, "gas_limit": c.gas_limit.to_string(), "data": c.data, "hash": c.hash(),
    })
}

fn leg_json(leg: &Leg) -> Value {
    json!({
        "rollup": leg.rollup.0.to_string(),
        "signer": leg.signer,
        "moves": leg.moves.iter().map(move_json).collect::<Vec<_>>(),
        "calls": leg.calls.iter().map(call_json).collect::<Vec<_>>(),
        "terms": leg.terms(),
        "hash": leg.hash(),
    })
}

fn bundle_json(bundle: &Bundle) -> Value {
    json!({ "deadline": bundle.deadline.to_string(), "salt": bundle.salt, "legs": bundle.legs, "id": bundle.id() })
}

fn votes_json(votes: &[Vote]) -> Value {
    let vote = |v: &Vote| {
        let ballot: u8 = match v.ballot {
            Ballot::No => 0,
            Ballot::Yes => 1,
            Ballot::Stray => 2,
        };
        json!({ "bundle": v.bundle, "leg": v.leg, "ballot": ballot, "hash": v.hash() })
    };
    json!({ "votes": votes.iter().map(vote).collect::<Vec<_>>(), "root": votes_root(votes) })
}

fn signed_json(bundle: &SignedBundle) -> Value {
    let mut w = Writer::default();
    bundle.write(&mut w);
    let bytes = w.into_bytes();
    assert_eq!(SignedBundle::read(&mut Reader::new(bytes.clone())).as_ref(), Ok(bundle));
    let record = BridgeRecord::Bundle(bundle.record());
    let encoded = record.encode();
    assert_eq!(BridgeRecord::decode(&encoded), Ok(record));
    let leg = |leg: &SignedLeg| json!({ "rollup": leg.rollup.0.to_string(), "terms": leg.terms, "transaction": text(&leg.transaction) });
    json!({
        "deadline": bundle.deadline.to_string(),
        "salt": bundle.salt,
        "legs": bundle.legs.iter().map(leg).collect::<Vec<_>>(),
        "submitted": text(&bytes),
        "record": text(&encoded),
        "id": bundle.record().id(),
    })
}

fn text(bytes: &Bytes) -> String {
    alloy_primitives::hex::encode_prefixed(bytes)
}

#[test]
fn a_leg_said_to_be_on_another_rollup_makes_another_bundle() {
    let leg = |leg: &Leg| SignedLeg { rollup: leg.rollup, terms: leg.terms(), transaction: Bytes::new() };
    let signed = SignedBundle { deadline: 9, salt: hash(1), legs: legs()[..2].iter().map(leg).collect() };
    assert_eq!(
        signed.id(),
        Bundle { deadline: 9, salt: hash(1), legs: legs()[..2].iter().map(Leg::hash).collect() }.id()
    );
    let mut moved = signed.clone();
    moved.legs[1].rollup = RollupId(2);
    assert_ne!(moved.id(), signed.id());
    assert_ne!(moved.record().id(), signed.record().id());
    assert_eq!(moved.record().legs[1].terms, signed.record().legs[1].terms);
}

#[test]
fn the_published_bundles_are_what_this_crate_makes() {
    let about = "Test vectors of docs/specs/bundles.md. Bytes are hex; numbers that may need more than 32 bits are \
                 decimal strings.";
    let legs = legs();
    let hashes: Vec<B256> = legs.iter().map(Leg::hash).collect();
    let two = Bundle { deadline: 1234, salt: hash(0x5a), legs: hashes[..2].to_vec() };
    let most = Bundle { deadline: u64::MAX, salt: B256::ZERO, legs: (1..=16).map(hash).collect() };
    let bundles = [&two, &Bundle { legs: hashes, ..two.clone() }, &most].map(bundle_json);
    let vote = |leg, ballot| Vote { bundle: two.id(), leg, ballot };
    let votes = [vote(0, Ballot::Yes), vote(1, Ballot::No), Vote { bundle: most.id(), leg: 15, ballot: Ballot::Stray }];
    let votes = [&votes[..0], &votes[..1], &votes].map(votes_json);
    let transactions = [Bytes::from_static(b"\x02first"), Bytes::from_static(b"\x02the second one")];
    let signed = legs[..2].iter().zip(transactions).map(|(leg, transaction)| SignedLeg {
        rollup: leg.rollup,
        terms: leg.terms(),
        transaction,
    });
    let signed = SignedBundle { deadline: two.deadline, salt: two.salt, legs: signed.collect() };
    assert_eq!((signed.id(), signed.record().id()), (two.id(), two.id()));
    check(
        "bundles.json",
        &json!({
            "about": about, "legs": legs.each_ref().map(leg_json), "bundles": bundles, "votes": votes,
            "signed": [signed_json(&signed)],
        }),
    );
}
