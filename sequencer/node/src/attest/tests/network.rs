//! Whole attestation and VITAL of several nodes on one log, without consensus: a node in turn makes each block of what it has heard.

use super::{chain::Chain, *};
use switchyard_bridge_core::{Held, VerdictWord};
use switchyard_consensus_engine::{Detached, GossipHandle};
use switchyard_primitives::Limits;
use tokio::sync::mpsc;

const B: RollupId = RollupId(2);

/// One node with its operator.
struct Member {
    identity: B256,
    store: Arc<MemoryStore>,
    hub: HubStates,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    chains: BTreeMap<RollupId, Arc<Chain>>,
    /// The next hub height that both rollups execute.
    next: Arc<AtomicU64>,
    attest: Attest,
    channel: Detached,
    records: mpsc::Receiver<Bytes>,
    folder: tempfile::TempDir,
}

/// Validators with a stake of 100 each, all of them operators; each runs both rollups.
struct Network {
    members: Vec<Member>,
    /// Records that were submitted.
    waiting: Vec<Bytes>,
    newest: Block,
    /// From and to whom nothing comes through.
    lost: Option<(B256, B256)>,
}

/// What operator `.0` computes wrong: rollup, block.
type Wrong = (u8, RollupId, u64);

fn member(i: u8, hub: &SystemState, wrong: &[Wrong]) -> Member {
    let store = Arc::new(MemoryStore::new(Header::genesis(NETWORK, 0, B256::ZERO)));
    let hub = HubStates::open(store.clone(), NETWORK, hub.clone()).unwrap();
    let metrics = Arc::new(Metrics::default());
    let pool = Arc::new(Pool::new(hub.clone(), metrics.clone()));
    let wrong_in = |rollup| wrong.iter().filter(|w| (w.0, w.1) == (i, rollup)).map(|w| w.2).collect();
    let chains: BTreeMap<_, _> = [A, B].into_iter().map(|id| (id, Chain::new(id, wrong_in(id)))).collect();
    let (handle, channel) = GossipHandle::detached(256 << 10);
    let (sender, records) = Records::new();
    let next = Arc::new(AtomicU64::new(1));
    let folder = tempfile::TempDir::new().unwrap();
    let secret = secret(100 + i);
    let guard = SignGuard::open(&folder.path().join("record"), NETWORK, bls_public_key(&secret).unwrap().0).unwrap();
    let operator = Operator { identity: identity(i), secret: secret.into(), guard };
    let attest = Attest::new(AttestParts {
        hub: hub.clone(),
        store: store.clone(),
        chains: chains.iter().map(|(id, chain)| (*id, chain.clone() as Arc<dyn EvmChain>)).collect(),
        next: [A, B].map(|id| (id, next.clone())).into(),
        tip: watch::Sender::new(HubTip { height: 0, hash: B256::ZERO, timestamp_ms: 0 }).subscribe(),
        closed: watch::Sender::new(0).subscribe(),
        operator: Some(operator),
        pool: pool.clone(),
        gossip: Some(handle.sender),
        records: sender,
        evidence: folder.path().join("evidence"),
        metrics: metrics.clone(),
    });
    Member { identity: identity(i), store, hub, pool, metrics, chains, next, attest, channel, records, folder }
}

impl Network {
    /// Operator `i` serves the rollups of `serves[i - 1]`, and computes something wrong where `wrong` says so.
    fn new(serves: &[&[RollupId]], wrong: &[Wrong]) -> Self {
        let rules = EpochRules { blocks: NonZeroU64::MAX, seats_per_validator: 1 };
        let registered = |i: u8| {
            let bls = bls_public_key(&secret(i)).unwrap();
            (identity(i), Registration { bls, stake: 100, address: None, serial: 0 })
        };
        let count = u8::try_from(serves.len()).unwrap();
        let hub = HubState::genesis(NETWORK, rules, (1..=count).map(registered)).unwrap().with_protocol(3);
        let founder = |(i, rollups): (u8, &&[RollupId])| {
            let bls = bls_public_key(&secret(100 + i)).unwrap();
            (identity(i), Founder { bls, rollups: rollups.iter().copied().collect(), serial: 0, gone_at: None })
        };
        let operators = (1..).zip(serves).map(founder).collect();
        let founding = Founding { rollups: BTreeMap::from([(A, 71), (B, 72)]), operators };
        let state = SystemState::new(hub, Arc::new(founding)).unwrap();
        let members = (1..=count).map(|i| member(i, &state, wrong)).collect();
        let newest = Block::genesis(Header::genesis(NETWORK, 0, B256::ZERO));
        Self { members, waiting: Vec::new(), newest, lost: None }
    }

    fn state(&self) -> Arc<SystemState> {
        self.members[0].hub.tip()
    }

    fn stakes(&self) -> Vec<u64> {
        self.state().validators().values().map(|v| v.stake).collect()
    }

    fn held(&self, rollup: RollupId) -> Option<Held> {
        let state = self.state();
        state.bridge().unwrap().held(&state, rollup)
    }

    /// Everyone looks at the log and speaks, everyone hears it, and the next block is made of it.
    fn step(&mut self) {
        for member in &mut self.members {
            member.attest.round(Instant::now()).unwrap();
        }
        let mut said = Vec::new();
        for member in &mut self.members {
            while let Ok((_, message)) = member.channel.sent.try_recv() {
                said.push((member.identity, message));
            }
            while let Ok(record) = member.records.try_recv() {
                self.waiting.push(record);
            }
        }
        for (from, message) in said {
            let hears = |member: &&Member| member.identity != from && self.lost != Some((from, member.identity));
            for member in self.members.iter().filter(hears) {
                match Message::decode(message.clone().into(), &Limits::default()).unwrap() {
                    Message::Attestations { attestations, .. } => {
                        member.pool.hear(from, attestations);
                    }
                    Message::Verdicts { words, .. } => words.into_iter().for_each(|word| member.pool.add_verdict(word)),
                    other => panic!("{other:?}"),
                }
            }
        }
        let state = self.state();
        let height = state.next_height();
        let leader = &self.members[usize::try_from(height).unwrap() % self.members.len()];
        let mut draft = state.draft();
        let mut records: Vec<Bytes> = Vec::new();
        let own = leader.pool.certificate(&state, usize::MAX).map(record).into_iter();
        for own in own.chain(leader.pool.verdicts(&state).into_iter().map(|(_, v)| BridgeRecord::Verdict(v).encode())) {
            draft.add(&own).unwrap();
            records.push(own);
        }
        records.extend(draft.admissible(std::mem::take(&mut self.waiting)));
        let parent = self.newest.hash();
        let header = state.stamp(Header { parent, height, ..Header::genesis(NETWORK, 0, B256::ZERO) });
        let system = Segment { rollup: RollupId::SYSTEM, transactions: records };
        let system = Some(system).filter(|system| !system.transactions.is_empty());
        self.newest = Block::new(header, system.into_iter().collect());
        for member in &self.members {
            let next = member.hub.next(&self.newest).unwrap().unwrap();
            member.hub.write(&next).unwrap();
            member.store.append(&self.newest, None).unwrap();
            member.hub.advance(next);
            member.chains.values().for_each(|chain| chain.execute(height));
            member.next.store(height + 1, Ordering::Release);
        }
    }

    /// Steps until something is so, which it must be soon.
    fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..40 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("not in forty blocks: {:?}", self.state().bridge().unwrap().disputes().collect::<Vec<_>>());
    }

    /// Number of the newest certified block of the first rollup; 0 before there is one.
    fn certified(&self) -> u64 {
        self.state().bridge().unwrap().rollups()[&A].certified.map_or(0, |c| c.checkpoint.number)
    }

    fn diverged(&self, i: usize) -> i64 {
        self.members[i].metrics.diverged.get_or_create(&A.into()).get()
    }
}

#[test]
fn a_quorum_that_lies_about_one_state_root_is_challenged_held_back_and_cut() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all, &[B], &[B], &[B]], &[(1, A, 3)]);
    network.until(|n| n.held(A).is_some());
    assert!(matches!(network.held(A), Some(Held::Challenged { .. })), "{:?}", network.held(A));
    assert_eq!((network.held(B), network.stakes()), (None, vec![100; 4]));
    assert_eq!((1..4).map(|i| network.diverged(i)).collect::<Vec<_>>(), [1, 1, 1]);

    network.until(|n| n.stakes()[0] < 100);
    assert_eq!(
        (network.stakes(), network.held(A), network.held(B)),
        (vec![50, 100, 100, 100], Some(Held::Refuted), None)
    );
    let serving = |network: &Network| network.state().bridge().unwrap().attesters(&network.state(), A).len();
    assert_eq!(serving(&network), 0);
    network.step();
    assert_eq!((1..4).map(|i| network.diverged(i)).collect::<Vec<_>>(), [0, 0, 0], "they go on");

    // Another takes the rollup over, with what it has computed.
    let serve = OperatorChange::sign(NETWORK, identity(2), 0, OperatorKind::Serve(all.to_vec()), &secret(2)).unwrap();
    network.waiting.push(BridgeRecord::Operator(serve).encode());
    network.until(|n| n.held(A).is_none());
    let state = network.state();
    let settled = state.bridge().unwrap().settleable(&state, A).unwrap().checkpoint;
    assert_eq!(settled, chain::right(A, settled.number));
    network.until(|n| n.members.iter().all(|member| member.chains[&A].attested() >= settled.number));
    for _ in 0..10 {
        network.step();
        assert_eq!((network.stakes(), network.held(A), network.held(B)), (vec![50, 100, 100, 100], None, None));
    }
}

#[test]
fn a_block_that_its_rollup_never_made_is_found_wrong_and_the_rollup_begins_again() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all, &[B], &[B], &[B]], &[]);
    network.members[0].attest.parts.operator = None;
    (0..5).for_each(|_| network.step());
    let lie = Checkpoint { hub_height: 3, ..chain::right(A, 4000) };
    network.members.iter().for_each(|member| member.pool.add(word(1, lie)));
    network.until(|n| n.held(A).is_some());
    network.until(|n| n.stakes()[0] < 100);
    assert_eq!((network.stakes(), network.held(A)), (vec![50, 100, 100, 100], Some(Held::Refuted)));

    let serve = OperatorChange::sign(NETWORK, identity(2), 0, OperatorKind::Serve(all.to_vec()), &secret(2)).unwrap();
    network.waiting.push(BridgeRecord::Operator(serve).encode());
    network.until(|n| n.held(A).is_none());
    let state = network.state();
    let settled = state.bridge().unwrap().settleable(&state, A).unwrap().checkpoint;
    assert_eq!(settled, chain::right(A, settled.number));
    assert_eq!(state.bridge().unwrap().rollups()[&A].first, 1);
    network.until(|n| n.members.iter().all(|member| member.chains[&A].attested() >= settled.number));
    assert_eq!(network.stakes(), [50, 100, 100, 100]);
}

#[test]
fn an_accused_operator_cannot_spoil_the_verdict_with_bytes_that_are_no_signature() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all, &[B], &[B], &[B]], &[(1, A, 3)]);
    network.until(|n| n.held(A).is_some());
    let challenge = network.state().bridge().unwrap().disputes().next().unwrap().id;
    let spoilt = VerdictWord { operator: identity(1), challenge, is_right: false, signature: [0; 96] };
    network.members.iter().for_each(|member| member.pool.add_verdict(spoilt.clone()));
    network.until(|n| n.stakes()[0] < 100);
    assert_eq!(network.stakes(), [50, 100, 100, 100]);
}

#[test]
fn who_challenges_what_is_right_loses_a_little_and_the_others_nothing() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all; 4], &[(4, A, 3), (4, A, 6)]);
    network.until(|n| n.stakes() != [100; 4]);
    assert_eq!((network.stakes(), network.held(A)), (vec![100, 100, 100, 93], None));
    let before = network.certified();
    network.until(|n| n.certified() > before + 5);
    assert_eq!(network.stakes(), [100, 100, 100, 93], "once");
    assert_eq!((network.diverged(3), network.diverged(0)), (1, 0));
    assert!(network.members[3].folder.path().join("evidence/rollup-1-overruled").exists());
}

#[test]
fn an_operator_that_attests_two_things_is_proven_by_whoever_hears_both() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all; 4], &[]);
    network.step();
    let lie = Checkpoint { state_root: B256::repeat_byte(0x66), ..chain::right(A, 1) };
    // Only node 2 hears both; forged ones prove nothing.
    network.members[1].pool.add(word(4, lie));
    network.members[1].pool.add(word(4, chain::right(A, 1)));
    let forged = Attestation { operator: identity(3), ..word(4, lie) };
    network.members[2].pool.add(forged);
    network.members[2].pool.add(word(3, chain::right(A, 1)));
    network.until(|n| n.stakes() != [100; 4]);
    assert_eq!(network.stakes(), [100, 100, 100, 0]);
    let before = network.certified();
    network.until(|n| n.certified() > before + 5);
    assert_eq!(network.stakes(), [100, 100, 100, 0]);
}

#[test]
fn an_operator_that_tells_each_something_else_is_proven_though_nobody_hears_both() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all; 4], &[]);
    network.until(|n| n.certified() == 3);
    network.lost = Some((identity(4), identity(2)));
    let number = network.state().bridge().unwrap().next_number(A).unwrap().unwrap();
    let lie = Checkpoint { state_root: B256::repeat_byte(0x66), ..chain::right(A, number) };
    network.members[1].pool.hear(identity(4), vec![word(4, lie)]);
    network.until(|n| n.stakes() != [100; 4]);
    assert_eq!(network.stakes(), [100, 100, 100, 0]);
    for member in &network.members {
        assert_eq!(refused(&member.metrics, "passed_on"), 0);
    }
}

#[test]
fn a_lie_that_is_told_when_the_block_is_certified_is_passed_on_too() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all; 4], &[]);
    network.lost = Some((identity(4), identity(2)));
    network.until(|n| n.certified() == 3);
    network.step();
    let lie = Checkpoint { state_root: B256::repeat_byte(0x66), ..chain::right(A, 3) };
    network.members[1].pool.hear(identity(4), vec![word(4, lie)]);
    network.until(|n| n.stakes() != [100; 4]);
    assert_eq!(network.stakes(), [100, 100, 100, 0]);
}

#[test]
fn a_validator_that_is_no_operator_passes_on_what_it_alone_has_heard() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all; 4], &[]);
    network.members[1].attest.parts.operator = None;
    network.lost = Some((identity(4), identity(2)));
    network.until(|n| n.certified() == 3);
    let lie = Checkpoint { state_root: B256::repeat_byte(0x66), ..chain::right(A, 3) };
    network.members[1].pool.hear(identity(4), vec![word(4, lie)]);
    network.until(|n| n.stakes() != [100; 4]);
    assert_eq!(network.stakes(), [100, 100, 100, 0]);
}

#[test]
fn what_was_certified_is_attested_after_the_contrary_was_passed_on() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all; 4], &[]);
    // It says what the test says for it.
    network.members[3].attest.parts.operator = None;
    network.until(|n| n.certified() == 3);
    let lie = Checkpoint { state_root: B256::repeat_byte(0x66), ..chain::right(A, 3) };
    network.members[1].pool.hear(identity(4), vec![word(4, lie)]);
    for _ in 0..4 {
        network.step();
        assert_eq!(network.stakes(), [100; 4], "one word contradicts nothing");
    }
    network.members[2].pool.hear(identity(4), vec![word(4, chain::right(A, 3))]);
    network.until(|n| n.stakes() != [100; 4]);
    assert_eq!(network.stakes(), [100, 100, 100, 0]);
}

#[test]
fn what_is_passed_on_is_checked_and_who_forges_is_heard_no_more() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all; 4], &[]);
    network.until(|n| n.certified() == 3);
    let lie = Checkpoint { state_root: B256::repeat_byte(0x66), ..chain::right(A, 3) };
    let forged = Attestation { operator: identity(3), ..word(4, lie) };
    network.members[0].pool.hear(identity(4), vec![forged.clone(); 40]);
    assert_eq!(refused(&network.members[0].metrics, "passed_on"), 8, "a validator's part of the queue is bounded");
    for _ in 0..5 {
        network.step();
    }
    assert_eq!(refused(&network.members[0].metrics, "passed_on"), 9, "one signature was checked");
    network.members[0].pool.hear(identity(4), vec![forged]);
    assert_eq!(refused(&network.members[0].metrics, "passed_on"), 10);
    assert_eq!(network.stakes(), [100; 4]);
}

#[test]
fn no_block_is_attested_before_a_rollups_first_is_certified() {
    let all: &[RollupId] = &[A, B];
    let mut network = Network::new(&[all; 4], &[]);
    for member in &mut network.members {
        member.chains.values().for_each(|chain| chain.execute(5));
        member.attest.round(Instant::now()).unwrap();
        let (_, message) = member.channel.sent.try_recv().unwrap();
        let Ok(Message::Attestations { attestations, .. }) = Message::decode(message.into(), &Limits::default()) else {
            panic!("operators speak of checkpoints")
        };
        let said: Vec<_> = attestations.iter().map(|word| (word.checkpoint.rollup, word.checkpoint.number)).collect();
        assert_eq!(said, [(A, 1), (B, 1)]);
        assert!(member.channel.sent.try_recv().is_err());
    }
}
