//! What a node finds on its disk. Some of it comes from another machine or an older version.

use crate::same;
use std::sync::Arc;
use switchyard_bridge_core::{HubLeaf, SystemState};
use switchyard_consensus_guard::{Interchange, fuzz as guard};
use switchyard_primitives::B256;
use switchyard_rollup_evm::fuzz as evm;
use switchyard_store::fuzz as store;

/// A record that was read and written anew holds the same.
pub(crate) fn sign_record(input: &[u8]) -> bool {
    let Some(rewritten) = guard::record(input) else { return false };
    assert_eq!(guard::record(&rewritten).as_ref(), Some(&rewritten));
    true
}

/// Entries with checksums that fit, which no mutation of whole records would find.
pub(crate) fn sign_record_entries(input: &[u8]) -> bool {
    sign_record(&guard::record_of(input))
}

/// Importing what was exported changes nothing.
pub(crate) fn interchange(input: &[u8]) -> bool {
    let Ok(export) = serde_json::from_slice::<Interchange>(input) else { return false };
    let text = serde_json::to_vec(&export).expect("an export is JSON");
    assert_eq!(serde_json::from_slice::<Interchange>(&text).ok().as_ref(), Some(&export));
    let Some(held) = guard::imported(&export) else { return false };
    assert_eq!(guard::imported(&held).as_ref(), Some(&held));
    true
}

/// The stake table, the committees and the bridge's state, which a node keeps beside its log, and others may ask for.
pub(crate) fn hub_state(input: &[u8]) -> bool {
    let Ok(state) = SystemState::decode(B256::ZERO, Arc::default(), input) else { return false };
    for committee in [state.current(), state.following()] {
        let seats = committee.seats();
        assert!(seats.quorum() <= seats.seats().len());
        assert!((0..).zip(seats.seats()).all(|(index, _)| committee.owner(index).is_some()));
        let _ = state.rules().last_of(committee.epoch());
    }
    same(input, Some(state.encode()))
}

/// The first byte chooses a kind of record.
pub(crate) fn store_records(input: &[u8]) -> bool {
    let Some((kind, input)) = input.split_first() else { return false };
    match kind {
        0 => same(input, store::transactions(input)),
        1 => same(input, store::table(input)),
        2 => same(input, store::location(input)),
        3 => same(input, HubLeaf::decode(input).ok().map(|leaf| leaf.encode())),
        _ => false,
    }
}

/// The first byte chooses a kind of record. A record that was read and written anew holds the same.
pub(crate) fn evm_records(input: &[u8]) -> bool {
    let Some((kind, input)) = input.split_first() else { return false };
    let Some(rewritten) = evm::record(*kind, input) else { return false };
    assert_eq!(evm::record(*kind, &rewritten).as_ref(), Some(&rewritten));
    true
}
