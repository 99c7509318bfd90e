//! What all validators of a simulated network agree on, and their keys.

use commonware_cryptography::ed25519::PublicKey;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU64,
    sync::Arc,
};
use switchyard_bridge_core::{BRIDGE_FROM, Founding, Operator, SystemState};
use switchyard_consensus_core::{EpochRules, HubState, Seat, SeatSet, keys, stake::Registration};
use switchyard_consensus_network::{identity, public_key};
use switchyard_primitives::{B256, Header, Limits, RollupId, keccak256};

/// The rollup that the hub does not look into.
pub const OPAQUE: RollupId = RollupId(7);
/// The rollup with an embedded EVM that every network has.
pub const EVM: RollupId = RollupId(1);
/// The rollups with an embedded EVM that a network may have.
pub const EVMS: [RollupId; 3] = [EVM, RollupId(2), RollupId(3)];
/// A transaction may not be in the log twice within so many blocks.
pub const REPLAY_WINDOW: u64 = 1_000_000;
/// BLS keys of each validator: it begins with the first.
pub const KEYS: usize = 2;

/// A validator's secrets.
#[derive(Clone, Copy)]
pub struct Secrets {
    /// Seed of the ed25519 key.
    pub identity: [u8; 32],
    /// BLS12-381 secrets.
    pub bls: [[u8; 32]; KEYS],
    /// With which it signs checkpoints, if it is an operator.
    pub operator: [u8; 32],
}

/// How seats and epochs are dealt out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The stake of each validator of the genesis.
    pub stakes: Vec<u64>,
    /// Validators that may join later.
    pub newcomers: usize,
    /// Seats of all of them, divided by their number.
    pub seats_per_validator: u32,
    /// Blocks of an epoch.
    pub epoch_blocks: NonZeroU64,
    /// The rollups that make checkpoints, with the founders that attest each, by place; none in a network without a bridge.
    pub attesters: BTreeMap<RollupId, BTreeSet<usize>>,
}

impl Shape {
    /// A seat for each of so many validators, and one epoch for ever.
    pub fn equals(validators: usize) -> Self {
        Self {
            stakes: vec![1; validators],
            newcomers: 0,
            seats_per_validator: 1,
            epoch_blocks: NonZeroU64::MAX,
            attesters: BTreeMap::new(),
        }
    }
}

/// One network.
#[derive(Clone)]
pub struct World {
    /// Its id.
    pub network: B256,
    /// The validators' secrets: those of the genesis ascending by identity, then the newcomers. A validator is named by its
    /// place here.
    pub secrets: Vec<Secrets>,
    /// Their first seats with their first keys.
    pub validators: Vec<Seat>,
    /// How many are in the genesis.
    pub founders: usize,
    /// All seats of the first epochs.
    pub seats: SeatSet,
    /// How the log is cut into epochs.
    pub epochs: EpochRules,
    /// The block of height 0.
    pub genesis: Header,
    /// The hub's state after it.
    pub hub: SystemState,
    /// Bounds of a block.
    pub limits: Limits,
    /// The rollups with an embedded EVM.
    pub evms: Vec<RollupId>,
    /// Those that stand still at the moment: nobody executes them.
    pub halted: Arc<Mutex<BTreeSet<RollupId>>>,
}

impl World {
    /// A network, always with the same keys.
    pub fn new(shape: &Shape, limits: Limits) -> Self {
        let network = keccak256(b"simulation");
        let secrets = |i: usize| {
            let entropy = keccak256([b"validator".as_slice(), &i.to_be_bytes()].concat());
            let bls = |key: u8| {
                let entropy = if key == 0 { entropy } else { keccak256([entropy.as_slice(), &[key]].concat()) };
                keys::bls_secret_from_entropy(&entropy.0).expect("32 bytes of entropy")
            };
            Secrets { identity: entropy.0, bls: [bls(0), bls(1)], operator: bls(2) }
        };
        let founders = shape.stakes.len();
        let mut secrets: Vec<Secrets> = (0..founders + shape.newcomers).map(secrets).collect();
        secrets[..founders].sort_by_key(|s| identity(&s.identity));
        let seat = |s: &Secrets| Seat { identity: identity(&s.identity), bls: bls_key(&s.bls[0]) };
        let validators: Vec<Seat> = secrets.iter().map(seat).collect();
        let epochs = EpochRules { blocks: shape.epoch_blocks, seats_per_validator: shape.seats_per_validator };
        let registered = validators.iter().zip(&shape.stakes).enumerate().map(|(place, (seat, stake))| {
            let address = Some(address(place, 0));
            (seat.identity, Registration { bls: seat.bls, stake: *stake, address, serial: 0 })
        });
        let hub = HubState::genesis(network, epochs, registered).expect("different keys");
        let seats = hub.current().seats().clone();
        let (hub, evms) = match shape.attesters.is_empty() {
            true => (hub, vec![EVM]),
            false => (hub.with_protocol(BRIDGE_FROM), shape.attesters.keys().copied().collect()),
        };
        let founding = founding(shape, &secrets, &validators);
        let hub = SystemState::new(hub, Arc::new(founding)).expect("a few rollups");
        let genesis = Header::genesis(network, 0, seats.hash());
        let halted = Arc::default();
        Self { network, secrets, validators, founders, seats, epochs, genesis, hub, limits, evms, halted }
    }

    /// The validators' ed25519 keys, by place.
    pub fn keys(&self) -> Vec<PublicKey> {
        self.validators.iter().map(|seat| public_key(seat.identity).expect("made from a secret")).collect()
    }

    /// A validator's place, by its identity.
    pub fn place(&self, identity: &B256) -> Option<usize> {
        self.validators.iter().position(|seat| seat.identity == *identity)
    }
}

/// The operators of the genesis.
fn founding(shape: &Shape, secrets: &[Secrets], validators: &[Seat]) -> Founding {
    let rollups = shape.attesters.keys().map(|rollup| (*rollup, chain_id(*rollup))).collect();
    let serves = |place: usize| shape.attesters.iter().filter(move |(_, by)| by.contains(&place)).map(|(id, _)| *id);
    let operator = |place: usize| {
        let bls = bls_key(&secrets[place].operator);
        (validators[place].identity, Operator { bls, rollups: serves(place).collect(), serial: 0, gone_at: None })
    };
    let places = (0..shape.stakes.len()).filter(|place| serves(*place).next().is_some());
    Founding { rollups, operators: places.map(operator).collect() }
}

/// The EIP-155 chain id of an EVM rollup.
pub fn chain_id(rollup: RollupId) -> u64 {
    6 + rollup.0
}

/// The public key of a secret.
pub fn bls_key(secret: &[u8; 32]) -> alloy::primitives::FixedBytes<48> {
    keys::bls_public_key(secret).expect("a secret of the library's own making")
}

/// Where a validator listens that has moved so many times.
pub fn address(place: usize, moves: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(place).unwrap_or(u8::MAX)], 1000 + moves))
}
