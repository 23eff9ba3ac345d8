//! Two other JWT libraries as referees: what one signs, all verify; what one changes, none accepts.

use std::{collections::HashSet, sync::LazyLock};

use ajwt_core::{
    Algorithm, Claims, Jwk, JwkSet, KeyError, Nonce, PrivateKey, PublicKey, RsaKeySize, Timestamp, Token,
    UntrustedToken, Username, Validation,
};
use ajwt_vectors::{Report, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jwt_simple::prelude::{
    Ed25519KeyPair, Ed25519PublicKey, EdDSAKeyPairLike as _, EdDSAPublicKeyLike as _, JWTClaims,
    RS256KeyPair, RS256PublicKey, RS384KeyPair, RS384PublicKey, RS512KeyPair, RS512PublicKey,
    RSAKeyPairLike as _, RSAPublicKeyLike as _, UnixTimeStamp, VerificationOptions,
};
use serde::{Deserialize, Serialize};

const NOW: u64 = 1_790_000_000;

const USERNAMES: [&str; 5] = ["guido", "zürich 中", "\"quoted\\\" ", "a/b+c=d", "🔑\u{200b}é e\u{301}"];

static RSA: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key"));
static ED25519: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate_ed25519().expect("a key"));

fn key_of(algorithm: Algorithm) -> &'static PrivateKey {
    if algorithm == Algorithm::EdDsa { &ED25519 } else { &RSA }
}

/// Our claims as the others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OurClaims {
    username: String,
    time: u64,
    nonce: String,
}

impl OurClaims {
    fn new(username: &str) -> Self {
        let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
        Self { username: username.to_owned(), time: NOW, nonce: nonce.as_str().to_owned() }
    }
}

type Verdict = Result<OurClaims, String>;

mod ours {
    use super::*;

    /// With the preferred algorithm as tokens are signed, with the others by hand.
    pub(super) fn sign(algorithm: Algorithm, claims: &OurClaims) -> String {
        let key = key_of(algorithm);
        let username = Username::new(claims.username.as_str()).expect("a username");
        let nonce = Nonce::new(claims.nonce.as_str()).expect("a nonce");
        let at = Timestamp::from_secs(i64::try_from(claims.time).expect("a time"));
        let signed = Token::sign(&Claims::new(username, at, nonce), key).expect("a token");
        if algorithm == key.public_key().preferred_algorithm() {
            return signed.as_str().to_owned();
        }
        let payload = signed.as_str().split('.').nth(1).expect("a payload");
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"JWT","alg":"{algorithm}"}}"#));
        let signing_input = format!("{header}.{payload}");
        let signature = key.sign(algorithm, signing_input.as_bytes()).expect("a signature");
        format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(super) fn verify(algorithm: Algorithm, token: &str) -> Verdict {
        let now = Timestamp::from_secs(i64::try_from(NOW).expect("a time"));
        let untrusted = UntrustedToken::parse(token).map_err(|error| error.to_string())?;
        let verified = untrusted.verify(key_of(algorithm).public_key(), &Validation::default(), now);
        let verified = verified.map_err(|error| error.to_string())?;
        ensure!(verified.algorithm() == algorithm, "another algorithm");
        Ok(OurClaims {
            username: verified.username().as_str().to_owned(),
            time: u64::try_from(verified.time()).expect("a time"),
            nonce: verified.nonce().as_str().to_owned(),
        })
    }
}

mod jwt_simple_ {
    use super::*;

    /// `nonce` is a claim of jwt-simple's own.
    #[derive(Serialize, Deserialize)]
    struct Custom {
        username: String,
        time: u64,
    }

    pub(super) fn sign(algorithm: Algorithm, claims: &OurClaims) -> String {
        let custom = Custom { username: claims.username.clone(), time: claims.time };
        let hour = jwt_simple::prelude::Duration::from_hours(1);
        let mut all = jwt_simple::prelude::Claims::with_custom_claims(custom, hour).with_nonce(&claims.nonce);
        all.issued_at = Some(UnixTimeStamp::from_secs(NOW));
        all.invalid_before = Some(UnixTimeStamp::from_secs(NOW));
        all.expires_at = Some(UnixTimeStamp::from_secs(NOW + 60));
        let pem = key_of(algorithm).to_pem().expect("PEM");
        match algorithm {
            Algorithm::Rs512 => RS512KeyPair::from_pem(&pem).and_then(|key| key.sign(all)),
            Algorithm::Rs384 => RS384KeyPair::from_pem(&pem).and_then(|key| key.sign(all)),
            Algorithm::Rs256 => RS256KeyPair::from_pem(&pem).and_then(|key| key.sign(all)),
            Algorithm::EdDsa => Ed25519KeyPair::from_pem(&pem).and_then(|key| key.sign(all)),
        }
        .expect("a token")
    }

    pub(super) fn verify(algorithm: Algorithm, token: &str) -> Verdict {
        let at = Some(UnixTimeStamp::from_secs(NOW));
        let options = || Some(VerificationOptions { artificial_time: at, ..VerificationOptions::default() });
        let pem = key_of(algorithm).public_key().to_pem();
        let verified: Result<JWTClaims<Custom>, _> = match algorithm {
            Algorithm::Rs512 => {
                RS512PublicKey::from_pem(&pem).and_then(|key| key.verify_token(token, options()))
            }
            Algorithm::Rs384 => {
                RS384PublicKey::from_pem(&pem).and_then(|key| key.verify_token(token, options()))
            }
            Algorithm::Rs256 => {
                RS256PublicKey::from_pem(&pem).and_then(|key| key.verify_token(token, options()))
            }
            Algorithm::EdDsa => {
                Ed25519PublicKey::from_pem(&pem).and_then(|key| key.verify_token(token, options()))
            }
        };
        let verified = verified.map_err(|error| error.to_string())?;
        let Custom { username, time } = verified.custom;
        Ok(OurClaims { username, time, nonce: verified.nonce.unwrap_or_default() })
    }
}

mod jsonwebtoken_ {
    use super::*;
    use jsonwebtoken::{DecodingKey, EncodingKey, Header};

    fn name(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
        match algorithm {
            Algorithm::Rs512 => jsonwebtoken::Algorithm::RS512,
            Algorithm::Rs384 => jsonwebtoken::Algorithm::RS384,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }

    pub(super) fn sign(algorithm: Algorithm, claims: &OurClaims) -> String {
        let pem = key_of(algorithm).to_pem().expect("PEM");
        let key = match algorithm {
            Algorithm::EdDsa => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        jsonwebtoken::encode(&Header::new(name(algorithm)), claims, &key.expect("a key")).expect("a token")
    }

    pub(super) fn decode(algorithm: Algorithm, token: &str, key: &DecodingKey) -> Verdict {
        let mut validation = jsonwebtoken::Validation::new(name(algorithm));
        validation.required_spec_claims = HashSet::new();
        validation.validate_exp = false;
        let verified = jsonwebtoken::decode::<OurClaims>(token, key, &validation);
        verified.map(|verified| verified.claims).map_err(|error| error.to_string())
    }

    pub(super) fn verify(algorithm: Algorithm, token: &str) -> Verdict {
        let pem = key_of(algorithm).public_key().to_pem();
        let key = match algorithm {
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
            _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
        };
        decode(algorithm, token, &key.expect("a key"))
    }
}

type Sign = fn(Algorithm, &OurClaims) -> String;
type Verify = fn(Algorithm, &str) -> Verdict;

const LIBRARIES: [(&str, Sign, Verify); 3] = [
    ("ajwt", ours::sign, ours::verify),
    ("jwt-simple", jwt_simple_::sign, jwt_simple_::verify),
    ("jsonwebtoken", jsonwebtoken_::sign, jsonwebtoken_::verify),
];

#[test]
fn what_one_signs_all_verify() {
    let mut report = Report::new();
    for algorithm in Algorithm::ALL {
        for username in USERNAMES {
            let claims = OurClaims::new(username);
            for (signer, sign, _) in LIBRARIES {
                let token = sign(algorithm, &claims);
                for (verifier, _, verify) in LIBRARIES {
                    report.case(format!("{algorithm} {username:?}: {signer} to {verifier}"), || {
                        let verdict = verify(algorithm, &token);
                        ensure!(verdict.as_ref() == Ok(&claims), "{verdict:?}");
                        Ok(())
                    });
                }
            }
        }
    }
    report.finish("signed by one, verified by all");
}

#[test]
fn what_was_changed_none_accepts() {
    let mut report = Report::new();
    for algorithm in Algorithm::ALL {
        let claims = OurClaims::new("guido");
        for (signer, sign, _) in LIBRARIES {
            let token = sign(algorithm, &claims);
            for (change, changed) in changes(&token) {
                for (verifier, _, verify) in LIBRARIES {
                    report.case(format!("{algorithm}, {change}: {signer} to {verifier}"), || {
                        let verdict = verify(algorithm, &changed);
                        ensure!(verdict.is_err(), "accepted: {verdict:?}");
                        Ok(())
                    });
                }
            }
        }
    }
    report.finish("changed");
}

/// Other texts that somebody may make of a token.
fn changes(token: &str) -> Vec<(String, String)> {
    let mut changes = Vec::new();
    for at in (0..token.len()).step_by(token.len() / 40 + 1).chain([token.len() - 1]) {
        let mut bytes = token.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        changes.push((format!("another character at {at}"), String::from_utf8(bytes).expect("ASCII")));
    }
    let segments: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = segments.as_slice() else { panic!("not three segments") };
    let mut change = |name: &str, changed: String| changes.push((name.to_owned(), changed));
    change("no signature", format!("{header}.{payload}."));
    change("no signature segment", format!("{header}.{payload}"));
    change("a fourth segment", format!("{token}."));
    change("padded", format!("{token}=="));
    change("a space before", format!(" {token}"));
    change("a line end after", format!("{token}\n"));
    change("a shorter signature", token[..token.len() - 4].to_owned());
    change("a longer signature", format!("{token}AAAA"));
    change("a signature of zeros", format!("{header}.{payload}.{}", "A".repeat(signature.len())));
    let none = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
    change("alg none", format!("{none}.{payload}."));
    change("alg none with the signature", format!("{none}.{payload}.{signature}"));
    for other in ["RS256", "RS384", "RS512", "EdDSA", "PS256", "HS256", "ES256"] {
        let other_header = URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"JWT","alg":"{other}"}}"#));
        // The same header as the one that was signed is no change.
        if other_header != *header {
            change(&format!("alg {other}"), format!("{other_header}.{payload}.{signature}"));
        }
    }
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"username":"root","time":{NOW},"nonce":"n"}}"#));
    change("other claims", format!("{header}.{claims}.{signature}"));
    changes
}

/// The JWKs that we publish are keys to the others, and theirs are keys to us.
#[test]
fn jwks_are_understood_by_all() {
    let mut report = Report::new();
    for algorithm in Algorithm::ALL {
        report.case(algorithm.name(), || {
            let public = key_of(algorithm).public_key();
            let claims = OurClaims::new("guido");
            let token = ours::sign(algorithm, &claims);
            let ours = public.to_jwk().to_json();

            let jwk = serde_json::from_str(&ours).map_err(|error| error.to_string())?;
            let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
            let verdict = jsonwebtoken_::decode(algorithm, &token, &key);
            ensure!(verdict == Ok(claims), "jsonwebtoken: {verdict:?}");

            let pem = public.to_pem();
            let theirs = match algorithm {
                Algorithm::Rs512 => RS512PublicKey::from_pem(&pem).map(|key| key.to_jwk()),
                Algorithm::Rs384 => RS384PublicKey::from_pem(&pem).map(|key| key.to_jwk()),
                Algorithm::Rs256 => RS256PublicKey::from_pem(&pem).map(|key| key.to_jwk()),
                Algorithm::EdDsa => Ed25519PublicKey::from_pem(&pem).map(|key| key.to_jwk()),
            };
            let theirs = theirs.map_err(|error| error.to_string())?;
            ensure!(PublicKey::from_jwk(&theirs).as_ref() == Ok(public), "jwt-simple: {theirs}");
            Ok(())
        });
    }
    report.finish("JWKs");
}

#[test]
fn keys_of_the_others_load() {
    let theirs = Ed25519KeyPair::generate();
    // Their text has the private and the public key, one after the other: two keys to us.
    let both = theirs.to_pem();
    let refused = PrivateKey::from_pem(&both, None).map(|_| ());
    assert_eq!(refused, Err(KeyError::SeveralKeys { count: 2 }));
    let (private, _) = both.split_once("-----BEGIN PUBLIC").expect("two blocks");
    let private = PrivateKey::from_pem(private, None).expect("a private key");
    let public = PublicKey::from_pem(theirs.public_key().to_pem()).expect("a public key");
    assert_eq!(private.public_key(), &public);
    let set = format!(r#"{{"keys":[{}]}}"#, theirs.with_key_id("theirs").public_key().to_jwk());
    let set = JwkSet::from_json(set).expect("a set");
    assert_eq!(set.find("theirs").map(Jwk::key).collect::<Vec<_>>(), [&public]);
}

/// A key with a table says what it says without one. `AJWT_MUTATIONS` may ask for more of them.
#[test]
fn of_many_mutations_a_table_accepts_what_the_plain_check_accepts() {
    /// The order of the base point, little-endian: added to `S` it makes a second form of a signature.
    const ORDER: [u8; 32] = {
        let mut order = [0; 32];
        let low =
            [0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14];
        let mut index = 0;
        while index < low.len() {
            order[index] = low[index];
            index += 1;
        }
        order[31] = 0x10;
        order
    };

    let mutations = std::env::var("AJWT_MUTATIONS").map_or(60_000, |asked| asked.parse().expect("a number"));
    let threads = 2;
    let accepted: u64 = std::thread::scope(|scope| {
        let run = |thread| {
            let keys: Vec<_> = (0..2)
                .map(|_| {
                    let private = PrivateKey::generate_ed25519().expect("a key");
                    let precomputed = private.public_key().precomputed().expect("an Ed25519 key");
                    (private, precomputed)
                })
                .collect();
            let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ thread;
            let mut next = move |below: u64| {
                // xorshift64
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                usize::try_from(random % below).expect("small")
            };
            let (mut accepted, mut message, mut signature) = (0, Vec::new(), Vec::new());
            for number in 0..mutations / threads {
                let signer = next(2);
                if number % 64 == 0 {
                    message = (0..next(200)).map(|_| u8::try_from(next(256)).expect("a byte")).collect();
                    signature = keys[signer].0.sign(Algorithm::EdDsa, &message).expect("signed");
                }
                let (mut message, mut signature) = (message.clone(), signature.clone());
                match next(8) {
                    0 => {}
                    1 if !message.is_empty() => {
                        let at = next(message.len() as u64);
                        message[at] ^= 1 << next(8);
                    }
                    2 => {
                        let mut carry = 0;
                        for (byte, add) in signature[32..].iter_mut().zip(ORDER) {
                            carry += u16::from(*byte) + u16::from(add);
                            *byte = u8::try_from(carry & 0xff).expect("a byte");
                            carry >>= 8;
                        }
                    }
                    3 => signature[32..].fill(0),
                    4 => signature[..32].rotate_left(1),
                    5 => signature[next(32)] ^= 1 << next(8),
                    _ => signature[32 + next(32)] ^= 1 << next(8),
                }
                for (private, precomputed) in &keys {
                    let plain = private.public_key().verify(Algorithm::EdDsa, &message, &signature);
                    let with_table = precomputed.verify(Algorithm::EdDsa, &message, &signature);
                    assert_eq!(plain, with_table, "{message:02x?} {signature:02x?}");
                    accepted += u64::from(plain);
                }
            }
            accepted
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().map(|thread| thread.join().expect("the same")).sum()
    });
    // An eighth is not changed: its signer's key accepts it.
    assert!(accepted > mutations / 10, "{accepted}");
}
