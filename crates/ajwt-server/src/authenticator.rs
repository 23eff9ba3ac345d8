mod builder;

use std::{
    borrow::Cow,
    error::Error,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use ajwt_core::{Algorithm, PublicKey, Timestamp, Token, UntrustedToken, Validation};
use smallvec::SmallVec;
use tokio::time::Instant;

pub use self::builder::{AuthenticatorBuilder, BuildError};
use crate::{
    Clock, Found, Freshness, KeyedUser, NonceBackend, NonceError, NonceKey, NonceOutcome, NonceUse,
    PublicKeyRepository, Reason, Rejection, RejectionKind, RepositoryError, StoredKey, UsageRecorder, User,
    UserRepository, authorization, decoy::Decoys, hot_keys::HotKeys, public_key::Rank,
    refusal_timer::RefusalTimer, report::Report,
};

/// Keys that are tried for one token, and signature checks that a refusal costs.
const MAX_CANDIDATES: usize = 4;

/// Decides whether a request is authenticated. Cheap to clone; clones are one authenticator.
pub struct Authenticator<U = User> {
    inner: Arc<Inner<U>>,
}

struct Inner<U> {
    users: Arc<dyn UserRepository<User = U>>,
    keys: Vec<Arc<dyn PublicKeyRepository<U>>>,
    nonces: Arc<dyn NonceBackend>,
    usage: Arc<dyn UsageRecorder>,
    clock: Arc<dyn Clock>,
    validation: Validation,
    scheme: Box<str>,
    margin: Duration,
    store_timeout: Duration,
    decoys: Decoys,
    hot_keys: Option<Arc<HotKeys>>,
    refusal_timer: Option<RefusalTimer>,
    report: Report,
}

impl<U: KeyedUser> Authenticator<U> {
    /// Both stores must be named: there is no default for replay protection.
    #[must_use]
    pub fn builder(
        users: Arc<dyn UserRepository<User = U>>,
        nonces: Arc<dyn NonceBackend>,
    ) -> AuthenticatorBuilder<U> {
        AuthenticatorBuilder::new(users, nonces)
    }

    /// Authenticates a request by the values of all its `Authorization` headers, in order, as they
    /// came: zero of them is a request without credentials, more than one is refused.
    ///
    /// An accepted token is used up.
    ///
    /// # Errors
    /// [`Rejection`]. The peer may learn its [`kind`](Rejection::kind) only: a [`Guard`](crate::Guard) makes
    /// the answer of it.
    pub async fn authenticate<'h>(
        &self,
        authorization: impl IntoIterator<Item = &'h [u8]>,
    ) -> Result<Authentication<U>, Rejection> {
        let inner = &*self.inner;
        let refusal_timer = inner.refusal_timer.as_ref().map(|timer| (timer, timer.now()));
        let parsed = authorization::token(authorization, &inner.scheme).and_then(|token| {
            UntrustedToken::parse(token).map_err(|error| authorization::unreadable(token, error))
        });
        let decided = match &parsed {
            Ok(token) => inner.decide(token).await,
            Err(reason) => Err(*reason),
        };
        let username = parsed.as_ref().ok().map(|token| token.claimed_username().as_str());
        match decided {
            Ok(authentication) => {
                inner.report.accepted(authentication.user.username());
                Ok(authentication)
            }
            Err(reason) => {
                let rejection = Rejection::new(reason);
                inner.report.rejected(rejection, username, &*inner.clock);
                // Last of all, so that nothing of what it took can be seen.
                if let Some((timer, begun)) = refusal_timer
                    && rejection.kind() != RejectionKind::NoCredentials
                {
                    timer.wait(begun).await;
                }
                Err(rejection)
            }
        }
    }

    pub(crate) fn scheme(&self) -> &str {
        &self.inner.scheme
    }

    /// A token was used up by a guard of another authenticator further out.
    pub(crate) fn tell_of_guard_within_another(&self) {
        self.inner.report.guard_within_another(&*self.inner.clock);
    }

    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Writes what is not written yet and ends background work. Call it once, after the server has
    /// answered its last request. Stores that hang delay it by twice the store timeout, no more. What looks for changes
    /// of users ends only when the last clone of the repository is dropped, and with it the last of this authenticator:
    /// until then it has a connection to the database.
    pub async fn close(&self) {
        let flushing = self.inner.usage.flush();
        if tokio::time::timeout(self.inner.store_timeout, flushing).await.is_err() {
            tracing::warn!("the last uses of keys could not be written in time and are lost");
        }
        let closing = async {
            self.inner.nonces.close().await;
            for keys in &self.inner.keys {
                keys.close().await;
            }
        };
        if tokio::time::timeout(self.inner.store_timeout, closing).await.is_err() {
            tracing::warn!("a store did not end its background work in time");
        }
    }
}

impl<U> Clone for Authenticator<U> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<U> fmt::Debug for Authenticator<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("users", &self.inner.users)
            .field("keys", &self.inner.keys)
            .field("nonces", &self.inner.nonces)
            .field("validation", &self.inner.validation)
            .field("scheme", &self.inner.scheme)
            .finish_non_exhaustive()
    }
}

/// The decision path, in the only order: what depends on the token alone, the user, the signature,
/// the nonce, the note of use.
impl<U: KeyedUser> Inner<U> {
    async fn decide(&self, token: &UntrustedToken<'_>) -> Result<Authentication<U>, Reason> {
        let now = self.clock.now();
        token.check_claims(&self.validation, now)?;
        let patience = self.patience();
        let mut checks = self.checks(token, now);
        let (user, verified, key) = self.verify(&mut checks, &patience).await?;
        self.consume(&verified, &patience).await?;
        // Checked again: the stores took time, and once the window has closed the entry of an earlier use
        // may be gone, so Fresh proves nothing. The key may have expired meanwhile, too.
        let decided_at = self.clock.now();
        token.check_claims(&self.validation, decided_at)?;
        key.rank(token, decided_at).ok_or(Reason::NoCandidateKey)?;
        self.usage.record(key.source(), now);
        Ok(Authentication { user, token: verified, key })
    }

    fn patience(&self) -> Patience<'_> {
        let (report, clock) = (&self.report, &*self.clock);
        Patience { limit: self.store_timeout, until: OnceLock::new(), report, clock }
    }

    fn checks<'t, 'h>(&'t self, token: &'t UntrustedToken<'h>, now: Timestamp) -> Checks<'t, 'h> {
        let hot_keys = self.hot_keys.as_ref().filter(|_| token.algorithm() == Algorithm::EdDsa);
        let validation = &self.validation;
        Checks { token, validation, now, hot_keys, tried: Vec::new(), made: 0, made_by_table: false }
    }

    /// Looks the user up and checks the signature. Every refusal has read the store once and made
    /// four signature checks, whoever the token claims to be from; more only in the moment after
    /// a cached user's keys have changed. So has a request for which the store failed.
    async fn verify(
        &self,
        checks: &mut Checks<'_, '_>,
        patience: &Patience<'_>,
    ) -> Result<(Arc<U>, Token, StoredKey), Reason> {
        let outcome = self.verify_by_stores(checks, patience).await;
        if outcome.is_err() {
            checks.fill_up(&self.decoys);
        }
        outcome
    }

    async fn verify_by_stores(
        &self,
        checks: &mut Checks<'_, '_>,
        patience: &Patience<'_>,
    ) -> Result<(Arc<U>, Token, StoredKey), Reason> {
        let found = self.find(checks, Freshness::MayBeCached, patience).await?;
        let was_cached = found.as_ref().is_some_and(|found| found.freshness() == Freshness::MayBeCached);
        let read_failed = found.as_ref().is_some_and(Found::is_after_failed_read);
        let outcome = self.try_keys(checks, found, patience).await;
        match outcome {
            Err(reason) if was_cached && reason.kind() == RejectionKind::Refused => {
                // A cache only shortens the way to acceptance: what the store says now decides. It was asked already
                // where it has failed, and is asked no more for a name that is known than for others.
                if read_failed {
                    return Err(Reason::StoreUnavailable);
                }
                let found = self.find(checks, Freshness::Current, patience).await?;
                self.try_keys(checks, found, patience).await
            }
            outcome => outcome,
        }
    }

    async fn find(
        &self,
        checks: &Checks<'_, '_>,
        freshness: Freshness,
        patience: &Patience<'_>,
    ) -> Result<Option<Found<U>>, Reason> {
        let reading = self.users.find_by_username(checks.username(), freshness);
        self.in_time(&USER, reading, patience).await
    }

    async fn try_keys(
        &self,
        checks: &mut Checks<'_, '_>,
        found: Option<Found<U>>,
        patience: &Patience<'_>,
    ) -> Result<(Arc<U>, Token, StoredKey), Reason> {
        // A store may compare names by its collation; here only the very bytes count.
        let found = found.filter(|found| found.user().username() == checks.username());
        let user = found.map(Found::into_user);
        let active = user.as_deref().filter(|user| user.is_active());
        let mut lists = SmallVec::<[_; 2]>::new();
        let mut verified = Err(Reason::NoCandidateKey);
        for (number, repository) in (1..).zip(&self.keys) {
            let reading = repository.candidates(active, checks.token.key_id());
            lists.push(self.in_time(&KEYS, reading, patience).await?);
            // Who has the key that the token names need not wait for the other repositories.
            let ranks =
                if number == self.keys.len() { &[Rank::Named, Rank::Static][..] } else { &[Rank::Named] };
            verified = checks.first_that_verifies(&lists, ranks);
            if verified.is_ok() {
                break;
            }
        }
        // They borrow the user.
        drop(lists);
        let user = user.ok_or(Reason::UnknownUser)?;
        if !user.is_active() {
            return Err(Reason::InactiveUser);
        }
        let (token, key) = verified?;
        Ok((user, token, key))
    }

    async fn consume(&self, token: &Token, patience: &Patience<'_>) -> Result<(), Reason> {
        // After a stall of the process, what came of a read counts although its time is over; but a nonce would be
        // used up for a request that nobody waits for any more.
        if patience.is_over() {
            let error = RepositoryError::timeout("reading users and keys");
            self.report.store_failed(&error, &*self.clock);
            return Err(Reason::StoreUnavailable);
        }
        // The clock is read again: a slow store must not make the backend believe an earlier time.
        let nonce = NonceUse::new(
            NonceKey::of_token(token),
            token.time(),
            self.clock.now(),
            self.validation.tolerance(),
            self.margin,
        );
        let error = match patience.within(&NONCE, self.nonces.consume(&nonce)).await {
            Some(Ok(NonceOutcome::Fresh)) => return Ok(()),
            Some(Ok(NonceOutcome::Replayed)) => return Err(Reason::Replayed),
            Some(Err(error)) => error,
            None => NonceError::Store(NONCE.took_too_long()),
        };
        if let NonceError::MayHaveBeenUsed { .. } = error {
            self.report.nonce_store_starting(&error, &*self.clock);
            return Err(Reason::NonceStoreStarting);
        }
        self.report.nonce_store_failed(&error, &*self.clock);
        match error {
            NonceError::Full { .. } => Err(Reason::NonceStoreFull),
            _ => Err(Reason::NonceStoreUnavailable),
        }
    }

    async fn in_time<T>(
        &self,
        question: &Question,
        reading: impl Future<Output = Result<T, RepositoryError>>,
        patience: &Patience<'_>,
    ) -> Result<T, Reason> {
        let result = patience.within(question, reading).await;
        result.unwrap_or_else(|| Err(question.took_too_long())).map_err(|error| {
            (question.report)(&self.report, &error, &*self.clock);
            question.reason
        })
    }
}

/// What a request asks of a store, and what becomes of one without an answer.
struct Question {
    what: &'static str,
    reason: Reason,
    report: fn(&Report, &(dyn Error + 'static), &dyn Clock),
}

const USER: Question =
    Question { what: "reading a user", reason: Reason::StoreUnavailable, report: Report::store_failed };

const KEYS: Question =
    Question { what: "reading keys", reason: Reason::StoreUnavailable, report: Report::keys_failed };

const NONCE: Question = Question {
    what: "consuming a nonce",
    reason: Reason::NonceStoreUnavailable,
    report: Report::nonce_store_failed,
};

impl Question {
    const fn took_too_long(&self) -> RepositoryError {
        RepositoryError::timeout(self.what)
    }
}

/// How long one request still waits for stores.
struct Patience<'r> {
    limit: Duration,
    /// Told by the first store that it has to wait for; `None` if that lies beyond what can be told.
    until: OnceLock<Option<Instant>>,
    report: &'r Report,
    clock: &'r dyn Clock,
}

impl Patience<'_> {
    fn is_over(&self) -> bool {
        self.until.get().copied().flatten().is_some_and(|until| until <= Instant::now())
    }

    /// What comes of an operation, if it comes in time. What is in memory is there at once, and costs no
    /// timer.
    async fn within<T>(&self, question: &Question, operation: impl Future<Output = T>) -> Option<T> {
        let mut operation = pin!(operation);
        match poll_fn(|context| Poll::Ready(operation.as_mut().poll(context))).await {
            Poll::Ready(result) => return Some(result),
            Poll::Pending => {}
        }
        let mut waiting = Waiting { patience: self, question, since: Instant::now(), has_ended: false };
        let result = match self.until.get_or_init(|| waiting.since.checked_add(self.limit)) {
            Some(until) => tokio::time::timeout_at(*until, operation).await.ok(),
            None => Some(operation.await),
        };
        waiting.has_ended = true;
        result
    }
}

/// A request that waits for a store. One that is dropped meanwhile, since its caller has gone or waits no longer than
/// something around the engine does, is told of here: nothing else would ever say that a store hangs.
struct Waiting<'p> {
    patience: &'p Patience<'p>,
    question: &'p Question,
    since: Instant,
    has_ended: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Not of a store that panics, which nobody gave up; and a second panic here, of somebody's recorder, would end
        // the process.
        if !self.has_ended && !std::thread::panicking() {
            let Patience { report, clock, limit, .. } = *self.patience;
            report.given_up(self.question.reason);
            // Callers may go at any time, and are no fault of a store that is quick.
            if self.since.elapsed() >= limit / 4 {
                (self.question.report)(report, &self.question.took_too_long(), clock);
            }
        }
    }
}

/// The signature checks of one token.
struct Checks<'t, 'h> {
    token: &'t UntrustedToken<'h>,
    validation: &'t Validation,
    now: Timestamp,
    /// Which keys have a table; `None` where no key of the token's algorithm can have one.
    hot_keys: Option<&'t Arc<HotKeys>>,
    /// Keys that did not verify: they are not tried again after the store was read anew.
    tried: Vec<PublicKey>,
    made: usize,
    /// Whether there was one by a table, besides those.
    made_by_table: bool,
}

impl Checks<'_, '_> {
    fn username(&self) -> &str {
        self.token.claimed_username().as_str()
    }

    /// Tries the keys of these ranks, one rank after the other, static keys newest first; at most four different ones.
    fn first_that_verifies(
        &mut self,
        lists: &[Cow<'_, [StoredKey]>],
        ranks: &[Rank],
    ) -> Result<(Token, StoredKey), Reason> {
        let (token, now) = (self.token, self.now);
        let ranked = |rank| {
            let keys = lists.iter().flat_map(|list| list.iter());
            keys.filter(move |key| key.rank(token, now) == Some(rank))
        };
        let mut candidates = SmallVec::<[&StoredKey; MAX_CANDIDATES]>::new();
        for candidate in ranks.iter().flat_map(|rank| ranked(*rank)) {
            let key = candidate.key();
            // One key may come from a key set and from a row.
            if candidates.iter().any(|other| other.key() == key) {
                continue;
            }
            if candidates.len() == MAX_CANDIDATES {
                break;
            }
            candidates.push(candidate);
            if self.tried.contains(key) {
                continue;
            }
            if let Some(token) = self.check_by_table(key).or_else(|| self.check(key)) {
                if let Some(hot_keys) = self.hot_keys {
                    hot_keys.used(key, now);
                }
                return Ok((token, candidate.clone()));
            }
            self.tried.push(key.clone());
        }
        Err(if candidates.is_empty() { Reason::NoCandidateKey } else { Reason::BadSignature })
    }

    /// Makes the checks that are missing to four, with keys that nobody has.
    fn fill_up(&mut self, decoys: &Decoys) {
        let (algorithm, len) = (self.token.algorithm(), self.token.signature_len());
        while self.made < MAX_CANDIDATES
            && let Some(decoy) = decoys.key(algorithm, len)
        {
            // The result is never looked at: what a decoy verifies is refused all the same.
            let _ = std::hint::black_box(self.check(decoy));
        }
        if let Some(hot_keys) = self.hot_keys.filter(|_| !self.made_by_table) {
            self.made_by_table = true;
            let _ = std::hint::black_box(self.verify(hot_keys.decoy(), true));
        }
    }

    /// A check by the key's table, if it has one. It shortens the way to acceptance only: a token that it
    /// does not accept goes the same way as without it, so that its refusal costs the same.
    fn check_by_table(&mut self, key: &PublicKey) -> Option<Token> {
        let hot_keys = self.hot_keys.filter(|_| !self.made_by_table)?;
        let key = hot_keys.table_of(key)?;
        self.made_by_table = true;
        self.verify(&key, true)
    }

    fn check(&mut self, key: &PublicKey) -> Option<Token> {
        self.made += 1;
        self.verify(key, false)
    }

    /// One signature check: the only place that makes any, and where each can be counted.
    fn verify(&self, key: &PublicKey, by_table: bool) -> Option<Token> {
        let algorithm = self.token.algorithm().name();
        tracing::trace!(algorithm, signature_len = key.signature_len(), by_table, "signature check");
        self.token.verify(key, self.validation, self.now).ok()
    }
}

/// An authenticated request: who, by which token and key.
pub struct Authentication<U = User> {
    user: Arc<U>,
    token: Token,
    key: StoredKey,
}

impl<U> Authentication<U> {
    /// The user.
    #[must_use]
    pub const fn user(&self) -> &Arc<U> {
        &self.user
    }

    /// The token, verified and used up.
    #[must_use]
    pub const fn token(&self) -> &Token {
        &self.token
    }

    /// The key that signed it.
    #[must_use]
    pub const fn key(&self) -> &StoredKey {
        &self.key
    }
}

impl<U> Clone for Authentication<U> {
    fn clone(&self) -> Self {
        Self { user: Arc::clone(&self.user), token: self.token.clone(), key: self.key.clone() }
    }
}

impl<U: fmt::Debug> fmt::Debug for Authentication<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication")
            .field("user", &self.user)
            .field("token", &self.token)
            .field("key", &self.key)
            .finish()
    }
}

#[cfg(test)]
mod tests;
