use std::time::Duration;

use ajwt_core::{Algorithm, Timestamp, TokenError, UntrustedToken, Validation};

use crate::{fixed, model};

/// Stands between header and payload: no byte of UTF-8.
pub(crate) const SEPARATOR: u8 = 0xff;

const TOLERANCE: Duration = Duration::from_secs(20);

/// Header and payload as JSON, signed with a known key: what is accepted, and what every claim is taken
/// for, is what `serde_json` reads. Without a separator all of it is the payload.
pub fn claims(data: &[u8]) {
    let (header, payload) = match data.iter().position(|byte| *byte == SEPARATOR) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (br#"{"alg":"EdDSA"}"#.as_slice(), data),
    };
    let expected = model::Header::parse(header).zip(model::Claims::parse(payload));
    let algorithm = expected.as_ref().map_or(Algorithm::EdDsa, |(header, _)| header.algorithm);
    let text = fixed::sign(algorithm, header, payload);
    let read = UntrustedToken::parse(&text);
    if text.len() > model::MAX_LEN {
        assert!(matches!(read, Err(TokenError::TooLong { .. })));
        return;
    }
    match (&read, &expected) {
        (Ok(read), Some((header, claims))) => {
            assert_eq!(read.algorithm(), header.algorithm);
            assert_eq!(read.key_id(), header.key_id.as_deref());
            assert_eq!(read.claimed_username().as_str(), claims.username);
            check_at_edges(read, claims);
        }
        (Err(error), None) => crate::check_error(error),
        _ => panic!("{read:?}, expected {expected:?}"),
    }
}

/// Looks at the claims around each moment at which one of them changes the answer.
fn check_at_edges(read: &UntrustedToken<'_>, claims: &model::Claims) {
    let tolerance = 20_000;
    let in_ms = |seconds: i64| i128::from(seconds) * 1000;
    let mut edges = vec![0];
    edges.extend([-tolerance, 0, tolerance].map(|offset| in_ms(claims.time) + offset));
    edges.extend(claims.expires.map(in_ms));
    edges.extend(claims.not_before.into_iter().chain(claims.issued_at).map(|at| in_ms(at) - tolerance));
    for edge in edges {
        for now in [edge - 1, edge, edge + 1] {
            let now = i64::try_from(now).unwrap_or(if now > 0 { i64::MAX } else { i64::MIN });
            for (audience, allow_missing) in [(None, false), (Some("a"), false), (Some("a"), true)] {
                let mut validation = Validation::default().with_tolerance(TOLERANCE).expect("a tolerance");
                if let Some(audience) = audience {
                    validation = validation.with_audience(audience).expect("an audience");
                }
                if allow_missing {
                    validation = validation.allow_missing_audience();
                }
                let checked = read.check_claims(&validation, Timestamp::from_millis(now));
                assert_eq!(told(&checked), due(claims, now, audience, allow_missing), "{claims:?} at {now}");
                if checked.is_ok() {
                    verify(read, claims, &validation, now);
                }
            }
        }
    }
}

fn verify(read: &UntrustedToken<'_>, claims: &model::Claims, validation: &Validation, now: i64) {
    let key = fixed::key_of(read.algorithm()).public_key();
    let token =
        read.verify(key, validation, Timestamp::from_millis(now)).expect("it is signed with this key");
    assert_eq!(token.username().as_str(), claims.username);
    assert_eq!(token.time(), claims.time);
    assert_eq!(token.nonce().as_str(), claims.nonce);
    assert_eq!(token.algorithm(), read.algorithm());
    let audiences = claims.audiences.iter().flatten();
    assert!(token.audiences().eq(audiences.map(String::as_str)));
}

fn told(checked: &Result<(), TokenError>) -> &'static str {
    match checked {
        Ok(()) => "good",
        Err(TokenError::Window { .. }) => "window",
        Err(TokenError::Expired) => "expired",
        Err(TokenError::NotYetValid(name)) => name,
        Err(TokenError::Audience) => "audience",
        Err(_) => "another error",
    }
}

fn due(claims: &model::Claims, now: i64, audience: Option<&str>, allow_missing: bool) -> &'static str {
    let now = i128::from(now);
    // Distance in ms from a claim to now, positive where it lies in the past.
    let since = |seconds: i64| now - i128::from(seconds) * 1000;
    if !(-20_000..=20_000).contains(&since(claims.time)) {
        "window"
    } else if claims.expires.is_some_and(|at| since(at) >= 0) {
        "expired"
    } else if claims.not_before.is_some_and(|at| since(at) < -20_000) {
        "nbf"
    } else if claims.issued_at.is_some_and(|at| since(at) < -20_000) {
        "iat"
    } else {
        let is_good = match (&claims.audiences, audience) {
            (None, None) => true,
            (None, Some(_)) => allow_missing,
            (Some(_), None) => false,
            (Some(named), Some(ours)) => named.iter().any(|named| named == ours),
        };
        if is_good { "good" } else { "audience" }
    }
}
