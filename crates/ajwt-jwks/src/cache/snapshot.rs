use std::{sync::Arc, time::Duration};

use crate::FetchError;

/// The state of one key set, for a health page.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetSnapshot {
    /// The URL without query and userinfo, cut to 200 characters. Of one with an `@` behind its host, which may end a
    /// password, the scheme alone.
    pub url: Box<str>,
    /// Usable keys.
    pub keys: usize,
    /// Entries of the document that are not used.
    pub skipped: usize,
    /// Since the last fetch that succeeded began. `None`: none did.
    pub age: Option<Duration>,
    /// Whether its keys are used: it is there, and less than an hour old.
    pub is_trusted: bool,
    /// Until it is fetched again. Zero: now, or it is being fetched.
    pub next_refresh: Duration,
    /// Fetches that failed since the last success.
    pub failures: u32,
    /// Why the last one failed, if it did.
    pub last_error: Option<Arc<FetchError>>,
}
