//! The records of the system rollup that are the bridge's.

use crate::{
    attestation::Certificate, bundles::BundleRecord, challenge::Challenge, challenge::Verdict, deposit::Deposits,
    evidence::Evidence, operator::OperatorChange,
};
use switchyard_consensus_core::record::Record;
use switchyard_primitives::{Bytes, DecodeError, Reader, Writer};

/// A record of the bridge; from protocol 3 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeRecord {
    /// Kind 16.
    Operator(OperatorChange),
    /// Kind 17. Made by the block's proposer; at most one in a block.
    Certificate(Certificate),
    /// Kind 18. Made by the block's proposer of what was submitted.
    Bundle(BundleRecord),
    /// Kind 19.
    Evidence(Evidence),
    /// Kind 20.
    Challenge(Challenge),
    /// Kind 21. Made by the block's proposer.
    Verdict(Verdict),
    /// Kind 22.
    Deposits(Deposits),
}

/// The lowest kind of the bridge's records; those below are [`Record`]'s.
const KINDS_FROM: u8 = 16;

impl BridgeRecord {
    /// Whether bytes are to be read as one of these, and not as a [`Record`].
    pub fn is_one(bytes: &[u8]) -> bool {
        matches!(bytes, [Record::VERSION, kind, ..] if *kind >= KINDS_FROM)
    }

    /// Whether bytes are a record that only a block's proposer makes: a certificate, a bundle or a verdict, if they are a record
    /// at all.
    pub fn is_proposers(bytes: &[u8]) -> bool {
        matches!(bytes, [Record::VERSION, 17 | 18 | 21, ..])
    }

    /// Whether bytes are a bundle, if they are a record at all.
    pub fn is_bundle(bytes: &[u8]) -> bool {
        matches!(bytes, [Record::VERSION, 18, ..])
    }

    /// Whether bytes are deposits, if they are a record at all.
    pub fn is_deposits(bytes: &[u8]) -> bool {
        matches!(bytes, [Record::VERSION, 22, ..])
    }

    /// Whether bytes are a certificate, if they are a record at all.
    pub fn is_certificate(bytes: &[u8]) -> bool {
        matches!(bytes, [Record::VERSION, 17, ..])
    }

    /// `version u8 | kind u8 | body`: `docs/specs/checkpoints.md`, `docs/specs/challenges.md`, `docs/specs/deposits.md`.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(Record::VERSION);
        match self {
            Self::Operator(change) => {
                w.u8(16);
                change.write(&mut w);
            }
            Self::Certificate(certificate) => {
                w.u8(17);
                certificate.write(&mut w);
            }
            Self::Bundle(bundle) => {
                w.u8(18);
                bundle.write(&mut w);
            }
            Self::Evidence(evidence) => {
                w.u8(19);
                evidence.write(&mut w);
            }
            Self::Challenge(challenge) => {
                w.u8(20);
                challenge.write(&mut w);
            }
            Self::Verdict(verdict) => {
                w.u8(21);
                verdict.write(&mut w);
            }
            Self::Deposits(deposits) => {
                w.u8(22);
                deposits.write(&mut w);
            }
        }
        w.into_bytes()
    }

    /// Reads [`Self::encode`]'s layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(Bytes::copy_from_slice(bytes));
        let version = r.u8("record.version")?;
        if version != Record::VERSION {
            return Err(DecodeError::Version { field: "record", value: version });
        }
        let record = match r.u8("record.kind")? {
            16 => Self::Operator(OperatorChange::read(&mut r)?),
            17 => Self::Certificate(Certificate::read(&mut r)?),
            18 => Self::Bundle(BundleRecord::read(&mut r)?),
            19 => Self::Evidence(Evidence::read(&mut r)?),
            20 => Self::Challenge(Challenge::read(&mut r)?),
            21 => Self::Verdict(Verdict::read(&mut r)?),
            22 => Self::Deposits(Deposits::read(&mut r)?),
            _ => return Err(DecodeError::Invalid { field: "record.kind", reason: "unknown" }),
        };
        r.finish()?;
        Ok(record)
    }
}
