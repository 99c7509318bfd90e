//! The published test vectors are what this crate does, and hold by themselves.

mod vectors;
