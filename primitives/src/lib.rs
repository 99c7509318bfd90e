//! The values that every part of Switchyard agrees on: identifiers, blocks, segments, proofs and certificates,
//! with their byte layouts (`docs/specs/blocks.md`).
//!
//! Nothing here is asynchronous or does I/O, and no bytes can make it panic: every decoder has limits and answers
//! with a [`DecodeError`].

mod block;
mod certificate;
mod codec;
mod compact;
mod header;
mod ids;
pub mod merkle;
mod segment;
mod table;

pub use alloy_primitives::{B256, Bytes, keccak256};
pub use block::{Block, BlockError, Limits};
pub use certificate::{FinalityCertificate, FinalityProof, SignerBitmap};
pub use codec::{DecodeError, Reader, Writer};
pub use compact::{CompactBlock, FillError};
pub use header::{Header, NEWEST_PROTOCOL};
pub use ids::{Level, RollupId, TxHash, TxKey};
pub use segment::Segment;
pub use table::{ProofError, SegmentProof, SegmentTable, TableEntry};
