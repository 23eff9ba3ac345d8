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
