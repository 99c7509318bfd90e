//! Between the contracts' structs and the values of `switchyard-bridge-core`.

use crate::{AtomicVault, Hub, Inbox, Outbox, TokenBridge};
use alloy_primitives::{Address, Bytes};
use switchyard_bridge_core::{Bundle, Call, Checkpoint, Leg, Message, MessageKind, Move, MoveKind};
use switchyard_primitives::RollupId;

/// A message, or a leg's move, has a kind that this version does not know. No Outbox of ours sends one, no vault takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKind(pub u8);

impl std::fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "of unknown kind {}", self.0)
    }
}

impl std::error::Error for UnknownKind {}

impl TryFrom<&Outbox::Message> for Message {
    type Error = UnknownKind;

    fn try_from(m: &Outbox::Message) -> Result<Self, UnknownKind> {
        Ok(Self {
            kind: match m.kind {
                0 => MessageKind::Call,
                1 => MessageKind::Transfer,
                2 => MessageKind::Notice,
                other => return Err(UnknownKind(other)),
            },
            source: RollupId(m.source),
            source_chain: m.sourceChain,
            destination: RollupId(m.destination),
            destination_chain: m.destinationChain,
            index: m.index,
            previous: m.previous,
            deadline: m.deadline,
            gas_limit: m.gasLimit,
            sender: m.sender,
            recipient: m.recipient,
            refund: m.refund,
            value: m.value,
            received: m.received,
            payload_hash: m.payloadHash,
        })
    }
}

/// Each contract's ABI has a `Message` of its own, with the same fields.
macro_rules! message_into {
    ($($contract:ident),*) => {$(
        impl From<&Message> for $contract::Message {
            fn from(m: &Message) -> Self {
                Self {
                    kind: match m.kind {
                        MessageKind::Call => 0,
                        MessageKind::Transfer => 1,
                        MessageKind::Notice => 2,
                    },
                    source: m.source.0,
                    sourceChain: m.source_chain,
                    destination: m.destination.0,
                    destinationChain: m.destination_chain,
                    index: m.index,
                    previous: m.previous,
                    deadline: m.deadline,
                    gasLimit: m.gas_limit,
                    sender: m.sender,
                    recipient: m.recipient,
                    refund: m.refund,
                    value: m.value,
                    received: m.received,
                    payloadHash: m.payload_hash,
                }
            }
        }
    )*};
}

message_into!(Outbox, Inbox, TokenBridge);

impl From<&Checkpoint> for Hub::Checkpoint {
    fn from(c: &Checkpoint) -> Self {
        Self {
            rollup: c.rollup.0,
            number: c.number,
            hubHeight: c.hub_height,
            blockHash: c.block_hash,
            stateRoot: c.state_root,
            outboxRoot: c.outbox_root,
            votesRoot: c.votes_root,
        }
    }
}

impl From<&Bundle> for AtomicVault::Bundle {
    fn from(b: &Bundle) -> Self {
        Self { deadline: b.deadline, salt: b.salt, legs: b.legs.clone() }
    }
}

impl From<&Leg> for AtomicVault::Leg {
    fn from(l: &Leg) -> Self {
        Self {
            rollup: l.rollup.0,
            signer: l.signer,
            moves: l.moves.iter().map(Into::into).collect(),
            calls: l.calls.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Move> for AtomicVault::Move {
    fn from(m: &Move) -> Self {
        Self {
            kind: match m.kind {
                MoveKind::Coin => 0,
                MoveKind::Erc20 => 1,
                MoveKind::Erc721 => 2,
            },
            token: m.token,
            amount: m.amount,
            to: m.to,
            refund: m.refund,
        }
    }
}

impl From<&Call> for AtomicVault::Call {
    fn from(c: &Call) -> Self {
        Self { participant: c.participant, gasLimit: c.gas_limit, data: c.data.clone() }
    }
}

impl From<&AtomicVault::Bundle> for Bundle {
    fn from(b: &AtomicVault::Bundle) -> Self {
        Self { deadline: b.deadline, salt: b.salt, legs: b.legs.clone() }
    }
}

impl TryFrom<&AtomicVault::Leg> for Leg {
    type Error = UnknownKind;

    fn try_from(l: &AtomicVault::Leg) -> Result<Self, UnknownKind> {
        let moves = l.moves.iter().map(|m| {
            let kind = match m.kind {
                0 => MoveKind::Coin,
                1 => MoveKind::Erc20,
                2 => MoveKind::Erc721,
                other => return Err(UnknownKind(other)),
            };
            Ok(Move { kind, token: m.token, amount: m.amount, to: m.to, refund: m.refund })
        });
        let call =
            |c: &AtomicVault::Call| Call { participant: c.participant, gas_limit: c.gasLimit, data: c.data.clone() };
        Ok(Self {
            rollup: RollupId(l.rollup),
            signer: l.signer,
            moves: moves.collect::<Result<_, _>>()?,
            calls: l.calls.iter().map(call).collect(),
        })
    }
}

/// An account on the EVM chain with this id, as `Outbox.sendMessage` takes its recipient (ERC-7930, version 1, chain type 0).
pub fn interoperable_address(chain: u64, account: Address) -> Bytes {
    let reference = chain.to_be_bytes();
    let zeros = reference.iter().take_while(|byte| **byte == 0).count();
    let reference = &reference[zeros..];
    // At most 8 and 20 bytes.
    let (reference_length, account_length) = (reference.len().to_le_bytes()[0], Address::len_bytes().to_le_bytes()[0]);
    let head = [0, 1, 0, 0, reference_length];
    [&head, reference, &[account_length], account.as_slice()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::B256;
    use proptest::prelude::*;

    prop_compose! {
        fn message()(
            kind in 0u8..3, numbers: [u64; 8], accounts: [[u8; 32]; 4], value: u128, received: u128,
        ) -> Outbox::Message {
            let [source, source_chain, destination, destination_chain, index, previous, deadline, gas_limit] = numbers;
            let [sender, recipient, refund, payload_hash] = accounts.map(B256::new);
            Outbox::Message {
                kind,
                source,
                sourceChain: source_chain,
                destination,
                destinationChain: destination_chain,
                index,
                previous,
                deadline,
                gasLimit: gas_limit,
                sender,
                recipient,
                refund,
                value,
                received,
                payloadHash: payload_hash,
            }
        }
    }

    #[test]
    fn an_interoperable_address_is_the_one_of_the_standards_example() {
        let account = alloy_primitives::address!("d8da6bf26964af9d7eed9e03e53415d37aa96045");
        let expected = alloy_primitives::bytes!("00010000010114d8da6bf26964af9d7eed9e03e53415d37aa96045");
        assert_eq!(interoperable_address(1, account), expected);
        let expected = alloy_primitives::bytes!("000100000301155a14d8da6bf26964af9d7eed9e03e53415d37aa96045");
        assert_eq!(interoperable_address(71_002, account), expected);
    }

    proptest! {
        #[test]
        fn a_message_survives_the_way_to_rust_and_back(message in message()) {
            let ours = Message::try_from(&message).unwrap();
            prop_assert_eq!(Outbox::Message::from(&ours), message);
        }

        #[test]
        fn an_unknown_kind_is_refused(message in message(), kind in 3u8..) {
            let unknown = Outbox::Message { kind, ..message };
            prop_assert_eq!(Message::try_from(&unknown), Err(UnknownKind(kind)));
        }
    }
}
