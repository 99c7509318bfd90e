//! The records of the system rollup that change the stake table: layout, signatures, and why one is refused.
//!
//! A [`StakeChange`] is signed by validators that hold a quorum of an epoch's seats; an [`Update`] by the validator that it is
//! about. Both are transactions of the rollup [`RollupId::SYSTEM`] and may be sent by anyone.
//!
//! [`RollupId::SYSTEM`]: switchyard_primitives::RollupId::SYSTEM

use crate::{
    Committee, Seat, SeatError,
    keys::{KeyError, verify_possession},
    verify::{VOTE_DST, domain},
};
use alloy_primitives::FixedBytes;
use blst::{
    BLST_ERROR,
    min_pk::{AggregatePublicKey, AggregateSignature, PublicKey, SecretKey, Signature},
};
use curve25519_dalek::edwards::CompressedEdwardsY;
use std::net::{IpAddr, SocketAddr};
use switchyard_primitives::{B256, Bytes, DecodeError, Reader, SignerBitmap, Writer};

/// Most changes in one record.
pub const CHANGES_MAX: usize = 64;

/// Why a record is refused. A block that holds such a record is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are not a record.
    #[error("malformed record: {0}")]
    Malformed(#[from] DecodeError),
    /// The block's header says something else of the hub's state than the log does.
    #[error("block {height}: its epoch, system root or next seats are not those that follow from the log")]
    Header {
        /// The block's height.
        height: u64,
    },
    /// More records than a block may hold.
    #[error("{found} records in one block, at most 16")]
    TooMany {
        /// Records found.
        found: usize,
    },
    /// Made for another state: an earlier one (it is in the log already, or another one came first) or a later one.
    #[error("serial {found}, the next one is {expected}")]
    Serial {
        /// The number it must have.
        expected: u64,
        /// The number it has.
        found: u64,
    },
    /// Signed by the validators of an epoch that is neither this one nor the one before.
    #[error("signed by the validators of epoch {found}, the epoch is {current}; sign it anew")]
    Epoch {
        /// The block's epoch.
        current: u64,
        /// The record's.
        found: u64,
    },
    /// No such validator.
    #[error("{identity} is not in the stake table")]
    Unknown {
        /// The identity.
        identity: B256,
    },
    /// A validator that joins is there already.
    #[error("{identity} is in the stake table already")]
    Known {
        /// The identity.
        identity: B256,
    },
    /// The identity is not an ed25519 key.
    #[error("{identity} is not an ed25519 public key")]
    Identity {
        /// The identity.
        identity: B256,
    },
    /// Another validator, or this one, has the BLS key.
    #[error("BLS key {bls} is in the stake table already")]
    KeyTaken {
        /// The key.
        bls: FixedBytes<48>,
    },
    /// The BLS key's proof of possession does not hold.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The table is full.
    #[error("the stake table would have more than 1024 validators")]
    Full,
    /// No validator with stake would be left.
    #[error("no validator with stake would be left")]
    NobodyLeft,
    /// Signed by validators with too few seats.
    #[error("signed by validators with {found} seats, {quorum} are needed")]
    Quorum {
        /// Seats needed.
        quorum: usize,
        /// Seats of the signers.
        found: usize,
    },
    /// The signature is not that of the named signers over this record.
    #[error("the signature does not verify")]
    Signature,
    /// No seats follow from the table.
    #[error(transparent)]
    Seats(#[from] SeatError),
}

impl RecordError {
    /// Whether waiting may help: the record is in order, but not for the present state.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Serial { expected, found } if found > expected)
    }
}

/// What happens to one validator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is taken out of the table.
    Remove,
    /// Its stake from the epoch after next on.
    Stake(u64),
    /// It comes into the table.
    Join {
        /// Its BLS key.
        bls: FixedBytes<48>,
        /// Proof of possession of the key for the identity.
        possession: FixedBytes<96>,
        /// Its stake.
        stake: u64,
        /// Where it listens.
        address: SocketAddr,
    },
}

/// A change of the stake table, signed by a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StakeChange {
    /// The epoch whose validators sign: that of the block that holds the record, or the one before.
    pub epoch: u64,
    /// Number of such records before this one.
    pub serial: u64,
    /// Changes by identity, ascending; 1 to [`CHANGES_MAX`].
    pub changes: Vec<(B256, Change)>,
    /// Which of the committee's validators signed, by position.
    pub signers: SignerBitmap,
    /// The sum of their signatures, compressed G2.
    pub signature: [u8; 96],
}

/// What a validator changes of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// Where it listens, from now on.
    Address(SocketAddr),
    /// What it votes with from the epoch after next on. It must be able to sign with both keys until then.
    Keys {
        /// The new key.
        bls: FixedBytes<48>,
        /// Proof of possession of it for the identity.
        possession: FixedBytes<96>,
    },
    /// Its stake becomes zero: it has no seats from the epoch after next on, and can be removed or given stake again.
    Leave,
}

/// A validator's change of itself, signed with its BLS key in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The validator.
    pub identity: B256,
    /// Number of its updates before this one.
    pub serial: u64,
    /// What changes.
    pub kind: UpdateKind,
    /// Its signature, compressed G2.
    pub signature: [u8; 96],
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Kind 1.
    Stake(StakeChange),
    /// Kind 2.
    Update(Update),
}

pub(crate) fn write_address(w: &mut Writer, address: Option<SocketAddr>) {
    match address {
        None => w.u8(0),
        Some(address) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    w.u8(4);
                    w.raw(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    w.u8(6);
                    w.raw(&ip.octets());
                }
            }
            w.raw(&address.port().to_be_bytes());
        }
    }
}

pub(crate) fn read_address(r: &mut Reader) -> Result<Option<SocketAddr>, DecodeError> {
    let ip: IpAddr = match r.u8("address.kind")? {
        0 => return Ok(None),
        4 => r.array::<4>("address.ip")?.into(),
        6 => r.array::<16>("address.ip")?.into(),
        _ => return Err(DecodeError::Invalid { field: "address.kind", reason: "neither 0, 4 nor 6" }),
    };
    Ok(Some(SocketAddr::new(ip, u16::from_be_bytes(r.array("address.port")?))))
}

fn read_some_address(r: &mut Reader) -> Result<SocketAddr, DecodeError> {
    read_address(r)?.ok_or(DecodeError::Invalid { field: "address", reason: "none" })
}

fn write_changes(w: &mut Writer, changes: &[(B256, Change)]) {
    w.count(changes.len());
    for (identity, change) in changes {
        w.raw(identity.as_slice());
        match change {
            Change::Remove => w.u8(0),
            Change::Stake(stake) => {
                w.u8(1);
                w.u64(*stake);
            }
            Change::Join { bls, possession, stake, address } => {
                w.u8(2);
                w.u64(*stake);
                w.raw(bls.as_slice());
                w.raw(possession.as_slice());
                write_address(w, Some(*address));
            }
        }
    }
}

fn read_changes(r: &mut Reader) -> Result<Vec<(B256, Change)>, DecodeError> {
    let count = r.count("record.changes", CHANGES_MAX)?;
    if count == 0 {
        return Err(DecodeError::Invalid { field: "record.changes", reason: "none" });
    }
    let mut changes: Vec<(B256, Change)> = Vec::with_capacity(count);
    for _ in 0..count {
        let identity = r.b256("change.identity")?;
        if changes.last().is_some_and(|(last, _)| *last >= identity) {
            return Err(DecodeError::Invalid { field: "change.identity", reason: "not in ascending order" });
        }
        let change = match r.u8("change.kind")? {
            0 => Change::Remove,
            1 => Change::Stake(r.u64("change.stake")?),
            2 => {
                let stake = r.u64("change.stake")?;
                let (bls, possession) = (FixedBytes(r.array("change.bls")?), FixedBytes(r.array("change.possession")?));
                Change::Join { bls, possession, stake, address: read_some_address(r)? }
            }
            _ => return Err(DecodeError::Invalid { field: "change.kind", reason: "unknown" }),
        };
        changes.push((identity, change));
    }
    Ok(changes)
}

fn check_new_key(identity: B256, bls: FixedBytes<48>, possession: &FixedBytes<96>) -> Result<(), RecordError> {
    // Whoever cannot be a peer on the network cannot be a validator.
    if CompressedEdwardsY(identity.0).decompress().is_none() {
        return Err(RecordError::Identity { identity });
    }
    Ok(verify_possession(&Seat { identity, bls }, possession)?)
}

fn verify(message: &[u8], keys: &[FixedBytes<48>], signature: &[u8; 96]) -> Result<(), RecordError> {
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

fn sign(secret: &[u8; 32], message: &[u8]) -> Result<[u8; 96], KeyError> {
    let key = SecretKey::from_bytes(secret).map_err(|_| KeyError::Secret)?;
    Ok(key.sign(message, VOTE_DST, &[]).compress())
}

impl StakeChange {
    /// What its signers sign: `domain("_STAKE") | epoch u64 | serial u64 | changes`.
    pub fn message(network: B256, epoch: u64, serial: u64, changes: &[(B256, Change)]) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&domain(network, b"_STAKE"));
        w.u64(epoch);
        w.u64(serial);
        write_changes(&mut w, changes);
        w.into_vec()
    }

    /// One validator's part of the signature.
    pub fn sign_part(
        network: B256,
        epoch: u64,
        serial: u64,
        changes: &[(B256, Change)],
        secret: &[u8; 32],
    ) -> Result<[u8; 96], KeyError> {
        sign(secret, &Self::message(network, epoch, serial, changes))
    }

    /// The record of these parts, by identity. Parts that do not verify, or that are not of the committee's validators, are
    /// named in the error.
    pub fn combine(
        network: B256,
        committee: &Committee,
        serial: u64,
        changes: Vec<(B256, Change)>,
        parts: &[(B256, [u8; 96])],
    ) -> Result<Self, RecordError> {
        let message = Self::message(network, committee.epoch(), serial, &changes);
        let mut sum: Option<AggregateSignature> = None;
        let mut signers = std::collections::BTreeSet::new();
        for (identity, part) in parts {
            let unknown = RecordError::Unknown { identity: *identity };
            let position = committee.members().iter().position(|m| m.seat.identity == *identity);
            let position = position.ok_or_else(|| unknown.clone())?;
            verify(&message, &[committee.members()[position].seat.bls], part)?;
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
        let signers = SignerBitmap::new(members, signers);
        let change = Self { epoch: committee.epoch(), serial, changes, signers, signature };
        change.verify(network, committee)?;
        Ok(change)
    }

    /// Checks the signature, and the keys of those who join.
    pub fn verify(&self, network: B256, committee: &Committee) -> Result<(), RecordError> {
        let members = committee.members();
        let quorum = committee.seats().quorum();
        if usize::try_from(self.signers.seats()) != Ok(members.len()) {
            return Err(RecordError::Quorum { quorum, found: 0 });
        }
        let signers = self.signers.signers().filter_map(|i| members.get(usize::try_from(i).ok()?));
        let signers: Vec<_> = signers.collect();
        let found = signers.iter().map(|m| m.seats as usize).sum();
        if found < quorum {
            return Err(RecordError::Quorum { quorum, found });
        }
        let keys: Vec<_> = signers.iter().map(|m| m.seat.bls).collect();
        verify(&Self::message(network, self.epoch, self.serial, &self.changes), &keys, &self.signature)?;
        for (identity, change) in &self.changes {
            if let Change::Join { bls, possession, .. } = change {
                check_new_key(*identity, *bls, possession)?;
            }
        }
        Ok(())
    }
}

impl Update {
    fn message(network: B256, identity: B256, serial: u64, kind: &UpdateKind) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&domain(network, b"_UPDATE"));
        write_update(&mut w, identity, serial, kind);
        w.into_vec()
    }

    /// Signs with the key that the table has for the validator.
    pub fn sign(
        network: B256,
        identity: B256,
        serial: u64,
        kind: UpdateKind,
        secret: &[u8; 32],
    ) -> Result<Self, KeyError> {
        let signature = sign(secret, &Self::message(network, identity, serial, &kind))?;
        Ok(Self { identity, serial, kind, signature })
    }

    /// Checks the signature against the validator's key, and a new key's proof of possession.
    pub fn verify(&self, network: B256, bls: &FixedBytes<48>) -> Result<(), RecordError> {
        let message = Self::message(network, self.identity, self.serial, &self.kind);
        verify(&message, &[*bls], &self.signature)?;
        match &self.kind {
            UpdateKind::Keys { bls, possession } => check_new_key(self.identity, *bls, possession),
            UpdateKind::Address(_) | UpdateKind::Leave => Ok(()),
        }
    }
}

fn write_update(w: &mut Writer, identity: B256, serial: u64, kind: &UpdateKind) {
    w.raw(identity.as_slice());
    w.u64(serial);
    match kind {
        UpdateKind::Address(address) => {
            w.u8(0);
            write_address(w, Some(*address));
        }
        UpdateKind::Keys { bls, possession } => {
            w.u8(1);
            w.raw(bls.as_slice());
            w.raw(possession.as_slice());
        }
        UpdateKind::Leave => w.u8(2),
    }
}

impl Record {
    /// Layout version.
    pub const VERSION: u8 = 1;

    /// `version u8 | kind u8 | body`: `docs/specs/stake.md`.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(Self::VERSION);
        match self {
            Self::Stake(StakeChange { epoch, serial, changes, signers, signature }) => {
                w.u8(1);
                w.u64(*epoch);
                w.u64(*serial);
                write_changes(&mut w, changes);
                signers.write(&mut w);
                w.raw(signature);
            }
            Self::Update(Update { identity, serial, kind, signature }) => {
                w.u8(2);
                write_update(&mut w, *identity, *serial, kind);
                w.raw(signature);
            }
        }
        w.into_bytes()
    }

    /// Reads [`Self::encode`]'s layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(Bytes::copy_from_slice(bytes));
        let version = r.u8("record.version")?;
        if version != Self::VERSION {
            return Err(DecodeError::Version { field: "record", value: version });
        }
        let record = match r.u8("record.kind")? {
            1 => Self::Stake(StakeChange {
                epoch: r.u64("record.epoch")?,
                serial: r.u64("record.serial")?,
                changes: read_changes(&mut r)?,
                signers: SignerBitmap::read(&mut r)?,
                signature: r.array("record.signature")?,
            }),
            2 => {
                let (identity, serial) = (r.b256("record.identity")?, r.u64("record.serial")?);
                let kind = match r.u8("update.kind")? {
                    0 => UpdateKind::Address(read_some_address(&mut r)?),
                    1 => UpdateKind::Keys {
                        bls: FixedBytes(r.array("update.bls")?),
                        possession: FixedBytes(r.array("update.possession")?),
                    },
                    2 => UpdateKind::Leave,
                    _ => return Err(DecodeError::Invalid { field: "update.kind", reason: "unknown" }),
                };
                Self::Update(Update { identity, serial, kind, signature: r.array("record.signature")? })
            }
            _ => return Err(DecodeError::Invalid { field: "record.kind", reason: "unknown" }),
        };
        r.finish()?;
        Ok(record)
    }
}
