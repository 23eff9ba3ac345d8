//! JWS compact serialisation (RFC 7515 section 7.1) and its base64url (section 2).

#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
use std::sync::LazyLock;

use base64::{
    Engine as _,
    engine::{self, DecodePaddingMode, GeneralPurposeConfig},
};

/// base64url without padding in which every value has exactly one spelling: unused trailing bits
/// must be zero, so that nobody can make a second text of one token.
const STRICT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::RequireNone)
    .with_decode_allow_trailing_bits(false);

/// One character at a time, on every processor.
#[cfg(any(test, not(any(target_arch = "aarch64", target_arch = "x86_64"))))]
const SCALAR: engine::GeneralPurpose = engine::GeneralPurpose::new(&base64::alphabet::URL_SAFE, STRICT);

/// base64url as JOSE has it, with the vector instructions that the processor has.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub(crate) static BASE64URL: LazyLock<engine::Simd> = LazyLock::new(|| engine::Simd::url_safe(STRICT));

/// base64url as JOSE has it.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
pub(crate) static BASE64URL: engine::GeneralPurpose = SCALAR;

/// The three segments of a compact JWS.
pub(crate) struct Compact<'a> {
    /// What the signature is over: header and payload as they stand, with the full stop between.
    pub(crate) signing_input: &'a [u8],
    pub(crate) header: &'a [u8],
    pub(crate) payload: &'a [u8],
    /// All after the second full stop: a third is no base64url.
    pub(crate) signature: &'a [u8],
}

/// Splits at the first two full stops.
pub(crate) fn split(token: &[u8]) -> Option<Compact<'_>> {
    let mut full_stops = memchr::memchr_iter(b'.', token);
    let (first, second) = (full_stops.next()?, full_stops.next()?);
    let (signing_input, signature) = token.split_at_checked(second)?;
    let (header, payload) = signing_input.split_at_checked(first)?;
    Some(Compact {
        signing_input,
        header,
        payload: payload.strip_prefix(b".")?,
        signature: signature.strip_prefix(b".")?,
    })
}

/// Decodes one segment to the end of `into`. `None`: it is not strict base64url.
pub(crate) fn decode_to(segment: &[u8], into: &mut Vec<u8>) -> Option<()> {
    BASE64URL.decode_vec(segment, into).ok()
}

/// Decodes one segment. `None`: it is not strict base64url.
pub(crate) fn decode(segment: &str) -> Option<Vec<u8>> {
    BASE64URL.decode(segment).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length up to four blocks of the widest vectors and a tail, every byte in every place.
    #[test]
    fn vectors_decode_as_one_character_at_a_time_does() {
        for len in 0..=140 {
            let text: String = (0..len).map(|at: usize| char::from(b"AZaz09-_Q"[at * at % 9])).collect();
            assert_eq!(decode(&text), SCALAR.decode(&text).ok(), "{text}");
            for at in 0..len {
                for byte in 0..=255 {
                    let mut changed = text.clone().into_bytes();
                    changed[at] = byte;
                    assert_eq!(BASE64URL.decode(&changed).ok(), SCALAR.decode(&changed).ok(), "{changed:?}");
                }
            }
        }
    }

    #[test]
    fn vectors_encode_as_one_character_at_a_time_does() {
        for len in 0..=300_usize {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len).to_le_bytes()[0]).collect();
            let text = BASE64URL.encode(&bytes);
            assert_eq!(text, SCALAR.encode(&bytes));
            assert_eq!(decode(&text), Some(bytes));
        }
    }
}
