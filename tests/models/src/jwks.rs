//! What the cache of key sets is built on, as little of it as a model needs.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use ajwt_core::JwkSet;

/// Why a fetch failed.
#[derive(Debug)]
pub enum FetchError {
    /// The cache was closed.
    Closed,
    /// The runtime ended.
    Stopped,
    /// The fetch panicked.
    Panic,
    /// 304 without a set.
    NotModified,
    /// The endpoint said so.
    Failed,
}

/// What an endpoint answered.
#[derive(Clone, Debug)]
pub struct JwksResponse {
    /// The set. `None`: the one from before.
    pub set: Option<JwkSet>,
    /// Nothing.
    pub validators: Validators,
    /// How long it is fresh.
    pub fresh_for: Option<Duration>,
}

/// Nothing: no model asks whether a set has changed.
#[derive(Clone, Debug, Default)]
pub struct Validators;

type Fetching = Pin<Box<dyn Future<Output = Result<JwksResponse, FetchError>> + Send>>;

/// Endpoints that do as a model says.
#[derive(Clone)]
pub struct JwksClient {
    fetch: Arc<dyn Fn() -> Fetching + Send + Sync>,
}

impl JwksClient {
    /// What comes of each fetch, whatever its URL.
    #[must_use]
    pub fn new<F: Future<Output = Result<JwksResponse, FetchError>> + Send + 'static>(
        fetch: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self { fetch: Arc::new(move || Box::pin(fetch())) }
    }

    pub(crate) async fn fetch(&self, _: &str, _: &Validators) -> Result<JwksResponse, FetchError> {
        (self.fetch)().await
    }

    /// How long a request waits for a fetch.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        Duration::from_secs(5)
    }
}

impl fmt::Debug for JwksClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksClient").finish_non_exhaustive()
    }
}

pub(crate) mod shown_url {
    pub(crate) fn shown_url(url: &str) -> Box<str> {
        url.into()
    }
}

pub(crate) mod report {
    use crate::{SetSnapshot, WarmUp, cache::endpoint::Outcome};

    /// Tells nobody.
    #[derive(Debug)]
    pub(crate) struct Report {}

    impl Report {
        pub(crate) const fn new() -> Self {
            Self {}
        }

        pub(crate) const fn fetched(&self, _: &str, _: &Outcome) {}

        pub(crate) const fn warm(&self, _: &WarmUp) {}

        pub(crate) fn sets(&self, _: impl Iterator<Item = SetSnapshot>) {}
    }
}
