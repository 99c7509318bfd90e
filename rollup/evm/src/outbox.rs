//! What the rollup has sent: the Outbox's root for checkpoints, and the messages with what proves them.
//!
//! The root is read from the contract's slots, which every node has that has the state. Messages and the tree's full nodes
//! are read from the logs of `Outbox` and kept for ever: their number is that of the messages, each of which is, with its
//! payload, in a transaction and in the logs of a block that is kept for ever as well.

use crate::{
    changes::Changes,
    records::{MessageRecord, OUTBOX_FIRST},
    store::{Column, StateError, Store, WriteBatch},
    view::StateView,
};
use alloy::{consensus::ReceiptEnvelope, sol_types::SolEvent};
use alloy_primitives::{B256, Bytes, KECCAK256_EMPTY, Log, U256, keccak256};
use switchyard_bridge_contracts::{
    Inbox::MessageExpired,
    Outbox::{MessageAppended, MessageSent},
};
use switchyard_bridge_core::{
    Accumulator, Message, MessageKind, NodeId,
    predeploys::{INBOX, OUTBOX},
};

/// The outbox after the newest block.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    /// Whether a contract is there. The genesis decides it: nobody has the address's key, and no code can be deployed to it.
    exists: bool,
    /// None where the contract's slots are not a tree's, so that it is not the one that we know.
    edge: Option<Accumulator>,
}

impl Outbox {
    /// Reads it from the state.
    pub(crate) fn load(view: &StateView<'_>) -> Result<Self, StateError> {
        let account = view.account(OUTBOX)?;
        let exists = account.is_some_and(|account| account.code_hash != KECCAK256_EMPTY);
        Ok(Self { exists, edge: if exists { edge(view)? } else { None } })
    }

    /// Number of messages.
    pub(crate) fn count(&self) -> u64 {
        self.edge.as_ref().map_or(0, Accumulator::count)
    }

    /// A checkpoint's `outbox_root`.
    pub(crate) fn root(&self) -> B256 {
        self.edge.as_ref().map_or(B256::ZERO, Accumulator::root)
    }

    /// Takes in what block `number` has sent; its state is in `changes` already, and `is_changed` says whether it has
    /// changed the contract's slots.
    pub(crate) fn take_in(
        &mut self,
        store: &Store,
        changes: &mut Changes,
        number: u64,
        receipts: &[ReceiptEnvelope],
        is_changed: bool,
    ) -> Result<(), StateError> {
        if !self.exists || !is_changed {
            return Ok(());
        }
        let mut sent = Sent { edge: self.edge.take().unwrap_or_default(), nodes: Vec::new(), messages: Vec::new() };
        receipts.iter().for_each(|receipt| sent.read(receipt.logs(), number));
        self.edge = edge(&StateView::latest(store, changes))?;
        // It can only be another where a genesis has put another contract there.
        if self.root() == sent.edge.root() {
            changes.outbox_nodes.extend(sent.nodes);
            changes.messages.extend(sent.messages);
        }
        Ok(())
    }
}

/// Reads the tree's right edge from the contract's slots.
fn edge(view: &StateView<'_>) -> Result<Option<Accumulator>, StateError> {
    let mut failed = None;
    let edge = Accumulator::from_slots(|slot| {
        let value = view.slot(OUTBOX, U256::from(slot));
        value
            .unwrap_or_else(|error| {
                failed.get_or_insert(error);
                U256::ZERO
            })
            .into()
    });
    failed.map_or(Ok(edge), Err)
}

/// What a block's logs say.
struct Sent {
    edge: Accumulator,
    nodes: Vec<(NodeId, B256)>,
    messages: Vec<(B256, MessageRecord)>,
}

impl Sent {
    /// Reads one transaction's logs.
    fn read(&mut self, logs: &[Log], number: u64) {
        // A notice has no `MessageSent`: its payload is the id of the message that the Inbox says has expired.
        let mut expired = None;
        let first = self.messages.len();
        for log in logs {
            match log.address {
                INBOX => expired = MessageExpired::decode_log(log).ok().map(|event| event.id).or(expired),
                OUTBOX => self.read_outbox(log, number, expired, first),
                _ => {}
            }
        }
    }

    fn read_outbox(&mut self, log: &Log, number: u64, expired: Option<B256>, first: usize) {
        if let Ok(event) = MessageAppended::decode_log(log) {
            let Ok(message) = Message::try_from(&event.message) else { return };
            if message.index == self.edge.count() && message.id() == event.id {
                // Fails above 2^48 messages.
                let _ = self.edge.append(event.id, |id, hash| self.nodes.push((id, hash)));
                let payload = expired.filter(|_| message.kind == MessageKind::Notice);
                let payload = payload.map_or(Bytes::new(), |id| Bytes::copy_from_slice(id.as_slice()));
                self.messages.push((event.id, MessageRecord::new(&message, payload, number)));
            }
        } else if let Ok(event) = MessageSent::decode_log(log)
            && let Some((_, record)) = self.messages.iter_mut().skip(first).find(|(id, _)| *id == event.sendId)
            && keccak256(&event.payload) == record.payload_hash
        {
            record.payload = event.payload.clone();
        }
    }
}

/// Adds to `batch` what a database needs that has a state but none of the messages before: the full nodes of the tree's right
/// edge, which are all that later messages' paths have to do with earlier ones.
pub(crate) fn adopt(store: &Store, batch: &mut WriteBatch) -> Result<(), StateError> {
    let changes = Changes::default();
    let view = StateView::latest(store, &changes);
    let count = Outbox::load(&view)?.count();
    let nodes = store.column(Column::OutboxNodes)?;
    for level in (0u8..).take_while(|level| u32::from(*level) < u64::BITS - count.leading_zeros()) {
        if count >> level & 1 == 1 {
            let hash: B256 = view.slot(OUTBOX, U256::from(1 + u64::from(level)))?.into();
            batch.put_cf(nodes, node_key(NodeId { level, position: (count >> level) - 1 }), hash);
        }
    }
    batch.put_cf(store.column(Column::Meta)?, OUTBOX_FIRST, count.to_be_bytes());
    Ok(())
}

/// Level u8, position u64.
pub(crate) fn node_key(id: NodeId) -> [u8; 9] {
    let mut key = [id.level; 9];
    key[1..].copy_from_slice(&id.position.to_be_bytes());
    key
}
