//! `docs/specs/vectors/messages.json`: accumulators, messages, the hub's leaves.

use crate::{check, hash};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use switchyard_bridge_core::{Accumulator, Checkpoint, HubLeaf, Message, MessageKind, NodeId, path, predeploys};
use switchyard_primitives::{B256, Bytes, RollupId, keccak256, merkle};

const LEAVES: u8 = 21;

/// An accumulator's roots after each append, its edge at the end, and paths of several leaves at several times.
fn accumulator() -> Value {
    let leaves: Vec<B256> = (1..=LEAVES).map(hash).collect();
    let (mut tree, mut nodes) = (Accumulator::default(), BTreeMap::<NodeId, B256>::new());
    let mut roots = vec![tree.root()];
    for leaf in &leaves {
        tree.append(*leaf, |id, hash| assert!(nodes.insert(id, hash).is_none())).unwrap();
        roots.push(tree.root());
    }
    let slots: Vec<Value> = (0..5u8)
        .filter(|level| LEAVES >> level & 1 == 1)
        .map(|level| {
            let id = NodeId { level, position: u64::from(LEAVES >> level) - 1 };
            json!({ "slot": 1 + level, "value": nodes[&id] })
        })
        .collect();
    let proofs = [(0, 1), (0, 2), (1, 3), (2, 3), (4, 7), (6, 7), (7, 8), (3, 21), (16, 21), (20, 21)];
    let proofs = proofs.map(|(index, count)| {
        let path = path(index, count, |id| nodes.get(&id).copied()).unwrap();
        let root = merkle::root_from_path(leaves[index as usize], index, count, &path);
        assert_eq!(root, Some(merkle::root(leaves[..count as usize].iter().copied())));
        json!({ "index": index, "count": count, "path": path, "root": roots[count as usize] })
    });
    json!({ "leaves": leaves, "roots": roots, "slots": slots, "proofs": proofs })
}

fn messages() -> [(&'static str, Message, &'static [u8]); 4] {
    let account = |byte| B256::left_padding_from(&[byte; 20]);
    let inbox = predeploys::INBOX.into_word();
    let call = Message {
        kind: MessageKind::Call,
        source: RollupId(1),
        source_chain: 7001,
        destination: RollupId(0x0102_0304_0506_0708),
        destination_chain: 7002,
        index: 9,
        previous: 0,
        deadline: 1_700_600_000,
        gas_limit: 200_000,
        sender: account(0xaa),
        recipient: account(0xbb),
        refund: account(0xcc),
        value: 0,
        received: 0,
        payload_hash: B256::ZERO,
    };
    let transfer = Message {
        kind: MessageKind::Transfer,
        value: 1_000_000_000_000_000_000,
        received: 250_000_000_000_000_000,
        ..call
    };
    let notice = Message {
        kind: MessageKind::Notice,
        deadline: u64::MAX,
        gas_limit: 0,
        sender: inbox,
        recipient: inbox,
        refund: inbox,
        ..call
    };
    let greatest = Message {
        kind: MessageKind::Call,
        source: RollupId(u64::MAX),
        source_chain: u64::MAX,
        destination: RollupId(u64::MAX),
        destination_chain: u64::MAX,
        index: u64::MAX,
        previous: u64::MAX,
        deadline: u64::MAX,
        gas_limit: u64::MAX,
        sender: hash(0xff),
        recipient: hash(0xff),
        refund: hash(0xff),
        value: u128::MAX,
        received: u128::MAX,
        payload_hash: B256::ZERO,
    };
    [
        ("ordered call", Message { previous: 5, ..call }, b"hello"),
        ("transfer", transfer, b""),
        ("notice", notice, &[0x77; 32]),
        ("greatest numbers", greatest, b"x"),
    ]
}

fn message_json((name, message, payload): (&str, Message, &[u8])) -> Value {
    let m = Message { payload_hash: keccak256(payload), ..message };
    let kind: u8 = match m.kind {
        MessageKind::Call => 0,
        MessageKind::Transfer => 1,
        MessageKind::Notice => 2,
    };
    assert_eq!(m.encode().len(), Message::LEN);
    json!({
        "name": name,
        "kind": kind,
        "source": m.source.0.to_string(),
        "source_chain": m.source_chain.to_string(),
        "destination": m.destination.0.to_string(),
        "destination_chain": m.destination_chain.to_string(),
        "index": m.index.to_string(),
        "previous": m.previous.to_string(),
        "deadline": m.deadline.to_string(),
        "gas_limit": m.gas_limit.to_string(),
        "sender": m.sender,
        "recipient": m.recipient,
        "refund": m.refund,
        "value": m.value.to_string(),
        "received": m.received.to_string(),
        "payload": Bytes::copy_from_slice(payload),
        "payload_hash": m.payload_hash,
        "encoded": Bytes::from(m.encode()),
        "id": m.id(),
    })
}

fn hub() -> Value {
    let checkpoint = Checkpoint {
        rollup: RollupId(7),
        number: 8,
        hub_height: 9,
        block_hash: hash(0x11),
        state_root: hash(0x22),
        outbox_root: hash(0x33),
        votes_root: hash(0x44),
    };
    let bundle = hash(0x55);
    let (rollup, chain) = (RollupId(7), 7007);
    let leaves = [
        HubLeaf::Checkpoint(checkpoint),
        HubLeaf::Decision { bundle, committed: true, height: 500 },
        HubLeaf::Decision { bundle, committed: false, height: 500 },
        HubLeaf::Release { bundle, rollup, leg: 15 },
        HubLeaf::Rollup { rollup, chain },
    ];
    let both = |leaf: HubLeaf| json!({ "encoded": Bytes::from(leaf.encode()), "leaf": leaf.hash() });
    let [checkpoint_leaf, commit, abort, release, registered] = leaves.map(both);
    json!({
        "rollup": rollup.0.to_string(),
        "chain": chain.to_string(),
        "number": checkpoint.number,
        "hub_height": checkpoint.hub_height,
        "block_hash": checkpoint.block_hash,
        "state_root": checkpoint.state_root,
        "outbox_root": checkpoint.outbox_root,
        "votes_root": checkpoint.votes_root,
        "checkpoint_hash": checkpoint.hash(),
        "bundle": bundle,
        "height": 500,
        "leg": 15,
        "checkpoint": checkpoint_leaf,
        "commit": commit,
        "abort": abort,
        "release": release,
        "registered": registered,
    })
}

#[test]
fn the_published_messages_are_what_this_crate_makes() {
    let about = "Test vectors of docs/specs/messages.md. Bytes are hex; numbers that may need more than 32 bits are \
                 decimal strings.";
    let messages = messages().map(message_json);
    check(
        "messages.json",
        &json!({ "about": about, "accumulator": accumulator(), "messages": messages, "hub": hub() }),
    );
}
