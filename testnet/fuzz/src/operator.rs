//! Files that people write and send each other.

use std::path::Path;
use switchyard_node::{config::Config, genesis::Genesis, keys::keystore::Keystore, signer::SignerConfig};

pub(crate) fn genesis(input: &[u8]) -> bool {
    let Ok(genesis) = Genesis::parse("genesis".into(), input) else { return false };
    let text = serde_json::to_vec(&genesis).expect("a genesis is JSON");
    let back = Genesis::parse("genesis".into(), &text).expect("a genesis as it was written");
    assert_eq!(back.id().ok(), genesis.id().ok());
    assert_eq!(back, genesis);
    let _ = genesis.header();
    true
}

pub(crate) fn rollup_genesis(input: &[u8]) -> bool {
    serde_json::from_slice(input).is_ok_and(|value| switchyard_rollup_evm::fuzz::genesis(&value))
}

pub(crate) fn config(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let path = Path::new("/etc/switchyard/node.toml");
    let config = match Config::parse(path, text) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "an error of one line");
            return false;
        }
    };
    // What TOML cannot say (a number above 2^63) cannot have been read from it.
    let written = toml::to_string(&config).expect("a configuration is TOML");
    assert_eq!(Config::parse(path, &written).ok(), Some(config));
    true
}

pub(crate) fn signer_config(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let path = Path::new("/etc/switchyard/signer.toml");
    let Ok(config) = SignerConfig::parse(path, text) else { return false };
    let written = toml::to_string(&config).expect("a configuration is TOML");
    assert_eq!(SignerConfig::parse(path, &written).ok(), Some(config));
    true
}

/// Not opened: a key derivation takes a second.
pub(crate) fn keystore(input: &[u8]) -> bool {
    let Ok(keystore) = Keystore::parse(input) else { return false };
    let text = keystore.to_json().expect("a keystore is JSON");
    assert_eq!(Keystore::parse(text.as_bytes()).ok(), Some(keystore));
    true
}
