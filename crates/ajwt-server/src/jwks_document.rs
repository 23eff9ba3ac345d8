use std::{fmt, sync::Arc};

use ajwt_core::{JwkSet, PublicKey};
use aws_lc_rs::digest;

/// The keys that a service publishes. Cheap to clone.
#[derive(Clone)]
pub struct PublishedKeys(Arc<dyn Fn() -> Arc<JwksDocument> + Send + Sync>);

impl PublishedKeys {
    /// Publishes these keys, fixed.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let document = Arc::new(JwksDocument::new(keys));
        Self(Arc::new(move || Arc::clone(&document)))
    }

    /// Calls `keys` on each request and publishes what it returns.
    pub fn from_fn<I: IntoIterator<Item = PublicKey>>(keys: impl Fn() -> I + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Arc::new(JwksDocument::new(keys()))))
    }

    /// The document as of now.
    #[must_use]
    pub fn document(&self) -> Arc<JwksDocument> {
        (self.0)()
    }
}

impl fmt::Debug for PublishedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublishedKeys").field(&self.document()).finish()
    }
}

/// A JWK Set to publish at `/.well-known/jwks.json`: the body and what caches need to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksDocument {
    body: Box<str>,
    etag: Box<str>,
}

impl JwksDocument {
    /// Where key sets are usually published.
    pub const PATH: &'static str = "/.well-known/jwks.json";

    /// The media type (RFC 7517 section 8.5.2).
    pub const CONTENT_TYPE: &'static str = "application/jwk-set+json";

    /// How long the document may be cached: 5 minutes, after which callers' new keys must work.
    pub const CACHE_CONTROL: &'static str = "public, max-age=300";

    /// Of the public keys that this service signs with. While they are rotated, of the old and the
    /// new: a key that is to sign is published ten minutes before it does, so that it is in the caches
    /// of those who trust this document by then.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        use std::fmt::Write as _;

        let body = JwkSet::of_keys(keys).to_json();
        let mut etag = String::from("\"");
        for byte in digest::digest(&digest::SHA256, body.as_bytes()).as_ref().iter().take(16) {
            // Writing to a String does not fail.
            let _ = write!(etag, "{byte:02x}");
        }
        etag.push('"');
        Self { body: body.into(), etag: etag.into() }
    }

    /// The JSON text.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// A strong entity tag (RFC 9110 section 8.8.3), with its quotes.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// Whether an `If-None-Match` value names this document (RFC 9110 section 13.1.2).
    #[must_use]
    pub fn matches(&self, if_none_match: &[u8]) -> bool {
        let tags = if_none_match.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
            .any(|tag| tag == b"*" || tag == self.etag.as_bytes())
    }
}
