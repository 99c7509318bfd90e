//! Legs of bundles: whoever has called the vault, its decision reaches it.

use super::*;
use crate::vault::{ITEMS_GAS, vault_state};
use std::time::Duration;
use switchyard_bridge_contracts::Prepare;
use switchyard_bridge_core::{
    BundleRecord, BundleState, Call, HubBundle, Leg, LegRecord, LegState, Move, MoveKind, VaultState,
};

const TO: Address = Address::repeat_byte(0xd1);
const REFUND: Address = Address::repeat_byte(0xd2);

/// A bundle with a leg on A, and one elsewhere.
pub(super) fn terms(signer: Address) -> Prepare {
    let coin = Move { kind: MoveKind::Coin, token: Address::ZERO, amount: U256::from(7), to: TO, refund: REFUND };
    let leg = |rollup| Leg { rollup, signer, moves: vec![coin], calls: Vec::new() };
    Prepare::all(500, B256::repeat_byte(9), vec![leg(A.0), leg(B.0)]).remove(0)
}

pub(super) fn state(network: &Network, terms: &Prepare) -> VaultState {
    vault_state(&*network.a.reader, A.0, &terms.bundle.id(), terms.index).unwrap()
}

/// The hub includes the bundle, of which `tx` is the leg here, and decides it in its next block.
pub(super) fn decide(network: &mut Network, terms: &Prepare, tx: &Bytes, committed: bool) {
    let bundle = terms.bundle.id();
    let mut said = network.hub.0.lock();
    let height = said.counts.len() as u64;
    // On both rollups it does the same.
    let leg = |rollup, tx| LegRecord { rollup, terms: terms.leg.terms(), tx };
    let legs = vec![leg(A.0, keccak256(tx)), leg(B.0, B256::repeat_byte(1))];
    let record = BundleRecord { deadline: terms.bundle.deadline, salt: terms.bundle.salt, legs };
    assert_eq!(record.id(), bundle);
    let state = BundleState::Decided { committed, height };
    let of_hub = HubBundle { deadline: terms.bundle.deadline, included: height - 1, state };
    said.bundles.insert(bundle, OnHub { bundle: of_hub, record });
    drop(said);
    network.leaves.push(HubLeaf::Decision { bundle, committed, height });
}

fn settles(network: &mut Network, terms: &Prepare) -> LegState {
    let mut relayer = network.relayer(0);
    for _ in 0..4 {
        network.round(&mut relayer);
        network.block();
    }
    let VaultState { state, held } = state(network, terms);
    assert_eq!(held, 0, "nothing stays in the vault");
    assert_eq!(network.a.balance(predeploys::ATOMIC_VAULT), U256::ZERO);
    state
}

/// Who has called the vault, and with which account.
const CALLERS: [(Address, fn() -> Address); 2] = [(predeploys::ATOMIC_VAULT, || user().address()), (WALLET, || WALLET)];

#[test]
fn a_leg_is_settled_whoever_has_called_the_vault() {
    for ((to, signer), committed) in CALLERS.into_iter().flat_map(|caller| [(caller, true), (caller, false)]) {
        let mut network = Network::new();
        let terms = terms(signer());
        let tx = network.submit(to, 7, terms.calldata());
        network.block();
        assert_eq!(state(&network, &terms).state, LegState::Prepared, "by {to}");
        decide(&mut network, &terms, &tx, committed);
        network.block();
        let (end, paid) = if committed { (LegState::Committed, TO) } else { (LegState::Aborted, REFUND) };
        assert_eq!(settles(&mut network, &terms), end, "by {to}");
        assert_eq!(network.a.balance(paid), U256::from(7), "by {to}");
    }
}

#[test]
fn a_leg_that_another_transaction_has_prepared_is_given_back() {
    for (to, signer) in CALLERS {
        // By a release, or by the abort that it has caused.
        for is_released in [true, false] {
            let mut network = Network::new();
            let terms = terms(signer());
            network.submit(to, 7, terms.calldata());
            network.block();
            // Certified.
            network.block();
            if is_released {
                let bundle = terms.bundle.id();
                network.leaves.push(HubLeaf::Release { bundle, rollup: A.0, leg: terms.index });
            } else {
                let reverts = network.submit(to, 7, terms.calldata());
                decide(&mut network, &terms, &reverts, false);
            }
            network.block();
            assert_eq!(settles(&mut network, &terms), LegState::Aborted, "by {to}");
            assert_eq!(network.a.balance(REFUND), U256::from(7), "by {to}");
        }
    }
}

#[test]
fn a_leg_that_no_transaction_can_carry_holds_up_no_other() {
    let mut network = Network::new();
    let small = terms(user().address());
    let leg = Leg { moves: vec![small.leg.moves[0]; 16], ..small.leg.clone() };
    let elsewhere = Leg { rollup: B.0, ..leg.clone() };
    let large = Prepare::all(500, B256::repeat_byte(8), vec![leg, elsewhere]).remove(0);
    let legs = [(small, 7), (large, 16 * 7)].map(|(terms, coin)| {
        let tx = network.submit(predeploys::ATOMIC_VAULT, coin, terms.calldata());
        (terms, tx)
    });
    network.block();
    for (terms, tx) in &legs {
        decide(&mut network, terms, tx, true);
    }
    network.block();

    *network.pool.bytes_max.lock() = Some(3_000);
    let mut relayer = network.relayer(0);
    for _ in 0..4 {
        network.round(&mut relayer);
        network.block();
    }
    let [small, large] = legs.map(|(terms, _)| state(&network, &terms).state);
    assert_eq!(small, LegState::Committed, "the older one");
    assert_eq!(large, LegState::Prepared);
    assert_eq!(*network.pool.refused.lock(), 1, "what was refused for its length is not offered again");
}

/// A leg of calls of one participant, with so much gas for each, that was prepared alone and is released.
fn alone(network: &mut Network, participant: Address, gas: &[u64]) -> Prepare {
    let call = |gas_limit: &u64| Call { participant, gas_limit: *gas_limit, data: Bytes::new() };
    let signer = user().address();
    let leg = Leg { rollup: A.0, signer, moves: Vec::new(), calls: gas.iter().map(call).collect() };
    let terms = Prepare::all(500, B256::repeat_byte(9), vec![leg.clone(), Leg { rollup: B.0, ..leg }]).remove(0);
    network.submit(predeploys::ATOMIC_VAULT, 0, terms.calldata());
    network.block();
    assert_eq!(state(network, &terms).state, LegState::Prepared);
    // Certified.
    network.block();
    network.leaves.push(HubLeaf::Release { bundle: terms.bundle.id(), rollup: A.0, leg: terms.index });
    network.block();
    // Makes a block that has seen it.
    network.submit(TO, 0, Bytes::new());
    network.block();
    terms
}

/// How many calls of the vault the relayer has paid for, and their gas.
fn paid(network: &Network) -> (usize, u64) {
    let chain = &network.a.reader;
    let (mut count, mut sum) = (0, 0);
    for number in 1..=chain.head().header.number {
        let block = chain.block_by_number(number).unwrap().unwrap();
        let mut before = 0;
        for ((tx, sender), receipt) in block.transactions.iter().zip(&block.senders).zip(&block.receipts) {
            let used = receipt.cumulative_gas_used() - before;
            before = receipt.cumulative_gas_used();
            if *sender == key(2).address() && tx.kind() == TxKind::Call(predeploys::ATOMIC_VAULT) {
                (count, sum) = (count + 1, sum + used);
            }
        }
    }
    (count, sum)
}

/// Rounds with a block after each, as far apart as the longest pause is.
fn work(network: &mut Network, rounds: u32) {
    let (mut relayer, begin) = (network.relayer(0), Instant::now());
    for round in 0..rounds {
        relayer.round(begin + Duration::from_secs(700) * round);
        network.block();
    }
}

#[test]
fn a_participant_that_burns_gas_costs_the_relayer_one_settle_without_it() {
    let mut network = Network::new();
    // More in sum than a block has.
    let terms = alone(&mut network, BURNS, &[4_800_000, 4_800_000]);
    work(&mut network, 12);
    assert_eq!(state(&network, &terms), VaultState { state: LegState::Aborted, held: 0b11 });
    let (count, gas) = paid(&network);
    assert_eq!(count, 1);
    assert!(gas < 200_000, "{gas} gas");
}

#[test]
fn what_a_leg_costs_the_relayer_has_a_bound_though_all_of_it_succeeds() {
    let mut network = Network::new();
    let terms = alone(&mut network, WASTES, &[1_500_000; 12]);
    work(&mut network, 16);
    let VaultState { state, held } = state(&network, &terms);
    assert_eq!((state, held.count_ones()), (LegState::Aborted, 6));
    let (count, gas) = paid(&network);
    assert_eq!(count, 2, "a block has room for three items");
    assert!(gas < ITEMS_GAS, "{gas} gas");
}

#[test]
fn an_item_that_needs_more_than_its_leg_states_is_carried_out_with_more() {
    let mut network = Network::new();
    let terms = alone(&mut network, WRITES, &[50_000]);
    work(&mut network, 12);
    assert_eq!(state(&network, &terms), VaultState { state: LegState::Aborted, held: 0 });
    assert_eq!(paid(&network).0, 2, "it is settled without the item, which follows");
}

#[test]
fn an_item_that_fails_although_it_went_through_in_the_simulation_is_not_sent_again() {
    let mut network = Network::new();
    let terms = alone(&mut network, BURNS_IF_ODD, &[1_000_000, 1_000_000]);
    while network.a.reader.head().header.number % 2 == 1 {
        network.submit(TO, 0, Bytes::new());
        network.block();
    }
    work(&mut network, 12);
    assert_eq!(state(&network, &terms), VaultState { state: LegState::Aborted, held: 0b11 });
    let (count, gas) = paid(&network);
    assert_eq!(count, 1);
    assert!(gas > 2_000_000, "{gas} gas: it was tried");
}
