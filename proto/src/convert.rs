//! Between wire messages and primitives. To the wire nothing fails; from the wire everything is checked.

use crate::v1;
use switchyard_primitives::{
    B256, Bytes, DecodeError, FinalityCertificate, FinalityProof, Header, Level, SegmentProof,
};

/// Why a message is not what its type promises. The field is named as in the `.proto` files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field of fixed length has another one.
    #[error("{field}: must be {expected} bytes, has {found}")]
    Length {
        /// The field.
        field: &'static str,
        /// Bytes it must have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// A field that must be set is not.
    #[error("{field}: missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A number that the enum does not have.
    #[error("{field}: {value} is not a known value")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The number.
        value: i32,
    },
    /// A repeated field has too few or too many elements.
    #[error("{field}: {found} elements, must be between {min} and {max}")]
    Count {
        /// The field.
        field: &'static str,
        /// Elements found.
        found: usize,
        /// Fewest allowed.
        min: usize,
        /// Most allowed.
        max: usize,
    },
    /// An encoded value does not decode.
    #[error("{field}: {source}")]
    Decode {
        /// The field.
        field: &'static str,
        /// Why.
        source: DecodeError,
    },
}

impl ConvertError {
    /// The field that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Length { field, .. }
            | Self::Missing { field }
            | Self::UnknownValue { field, .. }
            | Self::Count { field, .. }
            | Self::Decode { field, .. } => field,
        }
    }
}

/// Exactly `N` bytes.
pub fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], ConvertError> {
    bytes.try_into().map_err(|_| ConvertError::Length { field, expected: N, found: bytes.len() })
}

/// A 32-byte hash.
pub fn hash(field: &'static str, bytes: &[u8]) -> Result<B256, ConvertError> {
    fixed(field, bytes).map(B256::new)
}

/// A fixed-length value as a wire field.
pub fn to_bytes(value: impl AsRef<[u8]>) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(value.as_ref())
}

/// A level as a field has it; none where it is unspecified.
pub fn level(field: &'static str, value: i32) -> Result<Option<Level>, ConvertError> {
    match v1::Level::try_from(value) {
        Ok(v1::Level::Unspecified) => Ok(None),
        Ok(v1::Level::Accepted) => Ok(Some(Level::Accepted)),
        Ok(v1::Level::Ordered) => Ok(Some(Level::Ordered)),
        Ok(v1::Level::Final) => Ok(Some(Level::Final)),
        Ok(v1::Level::Attested) => Ok(Some(Level::Attested)),
        Ok(v1::Level::Settled) => Ok(Some(Level::Settled)),
        Err(_) => Err(ConvertError::UnknownValue { field, value }),
    }
}

impl From<Level> for v1::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Accepted => Self::Accepted,
            Level::Ordered => Self::Ordered,
            Level::Final => Self::Final,
            Level::Attested => Self::Attested,
            Level::Settled => Self::Settled,
        }
    }
}

/// An encoded header.
pub fn header(field: &'static str, bytes: &[u8]) -> Result<Header, ConvertError> {
    Header::decode(bytes).map_err(|source| ConvertError::Decode { field, source })
}

impl From<&FinalityProof> for v1::FinalityProof {
    fn from(proof: &FinalityProof) -> Self {
        Self {
            headers: proof.headers.iter().map(|h| to_bytes(h.encode())).collect(),
            certificate: proof.certificate.encode().into(),
        }
    }
}

impl TryFrom<&v1::FinalityProof> for FinalityProof {
    type Error = ConvertError;

    fn try_from(proof: &v1::FinalityProof) -> Result<Self, ConvertError> {
        let (found, max) = (proof.headers.len(), Self::MAX_HEADERS);
        if found == 0 || found > max {
            return Err(ConvertError::Count { field: "finality.headers", found, min: 1, max });
        }
        let headers = proof.headers.iter().map(|h| header("finality.headers", h)).collect::<Result<_, _>>()?;
        let certificate = FinalityCertificate::decode(&proof.certificate)
            .map_err(|source| ConvertError::Decode { field: "finality.certificate", source })?;
        Ok(Self { headers, certificate })
    }
}

/// One rollup's part of one block, with the proof that it is all. Nothing about it has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenSegment {
    /// The block's header.
    pub header: Header,
    /// The rollup's transactions, empty where the block has none.
    pub transactions: Vec<Bytes>,
    /// Shows that these are all.
    pub proof: SegmentProof,
}

impl From<ProvenSegment> for v1::BlockSegment {
    fn from(segment: ProvenSegment) -> Self {
        Self {
            header: to_bytes(segment.header.encode()),
            transactions: segment.transactions.into_iter().map(|tx| tx.0).collect(),
            proof: segment.proof.encode().into(),
        }
    }
}

impl TryFrom<v1::BlockSegment> for ProvenSegment {
    type Error = ConvertError;

    fn try_from(segment: v1::BlockSegment) -> Result<Self, ConvertError> {
        Ok(Self {
            header: header("block.header", &segment.header)?,
            transactions: segment.transactions.into_iter().map(Bytes).collect(),
            proof: SegmentProof::decode(&segment.proof)
                .map_err(|source| ConvertError::Decode { field: "block.proof", source })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;
    use switchyard_primitives::{Block, RollupId, Segment, SegmentTable, SignerBitmap};

    fn block() -> impl Strategy<Value = Block> {
        let txs = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30).prop_map(Bytes::from), 1..5);
        (proptest::collection::btree_map(0u64..20, txs, 0..8), any::<u64>(), any::<[u8; 32]>()).prop_map(
            |(map, height, parent)| {
                let segments =
                    map.into_iter().map(|(id, transactions)| Segment { rollup: RollupId(id), transactions }).collect();
                let mut header = Header::genesis(B256::new(parent), 5, B256::ZERO);
                header.height = height;
                Block::new(header, segments)
            },
        )
    }

    fn proof() -> impl Strategy<Value = FinalityProof> {
        (proptest::collection::vec(block(), 1..4), any::<u64>(), 1u32..70, any::<[u8; 32]>()).prop_map(
            |(blocks, view, seats, hash)| FinalityProof {
                headers: blocks.iter().map(|b| b.header).collect(),
                certificate: FinalityCertificate {
                    epoch: 0,
                    view,
                    parent_view: view / 2,
                    block: B256::new(hash),
                    signers: SignerBitmap::new(seats, (0..seats).filter(|s| s % 3 != 1)),
                    signature: [7; 96],
                },
            },
        )
    }

    proptest! {
        #[test]
        fn a_segment_survives_the_wire(block in block(), id in 0u64..21) {
            let rollup = RollupId(id);
            let segment = ProvenSegment {
                header: block.header,
                transactions: block.transactions(rollup).to_vec(),
                proof: SegmentTable::new(block.segments()).prove(rollup),
            };
            let wire = v1::BlockSegment::from(segment.clone()).encode_to_vec();
            let back = v1::BlockSegment::decode(wire.as_slice()).unwrap();
            prop_assert_eq!(ProvenSegment::try_from(back), Ok(segment));
        }

        #[test]
        fn a_finality_proof_survives_the_wire(proof in proof()) {
            let wire = v1::FinalityProof::from(&proof).encode_to_vec();
            let back = v1::FinalityProof::decode(wire.as_slice()).unwrap();
            prop_assert_eq!(FinalityProof::try_from(&back), Ok(proof));
        }

        #[test]
        fn no_bytes_make_a_conversion_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(wire) = v1::FinalityProof::decode(bytes.as_slice()) {
                let _ = FinalityProof::try_from(&wire);
            }
            if let Ok(wire) = v1::BlockSegment::decode(bytes.as_slice()) {
                let _ = ProvenSegment::try_from(wire);
            }
            let raw = bytes::Bytes::from(bytes);
            let segment = v1::BlockSegment { header: raw.clone(), transactions: vec![], proof: raw.clone() };
            let _ = ProvenSegment::try_from(segment);
            let _ = FinalityProof::try_from(&v1::FinalityProof { headers: vec![raw.clone()], certificate: raw });
        }

        #[test]
        fn a_truncated_field_is_refused_by_its_name(block in block(), proof in proof(), at in any::<prop::sample::Index>()) {
            let segment = v1::BlockSegment::from(ProvenSegment {
                header: block.header,
                transactions: vec![],
                proof: SegmentTable::new(block.segments()).prove(RollupId(3)),
            });
            let cut = |bytes: &bytes::Bytes| bytes.slice(..at.index(bytes.len()));
            let refused = |segment: v1::BlockSegment| ProvenSegment::try_from(segment).unwrap_err().field();
            prop_assert_eq!(refused(v1::BlockSegment { header: cut(&segment.header), ..segment.clone() }), "block.header");
            prop_assert_eq!(refused(v1::BlockSegment { proof: cut(&segment.proof), ..segment.clone() }), "block.proof");

            let wire = v1::FinalityProof::from(&proof);
            let short = v1::FinalityProof { certificate: cut(&wire.certificate), ..wire.clone() };
            prop_assert_eq!(FinalityProof::try_from(&short).unwrap_err().field(), "finality.certificate");
            let mut short = wire.clone();
            short.headers[0] = cut(&wire.headers[0]);
            prop_assert_eq!(FinalityProof::try_from(&short).unwrap_err().field(), "finality.headers");
        }

        #[test]
        fn only_the_six_levels_are_known(value in any::<i32>()) {
            prop_assert_eq!(level("level", value).is_ok(), (0..6).contains(&value));
        }
    }

    #[test]
    fn each_level_survives_the_wire() {
        for known in [Level::Accepted, Level::Ordered, Level::Final, Level::Attested, Level::Settled] {
            assert_eq!(level("level", v1::Level::from(known).into()), Ok(Some(known)));
        }
        assert_eq!(level("level", 0), Ok(None));
    }

    #[test]
    fn a_hash_has_32_bytes() {
        assert!(hash("hash", &[1; 32]).is_ok());
        for found in [0, 31, 33] {
            let error = ConvertError::Length { field: "hash", expected: 32, found };
            assert_eq!(hash("hash", &vec![1; found]), Err(error));
        }
    }

    #[test]
    fn a_finality_proof_has_1_to_1024_headers() {
        let header = to_bytes(Header::genesis(B256::ZERO, 0, B256::ZERO).encode());
        for found in [0, 1025] {
            let wire = v1::FinalityProof { headers: vec![header.clone(); found], certificate: bytes::Bytes::new() };
            let error = ConvertError::Count { field: "finality.headers", found, min: 1, max: 1024 };
            assert_eq!(FinalityProof::try_from(&wire), Err(error));
        }
    }
}
