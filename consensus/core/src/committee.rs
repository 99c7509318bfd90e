//! The validators of one epoch and the seats that each of them holds.

use crate::{Seat, SeatError, SeatSet};
use alloy_primitives::FixedBytes;
use blst::min_pk::{AggregatePublicKey, PublicKey, SecretKey};
use curve25519_dalek::edwards::CompressedEdwardsY;
use switchyard_primitives::{B256, keccak256};

/// A validator with seats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity and BLS key: those of its first seat.
    pub seat: Seat,
    /// How many seats it holds; at least one.
    pub seats: u32,
}

/// The validators of an epoch, ascending by identity, and the seats that follow from them.
///
/// A validator's first seat is its identity and its key. Its further seats have keys that everyone derives from those
/// ([`seat_of`]), so a set of seats is all that a certificate is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committee {
    epoch: u64,
    members: Vec<Member>,
    seats: SeatSet,
    /// Of each seat: its validator's position in `members`, and which of its seats it is.
    owners: Vec<(u32, u32)>,
}

impl Committee {
    /// The committee of these validators. Those without seats must have been left out.
    pub fn new(epoch: u64, mut members: Vec<Member>) -> Result<Self, SeatError> {
        members.sort_by_key(|m| m.seat.identity);
        let total = members.iter().fold(0u64, |sum, m| sum.saturating_add(m.seats.into()));
        if total > switchyard_primitives::SignerBitmap::MAX_SEATS as u64 {
            return Err(SeatError::Count(usize::try_from(total).unwrap_or(usize::MAX)));
        }
        let mut seats = Vec::new();
        for (owner, member) in (0u32..).zip(&members) {
            for number in 0..member.seats {
                seats.push((seat_of(&member.seat, number)?, (owner, number)));
            }
        }
        seats.sort_by_key(|(seat, _)| seat.identity);
        let (seats, owners) = seats.into_iter().unzip();
        Ok(Self { epoch, members, seats: SeatSet::new(seats)?, owners })
    }

    /// One seat for each.
    pub fn of_equals(epoch: u64, seats: impl IntoIterator<Item = Seat>) -> Result<Self, SeatError> {
        Self::new(epoch, seats.into_iter().map(|seat| Member { seat, seats: 1 }).collect())
    }

    /// Its epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The validators, ascending by identity.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this identity.
    pub fn member(&self, identity: &B256) -> Option<&Member> {
        self.members.binary_search_by_key(identity, |m| m.seat.identity).ok().map(|i| &self.members[i])
    }

    /// The seats, as certificates speak of them.
    pub fn seats(&self) -> &SeatSet {
        &self.seats
    }

    /// Of the seat at an index: its validator, and which of the validator's seats it is, from 0.
    pub fn owner(&self, seat: u32) -> Option<(&Member, u32)> {
        let (owner, number) = self.owners.get(usize::try_from(seat).ok()?)?;
        Some((self.members.get(usize::try_from(*owner).ok()?)?, *number))
    }
}

/// The scalar that moves a validator's key to the key of its seat `number`: IETF KeyGen over a hash of both, so it is in
/// range.
fn tweak(bls: &FixedBytes<48>, number: u32) -> Result<SecretKey, SeatError> {
    let entropy = keccak256([b"switchyard seat key".as_slice(), bls.as_slice(), &number.to_be_bytes()].concat());
    SecretKey::key_gen(entropy.as_slice(), b"switchyard seat").map_err(|_| SeatError::InvalidBls(*bls))
}

/// The scalar of [`seat_of`], 32 bytes big-endian: the seat's secret is the validator's plus this, and so the seat's
/// signature of a message the validator's plus what this scalar signs. `None` for the first seat, which is moved by nothing.
pub fn seat_tweak(validator: &Seat, number: u32) -> Result<Option<[u8; 32]>, SeatError> {
    if number == 0 { Ok(None) } else { tweak(&validator.bls, number).map(|t| Some(t.to_bytes())) }
}

/// The seat `number` of a validator, from 0.
///
/// Further seats: BLS key `K + t G1` with `t` from the key and the number; identity the first hash of identity, number and a
/// counter that is a point of ed25519, with which nobody signs. Whoever has proven possession of `K` possesses all of them.
pub fn seat_of(validator: &Seat, number: u32) -> Result<Seat, SeatError> {
    if number == 0 {
        return Ok(validator.clone());
    }
    let invalid = |_| SeatError::InvalidBls(validator.bls);
    let key = PublicKey::key_validate(validator.bls.as_slice()).map_err(invalid)?;
    let moved = tweak(&validator.bls, number)?.sk_to_pk();
    let key = AggregatePublicKey::aggregate(&[&key, &moved], false).map_err(invalid)?.to_public_key();
    let preimage = [b"switchyard seat".as_slice(), validator.identity.as_slice(), &number.to_be_bytes()].concat();
    let candidates = (0..=u8::MAX).map(|counter| keccak256([preimage.as_slice(), &[counter]].concat()));
    // Every second hash is a point.
    let identity = candidates.into_iter().find(|hash| CompressedEdwardsY(hash.0).decompress().is_some());
    let identity = identity.ok_or(SeatError::DuplicateIdentity(validator.identity))?;
    Ok(Seat { identity, bls: FixedBytes(key.compress()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{bls_public_key, bls_secret_from_entropy};
    use blst::min_pk::{AggregateSignature, Signature};

    fn secret(byte: u8) -> [u8; 32] {
        bls_secret_from_entropy(&[byte; 32]).unwrap()
    }

    fn member(byte: u8, seats: u32) -> Member {
        let seat = Seat { identity: B256::repeat_byte(byte), bls: bls_public_key(&secret(byte)).unwrap() };
        Member { seat, seats }
    }

    #[test]
    fn a_validators_signature_becomes_that_of_each_of_its_seats() {
        let Member { seat: validator, .. } = member(1, 3);
        let (message, dst) = (b"a vote", crate::VOTE_DST);
        let own: Signature = SecretKey::from_bytes(&secret(1)).unwrap().sign(message, dst, &[]);
        for number in 0..3 {
            let seat = seat_of(&validator, number).unwrap();
            let mut signature = AggregateSignature::from_signature(&own);
            if let Some(tweak) = seat_tweak(&validator, number).unwrap() {
                let part = SecretKey::from_bytes(&tweak).unwrap().sign(message, dst, &[]);
                signature.add_signature(&part, false).unwrap();
            }
            let key = PublicKey::key_validate(seat.bls.as_slice()).unwrap();
            let verdict = signature.to_signature().verify(true, message, dst, &[], &key, false);
            assert_eq!(verdict, blst::BLST_ERROR::BLST_SUCCESS, "seat {number}");
        }
    }

    #[test]
    fn every_seat_has_an_owner() {
        let committee = Committee::new(7, vec![member(3, 1), member(1, 4), member(2, 2)]).unwrap();
        assert_eq!(committee.seats().seats().len(), 7);
        assert_eq!(committee.epoch(), 7);
        let mut counts = std::collections::BTreeMap::new();
        for (index, seat) in (0u32..).zip(committee.seats().seats()) {
            let (owner, number) = committee.owner(index).unwrap();
            assert_eq!(seat_of(&owner.seat, number).unwrap(), *seat);
            *counts.entry(owner.seat.identity).or_insert(0) += 1;
        }
        for member in committee.members() {
            assert_eq!(counts[&member.seat.identity], member.seats);
            assert_eq!(committee.member(&member.seat.identity), Some(member));
        }
        assert_eq!(committee.owner(7), None);
        assert_eq!(committee.member(&B256::ZERO), None);
    }

    #[test]
    fn too_many_seats_are_refused_before_they_are_made() {
        let refused = Committee::new(0, vec![member(1, u32::MAX), member(2, u32::MAX)]);
        assert!(matches!(refused, Err(SeatError::Count(_))));
        assert_eq!(Committee::new(0, vec![]), Err(SeatError::Count(0)));
    }
}
