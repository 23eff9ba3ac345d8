//! Stand-ins for keys that a user does not have, so that a refusal costs the same work whoever the
//! token claims to be from.

use std::{fmt, sync::OnceLock};

use ajwt_core::{Algorithm, GenerateError, MAX_RSA_BITS, MIN_RSA_BITS, PrivateKey, PublicKey};

/// Bytes of the shortest RSA signature.
const MIN_RSA_LEN: usize = MIN_RSA_BITS / 8;

/// Bytes of the longest RSA signature.
const MAX_RSA_LEN: usize = MAX_RSA_BITS / 8;

/// 65537, big-endian.
const EXPONENT: [u8; 3] = [1, 0, 1];

pub(crate) struct Decoys {
    ed25519: PublicKey,
    /// One for each length of signature, made at its first use.
    rsa: Box<[OnceLock<Option<PublicKey>>]>,
}

impl Decoys {
    pub(crate) fn new() -> Result<Self, GenerateError> {
        let ed25519 = PrivateKey::generate_ed25519()?.public_key().clone();
        Ok(Self { ed25519, rsa: (MIN_RSA_LEN..=MAX_RSA_LEN).map(|_| OnceLock::new()).collect() })
    }

    /// A key that makes signatures of this length by this algorithm. `None` for lengths that no
    /// key makes, which are refused long before.
    pub(crate) fn key(&self, algorithm: Algorithm, signature_len: usize) -> Option<&PublicKey> {
        match algorithm {
            Algorithm::EdDsa => Some(&self.ed25519),
            Algorithm::Rs512 | Algorithm::Rs384 | Algorithm::Rs256 => {
                let slot = self.rsa.get(signature_len.checked_sub(MIN_RSA_LEN)?)?;
                slot.get_or_init(|| rsa(signature_len)).as_ref()
            }
        }
    }
}

/// A random odd number of that length in place of a modulus: a check costs what it costs with a
/// product of primes, and making it costs next to nothing.
fn rsa(len: usize) -> Option<PublicKey> {
    let mut modulus = vec![0xa5; len];
    // Without random bytes the number is a known one, which is as good for its purpose.
    let _ = getrandom::fill(&mut modulus);
    *modulus.first_mut()? |= 0x80;
    *modulus.last_mut()? |= 1;
    PublicKey::from_rsa_components(&modulus, &EXPONENT).ok()
}

impl fmt::Debug for Decoys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_decoy_for_every_signature_that_is_looked_at() {
        let decoys = Decoys::new().expect("decoys");
        for len in 0..2000 {
            for algorithm in Algorithm::ALL {
                if PublicKey::is_signature_len(algorithm, len) {
                    let key = decoys.key(algorithm, len).expect("a decoy");
                    assert_eq!(key.signature_len(), len);
                    assert!(key.algorithms().contains(&algorithm));
                }
            }
        }
        // 2048 to 8192 bits.
        assert_eq!(decoys.rsa.len(), 769);
    }
}
