//! Messages that do not arrive.

use super::*;

/// Takes no coin.
const REFUSES: Address = predeploys::OUTBOX;
/// Hub blocks from the first one after the deadline to the refund: the end at the destination, its certificate, a block of the source
/// that has seen it, the notice, the refund.
const BLOCKS: usize = 6;

#[test]
fn a_refund_waits_for_no_block_that_marks_the_time() {
    let mut network = Network::new();
    let mut relayer = network.relayer(0);
    network.send(REFUSES, 5, Some(GENESIS_S + 4));
    for _ in 0..10 {
        network.round(&mut relayer);
        network.block();
    }
    assert!(!network.is_settled(0), "nobody takes it");
    let (before, head) = (network.a.balance(user().address()), network.b.reader.head().header.number);
    assert!(head >= 2, "it was tried");

    network.pass(4);
    network.block();
    assert_eq!(network.b.reader.head().header.number, head, "its rollup stands still");
    let mut blocks = 0;
    while network.a.balance(user().address()) == before {
        assert!(blocks < BLOCKS, "not refunded after {blocks} blocks");
        network.round(&mut relayer);
        network.block();
        blocks += 1;
    }
    assert_eq!(network.a.balance(user().address()), before + U256::from(5));
}

#[test]
fn a_relayer_that_is_started_anew_pays_back_what_a_notice_has_told() {
    let mut network = Network::new();
    let mut first = network.relayer(0);
    network.send(REFUSES, 5, Some(GENESIS_S + 1));
    network.block();
    network.pass(1);
    let told = |network: &Network| settled_bits(&*network.a.reader, A.0, B.0, 0).unwrap() != 0;
    while !told(&network) {
        network.round(&mut first);
        network.block();
    }
    drop(first);
    let before = network.a.balance(user().address());
    let mut second = network.relayer(0);
    network.round(&mut second);
    network.block();
    assert_eq!(network.a.balance(user().address()), before + U256::from(5));
}
