//! The shape of a finality certificate. Whether it is true is `switchyard-consensus-core`'s question.

use crate::{B256, DecodeError, Header, Reader, Writer};

/// Which seats signed, by their index in the seat set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerBitmap {
    seats: u32,
    bits: Vec<u8>,
}

impl SignerBitmap {
    /// Most seats that a bitmap can speak of.
    pub const MAX_SEATS: usize = 4096;

    /// The bitmap of `seats` seats in which `signers` are set; those out of range are ignored.
    pub fn new(seats: u32, signers: impl IntoIterator<Item = u32>) -> Self {
        let mut bits = vec![0; (seats as usize).div_ceil(8)];
        for seat in signers.into_iter().filter(|s| *s < seats) {
            bits[seat as usize / 8] |= 1 << (seat % 8);
        }
        Self { seats, bits }
    }

    /// Number of seats in the set.
    pub fn seats(&self) -> u32 {
        self.seats
    }

    /// The seats that signed, ascending.
    pub fn signers(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.seats).filter(|s| self.bits.get(*s as usize / 8).is_some_and(|b| b & (1 << (s % 8)) != 0))
    }

    /// `seats u32 | bitmap`.
    pub fn write(&self, w: &mut Writer) {
        w.u32(self.seats);
        w.raw(&self.bits);
    }

    /// Reads [`Self::write`]'s layout; refuses bits beyond the last seat.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let seats = r.count("certificate.seats", Self::MAX_SEATS)?;
        let bits = r.bytes("certificate.signers", seats.div_ceil(8))?.to_vec();
        if seats % 8 != 0 && bits.last().is_some_and(|last| last >> (seats % 8) != 0) {
            return Err(DecodeError::Invalid { field: "certificate.signers", reason: "a bit beyond the last seat" });
        }
        Ok(Self { seats: u32::try_from(seats).unwrap_or(u32::MAX), bits })
    }
}

/// More than two thirds of the seats have finalised a block: one aggregated BLS12-381 signature (MinPk: keys in G1,
/// signatures in G2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalityCertificate {
    /// The epoch whose seats signed.
    pub epoch: u64,
    /// The view in which the block was proposed.
    pub view: u64,
    /// The view of the proposal's parent.
    pub parent_view: u64,
    /// The block's hash.
    pub block: B256,
    /// Who signed.
    pub signers: SignerBitmap,
    /// Aggregated signature, compressed G2.
    pub signature: [u8; 96],
}

impl FinalityCertificate {
    /// Layout version.
    pub const VERSION: u8 = 1;

    /// `version u8 | epoch u64 | view u64 | parent_view u64 | block 32 | seats u32 | bitmap | signature 96`; bit `i` of the
    /// bitmap is bit `i % 8` (least significant first) of byte `i / 8`.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(160 + self.signers.bits.len());
        w.u8(Self::VERSION);
        w.u64(self.epoch);
        w.u64(self.view);
        w.u64(self.parent_view);
        w.raw(self.block.as_slice());
        self.signers.write(&mut w);
        w.raw(&self.signature);
        w.into_vec()
    }

    /// Reads [`Self::encode`]'s layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(crate::Bytes::copy_from_slice(bytes));
        let version = r.u8("certificate.version")?;
        if version != Self::VERSION {
            return Err(DecodeError::Version { field: "certificate", value: version });
        }
        let certificate = Self {
            epoch: r.u64("certificate.epoch")?,
            view: r.u64("certificate.view")?,
            parent_view: r.u64("certificate.parent_view")?,
            block: r.b256("certificate.block")?,
            signers: SignerBitmap::read(&mut r)?,
            signature: r.array("certificate.signature")?,
        };
        r.finish()?;
        Ok(certificate)
    }
}

/// Shows that a block is final: a certificate for it, or for a descendant together with the headers between them.
///
/// Finalising a block finalises its ancestors, and the engine does not make a certificate for each of those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalityProof {
    /// The headers from the block to the certified one, ascending; at least the block's own.
    pub headers: Vec<Header>,
    /// The certificate for the last header.
    pub certificate: FinalityCertificate,
}

impl FinalityProof {
    /// Most headers between a block and the certificate that finalises it.
    pub const MAX_HEADERS: usize = 1024;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_certificate_survives_its_encoding(
            epoch in any::<u64>(), view in any::<u64>(), parent_view in any::<u64>(), seats in 1u32..200,
            signers in proptest::collection::btree_set(0u32..200, 0..50),
        ) {
            let signers: Vec<u32> = signers.into_iter().filter(|s| *s < seats).collect();
            let certificate = FinalityCertificate {
                epoch, view, parent_view, block: B256::repeat_byte(3),
                signers: SignerBitmap::new(seats, signers.iter().copied()), signature: [9; 96],
            };
            prop_assert_eq!(certificate.signers.signers().collect::<Vec<_>>(), signers);
            prop_assert_eq!(FinalityCertificate::decode(&certificate.encode()).unwrap(), certificate);
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = FinalityCertificate::decode(&bytes);
            let _ = Header::decode(&bytes);
        }
    }
}
