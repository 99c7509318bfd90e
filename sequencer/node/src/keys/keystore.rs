//! BLS12-381 secrets in password-protected files: EIP-2335 keystores, version 4.
//!
//! What a keystore asks of this machine is bounded before anything is derived: a file from elsewhere cannot take
//! gigabytes or minutes.

use aes::cipher::{KeyIvInit, StreamCipher};
use alloy_primitives::FixedBytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;
use sha2::{Digest, Sha256};
use switchyard_consensus_core::keys::bls_public_key;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Longest keystore file, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 << 10;
/// Most memory that scrypt may take (`128 * n * r`), in bytes: twice what EIP-2335's own parameters take.
pub const SCRYPT_MEMORY_MAX: u64 = 512 << 20;
/// Most work of scrypt (`128 * n * r * p`), in bytes mixed.
pub const SCRYPT_WORK_MAX: u64 = 2 << 30;
/// Most rounds of PBKDF2: 38 times EIP-2335's own.
pub const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;
/// Longest salt, in bytes.
const SALT_BYTES_MAX: usize = 256;
/// Longest derived key that is looked at, in bytes; EIP-2335 asks for at least 32 and uses 32.
const DERIVED_BYTES_MAX: u32 = 64;
/// Longest `description`, `path` and `uuid`, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Why a keystore is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// Not JSON of the shape that EIP-2335 has.
    #[error("not an EIP-2335 keystore: {0}")]
    Format(serde_json::Error),
    /// Another version of the format.
    #[error("keystore version {0} is not supported, only 4 (EIP-2335)")]
    Version(u64),
    /// A value that this program does not take.
    #[error("keystore: {field} {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// More memory or time than a keystore may ask for.
    #[error("keystore: its key derivation asks for more than is allowed ({asked})")]
    Cost {
        /// What it asks for.
        asked: String,
    },
    /// The checksum does not fit.
    #[error("wrong password, or the keystore is damaged")]
    Password,
    /// What was decrypted is no BLS12-381 secret.
    #[error("the keystore does not hold a BLS12-381 secret key")]
    Secret,
    /// The secret is not the one of the file's public key.
    #[error("the keystore names key {named}, its secret is of key {found}")]
    OtherKey {
        /// What `pubkey` says.
        named: Box<FixedBytes<48>>,
        /// The key that was decrypted.
        found: Box<FixedBytes<48>>,
    },
}

fn field(field: &'static str, problem: &'static str) -> KeystoreError {
    KeystoreError::Field { field, problem }
}

/// A keystore file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keystore {
    crypto: Crypto,
    /// What its owner wrote about it.
    #[serde(default)]
    pub description: String,
    /// The public key, compressed G1, which some files leave out. The file's claim: [`Keystore::open`] checks it.
    #[serde(default, with = "optional_hex", skip_serializing_if = "Option::is_none")]
    pub pubkey: Option<Hex<48>>,
    /// Where an EIP-2334 wallet derived it; empty for a key of its own.
    pub path: String,
    /// RFC 4122.
    pub uuid: String,
    version: u64,
}

/// Bytes of a fixed length.
pub type Hex<const N: usize> = [u8; N];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Crypto {
    kdf: Kdf,
    checksum: Checksum,
    cipher: Cipher,
}

/// How the password becomes a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "KdfFile", into = "KdfFile")]
enum Kdf {
    Scrypt(ScryptParams),
    Pbkdf2(Pbkdf2Params),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ScryptParams {
    dklen: u32,
    n: u64,
    p: u32,
    r: u32,
    salt: Salt,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pbkdf2Params {
    dklen: u32,
    c: u32,
    prf: String,
    salt: Salt,
}

/// As the file has it. Not a tagged enum: serde reads those through a buffer that loses `arbitrary_precision`'s numbers.
#[derive(Serialize, Deserialize)]
struct KdfFile {
    function: String,
    params: serde_json::Value,
    message: String,
}

impl TryFrom<KdfFile> for Kdf {
    type Error = String;

    fn try_from(KdfFile { function, params, message }: KdfFile) -> Result<Self, String> {
        if !message.is_empty() {
            return Err("crypto.kdf.message must be empty".into());
        }
        let kdf = match function.as_str() {
            "scrypt" => serde_json::from_value(params).map(Self::Scrypt),
            "pbkdf2" => serde_json::from_value(params).map(Self::Pbkdf2),
            _ => return Err("crypto.kdf.function must be scrypt or pbkdf2".into()),
        };
        kdf.map_err(|error| format!("crypto.kdf.params: {error}"))
    }
}

impl From<Kdf> for KdfFile {
    fn from(kdf: Kdf) -> Self {
        let (function, params) = match kdf {
            Kdf::Scrypt(ScryptParams { dklen, n, p, r, salt }) => {
                ("scrypt", json!({ "dklen": dklen, "n": n, "p": p, "r": r, "salt": salt }))
            }
            Kdf::Pbkdf2(Pbkdf2Params { dklen, c, prf, salt }) => {
                ("pbkdf2", json!({ "dklen": dklen, "c": c, "prf": prf, "salt": salt }))
            }
        };
        Self { function: function.into(), params, message: String::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Salt(Vec<u8>);

impl Serialize for Salt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let salt = hex::decode(text).map_err(serde::de::Error::custom)?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(serde::de::Error::custom(format!("a salt has 1 to {SALT_BYTES_MAX} bytes")));
        }
        Ok(Self(salt))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Checksum {
    function: String,
    params: serde_json::Map<String, serde_json::Value>,
    #[serde(with = "plain_hex")]
    message: Hex<32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cipher {
    function: String,
    params: CipherParams,
    #[serde(with = "plain_hex")]
    message: Hex<32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CipherParams {
    #[serde(with = "plain_hex")]
    iv: Hex<16>,
}

/// Hex without a prefix, as EIP-2335 has it; read with one too, as some tools write the public key.
mod plain_hex {
    use super::*;

    pub(super) fn serialize<S: Serializer, const N: usize>(bytes: &Hex<N>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<Hex<N>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(&text), &mut bytes)
            .map_err(|_| serde::de::Error::custom(format!("expected {N} bytes in hex")))?;
        Ok(bytes)
    }
}

/// The same where there may be none.
mod optional_hex {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Present(#[serde(with = "plain_hex")] Hex<48>);

    pub(super) fn serialize<S: Serializer>(bytes: &Option<Hex<48>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.map(Present).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hex<48>>, D::Error> {
        Ok(Option::<Present>::deserialize(deserializer)?.map(|Present(bytes)| bytes))
    }
}

/// How a new keystore derives its key: EIP-2335's own parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NewKdf {
    /// 256 MiB of memory for about a second.
    Scrypt,
    /// 262144 rounds of HMAC-SHA256: for machines without that much memory.
    Pbkdf2,
}

impl NewKdf {
    fn with(self, salt: [u8; 32]) -> Kdf {
        let salt = Salt(salt.to_vec());
        match self {
            Self::Scrypt => Kdf::Scrypt(ScryptParams { dklen: 32, n: 1 << 18, p: 1, r: 8, salt }),
            Self::Pbkdf2 => Kdf::Pbkdf2(Pbkdf2Params { dklen: 32, c: 1 << 18, prf: "hmac-sha256".into(), salt }),
        }
    }
}

/// A password as EIP-2335 has it: NFKD, without control characters, UTF-8.
pub fn normalise_password(password: &str) -> Zeroizing<String> {
    Zeroizing::new(password.nfkd().filter(|c| !c.is_control()).collect())
}

impl Kdf {
    /// Derives 32 bytes. Bounded by the constants of this module.
    fn derive(&self, password: &str) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
        let (Self::Scrypt(ScryptParams { dklen, .. }) | Self::Pbkdf2(Pbkdf2Params { dklen, .. })) = self;
        if !(32..=DERIVED_BYTES_MAX).contains(dklen) {
            return Err(field("crypto.kdf.params.dklen", "must be 32 to 64"));
        }
        let password = normalise_password(password);
        // The first 32 bytes do not depend on how many follow: both functions end in PBKDF2, which makes blocks of 32.
        let mut key = Zeroizing::new([0; 32]);
        match self {
            Self::Scrypt(ScryptParams { n, p, r, salt, .. }) => {
                let params = scrypt_params(*n, *r, *p)?;
                scrypt::scrypt(password.as_bytes(), &salt.0, &params, key.as_mut_slice())
                    .map_err(|_| field("crypto.kdf.params", "are not usable"))?;
            }
            Self::Pbkdf2(Pbkdf2Params { c, prf, salt, .. }) => {
                if prf != "hmac-sha256" {
                    return Err(field("crypto.kdf.params.prf", "must be hmac-sha256"));
                }
                if *c == 0 || *c > PBKDF2_ROUNDS_MAX {
                    return Err(KeystoreError::Cost { asked: format!("{c} rounds, 1 to {PBKDF2_ROUNDS_MAX} allowed") });
                }
                pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt.0, *c, key.as_mut_slice());
            }
        }
        Ok(key)
    }
}

fn scrypt_params(n: u64, r: u32, p: u32) -> Result<scrypt::Params, KeystoreError> {
    let memory = n.checked_mul(u64::from(r)).and_then(|nr| nr.checked_mul(128));
    let work = memory.and_then(|memory| memory.checked_mul(u64::from(p)));
    let (Some(memory), Some(work)) = (memory, work) else {
        return Err(KeystoreError::Cost { asked: format!("scrypt with n {n}, r {r}, p {p}") });
    };
    if memory > SCRYPT_MEMORY_MAX || work > SCRYPT_WORK_MAX {
        let asked = format!("scrypt with {} MiB of memory, at most {} MiB", memory >> 20, SCRYPT_MEMORY_MAX >> 20);
        return Err(KeystoreError::Cost { asked });
    }
    if n < 2 || !n.is_power_of_two() {
        return Err(field("crypto.kdf.params.n", "must be a power of two"));
    }
    let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
    scrypt::Params::new(log_n, r, p).map_err(|_| field("crypto.kdf.params", "are not valid for scrypt"))
}

fn checksum(key: &[u8; 32], message: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(&key[16..]).chain_update(message).finalize().into()
}

/// AES-128 in counter mode with the first half of the key: the same in both directions.
fn apply_cipher(key: &[u8; 32], iv: [u8; 16], bytes: &mut [u8; 32]) {
    let mut half = Zeroizing::new([0; 16]);
    half.copy_from_slice(&key[..16]);
    ctr::Ctr128BE::<aes::Aes128>::new(&(*half).into(), &iv.into()).apply_keystream(bytes);
}

impl Keystore {
    /// Reads a keystore. Nothing is derived yet.
    pub fn parse(json: &[u8]) -> Result<Self, KeystoreError> {
        let keystore: Self = serde_json::from_slice(json).map_err(KeystoreError::Format)?;
        if keystore.version != 4 {
            return Err(KeystoreError::Version(keystore.version));
        }
        let Crypto { checksum, cipher, .. } = &keystore.crypto;
        if checksum.function != "sha256" || !checksum.params.is_empty() {
            return Err(field("crypto.checksum", "must be sha256 without parameters"));
        }
        if cipher.function != "aes-128-ctr" {
            return Err(field("crypto.cipher.function", "must be aes-128-ctr"));
        }
        for (name, text) in [("description", &keystore.description), ("path", &keystore.path), ("uuid", &keystore.uuid)]
        {
            if text.len() > TEXT_BYTES_MAX {
                return Err(field(name, "is longer than 1024 bytes"));
            }
        }
        Ok(keystore)
    }

    /// Protects a secret with a password.
    ///
    /// # Errors
    ///
    /// [`KeystoreError::Secret`] where it is no BLS12-381 secret.
    pub fn seal(secret: &[u8; 32], password: &str, kdf: NewKdf, description: &str) -> Result<Self, KeystoreError> {
        Self::seal_with(secret, password, kdf.with(rand::random()), rand::random(), rand::random(), description)
    }

    fn seal_with(
        secret: &[u8; 32],
        password: &str,
        kdf: Kdf,
        iv: [u8; 16],
        uuid: [u8; 16],
        description: &str,
    ) -> Result<Self, KeystoreError> {
        let pubkey = bls_public_key(secret).map_err(|_| KeystoreError::Secret)?.0;
        if description.len() > TEXT_BYTES_MAX {
            return Err(field("description", "is longer than 1024 bytes"));
        }
        let key = kdf.derive(password)?;
        let mut message = *secret;
        apply_cipher(&key, iv, &mut message);
        let checksum =
            Checksum { function: "sha256".into(), params: Default::default(), message: checksum(&key, &message) };
        let cipher = Cipher { function: "aes-128-ctr".into(), params: CipherParams { iv }, message };
        let crypto = Crypto { kdf, checksum, cipher };
        let (description, path) = (description.to_owned(), String::new());
        Ok(Self { crypto, description, pubkey: Some(pubkey), path, uuid: uuid_v4(uuid), version: 4 })
    }

    /// The secret. Takes about a second and, with EIP-2335's own parameters, 256 MiB.
    pub fn open(&self, password: &str) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
        let Crypto { kdf, checksum: expected, cipher } = &self.crypto;
        let key = kdf.derive(password)?;
        if checksum(&key, &cipher.message) != expected.message {
            return Err(KeystoreError::Password);
        }
        let mut secret = Zeroizing::new(cipher.message);
        apply_cipher(&key, cipher.params.iv, &mut secret);
        let found = bls_public_key(&secret).map_err(|_| KeystoreError::Secret)?;
        match self.pubkey.map(FixedBytes) {
            Some(named) if named != found => Err(KeystoreError::OtherKey { named: named.into(), found: found.into() }),
            _ => Ok(secret),
        }
    }

    /// The file's text.
    pub fn to_json(&self) -> Result<String, KeystoreError> {
        serde_json::to_string_pretty(self).map_err(KeystoreError::Format)
    }
}

/// A random UUID (RFC 4122, version 4) of these bytes.
fn uuid_v4(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests;
