//! The user cache over this store, while another process writes.
#![cfg(feature = "postgres")]

#[path = "support/postgres_store.rs"]
mod postgres_store;
#[path = "support/store.rs"]
mod store;
#[path = "support/user_cache.rs"]
mod user_cache;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ajwt_server::{
    Authenticator, CachedUserRepository, InsecureNoReplayProtection, RevisionSource as _, UserCacheOptions,
};
use ajwt_sqlx::PostgresRepository;
use ajwt_test_servers::sql::{Kind, Server};
use ajwt_test_support::until;
use store::{Store as _, authenticate, sign};
use user_cache::{PollOnly, is_so_for_requests_after};

user_cache_tests!(PostgresRepository, true);

/// A listener that hears nothing, as behind a network that dropped its connection: the poll alone
/// notices changes.
#[tokio::test]
async fn with_a_listener_that_hears_nothing_the_poll_notices_changes() {
    let (_database, store) = store::database::<PostgresRepository>().await;
    let key = store::add_guido(&store).await;
    let (users, revisions) = (Arc::new(store.clone()), Arc::new(PollOnly(store.clone())));
    let cache = CachedUserRepository::new(users, revisions, UserCacheOptions::default());
    let nonces = Arc::new(InsecureNoReplayProtection);
    let authenticator = Authenticator::builder(Arc::new(cache), nonces).build().expect("built");
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
    store.execute("UPDATE ajwt_user SET active = FALSE").await;
    let is_refused = async || authenticate(&authenticator, &sign("guido", &key)).await.is_err();
    is_so_for_requests_after(Duration::from_millis(1500), "a user deactivated", is_refused).await;
}

/// The listener's connection is cut, and not told of a change. With a staleness of an hour no poll notices it in time:
/// that the listener had a gap is told.
#[tokio::test]
async fn a_change_in_a_gap_of_the_listener_is_noticed() {
    let (_database, store) = store::database::<PostgresRepository>().await;
    let key = store::add_guido(&store).await;
    let cache = user_cache::cache(&store, Duration::from_secs(3600));
    let authenticator = user_cache::authenticator(&cache);
    let listeners = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    for round in 0..3 {
        let listen = async || store.number(&format!("SELECT count(*) {listeners}")).await > 0;
        until(&format!("round {round}: somebody listens"), listen).await;
        assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
        user_cache::until_cached(&cache, &format!("round {round}")).await;
        // Each is gone then, and not counted in the next round.
        let cuts = store.number(&format!("SELECT count(pg_terminate_backend(pid, 10000)) {listeners}")).await;
        assert!(cuts >= 1, "round {round}: nobody listens any more");
        store.execute(&format!("UPDATE ajwt_user SET active = {}", round % 2 == 1)).await;
        let is_active = async || authenticate(&authenticator, &sign("guido", &key)).await.is_ok();
        let is_noticed = async || is_active().await == (round % 2 == 1);
        // An event, waited for as long as it takes, but for less than the minute after which an entry is read anew.
        is_so_for_requests_after(Duration::from_secs(20), &format!("round {round}"), is_noticed).await;
        store.execute("UPDATE ajwt_user SET active = TRUE").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_503_after_the_staleness() {
    let server = Mutex::new(Server::start(Kind::Postgres, &[]));
    let url = |database| server.lock().expect("lock").url(database);
    PostgresRepository::open(&url("postgres")).await.execute("CREATE DATABASE ajwt").await;
    let store = PostgresRepository::open(&url("ajwt")).await;
    let stop = || server.lock().expect("lock").stop();
    let start = || server.lock().expect("lock").start_again();
    user_cache::a_server_that_stops_is_503_after_the_staleness(stop, start, &store).await;
}

/// As when a flood of requests has all of the pool's connections.
#[tokio::test]
async fn the_revision_is_read_while_the_pool_is_used_up() {
    let (database, store) = store::database::<PostgresRepository>().await;
    let writer = PostgresRepository::open(&PostgresRepository::url(&database)).await;
    let before = store.revision().await.expect("read").expect("a revision");
    let mut held = Vec::new();
    while held.len() < store.pool().options().get_max_connections() as usize {
        held.push(store.pool().acquire().await.expect("a connection"));
    }
    store::add_guido(&writer).await;
    assert!(store.revision().await.expect("read").expect("a revision") > before);
}

/// As when many users are imported: each look is a query of each process, and ends what is in the cache until then.
#[tokio::test]
async fn many_changes_that_have_come_are_heard_as_one() {
    let (_database, store) = store::database::<PostgresRepository>().await;
    store::add_guido(&store).await;
    // Says that it has just begun to listen.
    store.changed().await;
    for _ in 0..200 {
        store.execute("UPDATE ajwt_user SET active = NOT active").await;
    }
    let mut heard = 0;
    while tokio::time::timeout(Duration::from_millis(500), store.changed()).await.is_ok() {
        heard += 1;
    }
    assert!((1..=5).contains(&heard), "heard {heard} times");
    store.execute("UPDATE ajwt_user SET active = NOT active").await;
    let later = tokio::time::timeout(Duration::from_secs(10), store.changed()).await;
    assert!(later.is_ok(), "it still listens");
}

#[tokio::test]
async fn each_clone_hears_of_a_change() {
    let (_database, store) = store::database::<PostgresRepository>().await;
    let clones = [store.clone(), store.clone()];
    for clone in &clones {
        // Says that it has just begun to listen.
        clone.changed().await;
    }
    let [first, second] = &clones;
    let heard = async { tokio::join!(first.changed(), second.changed()) };
    let change = store::add_guido(&store);
    let heard = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(heard, change) }).await;
    assert!(heard.is_ok(), "one of them did not hear of it");
}
