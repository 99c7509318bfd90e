//! From a payload to a transaction with its sender. Recovering a signature is the most expensive step on a
//! transaction's way, so what admission has recovered, derivation does not recover again.

use alloy::{
    consensus::{
        Transaction, TxEnvelope,
        transaction::{Recovered, SignerRecoverable},
    },
    eips::{Decodable2718, Encodable2718},
};
use alloy_primitives::{Address, Bytes, map::DefaultHashBuilder};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use switchyard_primitives::{TxHash, keccak256};
use switchyard_rollup_core::Rejection;

/// Senders that are remembered: about 4 MiB.
const SENDERS_KEPT: NonZeroUsize = NonZeroUsize::new(1 << 15).unwrap();
/// Signatures worth a thread of their own.
const RECOVERIES_PER_THREAD: usize = 32;
/// Type of EIP-4844 transactions, which rollups do not take.
const BLOB_TYPE: u8 = 3;

/// Decodes payloads for one chain id and remembers their senders by transaction hash.
pub(crate) struct Senders {
    chain_id: u64,
    known: Mutex<LruCache<TxHash, Address, DefaultHashBuilder>>,
}

impl Senders {
    pub(crate) fn new(chain_id: u64) -> Self {
        Self { chain_id, known: Mutex::new(LruCache::with_hasher(SENDERS_KEPT, DefaultHashBuilder::default())) }
    }

    /// Decodes a payload, checks that it was signed for this chain, and recovers its sender. The hash that a remembered
    /// sender is looked up by is that of the payload itself.
    pub(crate) fn recover(&self, payload: &Bytes) -> Result<Recovered<TxEnvelope>, Rejection> {
        self.recover_hashed(keccak256(payload), payload)
    }

    fn recover_hashed(&self, hash: TxHash, payload: &Bytes) -> Result<Recovered<TxEnvelope>, Rejection> {
        let tx = decode(payload)?;
        // A legacy transaction without chain id could be replayed from, and on, every other chain.
        if tx.chain_id() != Some(self.chain_id) {
            return Err(Rejection::WrongChainId { found: tx.chain_id(), expected: self.chain_id });
        }
        if let Some(sender) = self.known.lock().get(&hash) {
            return Ok(Recovered::new_unchecked(tx, *sender));
        }
        let sender = tx.recover_signer().map_err(|_| Rejection::BadSignature)?;
        self.known.lock().put(hash, sender);
        Ok(Recovered::new_unchecked(tx, sender))
    }

    /// [`Self::recover`] for a segment, on as many threads as there are cores; in order.
    pub(crate) fn recover_all(&self, payloads: &[Bytes]) -> Vec<(TxHash, Result<Recovered<TxEnvelope>, Rejection>)> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let share = payloads.len().div_ceil(cores).max(RECOVERIES_PER_THREAD);
        let recover = |payload: &Bytes| {
            let hash = keccak256(payload);
            (hash, self.recover_hashed(hash, payload))
        };
        if payloads.len() <= share {
            return payloads.iter().map(recover).collect();
        }
        std::thread::scope(|scope| {
            let parts: Vec<_> = payloads
                .chunks(share)
                .map(|part| (part, scope.spawn(move || part.iter().map(recover).collect::<Vec<_>>())))
                .collect();
            // A thread cannot fail but by a panic in a library; then its part is done here, where it shows.
            parts
                .into_iter()
                .flat_map(|(part, thread)| thread.join().unwrap_or_else(|_| part.iter().map(recover).collect()))
                .collect()
        })
    }
}

/// Decodes the EIP-2718 envelope of a type that rollups take, in its one canonical encoding.
fn decode(payload: &Bytes) -> Result<TxEnvelope, Rejection> {
    match payload.first() {
        None => return Err(Rejection::Empty),
        Some(&BLOB_TYPE) => return Err(Rejection::UnsupportedType(BLOB_TYPE)),
        // Below 0x80 the byte is a type, from 0xc0 on the header of a legacy transaction's list.
        Some(1 | 2 | 4 | 0xc0..) => {}
        Some(&other) if other < 0x80 => return Err(Rejection::UnsupportedType(other)),
        Some(_) => return Err(Rejection::Malformed("neither a type nor a list".into())),
    }
    let tx = TxEnvelope::decode_2718_exact(payload).map_err(|e| Rejection::Malformed(e.to_string()))?;
    // Otherwise one signature would be good for several hashes, and the block's transactions root for other bytes.
    if tx.encoded_2718() != payload[..] {
        return Err(Rejection::Malformed("not in canonical encoding".into()));
    }
    Ok(tx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::{
        consensus::{SignableTransaction, TxEip1559, TxLegacy},
        primitives::{TxKind, U256},
        signers::{SignerSync, local::PrivateKeySigner},
    };
    use alloy_primitives::Signature;
    use proptest::prelude::*;

    const CHAIN: u64 = 4242;

    fn signer() -> PrivateKeySigner {
        PrivateKeySigner::from_slice(&[7; 32]).unwrap()
    }

    fn transfer(chain_id: u64) -> TxEip1559 {
        TxEip1559 {
            chain_id,
            gas_limit: 21_000,
            max_fee_per_gas: 10,
            to: TxKind::Call(Address::ZERO),
            ..Default::default()
        }
    }

    fn sign(tx: impl SignableTransaction<Signature> + Into<alloy::consensus::TypedTransaction> + Clone) -> Bytes {
        let signature = signer().sign_hash_sync(&tx.signature_hash()).unwrap();
        let typed: alloy::consensus::TypedTransaction = tx.into();
        TxEnvelope::from(typed.into_signed(signature)).encoded_2718().into()
    }

    #[test]
    fn a_sender_is_the_signer_and_the_same_again_from_memory() {
        let senders = Senders::new(CHAIN);
        let payload = sign(transfer(CHAIN));
        for _ in 0..2 {
            let tx = senders.recover(&payload).unwrap();
            assert_eq!(tx.signer(), signer().address());
            assert_eq!(*tx.tx_hash(), keccak256(&payload));
        }
        assert_eq!(senders.known.lock().len(), 1);
    }

    #[test]
    fn a_segment_keeps_its_order_on_many_threads() {
        let senders = Senders::new(CHAIN);
        let payloads: Vec<Bytes> =
            (0..200)
                .map(|nonce| {
                    if nonce % 7 == 0 { Bytes::from(vec![0x80]) } else { sign(TxEip1559 { nonce, ..transfer(CHAIN) }) }
                })
                .collect();
        let all = senders.recover_all(&payloads);
        assert_eq!(all.len(), payloads.len());
        for (nonce, ((hash, tx), payload)) in all.iter().zip(&payloads).enumerate() {
            assert_eq!(*hash, keccak256(payload));
            assert_eq!(tx.as_ref().map(|tx| tx.nonce()).ok(), (nonce % 7 != 0).then_some(nonce as u64));
        }
    }

    #[test]
    fn other_chains_and_unprotected_transactions_are_refused() {
        let senders = Senders::new(CHAIN);
        let other = senders.recover(&sign(transfer(1))).unwrap_err();
        assert_eq!(other, Rejection::WrongChainId { found: Some(1), expected: CHAIN });
        let legacy = TxLegacy { chain_id: None, gas_price: 10, gas_limit: 21_000, ..Default::default() };
        let unprotected = senders.recover(&sign(legacy)).unwrap_err();
        assert_eq!(unprotected, Rejection::WrongChainId { found: None, expected: CHAIN });
    }

    #[test]
    fn types_that_rollups_do_not_take_are_named() {
        let senders = Senders::new(CHAIN);
        assert_eq!(senders.recover(&Bytes::new()).unwrap_err(), Rejection::Empty);
        assert_eq!(senders.recover(&Bytes::from(vec![3, 0xc0])).unwrap_err(), Rejection::UnsupportedType(3));
        assert_eq!(senders.recover(&Bytes::from(vec![0x7e])).unwrap_err(), Rejection::UnsupportedType(0x7e));
        assert!(matches!(senders.recover(&Bytes::from(vec![0xb8, 1])).unwrap_err(), Rejection::Malformed(_)));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = sign(transfer(CHAIN)).to_vec();
        bytes.push(0);
        assert!(matches!(Senders::new(CHAIN).recover(&bytes.into()).unwrap_err(), Rejection::Malformed(_)));
    }

    #[test]
    fn a_high_s_signature_is_refused() {
        let tx = transfer(CHAIN);
        let low = signer().sign_hash_sync(&tx.signature_hash()).unwrap();
        let order =
            U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16).unwrap();
        let high = Signature::new(low.r(), order - low.s(), !low.v());
        let encode = |signature| Bytes::from(TxEnvelope::from(tx.clone().into_signed(signature)).encoded_2718());
        assert!(Senders::new(CHAIN).recover(&encode(low)).is_ok());
        assert_eq!(Senders::new(CHAIN).recover(&encode(high)).unwrap_err(), Rejection::BadSignature);
    }

    proptest! {
        #[test]
        fn no_payload_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Senders::new(CHAIN).recover(&bytes.into());
        }

        #[test]
        fn a_changed_byte_changes_the_sender_or_is_refused(at in 0usize..100, with in 1u8..) {
            let good = sign(transfer(CHAIN));
            let mut bytes = good.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= with;
            let sender = Senders::new(CHAIN).recover(&bytes.into()).map(|tx| tx.signer());
            prop_assert_ne!(sender.ok(), Some(signer().address()));
        }
    }
}
