use std::{collections::HashMap, fmt, time::Duration};

use async_trait::async_trait;
use quick_cache::sync::Cache;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    Clock, Found, Freshness, KeyedUser, RepositoryError, RevisionSource, SystemClock, UserRepository,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        lock,
    },
    turn,
};

/// What panics once may do so each time, and each is told in the log.
const PAUSE_AFTER_PANIC: Duration = Duration::from_secs(30);

const DEFAULT_MAX_STALENESS: Duration = Duration::from_secs(1);
/// An entry is read anew after this long, whatever the revision says: writers that fire no triggers,
/// and a store whose revisions began anew, are noticed by it.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Between two looks at the revision, at least.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(10);

const DEFAULT_CAPACITY: usize = 10_000;

/// After the store said that it changed: a burst of changes is one look.
const NOTIFICATION_PAUSE: Duration = Duration::from_millis(10);

/// Less than half of the authenticator's store timeout: a request may wait for two reads, and has keys and a
/// nonce to ask for.
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_millis(750);

/// Users of another repository, kept in memory for as long as they are known to be current.
///
/// An entry is used only while the store's revision was seen unchanged at most `max_staleness` ago.
/// One small query every half of that, while the cache is in use, covers all entries; a store that
/// can say by itself that it changed ([`RevisionSource::changed`]) ends them at once. Where a store
/// has no revision (`NoRevision`), an entry is used for `max_staleness` after it was read. After a minute an
/// entry is read anew in any case.
///
/// Revocation is therefore effective within `max_staleness`. The other way round there is no wait at
/// all: an answer from the cache is marked as such, and before the engine refuses a token it asks
/// for a [`Freshness::Current`] one, so a key that was just added works at once, and a refusal costs
/// one read of the store whether the name is cached, known or unknown.
///
/// Requests that wait for a read of the same user share one, if it began after each of them arrived.
///
/// Over a repository of your own that knows of no revision:
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use ajwt_server::{
///     CachedUserRepository, Found, Freshness, NoRevision, RepositoryError, User, UserCacheOptions, UserRepository,
/// };
/// use async_trait::async_trait;
///
/// #[derive(Debug)]
/// struct Accounts;
///
/// #[async_trait]
/// impl UserRepository for Accounts {
///     type User = User;
///
///     async fn find_by_username(
///         &self,
///         username: &str,
///         _freshness: Freshness,
///     ) -> Result<Option<Found<User>>, RepositoryError> {
///         // A query of the application's own tables, say.
///         let user = (username == "guido").then(|| User::new(username));
///         Ok(user.map(Arc::new).map(Found::current))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), RepositoryError> {
/// let options = UserCacheOptions::default().max_staleness(Duration::from_secs(2));
/// let users = CachedUserRepository::new(Arc::new(Accounts), Arc::new(NoRevision), options);
/// for due in [Freshness::Current, Freshness::MayBeCached] {
///     let found = users.find_by_username("guido", Freshness::MayBeCached).await?;
///     assert_eq!(found.map(|found| found.freshness()), Some(due));
/// }
/// # Ok(())
/// # }
/// ```
pub struct CachedUserRepository<U> {
    shared: Arc<Shared<U>>,
    poller: JoinHandle<()>,
}

struct Shared<U> {
    users: Arc<dyn UserRepository<User = U>>,
    revisions: Arc<dyn RevisionSource>,
    options: UserCacheOptions,
    entries: Cache<Box<str>, Entry<U>>,
    knowledge: Mutex<Knowledge>,
    /// Since the last look at the revision.
    in_use: AtomicBool,
    reads: Mutex<HashMap<Box<str>, Vec<Waiting<U>>>>,
}

type ReadResult<U> = Result<Option<Found<U>>, RepositoryError>;
type Waiting<U> = oneshot::Sender<ReadResult<U>>;

/// A user as it was read. Times are of the monotonic clock, taken before the read began.
struct Entry<U> {
    found: Found<U>,
    read_at: Duration,
}

impl<U> Clone for Entry<U> {
    fn clone(&self) -> Self {
        Self { found: self.found.clone(), read_at: self.read_at }
    }
}

/// What is known of the store as a whole.
#[derive(Clone, Copy, Debug, Default)]
struct Knowledge {
    /// The revision that was seen last, and when.
    seen: Option<(i64, Duration)>,
    /// When the store last said that it changed: what was known before counts for nothing.
    changed_at: Option<Duration>,
    /// When a read was last given up, if the store has not answered one since.
    hung_at: Option<Duration>,
}

impl Knowledge {
    /// The latest moment at which an entry is known to have been current. What is known to be old
    /// never is.
    fn current_at(self, revision: Option<i64>, read_at: Duration) -> Option<Duration> {
        let known = match (revision, self.seen) {
            (Some(revision), Some((seen, seen_at))) if revision == seen => read_at.max(seen_at),
            // An entry is put in only under the revision that was seen last (see `keep`). A different one was
            // seen later, so the entry is old; or it was put in after this was read, and the store is asked once more.
            (Some(_), Some(_)) => return None,
            _ => read_at,
        };
        Some(known)
    }

    /// Whether the store has said since that it changed, or that it could not say.
    fn is_outdated(self, current_at: Duration) -> bool {
        self.changed_at.is_some_and(|changed_at| current_at < changed_at)
    }
}

/// Options of a [`CachedUserRepository`].
#[derive(Clone, Debug)]
pub struct UserCacheOptions {
    max_staleness: Duration,
    stale_if_error: Duration,
    read_timeout: Duration,
    capacity: usize,
    clock: Arc<dyn Clock>,
}

impl Default for UserCacheOptions {
    fn default() -> Self {
        Self {
            max_staleness: DEFAULT_MAX_STALENESS,
            stale_if_error: Duration::ZERO,
            read_timeout: DEFAULT_READ_TIMEOUT,
            capacity: DEFAULT_CAPACITY,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

impl UserCacheOptions {
    /// How long a change in the store may go unnoticed. Default: 1 s. Zero reads the store on each
    /// request.
    #[must_use]
    pub const fn max_staleness(mut self, max_staleness: Duration) -> Self {
        self.max_staleness = max_staleness;
        self
    }

    /// How much longer entries may serve while the store is down: each while reads of its own user
    /// fail, and all of them while the store hangs. Default: zero, not at all.
    #[must_use]
    pub const fn stale_if_error(mut self, stale_if_error: Duration) -> Self {
        self.stale_if_error = stale_if_error;
        self
    }

    /// How long a read may take before the store counts as down. Default: 750 ms. A request may wait
    /// for the rest of one read and for a whole one: keep it below half of the authenticator's store timeout, by what
    /// keys and nonces take.
    #[must_use]
    pub const fn read_timeout(mut self, read_timeout: Duration) -> Self {
        self.read_timeout = read_timeout;
        self
    }

    /// Users that are kept. Default: 10,000.
    #[must_use]
    pub const fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity;
        self
    }

    /// Reads the time here. Default: the operating system's clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

impl<U: KeyedUser> CachedUserRepository<U> {
    /// Over a store that tells its own revision, as those of `ajwt-sqlx` do. Starts the background task
    /// that looks at it.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    #[must_use]
    pub fn over<S>(store: Arc<S>, options: UserCacheOptions) -> Self
    where
        S: UserRepository<User = U> + RevisionSource,
    {
        Self::new(store.clone(), store, options)
    }

    /// As [`over`](Self::over), where what reads users and what tells the revision are two, or nothing tells one
    /// (`NoRevision`). Everything that the user type holds must raise that revision, or users must carry none: see
    /// [`Found::with_revision`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    #[must_use]
    pub fn new(
        users: Arc<dyn UserRepository<User = U>>,
        revisions: Arc<dyn RevisionSource>,
        options: UserCacheOptions,
    ) -> Self {
        let shared = Arc::new(Shared {
            users,
            revisions,
            entries: Cache::new(options.capacity),
            options,
            knowledge: Mutex::default(),
            in_use: AtomicBool::new(false),
            reads: Mutex::default(),
        });
        let poller = tokio::spawn(Arc::clone(&shared).poll());
        Self { shared, poller }
    }
}

impl<U> Drop for CachedUserRepository<U> {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

#[async_trait]
impl<U: KeyedUser> UserRepository for CachedUserRepository<U> {
    type User = U;

    async fn find_by_username(
        &self,
        username: &str,
        freshness: Freshness,
    ) -> Result<Option<Found<U>>, RepositoryError> {
        let shared = &self.shared;
        // Written once between two looks, so that cores which only read it share its line.
        if !shared.in_use.load(Ordering::Relaxed) {
            shared.in_use.store(true, Ordering::Relaxed);
        }
        if freshness == Freshness::MayBeCached {
            // Before the entry: one of an earlier time must not meet a revision that came again.
            let knowledge = *lock(&shared.knowledge);
            if let Some(user) = shared.cached(username, knowledge, shared.grace(knowledge)) {
                return Ok(Some(user));
            }
        }
        match shared.read_shared(username).await {
            // A token that such an entry does not verify is answered with 503, not 401: before a
            // refusal the store must be read.
            Err(error) if freshness == Freshness::MayBeCached => {
                let knowledge = *lock(&shared.knowledge);
                let entry = shared.cached(username, knowledge, shared.options.stale_if_error);
                entry.map(Found::after_failed_read).map(Some).ok_or(error)
            }
            result => result,
        }
    }
}

impl<U: KeyedUser> Shared<U> {
    /// An entry that was known to be current at most `max_staleness` and `grace` ago.
    fn cached(&self, username: &str, knowledge: Knowledge, grace: Duration) -> Option<Found<U>> {
        let usable_for = self.options.max_staleness.saturating_add(grace);
        if usable_for.is_zero() {
            return None;
        }
        let entry = self.entries.get(username)?;
        // After the rest was read: by a later time it is all the older.
        let now = self.options.clock.monotonic();
        if now.saturating_sub(entry.read_at) > MAX_AGE.saturating_add(grace) {
            return None;
        }
        let current_at = knowledge.current_at(entry.found.revision(), entry.read_at)?;
        // A store that is down cannot say whether it changed: that is what the grace is for.
        if grace.is_zero() && knowledge.is_outdated(current_at) {
            return None;
        }
        let age = now.saturating_sub(current_at);
        let revision = entry.found.revision();
        (age <= usable_for).then(|| Found::cached(entry.found.into_user()).with_revision(revision))
    }

    /// While the store is known to hang, nobody waits for it to do so again. A read that fails at once
    /// says nothing of others: it may be one user's data that is at fault, whose name anybody may claim.
    fn grace(&self, knowledge: Knowledge) -> Duration {
        let UserCacheOptions { max_staleness, stale_if_error, read_timeout, ref clock, .. } = self.options;
        // Not for less than it takes to find out, or most requests would wait for that.
        let known_for = max_staleness.max(read_timeout);
        let hung_at = knowledge.hung_at;
        let hangs = hung_at.is_some_and(|hung_at| clock.monotonic().saturating_sub(hung_at) <= known_for);
        if hangs { stale_if_error } else { Duration::ZERO }
    }

    /// Waits for a read of this user that begins from now on. Reads run in tasks of their own, so
    /// that a request that is given up takes nobody's answer along.
    async fn read_shared(self: &Arc<Self>, username: &str) -> ReadResult<U> {
        let (sender, receiver) = oneshot::channel();
        let is_first = {
            let mut reads = lock(&self.reads);
            match reads.get_mut(username) {
                Some(waiting) => {
                    waiting.push(sender);
                    false
                }
                None => {
                    reads.insert(username.into(), vec![sender]);
                    true
                }
            }
        };
        if is_first {
            // Before the task is: a runtime that ends may drop it without ever having run it.
            let registered =
                Registered { shared: Arc::clone(self), username: username.into(), is_there: true };
            tokio::spawn(registered.read());
        }
        receiver.await.unwrap_or_else(|_| Err(RepositoryError::timeout("reading a user")))
    }

    async fn read(&self, username: &str) -> ReadResult<U> {
        let read_at = self.options.clock.monotonic();
        let reading = self.users.find_by_username(username, Freshness::Current);
        let answer = tokio::time::timeout(self.options.read_timeout, reading).await;
        lock(&self.knowledge).hung_at = answer.is_err().then(|| self.options.clock.monotonic());
        let result = answer.unwrap_or_else(|_| Err(RepositoryError::timeout("reading a user")));
        match &result {
            // A store that compares names by a collation may answer with another name.
            Ok(Some(found)) if found.user().username() == username => self.keep(found, read_at),
            Ok(_) => drop(self.entries.remove(username)),
            Err(_) => {}
        }
        result
    }

    fn keep(&self, found: &Found<U>, read_at: Duration) {
        // Held until the entry is there: what makes entries old clears them before or after it.
        let mut knowledge = lock(&self.knowledge);
        if let Some(revision) = found.revision() {
            self.saw(&mut knowledge, revision, read_at);
        }
        // A look that began later may have overtaken the read.
        if knowledge.current_at(found.revision(), read_at).is_some() {
            self.entries.insert(found.user().username().into(), Entry { found: found.clone(), read_at });
        }
    }

    fn saw(&self, knowledge: &mut Knowledge, revision: i64, at: Duration) {
        if knowledge.seen.is_some_and(|(seen, _)| revision < seen) {
            // The store was put back to an earlier state, and its revisions will come again.
            self.entries.clear();
        }
        if knowledge.seen.is_none_or(|(_, seen_at)| at >= seen_at) {
            knowledge.seen = Some((revision, at));
        }
    }

    async fn poll(self: Arc<Self>) {
        if self.options.max_staleness.is_zero() {
            return;
        }
        let interval = (self.options.max_staleness / 2).max(MIN_POLL_INTERVAL);
        // They end by a panic only.
        while turn::run("looking for changes of users", self.look_on_time(interval)).await.is_none() {
            // A change that the store was about to tell may be lost.
            lock(&self.knowledge).changed_at = Some(self.options.clock.monotonic());
            tokio::time::sleep(interval.max(PAUSE_AFTER_PANIC)).await;
        }
    }

    async fn look_on_time(&self, interval: Duration) {
        // Kept while it waits: a store may lose what it was about to tell to a call that is given up.
        let mut changed = self.revisions.changed();
        loop {
            let was_told = tokio::time::timeout(interval, &mut changed).await.is_ok();
            if was_told {
                lock(&self.knowledge).changed_at = Some(self.options.clock.monotonic());
                changed = self.revisions.changed();
            }
            if was_told || self.in_use.swap(false, Ordering::Relaxed) {
                self.look().await;
            }
            if was_told {
                tokio::time::sleep(NOTIFICATION_PAUSE).await;
            }
        }
    }

    /// Looks at the store's revision. Where that fails, entries end by their age.
    async fn look(&self) {
        let at = self.options.clock.monotonic();
        let looking = tokio::time::timeout(self.options.read_timeout, self.revisions.revision());
        if let Ok(Ok(Some(revision))) = looking.await {
            self.saw(&mut lock(&self.knowledge), revision, at);
        }
    }
}

impl<U> fmt::Debug for CachedUserRepository<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedUserRepository")
            .field("users", &self.shared.users)
            .field("max_staleness", &self.shared.options.max_staleness)
            .field("stale_if_error", &self.shared.options.stale_if_error)
            .finish_non_exhaustive()
    }
}

/// Reads of a user, which are in the register. Takes them off it when their task ends before its time: its
/// repository panicked, or the runtime it ran on is gone. Those who wait fail, and nobody after them.
struct Registered<U> {
    shared: Arc<Shared<U>>,
    username: Box<str>,
    /// Until it was taken off in good order.
    is_there: bool,
}

impl<U: KeyedUser> Registered<U> {
    /// Reads again and again until nobody waits for it. Who arrives during a read waits for the next one.
    async fn read(mut self) {
        loop {
            let waiting = {
                let mut reads = lock(&self.shared.reads);
                match reads.get_mut(&self.username) {
                    Some(waiting) if !waiting.is_empty() => std::mem::take(waiting),
                    _ => {
                        reads.remove(&self.username);
                        self.is_there = false;
                        return;
                    }
                }
            };
            let result = self.shared.read(&self.username).await;
            for one in waiting {
                // Whoever gave up does not need it.
                let _ = one.send(result.clone());
            }
        }
    }
}

impl<U> Drop for Registered<U> {
    fn drop(&mut self) {
        if self.is_there {
            lock(&self.shared.reads).remove(&self.username);
        }
    }
}
