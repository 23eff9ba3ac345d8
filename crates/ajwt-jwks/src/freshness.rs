use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AGE, CACHE_CONTROL, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED},
};

/// Bytes of a validator that are kept: they are sent back with each request.
const MAX_VALIDATOR_LEN: usize = 1024;

/// What a set is asked for anew with (RFC 9110 section 8.8): its `ETag` and `Last-Modified`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Validators {
    /// Those of an answer. Ones of more than 1 KiB are left out.
    pub(crate) fn of_response(headers: &HeaderMap) -> Self {
        let validator = |name: HeaderName| {
            let value = headers.get(name).map(HeaderValue::as_bytes)?;
            let is_kept = !value.is_empty() && value.len() <= MAX_VALIDATOR_LEN;
            // Copied: a clone is a part of what was read from the connection, and would keep all of the head.
            is_kept.then(|| HeaderValue::from_bytes(value).ok()).flatten()
        };
        Self { etag: validator(ETAG), last_modified: validator(LAST_MODIFIED) }
    }

    /// The headers that make a request conditional.
    pub(crate) fn to_headers(&self) -> HeaderMap {
        let etag = self.etag.clone().map(|value| (IF_NONE_MATCH, value));
        let last_modified = self.last_modified.clone().map(|value| (IF_MODIFIED_SINCE, value));
        etag.into_iter().chain(last_modified).collect()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// These, and where one is missing the other's: a 304 need not repeat them.
    pub(crate) fn or(self, other: &Self) -> Self {
        Self {
            etag: self.etag.or_else(|| other.etag.clone()),
            last_modified: self.last_modified.or_else(|| other.last_modified.clone()),
        }
    }
}

/// For how long an answer is fresh by its `Cache-Control` and `Age` (RFC 9111 sections 4.2 and 5.2.2).
/// `None`: it does not say.
pub(crate) fn fresh_for(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives = values.flat_map(|value| value.split(',')).map(|directive| {
        let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
        (name.trim(), argument.trim().trim_matches('"'))
    });
    let lifetimes = directives.filter_map(|(name, argument)| {
        if ["no-store", "no-cache"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") { seconds(argument) } else { None }
    });
    // Of several the shortest.
    let lifetime = lifetimes.min()?;
    let age = headers.get(AGE).and_then(|value| seconds(value.to_str().ok()?)).unwrap_or_default();
    Some(lifetime.saturating_sub(age))
}

/// Non-negative decimal seconds, however many.
fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn cache_control_is_read_as_rfc_9111_says() {
        for (value, due) in [
            ("max-age=60", Some(60)),
            ("public, MAX-AGE=60", Some(60)),
            ("private,max-age=\"60\" , must-revalidate", Some(60)),
            ("max-age=60, max-age=30", Some(30)),
            ("max-age=0", Some(0)),
            ("no-cache", Some(0)),
            ("max-age=600, no-store", Some(0)),
            ("no-cache=\"set-cookie\", max-age=600", Some(0)),
            ("max-age=99999999999999999999999999", Some(u64::from(u32::MAX))),
            ("max-age=-1", None),
            ("max-age=1.5", None),
            ("max-age", None),
            ("s-maxage=60", None),
            ("x-max-age=60", None),
            ("public", None),
            ("", None),
            (",,=,", None),
        ] {
            let found = fresh_for(&headers(&[("cache-control", value)]));
            assert_eq!(found, due.map(Duration::from_secs), "{value:?}");
        }
        assert_eq!(fresh_for(&HeaderMap::new()), None);
        for (age, due) in [("20", 40), ("60", 0), ("61", 0), ("x", 60), ("", 60)] {
            let headers = headers(&[("cache-control", "max-age=60"), ("age", age)]);
            assert_eq!(fresh_for(&headers), Some(Duration::from_secs(due)), "{age:?}");
        }
        let mut several = headers(&[("cache-control", "public")]);
        several.append(CACHE_CONTROL, HeaderValue::from_static("max-age=7"));
        several.append(CACHE_CONTROL, HeaderValue::from_bytes(b"\xff").expect("bytes"));
        assert_eq!(fresh_for(&several), Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_is_kept_of_an_answer_keeps_no_more_of_it() {
        let head = Bytes::from(vec![b'x'; 400_000]);
        let mut headers = HeaderMap::new();
        for (name, part) in [(ETAG, 0..10), (LAST_MODIFIED, 10..20)] {
            headers.insert(name, HeaderValue::from_maybe_shared(head.slice(part)).expect("a value"));
        }
        assert!(!head.is_unique());
        let validators = Validators::of_response(&headers);
        drop(headers);
        assert!(head.is_unique());
        assert_eq!(validators.to_headers().len(), 2);
    }

    #[test]
    fn long_validators_are_not_sent_back() {
        let long = "x".repeat(MAX_VALIDATOR_LEN + 1);
        assert!(Validators::of_response(&headers(&[("etag", &long), ("last-modified", "")])).is_empty());
        assert!(!Validators::of_response(&headers(&[("etag", &long[1..])])).is_empty());
        let some = Validators::of_response(&headers(&[("etag", "\"1\""), ("last-modified", "then")]));
        assert_eq!(some.to_headers(), headers(&[("if-none-match", "\"1\""), ("if-modified-since", "then")]));
        let newer = Validators::of_response(&headers(&[("etag", "\"2\"")]));
        assert_eq!(
            newer.or(&some).to_headers(),
            headers(&[("if-none-match", "\"2\""), ("if-modified-since", "then")])
        );
    }
}
