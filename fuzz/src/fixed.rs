//! The keys and the time that the targets share.

use std::sync::LazyLock;

use ajwt_core::{Algorithm, PrivateKey, Timestamp};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Seconds since the Unix epoch.
pub(crate) const NOW: i64 = 1_790_000_000;

/// Of the fixtures and vectors that are encrypted.
pub(crate) const PASSWORD: &[u8] = b"correct horse";

pub(crate) const USERNAME: &str = "guido";

/// The user's keys; from the fixtures, so that tokens are the same in every run.
pub(crate) static ED25519: LazyLock<PrivateKey> = LazyLock::new(|| {
    let text = include_str!("../../crates/ajwt-core/tests/fixtures/ed25519.pkcs8.private");
    PrivateKey::from_pem(text, None).expect("a key")
});
pub(crate) static RSA: LazyLock<PrivateKey> = LazyLock::new(|| {
    let text = include_str!("../../crates/ajwt-core/tests/fixtures/rsa.pkcs8.private");
    PrivateKey::from_pem(text, None).expect("a key")
});

pub(crate) fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}

pub(crate) fn key_of(algorithm: Algorithm) -> &'static PrivateKey {
    match algorithm {
        Algorithm::EdDsa => &ED25519,
        _ => &RSA,
    }
}

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A compact token of any header and payload.
pub(crate) fn sign(algorithm: Algorithm, header: &[u8], payload: &[u8]) -> String {
    let signing_input = format!("{}.{}", base64url(header), base64url(payload));
    let signature = key_of(algorithm).sign(algorithm, signing_input.as_bytes()).expect("a signature");
    format!("{signing_input}.{}", base64url(signature))
}

/// A genuine token of the user.
pub(crate) fn genuine(algorithm: Algorithm, nonce: &str) -> String {
    let kid = key_of(algorithm).public_key().fingerprint();
    let header = format!(r#"{{"typ":"JWT","alg":"{algorithm}","kid":"{kid}"}}"#);
    let payload = format!(r#"{{"username":"{USERNAME}","time":{NOW},"nonce":"{nonce}"}}"#);
    sign(algorithm, header.as_bytes(), payload.as_bytes())
}
