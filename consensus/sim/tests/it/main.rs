//! Short runs of the simulation, and proof that its checkers can fail.

// clippy.toml's exception for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

mod stages;

use std::num::NonZeroU64;
use switchyard_consensus_sim::{
    bundles::Intent,
    byzantine::Behaviour,
    operators::Edit,
    plan::{Action, Plan},
    run::{Outcome, run},
};

/// Seeds that once found something, each with what it was. What a seed means changes with the plan: beside it belongs a test
/// that shows the same, where that can be said.
const REGRESSIONS: [(u64, &str); 4] = [
    (24, "at an epoch's end its journal was removed while its tasks were still syncing it"),
    (25, "the same"),
    (52, "a task that panics on a failing disk must end its validator, not leave it half alive"),
    (
        228,
        "who holds a promise alone has one seat of 21 and epochs of 6 blocks: its turn to lead comes after 44 s, not 20",
    ),
];

fn check(plan: &Plan) -> Outcome {
    let outcome = run(plan);
    let seed = plan.seed;
    assert_eq!(outcome.violation, None, "seed {seed}; repeat it with: make sim SEEDS=1 FROM={seed}");
    outcome
}

/// What the checkers say of a network in which some are faulty, with nothing else wrong.
fn verdict(seed: u64, faulty: &[(usize, Behaviour)]) -> Option<&'static str> {
    let mut plan = Plan::calm(seed, 4);
    plan.byzantine.extend(faulty.iter().copied());
    let violation = run(&plan).violation?;
    println!("{violation}");
    Some(violation.checker)
}

#[test]
fn the_first_seeds_hold_every_property() {
    for seed in 0..5 {
        check(&Plan::new(seed));
    }
}

#[test]
fn the_next_seeds_hold_every_property() {
    for seed in 5..10 {
        check(&Plan::new(seed));
    }
}

#[test]
fn seeds_that_once_failed_hold_every_property() {
    for (seed, _) in REGRESSIONS {
        check(&Plan::new(seed));
    }
}

#[test]
fn a_network_that_is_well_holds_no_votes_back() {
    // It came to 3 blocks in 40 s: with a silent validator every vote of the others counts.
    check(&Plan::with_bridge(5147));
}

#[test]
fn epochs_of_a_few_blocks_follow_each_other_without_a_validator_failing() {
    for seed in 200..203 {
        let mut plan = Plan::calm(seed, 4);
        plan.shape.epoch_blocks = NonZeroU64::new(3).unwrap();
        assert!(check(&plan).seen.blocks > 9);
    }
}

#[test]
fn the_stake_table_changes_and_everyone_follows() {
    let edits = [
        (500, Edit::Stake { validator: 0, stake: 3 }),
        (500, Edit::Join { validator: 5, stake: 2 }),
        (1_000, Edit::Keys { validator: 1, key: 1 }),
        (1_000, Edit::Leave { validator: 2 }),
        (1_500, Edit::Move { validator: 3 }),
        (2_000, Edit::Remove { validator: 4 }),
        // Back with what it had, and with its first key again.
        (5_000, Edit::Join { validator: 4, stake: 1 }),
        (5_500, Edit::Keys { validator: 1, key: 0 }),
    ];
    for copies in [false, true] {
        let mut plan = Plan::calm_with(300, 5, 1, &edits);
        plan.actions.push((1_200, (Action::Arrive { validator: 5, copies })));
        plan.actions.sort_by_key(|(at, _)| *at);
        let seen = check(&plan).seen;
        assert_eq!(seen.records, edits.len(), "{seen:?}");
        assert!(seen.committees >= 3 && seen.followed >= 5, "{seen:?}");
    }
}

#[test]
fn stake_moves_the_seats_of_validators_that_have_several() {
    // Of four, none may have more than a quarter: with five the larger ones have more.
    let mut plan = Plan::calm_with(301, 5, 0, &[(500, Edit::Stake { validator: 1, stake: 6 })]);
    plan.shape.seats_per_validator = 3;
    plan.shape.stakes = vec![2, 2, 3, 4, 2];
    let seen = check(&plan).seen;
    assert!(seen.records == 1 && seen.committees == 1, "{seen:?}");
}

#[test]
fn with_three_forgers_of_four_a_forged_record_gets_into_the_log_and_the_checker_says_so() {
    let liars = [0, 1, 2].map(|place| (place, Behaviour::Forging));
    assert_eq!(verdict(1, &liars), Some("committees"));
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    // One with crashes, a failing disk and liars among other things.
    let plans = [Plan::new(52), Plan::new(52), Plan::new(53)];
    let [first, second, other] = plans.map(|plan| run(&plan).trace);
    assert_eq!(first, second);
    assert_ne!(first, other);
}

#[test]
fn a_calm_network_orders_and_executes_everything() {
    let seen = check(&Plan::calm(1, 4)).seen;
    // Two each second for four seconds, and at least one transfer.
    assert!(seen.accepted > 8 && seen.ordered == seen.accepted, "{seen:?}");
    assert!(seen.derived > 0 && seen.certificates as u64 >= seen.blocks, "{seen:?}");
}

#[test]
fn every_kind_of_liar_alone_does_no_harm() {
    for (behaviour, seed) in Behaviour::ALL.into_iter().zip(100..) {
        assert_eq!(verdict(seed, &[(2, behaviour)]), None, "{behaviour:?}");
    }
}

#[test]
fn with_two_silent_validators_of_four_there_is_no_progress_and_the_checker_says_so() {
    assert_eq!(verdict(1, &[(1, Behaviour::Silent), (2, Behaviour::Silent)]), Some("progress"));
}

#[test]
fn with_two_equivocating_validators_of_four_the_log_forks_and_the_checker_says_so() {
    let liars = [(1, Behaviour::Equivocating), (2, Behaviour::Equivocating)];
    assert!((1..9).any(|seed| verdict(seed, &liars) == Some("agreement")));
}

#[test]
fn twins_find_each_other_and_stop_so_that_two_pairs_of_four_stop_the_network_and_do_not_fork_it() {
    assert_eq!(verdict(1, &[(1, Behaviour::Twins), (2, Behaviour::Twins)]), Some("progress"));
}

#[test]
fn bundles_are_committed_or_aborted_as_their_legs_allow_and_no_coin_is_lost() {
    let seen = check(&Plan::calm_with_bundles(400, 4, &Intent::ALL)).seen;
    // The sound one, and one of two that give the same.
    assert!(seen.bundles.0 >= 2 && seen.bundles.1 >= 2, "{seen:?}");
    assert!(seen.settled > 4 && seen.certified == seen.derived, "{seen:?}");
    assert_eq!(seen.deposited, 3);
}

#[test]
fn operators_of_exactly_a_quorum_certify_and_one_fewer_do_not() {
    for (silent, expected) in [(None, (3, 0)), (Some(2), (0, 3))] {
        let mut plan = Plan::calm_with_bundles(401, 4, &[Intent::Sound; 3]);
        for attesters in plan.shape.attesters.values_mut() {
            *attesters = [0, 1, 2].into();
        }
        plan.byzantine.extend(silent.map(|place| (place, Behaviour::Silent)));
        let seen = check(&plan).seen;
        assert_eq!(seen.bundles, expected, "{seen:?}");
        assert_eq!(seen.certified > 0, silent.is_none(), "{seen:?}");
    }
}

#[test]
fn who_tears_bundles_apart_is_refused_and_with_three_of_four_the_checker_says_what_is_torn() {
    let mut plan = Plan::calm_with_bundles(402, 4, &[Intent::Sound; 5]);
    plan.byzantine.insert(2, Behaviour::Tearing);
    let seen = check(&plan).seen;
    assert!(seen.bundles.0 > 0 && seen.blocks > 5, "{seen:?}");
    assert_eq!(seen.accused.0, 1, "it attests to one half what is not, and nobody hears both: {seen:?}");
    plan.byzantine.extend([0, 1].map(|place| (place, Behaviour::Tearing)));
    let violation = run(&plan).violation.map(|violation| violation.checker);
    assert!(matches!(violation, Some("bundles" | "attested")), "{violation:?}");
}
