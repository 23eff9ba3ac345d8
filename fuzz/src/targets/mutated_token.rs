use std::sync::LazyLock;

use ajwt_core::{Algorithm, Timestamp, UntrustedToken, Validation};
use serde_json::{Map, Value};

use crate::{engine::Engine, fixed, model, script::Script};

/// Two genuine tokens of each algorithm.
static TOKENS: LazyLock<Vec<(Algorithm, [String; 2])>> = LazyLock::new(|| {
    let tokens = |algorithm| ["one", "other"].map(|nonce| fixed::genuine(algorithm, nonce));
    Algorithm::ALL.into_iter().map(|algorithm| (algorithm, tokens(algorithm))).collect()
});

/// The order of Ed25519's group, little-endian.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

const VALUES: [&str; 16] = [
    "null",
    "true",
    "0",
    "-1",
    "1790000000",
    "1790000001",
    "1790000000.0",
    "1e400",
    "\"\"",
    "\"guido\"",
    "\"Guido\"",
    "\"RS256\"",
    "\"none\"",
    "\"one\"",
    "[]",
    "{}",
];

const NAMES: [&str; 12] =
    ["username", "time", "nonce", "exp", "nbf", "iat", "aud", "alg", "typ", "kid", "crit", "jwk"];

/// One change to a genuine token, chosen by the bytes: whatever it is, the token is refused, and no nonce
/// is used up.
pub fn mutated_token(data: &[u8]) {
    thread_local!(static ENGINE: Engine = Engine::new());

    let mut script = Script::new(data);
    let (algorithm, [token, other]) = &TOKENS[script.below(TOKENS.len())];
    let mutated = mutate(*algorithm, token, other, script);
    let is_genuine = mutated == token.as_bytes() || mutated == other.as_bytes();
    let header = [b"JWT ", mutated.as_slice()].concat();
    let found = ENGINE.with(|engine| engine.authenticate(&[&header]));
    assert_eq!(found.is_ok(), is_genuine, "{found:?}: {}", String::from_utf8_lossy(&mutated));

    if let Ok(Ok(read)) = std::str::from_utf8(&mutated).map(UntrustedToken::parse) {
        for key in [&fixed::ED25519, &fixed::RSA].map(|key| key.public_key()) {
            let verified = read.verify(key, &Validation::default(), Timestamp::from_secs(fixed::NOW));
            let fits = key.algorithms().contains(algorithm);
            assert_eq!(verified.is_ok(), is_genuine && fits);
        }
    }
}

fn mutate(algorithm: Algorithm, token: &str, other: &str, mut script: Script<'_>) -> Vec<u8> {
    let segments: Vec<&str> = token.split('.').collect();
    let others: Vec<&str> = other.split('.').collect();
    let [header, payload, mut signature] = model::segments(token).expect("a token");
    let mut text = token.as_bytes().to_vec();
    match script.byte() % 15 {
        // The text.
        0 => {
            let at = script.below(text.len());
            text[at] = script.byte();
        }
        1 => {
            let at = script.below(text.len() + 1);
            text.insert(at, script.byte());
        }
        2 => drop(text.remove(script.below(text.len()))),
        3 => text.truncate(script.below(text.len())),
        4 => {
            let at = script.below(text.len());
            text[at] ^= 0x20;
        }
        5 => text.extend_from_slice(script.rest()),
        // Segments.
        6 => {
            let order: [usize; 3] = std::array::from_fn(|_| script.below(3));
            text = order.map(|at| segments[at]).join(".").into_bytes();
        }
        7 => {
            let mut spliced = segments.clone();
            let at = script.below(3);
            spliced[at] = others[at];
            text = spliced.join(".").into_bytes();
        }
        8 => {
            let mut padded = segments.iter().map(|segment| (*segment).to_owned()).collect::<Vec<_>>();
            padded[script.below(3)].push_str(script.choose(&["=", "==", "A", "AA", ".", "%3D", " "]));
            text = padded.join(".").into_bytes();
        }
        // Another last character: the same bytes, if bits to spare were let through.
        9 => {
            let end = segments[..=script.below(3)].join(".").len();
            text[end - 1] =
                script.choose(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
        }
        // JSON within.
        10 => text = rejoined(&changed_json(&header, &mut script), segments[1], segments[2]),
        11 => text = rejoined_payload(segments[0], &changed_json(&payload, &mut script), segments[2]),
        // The signature's bytes.
        12 => {
            let at = script.below(signature.len());
            signature[at] ^= script.byte();
            text = with_signature(&segments, &signature);
        }
        13 => {
            match script.byte() % 4 {
                0 => signature.truncate(script.below(signature.len())),
                1 => signature.insert(script.below(signature.len() + 1), script.byte()),
                2 => signature.rotate_left(script.below(64)),
                _ => signature.reverse(),
            }
            text = with_signature(&segments, &signature);
        }
        // Another representative of the same number.
        _ => {
            if algorithm == Algorithm::EdDsa {
                let mut carry = 0;
                for (byte, order) in signature[32..].iter_mut().zip(GROUP_ORDER) {
                    let sum = u16::from(*byte) + u16::from(order) + carry;
                    [*byte, _] = sum.to_le_bytes();
                    carry = sum >> 8;
                }
            } else {
                signature.insert(0, 0);
            }
            text = with_signature(&segments, &signature);
        }
    }
    text
}

fn rejoined(header: &str, payload: &str, signature: &str) -> Vec<u8> {
    format!("{}.{payload}.{signature}", fixed::base64url(header)).into_bytes()
}

fn rejoined_payload(header: &str, payload: &str, signature: &str) -> Vec<u8> {
    format!("{header}.{}.{signature}", fixed::base64url(payload)).into_bytes()
}

fn with_signature(segments: &[&str], signature: &[u8]) -> Vec<u8> {
    format!("{}.{}.{}", segments[0], segments[1], fixed::base64url(signature)).into_bytes()
}

fn changed_json(json: &[u8], script: &mut Script<'_>) -> String {
    let text = String::from_utf8(json.to_vec()).expect("JSON");
    let mut members: Map<String, Value> = serde_json::from_str(&text).expect("an object");
    let (name, value) = (script.choose(&NAMES), script.choose(&VALUES));
    match script.byte() % 6 {
        // The same object in another spelling.
        0 => text.replacen(':', ": ", 1 + script.below(3)),
        1 => text.replace('"', "\\u0022").replacen("\\u0022", "\"", script.below(16)),
        2 => {
            members.remove(name);
            Value::Object(members).to_string()
        }
        3 => {
            members.remove(name);
            let rest = Value::Object(members).to_string();
            let rest = rest.strip_suffix('}').expect("an object");
            format!("{rest},\"{name}\":{value}}}")
        }
        4 => format!("{},\"{name}\":{value}}}", text.strip_suffix('}').expect("an object")),
        _ => format!("{{\"{name}\":{value},{}", text.strip_prefix('{').expect("an object")),
    }
}
