//! The user cache on paused time: what is used, for how long, and what a request costs.

#[path = "user_cache/of_ones_own.rs"]
mod of_ones_own;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ajwt_server::{
    CachedUserRepository, Found, Freshness, KeyedUser as _, RepositoryError, RevisionSource, User,
    UserCacheOptions, UserRepository,
};
use ajwt_test_support::TokioClock;
use async_trait::async_trait;
use tokio::{sync::Notify, time::Instant};

use Freshness::{Current, MayBeCached};

#[derive(Debug, Default)]
struct Store {
    users: Mutex<HashMap<String, bool>>,
    revision: AtomicI64,
    has_no_revision: AtomicBool,
    is_down: AtomicBool,
    hangs: AtomicBool,
    panics: AtomicBool,
    /// The next look at the revision does.
    look_panics: AtomicBool,
    /// Of this user nothing can be read.
    fails_for: Mutex<Option<&'static str>>,
    delay: Mutex<Duration>,
    reads: AtomicUsize,
    looks: AtomicUsize,
    notify: Notify,
}

impl Store {
    fn set(&self, username: &str, active: bool) {
        self.users.lock().expect("lock").insert(username.to_owned(), active);
        self.revision.fetch_add(1, Ordering::SeqCst);
    }

    fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::SeqCst)
    }

    fn looks(&self) -> usize {
        self.looks.swap(0, Ordering::SeqCst)
    }

    async fn answer(&self) -> Result<Option<i64>, RepositoryError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_down.load(Ordering::SeqCst) {
            return Err(RepositoryError::new("reading", std::io::Error::other("down")));
        }
        let revision = self.revision.load(Ordering::SeqCst);
        Ok((!self.has_no_revision.load(Ordering::SeqCst)).then_some(revision))
    }
}

#[async_trait]
impl UserRepository for Store {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics.load(Ordering::SeqCst), "a repository that panics, as this test wants it");
        if *self.fails_for.lock().expect("lock") == Some(username) {
            return Err(RepositoryError::new("reading", std::io::Error::other("of this user")));
        }
        // What is read is what stood there when the read began.
        let user = {
            let users = self.users.lock().expect("lock");
            // By a collation that is blind to case.
            let user = users.iter().find(|(name, _)| name.eq_ignore_ascii_case(username));
            user.map(|(name, active)| Arc::new(User::new(name.as_str()).with_active(*active)))
        };
        let revision = self.answer().await?;
        let delay = *self.delay.lock().expect("lock");
        tokio::time::sleep(delay).await;
        Ok(user.map(|user| Found::current(user).with_revision(revision)))
    }
}

#[async_trait]
impl RevisionSource for Store {
    async fn revision(&self) -> Result<Option<i64>, RepositoryError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let panics = self.look_panics.swap(false, Ordering::SeqCst);
        assert!(!panics, "a store that panics, as this test wants it");
        self.answer().await
    }

    async fn changed(&self) {
        self.notify.notified().await;
    }
}

fn cached(
    options: impl FnOnce(UserCacheOptions) -> UserCacheOptions,
) -> (Arc<Store>, Arc<CachedUserRepository<User>>) {
    let store = Arc::new(Store::default());
    store.set("guido", true);
    let options = options(UserCacheOptions::default().clock(Arc::new(TokioClock(Instant::now()))));
    let cache = CachedUserRepository::over(Arc::clone(&store), options);
    (store, Arc::new(cache))
}

/// Whether the user is active and where the answer came from; `None` if there is no user.
async fn find(
    cache: &CachedUserRepository<User>,
    username: &str,
    freshness: Freshness,
) -> Option<(bool, Freshness)> {
    let found = cache.find_by_username(username, freshness).await.expect("an answer");
    found.map(|found| (found.user().is_active(), found.freshness()))
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_panics_is_followed_by_others() {
    let (store, cache) = cached(|options| options);
    store.look_panics.store(true, Ordering::SeqCst);
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)));
    pass(2000).await;
    assert_eq!(store.looks(), 1, "it panicked");
    assert_eq!(store.reads(), 1);
    pass(30_000).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)));
    for _ in 0..20 {
        pass(400).await;
        assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, MayBeCached)));
    }
    assert_eq!(store.reads(), 1);
    store.set("guido", false);
    pass(1100).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((false, Current)));
}

#[tokio::test(start_paused = true)]
async fn one_read_serves_as_long_as_the_revision_stands() {
    let (store, cache) = cached(|options| options);
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)));
    for _ in 0..100 {
        pass(400).await;
        assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, MayBeCached)));
    }
    assert_eq!(store.reads(), 1);
    // One look at the revision per half of the staleness, whatever the number of requests.
    let looks = store.looks();
    assert!((70..=82).contains(&looks), "{looks}");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_raises_no_revision_is_noticed_after_a_minute() {
    let (store, cache) = cached(|options| options);
    let start = Instant::now();
    find(&cache, "guido", MayBeCached).await;
    // By a writer that fires no triggers.
    store.users.lock().expect("lock").insert("guido".to_owned(), false);
    while find(&cache, "guido", MayBeCached).await.expect("a user").0 {
        pass(400).await;
    }
    // After a minute, not with it.
    assert_eq!(start.elapsed(), Duration::from_millis(60_400));
}

#[tokio::test(start_paused = true)]
async fn a_change_is_effective_within_the_staleness_and_not_later() {
    for phase in [0, 130, 260, 390, 499] {
        let (store, cache) = cached(|options| options);
        find(&cache, "guido", MayBeCached).await;
        pass(1000 + phase).await;
        find(&cache, "guido", MayBeCached).await;
        store.set("guido", false);
        let changed = Instant::now();
        while find(&cache, "guido", MayBeCached).await.expect("a user").0 {
            assert!(
                changed.elapsed() <= Duration::from_secs(1),
                "still in use after {:?}",
                changed.elapsed()
            );
            pass(10).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_notification_does_not_stand_in_for_the_next_look() {
    let (store, cache) = cached(|options| options);
    find(&cache, "guido", MayBeCached).await;
    store.notify.notify_one();
    pass(1).await;
    find(&cache, "guido", MayBeCached).await;
    for _ in 0..10 {
        pass(450).await;
        assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, MayBeCached)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_nobody_uses_does_not_look() {
    let (store, cache) = cached(|options| options);
    find(&cache, "guido", MayBeCached).await;
    pass(60_000).await;
    assert!(store.looks() <= 1);
    // What was not looked at for so long is read anew.
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)));
}

#[tokio::test(start_paused = true)]
async fn a_notification_ends_entries_at_once() {
    let (store, cache) = cached(|options| options.max_staleness(Duration::from_secs(3600)));
    find(&cache, "guido", MayBeCached).await;
    pass(10_000).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, MayBeCached)));
    store.set("guido", false);
    store.notify.notify_one();
    pass(1).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((false, Current)));
    // And a second one, and a notification of nothing.
    store.set("guido", true);
    store.notify.notify_one();
    pass(50).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)));
    pass(50).await;
    store.notify.notify_one();
    pass(50).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, MayBeCached)), "the revision stands");
}

#[tokio::test(start_paused = true)]
async fn a_notification_ends_entries_before_the_store_tells_what_changed() {
    let (store, cache) = cached(|options| options.max_staleness(Duration::from_secs(3600)));
    find(&cache, "guido", MayBeCached).await;
    pass(1).await;
    store.hangs.store(true, Ordering::SeqCst);
    store.notify.notify_one();
    pass(1).await;
    let found = tokio::time::timeout(Duration::from_millis(100), find(&cache, "guido", MayBeCached)).await;
    assert!(found.is_err(), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_looks_at_the_store_once_the_cache_is_gone() {
    let (store, cache) = cached(|options| options);
    find(&cache, "guido", MayBeCached).await;
    drop(cache);
    pass(1).await;
    assert_eq!(Arc::strong_count(&store), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_revision_an_entry_serves_the_staleness() {
    let (store, cache) = cached(|options| options);
    store.has_no_revision.store(true, Ordering::SeqCst);
    find(&cache, "guido", MayBeCached).await;
    pass(999).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, MayBeCached)));
    pass(2).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)));
    assert_eq!(store.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn current_always_reads_and_so_does_a_staleness_of_zero() {
    let (store, cache) = cached(|options| options);
    for _ in 0..3 {
        assert_eq!(find(&cache, "guido", Current).await, Some((true, Current)));
        assert_eq!(find(&cache, "nobody", MayBeCached).await, None);
        assert_eq!(store.reads(), 2, "one read each, known or unknown");
    }
    let (store, cache) = cached(|options| options.max_staleness(Duration::ZERO));
    for _ in 0..3 {
        assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)));
        assert_eq!(store.reads(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_user_is_gone_from_the_cache_too() {
    let (store, cache) = cached(|options| options);
    find(&cache, "guido", MayBeCached).await;
    store.users.lock().expect("lock").clear();
    assert_eq!(find(&cache, "guido", Current).await, None);
    assert_eq!(find(&cache, "guido", MayBeCached).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_user_is_gone_from_the_cache_by_the_old_name() {
    let (store, cache) = cached(|options| options);
    store.has_no_revision.store(true, Ordering::SeqCst);
    find(&cache, "guido", MayBeCached).await;
    store.users.lock().expect("lock").clear();
    store.set("Guido", true);
    find(&cache, "guido", Current).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)));
}

#[tokio::test(start_paused = true)]
async fn a_read_is_shared_only_by_those_who_came_before_it_began() {
    let (store, cache) = cached(|options| options);
    *store.delay.lock().expect("lock") = Duration::from_millis(100);
    let ask = |cache: &Arc<CachedUserRepository<User>>| {
        let cache = Arc::clone(cache);
        tokio::spawn(async move { find(&cache, "guido", Current).await })
    };
    let first: Vec<_> = (0..5).map(|_| ask(&cache)).collect();
    pass(50).await;
    // While that read is on its way the user is deactivated: it has read too early for these.
    store.set("guido", false);
    let late: Vec<_> = (0..5).map(|_| ask(&cache)).collect();
    for answer in first {
        assert_eq!(answer.await.expect("joined"), Some((true, Current)));
    }
    for answer in late {
        assert_eq!(answer.await.expect("joined"), Some((false, Current)));
    }
    assert_eq!(store.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_takes_nobodys_answer_along() {
    let (store, cache) = cached(|options| options);
    *store.delay.lock().expect("lock") = Duration::from_millis(100);
    let given_up = Arc::clone(&cache);
    let given_up = tokio::spawn(async move { find(&given_up, "guido", Current).await });
    pass(10).await;
    let waiting = Arc::clone(&cache);
    let waiting = tokio::spawn(async move { find(&waiting, "guido", Current).await });
    pass(10).await;
    given_up.abort();
    assert_eq!(waiting.await.expect("joined"), Some((true, Current)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_an_error_once_the_staleness_is_over() {
    let (store, cache) = cached(|options| options);
    find(&cache, "guido", MayBeCached).await;
    store.is_down.store(true, Ordering::SeqCst);
    pass(900).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, MayBeCached)));
    pass(200).await;
    assert!(cache.find_by_username("guido", MayBeCached).await.is_err());
    assert!(cache.find_by_username("guido", Current).await.is_err());
    store.is_down.store(false, Ordering::SeqCst);
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((true, Current)), "service resumes by itself");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_given_up_after_its_time() {
    for timeout in [Duration::from_millis(300), Duration::from_secs(3)] {
        let (store, cache) = cached(|options| options.read_timeout(timeout));
        store.hangs.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        assert!(cache.find_by_username("guido", Current).await.is_err());
        assert_eq!(begun.elapsed(), timeout);
    }
}

#[tokio::test(start_paused = true)]
async fn entries_may_serve_longer_while_the_store_is_down() {
    for hangs in [false, true] {
        let (store, cache) = cached(|options| options.stale_if_error(Duration::from_secs(60)));
        find(&cache, "guido", MayBeCached).await;
        store.is_down.store(!hangs, Ordering::SeqCst);
        store.hangs.store(hangs, Ordering::SeqCst);
        for _ in 0..8 {
            pass(2500).await;
            let found = cache.find_by_username("guido", MayBeCached).await.expect("served").expect("known");
            assert_eq!((found.user().is_active(), found.freshness()), (true, MayBeCached));
            assert!(found.is_after_failed_read(), "the store was asked first");
            assert!(cache.find_by_username("nobody", MayBeCached).await.is_err());
            assert!(cache.find_by_username("guido", Current).await.is_err(), "a refusal needs the store");
        }
        pass(61_000).await;
        assert!(cache.find_by_username("guido", MayBeCached).await.is_err(), "a minute is over");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_store_that_hung_a_moment_ago() {
    let (store, cache) = cached(|options| options.stale_if_error(Duration::from_secs(60)));
    find(&cache, "guido", MayBeCached).await;
    store.hangs.store(true, Ordering::SeqCst);
    pass(2500).await;
    store.reads();
    for expected_reads in [1, 0, 0, 1, 0, 0] {
        let found = cache.find_by_username("guido", MayBeCached).await.expect("served").expect("known");
        assert_eq!((found.user().is_active(), found.freshness()), (true, MayBeCached));
        assert_eq!((store.reads(), found.is_after_failed_read()), (expected_reads, expected_reads == 1));
        pass(500).await;
    }
}

/// Anybody may claim a name whose data cannot be read.
#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_read_lets_no_other_serve_for_longer() {
    for has_no_revision in [false, true] {
        let (store, cache) = cached(|options| options.stale_if_error(Duration::from_secs(60)));
        store.has_no_revision.store(has_no_revision, Ordering::SeqCst);
        find(&cache, "guido", MayBeCached).await;
        *store.fails_for.lock().expect("lock") = Some("twice");
        store.set("guido", false);
        for _ in 0..3 {
            pass(1100).await;
            assert!(cache.find_by_username("twice", Current).await.is_err());
            let found = find(&cache, "guido", MayBeCached).await;
            assert!(matches!(found, Some((false, _))), "{found:?}");
        }
    }
}

/// A store whose looks work and whose reads do not keeps no entry for ever.
#[tokio::test(start_paused = true)]
async fn the_grace_ends_although_the_revision_is_seen() {
    let (store, cache) = cached(|options| options.stale_if_error(Duration::from_secs(60)));
    find(&cache, "guido", MayBeCached).await;
    *store.fails_for.lock().expect("lock") = Some("guido");
    pass(100_000).await;
    assert!(cache.find_by_username("guido", MayBeCached).await.is_ok());
    pass(30_000).await;
    assert!(cache.find_by_username("guido", MayBeCached).await.is_err(), "after two minutes");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_and_says_so_does_not_end_the_grace() {
    for (grace, is_served) in [(60, true), (0, false)] {
        let (store, cache) = cached(|options| options.stale_if_error(Duration::from_secs(grace)));
        find(&cache, "guido", MayBeCached).await;
        pass(5).await;
        store.is_down.store(true, Ordering::SeqCst);
        for _ in 0..5 {
            // The connection that listened is gone, and cannot be made anew.
            store.notify.notify_one();
            pass(1000).await;
            let found = cache.find_by_username("guido", MayBeCached).await;
            assert_eq!(found.is_ok(), is_served);
        }
    }
}

#[test]
fn a_runtime_that_ends_in_mid_read_wedges_no_user() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    };
    let lasting = runtime();
    let (store, cache) = lasting.block_on(async { cached(|options| options) });
    *store.delay.lock().expect("lock") = Duration::from_secs(3600);
    let passing = runtime();
    passing.block_on(async {
        let read = tokio::time::timeout(Duration::from_millis(10), cache.find_by_username("guido", Current));
        assert!(read.await.is_err(), "the read hangs");
    });
    drop(passing);
    *store.delay.lock().expect("lock") = Duration::ZERO;
    lasting.block_on(async {
        let read = tokio::time::timeout(Duration::from_secs(5), find(&cache, "guido", Current));
        assert_eq!(read.await.expect("in time"), Some((true, Current)));
    });
}

/// Its task was made and has never run.
#[test]
fn a_runtime_that_ends_before_a_read_begins_wedges_no_user() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    };
    let lasting = runtime();
    let (_store, cache) = lasting.block_on(async { cached(|options| options) });
    let passing = runtime();
    passing.block_on(async {
        let mut find = std::pin::pin!(cache.find_by_username("guido", Current));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::future::Future::poll(find.as_mut(), &mut context).is_pending());
    });
    drop(passing);
    lasting.block_on(async {
        let read = tokio::time::timeout(Duration::from_secs(5), find(&cache, "guido", Current));
        assert_eq!(read.await.expect("in time"), Some((true, Current)));
    });
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_panics_fails_those_who_wait_and_nobody_after_them() {
    let (store, cache) = cached(|options| options);
    store.panics.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(cache.find_by_username("guido", Current).await.is_err());
    }
    assert_eq!(store.reads(), 3, "each tried anew");
    store.panics.store(false, Ordering::SeqCst);
    assert_eq!(find(&cache, "guido", Current).await, Some((true, Current)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_put_back_makes_no_old_entry_good_again() {
    let (store, cache) = cached(|options| options.max_staleness(Duration::from_secs(3600)));
    for _ in 0..9 {
        store.set("guido", true);
    }
    find(&cache, "guido", MayBeCached).await;
    // Put back to revision 5, then changed until the numbers meet again.
    store.revision.store(5, Ordering::SeqCst);
    find(&cache, "other", Current).await;
    store.set("other", true);
    find(&cache, "other", Current).await;
    store.set("guido", false);
    store.revision.store(10, Ordering::SeqCst);
    find(&cache, "other", Current).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((false, Current)));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_a_look_overtook_is_not_kept() {
    let (store, cache) = cached(|options| options.max_staleness(Duration::from_secs(3600)));
    store.set("other", true);
    // A slow read, during which the store is put back to the revision before.
    *store.delay.lock().expect("lock") = Duration::from_millis(700);
    let slow = {
        let cache = Arc::clone(&cache);
        tokio::spawn(async move { find(&cache, "guido", MayBeCached).await })
    };
    pass(100).await;
    *store.delay.lock().expect("lock") = Duration::ZERO;
    store.revision.fetch_sub(1, Ordering::SeqCst);
    find(&cache, "other", Current).await;
    assert_eq!(slow.await.expect("no panic"), Some((true, Current)));
    // The numbers meet again.
    store.set("guido", false);
    find(&cache, "other", Current).await;
    assert_eq!(find(&cache, "guido", MayBeCached).await, Some((false, Current)));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_to_be_old_never_serves() {
    let (store, cache) = cached(|options| options.stale_if_error(Duration::from_secs(3600)));
    find(&cache, "guido", MayBeCached).await;
    store.set("guido", false);
    pass(600).await;
    store.is_down.store(true, Ordering::SeqCst);
    assert!(cache.find_by_username("guido", MayBeCached).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let (store, cache) = cached(|options| options.capacity(100));
    for number in 0..5000 {
        store.users.lock().expect("lock").insert(format!("u{number}"), true);
    }
    for number in 0..5000 {
        find(&cache, &format!("u{number}"), MayBeCached).await;
    }
    let mut hits = 0;
    for number in 0..5000 {
        let found = cache.find_by_username(&format!("u{number}"), MayBeCached).await.expect("an answer");
        hits += usize::from(found.is_some_and(|found| found.freshness() == MayBeCached));
    }
    assert!(hits <= 200, "{hits}");
}
