use std::{error::Error, fmt, sync::Arc};

/// A store failed. Never "not found", which is a value.
///
/// Opaque: what failed is text, why is the [`source`](Error::source). Cheap to clone: several
/// requests may have waited for one read.
#[derive(Clone)]
pub struct RepositoryError {
    what: &'static str,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl RepositoryError {
    /// `what` names the operation that failed, as in "reading a user".
    pub fn new(what: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what, source: Some(source.into().into()) }
    }

    /// The store did not answer in time.
    #[must_use]
    pub const fn timeout(what: &'static str) -> Self {
        Self { what, source: None }
    }
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(_) => write!(f, "{} failed", self.what),
            None => write!(f, "{} took too long", self.what),
        }
    }
}

impl fmt::Debug for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepositoryError").field("what", &self.what).field("source", &self.source).finish()
    }
}

impl Error for RepositoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// An error, and after it what it comes of.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
