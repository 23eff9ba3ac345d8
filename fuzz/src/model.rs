//! What a token means, told a second time and in another way than the library does.

use ajwt_core::Algorithm;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::json::{Json, Object};

/// Of a header value.
pub(crate) const MAX_LEN: usize = 8192;

#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
}

impl Header {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let object = Object::parse(text)?;
        if ["crit", "b64", "zip", "enc"].iter().any(|name| object.member(name).is_some()) {
            return None;
        }
        object.string("typ").ok()?;
        let algorithm = match object.string("alg").ok()?? {
            "RS512" => Algorithm::Rs512,
            "RS384" => Algorithm::Rs384,
            "RS256" => Algorithm::Rs256,
            "EdDSA" => Algorithm::EdDsa,
            _ => return None,
        };
        let key_id = object.string("kid").ok()?.map(str::to_owned);
        Some(Self { algorithm, key_id })
    }
}

#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) username: String,
    pub(crate) time: i64,
    pub(crate) nonce: String,
    pub(crate) expires: Option<i64>,
    pub(crate) not_before: Option<i64>,
    pub(crate) issued_at: Option<i64>,
    pub(crate) audiences: Option<Vec<String>>,
}

impl Claims {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let object = Object::parse(text)?;
        let username = object.string("username").ok()??;
        let nonce = object.string("nonce").ok()??;
        let is_control = |c: char| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
        if !(1..=150).contains(&username.chars().count())
            || username.chars().any(is_control)
            || !(1..=256).contains(&nonce.len())
        {
            return None;
        }
        Some(Self {
            username: username.to_owned(),
            time: object.integer("time").ok()??,
            nonce: nonce.to_owned(),
            expires: object.integer("exp").ok()?,
            not_before: object.integer("nbf").ok()?,
            issued_at: object.integer("iat").ok()?,
            audiences: match object.member("aud") {
                None => None,
                Some(Json::String(one)) => Some(vec![one.clone()]),
                Some(Json::Array(several)) if !several.is_empty() => {
                    Some(several.iter().map(string).collect::<Option<_>>()?)
                }
                Some(_) => return None,
            },
        })
    }
}

fn string(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Header, payload and signature of a compact token.
pub(crate) fn segments(token: &str) -> Option<[Vec<u8>; 3]> {
    let segments: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = segments.as_slice() else { return None };
    Some([decode(header)?, decode(payload)?, decode(signature)?])
}

/// In the only spelling.
pub(crate) fn decode(segment: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).ok()?;
    (URL_SAFE_NO_PAD.encode(&bytes) == segment).then_some(bytes)
}

pub(crate) fn is_signature_len(algorithm: Algorithm, len: usize) -> bool {
    match algorithm {
        Algorithm::EdDsa => len == 64,
        _ => (256..=1024).contains(&len),
    }
}
