//! One key file of each format and tokens of the Python library, made by `scripts/make-fixtures`:
//! what a clone alone can test.

use std::{fs, path::PathBuf};

use ajwt_core::{KeyError, PrivateKey, PublicKey, Timestamp, UntrustedToken, Validation};
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
