//! Conservation of a rollup's coin, computed from what anyone can read: its genesis, its blocks with their receipts, and
//! balances after a block.

use crate::{AtomicVault, Inbox, Outbox, Prepare};
use alloy::{
    consensus::{Header, ReceiptEnvelope, Transaction as _, TxEnvelope},
    eips::eip4895::Withdrawal,
    sol_types::SolEvent as _,
};
use alloy_primitives::{Address, B256, Log, TxKind, U256};
use std::collections::{BTreeMap, BTreeSet};
use switchyard_bridge_core::{
    Message, MoveKind,
    predeploys::{ATOMIC_VAULT, INBOX, OUTBOX},
};
use switchyard_primitives::RollupId;

/// A transaction of a block, with what execution made of it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The transaction.
    pub transaction: &'a TxEnvelope,
    /// Who has signed it.
    pub sender: Address,
    /// Its receipt.
    pub receipt: &'a ReceiptEnvelope,
}

/// Why a rollup's coin does not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbalanced {
    /// Coin has come from nowhere, or gone.
    #[error(
        "{accounts} accounts hold {found} wei, by the log {expected}: of their genesis and deposits {burnt} are burnt"
    )]
    Sum {
        /// How many accounts were looked at.
        accounts: usize,
        /// What they hold.
        found: U256,
        /// What they must hold.
        expected: U256,
        /// What fees have destroyed.
        burnt: U256,
    },
    /// The vault holds other than what the legs that it holds give.
    #[error("the vault holds {found} wei, the legs in it {expected}")]
    Vault {
        /// What it holds.
        found: U256,
        /// What it must hold.
        expected: U256,
    },
    /// The Inbox holds other than what it was given for messages, and what messages have brought and not taken.
    #[error("the Inbox of rollup {rollup} holds {found} wei, by the messages {expected}")]
    Inbox {
        /// Whose.
        rollup: RollupId,
        /// What it holds.
        found: U256,
        /// What it must hold.
        expected: U256,
    },
    /// Somewhere a message was delivered that nobody has sent.
    #[error("message {message} was delivered and not sent")]
    NotSent {
        /// The message.
        message: B256,
    },
    /// A message was delivered, and its coin was paid back too.
    #[error("message {message} was delivered and refunded")]
    Twice {
        /// Its id.
        message: B256,
    },
    /// A leg was committed where another one of its bundle was aborted.
    #[error("bundle {bundle} is committed on one rollup and aborted on another")]
    Torn {
        /// The bundle.
        bundle: B256,
    },
}

/// Coin that the vault holds for a leg, by item.
type Held = BTreeMap<u8, U256>;

/// The coin of one rollup, followed from its genesis on.
///
/// It is held by accounts that the genesis, a deposit or a transaction names: signers, recipients, contracts that are created, whoever a
/// bundle's legs pay, who has a message's coin back, and the block's beneficiary. The base fee is burnt (EIP-1559), nothing else
/// is. Coin that a contract sends to an account that nobody has named is found to be missing. Legs are followed whose transactions
/// call the vault directly: of others it holds more than is expected. What messages bring and take, [`crate::Books`] know.
#[derive(Clone, Debug)]
pub struct Ledger {
    genesis: BTreeMap<Address, U256>,
    /// Accounts that may hold other than in the genesis.
    touched: BTreeSet<Address>,
    burnt: U256,
    pub(crate) deposited: U256,
    held: BTreeMap<(B256, u8), Held>,
    settled: BTreeMap<(B256, u8), bool>,
    /// Messages from here.
    pub(crate) sent: BTreeMap<B256, Message>,
    /// Messages that were delivered here, with where they came from.
    pub(crate) delivered: BTreeMap<B256, RollupId>,
    /// Messages from here whose coin was paid back.
    pub(crate) refunded: BTreeSet<B256>,
    /// What the Inbox has had, in the genesis or since, besides messages.
    pub(crate) funds: U256,
}

impl Ledger {
    /// A rollup whose genesis gives accounts this much.
    pub fn new(genesis: impl IntoIterator<Item = (Address, U256)>) -> Self {
        let genesis = BTreeMap::from_iter(genesis);
        let funds = genesis.get(&INBOX).copied().unwrap_or_default();
        let (held, settled) = (BTreeMap::new(), BTreeMap::new());
        let (sent, delivered, refunded) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (touched, burnt, deposited) = (BTreeSet::from([ATOMIC_VAULT, INBOX]), U256::ZERO, U256::ZERO);
        Self { genesis, touched, burnt, deposited, held, settled, sent, delivered, refunded, funds }
    }

    /// Names accounts that may have coin from contracts alone: recipients of messages, for instance.
    pub fn name(&mut self, accounts: impl IntoIterator<Item = Address>) {
        self.touched.extend(accounts);
    }

    /// Takes in the next block.
    pub fn block<'a>(&mut self, header: &Header, rows: impl IntoIterator<Item = Row<'a>>) {
        self.name([header.beneficiary]);
        self.burnt += U256::from(header.base_fee_per_gas.unwrap_or(0)) * U256::from(header.gas_used);
        for Row { transaction, sender, receipt } in rows {
            let recipient = match transaction.kind() {
                TxKind::Call(to) => to,
                TxKind::Create => sender.create(transaction.nonce()),
            };
            self.name([sender, recipient]);
            // One that does not decode prepares nothing.
            let prepare = Prepare::of(0, transaction).ok().flatten();
            for log in receipt.logs() {
                match log.address {
                    ATOMIC_VAULT => self.of_vault(log, prepare.as_ref()),
                    OUTBOX | INBOX => self.of_messages(log),
                    _ => {}
                }
            }
        }
    }

    /// Takes in what that block brings from outside.
    pub fn deposits(&mut self, withdrawals: &[Withdrawal]) {
        self.name(withdrawals.iter().map(|withdrawal| withdrawal.address));
        self.deposited += withdrawals.iter().map(Withdrawal::amount_wei).sum::<U256>();
    }

    fn of_messages(&mut self, log: &Log) {
        if let Ok(event) = Outbox::MessageAppended::decode_log(log) {
            // An Outbox sends none of another kind.
            self.sent.extend(Message::try_from(&event.message).ok().map(|message| (event.id, message)));
        } else if let Ok(event) = Inbox::MessageDelivered::decode_log(log) {
            self.delivered.insert(event.id, RollupId(event.source));
        } else if let Ok(event) = Inbox::MessageRefunded::decode_log(log) {
            self.name([event.to]);
            self.refunded.insert(event.id);
        } else if let Ok(event) = Inbox::Funded::decode_log(log) {
            self.funds += event.value;
        }
    }

    fn of_vault(&mut self, log: &Log, prepare: Option<&Prepare>) {
        if let Ok(event) = AtomicVault::Prepared::decode_log(log) {
            let named = |p: &&Prepare| (p.index, p.bundle.id()) == (event.leg, event.id);
            let Some(prepare) = prepare.filter(named) else { return };
            let moves = || (0u8..).zip(&prepare.leg.moves);
            self.name(moves().flat_map(|(_, m)| [m.to, m.refund]));
            let coin = moves().filter(|(_, m)| m.kind == MoveKind::Coin).map(|(item, m)| (item, m.amount));
            self.held.insert((event.id, event.leg), coin.collect());
        } else if let Ok(event) = AtomicVault::ItemDone::decode_log(log) {
            if let Some(held) = self.held.get_mut(&(event.id, event.leg)) {
                held.remove(&event.item);
            }
        } else if let Ok(event) = AtomicVault::Settled::decode_log(log) {
            self.settled.insert((event.id, event.leg), event.committed);
        }
    }

    /// Accounts whose balances [`Self::check`] asks for.
    pub fn accounts(&self) -> impl Iterator<Item = Address> + '_ {
        self.touched.iter().copied()
    }

    /// Coin that the vault holds, by the log.
    pub fn in_vault(&self) -> U256 {
        self.held.values().flat_map(BTreeMap::values).sum()
    }

    /// Legs of which the vault holds coin.
    pub fn holding(&self) -> impl Iterator<Item = (B256, u8)> + '_ {
        self.held.iter().filter(|(_, held)| !held.is_empty()).map(|(leg, _)| *leg)
    }

    /// Legs that are settled, and whether as committed.
    pub fn settled(&self) -> &BTreeMap<(B256, u8), bool> {
        &self.settled
    }

    /// Holds balances after the newest block that was taken in against the log.
    ///
    /// # Errors
    /// What `balance` fails with; inside, [`Unbalanced`].
    pub fn check<E>(&self, mut balance: impl FnMut(Address) -> Result<U256, E>) -> Result<Result<(), Unbalanced>, E> {
        let (mut found, mut begun) = (U256::ZERO, U256::ZERO);
        for account in &self.touched {
            found += balance(*account)?;
            begun += self.genesis.get(account).copied().unwrap_or_default();
        }
        let expected = (begun + self.deposited).saturating_sub(self.burnt);
        if found != expected {
            let (accounts, burnt) = (self.touched.len(), self.burnt);
            return Ok(Err(Unbalanced::Sum { accounts, found, expected, burnt }));
        }
        let (found, expected) = (balance(ATOMIC_VAULT)?, self.in_vault());
        Ok(if found == expected { Ok(()) } else { Err(Unbalanced::Vault { found, expected }) })
    }
}

/// Whether each bundle has ended in one way, on all rollups where it has.
pub fn check_atomic<'a>(ledgers: impl IntoIterator<Item = &'a Ledger>) -> Result<(), Unbalanced> {
    let mut ends = BTreeMap::new();
    for ((bundle, _), committed) in ledgers.into_iter().flat_map(|ledger| &ledger.settled) {
        if *ends.entry(*bundle).or_insert(*committed) != *committed {
            return Err(Unbalanced::Torn { bundle: *bundle });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::{
        consensus::{Receipt, SignableTransaction as _, TxEip1559},
        primitives::Signature,
    };
    use switchyard_bridge_core::{Leg, Move};
    use switchyard_primitives::RollupId;

    const SIGNER: Address = Address::repeat_byte(4);
    const TO: Address = Address::repeat_byte(1);

    fn prepare() -> Prepare {
        let coin = Move {
            kind: MoveKind::Coin,
            token: Address::ZERO,
            amount: U256::from(7),
            to: TO,
            refund: Address::repeat_byte(2),
        };
        let leg = |rollup| Leg { rollup: RollupId(rollup), signer: SIGNER, moves: vec![coin, coin], calls: Vec::new() };
        Prepare::all(9, B256::ZERO, vec![leg(1), leg(2)]).remove(0)
    }

    fn transaction(prepare: &Prepare) -> TxEnvelope {
        let (to, input, value) = (TxKind::Call(ATOMIC_VAULT), prepare.calldata(), prepare.value());
        TxEip1559 { to, input, value, ..TxEip1559::default() }.into_signed(Signature::test_signature()).into()
    }

    fn block(ledger: &mut Ledger, logs: Vec<alloy_primitives::LogData>) {
        let header = Header { base_fee_per_gas: Some(2), gas_used: 10, ..Header::default() };
        let logs = logs.into_iter().map(|data| Log { address: ATOMIC_VAULT, data }).collect();
        let receipt = Receipt { status: true.into(), cumulative_gas_used: 10, logs };
        let receipt = ReceiptEnvelope::Eip1559(receipt.into());
        let transaction = transaction(&prepare());
        ledger.block(&header, [Row { transaction: &transaction, sender: SIGNER, receipt: &receipt }]);
    }

    fn check(ledger: &Ledger, balances: &[(Address, u64)]) -> Result<(), Unbalanced> {
        let balances: BTreeMap<_, _> = balances.iter().copied().collect();
        let of = |account| Ok::<_, ()>(U256::from(balances.get(&account).copied().unwrap_or(0)));
        ledger.check(of).unwrap()
    }

    #[test]
    fn coin_moves_through_the_vault_and_only_fees_are_burnt() {
        let (id, leg) = (prepare().bundle.id(), 0);
        let mut ledger = Ledger::new([(SIGNER, U256::from(100)), (Address::repeat_byte(8), U256::from(5))]);
        block(&mut ledger, vec![AtomicVault::Prepared { id, leg, signer: SIGNER }.encode_log_data()]);
        assert_eq!(ledger.in_vault(), U256::from(14));
        assert_eq!(check(&ledger, &[(SIGNER, 66), (ATOMIC_VAULT, 14)]), Ok(()));
        assert!(matches!(check(&ledger, &[(SIGNER, 67), (ATOMIC_VAULT, 14)]), Err(Unbalanced::Sum { .. })));
        assert!(matches!(check(&ledger, &[(SIGNER, 70), (ATOMIC_VAULT, 10)]), Err(Unbalanced::Vault { .. })));
        let settled = AtomicVault::Settled { id, leg, committed: true }.encode_log_data();
        block(&mut ledger, vec![settled, AtomicVault::ItemDone { id, leg, item: 1 }.encode_log_data()]);
        assert_eq!(check(&ledger, &[(SIGNER, 46), (ATOMIC_VAULT, 7), (TO, 7)]), Ok(()));
        assert_eq!(ledger.holding().collect::<Vec<_>>(), [(id, leg)]);
    }

    #[test]
    fn a_bundle_that_ends_in_two_ways_is_torn() {
        let (id, mut ledgers) = (prepare().bundle.id(), [Ledger::new([]), Ledger::new([])]);
        let settled = |leg, committed| vec![AtomicVault::Settled { id, leg, committed }.encode_log_data()];
        block(&mut ledgers[0], settled(0, true));
        assert_eq!(check_atomic(&ledgers), Ok(()));
        block(&mut ledgers[1], settled(1, false));
        assert_eq!(check_atomic(&ledgers), Err(Unbalanced::Torn { bundle: id }));
    }
}
