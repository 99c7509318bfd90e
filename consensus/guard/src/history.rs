//! What was signed: the rules, in memory.

use crate::{
    Interchange,
    interchange::{Entry, Mark},
    statement::{Family, Kind, Position, Refusal, Statement},
};
use std::collections::BTreeMap;
use switchyard_primitives::{B256, Bytes};

/// Slots of one family and scope that are remembered; those below are below the low-water mark. Consensus asks for nothing
/// that is more than some sixty views old.
pub(crate) const KEPT: usize = 256;

/// One family in one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Track {
    /// What is below was forgotten or imported; `None` once nothing is above.
    low: Option<Position>,
    slots: BTreeMap<Position, BTreeMap<Kind, B256>>,
}

/// Everything that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    tracks: BTreeMap<(Family, u64), Track>,
}

impl Default for Track {
    /// Of one that has signed nothing.
    fn default() -> Self {
        Self { low: Some(Position::default()), slots: BTreeMap::new() }
    }
}

impl Track {
    fn raise(&mut self, low: Option<Position>) {
        self.low = match (self.low, low) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
    }

    fn trim(&mut self) {
        while self.slots.len() > KEPT {
            let Some((dropped, _)) = self.slots.pop_first() else { return };
            self.raise(dropped.next());
        }
    }
}

impl History {
    /// Whether the statement was permitted before; or why it may not be.
    pub(crate) fn check(&self, statement: &Statement) -> Result<bool, Refusal> {
        let Statement { kind, scope, position, digest } = *statement;
        let Some(track) = self.tracks.get(&(kind.family(), scope)) else { return Ok(false) };
        let signed = track.slots.get(&position);
        // The same again is harmless wherever the mark is: it was permitted, and is remembered.
        match signed.and_then(|kinds| kinds.get(&kind)) {
            Some(before) if *before == digest => return Ok(true),
            Some(before) => {
                return Err(Refusal::Conflict { kind, scope, position, signed: *before, asked: digest });
            }
            None => {}
        }
        if let Some(other) = kind.excludes().filter(|other| signed.is_some_and(|kinds| kinds.contains_key(other))) {
            return Err(Refusal::Excluded { kind, scope, position, signed: other });
        }
        let low = track.low.ok_or(Refusal::Exhausted { kind, scope })?;
        if position < low { Err(Refusal::BelowLowWater { kind, scope, position, low }) } else { Ok(false) }
    }

    /// Whether a statement was permitted for the slot; unknown below the mark.
    pub(crate) fn has_signed(&self, kind: Kind, scope: u64, position: Position) -> Option<bool> {
        let Some(track) = self.tracks.get(&(kind.family(), scope)) else { return Some(false) };
        if track.slots.get(&position).is_some_and(|kinds| kinds.contains_key(&kind)) {
            return Some(true);
        }
        track.low.filter(|low| position >= *low).map(|_| false)
    }

    pub(crate) fn newest(&self, family: Family, scope: u64) -> Option<Position> {
        self.tracks.get(&(family, scope))?.slots.keys().next_back().copied()
    }

    /// Remembers a statement that was permitted.
    pub(crate) fn add(&mut self, statement: &Statement) {
        let track = self.tracks.entry((statement.kind.family(), statement.scope)).or_default();
        track.slots.entry(statement.position).or_default().insert(statement.kind, statement.digest);
        track.trim();
    }

    /// Raises a low-water mark; with `None` nothing may be signed any more.
    pub(crate) fn raise(&mut self, family: Family, scope: u64, low: Option<Position>) {
        self.tracks.entry((family, scope)).or_default().raise(low);
    }

    /// The low-water marks.
    pub(crate) fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        self.tracks.iter().map(|((family, scope), track)| Mark { family: *family, scope: *scope, low: track.low })
    }

    /// What is remembered, in the order in which it may be added again.
    pub(crate) fn statements(&self) -> impl Iterator<Item = Statement> + '_ {
        self.tracks.iter().flat_map(|((_, scope), track)| {
            track.slots.iter().flat_map(move |(position, kinds)| {
                kinds.iter().map(move |(kind, digest)| Statement {
                    kind: *kind,
                    scope: *scope,
                    position: *position,
                    digest: *digest,
                })
            })
        })
    }

    pub(crate) fn export(&self, network: B256, key: Bytes) -> Interchange {
        let entry = |s: Statement| Entry { kind: s.kind, scope: s.scope, position: s.position, digest: s.digest };
        Interchange::new(network, key, self.marks().collect(), self.statements().map(entry).collect())
    }

    /// Whether an import would change nothing that may be signed.
    pub(crate) fn knows(&self, export: &Interchange) -> bool {
        let track = |family, scope| self.tracks.get(&(family, scope));
        let below = |family, scope, position| {
            track(family, scope).is_some_and(|track| track.low.is_none_or(|low| position < low))
        };
        let mark_is_known = |mark: &Mark| match (mark.low, track(mark.family, mark.scope)) {
            (Some(low), Some(track)) => track.low.is_none_or(|own| low <= own),
            (Some(low), None) => low == Position::default(),
            (None, track) => track.is_some_and(|track| track.low.is_none()),
        };
        export.low_water.iter().all(mark_is_known)
            && export.signed.iter().all(|Entry { kind, scope, position, digest }| {
                let held = track(kind.family(), *scope).and_then(|track| track.slots.get(position)?.get(kind));
                held == Some(digest) || below(kind.family(), *scope, *position)
            })
    }

    /// Takes over what another record holds. Its newest slot may not have been its last one, so everything up to it is
    /// below the mark; what it remembers may be signed again, and nothing else there.
    pub(crate) fn import(&mut self, export: &Interchange) {
        for mark in &export.low_water {
            self.raise(mark.family, mark.scope, mark.low);
        }
        for entry in &export.signed {
            let Entry { kind, scope, position, digest } = *entry;
            self.raise(kind.family(), scope, position.next());
            let track = self.tracks.entry((kind.family(), scope)).or_default();
            // Where both know of the slot, what stands here stays: either way nothing else is signed for it.
            track.slots.entry(position).or_default().entry(kind).or_insert(digest);
            track.trim();
        }
    }
}
