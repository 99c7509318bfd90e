//! The remote signer: a validator's BLS key and its sign record on a host of their own, asked over gRPC with mutual TLS
//! (`docs/specs/sign-guard.md`).
//!
//! The validator keeps a record too, of what it has had signed: it is asked first, and shows when somebody else has the same
//! signer sign.

mod client;
mod config;
mod server;
mod wire;

pub(crate) use client::probe;
pub use client::{RemoteSigner, SignerMetrics};
pub use config::{SignerConfig, SignerTls};
pub use server::{Serving, serve};

use crate::{
    config::ConfigError,
    genesis::GenesisError,
    keys::{KeyError, file},
};
use std::path::Path;
use switchyard_consensus_guard::GuardError;
use tonic::transport::{Certificate, Identity};

/// Longest certificate or TLS key file, in bytes.
const PEM_BYTES_MAX: u64 = 64 << 10;

/// Why a signer, or a validator that needs one, does not start.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The BLS key, or a TLS file.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The record.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A key whose past nobody knows.
    #[error(
        "{path}: no sign record is there. For a key that has never signed on this network, begin one: switchyard sign-record \
         begin --from-view 0; for any other import its record, or begin above every view that it may have signed"
    )]
    NoRecord {
        /// Where it should be.
        path: String,
    },
    /// The port is taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate, a TLS key or the address is not usable.
    #[error("signer: {0}")]
    Tls(tonic::transport::Error),
    /// The server has ended.
    #[error("signer: {0}")]
    Server(tonic::transport::Error),
    /// The signer does not answer.
    #[error("the signer at {url} does not answer: {reason}. Start it, or mend [keys.signer]; then start again")]
    Away {
        /// Where it should be.
        url: String,
        /// Why.
        reason: String,
    },
    /// The signer is for something else.
    #[error("the signer at {url} is for {what} {found}, this validator needs {expected}")]
    Other {
        /// Where it is.
        url: String,
        /// What differs.
        what: &'static str,
        /// The signer's.
        found: String,
        /// The validator's.
        expected: String,
    },
}

fn certificate(path: &Path) -> Result<Certificate, KeyError> {
    Ok(Certificate::from_pem(file::read_any(path, PEM_BYTES_MAX)?.0))
}

/// A certificate and its key, which others may not read.
fn identity(certificate: &Path, key: &Path) -> Result<Identity, KeyError> {
    let (certificate, _) = file::read_any(certificate, PEM_BYTES_MAX)?;
    Ok(Identity::from_pem(certificate, file::read_private(key, PEM_BYTES_MAX)?))
}

/// Ways in for `testnet/fuzz`; no part of the interface.
#[doc(hidden)]
pub mod fuzz {
    use super::wire;
    use switchyard_proto::signer_v1::SignRequest;

    /// A request read as a vote, and written anew.
    pub fn recoded(request: &SignRequest) -> Option<SignRequest> {
        wire::vote(request).ok().map(|(network, vote)| wire::request(network, &vote))
    }
}

/// Whether the files of a validator's side can be read.
pub(crate) fn check_files(config: &crate::config::RemoteKey) -> Result<(), KeyError> {
    certificate(&config.ca)?;
    identity(&config.cert, &config.key).map(|_| ())
}

/// rustls has two sets of algorithms in this program, and wants to be told which one to take.
fn choose_algorithms() {
    // Refused where it was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
