use super::*;
use crate::store::WriteBatch;
use alloy::consensus::{Receipt, ReceiptWithBloom};
use alloy_primitives::{Address, Bloom, Log};
use proptest::prelude::*;

fn bundle(n: u8) -> B256 {
    B256::repeat_byte(n)
}

fn prepared(id: B256, leg: u8) -> Log {
    let event = Prepared { id, leg, signer: Address::repeat_byte(9) };
    Log { address: ATOMIC_VAULT, data: event.encode_log_data() }
}

fn receipt(logs: Vec<Log>) -> ReceiptEnvelope {
    let receipt = Receipt { status: true.into(), cumulative_gas_used: 0, logs };
    ReceiptEnvelope::Eip1559(ReceiptWithBloom { receipt, logs_bloom: Bloom::ZERO })
}

fn leg(place: u32, bundle: B256, leg: u8) -> Leg {
    Leg { hub_height: 5, place, bundle, leg }
}

fn stray(log: u32, bundle: B256, leg: u8) -> (Place, Vote) {
    (Place::Stray { block: 7, log }, Vote { bundle, leg, ballot: Ballot::Stray })
}

#[test]
fn a_leg_votes_by_what_its_own_transaction_has_prepared_and_all_else_is_stray() {
    let (a, b, c) = (bundle(1), bundle(2), bundle(3));
    let other = Log { address: Address::repeat_byte(1), ..prepared(a, 0) };
    let receipts = [
        receipt(vec![other.clone(), prepared(a, 0)]),
        receipt(vec![]),
        // Its own leg, another of the same bundle, and one of another bundle.
        receipt(vec![prepared(b, 1), prepared(b, 0), prepared(c, 0)]),
        receipt(vec![prepared(c, 3)]),
        receipt(vec![other]),
    ];
    let legs = [
        (leg(0, a, 0), Some(0)),
        (leg(1, a, 1), Some(1)),
        (leg(2, b, 0), Some(2)),
        // The same leg is prepared, in another transaction than its own.
        (leg(3, c, 3), Some(4)),
        (leg(4, c, 1), None),
    ];
    let ballots = [Ballot::Yes, Ballot::No, Ballot::Yes, Ballot::No, Ballot::No];
    let of_legs = legs.iter().zip(ballots).map(|((leg, _), ballot)| leg.vote(ballot));
    let expected: Vec<_> = of_legs.chain([stray(2, b, 1), stray(4, c, 0), stray(5, c, 3)]).collect();
    assert_eq!(cast(7, &receipts, &legs), expected);
}

proptest! {
    #[test]
    fn keys_are_in_the_order_of_places(a in place(), b in place()) {
        prop_assert_eq!(a.key().cmp(&b.key()), a.cmp(&b));
        prop_assert_eq!(Place::of_key(&a.key()), Some(a));
    }

    #[test]
    fn no_bytes_of_the_database_make_it_panic(
        key in proptest::collection::vec(any::<u8>(), 0..20), value in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let _ = waiting_vote(&key, &value);
    }
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        (any::<u64>(), any::<u32>()).prop_map(|(hub_height, place)| Place::Leg { hub_height, place }),
        (any::<u64>(), any::<u32>()).prop_map(|(block, log)| Place::Stray { block, log }),
    ]
}

/// Votes that wait, over a database that is written and opened again now and then.
struct Model {
    store: Store,
    changes: Changes,
    votes: WaitingVotes,
    _folder: tempfile::TempDir,
}

impl Model {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        Self { store, changes: Changes::default(), votes: WaitingVotes::default(), _folder: folder }
    }

    fn add(&mut self, vote: (Place, Vote)) {
        self.votes.add(&mut self.changes, vote);
    }

    fn take(&mut self, hub_height: u64) -> Vec<Vote> {
        self.votes.take(&self.store, &mut self.changes, hub_height).unwrap()
    }

    /// Writes what has changed; what is in memory is made anew.
    fn write(&mut self) {
        let mut batch = WriteBatch::default();
        std::mem::take(&mut self.changes).fill(&self.store, &mut batch).unwrap();
        self.store.write(batch, false).unwrap();
        let counted = WaitingVotes::load(&self.store).unwrap();
        assert_eq!(counted.count, self.votes.count);
        self.votes = counted;
    }
}

fn vote_of(place: Place) -> (Place, Vote) {
    match place {
        Place::Leg { hub_height, place } => {
            Leg { hub_height, place, bundle: bundle(1), leg: place.to_le_bytes()[0] }.no()
        }
        Place::Stray { log, .. } => stray(log, B256::from(alloy_primitives::U256::from(log)), 0),
    }
}

#[test]
fn a_checkpoint_carries_2048_votes_and_strays_wait_in_order() {
    let mut model = Model::new();
    let max = u32::try_from(VOTES_MAX).unwrap();
    let strays: Vec<_> = (0..2 * max + 5).map(|log| vote_of(Place::Stray { block: 7, log })).collect();
    strays.iter().for_each(|vote| model.add(*vote));
    let votes = |range: std::ops::Range<usize>| strays[range].iter().map(|(_, vote)| *vote).collect::<Vec<_>>();
    assert_eq!(model.take(5), votes(0..VOTES_MAX));
    model.write();
    // A leg's vote goes first, whatever waits.
    let leg = vote_of(Place::Leg { hub_height: 6, place: 0 });
    model.add(leg);
    let expected = [vec![leg.1], votes(VOTES_MAX..2 * VOTES_MAX - 1)].concat();
    assert_eq!(model.take(6), expected);
    assert_eq!(model.take(6), votes(2 * VOTES_MAX - 1..2 * VOTES_MAX + 5));
    assert!(model.votes.is_empty());
    model.write();
    assert_eq!(model.take(9), []);
}

#[test]
fn a_legs_vote_waits_for_a_block_that_ends_with_its_hub_block_or_a_later_one() {
    let mut model = Model::new();
    let [early, late] = [4, 6].map(|hub_height| vote_of(Place::Leg { hub_height, place: 0 }));
    model.add(late);
    model.write();
    model.add(early);
    assert_eq!(model.take(5), [early.1]);
    model.write();
    assert_eq!(model.take(5), []);
    assert_eq!(model.take(6), [late.1]);
    assert!(model.votes.is_empty());
}
