//! The records of the system rollup that change the hub's state: layout, signatures, and why one is refused.
//!
//! A [`StakeChange`] and an [`Upgrade`] are signed by validators that hold a quorum of an epoch's seats; an [`Update`] by the
//! validator that it is about. They are transactions of the rollup [`RollupId::SYSTEM`] and may be sent by anyone.
//!
//! [`RollupId::SYSTEM`]: switchyard_primitives::RollupId::SYSTEM

mod error;
pub mod quorum;

pub use error::RecordError;

use crate::{
    Committee, Seat,
    keys::{KeyError, sign_vote, verify_possession},
    verify::domain,
};
use alloy_primitives::FixedBytes;
use curve25519_dalek::edwards::CompressedEdwardsY;
use std::net::{IpAddr, SocketAddr};
use switchyard_primitives::{B256, Bytes, DecodeError, Reader, SignerBitmap, Writer};

/// Most changes in one record.
pub const CHANGES_MAX: usize = 64;

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

/// Which protocol version begins at which height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Activation {
    /// The version: the one after that in force, or the one in force to withdraw what was decided before.
    pub protocol: u8,
    /// The first block that follows it: an epoch's first, at the earliest that of the epoch after next. 0 to withdraw.
    pub height: u64,
}

/// The decision that another protocol version begins, signed by a quorum. It takes the place of an earlier one that has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The epoch whose validators sign: that of the block that holds the record, or the one before.
    pub epoch: u64,
    /// Number of quorum-signed records before this one.
    pub serial: u64,
    /// What begins, and when.
    pub activation: Activation,
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
    /// Kind 3.
    Upgrade(Upgrade),
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
        sign_vote(secret, &Self::message(network, epoch, serial, changes))
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
        let (signers, signature) = quorum::combine(&message, committee, parts)?;
        let change = Self { epoch: committee.epoch(), serial, changes, signers, signature };
        change.verify(network, committee)?;
        Ok(change)
    }

    /// Checks the signature, and the keys of those who join.
    pub fn verify(&self, network: B256, committee: &Committee) -> Result<(), RecordError> {
        let message = Self::message(network, self.epoch, self.serial, &self.changes);
        quorum::verify(&message, committee, &self.signers, &self.signature)?;
        for (identity, change) in &self.changes {
            if let Change::Join { bls, possession, .. } = change {
                check_new_key(*identity, *bls, possession)?;
            }
        }
        Ok(())
    }
}

impl Upgrade {
    /// What its signers sign: `domain("_UPGRADE") | epoch u64 | serial u64 | protocol u8 | height u64`.
    pub fn message(network: B256, epoch: u64, serial: u64, activation: Activation) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&domain(network, b"_UPGRADE"));
        w.u64(epoch);
        w.u64(serial);
        w.u8(activation.protocol);
        w.u64(activation.height);
        w.into_vec()
    }

    /// One validator's part of the signature.
    pub fn sign_part(
        network: B256,
        epoch: u64,
        serial: u64,
        activation: Activation,
        secret: &[u8; 32],
    ) -> Result<[u8; 96], KeyError> {
        sign_vote(secret, &Self::message(network, epoch, serial, activation))
    }

    /// The record of these parts, as [`StakeChange::combine`].
    pub fn combine(
        network: B256,
        committee: &Committee,
        serial: u64,
        activation: Activation,
        parts: &[(B256, [u8; 96])],
    ) -> Result<Self, RecordError> {
        let message = Self::message(network, committee.epoch(), serial, activation);
        let (signers, signature) = quorum::combine(&message, committee, parts)?;
        let upgrade = Self { epoch: committee.epoch(), serial, activation, signers, signature };
        upgrade.verify(network, committee)?;
        Ok(upgrade)
    }

    /// Checks the signature.
    pub fn verify(&self, network: B256, committee: &Committee) -> Result<(), RecordError> {
        let message = Self::message(network, self.epoch, self.serial, self.activation);
        quorum::verify(&message, committee, &self.signers, &self.signature)
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
        let signature = sign_vote(secret, &Self::message(network, identity, serial, &kind))?;
        Ok(Self { identity, serial, kind, signature })
    }

    /// Checks the signature against the validator's key, and a new key's proof of possession.
    pub fn verify(&self, network: B256, bls: &FixedBytes<48>) -> Result<(), RecordError> {
        let message = Self::message(network, self.identity, self.serial, &self.kind);
        quorum::verify_keys(&message, &[*bls], &self.signature)?;
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
            Self::Upgrade(Upgrade { epoch, serial, activation, signers, signature }) => {
                w.u8(3);
                w.u64(*epoch);
                w.u64(*serial);
                w.u8(activation.protocol);
                w.u64(activation.height);
                signers.write(&mut w);
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
            3 => Self::Upgrade(Upgrade {
                epoch: r.u64("record.epoch")?,
                serial: r.u64("record.serial")?,
                activation: Activation { protocol: r.u8("upgrade.protocol")?, height: r.u64("upgrade.height")? },
                signers: SignerBitmap::read(&mut r)?,
                signature: r.array("record.signature")?,
            }),
            _ => return Err(DecodeError::Invalid { field: "record.kind", reason: "unknown" }),
        };
        r.finish()?;
        Ok(record)
    }
}
