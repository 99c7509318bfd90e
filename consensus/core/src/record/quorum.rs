//! Signatures of a quorum of an epoch's seats over a record.

use super::RecordError;
use crate::{Committee, keys::KeyError, verify::VOTE_DST};
use alloy_primitives::FixedBytes;
use blst::{
    BLST_ERROR,
    min_pk::{AggregatePublicKey, AggregateSignature, PublicKey, SecretKey, Signature},
};
use std::collections::BTreeSet;
use switchyard_primitives::{B256, SignerBitmap};

/// One validator's signature.
pub(super) fn sign(secret: &[u8; 32], message: &[u8]) -> Result<[u8; 96], KeyError> {
    let key = SecretKey::from_bytes(secret).map_err(|_| KeyError::Secret)?;
    Ok(key.sign(message, VOTE_DST, &[]).compress())
}

/// Adds parts, by identity. Each must verify and be of one of the committee's validators; one that is given twice counts once.
pub(super) fn combine(
    message: &[u8],
    committee: &Committee,
    parts: &[(B256, [u8; 96])],
) -> Result<(SignerBitmap, [u8; 96]), RecordError> {
    let mut sum: Option<AggregateSignature> = None;
    let mut signers = BTreeSet::new();
    for (identity, part) in parts {
        let unknown = RecordError::Unknown { identity: *identity };
        let position = committee.members().iter().position(|m| m.seat.identity == *identity);
        let position = position.ok_or_else(|| unknown.clone())?;
        verify_keys(message, &[committee.members()[position].seat.bls], part)?;
        if !signers.insert(u32::try_from(position).map_err(|_| unknown)?) {
            continue;
        }
        let part = Signature::from_bytes(part).map_err(|_| RecordError::Signature)?;
        match &mut sum {
            None => sum = Some(AggregateSignature::from_signature(&part)),
            Some(sum) => sum.add_signature(&part, false).map_err(|_| RecordError::Signature)?,
        }
    }
    let signature = sum.ok_or(RecordError::Signature)?.to_signature().compress();
    let members = u32::try_from(committee.members().len()).unwrap_or(u32::MAX);
    Ok((SignerBitmap::new(members, signers), signature))
}

/// Checks that validators with a quorum of the committee's seats have signed.
pub(super) fn verify(
    message: &[u8],
    committee: &Committee,
    signers: &SignerBitmap,
    signature: &[u8; 96],
) -> Result<(), RecordError> {
    let members = committee.members();
    let quorum = committee.seats().quorum();
    if usize::try_from(signers.seats()) != Ok(members.len()) {
        return Err(RecordError::Quorum { quorum, found: 0 });
    }
    let signers: Vec<_> = signers.signers().filter_map(|i| members.get(usize::try_from(i).ok()?)).collect();
    let found = signers.iter().map(|m| m.seats as usize).sum();
    if found < quorum {
        return Err(RecordError::Quorum { quorum, found });
    }
    let keys: Vec<_> = signers.iter().map(|m| m.seat.bls).collect();
    verify_keys(message, &keys, signature)
}

/// Checks the signature of all of these keys.
pub(super) fn verify_keys(message: &[u8], keys: &[FixedBytes<48>], signature: &[u8; 96]) -> Result<(), RecordError> {
    let keys: Result<Vec<PublicKey>, _> = keys.iter().map(|key| PublicKey::uncompress(key.as_slice())).collect();
    let keys = keys.map_err(|_| RecordError::Signature)?;
    let signature = Signature::sig_validate(signature, true).map_err(|_| RecordError::Signature)?;
    let key = AggregatePublicKey::aggregate(&keys.iter().collect::<Vec<_>>(), false);
    let key = key.map_err(|_| RecordError::Signature)?.to_public_key();
    match signature.verify(false, message, VOTE_DST, &[], &key, false) {
        BLST_ERROR::BLST_SUCCESS => Ok(()),
        _ => Err(RecordError::Signature),
    }
}
