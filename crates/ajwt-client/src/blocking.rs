use std::fmt;

use bytes::Bytes;
use http::{Method, Response};
use reqwest::IntoUrl;
use reqwest_middleware::{ClientWithMiddleware, Error, RequestBuilder};
use thiserror::Error;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{BuildError, ClientBuilder};

/// Unless told otherwise.
pub(crate) const MAX_ANSWER_LEN: usize = 64 * 1024 * 1024;

/// A client for programs without async: what [`ClientBuilder`] builds, on a runtime and a thread of its
/// own.
///
/// A program that has a runtime needs none: within `spawn_blocking`, actix-web's `web::block` and the like
/// `tokio::runtime::Handle::current().block_on(..)` waits for the client of [`ClientBuilder::build`]. This one refuses
/// all threads of a runtime, for tokio does not tell those that may block from others.
///
/// ```no_run
/// use ajwt_client::{ClientBuilder, KeyFile, OriginSigner, RequestSigner};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let key = KeyFile::new("/etc/billing/ajwt.key").read()?;
///     let signer = OriginSigner::new(RequestSigner::new("billing", key)?, ["https://orders.example"])?;
///     let client = ClientBuilder::new(signer).build_blocking()?;
///     let response = client.send(client.get("https://orders.example/hello"))?;
///     assert_eq!(response.status(), 200);
///     Ok(())
/// }
/// ```
pub struct BlockingClient {
    client: ClientWithMiddleware,
    max_answer_len: usize,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl ClientBuilder {
    /// How many bytes the body of an answer may have, for a client of [`build_blocking`](Self::build_blocking), which
    /// reads it whole: [`BlockingError::TooLong`] where it has more. Default: 64 MiB.
    pub fn max_answer_len(mut self, max: usize) -> Self {
        self.max_answer_len = max;
        self
    }

    /// The client, for programs without async.
    ///
    /// # Errors
    /// [`BuildError`], also on the threads of a runtime, where blocking would hold other tasks up.
    pub fn build_blocking(self) -> Result<BlockingClient, BuildError> {
        if Handle::try_current().is_ok() {
            return Err(BuildError::InAsyncCode);
        }
        // A thread of its own sees between requests that a server closes a connection. Else the next
        // request would be sent on it, and one that may not be repeated would fail.
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("ajwt-client").enable_all().build();
        let runtime = runtime.map_err(BuildError::Runtime)?;
        let max_answer_len = self.max_answer_len;
        Ok(BlockingClient { client: self.build()?, max_answer_len, runtime: Some(runtime) })
    }
}

impl BlockingClient {
    /// A GET request, to be given to [`send`](Self::send).
    pub fn get(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// A request, to be given to [`send`](Self::send).
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends a request and waits for the whole answer. An error status is an answer too.
    ///
    /// # Errors
    /// [`BlockingError`].
    pub fn send(&self, request: RequestBuilder) -> Result<Response<Bytes>, BlockingError> {
        let Some(runtime) = self.runtime.as_ref().filter(|_| Handle::try_current().is_err()) else {
            return Err(BlockingError::InAsyncCode);
        };
        runtime.block_on(async {
            let failed = |source: reqwest::Error| BlockingError::Request(source.into());
            let mut response = request.send().await.map_err(|error| match error {
                // Unwrapped, so that a SigningError or a ClockSkewError is found by downcast_ref.
                Error::Middleware(source) => {
                    BlockingError::Request(source.reallocate_into_boxed_dyn_error_without_backtrace())
                }
                Error::Reqwest(source) => failed(source),
            })?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(failed)? {
                if chunk.len() > self.max_answer_len.saturating_sub(body.len()) {
                    return Err(BlockingError::TooLong { max: self.max_answer_len });
                }
                body.extend_from_slice(&chunk);
            }
            let mut answer = Response::new(Bytes::from(body));
            *answer.status_mut() = response.status();
            *answer.version_mut() = response.version();
            *answer.headers_mut() = std::mem::take(response.headers_mut());
            Ok(answer)
        })
    }
}

impl Drop for BlockingClient {
    fn drop(&mut self) {
        // A runtime that waits for its threads panics where it is dropped in async code.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for BlockingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingClient").finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BlockingError {
    /// The request was not signed, not sent, or not answered. The source is a
    /// [`SigningError`](crate::SigningError), a [`ClockSkewError`](crate::ClockSkewError), or
    /// reqwest's error.
    #[error("the request failed")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The body of the answer is too long. What the request asked for may be carried out all the same.
    #[error(
        "the answer has more than {max} bytes; ask for less, or allow more by ClientBuilder::max_answer_len"
    )]
    TooLong {
        /// Bytes allowed.
        max: usize,
    },
    /// It was sent on a thread of a runtime: in async code, where blocking would hold other tasks up, or in
    /// `spawn_blocking`.
    #[error(
        "a blocking client is no use on the threads of a runtime: use ClientBuilder::build there, on those that may \
         block by Handle::block_on"
    )]
    InAsyncCode,
}
