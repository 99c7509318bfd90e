//! The hub block header.

use crate::{B256, DecodeError, Reader, Writer, keccak256};

/// The newest protocol version that this software knows. Version 1 is the first; `docs/specs/upgrades.md` says what each one is.
pub const NEWEST_PROTOCOL: u8 = 3;

/// What a finality certificate signs, by its hash. Big-endian, 189 bytes, in every protocol version so far:
/// `protocol u8 | parent 32 | height u64 | epoch u64 | timestamp_ms u64 | origins_root 32 | segment_root 32 |
/// system_root 32 | next_seats_hash 32 | body_bytes u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The protocol version that the block follows, 1 to [`NEWEST_PROTOCOL`].
    pub protocol: u8,
    /// Hash of the parent's header; the genesis header's parent is the network id.
    pub parent: B256,
    /// Number of blocks below this one.
    pub height: u64,
    /// The epoch whose seats certify this block.
    pub epoch: u64,
    /// The leader's clock in milliseconds since 1970, never below the parent's.
    pub timestamp_ms: u64,
    /// Commitment to the newest finalised settlement-chain blocks that the leader has seen; zero for none.
    pub origins_root: B256,
    /// Root of the segment table ([`crate::SegmentTable`]).
    pub segment_root: B256,
    /// Commitment to the hub's state that the block is on: stake table and committees (`docs/specs/stake.md`). Zero for genesis.
    pub system_root: B256,
    /// On an epoch's last block, the hash of the next seat set; else zero.
    pub next_seats_hash: B256,
    /// Length of the encoded body that follows the header, so that a client can bound what it asks for.
    pub body_bytes: u32,
}

impl Header {
    /// Encoded length in bytes.
    pub const LEN: usize = 1 + 32 + 8 * 3 + 32 * 4 + 4;

    /// The header of height 0, which every validator derives from the network id and nobody signs. It follows protocol 1,
    /// whichever the blocks after it follow.
    pub fn genesis(network: B256, timestamp_ms: u64, seats_hash: B256) -> Self {
        Self {
            protocol: 1,
            parent: network,
            height: 0,
            epoch: 0,
            timestamp_ms,
            origins_root: B256::ZERO,
            segment_root: crate::SegmentTable::EMPTY_ROOT,
            system_root: B256::ZERO,
            next_seats_hash: seats_hash,
            body_bytes: 4,
        }
    }

    /// The fixed layout.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut w = Writer::with_capacity(Self::LEN);
        w.u8(self.protocol);
        w.raw(self.parent.as_slice());
        w.u64(self.height);
        w.u64(self.epoch);
        w.u64(self.timestamp_ms);
        w.raw(self.origins_root.as_slice());
        w.raw(self.segment_root.as_slice());
        w.raw(self.system_root.as_slice());
        w.raw(self.next_seats_hash.as_slice());
        w.u32(self.body_bytes);
        let mut out = [0; Self::LEN];
        out.copy_from_slice(&w.into_vec());
        out
    }

    /// Reads the fixed layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let protocol = r.u8("header.protocol")?;
        if !(1..=NEWEST_PROTOCOL).contains(&protocol) {
            return Err(DecodeError::Version { field: "header", value: protocol });
        }
        Ok(Self {
            protocol,
            parent: r.b256("header.parent")?,
            height: r.u64("header.height")?,
            epoch: r.u64("header.epoch")?,
            timestamp_ms: r.u64("header.timestamp_ms")?,
            origins_root: r.b256("header.origins_root")?,
            segment_root: r.b256("header.segment_root")?,
            system_root: r.b256("header.system_root")?,
            next_seats_hash: r.b256("header.next_seats_hash")?,
            body_bytes: r.u32("header.body_bytes")?,
        })
    }

    /// Reads a header that is all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(crate::Bytes::copy_from_slice(bytes));
        let header = Self::read(&mut r)?;
        r.finish()?;
        Ok(header)
    }

    /// The block hash: keccak-256 of the layout.
    pub fn hash(&self) -> B256 {
        keccak256(self.encode())
    }
}
