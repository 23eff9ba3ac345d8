use std::time::Duration;

use super::{endpoint::Endpoint, key_set::TrustedKeys};
use crate::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A set that neither a request nor a warm-up asked for in so long is dropped.
const UNUSED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A trusted URL's place in the cache: all that a request reads that finds its key.
pub(super) struct Place {
    pub(super) endpoint: Arc<Endpoint>,
    /// Of the last fetch that succeeded.
    pub(super) keys: Option<TrustedKeys>,
    /// Milliseconds of the monotonic clock.
    used_at: AtomicU64,
}

impl Place {
    pub(super) fn new(url: &str, now: Duration) -> Self {
        Self { endpoint: Arc::new(Endpoint::new(url, now)), keys: None, used_at: AtomicU64::new(millis(now)) }
    }

    /// Notes that the set is asked for.
    pub(super) fn use_now(&self, now: Duration) {
        // A hot set is not written to by each request.
        let (now, used_at) = (millis(now), self.used_at.load(Ordering::Relaxed));
        if now.saturating_sub(used_at) >= 1000 {
            self.used_at.store(now, Ordering::Relaxed);
        }
    }

    pub(super) fn is_unused(&self, now: Duration) -> bool {
        let unused = millis(now).saturating_sub(self.used_at.load(Ordering::Relaxed));
        unused >= millis(UNUSED_AFTER) && !self.endpoint.is_busy()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
