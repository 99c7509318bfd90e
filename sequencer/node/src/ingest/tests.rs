use super::*;
use crate::machine::Tokio;
use alloy_primitives::Address;
use futures::{FutureExt, poll};
use parking_lot::Condvar;
use std::pin::pin;
use switchyard_consensus_engine::{Detached, GossipHandle};
use switchyard_mempool::MempoolConfig;
use switchyard_primitives::{Block, Header, Segment};
use switchyard_rollup_core::{Account, Admission, Sequenced};
use switchyard_store::MemoryStore;

const OPAQUE: RollupId = RollupId(7);
const GATED: RollupId = RollupId(8);
const ME: B256 = B256::repeat_byte(0);
const ONE: B256 = B256::repeat_byte(1);
const TWO: B256 = B256::repeat_byte(2);
const THREE: B256 = B256::repeat_byte(3);
const STRANGER: B256 = B256::repeat_byte(9);
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Nothing is given up or sent again by itself.
const NEVER: Timing = Timing {
    replication_timeout: Duration::from_secs(3600),
    regossip_after: Duration::from_secs(3600),
    tick: Duration::from_secs(3600),
};

/// A rollup whose checks wait at a gate.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    opened: Condvar,
}

#[derive(Default)]
struct GateState {
    open: bool,
    passed: usize,
}

impl Admission for Gate {
    fn inspect(&self, _: &Bytes) -> Result<Option<Sequenced>, Rejection> {
        let mut state = self.state.lock();
        self.opened.wait_while(&mut state, |state| !state.open);
        state.passed += 1;
        Ok(None)
    }

    fn account(&self, _: Address) -> Option<Account> {
        Some(Account::default())
    }

    fn base_fee(&self) -> u64 {
        0
    }

    fn block_gas_limit(&self) -> u64 {
        0
    }
}

/// Opens the gate when it goes, so that a test that fails ends too.
struct Opener(Arc<Gate>);

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.state.lock().open = true;
        self.0.opened.notify_all();
    }
}

/// One of four validators, with the other end of its line in the test's hands.
struct Hub {
    ingest: Arc<Ingest>,
    outbox: Option<Outbox>,
    receiver: Option<mpsc::Receiver<Incoming>>,
    line: Detached,
    mempool: Arc<Mempool>,
    store: Arc<MemoryStore>,
    waiting: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
    gate: Option<Opener>,
}

impl Hub {
    fn new(timing: Timing) -> Self {
        Self::with(timing, usize::MAX)
    }

    /// A hub that gossips from so many validators on.
    fn with(timing: Timing, gossip_from: usize) -> Self {
        let store = Arc::new(MemoryStore::new(Header::genesis(B256::ZERO, 0, B256::ZERO)));
        let gate = Arc::new(Gate::default());
        let rollups = [(OPAQUE, None), (GATED, Some(gate.clone() as Arc<dyn Admission>))];
        let mempool = Arc::new(Mempool::new(MempoolConfig::default(), Limits::default(), rollups));
        let (GossipHandle { sender, receiver }, line) = GossipHandle::detached(MESSAGE_BYTES_MAX);
        let (waiting, waiting_rx) = watch::channel(0);
        let metrics = Arc::new(Metrics::default());
        let hub = crate::hub::tests::of_equals(store.clone(), &[ME, ONE, TWO, THREE]);
        let (ingest, outbox) = Ingest::new(IngestParts {
            mempool: mempool.clone(),
            store: store.clone(),
            limits: Limits::default(),
            pool: Arc::new(Pool::new(hub.clone(), metrics.clone())),
            hub,
            me: ME,
            gossip: sender,
            gossip_from,
            waiting,
            rollups: vec![OPAQUE, GATED],
            timing,
            metrics: metrics.clone(),
            machine: Arc::new(Tokio),
        });
        Self {
            ingest,
            outbox: Some(outbox),
            receiver: Some(receiver),
            line,
            mempool,
            store,
            waiting: waiting_rx,
            metrics,
            gate: Some(Opener(gate)),
        }
    }

    /// A hub whose tasks run.
    fn running(timing: Timing) -> Self {
        Self::new(timing).run()
    }

    fn run(mut self) -> Self {
        let hub = &mut self;
        tokio::spawn(hub.ingest.clone().run(hub.outbox.take().unwrap()));
        tokio::spawn(hub.ingest.clone().receive(hub.receiver.take().unwrap()));
        self
    }

    /// The next message that the hub sends, questions of the clock left out.
    async fn sent(&mut self) -> (To, Message) {
        loop {
            let (to, message) = self.line.sent.recv().await.unwrap();
            match Message::decode(message.into(), &Limits::default()).unwrap() {
                Message::Ask { .. } => {}
                message => return (to, message),
            }
        }
    }

    /// The next message, which is a batch for everyone.
    async fn sent_batch(&mut self) -> (u64, Vec<(RollupId, Bytes)>) {
        match self.sent().await {
            (To::All, Message::Batch { id, transactions }) => (id, transactions),
            other => panic!("{other:?}"),
        }
    }

    async fn deliver(&self, from: B256, message: &Message) {
        self.deliver_bytes(from, message.encode(), None).await;
    }

    async fn deliver_bytes(&self, from: B256, message: Bytes, judge: Option<Judge>) {
        self.line.deliver.send(Incoming { from, message: message.0, judge }).await.unwrap();
    }

    /// Delivers a message as by gossip; the verdict.
    async fn gossip(&self, from: B256, message: Bytes) -> Verdict {
        let (decide, verdict) = oneshot::channel();
        let judge = Judge::new(move |verdict| decide.send(verdict).unwrap());
        self.deliver_bytes(from, message, Some(judge)).await;
        verdict.await.unwrap()
    }

    async fn ack(&self, from: B256, id: u64, held: &[bool]) {
        self.deliver(from, &Message::Ack { id, held: held.to_vec() }).await;
    }

    /// Waits until everything that was delivered so far is dealt with: an empty batch is answered after it.
    async fn settle(&mut self) {
        let id = u64::MAX;
        self.deliver(THREE, &Message::Batch { id, transactions: Vec::new() }).await;
        assert_eq!(self.sent().await, (To::One(THREE), Message::Ack { id, held: Vec::new() }));
    }

    /// Makes a block with these transactions final, without the mempool's hearing of it.
    fn finalise(&self, transactions: &[Bytes]) {
        let (parent, hash) = self.store.tip();
        let header = Header { parent: hash, height: parent.height + 1, ..parent };
        let segment = Segment { rollup: OPAQUE, transactions: transactions.to_vec() };
        self.store.append(&Block::new(header, vec![segment]), None).unwrap();
    }

    fn wait_in_mempool(&self, payload: &Bytes, origin: Origin, since: Instant) {
        let checked = self.mempool.check(OPAQUE, payload).unwrap();
        self.mempool.insert(checked, origin, since).unwrap();
    }

    fn try_sent(&mut self) -> Vec<Bytes> {
        let mut payloads = Vec::new();
        while let Some(Some((_, message))) = self.line.sent.recv().now_or_never() {
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            match Message::decode(message.into(), &Limits::default()) {
                Ok(Message::Batch { transactions, .. }) => payloads.extend(transactions.into_iter().map(|(_, tx)| tx)),
                other => panic!("{other:?}"),
            }
        }
        payloads
    }
}

fn tx(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn hash(text: &str) -> TxHash {
    TxKey::of(OPAQUE, text.as_bytes()).hash
}

fn long_ago() -> Instant {
    Instant::now().checked_sub(Duration::from_secs(1)).unwrap()
}

#[tokio::test]
async fn a_submission_is_answered_when_a_quorum_holds_it_and_each_validator_counts_once() {
    let mut hub = Hub::running(NEVER);
    let ingest = hub.ingest.clone();
    let mut submit = pin!(ingest.submit(OPAQUE, vec![tx("a"), tx("b")]));
    let mut batches: Vec<(u64, usize)> = Vec::new();
    while batches.iter().map(|(_, len)| len).sum::<usize>() < 2 {
        tokio::select! {
            results = submit.as_mut() => panic!("answered alone: {results:?}"),
            (id, transactions) = hub.sent_batch() => batches.push((id, transactions.len())),
        }
    }
    let flags = |len: usize| vec![true; len];
    for (id, len) in &batches {
        // One validator besides this one, however often it answers; nobody else; not with another length.
        for (from, held) in [
            (ONE, flags(*len)),
            (ONE, flags(*len)),
            (STRANGER, flags(*len)),
            (TWO, flags(*len + 1)),
            (TWO, flags(*len - 1)),
            (THREE, vec![false; *len]),
            (THREE, flags(*len)),
        ] {
            hub.ack(from, *id, &held).await;
        }
        hub.ack(TWO, id.wrapping_add(1000), &flags(*len)).await;
    }
    hub.settle().await;
    assert!(poll!(submit.as_mut()).is_pending());
    for (id, len) in &batches {
        hub.ack(TWO, *id, &flags(*len)).await;
    }
    assert_eq!(submit.await, [Ok(hash("a")), Ok(hash("b"))]);
    assert!(hub.ingest.in_flight.lock().is_empty());
}

#[tokio::test]
async fn each_transaction_of_a_batch_is_counted_by_itself() {
    let mut hub = Hub::new(Timing { replication_timeout: Duration::ZERO, ..NEVER });
    let (ingest, mut outbox) = (hub.ingest.clone(), hub.outbox.take().unwrap());
    let mut submit = pin!(ingest.submit(OPAQUE, vec![tx("a"), tx("b")]));
    let first = tokio::select! {
        results = submit.as_mut() => panic!("{results:?}"),
        first = outbox.0.recv() => first.unwrap(),
    };
    assert!(poll!(submit.as_mut()).is_pending());
    hub.ingest.send_batch(outbox.drain(first));
    let (id, transactions) = hub.sent_batch().await;
    assert_eq!(transactions, [(OPAQUE, tx("a")), (OPAQUE, tx("b"))]);
    hub.ingest.on_ack(ONE, id, &[true, true]);
    hub.ingest.on_ack(TWO, id, &[false, true]);
    hub.ingest.give_up_old_batches();
    let refused = Rejection::NotReplicated { held: 2, need: 3 };
    assert_eq!(submit.await, [Err(refused.clone()), Ok(hash("b"))]);
    let label = crate::metrics::RejectionLabel { reason: refused.code(), via: Via::Local };
    assert_eq!(hub.metrics.rejections.get_or_create(&label).get(), 1);
}

#[tokio::test]
async fn a_submission_that_nobody_answers_is_not_replicated_unless_it_is_final_by_then() {
    let soon = Timing { replication_timeout: Duration::ZERO, tick: Duration::from_millis(1), ..NEVER };
    let hub = Hub::running(soon);
    let alone = Rejection::NotReplicated { held: 1, need: 3 };
    assert_eq!(hub.ingest.submit(OPAQUE, vec![tx("a")]).await, [Err(alone)]);
    assert!(hub.ingest.in_flight.lock().is_empty());
    assert!(hub.mempool.get(&TxKey::of(OPAQUE, b"a")).is_some(), "may still be included");

    let mut hub = Hub::running(NEVER);
    let ingest = hub.ingest.clone();
    let mut submit = pin!(ingest.submit(OPAQUE, vec![tx("b")]));
    tokio::select! {
        results = submit.as_mut() => panic!("{results:?}"),
        _ = hub.sent_batch() => hub.finalise(&[tx("b")]),
    }
    // As when the batch is given up.
    hub.ingest.in_flight.lock().clear();
    assert_eq!(submit.await, [Ok(hash("b"))]);
}

#[tokio::test]
async fn every_transaction_is_answered_while_the_node_stops() {
    let mut hub = Hub::new(NEVER);
    drop(hub.outbox.take());
    let results = hub.ingest.submit(OPAQUE, vec![tx("a"), tx(""), tx("b")]).await;
    let stopping = Err(Rejection::Unavailable("stopping"));
    assert_eq!(results, [stopping.clone(), Err(Rejection::Empty), stopping]);
}

#[tokio::test]
async fn a_batch_is_answered_with_what_is_held_here() {
    let mut hub = Hub::running(NEVER);
    let mut feed = hub.ingest.subscribe(OPAQUE);
    hub.finalise(&[tx("final")]);
    hub.wait_in_mempool(&tx("known"), Origin::Local, Instant::now());
    let unknown = RollupId(99);
    let transactions =
        [(OPAQUE, "new"), (unknown, "new"), (OPAQUE, "known"), (OPAQUE, ""), (OPAQUE, "final"), (OPAQUE, "new")];
    let transactions = transactions.map(|(rollup, text)| (rollup, tx(text))).into();
    hub.deliver(TWO, &Message::Batch { id: 5, transactions }).await;
    let held = vec![true, false, true, false, true, true];
    assert_eq!(hub.sent().await, (To::One(TWO), Message::Ack { id: 5, held }));
    assert_eq!(hub.mempool.usage().transactions, 2);
    assert_eq!(feed.try_recv(), Ok(hash("new")));
    assert!(feed.try_recv().is_err());
    assert_eq!(*hub.waiting.borrow_and_update(), 1);
}

#[tokio::test]
async fn malformed_gossip_is_counted_and_changes_nothing() {
    let mut hub = Hub::running(NEVER);
    let batch = Message::Batch { id: 1, transactions: vec![(OPAQUE, tx("a"))] }.encode();
    let truncated = batch.slice(..batch.len() - 1);
    let trailing = [&batch[..], &[0]].concat().into();
    let unknown_kind = [&[3], &batch[1..]].concat().into();
    let many = [&[1][..], &[0; 8], &u32::MAX.to_be_bytes()].concat().into();
    let oversized = vec![(OPAQUE, Bytes::from(vec![0; Limits::default().transaction_bytes + 1]))];
    let oversized = Message::Batch { id: 1, transactions: oversized }.encode();
    let malformed = [Bytes::new(), truncated, trailing, unknown_kind, many, oversized];
    for message in &malformed {
        hub.deliver_bytes(ONE, message.clone(), None).await;
    }
    hub.settle().await;
    let label = crate::metrics::ReasonLabel { reason: "undecodable" };
    assert_eq!(hub.metrics.gossip_malformed.get_or_create(&label).get(), malformed.len() as u64);
    assert_eq!(hub.mempool.usage().transactions, 0);
    assert_eq!(*hub.waiting.borrow_and_update(), 0);
}

#[tokio::test]
async fn a_flooding_validator_is_bounded_and_takes_nothing_from_the_others() {
    let mut hub = Hub::new(NEVER);
    let flood = BATCHES_AT_WORK as u64 + 36;
    for id in 0..flood {
        let transactions = vec![(GATED, Bytes::copy_from_slice(&id.to_be_bytes()))];
        hub.deliver(ONE, &Message::Batch { id, transactions }).await;
    }
    hub.deliver(STRANGER, &Message::Batch { id: 0, transactions: vec![(OPAQUE, tx("stranger"))] }).await;
    hub.deliver(TWO, &Message::Batch { id: 7, transactions: vec![(OPAQUE, tx("a"))] }).await;
    let Detached { sent, deliver } = hub.line;
    drop(deliver);
    hub.ingest.clone().receive(hub.receiver.take().unwrap()).await;
    assert_eq!(hub.metrics.gossip_dropped.get(), 36 + 1);

    drop(hub.gate.take());
    let (mut answers, mut to_two) = (sent, 0);
    for _ in 0..=BATCHES_AT_WORK {
        to_two += usize::from(answers.recv().await.unwrap().0 == To::One(TWO));
    }
    assert_eq!(to_two, 1);
    assert_eq!(hub.mempool.usage().transactions, BATCHES_AT_WORK + 1);
}

#[tokio::test]
async fn clients_that_go_away_do_not_get_more_checks_started_than_the_bound() {
    let mut hub = Hub::new(NEVER);
    let gate = hub.gate.as_ref().unwrap().0.clone();
    let bound = hub.ingest.local_checks.available_permits();
    for i in 0..bound + 5 {
        let mut submit = Box::pin(hub.ingest.submit(GATED, vec![tx(&i.to_string())]));
        assert!(poll!(submit.as_mut()).is_pending());
    }
    assert_eq!(hub.ingest.local_checks.available_permits(), 0);
    drop(hub.gate.take());
    let all = u32::try_from(bound).unwrap();
    drop(hub.ingest.local_checks.acquire_many(all).await.unwrap());
    assert_eq!(gate.state.lock().passed, bound);
}

#[tokio::test]
async fn old_local_transactions_are_sent_again_and_those_of_others_are_not() {
    let mut hub = Hub::running(Timing { regossip_after: Duration::ZERO, tick: Duration::from_millis(1), ..NEVER });
    hub.wait_in_mempool(&tx("gossip"), Origin::Gossip, long_ago());
    hub.wait_in_mempool(&tx("local"), Origin::Local, long_ago());
    for _ in 0..3 {
        assert_eq!(hub.sent_batch().await.1, [(OPAQUE, tx("local"))]);
    }
    assert!(hub.ingest.in_flight.lock().is_empty(), "nobody waits for the answers");
}

#[tokio::test]
async fn sending_again_is_bounded_in_bytes_and_leaves_nothing_out() {
    let mut hub = Hub::new(Timing { regossip_after: Duration::from_millis(1), ..NEVER });
    let len = 100_000;
    let all: Vec<Bytes> = (0..40u8).map(|i| Bytes::from(vec![i; len])).collect();
    for payload in &all {
        hub.wait_in_mempool(payload, Origin::Local, long_ago());
    }
    let mut round = Round { began: long_ago(), from: None };
    let mut sent = Vec::new();
    while sent.is_empty() || round.from.is_some() {
        hub.ingest.send_again(&mut round);
        let now = hub.try_sent();
        assert!(!now.is_empty() && now.len() * len < REGOSSIP_BYTES + len);
        sent.extend(now);
    }
    assert_eq!(sent, all);
}

#[tokio::test]
async fn sending_again_waits_between_its_rounds() {
    let minute = Duration::from_secs(60);
    let mut hub = Hub::new(Timing { regossip_after: minute, ..NEVER });
    let then = Instant::now().checked_sub(minute).unwrap();
    hub.wait_in_mempool(&tx("a"), Origin::Local, then);
    let mut round = Round { began: then, from: None };
    hub.ingest.send_again(&mut round);
    assert_eq!(hub.try_sent(), [tx("a")]);
    hub.ingest.send_again(&mut round);
    assert!(hub.try_sent().is_empty());
}

#[tokio::test]
async fn a_validator_that_asks_for_the_clock_is_told_once_a_second_and_a_stranger_is_not() {
    let mut hub = Hub::running(NEVER);
    for (from, id) in [(STRANGER, 1), (ONE, 2), (ONE, 3), (TWO, 4)] {
        hub.deliver(from, &Message::Ask { id }).await;
    }
    for (to, asked) in [(ONE, 2), (TWO, 4)] {
        let (told, message) = hub.sent().await;
        let Message::Told { id, now_ms, protocol: 3 } = message else { panic!("{message:?}") };
        assert_eq!((told, id), (To::One(to), asked));
        assert!(Tokio.now_ms().abs_diff(now_ms) < 60_000);
    }
    hub.settle().await;
}

/// Asks the others, and takes the answers of those whose clocks are behind this one by so much; what comes of it.
async fn compared(behind_ms: &[(B256, i64)]) -> i64 {
    let mut hub = Hub::running(NEVER);
    hub.ingest.compare_clocks();
    let (To::All, message) = hub.line.sent.recv().await.unwrap() else { panic!("not for all") };
    let Ok(Message::Ask { id }) = Message::decode(message.into(), &Limits::default()) else { panic!("no question") };
    let answer = |id, behind_ms: i64| Message::Told {
        id,
        now_ms: Tokio.now_ms().checked_add_signed(-behind_ms).unwrap(),
        protocol: 2,
    };
    for (from, behind_ms) in behind_ms {
        hub.deliver(*from, &answer(id - 1, 1_000_000_000)).await;
        hub.deliver(*from, &answer(id, *behind_ms)).await;
        hub.deliver(*from, &answer(id, 1_000_000_000)).await;
    }
    hub.settle().await;
    hub.ingest.compare_clocks();
    hub.metrics.clock_offset_ms.get()
}

#[tokio::test]
async fn this_clock_is_wrong_when_more_seats_say_so_than_may_lie() {
    const DAY: i64 = 86_400_000;
    assert_eq!(compared(&[(ONE, DAY), (STRANGER, DAY), (TWO, -5)]).await, 0, "one of three others");
    assert!((DAY - 60_000..DAY + 60_000).contains(&compared(&[(ONE, DAY), (TWO, DAY), (THREE, -DAY)]).await));
    assert!((-DAY - 60_000..60_000 - DAY).contains(&compared(&[(ONE, -DAY), (TWO, -DAY)]).await));
}

fn batch(id: u64, texts: &[&str]) -> Bytes {
    Message::Batch { id, transactions: texts.iter().map(|text| (OPAQUE, tx(text))).collect() }.encode()
}

#[tokio::test]
async fn a_large_committee_is_told_by_gossip_and_who_stays_silent_directly() {
    let soon = Timing { replication_timeout: Duration::from_millis(500), tick: Duration::from_millis(1), ..NEVER };
    for (gossip_from, first) in [(4, To::Mesh), (5, To::All)] {
        let mut hub = Hub::with(soon, gossip_from).run();
        let ingest = hub.ingest.clone();
        let mut submit = pin!(ingest.submit(OPAQUE, vec![tx("a")]));
        let sent = tokio::select! {
            results = submit.as_mut() => panic!("{results:?}"),
            sent = hub.sent() => sent,
        };
        let (to, Message::Batch { id, .. }) = sent else { panic!("{sent:?}") };
        assert_eq!(to, first);
        hub.ack(TWO, id, &[true]).await;
        // A fifth of the time has passed, once.
        let again = tokio::select! {
            results = submit.as_mut() => panic!("{results:?}"),
            again = hub.sent() => again,
        };
        assert_eq!(again.0, To::Some([ONE, THREE].into()));
        assert!(matches!(again.1, Message::Batch { id: same, .. } if same == id));
        hub.ack(THREE, id, &[true]).await;
        assert_eq!(submit.await, [Ok(hash("a"))]);
    }
}

#[tokio::test]
async fn a_gossiped_batch_is_passed_on_while_it_is_of_use() {
    let mut hub = Hub::running(NEVER);
    hub.finalise(&[tx("final")]);
    for (id, texts, verdict, held) in [
        (1, &["new", "final"][..], Verdict::Accept, &[true, true][..]),
        (2, &["new"], Verdict::Accept, &[true]),
        (3, &["final"], Verdict::Ignore, &[true]),
    ] {
        assert_eq!(hub.gossip(ONE, batch(id, texts)).await, verdict, "{texts:?}");
        assert_eq!(hub.sent().await, (To::One(ONE), Message::Ack { id, held: held.to_vec() }));
    }
    let unknown = Message::Batch { id: 4, transactions: vec![(RollupId(99), tx("a"))] }.encode();
    assert_eq!(hub.gossip(ONE, unknown).await, Verdict::Ignore);
    assert_eq!(hub.gossip(STRANGER, batch(5, &["a"])).await, Verdict::Ignore);
}

#[tokio::test]
async fn a_gossiped_message_that_no_honest_node_passes_on_is_rejected() {
    let hub = Hub::running(NEVER);
    for message in
        [Bytes::from_static(b"garbage"), batch(1, &["good", ""]), Message::Ack { id: 1, held: vec![true] }.encode()]
    {
        assert_eq!(hub.gossip(ONE, message).await, Verdict::Reject);
    }
}

#[tokio::test]
async fn a_flooding_author_is_ignored_beyond_its_share_of_checks() {
    let hub = Hub::with(NEVER, 4).run();
    let mut verdicts = Vec::new();
    for id in 0..BATCHES_AT_WORK as u64 + 3 {
        let message = Message::Batch { id, transactions: vec![(GATED, Bytes::copy_from_slice(&id.to_be_bytes()))] };
        let (decide, verdict) = oneshot::channel();
        // The test may be over.
        let judge = Judge::new(move |verdict| {
            let _ = decide.send(verdict);
        });
        hub.deliver_bytes(ONE, message.encode(), Some(judge)).await;
        verdicts.push(verdict);
    }
    // Only those beyond the share are told of before the gate opens.
    let told = futures::future::join_all(verdicts.split_off(BATCHES_AT_WORK)).await;
    assert_eq!(told, vec![Ok(Verdict::Ignore); 3]);
    assert!(verdicts.iter_mut().all(|verdict| verdict.try_recv().is_err()));
}
