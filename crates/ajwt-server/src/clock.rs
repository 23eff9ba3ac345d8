use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ajwt_core::Timestamp;

/// Where the engine and the backends read the time.
///
/// ```
/// use std::time::{Duration, Instant, SystemTime};
/// use ajwt_core::Timestamp;
/// use ajwt_server::Clock;
///
/// /// A clock that runs an hour ahead.
/// #[derive(Debug)]
/// struct Ahead(Instant);
///
/// impl Clock for Ahead {
///     fn now(&self) -> Timestamp {
///         Timestamp::from(SystemTime::now() + Duration::from_secs(3600))
///     }
///
///     fn monotonic(&self) -> Duration {
///         self.0.elapsed()
///     }
/// }
/// ```
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time of day: what a token's `time` is compared with. It may be set, so it may jump.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point. It never goes back: used nonces expire by it.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The operating system's clocks; the monotonic one counts from now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is moved: for tests. Clones share the time.
///
/// What takes part in one decision goes by one clock: give a clone to
/// [`AuthenticatorBuilder::clock`](crate::AuthenticatorBuilder::clock), to
/// [`MemoryNonceBackend::with_clock`](crate::MemoryNonceBackend::with_clock) and, where there is one, to
/// [`UserCacheOptions::clock`](crate::UserCacheOptions::clock) and
/// [`Readiness::with_clock`](crate::Readiness::with_clock), and date tokens by it. Beside a
/// [`MemoryNonceBackend::default`](crate::MemoryNonceBackend), whose memory began today, a token of an earlier day
/// may have been used before, and is answered with 503
/// ([`Reason::NonceStoreStarting`](crate::Reason::NonceStoreStarting)).
#[derive(Clone, Debug)]
pub struct MockClock(Arc<MockTime>);

#[derive(Debug)]
struct MockTime {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl MockClock {
    /// Stands at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let wall_ms = AtomicI64::new(now.as_millis());
        Self(Arc::new(MockTime { wall_ms, monotonic_ms: AtomicU64::new(0) }))
    }

    /// Lets time pass on both clocks, in whole milliseconds.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.monotonic_ms.fetch_add(by, Ordering::SeqCst);
        self.0.wall_ms.fetch_add(i64::try_from(by).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Sets the time of day alone, as an administrator or NTP does.
    pub fn set(&self, now: Timestamp) {
        self.0.wall_ms.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for MockClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.monotonic_ms.load(Ordering::SeqCst))
    }
}
