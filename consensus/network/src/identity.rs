//! A validator's identity on the network: an ed25519 key.

use commonware_codec::{Copying, DecodeExt};
use commonware_cryptography::{
    Signer as _,
    ed25519::{PrivateKey, PublicKey},
};
use switchyard_primitives::B256;

/// Thirty-two bytes that are not an ed25519 public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an ed25519 public key; check the validator's identity in the genesis and the peer list")]
pub struct InvalidIdentity(pub B256);

/// The identity of a secret seed (RFC 8032); every 32 bytes are one.
pub fn identity(secret: &[u8; 32]) -> B256 {
    to_b256(&private_key(secret).public_key())
}

pub(crate) fn private_key(secret: &[u8; 32]) -> PrivateKey {
    match PrivateKey::decode(Copying(secret)) {
        Ok(key) => key,
        Err(_) => unreachable!("the decoder takes any 32 bytes"),
    }
}

/// The key of an identity.
pub fn public_key(identity: B256) -> Result<PublicKey, InvalidIdentity> {
    PublicKey::decode(Copying(identity.as_slice())).map_err(|_| InvalidIdentity(identity))
}

/// The identity of a key.
pub fn to_b256(key: &PublicKey) -> B256 {
    let mut out = B256::ZERO;
    // The key's encoding is its 32 bytes, in the order that also sorts seats.
    out.0.copy_from_slice(key);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchyard_primitives::keccak256;

    #[test]
    fn an_identity_is_the_rfc_8032_public_key_of_its_seed() {
        // RFC 8032, section 7.1, test 1.
        let seed: B256 = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60".parse().unwrap();
        let public: B256 = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse().unwrap();
        assert_eq!(identity(&seed.0), public);
        assert_eq!(to_b256(&public_key(public).unwrap()), public);
    }

    #[test]
    fn identities_sort_as_their_keys_do() {
        let mut ids: Vec<B256> = (0u8..40).map(|i| identity(&keccak256([i]).0)).collect();
        let mut keys: Vec<PublicKey> = ids.iter().map(|id| public_key(*id).unwrap()).collect();
        ids.sort();
        keys.sort();
        assert_eq!(ids, keys.iter().map(to_b256).collect::<Vec<_>>());
    }
}
