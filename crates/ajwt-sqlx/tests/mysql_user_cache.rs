//! The user cache over this store, while another process writes.
#![cfg(feature = "mysql")]

#[path = "support/mysql_store.rs"]
mod mysql_store;
#[path = "support/store.rs"]
mod store;
#[path = "support/user_cache.rs"]
mod user_cache;

use std::sync::Mutex;

use ajwt_server::RevisionSource as _;
use ajwt_sqlx::MySqlRepository;
use ajwt_test_servers::sql::{Kind, Server};
use store::Store as _;

user_cache_tests!(MySqlRepository, false);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_503_after_the_staleness() {
    let server = Mutex::new(Server::start(Kind::MySql, &[]));
    let url = |database| server.lock().expect("lock").url(database);
    MySqlRepository::open(&url("mysql")).await.execute("CREATE DATABASE ajwt").await;
    let store = MySqlRepository::open(&url("ajwt")).await;
    let stop = || server.lock().expect("lock").stop();
    let start = || server.lock().expect("lock").start_again();
    user_cache::a_server_that_stops_is_503_after_the_staleness(stop, start, &store).await;
}

/// As when a flood of requests has all of the pool's connections.
#[tokio::test]
async fn the_revision_is_read_while_the_pool_is_used_up() {
    let (database, store) = store::database::<MySqlRepository>().await;
    let writer = MySqlRepository::open(&MySqlRepository::url(&database)).await;
    let before = store.revision().await.expect("read").expect("a revision");
    let mut held = Vec::new();
    while held.len() < store.pool().options().get_max_connections() as usize {
        held.push(store.pool().acquire().await.expect("a connection"));
    }
    store::add_guido(&writer).await;
    assert!(store.revision().await.expect("read").expect("a revision") > before);
}
