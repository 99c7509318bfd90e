use super::{
    cache::Cache,
    desk::{Desk, Outcome},
    message::Message,
};
use crate::block::{HubBlock, digest};
use commonware_cryptography::{Digested, Digestible as _, ed25519::PublicKey};
use commonware_utils::{channel::oneshot, ordered::Set, sync::Mutex};
use std::{collections::HashMap, sync::Arc};
use switchyard_consensus_core::{Ancestors, BlockBuilder, InvalidBlock};
use switchyard_consensus_network::{identity, public_key};
use switchyard_primitives::{B256, Block, Bytes, Header, Limits, RollupId, Segment, TxKey};

const ROLLUP: RollupId = RollupId(7);
const PER_VALIDATOR: usize = 3;
const LIMITS: Limits = Limits { body_bytes: 4096, segments: 4, transactions: 64, transaction_bytes: 512 };

/// Holds some transactions; builds and judges nothing.
#[derive(Clone, Default)]
struct Holder(Arc<Mutex<HashMap<TxKey, Bytes>>>);

impl Holder {
    fn with(transactions: &[Bytes]) -> Self {
        Self(Arc::new(Mutex::new(transactions.iter().map(|tx| (TxKey::of(ROLLUP, tx), tx.clone())).collect())))
    }
}

impl BlockBuilder for Holder {
    async fn build(&self, _: Arc<Block>, _: Ancestors) -> Option<Block> {
        None
    }

    async fn judge(&self, _: Arc<Block>, _: Arc<Block>, _: Ancestors) -> Result<(), InvalidBlock> {
        Ok(())
    }

    fn held(&self, keys: &[TxKey]) -> Vec<Option<Bytes>> {
        keys.iter().map(|key| self.0.lock().get(key).cloned()).collect()
    }
}

fn peer(i: u8) -> PublicKey {
    public_key(identity(&[i; 32])).unwrap()
}

/// One validator's exchange.
struct Node {
    desk: Desk<Holder>,
    cache: Arc<Mutex<Cache>>,
}

impl Node {
    /// Among validators 0 to 3.
    fn holding(transactions: &[Bytes]) -> Self {
        let mut cache = Cache::new(PER_VALIDATOR);
        cache.set_validators(Set::from_iter_dedup((0..4).map(peer)));
        let cache = Arc::new(Mutex::new(cache));
        Self { desk: Desk::new(Holder::with(transactions), LIMITS, 1000, PER_VALIDATOR, cache.clone()), cache }
    }

    fn receive(&mut self, from: u8, message: &Message) -> (Outcome, Option<Message>) {
        self.desk.receive(&peer(from), message.encode().coalesce().into())
    }

    fn has(&self, block: &Digested<HubBlock>) -> bool {
        let found = self.cache.lock().find(&block.digest());
        found.is_some_and(|found| {
            let (found, block) = (found.inner().block(), block.inner().block());
            found == block && found.tx_hashes() == block.tx_hashes()
        })
    }

    fn propose(&self, as_validator: u8, block: &Digested<HubBlock>) -> Message {
        self.cache.lock().insert(&peer(as_validator), block);
        self.desk.announcement(block.inner())
    }
}

fn transactions(from: u8, count: u8) -> Vec<Bytes> {
    (from..from + count).map(|i| vec![i; 200].into()).collect()
}

fn block(height: u64, transactions: &[Bytes]) -> Digested<HubBlock> {
    let header = Header { height, ..Header::genesis(B256::ZERO, 0, B256::ZERO) };
    let segments = vec![Segment { rollup: ROLLUP, transactions: transactions.to_vec() }];
    HubBlock::sealed(Block::new(header, segments))
}

#[test]
fn a_large_block_is_filled_from_what_is_held() {
    let txs = transactions(0, 10);
    let proposed = block(1, &txs);
    let announced = Node::holding(&[]).propose(0, &proposed);
    assert!(matches!(&announced, Message::Compact { carried, .. } if carried.is_empty()));
    let mut other = Node::holding(&txs);
    assert!(matches!(other.receive(0, &announced), (Outcome::Filled, None)));
    assert!(other.has(&proposed));
}

#[test]
fn the_records_of_a_proposer_travel_with_its_block() {
    let (txs, records) = (transactions(0, 10), transactions(50, 2));
    let header = Header { height: 1, ..Header::genesis(B256::ZERO, 0, B256::ZERO) };
    let system = Segment { rollup: RollupId::SYSTEM, transactions: records.clone() };
    let segments = vec![system, Segment { rollup: ROLLUP, transactions: txs.clone() }];
    let proposed = HubBlock::sealed(Block::new(header, segments));
    let announced = Node::holding(&[]).propose(0, &proposed);
    let Message::Compact { block, carried } = announced.clone() else { panic!("{announced:?}") };
    assert_eq!(carried, records);
    let mut other = Node::holding(&txs);
    assert!(matches!(other.receive(0, &announced), (Outcome::Filled, None)));
    assert!(other.has(&proposed));

    // Others than the block has, too few, or too many.
    for carried in [transactions(60, 2), transactions(50, 1), transactions(50, 3)] {
        let lie = Message::Compact { block: block.clone(), carried };
        let mut other = Node::holding(&txs);
        assert!(matches!(other.receive(0, &lie), (Outcome::Malformed, None)));
        assert!(!other.has(&proposed));
    }
}

#[test]
fn small_blocks_and_blocks_of_tiny_transactions_travel_whole() {
    let tiny: Vec<Bytes> = (0..64).map(|i| vec![i; 20].into()).collect();
    for txs in [transactions(0, 2), tiny] {
        let proposed = block(1, &txs);
        let announced = Node::holding(&[]).propose(0, &proposed);
        assert!(matches!(announced, Message::Whole(_)));
        let mut other = Node::holding(&[]);
        assert!(matches!(other.receive(0, &announced), (Outcome::Whole, None)));
        assert!(other.has(&proposed));
    }
}

#[test]
fn what_is_missing_is_asked_for_once_and_completes_the_block() {
    let txs = transactions(0, 10);
    let proposed = block(1, &txs);
    let mut leader = Node::holding(&[]);
    let announced = leader.propose(0, &proposed);
    let mut other = Node::holding(&[txs[1].clone(), txs[8].clone()]);
    let (outcome, request) = other.receive(0, &announced);
    assert_eq!(outcome, Outcome::Asked);
    assert!(!other.has(&proposed));
    assert!(matches!(other.receive(0, &announced), (Outcome::Stale, None)), "asked before");

    let request = request.unwrap();
    let (outcome, answer) = leader.receive(1, &request);
    let answer = answer.unwrap();
    assert_eq!(outcome, Outcome::Answered);
    assert!(matches!(&answer, Message::Answer { transactions, .. } if transactions.len() == 8));
    assert!(matches!(leader.receive(1, &request), (Outcome::Stale, None)), "one answer for each");
    assert!(matches!(leader.receive(2, &request), (Outcome::Answered, Some(_))));

    assert!(matches!(other.receive(2, &answer), (Outcome::Stale, None)), "not asked");
    assert!(matches!(other.receive(0, &answer), (Outcome::Completed, None)));
    assert!(other.has(&proposed));
    assert!(matches!(other.receive(0, &answer), (Outcome::Stale, None)));
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_makes_no_block() {
    let txs = transactions(0, 10);
    let proposed = block(1, &txs);
    let announced = Node::holding(&[]).propose(0, &proposed);
    let wrong = |change: &dyn Fn(&mut Vec<Bytes>)| {
        let mut transactions = txs[1..].to_vec();
        change(&mut transactions);
        let hash = proposed.inner().block().hash();
        let mut other = Node::holding(&txs[..1]);
        assert_eq!(other.receive(0, &announced).0, Outcome::Asked);
        assert_eq!(other.receive(0, &Message::Answer { block: hash, transactions }).0, Outcome::Malformed);
        assert!(!other.has(&proposed));
        // It may still come from another.
        assert_eq!(other.receive(2, &Message::Whole(HubBlock::clone(proposed.inner()))).0, Outcome::Whole);
        assert!(other.has(&proposed));
    };
    wrong(&|txs| txs[4] = vec![9; 200].into());
    wrong(&|txs| txs.truncate(8));
    wrong(&|txs| txs.push(vec![1; 10].into()));
    wrong(&|txs| txs.swap(0, 1));
}

#[test]
fn a_request_for_another_number_of_transactions_is_refused() {
    let proposed = block(1, &transactions(0, 10));
    let mut leader = Node::holding(&[]);
    leader.propose(0, &proposed);
    let request = |wanted| Message::Request { block: proposed.inner().block().hash(), wanted };
    assert_eq!(leader.receive(1, &request(vec![true; 11])).0, Outcome::Malformed);
    let unknown = Message::Request { block: B256::repeat_byte(1), wanted: vec![true] };
    assert_eq!(leader.receive(1, &unknown).0, Outcome::Stale);
}

#[test]
fn nothing_is_taken_from_strangers() {
    let txs = transactions(0, 10);
    let proposed = block(1, &txs);
    let announced = Node::holding(&[]).propose(0, &proposed);
    let mut other = Node::holding(&txs);
    assert!(matches!(other.receive(9, &announced), (Outcome::Stranger, None)));
    assert!(!other.has(&proposed));
    let (outcome, reply) = other.desk.receive(&peer(1), bytes::Bytes::from_static(b"\x09junk"));
    assert!(matches!((outcome, reply), (Outcome::Malformed, None)));
}

#[test]
fn a_block_that_names_more_than_fits_holds_on_to_nothing() {
    let big: Bytes = vec![1; 500].into();
    let missing: Bytes = vec![2; 200].into();
    let mut named = vec![big.clone(); 20];
    named.push(missing);
    // The header lies about the length, or it would be refused at once.
    let mut lying = Block::clone(block(1, &named).inner().block());
    lying.header.body_bytes = 4000;
    let compact = Box::new(switchyard_primitives::CompactBlock::of(&lying));
    let announced = Message::Compact { block: compact, carried: Vec::new() };
    assert!(matches!(Node::holding(&[big]).receive(0, &announced), (Outcome::Malformed, None)));
}

#[test]
fn of_each_validator_only_the_newest_incomplete_blocks_are_kept() {
    let mut other = Node::holding(&[]);
    let leader = Node::holding(&[]);
    let blocks: Vec<_> = (0..5).map(|i| block(u64::from(i), &transactions(i * 10, 10))).collect();
    for block in &blocks {
        assert_eq!(other.receive(0, &leader.desk.announcement(block.inner())).0, Outcome::Asked);
    }
    for (i, block) in (0..).zip(&blocks) {
        let answer = Message::Answer { block: block.inner().block().hash(), transactions: transactions(i * 10, 10) };
        let outcome = other.receive(0, &answer).0;
        assert_eq!(outcome, if i < 2 { Outcome::Stale } else { Outcome::Completed }, "block {i}");
    }
}

#[test]
fn the_cache_keeps_the_newest_of_each_validator_and_what_another_still_names() {
    let cache = Node::holding(&[]).cache;
    let blocks: Vec<_> = (0..5).map(|i| block(i, &transactions(0, 1))).collect();
    cache.lock().insert(&peer(1), &blocks[0]);
    for block in &blocks {
        cache.lock().insert(&peer(0), block);
    }
    let kept = |cache: &Mutex<Cache>| -> Vec<bool> {
        blocks.iter().map(|block| cache.lock().find(&block.digest()).is_some()).collect()
    };
    assert_eq!(kept(&cache), [true, false, true, true, true]);
    cache.lock().set_validators(Set::from_iter_dedup([peer(1)]));
    assert_eq!(kept(&cache), [true, false, false, false, false]);
    cache.lock().insert(&peer(0), &blocks[4]);
    assert_eq!(kept(&cache), [true, false, false, false, false]);
}

#[test]
fn whoever_waits_gets_the_block_when_it_comes() {
    let mut node = Node::holding(&[]);
    let proposed = block(1, &transactions(0, 1));
    let wait = |node: &Node| {
        let (waiter, block) = oneshot::channel();
        node.cache.lock().subscribe(digest(proposed.inner().block().hash()), waiter);
        block
    };
    let (mut first, mut second) = (wait(&node), wait(&node));
    assert!(first.try_recv().is_err());
    node.receive(0, &Message::Whole(HubBlock::clone(proposed.inner())));
    for block in [&mut first, &mut second, &mut wait(&node)] {
        assert_eq!(block.try_recv().unwrap().digest(), proposed.digest());
    }
}
