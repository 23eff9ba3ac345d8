use ajwt_core::{TokenError, UntrustedToken};

use crate::model;

/// A token as it came in: exactly those are read that the model reads, with the same values, and no
/// token has two spellings.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = UntrustedToken::parse(text);
    if text.len() > model::MAX_LEN {
        assert!(matches!(read, Err(TokenError::TooLong { .. })));
        return;
    }
    let expected = model::segments(text).and_then(|[header, payload, signature]| {
        let (header, claims) = (model::Header::parse(&header)?, model::Claims::parse(&payload)?);
        model::is_signature_len(header.algorithm, signature.len()).then_some((header, claims, signature))
    });
    match (&read, expected) {
        (Ok(read), Some((header, claims, signature))) => {
            assert_eq!(read.algorithm(), header.algorithm);
            assert_eq!(read.key_id(), header.key_id.as_deref());
            assert_eq!(read.claimed_username().as_str(), claims.username);
            assert_eq!(read.signature_len(), signature.len());
        }
        (Err(error), None) => crate::check_error(error),
        (read, expected) => panic!("{read:?}, expected {expected:?}"),
    }
}
