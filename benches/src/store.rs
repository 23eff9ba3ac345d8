//! Requests whose users are in SQL, beside the same with users in memory.

use std::{sync::Arc, time::Duration};

use ajwt_core::{PrivateKey, Username};
use ajwt_server::{
    Authenticator, CachedUserRepository, KeyAdmin as _, MemoryRepository, NewKey, User, UserCacheOptions,
};
use ajwt_sqlx::SqliteRepository;
use tokio::runtime::Runtime;

use crate::{
    callers::{NAME, authenticate, builder, ed25519, header, wait_for_the_next_second},
    measure::{SHORT_ROUNDS, cpu_per_op, in_turn, runtime},
    report::Report,
};

/// Requests of a round.
const REQUESTS: usize = 100;

/// Users that take their turns: each comes once in all rounds.
const USERS: usize = REQUESTS * SHORT_ROUNDS;

pub(crate) fn run(report: &mut Report) {
    let runtime = runtime();
    let key = ed25519();
    let (_folder, store) = runtime.block_on(filled(USERS, &key));
    let in_memory = in_memory(USERS, &key);
    for (what, users, staleness) in [
        ("one user, cached", 1, Duration::from_secs(1)),
        ("10,100 users in turn, cached", USERS, Duration::from_secs(1)),
        ("each request reads the store", 1, Duration::ZERO),
    ] {
        let cached = {
            let _in_runtime = runtime.enter();
            let store = Arc::new(store.clone());
            let options = UserCacheOptions::default().max_staleness(staleness).capacity(2 * USERS);
            Arc::new(CachedUserRepository::over(store, options))
        };
        let by_store = builder(cached).build().expect("built");
        let by_memory = builder(in_memory.clone()).build().expect("built");
        wait_for_the_next_second();
        let headers = || -> Vec<String> {
            (0..USERS).map(|number| header(&format!("{NAME}{}", number % users), &key)).collect()
        };
        // The first time fills the cache.
        time(&runtime, &by_store, &headers());
        let headers = headers();
        let requests = |round: usize| &headers[round * REQUESTS..][..REQUESTS];
        let [ours, limit] = in_turn(
            SHORT_ROUNDS,
            [&mut |round| time(&runtime, &by_store, requests(round)), &mut |round| {
                time(&runtime, &by_memory, requests(round))
            }],
        );
        report.beside(what, "ns", &ours, "the same, users in memory", &limit);
    }
}

pub(crate) fn time(runtime: &Runtime, authenticator: &Authenticator, headers: &[String]) -> f64 {
    cpu_per_op(headers.len(), || runtime.block_on(authenticate(authenticator, headers)))
}

pub(crate) fn in_memory(users: usize, key: &PrivateKey) -> Arc<MemoryRepository> {
    let user = |number| User::new(format!("{NAME}{number}")).with_keys([key.public_key().clone()]);
    Arc::new(MemoryRepository::new((0..users).map(user)))
}

/// A database with users that all have this key.
pub(crate) async fn filled(users: usize, key: &PrivateKey) -> (tempfile::TempDir, SqliteRepository) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("ajwt.db").display());
    let store = SqliteRepository::connect(&url).await.expect("opened");
    store.migrate().await.expect("migrated");
    let first = Username::new(format!("{NAME}0")).expect("a name");
    store.add_user(&first).await.expect("added");
    store.add_key(&first, &NewKey::of_key(key.public_key().clone())).await.expect("added");
    let last = i64::try_from(users).expect("few") - 1;
    let mut transaction = store.pool().begin().await.expect("begun");
    for sql in [
        "INSERT INTO ajwt_user (username, created_at)
            WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
            SELECT 'guido' || n, 0 FROM number WHERE ?1 > 0",
        "INSERT INTO ajwt_public_key (user_id, key, fingerprint, created_at)
            SELECT u.id, k.key, k.fingerprint, 0 FROM ajwt_user AS u
            CROSS JOIN (SELECT key, fingerprint FROM ajwt_public_key LIMIT 1) AS k
            WHERE u.username <> 'guido0' AND ?1 > 0",
    ] {
        sqlx::query(sql).bind(last).execute(&mut *transaction).await.expect("filled");
    }
    transaction.commit().await.expect("filled");
    (folder, store)
}
