//! Short runs of the simulation, and proof that its checkers can fail.

use switchyard_consensus_sim::{
    byzantine::Behaviour,
    plan::Plan,
    run::{Outcome, run},
};

/// Seeds that once found something, each with what it was.
const REGRESSIONS: [(u64, &str); 0] = [];

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
    run(&plan).violation.map(|violation| violation.checker)
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
    assert_eq!(verdict(1, &[(1, Behaviour::Equivocating), (2, Behaviour::Equivocating)]), Some("agreement"));
}

#[test]
fn twins_find_each_other_and_stop_so_that_two_pairs_of_four_stop_the_network_and_do_not_fork_it() {
    assert_eq!(verdict(1, &[(1, Behaviour::Twins), (2, Behaviour::Twins)]), Some("progress"));
}
