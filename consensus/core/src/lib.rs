//! What the rest of Switchyard sees of consensus: seats, certificates and how to check them, and the traits between an
//! engine and the node that runs it. A light client needs no more than this crate.

pub mod engine;
mod seats;
mod verify;

pub use engine::{Ancestors, BlockBuilder, EngineEvent, Fault, FaultKind, InvalidBlock};
pub use seats::{Seat, SeatError, SeatSet};
pub use verify::{CertificateError, namespace, verify_certificate, verify_finality};
