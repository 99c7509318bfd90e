//! Properties of the workspace and of whole networks.

// clippy.toml's exception for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod arrows;
mod bundles;
mod clocks;
mod deposits;
mod disputes;
mod faults;
mod full_disk;
mod late;
mod layout;
mod messages;
mod network;
mod pool;
mod powercut;
mod stages;
mod traffic;
mod upgrade;
mod validators;
