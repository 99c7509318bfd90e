//! The message: what one account on a rollup sends to another one, on another rollup.

use alloy_primitives::{B256, keccak256};
use switchyard_primitives::{RollupId, Writer};

/// How a message is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// By ERC-7786's `receiveMessage`.
    #[default]
    Call,
    /// There is no payload: the value goes to the recipient by a call without data.
    Transfer,
    /// From one Inbox to another: a message has expired. The payload is its id.
    Notice,
}

/// A message. Accounts are 32 bytes; one of 20 bytes is padded with zeros on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// How it is delivered.
    pub kind: MessageKind,
    /// Where it comes from.
    pub source: RollupId,
    /// The source's chain id.
    pub source_chain: u64,
    /// Where it goes.
    pub destination: RollupId,
    /// The destination's chain id.
    pub destination_chain: u64,
    /// Its place in the source's outbox.
    pub index: u64,
    /// For an ordered message, 1 + the index of the one that must be settled before it; 0 for none.
    pub previous: u64,
    /// Last second, by the destination's block timestamps, at which it may be delivered.
    pub deadline: u64,
    /// Gas that the recipient must be given.
    pub gas_limit: u64,
    /// Who sends it.
    pub sender: B256,
    /// Who gets it.
    pub recipient: B256,
    /// Who gets the value back, on the source, if it expires.
    pub refund: B256,
    /// Native coin that goes with it, wei.
    pub value: u128,
    /// With a value: coin of messages from the destination that were delivered at the source so far, wei; else 0.
    pub received: u128,
    /// keccak-256 of the payload.
    pub payload_hash: B256,
}

impl Message {
    /// Length of the encoding, bytes.
    pub const LEN: usize = 226;
    /// Longest payload, bytes.
    pub const PAYLOAD_MAX: usize = 32_768;
    /// The layout's version.
    pub const VERSION: u8 = 1;

    /// The version, the kind (0, 1 or 2, in the order of [`MessageKind`]), then the fields in order.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(Self::LEN);
        w.u8(Self::VERSION);
        w.u8(match self.kind {
            MessageKind::Call => 0,
            MessageKind::Transfer => 1,
            MessageKind::Notice => 2,
        });
        for number in [self.source.0, self.source_chain, self.destination.0, self.destination_chain] {
            w.u64(number);
        }
        for number in [self.index, self.previous, self.deadline, self.gas_limit] {
            w.u64(number);
        }
        for account in [self.sender, self.recipient, self.refund] {
            w.raw(account.as_slice());
        }
        w.raw(&self.value.to_be_bytes());
        w.raw(&self.received.to_be_bytes());
        w.raw(self.payload_hash.as_slice());
        w.into_vec()
    }

    /// keccak-256 of the encoding: the message's id, its leaf in the outbox, and ERC-7786's `sendId` and `receiveId`.
    pub fn id(&self) -> B256 {
        keccak256(self.encode())
    }
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// Its block is not certified yet.
    Sent,
    /// A stake quorum of operators has certified the outbox that holds it; it is to be delivered.
    Attested,
    /// Its deadline has passed, and its destination does not know yet.
    Late,
    /// The recipient has it.
    Delivered,
    /// It has expired at its destination; the notice is on its way back.
    Expired,
    /// Its source knows that it has expired.
    Returned,
    /// What it carried was paid back.
    Refunded,
}

impl MessageState {
    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Attested => "attested",
            Self::Late => "late",
            Self::Delivered => "delivered",
            Self::Expired => "expired",
            Self::Returned => "returned",
            Self::Refunded => "refunded",
        }
    }
}
