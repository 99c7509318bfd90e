//! What the bridge agrees on: checkpoints, messages, bundles, and the append-only trees that prove them; and what costs stake.
//!
//! The byte layouts are those of `docs/specs/messages.md` and `docs/specs/bundles.md`; `bridge/contracts` has them in
//! Solidity, and both are checked against `docs/specs/vectors`. Pure: no async, no clock, no I/O.

mod accumulator;
mod attestation;
mod bundle;
mod bundles;
mod challenge;
mod checkpoint;
mod deposit;
mod disputes;
mod error;
mod evidence;
mod hub;
mod justice;
mod message;
mod operator;
pub mod predeploys;
mod record;
mod remembered;
mod state;
mod system;

pub use accumulator::{Accumulator, AccumulatorFull, NodeId, path, seal};
pub use attestation::{Attestation, Certificate, CertifiedCheckpoint};
pub use bundle::{Ballot, Bundle, Call, Leg, Move, MoveKind, Vote, votes_root};
pub use bundles::{
    BundleRecord, BundleState, BundleStatus, HubBundle, LegRecord, LegState, LegStatus, SignedBundle, SignedLeg,
    VaultState, legs_of,
};
pub use challenge::{Challenge, Signed, Verdict, VerdictWord, signers_hash};
pub use checkpoint::Checkpoint;
pub use deposit::{Deposit, Deposits, deposits_of};
pub use disputes::{
    CHALLENGE_WITHIN, CHALLENGER_RESTS, Cut, Dispute, Held, Offence, Ruling, VERDICT_WITHIN, VERDICTS_PER_BLOCK,
};
pub use error::{BridgeError, SystemError};
pub use evidence::{AttestationConflict, Evidence};
pub use hub::HubLeaf;
pub use message::{Message, MessageKind, MessageState};
pub use operator::{Operator, OperatorChange, OperatorKind};
pub use record::BridgeRecord;
pub use state::{Added, BridgeState, Certified, Rollup};
pub use system::{BRIDGE_FROM, Draft, Founding, SystemState};
