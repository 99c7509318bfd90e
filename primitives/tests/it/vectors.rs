//! `docs/specs/vectors/blocks.json`: made from the cases here, and checked by reading it back as another implementation
//! would. After a change of the layouts, `UPDATE_VECTORS=1 cargo test` writes the file anew.

use serde_json::{Value, json};
use std::path::PathBuf;
use switchyard_primitives::{
    B256, Block, Bytes, FinalityCertificate, Header, Limits, RollupId, Segment, SegmentProof, SegmentTable,
    SignerBitmap, TxKey, merkle,
};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/specs/vectors/blocks.json")
}

fn header() -> Header {
    Header {
        protocol: 1,
        parent: B256::repeat_byte(0x11),
        height: 7,
        epoch: 1,
        timestamp_ms: 1_700_000_000_123,
        origins_root: B256::repeat_byte(0x22),
        segment_root: B256::ZERO,
        system_root: B256::repeat_byte(0x33),
        next_seats_hash: B256::repeat_byte(0x44),
        body_bytes: 0,
    }
}

fn segment(rollup: u64, transactions: &[&[u8]]) -> Segment {
    let transactions = transactions.iter().map(|tx| Bytes::copy_from_slice(tx)).collect();
    Segment { rollup: RollupId(rollup), transactions }
}

/// A block with none, one, and several segments, and rollup ids at both ends of their range.
fn blocks() -> Vec<(&'static str, Block)> {
    let five = vec![
        segment(0, &[b"record"]),
        segment(3, &[b"a", b"", b"ccc"]),
        segment(5, &[&[0xff; 40]]),
        segment(0x0102_0304_0506_0708, &[b"a"]),
        segment(u64::MAX, &[b"x", b"y"]),
    ];
    vec![
        ("genesis", Block::genesis(Header::genesis(B256::repeat_byte(0xaa), 1_000, B256::repeat_byte(0xbb)))),
        ("no segments", Block::new(header(), vec![])),
        ("one segment", Block::new(header(), vec![segment(3, &[b"only"])])),
        ("five segments", Block::new(header(), five)),
        ("protocol 2", Block::new(Header { protocol: 2, ..header() }, vec![])),
    ]
}

fn header_json(header: &Header) -> Value {
    json!({
        "protocol": header.protocol,
        "parent": header.parent,
        "height": header.height,
        "epoch": header.epoch,
        "timestamp_ms": header.timestamp_ms,
        "origins_root": header.origins_root,
        "segment_root": header.segment_root,
        "system_root": header.system_root,
        "next_seats_hash": header.next_seats_hash,
        "body_bytes": header.body_bytes,
        "encoded": Bytes::from(header.encode()),
        "hash": header.hash(),
    })
}

fn segment_json(segment: &Segment) -> Value {
    let hashes: Vec<B256> = segment.transactions.iter().map(|tx| TxKey::of(segment.rollup, tx).hash).collect();
    json!({
        "rollup": segment.rollup.0.to_string(),
        "transactions": segment.transactions,
        "transaction_hashes": hashes,
        "transactions_root": merkle::root(hashes.iter().copied()),
        "commitment": segment.commitment(),
    })
}

fn block_json(name: &str, block: &Block) -> Value {
    let table = SegmentTable::new(block.segments());
    let proofs = [0, 1, 3, 4, 5, 6, u64::MAX - 1, u64::MAX].map(|id| {
        let proof = table.prove(RollupId(id));
        let present = matches!(proof, SegmentProof::Present { .. });
        json!({ "rollup": id.to_string(), "present": present, "encoded": Bytes::from(proof.encode()) })
    });
    json!({
        "name": name,
        "header": header_json(&block.header),
        "segments": block.segments().iter().map(segment_json).collect::<Vec<_>>(),
        "encoded": Bytes::from(block.encode()),
        "proofs": proofs,
    })
}

fn merkle_json(count: u8) -> Value {
    let leaves: Vec<B256> = (1..=count).map(B256::repeat_byte).collect();
    let paths: Vec<_> = (0..leaves.len()).map(|index| merkle::prove(&leaves, index).unwrap()).collect();
    json!({ "leaves": leaves, "root": merkle::root(leaves.iter().copied()), "paths": paths })
}

fn certificate(seats: u32, signers: &[u32]) -> FinalityCertificate {
    FinalityCertificate {
        epoch: 1,
        view: 300,
        parent_view: 298,
        block: B256::repeat_byte(0x55),
        signers: SignerBitmap::new(seats, signers.iter().copied()),
        signature: std::array::from_fn(|i| i as u8),
    }
}

fn certificate_json(certificate: &FinalityCertificate) -> Value {
    json!({
        "epoch": certificate.epoch,
        "view": certificate.view,
        "parent_view": certificate.parent_view,
        "block": certificate.block,
        "seats": certificate.signers.seats(),
        "signers": certificate.signers.signers().collect::<Vec<_>>(),
        "signature": Bytes::from(certificate.signature),
        "encoded": Bytes::from(certificate.encode()),
    })
}

fn expected() -> Value {
    let about =
        "Test vectors of docs/specs/blocks.md. Bytes are hex; rollup ids are decimal strings, since they need 64 bits.";
    let merkle = [0, 1, 2, 3, 4, 5, 8, 13].map(merkle_json);
    let blocks: Vec<Value> = blocks().iter().map(|(name, block)| block_json(name, block)).collect();
    let certificates = [certificate(1, &[0]), certificate(4, &[0, 2, 3]), certificate(9, &[0, 7, 8])];
    let certificates = certificates.each_ref().map(certificate_json);
    json!({ "about": about, "merkle": merkle, "blocks": blocks, "certificates": certificates })
}

fn published() -> Value {
    serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Bytes {
    serde_json::from_value(value.clone()).unwrap()
}

fn hash(value: &Value) -> B256 {
    serde_json::from_value(value.clone()).unwrap()
}

fn rollup(value: &Value) -> RollupId {
    value.as_str().unwrap().parse().unwrap()
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

#[test]
fn the_published_vectors_are_what_this_crate_makes() {
    let expected = expected();
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(path(), serde_json::to_string_pretty(&expected).unwrap() + "\n").unwrap();
    }
    assert_eq!(published(), expected, "the layouts have changed: see the head of this file");
}

#[test]
fn the_published_headers_and_blocks_decode_to_their_fields() {
    for vector in array(&published()["blocks"]) {
        let (header, encoded) = (&vector["header"], bytes(&vector["encoded"]));
        let decoded = Header::decode(&bytes(&header["encoded"])).unwrap();
        assert_eq!(decoded.hash(), hash(&header["hash"]));
        assert_eq!(decoded.segment_root, hash(&header["segment_root"]));
        assert_eq!(decoded.timestamp_ms, header["timestamp_ms"].as_u64().unwrap());

        let block = Block::decode(encoded.clone(), &Limits::default()).unwrap();
        assert_eq!(block.header, decoded);
        assert_eq!(block.check_commitments(), Ok(()));
        assert_eq!(encoded.len(), Header::LEN + decoded.body_bytes as usize);
        let segments = array(&vector["segments"]);
        assert_eq!(block.segments().len(), segments.len());
        for (segment, expected) in block.segments().iter().zip(segments) {
            assert_eq!(segment.rollup, rollup(&expected["rollup"]));
            assert_eq!(segment.commitment(), hash(&expected["commitment"]));
            let transactions: Vec<Bytes> = array(&expected["transactions"]).iter().map(bytes).collect();
            assert_eq!(segment.transactions, transactions);
        }
    }
}

#[test]
fn the_published_proofs_hold() {
    for vector in array(&published()["blocks"]) {
        let block = Block::decode(bytes(&vector["encoded"]), &Limits::default()).unwrap();
        for proof in array(&vector["proofs"]) {
            let rollup = rollup(&proof["rollup"]);
            let held = block.transactions(rollup);
            assert_eq!(proof["present"].as_bool().unwrap(), !held.is_empty());
            let proof = SegmentProof::decode(&bytes(&proof["encoded"])).unwrap();
            assert_eq!(proof.verify(block.header.segment_root, rollup, held), Ok(()));
        }
    }
    for vector in array(&published()["merkle"]) {
        let leaves: Vec<B256> = array(&vector["leaves"]).iter().map(hash).collect();
        for (index, path) in array(&vector["paths"]).iter().enumerate() {
            let path: Vec<B256> = array(path).iter().map(hash).collect();
            let root = merkle::root_from_path(leaves[index], index as u64, leaves.len() as u64, &path);
            assert_eq!(root, Some(hash(&vector["root"])));
        }
    }
}

#[test]
fn the_published_certificates_decode_to_their_fields() {
    for vector in array(&published()["certificates"]) {
        let certificate = FinalityCertificate::decode(&bytes(&vector["encoded"])).unwrap();
        assert_eq!(certificate_json(&certificate), *vector);
    }
}
