//! BLS12-381 keys of seats: public keys, and proofs that whoever registers one holds its secret.
//!
//! Aggregated signatures are only sound for keys whose holders have proven possession (rogue-key attacks,
//! draft-irtf-cfrg-bls-signature section 3.3), so every seat's proof is checked before the seat may count.

use crate::{Seat, VOTE_DST};
use alloy_primitives::FixedBytes;
use blst::{
    BLST_ERROR,
    min_pk::{AggregatePublicKey, AggregateSignature, PublicKey, SecretKey, Signature},
};
use switchyard_primitives::B256;

/// Domain of proofs of possession.
pub const POSSESSION_DST: &[u8] = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";

/// Why a key or a proof of possession is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Zero, or not below the group's order. About half of all 32-byte strings are: make another one.
    #[error("not a BLS12-381 secret key: must be between 1 and the group's order, big-endian; generate a new one")]
    Secret,
    /// The proof was not made by the key's holder for this identity.
    #[error("the proof of possession of BLS key {bls} does not verify for identity {identity}")]
    Possession {
        /// The identity that it should be bound to.
        identity: B256,
        /// The key.
        bls: FixedBytes<48>,
    },
}

fn secret_key(secret: &[u8; 32]) -> Result<SecretKey, KeyError> {
    SecretKey::from_bytes(secret).map_err(|_| KeyError::Secret)
}

/// The compressed public key (G1) of a secret: a big-endian scalar, not zero and below the group's order.
pub fn bls_public_key(secret: &[u8; 32]) -> Result<FixedBytes<48>, KeyError> {
    Ok(FixedBytes(secret_key(secret)?.sk_to_pk().compress()))
}

/// A secret from 32 bytes of good randomness (IETF KeyGen), never out of range.
pub fn bls_secret_from_entropy(entropy: &[u8; 32]) -> Result<[u8; 32], KeyError> {
    SecretKey::key_gen(entropy, b"switchyard").map(|k| k.to_bytes()).map_err(|_| KeyError::Secret)
}

/// Signs a vote's bytes ([`crate::Vote::message`]): a compressed G2 signature.
pub fn sign_vote(secret: &[u8; 32], message: &[u8]) -> Result<[u8; 96], KeyError> {
    Ok(secret_key(secret)?.sign(message, VOTE_DST, &[]).compress())
}

/// The sum of signatures; `None` for none, or for bytes that are no signature. Whether they hold is for
/// [`verify_aggregate`] to say.
pub fn aggregate<'a>(signatures: impl IntoIterator<Item = &'a [u8; 96]>) -> Option<[u8; 96]> {
    let mut sum: Option<AggregateSignature> = None;
    for signature in signatures {
        let signature = Signature::sig_validate(signature, false).ok()?;
        match &mut sum {
            None => sum = Some(AggregateSignature::from_signature(&signature)),
            Some(sum) => sum.add_signature(&signature, false).ok()?,
        }
    }
    Some(sum?.to_signature().compress())
}

/// Whether one signature is the sum of those of all keys of each message over that message: a pairing for each message and
/// one more. Sound for different messages or the same one, since every key's possession was proven.
pub fn verify_aggregate(statements: &[(Vec<u8>, Vec<FixedBytes<48>>)], signature: &[u8; 96]) -> bool {
    let key = |keys: &Vec<FixedBytes<48>>| {
        let keys: Result<Vec<PublicKey>, _> = keys.iter().map(|key| PublicKey::uncompress(key.as_slice())).collect();
        let keys = keys.ok()?;
        Some(AggregatePublicKey::aggregate(&keys.iter().collect::<Vec<_>>(), false).ok()?.to_public_key())
    };
    let Some(keys) = statements.iter().map(|(_, keys)| key(keys)).collect::<Option<Vec<_>>>() else { return false };
    let messages: Vec<&[u8]> = statements.iter().map(|(message, _)| message.as_slice()).collect();
    let Ok(signature) = Signature::sig_validate(signature, true) else { return false };
    let verdict = signature.aggregate_verify(false, &messages, VOTE_DST, &keys.iter().collect::<Vec<_>>(), false);
    verdict == BLST_ERROR::BLST_SUCCESS
}

/// `bls 48 | identity 32`. The identity is bound so that nobody can register another's key with the other's proof.
fn possession_message(seat: &Seat) -> [u8; 80] {
    let mut message = [0; 80];
    let (bls, identity) = message.split_at_mut(48);
    bls.copy_from_slice(seat.bls.as_slice());
    identity.copy_from_slice(seat.identity.as_slice());
    message
}

/// Proves that the holder of `identity` holds `secret`: a compressed G2 signature of 96 bytes.
pub fn prove_possession(secret: &[u8; 32], identity: B256) -> Result<FixedBytes<96>, KeyError> {
    let key = secret_key(secret)?;
    let seat = Seat { identity, bls: FixedBytes(key.sk_to_pk().compress()) };
    Ok(FixedBytes(key.sign(&possession_message(&seat), POSSESSION_DST, &[]).compress()))
}

/// Checks a proof of possession; to be done for each seat before it joins a [`crate::SeatSet`].
pub fn verify_possession(seat: &Seat, possession: &FixedBytes<96>) -> Result<(), KeyError> {
    let failed = KeyError::Possession { identity: seat.identity, bls: seat.bls };
    let (Ok(key), Ok(signature)) = (
        blst::min_pk::PublicKey::key_validate(seat.bls.as_slice()),
        Signature::sig_validate(possession.as_slice(), true),
    ) else {
        return Err(failed);
    };
    match signature.verify(false, &possession_message(seat), POSSESSION_DST, &[], &key, false) {
        BLST_ERROR::BLST_SUCCESS => Ok(()),
        _ => Err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> [u8; 32] {
        bls_secret_from_entropy(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_proof_holds_for_its_key_and_identity_only() {
        let identity = B256::repeat_byte(1);
        let seat = Seat { identity, bls: bls_public_key(&secret(1)).unwrap() };
        let proof = prove_possession(&secret(1), identity).unwrap();
        assert_eq!(verify_possession(&seat, &proof), Ok(()));

        let other_identity = Seat { identity: B256::repeat_byte(2), ..seat.clone() };
        assert!(verify_possession(&other_identity, &proof).is_err());
        let other_key = Seat { bls: bls_public_key(&secret(2)).unwrap(), ..seat.clone() };
        assert!(verify_possession(&other_key, &proof).is_err());
        for bit in [0, 7, 400, 767] {
            let mut bad = proof;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_possession(&seat, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn secrets_out_of_range_are_refused() {
        assert_eq!(bls_public_key(&[0; 32]), Err(KeyError::Secret));
        assert_eq!(bls_public_key(&[0xff; 32]), Err(KeyError::Secret));
        let mut one = [0; 32];
        one[31] = 1;
        // The generator of G1, compressed (draft-irtf-cfrg-pairing-friendly-curves, section 4.2.1).
        let generator = "97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac58\
                         6c55e83ff97a1aeffb3af00adb22c6bb";
        assert_eq!(alloy_primitives::hex::encode(bls_public_key(&one).unwrap()), generator);
    }
}
