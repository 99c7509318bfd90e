//! Bundles: what their ids commit to, and how rollups vote on them.
//!
//! An id commits to what each leg does, not to the transactions that do it: a leg's calldata names the id, so its hash
//! cannot be part of it.

use crate::seal;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use switchyard_primitives::{DecodeError, Reader, RollupId, Writer, merkle};

/// What kind of asset a move holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveKind {
    /// Native coin.
    Coin,
    /// An ERC-20 token.
    Erc20,
    /// An ERC-721 token.
    Erc721,
}

/// An asset that a leg gives: to `to` on commit, to `refund` on abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Move {
    /// What kind of asset.
    pub kind: MoveKind,
    /// The token's contract; zero for coin.
    pub token: Address,
    /// Wei, the token's smallest unit, or the id of the ERC-721 token.
    pub amount: U256,
    /// Who gets it if the bundle is committed.
    pub to: Address,
    /// Who gets it if the bundle is aborted.
    pub refund: Address,
}

/// A contract that takes part in a leg.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The contract.
    pub participant: Address,
    /// Gas for its `commit` and for its `abort`.
    pub gas_limit: u64,
    /// What its `prepare` is given.
    pub data: Bytes,
}

/// What one leg of a bundle does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leg {
    /// The rollup that it is for.
    pub rollup: RollupId,
    /// The account that calls the vault.
    pub signer: Address,
    /// What it gives.
    pub moves: Vec<Move>,
    /// Who takes part.
    pub calls: Vec<Call>,
}

/// What a bundle's id commits to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bundle {
    /// Hub height at which it is aborted unless it is committed below.
    pub deadline: u64,
    /// Tells bundles with equal legs apart.
    pub salt: B256,
    /// [`Leg::hash`] of each leg, in order.
    pub legs: Vec<B256>,
}

impl Move {
    /// keccak-256 of `kind u8 | token 20 | amount u256 | to 20 | refund 20`.
    pub fn hash(&self) -> B256 {
        let mut w = Writer::with_capacity(93);
        w.u8(match self.kind {
            MoveKind::Coin => 0,
            MoveKind::Erc20 => 1,
            MoveKind::Erc721 => 2,
        });
        w.raw(self.token.as_slice());
        w.raw(&self.amount.to_be_bytes::<32>());
        w.raw(self.to.as_slice());
        w.raw(self.refund.as_slice());
        keccak256(w.into_vec())
    }
}

impl Call {
    /// keccak-256 of `participant 20 | gas_limit u64 | keccak(data) 32`.
    pub fn hash(&self) -> B256 {
        let mut w = Writer::with_capacity(60);
        w.raw(self.participant.as_slice());
        w.u64(self.gas_limit);
        w.raw(keccak256(&self.data).as_slice());
        keccak256(w.into_vec())
    }
}

impl Leg {
    /// Most moves and calls together. A contract refuses more.
    pub const ITEMS_MAX: usize = 16;

    /// What it does, wherever it is: keccak-256 of `signer 20 | moves u8 | calls u8 | hashes of the moves | hashes of the
    /// calls`. The counts of more than 255 are cut, as in Solidity.
    pub fn terms(&self) -> B256 {
        let items = self.moves.iter().map(Move::hash).chain(self.calls.iter().map(Call::hash));
        let mut w = Writer::with_capacity(22 + 32 * Self::ITEMS_MAX);
        w.raw(self.signer.as_slice());
        w.u8(low_byte(self.moves.len()));
        w.u8(low_byte(self.calls.len()));
        items.for_each(|item| w.raw(item.as_slice()));
        keccak256(w.into_vec())
    }

    /// What it does, and where: [`Self::hash_of`] its rollup and [`Self::terms`].
    pub fn hash(&self) -> B256 {
        Self::hash_of(self.rollup, &self.terms())
    }

    /// keccak-256 of `rollup u64 | terms 32`. So whoever knows the terms only, as the hub does, can tell that a leg is this
    /// rollup's: with another one, the bundle's id is another.
    pub fn hash_of(rollup: RollupId, terms: &B256) -> B256 {
        let mut w = Writer::with_capacity(40);
        w.u64(rollup.0);
        w.raw(terms.as_slice());
        keccak256(w.into_vec())
    }
}

impl Bundle {
    /// Fewest legs of a bundle.
    pub const LEGS_MIN: usize = 2;
    /// Most legs of a bundle.
    pub const LEGS_MAX: usize = 16;
    /// The layout's version.
    pub const VERSION: u8 = 1;

    /// keccak-256 of `version u8 | deadline u64 | salt 32 | legs u8 | hashes of the legs`.
    pub fn id(&self) -> B256 {
        let mut w = Writer::with_capacity(42 + 32 * Self::LEGS_MAX);
        w.u8(Self::VERSION);
        w.u64(self.deadline);
        w.raw(self.salt.as_slice());
        w.u8(low_byte(self.legs.len()));
        self.legs.iter().for_each(|leg| w.raw(leg.as_slice()));
        keccak256(w.into_vec())
    }
}

fn low_byte(count: usize) -> u8 {
    count.to_le_bytes()[0]
}

/// What a rollup says of one leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ballot {
    /// The leg's transaction did not prepare it: reverted, out of gas, or not executed at all.
    No,
    /// The leg's transaction prepared it.
    Yes,
    /// Another transaction prepared it.
    Stray,
}

/// One entry of the votes that a checkpoint carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The bundle's id.
    pub bundle: B256,
    /// The leg's index.
    pub leg: u8,
    /// What became of it.
    pub ballot: Ballot,
}

impl Vote {
    /// Most votes of one checkpoint.
    pub const MAX: usize = 2048;

    /// Writes `bundle 32 | leg u8 | ballot u8`: 0 no, 1 yes, 2 stray.
    pub fn write(&self, w: &mut Writer) {
        w.raw(self.bundle.as_slice());
        w.u8(self.leg);
        w.u8(match self.ballot {
            Ballot::No => 0,
            Ballot::Yes => 1,
            Ballot::Stray => 2,
        });
    }

    /// Reads [`Self::write`]'s layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let (bundle, leg) = (r.b256("vote.bundle")?, r.u8("vote.leg")?);
        let ballot = match r.u8("vote.ballot")? {
            0 => Ballot::No,
            1 => Ballot::Yes,
            2 => Ballot::Stray,
            _ => return Err(DecodeError::Invalid { field: "vote.ballot", reason: "neither no, yes nor stray" }),
        };
        Ok(Self { bundle, leg, ballot })
    }

    /// keccak-256 of [`Self::write`]'s layout.
    pub fn hash(&self) -> B256 {
        let mut w = Writer::with_capacity(34);
        self.write(&mut w);
        keccak256(w.into_vec())
    }
}

/// Writes a checkpoint's votes: their count, then each.
pub(crate) fn write_votes(w: &mut Writer, votes: &[Vote]) {
    w.count(votes.len());
    votes.iter().for_each(|vote| vote.write(w));
}

/// Reads [`write_votes`]'s layout.
pub(crate) fn read_votes(r: &mut Reader) -> Result<Vec<Vote>, DecodeError> {
    let count = r.count("votes", Vote::MAX)?;
    (0..count).map(|_| Vote::read(r)).collect()
}

/// Root of a block's votes, in their order: [`seal`] of their number and the Merkle root of their hashes; zero for none.
pub fn votes_root(votes: &[Vote]) -> B256 {
    if votes.is_empty() {
        return B256::ZERO;
    }
    seal(votes.len() as u64, merkle::root(votes.iter().map(Vote::hash)))
}
