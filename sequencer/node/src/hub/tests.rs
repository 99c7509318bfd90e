use super::*;
use std::num::NonZeroU64;
use switchyard_bridge_core::{Operator, OperatorChange, OperatorKind};
use switchyard_consensus_core::{
    EpochRules,
    keys::{bls_public_key, bls_secret_from_entropy},
    record::{Record, Update, UpdateKind},
    stake::Registration,
};
use switchyard_primitives::{Header, RollupId, Segment};
use switchyard_store::{MemoryStore, STATES_KEPT};

fn secret(i: u8) -> [u8; 32] {
    bls_secret_from_entropy(&[i; 32]).unwrap()
}

fn genesis_state(identities: &[B256], blocks: u64) -> SystemState {
    let rules = EpochRules { blocks: NonZeroU64::new(blocks).unwrap(), seats_per_validator: 1 };
    let registered = |(i, identity): (u8, &B256)| {
        let bls = bls_public_key(&secret(i)).unwrap();
        (*identity, Registration { bls, stake: 1, address: None, serial: 0 })
    };
    let hub = HubState::genesis(B256::ZERO, rules, (1..).zip(identities).map(registered)).unwrap();
    SystemState::new(hub, Arc::default()).unwrap()
}

/// The state of a hub with these validators, who have a seat each, in one long epoch.
pub(crate) fn of_equals(store: Arc<dyn Store>, identities: &[B256]) -> HubStates {
    HubStates::open(store, B256::ZERO, genesis_state(identities, u64::MAX)).unwrap()
}

fn identity(i: u8) -> B256 {
    B256::with_last_byte(i)
}

/// A short-epoch hub on a store that outlives it.
struct Hub {
    store: Arc<MemoryStore>,
    states: HubStates,
    parent: B256,
}

impl Hub {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new(Header::genesis(B256::ZERO, 0, B256::ZERO)));
        let parent = store.tip().1;
        Self { states: Self::open(&store), store, parent }
    }

    fn open(store: &Arc<MemoryStore>) -> HubStates {
        HubStates::open(store.clone(), B256::ZERO, genesis_state(&[identity(1), identity(2)], 4)).unwrap()
    }

    fn block(&self, records: &[Record]) -> Block {
        self.block_of(records.iter().map(Record::encode).collect())
    }

    fn block_of(&self, transactions: Vec<Bytes>) -> Block {
        let state = self.states.tip();
        let (parent, height) = (self.parent, state.next_height());
        let header = state.stamp(Header { parent, height, ..Header::genesis(B256::ZERO, 0, B256::ZERO) });
        let system = Segment { rollup: RollupId::SYSTEM, transactions };
        Block::new(header, Some(system).filter(|system| !system.transactions.is_empty()).into_iter().collect())
    }

    /// What the finalizer does.
    fn finalise(&mut self, block: &Block) {
        let state = self.states.next(block).unwrap().unwrap();
        self.states.write(&state).unwrap();
        self.store.append(block, None).unwrap();
        self.states.advance(state);
        self.parent = block.hash();
    }
}

fn moved(serial: u64) -> Record {
    let kind = UpdateKind::Address("10.0.0.1:9".parse().unwrap());
    Record::Update(Update::sign(B256::ZERO, identity(1), serial, kind, &secret(1)).unwrap())
}

#[test]
fn the_state_after_a_restart_is_that_of_the_tip() {
    let mut hub = Hub::new();
    for height in 1..14 {
        let records = if height % 5 == 2 { vec![moved(height / 5)] } else { vec![] };
        hub.finalise(&hub.block(&records));
        assert_eq!(*Hub::open(&hub.store).tip(), *hub.states.tip(), "height {height}");
    }
    assert_eq!(hub.states.tip().validators()[&identity(1)].serial, 3);
    assert_eq!(hub.states.addresses()[0], (identity(1), Some("10.0.0.1:9".parse().unwrap())));
}

#[test]
fn a_state_that_was_written_for_a_block_that_was_lost_is_not_taken() {
    let mut hub = Hub::new();
    hub.finalise(&hub.block(&[]));
    let lost = hub.block(&[moved(0)]);
    let state = hub.states.next(&lost).unwrap().unwrap();
    hub.states.write(&state).unwrap();
    assert_eq!(*Hub::open(&hub.store).tip(), *hub.states.tip());
}

#[test]
fn the_bridges_state_is_written_now_and_then_and_every_newer_one_follows_from_it() {
    const ROLLUP: RollupId = RollupId(1);
    let bls = bls_public_key(&bls_secret_from_entropy(&[100; 32]).unwrap()).unwrap();
    let founder = Operator { bls, rollups: [ROLLUP].into(), serial: 0, gone_at: None };
    let founding = Founding { rollups: [(ROLLUP, 71)].into(), operators: [(identity(1), founder)].into() };
    let hub = genesis_state(&[identity(1), identity(2)], 300).hub().clone().with_protocol(3);
    let genesis = SystemState::new(hub, Arc::new(founding)).unwrap();
    let store = Arc::new(MemoryStore::new(Header::genesis(B256::ZERO, 0, B256::ZERO)));
    let open = || HubStates::open(store.clone(), B256::ZERO, genesis.clone()).unwrap();
    let mut hub = Hub { states: open(), store: store.clone(), parent: store.tip().1 };
    let mut all = vec![hub.states.tip()];
    for height in 1..1_000u64 {
        let state = hub.states.tip();
        // Stretches in which nothing changes, and such in which each block does.
        let serial = state.bridge().unwrap().operators()[&identity(1)].serial;
        let serve = OperatorKind::Serve(if serial.is_multiple_of(2) { vec![] } else { vec![ROLLUP] });
        let serve = || OperatorChange::sign(B256::ZERO, identity(1), serial, serve, &secret(1)).unwrap();
        let records = if height / 100 % 2 == 0 { vec![BridgeRecord::Operator(serve()).encode()] } else { vec![] };
        hub.finalise(&hub.block_of(records));
        all.push(hub.states.tip());
        if height % 97 == 0 {
            assert_eq!(*open().tip(), *hub.states.tip(), "{height}");
        }
    }
    for (height, state) in (0u64..).zip(&all) {
        let found = hub.states.state_at(height).unwrap();
        if height + STATES_KEPT > 1_000 || [299, 599, 899].contains(&height) {
            assert_eq!(found.as_ref().map(|found| found.root()), Some(state.root()), "{height}");
        } else {
            assert!(found.is_none_or(|found| found.root() == state.root()), "{height}");
        }
    }
    let written = (0..1_000).filter(|height| store.bridge_state(*height).unwrap().is_some_and(|(at, _)| at == *height));
    assert!(written.count() <= 1_000 / usize::try_from(STATE_EVERY).unwrap() + 5);
}

#[test]
fn a_final_block_that_breaks_the_rules_stops_the_node_by_name() {
    let hub = Hub::new();
    let mut block = hub.block(&[]);
    block.header.system_root = B256::ZERO;
    let error = hub.states.next(&block).unwrap_err();
    assert!(matches!(error, HubError::Rules { height: 1, .. }), "{error}");
    hub.store.put_hub_state(0, b"junk").unwrap();
    let error = HubStates::open(hub.store.clone(), B256::ZERO, genesis_state(&[identity(1)], 4)).err().unwrap();
    assert!(matches!(error, HubError::Corrupt { height: 0, .. }), "{error}");
}

#[test]
fn a_node_that_does_not_know_the_protocol_stops_before_it() {
    let store = Arc::new(MemoryStore::new(Header::genesis(B256::ZERO, 0, B256::ZERO)));
    let newer = genesis_state(&[identity(1)], 4).hub().clone().with_protocol(2);
    let newer = SystemState::new(newer, Arc::default()).unwrap();
    let states = HubStates::open(store.clone(), B256::ZERO, newer.clone()).unwrap();
    assert!(states.check_protocol().is_ok() && states.knows(&newer));
    let error = HubStates::open_knowing(1, store.clone(), B256::ZERO, newer.clone()).err().unwrap();
    assert!(matches!(error, HubError::Protocol { height: 1, protocol: 2, newest: 1 }), "{error}");
    assert!(error.to_string().contains("install a newer switchyard"), "{error}");
    let states = HubStates::open_knowing(1, store, B256::ZERO, genesis_state(&[identity(1)], 4)).unwrap();
    assert!(!states.knows(&newer), "what it votes for");
}

#[test]
fn the_system_rollup_takes_what_the_next_block_may_hold_or_one_soon_after() {
    let hub = Hub::new();
    let admission = SystemAdmission(hub.states.clone());
    let verdict = |record: &Bytes| admission.inspect(record).err().map(|e| e.code());
    assert_eq!(verdict(&moved(0).encode()), None);
    assert_eq!(verdict(&moved(1).encode()), None, "the one before may be on its way");
    assert_eq!(verdict(&Bytes::from_static(b"junk")), Some("malformed"));
    let stranger = Update::sign(B256::ZERO, identity(7), 0, UpdateKind::Leave, &secret(7)).unwrap();
    assert_eq!(verdict(&Record::Update(stranger).encode()), Some("record"));
    let forged = Update::sign(B256::ZERO, identity(1), 0, UpdateKind::Leave, &secret(2)).unwrap();
    assert_eq!(verdict(&Record::Update(forged).encode()), Some("record"));
}
