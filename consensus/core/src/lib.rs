//! What the rest of Switchyard sees of consensus: seats, certificates and how to check them, and the traits between an
//! engine and the node that runs it. A light client needs no more than this crate.

pub mod allot;
mod committee;
mod conflict;
pub mod engine;
pub mod keys;
mod light;
pub mod record;
mod seats;
pub mod stake;
mod verify;
mod vote;

pub use committee::{Committee, Member, seat_of, seat_tweak};
pub use conflict::VoteConflict;
pub use light::{LightClient, LightError};
pub use stake::{EpochRules, HubState};

pub use engine::{
    Ancestors, BlockBuilder, Committees, EngineEvent, Fault, FaultKind, History, InvalidBlock, SingleEpoch,
};
pub use keys::verify_possession;
pub use seats::{Seat, SeatError, SeatSet};
pub use verify::{
    CertificateError, VOTE_DST, domain, finalize_message, namespace, verify_certificate, verify_finality,
};
pub use vote::{Proposal, Vote};
