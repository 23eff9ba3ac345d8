//! Properties over random values: the time window, one spelling per token, round trips, no panic.

use std::{
    collections::HashSet, convert::Infallible, hash::BuildHasher as _, sync::LazyLock, time::Duration,
};

use ajwt_core::{
    Algorithm, ClaimError, Claims, JwkSet, KeyError, MAX_NONCE_LEN, MAX_PUBLIC_KEY_LEN, MAX_USERNAME_CHARS,
    Nonce, PrivateKey, PublicKey, RsaKeySize, SignError, Timestamp, Token, TokenError, UnsignedToken,
    UntrustedToken, Username, Validation,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use proptest::prelude::*;

static ED25519: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate_ed25519().expect("a key"));
static RSA: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key"));

/// Keys are new in each run, so that a failure which was kept would not fail again.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// Signs any payload.
fn forge(payload: &str) -> String {
    let signing_input =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#), URL_SAFE_NO_PAD.encode(payload));
    let signature = ED25519.sign(Algorithm::EdDsa, signing_input.as_bytes()).expect("a signature");
    format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn verify(token: &str, validation: &Validation, now: Timestamp) -> Result<Token, TokenError> {
    UntrustedToken::parse(token)?.verify(ED25519.public_key(), validation, now)
}

/// Seconds and milliseconds that meet, and the ends of i64.
fn instants() -> impl Strategy<Value = (i64, i64)> {
    let ends = prop_oneof![
        Just(i64::MIN),
        Just(i64::MIN + 1),
        Just(i64::MAX),
        Just(i64::MAX - 1),
        Just(i64::MAX / 1000),
        Just(i64::MAX / 1000 + 1),
        Just(i64::MIN / 1000),
        Just(i64::MIN / 1000 - 1),
        Just(0),
        any::<i64>()
    ];
    let near = (-4_000_000_000_i64..4_000_000_000, -40_000_i64..40_000)
        .prop_map(|(seconds, offset)| (seconds, seconds * 1000 + offset));
    let far = (ends.clone(), ends);
    prop_oneof![3 => near, 1 => far]
}

/// Offsets in milliseconds around the tolerance of so many seconds.
fn around(tolerance: i64) -> impl Strategy<Value = i64> {
    let edge = tolerance * 1000;
    prop_oneof![-2_i64..=2, edge - 2..=edge + 2, -edge - 2..=-edge + 2, -4 * edge..4 * edge]
}

/// 128 bits of what the generator gives, all of them.
#[test]
fn a_nonce_is_as_random_as_its_generator() {
    let fill = |bytes: &mut [u8]| -> Result<(), Infallible> {
        (0..).zip(bytes).for_each(|(number, byte)| *byte = number);
        Ok(())
    };
    let nonce = Nonce::generate(fill).expect("it does not fail");
    assert_eq!(URL_SAFE_NO_PAD.decode(nonce.as_str()), Ok((0..16).collect()));
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn names_are_percent_encoded_in_one_way(name in "\\PC{1,40}") {
        let name = Username::new(name).expect("a name");
        let encoded = name.to_percent_encoded();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"%._~@-".contains(&byte);
        prop_assert!(encoded.bytes().all(is_plain), "{encoded}");
        prop_assert_eq!(Username::from_percent_encoded(&encoded), Ok(name.clone()));
        if encoded != name.as_str() {
            prop_assert!(Username::from_percent_encoded(name.as_str()) != Ok(name));
        }
    }

    #[test]
    fn a_line_reads_as_its_key_whatever_its_comment_says(
        comment in prop::collection::vec(
            prop_oneof![
                Just("-----BEGIN ".to_owned()),
                Just("-----BEGIN\tPUBLIC KEY-----\n".to_owned()),
                Just("\nssh-ed25519 AAAA".to_owned()),
                Just("-----END PUBLIC KEY-----".to_owned()),
                any::<String>(),
            ],
            0..4,
        ),
    ) {
        let key = ED25519.public_key();
        let line = key.to_openssh(&comment.concat());
        let (read, _) = PublicKey::from_text(&line).map_err(|error| TestCaseError::fail(format!("{line}: {error}")))?;
        prop_assert_eq!(&read, key);
        prop_assert!(PublicKey::from_openssh(&line).is_ok_and(|read| read == *key), "{}", line);
        let private = PrivateKey::from_pem(&line, None).map(drop);
        prop_assert_eq!(private, Err(KeyError::PublicKey), "{}", line);
    }

    #[test]
    fn the_window_is_inclusive_and_never_overflows((time, now) in instants(), tolerance in 1_u64..=3600) {
        let validation = Validation::default().with_tolerance(Duration::from_secs(tolerance)).expect("a tolerance");
        let token = forge(&format!(r#"{{"username":"guido","time":{time},"nonce":"n"}}"#));
        let found = verify(&token, &validation, Timestamp::from_millis(now));
        let due = (i128::from(now) - i128::from(time) * 1000).abs() <= i128::from(tolerance) * 1000;
        prop_assert_eq!(found.is_ok(), due);
        let is_refused_for_time = matches!(found, Err(TokenError::Window { .. }));
        prop_assert_ne!(due, is_refused_for_time);
    }

    #[test]
    fn the_edge_of_the_window_is_a_millisecond(
        time in -4_000_000_000_i64..4_000_000_000,
        (tolerance, offset) in (1_i64..=3600).prop_flat_map(|tolerance| (Just(tolerance), around(tolerance))),
    ) {
        let duration = Duration::from_secs(tolerance.unsigned_abs());
        let validation = Validation::default().with_tolerance(duration).expect("a tolerance");
        let token = forge(&format!(r#"{{"username":"guido","time":{time},"nonce":"n"}}"#));
        let found = verify(&token, &validation, Timestamp::from_millis(time * 1000 + offset));
        prop_assert_eq!(found.is_ok(), offset.abs() <= tolerance * 1000);
    }

    #[test]
    fn exp_has_no_leeway_and_nbf_and_iat_have_the_tolerance(
        time in -4_000_000_000_i64..4_000_000_000,
        drift in prop_oneof![-20_000_i64..=20_000, prop_oneof![Just(0), Just(20_000), Just(-20_000)]],
        claims in proptest::collection::hash_map(
            prop_oneof![Just("exp"), Just("nbf"), Just("iat")],
            prop_oneof![
                4 => prop_oneof![Just(0_i64), Just(20), Just(-20), Just(40), Just(41)],
                2 => -30_i64..30,
                1 => prop_oneof![-30_000_000_i64..30_000_000, Just(i64::MIN), Just(i64::MAX)],
            ],
            0..=3,
        ),
    ) {
        let now = time * 1000 + drift;
        let value = |offset: &i64| match *offset {
            i64::MIN | i64::MAX => *offset,
            offset => time + offset,
        };
        let more: String = claims.iter().map(|(name, at)| format!(r#","{name}":{}"#, value(at))).collect();
        let token = forge(&format!(r#"{{"username":"guido","time":{time},"nonce":"n"{more}}}"#));
        let found = verify(&token, &Validation::default(), Timestamp::from_millis(now)).map(|_| ());

        let ms = |name: &str| claims.get(name).map(|at| i128::from(value(at)) * 1000);
        let now = i128::from(now);
        let due = if ms("exp").is_some_and(|exp| now >= exp) {
            Err(TokenError::Expired)
        } else if ms("nbf").is_some_and(|nbf| nbf - now > 20_000) {
            Err(TokenError::NotYetValid("nbf"))
        } else if ms("iat").is_some_and(|iat| iat - now > 20_000) {
            Err(TokenError::NotYetValid("iat"))
        } else {
            Ok(())
        };
        prop_assert_eq!(found, due);
    }

    #[test]
    fn claims_are_read_as_they_were_signed(
        username in proptest::string::string_regex(r"(?s)\PC{1,150}").expect("a pattern"),
        nonce in "\\PC{1,64}|[\\x00-\\x7f]{1,256}",
        time in any::<i64>(),
        audience in proptest::option::of("\\PC{1,40}"),
    ) {
        let now = Timestamp::from_millis(time);
        let mut claims =
            Claims::new(Username::new(username.as_str()).expect("a username"), now, Nonce::new(nonce.as_str()).expect("a nonce"));
        let mut validation = Validation::default();
        if let Some(audience) = &audience {
            claims = claims.with_audience(audience.as_str());
            validation = validation.with_audience(audience.as_str()).expect("an audience");
        }
        let signed = Token::sign(&claims, &ED25519).expect("a token");
        let untrusted = UntrustedToken::parse(signed.as_str()).expect("a well-formed token");
        prop_assert_eq!(untrusted.claimed_username().as_str(), &username);
        prop_assert_eq!(untrusted.key_id(), Some(ED25519.public_key().fingerprint().as_str()));
        let token = untrusted.verify(ED25519.public_key(), &validation, now).expect("a good token");
        prop_assert_eq!(token.username().as_str(), &username);
        prop_assert_eq!(token.nonce().as_str(), &nonce);
        prop_assert_eq!(token.time(), now.as_secs());
        prop_assert_eq!(token.audiences().map(str::to_owned).collect::<Vec<_>>(), Vec::from_iter(audience));
        // Nothing of it is printed.
        let printed = format!("{claims:?} {signed:?} {untrusted:?} {token:?}");
        let shows_nonce = nonce.len() > 8 && !username.contains(&nonce) && printed.contains(&nonce);
        prop_assert!(!shows_nonce, "{}", printed);
        for segment in signed.as_str().split('.') {
            prop_assert!(!printed.contains(segment), "{}", printed);
        }
    }

    #[test]
    fn usernames_and_nonces_have_bounds(text in "(?s).{0,160}|\\PC{140,160}|[a-zé]{250,260}") {
        let chars = text.chars().count();
        let due = if chars == 0 || chars > MAX_USERNAME_CHARS {
            Err(ClaimError::UsernameLength { chars, max: MAX_USERNAME_CHARS })
        } else if let Some(found) = text.chars().map(u32::from).find(|c| *c < 0x20 || (0x7f..0xa0).contains(c)) {
            Err(ClaimError::UsernameControl { found })
        } else {
            Ok(text.clone())
        };
        let name = Username::new(text.as_str());
        prop_assert_eq!(text.parse::<Username>(), name.clone());
        prop_assert_eq!(name.as_ref().map(AsRef::<str>::as_ref).ok(), due.as_deref().ok());
        prop_assert_eq!(name.map(|name| name.as_str().to_owned()), due);
        let len = text.len();
        let is_nonce = len > 0 && len <= MAX_NONCE_LEN;
        prop_assert_eq!(Nonce::new(text.as_str()).is_ok(), is_nonce);
    }

    /// A token has one spelling: whatever decodes to the same bytes elsewhere is refused here.
    #[test]
    fn other_spellings_of_a_token_are_refused(
        username in "\\PC{1,20}",
        nonce in "[A-Za-z0-9_-]{1,24}",
        with_rsa in any::<bool>(),
        bits in 1_u8..64,
    ) {
        let key: &PrivateKey = if with_rsa { &RSA } else { &ED25519 };
        let now = Timestamp::from_secs(1_790_000_000);
        let claims = Claims::new(Username::new(username).expect("a username"), now, Nonce::new(nonce).expect("a nonce"));
        let signed = Token::sign(&claims, key).expect("a token");
        let accepted = |token: &str| {
            UntrustedToken::parse(token)
                .and_then(|token| token.verify(key.public_key(), &Validation::default(), now))
                .is_ok()
        };
        prop_assert!(accepted(signed.as_str()));
        for other in spellings(signed.as_str(), bits) {
            prop_assert!(!accepted(&other), "{}", other);
        }
    }

    #[test]
    fn a_change_of_a_token_is_refused(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]|\\PC") {
        let token = forge(r#"{"username":"guido","time":1790000000,"nonce":"n"}"#);
        let at = at.index(token.len());
        let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
        prop_assume!(changed != token);
        let now = Timestamp::from_secs(1_790_000_000);
        prop_assert!(verify(&token, &Validation::default(), now).is_ok());
        prop_assert!(verify(&changed, &Validation::default(), now).is_err());
    }

    #[test]
    fn no_text_is_a_token_that_was_not_signed(text in "(?s).{0,400}|[A-Za-z0-9_-]{0,90}\\.[A-Za-z0-9_-]{0,90}\\.[A-Za-z0-9_-]{86}") {
        prop_assert!(verify(&text, &Validation::default(), Timestamp::from_secs(0)).is_err());
    }

    /// The bytes of all three segments are anything.
    #[test]
    fn no_bytes_are_a_token_that_was_not_signed(
        header in proptest::collection::vec(any::<u8>(), 0..80),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        signature in proptest::collection::vec(any::<u8>(), 64..=64),
        good_header in any::<bool>(),
    ) {
        let header = if good_header { br#"{"alg":"EdDSA"}"#.to_vec() } else { header };
        let token = [header, payload, signature].map(|segment| URL_SAFE_NO_PAD.encode(segment)).join(".");
        prop_assert!(verify(&token, &Validation::default(), Timestamp::from_secs(0)).is_err());
    }

    /// Text that is nearly JSON, deep and broken.
    #[test]
    fn nearly_json_never_panics(text in r#"([\[\]{}:,"\\ 0-9eE.+-]|null|true|"keys"|"kty"|"alg"|"EdDSA"|"time"|\\ud8[0-9a-f]{2}){0,60}"#) {
        drop(JwkSet::from_json(&text));
        drop(PublicKey::from_jwk(&text));
        drop(JwkSet::from_json(format!(r#"{{"keys":[{text}]}}"#)));
        drop(verify(&forge(&text), &Validation::default(), Timestamp::from_secs(0)));
        let header = URL_SAFE_NO_PAD.encode(&text);
        drop(UntrustedToken::parse(&format!("{header}.e30.{}", "A".repeat(86))));
    }

    #[test]
    fn key_loaders_never_panic_on_anything(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "(?s).{0,200}") {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            load_all(bytes);
            for label in ["PUBLIC KEY", "RSA PUBLIC KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY"] {
                load_all(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes)).as_bytes());
            }
            load_all(format!("ssh-rsa {}", STANDARD.encode(bytes)).as_bytes());
            drop(PublicKey::from_ed25519_bytes(bytes));
            drop(PublicKey::from_rsa_components(bytes, text.as_bytes()));
        }
    }

    #[test]
    fn timestamps_clamp(millis in any::<i64>(), by in any::<u64>()) {
        let at = Timestamp::from_millis(millis);
        let later = i128::from(millis) + i128::from(by);
        let earlier = i128::from(millis) - i128::from(by);
        let clamp = |value: i128| i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX });
        let by = Duration::from_millis(by);
        // A duration beyond i64 milliseconds counts as the largest.
        if i64::try_from(by.as_millis()).is_ok() {
            prop_assert_eq!(at.saturating_add(by).as_millis(), clamp(later));
            prop_assert_eq!(at.saturating_sub(by).as_millis(), clamp(earlier));
        } else {
            prop_assert!(at.saturating_add(by) >= at && at.saturating_sub(by) <= at);
        }
        prop_assert_eq!(i128::from(at.as_secs()), i128::from(millis).div_euclid(1000));
        prop_assert_eq!(Timestamp::from_secs(millis).as_millis(), clamp(i128::from(millis) * 1000));
    }
}

fn load_all(text: &[u8]) {
    drop(PublicKey::from_text(text));
    drop(PublicKey::from_pem(text));
    drop(PublicKey::from_openssh(text));
    drop(PublicKey::from_jwk(text));
    drop(JwkSet::from_json(text));
    drop(PrivateKey::from_pem(text, Some(b"a password")));
}

/// Texts that a lenient decoder reads as the same token: unused bits set, padding, the other
/// alphabet, white space.
fn spellings(token: &str, bits: u8) -> Vec<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut spellings = Vec::new();
    let segments: Vec<&str> = token.split('.').collect();
    for (at, segment) in segments.iter().enumerate() {
        let mut with = |other: String| {
            let mut all = segments.clone();
            all[at] = &other;
            spellings.push(all.join("."));
        };
        // Two characters over are one byte and four unused bits; three are two bytes and two bits.
        let unused = match segment.len() % 4 {
            2 => bits & 0b1111,
            3 => bits & 0b11,
            _ => 0,
        };
        let (start, last) = segment.split_at(segment.len() - 1);
        let value = ALPHABET.iter().position(|c| last.as_bytes() == [*c]).expect("base64url");
        if unused != 0 {
            let other = ALPHABET[value | usize::from(unused)];
            with(format!("{start}{}", char::from(other)));
        }
        let padding = (4 - segment.len() % 4) % 4;
        for padding in [1, padding.max(1), 4] {
            with(format!("{segment}{}", "=".repeat(padding)));
        }
        if segment.contains(['-', '_']) {
            with(segment.replace('-', "+").replace('_', "/"));
        }
        for space in [" ", "\n", "\r\n", "\t", "\0", "%3D", "\u{a0}"] {
            with(format!("{segment}{space}"));
            with(format!("{space}{segment}"));
            let (front, back) = segment.split_at(segment.len() / 2);
            with(format!("{front}{space}{back}"));
        }
    }
    spellings
}

/// Texts of good keys to change.
static KEY_TEXTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut texts = Vec::new();
    for key in [&*ED25519, &*RSA] {
        texts.push(key.to_pem().expect("PEM").as_bytes().to_vec());
        texts.push(key.to_openssh("a comment").expect("OpenSSH").as_bytes().to_vec());
        let public = key.public_key();
        texts.push(public.to_pem().into_bytes());
        texts.push(public.to_openssh("a comment").into_bytes());
        texts.push(public.to_jwk().to_json().into_bytes());
        texts.push(JwkSet::of_keys([public.clone()]).to_json().into_bytes());
    }
    // Encrypted ones: a change must not lead to a costly derivation either.
    texts.push(ED25519.to_encrypted_pem(b"another").expect("PEM").as_bytes().to_vec());
    texts.push(ED25519.to_encrypted_openssh("a comment", b"another").expect("OpenSSH").as_bytes().to_vec());
    texts
});

#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Double,
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (index(), 1_usize..40).prop_map(|(at, len)| Change::Remove(at, len)),
        2 => (index(), proptest::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => Just(Change::Double),
    ]
}

fn apply(change: &Change, text: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    match change {
        Change::Set(at, byte) => {
            let at = at.index(text.len());
            text[at] = *byte;
        }
        Change::Remove(at, len) => {
            let at = at.index(text.len());
            text.drain(at..text.len().min(at + len));
        }
        Change::Insert(at, bytes) => {
            let at = at.index(text.len());
            text.splice(at..at, bytes.iter().copied());
        }
        Change::Double => text.extend_from_within(..),
    }
}

/// The PEM body, base64 decoded, and what stands around it.
fn decoded(text: &[u8]) -> Option<(String, Vec<u8>, String)> {
    let text = std::str::from_utf8(text).ok()?;
    let (begin, rest) = text.split_once("-----\n")?;
    let (body, end) = rest.split_once("\n-----END")?;
    let body = STANDARD.decode(body.replace('\n', "")).ok()?;
    Some((format!("{begin}-----\n"), body, format!("\n-----END{end}")))
}

proptest! {
    #![proptest_config(cases(600))]

    /// Changed texts load as the key that they were, as another public key, or not at all; a private
    /// key that loads works.
    #[test]
    fn changed_keys_never_panic(
        text in any::<prop::sample::Index>(),
        changes in proptest::collection::vec(change(), 1..4),
        inside in any::<bool>(),
    ) {
        let mut text = text.get(&KEY_TEXTS).clone();
        match decoded(&text).filter(|_| inside) {
            Some((begin, mut body, end)) => {
                for change in &changes {
                    apply(change, &mut body);
                }
                text = format!("{begin}{}{end}", STANDARD.encode(body)).into_bytes();
            }
            None => {
                for change in &changes {
                    apply(change, &mut text);
                }
            }
        }
        load_all(&text);
        if let Ok(key) = PrivateKey::from_pem(&text, None) {
            let algorithm = key.public_key().preferred_algorithm();
            let signature = key.sign(algorithm, b"message").expect("a signature");
            prop_assert!(key.public_key().verify(algorithm, b"message", &signature));
            // Another seed is another Ed25519 key; the numbers of an RSA key hold together.
            prop_assert!(algorithm == Algorithm::EdDsa || key.public_key() == RSA.public_key());
        }
        if let Ok((key, _)) = PublicKey::from_text(&text) {
            prop_assert_eq!(PublicKey::from_pem(key.to_pem()), Ok(key));
        }
    }
}

#[test]
fn a_signature_made_elsewhere_is_checked() {
    let key = PrivateKey::generate_ed25519().expect("a key");
    let other = PrivateKey::generate_ed25519().expect("a key");
    let now = Timestamp::from_secs(1_790_000_000);
    let claims = || {
        let nonce = Nonce::new("n").expect("a nonce");
        Claims::new(Username::new("guido").expect("a name"), now, nonce)
    };
    let unsigned = || UnsignedToken::new(&claims(), key.public_key()).expect("claims");
    let sign =
        |key: &PrivateKey| key.sign(unsigned().algorithm(), unsigned().signing_input()).expect("signed");
    let token = unsigned().verified_with(&sign(&key)).expect("its own signature");
    assert_eq!(token.as_str(), Token::sign(&claims(), &key).expect("signed").as_str());
    for wrong in [sign(&other), vec![], vec![0; 64], sign(&key)[1..].to_vec()] {
        assert_eq!(unsigned().verified_with(&wrong).map(drop), Err(SignError::Signature));
    }
    assert!(!format!("{:?}", unsigned()).contains("ey"), "nothing of the token is printed");
}

#[test]
fn a_key_is_found_in_a_set_in_whatever_way_it_was_made() {
    let keys = HashSet::from([&*ED25519, &*RSA].map(|key| key.public_key().clone()));
    for key in &keys {
        assert!(keys.contains(&PublicKey::from_pem(key.to_pem()).expect("PEM")), "{key:?}");
    }
    assert!(keys.contains(&ED25519.public_key().precomputed().expect("a table")));
    assert!(!keys.contains(PrivateKey::generate_ed25519().expect("a key").public_key()));
    // Or each look-up would compare with all.
    let [one, other] = [&*ED25519, &*RSA].map(|key| keys.hasher().hash_one(key.public_key()));
    assert_ne!(one, other);
}

#[test]
fn types_of_keys_are_named() {
    let name = |key: &PrivateKey| key.public_key().key_type().to_string();
    assert_eq!((name(&ED25519).as_str(), name(&RSA).as_str()), ("Ed25519", "RSA 2048"));
}

#[test]
fn a_key_signs_with_its_own_algorithms_only() {
    for key in [&*ED25519, &*RSA] {
        for algorithm in Algorithm::ALL {
            let is_own = key.public_key().algorithms().contains(&algorithm);
            let due = if is_own { Ok(()) } else { Err(SignError::KeyAlgorithm(algorithm)) };
            assert_eq!(key.sign(algorithm, b"message").map(drop), due, "{algorithm}");
        }
    }
}

#[test]
fn a_comment_is_cut_where_the_text_could_not_be_read() {
    let comment = "caf\u{e9} ".repeat(40_000);
    for key in [&*ED25519, &*RSA] {
        let line = key.public_key().to_openssh(&comment);
        assert!(line.len() <= MAX_PUBLIC_KEY_LEN && line.len() > MAX_PUBLIC_KEY_LEN - 8, "{}", line.len());
        assert_eq!(PublicKey::from_text(&line).map(|(key, _)| key).as_ref(), Ok(key.public_key()));

        let file = key.to_openssh(&comment).expect("OpenSSH");
        let read = PrivateKey::from_pem(file.as_bytes(), None).map(|key| key.public_key().clone());
        assert_eq!(read.as_ref(), Ok(key.public_key()));
    }
}
