//! Users in PostgreSQL, and nonces there and in SQLite, beside what memory and bare insertions take.

use std::{sync::Arc, time::Duration};

use ajwt_core::Username;
use ajwt_server::{
    CachedUserRepository, Clock as _, KeyAdmin as _, NewKey, NonceBackend, NonceOutcome, NonceUse,
    SystemClock, UserCacheOptions, testing::nonce_use,
};
use ajwt_sqlx::{PostgresNonceBackend, PostgresRepository, SqliteNonceBackend};
use ajwt_test_servers::sql::{Kind, Server};
use futures_util::{StreamExt as _, stream};
use sqlx::Executor as _;
use tokio::runtime::Runtime;

use crate::{
    callers::{NAME, builder, ed25519, headers, open_store, time, users, wait_for_the_next_second},
    changes,
    measure::{ROUNDS, SHORT_ROUNDS, in_turn, per_op},
    report::Report,
};

/// Requests of a round.
const REQUESTS: usize = 40;

/// Claims of a round: each is a commit that waits for the disk.
const CLAIMS: usize = 1600;

/// In which a change is told, and what it ends is gone.
const NOTIFIED: Duration = Duration::from_millis(30);

/// What a pool that we open holds.
const CONNECTIONS: usize = 10;

pub(crate) fn run(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let server = Server::start(Kind::Postgres, &[]);
    let store = runtime.block_on(async {
        let store = PostgresRepository::connect(&server.url("postgres")).await.expect("connected");
        store.migrate().await.expect("migrated");
        Arc::new(store)
    });
    requests(report, &runtime, &store);
    changes::run(report, &runtime, &store, UserCacheOptions::default(), NOTIFIED);
    in_postgres(report, &runtime, &store);
    in_sqlite(report, &runtime);
}

fn requests(report: &mut Report, runtime: &Runtime, store: &Arc<PostgresRepository>) {
    let key = ed25519();
    runtime.block_on(async {
        let name = Username::new(NAME).expect("a name");
        store.add_user(&name).await.expect("added");
        store.add_key(&name, &NewKey::of_key(key.public_key().clone())).await.expect("added");
    });
    let by_memory = builder(users(key.public_key())).build().expect("built");
    for (what, staleness) in
        [("one user, cached", Duration::from_secs(1)), ("each request reads the store", Duration::ZERO)]
    {
        let _in_runtime = runtime.enter();
        let options = UserCacheOptions::default().max_staleness(staleness);
        let cached = Arc::new(CachedUserRepository::over(Arc::clone(store), options));
        let by_store = builder(cached).build().expect("built");
        wait_for_the_next_second();
        let requests = || headers(&key, REQUESTS);
        time(runtime, &by_store, &requests());
        let [ours, limit] = in_turn(
            SHORT_ROUNDS,
            [&mut |_| time(runtime, &by_store, &requests()), &mut |_| time(runtime, &by_memory, &requests())],
        );
        report.beside(what, "ns", &ours, "the same, users in memory", &limit);
    }
}

fn in_postgres(report: &mut Report, runtime: &Runtime, store: &PostgresRepository) {
    let pool = store.pool();
    let nonces = runtime.block_on(async {
        let nonces = PostgresNonceBackend::new(pool.clone());
        nonces.initialise().await.expect("new");
        let create = "CREATE TABLE bare (key BYTEA PRIMARY KEY, expires_at BIGINT NOT NULL)";
        pool.execute(create).await.expect("made");
        nonces
    });
    claims(report, runtime, "PostgreSQL", &nonces, async |key| {
        let insert = sqlx::query("INSERT INTO bare (key, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING");
        insert.bind(key).bind(0_i64).execute(pool).await.expect("added").rows_affected()
    });
}

fn in_sqlite(report: &mut Report, runtime: &Runtime) {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, nonces) = runtime.block_on(async {
        let store = open_store(folder.path()).await;
        let nonces = SqliteNonceBackend::new(store.pool().clone());
        nonces.initialise().await.expect("new");
        let create = "CREATE TABLE bare (key BLOB PRIMARY KEY, expires_at INTEGER NOT NULL) WITHOUT ROWID";
        store.pool().execute(create).await.expect("made");
        (store, nonces)
    });
    claims(report, runtime, "SQLite", &nonces, async |key| {
        let insert = sqlx::query("INSERT INTO bare (key, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING");
        insert.bind(key).bind(0_i64).execute(store.pool()).await.expect("added").rows_affected()
    });
}

/// Claims of one task and of as many as there are connections, beside insertions that decide nothing.
fn claims(
    report: &mut Report,
    runtime: &Runtime,
    store: &str,
    nonces: &dyn NonceBackend,
    insert: impl AsyncFn(Vec<u8>) -> u64,
) {
    for tasks in [1, CONNECTIONS] {
        let label = |what: &str, round: usize, number: usize| format!("{what} {tasks} {round} {number}");
        let numbers = || stream::iter(0..CLAIMS);
        let claim = async |round, number| {
            let nonce = one_use(&label("claim", round, number));
            assert_eq!(nonces.consume(&nonce).await.expect("an answer"), NonceOutcome::Fresh);
        };
        let insert = async |round, number| {
            let key = one_use(&label("bare", round, number)).key().as_bytes().to_vec();
            assert_eq!(insert(key).await, 1);
        };
        let [ours, bare] = in_turn(
            ROUNDS,
            [
                &mut |round| {
                    per_second(|| {
                        runtime.block_on(numbers().for_each_concurrent(tasks, |number| claim(round, number)))
                    })
                },
                &mut |round| {
                    per_second(|| {
                        runtime.block_on(numbers().for_each_concurrent(tasks, |number| insert(round, number)))
                    })
                },
            ],
        );
        let what = format!("claims in {store}, {tasks} tasks");
        report.beside(&what, "/s", &ours, "a bare INSERT", &bare);
    }
}

fn per_second(claims: impl FnOnce()) -> f64 {
    1e9 / per_op(CLAIMS, claims)
}

fn one_use(nonce: &str) -> NonceUse {
    let now = SystemClock::new().now();
    nonce_use(NAME, now.as_secs(), nonce, now, Duration::from_secs(20), Duration::from_secs(60))
}
