//! OpenSSH's formats: the one-line public key and the private key file.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ssh_key::{
    Kdf, LineEnding, Mpint,
    private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData, RsaKeypair, RsaPrivateKey},
    public::{Ed25519PublicKey, KeyData, RsaPublicKey},
};
use zeroize::Zeroizing;

use super::{
    MAX_PUBLIC_KEY_LEN, PrivateKey, PrivateMaterial, PublicKey, der,
    ed25519::{Ed25519Private, Ed25519Public},
    pem::{self, Half},
    rsa::{OpenSshNumbers, RsaPrivate, RsaPublic},
};
use crate::{ExportError, KeyError, error::shown};

const PUBLIC: &str = "OpenSSH public key";
const PRIVATE: &str = "OpenSSH private key";

/// How the types of keys begin, those included that are refused.
const KEY_TYPES: [&str; 3] = ["ssh-", "ecdsa-sha2-", "sk-"];

const MAX_BCRYPT_ROUNDS: u32 = 1024;

/// Whether the text means to be one such line, whatever its comment says.
pub(super) fn looks_like_line(text: &[u8]) -> bool {
    let line = text.trim_ascii();
    !line.contains(&b'\n') && KEY_TYPES.iter().any(|prefix| line.starts_with(prefix.as_bytes()))
}

/// Lines of a text that begin with the type of a key, as this format does: a key each, whatever else is in the text.
pub(super) fn count_lines(text: &[u8]) -> usize {
    let lines = text.split(|byte| *byte == b'\n').map(String::from_utf8_lossy);
    lines.filter(|line| names_key(first_word(line))).count()
}

/// Whether a word is a type by its whole name, where text may stand, too: `ssh-keygen` and the like are none.
fn names_key(word: &str) -> bool {
    let bare = word.split_once("-cert-v01@").map_or(word, |(bare, _)| bare);
    ["ssh-rsa", "ssh-ed25519", "ssh-dss"].contains(&bare)
        || ["ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|prefix| word.starts_with(prefix))
}

/// Loads `TYPE BASE64 [COMMENT]`, which must be the whole text.
pub(super) fn public_from_line(text: &[u8]) -> Result<(PublicKey, Option<String>), KeyError> {
    // A comment may have any encoding.
    let line = String::from_utf8_lossy(text.trim_ascii());
    if line.lines().count() > 1 {
        return Err(match line.lines().filter(|line| is_key_type(first_word(line))).count() {
            0 => pem::not_pem(text, Half::Public),
            1 => KeyError::malformed(PUBLIC, "the key must be one line, without others before or after it"),
            count => KeyError::SeveralKeys { count },
        });
    }
    let (key_type, rest) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
    check_type(key_type, text)?;
    let rest = rest.trim_start();
    let (base64, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));

    let bytes =
        STANDARD.decode(base64).map_err(|_| KeyError::malformed(PUBLIC, "the second field is not base64"))?;
    let data = ssh_key::PublicKey::from_bytes(&bytes).map_err(|error| unread(PUBLIC, &error))?;
    if data.algorithm().as_str() != key_type {
        return Err(KeyError::malformed(PUBLIC, "the key within is of another type than the line says"));
    }
    let key = public_from_data(data.key_data())?;
    let comment = comment.trim();
    Ok((key, (!comment.is_empty()).then(|| comment.to_owned())))
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn is_key_type(word: &str) -> bool {
    KEY_TYPES.iter().any(|prefix| word.starts_with(prefix))
}

/// Says why a type is not one of the two that are used; `text` is what it was found in.
fn check_type(key_type: &str, text: &[u8]) -> Result<(), KeyError> {
    let found = || shown(key_type);
    match key_type {
        "ssh-ed25519" | "ssh-rsa" => Ok(()),
        other if !is_key_type(other) => Err(pem::not_pem(text, Half::Public)),
        other if other.contains("-cert-v01@") => Err(KeyError::Certificate {
            kind: "an OpenSSH certificate",
            hint: "give the key that it certifies (the .pub file without -cert)",
        }),
        other if other.starts_with("sk-") => Err(KeyError::SecurityKey { found: found() }),
        _ => Err(KeyError::UnsupportedType { found: found() }),
    }
}

fn public_from_data(data: &KeyData) -> Result<PublicKey, KeyError> {
    match data {
        KeyData::Rsa(key) => PublicKey::from_rsa_components(positive(key.n())?, positive(key.e())?),
        KeyData::Ed25519(key) => PublicKey::from_ed25519_bytes(key.as_ref()),
        other => Err(KeyError::UnsupportedType { found: shown(other.algorithm().as_str()) }),
    }
}

fn positive(number: &Mpint) -> Result<&[u8], KeyError> {
    number.as_positive_bytes().ok_or_else(|| KeyError::malformed("RSA key", "a number is negative"))
}

/// Loads the decoded body of an `OPENSSH PRIVATE KEY` block.
pub(super) fn private_from_bytes(bytes: &[u8], password: Option<&[u8]>) -> Result<PrivateKey, KeyError> {
    // What the file is for is told before a password is asked for.
    check_file(bytes)?;
    let file = ssh_key::PrivateKey::from_bytes(bytes).map_err(|error| match error {
        ssh_key::Error::PublicKey => KeyError::Mismatch,
        error => unread(PRIVATE, &error),
    })?;
    if !file.is_encrypted() {
        return private_from_data(file.key_data());
    }
    match file.kdf() {
        Kdf::Bcrypt { rounds: 1..=MAX_BCRYPT_ROUNDS, .. } => {}
        Kdf::Bcrypt { rounds: 0, .. } => return Err(KeyError::malformed(PRIVATE, "bcrypt with 0 rounds")),
        Kdf::Bcrypt { rounds, .. } => {
            return Err(der::too_costly("bcrypt", format!("{rounds} rounds"), "1024 rounds"));
        }
        _ => return Err(KeyError::malformed(PRIVATE, "encrypted, but without a key derivation")),
    }
    let password = password.ok_or(KeyError::PasswordMissing)?;
    let decrypted = file.decrypt(password).map_err(|error| match error {
        ssh_key::Error::PublicKey => KeyError::Mismatch,
        _ => KeyError::PasswordWrong,
    })?;
    private_from_data(decrypted.key_data())
}

/// Refuses several keys, and types that are not used, by name: ssh-key reads some of these, and of the others
/// only says that it cannot.
fn check_file(bytes: &[u8]) -> Result<(), KeyError> {
    let Some((count, key_type)) = count_and_type(bytes) else { return Ok(()) };
    if count > 1 {
        return Err(KeyError::SeveralKeys { count });
    }
    match std::str::from_utf8(key_type) {
        Ok(key_type) if is_key_type(key_type) => check_type(key_type, bytes),
        _ => Err(KeyError::UnsupportedType { found: shown(&String::from_utf8_lossy(key_type)) }),
    }
}

/// The number of keys, and the type of the first (OpenSSH's PROTOCOL.key).
fn count_and_type(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (_cipher, rest) = field(bytes.strip_prefix(b"openssh-key-v1\0")?)?;
    let (_kdf, rest) = field(rest)?;
    let (_kdf_options, rest) = field(rest)?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let (blob, _) = field(rest)?;
    let (key_type, _) = field(blob)?;
    Some((usize::try_from(u32::from_be_bytes(*count)).ok()?, key_type))
}

/// A string (RFC 4251 section 5), and what comes after it.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}

fn private_from_data(data: &KeypairData) -> Result<PrivateKey, KeyError> {
    match data {
        KeypairData::Ed25519(pair) => {
            let (private, public) = Ed25519Private::new(pair.private.as_ref(), Some(pair.public.as_ref()))?;
            PrivateKey::from_ed25519(private, public)
        }
        KeypairData::Rsa(pair) => {
            let (private, public) = RsaPrivate::from_openssh_numbers(&OpenSshNumbers {
                modulus: positive(pair.public().n())?,
                exponent: positive(pair.public().e())?,
                private_exponent: positive(pair.private().d())?,
                prime1: positive(pair.private().p())?,
                prime2: positive(pair.private().q())?,
                coefficient: positive(pair.private().iqmp())?,
            })?;
            PrivateKey::from_rsa(private, public)
        }
        _ => Err(KeyError::malformed(PRIVATE, "the private part is of another type than the public part")),
    }
}

pub(super) fn rsa_line(key: &RsaPublic, comment: &str) -> String {
    line("ssh-rsa", &[&mpint(key.exponent()), &mpint(key.modulus())], comment)
}

pub(super) fn ed25519_line(key: &Ed25519Public, comment: &str) -> String {
    line("ssh-ed25519", &[key.bytes()], comment)
}

/// A positive number: one whose first bit is set would be negative (RFC 4251 section 5).
fn mpint(number: &[u8]) -> Vec<u8> {
    let zero = number.first().is_some_and(|first| *first >= 0x80).then_some(0);
    zero.into_iter().chain(number.iter().copied()).collect()
}

/// `TYPE BASE64 COMMENT`; the base64 holds the type and the fields, each with its length (RFC 4253
/// section 6.6, RFC 8709 section 4).
fn line(key_type: &str, fields: &[&[u8]], comment: &str) -> String {
    let mut blob = Vec::new();
    for field in std::iter::once(&key_type.as_bytes()).chain(fields) {
        // Lengths are those of keys that were loaded: far below u32's largest.
        blob.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        blob.extend_from_slice(field);
    }
    let comment: String = comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = format!("{key_type} {} {comment}", STANDARD.encode(blob));
    cut(&line, MAX_PUBLIC_KEY_LEN).trim_end().to_owned()
}

/// The beginning of a text, at most so many bytes: what is written can be read again.
fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default()
}

/// Writes the private key file.
pub(super) fn private_to_file(
    key: &PrivateKey,
    comment: &str,
    password: Option<&[u8]>,
) -> Result<Zeroizing<String>, ExportError> {
    let data = match &key.material {
        PrivateMaterial::Ed25519(private) => {
            let public = key.public.ed25519_bytes().and_then(|bytes| bytes.try_into().ok());
            let public = public.ok_or_else(ExportError::without_source)?;
            let seed = private.seed()?;
            KeypairData::Ed25519(Ed25519Keypair {
                public: Ed25519PublicKey(public),
                private: Ed25519PrivateKey::from_bytes(&seed),
            })
        }
        PrivateMaterial::Rsa(private) => KeypairData::Rsa(rsa_pair(private)?),
    };
    let write = || -> Result<Zeroizing<String>, ssh_key::Error> {
        // In base64, with the largest key, it stays below what a private key's text may have.
        let mut file = ssh_key::PrivateKey::new(data, cut(comment, MAX_PUBLIC_KEY_LEN))?;
        if let Some(password) = password {
            file = file.encrypt(&mut der::AwsLcRng, password)?;
        }
        file.to_openssh(LineEnding::LF)
    };
    write().map_err(ExportError::new)
}

fn rsa_pair(private: &RsaPrivate) -> Result<RsaKeypair, ExportError> {
    use pkcs8::der::Decode as _;

    let pkcs8 = private.to_pkcs8_der()?;
    let info = pkcs8::PrivateKeyInfoRef::from_der(&pkcs8).map_err(ExportError::new)?;
    let key = pkcs1::RsaPrivateKeyRef::from_der(info.private_key.as_bytes()).map_err(ExportError::new)?;
    let mpint = |number: pkcs1::der::asn1::UintRef<'_>| Mpint::from_positive_bytes(number.as_bytes());
    let pair = || {
        let public = RsaPublicKey::new(mpint(key.public_exponent), mpint(key.modulus))?;
        let private = RsaPrivateKey::new(
            mpint(key.private_exponent),
            mpint(key.coefficient),
            mpint(key.prime1),
            mpint(key.prime2),
        )?;
        RsaKeypair::new(public, private)
    };
    pair().map_err(ExportError::new)
}

/// The error may repeat a name that the file holds.
fn unread(format: &'static str, error: &ssh_key::Error) -> KeyError {
    KeyError::malformed(format, shown(&error.to_string()))
}
