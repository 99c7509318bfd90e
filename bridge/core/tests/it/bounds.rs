//! What nobody can get more of than there is for them.

use crate::state::{A, B, after, block_with, certified, checkpoint, follow, network, refusal};
use switchyard_bridge_core::{
    BridgeError, BridgeRecord, BridgeState, Bundle, BundleRecord, Certificate, Checkpoint, Draft, LegRecord,
    SystemError,
};
use switchyard_primitives::{B256, Bytes, RollupId, Segment, keccak256};

/// So many bundles with as many legs as may be, all of them on one rollup, with the legs' transactions.
fn crowd(bundles: u16) -> (Vec<Bytes>, Vec<Segment>) {
    let legs = u16::try_from(Bundle::LEGS_MAX).unwrap();
    let payload = |bundle: u16, leg: u16| Bytes::copy_from_slice(&(bundle * legs + leg).to_be_bytes());
    let bundle = |of: u16| {
        let leg = |leg| {
            let tx = keccak256(payload(of, leg));
            LegRecord { rollup: A, terms: tx, tx }
        };
        let (deadline, salt) = (50, B256::with_last_byte(1));
        BridgeRecord::Bundle(BundleRecord { deadline, salt, legs: (0..legs).map(leg).collect() }).encode()
    };
    let transactions = (0..bundles).flat_map(|of| (0..legs).map(move |leg| payload(of, leg))).collect();
    ((0..bundles).map(bundle).collect(), vec![Segment { rollup: A, transactions }])
}

#[test]
fn a_block_has_no_more_legs_than_one_certificate_can_vote_on() {
    let state = after(network(&[1; 4], 3), 1);
    let most = u16::try_from(BundleRecord::LEGS_PER_BLOCK / Bundle::LEGS_MAX).unwrap();
    let with = |bundles| {
        let (records, segments) = crowd(bundles);
        state.follow(&block_with(&state, records, segments))
    };
    let full = with(most).unwrap();
    assert_eq!(refusal(with(most + 1)), BridgeError::TooManyLegs);
    // The next block has room again.
    let (records, _) = crowd(1);
    assert_eq!(full.draft().add(&records[0]), Err(SystemError::Bridge(known(&records[0]))));
}

const _: () = assert!(BundleRecord::LEGS_PER_BLOCK <= Certificate::VOTES_MAX);

fn known(record: &Bytes) -> BridgeError {
    match BridgeRecord::decode(record) {
        Ok(BridgeRecord::Bundle(bundle)) => BridgeError::BundleKnown { id: bundle.id() },
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_that_are_added_together_come_to_the_same_as_one_by_one_or_to_nothing() {
    let state = after(network(&[1; 4], 3), 1);
    let (records, _) = crowd(4);
    let (mut together, mut single) = (state.draft(), state.draft());
    together.add_all(&records).unwrap();
    records.iter().for_each(|record| single.add(record).unwrap());
    let rest = |draft: Draft| format!("{draft:?}");
    assert_eq!(rest(together.clone()), rest(single));
    // The last of these is there already: none is added.
    let (more, _) = crowd(6);
    let again = [more[5].clone(), more[4].clone(), records[0].clone()];
    assert!(together.add_all(&again).is_err());
    together.add_all(&again[..2]).unwrap();
}

#[test]
fn no_number_is_certified_that_a_rollup_cannot_have_come_to() {
    let state = after(network(&[1; 4], 3), 1);
    let all: &[u8] = &[1, 2, 3, 4];
    let numbered = |number| {
        let checkpoint = Checkpoint { number, ..checkpoint(B, 1, 1) };
        follow(&state, vec![certified(&[(checkpoint, vec![], all)], 4)])
    };
    let most = 2 * BridgeState::BLOCKS_PER_HUB_BLOCK;
    for number in [most + 1, 1 << 60, u64::MAX] {
        assert_eq!(refusal(numbered(number)), BridgeError::Number { rollup: RollupId(2), number, hub_height: 1 });
    }
    numbered(most).unwrap();
}
