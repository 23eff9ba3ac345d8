//! Public and private keys: parsed and checked once, kept ready to use.

mod der;
mod ed25519;
mod fingerprint;
mod legacy_pem;
mod openssh;
mod pem;
mod rsa;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use zeroize::Zeroizing;

use self::{
    ed25519::{Ed25519Private, Ed25519Public},
    pem::Half,
    rsa::{RsaPrivate, RsaPublic},
};
pub use self::{
    fingerprint::Fingerprint,
    rsa::{MAX_RSA_BITS, MIN_RSA_BITS, RsaKeySize},
};
use crate::{Algorithm, ExportError, GenerateError, Jwk, JwkError, KeyError, SignError};

/// Bytes that the text of a public key may have, text around it included.
pub const MAX_PUBLIC_KEY_LEN: usize = 16 * 1024;

/// Bytes that the text of a private key may have, text around it included.
pub const MAX_PRIVATE_KEY_LEN: usize = 64 * 1024;

/// What kind of key it is, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyType {
    /// RSA with a modulus of this many bits.
    Rsa {
        /// Bits of the modulus.
        bits: usize,
    },
    /// Ed25519 (RFC 8032).
    Ed25519,
}

impl fmt::Display for KeyType {
    /// `Ed25519`, or `RSA` and its bits, as in `RSA 3072`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

/// A public key, checked when it was loaded and ready to verify. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey(Arc<PublicInner>);

struct PublicInner {
    material: PublicMaterial,
    fingerprint: Fingerprint,
}

enum PublicMaterial {
    Rsa(RsaPublic),
    Ed25519(Ed25519Public),
}

impl PublicMaterial {
    /// The SPKI PEM text, which the fingerprint is made of.
    fn to_pem(&self) -> String {
        let spki = match self {
            Self::Rsa(key) => key.to_spki_der(),
            Self::Ed25519(key) => key.to_spki_der(),
        };
        pem::encode("PUBLIC KEY", &spki)
    }
}

impl PublicKey {
    /// Loads a key from PEM or from one OpenSSH line, whichever the text is, and returns the
    /// OpenSSH comment too. The text has at most 16 KiB and holds exactly one key: it is refused if it
    /// has one in each format.
    ///
    /// # Errors
    /// [`KeyError`] that says what was found.
    ///
    /// ```
    /// # fn main() -> Result<(), ajwt_core::KeyError> {
    /// use ajwt_core::PublicKey;
    ///
    /// let (key, comment) = PublicKey::from_text(
    ///     "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me@work",
    /// )?;
    /// assert_eq!(comment.as_deref(), Some("me@work"));
    /// assert!(key.to_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_text(text: impl AsRef<[u8]>) -> Result<(Self, Option<String>), KeyError> {
        let text = checked_text(text.as_ref(), MAX_PUBLIC_KEY_LEN)?;
        if pem::looks_like_pem(text) && !openssh::looks_like_line(text) {
            Ok((Self::from_pem(text)?, None))
        } else {
            openssh::public_from_line(text)
        }
    }

    /// Loads a key from a PEM block labelled `PUBLIC KEY` (SPKI, RFC 5280) or `RSA PUBLIC KEY`
    /// (PKCS#1, RFC 8017). Text around the block is allowed, but for lines that begin with the type of an
    /// OpenSSH key: nothing says which of the keys is meant.
    ///
    /// # Errors
    /// [`KeyError`] that says what was found.
    pub fn from_pem(text: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let text = checked_text(text.as_ref(), MAX_PUBLIC_KEY_LEN)?;
        let block = pem::single_block(text, Half::Public)?;
        let key = match block.label.as_str() {
            "PUBLIC KEY" => der::public_from_spki(&block.body),
            "RSA PUBLIC KEY" => der::public_from_pkcs1(&block.body),
            label if label.ends_with("PRIVATE KEY") => Err(KeyError::PrivateKey),
            label => Err(pem::refuse_label(label)),
        }?;
        match openssh::count_lines(text) {
            0 => Ok(key),
            lines => Err(KeyError::SeveralKeys { count: lines.saturating_add(1) }),
        }
    }

    /// Loads a key from the DER of its SubjectPublicKeyInfo (SPKI, RFC 5280 section 4.1), as key management services
    /// hand it out: the bytes that a PEM block labelled `PUBLIC KEY` holds, not their base64. At most 16 KiB, with
    /// nothing after it.
    ///
    /// # Errors
    /// [`KeyError`] that says what was found.
    ///
    /// ```
    /// # fn main() -> Result<(), ajwt_core::KeyError> {
    /// use ajwt_core::{KeyType, PublicKey};
    ///
    /// let spki = [
    ///     0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ///     0xb3, 0x3e, 0xae, 0xf3, 0x7e, 0xa2, 0xdf, 0x7c, 0xaa, 0x01, 0x0d, 0xef, 0xde, 0xa3, 0x4e, 0x24,
    ///     0x1f, 0x65, 0xf1, 0xb5, 0x29, 0xa4, 0xf4, 0x3e, 0xd1, 0x43, 0x27, 0xf5, 0xc5, 0x4a, 0xab, 0x62,
    /// ];
    /// let key = PublicKey::from_spki_der(&spki)?;
    /// assert_eq!(key.key_type(), KeyType::Ed25519);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_spki_der(bytes: &[u8]) -> Result<Self, KeyError> {
        check_len(bytes, MAX_PUBLIC_KEY_LEN)?;
        der::public_from_bare_spki(bytes)
    }

    /// Loads a key from one OpenSSH line: `ssh-ed25519` or `ssh-rsa`, the base64, and a comment.
    ///
    /// # Errors
    /// [`KeyError`] that says what was found.
    pub fn from_openssh(line: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let line = checked_text(line.as_ref(), MAX_PUBLIC_KEY_LEN)?;
        openssh::public_from_line(line).map(|(key, _)| key)
    }

    /// Loads a key from the text of one JWK (RFC 7517) of at most 16 KiB. It needs no `kid`; all
    /// other rules are those of the keys in a [`JwkSet`](crate::JwkSet).
    ///
    /// # Errors
    /// [`JwkError`] that says what was found.
    pub fn from_jwk(json: impl AsRef<[u8]>) -> Result<Self, JwkError> {
        check_len(json.as_ref(), MAX_PUBLIC_KEY_LEN)?;
        crate::jwk::public_from_json(json.as_ref())
    }

    /// Makes an RSA key of its numbers, big-endian; leading zeros are ignored.
    ///
    /// # Errors
    /// [`KeyError::RsaSize`], [`KeyError::RsaModulusEven`] or [`KeyError::RsaExponent`].
    pub fn from_rsa_components(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let rsa = RsaPublic::new(modulus, exponent)?;
        Ok(Self::new(PublicMaterial::Rsa(rsa)))
    }

    /// Makes an Ed25519 key of its 32 bytes (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    /// [`KeyError::Ed25519Point`] for a wrong length, and for bytes that are no point of the
    /// curve, not canonical, or a point of small order.
    pub fn from_ed25519_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let ed25519 = Ed25519Public::new(bytes)?;
        Ok(Self::new(PublicMaterial::Ed25519(ed25519)))
    }

    fn new(material: PublicMaterial) -> Self {
        let fingerprint = Fingerprint::of_pem(&material.to_pem());
        Self(Arc::new(PublicInner { material, fingerprint }))
    }

    /// The SPKI PEM text: 64 columns, LF, a final LF.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.material.to_pem()
    }

    /// One OpenSSH line without a line end. Control characters in the comment become spaces; it is cut where
    /// the line would have more than 16 KiB.
    #[must_use]
    pub fn to_openssh(&self, comment: &str) -> String {
        match &self.0.material {
            PublicMaterial::Rsa(key) => openssh::rsa_line(key, comment),
            PublicMaterial::Ed25519(key) => openssh::ed25519_line(key, comment),
        }
    }

    /// A JWK with the fingerprint as `kid`, `use: "sig"` and the most preferred `alg`.
    #[must_use]
    pub fn to_jwk(&self) -> Jwk {
        Jwk::of_key(self.clone())
    }

    /// SHA-256 of the SPKI PEM text: the `kid` of tokens that this key signs.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.0.fingerprint
    }

    /// What kind of key it is, and how large.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match &self.0.material {
            PublicMaterial::Rsa(key) => KeyType::Rsa { bits: key.bits() },
            PublicMaterial::Ed25519(_) => KeyType::Ed25519,
        }
    }

    /// The algorithms that this key may be used with, the most preferred first. Never what a token
    /// asks for.
    #[must_use]
    pub fn algorithms(&self) -> &'static [Algorithm] {
        match &self.0.material {
            PublicMaterial::Rsa(_) => &[Algorithm::Rs512, Algorithm::Rs384, Algorithm::Rs256],
            PublicMaterial::Ed25519(_) => &[Algorithm::EdDsa],
        }
    }

    /// The algorithm that this key's tokens are signed with.
    #[must_use]
    pub fn preferred_algorithm(&self) -> Algorithm {
        match &self.0.material {
            PublicMaterial::Rsa(_) => Algorithm::Rs512,
            PublicMaterial::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Bytes of a signature of this key.
    #[must_use]
    pub fn signature_len(&self) -> usize {
        match &self.0.material {
            PublicMaterial::Rsa(key) => key.modulus().len(),
            PublicMaterial::Ed25519(_) => ed25519::SIGNATURE_LEN,
        }
    }

    /// Whether any acceptable key of the algorithm makes signatures of this many bytes.
    #[must_use]
    pub const fn is_signature_len(algorithm: Algorithm, len: usize) -> bool {
        match algorithm {
            Algorithm::EdDsa => len == ed25519::SIGNATURE_LEN,
            Algorithm::Rs512 | Algorithm::Rs384 | Algorithm::Rs256 => {
                len >= MIN_RSA_BITS.div_ceil(8) && len <= MAX_RSA_BITS.div_ceil(8)
            }
        }
    }

    /// Whether `signature` is one of this key over `message`. A wrong algorithm or length is
    /// `false` before any arithmetic. For tokens use
    /// [`UntrustedToken::verify`](crate::UntrustedToken::verify), which checks the claims too.
    #[must_use]
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if signature.len() != self.signature_len() {
            return false;
        }
        match &self.0.material {
            PublicMaterial::Rsa(key) => key.verify(algorithm, message, signature),
            PublicMaterial::Ed25519(key) => key.verify(algorithm, message, signature),
        }
    }

    /// The same key, whose checks take about two thirds of the time by way of a table of 215 KiB; more
    /// than a few such tables fall out of the processor's caches, and nothing is gained. It accepts
    /// exactly the same signatures. Making it takes a fraction of a millisecond. `None` for RSA keys.
    #[must_use]
    pub fn precomputed(&self) -> Option<Self> {
        let PublicMaterial::Ed25519(key) = &self.0.material else { return None };
        let material = PublicMaterial::Ed25519(key.precomputed()?);
        Some(Self(Arc::new(PublicInner { material, fingerprint: self.0.fingerprint.clone() })))
    }

    /// RSA modulus and exponent, big-endian without leading zeros.
    pub(crate) fn rsa_components(&self) -> Option<(&[u8], &[u8])> {
        match &self.0.material {
            PublicMaterial::Rsa(key) => Some((key.modulus(), key.exponent())),
            PublicMaterial::Ed25519(_) => None,
        }
    }

    /// The 32 bytes of an Ed25519 key.
    pub(crate) fn ed25519_bytes(&self) -> Option<&[u8]> {
        match &self.0.material {
            PublicMaterial::Rsa(_) => None,
            PublicMaterial::Ed25519(key) => Some(key.bytes()),
        }
    }
}

impl PartialEq for PublicKey {
    /// By fingerprint, which the key's numbers determine and which determines them.
    fn eq(&self, other: &Self) -> bool {
        self.0.fingerprint == other.0.fingerprint
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.fingerprint.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = self.fingerprint().as_str();
        f.debug_struct("PublicKey")
            .field("type", &self.key_type())
            .field("fingerprint", &fingerprint)
            .finish()
    }
}

/// A private key, checked against its public half when it was loaded and ready to sign.
///
/// It is never printed, and wiped when dropped.
pub struct PrivateKey {
    material: PrivateMaterial,
    public: PublicKey,
}

enum PrivateMaterial {
    Rsa(RsaPrivate),
    Ed25519(Ed25519Private),
}

impl PrivateKey {
    /// Makes a new Ed25519 key.
    ///
    /// # Errors
    /// [`GenerateError`] if the cryptographic library fails.
    pub fn generate_ed25519() -> Result<Self, GenerateError> {
        let (private, public) = Ed25519Private::generate()?;
        Ok(Self {
            material: PrivateMaterial::Ed25519(private),
            public: PublicKey::new(PublicMaterial::Ed25519(public)),
        })
    }

    /// Makes a new RSA key with the exponent 65537. This takes from a tenth of a second (2048
    /// bits) to a minute (8192).
    ///
    /// # Errors
    /// [`GenerateError`] if the cryptographic library fails.
    pub fn generate_rsa(size: RsaKeySize) -> Result<Self, GenerateError> {
        let (private, public) = RsaPrivate::generate(size)?;
        Ok(Self {
            material: PrivateMaterial::Rsa(private),
            public: PublicKey::new(PublicMaterial::Rsa(public)),
        })
    }

    /// Loads a key from its PEM block: PKCS#8 (RFC 5958), plain or encrypted by PBES2; PKCS#1, plain
    /// or encrypted in the legacy way with AES or 3DES; OpenSSH, plain or encrypted. Text around
    /// the block is allowed; the text has at most 64 KiB and exactly one block.
    ///
    /// The password is not looked at where the key is not encrypted. The cost of deriving a key
    /// from it is read from the file and capped first: PBKDF2 at 10 million rounds, scrypt at
    /// 64 MiB and p = 16, bcrypt at 1024 rounds.
    ///
    /// # Errors
    /// [`KeyError`] that says what was found; [`KeyError::PasswordMissing`] and
    /// [`KeyError::PasswordWrong`] are two things.
    pub fn from_pem(text: impl AsRef<[u8]>, password: Option<&[u8]>) -> Result<Self, KeyError> {
        let text = checked_text(text.as_ref(), MAX_PRIVATE_KEY_LEN)?;
        if openssh::looks_like_line(text) && openssh::public_from_line(text).is_ok() {
            return Err(KeyError::PublicKey);
        }
        let block = pem::single_block(text, Half::Private)?;
        match block.label.as_str() {
            "PRIVATE KEY" => der::private_from_pkcs8(&block.body),
            "ENCRYPTED PRIVATE KEY" => der::private_from_encrypted_pkcs8(&block.body, password),
            "RSA PRIVATE KEY" => match legacy_pem::decrypt(&block, password)? {
                Some(plain) => der::private_from_decrypted_pkcs1(&plain),
                None => der::private_from_pkcs1(&block.body),
            },
            "OPENSSH PRIVATE KEY" => openssh::private_from_bytes(&block.body, password),
            "EC PRIVATE KEY" => Err(KeyError::UnsupportedType { found: "ECDSA".into() }),
            "DSA PRIVATE KEY" => Err(KeyError::UnsupportedType { found: "DSA".into() }),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Err(KeyError::PublicKey),
            label => Err(pem::refuse_label(label)),
        }
    }

    fn from_rsa(private: RsaPrivate, public: RsaPublic) -> Result<Self, KeyError> {
        Self { material: PrivateMaterial::Rsa(private), public: PublicKey::new(PublicMaterial::Rsa(public)) }
            .checked()
    }

    fn from_ed25519(private: Ed25519Private, public: Ed25519Public) -> Result<Self, KeyError> {
        Self {
            material: PrivateMaterial::Ed25519(private),
            public: PublicKey::new(PublicMaterial::Ed25519(public)),
        }
        .checked()
    }

    /// Signs once and verifies: parts that do not belong together are found now, not in use.
    fn checked(self) -> Result<Self, KeyError> {
        const PROBE: &[u8] = b"do the private and the public half belong together?";
        let algorithm = self.public.preferred_algorithm();
        let signature = self.sign(algorithm, PROBE).map_err(|_| KeyError::Mismatch)?;
        if self.public.verify(algorithm, PROBE, &signature) { Ok(self) } else { Err(KeyError::Mismatch) }
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The PKCS#8 PEM text, not encrypted, wiped when dropped.
    ///
    /// # Errors
    /// [`ExportError`] if the cryptographic library fails to export the key.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, ExportError> {
        Ok(Zeroizing::new(pem::encode("PRIVATE KEY", &self.to_pkcs8_der()?)))
    }

    /// The PKCS#8 PEM text encrypted by PBES2 (scrypt, AES-256-CBC).
    ///
    /// # Errors
    /// [`ExportError`] if the cryptographic library fails.
    pub fn to_encrypted_pem(&self, password: &[u8]) -> Result<Zeroizing<String>, ExportError> {
        let encrypted = der::encrypt_pkcs8(&self.to_pkcs8_der()?, password)?;
        Ok(Zeroizing::new(pem::encode("ENCRYPTED PRIVATE KEY", &encrypted)))
    }

    /// The OpenSSH private key file, not encrypted, wiped when dropped. The comment is cut to 16 KiB.
    ///
    /// # Errors
    /// [`ExportError`] if the cryptographic library fails to export the key.
    pub fn to_openssh(&self, comment: &str) -> Result<Zeroizing<String>, ExportError> {
        openssh::private_to_file(self, comment, None)
    }

    /// The OpenSSH private key file, encrypted (bcrypt, AES-256-CTR). The comment is cut to 16 KiB.
    ///
    /// # Errors
    /// [`ExportError`] if the cryptographic library fails.
    pub fn to_encrypted_openssh(
        &self,
        comment: &str,
        password: &[u8],
    ) -> Result<Zeroizing<String>, ExportError> {
        openssh::private_to_file(self, comment, Some(password))
    }

    fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, ExportError> {
        match &self.material {
            PrivateMaterial::Rsa(key) => key.to_pkcs8_der(),
            PrivateMaterial::Ed25519(key) => key.to_pkcs8_der(),
        }
    }

    /// Signs a message. For tokens use [`Token::sign`](crate::Token::sign).
    ///
    /// # Errors
    /// [`SignError::KeyAlgorithm`] if the algorithm is not one of the key, [`SignError::Library`] if the
    /// cryptographic library fails.
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.material {
            PrivateMaterial::Rsa(key) => key.sign(algorithm, message),
            PrivateMaterial::Ed25519(key) => key.sign(algorithm, message),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A text of at most so many bytes, without the mark that some editors begin UTF-8 with.
fn checked_text(text: &[u8], max: usize) -> Result<&[u8], KeyError> {
    check_len(text, max)?;
    Ok(text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text))
}

fn check_len(bytes: &[u8], max: usize) -> Result<(), KeyError> {
    if bytes.len() > max { Err(KeyError::TooLong { len: bytes.len(), max }) } else { Ok(()) }
}
