//! One key file of each format and tokens of the Python library, made by `scripts/make-fixtures`:
//! what a clone alone can test.

use std::{fs, path::PathBuf};

use ajwt_core::{KeyError, MAX_PUBLIC_KEY_LEN, PrivateKey, PublicKey, Timestamp, UntrustedToken, Validation};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

const PASSWORD: &[u8] = b"correct horse";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Names and texts of the files with this ending, and the key that each must be.
fn files(ending: &str) -> Vec<(String, String, String)> {
    let fingerprints = python()["fingerprints"].clone();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder()).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        if name.ends_with(ending) {
            let key = name.split('.').next().expect("the key's name");
            let fingerprint = fingerprints[key].as_str().expect("its fingerprint").to_owned();
            files.push((name, fs::read_to_string(&path).expect("text"), fingerprint));
        }
    }
    assert!(!files.is_empty());
    files
}

fn python() -> Value {
    serde_json::from_str(&fs::read_to_string(folder().join("python.json")).expect("text")).expect("JSON")
}

#[test]
fn every_format_of_a_public_key_is_read() {
    for (name, text, fingerprint) in files(".public") {
        let (key, comment) = PublicKey::from_text(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(key.fingerprint().as_str(), fingerprint, "{name}");
        assert_eq!(comment.as_deref(), name.contains("openssh").then_some("a comment"), "{name}");
        assert_eq!(PrivateKey::from_pem(&text, None).expect_err(&name), KeyError::PublicKey, "{name}");
    }
}

/// The DER within a PEM block.
fn body(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    BASE64_STANDARD.decode(base64).expect("base64")
}

/// As a key management service hands it out.
#[test]
fn the_spki_within_pem_is_read_alone() {
    for (name, text, _) in files(".public").into_iter().filter(|(name, ..)| !name.contains("openssh")) {
        let key = PublicKey::from_pem(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(PublicKey::from_spki_der(&body(&key.to_pem())).as_ref(), Ok(&key), "{name}");
        match (name.contains("spki"), PublicKey::from_spki_der(&body(&text))) {
            (true, read) => assert_eq!(read, Ok(key), "{name}"),
            (false, Err(KeyError::Malformed { format: "SPKI", .. })) => {}
            (false, other) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn spki_is_read_whole_or_not_at_all() {
    for (name, text, _) in files(".spki.public") {
        let mut spki = body(&text);
        for len in 0..spki.len() {
            let read = PublicKey::from_spki_der(&spki[..len]);
            assert!(matches!(read, Err(KeyError::Malformed { .. })), "{name}, {len} bytes: {read:?}");
        }
        for len in [spki.len() + 1, MAX_PUBLIC_KEY_LEN] {
            spki.resize(len, 0);
            let read = PublicKey::from_spki_der(&spki);
            assert!(matches!(read, Err(KeyError::Malformed { .. })), "{name}, {len} bytes: {read:?}");
        }
        spki.push(0);
        let (len, max) = (MAX_PUBLIC_KEY_LEN + 1, MAX_PUBLIC_KEY_LEN);
        assert_eq!(PublicKey::from_spki_der(&spki), Err(KeyError::TooLong { len, max }), "{name}");
    }
}

#[test]
fn a_private_key_is_told_to_be_one_where_spki_is_due() {
    // OpenSSH's own format, and what the legacy encryption leaves, are no DER.
    let is_der = |name: &str| name.contains("pkcs8") || name.ends_with("pkcs1.private");
    for (name, text, _) in files(".private").into_iter().filter(|(name, ..)| is_der(name)) {
        let der = body(&text);
        assert_eq!(PublicKey::from_spki_der(&der), Err(KeyError::PrivateKey), "{name}");
        for len in 0..der.len() {
            assert!(PublicKey::from_spki_der(&der[..len]).is_err(), "{name}, {len} bytes");
        }
    }
}

#[test]
fn every_format_of_a_private_key_is_read() {
    for (name, text, fingerprint) in files(".private") {
        let is_encrypted = name.contains("encrypted");
        if is_encrypted {
            assert_eq!(
                PrivateKey::from_pem(&text, None).expect_err(&name),
                KeyError::PasswordMissing,
                "{name}"
            );
            let wrong = PrivateKey::from_pem(&text, Some(b"wrong")).expect_err(&name);
            assert_eq!(wrong, KeyError::PasswordWrong, "{name}");
        }
        let key = PrivateKey::from_pem(&text, is_encrypted.then_some(PASSWORD))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(key.public_key().fingerprint().as_str(), fingerprint, "{name}");
        assert_eq!(PublicKey::from_text(&text).expect_err(&name), KeyError::PrivateKey, "{name}");
    }
}

#[test]
fn tokens_of_the_python_library_verify() {
    let python = python();
    let now = Timestamp::from_secs(python["time"].as_i64().expect("a time"));
    for token in python["tokens"].as_array().expect("tokens") {
        let name = token["key"].as_str().expect("a key");
        let text = fs::read_to_string(folder().join(format!("{name}.spki.public"))).expect("text");
        let key = PublicKey::from_pem(text).expect("a key");
        let authorization = token["authorization"].as_str().expect("a header");
        let compact = authorization.strip_prefix("JWT ").expect("the scheme");
        let untrusted = UntrustedToken::parse(compact).expect("a token");
        assert_eq!(untrusted.key_id(), Some(key.fingerprint().as_str()));
        let verified = untrusted.verify(&key, &Validation::default(), now).expect("a good token");
        assert_eq!(verified.username().as_str(), python["username"].as_str().expect("a name"));
        if token["jwk"].is_object() {
            let ours: Value = serde_json::from_str(&key.to_jwk().to_json()).expect("JSON");
            assert_eq!(ours, token["jwk"]);
        }
    }
}
