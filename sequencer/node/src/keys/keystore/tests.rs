use super::*;
use proptest::prelude::*;
use serde_json::Value;

/// EIP-2335, "Test Cases".
const PASSWORD: &str = "𝔱𝔢𝔰𝔱𝔭𝔞𝔰𝔰𝔴𝔬𝔯𝔡🔑";
const SECRET: &str = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";
const SALT: &str = "d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3";

fn vector(kdf: Value, checksum: &str, cipher: &str, path: &str, uuid: &str) -> Value {
    json!({
        "crypto": {
            "kdf": kdf,
            "checksum": { "function": "sha256", "params": {}, "message": checksum },
            "cipher": {
                "function": "aes-128-ctr", "params": { "iv": "264daa3f303d7259501c93d997d84fe6" }, "message": cipher,
            },
        },
        "description": "This is a test keystore.",
        "pubkey": "9612d7a727c9d0a22e185a1c768478dfe919cada9266988cb32359c11f2b7b27f4ae4040902382ae2910c15e2b420d07",
        "path": path, "uuid": uuid, "version": 4,
    })
}

fn scrypt_vector() -> Value {
    vector(
        json!({
            "function": "scrypt", "params": { "dklen": 32, "n": 262144, "p": 1, "r": 8, "salt": SALT }, "message": "",
        }),
        "d2217fe5f3e9a1e34581ef8a78f7c9928e436d36dacc5e846690a5581e8ea484",
        "06ae90d55fe0a6e9c5c3bc5b170827b2e5cce3929ed3f116c2811e6366dfe20f",
        "m/12381/60/3141592653/589793238",
        "1d85ae20-35c5-4611-98e8-aa14a633906f",
    )
}

fn pbkdf2_vector() -> Value {
    vector(
        json!({
            "function": "pbkdf2", "message": "",
            "params": { "dklen": 32, "c": 262144, "prf": "hmac-sha256", "salt": SALT },
        }),
        "8a9f5d9912ed7e75ea794bc5a89bca5f193721d30868ade6f73043c6ea6febf1",
        "cee03fde2af33149775b7223e7845e4fb2c8ae1792e5f99fe9ecf474cc8c16ad",
        "m/12381/60/0/0",
        "64625def-3331-4eea-ab6f-782f3ed16a83",
    )
}

fn parse(value: &Value) -> Result<Keystore, KeystoreError> {
    Keystore::parse(value.to_string().as_bytes())
}

/// What is derived in an instant.
fn cheap() -> Kdf {
    Kdf::Scrypt(ScryptParams { dklen: 32, n: 2, p: 1, r: 8, salt: Salt(vec![7; 32]) })
}

fn sealed(password: &str) -> Keystore {
    let secret = hex::decode(SECRET).unwrap().try_into().unwrap();
    Keystore::seal_with(&secret, password, cheap(), [1; 16], [0xff; 16], "a seat").unwrap()
}

#[test]
fn the_published_vectors_open() {
    for vector in [scrypt_vector(), pbkdf2_vector()] {
        let keystore = parse(&vector).unwrap();
        assert_eq!(hex::encode(*keystore.open(PASSWORD).unwrap()), SECRET);
        // The same text in another normal form, with control characters in between.
        assert_eq!(hex::encode(*keystore.open("test\u{7}pass\u{7f}word\u{85}🔑").unwrap()), SECRET);
        let written: Value = serde_json::from_str(&keystore.to_json().unwrap()).unwrap();
        assert_eq!(written, vector);
    }
}

#[test]
fn a_keystore_need_not_name_its_public_key() {
    let mut value = serde_json::to_value(sealed("password")).unwrap();
    value.as_object_mut().unwrap().remove("pubkey");
    let keystore = parse(&value).unwrap();
    assert_eq!(hex::encode(*keystore.open("password").unwrap()), SECRET);
    assert_eq!(serde_json::to_value(&keystore).unwrap(), value);
}

#[test]
fn the_password_is_normalised_as_published() {
    assert_eq!(hex::encode(normalise_password(PASSWORD).as_bytes()), "7465737470617373776f7264f09f9491");
}

#[test]
fn what_is_sealed_opens_with_its_password_alone() {
    let keystore = parse(&serde_json::to_value(sealed("right password")).unwrap()).unwrap();
    assert_eq!(hex::encode(*keystore.open("right password").unwrap()), SECRET);
    assert!(matches!(keystore.open("wrong password"), Err(KeystoreError::Password)));
    assert_eq!(keystore.uuid, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    let pbkdf2 = Keystore::seal(&[1; 32], "another", NewKdf::Pbkdf2, "").unwrap();
    assert_eq!(*pbkdf2.open("another").unwrap(), [1; 32]);
    assert_ne!(pbkdf2.uuid, Keystore::seal(&[1; 32], "another", NewKdf::Pbkdf2, "").unwrap().uuid);
}

#[test]
fn a_damaged_or_relabelled_keystore_does_not_open() {
    let whole = serde_json::to_value(sealed("password")).unwrap();
    let damaged = |pointer: &str, value: Value| {
        let mut damaged = whole.clone();
        *damaged.pointer_mut(pointer).unwrap() = value;
        parse(&damaged).and_then(|keystore| keystore.open("password").map(drop)).unwrap_err()
    };
    let other = json!(hex::encode([9; 32]));
    assert!(matches!(damaged("/crypto/cipher/message", other.clone()), KeystoreError::Password));
    assert!(matches!(damaged("/crypto/checksum/message", other), KeystoreError::Password));
    // The initialisation vector is not under the checksum: the public key tells.
    let error = damaged("/crypto/cipher/params/iv", json!("00".repeat(16)));
    assert!(matches!(error, KeystoreError::OtherKey { .. } | KeystoreError::Secret), "{error}");
    let error = damaged("/pubkey", json!(hex::encode(bls_public_key(&[1; 32]).unwrap())));
    assert!(matches!(error, KeystoreError::OtherKey { .. }), "{error}");
    assert!(matches!(damaged("/version", json!(3)), KeystoreError::Version(3)));
    for (pointer, value) in [
        ("/crypto/cipher/function", json!("aes-256-ctr")),
        ("/crypto/checksum/function", json!("md5")),
        ("/crypto/kdf/params/n", json!(3)),
        ("/crypto/kdf/params/n", json!(0)),
        ("/crypto/kdf/params/dklen", json!(31)),
        ("/description", json!("x".repeat(2000))),
    ] {
        let error = damaged(pointer, value);
        assert!(matches!(error, KeystoreError::Field { .. }), "{pointer}: {error}");
    }
    for (pointer, value) in [
        ("/crypto/kdf/function", json!("argon2")),
        ("/crypto/kdf/message", json!("x")),
        ("/crypto/kdf/params/salt", json!("")),
        ("/crypto/kdf/params/salt", json!("00".repeat(1000))),
        ("/crypto/cipher/message", json!("00")),
        ("/pubkey", json!("not hex")),
    ] {
        assert!(matches!(damaged(pointer, value), KeystoreError::Format(_)), "{pointer}");
    }
}

#[test]
fn a_keystore_that_asks_for_too_much_is_refused_before_anything_is_derived() {
    let scrypt = |n: u64, r: u32, p: u32| Kdf::Scrypt(ScryptParams { dklen: 32, n, p, r, salt: Salt(vec![0; 32]) });
    let pbkdf2 = |c| Kdf::Pbkdf2(Pbkdf2Params { dklen: 32, c, prf: "hmac-sha256".into(), salt: Salt(vec![0; 32]) });
    for hostile in [
        scrypt(1 << 30, 8, 1),
        scrypt(1 << 63, u32::MAX, u32::MAX),
        scrypt(1 << 19, 16, 1),
        scrypt(1 << 18, 8, 9),
        scrypt(2, u32::MAX, 1),
        scrypt(2, 1, u32::MAX),
        pbkdf2(PBKDF2_ROUNDS_MAX + 1),
        pbkdf2(u32::MAX),
        pbkdf2(0),
    ] {
        let error = hostile.derive("password").unwrap_err();
        assert!(matches!(error, KeystoreError::Cost { .. }), "{hostile:?}: {error}");
    }
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Keystore::parse(&bytes);
    }

    #[test]
    fn a_changed_keystore_never_panics_and_never_gives_another_secret(
        at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut text = sealed("password").to_json().unwrap().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(secret) = Keystore::parse(&text).and_then(|keystore| keystore.open("password")) {
            prop_assert_eq!(hex::encode(*secret), SECRET);
        }
    }

    #[test]
    fn parameters_never_panic(n in any::<u64>(), r in any::<u32>(), p in any::<u32>()) {
        let _ = scrypt_params(n, r, p);
    }
}
