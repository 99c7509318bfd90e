//! Every committed input through its target, and the corpus itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use switchyard_fuzz::{TARGETS, seeds::seeds};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Every file below a folder, which may be missing, by its target and name.
fn inputs(name: &str) -> BTreeMap<(String, String), Vec<u8>> {
    let mut inputs = BTreeMap::new();
    for target in fs::read_dir(folder(name)).into_iter().flatten() {
        let target = target.unwrap();
        for file in fs::read_dir(target.path()).unwrap() {
            let file = file.unwrap();
            let name = |name: std::ffi::OsString| name.into_string().unwrap();
            inputs.insert((name(target.file_name()), name(file.file_name())), fs::read(file.path()).unwrap());
        }
    }
    inputs
}

fn target(name: &str) -> fn(&[u8]) -> bool {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("{name} is no target")).run
}

#[test]
fn every_seed_is_accepted_and_every_cut_of_it_is_survived() {
    for ((name, file), input) in inputs("corpus") {
        let run = target(&name);
        assert!(run(&input), "{name} refuses its seed {file}");
        // Each cut of a short input, some of a long one.
        for length in (0..input.len()).step_by(1 + input.len() / 64) {
            run(&input[..length]);
        }
    }
}

#[test]
fn what_was_once_found_stays_mended() {
    for ((name, _), input) in inputs("regressions") {
        target(&name)(&input);
    }
}

#[test]
fn every_target_has_a_seed() {
    let seeded: BTreeSet<String> = inputs("corpus").into_keys().map(|(target, _)| target).collect();
    assert_eq!(seeded, TARGETS.iter().map(|target| target.name.to_owned()).collect());
}

/// A layout that changes changes the corpus too: `UPDATE_SEEDS=1 cargo test --workspace --test it -- the_corpus_is`.
#[test]
fn the_corpus_is_what_the_encoders_make() {
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        for seed in seeds() {
            let folder = folder("corpus").join(seed.target);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(seed.name), seed.bytes).unwrap();
        }
    }
    let made = seeds().into_iter().map(|seed| ((seed.target.to_owned(), seed.name), seed.bytes)).collect();
    assert!(inputs("corpus") == made, "other files than the encoders make: see this test's documentation");
}
