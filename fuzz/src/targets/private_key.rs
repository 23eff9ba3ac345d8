use std::{fs, time::Duration};

use ajwt_core::{KeyError, PrivateKey, PublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pkcs8::{EncryptedPrivateKeyInfoRef, der::Decode as _, pkcs5::pbes2::Kdf};

use super::public_key::pem;
use crate::{fixed::PASSWORD, script::Script};

/// Of a processor, for whatever a text holds that is not decrypted. A machine that is ten times as slow
/// still keeps it: the most is a key of 8192 bits, which is checked and signs once.
const BOUND: Duration = Duration::from_secs(5);

/// The caps that the documentation names.
const MAX_PBKDF2_ROUNDS: u64 = 10_000_000;
const MAX_SCRYPT_MEMORY: u64 = 64 << 20;
const MAX_BCRYPT_ROUNDS: u64 = 1024;

/// A text that may be a private key. What is read signs, and every way to write it reads as the same key;
/// the costs of a key derivation are refused above the caps, as the code that derives reads them.
pub fn private_key_text(data: &[u8]) {
    check(data);
}

/// The structure within: PKCS#8, the same encrypted, PKCS#1 and OpenSSH's, by the first byte.
pub fn private_key_der(data: &[u8]) {
    let mut script = Script::new(data);
    let label =
        script.choose(&["PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY"]);
    check(pem(label, &STANDARD.encode(script.rest())).as_bytes());
}

fn check(text: &[u8]) {
    let before = processor_time();
    let read = PrivateKey::from_pem(text, None);
    if let (Some(before), Some(after)) = (before, processor_time()) {
        assert!(after - before < BOUND, "{:?} were spent without a password", after - before);
    }
    assert!(PublicKey::from_text(text).is_err() || matches!(read, Err(KeyError::PublicKey)));
    match read {
        Ok(key) => check_key(&key),
        Err(KeyError::PasswordMissing) => {
            if is_cheap(text)
                && let Ok(key) = PrivateKey::from_pem(text, Some(PASSWORD))
            {
                check_key(&key);
            }
        }
        Err(error) => {
            crate::check_error(&error);
            let with_password = PrivateKey::from_pem(text, Some(PASSWORD)).map(drop);
            assert_eq!(with_password, Err(error), "the password was looked at");
        }
    }
}

fn check_key(key: &PrivateKey) {
    for algorithm in key.public_key().algorithms() {
        let signature = key.sign(*algorithm, b"message").expect("a signature");
        assert!(key.public_key().verify(*algorithm, b"message", &signature));
    }
    for written in [key.to_pem().expect("PKCS#8"), key.to_openssh("a comment").expect("OpenSSH")] {
        let again = PrivateKey::from_pem(written.as_bytes(), None).expect("a key that was written");
        assert_eq!(again.public_key(), key.public_key());
    }
}

/// Whether trying a password is quick. What would be above the caps must have been refused before.
fn is_cheap(text: &[u8]) -> bool {
    let Some((label, body)) = block(text) else { return false };
    match label.as_str() {
        "ENCRYPTED PRIVATE KEY" => {
            // What is not read here is not decrypted either.
            let Ok(info) = EncryptedPrivateKeyInfoRef::from_der(&body) else { return true };
            let Some(pbes2) = info.encryption_algorithm.pbes2() else { return true };
            match &pbes2.kdf {
                Kdf::Pbkdf2(params) => {
                    let rounds = u64::from(params.iteration_count);
                    assert!(rounds <= MAX_PBKDF2_ROUNDS, "{rounds} rounds");
                    rounds <= 10_000
                }
                Kdf::Scrypt(params) => {
                    let (r, p) = (u64::from(params.block_size), u64::from(params.parallelization));
                    let memory = 128 * u128::from(params.cost_parameter) * u128::from(r);
                    assert!(memory <= u128::from(MAX_SCRYPT_MEMORY), "{memory} bytes");
                    assert!(p <= 16 && 128 * r * p <= MAX_SCRYPT_MEMORY, "r = {r}, p = {p}");
                    memory * u128::from(p) <= 1 << 20
                }
                _ => true,
            }
        }
        "OPENSSH PRIVATE KEY" => {
            let Ok(file) = ssh_key::PrivateKey::from_bytes(&body) else { return true };
            match file.kdf() {
                ssh_key::Kdf::Bcrypt { rounds, .. } => {
                    assert!(u64::from(*rounds) <= MAX_BCRYPT_ROUNDS, "{rounds} rounds");
                    *rounds <= 2
                }
                _ => true,
            }
        }
        // A handful of MD5.
        _ => true,
    }
}

/// Label and body of the block of a text that the library takes for one block.
fn block(text: &[u8]) -> Option<(String, Vec<u8>)> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim);
    let is_key = |line: &str| line.starts_with("-----BEGIN ") && line != "-----BEGIN EC PARAMETERS-----";
    let label = lines.by_ref().find(|line| is_key(line))?;
    let label = label.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?.to_owned();
    let body: String = lines.take_while(|line| !line.starts_with("-----END ")).collect();
    let body = STANDARD.decode(body.replace(|c: char| c.is_ascii_whitespace(), "")).ok()?;
    Some((label, body))
}

/// What this thread has had of the processor, where the system tells: a loaded machine does not count.
fn processor_time() -> Option<Duration> {
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
