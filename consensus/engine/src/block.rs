//! The hub block as the consensus library sees it.

use bytes::{Buf as _, BufMut, Bytes};
use commonware_codec::{Buf, BufsMut, EncodeSize, Error, Read, Write};
use commonware_consensus::{BoundedBlock, Heightable, types::Height};
use commonware_cryptography::{Digested, Digestible, keccak256::Digest};
use std::sync::Arc;
use switchyard_primitives::{B256, Block, DecodeError, Header, Limits, keccak256};

/// A block with its encoding, so that it is encoded once where it is made and never again: relays, archives and answers
/// to peers share the bytes. Of a received block the transactions are slices of them too.
#[derive(Clone, Debug)]
pub(crate) struct HubBlock {
    block: Arc<Block>,
    encoded: Bytes,
}

/// Block limits as the codec's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockLimits(pub(crate) Limits);

pub(crate) fn digest(hash: B256) -> Digest {
    Digest(hash.0)
}

pub(crate) fn hash(digest: Digest) -> B256 {
    B256::new(digest.0)
}

impl HubBlock {
    /// Encodes a block made here.
    pub(crate) fn new(block: Block) -> Self {
        let encoded = Bytes::from(block.encode());
        Self { block: Arc::new(block), encoded }
    }

    /// Encodes a block made here and pairs it with its digest.
    pub(crate) fn sealed(block: Block) -> Digested<Self> {
        Self::digested(Self::new(block))
    }

    /// A block with its encoding.
    pub(crate) fn from_parts(block: Block, encoded: Bytes) -> Self {
        Self { block: Arc::new(block), encoded }
    }

    /// Decodes what is all of `encoded`, which it shares.
    pub(crate) fn decode_all(encoded: Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        Ok(Self::from_parts(Block::decode(encoded.clone().into(), limits)?, encoded))
    }

    /// Pairs a block with its digest.
    pub(crate) fn digested(block: Self) -> Digested<Self> {
        let digest = block.digest();
        Digested::precomputed(block, digest)
    }

    pub(crate) fn block(&self) -> &Arc<Block> {
        &self.block
    }

    pub(crate) fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    fn read(buf: &mut impl Buf, limits: &Limits) -> Result<Self, &'static str> {
        let truncated = |_| "block is truncated";
        // The header names the body's length, which makes a block readable from a stream and its encoding canonical.
        let encoded = match buf.chunk().first_chunk::<{ Header::LEN }>() {
            Some(header) => {
                let len = Header::LEN + body_bytes(header, limits)?;
                buf.try_take_owned::<Bytes>(len).map_err(truncated)?
            }
            // The header straddles two buffers, which is rare enough to copy.
            None => {
                let header = buf.try_take_owned::<Bytes>(Header::LEN).map_err(truncated)?;
                let body = buf.try_take_owned::<Bytes>(body_bytes(&header, limits)?).map_err(truncated)?;
                Bytes::from([header, body].concat())
            }
        };
        Self::decode_all(encoded, limits).map_err(|_| "block does not decode")
    }
}

fn body_bytes(header: &[u8], limits: &Limits) -> Result<usize, &'static str> {
    let header = Header::decode(header).map_err(|_| "header does not decode")?;
    usize::try_from(header.body_bytes).ok().filter(|b| *b <= limits.body_bytes).ok_or("body above the limit")
}

impl Write for HubBlock {
    fn write(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.encoded);
    }

    fn write_bufs(&self, buf: &mut impl BufsMut) {
        buf.push(self.encoded.clone());
    }
}

impl EncodeSize for HubBlock {
    fn encode_size(&self) -> usize {
        self.encoded.len()
    }

    fn encode_inline_size(&self) -> usize {
        0
    }
}

impl Read for HubBlock {
    type Cfg = BlockLimits;

    fn read_cfg(buf: &mut impl Buf, cfg: &Self::Cfg) -> Result<Self, Error> {
        Self::read(buf, &cfg.0).map_err(|reason| Error::Invalid("block", reason))
    }
}

impl Digestible for HubBlock {
    type Digest = Digest;

    fn digest(&self) -> Digest {
        // The encoding starts with the header's.
        digest(keccak256(&self.encoded[..Header::LEN.min(self.encoded.len())]))
    }
}

impl Heightable for HubBlock {
    fn height(&self) -> Height {
        Height::new(self.block.header.height)
    }
}

impl commonware_consensus::Block for HubBlock {
    fn parent(&self) -> Digest {
        digest(self.block.header.parent)
    }
}

impl BoundedBlock for HubBlock {
    fn max_encode_size(cfg: &Self::Cfg) -> usize {
        cfg.0.block_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::{Decode as _, Encode as _};
    use proptest::prelude::*;
    use switchyard_primitives::{RollupId, Segment};

    const LIMITS: BlockLimits =
        BlockLimits(Limits { body_bytes: 600, segments: 8, transactions: 40, transaction_bytes: 60 });

    fn block() -> impl Strategy<Value = Block> {
        let txs = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 1..4);
        (any::<u64>(), proptest::collection::btree_map(any::<u64>(), txs, 0..4)).prop_map(|(height, map)| {
            let segment = |(id, txs): (u64, Vec<Vec<u8>>)| Segment {
                rollup: RollupId(id),
                transactions: txs.into_iter().map(Into::into).collect(),
            };
            let header = Header { height, ..Header::genesis(B256::repeat_byte(1), 5, B256::ZERO) };
            Block::new(header, map.into_iter().map(segment).collect())
        })
    }

    proptest! {
        #[test]
        fn a_block_survives_the_librarys_codec_with_its_digest(block in block(), split in 0usize..700) {
            let hub = HubBlock::new(block.clone());
            prop_assert_eq!(hash(hub.digest()), block.hash());
            let bytes = hub.encode();
            prop_assert_eq!(&bytes[..], &block.encode()[..]);
            // Followed by other fields, and in two pieces.
            let mut stream = bytes::Buf::chain(bytes.slice(..split.min(bytes.len())), bytes.slice(split.min(bytes.len())..));
            let back = HubBlock::read_cfg(&mut stream, &LIMITS).unwrap();
            prop_assert_eq!(&**back.block(), &block);
            prop_assert_eq!(back.encode(), bytes.clone());
            let longer = Bytes::from([&bytes[..], b"next"].concat());
            let mut stream = longer;
            HubBlock::read_cfg(&mut stream, &LIMITS).unwrap();
            prop_assert_eq!(&stream[..], b"next");
            prop_assert!(bytes.len() <= HubBlock::max_encode_size(&LIMITS));
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(block in block(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = block.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let bytes = Bytes::from(bytes);
            if let Ok(other) = HubBlock::decode_cfg(bytes.clone(), &LIMITS) {
                prop_assert_eq!(Block::encode(other.block()), bytes.to_vec());
            }
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = HubBlock::decode_cfg(Bytes::from(bytes), &LIMITS);
        }

        #[test]
        fn a_truncated_block_is_refused(block in block(), at in any::<prop::sample::Index>()) {
            let bytes = Bytes::from(block.encode());
            prop_assert!(HubBlock::decode_cfg(bytes.slice(..at.index(bytes.len())), &LIMITS).is_err());
        }
    }

    #[test]
    fn a_body_above_the_limit_is_refused_before_it_is_read() {
        let header = Header { body_bytes: 601, ..Header::genesis(B256::ZERO, 0, B256::ZERO) };
        let bytes = Bytes::copy_from_slice(&header.encode());
        let error = HubBlock::decode_cfg(bytes, &LIMITS).unwrap_err();
        assert!(error.to_string().contains("body above the limit"), "{error}");
    }

    #[test]
    fn a_decoded_block_shares_its_input() {
        let segment = Segment { rollup: RollupId(1), transactions: vec![vec![7; 50].into()] };
        let bytes = Bytes::from(Block::new(Header::genesis(B256::ZERO, 0, B256::ZERO), vec![segment]).encode());
        let hub = HubBlock::decode_cfg(bytes.clone(), &LIMITS).unwrap();
        let tx = &hub.block().transactions(RollupId(1))[0];
        assert!(bytes.as_ptr_range().contains(&tx.as_ptr()));
        assert_eq!(hub.encoded.as_ptr(), bytes.as_ptr());
    }
}
