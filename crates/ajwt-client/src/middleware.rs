use std::{num::IntErrorKind, time::Duration};

use ajwt_core::Timestamp;
use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use http::{
    Extensions, HeaderMap, StatusCode,
    header::{DATE, RETRY_AFTER},
};
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::{ClockSkewError, OriginSigner, clock, origin::Target, origin_signer::Attempt};

/// Signs each request that passes, for `reqwest_middleware`.
///
/// Attach it after a retry middleware, that is, within it: then each attempt has a token of its own.
/// Build the client with `redirect::Policy::none()` and `retry(reqwest::retry::never())`, for reqwest
/// follows redirects, and repeats what a server refused by the protocol's own means (`REFUSED_STREAM` of
/// HTTP/2), beneath the middleware: it sends the same token again. And with `no_proxy()`, for a proxy that the
/// environment names (`HTTP_PROXY`) reads the tokens of plain http, also those for `http://127.0.0.1`, which
/// would else not leave the host. A proxy that you trust with them is named after that call.
/// [`ClientBuilder`](crate::ClientBuilder) does all of this.
///
/// A request that may not be signed is not sent: the error is a
/// [`SigningError`](crate::SigningError). A 401 of a server whose clock is apart from ours is a
/// [`ClockSkewError`]. Both are found by `downcast_ref` in [`Error::Middleware`].
#[derive(Debug)]
pub struct SigningMiddleware(OriginSigner);

impl SigningMiddleware {
    /// Signs as this does.
    #[must_use]
    pub const fn new(signer: OriginSigner) -> Self {
        Self(signer)
    }

    /// Signs, sends, and looks at the clock of who refuses. `None` is a request that was not signed
    /// by us, or nothing to say.
    async fn attempt(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<(Response, Option<ClockSkewError>)> {
        let url = request.url().clone();
        let signed = self.0.sign(Target::of_url(&url), request.headers_mut()).await;
        let attempt: Option<Attempt> = signed.map_err(Error::middleware)?;
        let response = next.run(request, extensions).await?;
        let skew =
            attempt.and_then(|attempt| self.0.clock_skew(&attempt, response.status(), response.headers()));
        Ok((response, skew))
    }
}

#[async_trait]
impl Middleware for SigningMiddleware {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let again = if self.0.follows_clocks() { request.try_clone() } else { None };
        let (mut response, mut skew) = self.attempt(request, extensions, next.clone()).await?;
        let is_repeatable = |request: &Request, skew: &ClockSkewError| {
            // What was refused for its date was not carried out, whatever the method.
            skew.is_corrected() && (request.method().is_idempotent() || skew.is_out_of_window())
        };
        let again = again.filter(|again| skew.as_ref().is_some_and(|skew| is_repeatable(again, skew)));
        if let Some(again) = again {
            (response, skew) = self.attempt(again, extensions, next).await?;
        }
        skew.map_or(Ok(response), |skew| Err(Error::middleware(skew)))
    }
}

/// Sends idempotent requests (RFC 9110 section 9.2.2) again when the connection failed, and on 502,
/// 503 and 504. A request whose body is a stream is sent once.
#[derive(Debug)]
pub(crate) struct RetryMiddleware {
    pub(crate) retries: usize,
}

impl RetryMiddleware {
    const MIN_DELAY: Duration = Duration::from_millis(100);
    /// Also how long a server may ask us to wait.
    const MAX_DELAY: Duration = Duration::from_secs(5);
}

#[async_trait]
impl Middleware for RetryMiddleware {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if !request.method().is_idempotent() {
            return next.run(request, extensions).await;
        }
        let backoff = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(Self::MIN_DELAY)
            .with_max_delay(Self::MAX_DELAY)
            .with_max_times(self.retries);
        for delay in backoff.build() {
            let Some(copy) = request.try_clone() else { break };
            let result = next.clone().run(copy, extensions).await;
            let Some(asked) = transient(&result).filter(|asked| *asked <= Self::MAX_DELAY) else {
                return result;
            };
            // Its connection is of no use any more, for its body is not read.
            drop(result);
            // What is asked for is the same for all: without the random part they would come back as one.
            let delay = asked.saturating_add(delay);
            tracing::debug!(?delay, "a request failed and is sent again");
            tokio::time::sleep(delay).await;
        }
        next.run(request, extensions).await
    }
}

/// How long to wait at least, if another attempt may succeed.
fn transient(result: &Result<Response>) -> Option<Duration> {
    match result {
        Ok(response) => match response.status() {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Some(retry_after(response.headers()))
            }
            _ => None,
        },
        // A server that is too slow is not helped by being asked again.
        Err(Error::Reqwest(error)) if error.is_connect() || (error.is_request() && !error.is_timeout()) => {
            Some(Duration::ZERO)
        }
        Err(_) => None,
    }
}

/// `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3). A date is told from the server's own,
/// if it sent one: its clock and ours may be apart.
fn retry_after(headers: &HeaderMap) -> Duration {
    let header = |name| headers.get(name)?.to_str().ok();
    let date = |text| httpdate::parse_http_date(text).ok().map(Timestamp::from);
    let Some(asked) = header(RETRY_AFTER) else { return Duration::ZERO };
    match asked.parse::<u64>() {
        Ok(seconds) => return Duration::from_secs(seconds),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => return Duration::MAX,
        Err(_) => {}
    }
    let Some(then) = date(asked) else { return Duration::ZERO };
    let now = header(DATE).and_then(date).unwrap_or_else(clock::now);
    then.saturating_duration_since(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after() {
        let headers = |asked: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, asked.parse().expect("a value"));
            if let Some(date) = date {
                headers.insert(http::header::DATE, date.parse().expect("a value"));
            }
            headers
        };
        const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (asked, due) in [
            ("0", Duration::ZERO),
            ("120", Duration::from_secs(120)),
            ("99999999999999999999", Duration::MAX),
            ("Sun, 06 Nov 1994 08:49:39 GMT", Duration::from_secs(2)),
            ("Sunday, 06-Nov-94 08:49:39 GMT", Duration::from_secs(2)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Duration::ZERO),
            ("soon", Duration::ZERO),
            ("-1", Duration::ZERO),
            ("-99999999999999999999", Duration::ZERO),
        ] {
            assert_eq!(retry_after(&headers(asked, Some(DATE))), due, "{asked}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), Duration::ZERO);

        // By our own clock where there is no other.
        for date in [None, Some("today")] {
            assert_eq!(retry_after(&headers(DATE, date)), Duration::ZERO);
            let far = retry_after(&headers("Fri, 01 Jan 9999 00:00:00 GMT", date));
            assert!(far > Duration::from_secs(1 << 32), "{far:?}");
        }
    }
}
