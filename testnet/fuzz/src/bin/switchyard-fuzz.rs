//! libFuzzer around one target, which the environment variable `FUZZ_TARGET` names: `make fuzz`.

#![no_main]
// The macro exports a symbol that libFuzzer calls.
#![allow(unsafe_code, missing_docs)]

use std::sync::LazyLock;
use switchyard_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).copied().unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FUZZ_TARGET must be one of: {}", names.join(" "));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
