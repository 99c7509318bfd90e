//! One run of one plan.

use crate::{
    bundles::Parties,
    byzantine::{Behaviour, Liar, Lies, LyingBuilder, Secret},
    check::{self, Violation},
    client::Clients,
    context::{Disk, panic_text},
    deposits::Depositors,
    directory::Directory,
    machine::elapsed_ms,
    messages::Senders,
    network::{Channel, Fabric, Mouth, Process, Said, split_epoch},
    operators::{Edit, Operators},
    plan::{Action, Plan, Stage, pairs},
    relays::Relays,
    seen::Seen,
    validator::{Settings, Validator},
    witness::Witness,
    world::World,
};
use alloy::primitives::U256;
use bytes::Bytes;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::Recipients;
use commonware_runtime::{Clock as _, Runner as _, deterministic};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};
use switchyard_primitives::{B256, Limits, RollupId, keccak256};
use switchyard_rollup_core::evm::{EvmChain, EvmError};
use switchyard_store::Store as _;

/// Bounds of a block: small, so that runs are short and bounds are met.
const LIMITS: Limits = Limits { body_bytes: 64 << 10, segments: 8, transactions: 512, transaction_bytes: 4 << 10 };
/// How often the network is looked at when nothing is planned.
const STEP: Duration = Duration::from_millis(100);
/// How closely a bundle is watched whose stage is waited for.
const MOMENT_MS: u64 = 5;
/// What ends a validator whose disk fails starts it again, as systemd does.
const RESTART_MS: u64 = 1_000;
/// So long after a change of the stake table everyone has taken it up: engines look at it twice a second.
const SETTLED_MS: u64 = 1_500;

/// What a view takes at most in a network that is well, besides waiting for its leader: a few messages.
const VIEW_MS: u64 = 400;
/// So long a validator may listen for a twin, and lead nothing.
const LISTENING_MS: u64 = 30_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Everything that happened, and everything that the runtime did, as one hash.
    pub trace: B256,
    /// What was found to be wrong.
    pub violation: Option<Violation>,
    /// What there was to check.
    pub seen: Seen,
}

/// Says what an honest validator says, and shows it to the guard's checker.
struct Honest {
    index: usize,
    witness: Arc<Witness>,
}

impl Mouth for Honest {
    fn say(&self, channel: Channel, _: &Recipients<PublicKey>, message: &Bytes) -> Option<Said> {
        if channel == Channel::Votes {
            self.witness.vote(self.index, split_epoch(message).map_or(message.as_ref(), |(_, vote)| vote));
        }
        None
    }
}

/// Says what a validator says to one half of the others, and to one of each other's twins.
struct Half {
    keys: Vec<PublicKey>,
    second: bool,
    twins: Vec<usize>,
}

impl Mouth for Half {
    fn say(&self, _: Channel, recipients: &Recipients<PublicKey>, message: &Bytes) -> Option<Said> {
        let place = |key: &PublicKey| self.keys.iter().position(|k| k == key).unwrap_or(0);
        let meant: Vec<PublicKey> = match recipients {
            Recipients::All => self.keys.clone(),
            Recipients::Some(keys) => keys.clone(),
            Recipients::One(key) => vec![key.clone()],
        };
        let (twins, others): (Vec<_>, Vec<_>) = meant.into_iter().partition(|key| self.twins.contains(&place(key)));
        let others = others.into_iter().filter(|key| (place(key) % 2 == 1) == self.second).collect();
        let marked = [&[u8::from(self.second)], message.as_ref()].concat().into();
        Some(vec![(Recipients::Some(others), message.clone()), (Recipients::Some(twins), marked)])
    }
}

/// A network that runs.
struct Run {
    context: deterministic::Context,
    plan: Arc<Plan>,
    world: Arc<World>,
    witness: Arc<Witness>,
    fabric: Fabric,
    /// By place, then the second ones of twins.
    validators: Vec<Validator>,
    clients: Clients,
    operators: Operators,
    parties: Parties,
    senders: Senders,
    relays: Relays,
    depositors: Depositors,
    /// Records in the log, and since when there are so many.
    changed: (usize, u64),
    /// What the liars tell each other.
    secret: Arc<Mutex<Secret>>,
    /// When to start validators that have ended by themselves.
    again: Vec<(u64, usize)>,
}

/// Runs a plan. A panic in a validator ends that validator; one in the simulation itself is a violation.
pub fn run(plan: &Plan) -> Outcome {
    let world = Arc::new(World::new(&plan.shape, LIMITS));
    let witness = Arc::new(Witness::new(&world, plan.byzantine.keys().copied().collect()));
    // In memory where that is to be had: the sign guard syncs each vote.
    let shm = Path::new("/dev/shm");
    let folder = if shm.is_dir() { tempfile::TempDir::new_in(shm) } else { tempfile::TempDir::new() };
    let folder = folder.expect("a temporary folder");
    let config = deterministic::Config::new().with_seed(plan.seed).with_catch_panics(true);
    let (plan, seen) = (Arc::new(plan.clone()), witness.clone());
    let ended = catch_unwind(AssertUnwindSafe(|| {
        deterministic::Runner::new(config).start(|context| async {
            let mut run = Run::new(context, plan, world, witness, folder.path()).await;
            run.play().await;
            run.finish().await
        })
    }));
    let (state, time_ms) = ended.unwrap_or_else(|panic| {
        let _ = seen.tell(|_| check::violated("simulation", format!("panicked: {}", panic_text(&*panic))));
        (String::new(), 0)
    });
    let (mut trace, mut found) = (B256::ZERO, Seen::default());
    seen.tell(|w| {
        trace = keccak256(format!("{}|{}|{state}", w.trace.hash(), w.trace.events()));
        found = Seen {
            crashes: w.crashes,
            cuts: w.cuts,
            liars: w.byzantine.len(),
            blocks: w.agreement.height(),
            certificates: w.certificates.count(),
            accepted: w.accepted.count(),
            ordered: w.once.count(),
            derived: w.derivation.count(),
            certified: w.attested.count(),
            bundles: w.bundles.decided(),
            settled: w.conservation.settled(),
            deposited: w.conservation.deposited(),
            messages: w.conservation.messages(),
            votes: w.guard.count(),
            caught: w.guard.caught(),
            accused: w.justice.accused(),
            records: w.committees.applied(),
            committees: w.committees.changes(),
            followed: w.certificates.followed(),
            time_ms,
        };
    });
    Outcome { trace, violation: seen.violation(), seen: found }
}

impl Run {
    async fn new(
        context: deterministic::Context,
        plan: Arc<Plan>,
        world: Arc<World>,
        witness: Arc<Witness>,
        folder: &Path,
    ) -> Self {
        let fabric = Fabric::start(&context, Directory::new(world.keys()), 1 << 20).await;
        for (from, to) in pairs(plan.places()) {
            fabric.set(from, to, Some(plan.link)).await;
        }
        let mut validators = Vec::new();
        let twins =
            plan.byzantine.iter().filter(|(_, behaviour)| **behaviour == Behaviour::Twins).map(|(seat, _)| *seat);
        for (place, seat) in (0..plan.places()).chain(twins).enumerate() {
            let name = format!("v{place}");
            let disk = Disk::new(&name, plan.seed ^ place as u64, plan.settings[seat].early_per_mille);
            let honest = !plan.byzantine.contains_key(&seat);
            let (mut settings, folder) = (plan.settings[seat], folder.join(&name));
            // Two clocks are never the same, and the twins' blocks differ.
            settings.clock_ahead_ms += i64::from(place >= plan.places()) * 3;
            validators.push(Validator::new(seat, world.clone(), witness.clone(), settings, folder, disk, honest));
        }
        let liars: BTreeSet<usize> = plan.byzantine.keys().copied().collect();
        let honest = (0..plan.places()).filter(|seat| !liars.contains(seat)).collect();
        let clients = Clients::new(witness.clone(), honest, plan.seed);
        let operators = Operators::new(world.clone(), witness.clone(), &liars, plan.seed);
        let parties = Parties::new(witness.clone(), world.evms.clone(), plan.seed);
        let senders = Senders::new(witness.clone(), world.evms.clone(), plan.seed);
        let relays = Relays::new(plan.seed);
        let depositors = Depositors::new(world.clone(), witness.clone(), plan.seed);
        let mut run = Self {
            context,
            plan,
            world,
            witness,
            fabric,
            validators,
            clients,
            operators,
            parties,
            senders,
            relays,
            depositors,
            changed: (0, 0),
            secret: Arc::default(),
            again: Vec::new(),
        };
        for place in 0..run.plan.founders() {
            run.start(place).await;
        }
        run
    }

    fn now_ms(&self) -> u64 {
        elapsed_ms(&self.context)
    }

    fn honest(&self) -> impl Iterator<Item = &Validator> {
        self.validators.iter().filter(|v| !self.plan.byzantine.contains_key(&v.index))
    }

    /// Begins a life of a validator; of twins, of both.
    async fn start(&mut self, place: usize) {
        // Moves whole channels about: too large for every caller's future.
        Box::pin(self.begin(place)).await;
    }

    async fn begin(&mut self, place: usize) {
        let validator = &mut self.validators[place];
        let (seat, address, disorder) = (validator.index, validator.address(), validator.settings.disorder);
        let behaviour = self.plan.byzantine.get(&seat).copied();
        let seed = self.plan.seed ^ ((place as u64) << 32 | validator.lives());
        let process = Process { place: seat, address, disorder, seed };
        if behaviour == Some(Behaviour::Twins) {
            return Box::pin(self.begin_twins(process)).await;
        }
        let secret = self.secret.clone();
        let mouth: Arc<dyn Mouth> = match behaviour {
            None => Arc::new(Honest { index: place, witness: self.witness.clone() }),
            Some(behaviour) => {
                let (world, witness) = (self.world.clone(), self.witness.clone());
                Arc::new(Liar::new(world, witness, seat, behaviour, secret.clone(), seed))
            }
        };
        let network = self.fabric.join(process, mouth).await;
        let (world, witness) = (self.world.clone(), self.witness.clone());
        let lies = Lies { world, witness, place: seat, behaviour, secret, seed };
        let validator = &mut self.validators[place];
        validator.start(&self.context, network, |builder, hub| LyingBuilder::new(builder, hub, lies)).await;
        if behaviour.is_none()
            && let Some(life) = validator.life()
        {
            self.clients.serve(place, life.mempool.clone(), validator.store().clone());
        }
    }

    async fn begin_twins(&mut self, process: Process) {
        let seat = process.place;
        let faulty = self.plan.byzantine.iter();
        let twins: Vec<usize> = faulty.filter(|(_, b)| **b == Behaviour::Twins).map(|(seat, _)| *seat).collect();
        let half = |second| Arc::new(Half { keys: self.world.keys(), second, twins: twins.clone() }) as Arc<dyn Mouth>;
        let networks = self.fabric.join_twins(&self.context, process, [half(false), half(true)], &twins).await;
        let places: Vec<usize> = (0..self.validators.len()).filter(|p| self.validators[*p].index == seat).collect();
        for (place, network) in places.into_iter().zip(networks) {
            self.validators[place].start(&self.context, network, |builder, _| builder).await;
        }
    }

    fn crash(&mut self, seat: usize, lost: u64) {
        let now_ms = self.now_ms();
        self.clients.lose(seat);
        self.relays.lose(seat);
        self.fabric.directory().leave(seat);
        for validator in self.validators.iter_mut().filter(|v| v.index == seat) {
            validator.crash(now_ms, lost).expect("a store in memory");
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Crash { validator, lost } => self.crash(validator, lost),
            Action::CrashLeader { lost } => {
                let mut leader = None;
                self.witness.tell(|w| leader = w.leader);
                self.crash(leader.expect("somebody leads"), lost);
            }
            Action::Await(stage) => self.reach(stage).await,
            Action::Start { validator } => {
                if self.validators[validator].is_down() {
                    self.start(validator).await;
                }
            }
            Action::Link { from, to, link } => {
                self.witness.tell(|w| w.cuts += u64::from(link.is_none()));
                self.fabric.set(from, to, link).await;
            }
            Action::Disk { validator, per_million } => self.validators[validator].disk.set_failing(per_million),
            Action::Submit { validator, count, bytes } => {
                if let Some(place) = self.open_from(validator)
                    && let Some(life) = self.validators[place].life()
                {
                    self.clients.submit(&self.context, (place, life), count, bytes);
                }
            }
            Action::Arrive { validator, copies } => {
                if let Some(of) = copies.then(|| self.open_from(0)).flatten() {
                    let log = self.validators[of].store().clone();
                    self.validators[validator].take_log(&log).expect("stores in memory");
                }
                if self.validators[validator].is_down() {
                    self.start(validator).await;
                }
            }
            Action::Edit(edit) => {
                if let Edit::Move { validator } = edit {
                    self.relocate(validator).await;
                }
                self.operators.want(edit);
            }
            Action::Send(errand) => self.senders.want(errand),
            Action::Deposit(rollup) => self.depositors.want(rollup),
            Action::Halt { rollup, halted } => {
                let mut halts = self.world.halted.lock();
                if halted {
                    halts.insert(rollup)
                } else {
                    halts.remove(&rollup)
                };
            }
            Action::Bundle(intent) => {
                let mut height = 0;
                self.witness.tell(|w| height = w.agreement.height() + 1);
                self.parties.sign(intent, height, self.now_ms());
            }
        }
    }

    /// Waits until the bundle that was signed last has come so far.
    async fn reach(&mut self, stage: Stage) {
        while !self.parties.have_reached(stage) {
            if self.now_ms() >= self.plan.faults_end_ms {
                let late = check::violated("simulation", format!("no bundle is {stage:?} before the faults end"));
                let _ = self.witness.tell(|_| late);
                return;
            }
            let next_ms = self.now_ms() + MOMENT_MS;
            if !Box::pin(self.until(next_ms)).await {
                return;
            }
        }
    }

    /// The first validator from a place on that takes transactions.
    fn open_from(&self, place: usize) -> Option<usize> {
        let n = self.plan.places();
        (0..n).map(|i| (place + i) % n).find(|place| self.clients.serves(*place))
    }

    /// Starts a validator again elsewhere; one that is down will start there.
    async fn relocate(&mut self, place: usize) {
        self.validators[place].moves += 1;
        if !self.validators[place].is_down() {
            let seat = self.validators[place].index;
            self.crash(seat, 0);
            self.start(place).await;
        }
    }

    /// Sends the record that the operators want next, through any validator that takes it.
    fn operate(&mut self) {
        let now_ms = self.now_ms();
        let mut applied = 0;
        self.witness.tell(|w| applied = w.committees.applied());
        if applied != self.changed.0 {
            self.changed = (applied, now_ms);
        }
        let listens = |place: usize| self.validators[place].address();
        let Some(edit) = self.operators.due(now_ms, listens) else { return };
        let step = usize::try_from(now_ms / 100).unwrap_or(0);
        let Some(via) = self.open_from(step % self.plan.places()) else { return };
        let listens = listens(edit.validator());
        if let Some(life) = self.validators[via].life()
            && let Some(record) = self.operators.record(&edit, &life.hub.tip(), listens, now_ms)
        {
            self.witness.event(now_ms, via, &format!("asked for {edit:?}"));
            // Whether it was taken shows in the log.
            drop(life.submit(RollupId::SYSTEM, record));
        }
    }

    /// Has parties of bundles, senders of messages, who signs deposits, and relayers send what is due.
    fn trade(&mut self) {
        if self.world.hub.bridge().is_none() {
            return;
        }
        let now_ms = self.now_ms();
        let step = usize::try_from(now_ms / 100).unwrap_or(0);
        for (ahead, alone) in [(0, false), (1, true)] {
            let via = self.open_from((step + ahead) % self.plan.places());
            let Some(life) = via.and_then(|via| self.validators[via].life()) else { continue };
            if alone {
                self.parties.send_alone(now_ms, life);
            } else {
                self.parties.send(now_ms, life);
                self.senders.send(now_ms, life);
                self.depositors.send(now_ms, life);
            }
        }
        let open: Vec<usize> = (0..self.plan.places()).filter(|place| self.clients.serves(*place)).collect();
        self.relays.work(&self.validators, &open);
    }

    /// Starts again what has ended by itself.
    async fn look_after(&mut self) {
        let now_ms = self.now_ms();
        for place in 0..self.plan.places() {
            let seat = self.validators[place].index;
            if self.validators[place].has_failed() {
                self.crash(seat, 0);
                self.again.push((now_ms + RESTART_MS, place));
            }
        }
        for (at, place) in std::mem::take(&mut self.again) {
            if at > now_ms {
                self.again.push((at, place));
            } else if self.validators[place].is_down() {
                self.start(place).await;
            }
        }
    }

    async fn until(&mut self, time_ms: u64) -> bool {
        while self.now_ms() < time_ms {
            if self.witness.violation().is_some() {
                return false;
            }
            let step = Duration::from_millis(time_ms - self.now_ms()).min(STEP);
            self.context.sleep(step).await;
            self.look_after().await;
            self.operate();
            self.trade();
        }
        true
    }

    /// Does what is planned, then lets the network recover, and keep its promises.
    async fn play(&mut self) {
        let plan = self.plan.clone();
        for (at, action) in &plan.actions {
            if !self.until((*at).min(plan.faults_end_ms)).await {
                return;
            }
            self.act(*action).await;
        }
        if !self.until(plan.faults_end_ms).await {
            return;
        }
        for (from, to) in pairs(plan.places()) {
            self.fabric.set(from, to, Some(plan.link)).await;
        }
        self.fabric.heal();
        self.world.halted.lock().clear();
        let mut before = 0;
        self.witness.tell(|w| before = w.agreement.height());
        for place in 0..plan.places() {
            self.validators[place].disk.set_failing(0);
            if self.validators[place].is_down() {
                self.start(place).await;
            }
        }
        let end_ms = self.now_ms() + u64::try_from(check::progress::WITHIN.as_millis()).unwrap_or(u64::MAX);
        while self.now_ms() < end_ms && !self.is_done(before) {
            let next_ms = self.now_ms() + 200;
            if !self.until(next_ms).await {
                return;
            }
        }
        self.check_progress(before);
        // What few hold waits for their turn to lead.
        let end_ms = end_ms + self.turns_ms();
        while self.now_ms() < end_ms && (self.outstanding() > 0 || self.untold().is_some()) {
            let next_ms = self.now_ms() + 200;
            if !self.until(next_ms).await {
                return;
            }
        }
    }

    /// Honest validators of the stake table.
    fn listed(&self) -> Vec<&Validator> {
        let able = self.witness.able();
        self.honest().filter(|v| able.listed.contains(&v.index)).collect()
    }

    /// What must hold in any network that was well for [`check::progress::WITHIN`].
    fn check_progress(&self, before: u64) {
        let heights: Vec<(usize, u64)> = self.listed().iter().map(|v| (v.index, v.store().tip().0.height)).collect();
        let _ = self.witness.tell(|_| check::progress::check(before, &heights));
        let able = self.witness.able();
        let _ = self.witness.tell(|w| w.accepted.sent_again(&able));
    }

    /// Promises that can be kept and are not yet.
    fn outstanding(&self) -> usize {
        let able = self.witness.able();
        let mut outstanding = 0;
        self.witness.tell(|w| outstanding = w.accepted.outstanding(&able));
        outstanding
    }

    /// What the bridge has not brought to an end.
    fn untold(&self) -> Option<String> {
        let mut untold = None;
        self.witness.tell(|w| untold = w.untold());
        untold.or_else(|| {
            (!self.parties.are_content() || !self.senders.are_content())
                .then(|| "bundles or messages are still to be sent".into())
        })
    }

    /// A time in which each seat leads once in a network that is well.
    fn turns_ms(&self) -> u64 {
        let mut blocks = 0;
        self.witness.tell(|w| {
            let seats = w.committees.current().map_or(0, |committee| committee.seats().seats().len());
            blocks = check::accepted::turn_within(seats as u64, w.committees.rules().blocks.get());
        });
        let view_ms = |s: &Settings| s.pace.heartbeat_ms.max(s.pace.certification_timeout_ms) + VIEW_MS;
        let view_ms = self.plan.settings.iter().map(view_ms).max().unwrap_or(0);
        // Of three seats one may be a liar's, whose view makes no block.
        blocks.saturating_mul(view_ms).saturating_mul(3) / 2 + LISTENING_MS
    }

    /// Whether there is nothing more to wait for: every promise is kept, everyone has gone on, and what was changed last has been
    /// in force for a while.
    fn is_done(&self, before: u64) -> bool {
        let mut in_force = false;
        self.witness.tell(|w| in_force = w.committees.are_in_force());
        let behind = self.listed().iter().any(|v| v.store().tip().0.height < before + check::progress::BLOCKS);
        let settled = self.operators.are_content() && in_force && self.now_ms() > self.changed.1 + SETTLED_MS;
        self.outstanding() == 0 && !behind && settled && self.untold().is_none()
    }

    /// At the end every bundle has ended, and whoever is named in one has what is due.
    fn check_bridge(&self) {
        let untold = self.untold();
        let _ = self.witness.tell(|w| match untold {
            Some(untold) => check::violated("bundles", untold),
            None => w.conservation.ends(&w.bundles),
        });
        // Any validator that has executed as much as the one that came first.
        let lives = self.honest().filter_map(Validator::life);
        let mut chains = lives.map(|life| &life.chains).filter(|chains| !chains.is_empty());
        let _ = self.witness.tell(|w| {
            let newest = |chains: &&BTreeMap<RollupId, Arc<dyn EvmChain>>| {
                chains.iter().all(|(rollup, chain)| chain.head().header.number == w.derivation.newest(*rollup))
            };
            let Some(chains) = chains.find(newest) else { return Ok(()) };
            w.conservation.finish(&w.bundles, |rollup, account| {
                let chain = &chains[&rollup];
                let found = chain.account(chain.head().header.number, account)?;
                Ok::<_, EvmError>(found.map_or(U256::ZERO, |account| account.balance))
            })
        });
    }

    /// What can only be said at the end.
    async fn finish(self) -> (String, u64) {
        if self.witness.violation().is_none() {
            let able = self.witness.able();
            let _ = self.witness.tell(|w| w.accepted.finish(&able));
            self.check_bridge();
            let directory = self.fabric.directory();
            if self.now_ms() > self.changed.1 + SETTLED_MS {
                for validator in self.listed() {
                    let known = directory.known_to(validator.index);
                    let _ = self.witness.tell(|w| w.committees.roster(validator.index, &known));
                }
            }
            let honest = |seat| !self.plan.byzantine.contains_key(&seat);
            for (from, to) in directory.refusals().into_iter().filter(|(from, _)| honest(*from)) {
                let _ = self.witness.tell(|w| w.guard.refused(from, to, honest(to)));
            }
        }
        (self.context.auditor().state(), self.now_ms())
    }
}

/// A generator of its own for one purpose of a seed.
pub(crate) fn rng_for(seed: u64, purpose: &str) -> StdRng {
    let mixed = keccak256([&seed.to_be_bytes(), purpose.as_bytes()].concat());
    let mut rng = StdRng::from_seed(mixed.0);
    // The first value is taken so that no two uses share a stream by mistake of a zero seed.
    let _: u64 = rng.random_range(0..u64::MAX);
    rng
}
