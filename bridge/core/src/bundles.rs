//! Bundles in the hub's state: included, voted on, decided (`docs/specs/bundles.md`).

use crate::{Ballot, BridgeRecord, Bundle, Leg, Vote};
use switchyard_primitives::{B256, Bytes, DecodeError, Reader, RollupId, TxHash, Writer, keccak256};

/// A leg as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LegRecord {
    /// The rollup that it is for.
    pub rollup: RollupId,
    /// What it does there: [`Leg::terms`].
    pub terms: B256,
    /// The transaction that does it, in the rollup's segment of the same block.
    pub tx: TxHash,
}

impl LegRecord {
    /// [`Leg::hash`], made with the rollup whose votes count for it.
    pub fn hash(&self) -> B256 {
        Leg::hash_of(self.rollup, &self.terms)
    }
}

/// A bundle as the log has it: its legs' transactions are in the same block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRecord {
    /// Hub height at which it is aborted unless it is committed below.
    pub deadline: u64,
    /// Tells bundles with equal legs apart.
    pub salt: B256,
    /// [`Bundle::LEGS_MIN`] to [`Bundle::LEGS_MAX`] legs.
    pub legs: Vec<LegRecord>,
}

impl BundleRecord {
    /// A deadline is at most so many blocks ahead of the block that includes the bundle.
    pub const DEADLINE_BLOCKS_MAX: u64 = 14_400;
    /// Bundles whose deadlines are further ahead take up to half of the hub's memory only: nobody fills all of it for long.
    pub const DEADLINE_BLOCKS_SHORT: u64 = 1_200;

    /// Most legs in one block: so their votes fit into one certificate, and no leader fills the hub's memory in a few blocks.
    pub const LEGS_PER_BLOCK: usize = 1024;

    /// The bundle's id. It names the rollup of each leg.
    pub fn id(&self) -> B256 {
        let legs = self.legs.iter().map(LegRecord::hash).collect();
        Bundle { deadline: self.deadline, salt: self.salt, legs }.id()
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.u64(self.deadline);
        w.raw(self.salt.as_slice());
        w.count(self.legs.len());
        for LegRecord { rollup, terms, tx } in &self.legs {
            w.u64(rollup.0);
            w.raw(terms.as_slice());
            w.raw(tx.as_slice());
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let (deadline, salt) = (r.u64("bundle.deadline")?, r.b256("bundle.salt")?);
        let count = r.count("bundle.legs", Bundle::LEGS_MAX)?;
        if count < Bundle::LEGS_MIN {
            return Err(DecodeError::Invalid { field: "bundle.legs", reason: "fewer than two" });
        }
        let mut legs = Vec::with_capacity(count);
        for _ in 0..count {
            let rollup = RollupId(r.u64("leg.rollup")?);
            legs.push(LegRecord { rollup, terms: r.b256("leg.terms")?, tx: r.b256("leg.tx")? });
        }
        Ok(Self { deadline, salt, legs })
    }
}

/// A leg with its transaction, signed and encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedLeg {
    /// The rollup that it is for.
    pub rollup: RollupId,
    /// What it does there: [`Leg::terms`].
    pub terms: B256,
    /// The transaction that does it.
    pub transaction: Bytes,
}

impl SignedLeg {
    /// [`Leg::hash`].
    pub fn hash(&self) -> B256 {
        Leg::hash_of(self.rollup, &self.terms)
    }
}

/// A bundle as it is submitted, and as validators pass it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBundle {
    /// Hub height at which it is aborted unless it is committed below.
    pub deadline: u64,
    /// Tells bundles with equal legs apart.
    pub salt: B256,
    /// [`Bundle::LEGS_MIN`] to [`Bundle::LEGS_MAX`] legs.
    pub legs: Vec<SignedLeg>,
}

impl SignedBundle {
    /// Most bytes of [`Self::write`]'s layout.
    pub const BYTES_MAX: usize = 96 << 10;

    /// The bundle's id, which does not depend on the transactions.
    pub fn id(&self) -> B256 {
        let legs = self.legs.iter().map(SignedLeg::hash).collect();
        Bundle { deadline: self.deadline, salt: self.salt, legs }.id()
    }

    /// What the log will have of it. Hashes each transaction.
    pub fn record(&self) -> BundleRecord {
        let leg = |leg: &SignedLeg| LegRecord { rollup: leg.rollup, terms: leg.terms, tx: keccak256(&leg.transaction) };
        BundleRecord { deadline: self.deadline, salt: self.salt, legs: self.legs.iter().map(leg).collect() }
    }

    /// Length of [`Self::write`]'s layout.
    pub fn encoded_len(&self) -> usize {
        44 + self.legs.iter().map(|leg| 44 + leg.transaction.len()).sum::<usize>()
    }

    /// `deadline u64 | salt 32 | legs u32 | (rollup u64 | terms 32 | length u32 | transaction) *`.
    pub fn write(&self, w: &mut Writer) {
        w.u64(self.deadline);
        w.raw(self.salt.as_slice());
        w.count(self.legs.len());
        for SignedLeg { rollup, terms, transaction } in &self.legs {
            w.u64(rollup.0);
            w.raw(terms.as_slice());
            w.count(transaction.len());
            w.raw(transaction);
        }
    }

    /// Reads [`Self::write`]'s layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let (deadline, salt) = (r.u64("bundle.deadline")?, r.b256("bundle.salt")?);
        let mut legs = Vec::new();
        for _ in 0..r.count("bundle.legs", Bundle::LEGS_MAX)? {
            let (rollup, terms) = (RollupId(r.u64("leg.rollup")?), r.b256("leg.terms")?);
            let len = r.count("leg.transaction", Self::BYTES_MAX)?;
            legs.push(SignedLeg { rollup, terms, transaction: r.bytes("leg.transaction", len)? });
        }
        let bundle = Self { deadline, salt, legs };
        if bundle.legs.len() < Bundle::LEGS_MIN {
            return Err(DecodeError::Invalid { field: "bundle.legs", reason: "fewer than two" });
        }
        if bundle.encoded_len() > Self::BYTES_MAX {
            return Err(DecodeError::Invalid { field: "bundle", reason: "too long" });
        }
        Ok(bundle)
    }
}

/// How far a bundle has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleState {
    /// Its legs are in the log.
    Open {
        /// Of each leg, its rollup, and whether its yes is certified.
        legs: Vec<(RollupId, bool)>,
    },
    /// All of it happens, or none.
    Decided {
        /// All of it.
        committed: bool,
        /// The hub block that decided.
        height: u64,
    },
}

/// What a leg is to its rollup's vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegState {
    /// Not prepared: not executed yet, or it voted no.
    None,
    /// The vault holds what it gives.
    Prepared,
    /// The vault knows that the bundle is committed.
    Committed,
    /// The vault knows that the bundle is aborted, or the leg released.
    Aborted,
}

impl LegState {
    /// A stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Prepared => "prepared",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
        }
    }
}

/// What a rollup's vault has of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultState {
    /// How far it has come.
    pub state: LegState,
    /// Bit `i` is set while item `i` is held.
    pub held: u16,
}

/// A leg of a bundle in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegStatus {
    /// The leg.
    pub leg: LegRecord,
    /// Whether its yes is certified.
    pub voted: bool,
    /// What its rollup's vault has; none where the rollup does not run here.
    pub vault: Option<VaultState>,
}

/// A bundle whose legs are in the log, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleStatus {
    /// On the hub.
    pub bundle: HubBundle,
    /// On its rollups.
    pub legs: Vec<LegStatus>,
}

impl BundleStatus {
    /// Whether the decision is carried out on every rollup that is known: nothing of it is held any more.
    pub fn is_settled(&self) -> bool {
        let is_done = |vault: VaultState| vault.held == 0 && vault.state != LegState::Prepared;
        matches!(self.bundle.state, BundleState::Decided { .. })
            && self.legs.iter().all(|leg| leg.vault.is_none_or(is_done))
    }
}

/// A bundle that the hub remembers: until its deadline at the least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubBundle {
    /// The height of its deadline.
    pub deadline: u64,
    /// The hub block that holds its legs.
    pub included: u64,
    /// How far it has come.
    pub state: BundleState,
}

/// What a vote does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    Decides { committed: bool },
    Releases,
}

impl HubBundle {
    /// Counts a vote of `rollup`.
    pub(crate) fn vote(&mut self, rollup: RollupId, vote: &Vote) -> Option<Effect> {
        let BundleState::Open { legs } = &mut self.state else { return None };
        let (of, yes) = legs.get_mut(usize::from(vote.leg)).filter(|(of, _)| *of == rollup)?;
        debug_assert_eq!(*of, rollup);
        if vote.ballot != Ballot::Yes {
            return Some(Effect::Decides { committed: false });
        }
        *yes = true;
        let all = legs.iter().all(|(_, yes)| *yes);
        Some(if all { Effect::Decides { committed: true } } else { Effect::Nothing })
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, BundleState::Open { .. })
    }

    /// `deadline u64 | included u64 | 0 u8 | legs u32 | (rollup u64 | yes u8) *`, or
    /// `deadline u64 | included u64 | 1 aborted, 2 committed u8 | height u64`.
    pub fn write(&self, w: &mut Writer) {
        w.u64(self.deadline);
        w.u64(self.included);
        match &self.state {
            BundleState::Open { legs } => {
                w.u8(0);
                w.count(legs.len());
                for (rollup, yes) in legs {
                    w.u64(rollup.0);
                    w.u8(u8::from(*yes));
                }
            }
            BundleState::Decided { committed, height } => {
                w.u8(1 + u8::from(*committed));
                w.u64(*height);
            }
        }
    }

    /// Reads [`Self::write`]'s layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let (deadline, included) = (r.u64("bundle.deadline")?, r.u64("bundle.included")?);
        let state = match r.u8("bundle.state")? {
            0 => {
                let mut legs = Vec::new();
                for _ in 0..r.count("bundle.legs", Bundle::LEGS_MAX)? {
                    let rollup = RollupId(r.u64("leg.rollup")?);
                    let yes = match r.u8("leg.yes")? {
                        0 => false,
                        1 => true,
                        _ => return Err(DecodeError::Invalid { field: "leg.yes", reason: "neither 0 nor 1" }),
                    };
                    legs.push((rollup, yes));
                }
                BundleState::Open { legs }
            }
            decided @ (1 | 2) => BundleState::Decided { committed: decided == 2, height: r.u64("bundle.height")? },
            _ => return Err(DecodeError::Invalid { field: "bundle.state", reason: "unknown" }),
        };
        Ok(Self { deadline, included, state })
    }
}

/// The legs that a block's records put into a rollup's segment, in their order: bundle, leg and transaction.
pub fn legs_of(records: &[Bytes], rollup: RollupId) -> Vec<(B256, u8, TxHash)> {
    let bundles = records.iter().filter(|record| BridgeRecord::is_bundle(record));
    let bundles = bundles.filter_map(|record| match BridgeRecord::decode(record) {
        Ok(BridgeRecord::Bundle(bundle)) => Some(bundle),
        _ => None,
    });
    let legs = bundles.flat_map(|bundle| {
        let id = bundle.id();
        (0u8..).zip(bundle.legs).map(move |(index, leg)| (id, index, leg))
    });
    legs.filter(|(_, _, leg)| leg.rollup == rollup).map(|(id, index, leg)| (id, index, leg.tx)).collect()
}
