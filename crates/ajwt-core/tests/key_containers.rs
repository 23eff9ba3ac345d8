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

fn integer(number: u128) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    while bytes.len() > 1 && bytes[0] == 0 && bytes[1] < 0x80 {
        bytes.remove(0);
    }
    if bytes[0] >= 0x80 {
        bytes.insert(0, 0);
    }
    tlv(0x02, &[&bytes])
}

/// An encrypted PKCS#8 key of this derivation and cipher (RFC 8018), under which nothing decrypts.
fn pbes2(kdf: &[u8], cipher: &[u8]) -> String {
    let scheme = tlv(0x30, &[&oid("1.2.840.113549.1.5.13"), &tlv(0x30, &[kdf, cipher])]);
    pem("ENCRYPTED PRIVATE KEY", &tlv(0x30, &[&scheme, &tlv(0x04, &[&[3; 48]])]))
}

fn cipher(name: &str, iv_len: usize) -> Vec<u8> {
    tlv(0x30, &[&oid(name), &tlv(0x04, &[&vec![2; iv_len]])])
}

fn aes256_cbc() -> Vec<u8> {
    cipher("2.16.840.1.101.3.4.1.42", 16)
}

/// PBKDF2 of one round, with what comes after the number of rounds.
fn pbkdf2(salt_len: usize, rest: &[&[u8]]) -> Vec<u8> {
    pbkdf2_of(1, salt_len, rest)
}

fn pbkdf2_of(rounds: u128, salt_len: usize, rest: &[&[u8]]) -> Vec<u8> {
    let parameters = tlv(0x30, &[&tlv(0x04, &[&vec![1; salt_len]]), &integer(rounds), &rest.concat()]);
    tlv(0x30, &[&oid("1.2.840.113549.1.5.12"), &parameters])
}

/// An encrypted PKCS#8 key whose scrypt has these costs.
fn scrypt(n: u128, r: u128, p: u128) -> String {
    let parameters = tlv(0x30, &[&tlv(0x04, &[&[1; 16]]), &integer(n), &integer(r), &integer(p)]);
    pbes2(&tlv(0x30, &[&oid("1.3.6.1.4.1.11591.4.11"), &parameters]), &aes256_cbc())
}

/// What a file is refused with, which must not depend on whether there is a password.
#[track_caller]
fn refused(text: &str) -> KeyError {
    let load = |password| PrivateKey::from_pem(text, password).expect_err("no key is within");
    let error = load(None);
    assert_eq!(error, load(Some(b"password")));
    error
}

#[test]
fn ciphers_are_told_before_a_password_is_asked_for() {
    let kdf = pbkdf2(8, &[]);
    for (name, iv_len) in [
        ("2.16.840.1.101.3.4.1.2", 16),
        ("2.16.840.1.101.3.4.1.22", 16),
        ("2.16.840.1.101.3.4.1.42", 16),
        ("2.16.840.1.101.3.4.1.6", 12),
        ("2.16.840.1.101.3.4.1.46", 12),
        ("1.2.840.113549.3.7", 8),
    ] {
        let text = pbes2(&kdf, &cipher(name, iv_len));
        assert_eq!(PrivateKey::from_pem(&text, None).expect_err("encrypted"), KeyError::PasswordMissing);
        let wrong = PrivateKey::from_pem(&text, Some(b"password")).expect_err("encrypted");
        assert_eq!(wrong, KeyError::PasswordWrong, "{name}");
        for other in (0..=20).filter(|other| *other != iv_len) {
            let error = refused(&pbes2(&kdf, &cipher(name, other)));
            assert!(matches!(error, KeyError::Malformed { .. }), "{name} with {other} bytes of IV: {error}");
        }
    }
    let single_des = refused(&pbes2(&kdf, &cipher("1.3.14.3.2.7", 8)));
    assert_eq!(single_des, KeyError::UnsupportedEncryption { found: "single DES".into() });
    let camellia = refused(&pbes2(&kdf, &cipher("1.2.392.200011.61.1.1.1.4", 16)));
    let found = "the cipher 1.2.392.200011.61.1.1.1.4".to_owned();
    assert_eq!(camellia, KeyError::UnsupportedEncryption { found });
}

#[test]
fn key_derivations_are_told_before_a_password_is_asked_for() {
    let sm3 = tlv(0x30, &[&oid("1.2.156.10197.1.401.2"), &[0x05, 0]]);
    for (kdf, found) in [
        (pbkdf2(33, &[]), "a salt of 33 bytes"),
        (pbkdf2(64, &[]), "a salt of 64 bytes"),
        (pbkdf2(8, &[&sm3]), "PBKDF2 by the function 1.2.156.10197.1.401.2"),
        (tlv(0x30, &[&oid("1.2.3.4"), &tlv(0x30, &[])]), "the key derivation 1.2.3.4"),
    ] {
        let error = refused(&pbes2(&kdf, &aes256_cbc()));
        assert_eq!(error, KeyError::UnsupportedEncryption { found: found.into() });
    }
    for key_len in [0, 16, 33] {
        let error = refused(&pbes2(&pbkdf2(8, &[&integer(key_len)]), &aes256_cbc()));
        assert!(matches!(error, KeyError::Malformed { .. }), "{key_len}: {error}");
    }
    let sha2 = ["1.2.840.113549.2.7", "1.2.840.113549.2.8", "1.2.840.113549.2.9"];
    let sha2 = sha2.into_iter().chain(["1.2.840.113549.2.10", "1.2.840.113549.2.11"]);
    let prfs = sha2.map(|prf| tlv(0x30, &[&oid(prf), &[0x05, 0]]));
    for rest in prfs.chain([integer(32), Vec::new()]) {
        let text = pbes2(&pbkdf2(32, &[&rest]), &aes256_cbc());
        let wrong = PrivateKey::from_pem(&text, Some(b"password")).expect_err("encrypted");
        assert_eq!(wrong, KeyError::PasswordWrong);
    }
}

#[test]
fn legacy_encryption_is_told_before_a_password_is_asked_for() {
    let file = |cipher: &str| {
        let headers = format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: {cipher},0011223344556677\n\n");
        let pem = pem("RSA PRIVATE KEY", &[3; 48]);
        pem.replacen("-----\n", &format!("-----\n{headers}"), 1)
    };
    let unsupported = |found: &str| KeyError::UnsupportedEncryption { found: found.into() };
    assert_eq!(refused(&file("DES-CBC")), unsupported("single DES"));
    assert_eq!(refused(&file("CAMELLIA-256-CBC")), unsupported("CAMELLIA-256-CBC"));
    let supported = PrivateKey::from_pem(file("DES-EDE3-CBC"), None).expect_err("encrypted");
    assert_eq!(supported, KeyError::PasswordMissing);
}

/// RFC 8017 appendix A.1.2: version 1, and the primes after the first two.
#[test]
fn keys_of_more_than_two_primes_are_told_to_be_that() {
    let more = tlv(0x30, &[&tlv(0x30, &[&integer(3), &integer(3), &integer(3)])]);
    let numbers: Vec<u8> = (0..8).flat_map(|_| integer(3)).collect();
    let key = tlv(0x30, &[&integer(1), &numbers, &more]);
    assert_eq!(refused(&pem("RSA PRIVATE KEY", &key)), KeyError::MultiPrime);
    let algorithm = tlv(0x30, &[&oid("1.2.840.113549.1.1.1"), &[0x05, 0]]);
    let pkcs8 = tlv(0x30, &[&integer(0), &algorithm, &tlv(0x04, &[&key])]);
    assert_eq!(refused(&pem("PRIVATE KEY", &pkcs8)), KeyError::MultiPrime);
}

/// Types without an algorithm here, in all that they come in.
#[test]
fn types_that_are_not_supported_are_named() {
    for (name, found) in [
        ("1.2.840.113549.1.1.10", "RSASSA-PSS"),
        ("1.2.840.10045.2.1", "ECDSA"),
        ("1.2.840.10040.4.1", "DSA"),
        ("1.3.101.110", "X25519"),
        ("1.3.101.111", "X448"),
        ("1.3.101.113", "Ed448"),
        ("1.2.840.113549.1.3.1", "Diffie-Hellman"),
        ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
        ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
        ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
        ("1.2.3.4", "OID 1.2.3.4"),
    ] {
        let due = KeyError::UnsupportedType { found: found.into() };
        let algorithm = tlv(0x30, &[&oid(name)]);
        let spki = tlv(0x30, &[&algorithm, &tlv(0x03, &[&[0], &[4; 32]])]);
        assert_eq!(PublicKey::from_pem(pem("PUBLIC KEY", &spki)), Err(due.clone()));
        assert_eq!(PublicKey::from_spki_der(&spki), Err(due.clone()));
        let pkcs8 = tlv(0x30, &[&integer(0), &algorithm, &tlv(0x04, &[&[4; 32]])]);
        assert_eq!(refused(&pem("PRIVATE KEY", &pkcs8)), due);
    }
    for (label, found) in [("EC", "ECDSA"), ("DSA", "DSA")] {
        let key = pem(&format!("{label} PRIVATE KEY"), &[0x30, 0]);
        let parameters = pem(&format!("{label} PARAMETERS"), &[0x30, 0]);
        for text in [&key, &format!("{parameters}{key}")] {
            assert_eq!(refused(text), KeyError::UnsupportedType { found: found.into() });
        }
        assert!(matches!(refused(&parameters), KeyError::Label { .. }));
    }
}

/// Files as `ssh-keygen` writes them, up to where the private part begins.
#[test]
fn what_an_openssh_file_holds_is_named() {
    let file = |count: u32, key_type: &str| {
        let field = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
        let blob = field(&[field(key_type.as_bytes()), field(b"nistp256"), field(&[4; 65])].concat());
        let head = [b"openssh-key-v1\0".to_vec(), field(b"none"), field(b"none"), field(b"")].concat();
        pem("OPENSSH PRIVATE KEY", &[head, count.to_be_bytes().to_vec(), blob, field(&[7; 64])].concat())
    };
    let unsupported = |found: &str| KeyError::UnsupportedType { found: found.into() };
    assert_eq!(refused(&file(1, "ecdsa-sha2-nistp256")), unsupported("ecdsa-sha2-nistp256"));
    assert_eq!(refused(&file(1, "ssh-dss")), unsupported("ssh-dss"));
    assert_eq!(refused(&file(1, "name@example.com")), unsupported("name@example.com"));
    let security_key = "sk-ecdsa-sha2-nistp256@openssh.com";
    assert_eq!(refused(&file(1, security_key)), KeyError::SecurityKey { found: security_key.into() });
    assert!(matches!(refused(&file(1, "ssh-rsa-cert-v01@openssh.com")), KeyError::Certificate { .. }));
    assert_eq!(refused(&file(2, "ssh-ed25519")), KeyError::SeveralKeys { count: 2 });
}

/// What editors, shells and configuration files make of a good text.
#[test]
fn spellings_of_a_text() {
    let line = include_str!("fixtures/ed25519-ssh.openssh.public");
    let (public, private) = (include_str!("fixtures/ed25519.spki.public"), RSA);
    let mark = "\u{feff}";
    assert_eq!(PublicKey::from_text(format!("{mark}{public}")), PublicKey::from_text(public));
    assert_eq!(PublicKey::from_text(format!("{mark}{line}")), PublicKey::from_text(line));
    assert_eq!(PublicKey::from_openssh(format!("{mark}{line}")), PublicKey::from_openssh(line));
    assert_eq!(PublicKey::from_pem(format!("{mark}{public}")), PublicKey::from_pem(public));
    assert!(PrivateKey::from_pem(format!("{mark}{private}"), None).is_ok());

    let own_lines = KeyError::Pem("the BEGIN and END lines must each stand on a line of their own");
    for between in ["\\n", " ", "\r"] {
        let squeezed = private.trim_end().replace('\n', between);
        assert_eq!(refused(&squeezed), own_lines, "{between:?}");
        assert_eq!(PublicKey::from_text(public.trim_end().replace('\n', between)), Err(own_lines.clone()));
    }

    let two_lines = |text: String| match PublicKey::from_text(&text) {
        Err(KeyError::Malformed { detail, .. }) => assert!(detail.contains("one line"), "{detail}"),
        other => panic!("{text:?}: {other:?}"),
    };
    two_lines(line.trim_end().replacen("AAAA", "AAAA\n", 1));
    two_lines(format!("# of billing\n{line}"));
    two_lines(format!("{}\nthe end\n", line.trim_end()));

    let utf16: Vec<u8> =
        mark.encode_utf16().chain(public.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let told = PublicKey::from_text(utf16).expect_err("no UTF-8").to_string();
    assert!(told.contains("iconv -f UTF-16"), "{told}");
}

/// A text holds one key. Where one of two is on one line, nobody says that the other is meant.
#[test]
fn a_squeezed_block_beside_a_whole_one() {
    let (public, other_public) =
        (include_str!("fixtures/ed25519.spki.public"), include_str!("fixtures/rsa.spki.public"));
    let (private, other_private) = (RSA, include_str!("fixtures/ed25519.pkcs8.private"));
    let legacy = include_str!("fixtures/rsa.pkcs1-aes128-encrypted.private");
    let own_lines = KeyError::Pem("the BEGIN and END lines must each stand on a line of their own");
    for (between, end) in [("\\n", ""), ("\\n", "\\n"), (" ", ""), ("\r", "")] {
        for one in [public, private, legacy] {
            let squeezed = one.trim_end().replace('\n', between) + end;
            for whole in [other_public, other_private] {
                let within = whole.replacen("-----\n", &format!("-----\n{squeezed}\n"), 1);
                for text in [format!("{squeezed}\n{whole}"), format!("{whole}{squeezed}\n"), within] {
                    assert_eq!(refused(&text), own_lines, "{text}");
                    assert_eq!(PublicKey::from_text(&text), Err(own_lines.clone()), "{text}");
                    assert_eq!(PublicKey::from_pem(&text), Err(own_lines.clone()), "{text}");
                }
            }
        }
    }
    // What only speaks of such lines is text around the block.
    let told = format!("all from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----:\n{public}");
    assert_eq!(PublicKey::from_text(told), PublicKey::from_text(public));
}

/// As web servers have them, a key and its certificate in one file.
#[test]
fn a_block_beside_the_key_is_told_from_a_second_key() {
    let public = include_str!("fixtures/rsa.spki.public");
    let private = PrivateKey::generate_ed25519().expect("a key").to_pem().expect("a text");
    let (certificate, parameters) = (pem("CERTIFICATE", &[0x30, 0]), pem("DH PARAMETERS", &[0x30, 0]));
    let refused = |text: &str| PrivateKey::from_pem(text, None).map(|_| ()).expect_err("refused");
    let is_beside = |error: &KeyError| error.to_string().contains("another block stands beside the key");
    for other in [&certificate, &parameters, &format!("{certificate}{certificate}")] {
        for text in [format!("{}{other}", *private), format!("{other}{}", *private)] {
            assert!(is_beside(&refused(&text)), "{text}");
            assert_eq!(PublicKey::from_text(&text), Err(KeyError::PrivateKey), "{other}");
            assert_eq!(PublicKey::from_pem(&text), Err(KeyError::PrivateKey), "{other}");
        }
        let text = format!("{public}{other}");
        assert!(is_beside(&PublicKey::from_text(&text).expect_err("refused")), "{text}");
    }
    let both = format!("{}{public}", *private);
    assert_eq!(refused(&both), KeyError::SeveralKeys { count: 2 });
    assert_eq!(refused(&format!("{both}{certificate}")), KeyError::SeveralKeys { count: 2 });
    assert_eq!(PublicKey::from_text(&both), Err(KeyError::PrivateKey));
    let chain = format!("{certificate}{certificate}");
    assert!(matches!(PublicKey::from_text(&chain), Err(KeyError::Certificate { .. })));
}

/// Nor does anybody say that a key is meant and not the one beside it in another format.
#[test]
fn a_line_of_openssh_beside_a_block() {
    let public = include_str!("fixtures/rsa.spki.public");
    let line = include_str!("fixtures/ed25519-ssh.openssh.public").trim_end();
    let several = |text: &str, count| {
        assert_eq!(PublicKey::from_text(text), Err(KeyError::SeveralKeys { count }), "{text}");
        assert_eq!(PublicKey::from_pem(text), Err(KeyError::SeveralKeys { count }), "{text}");
    };
    several(&format!("{line}\n{public}"), 2);
    several(&format!("{public}{line}"), 2);
    several(&format!("of billing\r\n\t{line} \r\n{public}"), 2);
    several(&format!("{line}\n{public}{line}\n"), 3);
    // Within it, where a line with a colon is a header of the block.
    several(&public.replacen("-----\n", &format!("-----\n{line}:22\n"), 1), 2);
    // Those that could not be used may be the ones that are meant, too.
    let others =
        ["ssh-dss", "ssh-rsa-cert-v01@openssh.com", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"];
    for other in others {
        several(&format!("{public}{other} AAAA me@work\n"), 2);
    }
    for around in ["ssh-keygen -e -m PKCS8 -f id.pub", "made of the ssh-rsa key of billing", "sk-: none"] {
        let text = format!("{around}\n{public}");
        assert_eq!(PublicKey::from_text(&text), PublicKey::from_text(public), "{text}");
    }

    // A private key stays what it is, whatever stands beside it.
    assert_eq!(PublicKey::from_text(format!("{line}\n{RSA}")), Err(KeyError::PrivateKey));
    assert!(PrivateKey::from_pem(format!("{RSA}{line}\n"), None).is_ok());
}

/// The half that is not due is told to be that, and never how to make it readable.
#[test]
fn texts_of_other_tools() {
    let putty = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n";
    assert_eq!(PublicKey::from_text(putty), Err(KeyError::PrivateKey));
    assert!(refused(putty).to_string().contains("puttygen"));
    let ssh2 = "---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n";
    assert_eq!(refused(ssh2), KeyError::PublicKey);
    assert!(PublicKey::from_text(ssh2).expect_err("no key").to_string().contains("ssh-keygen -i"));
    assert!(refused("{}").to_string().contains("PEM and OpenSSH files only"));
    assert!(PublicKey::from_text("{}").expect_err("no key").to_string().contains("JWK is read as such"));
}

#[test]
fn der_is_told_by_what_it_is() {
    let public_hint = "openssl pkey -pubin -inform DER -in FILE";
    for (text, half) in [
        (include_str!("fixtures/rsa.spki.public"), true),
        (include_str!("fixtures/rsa.pkcs1.public"), true),
        (RSA, false),
        (include_str!("fixtures/rsa.pkcs1.private"), false),
        (include_str!("fixtures/rsa.pkcs8-scrypt-encrypted.private"), false),
    ] {
        let der = body(text);
        let as_public = PublicKey::from_text(&der).expect_err("DER");
        let as_private = PrivateKey::from_pem(&der, None).expect_err("DER");
        match half {
            true => {
                assert_eq!(as_public, KeyError::Der { hint: public_hint });
                assert_eq!(as_private, KeyError::PublicKey);
            }
            false => {
                assert_eq!(as_public, KeyError::PrivateKey);
                let KeyError::Der { hint } = as_private else { panic!("{as_private:?}") };
                // Never one that takes the encryption away.
                assert_eq!(hint.contains("-topk8 -v2 aes256"), text.contains("ENCRYPTED"), "{hint}");
            }
        }
    }
    let algorithm = tlv(0x30, &[&oid("1.3.101.112")]);
    let certificate = tlv(0x30, &[&tlv(0x30, &[&integer(1)]), &algorithm, &tlv(0x03, &[&[0], &[0xff; 64]])]);
    let as_public = PublicKey::from_text(&certificate).expect_err("a certificate");
    assert!(as_public.to_string().contains("openssl x509 -inform DER"), "{as_public}");
    assert_eq!(PrivateKey::from_pem(&certificate, None).expect_err("a certificate"), as_public);
    assert_eq!(PublicKey::from_spki_der(&certificate), Err(as_public));
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

#[test]
fn costs_that_mean_nothing_are_told() {
    for (n, r, p) in [(0, 8, 1), (1, 8, 1), (3, 8, 1), (1 << 14, 0, 1), (1 << 14, 8, 0)] {
        let told = refused(&scrypt(n, r, p)).to_string();
        assert!(told.contains("scrypt parameters that are not valid"), "{n} {r} {p}: {told}");
    }
    let told = refused(&pbes2(&pbkdf2_of(0, 8, &[]), &aes256_cbc())).to_string();
    assert!(told.contains("PBKDF2 with 0 rounds"), "{told}");
}

/// As whose last 64 bits they would be cheap.
#[test]
fn costs_beyond_64_bits_are_not_cut() {
    const MORE: u128 = 1 << 64;
    for text in [
        scrypt(1 << 14, MORE + 8, 1),
        scrypt(1 << 14, 8, MORE + 1),
        pbes2(&pbkdf2_of(MORE + 1, 8, &[]), &aes256_cbc()),
    ] {
        let error = refused(&text);
        assert!(matches!(error, KeyError::KdfTooCostly { .. }), "{error}");
    }
}

#[test]
fn each_encryption_has_a_salt_of_its_own() {
    let key = PrivateKey::generate_ed25519().expect("a key");
    let encrypted = || key.to_encrypted_pem(b"password").expect("PEM").as_bytes().to_vec();
    assert_ne!(encrypted(), encrypted());
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
