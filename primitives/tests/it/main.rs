//! The published test vectors are what this crate does, and hold by themselves.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

mod vectors;
