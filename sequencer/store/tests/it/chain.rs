//! Chains to store.

use switchyard_primitives::{B256, Block, Bytes, FinalityCertificate, Header, RollupId, Segment, SignerBitmap, TxKey};

pub(crate) const NETWORK: B256 = B256::repeat_byte(7);

pub(crate) fn genesis() -> Header {
    Header::genesis(NETWORK, 1_000, B256::repeat_byte(9))
}

/// Transactions of one segment.
pub(crate) fn segment(rollup: u64, transactions: &[&str]) -> Segment {
    let transactions = transactions.iter().map(|tx| Bytes::copy_from_slice(tx.as_bytes())).collect();
    Segment { rollup: RollupId(rollup), transactions }
}

/// The block on top of `parent`.
pub(crate) fn child(parent: &Header, segments: Vec<Segment>) -> Block {
    let height = parent.height + 1;
    let timestamp_ms = parent.timestamp_ms + 50;
    Block::new(Header { parent: parent.hash(), height, timestamp_ms, next_seats_hash: B256::ZERO, ..*parent }, segments)
}

/// Block `height` of the standard chain: rollup 1 has two transactions in each block, rollup 2 one in each even one, and
/// rollup 3 the same one in each block.
fn standard(parent: &Header) -> Block {
    let height = parent.height + 1;
    let mut segments = vec![segment(1, &[&format!("first of {height}"), &format!("second of {height}")])];
    if height.is_multiple_of(2) {
        segments.push(segment(2, &[&format!("even {height}")]));
    }
    segments.push(segment(3, &["again and again"]));
    child(parent, segments)
}

/// The first `count` blocks of the standard chain; they have the heights from 1 on.
pub(crate) fn blocks(count: usize) -> Vec<Block> {
    std::iter::successors(Some(standard(&genesis())), |block| Some(standard(&block.header))).take(count).collect()
}

pub(crate) fn certificate(block: &Block) -> FinalityCertificate {
    FinalityCertificate {
        epoch: 0,
        view: block.header.height + 3,
        parent_view: block.header.height + 2,
        block: block.hash(),
        signers: SignerBitmap::new(4, [0, 1, 3]),
        signature: [5; 96],
    }
}

pub(crate) fn key(rollup: u64, transaction: &str) -> TxKey {
    TxKey::of(RollupId(rollup), transaction.as_bytes())
}
