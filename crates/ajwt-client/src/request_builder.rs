use http::{HeaderMap, header::AUTHORIZATION};
use reqwest::RequestBuilder;

use crate::{RequestSigner, SigningError};

/// Signing for [`reqwest::RequestBuilder`].
///
/// It signs whatever the request's URL is, and one attempt: a client of the feature `middleware`
/// looks at both.
pub trait RequestBuilderExt: Sized {
    /// Sets the `Authorization` header to a fresh token, in place of one that is there.
    ///
    /// The token is made on this thread, as by [`RequestSigner::authorization`]. With an RSA key above 2048 bits
    /// or an ssh-agent that holds other tasks up: set the header to
    /// [`authorization_async`](RequestSigner::authorization_async) instead, or use a client that does.
    ///
    /// # Errors
    /// [`SigningError`].
    fn sign_with(self, signer: &RequestSigner) -> Result<Self, SigningError>;
}

impl RequestBuilderExt for RequestBuilder {
    fn sign_with(self, signer: &RequestSigner) -> Result<Self, SigningError> {
        let header = HeaderMap::from_iter([(AUTHORIZATION, signer.authorization()?)]);
        Ok(self.headers(header))
    }
}
