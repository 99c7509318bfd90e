//! The key of an account on EVM rollups.

use super::{CliError, record::problem};
use crate::keys::read_plain;
use alloy::signers::local::PrivateKeySigner;
use std::path::{Path, PathBuf};

/// Who signs.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Key {
    /// The account's secp256k1 key: a file of 32 bytes in hex, mode 0600
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

impl Key {
    /// The key in a file.
    pub(super) fn at(key: PathBuf) -> Self {
        Self { key }
    }

    /// Reads the key.
    pub(super) fn account(&self) -> Result<PrivateKeySigner, CliError> {
        let path: &Path = &self.key;
        let secret = read_plain(path).map_err(|e| problem(path, e))?;
        PrivateKeySigner::from_slice(&*secret).map_err(|e| problem(path, e))
    }
}
