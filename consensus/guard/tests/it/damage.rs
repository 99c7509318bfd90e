//! Files that were cut off, damaged, or cannot be written.

use crate::*;

const ENTRY: usize = 61;
const HEADER: usize = 93;

/// The file of a record with five entries, of which the marks come first.
fn written(place: &Place) -> Vec<u8> {
    let guard = place.open();
    for view in 1..=5 {
        guard.permit(vote(Kind::Notarize, view, 1)).unwrap();
    }
    drop(guard);
    std::fs::read(place.path()).unwrap()
}

#[test]
fn an_entry_that_was_not_written_whole_is_dropped_and_all_before_it_hold() {
    let place = Place::new();
    let bytes = written(&place);
    let last = HEADER + 4 * ENTRY;
    for kept in 1..ENTRY {
        let mut cut = bytes.clone();
        cut[last + kept..].fill(0);
        // A disk does not stop within the last bytes of an entry.
        let zeroed = (kept <= ENTRY - 4).then(|| cut.clone());
        for image in [Some(cut[..last + kept].to_vec()), zeroed].into_iter().flatten() {
            let place = Place::new();
            std::fs::write(place.path(), image).unwrap();
            let guard = place.open();
            assert!(is_conflict(&guard.permit(vote(Kind::Notarize, 4, 2))), "{kept} bytes");
            guard.permit(vote(Kind::Notarize, 5, 2)).unwrap();
        }
    }
}

#[test]
fn a_changed_bit_before_the_last_entry_is_damage() {
    let place = Place::new();
    let bytes = written(&place);
    for at in 0..HEADER + 4 * ENTRY {
        let mut image = bytes.clone();
        image[at] ^= 1 << (at % 8);
        let place = Place::new();
        std::fs::write(place.path(), image).unwrap();
        let refused = open(&place.path()).unwrap_err();
        assert!(matches!(refused, GuardError::Damaged { .. } | GuardError::Other { .. }), "byte {at}: {refused}");
    }
}

#[test]
fn an_empty_or_foreign_file_is_not_taken_for_a_new_record() {
    for bytes in [&b""[..], b"something else", &[0; 4096]] {
        let place = Place::new();
        std::fs::write(place.path(), bytes).unwrap();
        let refused = open(&place.path()).unwrap_err();
        assert!(matches!(refused, GuardError::Damaged { .. }), "{refused}");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    let refused = open(&place.path().join("below")).unwrap_err();
    assert!(matches!(refused, GuardError::Io { .. }), "{refused}");
}
