//! Ed25519 checks with multiples of the key computed beforehand.
//!
//! A check is `encode(s B - k A) == R` (RFC 8032 section 5.1.7, without the cofactor, as aws-lc does
//! it). With all multiples `d 64^i` of both points at hand it is 86 additions and no doubling.
//! All of it is public, so nothing here takes the same time for all input.

use std::sync::LazyLock;

use aws_lc_rs::digest::{Context, SHA512};
use curve25519_dalek::{
    EdwardsPoint, Scalar, constants::ED25519_BASEPOINT_POINT, edwards::CompressedEdwardsY,
    traits::Identity as _,
};

use super::{KEY_LEN, SIGNATURE_LEN};

const WINDOW_BITS: usize = 6;

/// A scalar is below 2^253: nothing is carried out of the last window.
const WINDOWS: usize = 43;

/// Multiples of a window: digits are signed, from -32 to 32.
const MULTIPLES: usize = 1 << (WINDOW_BITS - 1);

static BASE: LazyLock<Comb> = LazyLock::new(|| Comb::new(ED25519_BASEPOINT_POINT));

/// The multiples of a point, 215 KiB.
struct Comb(Box<[[EdwardsPoint; MULTIPLES]]>);

impl Comb {
    fn new(point: EdwardsPoint) -> Self {
        let mut first = point;
        let windows = (0..WINDOWS).map(|_| {
            let mut multiple = EdwardsPoint::identity();
            let multiples = [(); MULTIPLES].map(|()| {
                multiple += first;
                multiple
            });
            // The last is 32 times the first, the next window's first is 64 times.
            first = multiple + multiple;
            multiples
        });
        Self(windows.collect())
    }

    /// The multiples whose sum is that by the scalar, and which of them are to be taken off. They are copied
    /// here, all at once, so that the waits for memory overlap instead of coming before each addition.
    fn terms(&self, scalar: &Scalar) -> [Option<(EdwardsPoint, bool)>; WINDOWS] {
        let mut terms = [None; WINDOWS];
        for (window, (term, digit)) in terms.iter_mut().zip(digits(scalar)).enumerate() {
            *term = self.multiple(window, digit).map(|multiple| (*multiple, digit < 0));
        }
        terms
    }

    /// The multiple of a window's point by its digit. Zero has none.
    fn multiple(&self, window: usize, digit: i8) -> Option<&EdwardsPoint> {
        let index = usize::from(digit.unsigned_abs()).checked_sub(1)?;
        self.0.get(window)?.get(index)
    }
}

/// The checks of one key.
pub(super) struct Precomputed {
    key: [u8; KEY_LEN],
    negated: Comb,
}

impl Precomputed {
    /// `None` if the bytes are no point of the curve.
    pub(super) fn new(key: [u8; KEY_LEN]) -> Option<Self> {
        let point = CompressedEdwardsY(key).decompress()?;
        // Else the first check would make it.
        LazyLock::force(&BASE);
        Some(Self { key, negated: Comb::new(-point) })
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = <&[u8; SIGNATURE_LEN]>::try_from(signature) else { return false };
        let (encoded, s) = signature.split_at(KEY_LEN);
        let Some(s) = s.try_into().ok().and_then(|s| Scalar::from_canonical_bytes(s).into_option()) else {
            return false;
        };
        let mut hash = Context::new(&SHA512);
        for part in [encoded, &self.key, message] {
            hash.update(part);
        }
        let hash = hash.finish();
        let Ok(hash) = hash.as_ref().try_into() else { return false };
        let k = Scalar::from_bytes_mod_order_wide(hash);

        let terms = [BASE.terms(&s), self.negated.terms(&k)];
        let mut sum = EdwardsPoint::identity();
        for (multiple, negative) in terms.iter().flatten().flatten() {
            if *negative {
                sum -= multiple;
            } else {
                sum += multiple;
            }
        }
        sum.compress().as_bytes() == encoded
    }
}

/// The digits of a scalar to the base of 64, the lowest first, from -32 to 32.
fn digits(scalar: &Scalar) -> [i8; WINDOWS] {
    let bytes = scalar.as_bytes();
    let byte = |index: usize| u16::from(bytes.get(index).copied().unwrap_or_default());
    let mut digits = [0; WINDOWS];
    let mut carry = 0;
    for (window, digit) in digits.iter_mut().enumerate() {
        let bit = window * WINDOW_BITS;
        let pair = byte(bit / 8) | byte(bit / 8 + 1) << 8;
        // At most 63 and 1.
        let value = ((pair >> (bit % 8)) & 63) as i8 + carry;
        carry = i8::from(value > 32);
        *digit = value - 64 * carry;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_make_their_scalar() {
        let mut scalar = Scalar::from(7_u64);
        let largest = -Scalar::ONE;
        for _ in 0..200 {
            for scalar in [scalar, largest, largest - scalar, Scalar::ZERO, Scalar::ONE] {
                let digits = digits(&scalar);
                let sum = digits.iter().rev().fold(Scalar::ZERO, |sum, digit| {
                    let magnitude = Scalar::from(digit.unsigned_abs());
                    assert!(digit.unsigned_abs() <= 32, "{digits:?}");
                    sum * Scalar::from(64_u8) + if *digit < 0 { -magnitude } else { magnitude }
                });
                assert_eq!(sum, scalar);
            }
            scalar *= scalar + Scalar::ONE;
        }
    }

    /// Keys of small order, which are refused when they are loaded: under them much verifies that nobody
    /// signed. What aws-lc says, a table says.
    #[test]
    fn odd_points_verify_what_they_verify_without_a_table() {
        use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
        use curve25519_dalek::constants::EIGHT_TORSION;

        let mut accepted = 0;
        for key in EIGHT_TORSION.map(|point| point.compress().to_bytes()) {
            let plain = ParsedPublicKey::new(&ED25519, key).expect("any bytes will do");
            let precomputed = Precomputed::new(key).expect("a point");
            for r in EIGHT_TORSION.map(|point| point.compress().to_bytes()) {
                for message in 0..16_u8 {
                    let signature = [r, [0; 32]].concat();
                    let verifies = precomputed.verify(&[message], &signature);
                    assert_eq!(verifies, plain.verify_sig(&[message], &signature).is_ok());
                    accepted += usize::from(verifies);
                }
            }
        }
        assert!(accepted > 100, "{accepted}");
    }

    #[test]
    fn multiples_are_those_of_their_point() {
        let comb = Comb::new(ED25519_BASEPOINT_POINT);
        let mut power = Scalar::ONE;
        for window in 0..WINDOWS {
            for digit in [1_i8, 7, 32] {
                let due = EdwardsPoint::mul_base(&(power * Scalar::from(digit.unsigned_abs())));
                assert_eq!(comb.multiple(window, digit), Some(&due), "{digit} in window {window}");
            }
            power *= Scalar::from(64_u8);
        }
        assert!(comb.multiple(0, 0).is_none());
    }
}
