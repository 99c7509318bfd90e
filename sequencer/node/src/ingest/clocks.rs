//! What the other validators' clocks show and which protocol they know: each is asked every few seconds.

use super::wire::Message;
use crate::clock::{FRESH, INTERVAL, Offset, agreed};
use alloy_primitives::B256;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use switchyard_consensus_core::Committee;

/// A validator is answered no more often.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);

/// A validator's answer.
#[derive(Clone, Copy, Debug)]
struct Told {
    offset: Offset,
    protocol: u8,
    at: Instant,
}

/// Questions, answers, and what they have come to.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// The newest question, and when it was asked.
    asked: Option<(u64, Instant)>,
    /// Each validator's newest answer.
    told: BTreeMap<B256, Told>,
    /// When each validator was last answered.
    answered: BTreeMap<B256, Instant>,
}

impl Clocks {
    /// The next question, when it is time for one; `id` names it.
    pub(super) fn question(&mut self, id: u64, now: Instant) -> Option<Message> {
        if self.asked.is_some_and(|(_, at)| now.duration_since(at) < INTERVAL) {
            return None;
        }
        self.asked = Some((id, now));
        Some(Message::Ask { id })
    }

    /// Whether a validator that asks is answered. The caller knows it: so these are no more than there are validators.
    pub(super) fn answers(&mut self, from: B256, now: Instant) -> bool {
        self.answered.retain(|_, at| now.duration_since(*at) < ANSWER_INTERVAL);
        self.answered.insert(from, now).is_none()
    }

    /// Takes a validator's answer to the newest question, its clock and its protocol, at `now_ms` by this clock.
    pub(super) fn heard(&mut self, from: B256, id: u64, (theirs_ms, protocol): (u64, u8), now_ms: u64, now: Instant) {
        if let Some((_, asked)) = self.asked.filter(|(asked, _)| *asked == id) {
            let offset = Offset::of_answer(theirs_ms, now_ms, now.duration_since(asked));
            // The first answer to a question is the most exact one.
            let earlier = self.told.get(&from).filter(|told| told.at >= asked);
            if earlier.is_none() {
                self.told.insert(from, Told { offset, protocol, at: now });
            }
        }
    }

    /// Seats of validators that say that they know a protocol version.
    pub(super) fn knowing(&self, protocol: u8, committee: &Committee) -> usize {
        let knowing = self.told.iter().filter(|(_, told)| told.protocol >= protocol);
        knowing.filter_map(|(id, _)| committee.member(id)).map(|member| member.seats as usize).sum()
    }

    /// How far this clock is ahead of the others' by what seats say of which at least one is honest, where no more lie than
    /// consensus bears.
    pub(super) fn ahead_ms(&mut self, committee: &Committee, now: Instant) -> i64 {
        let member = |id: &B256| committee.member(id);
        self.told.retain(|id, told| now.duration_since(told.at) < FRESH && member(id).is_some());
        let weighed = self.told.iter().filter_map(|(id, told)| Some((told.offset, member(id)?.seats as usize)));
        let seats = committee.seats();
        agreed(&weighed.collect::<Vec<_>>(), seats.seats().len() - seats.quorum() + 1)
    }
}
