//! The consensus engine: commonware's simplex (agreement) and marshal (order, archive, catching up) on a runtime of their
//! own, spoken to through bounded channels. The one crate that names the BFT library.
//!
//! ```text
//!  node (tokio)                        engine (its own threads)
//!  BlockBuilder  <-- build, judge ---  Chain <-- marshal::Inline <-- simplex <-> votes, certificates, resolver
//!  events        <-- Final, ack ----   Courier <-- marshal <-> backfill; archives on disk
//!  BlockBuilder  <-- held ----------   Exchange <-- marshal <-> blocks
//!  gossip        <------------------>  Relay <-> transactions
//! ```
//!
//! What is signed, and how a certificate is checked without this crate: `docs/specs/consensus.md` and
//! `switchyard_consensus_core`.

mod application;
mod archive;
mod block;
mod certificate;
mod committee;
mod config;
mod delivery;
mod epochs;
mod exchange;
mod folder;
mod gossip;
mod guarded;
mod listening;
mod observer;
mod runtime;
mod votes;
mod wiring;

use commonware_consensus::simplex;
use commonware_cryptography::keccak256::Digest;
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
pub use config::{EngineConfig, EngineError};
pub use folder::prepare;
pub use gossip::{Detached, GossipHandle, GossipSender, Incoming, To};
use rand_core::CryptoRng;
pub use runtime::{Embedded, Engine, EngineHandle, EngineStatus, MetricsReader, Stopped, embedded, start};

/// What the engine needs of the runtime that it runs on: tokio's, or a deterministic one in simulations.
pub trait Runtime: Spawner + Clock + Storage + Metrics + CryptoRng {}

impl<E: Spawner + Clock + Storage + Metrics + CryptoRng> Runtime for E {}

pub(crate) type Scheme = guarded::Guarded;
pub(crate) type Finalization = simplex::types::Finalization<Scheme, Digest>;
pub(crate) type Activity = simplex::types::Activity<Scheme, Digest>;

/// Ways in for `testnet/fuzz`; no part of the interface.
#[doc(hidden)]
pub mod fuzz {
    use switchyard_primitives::FinalityCertificate;

    /// A message of the blocks channel, decoded and encoded again.
    pub fn message(bytes: bytes::Bytes) -> Option<bytes::Bytes> {
        crate::exchange::recoded(bytes)
    }

    /// A certificate on its way through the library's types.
    pub fn certificate(certificate: &FinalityCertificate) -> Option<FinalityCertificate> {
        crate::certificate::from_library(&crate::certificate::to_library(certificate)?)
    }
}
