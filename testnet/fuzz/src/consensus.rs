//! What validators send each other, and what light clients check.

use crate::same;
use alloy_primitives::FixedBytes;
use prost::Message as _;
use std::sync::LazyLock;
use switchyard_consensus_core::{
    Seat, SeatSet, keys::bls_public_key, record::Record, verify_certificate, verify_finality,
};
use switchyard_consensus_engine::fuzz as engine;
use switchyard_node::ingest::wire;
use switchyard_primitives::{B256, Bytes, FinalityCertificate, FinalityProof, Limits};
use switchyard_proto::{signer_v1::SignRequest, v1};

/// Longest message in the frames of [`network_frames`].
const FRAME_BYTES_MAX: usize = 4096;

/// Four seats whose secrets are the numbers from 1.
pub(crate) static SEATS: LazyLock<SeatSet> = LazyLock::new(|| {
    let seat = |i: u8| {
        let mut secret = [0; 32];
        secret[31] = i;
        Seat { identity: B256::repeat_byte(i), bls: bls_public_key(&secret).map_or(FixedBytes::ZERO, FixedBytes::from) }
    };
    SeatSet::new((1..=4).map(seat).collect()).expect("four seats")
});

pub(crate) fn certificate(input: &[u8]) -> bool {
    let Ok(certificate) = FinalityCertificate::decode(input) else { return false };
    assert_eq!(engine::certificate(&certificate).as_ref(), Some(&certificate), "changed by the library's types");
    let _ = verify_certificate(B256::ZERO, &SEATS, &certificate);
    same(input, Some(certificate.encode()))
}

/// protobuf has more than one encoding of a message, so the value is what must survive.
pub(crate) fn finality_proof(input: &[u8]) -> bool {
    let Ok(wire) = v1::FinalityProof::decode(input) else { return false };
    let Ok(proof) = FinalityProof::try_from(&wire) else { return false };
    let _ = verify_finality(B256::ZERO, &SEATS, &proof);
    assert_eq!(FinalityProof::try_from(&v1::FinalityProof::from(&proof)), Ok(proof));
    true
}

pub(crate) fn system_record(input: &[u8]) -> bool {
    same(input, Record::decode(input).ok().map(|record| record.encode()))
}

/// What a signer takes for a vote is what a validator would ask for with it. protobuf has more than one encoding.
pub(crate) fn signer_request(input: &[u8]) -> bool {
    let Ok(request) = SignRequest::decode(input) else { return false };
    switchyard_node::signer::fuzz::recoded(&request).is_some_and(|recoded| {
        assert_eq!(recoded, request);
        true
    })
}

pub(crate) fn exchange_message(input: &[u8]) -> bool {
    let Some(encoded) = engine::message(bytes::Bytes::copy_from_slice(input)) else { return false };
    // Bits of a request's bitmap past its last flag are not looked at, so there the message itself must survive.
    assert_eq!(engine::message(encoded.clone()).as_ref(), Some(&encoded));
    const REQUEST: u8 = 3;
    input[0] == REQUEST || same(input, Some(encoded))
}

/// What was read is what was sent, cut where the stream ends or a frame is too long.
pub(crate) fn network_frames(input: &[u8]) -> bool {
    let (messages, oversized) = switchyard_consensus_network::fuzz::frames(input, FRAME_BYTES_MAX);
    let mut sent = Vec::new();
    for message in &messages {
        assert!(message.len() <= FRAME_BYTES_MAX);
        sent.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        sent.extend_from_slice(message);
    }
    let rest = input.strip_prefix(sent.as_slice()).expect("other messages than were sent");
    let length = rest.first_chunk().map(|head| u32::from_be_bytes(*head) as usize);
    assert_eq!(oversized, length.is_some_and(|length| length > FRAME_BYTES_MAX));
    assert!(oversized || length.is_none_or(|length| rest.len() - 4 < length), "a whole frame was not read");
    rest.is_empty()
}

pub(crate) fn gossip_message(input: &[u8]) -> bool {
    let limits = Limits::default();
    let Ok(message) = wire::Message::decode(Bytes::copy_from_slice(input), &limits) else { return false };
    let encoded = message.encode();
    match &message {
        wire::Message::Batch { .. } | wire::Message::Ask { .. } | wire::Message::Told { .. } => {
            same(input, Some(encoded))
        }
        // Bits past the last flag are not looked at.
        wire::Message::Ack { .. } => {
            assert_eq!(wire::Message::decode(encoded, &limits), Ok(message));
            true
        }
    }
}
