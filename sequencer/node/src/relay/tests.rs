use super::*;
use std::{collections::BTreeMap, num::NonZeroU64};
use switchyard_bridge_core::{
    Attestation, Ballot, BundleState, Certificate, CertifiedCheckpoint, Checkpoint, Founding, LegRecord, Operator,
    SystemState, Vote, votes_root,
};
use switchyard_consensus_core::{
    EpochRules, HubState,
    keys::{bls_public_key, bls_secret_from_entropy},
    stake::Registration,
};
use switchyard_primitives::{Block, Header, Segment, SignerBitmap, TxKey};
use switchyard_store::MemoryStore;

const A: RollupId = RollupId(1);
const B: RollupId = RollupId(2);
const DEADLINE: u64 = 20;
/// What the validator's key as an operator is made of.
const OPERATOR: [u8; 32] = [2; 32];

/// A hub of one validator with two rollups that make checkpoints.
struct Fixture {
    log: Log,
    parent: B256,
}

impl Fixture {
    fn new() -> Self {
        let bls = bls_public_key(&bls_secret_from_entropy(&[1; 32]).unwrap()).unwrap();
        let registration = Registration { bls, stake: 1, address: None, serial: 0 };
        let rules = EpochRules { blocks: NonZeroU64::MAX, seats_per_validator: 1 };
        let hub = HubState::genesis(B256::ZERO, rules, [(B256::ZERO, registration)]).unwrap();
        let key = bls_public_key(&bls_secret_from_entropy(&OPERATOR).unwrap()).unwrap();
        let operator = Operator { bls: key, rollups: [A, B].into(), serial: 0, gone_at: None };
        let founding =
            Founding { rollups: [(A, 71), (B, 72)].into(), operators: BTreeMap::from([(B256::ZERO, operator)]) };
        let genesis = SystemState::new(hub.with_protocol(3), Arc::new(founding)).unwrap();
        let store = Arc::new(MemoryStore::new(Header::genesis(B256::ZERO, 0, B256::ZERO)));
        let parent = store.tip().1;
        let hub = HubStates::open(store.clone(), B256::ZERO, genesis).unwrap();
        Self { log: Log { hub, store }, parent }
    }

    /// Makes the next block final with these segments.
    fn finalise(&mut self, segments: Vec<Segment>) {
        let Log { hub, store } = &self.log;
        let (state, parent) = (hub.tip(), self.parent);
        let height = state.next_height();
        let header = state.stamp(Header { parent, height, ..Header::genesis(B256::ZERO, 0, B256::ZERO) });
        let block = Block::new(header, segments);
        let state = hub.next(&block).unwrap().unwrap();
        hub.write(&state).unwrap();
        store.append(&block, None).unwrap();
        hub.advance(state);
        self.parent = block.hash();
    }

    fn finalise_until(&mut self, height: u64) {
        while self.log.store.tip().0.height < height {
            self.finalise(Vec::new());
        }
    }

    /// A block with a bundle and its legs.
    fn include(&mut self) -> BundleRecord {
        let segment = |rollup: RollupId| Segment {
            rollup,
            transactions: vec![switchyard_primitives::Bytes::from_static(b"a leg")],
        };
        let leg = |rollup: RollupId| {
            let tx = TxKey::of(rollup, b"a leg").hash;
            LegRecord { rollup, terms: B256::with_last_byte(u8::try_from(rollup.0).unwrap()), tx }
        };
        let record = BundleRecord { deadline: DEADLINE, salt: B256::ZERO, legs: vec![leg(A), leg(B)] };
        let transactions = vec![BridgeRecord::Bundle(record.clone()).encode()];
        let system = Segment { rollup: RollupId::SYSTEM, transactions };
        self.finalise(vec![system, segment(A), segment(B)]);
        record
    }
}

#[test]
fn a_yes_is_told_as_soon_as_it_is_certified() {
    let mut hub = Fixture::new();
    hub.finalise_until(2);
    let id = hub.include().id();
    let votes = vec![Vote { bundle: id, leg: 0, ballot: Ballot::Yes }];
    let checkpoint = Checkpoint { votes_root: votes_root(&votes), ..Checkpoint::none(A, 1, 3) };
    let secret = bls_secret_from_entropy(&OPERATOR).unwrap();
    let word = Attestation::sign(B256::ZERO, B256::ZERO, checkpoint, votes.clone(), &secret).unwrap();
    let entries = vec![CertifiedCheckpoint { checkpoint, votes, signers: SignerBitmap::new(1, [0]) }];
    let certificate = BridgeRecord::Certificate(Certificate { entries, signature: word.signature }).encode();
    hub.finalise(vec![Segment { rollup: RollupId::SYSTEM, transactions: vec![certificate] }]);
    let status = switchyard_relayer::bundle_status(&hub.log, &BTreeMap::new(), id).unwrap().unwrap();
    assert_eq!(status.legs.iter().map(|leg| leg.voted).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_bundle_is_told_of_and_settled_after_its_block_is_pruned() {
    let (mut hub, chains) = (Fixture::new(), BTreeMap::new());
    hub.finalise_until(2);
    let record = hub.include();
    let id = record.id();
    let before = hub.log.bundle(&id).unwrap().unwrap();
    assert_eq!(before.record, record);
    hub.finalise_until(10);
    hub.log.store.prune(8).unwrap();
    assert!(hub.log.store.transactions(RollupId::SYSTEM, 3).unwrap().is_none());
    assert_eq!(hub.log.bundle(&id).unwrap(), Some(before), "open, and its block is pruned");
    let status = switchyard_relayer::bundle_status(&hub.log, &chains, id).unwrap().unwrap();
    assert_eq!((status.bundle.included, status.legs.len()), (3, 2));

    hub.finalise_until(DEADLINE + 10);
    hub.log.store.prune(DEADLINE + 5).unwrap();
    let OnHub { bundle, record: found } = hub.log.bundle(&id).unwrap().unwrap();
    assert_eq!(bundle.state, BundleState::Decided { committed: false, height: DEADLINE });
    assert_eq!(found, record);
    let settlement = switchyard_relayer::settlement(&hub.log, &chains, id).unwrap();
    assert_eq!(settlement, Some(Vec::new()), "known, and no rollup runs here");
    assert_eq!(hub.log.bundle(&B256::ZERO).unwrap(), None);
}
