//! The bundles that the hub remembers, so that none is included twice.
//!
//! There may be many of them, and a block changes few. So they are kept by deadline, some heights together: a block copies and
//! hashes only those shelves that it changes, and a whole shelf is forgotten at a time.

use crate::{Ballot, BundleRecord, BundleState, HubBundle, Vote, bundles::Effect};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};
use switchyard_primitives::{B256, DecodeError, Reader, RollupId, Writer, keccak256};

/// Deadlines of so many heights are on one shelf.
const SPAN: u64 = 64;

/// Bundles whose deadlines are near each other.
#[derive(Clone, Debug, Default)]
struct Shelf {
    bundles: BTreeMap<B256, HubBundle>,
    /// How many of them are open.
    open: usize,
    /// Of [`Self::write`]'s layout, once it was asked for.
    hash: OnceLock<B256>,
}

impl PartialEq for Shelf {
    fn eq(&self, other: &Self) -> bool {
        self.bundles == other.bundles
    }
}

impl Eq for Shelf {}

impl Shelf {
    /// `count u32 | (id 32 | bundle) *`, ascending by id.
    fn write(&self, w: &mut Writer) {
        w.count(self.bundles.len());
        for (id, bundle) in &self.bundles {
            w.raw(id.as_slice());
            bundle.write(w);
        }
    }

    fn hash(&self) -> B256 {
        *self.hash.get_or_init(|| {
            let mut w = Writer::default();
            self.write(&mut w);
            keccak256(w.into_vec())
        })
    }

    fn insert(&mut self, id: B256, bundle: HubBundle) {
        self.hash.take();
        self.open += usize::from(bundle.is_open());
        if let Some(before) = self.bundles.insert(id, bundle) {
            self.open -= usize::from(before.is_open());
        }
    }
}

/// The bundles that the hub remembers, by deadline and id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bundles {
    shelves: BTreeMap<u64, Arc<Shelf>>,
    count: usize,
}

impl Bundles {
    /// Most of them.
    pub(crate) const MAX: usize = 32_768;

    /// How many more may be included with a deadline so many blocks ahead.
    pub(crate) fn room(&self, ahead: u64) -> usize {
        let most = if ahead > BundleRecord::DEADLINE_BLOCKS_SHORT { Self::MAX / 2 } else { Self::MAX };
        most.saturating_sub(self.count)
    }

    pub(crate) fn get(&self, id: &B256) -> Option<&HubBundle> {
        self.shelves.values().rev().find_map(|shelf| shelf.bundles.get(id))
    }

    /// Whether it is here, of a bundle whose deadline is known.
    pub(crate) fn has(&self, id: &B256, deadline: u64) -> bool {
        self.shelves.get(&(deadline / SPAN)).is_some_and(|shelf| shelf.bundles.contains_key(id))
    }

    pub(crate) fn open(&mut self, id: B256, record: &BundleRecord, height: u64) {
        let legs = record.legs.iter().map(|leg| (leg.rollup, false)).collect();
        let bundle = HubBundle { deadline: record.deadline, included: height, state: BundleState::Open { legs } };
        let shelf = self.shelves.entry(record.deadline / SPAN).or_default();
        Arc::make_mut(shelf).insert(id, bundle);
        self.count += 1;
    }

    /// The shelf with an open bundle, and the bundle.
    fn find_open(&mut self, id: &B256) -> Option<(&mut Arc<Shelf>, HubBundle)> {
        let mut shelves = self.shelves.values_mut().filter(|shelf| shelf.open > 0);
        shelves.find_map(|shelf| {
            let bundle = shelf.bundles.get(id).filter(|bundle| bundle.is_open())?.clone();
            Some((shelf, bundle))
        })
    }

    /// Counts a vote that a checkpoint of `rollup` carries.
    pub(crate) fn vote(&mut self, rollup: RollupId, vote: &Vote) -> Effect {
        let counted = self.find_open(&vote.bundle).and_then(|(shelf, mut bundle)| {
            let effect = bundle.vote(rollup, vote)?;
            Arc::make_mut(shelf).insert(vote.bundle, bundle);
            Some(effect)
        });
        let stray = || if vote.ballot == Ballot::Stray { Effect::Releases } else { Effect::Nothing };
        counted.unwrap_or_else(stray)
    }

    pub(crate) fn decide(&mut self, id: &B256, committed: bool, height: u64) {
        if let Some((shelf, bundle)) = self.find_open(id) {
            let state = BundleState::Decided { committed, height };
            Arc::make_mut(shelf).insert(*id, HubBundle { state, ..bundle });
        }
    }

    /// Those that are still open at a height that is their deadline, by id.
    pub(crate) fn overdue(&self, height: u64) -> Vec<B256> {
        let shelves = self.shelves.range(..=height / SPAN).filter(|(_, shelf)| shelf.open > 0);
        let bundles = shelves.flat_map(|(_, shelf)| &shelf.bundles);
        let overdue = bundles.filter(|(_, bundle)| bundle.deadline <= height && bundle.is_open());
        let mut overdue: Vec<B256> = overdue.map(|(id, _)| *id).collect();
        overdue.sort_unstable();
        overdue
    }

    /// Whether there are any to forget after the block of a height: of a shelf whose last deadline has come. They can be included no more.
    pub(crate) fn has_old(&self, height: u64) -> bool {
        self.shelves.first_key_value().is_some_and(|(shelf, _)| is_old(*shelf, height))
    }

    /// Forgets them.
    pub(crate) fn forget(&mut self, height: u64) {
        while let Some(shelf) = self.shelves.first_entry().filter(|shelf| is_old(*shelf.key(), height)) {
            self.count -= shelf.remove().bundles.len();
        }
    }

    /// What the state commits to: `shelves u32 | (shelf u64 | hash 32) *`, ascending.
    pub(crate) fn write_hashes(&self, w: &mut Writer) {
        w.count(self.shelves.len());
        for (number, shelf) in &self.shelves {
            w.u64(*number);
            w.raw(shelf.hash().as_slice());
        }
    }

    /// `shelves u32 | (shelf u64 | count u32 | (id 32 | bundle) *) *`, ascending.
    pub(crate) fn write(&self, w: &mut Writer) {
        w.count(self.shelves.len());
        for (number, shelf) in &self.shelves {
            w.u64(*number);
            shelf.write(w);
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let mut bundles = Self::default();
        for _ in 0..r.count("bridge.shelves", Self::MAX)? {
            let number = r.u64("shelf.number")?;
            if bundles.shelves.last_key_value().is_some_and(|(last, _)| *last >= number) {
                return Err(DecodeError::Invalid { field: "shelf.number", reason: "not in ascending order" });
            }
            let mut shelf = Shelf::default();
            for _ in 0..r.count("shelf.bundles", Self::MAX - bundles.count)? {
                let id = r.b256("bundle.id")?;
                if shelf.bundles.last_key_value().is_some_and(|(last, _)| *last >= id) {
                    return Err(DecodeError::Invalid { field: "bundle.id", reason: "not in ascending order" });
                }
                let bundle = HubBundle::read(r)?;
                if bundle.deadline / SPAN != number {
                    return Err(DecodeError::Invalid { field: "bundle.deadline", reason: "of another shelf" });
                }
                shelf.insert(id, bundle);
                bundles.count += 1;
            }
            if shelf.bundles.is_empty() {
                return Err(DecodeError::Invalid { field: "shelf.bundles", reason: "none" });
            }
            bundles.shelves.insert(number, Arc::new(shelf));
        }
        Ok(bundles)
    }
}

/// Whether all deadlines of a shelf have come.
fn is_old(shelf: u64, height: u64) -> bool {
    shelf.saturating_add(1).saturating_mul(SPAN) <= height.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LegRecord;
    use proptest::prelude::*;

    const A: RollupId = RollupId(1);

    fn id(number: u64) -> B256 {
        keccak256(number.to_be_bytes())
    }

    fn record(deadline: u64) -> BundleRecord {
        let leg = LegRecord { rollup: A, terms: B256::ZERO, tx: B256::ZERO };
        BundleRecord { deadline, salt: B256::ZERO, legs: vec![leg; 2] }
    }

    fn read(bundles: &Bundles) -> Result<Bundles, DecodeError> {
        let mut w = Writer::default();
        bundles.write(&mut w);
        Bundles::read(&mut Reader::new(w.into_bytes()))
    }

    fn hashes(bundles: &Bundles) -> Vec<u8> {
        let mut w = Writer::default();
        bundles.write_hashes(&mut w);
        w.into_vec()
    }

    #[test]
    fn far_deadlines_take_half_of_the_memory_only() {
        const SHORT: u64 = BundleRecord::DEADLINE_BLOCKS_SHORT;
        let mut bundles = Bundles::default();
        for (count, number) in (0..Bundles::MAX).zip(0u64..) {
            assert_eq!(bundles.room(SHORT), Bundles::MAX - count);
            assert_eq!(bundles.room(SHORT + 1), (Bundles::MAX / 2).saturating_sub(count));
            bundles.open(id(number), &record(number % 1000), 0);
        }
        assert_eq!((bundles.room(1), bundles.room(SHORT + 1)), (0, 0));
        assert_eq!(read(&bundles).unwrap(), bundles);
        bundles.forget(63);
        assert_eq!(bundles.room(1), (0..Bundles::MAX as u64).filter(|number| number % 1000 < 64).count());
        bundles.forget(u64::MAX);
        assert_eq!((bundles.room(1), hashes(&bundles)), (Bundles::MAX, vec![0; 4]));
    }

    #[test]
    fn what_is_not_in_order_is_not_read() {
        let mut bundles = Bundles::default();
        [(1, 5), (2, 5), (3, 70)]
            .into_iter()
            .for_each(|(number, deadline)| bundles.open(id(number), &record(deadline), 0));
        let broken = |shelves: Vec<(u64, Shelf)>| {
            let mut w = Writer::default();
            w.count(shelves.len());
            for (number, shelf) in &shelves {
                w.u64(*number);
                shelf.write(&mut w);
            }
            Bundles::read(&mut Reader::new(w.into_bytes())).map(|_| ()).unwrap_err().to_string()
        };
        let shelf = |number: u64| Shelf::clone(&bundles.shelves[&number]);
        assert!(broken(vec![(1, shelf(1)), (0, shelf(0))]).contains("shelf.number"));
        assert!(broken(vec![(0, shelf(0)), (0, shelf(0))]).contains("shelf.number"));
        assert!(broken(vec![(1, shelf(0))]).contains("bundle.deadline"));
        assert!(broken(vec![(1, Shelf::default())]).contains("shelf.bundles"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// As one table of all bundles would be, whatever is done; and of the same bundles the same commitment.
        #[test]
        fn shelves_are_one_table(steps in proptest::collection::vec((0u8..4, 0u64..40, 0u64..300, any::<bool>()), 1..120)) {
            let (mut bundles, mut model) = (Bundles::default(), BTreeMap::<B256, HubBundle>::new());
            let mut height = 0;
            for (what, number, ahead, yes) in steps {
                let (id, before) = (id(number), bundles.clone());
                match what {
                    0 if !model.contains_key(&id) => {
                        let record = record(height + 1 + ahead);
                        prop_assert!(!bundles.has(&id, record.deadline));
                        bundles.open(id, &record, height);
                        prop_assert!(bundles.has(&id, record.deadline));
                        let state = BundleState::Open { legs: vec![(A, false); 2] };
                        model.insert(id, HubBundle { deadline: record.deadline, included: height, state });
                    }
                    1 => {
                        let ballot = if yes { Ballot::Yes } else { Ballot::Stray };
                        let vote = Vote { bundle: id, leg: [0, 1, 2][usize::try_from(ahead % 3).unwrap()], ballot };
                        let counted = model.get_mut(&id).and_then(|bundle| bundle.vote(A, &vote));
                        let stray = if yes { Effect::Nothing } else { Effect::Releases };
                        prop_assert_eq!(bundles.vote(A, &vote), counted.unwrap_or(stray));
                    }
                    2 => {
                        bundles.decide(&id, yes, height);
                        if let Some(bundle) = model.get_mut(&id).filter(|bundle| bundle.is_open()) {
                            bundle.state = BundleState::Decided { committed: yes, height };
                        }
                    }
                    3 => {
                        height += ahead / 4;
                        let is_late = |bundle: &HubBundle| bundle.deadline <= height && bundle.is_open();
                        let late: Vec<B256> = model.iter().filter(|(_, b)| is_late(b)).map(|(id, _)| *id).collect();
                        prop_assert_eq!(bundles.overdue(height), late);
                        let old = |bundle: &HubBundle| bundle.deadline / SPAN * SPAN + SPAN - 1 <= height;
                        prop_assert_eq!(bundles.has_old(height), model.values().any(old));
                        bundles.forget(height);
                        model.retain(|_, bundle| !old(bundle));
                    }
                    _ => {}
                }
                prop_assert_eq!(bundles.count, model.len());
                for number in 0..40 {
                    let id = self::id(number);
                    prop_assert_eq!(bundles.get(&id), model.get(&id));
                }
                let again = read(&bundles).unwrap();
                prop_assert_eq!(&again, &bundles);
                prop_assert_eq!(hashes(&again), hashes(&bundles));
                prop_assert_eq!(before == bundles, hashes(&before) == hashes(&bundles));
            }
        }
    }
}
