//! Files that were cut off, damaged, or cannot be written.

use crate::*;
use std::process::Command;

const ENTRY: usize = 61;
const HEADER: usize = 93;
const FILL: u8 = 0xa5;
const ROOM: usize = 64 << 10;

/// The file of a record with five entries.
fn written(place: &Place) -> Vec<u8> {
    let guard = place.open();
    for view in 1..=5 {
        guard.permit(vote(Kind::Notarize, view, 1)).unwrap();
    }
    drop(guard);
    std::fs::read(place.path()).unwrap()
}

/// A record that is read, in which view 4 has a vote and view 5 may get any.
fn holds_four(image: Vec<u8>, what: &str) {
    let place = Place::new();
    std::fs::write(place.path(), image).unwrap();
    let guard = place.open();
    assert!(is_conflict(&guard.permit(vote(Kind::Notarize, 4, 2))), "{what}");
    guard.permit(vote(Kind::Notarize, 5, 2)).unwrap();
}

fn is_refused(image: Vec<u8>, what: &str) {
    let place = Place::new();
    std::fs::write(place.path(), image).unwrap();
    let refused = open(&place.path()).map(drop);
    assert!(matches!(refused, Err(GuardError::Damaged { .. } | GuardError::Other { .. })), "{what}: {refused:?}");
}

#[test]
fn an_entry_that_was_not_written_whole_is_dropped_and_all_before_it_hold() {
    let place = Place::new();
    let bytes = written(&place);
    let last = HEADER + 4 * ENTRY;
    // A disk does not stop within the last bytes of an entry.
    for kept in 1..=ENTRY - 4 {
        let mut cut = bytes.clone();
        cut[last + kept..].fill(FILL);
        holds_four(cut, &format!("{kept} bytes"));
    }
}

#[test]
fn room_that_was_about_to_be_made_may_be_missing_or_empty() {
    let place = Place::new();
    let guard = place.open();
    let entries = (ROOM / ENTRY) as u64;
    for view in 1..=entries {
        guard.permit(vote(Kind::Notarize, view, 1)).unwrap();
    }
    drop(guard);
    let bytes = std::fs::read(place.path()).unwrap();
    let first = HEADER + ROOM;
    assert_eq!(bytes.len(), first + ROOM, "made when there was none left");
    for image in [[&bytes[..first], &vec![0; ROOM]].concat(), [&bytes[..first + 1000], &[0; 99]].concat()] {
        let place = Place::new();
        // The last entry was the first one to need it, and came after it.
        let mut image = image;
        let last = HEADER + (ROOM / ENTRY - 1) * ENTRY;
        image[last..first].fill(FILL);
        std::fs::write(place.path(), image).unwrap();
        let guard = place.open();
        assert!(is_conflict(&guard.permit(vote(Kind::Notarize, entries - 1, 2))));
        guard.permit(vote(Kind::Notarize, entries, 2)).unwrap();
    }
}

#[test]
fn a_changed_bit_in_any_entry_is_damage() {
    let place = Place::new();
    let bytes = written(&place);
    for at in 0..HEADER + 5 * ENTRY {
        let mut image = bytes.clone();
        image[at] ^= 1 << (at % 8);
        is_refused(image, &format!("byte {at}"));
    }
}

#[test]
fn a_file_that_was_cut_off_has_lost_nothing_or_is_damage() {
    let place = Place::new();
    let bytes = written(&place);
    let end = HEADER + 5 * ENTRY;
    for len in 0..end + ENTRY {
        is_refused(bytes[..len].to_vec(), &format!("{len} bytes"));
    }
    for len in [end + ENTRY, end + 5000, bytes.len()] {
        let place = Place::new();
        std::fs::write(place.path(), &bytes[..len]).unwrap();
        assert!(is_conflict(&place.open().permit(vote(Kind::Notarize, 5, 2))), "{len} bytes");
    }
}

#[test]
fn sectors_that_read_as_zeros_are_damage() {
    let place = Place::new();
    let bytes = written(&place);
    for from in [0, HEADER, HEADER + 3 * ENTRY, HEADER + 4 * ENTRY, HEADER + 4 * ENTRY + 30] {
        let mut image = bytes.clone();
        image[from..1024].fill(0);
        is_refused(image, &format!("from {from}"));
    }
}

#[test]
fn a_record_of_the_version_before_is_read_and_written_anew() {
    let place = Place::new();
    let mut bytes = written(&place);
    bytes[8] = 1;
    let checksum = keccak256(&bytes[..HEADER - 4]);
    bytes[HEADER - 4..HEADER].copy_from_slice(&checksum[..4]);
    bytes[HEADER + 5 * ENTRY..].fill(0);
    let place = Place::new();
    std::fs::write(place.path(), bytes).unwrap();
    assert!(is_conflict(&place.open().permit(vote(Kind::Notarize, 5, 2))));
    assert_eq!(std::fs::read(place.path()).unwrap()[8], 2);
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
