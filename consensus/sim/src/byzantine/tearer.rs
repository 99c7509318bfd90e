//! Blocks that tear bundles apart, or hold certificates that nobody may believe.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use switchyard_bridge_core::{Ballot, BridgeRecord, BundleRecord, Certificate, LegRecord};
use switchyard_primitives::{B256, Block, Bytes, RollupId, Segment, SignerBitmap};

/// Records and blocks remembered to be used again.
const REMEMBERED: usize = 16;

/// One validator that tears.
pub(super) struct Tearer {
    evms: Vec<RollupId>,
    rng: StdRng,
    /// The bridge's records of blocks that may be final.
    old: Vec<Bytes>,
}

/// A block's parts.
struct Parts {
    records: Vec<Bytes>,
    others: Vec<Segment>,
}

impl Parts {
    fn leg(&mut self, leg: &LegRecord) -> Option<(usize, usize)> {
        let segment = self.others.iter().position(|segment| segment.rollup == leg.rollup)?;
        let is_it = |tx: &Bytes| switchyard_primitives::keccak256(tx) == leg.tx;
        Some((segment, self.others[segment].transactions.iter().position(is_it)?))
    }

    fn take(&mut self, leg: &LegRecord) -> Option<Bytes> {
        let (segment, place) = self.leg(leg)?;
        Some(self.others[segment].transactions.remove(place))
    }

    fn put(&mut self, rollup: RollupId, transaction: Bytes) {
        match self.others.iter_mut().find(|segment| segment.rollup == rollup) {
            Some(segment) => segment.transactions.push(transaction),
            None => self.others.push(Segment { rollup, transactions: vec![transaction] }),
        }
    }

    fn into_block(self, block: &Block) -> Block {
        let system = Segment { rollup: RollupId::SYSTEM, transactions: self.records };
        let mut segments: Vec<Segment> = [system].into_iter().chain(self.others).collect();
        segments.retain(|segment| !segment.transactions.is_empty());
        segments.sort_by_key(|segment| segment.rollup);
        Block::new(block.header, segments)
    }
}

impl Tearer {
    /// One on a network with these EVM rollups.
    pub(super) fn new(evms: Vec<RollupId>, seed: u64) -> Self {
        Self { evms, rng: StdRng::seed_from_u64(seed ^ 0x7ea5), old: Vec::new() }
    }

    /// Sees the records of a block that may become final.
    pub(super) fn see(&mut self, records: &[Bytes]) {
        self.old.extend(records.iter().filter(|record| BridgeRecord::is_proposers(record)).cloned());
        let more = self.old.len().saturating_sub(REMEMBERED);
        self.old.drain(..more);
    }

    /// A block that no honest validator may vote for, made of one that it may; but for legs without their bundle's record, which
    /// anyone may send.
    pub(super) fn tear(&mut self, block: &Block) -> Block {
        let (mut records, mut others) = (Vec::new(), Vec::new());
        for segment in block.segments() {
            match segment.rollup == RollupId::SYSTEM {
                true => records.clone_from(&segment.transactions),
                false => others.push(segment.clone()),
            }
        }
        let mut parts = Parts { records, others };
        let decoded: Vec<(usize, BridgeRecord)> =
            (0..).zip(&parts.records).filter_map(|(at, r)| Some((at, BridgeRecord::decode(r).ok()?))).collect();
        match decoded.get(self.rng.random_range(0..decoded.len().max(1))).cloned() {
            Some((at, BridgeRecord::Bundle(bundle))) => self.tear_bundle(&mut parts, at, bundle),
            Some((at, BridgeRecord::Certificate(certificate))) => self.spoil(&mut parts, at, certificate),
            _ => self.make_up(&mut parts, block.header.height),
        }
        parts.into_block(block)
    }

    fn tear_bundle(&mut self, parts: &mut Parts, at: usize, mut bundle: BundleRecord) {
        let leg = self.rng.random_range(0..bundle.legs.len());
        let record = parts.records[at].clone();
        match self.rng.random_range(0..7) {
            0 => drop(parts.take(&bundle.legs[leg])),
            // In another rollup's segment.
            1 => {
                let other = self.evms.iter().find(|rollup| **rollup != bundle.legs[leg].rollup).copied();
                if let (Some(other), Some(transaction)) = (other, parts.take(&bundle.legs[leg])) {
                    parts.put(other, transaction);
                }
            }
            // The record alone.
            2 => bundle.legs.iter().for_each(|leg| drop(parts.take(leg))),
            3 => parts.records.push(record),
            // One transaction for two legs.
            4 => {
                let other = (leg + 1) % bundle.legs.len();
                bundle.legs[leg] = bundle.legs[other];
                parts.records[at] = BridgeRecord::Bundle(bundle).encode();
            }
            // Not invalid: each leg is alone then, and will be given back.
            5 => drop(parts.records.remove(at)),
            _ => {
                bundle.legs[leg].tx = B256::repeat_byte(7);
                parts.records[at] = BridgeRecord::Bundle(bundle).encode();
            }
        }
    }

    fn spoil(&mut self, parts: &mut Parts, at: usize, mut certificate: Certificate) {
        let entry = self.rng.random_range(0..certificate.entries.len());
        match self.rng.random_range(0..7) {
            0 => certificate.entries[entry].checkpoint.state_root = B256::repeat_byte(1),
            1 => certificate.entries[entry].checkpoint.number += 1,
            2 => certificate.entries[entry].checkpoint.hub_height = u64::MAX,
            // Fewer than a quorum.
            3 => {
                let seats = certificate.entries[entry].signers.seats();
                certificate.entries[entry].signers = SignerBitmap::new(seats, [0]);
            }
            4 => match certificate.entries[entry].votes.first_mut() {
                Some(vote) => vote.ballot = if vote.ballot == Ballot::Yes { Ballot::No } else { Ballot::Yes },
                None => certificate.signature[5] ^= 1,
            },
            5 => {
                let again = certificate.entries[entry].clone();
                certificate.entries.push(again);
            }
            _ => parts.records.push(parts.records[at].clone()),
        }
        parts.records[at] = BridgeRecord::Certificate(certificate).encode();
    }

    /// What the log holds already, or a bundle of nothing.
    fn make_up(&mut self, parts: &mut Parts, height: u64) {
        let old = (!self.old.is_empty()).then(|| self.rng.random_range(0..self.old.len()));
        if let Some(old) = old.filter(|_| self.rng.random_range(0..3) > 0) {
            parts.records.push(self.old[old].clone());
            return;
        }
        let leg =
            |rollup: &RollupId| LegRecord { rollup: *rollup, terms: B256::repeat_byte(3), tx: B256::repeat_byte(4) };
        let deadline = height + self.rng.random_range(0..9);
        let legs = [&self.evms[..], &self.evms[..]].concat().iter().take(2).map(leg).collect();
        parts.records.push(BridgeRecord::Bundle(BundleRecord { deadline, salt: B256::ZERO, legs }).encode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{EVMS, Shape, World};
    use std::{collections::HashSet, sync::Arc};
    use switchyard_bridge_core::{Attestation, CertifiedCheckpoint, Checkpoint};
    use switchyard_consensus_core::keys::aggregate;
    use switchyard_primitives::{Header, Limits, keccak256};

    /// What the first three of four operators sign of a rollup's first block.
    fn certificate(world: &World) -> Certificate {
        let (block_hash, state_root) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let checkpoint = Checkpoint {
            rollup: EVMS[0],
            number: 1,
            hub_height: 0,
            block_hash,
            state_root,
            outbox_root: B256::ZERO,
            votes_root: B256::ZERO,
        };
        let sign = |place: usize| {
            let (identity, secret) = (world.validators[place].identity, &world.secrets[place].operator);
            Attestation::sign(world.network, identity, checkpoint, Vec::new(), secret).unwrap().signature
        };
        let signature = aggregate(&[sign(0), sign(1), sign(2)]).unwrap();
        let signers = SignerBitmap::new(4, 0..3);
        Certificate { entries: vec![CertifiedCheckpoint { checkpoint, votes: Vec::new(), signers }], signature }
    }

    #[test]
    fn no_block_may_hold_what_is_torn() {
        let attesters = EVMS.into_iter().map(|rollup| (rollup, (0..4).collect())).collect();
        let world = World::new(&Shape { attesters, ..Shape::equals(4) }, Limits::default());
        let state = Arc::new(world.hub.clone());
        let header = state.stamp(Header { height: 1, ..world.genesis });
        let legs: Vec<Segment> = EVMS
            .into_iter()
            .map(|rollup| Segment { rollup, transactions: vec![rollup.0.to_be_bytes().to_vec().into()] })
            .collect();
        let leg = |s: &Segment| LegRecord { rollup: s.rollup, terms: B256::ZERO, tx: keccak256(&s.transactions[0]) };
        let bundle = BundleRecord { deadline: 9, salt: B256::ZERO, legs: legs.iter().map(leg).collect() };
        let bundle = BridgeRecord::Bundle(bundle).encode();
        let certificate = BridgeRecord::Certificate(certificate(&world)).encode();
        let block = |records: &[&Bytes]| {
            let system = Segment { rollup: RollupId::SYSTEM, transactions: records.iter().copied().cloned().collect() };
            let parts = Parts { records: system.transactions, others: legs.clone() };
            parts.into_block(&Block::new(header, Vec::new()))
        };
        let mut errors = HashSet::new();
        for (sound, seed) in [block(&[&certificate, &bundle]), block(&[])]
            .iter()
            .flat_map(|block| (0..90).map(move |seed| (block, seed)))
        {
            assert!(state.follow(sound).is_ok());
            let torn = Tearer::new(world.evms.clone(), seed).tear(sound);
            match state.follow(&torn) {
                Ok(_) => assert!(!torn.transactions(RollupId::SYSTEM).contains(&bundle), "legs alone"),
                Err(error) => drop(errors.insert(error.to_string())),
            }
        }
        // Missing legs, known bundles, deadlines, quorums, signatures, orders, heights, two certificates, roots.
        assert!(errors.len() >= 8, "{errors:#?}");
    }
}
