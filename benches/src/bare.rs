//! The limit: a signature check of aws-lc-rs, with the key parsed once and nothing besides.

use std::sync::LazyLock;

use ajwt_core::{Algorithm, KeyType, PublicKey};
use aws_lc_rs::signature::{
    ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use base64::{
    Engine as _,
    engine::{Simd, general_purpose::NO_PAD},
    prelude::BASE64_STANDARD,
};

/// With the vector instructions that the processor has, as in ours.
static BASE64URL: LazyLock<Simd> = LazyLock::new(|| Simd::url_safe(NO_PAD));

pub(crate) struct Bare {
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Bare {
    pub(crate) fn of(token: &str) -> Self {
        let (message, signature) = token.rsplit_once('.').expect("a token");
        let signature = BASE64URL.decode(signature).expect("base64url");
        Self { message: message.as_bytes().to_vec(), signature }
    }

    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }

    pub(crate) fn check(&self, key: &ParsedPublicKey) {
        assert!(key.verify_sig(&self.message, &self.signature).is_ok());
    }
}

/// Checks a token where it stands: nothing is copied, and nothing allocated.
pub(crate) fn check_token(token: &str, key: &ParsedPublicKey) {
    let (message, signature) = token.rsplit_once('.').expect("a token");
    // Those of RSA-4096 have as many bytes.
    let mut bytes = [0; 512];
    let length = BASE64URL.decode_slice(signature, &mut bytes).expect("base64url");
    assert!(key.verify_sig(message.as_bytes(), &bytes[..length]).is_ok());
}

pub(crate) fn parsed(key: &PublicKey) -> ParsedPublicKey {
    let algorithm: &'static dyn VerificationAlgorithm = match key.preferred_algorithm() {
        Algorithm::EdDsa => &ED25519,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
    };
    let pem = key.to_pem();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let spki = BASE64_STANDARD.decode(base64).expect("base64");
    let bytes = match key.key_type() {
        // After the prefix of RFC 8410.
        KeyType::Ed25519 => &spki[12..],
        KeyType::Rsa { .. } => &spki[..],
        other => panic!("a key of another type: {other}"),
    };
    ParsedPublicKey::new(algorithm, bytes).expect("a key")
}
