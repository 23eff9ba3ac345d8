//! The value of the `Authorization` header (RFC 9110 section 11.4).

use ajwt_core::TokenError;

use crate::Reason;

/// Bytes that the value may have, the scheme included.
const MAX_LEN: usize = 8192;

/// The token in the values of all `Authorization` headers of a request. It is not empty; whether its characters are
/// those of a token is seen when it is read.
pub(crate) fn token<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    scheme: &str,
) -> Result<&'a [u8], Reason> {
    let mut values = values.into_iter();
    let value = values.next().ok_or(Reason::NoCredentials)?;
    if values.next().is_some() {
        // Which of them a proxy in front looked at is not known.
        return Err(Reason::SeveralHeaders);
    }
    let (found, rest) = match value.iter().position(|byte| *byte == b' ') {
        Some(space) => value.split_at(space),
        None => (value, [].as_slice()),
    };
    if !found.eq_ignore_ascii_case(scheme.as_bytes()) {
        return Err(Reason::NoCredentials);
    }
    match rest {
        [b' ', token @ ..] if value.len() <= MAX_LEN && !token.is_empty() => Ok(token),
        _ => Err(Reason::MalformedHeader),
    }
}

/// Why a token cannot be read. One with other characters than those of a token is the header's fault; none that can be
/// read has any, for it is base64url and full stops.
pub(crate) fn unreadable(token: &[u8], error: TokenError) -> Reason {
    let is_token_char = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    if token.iter().all(is_token_char) { error.into() } else { Reason::MalformedHeader }
}

/// Whether a scheme can be told apart in a header: a token of RFC 9110 section 5.6.2.
pub(crate) fn is_scheme(scheme: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !scheme.is_empty() && scheme.bytes().all(is_tchar)
}
