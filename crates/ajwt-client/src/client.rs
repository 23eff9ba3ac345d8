use std::{fmt, time::Duration};

use reqwest::redirect;
use reqwest_middleware::ClientWithMiddleware;
use thiserror::Error;

use crate::{OriginSigner, SigningMiddleware, middleware::RetryMiddleware};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const TIMEOUT: Duration = Duration::from_secs(30);

const RETRIES: usize = 3;

/// Builds a client that signs, with defaults that are right for calls between services.
///
/// - Each attempt has a token of its own; to origins that were not configured nothing is sent.
/// - Idempotent requests are sent up to three times more, after 0.1 to 0.2 s, 0.2 to 0.4 s and 0.4
///   to 0.8 s, when the connection failed and on 502, 503 and 504. A `Retry-After` of up to 5 s is
///   waited for; a longer one ends the attempts.
/// - Redirects are not followed: the 3xx is the answer.
/// - Connecting takes at most 5 s, an attempt at most 30 s. What timed out while the server worked
///   on it is not sent again.
/// - Proxies that the environment names are not used, for they would see the tokens of plain http.
///
/// ```no_run
/// use ajwt_client::{ClientBuilder, KeyFile, OriginSigner, RequestSigner};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let key = KeyFile::new("/etc/billing/ajwt.key").read()?;
/// let signer = OriginSigner::new(RequestSigner::new("billing", key)?, ["https://orders.example"])?;
/// let client = ClientBuilder::new(signer).build()?;
/// let response = client.get("https://orders.example/hello").send().await?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct ClientBuilder {
    signer: OriginSigner,
    transport: reqwest::ClientBuilder,
    retries: usize,
}

impl ClientBuilder {
    /// A client that signs as this does.
    pub fn new(signer: OriginSigner) -> Self {
        let transport =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT).no_proxy();
        Self { signer, transport, retries: RETRIES }
    }

    /// Changes how reqwest connects: timeouts, certificates, a proxy, the pool. Redirects and its
    /// own retries stay off whatever is set here.
    ///
    /// A proxy reads the tokens of plain http. It reads those of https too where reqwest has no TLS at all,
    /// that is, where neither the feature `rustls` of this crate (a default one) nor a TLS feature of reqwest
    /// is on: reqwest then opens no tunnel, and sends the proxy the whole request in the clear.
    pub fn transport(
        mut self,
        change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Self {
        self.transport = change(self.transport);
        self
    }

    /// How often an idempotent request is sent again. Default: 3.
    pub fn retries(mut self, retries: usize) -> Self {
        self.retries = retries;
        self
    }

    /// The client.
    ///
    /// # Errors
    /// [`BuildError`] if the transport cannot be set up.
    pub fn build(self) -> Result<ClientWithMiddleware, BuildError> {
        let transport = self.transport.redirect(redirect::Policy::none()).retry(reqwest::retry::never());
        let client = transport.build().map_err(|source| BuildError::Transport(source.into()))?;
        Ok(reqwest_middleware::ClientBuilder::new(client)
            .with(RetryMiddleware { retries: self.retries })
            .with(SigningMiddleware::new(self.signer))
            .build())
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("signer", &self.signer)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// Why there is no client.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// reqwest cannot be set up: there are no root certificates, or it cannot do what `transport` asked of it.
    #[error("the HTTP transport cannot be set up")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No runtime could be started for a blocking client.
    #[cfg(feature = "blocking")]
    #[error("no runtime could be started")]
    Runtime(#[source] std::io::Error),
    /// A blocking client was asked for in async code.
    #[cfg(feature = "blocking")]
    #[error("a blocking client is no use in async code: use ClientBuilder::build there")]
    InAsyncCode,
}
