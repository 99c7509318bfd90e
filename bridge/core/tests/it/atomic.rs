//! Bundles in the hub's state: all legs or none, decided once, by the log alone.

use crate::state::{A, B, after, block_with, certified, checkpoint, follow, founding, hub, network, refusal};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};
use switchyard_bridge_core::{
    Ballot, BridgeError, BridgeRecord, BundleRecord, BundleState, Checkpoint, HubLeaf, LegRecord, SystemError,
    SystemState, Vote, votes_root,
};
use switchyard_primitives::{B256, Bytes, RollupId, Segment, keccak256};

const ALL: &[u8] = &[1, 2, 3, 4];

fn transaction(rollup: RollupId, salt: u8) -> Bytes {
    Bytes::from(vec![u8::try_from(rollup.0).unwrap(), salt])
}

/// Legs on these rollups, told apart by the salt.
fn bundle(deadline: u64, salt: u8, rollups: &[RollupId]) -> BundleRecord {
    let leg = |(index, rollup): (u8, &RollupId)| LegRecord {
        rollup: *rollup,
        terms: keccak256([salt, index]),
        tx: keccak256(transaction(*rollup, salt.wrapping_mul(16).wrapping_add(index))),
    };
    let legs = (0..).zip(rollups).map(leg).collect();
    BundleRecord { deadline, salt: B256::with_last_byte(salt), legs }
}

/// The segments that hold a bundle's legs, but for those left out.
fn segments(bundles: &[&BundleRecord], without: &[B256]) -> Vec<Segment> {
    let mut by_rollup = BTreeMap::<RollupId, Vec<Bytes>>::new();
    for bundle in bundles {
        let salt = bundle.salt.0[31];
        for (index, leg) in (0u8..).zip(&bundle.legs).filter(|(_, leg)| !without.contains(&leg.tx)) {
            let payload = transaction(leg.rollup, salt.wrapping_mul(16).wrapping_add(index));
            by_rollup.entry(leg.rollup).or_default().push(payload);
        }
    }
    by_rollup.into_iter().map(|(rollup, transactions)| Segment { rollup, transactions }).collect()
}

fn record(bundle: &BundleRecord) -> Bytes {
    BridgeRecord::Bundle(bundle.clone()).encode()
}

fn include(state: &Arc<SystemState>, bundles: &[&BundleRecord]) -> Result<Arc<SystemState>, SystemError> {
    let records = bundles.iter().map(|bundle| record(bundle)).collect();
    state.follow(&block_with(state, records, segments(bundles, &[])))
}

fn vote(bundle: &BundleRecord, leg: u8, ballot: Ballot) -> Vote {
    Vote { bundle: bundle.id(), leg, ballot }
}

/// Certifies each rollup's next block with these votes.
fn say(state: &Arc<SystemState>, said: &[(RollupId, Vec<Vote>)]) -> Arc<SystemState> {
    let bridge = state.bridge().unwrap();
    let entry = |(rollup, votes): &(RollupId, Vec<Vote>)| {
        let number = bridge.next_number(*rollup).unwrap().unwrap_or(1);
        let checkpoint = checkpoint(*rollup, number, state.next_height() - 1);
        (Checkpoint { votes_root: votes_root(votes), ..checkpoint }, votes.clone(), ALL)
    };
    let entries: Vec<_> = said.iter().map(entry).collect();
    follow(state, vec![certified(&entries, 4)]).unwrap()
}

fn leaves(state: &SystemState) -> Vec<HubLeaf> {
    state.bridge().unwrap().added().leaves.iter().map(|(_, leaf)| *leaf).collect()
}

fn decisions(state: &SystemState) -> Vec<(B256, bool)> {
    let decision = |leaf: HubLeaf| match leaf {
        HubLeaf::Decision { bundle, committed, height } => {
            assert_eq!(height + 1, state.next_height());
            Some((bundle, committed))
        }
        _ => None,
    };
    leaves(state).into_iter().filter_map(decision).collect()
}

fn start() -> Arc<SystemState> {
    after(network(&[1; 4], 3), 1)
}

#[test]
fn a_bundle_is_included_with_all_its_legs_or_the_block_is_refused() {
    let state = start();
    let both = bundle(10, 1, &[A, B]);
    let refused = |without: usize| {
        let segments = segments(&[&both], &[both.legs[without].tx]);
        refusal(state.follow(&block_with(&state, vec![record(&both)], segments)))
    };
    for leg in [0, 1] {
        assert_eq!(refused(leg), BridgeError::LegMissing { id: both.id(), leg });
    }
    let mut twice = both.clone();
    twice.legs[1] = twice.legs[0];
    assert_eq!(refusal(include(&state, &[&twice])), BridgeError::LegMissing { id: twice.id(), leg: 1 });
    // Another bundle must have legs of its own.
    let mut other = both.clone();
    other.salt = B256::with_last_byte(9);
    let shared = state.follow(&block_with(&state, vec![record(&both), record(&other)], segments(&[&both], &[])));
    assert_eq!(refusal(shared), BridgeError::LegMissing { id: other.id(), leg: 0 });
    let nowhere = bundle(10, 1, &[A, RollupId(7)]);
    assert_eq!(refusal(include(&state, &[&nowhere])), BridgeError::Rollup { rollup: RollupId(7) });

    let next = include(&state, &[&both]).unwrap();
    let open = next.bridge().unwrap().bundle(&both.id()).unwrap();
    assert_eq!((open.deadline, open.included), (10, 2));
    assert_eq!(open.state, BundleState::Open { legs: vec![(A, false), (B, false)] });
    assert_eq!(leaves(&next), []);
    assert_ne!(next.root(), state.root());
    assert_eq!(refusal(include(&next, &[&both])), BridgeError::BundleKnown { id: both.id() });
}

#[test]
fn a_deadline_is_ahead_and_not_too_far() {
    let state = start();
    let height = state.next_height();
    let most = height + BundleRecord::DEADLINE_BLOCKS_MAX;
    for deadline in [0, height - 1, height, most + 1, u64::MAX] {
        let refused = refusal(include(&state, &[&bundle(deadline, 1, &[A, B])]));
        assert_eq!(refused, BridgeError::Deadline { height, most, deadline });
    }
    for deadline in [height + 1, most] {
        include(&state, &[&bundle(deadline, 1, &[A, B])]).unwrap();
    }
}

#[test]
fn it_commits_with_the_last_yes_and_aborts_with_the_first_no() {
    let (good, bad) = (bundle(20, 1, &[A, B]), bundle(20, 2, &[A, B, A]));
    let state = include(&start(), &[&good, &bad]).unwrap();
    let state = say(&state, &[(A, vec![vote(&good, 0, Ballot::Yes), vote(&bad, 0, Ballot::Yes)])]);
    assert_eq!(decisions(&state), []);
    // A rollup speaks of its own legs only.
    let state =
        say(&state, &[(A, vec![vote(&good, 1, Ballot::Yes), vote(&good, 1, Ballot::No), vote(&good, 9, Ballot::No)])]);
    assert_eq!(decisions(&state), []);
    let last = vec![vote(&good, 1, Ballot::Yes), vote(&bad, 1, Ballot::No)];
    let state = say(&state, &[(B, last), (A, vec![vote(&bad, 2, Ballot::Yes)])]);
    assert_eq!(decisions(&state), [(good.id(), true), (bad.id(), false)]);
    let kinds: Vec<_> = leaves(&state).iter().map(|leaf| matches!(leaf, HubLeaf::Checkpoint(_))).collect();
    assert_eq!(kinds, [true, false, false, true], "what follows from a checkpoint comes right after it");
    // Decided once: whatever is said later.
    let said = [(B, vec![vote(&good, 1, Ballot::No), vote(&bad, 1, Ballot::Yes)])];
    let state = say(&state, &said);
    assert_eq!(decisions(&state), []);
    let height = state.next_height() - 2;
    let decided = state.bridge().unwrap().bundle(&good.id()).unwrap();
    assert_eq!(decided.state, BundleState::Decided { committed: true, height });
    assert_eq!(refusal(include(&state, &[&good])), BridgeError::BundleKnown { id: good.id() });
}

/// The record says where a leg is, and so whose votes count for it: the id that was signed must say so too.
#[test]
fn a_rollup_that_no_leg_was_made_for_has_no_vote_on_the_bundle() {
    // Its operators say yes to anything.
    let liar = RollupId(3);
    let mut founding = founding(4);
    founding.rollups.insert(liar, 73);
    for operator in founding.operators.values_mut() {
        operator.rollups.insert(liar);
    }
    let start = after(Arc::new(SystemState::new(hub(&[1; 4], 3), Arc::new(founding)).unwrap()), 1);
    let agreed = bundle(20, 1, &[A, B]);
    let mut forged = agreed.clone();
    forged.legs[0] = LegRecord { rollup: liar, tx: keccak256(transaction(liar, 16)), terms: agreed.legs[0].terms };
    assert_ne!(forged.id(), agreed.id());

    // B's leg names the agreed id: it is none of the forged bundle's.
    let state = include(&start, &[&forged]).unwrap();
    let lies = vec![vote(&agreed, 0, Ballot::Yes), vote(&forged, 0, Ballot::Yes)];
    let state = say(&state, &[(liar, lies), (B, vec![vote(&forged, 1, Ballot::No), vote(&agreed, 1, Ballot::Stray)])]);
    let aborted = HubLeaf::Decision { bundle: forged.id(), committed: false, height: state.next_height() - 1 };
    let released = HubLeaf::Release { bundle: agreed.id(), rollup: B, leg: 1 };
    assert_eq!(leaves(&state)[2..], [aborted, released]);

    let state = include(&start, &[&agreed]).unwrap();
    let state = say(&state, &[(liar, vec![vote(&agreed, 0, Ballot::Yes)]), (B, vec![vote(&agreed, 1, Ballot::Yes)])]);
    assert_eq!(decisions(&state), []);
    let state = say(&state, &[(A, vec![vote(&agreed, 0, Ballot::Yes)])]);
    assert_eq!(decisions(&state), [(agreed.id(), true)]);
}

#[test]
fn what_is_prepared_outside_its_bundle_is_released_or_aborts_it() {
    let (open, unknown) = (bundle(20, 1, &[A, B]), bundle(20, 2, &[A, B]));
    let state = include(&start(), &[&open]).unwrap();
    let said = vec![vote(&unknown, 0, Ballot::Stray), vote(&open, 0, Ballot::Stray), vote(&unknown, 1, Ballot::No)];
    let state = say(&state, &[(A, said)]);
    let released = HubLeaf::Release { bundle: unknown.id(), rollup: A, leg: 0 };
    let aborted = HubLeaf::Decision { bundle: open.id(), committed: false, height: state.next_height() - 1 };
    assert_eq!(leaves(&state)[1..], [released, aborted]);
    // After the decision there is nothing left to contradict.
    let state = say(&state, &[(B, vec![vote(&open, 1, Ballot::Stray)])]);
    assert_eq!(leaves(&state)[1..], [HubLeaf::Release { bundle: open.id(), rollup: B, leg: 1 }]);
}

#[test]
fn the_deadline_aborts_what_is_not_decided_and_ends_the_memory() {
    let waits = bundle(5, 1, &[A, B]);
    let state = include(&start(), &[&waits]).unwrap();
    let state = say(&state, &[(A, vec![vote(&waits, 0, Ballot::Yes)])]);
    let state = after(state, 1);
    assert_eq!((state.next_height(), decisions(&state)), (5, vec![]));
    // The votes of the deadline's own block come first.
    let in_time = say(&state, &[(B, vec![vote(&waits, 1, Ballot::Yes)])]);
    assert_eq!(decisions(&in_time), [(waits.id(), true)]);
    let late = after(state, 1);
    assert_eq!(decisions(&late), [(waits.id(), false)]);
    for state in [in_time, late] {
        let ahead = 62 - (state.next_height() - 1);
        let state = after(state, ahead);
        assert!(state.bridge().unwrap().bundle(&waits.id()).is_some(), "with others of near deadlines");
        let state = after(state, 1);
        assert_eq!(state.bridge().unwrap().bundle(&waits.id()), None);
        assert!(matches!(refusal(include(&state, &[&waits])), BridgeError::Deadline { .. }));
        let read = SystemState::decode(crate::state::NETWORK, Arc::default(), &state.encode()).unwrap();
        assert_eq!(read.root(), state.root());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever rollups say and whenever, each bundle has one decision, at its deadline at the latest, and is committed only
    /// if every leg's yes is certified before.
    #[test]
    fn each_bundle_is_decided_once(
        deadlines in proptest::collection::vec(4u64..9, 1..5),
        said in proptest::collection::vec((any::<bool>(), proptest::collection::vec((0u8..5, 0u8..3, 0u8..4), 0..6)), 0..7),
    ) {
        let bundles: Vec<_> = (0u8..).zip(&deadlines).map(|(salt, deadline)| bundle(*deadline, salt, &[A, B])).collect();
        let mut state = include(&start(), &bundles.iter().collect::<Vec<_>>()).unwrap();
        let (mut yes, mut no, mut decided) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for step in 0..9 {
            let height = state.next_height();
            state = match said.get(step) {
                None => after(state, 1),
                Some((of_a, votes)) => {
                    let rollup = if *of_a { A } else { B };
                    let mut cast = Vec::new();
                    for (which, leg, ballot) in votes {
                        let Some(bundle) = bundles.get(usize::from(*which)) else { continue };
                        let ballot = [Ballot::Yes, Ballot::Yes, Ballot::No, Ballot::Stray][usize::from(*ballot)];
                        cast.push(vote(bundle, *leg, ballot));
                        let is_its_own = bundle.legs.get(usize::from(*leg)).is_some_and(|leg| leg.rollup == rollup);
                        if is_its_own && ballot == Ballot::Yes {
                            yes.entry((bundle.id(), *leg)).or_insert(height);
                        } else if is_its_own {
                            no.entry(bundle.id()).or_insert(height);
                        }
                    }
                    say(&state, &[(rollup, cast)])
                }
            };
            for (id, committed) in decisions(&state) {
                prop_assert_eq!(decided.insert(id, (committed, height)), None);
            }
        }
        for bundle in &bundles {
            let (committed, height) = decided[&bundle.id()];
            prop_assert!(height <= bundle.deadline);
            let all = (0..2).map(|leg| yes.get(&(bundle.id(), leg))).collect::<Option<Vec<_>>>();
            let all_by = all.map(|heights| *heights.into_iter().max().unwrap());
            if committed {
                prop_assert_eq!(all_by, Some(height));
            } else if height < bundle.deadline {
                prop_assert_eq!(no.get(&bundle.id()), Some(&height));
            }
        }
    }
}
