//! What a validator's vote says, and the bytes that it signs: `docs/specs/consensus.md`.

use crate::verify::domain;
use switchyard_primitives::B256;

/// A block that a leader has proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its epoch.
    pub epoch: u64,
    /// The view in which it was proposed.
    pub view: u64,
    /// The view of its parent.
    pub parent_view: u64,
    /// The block's hash.
    pub block: B256,
}

/// A vote in consensus, from which its bytes follow: whoever signs one need not believe another's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// That a proposal is valid.
    Notarize(Proposal),
    /// To give up a view.
    Nullify {
        /// The view's epoch.
        epoch: u64,
        /// The view.
        view: u64,
    },
    /// That a proposal is final.
    Finalize(Proposal),
}

impl Vote {
    /// Epoch and view.
    pub fn round(&self) -> (u64, u64) {
        match *self {
            Self::Notarize(Proposal { epoch, view, .. }) | Self::Finalize(Proposal { epoch, view, .. }) => {
                (epoch, view)
            }
            Self::Nullify { epoch, view } => (epoch, view),
        }
    }

    /// What it says, without its kind and network: `varint(epoch) | varint(view)`, and of a proposal
    /// `varint(parent view) | block 32` too. Varints are unsigned LEB128.
    pub fn content(&self) -> Vec<u8> {
        let (epoch, view) = self.round();
        let mut out = Vec::with_capacity(64);
        push_varint(&mut out, epoch);
        push_varint(&mut out, view);
        if let Self::Notarize(proposal) | Self::Finalize(proposal) = self {
            push_varint(&mut out, proposal.parent_view);
            out.extend_from_slice(proposal.block.as_slice());
        }
        out
    }

    /// The bytes that are signed: `varint(length) | namespace | suffix | content`, where the suffix names the kind
    /// (`_NOTARIZE`, `_NULLIFY`, `_FINALIZE`) and the length is that of `namespace | suffix`.
    pub fn message(&self, network: B256) -> Vec<u8> {
        let suffix: &[u8] = match self {
            Self::Notarize(_) => b"_NOTARIZE",
            Self::Nullify { .. } => b"_NULLIFY",
            Self::Finalize(_) => b"_FINALIZE",
        };
        [domain(network, suffix), self.content()].concat()
    }
}

/// Unsigned LEB128.
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;

    #[test]
    fn varints_are_leb128() {
        let encoded = |value| {
            let mut out = Vec::new();
            push_varint(&mut out, value);
            hex::encode(out)
        };
        // Vectors of the WebAssembly and DWARF specifications.
        for (value, bytes) in [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (624_485, "e58e26")] {
            assert_eq!(encoded(value), bytes);
        }
        assert_eq!(encoded(u64::MAX), "ffffffffffffffffff01");
    }
}
