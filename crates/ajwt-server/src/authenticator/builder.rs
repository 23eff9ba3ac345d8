use std::{sync::Arc, time::Duration};

use ajwt_core::{GenerateError, Validation};
use thiserror::Error;

use super::{Authenticator, Inner};
use crate::{
    Clock, KeyedUser, NoUsage, NonceBackend, PublicKeyRepository, SystemClock, UsageRecorder, User, UserKeys,
    UserRepository, authorization, decoy::Decoys, hot_keys::HotKeys, refusal_timer::RefusalTimer,
    report::Report,
};

const DEFAULT_SCHEME: &str = "JWT";
const DEFAULT_MARGIN: Duration = Duration::from_secs(60);
const MIN_MARGIN: Duration = Duration::from_secs(1);
const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// A shorter quantum is less than the work that it hides.
const MIN_REFUSAL_QUANTUM: Duration = Duration::from_millis(1);
const MAX_REFUSAL_QUANTUM: Duration = Duration::from_secs(1);

/// Makes an [`Authenticator`].
#[derive(Debug)]
pub struct AuthenticatorBuilder<U = User> {
    users: Arc<dyn UserRepository<User = U>>,
    keys: Vec<Arc<dyn PublicKeyRepository<U>>>,
    without_user_keys: bool,
    nonces: Arc<dyn NonceBackend>,
    usage: Arc<dyn UsageRecorder>,
    clock: Arc<dyn Clock>,
    validation: Validation,
    scheme: Box<str>,
    margin: Duration,
    store_timeout: Duration,
    hot_keys: usize,
    refusal_quantum: Duration,
}

impl<U: KeyedUser> AuthenticatorBuilder<U> {
    /// With everything else as it comes.
    pub(super) fn new(users: Arc<dyn UserRepository<User = U>>, nonces: Arc<dyn NonceBackend>) -> Self {
        Self {
            users,
            keys: Vec::new(),
            without_user_keys: false,
            nonces,
            usage: Arc::new(NoUsage),
            clock: Arc::new(SystemClock::new()),
            validation: Validation::default(),
            scheme: DEFAULT_SCHEME.into(),
            margin: DEFAULT_MARGIN,
            store_timeout: DEFAULT_STORE_TIMEOUT,
            hot_keys: 0,
            refusal_quantum: Duration::ZERO,
        }
    }

    /// Asks this repository for keys too, after those added before and before the keys that came
    /// with the user ([`UserKeys`]). None is asked any more once a key that the token's `kid` names has
    /// verified it, so add those first whose answers are at hand.
    #[must_use]
    pub fn keys(mut self, keys: Arc<dyn PublicKeyRepository<U>>) -> Self {
        self.keys.push(keys);
        self
    }

    /// Leaves the keys that came with the user out, unless [`UserKeys`] is added by
    /// [`keys`](Self::keys), in whichever place.
    #[must_use]
    pub const fn without_user_keys(mut self) -> Self {
        self.without_user_keys = true;
        self
    }

    /// Notes uses of keys here. Default: nowhere.
    #[must_use]
    pub fn usage(mut self, usage: Arc<dyn UsageRecorder>) -> Self {
        self.usage = usage;
        self
    }

    /// What is demanded of claims: tolerance and audiences. Default: 20 s, no audience.
    #[must_use]
    pub fn validation(mut self, validation: Validation) -> Self {
        self.validation = validation;
        self
    }

    /// Reads the time here. Default: the operating system's clocks. A nonce backend in memory must be on the same clock
    /// ([`MemoryNonceBackend::with_clock`](crate::MemoryNonceBackend::with_clock)): beside one whose clock is ahead
    /// requests are answered with 503 for as long as an entry is remembered.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The authentication scheme, compared without ASCII case. Default: `JWT`.
    #[must_use]
    pub fn scheme(mut self, scheme: impl Into<Box<str>>) -> Self {
        self.scheme = scheme.into();
        self
    }

    /// How much longer than twice the tolerance a used nonce is remembered: it must cover the
    /// difference between the clocks of all servers that share a nonce store. Default: 60 s; at
    /// least 1 s.
    #[must_use]
    pub const fn nonce_margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// How long a request waits for stores, all of them together, before it is answered with 503. Default: 2 s.
    #[must_use]
    pub const fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// Keeps tables for up to this many of the Ed25519 keys that verify most, which then verify in about
    /// two thirds of the time. A table takes 215 KiB, is made in the background for a key that verifies
    /// more than six times a second, and dropped when it does not any more. 8 is a good number: more
    /// fall out of the processor's caches. Default: 0, none.
    ///
    /// Refused Ed25519 tokens then cost a fifth signature check each.
    #[must_use]
    pub const fn hot_keys(mut self, keys: usize) -> Self {
        self.hot_keys = keys;
        self
    }

    /// Rejects a token (401 and 503) only when a whole multiple of this has passed since it came, so that the time
    /// that one rejection takes tells nobody whether there is such a user. It must be longer than the store
    /// usually takes: 10 ms is a good number. 1 ms to 1 s. Default: zero, at once.
    ///
    /// What is accepted does not wait, nor what brings no token. A request that waits takes a connection and memory,
    /// not time of a processor; a thread of the authenticator's ends the waits. What *many* requests at once cost
    /// shows in how long others take: limit their rate.
    #[must_use]
    pub const fn refusal_quantum(mut self, quantum: Duration) -> Self {
        self.refusal_quantum = quantum;
        self
    }

    /// Makes the authenticator. It runs in a tokio runtime with its timer enabled. With the feature `metrics` its counters
    /// begin at 0, so install the recorder before.
    ///
    /// # Errors
    /// [`BuildError`] that names the option and what it may be.
    pub fn build(mut self) -> Result<Authenticator<U>, BuildError> {
        if !authorization::is_scheme(&self.scheme) {
            return Err(BuildError::Scheme { found: self.scheme });
        }
        if self.margin < MIN_MARGIN {
            return Err(BuildError::Margin { found: self.margin, min: MIN_MARGIN });
        }
        if self.store_timeout.is_zero() {
            return Err(BuildError::StoreTimeout);
        }
        let (found, min, max) = (self.refusal_quantum, MIN_REFUSAL_QUANTUM, MAX_REFUSAL_QUANTUM);
        if !found.is_zero() && !(min..=max).contains(&found) {
            return Err(BuildError::RefusalQuantum { found, min, max });
        }
        if !self.without_user_keys {
            self.keys.push(Arc::new(UserKeys));
        }
        Ok(Authenticator {
            inner: Arc::new(Inner {
                users: self.users,
                keys: self.keys,
                nonces: self.nonces,
                usage: self.usage,
                clock: self.clock,
                validation: self.validation,
                scheme: self.scheme,
                margin: self.margin,
                store_timeout: self.store_timeout,
                decoys: Decoys::new()?,
                hot_keys: match self.hot_keys {
                    0 => None,
                    keys => Some(Arc::new(HotKeys::new(keys)?)),
                },
                refusal_timer: match self.refusal_quantum {
                    Duration::ZERO => None,
                    quantum => Some(RefusalTimer::start(quantum)?),
                },
                report: Report::new(),
            }),
        })
    }
}

/// Why an authenticator cannot be as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The scheme is not one.
    #[error("{found:?} is no authentication scheme: one word of letters, digits and !#$%&'*+-.^_`|~ is")]
    Scheme {
        /// The scheme asked for.
        found: Box<str>,
    },
    /// The nonce margin is too short.
    #[error("a nonce margin of {found:?} does not cover servers' clocks; it must be {min:?} or more")]
    Margin {
        /// The margin asked for.
        found: Duration,
        /// The smallest.
        min: Duration,
    },
    /// The store timeout is zero.
    #[error("a store timeout of zero would refuse every request")]
    StoreTimeout,
    /// The refusal quantum is too short or too long.
    #[error("a refusal quantum of {found:?} is not usable; zero and {min:?} to {max:?} are")]
    RefusalQuantum {
        /// The quantum asked for.
        found: Duration,
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// The operating system gives no thread.
    #[error("the thread that times refusals cannot be started: {kind}")]
    Thread {
        /// What it says.
        kind: std::io::ErrorKind,
    },
    /// No decoy key could be made.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
