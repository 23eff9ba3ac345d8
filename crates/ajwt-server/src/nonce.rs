use std::{fmt, time::Duration};

use ajwt_core::{Timestamp, Token};
use async_trait::async_trait;
use aws_lc_rs::digest;
use smallvec::SmallVec;
use thiserror::Error;

use crate::RepositoryError;

/// Remembers which tokens were used. This is what keeps a token from working twice.
///
/// An implementation must be one atomic operation, such as `INSERT .. ON CONFLICT DO NOTHING` or
/// `SET NX`: of any number of simultaneous calls with one key, exactly one is `Fresh`. Anything it
/// does not know for sure is an error, never `Fresh`. It never drops an entry before its lifetime
/// is over, and it does not retry: a retry would meet its own entry.
///
/// A backend that has forgotten (its process started, its store was emptied) must not make used
/// tokens good again: see [`StartRule`]. The suite in `testing` tests all but that, and what becomes of
/// failures: both take faults of the store itself.
///
/// ```
/// use std::{collections::HashMap, sync::{Mutex, PoisonError}, time::Duration};
/// use ajwt_server::{
///     Clock, NonceBackend, NonceError, NonceKey, NonceOutcome, NonceUse, StartRule, SystemClock,
/// };
/// use ajwt_core::Timestamp;
/// use async_trait::async_trait;
///
/// /// One process, one lock, small numbers.
/// #[derive(Debug)]
/// struct SmallBackend {
///     clock: SystemClock,
///     since: Timestamp,
///     used: Mutex<HashMap<NonceKey, Duration>>,
/// }
///
/// #[async_trait]
/// impl NonceBackend for SmallBackend {
///     async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
///         StartRule::default().check(nonce, self.since)?;
///         let now = self.clock.monotonic();
///         let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
///         used.retain(|_, expires| *expires > now);
///         if used.contains_key(nonce.key()) {
///             return Ok(NonceOutcome::Replayed);
///         }
///         if used.len() >= 1000 {
///             return Err(NonceError::Full { capacity: 1000 });
///         }
///         used.insert(*nonce.key(), now + nonce.lifetime() + Duration::from_millis(1));
///         Ok(NonceOutcome::Fresh)
///     }
/// }
/// ```
#[async_trait]
pub trait NonceBackend: fmt::Debug + Send + Sync + 'static {
    /// Uses a nonce up: remembers it and says whether it was there already, in one atomic step.
    ///
    /// # Errors
    /// [`NonceError`] whenever the answer is not known for sure.
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError>;

    /// Ends background work. Called when an authenticator that has it is closed. Another one may share the backend
    /// and go on: after this it must still do all that it promises, and begin its background work anew when it is
    /// used again.
    async fn close(&self) {}
}

/// The answer of a [`NonceBackend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceOutcome {
    /// Never used before; from now on it is.
    Fresh,
    /// Used before.
    Replayed,
}

/// Why a nonce backend has no answer. The request is not authenticated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NonceError {
    /// No room for another live entry.
    #[error("the nonce store is full: {capacity} entries are live; give it more room")]
    Full {
        /// How many entries there is room for.
        capacity: u64,
    },
    /// The token may have been used before the backend's memory began.
    #[error("the nonce store knows nothing of tokens used before {since}, and this may be one")]
    MayHaveBeenUsed {
        /// When the backend's memory began.
        since: Timestamp,
    },
    /// The store failed, or did not answer in time.
    #[error(transparent)]
    Store(#[from] RepositoryError),
}

/// A token's identity in a nonce store: 32 bytes, whatever the length of name and nonce.
///
/// SHA-256 of a domain tag and the length-prefixed username, time and nonce, so that no two
/// different triples give the same input. Key and algorithm are not in it: the same claims signed
/// by another key of the user are a replay.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NonceKey([u8; 32]);

impl NonceKey {
    /// Of a verified token.
    #[must_use]
    pub fn of_token(token: &Token) -> Self {
        Self::of_claims(token.username().as_str(), token.time(), token.nonce().as_str())
    }

    pub(crate) fn of_claims(username: &str, time: i64, nonce: &str) -> Self {
        // u64 holds every usize there is.
        let len = |text: &str| u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes();
        // Hashed at once: names and nonces of the usual length fit without an allocation.
        let mut input = SmallVec::<[u8; 128]>::new();
        for part in [
            b"ajwt nonce v1\0".as_slice(),
            &len(username),
            username.as_bytes(),
            &time.to_be_bytes(),
            &len(nonce),
            nonce.as_bytes(),
        ] {
            input.extend_from_slice(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, &input).as_ref());
        Self(key)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NonceKey {
    /// Not printed: it would let a reader of logs look for used nonces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(..)")
    }
}

/// One use of a token, as a backend is told of it.
#[derive(Clone, Debug)]
pub struct NonceUse {
    key: NonceKey,
    time: i64,
    now: Timestamp,
    tolerance: Duration,
    lifetime: Duration,
}

impl NonceUse {
    /// A use at `now` of a token dated `time` (seconds since the Unix epoch). An entry must live
    /// for twice the tolerance and a margin that covers the difference between servers' clocks.
    #[must_use]
    pub fn new(key: NonceKey, time: i64, now: Timestamp, tolerance: Duration, margin: Duration) -> Self {
        let lifetime = tolerance.saturating_mul(2).saturating_add(margin);
        Self { key, time, now, tolerance, lifetime }
    }

    /// The token's identity.
    #[must_use]
    pub const fn key(&self) -> &NonceKey {
        &self.key
    }

    /// The token's date: seconds since the Unix epoch.
    #[must_use]
    pub const fn time(&self) -> i64 {
        self.time
    }

    /// The server's clock at this use.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// How far a token's date may lie from the clock.
    #[must_use]
    pub const fn tolerance(&self) -> Duration {
        self.tolerance
    }

    /// How long the entry must be remembered from now on, the last millisecond included: a
    /// constant, not a function of the token's date. Servers that share a store must have the same
    /// tolerance and margin: one with a longer window accepts what an entry made by the other does
    /// not outlive.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

/// Which tokens a backend refuses because they may have been used before its memory began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartRule {
    /// Every token that can have been accepted anywhere before: those dated up to `since` plus the
    /// tolerance plus `server_skew`, by which other servers' clocks may be ahead. No replay is
    /// possible while clocks are no further apart than that; for tolerance plus skew after a start,
    /// tokens are answered with 503.
    Strict {
        /// How far other servers' clocks may be ahead. Where they may be further, tokens that those accepted before
        /// work once more after a store forgot: the margin between clocks, which is longer by default (60 s), holds
        /// only for what a store remembers. The outage after a start is longer by as much as this is.
        server_skew: Duration,
    },
    /// Only tokens dated before the second in which the memory began. A start costs no outage, and
    /// leaves this open: a token dated up to the tolerance after a restart, that is one of a caller
    /// whose clock is ahead, or one made and used in the very second of the restart, can be
    /// replayed once to the new process.
    DatedBeforeStart,
}

impl Default for StartRule {
    /// Strict, with a server skew of 5 s.
    fn default() -> Self {
        Self::Strict { server_skew: Duration::from_secs(5) }
    }
}

impl StartRule {
    /// Checks a use against the time since which the backend's memory is whole.
    ///
    /// # Errors
    /// [`NonceError::MayHaveBeenUsed`].
    pub fn check(self, nonce: &NonceUse, since: Timestamp) -> Result<(), NonceError> {
        let may_have_been_used = match self {
            Self::Strict { server_skew } => {
                let until = since.saturating_add(nonce.tolerance).saturating_add(server_skew);
                Timestamp::from_secs(nonce.time) <= until
            }
            Self::DatedBeforeStart => nonce.time < since.as_secs(),
        };
        if may_have_been_used { Err(NonceError::MayHaveBeenUsed { since }) } else { Ok(()) }
    }
}

/// Remembers nothing: every token works as often as it is sent, until its window closes.
///
/// For services whose requests do no harm when repeated, and for load tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct InsecureNoReplayProtection;

#[async_trait]
impl NonceBackend for InsecureNoReplayProtection {
    async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
        Ok(NonceOutcome::Fresh)
    }
}
