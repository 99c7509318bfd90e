//! Files that were cut off, damaged, or cannot be written.

use crate::*;
use std::process::Command;

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

const CHILD_PATH: &str = "SWITCHYARD_GUARD_TEST_PATH";

/// Not a test by itself: the other process of the test below. It asks for views from 1 on and says the last one permitted, and
/// that nothing more is after a write has failed.
#[test]
fn child_process() {
    let Some(path) = std::env::var_os(CHILD_PATH) else { return };
    let guard = open(Path::new(&path)).unwrap();
    let refused = (1..).find_map(|view| Some((view, guard.permit(vote(Kind::Notarize, view, 1)).err()?)));
    let (view, refusal) = refused.unwrap();
    assert!(matches!(refusal, Refusal::Unwritable(_)), "{refusal}");
    for asked in [vote(Kind::Notarize, view + 1, 1), vote(Kind::Notarize, 1, 1)] {
        assert!(matches!(guard.permit(asked), Err(Refusal::Unwritable(_))));
    }
    println!("\npermitted {}", view - 1);
}

#[test]
fn after_a_write_that_failed_nothing_is_permitted_and_what_was_permitted_is_known() {
    let place = Place::new();
    // A process that may write no file longer than this: for it, the disk is full.
    let limited = "trap '' XFSZ; ulimit -f 132; exec \"$@\"";
    let child = Command::new("sh")
        .args(["-c", limited, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["damage::child_process", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_PATH, place.path())
        .output()
        .unwrap();
    let text = String::from_utf8(child.stdout).unwrap();
    let permitted: u64 = text.lines().find_map(|line| line.strip_prefix("permitted ")).expect(&text).parse().unwrap();
    assert!(permitted > 100, "{permitted}");
    let guard = place.open();
    assert!(is_conflict(&guard.permit(vote(Kind::Notarize, permitted, 2))));
    guard.permit(vote(Kind::Notarize, permitted + 2, 2)).unwrap();
}
