//! Rollups that are not as others are.

use super::*;
use std::cell::Cell;

#[test]
fn nothing_is_sent_to_a_rollup_without_the_contracts() {
    let mut network = Network::new();
    network.b = Rollup::new(B, None);
    let mut relayer = network.relayer(0);
    network.send(Address::repeat_byte(0xb7), 1, None);
    for _ in 0..5 {
        network.round(&mut relayer);
        network.block();
    }
    assert_eq!(network.pool.len(B.0), 0);
    assert_eq!(network.b.nonce_of(key(2).address()), 0);
}

#[test]
fn what_a_rollup_does_not_take_is_not_sent_again_each_block() {
    let mut network = Network::new();
    let stranger = Registered { rollup: RollupId(3), chain: 71_003, leaf: 0, certified: None };
    network.hub.0.lock().stranger = Some(stranger);
    let (mut relayer, now) = (network.relayer(0), Instant::now());
    let mut calls = 0;
    for _ in 0..6 {
        relayer.round(now);
        let to_hub = |waits: &Waits| waits.tx.kind() == TxKind::Call(predeploys::HUB);
        calls += network.pool.waiting.lock().get(&A.0).map_or(0, |all| all.iter().filter(|tx| to_hub(tx)).count());
        network.block();
    }
    assert_eq!(calls, 1, "until the pause is over");
}

#[test]
fn a_node_without_rollups_has_a_relayer_that_waits() {
    let network = Network::new();
    let (news, tip) = watch::channel(0);
    // Its closing wakes the relayer at once.
    drop(news);
    let relayer = Relayer::new(RelayerParts {
        hub: network.hub.clone(),
        chains: BTreeMap::new(),
        submit: network.pool.clone(),
        signer: key(2),
        tip,
        settings: Settings::default(),
    });
    let rounds = Cell::new(0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    relayer.run(runtime.handle(), || rounds.replace(rounds.get() + 1) == 3);
    assert_eq!(rounds.get(), 4);
}
