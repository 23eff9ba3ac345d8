//! Ed25519 keys (RFC 8032, RFC 8410).

mod comb;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use curve25519_dalek::edwards::CompressedEdwardsY;
use zeroize::Zeroizing;

use crate::{Algorithm, ExportError, GenerateError, KeyError, SignError};

/// Bytes of a public key and of a seed.
pub(super) const KEY_LEN: usize = 32;

/// Bytes of a signature.
pub(super) const SIGNATURE_LEN: usize = 64;

/// SubjectPublicKeyInfo up to the key's 32 bytes (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// PKCS#8 v1 up to the seed's 32 bytes (RFC 8410 section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

pub(super) struct Ed25519Public {
    bytes: [u8; KEY_LEN],
    check: Check,
}

enum Check {
    Plain(ParsedPublicKey),
    Precomputed(comb::Precomputed),
}

impl Ed25519Public {
    pub(super) fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        let problem = |problem| KeyError::Ed25519Point { problem };
        let bytes: [u8; KEY_LEN] = bytes.try_into().map_err(|_| problem("not 32 bytes long"))?;
        // aws-lc looks at none of this: under a point of small order, signatures verify that
        // nobody made with a key.
        let compressed = CompressedEdwardsY(bytes);
        let point = compressed.decompress().ok_or_else(|| problem("no point of the curve"))?;
        if point.compress() != compressed {
            return Err(problem("not in its canonical form"));
        }
        if point.is_small_order() {
            return Err(problem("a point of small order, under which signatures can be forged"));
        }
        let parsed = ParsedPublicKey::new(&ED25519, bytes)
            .map_err(|_| problem("refused by the cryptographic library"))?;
        Ok(Self { bytes, check: Check::Plain(parsed) })
    }

    /// The same key, which verifies by a table.
    pub(super) fn precomputed(&self) -> Option<Self> {
        comb::Precomputed::new(self.bytes)
            .map(|check| Self { bytes: self.bytes, check: Check::Precomputed(check) })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn to_spki_der(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.bytes].concat()
    }

    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        algorithm == Algorithm::EdDsa
            && match &self.check {
                Check::Plain(parsed) => parsed.verify_sig(message, signature).is_ok(),
                Check::Precomputed(precomputed) => precomputed.verify(message, signature),
            }
    }
}

pub(super) struct Ed25519Private(Ed25519KeyPair);

impl Ed25519Private {
    pub(super) fn generate() -> Result<(Self, Ed25519Public), GenerateError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| GenerateError)?;
        let public = Ed25519Public::new(pair.public_key().as_ref()).map_err(|_| GenerateError)?;
        Ok((Self(pair), public))
    }

    /// From the 32-byte seed, and the public key where the file has one.
    pub(super) fn new(seed: &[u8], public: Option<&[u8]>) -> Result<(Self, Ed25519Public), KeyError> {
        if seed.len() != KEY_LEN {
            let detail = format!("the private key has {} bytes; 32 are due", seed.len());
            return Err(KeyError::malformed("Ed25519 private key", detail));
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Mismatch)?;
        if public.is_some_and(|public| public != pair.public_key().as_ref()) {
            return Err(KeyError::Mismatch);
        }
        let public = Ed25519Public::new(pair.public_key().as_ref())?;
        Ok((Self(pair), public))
    }

    pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, SignError> {
        if algorithm != Algorithm::EdDsa {
            return Err(SignError::KeyAlgorithm(algorithm));
        }
        let signature = self.0.try_sign(message).map_err(|_| SignError::Library)?;
        Ok(signature.as_ref().to_vec())
    }

    pub(super) fn seed(&self) -> Result<Zeroizing<[u8; KEY_LEN]>, ExportError> {
        // Not by aws-lc's `seed`, which leaves a copy behind that nobody wipes.
        let pkcs8 = self.to_pkcs8_der()?;
        let seed = pkcs8.strip_prefix(&PKCS8_PREFIX).and_then(|seed| seed.try_into().ok());
        Ok(Zeroizing::new(seed.ok_or_else(ExportError::without_source)?))
    }

    /// PKCS#8 v1, which every other library reads; v2 is not.
    pub(super) fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, ExportError> {
        let document = self.0.to_pkcs8v1().map_err(ExportError::new)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }
}
