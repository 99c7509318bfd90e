//! What validators send each other, and what light clients check.

use crate::same;
use alloy_primitives::FixedBytes;
use prost::Message as _;
use std::sync::LazyLock;
use switchyard_bridge_core::BridgeRecord;
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
    if BridgeRecord::is_one(input) {
        return same(input, BridgeRecord::decode(input).ok().map(|record| record.encode()));
    }
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

/// gossipsub's messages, as the libp2p specifications have them and prost reads them.
mod pubsub {
    use prost::Message;

    #[derive(Message)]
    pub(super) struct Rpc {
        #[prost(message, repeated, tag = "1")]
        pub(super) subscriptions: Vec<Subscription>,
        #[prost(message, repeated, tag = "2")]
        pub(super) publish: Vec<Published>,
        #[prost(message, optional, tag = "3")]
        pub(super) control: Option<Control>,
    }

    #[derive(Message)]
    pub(super) struct Subscription {
        #[prost(bool, optional, tag = "1")]
        pub(super) subscribe: Option<bool>,
        #[prost(string, optional, tag = "2")]
        pub(super) topic: Option<String>,
    }

    #[derive(Message)]
    pub(super) struct Published {
        #[prost(bytes = "vec", optional, tag = "2")]
        pub(super) data: Option<Vec<u8>>,
        #[prost(string, optional, tag = "4")]
        pub(super) topic: Option<String>,
    }

    #[derive(Message)]
    pub(super) struct Control {
        #[prost(message, repeated, tag = "1")]
        pub(super) have: Vec<Have>,
        #[prost(message, repeated, tag = "2")]
        pub(super) want: Vec<Ids>,
        #[prost(message, repeated, tag = "3")]
        pub(super) graft: Vec<Of>,
        #[prost(message, repeated, tag = "4")]
        pub(super) prune: Vec<Of>,
        #[prost(message, repeated, tag = "5")]
        pub(super) dont_want: Vec<Ids>,
    }

    #[derive(Message)]
    pub(super) struct Have {
        #[prost(string, optional, tag = "1")]
        pub(super) topic: Option<String>,
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub(super) ids: Vec<Vec<u8>>,
    }

    #[derive(Message)]
    pub(super) struct Ids {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub(super) ids: Vec<Vec<u8>>,
    }

    #[derive(Message)]
    pub(super) struct Of {
        #[prost(string, optional, tag = "1")]
        pub(super) topic: Option<String>,
    }
}

/// The topic of [`gossip_frames`].
pub(crate) const TOPIC: &str = "/topic";

/// Whatever is handed to gossipsub's library is, as prost reads it, one thing about one topic, with ids of one length.
pub(crate) fn gossip_frames(input: &[u8]) -> bool {
    let (frames, given_up) = switchyard_consensus_network::fuzz::gossip_frames(input, TOPIC, FRAME_BYTES_MAX);
    for frame in &frames {
        assert!(frame.len() <= FRAME_BYTES_MAX);
        let Ok(pubsub::Rpc { subscriptions, publish, control }) =
            pubsub::Rpc::decode_length_delimited(frame.as_slice())
        else {
            continue;
        };
        let pubsub::Control { have, want, graft, prune, dont_want } = control.unwrap_or_default();
        let controls = have.len() + want.len() + graft.len() + prune.len() + dont_want.len();
        assert!(subscriptions.len() + publish.len() + controls <= 1, "several things at once");
        let topics = subscriptions.iter().map(|s| &s.topic).chain(publish.iter().map(|p| &p.topic));
        let topics = topics.chain(have.iter().map(|h| &h.topic)).chain(graft.iter().chain(&prune).map(|g| &g.topic));
        for topic in topics {
            assert_eq!(topic.as_deref(), Some(TOPIC));
        }
        let ids: Vec<_> =
            have.iter().map(|h| &h.ids).chain(want.iter().chain(&dont_want).map(|i| &i.ids)).flatten().collect();
        assert!(ids.len() <= 128 && ids.iter().all(|id| id.len() == 32), "ids that nobody makes");
    }
    !given_up && !frames.is_empty()
}

pub(crate) fn gossip_message(input: &[u8]) -> bool {
    let limits = Limits::default();
    let Ok(message) = wire::Message::decode(Bytes::copy_from_slice(input), &limits) else { return false };
    let encoded = message.encode();
    match &message {
        wire::Message::Batch { .. }
        | wire::Message::Bundles { .. }
        | wire::Message::Ask { .. }
        | wire::Message::Told { .. }
        | wire::Message::Attestations { .. }
        | wire::Message::Verdicts { .. } => same(input, Some(encoded)),
        // Bits past the last flag are not looked at.
        wire::Message::Ack { .. } => {
            assert_eq!(wire::Message::decode(encoded, &limits), Ok(message));
            true
        }
    }
}
