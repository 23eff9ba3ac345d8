//! JWS compact serialisation (RFC 7515 section 7.1) and its base64url (section 2).

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// base64url without padding in which every value has exactly one spelling: unused trailing bits
/// must be zero, so that nobody can make a second text of one token.
pub(crate) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// The three segments of a compact JWS.
pub(crate) struct Compact<'a> {
    /// What the signature is over: header and payload as they stand, with the full stop between.
    pub(crate) signing_input: &'a str,
    pub(crate) header: &'a str,
    pub(crate) payload: &'a str,
    pub(crate) signature: &'a str,
}

/// Splits at exactly two full stops.
pub(crate) fn split(token: &str) -> Option<Compact<'_>> {
    let (signing_input, signature) = token.rsplit_once('.')?;
    let (header, payload) = signing_input.split_once('.')?;
    (!payload.contains('.')).then_some(Compact { signing_input, header, payload, signature })
}

/// Decodes one segment.
pub(crate) fn decode(segment: &str) -> Option<Vec<u8>> {
    BASE64URL.decode(segment).ok()
}
