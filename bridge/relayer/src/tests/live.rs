//! Messages beside a backlog of older ones.

use super::*;
use crate::queue::Queue;
use std::{collections::BTreeSet, time::Duration};

const FRIEND: Address = Address::repeat_byte(0xb7);
/// More than the relayer has undecided at a time, or a few blocks hold.
const BACKLOG: u64 = 100;

/// A network whose relayer was away while messages were sent; all of them are certified.
fn with_backlog() -> Network {
    let mut network = Network::new();
    for _ in 0..BACKLOG {
        network.send(FRIEND, 1, None);
    }
    while network.pool.len(A.0) > 0 {
        network.block();
    }
    network.block();
    assert_eq!(network.a.reader.outbox_count(), BACKLOG);
    network
}

fn settled(network: &Network) -> u64 {
    (0..network.a.reader.outbox_count()).filter(|index| network.is_settled(*index)).count() as u64
}

#[test]
fn a_live_message_is_in_the_next_block_whatever_waits_besides() {
    let mut network = with_backlog();
    let mut relayer = network.relayer(0);
    for _ in 0..3 {
        network.round(&mut relayer);
        network.block();
    }
    assert!(settled(&network) > 0, "the backlog is at work");

    network.send(FRIEND, 1, None);
    // Sent in the first, certified in the second, delivered in the third.
    for _ in 0..2 {
        network.round(&mut relayer);
        network.block();
    }
    network.round(&mut relayer);
    let waiting = network.pool.len(B.0);
    network.block();
    assert_eq!(network.pool.len(B.0), 0, "of {waiting}: what was sent fits into one block");
    assert!(network.is_settled(BACKLOG), "the live one is delivered");
    assert!(settled(&network) < BACKLOG, "and not the whole backlog before it");

    for _ in 0..2 * BACKLOG {
        network.round(&mut relayer);
        network.block();
    }
    assert_eq!(settled(&network), BACKLOG + 1);
    assert_eq!(network.b.balance(FRIEND), U256::from(BACKLOG + 1), "each of them once");
}

#[test]
fn a_message_that_is_first_seen_together_with_a_backlog_goes_before_it() {
    let mut network = with_backlog();
    network.send(FRIEND, 1, None);
    (0..2).for_each(|_| network.block());
    let mut relayer = network.relayer(0);
    for _ in 0..4 {
        network.round(&mut relayer);
        network.block();
    }
    assert!(network.is_settled(BACKLOG), "the newest is delivered");
    assert!(settled(&network) < BACKLOG, "and not the whole backlog before it");
}

#[test]
fn what_was_refused_at_the_door_is_no_failure_of_its_recipient() {
    let mut network = with_backlog();
    let mut relayer = network.relayer(0);
    network.round(&mut relayer);
    network.block();
    *network.pool.is_closed.lock() = true;
    for _ in 0..5 {
        network.round(&mut relayer);
        network.block();
    }
    assert_eq!((settled(&network), network.pool.len(B.0)), (0, 0));
    *network.pool.is_closed.lock() = false;
    // Five failures would be a pause of a minute.
    network.round(&mut relayer);
    assert!(network.pool.len(B.0) > 1, "it goes on at once");
}

#[test]
fn a_higher_rank_leaves_to_a_lower_one_what_that_one_delivers() {
    let mut network = with_backlog();
    let (delay, begin) = (Duration::from_secs(2), Instant::now());
    let mut second = Queue::new(A.0, B.0, delay);
    second.scan(begin, (&*network.a.reader, &*network.b.reader), BACKLOG, BACKLOG).unwrap();
    second.proven = Some(BACKLOG);
    let due = |second: &mut Queue, now| !second.due(now, GENESIS_S, 100, 100).is_empty();
    assert!(!due(&mut second, begin), "it is the first one's turn");
    let now = begin + delay;
    assert!(due(&mut second, now));

    let mut first = network.relayer(0);
    while settled(&network) == 0 {
        network.round(&mut first);
        network.block();
    }
    let done = (0..BACKLOG).find(|index| network.is_settled(*index)).unwrap();
    assert!(second.is_settled(now, &*network.b.reader, done).unwrap(), "by the first one");
    assert!(!due(&mut second, now), "which is at work");
    for index in 0..BACKLOG {
        assert_eq!(second.is_settled(now, &*network.b.reader, index).unwrap(), network.is_settled(index));
    }
    assert!(due(&mut second, now + delay), "and then is not");
}

#[test]
fn new_messages_are_looked_at_before_the_rest_of_a_backlog() {
    let mut network = Network::new();
    let mut send = |count| {
        (0..count).for_each(|_| network.send(FRIEND, 1, None));
        while network.pool.len(A.0) > 0 {
            network.block();
        }
    };
    send(30);
    send(2);
    let mut queue = Queue::new(A.0, B.0, Duration::ZERO);
    let mut found = |count| {
        let now = Instant::now();
        queue.scan(now, (&*network.a.reader, &*network.b.reader), count, 8).unwrap();
        queue.proven = Some(count);
        let due = queue.due(now, GENESIS_S, 100, 100);
        due.into_iter().map(|(index, _)| index).collect::<BTreeSet<_>>()
    };
    assert_eq!(found(30), BTreeSet::from_iter(22..30), "the newest");
    assert_eq!(found(32), BTreeSet::from_iter((0..6).chain(22..32)), "what is new, and then the oldest");
    assert_eq!(found(32), BTreeSet::from_iter((0..14).chain(22..32)));
    assert_eq!(found(32), BTreeSet::from_iter(0..32), "and all in the end");
}
