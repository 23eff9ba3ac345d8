//! Tokens: those of the Python library, and JSON's corner cases in every place where JSON is read.

use std::{collections::HashSet, fmt, fs, path::Path, time::Duration};

use ajwt_core::{
    Algorithm, Claims, JwkSet, JwkSetError, MAX_TOKEN_LEN, Nonce, PrivateKey, PublicKey, Timestamp, Token,
    TokenError, UntrustedToken, Username, Validation,
};
use ajwt_vectors::{Report, ensure, str};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

const NOW: i64 = 1_790_000_000;

type Outcome = Result<(), String>;

// The Python library.

#[test]
fn tokens_of_the_python_library_verify() {
    let Some(root) = ajwt_vectors::root("tokens_of_the_python_library_verify") else { return };
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("python-interop"), "json") {
        for (at, case) in ajwt_vectors::json(&file)["tokens"].as_array().expect("tokens").iter().enumerate() {
            report.case(format!("{at} {} {}", case["username"], case["alg"]), || python_token(case));
        }
    }
    report.finish("tokens of the Python library");
}

fn python_token(case: &Value) -> Outcome {
    let (key, _) = PublicKey::from_text(str(case, "public_pem")).map_err(|error| error.to_string())?;
    let private = PrivateKey::from_pem(str(case, "private_pem"), None).map_err(|error| error.to_string())?;
    ensure!(private.public_key() == &key, "the halves differ");
    ensure!(key.to_pem() == str(case, "public_pem"), "another PEM text: {}", key.to_pem());
    ensure!(key.fingerprint().as_str() == str(case, "kid"), "another kid: {}", key.fingerprint());
    if case["as_jwk"].is_object() {
        let jwk: Value = serde_json::from_str(&key.to_jwk().to_json()).map_err(|error| error.to_string())?;
        ensure!(jwk == case["as_jwk"], "another JWK: {jwk}");
        ensure!(PublicKey::from_jwk(case["as_jwk"].to_string()) == Ok(key.clone()), "the JWK is another key");
    }

    let token = str(case, "authorization").strip_prefix("JWT ").ok_or("no scheme")?;
    let untrusted = UntrustedToken::parse(token).map_err(|error| error.to_string())?;
    ensure!(untrusted.key_id() == Some(str(case, "kid")), "kid");
    ensure!(untrusted.algorithm().name() == str(case, "alg"), "alg");
    let time = case["time"].as_i64().ok_or("no time")?;
    let at =
        |seconds: i64| untrusted.verify(&key, &Validation::default(), Timestamp::from_secs(time + seconds));
    let verified = at(0).map_err(|error| error.to_string())?;
    ensure!(verified.username().as_str() == str(case, "username"), "username");
    ensure!(verified.nonce().as_str() == str(case, "nonce"), "nonce");
    ensure!(verified.time() == time && verified.audiences().next().is_none(), "time or aud");
    for seconds in [-20, 20] {
        ensure!(at(seconds).is_ok(), "refused {seconds} s away");
    }
    for seconds in [-21, 21, -86_400, 86_400] {
        ensure!(matches!(at(seconds), Err(TokenError::Window { .. })), "verifies {seconds} s away");
    }
    let other = PrivateKey::generate_ed25519().map_err(|error| error.to_string())?;
    let verified = untrusted.verify(other.public_key(), &Validation::default(), Timestamp::from_secs(time));
    ensure!(verified.is_err(), "verifies with another key");

    // The same claims, signed here, are the same claims to a reader.
    let username = Username::new(str(case, "username")).map_err(|error| error.to_string())?;
    let nonce = Nonce::new(str(case, "nonce")).map_err(|error| error.to_string())?;
    let claims = Claims::new(username, Timestamp::from_secs(time), nonce);
    let ours = Token::sign(&claims, &private).map_err(|error| error.to_string())?;
    ensure!(payload_of(ours.as_str()) == payload_of(token), "other claims");
    ensure!(algorithm_is_preferred(&ours, &key), "another algorithm");
    Ok(())
}

fn algorithm_is_preferred(token: &ajwt_core::SignedToken, key: &PublicKey) -> bool {
    UntrustedToken::parse(token.as_str()).is_ok_and(|token| token.algorithm() == key.preferred_algorithm())
}

fn payload_of(token: &str) -> Option<Value> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

// Our own corpus, as far as it needs no server: one header with our scheme, an active user.

#[test]
fn tokens_of_the_corpus_verify_with_a_key_of_their_user_or_not_at_all() {
    let Some(root) = ajwt_vectors::root("tokens_of_the_corpus_verify_with_a_key_of_their_user_or_not_at_all")
    else {
        return;
    };
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("ajwt-tokens"), "json") {
        let corpus = ajwt_vectors::json(&file);
        for case in corpus["cases"].as_array().expect("cases") {
            report.case(str(case, "id"), || {
                let verifies = corpus_case(&corpus, case)?;
                let is_due = match str(case, "expect").trim_start_matches("policy:") {
                    "accept" => verifies,
                    "reject" => !verifies,
                    "either" => true,
                    other => return Err(format!("{other:?} is no verdict")),
                };
                ensure!(is_due, "verifies: {verifies}: {}", case["why"]);
                Ok(())
            });
        }
    }
    report.finish("tokens of the corpus");
}

fn corpus_case(corpus: &Value, case: &Value) -> Result<bool, String> {
    let headers = case["headers"].as_array();
    let header = match headers.map(Vec::as_slice) {
        None => str(case, "header"),
        Some([Value::String(header)]) => header,
        Some(_) => return Ok(false),
    };
    let Some((scheme, token)) = header.split_once(' ') else { return Ok(false) };
    if !scheme.eq_ignore_ascii_case("JWT") || header.len() > 8192 {
        return Ok(false);
    }
    let Ok(untrusted) = UntrustedToken::parse(token) else { return Ok(false) };
    let user = &corpus["users"][untrusted.claimed_username().as_str()];
    if user.is_null() || user["active"] == false {
        return Ok(false);
    }
    let keys = candidates(corpus, user, &untrusted);
    let tolerance = Duration::from_secs_f64(corpus["tolerance"].as_f64().ok_or("no tolerance")?);
    let mut validation =
        Validation::default().with_tolerance(tolerance).map_err(|error| error.to_string())?;
    for audience in case["audience"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        validation = validation.with_audience(audience).map_err(|error| error.to_string())?;
    }
    let now = case["now"].as_f64().ok_or("no clock")?;
    #[allow(clippy::cast_possible_truncation, reason = "milliseconds of a clock of our time")]
    let now = Timestamp::from_millis((now * 1000.0).round() as i64);
    Ok(keys.iter().any(|key| untrusted.verify(key, &validation, now).is_ok()))
}

/// The server's rule in short: keys that can have made the signature, the one of the `kid` first, then
/// the newest of the 32 newest, four at most.
fn candidates(corpus: &Value, user: &Value, token: &UntrustedToken<'_>) -> Vec<PublicKey> {
    let is_fit = |key: &PublicKey| {
        key.algorithms().contains(&token.algorithm()) && key.signature_len() == token.signature_len()
    };
    let names = user["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut keys: Vec<PublicKey> = names
        .iter()
        .rev()
        .take(32)
        .filter_map(|name| corpus["keys"][name.as_str()?]["public_pem"].as_str())
        .filter_map(|pem| PublicKey::from_text(pem).ok())
        .map(|(key, _)| key)
        .filter(is_fit)
        .collect();
    keys.sort_by_key(|key| token.key_id() != Some(key.fingerprint().as_str()));
    let document = user["jwks"].as_str().map_or_else(|| user["jwks"].to_string(), ToOwned::to_owned);
    if let (Ok(set), Some(kid)) = (JwkSet::from_json(document), token.key_id()) {
        let published = set
            .find(kid)
            .filter(|jwk| jwk.algorithm().is_none_or(|only| only == token.algorithm()))
            .map(|jwk| jwk.key().clone())
            .filter(is_fit);
        keys.splice(0..0, published);
    }
    keys.truncate(4);
    keys
}

// JSON's corner cases.

/// Signs any header and payload, well-formed or not.
struct Forge(PrivateKey);

impl Forge {
    fn new() -> Self {
        Self(PrivateKey::generate_ed25519().expect("a key"))
    }

    fn token(&self, header: &[u8], payload: &[u8]) -> String {
        let signing_input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.0.sign(Algorithm::EdDsa, signing_input.as_bytes()).expect("a signature");
        format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Twice, because the verdict must not change.
    fn verify(&self, header: &[u8], payload: &[u8]) -> Result<Result<Token, TokenError>, String> {
        let token = self.token(header, payload);
        let verify = || {
            let untrusted = UntrustedToken::parse(&token)?;
            untrusted.verify(self.0.public_key(), &Validation::default(), Timestamp::from_secs(NOW))
        };
        let (first, second) = (verify(), verify());
        ensure!(
            first.as_ref().map(|_| ()) == second.as_ref().map(|_| ()),
            "not the same verdict twice: {first:?}, {second:?}"
        );
        Ok(first)
    }
}

const HEADER: &[u8] = br#"{"alg":"EdDSA"}"#;

/// Good claims, with more text before the closing bracket.
fn claims_with(more: &[u8]) -> Vec<u8> {
    let mut claims = format!(r#"{{"username":"guido","time":{NOW},"nonce":"n""#).into_bytes();
    claims.extend_from_slice(more);
    claims.push(b'}');
    claims
}

fn header_with(more: &[u8]) -> Vec<u8> {
    [br#"{"alg":"EdDSA""#.as_slice(), more, b"}"].concat()
}

fn set_with(more: &[u8]) -> Vec<u8> {
    [br#"{"keys":[]"#.as_slice(), more, b"}"].concat()
}

/// `,"ignored":` and the text.
fn member(value: &[u8]) -> Vec<u8> {
    [br#","ignored":"#.as_slice(), value].concat()
}

#[derive(Clone, Copy, PartialEq)]
enum Due {
    Accept,
    Reject,
    Either,
}

fn due(file: &Path, text: &[u8]) -> Due {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    match name.split('_').next() {
        // The limit counts the brackets of the object around.
        Some("y") if depth(text) > 126 => Due::Reject,
        Some("y") => Due::Accept,
        Some("n") => Due::Reject,
        _ => Due::Either,
    }
}

/// Brackets that are open at once.
fn depth(text: &[u8]) -> usize {
    let (mut open, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[test]
fn json_corner_cases_everywhere() {
    let Some(root) = ajwt_vectors::root("json_corner_cases_everywhere") else { return };
    let forge = Forge::new();
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("jsontestsuite/test_parsing"), "json") {
        let text = fs::read(&file).expect("a JSON file");
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let due = due(&file, &text);
        report.case(format!("{name} as the header"), || {
            let found = forge.verify(&text, &claims_with(b""))?;
            ensure!(found.is_err(), "verifies");
            ensure!(due != Due::Reject || is_about_form(&found, TokenError::Header), "{found:?}");
            Ok(())
        });
        report.case(format!("{name} as the payload"), || {
            let found = forge.verify(HEADER, &text)?;
            ensure!(found.is_err(), "verifies");
            ensure!(due != Due::Reject || is_about_form(&found, TokenError::Payload), "{found:?}");
            Ok(())
        });
        report.case(format!("{name} as a JWK set"), || {
            let found = JwkSet::from_json(&text);
            ensure!(found == JwkSet::from_json(&text), "not the same verdict twice");
            ensure!(found.is_err(), "read: {found:?}");
            ensure!(due != Due::Reject || found == Err(JwkSetError::Json), "{found:?}");
            Ok(())
        });
        report.case(format!("{name} in the payload"), || {
            let found = forge.verify(HEADER, &claims_with(&member(&text)))?;
            is_due(due, found.is_ok(), matches!(found, Err(TokenError::TooLong { .. })))
        });
        report.case(format!("{name} in the header"), || {
            let found = forge.verify(&header_with(&member(&text)), &claims_with(b""))?;
            is_due(due, found.is_ok(), matches!(found, Err(TokenError::TooLong { .. })))
        });
        report.case(format!("{name} in a JWK set"), || {
            let document = set_with(&member(&text));
            let found = JwkSet::from_json(&document);
            ensure!(found == JwkSet::from_json(&document), "not the same verdict twice");
            is_due(due, found.is_ok(), false)
        });
        report.case(format!("{name} in a JWK"), || {
            let jwk = forge.0.public_key().to_jwk().to_json();
            let jwk = [jwk.trim_end_matches('}').as_bytes(), &member(&text), b"}"].concat();
            let found = PublicKey::from_jwk(&jwk);
            ensure!(found == PublicKey::from_jwk(&jwk), "not the same verdict twice");
            is_due(due, found.is_ok(), false)?;
            let set = [br#"{"keys":["#.as_slice(), &jwk, b"]}"].concat();
            match JwkSet::from_json(&set) {
                // Two brackets more than in the JWK alone.
                found if due == Due::Accept && depth(&set) <= 127 => {
                    ensure!(found.as_ref().is_ok_and(|set| set.keys().len() == 1), "in a set: {found:?}");
                }
                found if due == Due::Reject => ensure!(found.is_err(), "in a set: {found:?}"),
                _ => {}
            }
            Ok(())
        });
    }
    report.finish("JSON corner cases");
}

fn is_about_form(found: &Result<Token, TokenError>, due: TokenError) -> bool {
    matches!(found, Err(error) if *error == due || matches!(error, TokenError::TooLong { .. }))
}

fn is_due(due: Due, is_ok: bool, is_too_long: bool) -> Outcome {
    ensure!(due != Due::Accept || is_ok || is_too_long, "refused");
    ensure!(due != Due::Reject || !is_ok, "accepted");
    Ok(())
}

/// Duplicate names, numbers at the limits, normal forms of names, lone surrogates.
#[test]
fn json_that_parsers_transform() {
    let Some(root) = ajwt_vectors::root("json_that_parsers_transform") else { return };
    let forge = Forge::new();
    let mut report = Report::new();
    for file in ajwt_vectors::files(&root.join("jsontestsuite/test_transform"), "json") {
        let text = fs::read(&file).expect("a JSON file");
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        report.case(&name, || match name.split('_').next() {
            Some("number") => number(&forge, &text),
            Some("object") => object(&forge, &text),
            Some("string") => string(&forge, &text),
            _ => Err("neither a number, an object nor a string".to_owned()),
        });
    }
    report.finish("JSON that parsers transform");
}

/// `[NUMBER]`: as `time` it must be an integer within i64.
fn number(forge: &Forge, text: &[u8]) -> Outcome {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let number = text.trim().trim_start_matches('[').trim_end_matches(']').trim();
    let is_integer = number.parse::<i64>().is_ok() && number != "-0";
    for claim in ["time", "exp", "nbf", "iat"] {
        let mut claims =
            vec![("time", NOW.to_string()), ("username", r#""guido""#.into()), ("nonce", r#""n""#.into())];
        claims.retain(|(name, _)| *name != claim);
        claims.push((claim, number.to_owned()));
        let members: Vec<String> =
            claims.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
        let found = forge.verify(HEADER, format!("{{{}}}", members.join(",")).as_bytes())?;
        let is_refused_for_form = found.as_ref().is_err_and(|error| *error == TokenError::Payload);
        ensure!(is_refused_for_form != is_integer, "as {claim}: {found:?}");
    }
    let ignored = forge.verify(HEADER, &claims_with(&member(text.as_bytes())))?;
    ensure!(ignored.is_ok(), "as an ignored member: {ignored:?}");
    Ok(())
}

/// `{...}`: its members among ours; a name that occurs twice is refused.
fn object(forge: &Forge, text: &[u8]) -> Outcome {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?.trim();
    let has_duplicates =
        serde_json::from_str::<Names>(text).map_err(|error| error.to_string())?.has_duplicates;
    let members = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or("not an object")?;
    let members = format!(",{members}");
    let payload = forge.verify(HEADER, &claims_with(members.as_bytes()))?;
    ensure!(payload.is_err() == has_duplicates, "in the payload: {payload:?}");
    let header = forge.verify(&header_with(members.as_bytes()), &claims_with(b""))?;
    ensure!(header.is_err() == has_duplicates, "in the header: {header:?}");
    let set = JwkSet::from_json(set_with(members.as_bytes()));
    ensure!(set.is_err() == has_duplicates, "in a JWK set: {set:?}");
    let jwk = forge.0.public_key().to_jwk().to_json();
    let jwk = PublicKey::from_jwk(format!("{}{members}}}", jwk.trim_end_matches('}')));
    ensure!(jwk.is_err() == has_duplicates, "in a JWK: {jwk:?}");
    Ok(())
}

/// What another reader says of an object's names.
struct Names {
    has_duplicates: bool,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;

        impl<'de> Visitor<'de> for Counting {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let (mut names, mut count) = (HashSet::new(), 0);
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    names.insert(name);
                    count += 1;
                }
                Ok(Names { has_duplicates: names.len() < count })
            }
        }

        deserializer.deserialize_map(Counting)
    }
}

/// `["STRING"]`: lone surrogates and bytes that are not UTF-8 are refused, wherever they stand.
fn string(forge: &Forge, text: &[u8]) -> Outcome {
    let is_good = serde_json::from_slice::<Value>(text).is_ok();
    let payload = forge.verify(HEADER, &claims_with(&member(text)))?;
    ensure!(payload.is_ok() == is_good, "in the payload: {payload:?}");
    let header = forge.verify(&header_with(&member(text)), &claims_with(b""))?;
    ensure!(header.is_ok() == is_good, "in the header: {header:?}");
    ensure!(JwkSet::from_json(set_with(&member(text))).is_ok() == is_good, "in a JWK set");
    Ok(())
}

/// What the corpora do not hold: places, types and spellings that only our readers know.
#[test]
fn members_that_are_read_are_read_strictly() {
    let forge = Forge::new();
    let mut report = Report::new();
    let mut header = |text: &str, is_good: bool| {
        report.case(format!("header {text}"), || {
            let found = forge.verify(text.as_bytes(), &claims_with(b""))?;
            ensure!(found.is_ok() == is_good, "{found:?}");
            Ok(())
        });
    };
    header(r#"{"alg":"EdDSA"}"#, true);
    header(" {\"alg\" :\t\"EdDSA\" }\r\n", true);
    header(r#"{"\u0061lg":"EdDS\u0041"}"#, true);
    header(r#"{"alg":"EdDSA","kid":"","typ":""}"#, true);
    header(r#"{"alg":"EdDSA","cty":1,"jwk":{"kty":"oct"},"jku":null,"x5u":[],"x5c":{}}"#, true);
    header(r#"{"alg":"eddsa"}"#, false);
    header(r#"{"alg":"EdDSA\u0000"}"#, false);
    header(r#"{"alg":"none"}"#, false);
    header(r#"{"alg":["EdDSA"]}"#, false);
    header(r#"{"alg":null}"#, false);
    header(r#"{"ALG":"EdDSA"}"#, false);
    header(r#"{}"#, false);
    header(r#"["EdDSA"]"#, false);
    header("\u{feff}{\"alg\":\"EdDSA\"}", false);
    header(r#"{"alg":"EdDSA"}{}"#, false);
    header(r#"{"alg":"EdDSA"}"#.to_owned().replace('}', "}\0").as_str(), false);
    header(r#"{"alg":"EdDSA","alg":"EdDSA"}"#, false);
    header(r#"{"alg":"EdDSA","\u0061lg":"none"}"#, false);
    header(r#"{"alg":"EdDSA","x":1,"x":1}"#, false);
    for member in ["kid", "typ"] {
        for value in ["null", "1", "[]", "{}", "true"] {
            header(&format!(r#"{{"alg":"EdDSA","{member}":{value}}}"#), false);
        }
    }
    for member in ["crit", "b64", "zip", "enc", "cr\\u0069t"] {
        for value in ["null", "[]", "true", r#""DEF""#] {
            header(&format!(r#"{{"alg":"EdDSA","{member}":{value}}}"#), false);
        }
    }

    let mut payload = |text: &str, is_good: bool| {
        report.case(format!("payload {text}"), || {
            let found = forge.verify(HEADER, text.as_bytes())?;
            ensure!(found.is_ok() == is_good, "{found:?}");
            Ok(())
        });
    };
    let with = |claim: &str, value: &str| {
        let mut claims = vec![
            ("username", r#""guido""#.to_owned()),
            ("time", NOW.to_string()),
            ("nonce", r#""n""#.to_owned()),
        ];
        claims.retain(|(name, _)| *name != claim);
        claims.push((claim, value.to_owned()));
        let members: Vec<String> =
            claims.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
        format!("{{{}}}", members.join(","))
    };
    for claim in ["username", "time", "nonce"] {
        for value in ["null", "[]", "{}", "true", "1.0", "1e3", "\"\"", "[\"guido\"]"] {
            payload(&with(claim, value), false);
        }
    }
    payload(&with("username", r#""gu\u0069do""#), true);
    payload(&with("username", &format!("\"{}\"", "é".repeat(150))), true);
    payload(&with("username", &format!("\"{}\"", "é".repeat(151))), false);
    payload(&with("username", r#"" guido ""#), true);
    payload(&with("username", r#""gu\u0000ido""#), false);
    payload(&with("username", r#""gu\u0085ido""#), false);
    payload(&with("username", r#""gu\u200bido""#), true);
    payload(&with("nonce", &format!("\"{}\"", "n".repeat(256))), true);
    payload(&with("nonce", &format!("\"{}\"", "n".repeat(257))), false);
    payload(&with("nonce", &format!("\"{}\"", "é".repeat(129))), false);
    payload(&with("nonce", r#""\u0000""#), true);
    payload(&with("time", &format!("\"{NOW}\"")), false);
    payload(&with("time", "9223372036854775808"), false);
    payload(&with("exp", &(NOW + 1).to_string()), true);
    payload(&with("exp", &NOW.to_string()), false);
    payload(&with("nbf", &(NOW + 20).to_string()), true);
    payload(&with("nbf", &(NOW + 21).to_string()), false);
    payload(&with("iat", &(NOW + 21).to_string()), false);
    payload(&with("iat", "-9223372036854775808"), true);
    for claim in ["exp", "nbf", "iat"] {
        for value in ["null", "1.0", "1e9", "\"1\"", "9223372036854775808", "true"] {
            payload(&with(claim, value), false);
        }
    }
    for value in [r#""x""#, r#"["x"]"#, "null", "[]", "1", "{}", r#"["x",1]"#, r#""""#] {
        payload(&with("aud", value), false);
    }
    for claim in ["sub", "iss", "jti", "Username", "TIME"] {
        payload(&with(claim, "null"), true);
    }
    report.finish("members that are read");
}

#[test]
fn audiences() {
    let forge = Forge::new();
    let ours =
        || Validation::default().with_audience("a").and_then(|validation| validation.with_audience("b"));
    let verify = |aud: Option<&str>, validation: &Validation| {
        let more = aud.map(|aud| format!(r#","aud":{aud}"#)).unwrap_or_default();
        let token = forge.token(HEADER, &claims_with(more.as_bytes()));
        let untrusted = UntrustedToken::parse(&token).expect("a well-formed token");
        untrusted
            .verify(forge.0.public_key(), validation, Timestamp::from_secs(NOW))
            .map(|token| token.audiences().map(str::to_owned).collect::<Vec<_>>())
    };
    for malformed in ["[]", "null", r#"["a",1]"#] {
        let token = forge.token(HEADER, &claims_with(format!(r#","aud":{malformed}"#).as_bytes()));
        assert_eq!(UntrustedToken::parse(&token).err(), Some(TokenError::Payload), "{malformed}");
    }
    let ours = ours().expect("a validation");
    assert_eq!(verify(Some(r#""a""#), &ours), Ok(vec!["a".to_owned()]));
    assert_eq!(verify(Some(r#"["x","b"]"#), &ours), Ok(vec!["x".to_owned(), "b".to_owned()]));
    for other in [r#""A""#, r#""a ""#, r#"["x"]"#, r#""""#] {
        assert_eq!(verify(Some(other), &ours), Err(TokenError::Audience), "{other}");
    }
    assert_eq!(verify(None, &ours), Err(TokenError::Audience));
    let lenient = ours.allow_missing_audience();
    assert_eq!(verify(None, &lenient), Ok(Vec::new()));
    assert_eq!(verify(Some(r#""x""#), &lenient), Err(TokenError::Audience));
}

#[test]
fn tokens_have_a_length() {
    let forge = Forge::new();
    let padded = |spaces: usize| forge.token(HEADER, &[claims_with(b""), vec![b' '; spaces]].concat());
    let spaces = (0..MAX_TOKEN_LEN).find(|spaces| padded(*spaces).len() == MAX_TOKEN_LEN).expect("a length");
    assert!(UntrustedToken::parse(&padded(spaces)).is_ok());
    let longer = padded(spaces + 1);
    assert!(matches!(UntrustedToken::parse(&longer), Err(TokenError::TooLong { .. })));
}
