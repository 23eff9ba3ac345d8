use ajwt_core::{Algorithm, Jwk, JwkError, JwkSet, JwkSetError, PublicKey};

use crate::{
    json::{Json, Object},
    model,
};

/// The body of a key set: exactly the usable keys of the document are read, each under its own id, and what
/// is written of them reads the same.
pub fn jwk_set(data: &[u8]) {
    one_key(data);
    let read = JwkSet::from_json(data);
    let document = Object::parse(data);
    let entries = match document.as_ref().map(|document| document.member("keys")) {
        None => return assert_eq!(read, Err(JwkSetError::Json)),
        Some(Some(Json::Array(entries))) => entries,
        Some(_) => return assert_eq!(read, Err(JwkSetError::NoKeys)),
    };
    if entries.len() > 100 {
        return assert!(matches!(read, Err(JwkSetError::TooManyKeys { .. })));
    }
    let read = read.expect("a set");
    read.skipped().iter().for_each(|skipped| crate::check_error(&skipped.reason));

    let usable: Vec<_> = entries.iter().filter_map(usable).collect();
    let clashes = |kid: &str, key: &PublicKey| usable.iter().any(|(id, _, other)| *id == kid && other != key);
    let due: Vec<_> = usable.iter().filter(|(kid, _, key)| !clashes(kid, key)).cloned().collect();
    let found = |jwk: &Jwk| (jwk.key_id().to_owned(), jwk.algorithm(), jwk.key().clone());
    assert_eq!(read.keys().iter().map(found).collect::<Vec<_>>(), due);
    assert_eq!(read.keys().len() + read.skipped().len(), entries.len());
    let ambiguous = read.skipped().iter().filter(|skipped| skipped.reason == JwkError::AmbiguousKid).count();
    assert_eq!(ambiguous, usable.len() - due.len());

    let written = read.to_json();
    let again = JwkSet::from_json(&written).expect("a set that was written");
    assert_eq!((again.keys(), again.skipped()), (read.keys(), [].as_slice()), "{written}");
}

/// A single one needs no id.
fn one_key(data: &[u8]) {
    let read = PublicKey::from_jwk(data).inspect_err(|error| crate::check_error(error));
    if data.len() > ajwt_core::MAX_PUBLIC_KEY_LEN {
        assert!(read.is_err());
        return;
    }
    let due = Object::parse(data).and_then(|object| key(&object));
    assert_eq!(read.as_ref().ok(), due.as_ref().map(|(key, _)| key), "{read:?}");
}

fn usable(entry: &Json) -> Option<(String, Option<Algorithm>, PublicKey)> {
    let Json::Object(object) = entry else { return None };
    let kid = object.string("kid").ok()?.filter(|kid| !kid.is_empty())?;
    key(object).map(|(key, algorithm)| (kid.to_owned(), algorithm, key))
}

fn key(object: &Object) -> Option<(PublicKey, Option<Algorithm>)> {
    let is_private =
        ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| object.member(name).is_some());
    let is_for_others = !matches!(object.string("use"), Ok(None | Some("sig")));
    let verifies = match object.member("key_ops") {
        None => true,
        Some(Json::Array(operations)) => {
            let is_string = |operation: &Json| matches!(operation, Json::String(_));
            operations.contains(&Json::String("verify".to_owned())) && operations.iter().all(is_string)
        }
        Some(_) => false,
    };
    let is_too_large = object.0.len() > 256;
    if is_too_large || !object.is_unambiguous() || is_private || is_for_others || !verifies {
        return None;
    }
    let bytes = |name| object.string(name).ok().flatten().and_then(model::decode);
    let is_rsa = object.string("kty") == Ok(Some("RSA"));
    let key = if is_rsa {
        let (n, e) = (bytes("n")?, bytes("e")?);
        PublicKey::from_rsa_components(&n, &e).ok().filter(|_| is_good_rsa(&n, &e))?
    } else if (object.string("kty"), object.string("crv")) == (Ok(Some("OKP")), Ok(Some("Ed25519"))) {
        PublicKey::from_ed25519_bytes(&bytes("x")?).ok()?
    } else {
        return None;
    };
    let algorithm = match object.string("alg").ok()? {
        None => None,
        Some("RS512") if is_rsa => Some(Algorithm::Rs512),
        Some("RS384") if is_rsa => Some(Algorithm::Rs384),
        Some("RS256") if is_rsa => Some(Algorithm::Rs256),
        Some("EdDSA") if !is_rsa => Some(Algorithm::EdDsa),
        Some(_) => return None,
    };
    Some((key, algorithm))
}

/// 2048 to 8192 bits, odd; an odd exponent from 65537 up to 2^33.
pub(crate) fn is_good_rsa(n: &[u8], e: &[u8]) -> bool {
    let bits = |number: &[u8]| {
        let number: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        number.len() * 8 - number.first().map_or(0, |first| first.leading_zeros() as usize)
    };
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    let exponent = e.iter().fold(0_u128, |value, byte| (value << 8 | u128::from(*byte)).min(u128::MAX >> 8));
    (2048..=8192).contains(&bits(n)) && is_odd(n) && is_odd(e) && (65_537..1 << 33).contains(&exponent)
}
