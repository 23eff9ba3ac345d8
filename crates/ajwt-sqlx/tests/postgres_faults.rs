//! The PostgreSQL stores on servers that stop, hang and run out of connections.
#![cfg(feature = "postgres")]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/postgres_store.rs"]
mod postgres_store;
#[path = "support/store.rs"]
mod store;

use std::{any::Any, sync::Arc, time::Duration};

use ajwt_server::{
    Clock as _, Freshness, NonceBackend as _, NonceOutcome, RevisionSource as _, SystemClock,
    UserRepository as _, testing,
};
use ajwt_sqlx::{PostgresNonceBackend, PostgresRepository};
use ajwt_test_servers::sql::{Kind, Server};
use faults::{Proxy, Served};
use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};
use store::Store;

fault_tests!(PostgresRepository);

impl Served for PostgresRepository {
    const KIND: Kind = Kind::Postgres;
    const TWENTY_CONNECTIONS: &'static [&'static str] = &["-c", "max_connections=20"];
    const MAINTENANCE: &'static str = "postgres";
    const ITS_CONNECTIONS: &'static str = "SELECT pid::TEXT FROM pg_stat_activity WHERE datname = 'ajwt'";

    const SLOW_NONCES: &'static [&'static str] = &[
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END'",
        "CREATE TRIGGER slow BEFORE INSERT ON ajwt_nonce FOR EACH ROW EXECUTE FUNCTION slow()",
    ];

    const COMMIT: &'static [u8] = b"COMMIT\0";

    const FOR_STANDBYS: &'static [&'static str] = &[];
    const STANDBY_IS_GONE: &'static [&'static str] =
        &["ALTER SYSTEM SET synchronous_standby_names = 'gone'", "SELECT pg_reload_conf()"];
    const NO_STANDBY_IS_NEEDED: &'static [&'static str] =
        &["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"];

    fn cut_off(id: &str) -> String {
        format!("SELECT pg_terminate_backend({id})")
    }

    async fn connection(url: &str) -> Option<Box<dyn Any>> {
        PgConnection::connect(url).await.ok().map(|connection| Box::new(connection) as _)
    }

    async fn on_idle_connections(&self, sql: &'static str) -> usize {
        faults::on_idle_connections(self.pool(), sql).await
    }
}

/// It would keep what it locks, the table of nonces too.
#[tokio::test]
async fn a_replay_leaves_no_connection_within_a_transaction() {
    let (_database, store) = store::database::<PostgresRepository>().await;
    let now = SystemClock::new().now();
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    let used = testing::nonce_use("guido", now.as_secs(), "a", now, tolerance, margin);
    let nonces = PostgresNonceBackend::new(store.pool().clone());
    assert_eq!(nonces.consume(&used).await.expect("an answer"), NonceOutcome::Fresh);
    let left = store.on_idle_connections("BEGIN").await;
    let mut refused = 0;
    for _ in 0..=left {
        match nonces.consume(&used).await {
            Ok(outcome) => assert_eq!(outcome, NonceOutcome::Replayed),
            Err(_) => refused += 1,
        }
    }
    assert!((1..=left).contains(&refused), "{refused} of {left}");
}

/// Without its server it says at once that it cannot tell, then once a second, and hears of changes
/// again when the server is back.
#[tokio::test]
async fn a_listener_without_its_server_does_not_spin_and_recovers() {
    let mut server = Server::start(Kind::Postgres, &[]);
    // Not a clone, which listens by itself.
    let store = Arc::new(PostgresRepository::open(&server.url("postgres")).await);
    store.migrate().await.expect("migrated");
    store.changed().await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.changed().await }
    });
    server.stop();
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, waiting).await.expect("told").expect("told");
    let clock = SystemClock::new();
    let start = clock.monotonic();
    tokio::time::timeout(limit, store.changed()).await.expect("told again");
    let elapsed = clock.monotonic() - start;
    assert!(elapsed >= Duration::from_secs(1), "after {elapsed:?}");

    server.start_again();
    tokio::time::timeout(limit, store.changed()).await.expect("listening again is told");
    assert!(tokio::time::timeout(Duration::from_millis(300), store.changed()).await.is_err());
    let writer = PostgresRepository::open(&server.url("postgres")).await;
    writer.execute("UPDATE ajwt_user SET active = FALSE").await;
    tokio::time::timeout(limit, store.changed()).await.expect("heard");
}

/// A transaction that failed and that nobody ended refuses every statement; a server that became a standby
/// refuses those that write.
#[tokio::test]
async fn a_connection_of_no_use_is_replaced() {
    let server = Server::start(Kind::Postgres, &[]);
    let store = PostgresRepository::open(&server.url("postgres")).await;
    store::set_up(&store).await;
    let key = store::add_guido(&store).await;
    let authenticator = store::authenticator(&store);
    for sql in ["BEGIN; SELECT 1 / 0", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"] {
        assert!(store::authenticate(&authenticator, &store::sign("guido", &key)).await.is_ok());
        let idle = store.on_idle_connections(sql).await;
        let mut refused = 0;
        while store::authenticate(&authenticator, &store::sign("guido", &key)).await.is_err() {
            refused += 1;
            assert!(refused <= idle, "{sql}: {idle} connections");
        }
    }
}

/// What looks for changes would see none in a transaction that another user of the pool has left open.
#[tokio::test]
async fn a_look_at_the_revision_is_in_no_transaction_of_others() {
    let server = Server::start(Kind::Postgres, &[]);
    let store = PostgresRepository::open(&server.url("postgres")).await;
    store::set_up(&store).await;
    let writer = PostgresRepository::open(&server.url("postgres")).await;
    store
        .on_idle_connections("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT revision FROM ajwt_revision")
        .await;
    let before = store.revision().await.expect("read");
    store::add_guido(&writer).await;
    assert_ne!(store.revision().await.expect("read"), before);
}

/// Whether a nonce that was there was used, or the table emptied, is read on another connection than the
/// one that found it there. That one may have broken.
#[tokio::test]
async fn a_replay_is_told_although_a_connection_broke() {
    let server = Server::start(Kind::Postgres, &[]);
    let options = PgPoolOptions::new().max_connections(2).test_before_acquire(false);
    let pool = options.connect(&server.url("postgres")).await.expect("connected");
    PostgresRepository::new(pool.clone()).migrate().await.expect("migrated");
    let backend = PostgresNonceBackend::new(pool.clone());
    assert!(backend.initialise().await.expect("new"));
    let now = SystemClock::new().now();
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    let used = testing::nonce_use("guido", now.as_secs(), "a nonce", now, tolerance, margin);
    assert_eq!(backend.consume(&used).await.expect("stored"), NonceOutcome::Fresh);
    let mut other = PgConnection::connect(&server.url("postgres")).await.expect("connected");
    for _ in 0..10 {
        let [_, second] = in_their_order(&pool).await;
        end(&mut other, second).await;
        assert_eq!(backend.consume(&used).await.expect("told"), NonceOutcome::Replayed);
    }
}

/// One that broke has the other one asked whether it broke, too. It is silent, and the request is given up
/// meanwhile: the pool gets its place back.
#[tokio::test]
async fn a_request_that_is_given_up_while_connections_are_asked_costs_no_place() {
    let server = Server::start(Kind::Postgres, &[]);
    let proxy = Proxy::start(server.port());
    let options = PgPoolOptions::new().max_connections(2).test_before_acquire(false);
    let options = options.acquire_timeout(Duration::from_secs(10));
    let pool = options.connect(&server.url_at(proxy.port, "postgres")).await.expect("connected");
    PostgresRepository::new(pool.clone()).migrate().await.expect("migrated");
    let mut other = PgConnection::connect(&server.url("postgres")).await.expect("connected");
    let [first, _] = in_their_order(&pool).await;
    end(&mut other, first).await;
    // Until its end has come through the proxy.
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.silence();
    let store = PostgresRepository::new(pool.clone());
    let request = store.find_by_username("guido", Freshness::Current);
    let limit = Duration::from_millis(300);
    assert!(tokio::time::timeout(limit, request).await.is_err(), "it waits for the silent one");
    let _first = pool.acquire().await.expect("one place");
    let _second = pool.acquire().await.expect("the other place");
}

/// The server's processes of the two connections of a pool, in the order in which it hands them out.
async fn in_their_order(pool: &PgPool) -> [i32; 2] {
    let mut pids = [0; 2];
    // It hands out the one that came back first.
    let mut taken = [pool.acquire().await.expect("one"), pool.acquire().await.expect("another")];
    for (pid, connection) in pids.iter_mut().zip(&mut taken) {
        let ask = sqlx::query_scalar("SELECT pg_backend_pid()");
        *pid = ask.fetch_one(&mut **connection).await.expect("read");
    }
    for (back, connection) in (1..).zip(taken) {
        drop(connection);
        while pool.num_idle() < back {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    pids
}

async fn end(other: &mut PgConnection, pid: i32) {
    let end = sqlx::query_scalar("SELECT pg_terminate_backend($1, 10000)").bind(pid);
    let ended: bool = end.fetch_one(other).await.expect("run");
    assert!(ended);
}
