//! The layouts of the database's records.

use crate::store::{Column, StateError};
use alloy::consensus::{Header, ReceiptEnvelope, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, U256, hex};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Sealing, TxOutcome, evm::ExecutedBlock};

/// The version of the layouts in this file. Raise it with any change to them, or to the derivation rules.
pub(crate) const FORMAT: u32 = 2;

pub(crate) const IDENTITY: &[u8] = b"identity";
pub(crate) const PROGRESS: &[u8] = b"progress";
/// Number of the first block with a state, `u64`; absent: genesis.
pub(crate) const BASE: &[u8] = b"base";

/// Longest reason that is kept for a skipped transaction.
const REASON_BYTES_MAX: usize = 256;

/// Which rollup a database belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct Identity {
    /// [`FORMAT`] of the version that made it. The first field in every version.
    pub(crate) format: u32,
    pub(crate) rollup: u64,
    pub(crate) chain_id: u64,
    pub(crate) genesis: B256,
    /// 0: each hub block; 1: one second.
    pub(crate) sealing: u8,
}

impl Identity {
    pub(crate) fn new(rollup: RollupId, chain_id: u64, genesis: B256, sealing: Sealing) -> Self {
        let sealing = match sealing {
            Sealing::HubBlock => 0,
            Sealing::OneSecond => 1,
        };
        Self { format: FORMAT, rollup: rollup.0, chain_id, genesis, sealing }
    }

    /// The format version alone, readable whatever follows it.
    pub(crate) fn format_of(bytes: &[u8]) -> Option<u32> {
        let mut payload = alloy_rlp::Header::decode_bytes(&mut &*bytes, true).ok()?;
        u32::decode(&mut payload).ok()
    }
}

/// How far derivation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct Progress {
    /// The first hub height that has not been applied.
    pub(crate) next_hub_height: u64,
    /// The newest rollup block.
    pub(crate) head: u64,
    /// Transactions of the first pending hub block that are in a rollup block already.
    pub(crate) pending_taken: u64,
}

/// A header as stored, with what a scan needs beside it.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct HeaderRecord {
    pub(crate) hash: B256,
    pub(crate) hub_height: u64,
    pub(crate) header: Header,
}

/// What a block has besides its header.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct BodyRecord {
    pub(crate) transactions: Vec<TxEnvelope>,
    pub(crate) senders: Vec<Address>,
    pub(crate) receipts: Vec<ReceiptEnvelope>,
}

/// The transactions of one hub block that wait for their rollup block.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct PendingRecord {
    pub(crate) hub_hash: B256,
    pub(crate) timestamp_ms: u64,
    pub(crate) transactions: Vec<Bytes>,
}

pub(crate) fn decode<T: Decodable>(column: Column, key: &[u8], bytes: &[u8]) -> Result<T, StateError> {
    alloy_rlp::decode_exact(bytes).map_err(|e| corrupt(column, key, e))
}

pub(crate) fn corrupt(column: Column, key: &[u8], reason: impl ToString) -> StateError {
    StateError::Corrupt { column: column.name(), key: hex::encode(key), reason: reason.to_string() }
}

pub(crate) fn slot_key(address: Address, slot: U256) -> [u8; 52] {
    let mut key = [0; 52];
    key[..20].copy_from_slice(address.as_slice());
    key[20..].copy_from_slice(&slot.to_be_bytes::<32>());
    key
}

pub(crate) fn executed_block(record: HeaderRecord, body: BodyRecord) -> ExecutedBlock {
    let HeaderRecord { hash, hub_height, header } = record;
    let BodyRecord { transactions, senders, receipts } = body;
    ExecutedBlock { header, hash, hub_height, transactions, senders, receipts }
}

/// `0 | block u64 | index u32 | success u8` or `1 | reason`.
pub(crate) fn encode_outcome(outcome: &TxOutcome) -> Vec<u8> {
    match outcome {
        TxOutcome::Executed { block, index, success } => {
            let mut bytes = Vec::with_capacity(14);
            bytes.push(0);
            bytes.extend_from_slice(&block.to_be_bytes());
            bytes.extend_from_slice(&index.to_be_bytes());
            bytes.push(u8::from(*success));
            bytes
        }
        TxOutcome::Skipped { reason } => {
            let end = (0..=reason.len().min(REASON_BYTES_MAX)).rev().find(|i| reason.is_char_boundary(*i)).unwrap_or(0);
            [&[1], &reason.as_bytes()[..end]].concat()
        }
    }
}

pub(crate) fn decode_outcome(key: &[u8], bytes: &[u8]) -> Result<TxOutcome, StateError> {
    let bad = || corrupt(Column::Transactions, key, "not an outcome");
    match bytes.split_first().ok_or_else(bad)? {
        (0, rest) => {
            let (block, rest) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
            let (index, rest) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
            let [success] = rest else { return Err(bad()) };
            Ok(TxOutcome::Executed {
                block: u64::from_be_bytes(*block),
                index: u32::from_be_bytes(*index),
                success: *success == 1,
            })
        }
        (1, reason) => Ok(TxOutcome::Skipped { reason: String::from_utf8_lossy(reason).into_owned() }),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_outcome_survives_its_encoding(block in any::<u64>(), index in any::<u32>(), success in any::<bool>(), reason in "\\PC{0,80}") {
            for outcome in [TxOutcome::Executed { block, index, success }, TxOutcome::Skipped { reason }] {
                prop_assert_eq!(decode_outcome(&[], &encode_outcome(&outcome)).unwrap(), outcome);
            }
        }

        #[test]
        fn decoding_records_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_outcome(&[], &bytes);
            let _ = Identity::format_of(&bytes);
            let _ = decode::<Identity>(Column::Meta, &[], &bytes);
            let _ = decode::<Progress>(Column::Meta, &[], &bytes);
            let _ = decode::<HeaderRecord>(Column::Headers, &[], &bytes);
            let _ = decode::<BodyRecord>(Column::Bodies, &[], &bytes);
            let _ = decode::<PendingRecord>(Column::Pending, &[], &bytes);
            let _ = decode::<U256>(Column::Storage, &[], &bytes);
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = "é".repeat(REASON_BYTES_MAX);
        let TxOutcome::Skipped { reason: kept } =
            decode_outcome(&[], &encode_outcome(&TxOutcome::Skipped { reason: reason.clone() })).unwrap()
        else {
            panic!("skipped stays skipped")
        };
        assert!(kept.len() <= REASON_BYTES_MAX && reason.starts_with(&kept) && !kept.is_empty());
    }

    #[test]
    fn a_newer_format_is_recognised_whatever_follows() {
        let mut newer = Identity::new(RollupId(7), 1, B256::ZERO, Sealing::HubBlock);
        newer.format = 9;
        assert_eq!(Identity::format_of(&alloy_rlp::encode(newer)), Some(9));
        let other: Vec<u64> = vec![9, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(Identity::format_of(&alloy_rlp::encode(other)), Some(9));
    }
}
