use super::*;
use crate::machine::Tokio;
use alloy_primitives::{Address, U256};
use futures::stream;
use proptest::prelude::*;
use std::{collections::HashMap, time::Instant};
use switchyard_mempool::{Included, MempoolConfig, Origin};
use switchyard_primitives::Segment;
use switchyard_rollup_core::{Account, Admission, Rejection, Sequenced};
use switchyard_store::MemoryStore;

const NUMBERED: RollupId = RollupId(1);
const OPAQUE: RollupId = RollupId(7);
const OTHER: RollupId = RollupId(9);
const HOUR_MS: u64 = 3_600_000;
const WINDOW: u64 = 4;

fn now_ms() -> u64 {
    Tokio.now_ms()
}

/// A rollup whose transactions are `sender u8 | nonce u64 | anything`, and whose accounts are rich.
#[derive(Default)]
struct Numbered {
    nonces: Mutex<HashMap<Address, u64>>,
    /// How often a leader has asked for its gas limit: once for each look at the mempool.
    selections: watch::Sender<u64>,
    /// Happens at the beginning of the second look.
    second: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

fn parse(payload: &[u8]) -> Option<(Address, u64)> {
    Some((Address::with_last_byte(*payload.first()?), u64::from_be_bytes(payload.get(1..9)?.try_into().ok()?)))
}

fn numbered(sender: u8, nonce: u64) -> Bytes {
    [&[sender][..], &nonce.to_be_bytes()].concat().into()
}

impl Numbered {
    fn execute(&self, transactions: &[Bytes]) -> Vec<Address> {
        let mut nonces = self.nonces.lock();
        let parsed = transactions.iter().filter_map(|tx| parse(tx));
        parsed
            .map(|(sender, nonce)| {
                let next = nonces.entry(sender).or_default();
                *next += u64::from(*next == nonce);
                sender
            })
            .collect()
    }
}

impl Admission for Numbered {
    fn inspect(&self, payload: &Bytes) -> Result<Option<Sequenced>, Rejection> {
        let (sender, nonce) = parse(payload).ok_or_else(|| Rejection::Malformed("too short".into()))?;
        Ok(Some(Sequenced { sender, nonce, gas_limit: 1, fee_cap: 1, tip_cap: 1, max_cost: U256::ZERO }))
    }

    fn account(&self, sender: Address) -> Option<Account> {
        Some(Account { nonce: self.nonces.lock().get(&sender).copied().unwrap_or(0), balance: U256::MAX })
    }

    fn base_fee(&self) -> u64 {
        0
    }

    fn block_gas_limit(&self) -> u64 {
        self.selections.send_modify(|n| *n += 1);
        if let Some(event) = self.second.lock().take_if(|_| *self.selections.borrow() == 2) {
            event();
        }
        u64::MAX
    }
}

/// A builder with everything that it works on.
struct Hub {
    builder: HubBuilder,
    states: HubStates,
    store: Arc<MemoryStore>,
    mempool: Arc<Mempool>,
    rollup: Arc<Numbered>,
    tip: watch::Sender<HubTip>,
    waiting: watch::Sender<u64>,
    metrics: Arc<Metrics>,
    /// The chain, genesis first, newest last; what is above the tip is not final.
    chain: Vec<Arc<Block>>,
}

impl Hub {
    /// A hub whose genesis is long ago, so that the first block is due.
    fn new(heartbeat_ms: u64) -> Self {
        Self::with(heartbeat_ms, 0, 1_000, Limits::default())
    }

    /// A hub whose genesis is of this moment, so that no block is due for an hour.
    fn young() -> Self {
        Self::with(HOUR_MS, 0, now_ms(), Limits::default())
    }

    fn with(heartbeat_ms: u64, min_interval_ms: u64, genesis_ms: u64, limits: Limits) -> Self {
        let genesis = Header::genesis(B256::repeat_byte(1), genesis_ms, B256::ZERO);
        let store = Arc::new(MemoryStore::new(genesis));
        let rollup = Arc::new(Numbered::default());
        let admission = Some(rollup.clone() as Arc<dyn Admission>);
        let rollups = [(NUMBERED, admission), (OPAQUE, None), (OTHER, None)];
        let mempool = Arc::new(Mempool::new(MempoolConfig::default(), limits, rollups));
        let tip = HubTip { height: 0, hash: genesis.hash(), timestamp_ms: genesis_ms };
        let (tip, waiting, metrics) = (watch::Sender::new(tip), watch::Sender::new(0), Arc::new(Metrics::default()));
        let rules = Rules { limits, rollups: [NUMBERED, OPAQUE, OTHER].into(), replay_window_blocks: WINDOW };
        let pace = config::Consensus { heartbeat_ms, min_interval_ms, ..config::Consensus::default() };
        let states = crate::hub::tests::of_equals(store.clone(), &[B256::repeat_byte(1)]);
        let builder = HubBuilder::new(BuilderParts {
            rules,
            pace,
            store: store.clone(),
            hub: states.clone(),
            mempool: mempool.clone(),
            tip: tip.subscribe(),
            pool: Arc::new(crate::attest::Pool::new(states.clone(), metrics.clone())),
            waiting: waiting.subscribe(),
            metrics: metrics.clone(),
            machine: Arc::new(Tokio),
        });
        let chain = vec![Arc::new(Block::genesis(genesis))];
        Self { builder, states, store, mempool, rollup, tip, waiting, metrics, chain }
    }

    fn parent(&self) -> Arc<Block> {
        self.chain.last().unwrap().clone()
    }

    fn ancestors(&self) -> Ancestors {
        stream::iter(self.chain.clone().into_iter().rev().skip(1)).boxed()
    }

    /// Puts a transaction into the mempool, and says so.
    fn add(&self, rollup: RollupId, payload: &Bytes) {
        let checked = self.mempool.check(rollup, payload).unwrap();
        self.mempool.insert(checked, Origin::Local, Instant::now()).unwrap();
        self.waiting.send_modify(|n| *n += 1);
    }

    /// A block on top of the chain.
    fn block(&self, segments: &[(RollupId, &[&[u8]])]) -> Block {
        let parent = self.parent();
        let segment = |(rollup, transactions): &(RollupId, &[&[u8]])| Segment {
            rollup: *rollup,
            transactions: transactions.iter().map(|tx| Bytes::copy_from_slice(tx)).collect(),
        };
        let header = Header {
            parent: parent.hash(),
            height: parent.header.height + 1,
            timestamp_ms: parent.header.timestamp_ms,
            system_root: self.states.tip().root(),
            ..Header::genesis(B256::ZERO, 0, B256::ZERO)
        };
        Block::new(header, segments.iter().map(segment).collect())
    }

    /// Makes every block of the chain final up to `height`, as the finalizer does.
    fn finalise(&mut self, height: u64) {
        for block in &self.chain {
            if block.header.height > self.tip.borrow().height && block.header.height <= height {
                let state = self.states.next(block).unwrap().unwrap();
                self.store.append(block, None).unwrap();
                self.states.advance(state);
                let included: Vec<Included> = block.segments().iter().map(Included::from).collect();
                self.mempool.on_final(block.header.height, &included);
                let Header { height, timestamp_ms, .. } = block.header;
                self.tip.send_replace(HubTip { height, hash: block.hash(), timestamp_ms });
            }
        }
    }

    async fn build(&self) -> Block {
        self.builder.build(self.parent(), self.ancestors()).await.unwrap()
    }

    async fn judge(&self, block: &Block) -> Result<(), InvalidBlock> {
        self.builder.judge(Arc::new(block.clone()), self.parent(), self.ancestors()).await
    }

    /// The rule by which a block is refused.
    async fn broken_rule(&self, block: &Block) -> &'static str {
        match self.judge(block).await {
            Err(InvalidBlock::Rule { rule, .. }) => rule,
            verdict => panic!("{verdict:?}"),
        }
    }

    fn looks_at_mempool(&self) -> watch::Receiver<u64> {
        self.rollup.selections.subscribe()
    }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

mod judging {
    use super::*;

    #[tokio::test]
    async fn a_timestamp_before_the_parents_is_refused_and_an_equal_one_is_not() {
        let hub = Hub::new(0);
        let mut block = hub.block(&[]);
        assert_eq!(hub.judge(&block).await, Ok(()));
        block.header.timestamp_ms -= 1;
        assert_eq!(hub.broken_rule(&block).await, "timestamp");
    }

    #[tokio::test]
    async fn commitments_that_nothing_backs_are_refused_by_name_and_counted() {
        let hub = Hub::new(0);
        type Root = fn(&mut Header) -> &mut B256;
        let roots: [(&str, Root); 3] = [
            ("origins", |h| &mut h.origins_root),
            ("hub_state", |h| &mut h.system_root),
            ("hub_state", |h| &mut h.next_seats_hash),
        ];
        for (name, root) in roots {
            let mut block = hub.block(&[(OPAQUE, &[b"a"])]);
            *root(&mut block.header) = B256::with_last_byte(1);
            let label = crate::metrics::ReasonLabel { reason: name };
            let before = hub.metrics.invalid_blocks.get_or_create(&label).get();
            assert_eq!(hub.broken_rule(&block).await, name);
            assert_eq!(hub.metrics.invalid_blocks.get_or_create(&label).get(), before + 1);
        }
    }

    #[tokio::test]
    async fn segments_of_unknown_rollups_and_records_that_are_none_are_refused() {
        let hub = Hub::new(0);
        assert_eq!(hub.broken_rule(&hub.block(&[(RollupId(8), &[b"a"])])).await, "rollup");
        assert_eq!(hub.broken_rule(&hub.block(&[(RollupId::SYSTEM, &[b"a"])])).await, "hub_state");
    }

    #[tokio::test]
    async fn a_transaction_twice_in_a_block_is_refused_and_on_two_rollups_it_is_not() {
        let hub = Hub::new(0);
        assert_eq!(hub.broken_rule(&hub.block(&[(OPAQUE, &[b"a", b"b", b"a"])])).await, "replay");
        assert_eq!(hub.judge(&hub.block(&[(OPAQUE, &[b"a"]), (OTHER, &[b"a"])])).await, Ok(()));
    }

    #[tokio::test]
    async fn a_transaction_of_an_ancestor_that_is_not_final_is_refused_and_one_of_an_abandoned_block_is_not() {
        let mut hub = Hub::new(0);
        let abandoned = hub.block(&[(OPAQUE, &[b"c"])]);
        assert_eq!(hub.judge(&abandoned).await, Ok(()));
        hub.chain.push(Arc::new(hub.block(&[(OPAQUE, &[b"a"])])));
        hub.chain.push(Arc::new(hub.block(&[(OPAQUE, &[b"b"])])));
        for ancestors in [&b"a"[..], b"b"] {
            assert_eq!(hub.broken_rule(&hub.block(&[(OPAQUE, &[ancestors])])).await, "replay");
            assert_eq!(hub.judge(&hub.block(&[(OTHER, &[ancestors])])).await, Ok(()));
        }
        assert_eq!(hub.judge(&hub.block(&[(OPAQUE, &[b"c"])])).await, Ok(()));
    }

    #[tokio::test]
    async fn a_final_transaction_is_refused_within_the_replay_window_and_accepted_outside_it() {
        let mut hub = Hub::new(0);
        for height in 1..=6u8 {
            hub.chain.push(Arc::new(hub.block(&[(OPAQUE, &[&[height]])])));
        }
        hub.finalise(6);
        for height in 1..=6u8 {
            let block = hub.block(&[(OPAQUE, &[&[height]])]);
            assert_eq!(block.header.height, 7);
            match 7 - u64::from(height) <= WINDOW {
                true => assert_eq!(hub.broken_rule(&block).await, "replay", "block {height}"),
                false => assert_eq!(hub.judge(&block).await, Ok(()), "block {height}"),
            }
        }
    }

    #[tokio::test]
    async fn only_what_a_valid_block_holds_counts_as_ordered() {
        let hub = Hub::new(0);
        let key = |tx: &[u8]| TxKey::of(OPAQUE, tx);
        hub.broken_rule(&hub.block(&[(OPAQUE, &[b"a", b"b", b"b"])])).await;
        assert!(!hub.builder.is_ordered(&key(b"a")));
        hub.judge(&hub.block(&[(OPAQUE, &[b"a", b"b"])])).await.unwrap();
        assert!(hub.builder.is_ordered(&key(b"a")) && hub.builder.is_ordered(&key(b"b")));
        assert!(!hub.builder.is_ordered(&TxKey::of(OTHER, b"a")));
    }

    #[test]
    fn a_vote_waits_for_a_leader_whose_clock_is_ahead_and_for_no_other() {
        let wait = |timestamp_ms, now| ahead(&Header::genesis(B256::ZERO, timestamp_ms, B256::ZERO), now).as_millis();
        assert_eq!(wait(1_000, 1_000), 0);
        assert_eq!(wait(0, 1_000), 0);
        assert_eq!(wait(1_000 + MAX_CLOCK_AHEAD_MS, 1_000), 0);
        assert_eq!(wait(1_007 + MAX_CLOCK_AHEAD_MS, 1_000), 7);
        assert_eq!(wait(u64::MAX, 0), u128::from(u64::MAX - MAX_CLOCK_AHEAD_MS));
        assert_eq!(wait(u64::MAX, u64::MAX), 0);
    }
}

mod building {
    use super::*;

    #[tokio::test]
    async fn a_block_holds_what_waits_and_leaves_out_what_ancestors_hold() {
        let mut hub = Hub::new(0);
        for text in ["a", "b", "c"] {
            hub.add(OPAQUE, &bytes(text));
        }
        hub.add(OTHER, &bytes("a"));
        hub.chain.push(Arc::new(hub.block(&[(OPAQUE, &[b"a"])])));
        hub.chain.push(Arc::new(hub.block(&[(OPAQUE, &[b"b"])])));
        let block = hub.build().await;
        assert_eq!(block.transactions(OPAQUE), [bytes("c")]);
        assert_eq!(block.transactions(OTHER), [bytes("a")]);
        assert_eq!((block.header.height, block.header.parent), (3, hub.parent().hash()));
        assert_eq!(block.check_commitments(), Ok(()));
    }

    #[tokio::test]
    async fn a_final_block_that_the_mempool_has_not_heard_of_yet_is_left_out() {
        let mut hub = Hub::new(0);
        hub.add(OPAQUE, &bytes("a"));
        hub.chain.push(Arc::new(hub.block(&[(OPAQUE, &[b"a"])])));
        // The finalizer is between the store and the mempool.
        hub.store.append(&hub.parent(), None).unwrap();
        let block = hub.build().await;
        assert_eq!(block.transaction_count(), 0);
        assert_eq!(hub.judge(&block).await, Ok(()));
    }

    #[tokio::test]
    async fn an_idle_hub_makes_an_empty_block_at_its_heartbeat_and_not_before() {
        let heartbeat_ms = 30;
        let hub = Hub::with(heartbeat_ms, 0, now_ms(), Limits::default());
        let block = hub.build().await;
        assert_eq!(block.transaction_count(), 0);
        assert!(block.header.timestamp_ms >= hub.parent().header.timestamp_ms + heartbeat_ms);
        assert_eq!(Hub::new(HOUR_MS).build().await.transaction_count(), 0, "overdue");
    }

    #[tokio::test]
    async fn a_transaction_ends_the_wait_of_an_idle_hub() {
        let hub = Hub::young();
        let mut looks = hub.looks_at_mempool();
        let (block, ()) = futures::join!(hub.build(), async {
            looks.wait_for(|n| *n == 1).await.unwrap();
            hub.add(OPAQUE, &bytes("a"));
        });
        assert_eq!(block.transactions(OPAQUE), [bytes("a")]);
    }

    #[tokio::test]
    async fn a_transaction_behind_a_nonce_gap_makes_no_block_until_the_gap_is_filled() {
        let hub = Hub::young();
        let mut looks = hub.looks_at_mempool();
        let (block, ()) = futures::join!(hub.build(), async {
            looks.wait_for(|n| *n == 1).await.unwrap();
            hub.add(NUMBERED, &numbered(1, 1));
            looks.wait_for(|n| *n == 2).await.unwrap();
            hub.add(NUMBERED, &numbered(1, 0));
        });
        assert_eq!(block.transactions(NUMBERED), [numbered(1, 0), numbered(1, 1)]);
    }

    #[tokio::test]
    async fn what_became_includable_without_an_event_goes_into_the_heartbeats_block() {
        let hub = Hub::with(30, 0, now_ms(), Limits::default());
        hub.add(NUMBERED, &numbered(1, 1));
        let (rollup, mempool) = (hub.rollup.clone(), hub.mempool.clone());
        *hub.rollup.second.lock() = Some(Box::new(move || {
            let senders = rollup.execute(&[numbered(1, 0)]);
            mempool.on_executed(NUMBERED, 1, senders);
        }));
        let block = hub.build().await;
        assert_eq!(block.transactions(NUMBERED), [numbered(1, 1)]);
    }

    #[tokio::test]
    async fn the_minimum_interval_is_kept_unless_a_good_part_of_a_block_waits() {
        let interval_ms = 30;
        let hub = Hub::with(HOUR_MS, interval_ms, now_ms(), Limits::default());
        hub.add(OPAQUE, &bytes("a"));
        let block = hub.build().await;
        assert_eq!(block.transactions(OPAQUE), [bytes("a")]);
        assert!(block.header.timestamp_ms >= hub.parent().header.timestamp_ms + interval_ms);

        let limits = Limits { body_bytes: 8_000, transaction_bytes: 2_000, ..Limits::default() };
        let busy = Hub::with(HOUR_MS, HOUR_MS, now_ms(), limits);
        busy.add(OPAQUE, &Bytes::from(vec![1; limits.body_bytes / BUSY_PART]));
        assert_eq!(busy.build().await.transaction_count(), 1);
    }

    #[tokio::test]
    async fn timestamps_never_fall_even_below_a_parent_that_is_ahead_of_the_clock() {
        let ahead_ms = now_ms() + HOUR_MS;
        let hub = Hub::with(0, 0, ahead_ms, Limits::default());
        assert_eq!(hub.build().await.header.timestamp_ms, ahead_ms);
        let before_ms = now_ms();
        assert!(Hub::new(0).build().await.header.timestamp_ms >= before_ms);
    }

    #[test]
    fn no_wait_is_longer_than_its_interval_whatever_the_clocks_say() {
        let left = |timestamp_ms, now| until(&Header::genesis(B256::ZERO, timestamp_ms, B256::ZERO), 50, now);
        for (timestamp_ms, now, ms) in
            [(100, 100, 50), (100, 130, 20), (100, 150, 0), (100, 999, 0), (900, 100, 50), (0, u64::MAX, 0)]
        {
            assert_eq!(left(timestamp_ms, now), Duration::from_millis(ms), "{timestamp_ms} {now}");
        }
    }
}

/// What happens to two hubs with the same log, one of which leads.
#[derive(Clone, Debug)]
enum Step {
    Add {
        rollup: RollupId,
        payload: Bytes,
    },
    /// A block is built, judged and agreed on; this many of the newest blocks are not final after it.
    Block {
        not_final: u64,
        executed: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let add = |rollup, payload| Step::Add { rollup, payload };
    let opaque = proptest::collection::vec(any::<u8>(), 1..60);
    prop_oneof![
        3 => (0u8..3, 0u64..6).prop_map(move |(sender, nonce)| add(NUMBERED, numbered(sender, nonce))),
        2 => opaque.clone().prop_map(move |tx| add(OPAQUE, tx.into())),
        2 => opaque.prop_map(move |tx| add(OTHER, tx.into())),
        3 => (0u64..4, any::<bool>()).prop_map(|(not_final, executed)| Step::Block { not_final, executed }),
    ]
}

async fn lead(leader: &mut Hub, follower: &mut Hub, not_final: u64, executed: bool) -> Result<usize, TestCaseError> {
    let block = leader.build().await;
    prop_assert_eq!(follower.judge(&block).await, Ok(()));
    prop_assert_eq!(leader.judge(&block).await, Ok(()));
    prop_assert_eq!(block.check_commitments(), Ok(()));
    let count = block.transaction_count();
    let block = Arc::new(block);
    for hub in [leader, follower] {
        hub.chain.push(block.clone());
        hub.finalise(block.header.height.saturating_sub(not_final));
        let tip = hub.tip.borrow().height;
        if executed {
            let transactions = hub.chain.iter().filter(|b| b.header.height <= tip);
            let transactions: Vec<Bytes> = transactions.flat_map(|b| b.transactions(NUMBERED).to_vec()).collect();
            // From genesis again each time: what is executed already has too low a nonce now.
            let senders = hub.rollup.execute(&transactions);
            hub.mempool.on_executed(NUMBERED, tip, senders);
        }
    }
    Ok(count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_one_hub_builds_another_one_accepts_and_everything_includable_is_ordered_once(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let limits = Limits { body_bytes: 300, segments: 2, transactions: 5, transaction_bytes: 64 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut leader = Hub::with(0, 0, 1_000, limits);
            let mut follower = Hub::with(0, 0, 1_000, limits);
            let mut accepted = 0;
            for step in steps {
                match step {
                    Step::Add { rollup, payload } => {
                        let checked = leader.mempool.check(rollup, &payload);
                        let inserted = checked.and_then(|tx| leader.mempool.insert(tx, Origin::Local, Instant::now()));
                        accepted += usize::from(inserted.is_ok());
                    }
                    Step::Block { not_final, executed } => {
                        lead(&mut leader, &mut follower, not_final, executed).await?;
                    }
                }
            }
            while lead(&mut leader, &mut follower, 1, true).await? > 0 {}
            lead(&mut leader, &mut follower, 0, true).await?;
            let mut ordered = HashSet::new();
            for block in &leader.chain {
                prop_assert!(block.segments().len() <= limits.segments && block.transaction_count() <= limits.transactions);
                prop_assert!(block.encoded_len() <= limits.block_bytes());
                for key in block.keys() {
                    prop_assert!(ordered.insert(key), "twice");
                }
            }
            let waiting = leader.mempool.waiting(0, Instant::now(), usize::MAX);
            prop_assert_eq!(ordered.len() + waiting.len(), accepted);
            for tx in waiting {
                let behind_a_gap = parse(&tx.payload).filter(|_| tx.key.rollup == NUMBERED).is_some_and(|(sender, nonce)| {
                    leader.rollup.account(sender).unwrap().nonce < nonce
                });
                prop_assert!(behind_a_gap, "{:?} was never ordered", tx);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_height_that_is_proposed_again_gets_half_a_block_and_later_heights_grow_back() {
    let limits = Limits { body_bytes: 8192, segments: 8, transactions: 1000, transaction_bytes: 256 };
    let mut hub = Hub::with(0, 0, 1_000, limits);
    for i in 0..200u8 {
        hub.add(OPAQUE, &Bytes::from(vec![i; 100]));
    }
    let (first, second, third) = (hub.build().await, hub.build().await, hub.build().await);
    let sizes = [&first, &second, &third].map(|block| block.header.body_bytes);
    assert!(sizes[0] > 8192 / 2 && sizes[0] <= 8192, "{sizes:?}");
    assert!(sizes[1] > 8192 / 4 && sizes[1] <= 8192 / 2, "{sizes:?}");
    assert!(sizes[2] > 8192 / 8 && sizes[2] <= 8192 / 4, "{sizes:?}");

    hub.chain.push(Arc::new(third));
    let next = hub.build().await.header.body_bytes;
    assert!(next > 8192 / 4 && next <= 8192 / 2, "{next}");
}
