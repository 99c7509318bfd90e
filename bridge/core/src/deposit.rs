//! Native coin that comes to a rollup from outside: `docs/specs/deposits.md`.

use crate::BridgeRecord;
use alloy_primitives::Address;
use switchyard_consensus_core::{
    Committee, domain,
    keys::{KeyError, sign_vote},
    record::{RecordError, quorum},
};
use switchyard_primitives::{B256, Bytes, DecodeError, Reader, RollupId, SignerBitmap, Writer};

/// Coin for one account. An EVM rollup's block brings it as a withdrawal of EIP-4895, whose unit is the Gwei too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deposit {
    /// Who gets it.
    pub recipient: Address,
    /// How much, in Gwei (10^9 wei); not zero.
    pub gwei: u64,
}

/// Deposits for one rollup, signed by a quorum of an epoch's seats: as long as no settlement chain is connected whose blocks say what
/// is locked for the rollup, they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposits {
    /// The rollup.
    pub rollup: RollupId,
    /// The epoch whose validators sign: that of the block that holds the record, or the one before.
    pub epoch: u64,
    /// Number of the rollup's deposits before these: so none is made twice, and none left out.
    pub first: u64,
    /// 1 to [`Self::MAX`] deposits.
    pub deposits: Vec<Deposit>,
    /// Which of the committee's validators signed, by position.
    pub signers: SignerBitmap,
    /// The sum of their signatures, compressed G2.
    pub signature: [u8; 96],
}

impl Deposits {
    /// Most deposits of one record.
    pub const MAX: usize = 16;

    /// What its signers sign: `domain("_DEPOSIT") | rollup u64 | epoch u64 | first u64 | count u32 | ( recipient 20 | gwei u64 ) *`.
    pub fn message(network: B256, rollup: RollupId, epoch: u64, first: u64, deposits: &[Deposit]) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&domain(network, b"_DEPOSIT"));
        write_fields(&mut w, rollup, epoch, first, deposits);
        w.into_vec()
    }

    /// One validator's part of the signature, with the key of its votes.
    pub fn sign_part(
        network: B256,
        (rollup, epoch, first): (RollupId, u64, u64),
        deposits: &[Deposit],
        secret: &[u8; 32],
    ) -> Result<[u8; 96], KeyError> {
        sign_vote(secret, &Self::message(network, rollup, epoch, first, deposits))
    }

    /// The record of these parts, by identity. Parts that do not verify, or that are not of the committee's validators, are
    /// named in the error.
    pub fn combine(
        network: B256,
        committee: &Committee,
        (rollup, first): (RollupId, u64),
        deposits: Vec<Deposit>,
        parts: &[(B256, [u8; 96])],
    ) -> Result<Self, RecordError> {
        let epoch = committee.epoch();
        let message = Self::message(network, rollup, epoch, first, &deposits);
        let (signers, signature) = quorum::combine(&message, committee, parts)?;
        let record = Self { rollup, epoch, first, deposits, signers, signature };
        record.verify(network, committee)?;
        Ok(record)
    }

    /// Checks the signature.
    pub fn verify(&self, network: B256, committee: &Committee) -> Result<(), RecordError> {
        let message = Self::message(network, self.rollup, self.epoch, self.first, &self.deposits);
        quorum::verify(&message, committee, &self.signers, &self.signature)
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        write_fields(w, self.rollup, self.epoch, self.first, &self.deposits);
        self.signers.write(w);
        w.raw(&self.signature);
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let rollup = RollupId(r.u64("deposits.rollup")?);
        let (epoch, first) = (r.u64("deposits.epoch")?, r.u64("deposits.first")?);
        let count = r.count("deposits", Self::MAX)?;
        if count == 0 {
            return Err(DecodeError::Invalid { field: "deposits", reason: "none" });
        }
        let mut deposits = Vec::with_capacity(count);
        for _ in 0..count {
            let deposit =
                Deposit { recipient: Address::new(r.array("deposit.recipient")?), gwei: r.u64("deposit.gwei")? };
            if deposit.gwei == 0 {
                return Err(DecodeError::Invalid { field: "deposit.gwei", reason: "zero" });
            }
            deposits.push(deposit);
        }
        let (signers, signature) = (SignerBitmap::read(r)?, r.array("deposits.signature")?);
        Ok(Self { rollup, epoch, first, deposits, signers, signature })
    }
}

fn write_fields(w: &mut Writer, rollup: RollupId, epoch: u64, first: u64, deposits: &[Deposit]) {
    w.u64(rollup.0);
    w.u64(epoch);
    w.u64(first);
    w.count(deposits.len());
    for Deposit { recipient, gwei } in deposits {
        w.raw(recipient.as_slice());
        w.u64(*gwei);
    }
}

/// The deposits for a rollup among a final block's records, each with its number, ascending.
pub fn deposits_of(records: &[Bytes], rollup: RollupId) -> Vec<(u64, Deposit)> {
    let records = records.iter().filter(|record| BridgeRecord::is_deposits(record));
    let records = records.filter_map(|record| match BridgeRecord::decode(record) {
        Ok(BridgeRecord::Deposits(deposits)) => Some(deposits),
        _ => None,
    });
    records.filter(|record| record.rollup == rollup).flat_map(|record| (record.first..).zip(record.deposits)).collect()
}
