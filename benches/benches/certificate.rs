//! What a light client does for each block.
#![allow(clippy::unwrap_used, missing_docs)]

use blst::min_pk::{AggregateSignature, SecretKey, Signature};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use switchyard_consensus_core::{
    Seat, SeatSet, VOTE_DST, finalize_message,
    keys::{bls_public_key, bls_secret_from_entropy},
    verify_certificate,
};
use switchyard_primitives::{B256, FinalityCertificate, SignerBitmap, keccak256};

const NETWORK: B256 = B256::repeat_byte(7);

/// A certificate that a quorum of `count` seats has signed.
fn certificate(count: u32) -> (SeatSet, FinalityCertificate) {
    let secrets: Vec<(B256, [u8; 32])> = (0..count)
        .map(|i| {
            let identity = keccak256(i.to_be_bytes());
            (identity, bls_secret_from_entropy(&keccak256(identity).0).unwrap())
        })
        .collect();
    let seat =
        |(identity, secret): &(B256, [u8; 32])| Seat { identity: *identity, bls: bls_public_key(secret).unwrap() };
    let seats = SeatSet::new(secrets.iter().map(seat).collect()).unwrap();
    let (block, view) = (B256::repeat_byte(1), 9);
    let message = finalize_message(NETWORK, 0, view, view - 1, block);
    let signatures: Vec<(u32, Signature)> = secrets[..seats.quorum()]
        .iter()
        .map(|(identity, secret)| {
            let key = SecretKey::from_bytes(secret).unwrap();
            (seats.index_of(identity).unwrap(), key.sign(&message, VOTE_DST, &[]))
        })
        .collect();
    let all: Vec<&Signature> = signatures.iter().map(|(_, s)| s).collect();
    let signature = AggregateSignature::aggregate(&all, false).unwrap().to_signature().compress();
    let signers = SignerBitmap::new(count, signatures.iter().map(|(index, _)| *index));
    (seats, FinalityCertificate { epoch: 0, view, parent_view: view - 1, block, signers, signature })
}

fn verify(c: &mut Criterion) {
    for count in [4, 100] {
        let (seats, certificate) = certificate(count);
        verify_certificate(NETWORK, &seats, &certificate).unwrap();
        c.bench_function(&format!("certificate::verify/seats={count}"), |b| {
            b.iter(|| verify_certificate(NETWORK, &seats, black_box(&certificate)).unwrap())
        });
    }
}

criterion_group!(benches, verify);
criterion_main!(benches);
