//! The user cache over each store, while another process writes.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{env, process::Command, sync::Arc, time::Duration};

use ajwt_core::Timestamp;
use ajwt_server::{
    Authenticator, CachedUserRepository, Clock as _, Freshness, InsecureNoReplayProtection, KeySource,
    NewKey, Reason, RepositoryError, RevisionSource, SystemClock, UsageRecorder as _, UserCacheOptions,
    UserRepository as _,
};
use ajwt_test_support::until;
use async_trait::async_trait;

use crate::store::{self, Store, add_guido, authenticate, database, name, sign};

const STORE_URL: &str = "AJWT_TEST_STORE_URL";
const STORE_SQL: &str = "AJWT_TEST_STORE_SQL";

/// What the machine may add to what the cache promises.
const SLACK: Duration = Duration::from_millis(500);

/// Runs the statement if this is the process that is to.
async fn is_writer<S: Store>() -> bool {
    let (Ok(url), Ok(sql)) = (env::var(STORE_URL), env::var(STORE_SQL)) else { return false };
    S::open(&url).await.execute(&sql).await;
    true
}

/// Runs a statement in a process of its own: this test's program, as this test.
async fn in_another_process<S: Store>(test: &str, database: &S::Database, sql: &str) {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", test]).env(STORE_URL, S::url(database)).env(STORE_SQL, sql);
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("joined").expect("started");
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stdout));
}

pub(crate) fn cache<S: Store>(
    store: &S,
    max_staleness: Duration,
) -> Arc<CachedUserRepository<ajwt_server::User>> {
    let options = UserCacheOptions::default().max_staleness(max_staleness);
    Arc::new(CachedUserRepository::over(Arc::new(store.clone()), options))
}

pub(crate) fn authenticator(cache: &Arc<CachedUserRepository<ajwt_server::User>>) -> Authenticator {
    let nonces = Arc::new(InsecureNoReplayProtection);
    Authenticator::builder(Arc::clone(cache) as _, nonces).build().expect("built")
}

/// Waits until requests find the user in the cache. That a listener has begun ends entries, too.
pub(crate) async fn until_cached(cache: &CachedUserRepository<ajwt_server::User>, what: &str) {
    let is_cached = async || {
        let found = cache.find_by_username("guido", Freshness::MayBeCached).await;
        found.expect("read").expect("a user").freshness() == Freshness::MayBeCached
    };
    until(&format!("{what}: the user is cached"), is_cached).await;
}

/// Waits until something is so. No request that begins later than this may find it otherwise: how long one
/// takes is the machine's affair.
pub(crate) async fn is_so_for_requests_after(limit: Duration, what: &str, is_so: impl AsyncFn() -> bool) {
    let clock = SystemClock::new();
    let changed = clock.monotonic();
    loop {
        let begun = clock.monotonic() - changed;
        if is_so().await {
            return;
        }
        assert!(begun <= limit, "{what}: not noticed by a request {begun:?} after");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Changes that must end an acceptance, as SQL.
fn changes<S: Store>() -> Vec<(&'static str, String)> {
    let now = SystemClock::new().now().as_millis();
    vec![
        ("a key revoked", format!("UPDATE ajwt_public_key SET revoked_at = {now}")),
        ("a key expired", format!("UPDATE ajwt_public_key SET expires_at = {now}")),
        ("a key removed", "DELETE FROM ajwt_public_key".into()),
        ("a user deactivated", format!("UPDATE ajwt_user SET active = NOT {}", S::TRUE)),
    ]
}

/// `is_told`: the store says at once that it changed, so that a staleness of an hour is no matter.
pub(crate) async fn changes_of_another_process_are_effective_in_time<S: Store>(test: &str, is_told: bool) {
    if is_writer::<S>().await {
        return;
    }
    for (what, sql) in changes::<S>() {
        let (database, store) = database::<S>().await;
        let key = add_guido(&store).await;
        let staleness = if is_told { Duration::from_secs(3600) } else { Duration::from_secs(1) };
        let cache = cache(&store, staleness);
        let authenticator = authenticator(&cache);
        // Until the listener, where there is one, has begun.
        tokio::time::sleep(Duration::from_millis(700)).await;
        for _ in 0..3 {
            assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok(), "{what}");
        }
        until_cached(&cache, what).await;

        in_another_process::<S>(test, &database, &sql).await;
        // A notification is an event, waited for as long as it takes; the staleness is a time.
        let limit = if is_told { Duration::from_secs(20) } else { staleness + SLACK };
        let is_refused = async || authenticate(&authenticator, &sign("guido", &key)).await.is_err();
        is_so_for_requests_after(limit, what, is_refused).await;
    }
}

pub(crate) async fn a_trust_removed_by_another_process_is_gone_in_time<S: Store>(test: &str) {
    if is_writer::<S>().await {
        return;
    }
    let (database, store) = database::<S>().await;
    add_guido(&store).await;
    store.add_trust(&name("guido"), "https://a.example/jwks.json").await.expect("added");
    let cache = cache(&store, Duration::from_secs(1));
    let urls = async || {
        use ajwt_server::KeyedUser as _;

        let found =
            cache.find_by_username("guido", Freshness::MayBeCached).await.expect("read").expect("a user");
        found.user().jwks_urls().len()
    };
    assert_eq!(urls().await, 1);
    in_another_process::<S>(test, &database, "DELETE FROM ajwt_jwks_endpoint_trust").await;
    let is_gone = async || urls().await == 0;
    is_so_for_requests_after(Duration::from_secs(1) + SLACK, "a trust removed", is_gone).await;
}

pub(crate) async fn a_key_added_by_another_process_works_on_its_first_use<S: Store>(test: &str) {
    if is_writer::<S>().await {
        return;
    }
    let (database, store) = database::<S>().await;
    let key = add_guido(&store).await;
    let authenticator = authenticator(&cache(&store, Duration::from_secs(3600)));
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
    for _ in 0..3 {
        let new = store::key();
        let text = NewKey::of_key(new.public_key().clone()).text().to_owned();
        let fingerprint = new.public_key().fingerprint();
        let sql = format!(
            "INSERT INTO ajwt_public_key (user_id, {}, fingerprint, comment, created_at)
            SELECT id, '{text}', '{fingerprint}', '', 0 FROM ajwt_user",
            S::KEY
        );
        in_another_process::<S>(test, &database, &sql).await;
        let outcome = authenticate(&authenticator, &sign("guido", &new)).await;
        assert_eq!(outcome.as_deref(), Ok("guido"));
    }
}

/// A store without what it may say by itself.
#[derive(Debug)]
pub(crate) struct PollOnly<S>(pub(crate) S);

#[async_trait]
impl<S: Store> RevisionSource for PollOnly<S> {
    async fn revision(&self) -> Result<Option<i64>, RepositoryError> {
        self.0.revision().await
    }
}

pub(crate) async fn notes_of_use_leave_entries_in_the_cache<S: Store>() {
    let (_database, store) = database::<S>().await;
    add_guido(&store).await;
    store.add_user(&name("eve")).await.expect("added");
    // That it begins to listen ends entries, too.
    let (users, revisions) = (Arc::new(store.clone()), Arc::new(PollOnly(store.clone())));
    let options = UserCacheOptions::default().max_staleness(Duration::from_secs(60));
    let cache = CachedUserRepository::new(users, revisions, options);
    let find = async |username: &str, freshness| {
        let found = cache.find_by_username(username, freshness).await;
        found.expect("read").expect("a user").freshness()
    };
    find("guido", Freshness::Current).await;
    let usage = store.batched_usage();
    let key = store.keys(&name("guido")).await.expect("listed")[0].id;
    let now = SystemClock::new().now().as_millis();
    for used_at in (now..now + 10).map(Timestamp::from_millis) {
        usage.record(KeySource::Key(key), used_at);
        usage.flush().await;
        let keys = store.keys(&name("guido")).await.expect("listed");
        assert_eq!(keys[0].last_used_on, Some(used_at));
        // The revision comes with whatever is read.
        find("eve", Freshness::Current).await;
        assert_eq!(find("guido", Freshness::MayBeCached).await, Freshness::MayBeCached);
    }
    store.set_user_active(&name("eve"), false).await.expect("set");
    find("eve", Freshness::Current).await;
    assert_eq!(find("guido", Freshness::MayBeCached).await, Freshness::Current, "a change ends it");
}

/// With a server of its own, which is stopped and started again; the nonces are in memory.
pub(crate) async fn a_server_that_stops_is_503_after_the_staleness<S: Store>(
    stop: impl FnOnce(),
    start: impl FnOnce(),
    store: &S,
) {
    store::set_up(store).await;
    let key = add_guido(store).await;
    let prompt = authenticator(&cache(store, Duration::from_secs(1)));
    let options = UserCacheOptions::default().stale_if_error(Duration::from_secs(600));
    let patient = authenticator(&Arc::new(CachedUserRepository::over(Arc::new(store.clone()), options)));
    for authenticator in [&prompt, &patient] {
        assert!(authenticate(authenticator, &sign("guido", &key)).await.is_ok());
    }
    stop();
    let clock = SystemClock::new();
    let is_refused = async || authenticate(&prompt, &sign("guido", &key)).await.is_err();
    is_so_for_requests_after(Duration::from_secs(1) + SLACK, "the server stopped", is_refused).await;
    let refused = clock.monotonic();
    assert_eq!(authenticate(&prompt, &sign("guido", &key)).await, Err(Reason::StoreUnavailable));
    assert!(clock.monotonic() - refused <= Duration::from_secs(3), "503 came late");
    for _ in 0..5 {
        let outcome = authenticate(&patient, &sign("guido", &key)).await;
        assert_eq!(outcome.as_deref(), Ok("guido"), "it was told to serve while the store is down");
        let stranger = sign("guido", &store::key());
        assert_eq!(authenticate(&patient, &stranger).await, Err(Reason::StoreUnavailable));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    start();
    let started = clock.monotonic();
    while authenticate(&prompt, &sign("guido", &key)).await.is_err() {
        assert!(clock.monotonic() - started <= Duration::from_secs(20), "service does not resume");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn a_store_that_is_gone_is_503_once_the_staleness_is_over<S: Store>() {
    let (database, store) = database::<S>().await;
    let key = add_guido(&store).await;
    let authenticator = authenticator(&cache(&store, Duration::from_secs(1)));
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
    store.execute("ALTER TABLE ajwt_revision RENAME TO ajwt_revision_gone").await;
    let refused = async || match authenticate(&authenticator, &sign("guido", &key)).await {
        Ok(_) => false,
        Err(reason) => {
            assert_eq!(reason, Reason::StoreUnavailable);
            true
        }
    };
    is_so_for_requests_after(Duration::from_secs(1) + SLACK, "a table gone", refused).await;
    store.execute("ALTER TABLE ajwt_revision_gone RENAME TO ajwt_revision").await;
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok(), "service resumes by itself");
    drop(database);
}

/// The tests of one store. `$is_told`: it says at once that it changed.
#[macro_export]
macro_rules! user_cache_tests {
    ($store:ty, $is_told:expr) => {
        #[tokio::test]
        async fn changes_of_another_process_are_effective_in_time() {
            let test = "changes_of_another_process_are_effective_in_time";
            user_cache::changes_of_another_process_are_effective_in_time::<$store>(test, $is_told).await;
        }

        #[tokio::test]
        async fn a_trust_removed_by_another_process_is_gone_in_time() {
            let test = "a_trust_removed_by_another_process_is_gone_in_time";
            user_cache::a_trust_removed_by_another_process_is_gone_in_time::<$store>(test).await;
        }

        #[tokio::test]
        async fn a_key_added_by_another_process_works_on_its_first_use() {
            let test = "a_key_added_by_another_process_works_on_its_first_use";
            user_cache::a_key_added_by_another_process_works_on_its_first_use::<$store>(test).await;
        }

        #[tokio::test]
        async fn notes_of_use_leave_entries_in_the_cache() {
            user_cache::notes_of_use_leave_entries_in_the_cache::<$store>().await;
        }

        #[tokio::test]
        async fn a_store_that_is_gone_is_503_once_the_staleness_is_over() {
            user_cache::a_store_that_is_gone_is_503_once_the_staleness_is_over::<$store>().await;
        }
    };
}
