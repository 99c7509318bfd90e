use super::{
    accepted::{Able, Accepted, Held, Weight},
    agreement::Agreement,
    attested::Attested,
    bundles::Bundles,
    certificates::Certificates,
    committees::Committees,
    conservation::Conservation,
    derivation::Derivation,
    guard::Guard,
    justice::Justice,
    once::Once,
    progress,
};
use crate::world::{OPAQUE, Shape, World, address, bls_key};
use commonware_utils::NZU64;
use std::{collections::BTreeSet, sync::Arc};
use switchyard_bridge_core::{Attestation, AttestationConflict, BridgeRecord, Checkpoint, Evidence};
use switchyard_consensus_core::{
    HubState,
    record::{Record, Update, UpdateKind},
};
use switchyard_primitives::{B256, Block, FinalityCertificate, Header, Limits, RollupId, Segment, SignerBitmap, TxKey};

fn world() -> World {
    World::new(&Shape::equals(4), Limits::default())
}

fn block(parent: &Header, timestamp_ms: u64, transactions: &[u8]) -> Block {
    let header = Header { parent: parent.hash(), height: parent.height + 1, timestamp_ms, ..*parent };
    let transactions: Vec<_> = transactions.iter().map(|tx| vec![*tx].into()).collect();
    let segment = Segment { rollup: OPAQUE, transactions };
    Block::new(header, if segment.transactions.is_empty() { Vec::new() } else { vec![segment] })
}

#[test]
fn two_blocks_of_one_height_are_no_agreement() {
    let world = world();
    let (one, other) = (block(&world.genesis, 1, &[]), block(&world.genesis, 2, &[]));
    let mut agreement = Agreement::new(world.genesis.hash());
    assert!(agreement.final_block(0, &one).is_ok() && agreement.final_block(1, &one).is_ok());
    assert!(agreement.final_block(2, &other).is_err());
    // Neither is a gap, nor a block on another parent.
    assert!(agreement.final_block(0, &block(&other.header, 3, &[])).is_err());
    let above = block(&block(&one.header, 4, &[]).header, 5, &[]);
    agreement.started(3, 0);
    assert!(agreement.final_block(3, &above).is_err());
}

#[test]
fn a_certificate_that_nobody_signed_is_no_certificate() {
    let world = world();
    let block = block(&world.genesis, 1, &[]);
    let mut certificates = Certificates::new(world.network, world.epochs, world.seats.clone());
    let signers = SignerBitmap::new(4, 0..3);
    let mut signature = [0; 96];
    signature[0] = 0xc0;
    let made_up = FinalityCertificate { epoch: 0, view: 1, parent_view: 0, block: block.hash(), signers, signature };
    let next = Some(&world.seats);
    assert!(certificates.final_block(0, &block, Some(&made_up), next).is_err());
    let of_another = FinalityCertificate { block: B256::ZERO, ..made_up.clone() };
    assert!(certificates.final_block(0, &block, Some(&of_another), next).is_err());
    assert!(certificates.final_block(0, &block, None, next).is_ok());
    // What ends an epoch must have one.
    let short = World::new(&Shape { epoch_blocks: NZU64!(2), ..Shape::equals(4) }, Limits::default());
    let mut certificates = Certificates::new(short.network, short.epochs, short.seats.clone());
    assert!(certificates.final_block(0, &block, None, next).is_err());
}

mod stake {
    use super::*;

    /// A network with epochs of two blocks, what is known of it, and a record that validator 1 has signed.
    fn network() -> (World, Committees, Record) {
        let world = World::new(&Shape { epoch_blocks: NZU64!(2), ..Shape::equals(5) }, Limits::default());
        let committees = Committees::new(&world, BTreeSet::new());
        let kind = UpdateKind::Leave;
        let update = Update::sign(world.network, world.validators[1].identity, 0, kind, &world.secrets[1].bls[0]);
        (world, committees, Record::Update(update.unwrap()))
    }

    fn next(state: &HubState, records: &[&Record]) -> Block {
        let header = state.stamp(Header { height: state.next_height(), ..world().genesis });
        let transactions = records.iter().map(|record| record.encode()).collect();
        let system = Segment { rollup: RollupId::SYSTEM, transactions };
        Block::new(header, if records.is_empty() { Vec::new() } else { vec![system] })
    }

    #[test]
    fn a_change_that_somebody_has_signed_is_followed_to_the_committee_that_it_makes() {
        let (world, mut committees, record) = network();
        committees.issue(&record.encode());
        let mut state = Arc::new(world.hub.clone());
        for height in 1..7 {
            let records = if height == 1 { vec![&record] } else { Vec::new() };
            let block = next(&state, &records);
            state = state.follow(&block).unwrap();
            assert_eq!(committees.final_block(&block), Ok(()));
            assert_eq!(committees.state(0, &state), Ok(()));
            assert_eq!(committees.are_in_force(), height >= 3, "height {height}");
        }
        assert_eq!((committees.applied(), committees.changes()), (1, 1));
        assert_eq!(committees.of(1).unwrap().members().len(), 5);
        assert_eq!(committees.of(2).unwrap().members().len(), 4);
    }

    #[test]
    fn a_change_that_nobody_has_signed_and_a_state_that_does_not_follow_from_the_log_are_found() {
        let (world, mut committees, record) = network();
        let state = Arc::new(world.hub.clone());
        assert!(committees.final_block(&next(&state, &[&record])).is_err(), "not issued");

        let (_, mut committees, _) = network();
        committees.issue(&record.encode());
        let empty = next(&state, &[]);
        committees.final_block(&empty).unwrap();
        let with = state.follow(&next(&state, &[&record])).unwrap();
        assert!(committees.state(0, &with).is_err(), "the first has what is not in the log");
        let (_, mut committees, _) = network();
        committees.final_block(&empty).unwrap();
        assert!(committees.state(0, &state.follow(&empty).unwrap()).is_ok());
        assert!(committees.state(1, &with).is_err(), "another one has something else");

        let mut liars = Committees::new(&world, [world.validators[1].identity].into());
        assert!(liars.final_block(&next(&state, &[&record])).is_ok(), "a liar's own affair");
        assert!(liars.final_block(&next(&with, &[&record])).is_err(), "the same again");
    }

    #[test]
    fn whoever_dials_a_validator_where_it_is_not_is_found() {
        let (world, committees, _) = network();
        let here = |place: usize| (world.validators[place].identity, address(place, 0));
        let mut known: std::collections::BTreeMap<_, _> = (0..5).map(here).collect();
        assert!(committees.roster(0, &known).is_ok());
        known.insert(here(3).0, address(3, 1));
        assert!(committees.roster(0, &known).is_err());
        known.remove(&here(3).0);
        assert!(committees.roster(0, &known).is_err());
        assert_ne!(bls_key(&world.secrets[3].bls[0]), bls_key(&world.secrets[3].bls[1]));
    }
}

#[test]
fn a_transaction_in_two_blocks_or_twice_in_one_is_found() {
    let world = world();
    let first = block(&world.genesis, 1, &[1, 2]);
    let mut once = Once::default();
    assert!(once.final_block(&first).is_ok() && once.final_block(&first).is_ok(), "told by two validators");
    assert!(once.final_block(&block(&first.header, 2, &[3, 2])).is_err());
    assert!(Once::default().final_block(&block(&world.genesis, 1, &[4, 4])).is_err());
}

#[test]
fn a_promise_that_is_not_kept_is_found_as_long_as_somebody_could_keep_it() {
    let keys: Vec<TxKey> = (0u8..3).map(|i| TxKey::of(OPAQUE, &[i])).collect();
    let held = |by: Option<usize>, holders: &[usize]| Held { by, holders: holders.iter().copied().collect() };
    let weight = |held, faulty| Weight { held, faulty, quorum: 3 };
    let mut accepted = Accepted::default();
    assert!(accepted.accepted(&keys[0], held(None, &[0, 1, 2]), &[weight(3, 0)]).is_ok());
    assert!(accepted.accepted(&keys[1], held(Some(0), &[0, 1]), &[weight(1, 1), weight(2, 1)]).is_ok());
    assert!(accepted.accepted(&keys[2], held(None, &[0]), &[weight(1, 1)]).is_err(), "no quorum ever held it");
    accepted.ordered(&keys[0]);
    let able = |seated: &[usize], listed: &[usize]| Able {
        seated: seated.iter().copied().collect(),
        listed: listed.iter().copied().collect(),
    };
    assert!(accepted.finish(&able(&[0, 1, 2], &[0, 1, 2])).is_err());
    assert!(accepted.finish(&able(&[2], &[1, 2])).is_ok(), "nobody who held it makes blocks");
    assert!(accepted.finish(&able(&[2], &[0, 2])).is_err(), "who accepted it sends it to those who do");
    assert!(accepted.sent_again(&able(&[2], &[0, 2])).is_err());
    accepted.crashed(0);
    assert!(accepted.finish(&able(&[0, 1], &[0, 1])).is_err(), "one still holds it");
    assert!(accepted.sent_again(&able(&[0, 1], &[0, 1])).is_ok(), "and waits for its turn to lead");
    assert!(accepted.finish(&able(&[0], &[0, 1])).is_ok());
    accepted.crashed(1);
    assert!(accepted.finish(&able(&[0, 1], &[0, 1])).is_ok());
}

#[test]
fn two_state_roots_of_one_block_are_found() {
    let mut derivation = Derivation::default();
    let (hash, root) = (B256::repeat_byte(1), B256::repeat_byte(2));
    assert!(derivation.derived(0, (OPAQUE, 1), hash, root).is_ok());
    assert!(derivation.derived(1, (OPAQUE, 1), hash, root).is_ok());
    assert!(derivation.derived(2, (OPAQUE, 1), hash, B256::repeat_byte(3)).is_err());
}

#[test]
fn a_validator_that_stands_still_is_no_progress() {
    assert!(progress::check(10, &[(0, 10 + progress::BLOCKS)]).is_ok());
    assert!(progress::check(10, &[(0, 10 + progress::BLOCKS), (1, 9 + progress::BLOCKS)]).is_err());
}

mod bridge {
    use super::*;
    use crate::world::EVM;
    use alloy::primitives::{Address, U256};
    use switchyard_bridge_core::{
        Ballot, BridgeRecord, BundleRecord, Certificate, CertifiedCheckpoint, Checkpoint, LegRecord, Vote, votes_root,
    };
    use switchyard_primitives::Bytes;
    use switchyard_rollup_core::evm::ExecutedBlock;

    fn checkpoint(number: u64, hub_height: u64, votes: &[Vote]) -> Checkpoint {
        let root = B256::from(U256::from(number));
        Checkpoint {
            rollup: EVM,
            number,
            hub_height,
            block_hash: root,
            state_root: root,
            outbox_root: B256::ZERO,
            votes_root: votes_root(votes),
        }
    }

    fn certificate(checkpoints: &[Checkpoint], votes: &[Vote]) -> Bytes {
        let signers = SignerBitmap::new(4, 0..3);
        let entry = |checkpoint: &Checkpoint| CertifiedCheckpoint {
            checkpoint: *checkpoint,
            votes: votes.to_vec(),
            signers: signers.clone(),
        };
        let entries = checkpoints.iter().map(entry).collect();
        BridgeRecord::Certificate(Certificate { entries, signature: [0; 96] }).encode()
    }

    fn with(height: u64, records: Vec<Bytes>, legs: Vec<Bytes>) -> Block {
        let header = Header { height, ..world().genesis };
        let segment = |rollup, transactions: Vec<Bytes>| Segment { rollup, transactions };
        let mut segments = vec![segment(RollupId::SYSTEM, records), segment(EVM, legs)];
        segments.retain(|segment| !segment.transactions.is_empty());
        Block::new(header, segments)
    }

    #[test]
    fn what_nobody_derived_or_is_certified_out_of_order_is_found() {
        let (first, second) = (checkpoint(1, 0, &[]), checkpoint(2, 1, &[]));
        let mut derivation = Derivation::default();
        for checkpoint in [first, second] {
            derivation.derived(0, (EVM, checkpoint.number), checkpoint.hash(), checkpoint.state_root).unwrap();
        }
        let other = Checkpoint { state_root: B256::ZERO, ..first };
        let cases: [(Vec<Vec<Bytes>>, bool); 7] = [
            (vec![vec![certificate(&[first], &[])], vec![certificate(&[second], &[])]], true),
            (vec![vec![], vec![certificate(&[first, second], &[])]], true),
            (vec![vec![certificate(&[second], &[])]], false),
            (vec![vec![certificate(&[first], &[])], vec![certificate(&[first], &[])]], false),
            (vec![vec![certificate(&[other], &[])]], false),
            (vec![vec![certificate(&[first], &[]), certificate(&[second], &[])]], false),
            (vec![vec![certificate(&[checkpoint(1, 9, &[])], &[])]], false),
        ];
        for (case, (blocks, sound)) in cases.into_iter().enumerate() {
            let mut attested = Attested::default();
            let blocks = (1..).zip(blocks).map(|(height, records)| with(height, records, Vec::new()));
            let verdicts: Vec<_> = blocks.map(|block| attested.final_block(&block, &derivation)).collect();
            assert_eq!(verdicts.iter().all(Result::is_ok), sound, "case {case}: {verdicts:?}");
        }
    }

    fn bundle(deadline: u64) -> (BundleRecord, Vec<Bytes>) {
        let transactions: Vec<Bytes> = vec![vec![1].into(), vec![2].into()];
        let leg = |tx: &Bytes| LegRecord { rollup: EVM, terms: B256::repeat_byte(3), tx: TxKey::of(EVM, tx).hash };
        let legs = transactions.iter().map(leg).collect();
        (BundleRecord { deadline, salt: B256::ZERO, legs }, transactions)
    }

    #[test]
    fn a_bundle_without_a_leg_and_one_that_was_there_before_are_found() {
        let (record, legs) = bundle(5);
        let encoded = BridgeRecord::Bundle(record.clone()).encode();
        let mut bundles = Bundles::default();
        assert!(bundles.final_block(&with(1, vec![encoded.clone()], legs.clone())).is_ok());
        assert!(bundles.final_block(&with(2, vec![encoded.clone()], legs.clone())).is_err());
        assert!(Bundles::default().final_block(&with(1, vec![encoded.clone()], legs[..1].to_vec())).is_err());
        let twice = BundleRecord { legs: vec![record.legs[0]; 2], ..record };
        let twice = BridgeRecord::Bundle(twice).encode();
        assert!(Bundles::default().final_block(&with(1, vec![twice], legs)).is_err());
    }

    #[test]
    fn a_bundle_is_committed_by_all_votes_and_aborted_by_one_or_at_its_deadline() {
        let vote = |leg, ballot| Vote { bundle: bundle(5).0.id(), leg, ballot };
        let decided = |votes: &[Vote]| {
            let (record, legs) = bundle(5);
            let (id, mut bundles) = (record.id(), Bundles::default());
            bundles.final_block(&with(1, vec![BridgeRecord::Bundle(record).encode()], legs)).unwrap();
            let mut votes = votes.iter();
            for height in 2..7 {
                let votes: Vec<Vote> = votes.next().copied().into_iter().collect();
                let record = certificate(&[checkpoint(height - 1, 1, &votes)], &votes);
                bundles.final_block(&with(height, vec![record], Vec::new())).unwrap();
            }
            bundles.fate(&id).and_then(|fate| fate.decided)
        };
        assert_eq!(decided(&[vote(0, Ballot::Yes), vote(1, Ballot::Yes)]), Some((true, 3)));
        assert_eq!(decided(&[vote(0, Ballot::Yes), vote(1, Ballot::No)]), Some((false, 3)));
        assert_eq!(decided(&[vote(0, Ballot::Stray)]), Some((false, 2)));
        assert_eq!(decided(&[vote(0, Ballot::Yes), vote(0, Ballot::Yes)]), Some((false, 5)));
        assert_eq!(decided(&[]), Some((false, 5)));
    }

    #[test]
    fn coin_that_is_missing_is_found() {
        let rich = Address::repeat_byte(5);
        let executed = |has: u64| {
            let mut conservation = Conservation::default();
            conservation.begin(EVM, [(Address::ZERO, U256::from(7)), (rich, U256::from(9))]);
            let header = alloy::consensus::Header { number: 1, ..Default::default() };
            let block = ExecutedBlock {
                header,
                hash: B256::ZERO,
                hub_height: 1,
                transactions: Vec::new(),
                senders: Vec::new(),
                receipts: Vec::new(),
                withdrawals: Vec::new(),
            };
            let balance = |account| Ok::<_, String>(U256::from(if account == Address::ZERO { has } else { 0 }));
            conservation.executed(EVM, &block, balance)
        };
        assert!(executed(7).is_ok());
        assert!(executed(6).is_err() && executed(8).is_err());
    }
}

mod votes {
    use super::*;
    use crate::byzantine::scheme;
    use commonware_codec::Encode as _;
    use commonware_consensus::{
        simplex::types::{Finalize, Notarize, Nullify, Proposal, Vote},
        types::{Epoch, Round, View},
    };
    use commonware_cryptography::keccak256::Digest;

    fn proposal(view: u64, payload: u8) -> Proposal<Digest> {
        Proposal::new(Round::new(Epoch::new(0), View::new(view)), View::new(0), Digest([payload; 32]))
    }

    #[test]
    fn votes_that_exclude_each_other_are_found() {
        let scheme = scheme(&world(), 1);
        let notarize =
            |view, payload| Vote::Notarize(Notarize::sign(&scheme, proposal(view, payload)).unwrap()).encode().to_vec();
        let finalize =
            |view, payload| Vote::Finalize(Finalize::sign(&scheme, proposal(view, payload)).unwrap()).encode().to_vec();
        let nullify = |view| {
            let vote = Nullify::sign::<Digest>(&scheme, proposal(view, 0).round).unwrap();
            Vote::<_, Digest>::Nullify(vote).encode().to_vec()
        };
        let cases: [(&[Vec<u8>], bool); 6] = [
            (&[notarize(1, 1), notarize(1, 1), nullify(1)], true),
            (&[notarize(1, 1), finalize(1, 1), notarize(2, 2)], true),
            (&[notarize(1, 1), notarize(1, 2)], false),
            (&[finalize(1, 1), finalize(1, 2)], false),
            (&[finalize(1, 1), nullify(1)], false),
            (&[nullify(1), finalize(1, 1)], false),
        ];
        for (case, (votes, sound)) in cases.into_iter().enumerate() {
            let mut guard = Guard::default();
            let verdicts: Vec<bool> = votes.iter().map(|vote| guard.vote(1, |_| Some(1), vote).is_ok()).collect();
            assert_eq!(verdicts.iter().all(|ok| *ok), sound, "case {case}: {verdicts:?}");
        }
        assert!(Guard::default().vote(2, |_| Some(2), &notarize(1, 1)).is_err(), "in another's name");
        assert!(Guard::default().vote(1, |_| Some(1), &[9]).is_err());
    }
}

#[test]
fn every_seat_leads_within_the_stated_blocks() {
    for (seats, blocks) in (1..12u64).flat_map(|seats| (1..15u64).map(move |blocks| (seats, blocks))) {
        let within = super::accepted::turn_within(seats, blocks);
        let views = (0..3 * seats).flat_map(|epoch| (1..=blocks).map(move |view| (epoch + view) % seats));
        let leaders: Vec<u64> = views.collect();
        let within = usize::try_from(within).unwrap();
        for window in leaders.windows(within) {
            let led: BTreeSet<&u64> = window.iter().collect();
            assert_eq!(led.len() as u64, seats, "{seats} seats, epochs of {blocks} blocks");
        }
    }
}

#[test]
fn an_honest_operator_is_accused_by_nobody() {
    let world = world();
    let operator = world.validators[1].identity;
    let said = |root: u8| {
        let checkpoint = Checkpoint {
            rollup: RollupId(1),
            number: 1,
            hub_height: 1,
            block_hash: B256::ZERO,
            state_root: B256::repeat_byte(root),
            outbox_root: B256::ZERO,
            votes_root: B256::ZERO,
        };
        Attestation::sign(world.network, operator, checkpoint, Vec::new(), &world.secrets[1].operator).unwrap()
    };
    let conflict = AttestationConflict::new(&said(1), &said(2)).unwrap();
    let record = BridgeRecord::Evidence(Evidence::Attestations(conflict)).encode();
    let mut justice = Justice::default();
    justice.record(0, &record, |accused| *accused == operator).unwrap();
    assert_eq!(justice.accused(), (1, 0));
    assert!(justice.record(0, &record, |_| false).is_err());
    assert!(justice.record(0, &[1, 2, 3], |_| true).is_err(), "nothing else");
}
