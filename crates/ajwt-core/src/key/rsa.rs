//! RSA keys (RFC 8017). Private operations run in aws-lc only.

use aws_lc_rs::{
    digest::{SHA256, SHA384, SHA512, digest},
    encoding::{AsDer as _, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
        RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    },
};
use crypto_bigint::{BoxedUint, NonZero};
use pkcs1::{
    RsaPrivateKeyRef, RsaPublicKeyRef,
    der::{Decode as _, Encode as _, asn1::UintRef},
};
use zeroize::Zeroizing;

use super::der;
use crate::{Algorithm, ExportError, GenerateError, KeyError, SignError};

const FORMAT: &str = "RSA key";

/// Bits that the modulus must have at least.
pub const MIN_RSA_BITS: usize = 2048;

/// Bits that the modulus may have at most.
pub const MAX_RSA_BITS: usize = 8192;

const MIN_EXPONENT: u64 = 65_537;

/// Exclusive; what aws-lc accepts.
const MAX_EXPONENT: u64 = 1 << 33;

/// Sizes of RSA keys that can be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RsaKeySize {
    /// 2048 bits.
    Bits2048,
    /// 3072 bits.
    Bits3072,
    /// 4096 bits.
    Bits4096,
    /// 8192 bits.
    Bits8192,
}

impl RsaKeySize {
    const fn of_aws_lc(self) -> KeySize {
        match self {
            Self::Bits2048 => KeySize::Rsa2048,
            Self::Bits3072 => KeySize::Rsa3072,
            Self::Bits4096 => KeySize::Rsa4096,
            Self::Bits8192 => KeySize::Rsa8192,
        }
    }
}

pub(super) struct RsaPublic {
    modulus: Box<[u8]>,
    exponent: Box<[u8]>,
    rs512: ParsedPublicKey,
    rs384: ParsedPublicKey,
    rs256: ParsedPublicKey,
}

impl RsaPublic {
    /// From big-endian numbers, whose leading zeros are ignored.
    pub(super) fn new(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let (modulus, exponent) = (trim(modulus), trim(exponent));
        let bits = bit_len(modulus);
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            return Err(KeyError::RsaSize { bits });
        }
        if is_even(modulus) {
            return Err(KeyError::RsaModulusEven);
        }
        check_exponent(exponent)?;

        let spki = spki_der(modulus, exponent)?;
        let parse = |algorithm| {
            ParsedPublicKey::new(algorithm, &spki)
                .map_err(|_| KeyError::malformed(FORMAT, "the cryptographic library refuses the key"))
        };
        Ok(Self {
            modulus: modulus.into(),
            exponent: exponent.into(),
            rs512: parse(&RSA_PKCS1_2048_8192_SHA512)?,
            rs384: parse(&RSA_PKCS1_2048_8192_SHA384)?,
            rs256: parse(&RSA_PKCS1_2048_8192_SHA256)?,
        })
    }

    /// Big-endian without leading zeros.
    pub(super) fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// Big-endian without leading zeros.
    pub(super) fn exponent(&self) -> &[u8] {
        &self.exponent
    }

    pub(super) fn bits(&self) -> usize {
        bit_len(&self.modulus)
    }

    pub(super) fn to_spki_der(&self) -> Vec<u8> {
        // All three were parsed from the same canonical text and keep it.
        self.rs512.as_ref().to_vec()
    }

    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let (parsed, hash) = match algorithm {
            Algorithm::Rs512 => (&self.rs512, &SHA512),
            Algorithm::Rs384 => (&self.rs384, &SHA384),
            Algorithm::Rs256 => (&self.rs256, &SHA256),
            Algorithm::EdDsa => return false,
        };
        // By itself, which spares aws-lc a context for hashing piece by piece: a hundredth of a check with 2048 bits.
        let digest = digest(hash, message);
        if signature >= &*self.modulus {
            // Such a number is no signature (RFC 8017 section 5.2.2), and aws-lc says so before any
            // arithmetic. The arithmetic is done all the same, on a number that is small enough:
            // else the time would tell which modulus, and so whether a decoy, a token met.
            let mut smaller = signature.to_vec();
            if let Some(first) = smaller.first_mut() {
                *first = 0;
            }
            let _ = std::hint::black_box(parsed.verify_digest_sig(&digest, &smaller));
            return false;
        }
        parsed.verify_digest_sig(&digest, signature).is_ok()
    }
}

/// The numbers of an OpenSSH private key, big-endian.
pub(super) struct OpenSshNumbers<'a> {
    pub(super) modulus: &'a [u8],
    pub(super) exponent: &'a [u8],
    pub(super) private_exponent: &'a [u8],
    pub(super) prime1: &'a [u8],
    pub(super) prime2: &'a [u8],
    pub(super) coefficient: &'a [u8],
}

pub(super) struct RsaPrivate(RsaKeyPair);

impl RsaPrivate {
    pub(super) fn generate(size: RsaKeySize) -> Result<(Self, RsaPublic), GenerateError> {
        let pair = RsaKeyPair::generate(size.of_aws_lc()).map_err(|_| GenerateError)?;
        let public = RsaPublicKeyRef::from_der(pair.public_key().as_ref())
            .ok()
            .and_then(|key| RsaPublic::new(key.modulus.as_bytes(), key.public_exponent.as_bytes()).ok())
            .ok_or(GenerateError)?;
        Ok((Self(pair), public))
    }

    /// From the numbers of a PKCS#1 structure.
    pub(super) fn new(key: &RsaPrivateKeyRef<'_>) -> Result<(Self, RsaPublic), KeyError> {
        if key.other_prime_infos.is_some() {
            return Err(KeyError::MultiPrime);
        }
        let public = RsaPublic::new(key.modulus.as_bytes(), key.public_exponent.as_bytes())?;
        // No part of a consistent key is larger than its modulus: bounds the arithmetic below.
        let parts = [&key.private_exponent, &key.prime1, &key.prime2, &key.exponent1, &key.exponent2];
        if parts
            .into_iter()
            .chain([&key.coefficient])
            .any(|part| part.as_bytes().len() > public.modulus().len())
        {
            return Err(KeyError::Mismatch);
        }
        let der = Zeroizing::new(key.to_der().map_err(|error| KeyError::malformed(FORMAT, error))?);
        // aws-lc checks that the numbers belong together.
        let pair = RsaKeyPair::from_der(&der).map_err(|_| KeyError::Mismatch)?;
        Ok((Self(pair), public))
    }

    /// From the numbers of an OpenSSH file, which leave out d mod (p - 1) and d mod (q - 1).
    pub(super) fn from_openssh_numbers(numbers: &OpenSshNumbers<'_>) -> Result<(Self, RsaPublic), KeyError> {
        let secrets = [numbers.private_exponent, numbers.prime1, numbers.prime2, numbers.coefficient];
        if secrets.into_iter().any(|part| part.len() > MAX_RSA_BITS / 8 + 1) {
            return Err(KeyError::Mismatch);
        }
        let exponent1 = reduce(numbers.private_exponent, numbers.prime1)?;
        let exponent2 = reduce(numbers.private_exponent, numbers.prime2)?;
        let uint = |bytes| UintRef::new(bytes).map_err(|error| KeyError::malformed(FORMAT, error));
        Self::new(&RsaPrivateKeyRef {
            modulus: uint(numbers.modulus)?,
            public_exponent: uint(numbers.exponent)?,
            private_exponent: uint(numbers.private_exponent)?,
            prime1: uint(numbers.prime1)?,
            prime2: uint(numbers.prime2)?,
            exponent1: uint(&exponent1)?,
            exponent2: uint(&exponent2)?,
            coefficient: uint(numbers.coefficient)?,
            other_prime_infos: None,
        })
    }

    pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let padding = match algorithm {
            Algorithm::Rs512 => &RSA_PKCS1_SHA512,
            Algorithm::Rs384 => &RSA_PKCS1_SHA384,
            Algorithm::Rs256 => &RSA_PKCS1_SHA256,
            Algorithm::EdDsa => return Err(SignError::KeyAlgorithm(algorithm)),
        };
        let mut signature = vec![0; self.0.public_modulus_len()];
        let signed = self.0.sign(padding, &SystemRandom::new(), message, &mut signature);
        signed.map_err(|_| SignError::Library)?;
        Ok(signature)
    }

    pub(super) fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, ExportError> {
        let der: Pkcs8V1Der<'_> = self.0.as_der().map_err(ExportError::new)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }
}

/// SubjectPublicKeyInfo of an RSA key (RFC 3279 section 2.3.1): the canonical text that
/// fingerprints are made of.
fn spki_der(modulus: &[u8], exponent: &[u8]) -> Result<Vec<u8>, KeyError> {
    let to_der = || {
        let key =
            RsaPublicKeyRef { modulus: UintRef::new(modulus)?, public_exponent: UintRef::new(exponent)? };
        der::rsa_spki(&key.to_der()?)
    };
    to_der().map_err(|error: pkcs1::der::Error| KeyError::malformed(FORMAT, error))
}

fn check_exponent(exponent: &[u8]) -> Result<(), KeyError> {
    let value = match exponent.len() {
        0..=8 => exponent.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)),
        _ => return Err(KeyError::RsaExponent { found: "too large".into() }),
    };
    if value % 2 == 0 || !(MIN_EXPONENT..MAX_EXPONENT).contains(&value) {
        return Err(KeyError::RsaExponent { found: value.to_string() });
    }
    Ok(())
}

/// d mod (p - 1).
fn reduce(d: &[u8], p: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (d, mut p) = (trim(d), Zeroizing::new(trim(p).to_vec()));
    // p is an odd prime, so p - 1 only clears its last bit.
    match p.last_mut() {
        Some(last) if *last % 2 == 1 => *last &= 0xfe,
        _ => return Err(KeyError::Mismatch),
    }
    let modulus = NonZero::new(BoxedUint::from_be_slice_vartime(&p)).into_option();
    let modulus = Zeroizing::new(modulus.ok_or(KeyError::Mismatch)?);
    let d = Zeroizing::new(BoxedUint::from_be_slice_vartime(d));
    let remainder = Zeroizing::new(d.rem(&modulus));
    let bytes = Zeroizing::new(remainder.to_be_bytes().into_vec());
    Ok(Zeroizing::new(trim(&bytes).to_vec()))
}

/// Without leading zeros.
fn trim(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Bits of a number without leading zeros.
fn bit_len(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

fn is_even(number: &[u8]) -> bool {
    number.last().is_none_or(|last| last % 2 == 0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn keys_are_generated_of_the_size_that_is_asked_for() {
        for (size, bits) in [
            (RsaKeySize::Bits2048, 2048),
            (RsaKeySize::Bits3072, 3072),
            (RsaKeySize::Bits4096, 4096),
            (RsaKeySize::Bits8192, 8192),
        ] {
            assert_eq!(size.of_aws_lc().len() * 8, bits);
        }
    }

    /// The median of many runs.
    #[allow(clippy::disallowed_methods, reason = "a cost is measured")]
    fn cost(key: &RsaPublic, signature: &[u8]) -> Duration {
        let mut times: Vec<_> = (0..201)
            .map(|_| {
                let start = Instant::now();
                assert!(!key.verify(Algorithm::Rs256, b"message", signature));
                start.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    }

    #[test]
    fn a_number_above_the_modulus_costs_what_any_other_does() {
        let mut modulus = vec![0xa5; 256];
        modulus[255] = 0x01;
        let key = RsaPublic::new(&modulus, &[1, 0, 1]).expect("a key");
        let below = cost(&key, &[0x5a; 256]);
        for above in [modulus, vec![0xff; 256]] {
            let above = cost(&key, &above);
            // Without the arithmetic it is a hundredth; a busy machine does not make it a tenth.
            assert!(above * 10 > below, "{above:?} above, {below:?} below");
        }
    }
}
