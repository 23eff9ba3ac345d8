//! Key files in every format, good and bad, and JWKs: each loads as what it is, or is refused.

#[path = "support/jwk_rule.rs"]
mod jwk_rule;

use std::{collections::HashSet, fs, path::Path, time::Duration};

use ajwt_core::{
    JwkError, JwkSet, KeyError, KeyType, MAX_PRIVATE_KEY_LEN, MAX_PUBLIC_KEY_LEN, PrivateKey, PublicKey,
    RsaKeySize,
};
use ajwt_vectors::{Report, ensure, timed};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

const MESSAGE: &[u8] = b"a message";

type Outcome = Result<(), String>;

#[test]
fn every_key_of_the_manifests_has_its_verdict() {
    let Some(root) = ajwt_vectors::root("every_key_of_the_manifests_has_its_verdict") else { return };
    let mut report = Report::new();
    for folder in ajwt_vectors::folders_with(&root, "manifest.json") {
        let manifest = ajwt_vectors::json(&folder.join("manifest.json"));
        for entry in manifest.as_array().expect("a manifest is an array") {
            let file = folder.join(ajwt_vectors::str(entry, "file"));
            report.case(file.display().to_string(), || {
                let text = fs::read(&file).map_err(|error| error.to_string())?;
                match entry["ajwt"].as_str() {
                    Some("accept") => accepted(entry, &text),
                    Some("reject") => rejected(entry, &text),
                    Some("either") => either(entry, &text),
                    other => Err(format!("the manifest says {other:?}")),
                }
            });
        }
    }
    report.finish("keys of the manifests");
}

fn accepted(entry: &Value, text: &[u8]) -> Outcome {
    let password = password(entry);
    match entry["as"].as_str() {
        Some(form) if form.starts_with("private") => {
            let key = PrivateKey::from_pem(text, password).map_err(|error| error.to_string())?;
            is_as_told(entry, key.public_key())?;
            private_key_works(&key)?;
            let as_public = PublicKey::from_text(text);
            ensure!(as_public == Err(KeyError::PrivateKey), "as a public key: {as_public:?}");
            passwords_are_told_apart(text, password)
        }
        Some(form) if form.starts_with("public") => {
            let (key, _) = PublicKey::from_text(text).map_err(|error| error.to_string())?;
            is_as_told(entry, &key)?;
            public_key_round_trips(&key)?;
            let as_private = PrivateKey::from_pem(text, password).map(|_| ());
            ensure!(as_private == Err(KeyError::PublicKey), "as a private key: {as_private:?}");
            Ok(())
        }
        form => Err(format!("accepted as {form:?}?")),
    }
}

fn rejected(entry: &Value, text: &[u8]) -> Outcome {
    let limit = entry["time_bound_ms"].as_u64().map_or(Duration::from_secs(60), Duration::from_millis);
    let (public, public_took) = timed(|| PublicKey::from_text(text));
    let (private, private_took) = timed(|| PrivateKey::from_pem(text, password(entry)));
    let private = private.map(|key| key.public_key().clone());
    ensure!(public.is_err(), "loads as a public key: {public:?}");
    ensure!(private.is_err(), "loads as a private key: {private:?}");
    ensure!(public_took <= limit && private_took <= limit, "took {public_took:?} and {private_took:?}");
    for error in [public.err(), private.err()].into_iter().flatten() {
        let message = error.to_string();
        ensure!(!message.is_empty() && message.len() < 400, "the message is {message:?}");
        ensure!(!message.chars().any(char::is_control), "a control character in {message:?}");
    }
    Ok(())
}

fn either(entry: &Value, text: &[u8]) -> Outcome {
    let load = || {
        let private = PrivateKey::from_pem(text, password(entry)).map(|key| key.public_key().clone());
        (PublicKey::from_text(text).map(|(key, _)| key), private)
    };
    let (public, private) = load();
    ensure!((public.clone(), private.clone()) == load(), "not the same verdict twice");
    for key in [&public, &private].into_iter().flatten() {
        is_as_told(entry, key)?;
        public_key_round_trips(key)?;
    }
    match entry["as"].as_str() {
        Some(form) if form.starts_with("private") => ensure!(public.is_err(), "loads as a public key"),
        Some(form) if form.starts_with("public") => ensure!(private.is_err(), "loads as a private key"),
        _ => ensure!(public.is_err() || private.is_err(), "loads as both"),
    }
    Ok(())
}

fn password(entry: &Value) -> Option<&[u8]> {
    entry["password"].as_str().map(str::as_bytes)
}

fn is_as_told(entry: &Value, key: &PublicKey) -> Outcome {
    let key_type = key.key_type();
    match (entry["type"].as_str(), key_type) {
        (None, _) | (Some("ed25519"), KeyType::Ed25519) => {}
        (Some("rsa"), KeyType::Rsa { bits }) => {
            let told = entry["bits"].as_u64().unwrap_or_default();
            ensure!(told == bits as u64, "{bits} bits, {told} are told");
        }
        (told, _) => return Err(format!("{key_type:?}, {told:?} is told")),
    }
    if let Some(told) = entry["kid_sha256_spki_pem"].as_str() {
        ensure!(key.fingerprint().as_str() == told, "the fingerprint is {}", key.fingerprint());
    }
    Ok(())
}

fn public_key_round_trips(key: &PublicKey) -> Outcome {
    let (read, comment) = PublicKey::from_text(key.to_pem()).map_err(|error| format!("PEM: {error}"))?;
    ensure!(&read == key && read.to_pem() == key.to_pem() && comment.is_none(), "PEM");
    let line = key.to_openssh("two words");
    let (read, comment) = PublicKey::from_text(&line).map_err(|error| format!("OpenSSH: {error}"))?;
    ensure!(&read == key && comment.as_deref() == Some("two words"), "OpenSSH");
    ensure!(PublicKey::from_openssh(key.to_openssh("")).as_ref() == Ok(key), "OpenSSH without a comment");
    let broken = key.to_openssh("two\nlines");
    ensure!(PublicKey::from_openssh(&broken).as_ref() == Ok(key), "OpenSSH with a comment of two lines");
    let jwk = key.to_jwk().to_json();
    ensure!(PublicKey::from_jwk(&jwk).as_ref() == Ok(key), "JWK");
    let set = JwkSet::of_keys([key.clone()]);
    ensure!(JwkSet::from_json(set.to_json()).as_ref() == Ok(&set), "JWK set");
    Ok(())
}

/// Signs, verifies, reads back what it writes, prints nothing.
fn private_key_works(key: &PrivateKey) -> Outcome {
    let public = key.public_key();
    for algorithm in public.algorithms() {
        let signature = key.sign(*algorithm, MESSAGE).map_err(|error| error.to_string())?;
        ensure!(signature.len() == public.signature_len(), "{algorithm}: {} bytes", signature.len());
        ensure!(public.verify(*algorithm, MESSAGE, &signature), "{algorithm} does not verify");
        ensure!(!public.verify(*algorithm, b"another message", &signature), "{algorithm} verifies anything");
        for other in ajwt_core::Algorithm::ALL {
            let verifies = public.verify(other, MESSAGE, &signature);
            ensure!(
                verifies == (other == *algorithm),
                "a signature of {algorithm} under {other}: {verifies}"
            );
        }
    }
    public_key_round_trips(public)?;
    for (form, text) in [("PEM", key.to_pem()), ("OpenSSH", key.to_openssh("a comment"))] {
        let text = text.map_err(|error| format!("{form}: {error}"))?;
        let read = PrivateKey::from_pem(text.as_bytes(), None).map_err(|error| format!("{form}: {error}"))?;
        ensure!(read.public_key() == public, "{form}");
    }
    ensure!(
        format!("{key:?}") == format!("PrivateKey {{ public: {public:?}, .. }}"),
        "Debug prints more than the public half"
    );
    Ok(())
}

fn passwords_are_told_apart(text: &[u8], password: Option<&[u8]>) -> Outcome {
    let load = |password| PrivateKey::from_pem(text, password).map(|_| ());
    if password.is_none() {
        ensure!(load(Some(b"not asked for")) == Ok(()), "a password that is not needed is looked at");
        return Ok(());
    }
    let missing = load(None);
    ensure!(missing == Err(KeyError::PasswordMissing), "without a password: {missing:?}");
    for wrong in [b"wrong".as_slice(), b""] {
        let found = load(Some(wrong));
        ensure!(found == Err(KeyError::PasswordWrong), "with the password {wrong:?}: {found:?}");
    }
    Ok(())
}

/// One private key of each kind in the manifests, written encrypted.
#[test]
fn encrypted_keys_read_back() {
    let Some(root) = ajwt_vectors::root("encrypted_keys_read_back") else { return };
    let mut report = Report::new();
    let mut seen = HashSet::new();
    for folder in ajwt_vectors::folders_with(&root, "manifest.json") {
        let manifest = ajwt_vectors::json(&folder.join("manifest.json"));
        for entry in manifest.as_array().expect("a manifest is an array") {
            let is_private = entry["as"].as_str().is_some_and(|form| form.starts_with("private"));
            if entry["ajwt"] != "accept" || !is_private || !entry["password"].is_null() {
                continue;
            }
            let text = fs::read(folder.join(ajwt_vectors::str(entry, "file"))).expect("a key file");
            let Ok(key) = PrivateKey::from_pem(&text, None) else { continue };
            if seen.insert(key.public_key().key_type()) {
                report.case(format!("{:?}", key.public_key()), || encrypted_round_trip(&key));
            }
        }
    }
    report.finish("encrypted keys");
}

fn encrypted_round_trip(key: &PrivateKey) -> Outcome {
    const PASSWORD: &[u8] = "pässwörd \u{1f511}".as_bytes();
    let texts = [
        ("PEM", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", key.to_encrypted_pem(PASSWORD)),
        ("OpenSSH", "-----BEGIN OPENSSH PRIVATE KEY-----\n", key.to_encrypted_openssh("a comment", PASSWORD)),
    ];
    for (form, begin, text) in texts {
        let text = text.map_err(|error| format!("{form}: {error}"))?;
        ensure!(text.starts_with(begin), "{form} begins with another line");
        let read =
            PrivateKey::from_pem(text.as_bytes(), Some(PASSWORD)).map_err(|error| error.to_string())?;
        ensure!(read.public_key() == key.public_key(), "{form}");
        passwords_are_told_apart(text.as_bytes(), Some(PASSWORD))
            .map_err(|error| format!("{form}: {error}"))?;
    }
    Ok(())
}

#[test]
fn generated_keys_work_and_read_back() {
    let mut report = Report::new();
    let rsa = |size| PrivateKey::generate_rsa(size);
    let keys = [
        (KeyType::Ed25519, PrivateKey::generate_ed25519()),
        (KeyType::Rsa { bits: 2048 }, rsa(RsaKeySize::Bits2048)),
        (KeyType::Rsa { bits: 3072 }, rsa(RsaKeySize::Bits3072)),
    ];
    for (key_type, key) in keys {
        report.case(format!("{key_type:?}"), || {
            let key = key.map_err(|error| error.to_string())?;
            ensure!(key.public_key().key_type() == key_type, "it is {:?}", key.public_key().key_type());
            private_key_works(&key)?;
            encrypted_round_trip(&key)
        });
    }
    report.finish("generated keys");
}

/// Every file that holds a JWK or a set of them: `jwk*.json`, in whatever folder.
#[test]
fn every_jwk_has_its_verdict() {
    let Some(root) = ajwt_vectors::root("every_jwk_has_its_verdict") else { return };
    let mut report = Report::new();
    for folder in ajwt_vectors::folders(&root) {
        for file in ajwt_vectors::files(&folder, "json") {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A corpus of documents with their verdicts has tests of its own.
            if name.starts_with("jwk") && !folder.ends_with("jwks-docs") {
                report.case(file.display().to_string(), || jwk_file(&file));
            }
        }
    }
    report.finish("JWK files");
}

fn jwk_file(file: &Path) -> Outcome {
    let text = fs::read(file).map_err(|error| error.to_string())?;
    let Ok(value) = serde_json::from_slice::<Value>(&text) else {
        ensure!(PublicKey::from_jwk(&text) == Err(JwkError::Json), "read as a JWK");
        ensure!(JwkSet::from_json(&text).is_err(), "read as a set");
        return Ok(());
    };
    match value["keys"].as_array() {
        Some(keys) => {
            let set = JwkSet::from_json(&text).map_err(|error| error.to_string())?;
            let due: Vec<&str> =
                jwk_rule::usable(keys).into_iter().filter_map(|jwk| jwk["kid"].as_str()).collect();
            let found: Vec<&str> = set.keys().iter().map(ajwt_core::Jwk::key_id).collect();
            ensure!(found == due, "usable are {found:?}, due are {due:?}: {:?}", set.skipped());
            ensure!(set.skipped().len() + found.len() == keys.len(), "entries are lost");
            Ok(())
        }
        None => jwk(&value),
    }
}

fn jwk(value: &Value) -> Outcome {
    let due = jwk_rule::is_usable(value);
    let found = PublicKey::from_jwk(value.to_string());
    ensure!(found.is_ok() == due, "acceptable: {due}, but {found:?}");
    let set = json!({ "keys": [value] }).to_string();
    let set = JwkSet::from_json(set).map_err(|error| error.to_string())?;
    let due = due && value["kid"].as_str().is_some_and(|kid| !kid.is_empty());
    ensure!((set.keys().len() == 1) == due, "in a set: {set:?}");
    if let Ok(key) = found {
        public_key_round_trips(&key)?;
    }
    let with_private = json!({ "d": "AQAB" });
    let mut private = value.clone();
    if let (Some(members), Some(d)) = (private.as_object_mut(), with_private.get("d")) {
        members.insert("d".to_owned(), d.clone());
    }
    ensure!(PublicKey::from_jwk(private.to_string()).is_err(), "accepted with a private member");
    Ok(())
}

#[test]
fn texts_that_are_too_long_are_refused_unread() {
    let key = PrivateKey::generate_ed25519().expect("a key");
    let pem = key.public_key().to_pem();
    let padded = |text: &str, len: usize| format!("{text}{}", "\n".repeat(len - text.len()));
    assert!(PublicKey::from_text(padded(&pem, MAX_PUBLIC_KEY_LEN)).is_ok());
    let refused = Err(KeyError::TooLong { len: MAX_PUBLIC_KEY_LEN + 1, max: MAX_PUBLIC_KEY_LEN });
    assert_eq!(PublicKey::from_text(padded(&pem, MAX_PUBLIC_KEY_LEN + 1)), refused);

    let pem = key.to_pem().expect("PEM");
    assert!(PrivateKey::from_pem(padded(&pem, MAX_PRIVATE_KEY_LEN), None).is_ok());
    let refused = Err(KeyError::TooLong { len: MAX_PRIVATE_KEY_LEN + 1, max: MAX_PRIVATE_KEY_LEN });
    assert_eq!(PrivateKey::from_pem(padded(&pem, MAX_PRIVATE_KEY_LEN + 1), None).map(|_| ()), refused);
}

#[test]
fn errors_say_what_was_found() {
    let found = |text: &str| PublicKey::from_text(text).map(|_| ()).expect_err("no key");
    assert_eq!(found(" \n\t"), KeyError::Empty);
    assert_eq!(found("hello"), KeyError::NotAKey);
    assert!(matches!(found("ssh-dss AAAA"), KeyError::UnsupportedType { .. }));
    assert!(matches!(found("sk-ssh-ed25519@openssh.com AAAA"), KeyError::SecurityKey { .. }));
    let certificate = "ssh-ed25519-cert-v01@openssh.com AAAA";
    assert!(matches!(found(certificate), KeyError::Certificate { .. }));
    let pem = PrivateKey::generate_ed25519().expect("a key").public_key().to_pem();
    assert_eq!(found(&format!("{pem}{pem}")), KeyError::SeveralKeys { count: 2 });
    let der = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 0xff, 0xfe];
    assert!(matches!(PublicKey::from_text(der), Err(KeyError::Der { .. })));
    assert!(matches!(PrivateKey::from_pem(der, None).map(|_| ()), Err(KeyError::Der { .. })));
}

#[test]
fn rsa_numbers_at_their_edges() {
    let key = PrivateKey::generate_rsa(RsaKeySize::Bits2048).expect("a key");
    let jwk: Value = serde_json::from_str(&key.public_key().to_jwk().to_json()).expect("a JWK");
    let modulus = URL_SAFE_NO_PAD.decode(ajwt_vectors::str(&jwk, "n")).expect("base64url");
    let exponent = |exponent: u128| PublicKey::from_rsa_components(&modulus, &exponent.to_be_bytes());
    assert_eq!(exponent(65_537).as_ref(), Ok(key.public_key()));
    for accepted in [65_539, (1 << 32) + 1, (1 << 33) - 1] {
        assert!(exponent(accepted).is_ok(), "{accepted}");
    }
    for refused in [0, 1, 3, 65_535, 65_536, 65_538, 1 << 33, (1 << 33) + 1, (1 << 64) + 65_537] {
        assert!(matches!(exponent(refused), Err(KeyError::RsaExponent { .. })), "{refused}");
    }
    let with_modulus = |modulus: &[u8]| PublicKey::from_rsa_components(modulus, &[1, 0, 1]);
    let mut even = modulus.clone();
    *even.last_mut().expect("a byte") &= 0xfe;
    assert_eq!(with_modulus(&even), Err(KeyError::RsaModulusEven));
    let mut short = modulus.clone();
    short[0] = 0x7f;
    assert_eq!(with_modulus(&short), Err(KeyError::RsaSize { bits: 2047 }));
    assert_eq!(with_modulus(&[]), Err(KeyError::RsaSize { bits: 0 }));
    let long = [vec![1], vec![0xff; 1024]].concat();
    assert_eq!(with_modulus(&long), Err(KeyError::RsaSize { bits: 8193 }));
    let zeros = [vec![0; 2000], modulus.clone()].concat();
    assert_eq!(with_modulus(&zeros).as_ref(), Ok(key.public_key()));
}

/// The y-coordinates from p on are spellings of small ones (RFC 8032 section 5.1.3, step 1).
#[test]
fn ed25519_points_have_one_spelling() {
    for excess in 0..19_u8 {
        for sign in [0, 0x80] {
            let mut bytes = [0xff; 32];
            bytes[0] = 0xed + excess;
            bytes[31] = 0x7f | sign;
            let found = PublicKey::from_ed25519_bytes(&bytes);
            assert!(matches!(found, Err(KeyError::Ed25519Point { .. })), "p + {excess}: {found:?}");
        }
    }
}
