//! What goes wrong at a chosen stage of a bundle.

use crate::check;
use std::time::Duration;
use switchyard_consensus_sim::{
    bundles::Intent,
    network::Link,
    plan::{Action, Plan, Stage, pairs},
    seen::Seen,
    world::EVMS,
};

const VALIDATORS: usize = 4;
/// Exactly a quorum of operators has to be there.
const OPERATORS: [usize; 3] = [0, 1, 2];
/// From one bundle to the next.
const EACH_MS: u64 = 5_000;
/// So long after a bundle was signed whoever is down begins again.
const DOWN_MS: u64 = 3_000;

/// Calm but for these actions, each with its time.
fn plan(seed: u64, actions: Vec<(u64, Action)>) -> Plan {
    let mut plan = Plan::calm_with_bundles(seed, VALIDATORS, &[]);
    plan.faults_end_ms = actions.iter().map(|(at, _)| at + EACH_MS).max().unwrap();
    plan.actions.extend(actions);
    plan.actions.sort_by_key(|(at, _)| *at);
    plan
}

/// A run with a bundle for each stage, at which something happens to it.
fn at_each_stage(seed: u64, happens: &[Action], change: fn(&mut Plan)) -> Seen {
    let mut actions = Vec::new();
    for (at, stage) in (0..).map(|bundle| 500 + bundle * EACH_MS).zip(Stage::ALL) {
        actions.extend([Action::Bundle(Intent::Sound), Action::Await(stage)].map(|action| (at, action)));
        actions.extend(happens.iter().map(|action| (at, *action)));
        actions.extend((0..VALIDATORS).map(|validator| (at + DOWN_MS, Action::Start { validator })));
    }
    let mut plan = plan(seed, actions);
    change(&mut plan);
    let seen = check(&plan).seen;
    assert_eq!(seen.bundles.0 + seen.bundles.1, Stage::ALL.len(), "{seen:?}");
    assert_eq!(seen.crashes, (happens.len() * Stage::ALL.len()) as u64, "{seen:?}");
    seen
}

fn three_attest(plan: &mut Plan) {
    plan.shape.attesters.values_mut().for_each(|attesters| *attesters = OPERATORS.into());
}

/// Cuts the links, in both directions, between validators on different sides, or mends them.
fn split(plan: &Plan, is_here: impl Fn(usize) -> bool, cut: bool) -> Vec<Action> {
    let apart = pairs(VALIDATORS).filter(|(from, to)| is_here(*from) != is_here(*to));
    apart.map(|(from, to)| Action::Link { from, to, link: (!cut).then_some(plan.link) }).collect()
}

#[test]
fn the_leader_crashes_at_any_stage_and_bundles_end() {
    let seen = at_each_stage(410, &[Action::CrashLeader { lost: 1 }], |_| {});
    assert!(seen.bundles.0 > 0, "{seen:?}");
}

#[test]
fn all_crash_at_once_at_any_stage_and_bundles_end() {
    let all = [0, 1, 2, 3].map(|validator| Action::Crash { validator, lost: 3 });
    let seen = at_each_stage(411, &all, |_| {});
    assert!(seen.bundles.0 > 0, "{seen:?}");
}

#[test]
fn all_begin_again_at_once_with_their_relayers_elsewhere() {
    let again = |validator| [Action::Crash { validator, lost: 0 }, Action::Start { validator }];
    let mut actions = vec![(500, Action::Bundle(Intent::Sound)), (500, Action::Await(Stage::Voted))];
    actions.extend((0..VALIDATORS).flat_map(again).map(|action| (500, action)));
    let seen = check(&plan(417, actions)).seen;
    assert_eq!((seen.bundles, seen.crashes), ((1, 0), 4), "{seen:?}");
}

#[test]
fn an_operator_that_is_needed_crashes_at_any_stage_and_bundles_end() {
    let seen = at_each_stage(412, &[Action::Crash { validator: OPERATORS[1], lost: 0 }], three_attest);
    assert!(seen.bundles.0 > 0, "{seen:?}");
}

#[test]
fn a_network_that_is_split_between_the_prepare_and_the_decision_decides_when_it_is_whole() {
    for (stage, seed) in [(Stage::Included, 413), (Stage::Voted, 414)] {
        let mut plan = plan(seed, vec![(500, Action::Bundle(Intent::Sound)), (500, Action::Await(stage))]);
        let halves = |cut| split(&plan, |validator| validator < VALIDATORS / 2, cut);
        let (cut, mended) = (halves(true), halves(false));
        plan.actions.extend(cut.into_iter().map(|action| (501, action)));
        plan.actions.extend(mended.into_iter().map(|action| (EACH_MS, action)));
        plan.actions.sort_by_key(|(at, _)| *at);
        let seen = check(&plan).seen;
        assert_eq!((seen.bundles, seen.cuts), ((1, 0), 8), "{seen:?}");
    }
}

#[test]
fn operators_that_are_split_between_the_prepare_and_the_decision_let_the_deadline_pass() {
    let (late, bundle) = (OPERATORS[2], Action::Bundle(Intent::Sound));
    let mut plan = plan(415, vec![(500, bundle), (500, Action::Await(Stage::Included))]);
    three_attest(&mut plan);
    let alone = |cut| split(&plan, |validator| validator == late, cut);
    let (cut, mended) = (alone(true), alone(false));
    // It hears of the bundle's block after the others, and then nobody hears its word.
    let slow = Link { latency: Duration::from_millis(300), ..plan.link };
    for from in (0..VALIDATORS).filter(|from| *from != late) {
        plan.actions.push((400, Action::Link { from, to: late, link: Some(slow) }));
    }
    plan.actions.extend(cut.into_iter().map(|action| (501, action)));
    // Before it is mended, or the run fails.
    plan.actions.push((501, Action::Await(Stage::Decided)));
    plan.actions.extend(mended.into_iter().map(|action| (502, action)));
    plan.actions.sort_by_key(|(at, _)| *at);
    plan.faults_end_ms = 20_000;
    let seen = check(&plan).seen;
    assert_eq!((seen.bundles, seen.cuts), ((0, 1), 6), "{seen:?}");
    assert!(seen.settled > 1, "{seen:?}");
}

#[test]
fn where_a_rollup_stands_still_the_others_have_their_coin_back_by_the_deadline() {
    let actions = [
        Action::Halt { rollup: EVMS[0], halted: true },
        Action::Bundle(Intent::Sound),
        // Elsewhere, while it stands still.
        Action::Await(Stage::Settled),
        Action::Halt { rollup: EVMS[0], halted: false },
        Action::Bundle(Intent::Sound),
        Action::Await(Stage::Settled),
    ];
    let mut plan = plan(416, actions.map(|action| (500, action)).into());
    // Two rollups: each bundle is on both.
    plan.shape.attesters.remove(&EVMS[2]);
    plan.actions.retain(|(_, action)| *action != Action::Deposit(EVMS[2]));
    plan.faults_end_ms = 40_000;
    let seen = check(&plan).seen;
    assert_eq!(seen.bundles, (1, 1), "{seen:?}");
}
