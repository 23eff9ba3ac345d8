use std::{error::Error as StdError, fmt, time::Duration};

use thiserror::Error;

use crate::{Algorithm, Timestamp};

/// Why a text is not a key that this library uses.
///
/// No variant holds key material or a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing but white space.
    #[error("the text is empty where a key is due")]
    Empty,
    /// Longer than any key of a supported type is.
    #[error("the text has {len} bytes; a key has at most {max}")]
    TooLong {
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Neither PEM nor OpenSSH nor anything else that was recognised.
    #[error(
        "no key found: expected a PEM block (-----BEGIN ...-----) or a line that begins with ssh-ed25519 or ssh-rsa"
    )]
    NotAKey,
    /// Binary DER.
    #[error("this looks like DER; convert it to PEM: {}", hint)]
    Der {
        /// The command that converts it.
        hint: &'static str,
    },
    /// More than one key in one text.
    #[error("the text holds {count} keys where one is due; store each on its own")]
    SeveralKeys {
        /// How many were found.
        count: usize,
    },
    /// A private key where a public one is due. Treat it as disclosed if it was sent.
    #[error(
        "this is a private key where a public one is due; never hand out the private half: give the text of the public key (ssh-keygen -y -f FILE, or openssl pkey -in FILE -pubout)"
    )]
    PrivateKey,
    /// A public key where a private one is due.
    #[error("this is a public key where a private one is due")]
    PublicKey,
    /// An X.509 or OpenSSH certificate.
    #[error("this is {kind}, not a bare key; {hint}")]
    Certificate {
        /// Which kind of certificate.
        kind: &'static str,
        /// How to take the key out.
        hint: &'static str,
    },
    /// A hardware security key (`sk-...@openssh.com`), whose signatures are not JWS signatures.
    #[error("{found} is a hardware security key; it cannot sign tokens: use ssh-keygen -t ed25519")]
    SecurityKey {
        /// The OpenSSH type name.
        found: String,
    },
    /// A key of a type that has no algorithm here.
    #[error(
        "{found} keys are not supported; use Ed25519 (ssh-keygen -t ed25519) or RSA of 2048 bits or more (ssh-keygen -t rsa -b 3072)"
    )]
    UnsupportedType {
        /// The type found.
        found: String,
    },
    /// An RSA key with more than two primes.
    #[error("multi-prime RSA keys are not supported; make a key of two primes: openssl genrsa 3072")]
    MultiPrime,
    /// A PEM block whose BEGIN and END lines or whose base64 are wrong.
    #[error("malformed PEM: {0}")]
    Pem(&'static str),
    /// The label of a PEM block is not one of a key.
    #[error(
        "a PEM block labelled {label:?} is not a key that is supported; PUBLIC KEY, RSA PUBLIC KEY, PRIVATE KEY, ENCRYPTED PRIVATE KEY, RSA PRIVATE KEY and OPENSSH PRIVATE KEY are"
    )]
    Label {
        /// The label found, cut to 64 characters.
        label: String,
    },
    /// The structure within is not what its container says.
    #[error("malformed {format}: {detail}")]
    Malformed {
        /// The format that was being read.
        format: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// An RSA modulus of a length that is not accepted.
    #[error("the RSA modulus has {bits} bits; 2048 to 8192 are accepted: ssh-keygen -t rsa -b 3072")]
    RsaSize {
        /// Bits found.
        bits: usize,
    },
    /// An even RSA modulus: no product of two primes above 2.
    #[error("the RSA modulus is even")]
    RsaModulusEven,
    /// An RSA public exponent that is not accepted.
    #[error("the RSA public exponent is {found}; odd ones from 65537 up to 2^33 are accepted")]
    RsaExponent {
        /// The exponent, or "too large".
        found: String,
    },
    /// An Ed25519 public key that no honest key generation makes.
    #[error("the Ed25519 public key is {problem}")]
    Ed25519Point {
        /// What is wrong with the point.
        problem: &'static str,
    },
    /// The private and public parts do not belong together.
    #[error(
        "the parts of the private key do not belong together; the file is damaged or was put together from several keys"
    )]
    Mismatch,
    /// Encrypted, and no password was given.
    #[error("the private key is encrypted; give its password")]
    PasswordMissing,
    /// The password does not decrypt the key.
    #[error("the private key does not decrypt: the password is wrong, or the file is damaged")]
    PasswordWrong,
    /// Encrypted with a cipher or key derivation that is not supported.
    #[error(
        "the private key is encrypted with {found}, which is not supported; encrypt it anew: openssl pkcs8 -topk8 -v2 aes256, or ssh-keygen -p"
    )]
    UnsupportedEncryption {
        /// What it is encrypted with.
        found: String,
    },
    /// Deriving the decryption key would cost more than is reasonable. Nothing was derived.
    #[error(
        "the private key's {kdf} costs {found}, above the cap of {max}; encrypt it anew with usual parameters"
    )]
    KdfTooCostly {
        /// The key derivation function.
        kdf: &'static str,
        /// The cost parameters found.
        found: String,
        /// The cap.
        max: &'static str,
    },
}

impl KeyError {
    pub(crate) fn malformed(format: &'static str, detail: impl fmt::Display) -> Self {
        Self::Malformed { format, detail: detail.to_string() }
    }
}

/// What a text says of itself, as an error tells it: at most 64 characters, none of which a terminal or a
/// log would take for a command.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(64) {
        match c {
            '"' | '\'' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// Why a JSON text is not a usable JWK (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JwkError {
    /// Not a JSON object by RFC 8259.
    #[error("not a JSON object by RFC 8259")]
    Json,
    /// A member name occurs twice.
    #[error("a member name occurs twice")]
    DuplicateMember,
    /// More members than a key may have, whether they are read or not.
    #[error("the key has more than {max} members")]
    TooManyMembers {
        /// Members allowed.
        max: usize,
    },
    /// A member is there, but of the wrong type (null is a type).
    #[error("member {0:?} is of the wrong type")]
    WrongType(&'static str),
    /// A member that a key of this type needs is missing.
    #[error("member {0:?} is missing")]
    Missing(&'static str),
    /// `kid` is the empty string.
    #[error("member \"kid\" is empty")]
    EmptyKid,
    /// A private or symmetric key.
    #[error("member {0:?} belongs to a private or symmetric key; publish the public half only")]
    PrivateMember(&'static str),
    /// `kty` or `crv` names a type that is not supported.
    #[error("keys with {member} {found:?} are not supported; RSA and OKP with Ed25519 are")]
    UnsupportedType {
        /// `kty` or `crv`.
        member: &'static str,
        /// Its value, cut to 64 characters.
        found: String,
    },
    /// `use` is not `sig`.
    #[error("\"use\" is {found:?}; only keys for \"sig\" verify")]
    Use {
        /// Its value, cut to 64 characters.
        found: String,
    },
    /// `key_ops` lacks `verify`.
    #[error("\"key_ops\" does not hold \"verify\"")]
    KeyOps,
    /// `alg` is not an algorithm of this key.
    #[error("\"alg\" is {found:?}, which is no algorithm of this key")]
    Algorithm {
        /// Its value, cut to 64 characters.
        found: String,
    },
    /// A value is not base64url without padding in its one canonical spelling.
    #[error("member {0:?} is not base64url without padding")]
    Base64(&'static str),
    /// The key itself is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Two different usable keys in one set share this `kid`: neither is used.
    #[error("two different keys of the set share this kid")]
    AmbiguousKid,
}

/// Why a text is not a JWK Set (RFC 7517 section 5).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JwkSetError {
    /// More bytes than a set may have.
    #[error("the document has {len} bytes; a key set has at most {max}")]
    TooLong {
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not a JSON object by RFC 8259, or a member name occurs twice at top level.
    #[error("not a JSON object by RFC 8259 with distinct member names")]
    Json,
    /// There is no array `keys`.
    #[error("not a JWK Set: there is no member \"keys\" that is an array")]
    NoKeys,
    /// More keys than a set may have.
    #[error("the set has more than {max} keys")]
    TooManyKeys {
        /// Keys allowed.
        max: usize,
    },
}

/// Why a value cannot be a claim.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The username is empty or too long.
    #[error("the username has {chars} characters; 1 to {max} are allowed")]
    UsernameLength {
        /// Unicode scalar values found.
        chars: usize,
        /// Unicode scalar values allowed.
        max: usize,
    },
    /// The username holds a control character (Unicode category Cc).
    #[error("the username holds the control character U+{found:04X}")]
    UsernameControl {
        /// The character's code point.
        found: u32,
    },
    /// Not the percent-encoding of a username.
    #[error("this is not the percent-encoding of a username{}", suggestion(.expected.as_deref()))]
    UsernameEncoding {
        /// How the name is spelled, if it can be told.
        expected: Option<String>,
    },
    /// The nonce is empty or too long.
    #[error("the nonce has {len} bytes; 1 to {max} are allowed")]
    NonceLength {
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

fn suggestion(expected: Option<&str>) -> String {
    expected.map(|expected| format!("; it is spelled {expected}")).unwrap_or_default()
}

/// The random source failed, so no nonce was made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the random source failed: {0}")]
pub struct NonceGenerationError(pub(crate) String);

/// Why a token is refused. The order is that in which a token is checked.
///
/// For traces and metrics; a peer must not be told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN_LEN`](crate::MAX_TOKEN_LEN).
    #[error("the token has {len} bytes; at most {max} are allowed")]
    TooLong {
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not three segments of base64url without padding.
    #[error("not three segments of base64url without padding")]
    Encoding,
    /// The header is not a strict JSON object, or a member in it has the wrong type.
    #[error("the header is not a JSON object of the expected members")]
    Header,
    /// The header has `crit`, `b64`, `zip` or `enc`: asks for processing that does not exist here.
    #[error("the header has {0:?}, which is not supported")]
    Unsupported(&'static str),
    /// `alg` is not one of [`Algorithm`].
    #[error("the algorithm is not supported")]
    Algorithm,
    /// The payload is not a strict JSON object of the claims due.
    #[error("the payload is not a JSON object of the expected claims")]
    Payload,
    /// A claim is out of its bounds.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// No key of the algorithm makes signatures of this length.
    #[error("no {algorithm} key makes signatures of {len} bytes")]
    SignatureLength {
        /// The token's algorithm.
        algorithm: Algorithm,
        /// Bytes found.
        len: usize,
    },
    /// `time` is further from now than the tolerance.
    #[error("the token is dated {time}, more than {tolerance:?} from now ({now})")]
    Window {
        /// The token's date.
        time: Timestamp,
        /// The server's clock.
        now: Timestamp,
        /// The tolerance in force.
        tolerance: Duration,
    },
    /// `exp` has passed.
    #[error("the token has expired by its exp claim")]
    Expired,
    /// `nbf` or `iat` lies in the future.
    #[error("the token is not valid yet by its {0} claim")]
    NotYetValid(&'static str),
    /// `aud` names no audience of this server, or is missing where one is due.
    #[error("the token is for another audience")]
    Audience,
    /// The key is not one for the token's algorithm.
    #[error("the key is not one for {0}")]
    KeyAlgorithm(Algorithm),
    /// The signature is not one of this key over this token.
    #[error("the signature does not verify")]
    Signature,
}

/// Why nothing is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key is not one for this algorithm.
    #[error("the key is not one for {0}")]
    KeyAlgorithm(Algorithm),
    /// The claims cannot be written as JSON.
    #[error("the claims cannot be written as JSON")]
    Claims,
    /// A signature that was made elsewhere is not one of the key over this token.
    #[error("the signature does not verify")]
    Signature,
    /// The cryptographic library failed.
    #[error("signing failed in the cryptographic library")]
    Library,
}

/// Why a private key is not written: the cryptographic library failed, or the one that writes the format.
#[derive(Debug, Error)]
#[non_exhaustive]
#[error("the private key cannot be written")]
pub struct ExportError {
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ExportError {
    pub(crate) fn new(source: impl StdError + Send + Sync + 'static) -> Self {
        Self { source: Some(Box::new(source)) }
    }

    /// No library failed, but what it made is not of the form that is due.
    pub(crate) const fn without_source() -> Self {
        Self { source: None }
    }
}

/// The cryptographic library failed to make a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("key generation failed in the cryptographic library")]
pub struct GenerateError;

/// Why a [`Validation`](crate::Validation) cannot be as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValidationError {
    /// The tolerance is out of its bounds.
    #[error("a tolerance of {found:?} is not usable; {min:?} to {max:?} are")]
    Tolerance {
        /// The tolerance asked for.
        found: Duration,
        /// The smallest.
        min: Duration,
        /// The largest.
        max: Duration,
    },
    /// An audience is the empty string.
    #[error("an audience must not be empty")]
    EmptyAudience,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_not_written_tells_why() {
        let error = ExportError::new(KeyError::Mismatch);
        assert_eq!(error.to_string(), "the private key cannot be written");
        assert_eq!(error.source().map(ToString::to_string), Some(KeyError::Mismatch.to_string()));
        assert!(ExportError::without_source().source().is_none());
    }
}
