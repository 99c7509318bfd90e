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

    /// From the files that a table names.
    pub(crate) fn of_files(
        bls: Option<PathBuf>,
        bls_keystore: Option<PathBuf>,
        bls_password_file: Option<PathBuf>,
    ) -> Result<Self, &'static str> {
        match (bls, bls_keystore, bls_password_file) {
            (Some(path), None, None) => Ok(Self::Plain(path)),
            (None, Some(path), password_file) => Ok(Self::Keystore { path, password_file }),
            _ => Err("[keys] must have either bls, or bls_keystore and perhaps bls_password_file"),
        }
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
    next: Option<NextTable>,
}

/// `[keys.next]`, as the file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NextTable {
    #[serde(skip_serializing_if = "Option::is_none")]
    bls: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bls_keystore: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bls_password_file: Option<PathBuf>,
}

impl TryFrom<KeysTable> for Keys {
    type Error = &'static str;

    fn try_from(table: KeysTable) -> Result<Self, Self::Error> {
        let bls = match (table.bls, table.bls_keystore, table.bls_password_file, table.signer) {
            (None, None, None, Some(signer)) => BlsKey::Remote(signer),
            (bls, keystore, password_file, None) => BlsKey::of_files(bls, keystore, password_file)?,
            _ => return Err("[keys] must have no BLS key beside [keys.signer], which has it"),
        };
        let files = |next: NextTable| BlsKey::of_files(next.bls, next.bls_keystore, next.bls_password_file);
        let next = table.next.map(files).transpose()?;
        if next.is_some() && matches!(bls, BlsKey::Remote(_)) {
            return Err(
                "[keys.next] is for keys on this host: change a remote signer's key at the signer, and start anew",
            );
        }
        Ok(Self { identity: table.identity, bls, next })
    }
}

impl From<Keys> for KeysTable {
    fn from(Keys { identity, bls, next }: Keys) -> Self {
        let next = next.map(|next| match next {
            BlsKey::Keystore { path, password_file } => {
                NextTable { bls: None, bls_keystore: Some(path), bls_password_file: password_file }
            }
            BlsKey::Plain(path) | BlsKey::Remote(RemoteKey { key: path, .. }) => {
                NextTable { bls: Some(path), bls_keystore: None, bls_password_file: None }
            }
        });
        let mut table = Self { identity, bls: None, bls_keystore: None, bls_password_file: None, signer: None, next };
        match bls {
            BlsKey::Plain(path) => table.bls = Some(path),
            BlsKey::Keystore { path, password_file } => {
                (table.bls_keystore, table.bls_password_file) = (Some(path), password_file);
            }
            BlsKey::Remote(signer) => table.signer = Some(signer),
        }
        table
    }
}

impl Keys {
    /// Every path of the table.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.identity].into_iter().chain(self.bls.paths()).chain(self.next.iter_mut().flat_map(BlsKey::paths))
    }
}
