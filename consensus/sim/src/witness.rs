//! Sees everything that happens and asks the checkers.

use crate::{
    check::{
        self, Verdict, Violation,
        accepted::{Able, Accepted, Weight},
        agreement::Agreement,
        attested::Attested,
        bundles::{Bundles, Fate},
        certificates::Certificates,
        committees::Committees,
        conservation::Conservation,
        derivation::Derivation,
        guard::Guard,
        justice::Justice,
        once::Once,
    },
    plan::Stage,
    rollups::funds,
    trace::Trace,
    world::World,
};
use alloy::primitives::{Address, U256};
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};
use switchyard_bridge_core::{Message, SystemState};
use switchyard_consensus_core::{Committee, EngineEvent};
use switchyard_primitives::{B256, RollupId};
use switchyard_rollup_core::evm::ExecutedBlock;

/// The witness of one run.
pub struct Witness(Mutex<Inner>);

/// What the checkers know.
pub struct Inner {
    /// Everything, as one hash.
    pub trace: Trace,
    /// One log.
    pub agreement: Agreement,
    /// Sound certificates.
    pub certificates: Certificates,
    /// One stake table.
    pub committees: Committees,
    /// Promises kept.
    pub accepted: Accepted,
    /// Nothing twice.
    pub once: Once,
    /// One derived state.
    pub derivation: Derivation,
    /// What is certified is what was derived.
    pub attested: Attested,
    /// Bundles whole, and decided once.
    pub bundles: Bundles,
    /// No coin made or lost.
    pub conservation: Conservation,
    /// No contradiction signed.
    pub guard: Guard,
    /// Nobody accused who is honest.
    pub justice: Justice,
    /// Validators that may do anything.
    pub byzantine: BTreeSet<usize>,
    /// Lives that were cut off.
    pub crashes: u64,
    /// Times that one direction of a link was cut.
    pub cuts: u64,
    /// Who was last asked for a block.
    pub leader: Option<usize>,
    /// The validators' identities.
    places: Vec<B256>,
    violation: Option<Violation>,
    time_ms: u64,
}

impl Witness {
    /// The witness of a network in which the `byzantine` are faulty.
    pub fn new(world: &World, byzantine: BTreeSet<usize>) -> Self {
        let mut conservation = Conservation::default();
        for rollup in &world.evms {
            conservation.begin(*rollup, funds(world));
        }
        Self(Mutex::new(Inner {
            trace: Trace::default(),
            agreement: Agreement::new(world.genesis.hash()),
            certificates: Certificates::new(world.network, world.epochs, world.seats.clone()),
            committees: Committees::new(
                world,
                byzantine.iter().map(|place| world.validators[*place].identity).collect(),
            ),
            accepted: Accepted::default(),
            once: Once::default(),
            derivation: Derivation::default(),
            attested: Attested::default(),
            bundles: Bundles::default(),
            conservation,
            guard: Guard::default(),
            justice: Justice::default(),
            byzantine,
            crashes: 0,
            cuts: 0,
            leader: None,
            places: world.validators.iter().map(|seat| seat.identity).collect(),
            violation: None,
            time_ms: 0,
        }))
    }

    /// Looks at the checkers or tells them something; the first verdict against stays.
    pub fn tell<T>(&self, tell: impl FnOnce(&mut Inner) -> T) -> T
    where
        T: Told,
    {
        let mut inner = self.0.lock();
        let told = tell(&mut inner);
        if let Some(violation) = told.violation() {
            tracing::error!(%violation, "violated");
            inner.violation.get_or_insert_with(|| violation.clone());
        }
        told
    }

    /// What was found to be wrong first.
    pub fn violation(&self) -> Option<Violation> {
        self.0.lock().violation.clone()
    }

    /// Adds an event to the trace.
    pub fn event(&self, time_ms: u64, validator: usize, event: &str) {
        let mut inner = self.0.lock();
        inner.time_ms = time_ms;
        inner.trace.add(time_ms, validator, event);
    }

    /// An honest validator's engine reports something.
    pub fn engine(&self, time_ms: u64, validator: usize, event: &EngineEvent) {
        match event {
            EngineEvent::Final { block, certificate, .. } => {
                let certified = certificate.as_ref().map(|c| (c.view, c.signers.signers().collect::<Vec<_>>()));
                let (height, hash) = (block.header.height, block.hash());
                self.event(time_ms, validator, &format!("final {height} {hash} {certified:?}"));
                let _ = self.tell(|w| w.agreement.final_block(validator, block));
                let _ = self.tell(|w| w.once.final_block(block));
                let _ = self.tell(|w| w.committees.final_block(block));
                let _ = self.tell(|w| w.attested.final_block(block, &w.derivation));
                let _ = self.tell(|w| w.bundles.final_block(block));
                let _ = self.tell(|w| {
                    let next = w.committees.of(block.header.epoch.saturating_add(1)).map(|next| next.seats().clone());
                    w.certificates.final_block(validator, block, certificate.as_ref(), next.as_ref())
                });
                self.tell(|w| block.keys().for_each(|key| w.accepted.ordered(&key)));
            }
            EngineEvent::Tip { height, view } => {
                self.event(time_ms, validator, &format!("tip {height} {view}"));
            }
            EngineEvent::Fault(fault) => {
                self.event(time_ms, validator, &format!("fault {fault:?}"));
                let _ = self.tell(|w| {
                    let Some(place) = w.places.iter().position(|identity| *identity == fault.0.validator()) else {
                        return check::violated("guard", format!("{fault:?} names no validator"));
                    };
                    w.guard.fault(place, !w.byzantine.contains(&place))
                });
            }
        }
    }

    /// A validator has taken up a final block; `honest` names it if it is.
    pub fn state(&self, honest: Option<usize>, state: &Arc<SystemState>) {
        if let Some(validator) = honest {
            let _ = self.tell(|w| w.committees.state(validator, state));
        }
        let _ = self.tell(|w| w.attested.state(honest, state));
        if honest.is_some() {
            let _ = self.tell(|w| w.bundles.state(state));
        }
    }

    /// The hub's state after a final block, if a validator has taken it up.
    pub fn state_after(&self, height: u64) -> Option<Arc<SystemState>> {
        self.0.lock().attested.state_after(height).cloned()
    }

    /// A vote that leaves an honest validator.
    pub fn vote(&self, validator: usize, vote: &[u8]) {
        let _ = self.tell(|w| {
            let Inner { guard, committees, places, .. } = w;
            let seat = |epoch| committees.of(epoch)?.seats().index_of(&places[validator]);
            guard.vote(validator, seat, vote)
        });
    }

    /// A record that an honest validator would put into the log by itself.
    pub fn record(&self, validator: usize, record: &[u8]) {
        let _ = self.tell(|w| {
            let Inner { justice, byzantine, places, .. } = w;
            justice.record(validator, record, |accused| byzantine.iter().any(|place| places[*place] == *accused))
        });
    }

    /// The committee of an epoch, as far as the log tells it.
    pub fn committee(&self, epoch: u64) -> Option<Arc<Committee>> {
        self.0.lock().committees.of(epoch).cloned()
    }

    /// What these honest holders weigh in an epoch; where some are excused, everyone else may be faulty.
    pub fn weight(&self, epoch: u64, holders: &BTreeSet<usize>, excused: bool) -> Option<Weight> {
        let inner = self.0.lock();
        let committee = inner.committees.of(epoch)?;
        let seats = |places: &BTreeSet<usize>| {
            let members = places.iter().filter_map(|place| committee.member(&inner.places[*place]));
            members.map(|member| member.seats as usize).sum::<usize>()
        };
        let quorum = committee.seats().quorum();
        let faulty = if excused { quorum } else { seats(&inner.byzantine) };
        Some(Weight { held: seats(holders), faulty, quorum })
    }

    /// Who can put transactions into the log after its newest block.
    pub fn able(&self) -> Able {
        let inner = self.0.lock();
        let listed = |identity: &B256| inner.committees.table().contains_key(identity);
        let seated = |identity: &B256| inner.committees.current().is_some_and(|c| c.member(identity).is_some());
        let of = |is: &dyn Fn(&B256) -> bool| {
            let places = inner.places.iter().enumerate().filter(|(_, identity)| is(identity));
            places.map(|(place, _)| place).collect()
        };
        Able { seated: of(&seated), listed: of(&listed) }
    }

    /// A validator has derived a rollup block.
    pub fn derived(&self, validator: usize, place: (RollupId, u64), hash: B256, state_root: B256) {
        let _ = self.tell(|w| w.derivation.derived(validator, place, hash, state_root));
    }

    /// A validator has executed a rollup block; `balance` reads the state after it.
    pub fn executed<E: std::fmt::Display>(
        &self,
        rollup: RollupId,
        block: &ExecutedBlock,
        balance: impl FnMut(Address) -> Result<U256, E>,
    ) {
        let _ = self.tell(|w| w.conservation.executed(rollup, block, balance));
    }
}

impl Inner {
    /// Whether a bundle that is in the parties' hands has come so far.
    pub fn has_reached(&self, id: &B256, stage: Stage) -> bool {
        match stage {
            Stage::Submitted => true,
            Stage::Included => self.bundles.fate(id).is_some(),
            Stage::Voted => self.conservation.is_prepared(id),
            Stage::Decided => self.bundles.fate(id).is_some_and(|fate| fate.decided.is_some()),
            Stage::Settled => self.conservation.has_ended(id),
        }
    }

    /// What has no end yet of what the bridge must bring to one: a bundle that is not decided, a leg that is not settled, a
    /// message that has not ended, a deposit that is not made, a rollup block that is not certified.
    pub fn untold(&self) -> Option<String> {
        let is_open = |(_, fate): &(&B256, &Fate)| fate.decided.is_none();
        if let Some((id, fate)) = self.bundles.fates().iter().find(is_open) {
            return Some(format!("bundle {id} is not decided: {fate:?}"));
        }
        if let Some((rollup, id, leg)) = self.conservation.holding().first() {
            return Some(format!("rollup {rollup} holds leg {leg} of {id}: {:?}", self.bundles.fate(id)));
        }
        let lies = |identity: &B256| self.byzantine.iter().any(|place| self.places[*place] == *identity);
        // Its delivery needs the source's word, its refund the destination's too.
        let able = self.attested.able(|identity| !lies(identity));
        let ends = |message: &Message| able.contains(&message.source) && able.contains(&message.destination);
        if let Some((id, message)) = self.conservation.in_messages().find(|(_, message)| ends(message)) {
            return Some(format!("message {id} is neither delivered nor refunded: {message:?}"));
        }
        if let Some(rollup) = self.conservation.lacks() {
            return Some(format!("rollup {rollup} lacks a deposit"));
        }
        let outstanding = self.attested.outstanding(&self.derivation, |identity| !lies(identity));
        outstanding.map(|(rollup, number)| format!("block {number} of rollup {rollup} is not certified"))
    }
}

/// What telling the checkers may come to.
pub trait Told {
    /// The verdict, if it is one against.
    fn violation(&self) -> Option<&Violation>;
}

impl Told for Verdict {
    fn violation(&self) -> Option<&Violation> {
        self.as_ref().err()
    }
}

impl Told for () {
    fn violation(&self) -> Option<&Violation> {
        None
    }
}
