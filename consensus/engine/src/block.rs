//! The hub block as the consensus library sees it.

use bytes::{Buf as _, BufMut, Bytes};
use commonware_codec::{Buf, BufsMut, EncodeSize, Error, Read, Write};
use commonware_consensus::{BoundedBlock, Heightable, types::Height};
use commonware_cryptography::{Digested, Digestible, keccak256::Digest};
use std::sync::Arc;
use switchyard_primitives::{B256, Block, Header, Limits, keccak256};

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
        let block = Self::new(block);
        let digest = block.digest();
        Digested::precomputed(block, digest)
    }

    pub(crate) fn block(&self) -> &Arc<Block> {
        &self.block
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
        let block = Block::decode(encoded.clone().into(), limits).map_err(|_| "block does not decode")?;
        Ok(Self { block: Arc::new(block), encoded })
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
