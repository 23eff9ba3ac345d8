//! How many statements a request costs, and a sweep of used nonces, as sqlx itself counts them.
//!
//! A test that uses this needs a file, and so a process, of its own: the log is the global one.

use std::sync::Arc;

use ajwt_server::{
    Authenticator, CachedUserRepository, InsecureNoReplayProtection, NewKey, NonceBackend, SystemClock,
    UserCacheOptions,
};
use ajwt_test_support::{Level, Log};

use crate::{
    plans,
    store::{self, Store, authenticate, name, sign},
};

/// Statements logged since the last call.
fn statements(log: &Log) -> Vec<String> {
    log.take().lines().filter(|line| line.contains("sqlx::query")).map(str::to_owned).collect()
}

/// Those of them that a request has cost.
fn of_request(log: &Log) -> Vec<String> {
    let others = [
        // What a new connection of the pool begins with.
        "SET sql_mode",
        "SET autocommit",
        "SET SESSION",
        "SET lock_timeout",
        "PRAGMA journal_mode",
        // What the nonce backend removes every 10 s, whatever the requests: a slow machine takes as long.
        "DELETE FROM ajwt_nonce",
        "SELECT `key` FROM ajwt_nonce",
    ];
    let is_other = |line: &String| others.iter().any(|sql| line.contains(sql));
    statements(log).into_iter().filter(|line| !is_other(line)).collect()
}

pub(crate) async fn requests_and_sweeps_take_so_many_statements<S: Store>() {
    let (_database, store, authenticator, key) = store::service::<S>().await;
    assert!(!store.pings(), "each statement would take another round trip, which sqlx does not log");
    for (username, others) in [("many", 32), ("none", 0)] {
        store.add_user(&name(username)).await.expect("added");
        for _ in 0..others {
            let other = NewKey::of_key(store::key().public_key().clone());
            store.add_key(&name(username), &other).await.expect("added");
        }
        store.add_trust(&name(username), "https://a.example/jwks.json").await.expect("added");
    }

    let log = Log::default();
    log.listen_to_all_threads(Level::DEBUG);

    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
    let first = of_request(&log);
    let due = 1 + S::NONCE_STATEMENTS;
    assert_eq!(first.len(), due + 1, "the first one also reads since when the nonces are whole: {first:#?}");
    for _ in 0..3 {
        assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
        let statements = of_request(&log);
        assert_eq!(statements.len(), due, "{statements:#?}");
    }
    for username in ["nobody", "none", "many"] {
        assert!(authenticate(&authenticator, &sign(username, &key)).await.is_err());
        let statements = of_request(&log);
        assert_eq!(statements.len(), 1, "{username}: {statements:#?}");
    }

    // And with it the removals in the background: those below are counted.
    authenticator.close().await;

    // With a cache in between: an acceptance from it reads nothing, and a refusal reads once, whether
    // the name is cached, known or unknown.
    store.add_user(&name("inactive")).await.expect("added");
    store.set_user_active(&name("inactive"), false).await.expect("deactivated");
    let cache = CachedUserRepository::over(Arc::new(store.clone()), UserCacheOptions::default());
    let nonces = Arc::new(InsecureNoReplayProtection);
    let authenticator = Authenticator::builder(Arc::new(cache), nonces).build().expect("built");
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
    statements(&log);
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
    let statements = without_looks(of_request(&log));
    assert!(statements.is_empty(), "{statements:#?}");
    let stranger = store::key();
    for username in ["guido", "guido", "many", "many", "none", "inactive", "inactive", "nobody", "nobody"] {
        assert!(authenticate(&authenticator, &sign(username, &stranger)).await.is_err());
        let statements = without_looks(of_request(&log));
        assert_eq!(statements.len(), 1, "{username}: {statements:#?}");
    }

    expired_nonces_are_removed_a_thousand_at_a_time(&store, &log).await;
}

/// Each statement holds its locks no longer than that takes.
async fn expired_nonces_are_removed_a_thousand_at_a_time<S: Store>(store: &S, log: &Log) {
    let fill = format!(
        "INSERT INTO ajwt_nonce ({}, expires_at) SELECT {}, 1 FROM {}",
        S::KEY,
        S::HASH_OF_N,
        plans::numbers(2500)
    );
    let nonces = store.nonces(Arc::new(SystemClock::new()));
    // Its background task would take a share.
    NonceBackend::close(&nonces).await;
    statements(log);
    assert_eq!(store.execute(&fill).await, 2500);
    S::sweep(&nonces).await;
    let removals: Vec<_> =
        statements(log).into_iter().filter(|line| line.contains("DELETE FROM ajwt_nonce")).collect();
    assert_eq!(removals.len(), 3, "for 2,500 rows: {removals:#?}");
    assert_eq!(store.number("SELECT count(*) FROM ajwt_nonce WHERE expires_at = 1").await, 0);
}

/// The looks at the revision, twice a second whatever the requests, and what the connections of those and of the
/// listener begin with are part of none.
fn without_looks(statements: Vec<String>) -> Vec<String> {
    let is_look = |line: &String| {
        ["SELECT revision", "LISTEN", "ROLLBACK"].iter().any(|sql| line.contains(&format!("summary=\"{sql}")))
    };
    statements.into_iter().filter(|line| !is_look(line)).collect()
}
