//! What all validators of a simulated network agree on, and their keys.

use commonware_cryptography::ed25519::PublicKey;
use switchyard_consensus_core::{Seat, SeatSet, keys};
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

/// One network.
#[derive(Clone)]
pub struct World {
    /// Its id.
    pub network: B256,
    /// The validators, in the order of their seats.
    pub secrets: Vec<Secrets>,
    /// Their public keys.
    pub seats: SeatSet,
    /// The block of height 0.
    pub genesis: Header,
    /// Bounds of a block.
    pub limits: Limits,
}

impl World {
    /// A network of `validators`, always with the same keys.
    pub fn new(validators: usize, limits: Limits) -> Self {
        let network = keccak256(b"simulation");
        let secrets = |i: usize| {
            let entropy = keccak256([b"validator".as_slice(), &i.to_be_bytes()].concat());
            let bls = keys::bls_secret_from_entropy(&entropy.0).expect("32 bytes of entropy");
            Secrets { identity: entropy.0, bls }
        };
        let mut secrets: Vec<Secrets> = (0..validators).map(secrets).collect();
        secrets.sort_by_key(|s| identity(&s.identity));
        let seat = |s: &Secrets| Seat {
            identity: identity(&s.identity),
            bls: keys::bls_public_key(&s.bls).expect("a secret of the library's own making"),
        };
        let seats = SeatSet::new(secrets.iter().map(seat).collect()).expect("different keys");
        let genesis = Header::genesis(network, 0, seats.hash());
        Self { network, secrets, seats, genesis, limits }
    }

    /// The validators' ed25519 keys, in order.
    pub fn keys(&self) -> Vec<PublicKey> {
        let seats = self.seats.seats().iter();
        seats.map(|seat| public_key(seat.identity).expect("made from a secret")).collect()
    }

    /// How many validators may be faulty.
    pub fn faulty_max(&self) -> usize {
        (self.seats.seats().len() - 1) / 3
    }
}
