//! The layouts of the database's records.

use crate::store::{Column, StateError};
use alloy::{
    consensus::{Header, ReceiptEnvelope, TxEnvelope},
    eips::eip4895::Withdrawal,
};
use alloy_primitives::{Address, B256, Bytes, U256, hex};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
use switchyard_bridge_core::{Ballot, Checkpoint, Message, MessageKind, Vote, votes_root};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{
    Sealing, TxOutcome,
    evm::{Attestable, ExecutedBlock, SentMessage},
};

/// The version of the layouts in this file. Raise it with any change to them, or to the derivation rules.
pub(crate) const FORMAT: u32 = 4;
/// The oldest version that can be made into this one, which opening does. 2 is 3 without all that has to do with other rollups, 3 is 4
/// without deposits.
pub(crate) const FORMAT_OLDEST: u32 = 2;

pub(crate) const IDENTITY: &[u8] = b"identity";
pub(crate) const PROGRESS: &[u8] = b"progress";
/// Number of the first block with a state, `u64`; absent: genesis.
pub(crate) const BASE: &[u8] = b"base";
/// Index of the first message that was sent in blocks that this database has the logs of, `u64`.
pub(crate) const OUTBOX_FIRST: &[u8] = b"outbox first";

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
#[rlp(trailing(canonical))]
pub(crate) struct BodyRecord {
    pub(crate) transactions: Vec<TxEnvelope>,
    pub(crate) senders: Vec<Address>,
    pub(crate) receipts: Vec<ReceiptEnvelope>,
    /// Absent where there are none.
    pub(crate) withdrawals: Option<Vec<Withdrawal>>,
}

impl From<&ExecutedBlock> for BodyRecord {
    fn from(block: &ExecutedBlock) -> Self {
        let ExecutedBlock { transactions, senders, receipts, withdrawals, .. } = block.clone();
        let withdrawals = Some(withdrawals).filter(|withdrawals| !withdrawals.is_empty());
        Self { transactions, senders, receipts, withdrawals }
    }
}

/// The transactions of one hub block that wait for their rollup block.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
#[rlp(trailing(canonical))]
pub(crate) struct PendingRecord {
    pub(crate) hub_hash: B256,
    pub(crate) timestamp_ms: u64,
    pub(crate) transactions: Vec<Bytes>,
    /// Absent in format 2: zero.
    pub(crate) hub_root: Option<B256>,
    /// Absent in format 2: none.
    pub(crate) legs: Option<Vec<LegRecord>>,
}

impl PendingRecord {
    /// Without what comes after its first `len` transactions.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.transactions.truncate(len);
        if let Some(legs) = &mut self.legs {
            legs.retain(|leg| leg.index < len as u64);
        }
    }
}

/// A transaction of a [`PendingRecord`] that is a leg of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct LegRecord {
    /// Position of its transaction in the record.
    pub(crate) index: u64,
    /// Its place among the hub block's legs.
    pub(crate) place: u32,
    pub(crate) bundle: B256,
    pub(crate) leg: u8,
}

/// A vote, of a checkpoint or waiting for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct VoteRecord {
    bundle: B256,
    leg: u8,
    /// 0 no, 1 yes, 2 stray.
    ballot: u8,
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        let ballot = match vote.ballot {
            Ballot::No => 0,
            Ballot::Yes => 1,
            Ballot::Stray => 2,
        };
        Self { bundle: vote.bundle, leg: vote.leg, ballot }
    }
}

impl VoteRecord {
    pub(crate) fn vote(&self, column: Column, key: &[u8]) -> Result<Vote, StateError> {
        let ballot = match self.ballot {
            0 => Ballot::No,
            1 => Ballot::Yes,
            2 => Ballot::Stray,
            other => return Err(corrupt(column, key, format!("no ballot: {other}"))),
        };
        Ok(Vote { bundle: self.bundle, leg: self.leg, ballot })
    }
}

/// What a checkpoint says besides rollup and number, with its votes.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct CheckpointRecord {
    hub_height: u64,
    block_hash: B256,
    state_root: B256,
    outbox_root: B256,
    votes: Vec<VoteRecord>,
}

impl From<&Attestable> for CheckpointRecord {
    fn from(Attestable { checkpoint, votes }: &Attestable) -> Self {
        Self {
            hub_height: checkpoint.hub_height,
            block_hash: checkpoint.block_hash,
            state_root: checkpoint.state_root,
            outbox_root: checkpoint.outbox_root,
            votes: votes.iter().map(Into::into).collect(),
        }
    }
}

impl CheckpointRecord {
    pub(crate) fn attestable(self, rollup: RollupId, number: u64) -> Result<Attestable, StateError> {
        let vote = |vote: &VoteRecord| vote.vote(Column::Checkpoints, &number.to_be_bytes());
        let votes = self.votes.iter().map(vote).collect::<Result<Vec<_>, _>>()?;
        let Self { hub_height, block_hash, state_root, outbox_root, .. } = self;
        let votes_root = votes_root(&votes);
        let checkpoint = Checkpoint { rollup, number, hub_height, block_hash, state_root, outbox_root, votes_root };
        Ok(Attestable { checkpoint, votes })
    }
}

/// A message that the rollup has sent.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct MessageRecord {
    /// Number of the rollup block.
    block: u64,
    kind: u8,
    source: u64,
    source_chain: u64,
    destination: u64,
    destination_chain: u64,
    index: u64,
    previous: u64,
    deadline: u64,
    gas_limit: u64,
    sender: B256,
    recipient: B256,
    refund: B256,
    value: u128,
    received: u128,
    pub(crate) payload_hash: B256,
    pub(crate) payload: Bytes,
}

impl MessageRecord {
    pub(crate) fn new(m: &Message, payload: Bytes, block: u64) -> Self {
        Self {
            block,
            kind: match m.kind {
                MessageKind::Call => 0,
                MessageKind::Transfer => 1,
                MessageKind::Notice => 2,
            },
            source: m.source.0,
            source_chain: m.source_chain,
            destination: m.destination.0,
            destination_chain: m.destination_chain,
            index: m.index,
            previous: m.previous,
            deadline: m.deadline,
            gas_limit: m.gas_limit,
            sender: m.sender,
            recipient: m.recipient,
            refund: m.refund,
            value: m.value,
            received: m.received,
            payload_hash: m.payload_hash,
            payload,
        }
    }

    /// The key in its column.
    pub(crate) fn key(&self) -> [u8; 8] {
        self.index.to_be_bytes()
    }

    pub(crate) fn sent(self) -> Result<SentMessage, StateError> {
        let message = Message {
            kind: match self.kind {
                0 => MessageKind::Call,
                1 => MessageKind::Transfer,
                2 => MessageKind::Notice,
                other => return Err(corrupt(Column::Messages, &self.key(), format!("no kind of message: {other}"))),
            },
            source: RollupId(self.source),
            source_chain: self.source_chain,
            destination: RollupId(self.destination),
            destination_chain: self.destination_chain,
            index: self.index,
            previous: self.previous,
            deadline: self.deadline,
            gas_limit: self.gas_limit,
            sender: self.sender,
            recipient: self.recipient,
            refund: self.refund,
            value: self.value,
            received: self.received,
            payload_hash: self.payload_hash,
        };
        Ok(SentMessage { message, payload: self.payload, block: self.block })
    }
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
    let BodyRecord { transactions, senders, receipts, withdrawals } = body;
    let withdrawals = withdrawals.unwrap_or_default();
    ExecutedBlock { header, hash, hub_height, transactions, senders, receipts, withdrawals }
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
            let _ = decode::<CheckpointRecord>(Column::Checkpoints, &[], &bytes).map(|r| r.attestable(RollupId(1), 1));
            let _ = decode::<MessageRecord>(Column::Messages, &[], &bytes).map(MessageRecord::sent);
            let _ = decode::<VoteRecord>(Column::Votes, &[], &bytes).map(|r| r.vote(Column::Votes, &[]));
            let _ = decode::<U256>(Column::Storage, &[], &bytes);
        }
    }

    /// As format 2 has it.
    #[derive(RlpEncodable)]
    struct OldPendingRecord {
        hub_hash: B256,
        timestamp_ms: u64,
        transactions: Vec<Bytes>,
    }

    #[test]
    fn what_waits_in_a_database_of_format_2_reads_as_without_root_and_legs() {
        let (hub_hash, timestamp_ms) = (B256::repeat_byte(1), 7);
        let transactions = vec![Bytes::from_static(b"one"), Bytes::new()];
        let old = OldPendingRecord { hub_hash, timestamp_ms, transactions: transactions.clone() };
        let read = decode::<PendingRecord>(Column::Pending, &[], &alloy_rlp::encode(old)).unwrap();
        assert_eq!(read, PendingRecord { hub_hash, timestamp_ms, transactions, hub_root: None, legs: None });
        let leg = LegRecord { index: 1, place: 0, bundle: B256::repeat_byte(2), leg: 3 };
        for legs in [vec![], vec![leg]] {
            let new = PendingRecord { hub_root: Some(B256::ZERO), legs: Some(legs), ..read.clone() };
            let bytes = alloy_rlp::encode(&new);
            assert_eq!(decode::<PendingRecord>(Column::Pending, &[], &bytes).unwrap(), new);
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
