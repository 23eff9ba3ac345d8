//! Containers of keys, made by hand, that no tool makes by accident.

use ajwt_core::{Algorithm, JwkError, KeyError, PrivateKey, PublicKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

fn body(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    BASE64_STANDARD.decode(base64).expect("base64")
}

/// One DER value.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = content.len();
    let mut value = vec![tag];
    match len {
        0..=0x7f => value.push(len as u8),
        0x80..=0xff => value.extend([0x81, len as u8]),
        _ => value.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    value.extend(content);
    value
}

fn oid(text: &str) -> Vec<u8> {
    let numbers: Vec<u32> = text.split('.').map(|number| number.parse().expect("a number")).collect();
    let mut bytes = vec![(numbers[0] * 40 + numbers[1]) as u8];
    for number in &numbers[2..] {
        let groups: Vec<u8> = (0..5).rev().map(|group| (number >> (7 * group)) as u8 & 0x7f).collect();
        let start = groups.iter().position(|group| *group != 0).unwrap_or(4);
        let (last, first) = groups[start..].split_last().expect("a group");
        bytes.extend(first.iter().map(|group| group | 0x80));
        bytes.push(*last);
    }
    tlv(0x06, &[&bytes])
}

fn integer(number: u64) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    while bytes.len() > 1 && bytes[0] == 0 && bytes[1] < 0x80 {
        bytes.remove(0);
    }
    if bytes[0] >= 0x80 {
        bytes.insert(0, 0);
    }
    tlv(0x02, &[&bytes])
}

/// An encrypted PKCS#8 key whose scrypt has these costs.
fn scrypt(n: u64, r: u64, p: u64) -> String {
    let parameters = tlv(0x30, &[&tlv(0x04, &[&[1; 16]]), &integer(n), &integer(r), &integer(p)]);
    let kdf = tlv(0x30, &[&oid("1.3.6.1.4.1.11591.4.11"), &parameters]);
    let cipher = tlv(0x30, &[&oid("2.16.840.1.101.3.4.1.42"), &tlv(0x04, &[&[2; 16]])]);
    let scheme = tlv(0x30, &[&oid("1.2.840.113549.1.5.13"), &tlv(0x30, &[&kdf, &cipher])]);
    pem("ENCRYPTED PRIVATE KEY", &tlv(0x30, &[&scheme, &tlv(0x04, &[&[3; 48]])]))
}

#[test]
fn scrypt_is_capped_in_each_of_its_costs() {
    let load =
        |n, r, p| PrivateKey::from_pem(scrypt(n, r, p), Some(b"password")).expect_err("no key is within");
    // Within the caps it is derived, and the password is wrong.
    assert_eq!(load(1 << 14, 8, 1), KeyError::PasswordWrong);
    assert_eq!(load(4, 1, 16), KeyError::PasswordWrong);
    for (n, r, p) in [
        (1 << 17, 8, 1),
        (1 << 14, 8, 17),
        // Small N, but r and p cost 128 r p bytes too.
        (4, 65_535, 16),
        (2, 65_535, 9),
        (1 << 62, 1, 1),
    ] {
        assert!(matches!(load(n, r, p), KeyError::KdfTooCostly { kdf: "scrypt", .. }), "{n} {r} {p}");
    }
}

const RSA: &str = include_str!("fixtures/rsa.pkcs8.private");

/// The fixture as PKCS#8 v2, with a public part.
fn rsa_v2(public: &[u8]) -> String {
    let v1 = body(RSA);
    // SEQUENCE header of 4 bytes, version INTEGER 0 of 3.
    let rest = &v1[7..];
    let public = tlv(0x81, &[&[0], public]);
    pem("PRIVATE KEY", &tlv(0x30, &[&integer(1), rest, &public]))
}

#[test]
fn the_public_part_of_an_rsa_pkcs8_v2_key_must_be_its_own() {
    let own = body(include_str!("fixtures/rsa.pkcs1.public"));
    let key = PrivateKey::from_pem(rsa_v2(&own), None).expect("its own");
    assert_eq!(key.public_key(), PrivateKey::from_pem(RSA, None).expect("a key").public_key());
    let mut other = own.clone();
    // Within the modulus, which stays odd.
    other[100] ^= 1;
    assert_eq!(PrivateKey::from_pem(rsa_v2(&other), None).expect_err("another's"), KeyError::Mismatch);
    assert!(PrivateKey::from_pem(rsa_v2(b"no key"), None).is_err());
}

#[test]
fn an_ec_key_with_its_parameters_is_told_to_be_one() {
    let text =
        format!("{}{}", pem("EC PARAMETERS", &oid("1.2.840.10045.3.1.7")), pem("EC PRIVATE KEY", &[0x30, 0]));
    let error = PrivateKey::from_pem(&text, None).expect_err("no EC keys");
    assert_eq!(error, KeyError::UnsupportedType { found: "ECDSA".into() });
}

#[test]
fn only_what_is_a_key_of_the_other_kind_is_told_to_be_one() {
    let private = PublicKey::from_pem(pem("ENCRYPTED PRIVATE KEY", &[0x30, 0]));
    assert_eq!(private, Err(KeyError::PrivateKey));
    let neither = PublicKey::from_pem(pem("PKCS7", &[0x30, 0]));
    assert_eq!(neither, Err(KeyError::Label { label: "PKCS7".into() }));

    let public = PrivateKey::from_pem(include_str!("fixtures/ed25519-ssh.openssh.public"), None);
    assert_eq!(public.expect_err("a public key"), KeyError::PublicKey);
    let neither = PrivateKey::from_pem("ssh-ed25519 AAAA", None).expect_err("no key");
    assert_ne!(neither, KeyError::PublicKey);
}

#[test]
fn signatures_are_as_long_as_those_of_keys_that_are_accepted() {
    for algorithm in [Algorithm::Rs512, Algorithm::Rs384, Algorithm::Rs256] {
        let lens: Vec<_> = (0..=2048).filter(|len| PublicKey::is_signature_len(algorithm, *len)).collect();
        assert_eq!(lens, Vec::from_iter(2048 / 8..=8192 / 8), "{algorithm}");
    }
    let lens: Vec<_> = (0..=2048).filter(|len| PublicKey::is_signature_len(Algorithm::EdDsa, *len)).collect();
    assert_eq!(lens, [64]);
}

#[test]
fn an_openssh_file_that_is_encrypted_without_a_derivation_is_no_wrong_password() {
    let mut bytes = b"openssh-key-v1\0".to_vec();
    let mut put = |field: &[u8]| {
        bytes.extend((field.len() as u32).to_be_bytes());
        bytes.extend(field);
    };
    put(b"aes256-ctr");
    put(b"none");
    put(b"");
    let (key, _) = PublicKey::from_text(include_str!("fixtures/ed25519-ssh.openssh.public")).expect("a key");
    let line = key.to_openssh("");
    let blob = BASE64_STANDARD.decode(line.split(' ').nth(1).expect("the base64")).expect("base64");
    bytes.extend(1_u32.to_be_bytes());
    let mut put = |field: &[u8]| {
        bytes.extend((field.len() as u32).to_be_bytes());
        bytes.extend(field);
    };
    put(&blob);
    put(&[0; 64]);
    for password in [None, Some(b"password".as_slice())] {
        let error =
            PrivateKey::from_pem(pem("OPENSSH PRIVATE KEY", &bytes), password).expect_err("malformed");
        assert!(matches!(&error, KeyError::Malformed { .. }), "{error}");
    }
}

#[test]
fn a_lone_jwk_is_bounded_and_its_faults_are_told() {
    let jwk = PrivateKey::generate_ed25519().expect("a key").public_key().to_jwk().to_json();
    assert!(PublicKey::from_jwk(&jwk).is_ok());
    let padded = format!("{jwk}{}", " ".repeat(16 * 1024));
    assert!(matches!(PublicKey::from_jwk(padded), Err(JwkError::Key(KeyError::TooLong { .. }))));
    let twice = jwk.replacen('{', "{\"x\":\"a\",", 1);
    assert_eq!(PublicKey::from_jwk(twice), Err(JwkError::DuplicateMember));
    assert_eq!(PublicKey::from_jwk("[]"), Err(JwkError::Json));
    // No more of what it says is told than shows it.
    let other = jwk.replacen("OKP", &"o".repeat(100), 1);
    let found = "o".repeat(64);
    assert_eq!(PublicKey::from_jwk(other), Err(JwkError::UnsupportedType { member: "kty", found }));
}

/// Found by fuzzing: names that a text makes up went into errors as they were.
#[test]
fn what_a_text_says_of_itself_cannot_command_a_terminal() {
    let evil = "\u{1b}[2J\u{202e}\u{7}";
    let blob = |name: &str| {
        let len = u32::try_from(name.len()).expect("a length").to_be_bytes();
        BASE64_STANDARD.encode([len.as_slice(), name.as_bytes()].concat())
    };
    let texts = [
        format!("ssh-{evil} AAAA"),
        format!("sk-{evil} AAAA"),
        format!("ssh-rsa {}", blob(&format!("{evil}@{evil}"))),
        format!("ssh-rsa {}", blob(evil)),
    ];
    let mut errors: Vec<KeyError> =
        texts.iter().map(|text| PublicKey::from_text(text).expect_err("no key")).collect();
    let headers = format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: {evil},00\n\nAAAA");
    let legacy = format!("-----BEGIN RSA PRIVATE KEY-----\n{headers}\n-----END RSA PRIVATE KEY-----\n");
    errors.push(PrivateKey::from_pem(legacy, None).expect_err("no key"));
    for error in errors {
        let told = error.to_string();
        assert!(told.contains("\\u{1b}") && told.contains("\\u{202e}"), "{told:?}");
        assert!(!told.contains(char::is_control) && !told.contains('\u{202e}'), "{told:?}");
    }
}
