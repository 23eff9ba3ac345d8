use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use ajwt_core::PublicKey;
use ajwt_server::{JwksDocument, PublishedKeys};
use axum_core::{body::Body, response::Response};
use http::{
    HeaderValue, Method, Request,
    header::{CONTENT_LENGTH, IF_NONE_MATCH},
};
use tower::Service;

use crate::response;

/// Publishes the public keys that this service signs with, for services that trust its URL. Clones
/// publish the same keys.
///
/// A new key is published before it signs, for those who trust the URL look at it every few minutes:
/// publish the old and the new key ([`from_fn`](Self::from_fn)), wait ten minutes, sign with the new one,
/// and publish it alone once the last token of the old one has expired.
///
/// ```
/// use ajwt_axum::JwksService;
/// # use ajwt_core::PrivateKey;
/// use axum::Router;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let signing_key = PrivateKey::generate_ed25519()?;
/// let jwks = JwksService::new([signing_key.public_key().clone()]);
/// let app: Router = Router::new().route_service(JwksService::PATH, jwks);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct JwksService(PublishedKeys);

impl JwksService {
    /// Where key sets are usually published.
    pub const PATH: &'static str = JwksDocument::PATH;

    /// Of these keys; while keys are rotated, of the old and the new.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(PublishedKeys::new(keys))
    }

    /// Of the keys that this returns, asked on each request: for keys that are rotated while the
    /// service runs, as in the `KeyRing` of `ajwt-client`.
    ///
    /// ```
    /// use ajwt_axum::JwksService;
    /// use ajwt_client::KeyRing;
    /// # use ajwt_core::PrivateKey;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = KeyRing::new(PrivateKey::generate_ed25519()?);
    /// let published = keys.clone();
    /// let jwks = JwksService::from_fn(move || published.public_keys());
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_fn<I: IntoIterator<Item = PublicKey>>(keys: impl Fn() -> I + Send + Sync + 'static) -> Self {
        Self(PublishedKeys::from_fn(keys))
    }
}

impl<B> Service<Request<B>> for JwksService {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let known = request.headers().get_all(IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
        let answer = self.0.document().answer(request.method().as_str(), known);
        let len = answer.body.len();
        let mut response = response::of_answer(answer);
        if request.method() == Method::HEAD && len > 0 {
            // Servers leave the body out, but this service may stand alone.
            response.headers_mut().insert(CONTENT_LENGTH, len.into());
            *response.body_mut() = Body::empty();
        }
        ready(Ok(response))
    }
}
