//! Records of the system rollup that nobody may believe.

use crate::world::{World, address, bls_key};
use alloy::primitives::Address;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::sync::Arc;
use switchyard_bridge_core::{BridgeRecord, Deposit, Deposits, SystemState};
use switchyard_consensus_core::{
    HubState, keys,
    record::{Change, Record, StakeChange, Update, UpdateKind},
    stake::RECORDS_PER_BLOCK,
};
use switchyard_primitives::{B256, Bytes, RollupId, SignerBitmap};

/// One validator that forges; it has its own keys and no others.
pub(super) struct Forger {
    world: Arc<World>,
    me: usize,
    rng: StdRng,
    /// A record that the log holds.
    old: Option<Bytes>,
}

impl Forger {
    pub(super) fn new(world: Arc<World>, me: usize, seed: u64) -> Self {
        Self { world, me, rng: StdRng::seed_from_u64(seed ^ 0xf0), old: None }
    }

    /// Sees the records of a block that may become final.
    pub(super) fn see(&mut self, records: &[Bytes]) {
        self.old = records.first().cloned().or(self.old.take());
    }

    /// The secret of the key that the table has for it; its first one where it is not in the table.
    fn secret(&self, state: &HubState) -> [u8; 32] {
        let secrets = &self.world.secrets[self.me].bls;
        let listed = state.validators().get(&self.identity());
        let own = secrets.iter().find(|secret| listed.is_some_and(|v| v.bls == bls_key(secret)));
        *own.unwrap_or(&secrets[0])
    }

    fn identity(&self) -> B256 {
        self.world.validators[self.me].identity
    }

    /// Another validator in the table.
    fn victim(&self, state: &HubState) -> B256 {
        let me = self.identity();
        state.validators().keys().find(|identity| **identity != me).copied().unwrap_or(me)
    }

    /// Records of which a block on `state` may not hold all.
    pub(super) fn records(&mut self, state: &SystemState) -> Vec<Bytes> {
        if let Some(bridge) = state.bridge()
            && self.rng.random_range(0..6) == 0
        {
            return bridge
                .rollups()
                .iter()
                .take(1)
                .map(|(id, rollup)| self.coin(state, *id, rollup.deposits))
                .collect();
        }
        let old = self.old.clone();
        let records = match self.rng.random_range(0..9) {
            0 => vec![self.change(state, false)],
            1 => vec![self.change(state, true)],
            2 => vec![self.signed_otherwise(state)],
            3 => self.too_many(state),
            4 => vec![self.own_twice(state); 2],
            5 => vec![self.of_another(state, UpdateKind::Leave)],
            6 => vec![self.stolen_key(state)],
            7 => {
                return vec![
                    (0..self.rng.random_range(0..90))
                        .map(|_| self.rng.random_range(0..=255))
                        .collect::<Vec<u8>>()
                        .into(),
                ];
            }
            _ => match old {
                Some(old) => return vec![old],
                None => vec![self.change(state, true)],
            },
        };
        records.iter().map(Record::encode).collect()
    }

    /// Half of everything for itself, signed by itself: says so, or says that everyone has signed.
    fn change(&self, state: &HubState, everyone: bool) -> Record {
        let committee = state.current();
        let members = u32::try_from(committee.members().len()).unwrap_or(u32::MAX);
        let own = committee.members().iter().position(|m| m.seat.identity == self.identity());
        let own = own.and_then(|place| u32::try_from(place).ok()).unwrap_or(0);
        let changes = vec![(self.identity(), Change::Stake(1 << 40))];
        let (epoch, serial) = (committee.epoch(), state.serial());
        let signature = StakeChange::sign_part(self.world.network, epoch, serial, &changes, &self.secret(state));
        let signers = if everyone { SignerBitmap::new(members, 0..members) } else { SignerBitmap::new(members, [own]) };
        Record::Stake(StakeChange { epoch, serial, changes, signers, signature: signature.expect("a secret") })
    }

    /// Coin for whoever takes it, signed by itself: says that everyone has signed.
    fn coin(&self, state: &HubState, rollup: RollupId, first: u64) -> Bytes {
        let committee = state.current();
        let members = u32::try_from(committee.members().len()).unwrap_or(u32::MAX);
        let epoch = committee.epoch();
        let deposits = vec![Deposit { recipient: Address::repeat_byte(0xf0), gwei: 1 << 40 }];
        let part = Deposits::sign_part(self.world.network, (rollup, epoch, first), &deposits, &self.secret(state));
        let (signers, signature) = (SignerBitmap::new(members, 0..members), part.expect("a secret"));
        BridgeRecord::Deposits(Deposits { rollup, epoch, first, deposits, signers, signature }).encode()
    }

    /// What a quorum has signed once, with other changes in it.
    fn signed_otherwise(&self, state: &HubState) -> Record {
        let old = self.old.as_ref().and_then(|old| Record::decode(old).ok());
        match (old, self.change(state, true)) {
            (Some(Record::Stake(old)), Record::Stake(forged)) => {
                Record::Stake(StakeChange { signers: old.signers, signature: old.signature, ..forged })
            }
            (_, forged) => forged,
        }
    }

    fn update(&self, state: &HubState, identity: B256, ahead: u64, kind: UpdateKind) -> Record {
        let serial = state.validators().get(&identity).map_or(0, |v| v.serial) + ahead;
        let update = Update::sign(self.world.network, identity, serial, kind, &self.secret(state));
        Record::Update(update.expect("a secret"))
    }

    /// Each in order, and one more than a block may hold.
    fn too_many(&self, state: &HubState) -> Vec<Record> {
        let kind = |n: u64| UpdateKind::Address(address(self.me, u16::try_from(n).unwrap_or(0)));
        (0..=RECORDS_PER_BLOCK as u64).map(|n| self.update(state, self.identity(), n, kind(n))).collect()
    }

    fn own_twice(&self, state: &HubState) -> Record {
        self.update(state, self.identity(), 0, UpdateKind::Address(address(self.me, 99)))
    }

    /// About another validator, signed by itself.
    fn of_another(&self, state: &HubState, kind: UpdateKind) -> Record {
        self.update(state, self.victim(state), 0, kind)
    }

    /// A key of another validator for itself, with a proof of possession of its own.
    fn stolen_key(&self, state: &HubState) -> Record {
        let victim = self.world.place(&self.victim(state)).unwrap_or(0);
        let bls = bls_key(&self.world.secrets[victim].bls[1]);
        let possession = keys::prove_possession(&self.secret(state), self.identity()).expect("a secret");
        self.update(state, self.identity(), 0, UpdateKind::Keys { bls, possession })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Shape;
    use commonware_utils::NZU64;
    use switchyard_bridge_core::SystemError;
    use switchyard_primitives::{Block, Header, Limits, Segment};

    #[test]
    fn no_block_may_hold_what_is_forged() {
        let shape = Shape { epoch_blocks: NZU64!(4), ..Shape::equals(4) };
        let world = Arc::new(World::new(&shape, Limits::default()));
        let state = Arc::new(world.hub.clone());
        let header = state.stamp(Header { height: 1, ..world.genesis });
        let block = |transactions: Vec<Bytes>| {
            let system = Segment { rollup: RollupId::SYSTEM, transactions };
            Block::new(header, vec![system])
        };
        let mut errors = std::collections::HashSet::new();
        for seed in 0..60 {
            let mut forger = Forger::new(world.clone(), 1, seed);
            // What was in an earlier block, signed for another state.
            forger.see(&[forger.change(&state, false).encode()]);
            let forged = forger.records(&state);
            // A record alone may be in order: the first of those that are too many.
            let error = state.follow(&block(forged.clone())).expect_err("a forged record");
            let SystemError::Hub(error) = error else { panic!("{error}") };
            errors.insert(std::mem::discriminant(&error));
            assert_ne!(state.draft().admissible(forged.clone()), forged);
        }
        // Malformed, too many, a serial, a quorum, a signature, a key.
        assert!(errors.len() >= 6, "{errors:?}");
    }
}
