//! What a seed decides: who takes part, who is faulty, and what goes wrong when.

use crate::{
    bundles::Intent,
    byzantine::Behaviour,
    messages::Errand,
    network::{Disorder, Link},
    operators::Edit,
    run::rng_for,
    validator::Settings,
    world::{EVMS, Shape},
};
use commonware_utils::NZU64;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::{collections::BTreeMap, num::NonZeroU64, time::Duration};
use switchyard_node::config;
use switchyard_primitives::RollupId;

/// How far a bundle of sound legs has come; each comes after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It was handed to a validator.
    Submitted,
    /// It is in a final block.
    Included,
    /// Each leg is executed somewhere, so that operators attest its vote.
    Voted,
    /// The hub has decided.
    Decided,
    /// A vault has carried out the decision.
    Settled,
}

impl Stage {
    /// In their order.
    pub const ALL: [Self; 5] = [Self::Submitted, Self::Included, Self::Voted, Self::Decided, Self::Settled];
}

/// Something that happens at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A validator's tasks end wherever they are; its store loses so many of its newest blocks.
    Crash {
        /// Who.
        validator: usize,
        /// Blocks that its store had not flushed.
        lost: u64,
    },
    /// A validator that is not running begins anew.
    Start {
        /// Who.
        validator: usize,
    },
    /// One direction of a link changes, or is cut.
    Link {
        /// From whom.
        from: usize,
        /// To whom.
        to: usize,
        /// How it is from now on.
        link: Option<Link>,
    },
    /// Of a million writes and syncs of a validator's disk, so many fail from now on.
    Disk {
        /// Whose.
        validator: usize,
        /// How many.
        per_million: u32,
    },
    /// A client sends transactions to a validator.
    Submit {
        /// To whom, if it runs; else to the next that does.
        validator: usize,
        /// How many.
        count: usize,
        /// How long each is.
        bytes: usize,
    },
    /// A validator that is not in the genesis begins, if it has not.
    Arrive {
        /// Who.
        validator: usize,
        /// Whether it has copied another one's log before.
        copies: bool,
    },
    /// The operators want the stake table to change.
    Edit(Edit),
    /// Parties sign a bundle.
    Bundle(Intent),
    /// Somebody wants to send coin to another rollup.
    Send(Errand),
    /// Somebody on a rollup is to get coin from outside.
    Deposit(RollupId),
    /// What is planned next waits until the bundle that was signed last has come this far. Where it does not before the faults
    /// end, the run fails.
    Await(Stage),
    /// As [`Self::Crash`], of the validator that was last asked for a block.
    CrashLeader {
        /// Blocks that its store had not flushed.
        lost: u64,
    },
    /// A rollup stands still, or goes on.
    Halt {
        /// Which.
        rollup: RollupId,
        /// Whether it stands still from now on.
        halted: bool,
    },
}

/// A run, before it has begun.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything else comes from.
    pub seed: u64,
    /// Seats and epochs.
    pub shape: Shape,
    /// How each validator is run: those of the genesis, then those that may join.
    pub settings: Vec<Settings>,
    /// Who is faulty, and how.
    pub byzantine: BTreeMap<usize, Behaviour>,
    /// A link when nothing is wrong with it.
    pub link: Link,
    /// In the order of their times, in milliseconds.
    pub actions: Vec<(u64, Action)>,
    /// When the faults end: from then on all links and disks are well, and every honest validator runs.
    pub faults_end_ms: u64,
}

/// When the last fault begins, in milliseconds.
const FAULTS_MS: u64 = 12_000;

impl Plan {
    /// Nothing goes wrong, and a client sends something each second.
    pub fn calm(seed: u64, validators: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let link = Link { latency: Duration::from_millis(20), jitter: Duration::from_millis(4), lost_per_mille: 0 };
        let settings = (0..validators).map(|index| settings(&mut rng, index, false, false)).collect();
        let submit = |second: u64| (second * 1_000, Action::Submit { validator: 0, count: 2, bytes: 100 });
        let actions = (1..5).map(submit).collect();
        let shape = Shape::equals(validators);
        Self { seed, shape, settings, byzantine: BTreeMap::new(), link, actions, faults_end_ms: 6_000 }
    }

    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        Self::made(seed, false)
    }

    /// The plan of a seed, with a bridge in any case.
    pub fn with_bridge(seed: u64) -> Self {
        Self::made(seed, true)
    }

    fn made(seed: u64, bridge: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let validators = *[4, 4, 4, 5, 7].get(rng.random_range(0..5)).expect("in range");
        let mut plan = Self {
            seed,
            shape: Shape::equals(validators),
            settings: Vec::new(),
            byzantine: BTreeMap::new(),
            link: Link {
                latency: Duration::from_millis(rng.random_range(2..60)),
                jitter: Duration::from_millis(rng.random_range(0..10)),
                lost_per_mille: 0,
            },
            actions: Vec::new(),
            faults_end_ms: FAULTS_MS + 3_000,
        };
        let mut chance = |percent: u32| rng.random_range(0..100) < percent;
        let (crashes, links, partitions, disks) = (chance(60), chance(50), chance(50), chance(30));
        let (liars, disorder, clocks, busy) = (chance(60), chance(40), chance(40), chance(40));
        for index in 0..validators {
            plan.settings.push(settings(&mut rng, index, disorder, clocks));
        }
        if liars {
            let mut seats: Vec<usize> = (0..validators).collect();
            seats.shuffle(&mut rng);
            let count = rng.random_range(1..=(validators - 1) / 3);
            for seat in &seats[..count] {
                plan.byzantine.insert(*seat, Behaviour::ALL[rng.random_range(0..Behaviour::PLAIN)]);
            }
        }
        if crashes {
            plan.crashes(&mut rng, validators);
        }
        if links {
            plan.bad_links(&mut rng, validators);
        }
        if partitions {
            plan.partitions(&mut rng, validators);
        }
        if disks {
            let (validator, per_million) = (rng.random_range(0..validators), rng.random_range(200..4_000));
            plan.actions.push((rng.random_range(0..FAULTS_MS), Action::Disk { validator, per_million }));
        }
        plan.clients(&mut rng, validators, busy);
        plan.shape.epoch_blocks = [NonZeroU64::MAX, NZU64!(30), NZU64!(12), NZU64!(6)][rng.random_range(0..4)];
        // Liars have a third of the seats at the most, which unequal stakes would not say.
        if !liars && rng.random_range(0..2) == 0 {
            plan.shape.stakes = (0..validators).map(|_| rng.random_range(1..4)).collect();
            plan.shape.seats_per_validator = 3;
        }
        // Of its own, so that what else a seed means does not change with it.
        let mut rng = rng_for(seed, "stake");
        if rng.random_range(0..4) == 0 {
            plan.stake(&mut rng);
        }
        let mut rng = rng_for(seed, "bridge");
        if rng.random_range(0..10) == 0 || bridge {
            plan.bridge(&mut rng);
        }
        // Stable, so that what was planned first for a moment happens first.
        plan.actions.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Validators of the genesis.
    pub fn founders(&self) -> usize {
        self.shape.stakes.len()
    }

    /// All validators that there may be.
    pub fn places(&self) -> usize {
        self.settings.len()
    }

    /// A calm run of validators that are operators of all EVM rollups too, in which parties sign a bundle each half second, and
    /// somebody on each rollup gets coin from outside.
    pub fn calm_with_bundles(seed: u64, validators: usize, intents: &[Intent]) -> Self {
        let mut plan = Self::calm(seed, validators);
        plan.bridge(&mut rng_for(seed, "bridge"));
        plan.shape.attesters = EVMS.into_iter().map(|rollup| (rollup, (0..validators).collect())).collect();
        plan.actions.retain(|(_, action)| {
            !matches!(action, Action::Bundle(_) | Action::Deposit(_) | Action::Send(_) | Action::Halt { .. })
        });
        plan.actions.extend((1..).zip(intents).map(|(second, intent)| (second * 500, Action::Bundle(*intent))));
        plan.actions.extend((1..).zip(EVMS).map(|(second, rollup)| (second * 700, Action::Deposit(rollup))));
        plan.actions.sort_by_key(|(at, _)| *at);
        plan
    }

    /// A calm run in which the stake table changes.
    pub fn calm_with(seed: u64, validators: usize, newcomers: usize, edits: &[(u64, Edit)]) -> Self {
        let mut plan = Self::calm(seed, validators);
        plan.shape.epoch_blocks = NZU64!(4);
        for _ in 0..newcomers {
            plan.newcomer(&mut rng_for(seed, "newcomer"));
        }
        for settings in &mut plan.settings {
            settings.pace.heartbeat_ms = 250;
        }
        for (at, edit) in edits {
            plan.edit(*at, *edit);
        }
        plan.actions.sort_by_key(|(at, _)| *at);
        plan
    }

    fn newcomer(&mut self, rng: &mut StdRng) -> usize {
        self.shape.newcomers += 1;
        let place = self.places();
        self.settings.push(settings(rng, place, false, false));
        place
    }

    /// Adds a change, and what its validator needs for it.
    pub fn edit(&mut self, at_ms: u64, edit: Edit) {
        if let Edit::Keys { validator, .. } = edit {
            self.settings[validator].rekeys = true;
        }
        self.actions.push((at_ms, Action::Edit(edit)));
    }

    /// Stake moves, validators join, leave, move and change their keys, while everything else goes wrong.
    fn stake(&mut self, rng: &mut StdRng) {
        self.shape.epoch_blocks = [NZU64!(3), NZU64!(5), NZU64!(8)][rng.random_range(0..3)];
        // With a seat each, stake decides little more than whether one has it. But further seats are what a run's time goes to.
        if rng.random_range(0..3) == 0 {
            self.shape.seats_per_validator = 2;
        }
        let founders = self.founders();
        for _ in 0..rng.random_range(0..3) {
            let validator = self.newcomer(rng);
            let at = rng.random_range(200..FAULTS_MS * 2 / 3);
            self.edit(at, Edit::Join { validator, stake: rng.random_range(1..4) });
            let copies = rng.random_range(0..2) == 0;
            let begins = (at + rng.random_range(0..4_000)).saturating_sub(1_000);
            self.actions.push((begins, Action::Arrive { validator, copies }));
            if rng.random_range(0..2) == 0 {
                let crash = begins + rng.random_range(200..5_000);
                let lost = [0, 1, 50][rng.random_range(0..3)];
                self.actions.push((crash, Action::Crash { validator, lost }));
                self.actions.push((crash + rng.random_range(20..2_000), Action::Start { validator }));
            }
        }
        for _ in 0..rng.random_range(1..6) {
            let (validator, at) = (rng.random_range(0..founders), rng.random_range(200..FAULTS_MS));
            // A liar's own affairs are its own.
            let honest = !self.byzantine.contains_key(&validator);
            match rng.random_range(0..6) {
                0 | 1 => self.edit(at, Edit::Stake { validator, stake: rng.random_range(0..5) }),
                2 => {
                    self.edit(at, Edit::Remove { validator });
                    if rng.random_range(0..2) == 0 {
                        let back = at + rng.random_range(1_000..6_000);
                        self.edit(back, Edit::Join { validator, stake: rng.random_range(1..4) });
                    }
                }
                3 if honest => self.edit(at, Edit::Leave { validator }),
                4 if honest => {
                    self.edit(at, Edit::Keys { validator, key: 1 });
                    if rng.random_range(0..2) == 0 {
                        self.edit(at + rng.random_range(500..6_000), Edit::Keys { validator, key: 0 });
                    }
                }
                5 if honest => self.edit(at, Edit::Move { validator }),
                _ => {}
            }
        }
        // What changes takes two epochs to be in force.
        for settings in &mut self.settings {
            settings.pace.heartbeat_ms = 300;
        }
    }

    /// The network has two or three EVM rollups that make checkpoints, which all validators execute. Who attests each is a matter of
    /// chance: all, or so few that one who is away is one too many.
    fn bridge(&mut self, rng: &mut StdRng) {
        let founders = self.founders();
        for rollup in &EVMS[..rng.random_range(2..=EVMS.len())] {
            let mut places: Vec<usize> = (0..founders).collect();
            places.shuffle(rng);
            places.truncate([founders, founders, 3][rng.random_range(0..3)]);
            self.shape.attesters.insert(*rollup, places.into_iter().collect());
        }
        for behaviour in self.byzantine.values_mut() {
            if rng.random_range(0..3) == 0 {
                *behaviour = Behaviour::Tearing;
            }
        }
        for settings in &mut self.settings {
            settings.executes = true;
            settings.pace.heartbeat_ms = 300;
        }
        if rng.random_range(0..3) == 0 {
            let (rollup, at) = (EVMS[rng.random_range(0..2)], rng.random_range(200..FAULTS_MS));
            let until = at + rng.random_range(500..8_000);
            self.actions.push((at, Action::Halt { rollup, halted: true }));
            self.actions.push((until, Action::Halt { rollup, halted: false }));
        }
        for _ in 0..rng.random_range(3..9) {
            let intent = Intent::ALL[rng.random_range(0..Intent::ALL.len())];
            let intent = if rng.random_range(0..2) == 0 { Intent::Sound } else { intent };
            self.actions.push((rng.random_range(100..FAULTS_MS), Action::Bundle(intent)));
        }
        for _ in 0..rng.random_range(2..9) {
            let errand = Errand::ALL[rng.random_range(0..Errand::ALL.len())];
            let errand = if rng.random_range(0..2) == 0 { Errand::Sound } else { errand };
            self.actions.push((rng.random_range(100..FAULTS_MS), Action::Send(errand)));
        }
        for _ in 0..rng.random_range(0..6) {
            let rollup = EVMS[rng.random_range(0..self.shape.attesters.len())];
            self.actions.push((rng.random_range(100..FAULTS_MS), Action::Deposit(rollup)));
        }
    }

    fn crashes(&mut self, rng: &mut StdRng, validators: usize) {
        for _ in 0..rng.random_range(1..6) {
            let (at, down) = (rng.random_range(100..FAULTS_MS), rng.random_range(20..3_000));
            // Sometimes all at once, as when a data centre loses its power.
            let who: Vec<usize> = match rng.random_range(0..8) {
                0 => (0..validators).collect(),
                _ => vec![rng.random_range(0..validators)],
            };
            for validator in who {
                let lost = [0, 0, 1, 3, 50][rng.random_range(0..5)];
                self.actions.push((at, Action::Crash { validator, lost }));
                self.actions.push((at + down + rng.random_range(0..50), Action::Start { validator }));
            }
        }
    }

    fn bad_links(&mut self, rng: &mut StdRng, validators: usize) {
        for _ in 0..rng.random_range(1..2 * validators) {
            let (from, to) = (rng.random_range(0..validators), rng.random_range(0..validators));
            if from == to {
                continue;
            }
            let link = Link {
                latency: Duration::from_millis(rng.random_range(0..3_000)),
                jitter: Duration::from_millis(rng.random_range(0..500)),
                lost_per_mille: [0, 50, 200, 500][rng.random_range(0..4)],
            };
            let at = rng.random_range(0..FAULTS_MS);
            self.actions.push((at, Action::Link { from, to, link: Some(link) }));
            let end = at + rng.random_range(100..5_000);
            self.actions.push((end, Action::Link { from, to, link: Some(self.link) }));
        }
    }

    fn partitions(&mut self, rng: &mut StdRng, validators: usize) {
        for _ in 0..rng.random_range(1..3) {
            let side: Vec<bool> = (0..validators).map(|_| rng.random_range(0..2) == 0).collect();
            let one_way = rng.random_range(0..3) == 0;
            let flaps = if rng.random_range(0..3) == 0 { rng.random_range(2..8) } else { 1 };
            let mut at = rng.random_range(0..FAULTS_MS);
            for _ in 0..flaps {
                let length = if flaps > 1 { rng.random_range(50..700) } else { rng.random_range(300..5_000) };
                for (from, to) in pairs(validators) {
                    if side[from] != side[to] && !(one_way && side[from]) {
                        self.actions.push((at, Action::Link { from, to, link: None }));
                        self.actions.push((at + length, Action::Link { from, to, link: Some(self.link) }));
                    }
                }
                at += length + rng.random_range(50..700);
            }
        }
    }

    fn clients(&mut self, rng: &mut StdRng, validators: usize, busy: bool) {
        let mut at = 0;
        while at < FAULTS_MS {
            at += rng.random_range(50..1_500);
            let (count, bytes) = match busy && rng.random_range(0..4) == 0 {
                true => (rng.random_range(10..60), rng.random_range(100..1_500)),
                false => (rng.random_range(1..4), rng.random_range(10..300)),
            };
            self.actions.push((at, Action::Submit { validator: rng.random_range(0..validators), count, bytes }));
        }
    }
}

/// Every direction of every link.
pub fn pairs(validators: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..validators).flat_map(move |a| (0..validators).map(move |b| (a, b))).filter(|(a, b)| a != b)
}

fn settings(rng: &mut StdRng, index: usize, disorder: bool, clocks: bool) -> Settings {
    let per_mille = |rng: &mut StdRng| if disorder { rng.random_range(0..100) } else { 0 };
    Settings {
        pace: config::Consensus::default(),
        compact_from_bytes: [256, 4096, 64 << 10][rng.random_range(0..3)],
        clock_ahead_ms: if clocks { rng.random_range(-300..300) } else { 0 },
        disorder: Disorder { twice_per_mille: per_mille(rng), late_per_mille: per_mille(rng) },
        doppelganger_check: rng.random_range(0..5) == 0,
        early_per_mille: [0, 0, 30, 500][rng.random_range(0..4)],
        // Two are enough to compare.
        executes: index < 2,
        archive_blocks: [64, 1024][rng.random_range(0..2)],
        rekeys: false,
    }
}
