//! The relayer's account, and what nodes make of its transactions.

use super::*;
use std::time::Duration;
use switchyard_bridge_contracts::Prepare;
use switchyard_bridge_core::LegState;

/// Transactions that take all of a block's gas and pay better, until a rollup's base fee is three times what it was.
fn triple_the_base_fee(network: &mut Network) {
    let first = network.a.reader.next_base_fee();
    *network.pool.passed_over.lock() = Some(key(2).address());
    while network.a.reader.next_base_fee() < 3 * first {
        for _ in 0..GAS_LIMIT / TX_GAS {
            // EIP-7623: 40 gas for each byte.
            network.submit(Address::repeat_byte(0xb7), 0, vec![0xff; 11_900].into());
        }
        network.block();
    }
    *network.pool.passed_over.lock() = None;
}

/// A network with a leg on A that is to be committed, for which the relayer has just sent what settles it.
fn with_a_settlement(network: &mut Network) -> (Relayer, Prepare, Instant) {
    let terms = legs::terms(user().address());
    let tx = network.submit(predeploys::ATOMIC_VAULT, 7, terms.calldata());
    network.block();
    legs::decide(network, &terms, &tx, true);
    network.block();
    let (mut relayer, now) = (network.relayer(0), Instant::now());
    // The first block that has seen the decision is what it is proven by.
    network.submit(Address::repeat_byte(0xb7), 0, Bytes::new());
    network.block();
    relayer.round(now);
    assert_eq!(network.pool.len(A.0), 1);
    (relayer, terms, now)
}

#[test]
fn what_the_base_fee_has_outgrown_is_signed_again_and_pays_more() {
    let mut network = Network::new();
    let (mut relayer, terms, now) = with_a_settlement(&mut network);
    triple_the_base_fee(&mut network);
    assert_eq!(network.pool.len(A.0), 1, "no block takes it");
    relayer.round(now + Duration::from_secs(4));
    network.block();
    assert_eq!(legs::state(&network, &terms).state, LegState::Committed);
}

#[test]
fn what_an_earlier_life_has_left_behind_is_replaced() {
    let mut network = Network::new();
    let (first, terms, now) = with_a_settlement(&mut network);
    drop(first);
    triple_the_base_fee(&mut network);
    assert_eq!(network.pool.len(A.0), 1, "it still waits");
    let mut second = network.relayer(0);
    second.round(now);
    assert_eq!(network.pool.len(A.0), 1, "another one in its place");
    network.block();
    assert_eq!(legs::state(&network, &terms).state, LegState::Committed);
}

#[test]
fn a_transaction_that_was_replaced_may_be_the_one_that_is_executed() {
    let mut network = Network::new();
    let (mut relayer, terms, now) = with_a_settlement(&mut network);
    let mine = key(2).address();
    let take = |network: &Network| network.pool.waiting.lock().get_mut(&A.0).unwrap().remove(0);
    let old = take(&network);
    triple_the_base_fee(&mut network);
    relayer.round(now + Duration::from_secs(4));
    let new = take(&network);
    assert_eq!((old.tx.nonce(), old.sender, new.sender), (new.tx.nonce(), mine, mine));
    assert!(new.tx.max_fee_per_gas() > old.tx.max_fee_per_gas());

    // Another node has the old one only, and leads when the base fee is low again.
    while u128::from(network.a.reader.next_base_fee()) > old.tx.max_fee_per_gas() {
        network.submit(Address::repeat_byte(0xb7), 0, Bytes::new());
        network.block();
    }
    network.pool.add(A.0, old.raw).unwrap();
    network.block();
    assert_eq!(legs::state(&network, &terms).state, LegState::Committed);
    relayer.round(now + Duration::from_secs(8));
    assert_eq!(network.pool.len(A.0), 0, "it is done");
}
