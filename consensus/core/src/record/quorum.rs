//! Signatures of a quorum of an epoch's seats over a record: of this crate's, and of the bridge's.

use super::RecordError;
use crate::{
    Committee,
    keys::{aggregate, verify_aggregate},
};
use alloy_primitives::FixedBytes;
use std::collections::BTreeMap;
use switchyard_primitives::{B256, SignerBitmap};

/// Adds parts, by identity. Each must verify and be of one of the committee's validators; one that is given twice counts once.
///
/// Returns who signed, by position in the committee, and the sum of their signatures; whether they are a quorum [`verify`] says.
pub fn combine(
    message: &[u8],
    committee: &Committee,
    parts: &[(B256, [u8; 96])],
) -> Result<(SignerBitmap, [u8; 96]), RecordError> {
    let mut signed = BTreeMap::new();
    for (identity, part) in parts {
        let unknown = RecordError::Unknown { identity: *identity };
        let position = committee.members().iter().position(|m| m.seat.identity == *identity);
        let position = position.ok_or_else(|| unknown.clone())?;
        verify_keys(message, &[committee.members()[position].seat.bls], part)?;
        signed.entry(u32::try_from(position).map_err(|_| unknown)?).or_insert(part);
    }
    let signature = aggregate(signed.values().copied()).ok_or(RecordError::Signature)?;
    let members = u32::try_from(committee.members().len()).unwrap_or(u32::MAX);
    Ok((SignerBitmap::new(members, signed.into_keys()), signature))
}

/// Checks that validators with a quorum of the committee's seats have signed: `signers` by position, `signature` the sum of
/// theirs, compressed G2.
pub fn verify(
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
    let holds = verify_aggregate(&[(message.to_vec(), keys.to_vec())], signature);
    if holds { Ok(()) } else { Err(RecordError::Signature) }
}
