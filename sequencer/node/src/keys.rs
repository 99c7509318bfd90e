//! The validator's keys: an ed25519 identity in a plain file, a BLS12-381 key in a keystore or a plain file.

pub mod file;
pub mod keystore;
pub mod password;

use crate::{config, genesis::GenesisValidator};
use alloy_primitives::{B256, FixedBytes};
use keystore::{Keystore, KeystoreError};
use std::path::Path;
use switchyard_consensus_core::{Seat, keys::prove_possession};
use zeroize::Zeroizing;

/// Why a key is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is a file already.
    #[error("{path} exists and is not overwritten; name another file or move it away")]
    Exists {
        /// The file.
        path: String,
    },
    /// Others may read the file.
    #[error("{path} has mode {mode:o}, others may read it: run `chmod 600 {path}`")]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a file, or a longer one than a key's.
    #[error("{path} is not a file of at most {bytes_max} bytes")]
    Size {
        /// The file.
        path: String,
        /// The most that is read.
        bytes_max: u64,
    },
    /// Not 32 bytes in hex.
    #[error("key {path} is not 32 bytes in hex")]
    Format {
        /// The file.
        path: String,
    },
    /// Not a keystore that can be opened.
    #[error("{path}: {source}")]
    Keystore {
        /// The file.
        path: String,
        /// Why.
        source: KeystoreError,
    },
    /// No password.
    #[error("{0}")]
    Password(String),
    /// The key is not on this host.
    #[error("this needs the BLS key itself, which is at the signer {url}")]
    Remote {
        /// The signer.
        url: String,
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
    /// Reads both files: [`read_bls`].
    pub fn load(keys: &config::Keys) -> Result<Self, KeyError> {
        let bls = read_bls(&keys.bls)?;
        Ok(Self { identity: *read_plain(&keys.identity)?, bls: *bls })
    }

    /// The identity on the network.
    pub fn identity_public(&self) -> B256 {
        switchyard_consensus_network::identity(&self.identity)
    }

    /// The key that checks this validator's votes.
    pub fn bls_public(&self) -> Result<FixedBytes<48>, KeyError> {
        switchyard_consensus_core::keys::bls_public_key(&self.bls).map_err(|_| KeyError::Bls)
    }

    /// This validator as a genesis lists it.
    pub fn genesis_validator(&self) -> Result<GenesisValidator, KeyError> {
        let seat = Seat { identity: self.identity_public(), bls: self.bls_public()? };
        let possession = prove_possession(&self.bls, seat.identity).map_err(|_| KeyError::Bls)?;
        Ok(GenesisValidator::new(seat, possession))
    }
}

/// The BLS secret, where it is on this host. Opening a keystore takes about a second and, with EIP-2335's parameters, 256 MiB.
pub fn read_bls(key: &config::BlsKey) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    match key {
        config::BlsKey::Plain(path) => read_plain(path),
        config::BlsKey::Keystore { path, password_file } => {
            let keystore = parse_keystore(path, &file::read_private(path, keystore::FILE_BYTES_MAX)?)?;
            open_keystore(path, &keystore, &password::unattended(password_file.as_deref())?)
        }
        config::BlsKey::Remote(signer) => Err(KeyError::Remote { url: signer.url.clone() }),
    }
}

/// A plain key file: 32 secret bytes in hex, readable by its owner alone.
pub fn read_plain(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let text = file::read_private(path, keystore::FILE_BYTES_MAX)?;
    decode_plain(&text).ok_or_else(|| KeyError::Format { path: path.display().to_string() })
}

/// The secret of a plain key file; none if it is something else.
pub fn decode_plain(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), secret.as_mut_slice()).ok()?;
    Some(secret)
}

/// Reads a keystore's text; errors name the file.
pub fn parse_keystore(path: &Path, text: &[u8]) -> Result<Keystore, KeyError> {
    Keystore::parse(text).map_err(|source| KeyError::Keystore { path: path.display().to_string(), source })
}

/// Opens a keystore; errors name the file.
pub fn open_keystore(path: &Path, keystore: &Keystore, password: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    keystore.open(password).map_err(|source| KeyError::Keystore { path: path.display().to_string(), source })
}
