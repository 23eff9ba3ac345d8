use std::{fmt, sync::Arc, time::Duration};

use ajwt_core::{Nonce, NonceGenerationError};
use tokio::sync::Mutex;

use crate::{
    Clock, Freshness, KeyedUser, NonceBackend, NonceError, NonceKey, NonceOutcome, NonceUse, SystemClock,
    User, UserRepository,
};

/// How long an answer serves, so that nobody fills the nonce store by asking.
const MAX_AGE: Duration = Duration::from_secs(1);

/// How long a store may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long the probe's nonces must be remembered beyond their window, as the engine's by default.
const MARGIN: Duration = Duration::from_secs(60);

/// The user that is asked for. There need not be one, and no token of one is made: nothing but its nonces is used up.
const USERNAME: &str = "ajwt readiness";

/// Whether an authenticator could decide at all: for a probe such as `/readyz`. Cheap to clone; clones are one.
///
/// It asks the stores as a request does: it reads a user, and uses up a nonce that nobody has. They are asked at most
/// once a second, however often somebody wants to know, and each gets 2 s for its answer.
///
/// ```
/// use std::sync::Arc;
/// use ajwt_core::Validation;
/// use ajwt_server::{Authenticator, MemoryNonceBackend, MemoryRepository, NonceBackend, Readiness};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let users = Arc::new(MemoryRepository::new([]));
/// let nonces: Arc<dyn NonceBackend> = Arc::new(MemoryNonceBackend::default());
/// let validation = Validation::default();
/// let readiness = Readiness::new(users.clone(), Arc::clone(&nonces), validation.tolerance());
/// let authenticator = Authenticator::builder(users, nonces).validation(validation).build()?;
///
/// assert!(readiness.state().await.is_ready());
/// # Ok(())
/// # }
/// ```
pub struct Readiness<U = User> {
    shared: Arc<Shared<U>>,
}

struct Shared<U> {
    users: Arc<dyn UserRepository<User = U>>,
    nonces: Arc<dyn NonceBackend>,
    tolerance: Duration,
    clock: Arc<dyn Clock>,
    /// Held while the stores are asked: who comes meanwhile has the same answer.
    last: Arc<Mutex<Option<(Duration, ReadinessState)>>>,
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadinessState {
    /// Nothing.
    Ready,
    /// The user store fails, or does not answer.
    NoUserStore,
    /// The nonce store fails, or does not answer.
    NoNonceStore,
    /// The nonce store has no room.
    NonceStoreFull,
    /// The nonce store knows too little of what was used before, which passes.
    NonceStoreStarting,
}

impl ReadinessState {
    /// Whether nothing stands in the way.
    #[must_use]
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Ready)
    }
}

impl<U: KeyedUser> Readiness<U> {
    /// Of these stores, which should be the authenticator's, with the tolerance that its
    /// [`Validation`](ajwt_core::Validation) has.
    #[must_use]
    pub fn new(
        users: Arc<dyn UserRepository<User = U>>,
        nonces: Arc<dyn NonceBackend>,
        tolerance: Duration,
    ) -> Self {
        Self::with_clock(users, nonces, tolerance, Arc::new(SystemClock::new()))
    }

    /// As [`new`](Self::new), on this clock, which should be that of the authenticator and of nonces in memory: where
    /// theirs is ahead of it, the nonce store seems to have just been started.
    #[must_use]
    pub fn with_clock(
        users: Arc<dyn UserRepository<User = U>>,
        nonces: Arc<dyn NonceBackend>,
        tolerance: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { shared: Arc::new(Shared { users, nonces, tolerance, clock, last: Arc::default() }) }
    }

    /// What the stores say, or said less than a second ago.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    pub async fn state(&self) -> ReadinessState {
        let shared = &self.shared;
        let mut last = Arc::clone(&shared.last).lock_owned().await;
        let now = shared.clock.monotonic();
        if let Some((at, state)) = *last
            && now.saturating_sub(at) < MAX_AGE
        {
            return state;
        }
        let asking = Arc::clone(shared);
        // A task of its own: whoever hangs up leaves an answer to the next, who asks no store anew.
        let asked = tokio::spawn(async move {
            let mut say = |state| *last = Some((asking.clock.monotonic(), state));
            // Stands if the store that is asked panics, too.
            say(ReadinessState::NoUserStore);
            if asking.users_answer().await {
                say(ReadinessState::NoNonceStore);
                say(asking.state_of_nonces().await);
            }
        });
        // An error is such a panic.
        let _ = asked.await;
        shared.last.lock().await.map_or(ReadinessState::NoUserStore, |(_, state)| state)
    }
}

impl<U> Clone for Readiness<U> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<U> fmt::Debug for Readiness<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("users", &self.shared.users)
            .field("nonces", &self.shared.nonces)
            .finish_non_exhaustive()
    }
}

impl<U: KeyedUser> Shared<U> {
    async fn users_answer(&self) -> bool {
        let reading = self.users.find_by_username(USERNAME, Freshness::Current);
        matches!(tokio::time::timeout(TIMEOUT, reading).await, Ok(Ok(_)))
    }

    async fn state_of_nonces(&self) -> ReadinessState {
        let Ok(nonce) = self.nonce() else { return ReadinessState::NoNonceStore };
        match tokio::time::timeout(TIMEOUT, self.nonces.consume(&nonce)).await {
            Ok(Ok(NonceOutcome::Fresh)) => ReadinessState::Ready,
            Ok(Err(NonceError::Full { .. })) => ReadinessState::NonceStoreFull,
            Ok(Err(NonceError::MayHaveBeenUsed { .. })) => ReadinessState::NonceStoreStarting,
            // A nonce that was just made is no replay.
            Ok(Ok(NonceOutcome::Replayed) | Err(_)) | Err(_) => ReadinessState::NoNonceStore,
        }
    }

    /// As that of a token which was just made.
    fn nonce(&self) -> Result<NonceUse, NonceGenerationError> {
        let (now, nonce) = (self.clock.now(), Nonce::generate(getrandom::fill)?);
        let key = NonceKey::of_claims(USERNAME, now.as_secs(), nonce.as_str());
        Ok(NonceUse::new(key, now.as_secs(), now, self.tolerance, MARGIN))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use async_trait::async_trait;

    use super::*;
    use crate::{Found, MemoryNonceBackend, MemoryRepository, MockClock, RepositoryError, StartRule};

    const TOLERANCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_stands_in_the_way_is_told() {
        let strict = MemoryNonceBackend::default().with_start_rule(StartRule::default());
        for (nonces, due) in [
            (MemoryNonceBackend::default(), ReadinessState::Ready),
            (MemoryNonceBackend::new(0), ReadinessState::NonceStoreFull),
            (strict, ReadinessState::NonceStoreStarting),
        ] {
            let users = Arc::new(MemoryRepository::new([]));
            let state = Readiness::new(users, Arc::new(nonces), TOLERANCE).state().await;
            assert_eq!((state, state.is_ready()), (due, due == ReadinessState::Ready));
        }
    }

    /// A store that never answers, and how often it was asked.
    #[derive(Debug, Default)]
    struct Silent(AtomicUsize);

    #[async_trait]
    impl NonceBackend for Silent {
        async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn askers_that_hang_up_ask_the_stores_no_more_often() {
        let (users, nonces) = (Arc::new(MemoryRepository::new([])), Arc::new(Silent::default()));
        let readiness = Readiness::new(users, nonces.clone(), TOLERANCE);
        for _ in 0..10 {
            let answer = tokio::time::timeout(Duration::from_millis(50), readiness.state()).await;
            assert!(answer.is_err(), "{answer:?}");
        }
        assert_eq!(nonces.0.load(Ordering::SeqCst), 1);
        assert_eq!(readiness.state().await, ReadinessState::NoNonceStore);
    }

    /// And how often it was asked.
    #[derive(Debug, Default)]
    struct Panics(AtomicUsize);

    #[async_trait]
    impl UserRepository for Panics {
        type User = User;

        async fn find_by_username(
            &self,
            _: &str,
            _: Freshness,
        ) -> Result<Option<Found<User>>, RepositoryError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("a user store that panics, as this test wants it")
        }
    }

    #[async_trait]
    impl NonceBackend for Panics {
        async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("a nonce store that panics, as this test wants it")
        }
    }

    #[tokio::test]
    async fn of_two_stores_the_one_that_panics_is_told() {
        let (users, nonces) = (Arc::new(MemoryRepository::new([])), Arc::new(MemoryNonceBackend::default()));
        let (panics, clock) = (Arc::new(Panics::default()), MockClock::new(SystemClock::new().now()));
        let readiness = |users: Arc<dyn UserRepository<User = User>>, nonces: Arc<dyn NonceBackend>| {
            Readiness::with_clock(users, nonces, TOLERANCE, Arc::new(clock.clone()))
        };
        for (readiness, due) in [
            (readiness(users, panics.clone()), ReadinessState::NoNonceStore),
            (readiness(panics.clone(), nonces), ReadinessState::NoUserStore),
        ] {
            let before = panics.0.load(Ordering::SeqCst);
            for _ in 0..3 {
                assert_eq!(readiness.state().await, due);
            }
            assert_eq!(panics.0.load(Ordering::SeqCst), before + 1, "{due:?} is asked again within a second");
            clock.advance(MAX_AGE);
            assert_eq!(readiness.state().await, due);
            assert_eq!(panics.0.load(Ordering::SeqCst), before + 2, "{due:?} is not asked after a second");
        }
    }
}
