//! What all validators of a simulated network agree on, and their keys.

use commonware_cryptography::ed25519::PublicKey;
use std::num::NonZeroU64;
use switchyard_consensus_core::{EpochRules, HubState, Seat, SeatSet, keys, stake::Registration};
use switchyard_consensus_network::{identity, public_key};
use switchyard_primitives::{B256, Header, Limits, RollupId, keccak256};

/// The rollup that the hub does not look into.
pub const OPAQUE: RollupId = RollupId(7);
/// The rollup with an embedded EVM.
pub const EVM: RollupId = RollupId(1);
/// A transaction may not be in the log twice within so many blocks.
pub const REPLAY_WINDOW: u64 = 1_000_000;

/// A validator's secrets.
#[derive(Clone, Copy)]
pub struct Secrets {
    /// Seed of the ed25519 key.
    pub identity: [u8; 32],
    /// BLS12-381 secret.
    pub bls: [u8; 32],
}

/// How seats and epochs are dealt out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Each validator's stake.
    pub stakes: Vec<u64>,
    /// Seats of all of them, divided by their number.
    pub seats_per_validator: u32,
    /// Blocks of an epoch.
    pub epoch_blocks: NonZeroU64,
}

impl Shape {
    /// A seat for each of so many validators, and one epoch for ever.
    pub fn equals(validators: usize) -> Self {
        Self { stakes: vec![1; validators], seats_per_validator: 1, epoch_blocks: NonZeroU64::MAX }
    }
}

/// One network.
#[derive(Clone)]
pub struct World {
    /// Its id.
    pub network: B256,
    /// The validators' secrets, ascending by identity: a validator is named by its place here.
    pub secrets: Vec<Secrets>,
    /// Their first seats.
    pub validators: Vec<Seat>,
    /// All seats, the same in every epoch.
    pub seats: SeatSet,
    /// How the log is cut into epochs.
    pub epochs: EpochRules,
    /// The block of height 0.
    pub genesis: Header,
    /// The hub's state after it.
    pub hub: HubState,
    /// Bounds of a block.
    pub limits: Limits,
}

impl World {
    /// A network, always with the same keys.
    pub fn new(shape: &Shape, limits: Limits) -> Self {
        let network = keccak256(b"simulation");
        let secrets = |i: usize| {
            let entropy = keccak256([b"validator".as_slice(), &i.to_be_bytes()].concat());
            let bls = keys::bls_secret_from_entropy(&entropy.0).expect("32 bytes of entropy");
            Secrets { identity: entropy.0, bls }
        };
        let mut secrets: Vec<Secrets> = (0..shape.stakes.len()).map(secrets).collect();
        secrets.sort_by_key(|s| identity(&s.identity));
        let seat = |s: &Secrets| Seat {
            identity: identity(&s.identity),
            bls: keys::bls_public_key(&s.bls).expect("a secret of the library's own making"),
        };
        let validators: Vec<Seat> = secrets.iter().map(seat).collect();
        let epochs = EpochRules { blocks: shape.epoch_blocks, seats_per_validator: shape.seats_per_validator };
        let registered = validators.iter().zip(&shape.stakes).map(|(seat, stake)| {
            (seat.identity, Registration { bls: seat.bls, stake: *stake, address: None, serial: 0 })
        });
        let hub = HubState::genesis(network, epochs, registered).expect("different keys");
        let seats = hub.current().seats().clone();
        let genesis = Header::genesis(network, 0, seats.hash());
        Self { network, secrets, validators, seats, epochs, genesis, hub, limits }
    }

    /// The validators' ed25519 keys, in order.
    pub fn keys(&self) -> Vec<PublicKey> {
        self.validators.iter().map(|seat| public_key(seat.identity).expect("made from a secret")).collect()
    }

    /// A validator's place, by its identity.
    pub fn place(&self, identity: &B256) -> Option<usize> {
        self.validators.iter().position(|seat| seat.identity == *identity)
    }

    /// The index of a validator's first seat, with which it votes.
    pub fn first_seat(&self, validator: usize) -> Option<u32> {
        self.seats.index_of(&self.validators.get(validator)?.identity)
    }

    /// How many seats a validator has.
    pub fn seats_of(&self, validator: usize) -> usize {
        let member = self.validators.get(validator).and_then(|seat| self.hub.current().member(&seat.identity));
        member.map_or(0, |m| m.seats as usize)
    }
}
