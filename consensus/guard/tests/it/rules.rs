//! What is permitted and what is refused.

use crate::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

#[test]
fn a_second_different_statement_for_a_slot_is_refused_and_the_same_again_is_not() {
    let place = Place::new();
    let guard = place.open();
    for kind in [Kind::Notarize, Kind::Finalize] {
        guard.permit(vote(kind, 7, 1)).unwrap();
        guard.permit(vote(kind, 7, 1)).unwrap();
        assert!(is_conflict(&guard.permit(vote(kind, 7, 2))), "{kind}");
        guard.permit(vote(kind, 8, 2)).unwrap();
        guard.permit(at(kind, Position { epoch: 1, number: 7 }, 2)).unwrap();
    }
    guard.permit(checkpoint(5, 7, 1)).unwrap();
    assert!(is_conflict(&guard.permit(checkpoint(5, 7, 2))));
    guard.permit(checkpoint(6, 7, 2)).unwrap();
}

#[test]
fn who_gives_a_view_up_does_not_call_it_final_nor_the_other_way_round() {
    let place = Place::new();
    let guard = place.open();
    for (first, then) in [(Kind::Nullify, Kind::Finalize), (Kind::Finalize, Kind::Nullify)] {
        let view = first as u64;
        guard.permit(vote(Kind::Notarize, view, 1)).unwrap();
        guard.permit(vote(first, view, 1)).unwrap();
        let refused = guard.permit(vote(then, view, 1)).unwrap_err();
        assert!(matches!(refused, Refusal::Excluded { signed, .. } if signed == first), "{refused}");
        guard.permit(vote(then, view + 10, 1)).unwrap();
    }
}

#[test]
fn what_is_forgotten_is_refused() {
    let place = Place::new();
    let guard = place.open();
    for view in 0..300 {
        guard.permit(vote(Kind::Notarize, view, 1)).unwrap();
    }
    for guard in [
        &guard,
        &Place::open(&{
            let copy = Place::new();
            copy.open().import(&guard.export()).unwrap();
            copy
        }),
    ] {
        assert!(is_low(&guard.permit(vote(Kind::Notarize, 3, 1))));
        assert!(is_low(&guard.permit(vote(Kind::Finalize, 3, 2))));
        assert!(is_conflict(&guard.permit(vote(Kind::Notarize, 290, 2))));
        guard.permit(vote(Kind::Notarize, 290, 1)).unwrap();
    }
    // Other scopes have marks of their own.
    guard.permit(checkpoint(0, 3, 2)).unwrap();
}

#[test]
fn a_guard_knows_what_it_has_not_signed_but_not_below_its_mark() {
    let place = Place::new();
    let guard = place.open();
    let at = |view| Position { epoch: 0, number: view };
    assert_eq!(guard.has_signed(Kind::Notarize, 0, at(5)), Some(false));
    for view in 0..300 {
        guard.permit(vote(Kind::Notarize, view, 1)).unwrap();
    }
    assert_eq!(guard.has_signed(Kind::Notarize, 0, at(299)), Some(true));
    assert_eq!(guard.has_signed(Kind::Finalize, 0, at(299)), Some(false));
    assert_eq!(guard.has_signed(Kind::Notarize, 0, at(300)), Some(false));
    assert_eq!(guard.has_signed(Kind::Notarize, 0, at(3)), None);
    assert_eq!(guard.has_signed(Kind::Checkpoint, 0, at(3)), Some(false));
}

#[test]
fn after_the_last_slot_nothing_is_signed() {
    let place = Place::new();
    let guard = place.open();
    let last = Position { epoch: u64::MAX, number: u64::MAX };
    guard.permit(at(Kind::Notarize, last, 1)).unwrap();
    let other = Place::new();
    other.open().import(&guard.export()).unwrap();
    let guard = other.open();
    guard.permit(at(Kind::Notarize, last, 1)).unwrap();
    let refused = guard.permit(at(Kind::Finalize, last, 1)).unwrap_err();
    assert!(matches!(refused, Refusal::Exhausted { .. }), "{refused}");
}

#[derive(Clone, Debug)]
enum Step {
    Ask { kind: Kind, view: u64, what: u8 },
    Restart,
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(Kind::Notarize), Just(Kind::Nullify), Just(Kind::Finalize)];
    prop_oneof![
        20 => (kind, 0u64..12, 0u8..3).prop_map(|(kind, view, what)| Step::Ask { kind, view, what }),
        1 => Just(Step::Restart),
        1 => Just(Step::Move),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_is_asked_no_two_permitted_statements_contradict_each_other(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut place = Place::new();
        let mut guard = Some(place.open());
        let mut signed: HashMap<(Kind, u64), u8> = HashMap::new();
        let mut asked: HashSet<(Kind, u64)> = HashSet::new();
        let mut moved = false;
        for step in steps {
            match step {
                Step::Ask { kind, view, what } => {
                    let answer = guard.as_ref().unwrap().permit(vote(kind, view, what));
                    if answer.is_ok() {
                        let before = signed.insert((kind, view), what);
                        prop_assert!(before.is_none_or(|before| before == what));
                        let both = [Kind::Nullify, Kind::Finalize].iter().all(|k| signed.contains_key(&(*k, view)));
                        prop_assert!(!both, "view {} was given up and called final", view);
                    }
                    // Nothing is refused without a reason.
                    let other = match kind { Kind::Nullify => Kind::Finalize, Kind::Finalize => Kind::Nullify, k => k };
                    if !moved && !asked.contains(&(kind, view)) && !asked.contains(&(other, view)) {
                        prop_assert_eq!(answer, Ok(()));
                    }
                    asked.insert((kind, view));
                }
                Step::Restart => {
                    guard = None;
                    guard.replace(place.open());
                }
                Step::Move => {
                    let export = guard.take().unwrap().export();
                    let json = serde_json::to_string(&export).unwrap();
                    place = Place::new();
                    guard.replace(place.open());
                    guard.as_ref().unwrap().import(&serde_json::from_str(&json).unwrap()).unwrap();
                    moved = true;
                }
            }
        }
    }
}
