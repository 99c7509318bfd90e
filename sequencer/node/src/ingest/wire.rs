//! Messages between validators' mempools: `docs/specs/gossip.md`.

use std::sync::Arc;
use switchyard_bridge_core::{Attestation, SignedBundle, VerdictWord};
use switchyard_primitives::{Bytes, DecodeError, Limits, Reader, RollupId, Writer};

/// Most transactions in one batch.
pub const BATCH_TRANSACTIONS: usize = 1024;
/// A batch is closed when it holds this many bytes. With one more transaction and its layout it is still within a
/// message of the transactions channel, 256 KiB.
pub const BATCH_BYTES: usize = 96 << 10;

/// Most bundles in one message. One is closed when it holds [`BATCH_BYTES`]; with one more, of
/// [`SignedBundle::BYTES_MAX`], it is still within a message of the channel.
pub const BATCH_BUNDLES: usize = 256;

/// Most words on challenges in one message.
pub const VERDICT_WORDS: usize = 64;

/// Most attestations in one message.
pub const ATTESTATIONS: usize = 128;
/// A message of attestations is closed when it holds this many bytes; with one more, and its votes, it is still within a
/// message of the channel.
pub const ATTESTATION_BYTES: usize = 96 << 10;

const BATCH: u8 = 1;
const ACK: u8 = 2;
const ASK: u8 = 3;
const TOLD: u8 = 4;
const ATTEST: u8 = 5;
const BUNDLES: u8 = 6;
const VERDICTS: u8 = 7;

/// A message of the transactions channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Transactions to hold. `kind u8 = 1 | id u64 | count u32 | (rollup u64 | length u32 | bytes)*`.
    Batch {
        /// Chosen by the sender; the answer names it.
        id: u64,
        /// The transactions.
        transactions: Vec<(RollupId, Bytes)>,
    },
    /// Bundles to hold. `kind u8 = 6 | id u64 | count u32 | bundle *`. Answered as a batch.
    Bundles {
        /// Chosen by the sender; the answer names it.
        id: u64,
        /// The bundles; at most [`BATCH_BUNDLES`].
        bundles: Vec<Arc<SignedBundle>>,
    },
    /// Which of a batch's transactions the sender of this message holds.
    /// `kind u8 = 2 | id u64 | count u32 | bitmap`, least significant bit first.
    Ack {
        /// The batch.
        id: u64,
        /// One flag a transaction.
        held: Vec<bool>,
    },
    /// Asks for the receiver's clock and protocol. `kind u8 = 3 | id u64`.
    Ask {
        /// Chosen by the sender; the answer names it.
        id: u64,
    },
    /// What the sender's clock shows, and the newest protocol version that it knows. `kind u8 = 4 | id u64 | now u64 | protocol u8`.
    Told {
        /// The question.
        id: u64,
        /// Milliseconds since 1970.
        now_ms: u64,
        /// The version.
        protocol: u8,
    },
    /// What the sender, an operator, says of rollups' blocks. `kind u8 = 5 | id u64 | count u32 | attestation *`.
    Attestations {
        /// Not used: 0.
        id: u64,
        /// What it says; at most [`ATTESTATIONS`].
        attestations: Vec<Attestation>,
    },
    /// What the sender, an operator, says of challenges. `kind u8 = 7 | id u64 | count u32 | word *`.
    Verdicts {
        /// Not used: 0.
        id: u64,
        /// What it says; at most [`VERDICT_WORDS`].
        words: Vec<VerdictWord>,
    },
}

impl Message {
    /// The layout.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Batch { id, transactions } => {
                let bytes: usize = transactions.iter().map(|(_, tx)| 12 + tx.len()).sum();
                let mut w = Writer::with_capacity(13 + bytes);
                w.u8(BATCH);
                w.u64(*id);
                w.count(transactions.len());
                for (rollup, tx) in transactions {
                    w.u64(rollup.0);
                    w.count(tx.len());
                    w.raw(tx);
                }
                w.into_bytes()
            }
            Self::Ack { id, held } => {
                let mut w = Writer::with_capacity(13 + held.len().div_ceil(8));
                w.u8(ACK);
                w.u64(*id);
                w.count(held.len());
                w.flags(held);
                w.into_bytes()
            }
            Self::Ask { id } => {
                let mut w = Writer::with_capacity(9);
                w.u8(ASK);
                w.u64(*id);
                w.into_bytes()
            }
            Self::Told { id, now_ms, protocol } => {
                let mut w = Writer::with_capacity(18);
                w.u8(TOLD);
                w.u64(*id);
                w.u64(*now_ms);
                w.u8(*protocol);
                w.into_bytes()
            }
            Self::Bundles { id, bundles } => {
                let bytes: usize = bundles.iter().map(|bundle| bundle.encoded_len()).sum();
                let mut w = Writer::with_capacity(13 + bytes);
                w.u8(BUNDLES);
                w.u64(*id);
                w.count(bundles.len());
                bundles.iter().for_each(|bundle| bundle.write(&mut w));
                w.into_bytes()
            }
            Self::Attestations { id, attestations } => {
                let mut w = Writer::default();
                w.u8(ATTEST);
                w.u64(*id);
                w.count(attestations.len());
                attestations.iter().for_each(|attestation| attestation.write(&mut w));
                w.into_bytes()
            }
            Self::Verdicts { id, words } => {
                let mut w = Writer::with_capacity(13 + VerdictWord::LEN * words.len());
                w.u8(VERDICTS);
                w.u64(*id);
                w.count(words.len());
                words.iter().for_each(|word| word.write(&mut w));
                w.into_bytes()
            }
        }
    }

    /// Reads the layout.
    pub fn decode(bytes: Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let kind = r.u8("message.kind")?;
        let id = r.u64("message.id")?;
        let message = match kind {
            BATCH => {
                let count = r.count("message.count", BATCH_TRANSACTIONS)?;
                let mut transactions = Vec::with_capacity(count.min(r.remaining() / 12));
                for _ in 0..count {
                    let rollup = RollupId(r.u64("transaction.rollup")?);
                    let len = r.count("transaction.length", limits.transaction_bytes)?;
                    transactions.push((rollup, r.bytes("transaction", len)?));
                }
                Self::Batch { id, transactions }
            }
            ACK => {
                let count = r.count("message.count", BATCH_TRANSACTIONS)?;
                Self::Ack { id, held: r.flags("ack.held", count)? }
            }
            ASK => Self::Ask { id },
            TOLD => Self::Told { id, now_ms: r.u64("told.now")?, protocol: r.u8("told.protocol")? },
            ATTEST => {
                let count = r.count("message.count", ATTESTATIONS)?;
                let attestations = (0..count).map(|_| Attestation::read(&mut r)).collect::<Result<_, _>>()?;
                Self::Attestations { id, attestations }
            }
            BUNDLES => {
                let count = r.count("message.count", BATCH_BUNDLES)?;
                let bundles = (0..count).map(|_| SignedBundle::read(&mut r).map(Arc::new)).collect::<Result<_, _>>()?;
                Self::Bundles { id, bundles }
            }
            VERDICTS => {
                let count = r.count("message.count", VERDICT_WORDS)?;
                let words = (0..count).map(|_| VerdictWord::read(&mut r)).collect::<Result<_, _>>()?;
                Self::Verdicts { id, words }
            }
            value => return Err(DecodeError::Version { field: "message", value }),
        };
        r.finish()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use switchyard_bridge_core::{Bundle, SignedLeg};
    use switchyard_primitives::keccak256;

    proptest! {
        #[test]
        fn a_message_survives_its_encoding(
            id in any::<u64>(),
            txs in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
            held in proptest::collection::vec(any::<bool>(), 0..40),
            now_ms in any::<u64>(),
            protocol in any::<u8>(),
            said in proptest::collection::vec((any::<[u8; 32]>(), any::<bool>()), 0..VERDICT_WORDS),
        ) {
            let transactions = txs.into_iter().map(|(r, tx)| (RollupId(r), tx.into())).collect();
            let word = |(bytes, is_right): ([u8; 32], bool)| {
                let signature = [bytes, bytes, bytes].concat().try_into().unwrap();
                VerdictWord { operator: bytes.into(), challenge: bytes.into(), is_right, signature }
            };
            let words = Message::Verdicts { id, words: said.into_iter().map(word).collect() };
            prop_assert_eq!(Message::decode(words.encode(), &Limits::default()), Ok(words));
            let leg = |(rollup, transaction): &(RollupId, Bytes)| SignedLeg {
                rollup: *rollup,
                terms: keccak256(transaction),
                transaction: transaction.clone(),
            };
            let transactions: Vec<(RollupId, Bytes)> = transactions;
            let least = [(RollupId(1), Bytes::new()), (RollupId(2), vec![1].into())];
            let legs = transactions.iter().chain(&least);
            let legs = legs.map(leg).take(Bundle::LEGS_MAX).collect();
            let bundles = vec![Arc::new(SignedBundle { deadline: now_ms, salt: keccak256([protocol]), legs })];
            let of_batches =
                [Message::Batch { id, transactions }, Message::Ack { id, held }, Message::Bundles { id, bundles }];
            for message in of_batches.into_iter().chain([Message::Ask { id }, Message::Told { id, now_ms, protocol }]) {
                prop_assert_eq!(Message::decode(message.encode(), &Limits::default()), Ok(message));
            }
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(bytes.into(), &Limits::default());
        }
    }
}
