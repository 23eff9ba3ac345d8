//! The DER structures that keys come in: SPKI (RFC 5280), PKCS#1 (RFC 8017), PKCS#8 (RFC 5958) and
//! its encryption by PBES2 (RFC 8018).

use aws_lc_rs::rand;
use pkcs1::{RsaPrivateKeyRef, RsaPublicKeyRef};
use pkcs8::{
    EncryptedPrivateKeyInfoRef, ObjectIdentifier, PrivateKeyInfoRef, SubjectPublicKeyInfoRef,
    der::{
        self, Decode as _, Encode as _, Reader as _, SliceReader, Tagged as _,
        asn1::{AnyRef, BitStringRef, OctetStringRef, UintRef},
    },
    pkcs5::pbes2,
    spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfo},
};
use rand_core::{TryCryptoRng, TryRng};
use zeroize::Zeroizing;

use super::{PrivateKey, PublicKey, ed25519::Ed25519Private, pem::Half, rsa::RsaPrivate};
use crate::{ExportError, KeyError};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Key types that are named in errors.
const UNSUPPORTED: [(ObjectIdentifier, &str); 10] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10"), "RSASSA-PSS"),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.2.1"), "ECDSA"),
    (ObjectIdentifier::new_unwrap("1.2.840.10040.4.1"), "DSA"),
    (ObjectIdentifier::new_unwrap("1.3.101.110"), "X25519"),
    (ObjectIdentifier::new_unwrap("1.3.101.111"), "X448"),
    (ObjectIdentifier::new_unwrap("1.3.101.113"), "Ed448"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.3.1"), "Diffie-Hellman"),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.17"), "ML-DSA-44"),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18"), "ML-DSA-65"),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.19"), "ML-DSA-87"),
];

const ENCRYPTED: &str = "encrypted PKCS#8 private key";

/// The cipher desCBC (RFC 8018 appendix B.2.1).
const SINGLE_DES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.7");

/// The ciphers that the library decrypts, with the bytes of IV and key that each takes. It does not look at the
/// length of triple DES's IV before it cuts it.
const CIPHERS: [(ObjectIdentifier, usize, u64); 6] = [
    (pbes2::AES_128_CBC_OID, 16, 16),
    (pbes2::AES_192_CBC_OID, 16, 24),
    (pbes2::AES_256_CBC_OID, 16, 32),
    (pbes2::AES_128_GCM_OID, 12, 16),
    (pbes2::AES_256_GCM_OID, 12, 32),
    (pbes2::DES_EDE3_CBC_OID, 8, 24),
];

/// HMAC with SHA-1 and SHA-2 (RFC 8018 appendix B.1): the PBKDF2 that the library derives.
const PRFS: [ObjectIdentifier; 5] = [
    pbes2::HMAC_WITH_SHA1_OID,
    ObjectIdentifier::new_unwrap("1.2.840.113549.2.8"),
    pbes2::HMAC_WITH_SHA256_OID,
    ObjectIdentifier::new_unwrap("1.2.840.113549.2.10"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.2.11"),
];

/// The longest salt that the library takes, in bytes.
const MAX_SALT: usize = 32;

const MAX_PBKDF2_ROUNDS: u64 = 10_000_000;
const MAX_SCRYPT_MEMORY: u64 = 64 << 20;
const MAX_SCRYPT_PARALLELIZATION: u64 = 16;

pub(super) fn public_from_spki(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    if PrivateKeyInfoRef::from_der(bytes).is_ok() {
        return Err(KeyError::PrivateKey);
    }
    let spki =
        SubjectPublicKeyInfoRef::from_der(bytes).map_err(|error| KeyError::malformed("SPKI", error))?;
    let key = spki
        .subject_public_key
        .as_bytes()
        .ok_or_else(|| KeyError::malformed("SPKI", "the key is not a whole number of bytes"))?;
    check_algorithm(&spki.algorithm, "SPKI")?;
    if spki.algorithm.oid == RSA { public_from_pkcs1(key) } else { PublicKey::from_ed25519_bytes(key) }
}

/// As [`public_from_spki`], where no PEM label says what it should be: what it is instead is told.
pub(super) fn public_from_bare_spki(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    public_from_spki(bytes).map_err(|error| match (error, refuse(bytes, Half::Public)) {
        (KeyError::Malformed { .. }, told @ (KeyError::PrivateKey | KeyError::Certificate { .. })) => told,
        (error, _) => error,
    })
}

pub(super) fn public_from_pkcs1(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    if RsaPrivateKeyRef::from_der(bytes).is_ok() {
        return Err(KeyError::PrivateKey);
    }
    let key =
        RsaPublicKeyRef::from_der(bytes).map_err(|error| KeyError::malformed("PKCS#1 public key", error))?;
    PublicKey::from_rsa_components(key.modulus.as_bytes(), key.public_exponent.as_bytes())
}

pub(super) fn private_from_pkcs1(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    let key = RsaPrivateKeyRef::from_der(bytes)
        .map_err(|error| KeyError::malformed("PKCS#1 private key", error))?;
    let (private, public) = RsaPrivate::new(&key)?;
    PrivateKey::from_rsa(private, public)
}

/// As [`private_from_pkcs1`]; what is no DER at all was decrypted with a wrong password.
pub(super) fn private_from_decrypted_pkcs1(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    AnyRef::from_der(bytes).map_err(|_| KeyError::PasswordWrong)?;
    private_from_pkcs1(bytes)
}

pub(super) fn private_from_pkcs8(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    const FORMAT: &str = "PKCS#8 private key";
    let info = PrivateKeyInfoRef::from_der(bytes).map_err(|error| KeyError::malformed(FORMAT, error))?;
    check_algorithm(&info.algorithm, FORMAT)?;
    let public = match &info.public_key {
        Some(bits) => Some(bits.as_bytes().ok_or(KeyError::Mismatch)?),
        None => None,
    };
    if info.algorithm.oid == RSA {
        let private = private_from_pkcs1(info.private_key.as_bytes())?;
        let agrees = match public {
            Some(public) => public_from_pkcs1(public)? == *private.public_key(),
            None => true,
        };
        return if agrees { Ok(private) } else { Err(KeyError::Mismatch) };
    }
    // CurvePrivateKey is an OCTET STRING within the OCTET STRING (RFC 8410 section 7).
    let seed = <&OctetStringRef>::from_der(info.private_key.as_bytes())
        .map_err(|error| KeyError::malformed(FORMAT, error))?;
    let (private, public) = Ed25519Private::new(seed.as_bytes(), public)?;
    PrivateKey::from_ed25519(private, public)
}

pub(super) fn private_from_encrypted_pkcs8(
    bytes: &[u8],
    password: Option<&[u8]>,
) -> Result<PrivateKey, KeyError> {
    check_encryption(bytes)?;
    let info =
        EncryptedPrivateKeyInfoRef::from_der(bytes).map_err(|error| KeyError::malformed(ENCRYPTED, error))?;
    let password = password.ok_or(KeyError::PasswordMissing)?;
    let plain = info.decrypt(password).map_err(|_| KeyError::PasswordWrong)?;
    private_from_pkcs8(plain.as_bytes())
}

pub(super) fn encrypt_pkcs8(pkcs8: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, ExportError> {
    let info = PrivateKeyInfoRef::from_der(pkcs8).map_err(ExportError::new)?;
    let encrypted = info.encrypt_with_rng(&mut AwsLcRng, password).map_err(ExportError::new)?;
    Ok(Zeroizing::new(encrypted.as_bytes().to_vec()))
}

/// What DER that is not within PEM is, and how to convert it.
pub(super) fn refuse(bytes: &[u8], due: Half) -> KeyError {
    let has_parts = |parts: fn(&mut SliceReader<'_>) -> der::Result<()>| {
        SliceReader::new(bytes).and_then(|mut reader| reader.sequence(parts)).is_ok()
    };
    let is_private = PrivateKeyInfoRef::from_der(bytes).is_ok() || RsaPrivateKeyRef::from_der(bytes).is_ok();
    // EncryptedPrivateKeyInfo (RFC 5958 section 3) and Certificate (RFC 5280 section 4.1).
    let is_encrypted = has_parts(|inner| {
        AlgorithmIdentifierRef::decode(inner)?;
        <&OctetStringRef>::decode(inner).map(drop)
    });
    let is_certificate = has_parts(|inner| {
        AnyRef::decode(inner)?.tag().assert_eq(der::Tag::Sequence)?;
        AlgorithmIdentifierRef::decode(inner)?;
        BitStringRef::decode(inner).map(drop)
    });
    let is_public =
        SubjectPublicKeyInfoRef::from_der(bytes).is_ok() || RsaPublicKeyRef::from_der(bytes).is_ok();
    match due {
        Half::Public if is_private || is_encrypted => KeyError::PrivateKey,
        Half::Private if is_public => KeyError::PublicKey,
        _ if is_certificate => KeyError::Certificate {
            kind: "an X.509 certificate in DER",
            hint: "take the key out: openssl x509 -inform DER -in FILE -noout -pubkey",
        },
        _ if is_public => KeyError::Der { hint: "openssl pkey -pubin -inform DER -in FILE" },
        // `openssl pkey` would write the key unencrypted.
        _ if is_encrypted => KeyError::Der { hint: "openssl pkcs8 -topk8 -v2 aes256 -inform DER -in FILE" },
        _ => KeyError::Der { hint: "openssl pkey -inform DER -in FILE (with -pubin for a public key)" },
    }
}

/// SubjectPublicKeyInfo around a PKCS#1 public key.
pub(super) fn rsa_spki(pkcs1: &[u8]) -> der::Result<Vec<u8>> {
    SubjectPublicKeyInfo {
        algorithm: AlgorithmIdentifierRef { oid: RSA, parameters: Some(AnyRef::NULL) },
        subject_public_key: BitStringRef::from_bytes(pkcs1)?,
    }
    .to_der()
}

/// RSA with the parameters NULL (RFC 3279 section 2.3.1) or Ed25519 without any (RFC 8410 section 3).
fn check_algorithm(algorithm: &AlgorithmIdentifierRef<'_>, format: &'static str) -> Result<(), KeyError> {
    let fits = match algorithm.oid {
        RSA => algorithm.parameters == Some(AnyRef::NULL),
        ED25519 => algorithm.parameters.is_none(),
        oid => {
            let name = UNSUPPORTED.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
            let found = name.map_or_else(|| format!("OID {oid}"), str::to_owned);
            return Err(KeyError::UnsupportedType { found });
        }
    };
    if fits {
        Ok(())
    } else {
        Err(KeyError::malformed(format, "the algorithm identifier has wrong parameters"))
    }
}

/// Reads cipher and key derivation with its cost from the file, before a password is asked for and anything is
/// derived.
fn check_encryption(bytes: &[u8]) -> Result<(), KeyError> {
    let read = || -> der::Result<Encryption<'_>> {
        let mut reader = SliceReader::new(bytes)?;
        let (scheme, _data) = reader.sequence(|inner| {
            Ok::<_, der::Error>((AlgorithmIdentifierRef::decode(inner)?, <&OctetStringRef>::decode(inner)?))
        })?;
        if scheme.oid != pbes2::PBES2_OID {
            return Ok(Encryption::OtherScheme(scheme.oid));
        }
        let (kdf, cipher) = any(scheme.parameters)?.sequence(|inner| {
            Ok::<_, der::Error>((
                AlgorithmIdentifierRef::decode(inner)?,
                AlgorithmIdentifierRef::decode(inner)?,
            ))
        })?;
        Ok(Encryption::Pbes2 { kdf, cipher })
    };
    match read().map_err(|error| KeyError::malformed(ENCRYPTED, error))? {
        Encryption::OtherScheme(oid) => Err(unsupported_encryption(format!("the scheme {oid}"))),
        Encryption::Pbes2 { kdf, cipher } => check_kdf(&kdf, check_cipher(&cipher)?),
    }
}

enum Encryption<'a> {
    OtherScheme(ObjectIdentifier),
    Pbes2 { kdf: AlgorithmIdentifierRef<'a>, cipher: AlgorithmIdentifierRef<'a> },
}

/// The bytes of the cipher's key.
fn check_cipher(cipher: &AlgorithmIdentifierRef<'_>) -> Result<u64, KeyError> {
    let (_, iv_len, key_len) = CIPHERS.iter().find(|(oid, ..)| *oid == cipher.oid).ok_or_else(|| {
        unsupported_encryption(match cipher.oid {
            SINGLE_DES => "single DES".to_owned(),
            oid => format!("the cipher {oid}"),
        })
    })?;
    let iv = any(cipher.parameters).and_then(|iv| iv.decode_as::<&OctetStringRef>());
    let iv = iv.map_err(|error| KeyError::malformed(ENCRYPTED, error))?;
    if iv.as_bytes().len() == *iv_len {
        Ok(*key_len)
    } else {
        Err(KeyError::malformed(ENCRYPTED, "the cipher's initialization vector has a wrong length"))
    }
}

fn check_kdf(kdf: &AlgorithmIdentifierRef<'_>, cipher_key_len: u64) -> Result<(), KeyError> {
    match kdf.oid {
        pbes2::PBKDF2_OID => {
            let ([rounds], prf) = read_kdf::<1>(kdf, cipher_key_len)?;
            if let Some(prf) = prf.filter(|prf| !PRFS.contains(prf)) {
                return Err(unsupported_encryption(format!("PBKDF2 by the function {prf}")));
            }
            match rounds {
                0 => Err(KeyError::malformed(ENCRYPTED, "PBKDF2 with 0 rounds")),
                1..=MAX_PBKDF2_ROUNDS => Ok(()),
                _ => Err(too_costly("PBKDF2", format!("{rounds} rounds"), "10,000,000 rounds")),
            }
        }
        pbes2::SCRYPT_OID => {
            let (costs, _) = read_kdf::<3>(kdf, cipher_key_len)?;
            let [n, r, p] = costs;
            if n < 2 || r == 0 || p == 0 || !n.is_power_of_two() {
                return Err(KeyError::malformed(ENCRYPTED, "scrypt parameters that are not valid"));
            }
            // What N and r cost, or what r and p do (RFC 7914 section 6).
            let memory = n.max(p).saturating_mul(r).saturating_mul(128);
            if memory <= MAX_SCRYPT_MEMORY && p <= MAX_SCRYPT_PARALLELIZATION {
                return Ok(());
            }
            Err(too_costly("scrypt", format!("N, r, p = {costs:?}"), "128 N r = 64 MiB and p = 16"))
        }
        oid => Err(unsupported_encryption(format!("the key derivation {oid}"))),
    }
}

/// The costs of a key derivation and PBKDF2's function, from its parameters (RFC 8018 appendix A.2, RFC 7914
/// section 7), of which the others are checked.
fn read_kdf<const N: usize>(
    kdf: &AlgorithmIdentifierRef<'_>,
    cipher_key_len: u64,
) -> Result<([u64; N], Option<ObjectIdentifier>), KeyError> {
    let read = any(kdf.parameters).and_then(|parameters| {
        parameters.sequence(|inner| {
            let salt_len = <&OctetStringRef>::decode(inner)?.as_bytes().len();
            let mut costs = [0; N];
            for cost in &mut costs {
                *cost = saturating(UintRef::decode(inner)?);
            }
            let key_len = Option::<UintRef<'_>>::decode(inner)?.map(saturating);
            let prf = Option::<AlgorithmIdentifierRef<'_>>::decode(inner)?.map(|prf| prf.oid);
            Ok::<_, der::Error>((salt_len, costs, key_len, prf))
        })
    });
    let (salt_len, costs, key_len, prf) = read.map_err(|error| KeyError::malformed(ENCRYPTED, error))?;
    if salt_len > MAX_SALT {
        return Err(unsupported_encryption(format!("a salt of {salt_len} bytes")));
    }
    if key_len.is_some_and(|len| len != cipher_key_len) {
        return Err(KeyError::malformed(ENCRYPTED, "the derived key is not as long as the cipher's"));
    }
    Ok((costs, prf))
}

/// Larger than u64 counts as u64's largest.
fn saturating(number: UintRef<'_>) -> u64 {
    match number.as_bytes() {
        bytes if bytes.len() <= 8 => bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)),
        _ => u64::MAX,
    }
}

fn any(parameters: Option<AnyRef<'_>>) -> der::Result<AnyRef<'_>> {
    parameters.ok_or_else(|| der::Tag::Sequence.value_error().into())
}

fn unsupported_encryption(found: String) -> KeyError {
    KeyError::UnsupportedEncryption { found }
}

pub(super) fn too_costly(kdf: &'static str, found: String, max: &'static str) -> KeyError {
    KeyError::KdfTooCostly { kdf, found, max }
}

/// aws-lc's generator as the trait that salts and IVs are drawn from.
pub(super) struct AwsLcRng;

impl TryRng for AwsLcRng {
    type Error = RngError;

    fn try_next_u32(&mut self) -> Result<u32, RngError> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, RngError> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), RngError> {
        rand::fill(bytes).map_err(|_| RngError)
    }
}

impl TryCryptoRng for AwsLcRng {}

#[derive(Debug, thiserror::Error)]
#[error("the random generator failed")]
pub(super) struct RngError;
