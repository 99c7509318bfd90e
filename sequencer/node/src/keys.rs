//! The validator's key files: 32 secret bytes in hex, readable by their owner alone.

use crate::config;
use alloy_primitives::{B256, FixedBytes};
use std::{os::unix::fs::PermissionsExt, path::Path};

/// Why a key file is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read key {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read the file.
    #[error("key {path} has mode {mode:o}: run `chmod 600 {path}`")]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 32 bytes in hex.
    #[error("key {path} is not 32 bytes in hex")]
    Format {
        /// The file.
        path: String,
    },
    /// Not a BLS12-381 scalar.
    #[error("the BLS key is not a valid secret key")]
    Bls,
}

/// A validator's secrets.
pub struct NodeKeys {
    /// ed25519 seed.
    pub identity: [u8; 32],
    /// BLS12-381 scalar, big-endian.
    pub bls: [u8; 32],
}

impl NodeKeys {
    /// Reads both files.
    pub fn load(keys: &config::Keys) -> Result<Self, KeyError> {
        Ok(Self { identity: read(&keys.identity)?, bls: read(&keys.bls)? })
    }

    /// The identity on the network.
    pub fn identity_public(&self) -> B256 {
        switchyard_consensus_network::identity(&self.identity)
    }

    /// The key that checks this validator's votes.
    pub fn bls_public(&self) -> Result<FixedBytes<48>, KeyError> {
        switchyard_consensus_core::keys::bls_public_key(&self.bls).map_err(|_| KeyError::Bls)
    }
}

fn read(path: &Path) -> Result<[u8; 32], KeyError> {
    let name = || path.display().to_string();
    let failed = |source| KeyError::Read { path: name(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: name(), mode });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let mut secret = [0; 32];
    hex::decode_to_slice(text.trim(), &mut secret).map_err(|_| KeyError::Format { path: name() })?;
    Ok(secret)
}
