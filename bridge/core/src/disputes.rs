//! What the hub's state knows of challenges and of those who have contradicted themselves.

use crate::{
    Checkpoint,
    challenge::{read_bool, read_identities, write_identities},
};
use std::collections::{BTreeMap, BTreeSet};
use switchyard_consensus_core::stake::VALIDATORS_MAX;
use switchyard_primitives::{B256, DecodeError, Reader, RollupId, Writer};

/// A checkpoint can be challenged in so many hub blocks after the one that certified it.
pub const CHALLENGE_WITHIN: u64 = 512;
/// VITAL decides within so many hub blocks after the one with the challenge; until it has, nothing of the rollup is settled.
pub const VERDICT_WITHIN: u64 = 512;
/// Who has challenged without a verdict challenges nothing for so many hub blocks, counted from the challenge.
pub const CHALLENGER_RESTS: u64 = 16 * VERDICT_WITHIN;
/// Most verdicts in one block: checking one costs two pairings.
pub const VERDICTS_PER_BLOCK: usize = 4;

/// Why somebody's stake is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offence {
    /// It has signed two things that exclude each other.
    Contradiction,
    /// It has signed a checkpoint that VITAL has found wrong.
    WrongCheckpoint,
    /// It has challenged a checkpoint that VITAL has found right.
    WrongChallenge,
}

impl Offence {
    /// What is taken of a stake: all of it, half of it, a sixteenth of it; rounded up.
    pub fn cut(self, stake: u64) -> u64 {
        stake.div_ceil(match self {
            Self::Contradiction => 1,
            Self::WrongCheckpoint => 2,
            Self::WrongChallenge => 16,
        })
    }
}

/// Somebody's stake is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Whose.
    pub identity: B256,
    /// Why.
    pub offence: Offence,
    /// By how much; nothing where it has none in the table any more.
    pub amount: u64,
}

/// What VITAL has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Whether the certified checkpoint is right.
    pub is_right: bool,
    /// The hub block that says so.
    pub height: u64,
}

/// A challenge in the hub's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// [`crate::Challenge::id`].
    pub id: B256,
    /// What is said to be wrong.
    pub certified: Checkpoint,
    /// What the challenger has computed.
    pub own: Checkpoint,
    /// Who has challenged.
    pub challenger: B256,
    /// The hub block that certified the checkpoint.
    pub certified_at: u64,
    /// The hub block with the challenge.
    pub opened: u64,
    /// Who has signed the checkpoint, ascending.
    pub signers: Vec<B256>,
    /// What VITAL has said to it.
    pub ruling: Option<Ruling>,
}

impl Dispute {
    /// The last height at which a verdict counts.
    pub fn closes_at(&self) -> u64 {
        self.opened.saturating_add(VERDICT_WITHIN)
    }

    /// Whether a block at a height can bring the verdict.
    pub fn is_open(&self, height: u64) -> bool {
        self.ruling.is_none() && height <= self.closes_at()
    }

    /// The height after which it says nothing to anybody.
    fn forgotten_after(&self) -> u64 {
        match self.ruling {
            None => self.opened.saturating_add(CHALLENGER_RESTS),
            Some(Ruling { is_right: true, .. }) => self.certified_at.saturating_add(CHALLENGE_WITHIN),
            Some(Ruling { height, .. }) => height.saturating_add(CHALLENGE_WITHIN),
        }
    }

    fn write(&self, w: &mut Writer) {
        w.raw(self.id.as_slice());
        w.raw(&self.certified.encode());
        w.raw(&self.own.encode());
        w.raw(self.challenger.as_slice());
        w.u64(self.certified_at);
        w.u64(self.opened);
        write_identities(w, &self.signers);
        w.u8(u8::from(self.ruling.is_some()));
        if let Some(Ruling { is_right, height }) = self.ruling {
            w.u8(u8::from(is_right));
            w.u64(height);
        }
    }

    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            id: r.b256("dispute.id")?,
            certified: Checkpoint::read(r)?,
            own: Checkpoint::read(r)?,
            challenger: r.b256("dispute.challenger")?,
            certified_at: r.u64("dispute.certified_at")?,
            opened: r.u64("dispute.opened")?,
            signers: read_identities(r)?,
            ruling: match read_bool(r, "dispute.ruled")? {
                false => None,
                true => Some(Ruling { is_right: read_bool(r, "ruling.right")?, height: r.u64("ruling.height")? }),
            },
        })
    }
}

/// Why nothing of a rollup may be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A checkpoint is challenged; without a verdict until the block of this height, for no longer.
    Challenged {
        /// The height.
        until: u64,
    },
    /// A checkpoint was found wrong, and none has been certified since.
    Refuted,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disputes {
    /// [`crate::Signed::hash`] of what each of the newest blocks has certified, by height.
    pub(crate) certified: BTreeMap<u64, B256>,
    /// By the checkpoint that is challenged.
    pub(crate) challenges: BTreeMap<(RollupId, u64), Dispute>,
    /// Rollups of which nothing was certified since a checkpoint was found wrong.
    pub(crate) refuted: BTreeSet<RollupId>,
    /// Who has contradicted itself, and the hub block that says so: it never has stake again.
    pub(crate) fallen: BTreeMap<B256, u64>,
}

impl Disputes {
    /// Most challenges that are remembered.
    pub(crate) const CHALLENGES_MAX: usize = 4096;
    /// Most identities of signers in all of them together: the state's hash is over all.
    pub(crate) const SIGNERS_MAX: usize = 16_384;
    /// Most of those who have fallen. Validators come in by a quorum's decision only; beyond this the first to fall is forgotten.
    pub(crate) const FALLEN_MAX: usize = 4 * VALIDATORS_MAX;

    pub(crate) fn of(&self, rollup: RollupId) -> impl Iterator<Item = &Dispute> {
        self.challenges.range((rollup, 0)..=(rollup, u64::MAX)).map(|(_, dispute)| dispute)
    }

    /// One fault, one cut: whose stake was cut by verdicts on a rollup's checkpoints for what was certified at a height, since what
    /// is certified after a wrong checkpoint and before the verdict follows from it.
    pub(crate) fn paid(&self, rollup: RollupId, certified_at: u64) -> BTreeSet<B256> {
        let covers = |ruling: Ruling| !ruling.is_right && ruling.height >= certified_at;
        let ruled = self.of(rollup).filter(|dispute| dispute.ruling.is_some_and(covers));
        ruled.flat_map(|dispute| dispute.signers.iter().copied()).collect()
    }

    /// Whether all of these have.
    pub(crate) fn have_paid(&self, rollup: RollupId, certified_at: u64, signers: &[B256]) -> bool {
        let paid = self.paid(rollup, certified_at);
        signers.iter().all(|signer| paid.contains(signer))
    }

    /// Whether one more with so many signers is too much.
    pub(crate) fn is_full(&self, signers: usize) -> bool {
        let known: usize = self.challenges.values().map(|dispute| dispute.signers.len()).sum();
        self.challenges.len() >= Self::CHALLENGES_MAX || known + signers > Self::SIGNERS_MAX
    }

    /// Takes note of what the block of a height has certified, and forgets what can be challenged no more.
    pub(crate) fn certify(&mut self, height: u64, hash: B256, rollups: impl IntoIterator<Item = RollupId>) {
        self.certified.retain(|at, _| at.saturating_add(CHALLENGE_WITHIN) >= height);
        self.certified.insert(height, hash);
        for rollup in rollups {
            self.refuted.remove(&rollup);
        }
    }

    /// Takes note of who has contradicted itself.
    pub(crate) fn fall(&mut self, identity: B256, height: u64) {
        if self.fallen.len() >= Self::FALLEN_MAX
            && let Some(first) = self.fallen.iter().min_by_key(|(_, at)| **at).map(|(identity, _)| *identity)
        {
            self.fallen.remove(&first);
        }
        self.fallen.insert(identity, height);
    }

    /// Whether something is to be forgotten with the block of a height.
    pub(crate) fn lapses(&self, height: u64) -> bool {
        self.challenges.values().any(|dispute| dispute.forgotten_after() <= height)
    }

    /// Forgets it.
    pub(crate) fn forget(&mut self, height: u64) {
        self.challenges.retain(|_, dispute| dispute.forgotten_after() > height);
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.count(self.certified.len());
        for (height, hash) in &self.certified {
            w.u64(*height);
            w.raw(hash.as_slice());
        }
        w.count(self.challenges.len());
        self.challenges.values().for_each(|dispute| dispute.write(w));
        w.count(self.refuted.len());
        self.refuted.iter().for_each(|rollup| w.u64(rollup.0));
        w.count(self.fallen.len());
        for (identity, height) in &self.fallen {
            w.raw(identity.as_slice());
            w.u64(*height);
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let mut disputes = Self::default();
        let window = usize::try_from(CHALLENGE_WITHIN).unwrap_or(usize::MAX) + 1;
        for _ in 0..r.count("bridge.certified", window)? {
            let (height, hash) = (r.u64("certified.height")?, r.b256("certified.hash")?);
            check_order(disputes.certified.last_key_value(), &height, "certified.height")?;
            disputes.certified.insert(height, hash);
        }
        for _ in 0..r.count("bridge.challenges", Self::CHALLENGES_MAX)? {
            let dispute = Dispute::read(r)?;
            let place = (dispute.certified.rollup, dispute.certified.number);
            check_order(disputes.challenges.last_key_value(), &place, "dispute.checkpoint")?;
            disputes.challenges.insert(place, dispute);
        }
        for _ in 0..r.count("bridge.refuted", crate::Founding::ROLLUPS_MAX)? {
            let rollup = RollupId(r.u64("refuted.rollup")?);
            check_order(disputes.refuted.last().map(|last| (last, &())), &rollup, "refuted.rollup")?;
            disputes.refuted.insert(rollup);
        }
        for _ in 0..r.count("bridge.fallen", Self::FALLEN_MAX)? {
            let (identity, height) = (r.b256("fallen.identity")?, r.u64("fallen.height")?);
            check_order(disputes.fallen.last_key_value(), &identity, "fallen.identity")?;
            disputes.fallen.insert(identity, height);
        }
        Ok(disputes)
    }
}

fn check_order<K: Ord, V>(last: Option<(&K, &V)>, next: &K, field: &'static str) -> Result<(), DecodeError> {
    match last {
        Some((last, _)) if last >= next => Err(DecodeError::Invalid { field, reason: "not in ascending order" }),
        _ => Ok(()),
    }
}
