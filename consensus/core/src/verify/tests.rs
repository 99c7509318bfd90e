use super::*;
use crate::{Seat, keys};
use alloy_primitives::FixedBytes;
use blst::min_pk::{AggregateSignature, SecretKey};
use serde::Deserialize;
use switchyard_primitives::{Bytes, SignerBitmap, keccak256};

/// A real certificate, made by four engines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    network: B256,
    seats: Vec<Seat>,
    seats_hash: B256,
    headers: Vec<Bytes>,
    message: Bytes,
    certificate: Bytes,
}

fn vector() -> (Vector, SeatSet, FinalityProof) {
    let vector: Vector = serde_json::from_str(include_str!("../../../../docs/specs/vectors/certificate.json")).unwrap();
    let seats = SeatSet::new(vector.seats.clone()).unwrap();
    let headers = vector.headers.iter().map(|h| Header::decode(h).unwrap()).collect();
    let certificate = FinalityCertificate::decode(&vector.certificate).unwrap();
    (vector, seats, FinalityProof { headers, certificate })
}

#[test]
fn the_engines_certificate_verifies_and_signs_the_documented_message() {
    let (vector, seats, proof) = vector();
    let FinalityCertificate { epoch, view, parent_view, block, .. } = proof.certificate;
    assert_eq!(finalize_message(vector.network, epoch, view, parent_view, block), vector.message.to_vec());
    assert_eq!(seats.hash(), vector.seats_hash);
    assert_eq!(verify_certificate(vector.network, &seats, &proof.certificate), Ok(()));
    assert_eq!(verify_finality(vector.network, &seats, &proof), Ok(proof.headers[0]));
}

#[test]
fn no_bit_of_a_certificate_can_be_changed() {
    let (vector, seats, proof) = vector();
    let good = proof.certificate.encode();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let refused = match FinalityCertificate::decode(&bytes) {
            Err(_) => true,
            Ok(changed) => verify_certificate(vector.network, &seats, &changed).is_err(),
        };
        assert!(refused, "bit {bit}");
    }
}

#[test]
fn a_proof_holds_only_with_an_unbroken_chain_to_the_certified_block() {
    let (vector, seats, proof) = vector();
    let verdict = |headers: &[Header]| {
        let proof = FinalityProof { headers: headers.to_vec(), certificate: proof.certificate.clone() };
        verify_finality(vector.network, &seats, &proof)
    };
    let (first, last) = (proof.headers[0], proof.headers[1]);
    assert_eq!(verdict(&[last]), Ok(last));
    assert_eq!(verdict(&[]), Err(CertificateError::Length(0)));
    assert_eq!(verdict(&vec![first; 1025]), Err(CertificateError::Length(1025)));
    let changed = Header { timestamp_ms: first.timestamp_ms + 1, ..first };
    assert_eq!(verdict(&[changed, last]), Err(CertificateError::Chain { index: 0 }));
    assert_eq!(verdict(&[first, first, last]), Err(CertificateError::Chain { index: 0 }));
    let unlinked = CertificateError::Block { found: proof.certificate.block, expected: first.hash() };
    assert_eq!(verdict(&[first]), Err(unlinked));
}

/// Seats with known secrets, and a signer for them.
struct Signers(Vec<SecretKey>);

impl Signers {
    fn new(count: u8) -> (Self, SeatSet) {
        let mut seats: Vec<(Seat, SecretKey)> = (0..count)
            .map(|i| {
                let secret = keys::bls_secret_from_entropy(&[i; 32]).unwrap();
                let seat = Seat { identity: keccak256([i]), bls: keys::bls_public_key(&secret).unwrap() };
                (seat, SecretKey::from_bytes(&secret).unwrap())
            })
            .collect();
        seats.sort_by_key(|(seat, _)| seat.identity);
        let (seats, secrets): (Vec<_>, Vec<_>) = seats.into_iter().unzip();
        (Self(secrets), SeatSet::new(seats).unwrap())
    }

    fn certify(&self, block: B256, epoch: u64, signers: &[u32]) -> FinalityCertificate {
        let message = finalize_message(B256::ZERO, epoch, 300, 299, block);
        let signatures: Vec<_> = signers.iter().map(|i| self.0[*i as usize].sign(&message, VOTE_DST, &[])).collect();
        let refs: Vec<_> = signatures.iter().collect();
        let signature = AggregateSignature::aggregate(&refs, false).unwrap().to_signature().compress();
        let signers = SignerBitmap::new(u32::try_from(self.0.len()).unwrap(), signers.iter().copied());
        FinalityCertificate { epoch, view: 300, parent_view: 299, block, signers, signature }
    }
}

#[test]
fn a_quorum_is_more_than_two_thirds() {
    for count in 1..=10 {
        let (signers, seats) = Signers::new(count);
        let quorum = seats.quorum();
        assert!(quorum * 3 > usize::from(count) * 2 && quorum <= usize::from(count));
        let all: Vec<u32> = (0..u32::from(count)).collect();
        let certificate = signers.certify(B256::repeat_byte(1), 0, &all[..quorum]);
        assert_eq!(verify_certificate(B256::ZERO, &seats, &certificate), Ok(()), "{count} seats");
        if quorum > 1 {
            let certificate = signers.certify(B256::repeat_byte(1), 0, &all[1..quorum]);
            let found = quorum - 1;
            assert_eq!(
                verify_certificate(B256::ZERO, &seats, &certificate),
                Err(CertificateError::Quorum { quorum, found })
            );
        }
    }
}

#[test]
fn a_certificate_of_another_set_or_epoch_is_refused() {
    let (signers, seats) = Signers::new(4);
    let (_, larger) = Signers::new(5);
    let header = Header::genesis(B256::ZERO, 0, B256::ZERO);
    let certificate = signers.certify(header.hash(), 1, &[0, 1, 2]);
    let other_count = CertificateError::Seats { expected: 5, found: 4 };
    assert_eq!(verify_certificate(B256::ZERO, &larger, &certificate), Err(other_count));
    let proof = FinalityProof { headers: vec![header], certificate };
    let other_epoch = CertificateError::Epoch { found: 1, expected: 0 };
    assert_eq!(verify_finality(B256::ZERO, &seats, &proof), Err(other_epoch));
}

#[test]
fn a_signature_at_infinity_or_outside_the_group_is_refused() {
    let (signers, seats) = Signers::new(4);
    let good = signers.certify(B256::repeat_byte(1), 0, &[0, 1, 2, 3]);
    let mut infinity = [0; 96];
    infinity[0] = 0xc0;
    for signature in [infinity, [0; 96], [0xff; 96]] {
        let bad = FinalityCertificate { signature, ..good.clone() };
        assert_eq!(verify_certificate(B256::ZERO, &seats, &bad), Err(CertificateError::Signature));
    }
}

#[test]
fn a_seat_set_refuses_what_it_cannot_use_and_ignores_order() {
    use crate::SeatError;
    let (_, set) = Signers::new(3);
    let seats = set.seats().to_vec();
    let reversed = SeatSet::new(seats.iter().rev().cloned().collect()).unwrap();
    assert_eq!(reversed, set);
    for (i, seat) in seats.iter().enumerate() {
        assert_eq!(set.index_of(&seat.identity), u32::try_from(i).ok());
    }
    assert_eq!(set.index_of(&B256::ZERO), None);

    assert_eq!(SeatSet::new(vec![]), Err(SeatError::Count(0)));
    let twice = Seat { bls: seats[1].bls, ..seats[0].clone() };
    assert_eq!(
        SeatSet::new(vec![seats[0].clone(), twice.clone()]),
        Err(SeatError::DuplicateIdentity(seats[0].identity))
    );
    assert_eq!(SeatSet::new(vec![seats[1].clone(), twice]), Err(SeatError::DuplicateBls(seats[1].bls)));
    let mut infinity = [0; 48];
    infinity[0] = 0xc0;
    let bls = FixedBytes(infinity);
    assert_eq!(SeatSet::new(vec![Seat { identity: B256::ZERO, bls }]), Err(SeatError::InvalidBls(bls)));
}
