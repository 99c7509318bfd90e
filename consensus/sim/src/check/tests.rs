use super::{
    accepted::Accepted, agreement::Agreement, certificates::Certificates, derivation::Derivation, guard::Guard,
    once::Once, progress,
};
use crate::world::{OPAQUE, Shape, World};
use switchyard_primitives::{B256, Block, FinalityCertificate, Header, Limits, Segment, SignerBitmap, TxKey};

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
    let mut certificates = Certificates::new(world.network, world.seats.clone());
    let signers = SignerBitmap::new(4, 0..3);
    let mut signature = [0; 96];
    signature[0] = 0xc0;
    let made_up = FinalityCertificate { epoch: 0, view: 1, parent_view: 0, block: block.hash(), signers, signature };
    assert!(certificates.certificate(0, &block, &made_up).is_err());
    let of_another = FinalityCertificate { block: B256::ZERO, ..made_up };
    assert!(certificates.certificate(0, &block, &of_another).is_err());
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
    let mut accepted = Accepted::default();
    assert!(accepted.accepted(&keys[0], [0, 1, 2].into(), 3, (3, 0)).is_ok());
    assert!(accepted.accepted(&keys[1], [0, 1].into(), 2, (3, 1)).is_ok());
    assert!(accepted.accepted(&keys[2], [0].into(), 1, (3, 1)).is_err(), "no quorum ever held it");
    accepted.ordered(&keys[0]);
    assert!(accepted.finish().is_err());
    accepted.crashed(0);
    assert!(accepted.finish().is_err(), "one still holds it");
    accepted.crashed(1);
    assert!(accepted.finish().is_ok());
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
            let verdicts: Vec<bool> = votes.iter().map(|vote| guard.vote(1, Some(1), vote).is_ok()).collect();
            assert_eq!(verdicts.iter().all(|ok| *ok), sound, "case {case}: {verdicts:?}");
        }
        assert!(Guard::default().vote(2, Some(2), &notarize(1, 1)).is_err(), "in another's name");
        assert!(Guard::default().vote(1, Some(1), &[9]).is_err());
    }
}
