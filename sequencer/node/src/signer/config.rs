//! The signer's configuration.

use crate::config::{BlsKey, ConfigError, KeyFiles, parse_toml};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// A signer's configuration, a TOML file whose unknown keys are refused. Relative paths are relative to its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerConfig {
    /// The network's genesis file.
    pub genesis: PathBuf,
    /// The record of what the key has signed.
    pub sign_record: PathBuf,
    /// Where validators ask.
    pub listen: SocketAddr,
    /// Where the key is, on this host. Files that others may read are refused.
    #[serde(deserialize_with = "read_keys", serialize_with = "write_keys")]
    pub keys: BlsKey,
    /// Mutual TLS.
    pub tls: SignerTls,
}

fn read_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BlsKey, D::Error> {
    KeyFiles::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
}

fn write_keys<S: Serializer>(key: &BlsKey, serializer: S) -> Result<S::Ok, S::Error> {
    let files = KeyFiles::try_from(key.clone());
    files.map_err(|_| serde::ser::Error::custom("a signer has its key itself"))?.serialize(serializer)
}

/// PEM files of the signer's TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerTls {
    /// The signer's certificate, with those between it and its authority.
    pub cert: PathBuf,
    /// Its key, PKCS #8, mode 0600.
    pub key: PathBuf,
    /// The authority of the validator's certificate: whoever it has certified may have votes signed.
    pub client_ca: PathBuf,
}

impl SignerConfig {
    /// Whether this text is a signer's configuration and not a validator's.
    pub(crate) fn is_one(text: &str) -> bool {
        toml::from_str::<toml::Table>(text).is_ok_and(|table| table.contains_key("sign_record"))
    }

    /// Reads and checks a file, and makes its paths absolute.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |source| ConfigError::Read { path: path.display().to_string(), source };
        Self::parse(path, &std::fs::read_to_string(path).map_err(read_error)?)
    }

    /// [`Self::load`] of a file whose text this is.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = parse_toml(path, text)?;
        let base = path.parent().unwrap_or(Path::new("."));
        let SignerConfig { genesis, sign_record, keys, tls, .. } = &mut config;
        let tls = [&mut tls.cert, &mut tls.key, &mut tls.client_ca];
        for p in [genesis, sign_record].into_iter().chain(tls).chain(keys.paths()) {
            *p = base.join(&*p);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../docs/signer.example.toml");

    fn parse(text: &str) -> Result<SignerConfig, ConfigError> {
        SignerConfig::parse(Path::new("/signer/signer.toml"), text)
    }

    #[test]
    fn the_example_is_a_signers_and_no_validators() {
        let config = parse(EXAMPLE).unwrap();
        assert_eq!(config.sign_record, Path::new("/signer/sign-record"));
        assert_eq!(config.tls.client_ca, Path::new("/signer/ca.pem"));
        assert!(matches!(config.keys, BlsKey::Keystore { path, .. } if path == Path::new("/signer/bls.json")));
        assert!(SignerConfig::is_one(EXAMPLE));
        assert!(!SignerConfig::is_one(include_str!("../../../../docs/node.example.toml")));
    }

    #[test]
    fn an_unknown_key_is_refused_and_so_are_two_keys_or_none() {
        for (from, to, says) in [
            ("[tls]", "[tls]\nsurprise = 1", "surprise"),
            ("[keys]", "[keys]\nbls = \"a\"", "either bls, or bls_keystore"),
            ("bls_keystore = \"bls.json\"", "", "either bls, or bls_keystore"),
        ] {
            let error = parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
    }
}
