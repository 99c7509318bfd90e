//! The values of `switchyard-primitives`, and those that gRPC carries.

use crate::same;
use prost::Message;
use switchyard_primitives::{B256, Block, Bytes, CompactBlock, Header, Limits, RollupId, SegmentProof, SegmentTable};
use switchyard_proto::{ProvenSegment, hash, level, v1};

pub(crate) fn header(input: &[u8]) -> bool {
    same(input, Header::decode(input).ok().map(|header| header.encode()))
}

/// A block; and, under a header that commits to them, its segments as a compact block and in proofs.
pub(crate) fn block(input: &[u8]) -> bool {
    let limits = Limits::default();
    let Ok(block) = Block::decode(Bytes::copy_from_slice(input), &limits) else { return false };
    assert_eq!(block.encode(), input);
    assert_eq!(block.encoded_len(), input.len());

    let block = Block::new(block.header, block.segments().to_vec());
    let encoded = block.encode();
    assert_eq!(block.check_commitments(), Ok(()));
    let compact = CompactBlock::decode(CompactBlock::of(&block).encode().into(), &limits).expect("a block's own names");
    let transactions: Vec<Bytes> = block.segments().iter().flat_map(|s| s.transactions.iter().cloned()).collect();
    let (filled, bytes) = compact.fill(&transactions, &limits).expect("a block's own transactions");
    assert!(filled == block && bytes == encoded);
    let table = SegmentTable::new(block.segments());
    for rollup in block.segments().iter().map(|s| s.rollup).chain([RollupId(0), RollupId(u64::MAX)]).take(16) {
        let proof = SegmentProof::decode(&table.prove(rollup).encode()).expect("a proof's own encoding");
        assert_eq!(proof.verify(block.header.segment_root, rollup, block.transactions(rollup)), Ok(()));
    }
    true
}

pub(crate) fn compact_block(input: &[u8]) -> bool {
    let decoded = CompactBlock::decode(Bytes::copy_from_slice(input), &Limits::default()).ok();
    same(input, decoded.map(|compact| compact.encode()))
}

/// A proof, which is then asked about roots and rollups that it was not made for.
pub(crate) fn segment_proof(input: &[u8]) -> bool {
    let Ok(proof) = SegmentProof::decode(input) else { return false };
    for (root, rollup, transactions) in
        [(B256::ZERO, 0, vec![]), (B256::repeat_byte(1), 1, vec![Bytes::new()]), (B256::ZERO, u64::MAX, vec![])]
    {
        let _ = proof.verify(root, RollupId(rollup), &transactions);
    }
    same(input, Some(proof.encode()))
}

/// protobuf has more than one encoding of a message, so the value is what must survive.
pub(crate) fn block_segment(input: &[u8]) -> bool {
    let Ok(Ok(segment)) = v1::BlockSegment::decode(input).map(ProvenSegment::try_from) else { return false };
    let wire = v1::BlockSegment::from(segment.clone()).encode_to_vec();
    let back = v1::BlockSegment::decode(wire.as_slice()).map(ProvenSegment::try_from);
    assert_eq!(back, Ok(Ok(segment)));
    true
}

/// The first byte chooses a request.
pub(crate) fn grpc_requests(input: &[u8]) -> bool {
    fn survives<M: Message + Default + PartialEq + std::fmt::Debug>(input: &[u8]) -> Option<M> {
        let message = M::decode(input).ok()?;
        assert_eq!(M::decode(message.encode_to_vec().as_slice()).as_ref(), Ok(&message));
        Some(message)
    }
    let Some((kind, input)) = input.split_first() else { return false };
    match kind {
        0 => survives::<v1::SubmitRequest>(input).is_some(),
        1 => survives::<v1::SubmitStreamRequest>(input).is_some(),
        2 => survives::<v1::GetTransactionStatusRequest>(input).is_some_and(|r| hash("hash", &r.hash).is_ok()),
        3 => survives::<v1::WatchTransactionRequest>(input)
            .is_some_and(|r| hash("hash", &r.hash).is_ok() && level("level", r.until).is_ok()),
        4 => survives::<v1::StreamSegmentsRequest>(input).is_some(),
        5 => survives::<v1::GetFinalityProofRequest>(input).is_some(),
        _ => false,
    }
}
