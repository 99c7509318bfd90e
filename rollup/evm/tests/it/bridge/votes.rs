//! Which checkpoint carries which vote.

use super::*;
use switchyard_bridge_core::{Ballot, Vote, votes_root};
use switchyard_rollup_core::{TxOutcome, evm::EvmError};

/// The votes of the checkpoints that hub blocks have made, told by their blocks' numbers.
fn votes(rollup: &Rollup, applied: &Applied) -> Vec<(u64, Vec<Vote>)> {
    let of = |checkpoint: &Checkpoint| {
        let kept = rollup.reader.checkpoint(checkpoint.number).unwrap().unwrap();
        assert_eq!((kept.checkpoint, checkpoint.votes_root), (*checkpoint, votes_root(&kept.votes)));
        (checkpoint.number, kept.votes)
    };
    applied.checkpoints.iter().map(of).collect()
}

fn vote(bundle: &Bundle, leg: u8, ballot: Ballot) -> Vote {
    Vote { bundle: bundle.id(), leg, ballot }
}

fn leg_at(bundle: &Bundle, leg: u8, tx: &Bytes) -> LegAt {
    LegAt { bundle: bundle.id(), leg, tx: keccak256(tx) }
}

fn new(sealing: Sealing) -> Rollup {
    Rollup::with_config(bridge_config(A, sealing, GAS_LIMIT))
}

#[test]
fn legs_vote_in_the_logs_order_and_strays_after_them() {
    let mut rollup = new(Sealing::HubBlock);
    let ((first, legs), (alone, others)) = (bundle([1, 2], 1), bundle([3, 4], 2));
    let a = send(A, 1, 0, ATOMIC_VAULT, 5, prepare(&first, 0, &legs[0]));
    let b = send(A, 2, 0, ATOMIC_VAULT, 6, prepare(&first, 1, &legs[1]));
    let c = send(A, 3, 0, ATOMIC_VAULT, 5, prepare(&alone, 0, &others[0]));
    let at = vec![leg_at(&first, 0, &a), leg_at(&first, 1, &b)];
    let applied = next(&mut rollup, 1_000, B256::ZERO, vec![c, a, b], at);
    let expected = vec![vote(&first, 0, Ballot::Yes), vote(&first, 1, Ballot::No), vote(&alone, 0, Ballot::Stray)];
    assert_eq!(votes(&rollup, &applied), [(1, expected)]);
    // Without votes the root is zero.
    let applied = next(&mut rollup, 2_000, B256::ZERO, vec![send(A, 5, 0, Address::ZERO, 1, vec![])], vec![]);
    assert_eq!(votes(&rollup, &applied), [(2, vec![])]);
    assert_eq!(applied.checkpoints[0].votes_root, B256::ZERO);
}

#[test]
fn a_no_of_legs_that_no_block_executes_comes_at_once_in_an_empty_block() {
    let mut rollup = new(Sealing::HubBlock);
    let (bundle, legs) = bundle([1, 2], 1);
    let gap = send(A, 1, 7, ATOMIC_VAULT, 5, prepare(&bundle, 0, &legs[0]));
    let junk = Bytes::from_static(b"no transaction");
    // The rollup has never been used, and still it answers.
    let at = vec![leg_at(&bundle, 0, &gap), leg_at(&bundle, 1, &junk)];
    let root = B256::repeat_byte(5);
    let applied = next(&mut rollup, 1_000, root, vec![gap, junk], at);
    assert_eq!(votes(&rollup, &applied), [(1, vec![vote(&bundle, 0, Ballot::No), vote(&bundle, 1, Ballot::No)])]);
    let block = rollup.reader.head();
    assert_eq!((block.transactions.len(), block.hub_height), (0, 1));
    assert_eq!(block.header.parent_beacon_block_root, Some(root));
}

#[test]
fn a_leg_that_runs_out_of_gas_or_cannot_pay_for_two_votes_no_and_gives_nothing() {
    let mut rollup = new(Sealing::HubBlock);
    let ((short, legs), (first, gives), (second, again)) = (bundle([1, 2], 1), bundle([3, 2], 2), bundle([3, 2], 3));
    // In the middle of the vault's work: a whole `prepare` takes 88,000.
    let few = tx(0, TxKind::Call(ATOMIC_VAULT), 5, prepare(&short, 0, &legs[0]), 60_000);
    let out_of_gas = sign(1, few);
    // Two bundles over the same funds: what the first one gives is not there for the second.
    let all = rollup.reader.account(0, wallet(3).address()).unwrap().unwrap().balance.to::<u128>();
    let over_half = all / 2 + 1;
    let with = |bundle: &Bundle, leg: &Leg, nonce| {
        let mut leg = leg.clone();
        leg.moves[0].amount = U256::from(over_half);
        let bundle = Bundle { legs: vec![leg.hash(), bundle.legs[1]], ..bundle.clone() };
        let sent = send(A, 3, nonce, ATOMIC_VAULT, over_half, prepare(&bundle, 0, &leg));
        (bundle, sent)
    };
    let ((first, a), (second, b)) = (with(&first, &gives[0], 0), with(&second, &again[0], 1));
    let at = vec![leg_at(&short, 0, &out_of_gas), leg_at(&first, 0, &a), leg_at(&second, 0, &b)];
    let applied = next(&mut rollup, 1_000, B256::ZERO, vec![out_of_gas, a, b], at);
    let expected = vec![vote(&short, 0, Ballot::No), vote(&first, 0, Ballot::Yes), vote(&second, 0, Ballot::No)];
    assert_eq!(votes(&rollup, &applied), [(1, expected)]);
    let held = rollup.reader.account(1, ATOMIC_VAULT).unwrap().unwrap().balance;
    assert_eq!(held, U256::from(over_half), "of the one that voted yes");
}

#[test]
fn a_leg_that_was_sent_alone_before_its_bundle_is_a_stray_and_then_a_no() {
    let mut rollup = new(Sealing::HubBlock);
    let (bundle, legs) = bundle([1, 2], 1);
    let a = send(A, 1, 0, ATOMIC_VAULT, 5, prepare(&bundle, 0, &legs[0]));
    let b = send(A, 2, 0, ATOMIC_VAULT, 5, prepare(&bundle, 1, &legs[1]));
    let applied = next(&mut rollup, 1_000, B256::ZERO, vec![a.clone()], vec![]);
    assert_eq!(votes(&rollup, &applied), [(1, vec![vote(&bundle, 0, Ballot::Stray)])]);
    let at = vec![leg_at(&bundle, 0, &a), leg_at(&bundle, 1, &b)];
    let applied = next(&mut rollup, 2_000, B256::ZERO, vec![a, b], at);
    assert_eq!(votes(&rollup, &applied), [(2, vec![vote(&bundle, 0, Ballot::No), vote(&bundle, 1, Ballot::Yes)])]);
}

#[test]
fn with_a_block_a_second_the_vote_is_of_the_block_that_has_the_transaction() {
    let mut rollup = new(Sealing::OneSecond);
    let (bundle, legs) = bundle([1, 2], 1);
    let a = send(A, 1, 0, ATOMIC_VAULT, 5, prepare(&bundle, 0, &legs[0]));
    let junk = Bytes::from_static(b"no transaction");
    let applied = next(&mut rollup, 1_000, B256::ZERO, vec![a.clone()], vec![leg_at(&bundle, 0, &a)]);
    assert!(applied.checkpoints.is_empty());
    // Its hub block has nothing else for this rollup, so the open block does not end with it.
    let applied = next(&mut rollup, 1_500, B256::ZERO, vec![junk.clone()], vec![leg_at(&bundle, 1, &junk)]);
    assert!(applied.checkpoints.is_empty());
    rollup = rollup.reopen();
    let applied = next(&mut rollup, 2_000, B256::ZERO, vec![], vec![]);
    let expected = [(1, vec![vote(&bundle, 0, Ballot::Yes)]), (2, vec![vote(&bundle, 1, Ballot::No)])];
    assert_eq!(votes(&rollup, &applied), expected);
    assert_eq!(applied.checkpoints.iter().map(|c| c.hub_height).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn legs_whose_hub_block_asks_for_too_much_gas_vote_no() {
    let mut rollup = Rollup::with_config(bridge_config(A, Sealing::HubBlock, 1_000_000));
    let burn = |nonce| sign(0, tx(nonce, TxKind::Create, 0, vec![0xfe], 900_000));
    let (bundle, legs) = bundle([1, 2], 1);
    let last = send(A, 1, 0, ATOMIC_VAULT, 5, prepare(&bundle, 0, &legs[0]));
    let segment = (0..16).map(burn).chain([last.clone()]).collect();
    let applied = next(&mut rollup, 1_000, B256::ZERO, segment, vec![leg_at(&bundle, 0, &last)]);
    let votes = votes(&rollup, &applied);
    assert_eq!(votes.len(), 17);
    assert_eq!(votes.last(), Some(&(17, vec![vote(&bundle, 0, Ballot::No)])));
}

#[test]
fn while_votes_wait_that_no_later_hub_block_brings_there_is_no_snapshot() {
    let mut rollup = Rollup::with_config(bridge_config(A, Sealing::OneSecond, 1_000_000));
    let burn = |nonce| sign(0, tx(nonce, TxKind::Create, 0, vec![0xfe], 900_000));
    let (bundle, legs) = bundle([1, 2], 1);
    let last = send(A, 1, 7, ATOMIC_VAULT, 5, prepare(&bundle, 0, &legs[0]));
    // More than may wait: two blocks at once, and one in which all is skipped, of which none is made. The rollup's clock is
    // ahead of the hub's.
    let segment = (0..2).chain(10..19).map(burn).chain([last.clone()]).collect();
    let applied = next(&mut rollup, 1_000, B256::ZERO, segment, vec![leg_at(&bundle, 0, &last)]);
    assert_eq!(applied.checkpoints.len(), 2);
    assert!(votes(&rollup, &applied).iter().all(|(_, votes)| votes.is_empty()));
    let mut bytes = Vec::new();
    assert!(matches!(rollup.reader.write_snapshot(&mut bytes), Err(EvmError::Busy(_))));
    rollup = rollup.reopen();
    let applied = next(&mut rollup, 2_000, B256::ZERO, vec![], vec![]);
    assert!(applied.checkpoints.is_empty(), "not ahead of its time");
    let applied = next(&mut rollup, 3_000, B256::ZERO, vec![], vec![]);
    assert_eq!(votes(&rollup, &applied), [(3, vec![vote(&bundle, 0, Ballot::No)])]);
    rollup.reader.write_snapshot(&mut bytes).unwrap();
}

#[test]
fn legs_that_find_no_room_vote_no_and_those_that_wait_before_them_are_not_touched() {
    let mut rollup = Rollup::with_config(bridge_config(A, Sealing::OneSecond, 1_000_000));
    let burn = |nonce| sign(0, tx(nonce, TxKind::Create, 0, vec![0xfe], 900_000));
    let (bundle, legs) = bundle([1, 2], 1);
    let first = send(A, 1, 0, ATOMIC_VAULT, 5, prepare(&bundle, 0, &legs[0]));
    let last = send(A, 2, 0, ATOMIC_VAULT, 6, prepare(&bundle, 1, &legs[1]));
    // Sixteen blocks are closed at once; of the rest no more waits than eight blocks' worth.
    let mut segment: Vec<Bytes> = (0..30).map(burn).chain([last.clone()]).collect();
    segment.insert(20, first.clone());
    let at = vec![leg_at(&bundle, 0, &first), leg_at(&bundle, 1, &last)];
    let applied = next(&mut rollup, 1_000, B256::ZERO, segment, at);
    assert_eq!(applied.checkpoints.len(), 16);
    assert!(matches!(rollup.outcome(&last), TxOutcome::Skipped { reason } if reason.contains("no room")));
    rollup = rollup.reopen();
    let mut cast: Vec<Vote> = Vec::new();
    for second in 2..40 {
        let applied = next(&mut rollup, second * 1_000, B256::ZERO, vec![], vec![]);
        cast.extend(votes(&rollup, &applied).into_iter().flat_map(|(_, votes)| votes));
    }
    assert_eq!(cast, [vote(&bundle, 1, Ballot::No), vote(&bundle, 0, Ballot::Yes)]);
}

#[test]
fn roots_are_those_of_the_openers_in_empty_blocks_too() {
    for sealing in [Sealing::HubBlock, Sealing::OneSecond] {
        let mut rollup = new(sealing);
        let root = |n: u8| B256::repeat_byte(n);
        next(&mut rollup, 1_000, root(1), vec![send(A, 1, 0, Address::ZERO, 1, vec![])], vec![]);
        next(&mut rollup, 1_400, root(2), vec![send(A, 1, 1, Address::ZERO, 1, vec![])], vec![]);
        rollup = rollup.reopen();
        next(&mut rollup, 2_000, root(3), vec![], vec![]);
        next(&mut rollup, 30_000, root(4), vec![], vec![]);
        let roots: Vec<_> = (1..=rollup.reader.head().header.number)
            .map(|n| rollup.reader.header(n).unwrap().unwrap().parent_beacon_block_root.unwrap())
            .collect();
        let expected = match sealing {
            Sealing::HubBlock => vec![root(1), root(2), root(4)],
            Sealing::OneSecond => vec![root(1), root(4)],
        };
        assert_eq!(roots, expected, "{sealing:?}");
    }
}

#[test]
fn a_rollup_without_the_contracts_has_no_outbox_and_its_blocks_are_as_before() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let applied = rollup.apply(vec![transfer(0, 0, OUTBOX, 5)]);
    assert_eq!(applied.checkpoints[0].outbox_root, B256::ZERO);
    // With them, no messages are a root too.
    let mut rollup = new(Sealing::HubBlock);
    let applied = rollup.apply(vec![transfer(0, 0, Address::ZERO, 5)]);
    assert_eq!(applied.checkpoints[0].outbox_root, seal(0, B256::ZERO));
    assert_eq!(rollup.reader.outbox_count(), 0);
}

#[test]
fn a_block_is_attested_when_it_is_closed_here_and_never_less_than_before() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let mut head = rollup.reader.watch_head();
    rollup.reader.set_attested(2);
    assert_eq!(rollup.reader.attested(), 0);
    for nonce in 0..3 {
        rollup.apply(vec![transfer(0, nonce, Address::ZERO, 1)]);
        assert!(head.has_changed().unwrap());
        assert_eq!(*head.borrow_and_update(), nonce + 1);
        assert_eq!(rollup.reader.attested(), (nonce + 1).min(2));
    }
    rollup.reader.set_attested(1);
    assert_eq!(rollup.reader.attested(), 2);
    assert_eq!(rollup.reader.number_at(switchyard_primitives::Level::Attested), 2);
    rollup.reader.set_attested(3);
    assert_eq!(rollup.reader.attested(), 3);
    // The hub says it again after a restart.
    assert_eq!(rollup.reopen().reader.attested(), 0);
}
