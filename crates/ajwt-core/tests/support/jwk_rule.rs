//! Which JWKs may be used, told by their members alone.

use ajwt_core::PublicKey;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// The JWKs of a set that may be used: those with a `kid` that no other key has.
pub(crate) fn usable(jwks: &[Value]) -> Vec<&Value> {
    let kid = |jwk: &Value| jwk["kid"].as_str().filter(|kid| !kid.is_empty()).map(ToOwned::to_owned);
    let usable: Vec<&Value> = jwks.iter().filter(|jwk| is_usable(jwk) && kid(jwk).is_some()).collect();
    let numbers = |jwk: &Value| ["n", "e", "x"].map(|name| jwk[name].clone());
    let is_alone =
        |jwk: &Value| usable.iter().all(|other| kid(other) != kid(jwk) || numbers(other) == numbers(jwk));
    usable.iter().copied().filter(|jwk| is_alone(jwk)).collect()
}

/// Whether a JWK of well-formed JSON without duplicate members is one for verifying with an algorithm of ours.
/// By itself it needs no `kid`.
pub(crate) fn is_usable(jwk: &Value) -> bool {
    let Some(members) = jwk.as_object() else { return false };
    let is_private =
        ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| members.contains_key(*name));
    let text = |name: &str| members.get(name).map(Value::as_str);
    let is_for_signatures = matches!(text("use"), None | Some(Some("sig")));
    let verifies = members.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|operations| {
            operations.iter().all(Value::is_string) && operations.contains(&Value::from("verify"))
        })
    });
    let bytes = |name: &str| text(name).flatten().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let is_ours = match (text("kty").flatten(), text("crv")) {
        (Some("RSA"), _) => {
            let is_for_us = matches!(text("alg"), None | Some(Some("RS256" | "RS384" | "RS512")));
            let numbers = bytes("n").zip(bytes("e"));
            is_for_us && numbers.is_some_and(|(modulus, exponent)| is_good_rsa(&modulus, &exponent))
        }
        (Some("OKP"), Some(Some("Ed25519"))) => {
            let is_for_us = matches!(text("alg"), None | Some(Some("EdDSA")));
            is_for_us && bytes("x").is_some_and(|point| PublicKey::from_ed25519_bytes(&point).is_ok())
        }
        _ => false,
    };
    !is_private && is_for_signatures && verifies && is_ours
}

/// Of 2048 to 8192 bits, odd, with an odd exponent from 65537 to 2^33.
pub(crate) fn is_good_rsa(modulus: &[u8], exponent: &[u8]) -> bool {
    let bits = |number: &[u8]| match number.iter().position(|byte| *byte != 0) {
        Some(first) => (number.len() - first) * 8 - number[first].leading_zeros() as usize,
        None => 0,
    };
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    let value = exponent.iter().fold(0_u128, |value, byte| (value << 8 | u128::from(*byte)).min(1 << 100));
    let is_good_exponent = is_odd(exponent) && (65_537..1 << 33).contains(&value);
    (2048..=8192).contains(&bits(modulus)) && is_odd(modulus) && is_good_exponent
}
