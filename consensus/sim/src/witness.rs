//! Sees everything that happens and asks the checkers.

use crate::{
    check::{
        self, Verdict, Violation,
        accepted::{Able, Accepted, Weight},
        agreement::Agreement,
        certificates::Certificates,
        committees::Committees,
        derivation::Derivation,
        guard::Guard,
        once::Once,
    },
    trace::Trace,
    world::World,
};
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};
use switchyard_consensus_core::{Committee, EngineEvent, HubState};
use switchyard_primitives::{B256, RollupId};

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
    /// No contradiction signed.
    pub guard: Guard,
    /// Validators that may do anything.
    pub byzantine: BTreeSet<usize>,
    /// Lives that were cut off.
    pub crashes: u64,
    /// Times that one direction of a link was cut.
    pub cuts: u64,
    /// The validators' identities.
    places: Vec<B256>,
    violation: Option<Violation>,
    time_ms: u64,
}

impl Witness {
    /// The witness of a network in which the `byzantine` are faulty.
    pub fn new(world: &World, byzantine: BTreeSet<usize>) -> Self {
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
            guard: Guard::default(),
            byzantine,
            crashes: 0,
            cuts: 0,
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

    /// An honest validator has taken up a final block.
    pub fn state(&self, validator: usize, state: &HubState) {
        let _ = self.tell(|w| w.committees.state(validator, state));
    }

    /// A vote that leaves an honest validator.
    pub fn vote(&self, validator: usize, vote: &[u8]) {
        let _ = self.tell(|w| {
            let Inner { guard, committees, places, .. } = w;
            let seat = |epoch| committees.of(epoch)?.seats().index_of(&places[validator]);
            guard.vote(validator, seat, vote)
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
