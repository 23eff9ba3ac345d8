use std::future::{Ready, ready};

use actix_web::{
    Handler, HttpRequest, HttpResponse,
    http::header::{HeaderValue, IF_NONE_MATCH},
};
use ajwt_core::PublicKey;
use ajwt_server::{JwksDocument, PublishedKeys};

use crate::response;

/// Publishes the public keys that this service signs with, for services that trust its URL.
///
/// ```
/// use actix_web::{App, web};
/// use ajwt_actix::JwksService;
/// # use ajwt_core::PrivateKey;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let signing_key = PrivateKey::generate_ed25519()?;
/// let jwks = JwksService::new([signing_key.public_key().clone()]);
/// let app = App::new().service(web::resource(JwksService::PATH).to(jwks));
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
    pub fn from_fn<I: IntoIterator<Item = PublicKey>>(keys: impl Fn() -> I + Send + Sync + 'static) -> Self {
        Self(PublishedKeys::from_fn(keys))
    }
}

impl Handler<HttpRequest> for JwksService {
    type Output = HttpResponse;
    type Future = Ready<HttpResponse>;

    fn call(&self, request: HttpRequest) -> Self::Future {
        let known = request.headers().get_all(IF_NONE_MATCH).map(HeaderValue::as_bytes);
        ready(response::of_answer(self.0.document().answer(request.method().as_str(), known)))
    }
}
