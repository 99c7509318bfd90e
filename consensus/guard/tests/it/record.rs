//! The record across restarts, machines and processes.

use crate::*;
use std::os::unix::fs::PermissionsExt as _;
use switchyard_consensus_guard::Interchange;

#[test]
fn a_record_is_there_before_the_answer() {
    let place = Place::new();
    let guard = place.open();
    for view in 1..40 {
        guard.permit(vote(Kind::Finalize, view, 1)).unwrap();
        // What a machine that stops here would find.
        let image = Place::new();
        std::fs::copy(place.path(), image.path()).unwrap();
        assert!(is_conflict(&image.open().permit(vote(Kind::Finalize, view, 2))), "view {view}");
    }
}

#[test]
fn a_long_record_is_rewritten_and_forgets_nothing_that_it_should_know() {
    let place = Place::new();
    let guard = place.open();
    for view in 0..2200 {
        guard.permit(vote(Kind::Notarize, view, 1)).unwrap();
    }
    assert!(std::fs::metadata(place.path()).unwrap().len() < 2200 * 61);
    drop(guard);
    let guard = place.open();
    assert!(is_conflict(&guard.permit(vote(Kind::Notarize, 2199, 2))));
    assert!(is_conflict(&guard.permit(vote(Kind::Notarize, 1944, 2))));
    assert!(is_low(&guard.permit(vote(Kind::Notarize, 1943, 1))));
}

#[test]
fn a_second_process_is_refused_and_nobody_else_reads_the_record() {
    let place = Place::new();
    let guard = place.open();
    let refused = open(&place.path()).unwrap_err();
    assert!(matches!(refused, GuardError::InUse { .. }), "{refused}");
    assert_eq!(std::fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o600);
    drop(guard);
    place.open();
}

#[test]
fn a_record_of_another_key_or_network_is_refused_by_name() {
    let place = Place::new();
    drop(place.open());
    for (network, key) in [(B256::repeat_byte(9), KEY), (NETWORK, [9; 48])] {
        let refused = SignGuard::open(&place.path(), network, key).unwrap_err();
        assert!(matches!(refused, GuardError::Other { .. }), "{refused}");
    }
    place.open();
}

#[test]
fn after_an_import_only_what_is_above_it_is_signed_or_the_same_again() {
    let (from, to) = (Place::new(), Place::new());
    let old = from.open();
    old.permit(vote(Kind::Notarize, 5, 1)).unwrap();
    old.permit(checkpoint(3, 9, 1)).unwrap();
    let export = old.export();
    let new = to.open();
    new.permit(vote(Kind::Notarize, 2, 7)).unwrap();
    new.import(&export).unwrap();
    new.import(&export).unwrap();
    drop(new);
    let new = to.open();
    new.permit(vote(Kind::Notarize, 5, 1)).unwrap();
    assert!(is_conflict(&new.permit(vote(Kind::Notarize, 5, 2))));
    assert!(is_low(&new.permit(vote(Kind::Finalize, 5, 1))));
    assert!(is_low(&new.permit(vote(Kind::Notarize, 4, 1))));
    assert!(is_conflict(&new.permit(vote(Kind::Notarize, 2, 1))));
    assert!(is_low(&new.permit(checkpoint(3, 8, 1))));
    new.permit(checkpoint(3, 10, 1)).unwrap();
    new.permit(vote(Kind::Finalize, 6, 1)).unwrap();
}

#[test]
fn an_export_of_something_else_changes_nothing() {
    let place = Place::new();
    let guard = place.open();
    guard.permit(vote(Kind::Notarize, 5, 1)).unwrap();
    let good = guard.export();
    for bad in [
        Interchange { format: 2, ..good.clone() },
        Interchange { network: B256::ZERO, ..good.clone() },
        Interchange { key: vec![2; 47].into(), ..good.clone() },
    ] {
        let refused = guard.import(&bad).unwrap_err();
        assert!(matches!(refused, GuardError::Import { .. }), "{refused}");
        assert_eq!(guard.export(), good);
    }
    assert!(serde_json::from_str::<Interchange>(r#"{"format":1,"more":2}"#).is_err());
}
