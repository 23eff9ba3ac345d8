use std::{fmt, sync::Arc, time::Duration};

use reqwest::redirect;
use reqwest_middleware::{ClientWithMiddleware, Middleware};
use thiserror::Error;

use crate::{OriginSigner, SigningMiddleware, middleware::RetryMiddleware};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const TIMEOUT: Duration = Duration::from_secs(30);

const RETRIES: usize = 3;

/// Builds a client that signs, with defaults that are right for calls between services.
///
/// - Each attempt has a token of its own; to origins that were not configured nothing is sent.
/// - All origins get tokens of the one audience that the signer has: build a client for each service.
/// - Idempotent requests are sent up to three times more, after 0.1 to 0.2 s, 0.2 to 0.4 s and 0.4
///   to 0.8 s, when the connection failed and on 502, 503 and 504. A `Retry-After` of up to 5 s is
///   waited for; a longer one ends the attempts.
/// - Redirects are not followed: the 3xx is the answer.
/// - Connecting takes at most 5 s, an attempt at most 30 s. What timed out while the server worked
///   on it is not sent again.
/// - Proxies that the environment names are not used, for they would see the tokens of plain http.
/// - With the feature `rustls`, a default one, TLS is that of rustls, whatever else another crate of the application
///   switches on in reqwest.
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
    outermost: Vec<Arc<dyn Middleware>>,
    #[cfg(feature = "blocking")]
    pub(crate) max_answer_len: usize,
}

impl ClientBuilder {
    /// A client that signs as this does.
    pub fn new(signer: OriginSigner) -> Self {
        let transport =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT).no_proxy();
        // Where any other crate of the application switches on native-tls, reqwest prefers that.
        #[cfg(feature = "rustls")]
        let transport = transport.tls_backend_rustls();
        Self {
            signer,
            transport,
            retries: RETRIES,
            outermost: Vec::new(),
            #[cfg(feature = "blocking")]
            max_answer_len: crate::blocking::MAX_ANSWER_LEN,
        }
    }

    /// Changes how reqwest connects: timeouts, certificates, a proxy, the pool, the TLS library. Redirects and its
    /// own retries stay off whatever is set here. An `Authorization` of `default_headers` gives way to the token: reqwest
    /// adds those where a request has none, which is once it is signed.
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

    /// Adds a middleware around the signing and the retries, and within those that were added before: each time
    /// that it sends a request on, it is signed anew.
    ///
    /// For retries of your own, set [`retries`](Self::retries) to 0, or they multiply.
    ///
    /// ```
    /// use ajwt_client::{ClientBuilder, OriginSigner};
    /// use async_trait::async_trait;
    /// use http::{Extensions, HeaderValue};
    /// use reqwest::{Request, Response};
    /// use reqwest_middleware::{Middleware, Next};
    ///
    /// /// Says who calls, in each request.
    /// struct Caller(HeaderValue);
    ///
    /// #[async_trait]
    /// impl Middleware for Caller {
    ///     async fn handle(
    ///         &self,
    ///         mut request: Request,
    ///         extensions: &mut Extensions,
    ///         next: Next<'_>,
    ///     ) -> reqwest_middleware::Result<Response> {
    ///         request.headers_mut().insert("from", self.0.clone());
    ///         next.run(request, extensions).await
    ///     }
    /// }
    ///
    /// fn builder(signer: OriginSigner) -> ClientBuilder {
    ///     ClientBuilder::new(signer).middleware(Caller(HeaderValue::from_static("billing@example.com")))
    /// }
    /// ```
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.outermost.push(Arc::new(middleware));
        self
    }

    /// The client.
    ///
    /// What `reqwest_middleware::ClientBuilder::from_client` adds to it stands within the signing: a retry
    /// there sends the same token again, which is refused. [`middleware`](Self::middleware) adds around it.
    ///
    /// # Errors
    /// [`BuildError`] if the transport cannot be set up.
    pub fn build(self) -> Result<ClientWithMiddleware, BuildError> {
        let transport = self.transport.redirect(redirect::Policy::none()).retry(reqwest::retry::never());
        let client = transport.build().map_err(|source| BuildError::Transport(source.into()))?;
        let client = reqwest_middleware::ClientBuilder::new(client);
        let client = self.outermost.into_iter().fold(client, reqwest_middleware::ClientBuilder::with_arc);
        Ok(client
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
    /// A blocking client was asked for on a thread of a runtime: in async code, or in `spawn_blocking`.
    #[cfg(feature = "blocking")]
    #[error(
        "a blocking client is no use on the threads of a runtime: use ClientBuilder::build there, on those that may \
         block by Handle::block_on"
    )]
    InAsyncCode,
}
