//! `[keys]`: which keys a validator has, and where they are.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The validator's keys. Files that others may read are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "KeysTable", into = "KeysTable")]
pub struct Keys {
    /// ed25519, the identity on the network: 32 secret bytes in hex.
    pub identity: PathBuf,
    /// BLS12-381, signs votes: an EIP-2335 keystore, or 32 secret bytes in hex.
    pub bls: BlsKey,
    /// `[keys.next]`: while the key is changed (`switchyard stake update keys`), the new one, which signs from the epoch on in
    /// which it has the seats. On this host, as `bls` must then be.
    pub next: Option<BlsKey>,
}

/// Where the BLS12-381 key is: one of the three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlsKey {
    /// `bls`: 32 secret bytes in hex.
    Plain(PathBuf),
    /// `bls_keystore`: an EIP-2335 keystore.
    Keystore {
        /// The keystore.
        path: PathBuf,
        /// `bls_password_file`: its password; without it, the environment has it
        /// ([`crate::keys::password::PASSWORD_ENV`]).
        password_file: Option<PathBuf>,
    },
    /// `signer`: on another host.
    Remote(RemoteKey),
}

/// The remote signer that has the BLS12-381 key (`switchyard signer`), and the PEM files of mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteKey {
    /// `https://HOST:PORT`; the host is a name or address of the signer's certificate.
    pub url: String,
    /// The authority of the signer's certificate.
    pub ca: PathBuf,
    /// This validator's certificate, with those between it and its authority.
    pub cert: PathBuf,
    /// Its key, PKCS #8, mode 0600.
    pub key: PathBuf,
    /// How long the signer may take for a vote; one that comes later is not cast.
    #[serde(default = "default_signer_deadline")]
    pub deadline_ms: u64,
}

fn default_signer_deadline() -> u64 {
    200
}

impl RemoteKey {
    pub(super) fn check(&self, leader_timeout_ms: u64) -> Result<(), &'static str> {
        if !self.url.starts_with("https://") {
            return Err("keys.signer.url must be https://HOST:PORT");
        }
        if !(1..leader_timeout_ms).contains(&self.deadline_ms) {
            return Err("keys.signer.deadline_ms must be at least 1 and below consensus.leader_timeout_ms");
        }
        Ok(())
    }
}

impl BlsKey {
    /// Every path.
    pub(crate) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        match self {
            Self::Plain(path) => vec![path],
            Self::Keystore { path, password_file } => [path].into_iter().chain(password_file).collect(),
            Self::Remote(RemoteKey { ca, cert, key, .. }) => vec![ca, cert, key],
        }
        .into_iter()
    }
}

/// As the file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysTable {
    identity: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    bls: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bls_keystore: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bls_password_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<RemoteKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<KeyFiles>,
}

/// A key on this host, as a table of its own has it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyFiles {
    #[serde(skip_serializing_if = "Option::is_none")]
    bls: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bls_keystore: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bls_password_file: Option<PathBuf>,
}

/// What an operator signs checkpoints with. On this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "KeyFiles", into = "KeyFiles")]
pub struct OperatorKey(BlsKey);

impl OperatorKey {
    /// A key in a file of 32 secret bytes in hex.
    pub fn plain(path: PathBuf) -> Self {
        Self(BlsKey::Plain(path))
    }

    /// The key: never a remote one.
    pub fn key(&self) -> &BlsKey {
        &self.0
    }

    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.0.paths()
    }
}

impl TryFrom<KeyFiles> for OperatorKey {
    type Error = &'static str;

    fn try_from(files: KeyFiles) -> Result<Self, &'static str> {
        let key = BlsKey::try_from(files);
        key.map(Self).map_err(|_| "[operator] must have either bls, or bls_keystore and perhaps bls_password_file")
    }
}

impl From<OperatorKey> for KeyFiles {
    fn from(key: OperatorKey) -> Self {
        KeyFiles::try_from(key.0).unwrap_or(Self { bls: None, bls_keystore: None, bls_password_file: None })
    }
}

impl TryFrom<KeyFiles> for BlsKey {
    type Error = &'static str;

    fn try_from(files: KeyFiles) -> Result<Self, &'static str> {
        match (files.bls, files.bls_keystore, files.bls_password_file) {
            (Some(path), None, None) => Ok(Self::Plain(path)),
            (None, Some(path), password_file) => Ok(Self::Keystore { path, password_file }),
            _ => Err("[keys] must have either bls, or bls_keystore and perhaps bls_password_file"),
        }
    }
}

impl TryFrom<BlsKey> for KeyFiles {
    /// The key is on another host.
    type Error = RemoteKey;

    fn try_from(key: BlsKey) -> Result<Self, RemoteKey> {
        match key {
            BlsKey::Plain(path) => Ok(Self { bls: Some(path), bls_keystore: None, bls_password_file: None }),
            BlsKey::Keystore { path, password_file } => {
                Ok(Self { bls: None, bls_keystore: Some(path), bls_password_file: password_file })
            }
            BlsKey::Remote(remote) => Err(remote),
        }
    }
}

impl TryFrom<KeysTable> for Keys {
    type Error = &'static str;

    fn try_from(table: KeysTable) -> Result<Self, Self::Error> {
        let KeysTable { identity, bls, bls_keystore, bls_password_file, signer, next } = table;
        let files = KeyFiles { bls, bls_keystore, bls_password_file };
        let bls = match (files, signer) {
            (KeyFiles { bls: None, bls_keystore: None, bls_password_file: None }, Some(signer)) => {
                BlsKey::Remote(signer)
            }
            (files, None) => files.try_into()?,
            _ => return Err("[keys] must have no BLS key beside [keys.signer], which has it"),
        };
        let next = next.map(BlsKey::try_from).transpose()?;
        if next.is_some() && matches!(bls, BlsKey::Remote(_)) {
            return Err(
                "[keys.next] is for keys on this host: change a remote signer's key at the signer, and start anew",
            );
        }
        Ok(Self { identity, bls, next })
    }
}

impl From<Keys> for KeysTable {
    fn from(Keys { identity, bls, next }: Keys) -> Self {
        // Only a key on this host can be the next one.
        let next = next.and_then(|next| KeyFiles::try_from(next).ok());
        let none = KeyFiles { bls: None, bls_keystore: None, bls_password_file: None };
        let (files, signer) = match KeyFiles::try_from(bls) {
            Ok(files) => (files, None),
            Err(remote) => (none, Some(remote)),
        };
        let KeyFiles { bls, bls_keystore, bls_password_file } = files;
        Self { identity, bls, bls_keystore, bls_password_file, signer, next }
    }
}

impl Keys {
    /// Every path of the table.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.identity].into_iter().chain(self.bls.paths()).chain(self.next.iter_mut().flat_map(BlsKey::paths))
    }
}
