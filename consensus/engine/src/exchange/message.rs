//! Messages of the blocks channel: `docs/specs/consensus.md`.

use crate::block::HubBlock;
use commonware_runtime::{IoBuf, IoBufs};
use switchyard_primitives::{B256, Bytes, CompactBlock, DecodeError, Limits, Reader, Writer};

const WHOLE: u8 = 1;
const COMPACT: u8 = 2;
const REQUEST: u8 = 3;
const ANSWER: u8 = 4;
const CARRYING: u8 = 5;

/// What a message takes besides a block's bytes, at the most.
pub(crate) const ENVELOPE_BYTES: usize = 64;

/// A message between validators that have, or want, a proposed block.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A block with everything in it.
    Whole(HubBlock),
    /// A block that names its transactions.
    Compact {
        /// The block.
        block: Box<CompactBlock>,
        /// Those of the system rollup, in order, all or none: a proposer's own records are in nobody else's mempool.
        carried: Vec<Bytes>,
    },
    /// The transactions of a block that was named and that the sender of this message lacks.
    Request {
        /// The block.
        block: B256,
        /// One flag for each of its transactions, in order.
        wanted: Vec<bool>,
    },
    /// What a request asked for, in the block's order.
    Answer {
        /// The block.
        block: B256,
        /// Those that were wanted, and no others.
        transactions: Vec<Bytes>,
    },
}

impl Message {
    /// `kind u8`, then for a whole block its encoding, for a compact one its layout, or `count u32 | (length u32 | bytes)*` and its
    /// layout where it carries something, for a request `block 32 | count u32 | bitmap` (least significant bit first), for an answer
    /// `block 32 | count u32 | (length u32 | bytes)*`.
    pub(crate) fn encode(&self) -> IoBufs {
        match self {
            Self::Whole(block) => vec![IoBuf::from(&[WHOLE]), IoBuf::from(block.encoded().clone())].into(),
            Self::Compact { block, carried } if carried.is_empty() => {
                vec![IoBuf::from(&[COMPACT]), IoBuf::from(block.encode())].into()
            }
            Self::Compact { block, carried } => {
                let mut w = Writer::with_capacity(1 + transactions_len(carried));
                w.u8(CARRYING);
                write_transactions(&mut w, carried);
                vec![IoBuf::from(w.into_vec()), IoBuf::from(block.encode())].into()
            }
            Self::Request { block, wanted } => {
                let mut w = Writer::with_capacity(37 + wanted.len().div_ceil(8));
                w.u8(REQUEST);
                w.raw(block.as_slice());
                w.count(wanted.len());
                w.flags(wanted);
                w.into_vec().into()
            }
            Self::Answer { block, transactions } => {
                let mut w = Writer::with_capacity(33 + transactions_len(transactions));
                w.u8(ANSWER);
                w.raw(block.as_slice());
                write_transactions(&mut w, transactions);
                w.into_vec().into()
            }
        }
    }

    /// Reads the layout. What a block's header commits to is checked for a compact block only.
    pub(crate) fn decode(bytes: bytes::Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        let Some(kind) = bytes.first().copied() else {
            return Err(DecodeError::Truncated { field: "message", need: 1, have: 0 });
        };
        let body = bytes.slice(1..);
        match kind {
            WHOLE => HubBlock::decode_all(body, limits).map(Self::Whole),
            COMPACT => read_compact(body.into(), Vec::new(), limits),
            CARRYING => {
                let mut r = Reader::new(body.into());
                let carried = read_transactions(&mut r, limits)?;
                if carried.is_empty() {
                    return Err(DecodeError::Invalid { field: "compact.carried", reason: "nothing" });
                }
                let rest = r.bytes("compact", r.remaining())?;
                read_compact(rest, carried, limits)
            }
            REQUEST => read_request(Reader::new(body.into()), limits),
            ANSWER => read_answer(Reader::new(body.into()), limits),
            value => Err(DecodeError::Version { field: "message", value }),
        }
    }
}

fn read_request(mut r: Reader, limits: &Limits) -> Result<Message, DecodeError> {
    let block = r.b256("request.block")?;
    let count = r.count("request.count", limits.transactions)?;
    let wanted = r.flags("request.wanted", count)?;
    r.finish()?;
    Ok(Message::Request { block, wanted })
}

fn read_compact(bytes: Bytes, carried: Vec<Bytes>, limits: &Limits) -> Result<Message, DecodeError> {
    Ok(Message::Compact { block: Box::new(CompactBlock::decode(bytes, limits)?), carried })
}

fn read_answer(mut r: Reader, limits: &Limits) -> Result<Message, DecodeError> {
    let block = r.b256("answer.block")?;
    let transactions = read_transactions(&mut r, limits)?;
    r.finish()?;
    Ok(Message::Answer { block, transactions })
}

fn transactions_len(transactions: &[Bytes]) -> usize {
    4 + transactions.iter().map(|tx| 4 + tx.len()).sum::<usize>()
}

fn write_transactions(w: &mut Writer, transactions: &[Bytes]) {
    w.count(transactions.len());
    for tx in transactions {
        w.count(tx.len());
        w.raw(tx);
    }
}

fn read_transactions(r: &mut Reader, limits: &Limits) -> Result<Vec<Bytes>, DecodeError> {
    let count = r.count("transactions.count", limits.transactions)?;
    let mut transactions = Vec::with_capacity(count.min(r.remaining() / 4));
    for _ in 0..count {
        let len = r.count("transactions.length", limits.transaction_bytes)?;
        transactions.push(r.bytes("transaction", len)?);
    }
    Ok(transactions)
}

/// For `testnet/fuzz`: a message decoded and encoded again.
pub(crate) fn recoded(bytes: bytes::Bytes) -> Option<bytes::Bytes> {
    Some(Message::decode(bytes, &Limits::default()).ok()?.encode().coalesce().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use switchyard_primitives::{Block, Header, RollupId, Segment};

    fn bytes(message: &Message) -> bytes::Bytes {
        message.encode().coalesce().into()
    }

    proptest! {
        #[test]
        fn a_message_survives_its_encoding(
            txs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from), 1..20),
            wanted in proptest::collection::vec(any::<bool>(), 0..40),
        ) {
            let segment = Segment { rollup: RollupId(1), transactions: txs.clone() };
            let block = Block::new(Header::genesis(B256::ZERO, 0, B256::ZERO), vec![segment]);
            let hash = block.hash();
            let compact = Box::new(CompactBlock::of(&block));
            for message in [
                Message::Whole(HubBlock::new(block)),
                Message::Compact { block: compact.clone(), carried: Vec::new() },
                Message::Compact { block: compact, carried: txs.clone() },
                Message::Request { block: hash, wanted },
                Message::Answer { block: hash, transactions: txs },
            ] {
                let encoded = bytes(&message);
                let back = Message::decode(encoded.clone(), &Limits::default()).unwrap();
                prop_assert_eq!(bytes(&back), encoded.clone());
                prop_assert!(Message::decode([&encoded[..], b"x"].concat().into(), &Limits::default()).is_err());
                prop_assert!(Message::decode(encoded.slice(..encoded.len() - 1), &Limits::default()).is_err());
            }
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::decode(bytes.into(), &Limits::default());
        }
    }
}
