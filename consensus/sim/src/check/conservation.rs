//! Coin is conserved: on each rollup, after each block, what accounts hold is what the genesis and deposits gave them less what fees have
//! burnt; each deposit that a quorum has signed is made once, in order, and no other; the
//! vault holds what the legs in it give; a bundle ends in one way everywhere, the way that the hub has decided; and a message is
//! delivered or refunded, once.

use super::{Verdict, bundles::Bundles, violated};
use alloy::primitives::{Address, U256};
use std::{collections::BTreeMap, fmt::Display};
use switchyard_bridge_contracts::{
    Books, Ledger, Prepare,
    ledger::{Row, check_atomic},
};
use switchyard_bridge_core::{Deposit, Message};
use switchyard_primitives::{B256, RollupId};
use switchyard_rollup_core::evm::ExecutedBlock;

/// Follows the coin of all rollups.
#[derive(Debug, Default)]
pub struct Conservation {
    books: Books,
    /// The newest block of each rollup that is in the books.
    newest: BTreeMap<RollupId, u64>,
    /// The legs of each bundle that parties have signed.
    signed: BTreeMap<B256, Vec<Prepare>>,
    /// The deposits of each rollup that a quorum has signed, or will, and how many of them blocks have brought.
    granted: BTreeMap<RollupId, (Vec<Deposit>, usize)>,
}

impl Conservation {
    /// A rollup begins with this.
    pub fn begin(&mut self, rollup: RollupId, genesis: impl IntoIterator<Item = (Address, U256)>) {
        self.books.begin(rollup, genesis);
        self.newest.insert(rollup, 0);
    }

    /// Parties have signed a bundle, of which nobody else is to get anything.
    pub fn signed(&mut self, id: B256, legs: Vec<Prepare>) {
        self.signed.insert(id, legs);
    }

    /// A quorum signs a deposit, as a rollup's next one.
    pub fn granted(&mut self, rollup: RollupId, deposit: Deposit) {
        self.granted.entry(rollup).or_default().0.push(deposit);
    }

    /// Deposits that blocks have brought.
    pub fn deposited(&self) -> usize {
        self.granted.values().map(|(_, made)| made).sum()
    }

    /// A rollup with deposits that no block has brought.
    pub fn lacks(&self) -> Option<RollupId> {
        self.granted.iter().find(|(_, (deposits, made))| *made < deposits.len()).map(|(rollup, _)| *rollup)
    }

    /// Messages with coin that are neither delivered nor refunded.
    pub fn in_messages(&self) -> impl Iterator<Item = (&B256, &Message)> {
        self.books.open().filter(|(_, message)| message.value > 0)
    }

    /// Messages that were delivered, and those that were refunded.
    pub fn messages(&self) -> (usize, usize) {
        let totals = self.books.totals();
        (totals.delivered, totals.refunded)
    }

    /// A validator has executed a rollup block; the first time for each in order. `balance` reads the state after it.
    pub fn executed<E: Display>(
        &mut self,
        rollup: RollupId,
        block: &ExecutedBlock,
        mut balance: impl FnMut(Address) -> Result<U256, E>,
    ) -> Verdict {
        let number = block.header.number;
        let wrong = |what: String| violated("conservation", format!("rollup {rollup}, block {number}: {what}"));
        let Some(newest) = self.newest.get_mut(&rollup).filter(|newest| **newest + 1 == number) else {
            return Ok(());
        };
        *newest = number;
        let rows = block.transactions.iter().zip(&block.senders).zip(&block.receipts);
        let rows = rows.map(|((transaction, sender), receipt)| Row { transaction, sender: *sender, receipt });
        self.books.block(rollup, &block.header, rows, &block.withdrawals);
        let (granted, made) = self.granted.entry(rollup).or_default();
        for withdrawal in &block.withdrawals {
            let (recipient, gwei) = (withdrawal.address, withdrawal.amount);
            let next = granted.get(*made).filter(|_| withdrawal.index == *made as u64);
            if next != Some(&Deposit { recipient, gwei }) {
                return wrong(format!(
                    "deposit {} of {gwei} Gwei for {recipient} is none that was signed",
                    withdrawal.index
                ));
            }
            *made += 1;
        }
        // Names whoever messages bring coin to.
        self.books.accounts();
        match self.books.ledger(rollup).map(|ledger| ledger.check(&mut balance)) {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(unbalanced))) => return wrong(unbalanced.to_string()),
            Some(Err(error)) => return wrong(error.to_string()),
            None => return wrong("no such rollup".into()),
        }
        match check_atomic(self.books.ledgers().map(|(_, ledger)| ledger)) {
            Ok(()) => Ok(()),
            Err(torn) => wrong(torn.to_string()),
        }
    }

    /// Whether each end of a leg is the hub's decision.
    pub fn ends(&self, bundles: &Bundles) -> Verdict {
        for (rollup, ledger) in self.books.ledgers() {
            for ((id, leg), committed) in ledger.settled() {
                let decided = bundles.fate(id).and_then(|fate| fate.decided).map(|(committed, _)| committed);
                let released = bundles.released().contains(&(*id, rollup, *leg));
                if decided != Some(*committed) && (*committed || !released) {
                    return violated(
                        "conservation",
                        format!("rollup {rollup}: leg {leg} of {id} ended with {committed}, decided is {decided:?}"),
                    );
                }
            }
        }
        Ok(())
    }

    /// Whether each leg of a bundle was prepared.
    pub fn is_prepared(&self, id: &B256) -> bool {
        let prepared = |leg: &Prepare| {
            self.books.ledger(leg.leg.rollup).is_some_and(|ledger| {
                ledger.holding().any(|held| held == (*id, leg.index))
                    || ledger.settled().contains_key(&(*id, leg.index))
            })
        };
        self.signed.get(id).is_some_and(|legs| legs.iter().all(prepared))
    }

    /// Whether a leg of a bundle has ended.
    pub fn has_ended(&self, id: &B256) -> bool {
        self.books.ledgers().any(|(_, ledger)| ledger.settled().keys().any(|(bundle, _)| bundle == id))
    }

    /// Legs that a vault holds coin of.
    pub fn holding(&self) -> Vec<(RollupId, B256, u8)> {
        let of = |(rollup, ledger): (RollupId, &Ledger)| {
            ledger.holding().map(|(id, leg)| (rollup, id, leg)).collect::<Vec<_>>()
        };
        self.books.ledgers().flat_map(of).collect()
    }

    /// At the end of a run, when nobody holds anything back: whoever is named in a bundle has what it must have, no vault
    /// anything, and Inboxes what messages have left there. `balance` reads a rollup's newest state.
    pub fn finish<E: Display>(
        &mut self,
        bundles: &Bundles,
        mut balance: impl FnMut(RollupId, Address) -> Result<U256, E>,
    ) -> Verdict {
        let wrong = |what: String| violated("conservation", what);
        if let Some((rollup, id, leg)) = self.holding().first() {
            return wrong(format!("rollup {rollup}: the vault still holds leg {leg} of {id}: {:?}", bundles.fate(id)));
        }
        match self.books.check(&mut balance) {
            Ok(Ok(_)) => {}
            Ok(Err(unbalanced)) => return wrong(unbalanced.to_string()),
            Err(error) => return wrong(error.to_string()),
        }
        for (id, legs) in &self.signed {
            let committed = bundles.fate(id).and_then(|fate| fate.decided).is_some_and(|(committed, _)| committed);
            for prepare in legs {
                let (rollup, index) = (prepare.leg.rollup, prepare.index);
                let ended = self.books.ledger(rollup).and_then(|ledger| ledger.settled().get(&(*id, index)));
                if committed && ended != Some(&true) {
                    return wrong(format!("{id} is committed, and leg {index} has ended with {ended:?}"));
                }
                let zero = |wei: U256, is_due: bool| if is_due { wei } else { U256::ZERO };
                let due = prepare.leg.moves.iter().flat_map(|m| {
                    [(m.to, zero(m.amount, committed)), (m.refund, zero(m.amount, ended == Some(&false)))]
                });
                for (account, due) in due {
                    let has = match balance(rollup, account) {
                        Ok(has) => has,
                        Err(error) => return wrong(error.to_string()),
                    };
                    if has != due {
                        let leg =
                            format!("rollup {rollup}, leg {index} of {id}, committed {committed}, ended {ended:?}");
                        return wrong(format!("{leg}: {account} has {has}, due is {due}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Legs that are settled.
    pub fn settled(&self) -> usize {
        self.books.ledgers().map(|(_, ledger)| ledger.settled().len()).sum()
    }
}
