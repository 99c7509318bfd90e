//! What the bridge agrees on: checkpoints, messages, bundles, and the append-only trees that prove them. The rules of
//! stake build on them.
//!
//! The byte layouts are those of `docs/specs/messages.md` and `docs/specs/bundles.md`; `bridge/contracts` has them in
//! Solidity, and both are checked against `docs/specs/vectors`. Pure: no async, no clock, no I/O.

mod accumulator;
mod bundle;
mod checkpoint;
mod hub;
mod message;
pub mod predeploys;

pub use accumulator::{Accumulator, AccumulatorFull, NodeId, path, seal};
pub use bundle::{Ballot, Bundle, Call, Leg, Move, MoveKind, Vote, votes_root};
pub use checkpoint::Checkpoint;
pub use hub::HubLeaf;
pub use message::{Message, MessageKind};
