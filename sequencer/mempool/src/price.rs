//! Senders in order of what they pay.
//!
//! What a transaction pays above the base fee, its effective tip, is `min(tip cap, fee cap - base fee)` (EIP-1559), so the
//! order changes with the base fee. Those whose fee cap leaves room for the whole tip are ordered by tip, the others by
//! fee cap; both orders hold at any base fee. When it moves, only those cross over whose slack (fee cap less tip cap) it
//! passes.

use alloy_primitives::Address;
use std::{cmp::Reverse, collections::BTreeMap};

/// What decides a transaction's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    sender: Address,
    /// Unique; the earlier goes first among equals.
    arrival: u64,
    fee_cap: i128,
    tip_cap: i128,
}

/// Tip per gas that a block's builder would see; negative where the fee cap is below the base fee.
pub(crate) type EffectiveTip = i128;

/// Amounts above half of what the type holds count as that: nobody has so much, and differences stay exact.
fn signed(wei: u128) -> i128 {
    i128::try_from(wei).unwrap_or(i128::MAX)
}

/// `min(tip cap, fee cap - base fee)`.
pub(crate) fn effective_tip(fee_cap: u128, tip_cap: u128, base_fee: u64) -> EffectiveTip {
    signed(tip_cap).min(signed(fee_cap) - i128::from(base_fee))
}

impl Rank {
    pub(crate) fn new(sender: Address, arrival: u64, fee_cap: u128, tip_cap: u128) -> Self {
        Self { sender, arrival, fee_cap: signed(fee_cap), tip_cap: signed(tip_cap.min(fee_cap)) }
    }

    fn slack(&self) -> (i128, u64) {
        (self.fee_cap - self.tip_cap, self.arrival)
    }

    fn by_tip(&self) -> Place {
        (self.tip_cap, Reverse(self.arrival))
    }

    fn by_cap(&self) -> Place {
        (self.fee_cap, Reverse(self.arrival))
    }

    #[cfg(test)]
    pub(crate) fn arrival(&self) -> u64 {
        self.arrival
    }
}

type Place = (i128, Reverse<u64>);
/// What an order yields.
pub(crate) type Placed = (EffectiveTip, Reverse<u64>, Address);

/// At most one transaction of each sender, ordered by effective tip.
#[derive(Debug, Default)]
pub(crate) struct PriceIndex {
    base_fee: u64,
    by_tip: BTreeMap<Place, Address>,
    by_cap: BTreeMap<Place, Address>,
    by_slack: BTreeMap<(i128, u64), Rank>,
}

impl PriceIndex {
    pub(crate) fn insert(&mut self, rank: Rank) {
        self.by_slack.insert(rank.slack(), rank);
        self.place(rank);
    }

    pub(crate) fn remove(&mut self, rank: &Rank) {
        self.by_slack.remove(&rank.slack());
        self.by_tip.remove(&rank.by_tip());
        self.by_cap.remove(&rank.by_cap());
    }

    fn place(&mut self, rank: Rank) {
        if rank.slack().0 >= i128::from(self.base_fee) {
            self.by_tip.insert(rank.by_tip(), rank.sender);
        } else {
            self.by_cap.insert(rank.by_cap(), rank.sender);
        }
    }

    pub(crate) fn set_base_fee(&mut self, base_fee: u64) {
        let (low, high) = (self.base_fee.min(base_fee), self.base_fee.max(base_fee));
        self.base_fee = base_fee;
        let crossing: Vec<Rank> =
            self.by_slack.range((low.into(), 0)..(high.into(), 0)).map(|(_, rank)| *rank).collect();
        for rank in crossing {
            self.by_tip.remove(&rank.by_tip());
            self.by_cap.remove(&rank.by_cap());
            self.place(rank);
        }
    }

    /// From the highest effective tip down.
    pub(crate) fn best(&self) -> impl Iterator<Item = Placed> + '_ {
        let base_fee = self.base_fee;
        let mut tips = self.by_tip.iter().rev().map(|entry| placed(entry, 0)).peekable();
        let mut caps = self.by_cap.iter().rev().map(move |entry| placed(entry, base_fee)).peekable();
        std::iter::from_fn(move || if tips.peek() >= caps.peek() { tips.next() } else { caps.next() })
    }

    /// The lowest effective tip, the latest arrival among equals.
    pub(crate) fn worst(&self) -> Option<Placed> {
        let tip = self.by_tip.first_key_value().map(|entry| placed(entry, 0));
        let cap = self.by_cap.first_key_value().map(|entry| placed(entry, self.base_fee));
        [tip, cap].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(crate) fn ranks(&self) -> Vec<Rank> {
        assert_eq!(self.by_slack.len(), self.by_tip.len() + self.by_cap.len());
        self.by_slack.values().copied().collect()
    }
}

fn placed((&(price, arrival), &sender): (&Place, &Address), base_fee: u64) -> Placed {
    (price - i128::from(base_fee), arrival, sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert { fee_cap: u128, tip_cap: u128 },
        Remove(prop::sample::Index),
        BaseFee(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u128..40, 0u128..40).prop_map(|(cap, tip)| Step::Insert { fee_cap: cap, tip_cap: tip.min(cap) }),
            1 => (any::<u128>(), any::<u128>()).prop_map(|(fee_cap, tip_cap)| Step::Insert { fee_cap, tip_cap }),
            2 => any::<prop::sample::Index>().prop_map(Step::Remove),
            2 => (0u64..45).prop_map(Step::BaseFee),
        ]
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_sorting_by_effective_tip_at_any_base_fee(
            steps in proptest::collection::vec(step(), 1..80),
        ) {
            let (mut index, mut model, mut base_fee) = (PriceIndex::default(), Vec::new(), 0);
            for (step, arrival) in steps.into_iter().zip(0..) {
                match step {
                    Step::Insert { fee_cap, tip_cap } => {
                        let sender = Address::with_last_byte(arrival);
                        index.insert(Rank::new(sender, arrival.into(), fee_cap, tip_cap));
                        model.push((sender, arrival.into(), fee_cap, tip_cap));
                    }
                    Step::Remove(at) if !model.is_empty() => {
                        let (sender, arrival, fee_cap, tip_cap) = model.swap_remove(at.index(model.len()));
                        index.remove(&Rank::new(sender, arrival, fee_cap, tip_cap));
                    }
                    Step::Remove(_) => {}
                    Step::BaseFee(fee) => {
                        base_fee = fee;
                        index.set_base_fee(fee);
                    }
                }
                let item = |&(sender, arrival, cap, tip): &(Address, u64, u128, u128)| {
                    (effective_tip(cap, tip.min(cap), base_fee), Reverse(arrival), sender)
                };
                let mut sorted: Vec<_> = model.iter().map(item).collect();
                sorted.sort_by(|a, b| b.cmp(a));
                prop_assert_eq!(index.best().collect::<Vec<_>>(), sorted.clone());
                prop_assert_eq!(index.worst(), sorted.last().copied());
            }
        }
    }
}
