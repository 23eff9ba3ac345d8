//! The cache of users: what it answers with was so a moment ago, whatever reads, looks and changes meet.

use std::{sync::Arc, time::Duration};

use ajwt_models::{
    CachedUserRepository, UserCacheOptions, schedules, spawn,
    sync::watch,
    time::{ModelClock, advance},
};
use ajwt_server::{
    Clock as _, Found, Freshness, KeyedUser, RepositoryError, RevisionSource, StoredKey, TrustedUrl,
    UserRepository,
};
use async_trait::async_trait;
use shuttle::{
    future::yield_now,
    rand::{Rng as _, thread_rng},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

const MAX_STALENESS: Duration = Duration::from_secs(1);

/// A user as the store had it.
#[derive(Debug)]
struct Version {
    username: &'static str,
    /// Counts the changes of the store.
    version: usize,
    /// Counts its reads.
    read: u64,
    /// When the read had begun.
    read_at: Duration,
}

impl KeyedUser for Version {
    fn username(&self) -> &str {
        self.username
    }

    fn is_active(&self) -> bool {
        true
    }

    fn keys(&self) -> &[StoredKey] {
        &[]
    }

    fn jwks_urls(&self) -> &[TrustedUrl] {
        &[]
    }
}

/// Two users, who change together.
#[derive(Debug)]
struct Store {
    now: Mutex<State>,
    reads_begun: AtomicU64,
    reads_answered: AtomicU64,
    /// The version that the store last told of by itself,
    told: watch::Sender<usize>,
    /// that the cache was told of last,
    heard: AtomicUsize,
    /// and that it has looked after since.
    acted_on: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    revision: i64,
    /// When each version was superseded; the last one is not.
    superseded: Vec<Duration>,
}

impl Store {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            now: Mutex::default(),
            reads_begun: AtomicU64::new(0),
            reads_answered: AtomicU64::new(0),
            told: watch::Sender::new(0),
            heard: AtomicUsize::new(0),
            acted_on: AtomicUsize::new(0),
        })
    }

    fn change(&self) {
        self.change_to(|revision| revision + 1);
    }

    fn change_to(&self, revision: impl Fn(i64) -> i64) {
        let mut state = self.now.lock().expect("no panic");
        state.superseded.push(ModelClock.monotonic());
        state.revision = revision(state.revision);
    }

    /// Tells of the last change.
    fn tell(&self) {
        let version = self.now.lock().expect("no panic").superseded.len();
        self.told.send_modify(|told| *told = version);
    }

    fn superseded(&self, version: usize) -> Option<Duration> {
        self.now.lock().expect("no panic").superseded.get(version).copied()
    }
}

#[async_trait]
impl UserRepository for Store {
    type User = Version;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<Version>>, RepositoryError> {
        let username = if username == "a" { "a" } else { "b" };
        let read = self.reads_begun.fetch_add(1, Ordering::SeqCst) + 1;
        let read_at = ModelClock.monotonic();
        yield_now().await;
        let (revision, version) = {
            let state = self.now.lock().expect("no panic");
            (state.revision, state.superseded.len())
        };
        self.reads_answered.fetch_add(1, Ordering::SeqCst);
        // Answers may overtake each other.
        for _ in 0..thread_rng().gen_range(0..16) {
            yield_now().await;
        }
        let user = Arc::new(Version { username, version, read, read_at });
        Ok(Some(Found::current(user).with_revision(Some(revision))))
    }
}

#[async_trait]
impl RevisionSource for Store {
    async fn revision(&self) -> Result<Option<i64>, RepositoryError> {
        self.acted_on.store(self.heard.load(Ordering::SeqCst), Ordering::SeqCst);
        yield_now().await;
        let revision = self.now.lock().expect("no panic").revision;
        for _ in 0..thread_rng().gen_range(0..4) {
            yield_now().await;
        }
        Ok(Some(revision))
    }

    async fn changed(&self) {
        let mut changes = self.told.subscribe();
        // Copied: whoever has borrowed it keeps others from telling.
        let told = || *self.told.borrow();
        if told() == self.heard.load(Ordering::SeqCst) {
            changes.changed().await.expect("the store is there");
        }
        self.heard.store(told(), Ordering::SeqCst);
    }
}

fn cache(store: &Arc<Store>) -> Arc<CachedUserRepository<Version>> {
    let options = UserCacheOptions::default().max_staleness(MAX_STALENESS).clock(Arc::new(ModelClock));
    Arc::new(CachedUserRepository::over(Arc::clone(store), options))
}

/// `None` where the store was too slow.
async fn find(
    cache: &CachedUserRepository<Version>,
    username: &str,
    freshness: Freshness,
) -> Option<Found<Version>> {
    cache.find_by_username(username, freshness).await.ok().flatten()
}

/// Looks a user up, and checks that the answer was true at most the staleness ago.
async fn find_and_check(store: &Store, cache: &CachedUserRepository<Version>, username: &str) {
    let begun = ModelClock.monotonic();
    let Some(found) = find(cache, username, Freshness::MayBeCached).await else { return };
    let allowed = if found.freshness() == Freshness::Current { Duration::ZERO } else { MAX_STALENESS };
    if let Some(superseded) = store.superseded(found.user().version) {
        assert!(
            superseded + allowed >= begun,
            "{found:?}, superseded at {superseded:?}, served at {begun:?}"
        );
    }
}

/// Lets so many times 250 ms pass.
async fn pass(times: usize) {
    for _ in 0..times {
        advance(Duration::from_millis(250));
        yield_now().await;
    }
}

#[test]
fn an_answer_was_true_at_most_the_staleness_ago() {
    schedules::random_tasks(2000, || async {
        let store = Store::new();
        let cache = cache(&store);
        let mut tasks: Vec<_> = ["a", "b"]
            .map(|username| {
                let (store, cache) = (Arc::clone(&store), Arc::clone(&cache));
                spawn(async move {
                    for _ in 0..6 {
                        find_and_check(&store, &cache, username).await;
                        yield_now().await;
                    }
                })
            })
            .into();
        let changed = Arc::clone(&store);
        tasks.push(spawn(async move {
            for _ in 0..2 {
                changed.change();
                yield_now().await;
            }
        }));
        pass(12).await;
        for task in tasks {
            task.await.expect("no panic");
        }
    });
}

/// A store is put back, a look sees it, and then its revisions come again.
#[test]
fn an_answer_was_true_at_most_the_staleness_ago_in_a_store_that_was_put_back() {
    schedules::random_tasks(3000, || async {
        let store = Store::new();
        store.change();
        let cache = cache(&store);
        let read = {
            let cache = Arc::clone(&cache);
            spawn(async move { drop(find(&cache, "a", Freshness::Current).await) })
        };
        while store.reads_answered.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
        advance(Duration::from_millis(1));
        store.change_to(|revision| revision - 1);
        let seen = find(&cache, "b", Freshness::Current).await.expect("time stands still");
        assert_eq!(seen.revision(), Some(0));
        store.change();
        read.await.expect("no panic");
        for _ in 0..2 {
            advance(Duration::from_millis(800));
            drop(find(&cache, "b", Freshness::Current).await);
            find_and_check(&store, &cache, "a").await;
        }
    });
}

/// Another user's read tells that an entry is old whose own read began before it.
#[test]
fn nothing_older_is_answered_once_a_revision_was_answered() {
    schedules::random_tasks(3000, || async {
        let store = Store::new();
        let cache = cache(&store);
        let answered = Arc::new(Mutex::new(None));
        let current = {
            let (cache, answered) = (Arc::clone(&cache), Arc::clone(&answered));
            spawn(async move {
                let begun = ModelClock.monotonic();
                let Some(found) = find(&cache, "a", Freshness::Current).await else { return };
                *answered.lock().expect("no panic") = Some((found.revision(), begun));
            })
        };
        let cached = spawn(async move {
            for _ in 0..3 {
                let answered = *answered.lock().expect("no panic");
                let Some(found) = find(&cache, "b", Freshness::MayBeCached).await else { continue };
                if let Some((revision, begun)) = answered {
                    let is_older = found.revision() < revision && found.user().read_at < begun;
                    assert!(!is_older, "{found:?} after {revision:?}, which was asked for at {begun:?}");
                }
            }
        });
        let changed = Arc::clone(&store);
        let change = spawn(async move { changed.change() });
        advance(Duration::from_millis(250));
        for task in [current, cached, change] {
            task.await.expect("no panic");
        }
    });
}

/// The entries are recent, and the revision, which would end them too, is yet to be seen.
#[test]
fn nothing_from_before_a_change_is_answered_once_the_store_has_told_of_it() {
    schedules::random_tasks(2000, || async {
        let store = Store::new();
        let cache = cache(&store);
        let tasks = ["a", "b"].map(|username| {
            let (store, cache) = (Arc::clone(&store), Arc::clone(&cache));
            spawn(async move {
                for _ in 0..6 {
                    let acted_on = store.acted_on.load(Ordering::SeqCst);
                    if let Some(found) = find(&cache, username, Freshness::MayBeCached).await {
                        assert!(found.user().version >= acted_on, "{found:?} after {acted_on}");
                    }
                    yield_now().await;
                }
            })
        });
        for _ in 0..2 {
            store.change();
            // What is read at the very time that the store tells of is taken to be of after it.
            advance(Duration::from_millis(1));
            store.tell();
            yield_now().await;
            advance(Duration::from_millis(19));
            yield_now().await;
        }
        for task in tasks {
            task.await.expect("no panic");
        }
    });
}

#[test]
fn a_current_answer_is_of_a_read_that_began_after_the_request_came() {
    schedules::random_tasks(2000, || async {
        let store = Store::new();
        let cache = cache(&store);
        let tasks = [0; 3].map(|_| {
            let (store, cache) = (Arc::clone(&store), Arc::clone(&cache));
            spawn(async move {
                for _ in 0..2 {
                    let before = store.reads_begun.load(Ordering::SeqCst);
                    let found = find(&cache, "a", Freshness::Current).await.expect("time stands still");
                    assert!(found.user().read > before, "{found:?}, where {before} reads had begun");
                }
            })
        });
        // One that is given up takes nobody's answer along.
        let given_up = {
            let cache = Arc::clone(&cache);
            spawn(async move { drop(find(&cache, "a", Freshness::Current).await) })
        };
        given_up.abort();
        for task in tasks {
            task.await.expect("no panic");
        }
        let reads = store.reads_begun.load(Ordering::SeqCst);
        assert!(reads <= 7, "{reads} reads for 7 requests");
    });
}
