use ajwt_core::{Algorithm, PublicKey, UntrustedToken, Validation};
use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
    edwards::CompressedEdwardsY,
};
use sha2::{Digest as _, Sha512};

use crate::{fixed, script::Script};

/// Signatures under fixed and foreign keys: only what the private half makes is accepted, and all ways to
/// check an Ed25519 signature agree.
pub fn verification(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 4 {
        0 => token(script.rest()),
        1 => foreign_key(script),
        2 => altered(script),
        _ => mixed_order(script),
    }
}

/// Signatures of both kinds are a function of key and message, so an accepted one can be made again.
fn token(text: &[u8]) {
    let Ok(Ok(read)) = std::str::from_utf8(text).map(UntrustedToken::parse) else { return };
    let text = std::str::from_utf8(text).expect("a token");
    let (signing_input, signature) = text.rsplit_once('.').expect("a token");
    for key in [&fixed::ED25519, &fixed::RSA] {
        let validation = Validation::default();
        let Ok(token) = read.verify(key.public_key(), &validation, fixed::now()) else { continue };
        assert_eq!(token.username(), read.claimed_username());
        let again = key.sign(read.algorithm(), signing_input.as_bytes()).expect("a signature");
        assert_eq!(fixed::base64url(again), signature);
    }
}

/// Key, signature and message are the fuzzer's.
fn foreign_key(mut script: Script<'_>) {
    let (key, signature): ([u8; 32], [u8; 64]) = (script.array(), script.array());
    agree(&key, &signature, script.rest());
}

/// A signature of a fixed key with one part of it changed.
fn altered(mut script: Script<'_>) {
    let algorithm = script.choose(&Algorithm::ALL);
    let key = fixed::key_of(algorithm);
    let (at, mask) = (script.below(1024), script.byte());
    let message = script.rest();
    let mut signature = key.sign(algorithm, message).expect("a signature");
    let at = at % signature.len();
    signature[at] ^= mask;
    for other in Algorithm::ALL {
        let verified = key.public_key().verify(other, message, &signature);
        assert_eq!(verified, other == algorithm && mask == 0, "{other}");
    }
    if let Some(precomputed) = key.public_key().precomputed() {
        assert_eq!(precomputed.verify(algorithm, message, &signature), mask == 0);
    }
}

/// A key and a signature with parts of small order, made so that the equation holds with the cofactor and
/// for some messages without it.
fn mixed_order(mut script: Script<'_>) {
    let torsion = |byte: u8| EIGHT_TORSION[usize::from(byte % 8)];
    let private = Scalar::from_bytes_mod_order(script.array());
    let once = Scalar::from_bytes_mod_order(script.array());
    let key: EdwardsPoint = ED25519_BASEPOINT_POINT * private + torsion(script.byte());
    let commitment = (ED25519_BASEPOINT_POINT * once + torsion(script.byte())).compress();
    let (key, message) = (key.compress(), script.rest());
    let s = once + challenge(commitment.as_bytes(), key.as_bytes(), message) * private;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(commitment.as_bytes());
    signature[32..].copy_from_slice(s.as_bytes());
    agree(key.as_bytes(), &signature, message);
}

fn challenge(commitment: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(commitment).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

fn agree(key: &[u8; 32], signature: &[u8; 64], message: &[u8]) {
    let point = CompressedEdwardsY(*key).decompress();
    let good = point.filter(|point| point.compress().as_bytes() == key && !point.is_small_order());
    let read = PublicKey::from_ed25519_bytes(key);
    assert_eq!(read.is_ok(), good.is_some(), "{read:?}");
    let (Ok(read), Some(point)) = (read, good) else { return };

    let due = verifies(key, point, signature, message);
    assert_eq!(read.verify(Algorithm::EdDsa, message, signature), due);
    let precomputed = read.precomputed().expect("an Ed25519 key");
    assert_eq!(precomputed.verify(Algorithm::EdDsa, message, signature), due);
    assert!(!read.verify(Algorithm::Rs256, message, signature));
}

/// RFC 8032 section 5.1.7, without the cofactor.
fn verifies(key: &[u8; 32], point: EdwardsPoint, signature: &[u8; 64], message: &[u8]) -> bool {
    let (commitment, s) = signature.split_at(32);
    let commitment: [u8; 32] = commitment.try_into().expect("32 bytes");
    let s: [u8; 32] = s.try_into().expect("32 bytes");
    let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)) else { return false };
    let expected = ED25519_BASEPOINT_POINT * s - point * challenge(&commitment, key, message);
    expected.compress().to_bytes() == commitment
}
