//! Whether the gateway can decide at all.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ajwt_core::{Claims, Nonce, PrivateKey, Token, UntrustedToken, Username, Validation};
use ajwt_server::{
    Clock as _, Freshness, NonceBackend, NonceError, NonceKey, NonceOutcome, NonceUse, SystemClock, User,
    UserRepository,
};
use tokio::sync::Mutex;

use crate::failure::Failure;

/// How long an answer serves, so that nobody fills the nonce store by asking.
const MAX_AGE: Duration = Duration::from_secs(1);

/// How long a store may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long the probe's nonces must be remembered beyond their window, as the engine's by default.
const MARGIN: Duration = Duration::from_secs(60);

/// Asks the stores as a request does.
pub(super) struct Health {
    users: Arc<dyn UserRepository<User = User>>,
    nonces: Arc<dyn NonceBackend>,
    /// Nobody else has it, and no user: what it signs is used up here and accepted nowhere.
    key: PrivateKey,
    username: Username,
    tolerance: Duration,
    clock: SystemClock,
    /// Held while the stores are asked: who comes meanwhile has the same answer.
    last: Arc<Mutex<Option<(Duration, State)>>>,
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    NoUserStore,
    NoNonceStore,
    NonceStoreFull,
    /// It knows too little of what was used before, which passes.
    NonceStoreStarting,
}

impl Health {
    pub(super) fn new(
        users: Arc<dyn UserRepository<User = User>>,
        nonces: Arc<dyn NonceBackend>,
        validation: &Validation,
    ) -> Result<Self, Failure> {
        let key = PrivateKey::generate_ed25519()?;
        let username = Username::new("ajwt gateway readiness")?;
        let (tolerance, clock) = (validation.tolerance(), SystemClock::new());
        Ok(Self { users, nonces, key, username, tolerance, clock, last: Arc::default() })
    }

    pub(super) async fn state(self: &Arc<Self>) -> State {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        let now = self.clock.monotonic();
        if let Some((at, state)) = *last
            && now.saturating_sub(at) < MAX_AGE
        {
            return state;
        }
        let (health, users_answered) = (Arc::clone(self), Arc::new(AtomicBool::new(false)));
        let answered = Arc::clone(&users_answered);
        // A task of its own: whoever hangs up leaves an answer to the next, who asks no store anew.
        let asked = tokio::spawn(async move {
            let state = health.ask(&answered).await;
            *last = Some((health.clock.monotonic(), state));
            state
        });
        // It ends without an answer by a panic only, of the store that was asked last.
        asked.await.unwrap_or_else(|_| {
            let is_of_nonces = users_answered.load(Ordering::Relaxed);
            if is_of_nonces { State::NoNonceStore } else { State::NoUserStore }
        })
    }

    async fn ask(&self, users_answered: &AtomicBool) -> State {
        let reading = self.users.find_by_username(self.username.as_str(), Freshness::Current);
        match tokio::time::timeout(TIMEOUT, reading).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return State::NoUserStore,
        }
        users_answered.store(true, Ordering::Relaxed);
        let Ok(nonce) = self.nonce() else { return State::NoNonceStore };
        match tokio::time::timeout(TIMEOUT, self.nonces.consume(&nonce)).await {
            Ok(Ok(NonceOutcome::Fresh)) => State::Ready,
            Ok(Err(NonceError::Full { .. })) => State::NonceStoreFull,
            Ok(Err(NonceError::MayHaveBeenUsed { .. })) => State::NonceStoreStarting,
            // A nonce that was just made is no replay.
            Ok(Ok(NonceOutcome::Replayed) | Err(_)) | Err(_) => State::NoNonceStore,
        }
    }

    /// The nonce of a token that was just made, as only a verified token has one.
    fn nonce(&self) -> Result<NonceUse, Failure> {
        let now = self.clock.now();
        let claims = Claims::new(self.username.clone(), now, Nonce::generate(getrandom::fill)?);
        let signed = Token::sign(&claims, &self.key)?;
        let validation = Validation::default();
        let token =
            UntrustedToken::parse(signed.as_str())?.verify(self.key.public_key(), &validation, now)?;
        Ok(NonceUse::new(NonceKey::of_token(&token), token.time(), now, self.tolerance, MARGIN))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl State {
    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::Ready => "ready\n",
            Self::NoUserStore => "not ready: the user store does not answer\n",
            Self::NoNonceStore => "not ready: the nonce store does not answer\n",
            Self::NonceStoreFull => "not ready: the nonce store is full\n",
            Self::NonceStoreStarting => "not ready: the nonce store was just started; this passes\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future, sync::atomic::AtomicUsize};

    use ajwt_server::{Found, MemoryNonceBackend, MemoryRepository, RepositoryError};
    use async_trait::async_trait;

    use super::*;

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
        let health = Health::new(users, nonces.clone(), &Validation::default()).expect("made");
        let health = Arc::new(health);
        for _ in 0..10 {
            let answer = tokio::time::timeout(Duration::from_millis(50), health.state()).await;
            assert!(answer.is_err(), "{answer:?}");
        }
        assert_eq!(nonces.0.load(Ordering::SeqCst), 1);
        assert_eq!(health.state().await, State::NoNonceStore);
    }

    #[derive(Debug)]
    struct Panics;

    #[async_trait]
    impl UserRepository for Panics {
        type User = User;

        async fn find_by_username(
            &self,
            _: &str,
            _: Freshness,
        ) -> Result<Option<Found<User>>, RepositoryError> {
            panic!("a user store that panics, as this test wants it")
        }
    }

    #[async_trait]
    impl NonceBackend for Panics {
        async fn consume(&self, _: &NonceUse) -> Result<NonceOutcome, NonceError> {
            panic!("a nonce store that panics, as this test wants it")
        }
    }

    #[tokio::test]
    async fn of_two_stores_the_one_that_panics_is_told() {
        let users = Arc::new(MemoryRepository::new([]));
        let health = Health::new(users, Arc::new(Panics), &Validation::default()).expect("made");
        assert_eq!(Arc::new(health).state().await, State::NoNonceStore);
        let nonces = Arc::new(MemoryNonceBackend::default());
        let health = Health::new(Arc::new(Panics), nonces, &Validation::default()).expect("made");
        assert_eq!(Arc::new(health).state().await, State::NoUserStore);
    }
}
