use ajwt_core::{KeyError, KeyType, PrivateKey, PublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::jwk_set::is_good_rsa;
use crate::{model, script::Script};

/// A text that may be a public key: PEM or one OpenSSH line. What is read is a key by the rules, and every
/// way to write it reads as the same key.
pub fn public_key_text(data: &[u8]) {
    check(data);
}

/// The structure within: SPKI, PKCS#1 and OpenSSH's, by the first byte. SPKI without PEM around it is the same key,
/// or none either.
pub fn public_key_der(data: &[u8]) {
    let mut script = Script::new(data);
    let kind = script.byte() % 4;
    let bytes = script.rest();
    let body = STANDARD.encode(bytes);
    let read = check(
        match kind {
            0 => pem("PUBLIC KEY", &body),
            1 => pem("RSA PUBLIC KEY", &body),
            2 => format!("ssh-ed25519 {body} a comment"),
            _ => format!("ssh-rsa {body}"),
        }
        .as_bytes(),
    );
    if kind == 0 {
        let bare = PublicKey::from_spki_der(bytes);
        if let Err(error) = &bare {
            crate::check_error(error);
        }
        assert_eq!(bare.ok(), read);
    }
}

pub(crate) fn pem(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// The key of the text, if it is one.
pub(crate) fn check(text: &[u8]) -> Option<PublicKey> {
    let (from_pem, from_openssh) = (PublicKey::from_pem(text), PublicKey::from_openssh(text));
    let (key, comment) = match PublicKey::from_text(text) {
        Ok(read) => read,
        Err(error) => {
            crate::check_error(&error);
            // Whoever asks for one format finds no key where there is none of either.
            assert!(from_pem.is_err() && from_openssh.is_err());
            return None;
        }
    };
    assert!(text.len() <= ajwt_core::MAX_PUBLIC_KEY_LEN);
    assert_eq!(from_pem.is_ok(), from_openssh.is_err());
    assert_eq!(from_pem.or(from_openssh).as_ref(), Ok(&key));
    assert_eq!(PrivateKey::from_pem(text, None).map(drop), Err(KeyError::PublicKey));

    let written = key.to_pem();
    assert_eq!(PublicKey::from_pem(&written), Ok(key.clone()));
    let digest = Sha256::digest(&written);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(key.fingerprint().as_str(), hex);

    let comment = comment.unwrap_or_default();
    let line = key.to_openssh(&comment);
    let (again, _) = PublicKey::from_text(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert_eq!(again, key);

    let jwk = key.to_jwk().to_json();
    assert_eq!(PublicKey::from_jwk(&jwk), Ok(key.clone()));
    check_rules(&key, &jwk);
    Some(key)
}

fn check_rules(key: &PublicKey, jwk: &str) {
    let jwk: Value = serde_json::from_str(jwk).expect("JSON");
    let number = |name: &str| model::decode(jwk[name].as_str().expect("a string")).expect("base64url");
    match key.key_type() {
        KeyType::Rsa { bits } => {
            let (n, e) = (number("n"), number("e"));
            assert!(is_good_rsa(&n, &e));
            assert_ne!(n[0], 0);
            assert_eq!(n.len() * 8 - n[0].leading_zeros() as usize, bits);
            assert_eq!(key.signature_len(), n.len());
        }
        KeyType::Ed25519 => assert_eq!((number("x").len(), key.signature_len()), (32, 64)),
        other => panic!("a key of another type: {other}"),
    }
}
