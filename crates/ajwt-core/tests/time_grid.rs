//! The arithmetic of time over whole grids: each edge to the millisecond, and both ends of what numbers
//! hold, against the rules of RFC 7519 and of the window in numbers that cannot overflow.

use std::time::Duration;

use ajwt_core::{Algorithm, PrivateKey, Timestamp, TokenError, UntrustedToken, Validation, ValidationError};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Seconds: those about a time of our days and about zero, and the ends of i64 and of what is seconds
/// when it is milliseconds.
fn seconds() -> Vec<i64> {
    let near = [-3601, -3600, -21, -20, -1, 0, 1, 20, 21, 3600, 3601];
    let ends = [
        i64::MIN,
        i64::MIN + 1,
        i64::MIN / 1000 - 1,
        i64::MIN / 1000,
        i64::MAX / 1000,
        i64::MAX / 1000 + 1,
        i64::MAX - 1,
        i64::MAX,
    ];
    [0, 1_790_000_000].into_iter().flat_map(|base| near.map(|offset| base + offset)).chain(ends).collect()
}

/// Milliseconds about each of these seconds, at a distance of about the tolerance, and the ends of i64.
fn moments(seconds: i64, tolerance_ms: i64) -> Vec<i64> {
    let edges = [-tolerance_ms, 0, tolerance_ms, -1000, 1000];
    let near = edges.into_iter().flat_map(|edge| [-1, 0, 1].map(|off| edge.saturating_add(off)));
    let mut moments: Vec<_> = near.map(|off| seconds.saturating_mul(1000).saturating_add(off)).collect();
    moments.extend([i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX]);
    moments
}

/// The rules, in their order.
fn due(time: i64, claims: [Option<i64>; 3], now_ms: i64, tolerance_ms: i64) -> Result<(), &'static str> {
    let (now, tolerance) = (i128::from(now_ms), i128::from(tolerance_ms));
    let ms = |seconds: i64| 1000 * i128::from(seconds);
    let [expires, not_before, issued_at] = claims;
    if ms(time) - now > tolerance || now - ms(time) > tolerance {
        return Err("window");
    }
    match (expires, not_before, issued_at) {
        (Some(at), _, _) if ms(at) <= now => Err("exp"),
        (_, Some(at), _) if ms(at) > now + tolerance => Err("nbf"),
        (_, _, Some(at)) if ms(at) > now + tolerance => Err("iat"),
        _ => Ok(()),
    }
}

/// A parsed token with these claims, and what validation makes of it at each of these moments.
fn check(time: i64, claims: [Option<i64>; 3], tolerance_ms: i64, moments: &[i64], signature: &str) -> usize {
    let tolerance = Duration::from_millis(tolerance_ms.unsigned_abs());
    let validation = Validation::default().with_tolerance(tolerance).expect("a tolerance");
    let mut payload = format!(r#"{{"username":"u","time":{time},"nonce":"n""#);
    for (name, claim) in ["exp", "nbf", "iat"].iter().zip(claims) {
        if let Some(at) = claim {
            payload.push_str(&format!(r#","{name}":{at}"#));
        }
    }
    payload.push('}');
    let token = format!(
        "{}.{}.{signature}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let token = UntrustedToken::parse(&token).expect("the form is right");
    for now in moments {
        let found = match token.check_claims(&validation, Timestamp::from_millis(*now)) {
            Ok(()) => Ok(()),
            Err(TokenError::Window { .. }) => Err("window"),
            Err(TokenError::Expired) => Err("exp"),
            Err(TokenError::NotYetValid(name)) => Err(name),
            Err(other) => panic!("{other}"),
        };
        let due = due(time, claims, *now, tolerance_ms);
        assert_eq!(
            found, due,
            "time {time}, exp, nbf, iat {claims:?}, now {now} ms, tolerance {tolerance_ms} ms"
        );
    }
    moments.len()
}

fn signature() -> String {
    let key = PrivateKey::generate_ed25519().expect("a key");
    URL_SAFE_NO_PAD.encode(key.sign(Algorithm::EdDsa, b"anything").expect("a signature"))
}

/// 1 s, 20 s and 3600 s, one that is no whole second, and what is a millisecond within the bounds.
const TOLERANCES_MS: [i64; 6] = [1000, 1001, 20_000, 20_500, 3_599_999, 3_600_000];

#[test]
fn the_window_at_each_edge_of_each_tolerance() {
    let (signature, mut checked) = (signature(), 0);
    for time in seconds() {
        for tolerance in TOLERANCES_MS {
            checked += check(time, [None; 3], tolerance, &moments(time, tolerance), &signature);
        }
    }
    assert!(checked > 3000, "{checked}");
}

#[test]
fn each_registered_claim_at_each_edge_and_at_the_ends() {
    let (signature, mut checked) = (signature(), 0);
    for tolerance in TOLERANCES_MS {
        for time in [0, 1_790_000_000, i64::MAX / 1000, i64::MIN / 1000] {
            let tolerance_s = tolerance / 1000;
            let near = [-tolerance_s - 1, -tolerance_s, -1, 0, 1, tolerance_s, tolerance_s + 1];
            let near = near.into_iter().chain([2 * tolerance_s, 2 * tolerance_s + 1]);
            let values: Vec<_> = near.map(|off| time.saturating_add(off)).chain(seconds()).collect();
            for (which, value) in (0..3).flat_map(|which| values.iter().map(move |value| (which, *value))) {
                let mut claims = [None; 3];
                claims[which] = Some(value);
                // About the claim's own edges too, where these are within the window.
                let mut moments = moments(time, tolerance);
                moments.extend(self::moments(value, tolerance));
                checked += check(time, claims, tolerance, &moments, &signature);
            }
        }
    }
    assert!(checked > 50_000, "{checked}");
}

#[test]
fn the_claims_together_in_their_order() {
    let (signature, time, tolerance) = (signature(), 1_790_000_000, 20_000);
    let values = [None, Some(time - 21), Some(time), Some(time + 1), Some(time + 20), Some(time + 41)];
    for expires in values {
        for not_before in values {
            for issued_at in values {
                let claims = [expires, not_before, issued_at];
                check(time, claims, tolerance, &moments(time, tolerance), &signature);
            }
        }
    }
}

#[test]
fn a_tolerance_is_within_its_bounds_inclusive() {
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    let nanosecond = Duration::from_nanos(1);
    for tolerance in [second, second + nanosecond, hour - nanosecond, hour] {
        let validation = Validation::default().with_tolerance(tolerance).expect("within the bounds");
        assert_eq!(validation.tolerance(), tolerance);
    }
    for found in [Duration::ZERO, second - nanosecond, hour + nanosecond, Duration::MAX] {
        let due = ValidationError::Tolerance { found, min: second, max: hour };
        assert_eq!(Validation::default().with_tolerance(found).map(drop), Err(due));
    }
}
