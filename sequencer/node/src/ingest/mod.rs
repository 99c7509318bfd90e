//! From a submission to `accepted`: checked, in the mempool here, and held by a quorum of validators.
//!
//! A client's transactions enter this node's mempool and go to every other validator in batches; each answers which of
//! them it holds. The client gets its answer when, with this node, a quorum (`n - f`) holds the transaction: then more
//! than `f` honest validators do, so that no crash of a minority loses it, and any honest leader includes it.
//!
//! In a large committee a batch goes by gossip first. Who has not answered after a moment gets it directly, so that what
//! is accepted never hangs on gossip.

mod bundles;
mod clocks;
pub mod wire;

use crate::{
    attest::Pool,
    hub::HubStates,
    machine::{Machine, blocking},
    metrics::{Metrics, Via, gauge},
};
use alloy_primitives::B256;
use clocks::Clocks;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use switchyard_bridge_core::SignedBundle;
use switchyard_consensus_core::Committee;
use switchyard_consensus_engine::{GossipSender, Incoming, To};
use switchyard_consensus_network::{Judge, Verdict};
use switchyard_mempool::{Mempool, Origin};
use switchyard_primitives::{Bytes, Limits, RollupId, TxHash, TxKey};
use switchyard_rollup_core::Rejection;
use switchyard_store::Store;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use wire::Message;

/// Waiting transactions that one tick looks at to send them again.
const REGOSSIP_LIMIT: usize = 4096;
/// Bytes that one tick sends again, give or take a transaction: new transactions need the rest of the line.
const REGOSSIP_BYTES: usize = 1 << 20;
/// Batches that wait for answers.
const IN_FLIGHT_LIMIT: usize = 4096;
/// Transactions that wait to be put into a batch.
const OUTBOX_LIMIT: usize = 16_384;
/// Least time between two batches, so that many small submissions cost few messages. The first after a pause goes at once.
const BATCH_INTERVAL: Duration = Duration::from_millis(4);
/// The same by gossip, where each batch costs every node more than once.
const GOSSIP_INTERVAL: Duration = Duration::from_millis(20);
/// Batches of one validator that are admitted at a time.
const BATCHES_AT_WORK: usize = 32;
/// Hashes that a slow subscriber of pending transactions may be behind.
const PENDING_FEED: usize = 4096;

/// When things happen.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a submission waits for other validators to hold it.
    pub replication_timeout: Duration,
    /// A local transaction that waits this long is sent to the others again, since they may have been away, and so on at
    /// least this long after the last time.
    pub regossip_after: Duration,
    /// How often the two are looked at.
    pub tick: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let (wait, tick) = (Duration::from_secs(5), Duration::from_secs(1));
        Self { replication_timeout: wait, regossip_after: wait, tick }
    }
}

/// Something for the other validators to hold.
struct Outgoing {
    what: What,
    /// Answered with who holds it.
    done: Option<oneshot::Sender<Held>>,
}

enum What {
    Transaction(RollupId, Bytes),
    Bundle(Arc<SignedBundle>),
}

impl What {
    fn bytes(&self) -> usize {
        match self {
            Self::Transaction(_, payload) => payload.len(),
            Self::Bundle(bundle) => bundle.encoded_len(),
        }
    }
}

/// Seats of the validators that hold a transaction, this one's included, and of a quorum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    held: usize,
    need: usize,
}

/// A validator's seats in a committee.
fn seats(committee: &Committee, validator: &B256) -> usize {
    committee.member(validator).map_or(0, |member| member.seats as usize)
}

/// What is to become of a batch that came by gossip. An honest author has checked each transaction, and whoever has passed
/// the batch on too: what is wrong whatever the state is a fault of the peer that sent it. For the rest, a batch is of use
/// to others as long as it was here, or is already.
fn verdict(admitted: &[Result<TxKey, Rejection>]) -> Verdict {
    let is_of_the_bytes = |result: &Result<_, Rejection>| result.as_ref().is_err_and(Rejection::is_of_the_bytes);
    let is_of_use = |result: &Result<_, Rejection>| matches!(result, Ok(_) | Err(Rejection::AlreadyKnown(_)));
    if admitted.iter().any(is_of_the_bytes) {
        Verdict::Reject
    } else if admitted.iter().any(is_of_use) {
        Verdict::Accept
    } else {
        Verdict::Ignore
    }
}

/// A batch whose answers are awaited.
struct InFlight {
    sent: Instant,
    /// Whose answers count.
    committee: Arc<Committee>,
    /// The message, until it was sent a second time.
    message: Option<Bytes>,
    answered: HashSet<B256>,
    held: Vec<usize>,
    done: Vec<Option<oneshot::Sender<Held>>>,
}

/// The node's mempool with its neighbours'.
pub struct Ingest {
    mempool: Arc<Mempool>,
    store: Arc<dyn Store>,
    limits: Limits,
    /// Whose word counts, and how much.
    hub: HubStates,
    me: B256,
    gossip: GossipSender,
    gossip_from: usize,
    outbox: mpsc::Sender<Outgoing>,
    /// By id, so that the oldest comes first.
    in_flight: Mutex<BTreeMap<u64, InFlight>>,
    next_id: AtomicU64,
    clocks: Mutex<Clocks>,
    pool: Arc<Pool>,
    waiting: watch::Sender<u64>,
    feeds: HashMap<RollupId, broadcast::Sender<TxHash>>,
    /// Checks cost a signature recovery each: no more than the cores can do at a time.
    local_checks: Arc<Semaphore>,
    /// Of their own, so that a flooding validator does not keep clients waiting.
    gossip_checks: Arc<Semaphore>,
    timing: Timing,
    metrics: Arc<Metrics>,
    machine: Arc<dyn Machine>,
}

/// What [`Ingest::new`] needs.
pub struct IngestParts {
    /// The mempool.
    pub mempool: Arc<Mempool>,
    /// Where final transactions are looked up.
    pub store: Arc<dyn Store>,
    /// Block limits.
    pub limits: Limits,
    /// Tells the validators: those with a quorum of the epoch's seats must hold a transaction.
    pub hub: HubStates,
    /// This node's identity.
    pub me: B256,
    /// The way to the other validators.
    pub gossip: GossipSender,
    /// From so many validators on, batches go by gossip.
    pub gossip_from: usize,
    /// Where operators' signatures are collected.
    pub pool: Arc<Pool>,
    /// Told of every new transaction.
    pub waiting: watch::Sender<u64>,
    /// The rollups.
    pub rollups: Vec<RollupId>,
    /// When things happen.
    pub timing: Timing,
    /// Where refusals are counted.
    pub metrics: Arc<Metrics>,
    /// Clock, timers and threads.
    pub machine: Arc<dyn Machine>,
}

impl Ingest {
    /// The pipeline; [`Ingest::run`] must run beside it.
    pub fn new(parts: IngestParts) -> (Arc<Self>, Outbox) {
        let (outbox, queue) = mpsc::channel(OUTBOX_LIMIT);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let ingest = Arc::new(Self {
            mempool: parts.mempool,
            store: parts.store,
            limits: parts.limits,
            hub: parts.hub,
            me: parts.me,
            gossip: parts.gossip,
            gossip_from: parts.gossip_from,
            outbox,
            in_flight: Mutex::default(),
            // Above every id of an earlier run, whose late answers then fit none.
            next_id: AtomicU64::new(parts.machine.now_ms() << 20),
            clocks: Mutex::default(),
            pool: parts.pool,
            waiting: parts.waiting,
            feeds: parts.rollups.iter().map(|r| (*r, broadcast::channel(PENDING_FEED).0)).collect(),
            local_checks: Arc::new(Semaphore::new(cores)),
            gossip_checks: Arc::new(Semaphore::new(cores)),
            timing: parts.timing,
            metrics: parts.metrics,
            machine: parts.machine,
        });
        (ingest, Outbox(queue))
    }

    /// Newly accepted hashes of a rollup.
    pub fn subscribe(&self, rollup: RollupId) -> broadcast::Receiver<TxHash> {
        self.feeds.get(&rollup).map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe)
    }

    /// Runs checks off the async threads, as many at a time as there are cores; none while the node stops.
    async fn checked<T: Send + 'static>(
        self: &Arc<Self>,
        origin: Origin,
        check: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let checks = if origin == Origin::Local { &self.local_checks } else { &self.gossip_checks };
        let permit = checks.clone().acquire_owned().await.ok()?;
        let this = self.clone();
        let checked = blocking(&*self.machine, move || {
            // Held until the work is done, even if the client has gone before.
            let _permit = permit;
            check(&this)
        });
        checked.await.ok()
    }

    /// Checks transactions and puts them into the mempool, off the async threads.
    async fn admit(
        self: &Arc<Self>,
        transactions: Vec<(RollupId, Bytes)>,
        origin: Origin,
    ) -> Vec<Result<TxKey, Rejection>> {
        let count = transactions.len();
        let admitted = self.checked(origin, move |this| this.admit_blocking(transactions, origin)).await;
        admitted.unwrap_or_else(|| vec![Err(Rejection::Unavailable("stopping")); count])
    }

    fn admit_blocking(&self, transactions: Vec<(RollupId, Bytes)>, origin: Origin) -> Vec<Result<TxKey, Rejection>> {
        let via = if origin == Origin::Local { Via::Local } else { Via::Gossip };
        let now = self.machine.instant();
        let mut added = 0;
        let results: Vec<_> = transactions
            .iter()
            .map(|(rollup, payload)| {
                let key = self.admit_one(*rollup, payload, origin, now).inspect_err(|rejection| {
                    if !matches!((rejection, origin), (Rejection::AlreadyKnown(_), Origin::Gossip)) {
                        self.metrics.rejected(rejection.code(), via);
                    }
                })?;
                added += 1;
                if let Some(feed) = self.feeds.get(rollup) {
                    // Nobody may be listening.
                    let _ = feed.send(key.hash);
                }
                Ok(key)
            })
            .collect();
        if added > 0 {
            self.waiting.send_modify(|n| *n = n.wrapping_add(added));
        }
        results
    }

    fn admit_one(&self, rollup: RollupId, payload: &Bytes, origin: Origin, now: Instant) -> Result<TxKey, Rejection> {
        let checked = self.mempool.check(rollup, payload)?;
        let key = checked.key();
        let (_, before) = self.store.tip();
        self.not_final(key)?;
        self.mempool.insert(checked, origin, now)?;
        // It may have become final between the two: then nothing else would take it out again.
        if self.store.tip().1 != before {
            self.not_final(key).inspect_err(|reason| self.mempool.forget(&key, reason.clone()))?;
        }
        Ok(key)
    }

    fn not_final(&self, key: TxKey) -> Result<(), Rejection> {
        match self.store.locate(key) {
            Ok(Some((height, _))) => Err(Rejection::AlreadyFinal { hash: key.hash, height }),
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "cannot look up a transaction");
                Err(Rejection::Unavailable("the store failed"))
            }
        }
    }

    /// Takes a client's transactions; answers when a quorum holds each, or with the reason why not.
    #[tracing::instrument(skip_all, fields(rollup = rollup.0, transactions = payloads.len()))]
    pub async fn submit(self: &Arc<Self>, rollup: RollupId, payloads: Vec<Bytes>) -> Vec<Result<TxHash, Rejection>> {
        let transactions: Vec<_> = payloads.iter().map(|p| (rollup, p.clone())).collect();
        let admitted = self.admit(transactions, Origin::Local).await;
        let committee = self.hub.tip().current().clone();
        let others = committee.seats().quorum() > seats(&committee, &self.me);
        let mut waits = Vec::with_capacity(admitted.len());
        for (result, payload) in admitted.into_iter().zip(payloads) {
            waits.push(match result {
                Ok(key) if others => {
                    let (done, held) = oneshot::channel();
                    let out = Outgoing { what: What::Transaction(rollup, payload), done: Some(done) };
                    let queued = self.outbox.send(out).await;
                    queued.map(|()| (key, Some(held))).map_err(|_| Rejection::Unavailable("stopping"))
                }
                Ok(key) => Ok((key, None)),
                Err(rejection) => Err(rejection),
            });
        }
        let mut results = Vec::with_capacity(waits.len());
        for wait in waits {
            results.push(match wait {
                Ok((key, Some(held))) => self.replicated(key, held).await,
                Ok((key, None)) => Ok(key.hash),
                Err(rejection) => Err(rejection),
            });
        }
        results
    }

    /// Whether a node may send transactions: with seats in this epoch or the next, or else in the stake table.
    fn knows(&self, node: &B256) -> bool {
        let state = self.hub.tip();
        let seated = |committee: &Committee| committee.member(node).is_some();
        seated(state.current()) || seated(state.following()) || state.validators().contains_key(node)
    }

    async fn replicated(&self, key: TxKey, held: oneshot::Receiver<Held>) -> Result<TxHash, Rejection> {
        // A sender dropped without an answer means that the batch was given up.
        let Held { held, need } = held.await.unwrap_or_default();
        if held >= need && need > 0 {
            return Ok(key.hash);
        }
        let store = self.store.clone();
        let place = blocking(&*self.machine, move || store.locate(key)).await;
        if place.is_ok_and(|found| found.is_ok_and(|place| place.is_some())) {
            return Ok(key.hash);
        }
        let rejection = Rejection::NotReplicated { held, need };
        self.metrics.rejected(rejection.code(), Via::Local);
        Err(rejection)
    }

    /// Takes what other validators send until the engine ends. A batch is admitted on a task of its own, of which each
    /// validator has a few at a time: what comes above that is dropped and counted, and nobody else waits for it.
    /// The verdict on one that came by gossip is told in any case: without an admission it is to ignore it.
    pub async fn receive(self: Arc<Self>, mut incoming: mpsc::Receiver<Incoming>) {
        let mut slots: HashMap<B256, Arc<Semaphore>> = HashMap::new();
        while let Some(Incoming { from, message, judge }) = incoming.recv().await {
            match Message::decode(message.into(), &self.limits) {
                Ok(message @ (Message::Batch { .. } | Message::Bundles { .. })) => {
                    if !slots.contains_key(&from) {
                        // Validators come and go.
                        slots.retain(|validator, _| self.knows(validator));
                    }
                    let own = || Arc::new(Semaphore::new(BATCHES_AT_WORK));
                    let slot = self.knows(&from).then(|| slots.entry(from).or_insert_with(own).clone());
                    let slot = slot.and_then(|slots| slots.try_acquire_owned().ok());
                    let Some(slot) = slot else {
                        self.metrics.gossip_dropped.inc();
                        continue;
                    };
                    let ingest = self.clone();
                    self.machine.spawn(Box::pin(async move {
                        match message {
                            Message::Batch { id, transactions } => {
                                ingest.answer(from, id, transactions, judge).await;
                            }
                            Message::Bundles { id, bundles } => ingest.answer_bundles(from, id, bundles, judge).await,
                            _ => {}
                        }
                        drop(slot);
                    }));
                }
                Ok(Message::Ack { id, held }) if judge.is_none() => self.on_ack(from, id, &held),
                Ok(Message::Ask { id }) if judge.is_none() => self.tell(from, id),
                Ok(Message::Told { id, now_ms, protocol }) if judge.is_none() => {
                    let (ours_ms, now) = (self.machine.now_ms(), self.machine.instant());
                    self.clocks.lock().heard(from, id, (now_ms, protocol), ours_ms, now);
                }
                // One that is not known, or says nothing new, costs a look into a table.
                Ok(Message::Attestations { attestations, .. }) if judge.is_none() => {
                    self.pool.hear(from, attestations);
                }
                Ok(Message::Verdicts { words, .. }) if judge.is_none() => {
                    for word in words.into_iter().filter(|word| word.operator == from) {
                        self.pool.add_verdict(word);
                    }
                }
                // Questions and answers concern one node, and are sent to it.
                Ok(_) => {
                    if let Some(judge) = judge {
                        judge.decide(Verdict::Reject);
                    }
                }
                Err(error) => {
                    if let Some(judge) = judge {
                        judge.decide(Verdict::Reject);
                    }
                    let label = crate::metrics::ReasonLabel { reason: "undecodable" };
                    self.metrics.gossip_malformed.get_or_create(&label).inc();
                    // Counted above: a line for each would let a validator fill the log.
                    tracing::debug!(%from, %error, "malformed gossip");
                }
            }
        }
    }

    #[tracing::instrument(skip_all, fields(%from, transactions = transactions.len()))]
    async fn answer(self: &Arc<Self>, from: B256, id: u64, transactions: Vec<(RollupId, Bytes)>, judge: Option<Judge>) {
        let admitted = self.admit(transactions, Origin::Gossip).await;
        if let Some(judge) = judge {
            judge.decide(verdict(&admitted));
        }
        let held = admitted
            .iter()
            .map(|r| matches!(r, Ok(_) | Err(Rejection::AlreadyKnown(_) | Rejection::AlreadyFinal { .. })))
            .collect();
        // A lost answer costs the sender a wait; it may have another quorum.
        self.gossip.send(To::One(from), Message::Ack { id, held }.encode().0);
    }

    fn on_ack(&self, from: B256, id: u64, held: &[bool]) {
        let mut in_flight = self.in_flight.lock();
        let Some(batch) = in_flight.get_mut(&id) else { return };
        let weight = seats(&batch.committee, &from);
        if held.len() != batch.held.len() || weight == 0 || !batch.answered.insert(from) {
            return;
        }
        let need = batch.committee.seats().quorum();
        for ((count, done), _) in batch.held.iter_mut().zip(&mut batch.done).zip(held).filter(|(_, held)| **held) {
            *count += weight;
            if *count >= need
                && let Some(done) = done.take()
            {
                // The client may have gone.
                let _ = done.send(Held { held: *count, need });
            }
        }
        if batch.done.iter().all(Option::is_none) {
            in_flight.remove(&id);
        }
    }

    fn tell(&self, to: B256, id: u64) {
        if self.knows(&to) && self.clocks.lock().answers(to, self.machine.instant()) {
            let protocol = self.hub.newest_protocol();
            let answer = Message::Told { id, now_ms: self.machine.now_ms(), protocol };
            // A lost answer is one of many.
            self.gossip.send(To::One(to), answer.encode().0);
        }
    }

    /// Asks the others for their clocks and protocols when it is time, and holds what they have said against this node's.
    fn compare_clocks(&self) {
        let now = self.machine.instant();
        let mut clocks = self.clocks.lock();
        if let Some(question) = clocks.question(self.next_id.fetch_add(1, Ordering::Relaxed), now) {
            self.gossip.send(To::All, question.encode().0);
        }
        let state = self.hub.tip();
        let committee = state.current();
        self.metrics.heard_clocks(clocks.ahead_ms(committee, now));
        let newest = self.hub.newest_protocol();
        let protocol = state.upgrade().map_or(newest, |upgrade| upgrade.protocol);
        let own = if protocol <= newest { seats(committee, &self.me) } else { 0 };
        self.metrics.protocol_seats.set(gauge(own + clocks.knowing(protocol, committee)));
    }

    /// Sends transactions as one message, and bundles as another.
    fn send_batch(&self, batch: Vec<Outgoing>) {
        let (mut transactions, mut bundles) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for Outgoing { what, done } in batch {
            match what {
                What::Transaction(rollup, payload) => {
                    transactions.0.push((rollup, payload));
                    transactions.1.push(done);
                }
                What::Bundle(bundle) => {
                    bundles.0.push(bundle);
                    bundles.1.push(done);
                }
            }
        }
        let id = || self.next_id.fetch_add(1, Ordering::Relaxed);
        if !transactions.0.is_empty() {
            let id = id();
            self.send_and_await(id, Message::Batch { id, transactions: transactions.0 }, transactions.1);
        }
        if !bundles.0.is_empty() {
            let id = id();
            self.send_and_await(id, Message::Bundles { id, bundles: bundles.0 }, bundles.1);
        }
    }

    fn send_and_await(&self, id: u64, message: Message, done: Vec<Option<oneshot::Sender<Held>>>) {
        let message = message.encode();
        if done.iter().any(Option::is_some) {
            let mut in_flight = self.in_flight.lock();
            if in_flight.len() >= IN_FLIGHT_LIMIT {
                // Dropping the senders answers the clients.
                self.metrics.gossip_dropped.inc();
                return;
            }
            let committee = self.hub.tip().current().clone();
            let held = vec![seats(&committee, &self.me); done.len()];
            let (answered, message) = (HashSet::new(), Some(message.clone()));
            let sent = self.machine.instant();
            in_flight.insert(id, InFlight { sent, committee, message, answered, held, done });
        }
        self.gossip.send(if self.by_gossip() { To::Mesh } else { To::All }, message.0);
    }

    fn by_gossip(&self) -> bool {
        self.hub.tip().current().members().len() >= self.gossip_from
    }

    /// A batch may be lost at a full queue, or kept back by those who should have passed it on: who has not answered for a
    /// while gets it directly, once more.
    fn send_unanswered_again(&self) {
        let (mut again, now) = (Vec::new(), self.machine.instant());
        for batch in self.in_flight.lock().values_mut() {
            if now.duration_since(batch.sent) < self.timing.replication_timeout / 5 {
                continue;
            }
            let Some(message) = batch.message.take() else { continue };
            let members = batch.committee.members().iter().map(|member| member.seat.identity);
            let silent: Arc<[B256]> = members.filter(|m| *m != self.me && !batch.answered.contains(m)).collect();
            again.push((silent, message));
        }
        for (silent, message) in again.into_iter().filter(|(silent, _)| !silent.is_empty()) {
            self.gossip.send(To::Some(silent), message.0);
        }
    }

    fn give_up_old_batches(&self) {
        let now = self.machine.instant();
        self.in_flight.lock().retain(|_, batch| {
            if now.duration_since(batch.sent) < self.timing.replication_timeout {
                return true;
            }
            for (count, done) in batch.held.iter().zip(&mut batch.done) {
                if let Some(done) = done.take() {
                    let _ = done.send(Held { held: *count, need: batch.committee.seats().quorum() });
                }
            }
            false
        });
    }

    /// Sends local transactions that have waited for a while to the others, who may have been away. One call goes as far
    /// as its bounds, and the next one on from there.
    fn send_again(&self, round: &mut Round) {
        let (after, now) = (self.timing.regossip_after, self.machine.instant());
        if round.from.is_none() && now.duration_since(round.began) < after {
            return;
        }
        let Some(older_than) = now.checked_sub(after) else { return };
        if round.from.is_none() {
            round.began = now;
            self.send_bundles_again(older_than);
        }
        let waiting = self.mempool.waiting(round.from.unwrap_or(0), older_than, REGOSSIP_LIMIT);
        round.from = waiting.last().filter(|_| waiting.len() == REGOSSIP_LIMIT).map(|last| last.arrival + 1);
        let (mut batch, mut batch_bytes, mut bytes) = (Vec::new(), 0, 0);
        for tx in waiting.into_iter().filter(|tx| tx.origin == Origin::Local) {
            if bytes >= REGOSSIP_BYTES {
                round.from = Some(tx.arrival);
                break;
            }
            bytes += tx.payload.len();
            batch_bytes += tx.payload.len();
            batch.push(Outgoing { what: What::Transaction(tx.key.rollup, tx.payload), done: None });
            if batch_bytes >= wire::BATCH_BYTES || batch.len() == wire::BATCH_TRANSACTIONS {
                self.send_batch(std::mem::take(&mut batch));
                batch_bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.send_batch(batch);
        }
    }

    /// Sends batches, gives up on old ones and sends again what waits for long.
    pub async fn run(self: Arc<Self>, mut outbox: Outbox) {
        let machine = &*self.machine;
        let mut tick = machine.sleep(self.timing.tick);
        let mut round = Round { began: machine.instant(), from: None };
        let mut next_batch = machine.instant();
        loop {
            tokio::select! {
                // A fixed order: the simulation repeats a run exactly.
                biased;
                () = &mut tick => {
                    self.give_up_old_batches();
                    self.send_unanswered_again();
                    self.mempool.expire(machine.instant());
                    self.send_again(&mut round);
                    self.compare_clocks();
                    tick = machine.sleep(self.timing.tick);
                }
                first = outbox.0.recv() => match first {
                    Some(first) => {
                        let early = next_batch.saturating_duration_since(machine.instant());
                        if !early.is_zero() {
                            machine.sleep(early).await;
                        }
                        next_batch = machine.instant() + if self.by_gossip() { GOSSIP_INTERVAL } else { BATCH_INTERVAL };
                        self.send_batch(outbox.drain(first));
                    }
                    None => return,
                },
            }
        }
    }
}

/// One time of sending everything old again.
struct Round {
    began: Instant,
    /// The arrival to go on from; none once everything was sent.
    from: Option<u64>,
}

/// Transactions on their way to the other validators.
pub struct Outbox(mpsc::Receiver<Outgoing>);

impl Outbox {
    /// `first` and what else is waiting, up to one batch.
    fn drain(&mut self, first: Outgoing) -> Vec<Outgoing> {
        let mut bytes = first.what.bytes();
        let mut batch = vec![first];
        // Of bundles a message holds fewer than of transactions.
        let most = |batch: &[Outgoing]| match batch.last().map(|out| &out.what) {
            Some(What::Bundle(_)) => wire::BATCH_BUNDLES,
            _ => wire::BATCH_TRANSACTIONS,
        };
        while bytes < wire::BATCH_BYTES && batch.len() < most(&batch) {
            let Ok(next) = self.0.try_recv() else { break };
            bytes += next.what.bytes();
            batch.push(next);
        }
        batch
    }
}

#[cfg(test)]
mod tests;
