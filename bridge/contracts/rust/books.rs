//! Conservation of the coin of a whole network: on each rollup, and between them in messages.

use crate::{
    Ledger,
    ledger::{Row, Unbalanced, check_atomic},
};
use alloy::{consensus::Header, eips::eip4895::Withdrawal};
use alloy_primitives::{Address, B256, U256};
use std::collections::BTreeMap;
use switchyard_bridge_core::{Message, predeploys::INBOX};
use switchyard_primitives::RollupId;

/// The ledgers of rollups that send each other messages.
///
/// No rollup's supply changes by messages: what is sent stays in the source's Inbox, and what is delivered comes out of the
/// destination's. So what accounts have on all rollups together, outside of the Inboxes, and what is in messages that are neither
/// delivered nor refunded, is constant but for deposits and burnt fees.
#[derive(Clone, Debug, Default)]
pub struct Books {
    ledgers: BTreeMap<RollupId, Ledger>,
}

/// What the books say of a network whose coin adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Coin that came from outside, wei.
    pub deposited: U256,
    /// Coin in messages that are neither delivered nor refunded, wei.
    pub in_messages: U256,
    /// Coin that vaults hold for legs, wei.
    pub in_vaults: U256,
    /// Messages that were delivered.
    pub delivered: usize,
    /// Messages whose coin was paid back.
    pub refunded: usize,
    /// Legs that were settled as committed, and as aborted.
    pub settled: (usize, usize),
}

impl Books {
    /// A rollup begins with this.
    pub fn begin(&mut self, rollup: RollupId, genesis: impl IntoIterator<Item = (Address, U256)>) {
        self.ledgers.insert(rollup, Ledger::new(genesis));
    }

    /// Takes in the next block of a rollup that has begun, with what it brings from outside.
    pub fn block<'a>(
        &mut self,
        rollup: RollupId,
        header: &Header,
        rows: impl IntoIterator<Item = Row<'a>>,
        deposits: &[Withdrawal],
    ) {
        if let Some(ledger) = self.ledgers.get_mut(&rollup) {
            ledger.block(header, rows);
            ledger.deposits(deposits);
        }
    }

    /// A rollup of which later blocks are known to be missing here: elsewhere a message was delivered that is not known to be
    /// sent. What was delivered there may be of any time before now, so the rollups need not be at one moment.
    pub fn behind(&self) -> Option<RollupId> {
        self.delivered().find(|(id, source)| self.sent(id, *source).is_none()).map(|(_, source)| source)
    }

    /// A rollup's ledger, if it has begun.
    pub fn ledger(&self, rollup: RollupId) -> Option<&Ledger> {
        self.ledgers.get(&rollup)
    }

    /// The ledgers of all rollups, ascending by id.
    pub fn ledgers(&self) -> impl Iterator<Item = (RollupId, &Ledger)> {
        self.ledgers.iter().map(|(rollup, ledger)| (*rollup, ledger))
    }

    /// Messages that are neither delivered nor refunded, with their ids.
    pub fn open(&self) -> impl Iterator<Item = (&B256, &Message)> {
        let ended = |id: &B256, ledger: &Ledger| ledger.refunded.contains(id) || self.is_delivered(id);
        self.ledgers.values().flat_map(move |ledger| ledger.sent.iter().filter(move |(id, _)| !ended(id, ledger)))
    }

    fn is_delivered(&self, id: &B256) -> bool {
        self.ledgers.values().any(|ledger| ledger.delivered.contains_key(id))
    }

    fn delivered(&self) -> impl Iterator<Item = (&B256, RollupId)> {
        self.ledgers.values().flat_map(|ledger| ledger.delivered.iter().map(|(id, source)| (id, *source)))
    }

    fn sent(&self, id: &B256, source: RollupId) -> Option<&Message> {
        self.ledgers.get(&source)?.sent.get(id)
    }

    /// Each rollup with the accounts whose balances [`Self::check`] asks for.
    pub fn accounts(&mut self) -> Vec<(RollupId, Vec<Address>)> {
        let sent = self.ledgers.values().flat_map(|ledger| ledger.sent.values());
        // One that is no address is delivered to nobody.
        let to = |message: &Message| {
            let is_address = message.recipient[..12].iter().all(|byte| *byte == 0);
            is_address.then(|| (message.destination, Address::from_word(message.recipient)))
        };
        let recipients: Vec<_> = sent.filter_map(to).collect();
        for (rollup, recipient) in recipients {
            self.ledgers.entry(rollup).and_modify(|ledger| ledger.name([recipient]));
        }
        self.ledgers.iter().map(|(rollup, ledger)| (*rollup, ledger.accounts().collect())).collect()
    }

    /// Holds balances, after the newest block of each rollup that was taken in, against the logs.
    ///
    /// # Errors
    /// What `balance` fails with; inside, [`Unbalanced`].
    pub fn check<E>(
        &mut self,
        mut balance: impl FnMut(RollupId, Address) -> Result<U256, E>,
    ) -> Result<Result<Totals, Unbalanced>, E> {
        self.accounts();
        for (rollup, ledger) in &self.ledgers {
            if let Err(unbalanced) = ledger.check(|account| balance(*rollup, account))? {
                return Ok(Err(unbalanced));
            }
            let (found, expected) = (balance(*rollup, INBOX)?, self.in_inbox(ledger));
            match expected {
                Ok(expected) if expected == found => {}
                Ok(expected) => return Ok(Err(Unbalanced::Inbox { rollup: *rollup, found, expected })),
                Err(unbalanced) => return Ok(Err(unbalanced)),
            }
        }
        let mut refunded = self.ledgers.values().flat_map(|ledger| &ledger.refunded);
        if let Some(message) = refunded.find(|id| self.is_delivered(id)) {
            return Ok(Err(Unbalanced::Twice { message: *message }));
        }
        Ok(check_atomic(self.ledgers.values()).map(|()| self.totals()))
    }

    /// What a rollup's Inbox must hold.
    fn in_inbox(&self, ledger: &Ledger) -> Result<U256, Unbalanced> {
        let value = |message: &Message| U256::from(message.value);
        let mut taken: U256 = ledger.refunded.iter().filter_map(|id| ledger.sent.get(id)).map(value).sum();
        for (id, source) in &ledger.delivered {
            taken += value(self.sent(id, *source).ok_or(Unbalanced::NotSent { message: *id })?);
        }
        Ok((ledger.funds + ledger.sent.values().map(value).sum::<U256>()).saturating_sub(taken))
    }

    /// What the books say, whether or not the coin adds up.
    pub fn totals(&self) -> Totals {
        let ledgers = || self.ledgers.values();
        let settled = |as_committed: bool| {
            ledgers()
                .flat_map(|ledger| ledger.settled().values())
                .filter(|committed| **committed == as_committed)
                .count()
        };
        Totals {
            deposited: ledgers().map(|ledger| ledger.deposited).sum(),
            in_messages: self.open().map(|(_, message)| U256::from(message.value)).sum(),
            in_vaults: ledgers().map(Ledger::in_vault).sum(),
            delivered: self.delivered().count(),
            refunded: ledgers().map(|ledger| ledger.refunded.len()).sum(),
            settled: (settled(true), settled(false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inbox, Outbox};
    use alloy::{
        consensus::{Receipt, ReceiptEnvelope, SignableTransaction as _, TxEip1559, TxEnvelope},
        primitives::{Signature, TxKind},
        sol_types::SolEvent,
    };
    use alloy_primitives::{Log, LogData};
    use switchyard_bridge_core::{MessageKind, predeploys::OUTBOX};

    const A: RollupId = RollupId(1);
    const B: RollupId = RollupId(2);
    const SENDER: Address = Address::repeat_byte(4);
    const RECIPIENT: Address = Address::repeat_byte(5);
    /// Of the sender on A, and of the Inboxes.
    const FUNDS: u64 = 100;

    fn message() -> Message {
        Message {
            kind: MessageKind::Transfer,
            source: A,
            source_chain: 11,
            destination: B,
            destination_chain: 12,
            index: 0,
            previous: 0,
            deadline: 9,
            gas_limit: 0,
            sender: SENDER.into_word(),
            recipient: RECIPIENT.into_word(),
            refund: SENDER.into_word(),
            value: 7,
            received: 0,
            payload_hash: B256::ZERO,
        }
    }

    fn books() -> Books {
        let mut books = Books::default();
        for rollup in [A, B] {
            books.begin(rollup, [(SENDER, U256::from(FUNDS)), (INBOX, U256::from(FUNDS))]);
        }
        books
    }

    /// A block with one transaction, which emits one event.
    fn block(books: &mut Books, rollup: RollupId, address: Address, data: LogData) {
        let transaction = TxEip1559 { to: TxKind::Call(OUTBOX), ..TxEip1559::default() };
        let transaction = TxEnvelope::from(transaction.into_signed(Signature::test_signature()));
        let receipt = Receipt { status: true.into(), cumulative_gas_used: 0, logs: vec![Log { address, data }] };
        let receipt = ReceiptEnvelope::Eip1559(receipt.into());
        let row = Row { transaction: &transaction, sender: SENDER, receipt: &receipt };
        books.block(rollup, &Header::default(), [row], &[]);
    }

    fn send(books: &mut Books) {
        let event = Outbox::MessageAppended { index: 0, id: message().id(), message: (&message()).into() };
        block(books, A, OUTBOX, event.encode_log_data());
    }

    fn deliver(books: &mut Books) {
        let event = Inbox::MessageDelivered { id: message().id(), source: A.0, index: 0 };
        block(books, B, INBOX, event.encode_log_data());
    }

    /// What the books say where accounts hold other than in the genesis.
    fn check(books: &mut Books, changed: &[(RollupId, Address, u64)]) -> Result<Totals, Unbalanced> {
        let balance = |rollup, account| {
            let known = changed.iter().find(|(on, of, _)| (*on, *of) == (rollup, account));
            let begun = if [SENDER, INBOX].contains(&account) { FUNDS } else { 0 };
            Ok::<_, ()>(U256::from(known.map_or(begun, |(.., wei)| *wei)))
        };
        books.check(balance).unwrap()
    }

    #[test]
    fn coin_is_in_a_message_until_it_is_delivered() {
        let mut books = books();
        send(&mut books);
        let left = [(A, SENDER, FUNDS - 7), (A, INBOX, FUNDS + 7)];
        let totals = check(&mut books, &left).unwrap();
        assert_eq!((totals.in_messages, totals.delivered), (U256::from(7), 0));
        deliver(&mut books);
        let arrived = [&left[..], &[(B, INBOX, FUNDS - 7), (B, RECIPIENT, 7)]].concat();
        let totals = check(&mut books, &arrived).unwrap();
        assert_eq!((totals.in_messages, totals.delivered), (U256::ZERO, 1));
        // Paid out of nowhere, twice, or not at all.
        assert!(matches!(check(&mut books, &[&left[..], &[(B, RECIPIENT, 7)]].concat()), Err(Unbalanced::Sum { .. })));
        let twice = [&left[..], &[(B, INBOX, FUNDS - 14), (B, RECIPIENT, 14)]].concat();
        assert!(matches!(check(&mut books, &twice), Err(Unbalanced::Inbox { rollup: B, .. })));
        assert!(matches!(check(&mut books, &left), Err(Unbalanced::Inbox { rollup: B, .. })));
    }

    #[test]
    fn what_is_paid_back_is_not_in_a_message_any_more() {
        let mut books = books();
        send(&mut books);
        let event = Inbox::MessageRefunded { id: message().id(), to: RECIPIENT, value: U256::from(7) };
        block(&mut books, A, INBOX, event.encode_log_data());
        let totals = check(&mut books, &[(A, SENDER, FUNDS - 7), (A, RECIPIENT, 7)]).unwrap();
        assert_eq!((totals.in_messages, totals.refunded), (U256::ZERO, 1));
    }

    #[test]
    fn a_message_that_was_delivered_was_sent_by_a_rollup_that_is_behind_or_by_nobody() {
        let mut books = books();
        deliver(&mut books);
        assert_eq!(books.behind(), Some(A));
        assert_eq!(check(&mut books, &[]), Err(Unbalanced::NotSent { message: message().id() }));
        send(&mut books);
        assert_eq!(books.behind(), None);
    }
}
