//! The light client refuses every kind of lie by its name.

use crate::fake::{FakeHub, certify, seats, secrets, segment};
use blst::min_pk::SecretKey;
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use std::sync::{Arc, LazyLock};
use switchyard_consensus_core::{EpochRules, LightClient, SeatSet};
use switchyard_node::cli::light::{Follower, Trust, VerifyError, verify_segment};
use switchyard_primitives::{B256, Block, FinalityProof, Header, RollupId, SegmentProof, SegmentTable, SignerBitmap};
use switchyard_proto::{ProvenSegment, to_bytes, v1};
use switchyard_rpc::Gateway;

const ROLLUP: RollupId = RollupId(7);

/// Four blocks: 1 holds two transactions for the rollup, 2 and 3 something for others only, 4 holds one.
fn hub_of(other: &[u8]) -> Arc<FakeHub> {
    let hub = FakeHub::new();
    hub.push(vec![segment(5, &[b"x"]), segment(7, &[b"a", b"b"]), segment(9, &[b"c"])]);
    hub.push(vec![segment(6, &[other]), segment(9, &[b"d"])]);
    hub.push_block(vec![segment(9, &[b"e"])], false);
    hub.push(vec![segment(7, &[b"f"])]);
    hub
}

fn hub() -> Arc<FakeHub> {
    hub_of(b"y")
}

fn trust(hub: &FakeHub) -> Trust {
    let info = hub.info();
    let client = LightClient::new(info.id, hub.seats().clone());
    let epochs = EpochRules { blocks: std::num::NonZeroU64::MAX, seats_per_validator: 1 };
    Trust { network: info.id, genesis: hub.block(0).header, epochs, client }
}

/// What an honest node serves for one rollup and block.
fn block_of(hub: &FakeHub, rollup: u64, height: u64) -> v1::BlockSegment {
    let segment = hub.segment(RollupId(rollup), height).unwrap().unwrap();
    let (header, transactions, proof) = (segment.header, segment.transactions, segment.proof);
    ProvenSegment { header, transactions, proof }.into()
}

fn finality_of(hub: &FakeHub, height: u64) -> FinalityProof {
    hub.finality(height).unwrap().unwrap()
}

fn answer(hub: &FakeHub, height: u64) -> v1::GetSegmentResponse {
    let finality = Some((&finality_of(hub, height)).into());
    v1::GetSegmentResponse { block: Some(block_of(hub, ROLLUP.0, height)), finality }
}

fn message(hub: &FakeHub, heights: std::ops::RangeInclusive<u64>) -> v1::StreamSegmentsResponse {
    let finality = Some((&finality_of(hub, *heights.end())).into());
    v1::StreamSegmentsResponse { blocks: heights.map(|h| block_of(hub, ROLLUP.0, h)).collect(), finality }
}

/// Checks that a changed answer about a block is refused for the named reason, and that the unchanged one holds.
#[track_caller]
fn check_lie(height: u64, change: impl FnOnce(&FakeHub, &mut v1::BlockSegment, &mut FinalityProof), code: &str) {
    let hub = hub();
    let honest = answer(&hub, height);
    let trust = trust(&hub);
    verify_segment(&trust, ROLLUP, height, honest.clone()).unwrap();
    let (mut block, mut finality) = (honest.block.unwrap(), finality_of(&hub, height));
    change(&hub, &mut block, &mut finality);
    let lie = v1::GetSegmentResponse { block: Some(block), finality: Some((&finality).into()) };
    let error = verify_segment(&trust, ROLLUP, height, lie).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
}

fn proof(block: &Block, rollup: u64) -> Bytes {
    SegmentTable::new(block.segments()).prove(RollupId(rollup)).encode().into()
}

#[test]
fn the_truth_is_what_the_block_holds() {
    let hub = hub();
    let trust = trust(&hub);
    for (height, transactions) in [(0, vec![]), (1, vec!["a", "b"]), (2, vec![]), (3, vec![]), (4, vec!["f"])] {
        let verified = verify_segment(&trust, ROLLUP, height, answer(&hub, height)).unwrap();
        assert_eq!(verified.header, hub.block(height).header);
        assert_eq!(verified.hash, hub.block(height).hash());
        let transactions: Vec<_> = transactions.into_iter().map(switchyard_primitives::Bytes::from).collect();
        assert_eq!(verified.transactions, transactions);
        assert_eq!(verified.signers, 3);
    }
}

#[test]
fn a_dropped_transaction() {
    check_lie(1, |_, block, _| drop(block.transactions.pop()), "wrong_transactions");
    check_lie(1, |_, block, _| drop(block.transactions.remove(0)), "wrong_transactions");
}

#[test]
fn transactions_in_another_order() {
    check_lie(1, |_, block, _| block.transactions.reverse(), "wrong_transactions");
}

#[test]
fn an_added_transaction() {
    check_lie(1, |_, block, _| block.transactions.push(Bytes::from("more")), "wrong_transactions");
    check_lie(1, |_, block, _| block.transactions.push(Bytes::new()), "wrong_transactions");
    check_lie(2, |_, block, _| block.transactions.push(Bytes::from("more")), "wrong_transactions");
}

#[test]
fn a_changed_transaction() {
    check_lie(1, |_, block, _| block.transactions[1] = Bytes::from("B"), "wrong_transactions");
}

#[test]
fn the_boundary_between_transactions_moved() {
    let join = |block: &mut v1::BlockSegment| block.transactions = vec![Bytes::from("ab"), Bytes::new()];
    check_lie(1, |_, block, _| join(block), "wrong_transactions");
}

#[test]
fn another_rollups_segment() {
    check_lie(1, |hub, block, _| *block = block_of(hub, 9, 1), "wrong_rollup");
    check_lie(4, |hub, block, _| *block = block_of(hub, 9, 4), "wrong_rollup");
}

#[test]
fn absence_claimed_where_there_is_something() {
    check_lie(1, |_, block, _| block.transactions.clear(), "wrong_transactions");
    // The proof that rollup 6 is absent, between 5 and 7.
    let other = |hub: &FakeHub, block: &mut v1::BlockSegment, rollup| {
        block.transactions.clear();
        block.proof = proof(&hub.block(1), rollup);
    };
    check_lie(1, |hub, block, _| other(hub, block, 6), "wrong_rollup");
    check_lie(1, |hub, block, _| other(hub, block, 1), "wrong_rollup");
    check_lie(1, |hub, block, _| other(hub, block, 10), "wrong_rollup");
    // The proof of a table that lacks the rollup.
    let without = |hub: &FakeHub, block: &mut v1::BlockSegment| {
        let honest = hub.block(1);
        let others = honest.segments().iter().filter(|segment| segment.rollup != ROLLUP).cloned().collect();
        block.transactions.clear();
        block.proof = proof(&Block::from_parts(honest.header, others), 7);
    };
    check_lie(1, |hub, block, _| without(hub, block), "segment_proof");
    let nothing = SegmentProof::Absent { count: 0, left: None, right: None }.encode();
    let empty = |block: &mut v1::BlockSegment| {
        block.transactions.clear();
        block.proof = nothing.into();
    };
    check_lie(1, |_, block, _| empty(block), "segment_proof");
}

#[test]
fn presence_claimed_where_there_is_nothing() {
    let invent = |block: &mut v1::BlockSegment, hub: &FakeHub| {
        let honest = hub.block(2);
        let mut segments = honest.segments().to_vec();
        segments.insert(1, segment(7, &[b"invented"]));
        block.transactions = vec![Bytes::from("invented")];
        block.proof = proof(&Block::from_parts(honest.header, segments), 7);
    };
    check_lie(2, |hub, block, _| invent(block, hub), "segment_proof");
}

#[test]
fn another_header() {
    let reheader = |header: &Header, root: B256| to_bytes(Header { segment_root: root, ..*header }.encode());
    // A header that the transactions fit, which nobody signed.
    let own = |hub: &FakeHub, block: &mut v1::BlockSegment| {
        let honest = hub.block(1).header;
        let segments = vec![segment(7, &[b"mine"])];
        let table = SegmentTable::new(&segments);
        block.header = reheader(&honest, table.root());
        block.transactions = vec![Bytes::from("mine")];
        block.proof = table.prove(ROLLUP).encode().into();
    };
    check_lie(1, |hub, block, _| own(hub, block), "wrong_block");
    let own_twice = |hub: &FakeHub, block: &mut v1::BlockSegment, finality: &mut FinalityProof| {
        own(hub, block);
        finality.headers[0] = Header::decode(&block.header).unwrap();
    };
    check_lie(1, own_twice, "not_final");
}

#[test]
fn another_height() {
    let later = |hub: &FakeHub, block: &mut v1::BlockSegment, finality: &mut FinalityProof| {
        (*block, *finality) = (block_of(hub, 7, 4), finality_of(hub, 4));
    };
    check_lie(1, later, "wrong_height");
    let earlier = |hub: &FakeHub, block: &mut v1::BlockSegment, finality: &mut FinalityProof| {
        (*block, *finality) = (block_of(hub, 7, 1), finality_of(hub, 1));
    };
    check_lie(2, earlier, "wrong_height");
}

#[test]
fn a_forged_certificate() {
    let forge = |secrets: Vec<SecretKey>, signers: usize, network: u8| {
        move |hub: &FakeHub, _: &mut v1::BlockSegment, finality: &mut FinalityProof| {
            finality.certificate = certify(B256::repeat_byte(network), &secrets, &hub.block(1).header, signers);
        }
    };
    let strangers: Vec<SecretKey> = (11..=14).map(|i| SecretKey::key_gen(&[i; 32], &[]).unwrap()).collect();
    check_lie(1, forge(strangers.clone(), 4, 0xaa), "not_final");
    check_lie(1, forge(secrets(), 2, 0xaa), "not_final");
    check_lie(1, forge(secrets(), 4, 0xab), "not_final");
    let mut mixed = secrets();
    mixed[2] = strangers[0].clone();
    check_lie(1, forge(mixed, 3, 0xaa), "not_final");

    // Two signatures said to be those of three seats, of all, or of a larger set.
    for (seats, signers) in [(4, 0..3), (4, 0..4), (7, 0..5)] {
        let claim = |hub: &FakeHub, _: &mut v1::BlockSegment, finality: &mut FinalityProof| {
            finality.certificate = certify(hub.info().id, &secrets(), &hub.block(1).header, 2);
            finality.certificate.signers = SignerBitmap::new(seats, signers);
        };
        check_lie(1, claim, "not_final");
    }
    check_lie(1, |_, _, finality| finality.certificate.signature = [0; 96], "not_final");
    check_lie(1, |_, _, finality| finality.certificate.view += 1, "not_final");
    check_lie(1, |_, _, finality| finality.certificate.epoch = 1, "unknown_epoch");
}

#[test]
fn a_certificate_of_another_block() {
    check_lie(1, |hub, _, finality| *finality = finality_of(hub, 2), "wrong_block");
    check_lie(
        1,
        |hub, _, finality| finality.certificate = certify(hub.info().id, &secrets(), &hub.block(2).header, 3),
        "not_final",
    );
    // Blocks 3 and 4 share a certificate; the way from one to the other must not have a gap.
    check_lie(3, |_, _, finality| *finality = finality_of(&hub(), 4), "wrong_block");
    check_lie(3, |_, _, finality| finality.headers.truncate(1), "not_final");
    check_lie(3, |hub, _, finality| finality.headers.insert(0, hub.block(1).header), "not_final");
}

#[test]
fn a_truncated_answer() {
    check_lie(1, |_, block, _| block.proof.truncate(block.proof.len() - 1), "malformed");
    check_lie(1, |_, block, _| block.proof.clear(), "malformed");
    check_lie(1, |_, block, _| block.header.truncate(188), "malformed");
    let hub = hub();
    let honest = answer(&hub, 1);
    let refused = |answer| verify_segment(&trust(&hub), ROLLUP, 1, answer).unwrap_err().code();
    assert_eq!(refused(v1::GetSegmentResponse { block: None, ..honest.clone() }), "malformed");
    assert_eq!(refused(v1::GetSegmentResponse { finality: None, ..honest.clone() }), "malformed");
    let mut cut = honest;
    cut.finality.as_mut().unwrap().certificate.truncate(100);
    assert_eq!(refused(cut), "malformed");
}

#[test]
fn a_run_with_a_block_left_out_or_changed_places() {
    let hub = hub();
    let follow = |from, message| Follower::new(trust(&hub), ROLLUP, from).accept(message);
    let run = message(&hub, 2..=4);
    assert_eq!(follow(2, run.clone()).unwrap().len(), 3);
    let refused = |change: &dyn Fn(&mut Vec<v1::BlockSegment>)| {
        let mut lie = run.clone();
        change(&mut lie.blocks);
        follow(2, lie).unwrap_err().code()
    };
    assert_eq!(refused(&|blocks| drop(blocks.remove(0))), "wrong_height");
    assert_eq!(refused(&|blocks| drop(blocks.remove(1))), "wrong_height");
    assert_eq!(refused(&|blocks| drop(blocks.pop())), "wrong_block");
    assert_eq!(refused(&|blocks| blocks.swap(0, 1)), "wrong_height");
    assert_eq!(refused(&|blocks| blocks[1] = blocks[0].clone()), "wrong_height");
    assert_eq!(refused(&|blocks| blocks.clear()), "blocks");
    assert_eq!(refused(&|blocks| blocks.resize(65, blocks[0].clone())), "blocks");
}

#[test]
fn a_second_chain_signed_by_the_same_seats() {
    let (hub, fork) = (hub(), hub_of(b"forked"));
    let mut follower = Follower::new(trust(&hub), ROLLUP, 2);
    follower.accept(message(&hub, 2..=2)).unwrap();
    let error = follower.accept(message(&fork, 3..=3)).unwrap_err();
    let (expected, found) = (hub.block(2).hash(), fork.block(2).hash());
    assert_eq!(error, VerifyError::Chain { height: 3, expected, found });
    // A lie changes nothing: the truth is still accepted.
    assert_eq!(follower.accept(message(&hub, 3..=4)).unwrap().len(), 2);
    assert_eq!(follower.next(), 5);
}

#[test]
fn a_log_that_does_not_start_at_the_networks_genesis() {
    let honest = hub();
    let (secrets, network) = (secrets(), honest.info().id);
    let seats = SeatSet::new(seats(&secrets)).unwrap();
    let other = FakeHub::of(network, Header::genesis(network, 999, seats.hash()), seats, secrets);
    other.push(vec![]);
    let refused = |height| verify_segment(&trust(&honest), ROLLUP, height, answer(&other, height)).unwrap_err().code();
    assert_eq!(refused(0), "wrong_genesis");
    assert_eq!(refused(1), "broken_chain");
}

static HONEST: LazyLock<(Trust, Vec<u8>)> = LazyLock::new(|| {
    let hub = hub();
    (trust(&hub), answer(&hub, 3).encode_to_vec())
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..Default::default() })]

    #[test]
    fn no_changed_byte_proves_anything_else(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (trust, honest) = &*HONEST;
        let truth = verify_segment(trust, ROLLUP, 3, v1::GetSegmentResponse::decode(honest.as_slice()).unwrap());
        let mut bytes = honest.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(changed) = v1::GetSegmentResponse::decode(bytes.as_slice())
            && let Ok(verified) = verify_segment(trust, ROLLUP, 3, changed)
        {
            prop_assert_eq!(Ok(verified), truth);
        }
    }
}
