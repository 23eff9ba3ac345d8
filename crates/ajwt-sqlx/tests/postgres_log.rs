//! What the log says of a PostgreSQL that gives no connection. The subscriber is the global one: one test.
#![cfg(feature = "postgres")]

#[path = "support/postgres_store.rs"]
mod postgres_store;
#[path = "support/store.rs"]
mod store;

use std::{error::Error, iter, sync::Arc, time::Duration};

use ajwt_server::{
    CachedUserRepository, Freshness, NoRevision, RevisionSource as _, UserCacheOptions, UserRepository as _,
};
use ajwt_sqlx::PostgresRepository;
use ajwt_test_servers::sql::{Kind, Server};
use ajwt_test_support::Trace;
use sqlx::{Connection as _, PgConnection};
use store::Store as _;

/// What this crate told.
struct Log {
    trace: Trace,
    lines: Vec<String>,
}

impl Log {
    fn count(&mut self, text: &str) -> usize {
        for told in self.trace.take().into_iter().filter(|told| told.target.starts_with("ajwt_sqlx")) {
            let values: Vec<_> = told.fields.into_iter().map(|(_, value)| value).collect();
            self.lines.push(values.join(" "));
        }
        self.lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Within as long as a busy machine may take.
    async fn comes_to_say(&mut self, text: &str) {
        for _ in 0..300 {
            if self.count(text) > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("nothing of {text:?}: {:#?}", self.lines);
    }
}

async fn finds_no_connection(store: &PostgresRepository) {
    let Err(error) = store.find_by_username("guido", Freshness::Current).await else { panic!("it was read") };
    let told = texts(&error);
    assert!(told.iter().any(|text| text.starts_with("no connection to the database in time")), "{told:?}");
}

/// Of an error and its sources.
fn texts(error: &(dyn Error + 'static)) -> Vec<String> {
    iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_there_is_no_connection() {
    let mut log = Log { trace: Trace::start(), lines: Vec::new() };
    let mut server = Server::start(Kind::Postgres, &["-c", "max_connections=20"]);
    let url = server.url("postgres");
    let full = PostgresRepository::open(&url).await;
    full.migrate().await.expect("migrated");

    // Those of the pool are cut off, and others take all places.
    let mut others = vec![PgConnection::connect(&url).await.expect("connected")];
    let cut_off = sqlx::query(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    );
    cut_off.execute(&mut others[0]).await.expect("cut off");
    for _ in 0..5 {
        while let Ok(taken) = PgConnection::connect(&url).await {
            others.push(taken);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Through the cache, which waits for less time than the pool does. Nothing is looked at in the background, which
    // the log would tell.
    let (users, options) = (Arc::new(full), UserCacheOptions::default());
    let cache = CachedUserRepository::new(users, Arc::new(NoRevision), options);
    assert!(cache.find_by_username("guido", Freshness::MayBeCached).await.is_err());
    log.comes_to_say("too many clients").await;
    let error = PostgresRepository::connect(&url).await.expect_err("none is left");
    assert!(texts(&error).iter().any(|text| text.contains("too many clients")), "{error:?}");
    drop(others);

    // Once a minute for each pool: another one.
    let stopped = PostgresRepository::open(&url).await;
    server.stop();
    for _ in 0..3 {
        finds_no_connection(&stopped).await;
    }
    log.comes_to_say("Connection refused").await;
    assert_eq!(log.count("Connection refused"), 1, "{:#?}", log.lines);
    for _ in 0..3 {
        stopped.changed().await;
    }
    assert_eq!(log.count("by polling only"), 1, "{:#?}", log.lines);
}
