//! The SQLite stores on real files: conformance, migrations, statements, and faults.
#![cfg(feature = "sqlite")]

#[path = "support/plans.rs"]
mod plans;
#[path = "support/scale.rs"]
mod scale;
#[path = "support/sqlite_plan.rs"]
mod sqlite_plan;
#[path = "support/sqlite_store.rs"]
mod sqlite_store;
#[path = "support/store.rs"]
mod store;

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ajwt_server::{
    AdminError, Authenticator, CachedUserRepository, Clock as _, KeyAdmin as _, MemoryNonceBackend, NewKey,
    NonceBackend as _, NonceOutcome, Reason, SystemClock, UserCacheOptions, testing,
};
use ajwt_sqlx::{ConnectError, SqliteNonceBackend, SqliteRepository};
use ajwt_test_support::{Level, Log};
use sqlite_store::url;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use store::{Store, authenticate, authenticator, name, service, sign};

store_tests!(SqliteRepository);

/// The compiler tells of no test that nobody calls, since each test file uses a part of the suite.
#[test]
fn every_test_of_the_suite_is_called() {
    let store = include_str!("support/store.rs");
    let (_, list) = store.split_once("macro_rules! store_tests").expect("the list");
    let listed: Vec<&str> = list.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    // Some need what only a database of that kind has: a clock of its own, or another way to make tables.
    let others = [include_str!("mysql.rs"), include_str!("postgres.rs")];
    for source in [store, include_str!("support/store/changes.rs"), include_str!("support/store/nonces.rs")] {
        let functions = source.split("pub(crate) async fn ").skip(1);
        let signatures = functions.filter_map(|function| function.split(" {").next());
        // What takes a store or returns something helps tests.
        let tests = signatures.filter(|signature| !signature.contains("&S") && !signature.contains("->"));
        let names: Vec<&str> = tests.filter_map(|signature| signature.split('<').next()).collect();
        assert!(!names.is_empty());
        for name in names {
            let call = format!("store::{name}::<");
            let is_called = listed.contains(&name) || others.iter().all(|file| file.contains(&call));
            assert!(is_called, "nobody calls {name}");
        }
    }
}

async fn open(folder: &Path) -> SqliteRepository {
    <SqliteRepository as Store>::open(&url(folder)).await
}

#[tokio::test]
async fn changes_by_plain_sql_raise_the_revision_and_uses_do_not() {
    store::changes_by_plain_sql_raise_the_revision_and_uses_do_not::<SqliteRepository>(false).await;
}

/// By SQLite's library instead of its shell, which takes statements apart in the same way.
#[tokio::test]
async fn tables_made_by_hand_serve_as_well() {
    let make = async |url: &str| {
        let command = store::command_by_hand("sqlite3", &[]);
        let (files, _) = command.split_once(" | ").expect("a pipe");
        let store = <SqliteRepository as Store>::open(url).await;
        let sql = AssertSqlSafe(store::run_by_hand(files));
        sqlx::raw_sql(sql).execute(store.pool()).await.expect("made");
        store.pool().close().await;
    };
    store::tables_made_by_hand_serve_as_well::<SqliteRepository>(make, false).await;
}

#[tokio::test]
async fn a_bad_url_or_file_is_told() {
    let error = SqliteRepository::connect("postgres://x").await.expect_err("no SQLite URL");
    assert!(matches!(error, ConnectError::Url { .. }) && error.to_string().contains("sqlite://"), "{error}");
    let folder = tempfile::tempdir().expect("a folder");
    let error = SqliteRepository::connect(&url(&folder.path().join("nowhere"))).await.expect_err("no folder");
    assert!(matches!(error, ConnectError::Open { .. }), "{error:?}");
}

/// As Django has it open: in another mode, and writing.
#[tokio::test]
async fn a_file_that_others_write_to_is_opened_when_they_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteConnectOptions::new().filename(folder.path().join("ajwt.db"));
    let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Delete);
    let mut writer = SqliteConnection::connect_with(&options).await.expect("opened");
    for sql in ["CREATE TABLE theirs (a INTEGER)", "BEGIN IMMEDIATE"] {
        writer.execute(sql).await.expect("done");
    }
    let written = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        writer.execute("COMMIT").await.expect("committed");
    };
    let url = url(folder.path());
    let (opened, ()) = tokio::join!(SqliteRepository::connect(&url), written);
    let modes = opened.expect("opened").texts("PRAGMA journal_mode").await;
    assert_eq!(modes, ["wal"]);
}

/// Whatever SQLite was compiled to do by itself: 2 is `FULL`.
#[tokio::test]
async fn what_was_committed_is_on_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(open(folder.path()).await.number("PRAGMA synchronous").await, 2);
}

#[tokio::test]
async fn many_users_cost_no_more_than_few_and_statements_search() {
    let (_folder, repository) = scale::many_users_cost_no_more_than_few::<SqliteRepository>().await;
    let plan = async |source, name, values: &[&str]| {
        let statement = plans::statement(source, name, &plans::OWN);
        // Of a transaction, what it is for.
        let statement = statement.trim().trim_start_matches("BEGIN IMMEDIATE;").trim_end_matches("COMMIT");
        let plan = sqlite_plan::plan(repository.pool(), statement, values).await;
        assert!(!plan.iter().any(|step| step.starts_with("SCAN ajwt_")), "{plan:#?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:#?}");
        plan
    };
    let found = plan(include_str!("../src/sqlite/tables.rs"), "FIND_USER", &["user777"]).await;
    for index in ["ajwt_public_key_live", "ajwt_jwks_endpoint_trust_user"] {
        assert!(found.iter().any(|step| step.contains(index)), "{found:#?}");
    }
    let consumed = plan(include_str!("../src/sqlite/nonce.rs"), "CONSUME", &["key", "1", "0"]).await;
    assert!(consumed.iter().any(|step| step.contains("SEARCH ajwt_nonce")), "{consumed:#?}");
}

/// What others do to the connections of a pool that they share: a nonce that was used up is used up for ever.
#[tokio::test]
async fn connections_left_within_transactions_lose_no_nonce() {
    let (folder, store, authenticator, key) = service::<SqliteRepository>().await;
    let other = open(folder.path()).await;
    let count = async || other.number("SELECT count(*) FROM ajwt_nonce").await;
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
    for sql in ["BEGIN", "SAVEPOINT a"] {
        let all_idle = async || {
            while store.pool().num_idle() < usize::try_from(store.pool().size()).expect("few") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            store.pool().num_idle()
        };
        let mut taken = Vec::new();
        for _ in 0..all_idle().await {
            let mut connection = store.pool().acquire().await.expect("one");
            connection.execute(sql).await.expect("begun");
            taken.push(connection);
        }
        drop(taken);
        let idle = all_idle().await;
        let (mut accepted, before) = (0, count().await);
        let mut refused = 0;
        for _ in 0..20 {
            match authenticate(&authenticator, &sign("guido", &key)).await {
                Ok(_) => accepted += 1,
                Err(reason) => {
                    assert_eq!(reason, Reason::NonceStoreUnavailable);
                    refused += 1;
                }
            }
            assert_eq!(count().await - before, accepted, "as others see it");
        }
        assert!(
            (1..=idle).contains(&refused),
            "{sql}: {refused} of {idle} were closed when they were noticed"
        );
    }
}

#[tokio::test]
async fn a_locked_database_is_503_in_time_and_service_resumes() {
    let (folder, repository, authenticator, key) = service::<SqliteRepository>().await;
    let locker = open(folder.path()).await;
    let lock = locker.pool().begin_with("BEGIN EXCLUSIVE").await.expect("locked");
    let token = sign("guido", &key);
    let clock = SystemClock::new();
    let start = clock.monotonic();
    // WAL readers are not held up by it; the nonce's write is.
    assert_eq!(authenticate(&authenticator, &token).await, Err(Reason::NonceStoreUnavailable));
    let elapsed = clock.monotonic() - start;
    assert!(elapsed < Duration::from_secs(4), "{elapsed:?}");
    lock.rollback().await.expect("unlocked");
    // Whether the first attempt's insert went through after all is not known: never accepted twice.
    let late = authenticate(&authenticator, &token).await;
    assert!(late.is_ok() || late == Err(Reason::Replayed), "{late:?}");
    assert_eq!(authenticate(&authenticator, &token).await, Err(Reason::Replayed));

    // An administrator's writes are held up too.
    let guido = name("guido");
    let listed = repository.keys(&guido).await.expect("listed");
    let lock = locker.pool().begin_with("BEGIN EXCLUSIVE").await.expect("locked");
    let new = NewKey::of_key(store::key().public_key().clone());
    let added = repository.add_key(&guido, &new).await.map(drop);
    for result in [added, repository.remove_user(&guido).await] {
        let Err(AdminError::Repository(error)) = result else { panic!("{result:?}") };
        let told = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(told.contains("locked"), "{told}");
    }
    lock.rollback().await.expect("unlocked");
    assert_eq!(repository.keys(&guido).await.expect("listed"), listed);
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
}

/// As on a disk that takes its time for each commit: SQLite's own waiting has no order.
#[tokio::test]
async fn whoever_writes_has_a_turn() {
    let (_folder, repository, _, _) = service::<SqliteRepository>().await;
    let takes_its_time = "
        CREATE TRIGGER takes_its_time AFTER INSERT ON ajwt_nonce BEGIN
            SELECT count(*) FROM (
                WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 30000)
                SELECT n FROM number);
        END";
    sqlx::query(takes_its_time).execute(repository.pool()).await.expect("made");
    let nonces = Arc::new(SqliteNonceBackend::new(repository.pool().clone()));
    nonces.initialise().await.expect("marked");
    let clock = SystemClock::new();
    let until = clock.monotonic() + Duration::from_secs(5);
    let consumers: Vec<_> = (0..5)
        .map(|consumer| {
            let nonces = Arc::clone(&nonces);
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                while clock.monotonic() < until {
                    let (now, text) = (clock.now(), format!("{consumer} {}", outcomes.len()));
                    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
                    let nonce = testing::nonce_use("guido", now.as_secs(), &text, now, tolerance, margin);
                    outcomes.push(nonces.consume(&nonce).await.map_err(|error| format!("{error:?}")));
                }
                outcomes
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for consumer in consumers {
        outcomes.extend(consumer.await.expect("no panic"));
    }
    let failed: Vec<_> = outcomes.iter().filter(|outcome| **outcome != Ok(NonceOutcome::Fresh)).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), outcomes.len());
}

#[tokio::test]
async fn a_caller_that_hangs_up_costs_no_connection() {
    let (folder, repository, _, _) = service::<SqliteRepository>().await;
    let options = (*repository.pool().connect_options()).clone().busy_timeout(store::PATIENCE);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.expect("opened");
    let nonces = SqliteNonceBackend::new(pool.clone());
    // It is there as long as its connection.
    sqlx::query("CREATE TEMP TABLE mark (x)").execute(&pool).await.expect("made");
    let locker = open(folder.path()).await;
    let lock = locker.pool().begin_with("BEGIN IMMEDIATE").await.expect("locked");
    let now = SystemClock::new().now();
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    let nonce = testing::nonce_use("guido", now.as_secs(), "a nonce", now, tolerance, margin);
    let consumed = tokio::time::timeout(Duration::from_millis(500), nonces.consume(&nonce)).await;
    assert!(consumed.is_err(), "{consumed:?}");
    lock.rollback().await.expect("unlocked");
    let count = sqlx::query_scalar("SELECT count(*) FROM mark").fetch_one(&pool).await;
    let rows: i64 = count.expect("the same connection");
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_row_that_is_no_text_is_skipped() {
    let (_database, store, authenticator, key) = store::service::<SqliteRepository>().await;
    let log = Log::default();
    let _listening = log.listen(Level::WARN);
    for sql in [
        "INSERT INTO ajwt_public_key (user_id, key, fingerprint, comment, created_at)
        VALUES (1, CAST(x'FF' AS TEXT), CAST(x'FF' AS TEXT), CAST(x'FF' AS TEXT), 0)",
        "INSERT INTO ajwt_jwks_endpoint_trust (user_id, jwks_url, created_at) VALUES (1, CAST(x'FF' AS TEXT), 0)",
    ] {
        store.execute(sql).await;
        for _ in 0..3 {
            let outcome = authenticate(&authenticator, &sign("guido", &key)).await;
            assert_eq!(outcome.as_deref(), Ok("guido"), "{sql}");
        }
    }
    let log = log.text();
    assert_eq!(log.matches("is skipped").count(), 2, "each is told once: {log}");

    // It is listed with the others, and keeps none from being added or itself from being removed.
    let guido = name("guido");
    let keys = store.keys(&guido).await.expect("listed");
    assert_eq!((keys.len(), &*keys[0].text, &*keys[0].comment), (2, "\u{fffd}", "\u{fffd}"));
    let trusts = store.trusts(&guido).await.expect("listed");
    assert_eq!((trusts.len(), &*trusts[0].url), (1, "\u{fffd}"));
    let another = NewKey::of_key(store::key().public_key().clone());
    store.add_key(&guido, &another).await.expect("added");
    store.add_trust(&guido, "https://a.example/jwks.json").await.expect("added");
    store.remove_key(&guido, keys[0].id).await.expect("removed");
    store.remove_trust(&guido, trusts[0].id).await.expect("removed");

    // A name that is no text is nobody's, and hides no user.
    store
        .execute(
            "INSERT INTO ajwt_user (username, active, created_at) VALUES (CAST(x'7A6FEB' AS TEXT), 1, 0)",
        )
        .await;
    let users = store.users().await.expect("listed");
    assert_eq!(users.iter().map(|user| &*user.username).collect::<Vec<_>>(), ["guido"]);
}

#[tokio::test]
async fn a_read_only_database_loses_nothing() {
    let (folder, repository, _, key) = service::<SqliteRepository>().await;
    repository.pool().close().await;
    let options = SqliteConnectOptions::new().filename(folder.path().join("ajwt.db")).read_only(true);
    let read_only =
        SqliteRepository::new(SqlitePoolOptions::new().connect_with(options).await.expect("opened"));
    assert_eq!(
        authenticate(&authenticator(&read_only), &sign("guido", &key)).await,
        Err(Reason::NonceStoreUnavailable)
    );
    let new = NewKey::of_key(store::key().public_key().clone());
    assert!(matches!(read_only.add_key(&name("guido"), &new).await, Err(AdminError::Repository(_))));
    assert!(matches!(read_only.remove_user(&name("guido")).await, Err(AdminError::Repository(_))));
    assert!(matches!(read_only.add_user(&name("eve")).await, Err(AdminError::Repository(_))));
    read_only.pool().close().await;

    let repository = open(folder.path()).await;
    assert_eq!(repository.keys(&name("guido")).await.expect("listed").len(), 1);
    let authenticator = store::authenticator(&repository);
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
}

/// On a file system of its own, of a megabyte, in a namespace of its own, which `./scripts/test --quick` does
/// without.
#[tokio::test]
async fn a_full_disk_loses_nothing() {
    const FOLDER: &str = "AJWT_TEST_SMALL_DISK";
    const MOUNT: &str = r#"mount -t tmpfs -o size=1m tmpfs "$AJWT_TEST_SMALL_DISK" && exec "$0" "$@""#;

    let Ok(folder) = env::var(FOLDER) else {
        let folder = tempfile::tempdir().expect("a folder");
        let may_mount = Path::new("/proc/self").metadata().is_ok_and(|process| process.uid() == 0);
        let output = Command::new("unshare")
            .args(if may_mount { &["--mount"][..] } else { &["--mount", "--map-root-user"] })
            .args(["sh", "-c", MOUNT])
            .arg(env::current_exe().expect("this program"))
            .args(["--exact", "a_full_disk_loses_nothing"])
            .env(FOLDER, folder.path())
            .output()
            .expect("unshare, of util-linux");
        let [told, errors] = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream));
        // Nothing of the test's own: it was not reached.
        let needed = "it needs a mount namespace: to be root (in docker with --cap-add SYS_ADMIN), or \
            an account that may have namespaces";
        assert!(!told.is_empty(), "{needed}: {errors}");
        assert!(output.status.success() && told.contains("1 passed"), "{told}{errors}");
        return;
    };
    let repository = open(Path::new(&folder)).await;
    store::set_up(&repository).await;
    let key = store::add_guido(&repository).await;
    let authenticator = authenticator(&repository);
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
    let ballast = Path::new(&folder).join("ballast");
    let mut file = fs::File::create(&ballast).expect("created");
    while file.write_all(&[0; 4096]).is_ok() {}

    let mut outcomes = Vec::new();
    while outcomes.last() != Some(&Err(Reason::NonceStoreUnavailable)) {
        // What the files of the database have room for already is accepted, once.
        let token = sign("guido", &key);
        outcomes.push(authenticate(&authenticator, &token).await);
        assert!(authenticate(&authenticator, &token).await.is_err(), "{outcomes:?}");
        assert!(outcomes.len() < 1000, "it never fills up");
    }
    // More than the pool has connections: none may be left in a transaction that a full disk has ended.
    let new = || NewKey::of_key(store::key().public_key().clone());
    for _ in 0..20 {
        assert!(matches!(repository.add_key(&name("guido"), &new()).await, Err(AdminError::Repository(_))));
    }
    assert_eq!(repository.keys(&name("guido")).await.expect("listed").len(), 1);

    fs::remove_file(&ballast).expect("removed");
    drop(file);
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
    for _ in 0..20 {
        repository.add_key(&name("guido"), &new()).await.expect("room again");
    }
}

#[tokio::test]
async fn ten_thousand_requests_write_a_last_use_a_handful_of_times() {
    let (_folder, store) = store::database::<SqliteRepository>().await;
    let key = store::add_guido(&store).await;
    store::count_writes(&store).await;
    let cache = CachedUserRepository::over(Arc::new(store.clone()), UserCacheOptions::default());
    let nonces = Arc::new(MemoryNonceBackend::new(1 << 20));
    let usage = Arc::new(store.batched_usage());
    let authenticator = Authenticator::builder(Arc::new(cache), nonces).usage(usage).build().expect("built");
    for _ in 0..10_000 {
        assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
    }
    authenticator.close().await;
    let writes = store.number("SELECT count(*) FROM writes").await;
    assert!((1..=5).contains(&writes), "{writes}");
    assert!(store.keys(&name("guido")).await.expect("listed")[0].last_used_on.is_some());
}

#[tokio::test]
async fn a_full_database_loses_nothing() {
    let (folder, repository, _, key) = service::<SqliteRepository>().await;
    repository.pool().close().await;
    let options = SqliteConnectOptions::new().filename(folder.path().join("ajwt.db"));
    // SQLite's own limit, of each connection: it fails with "database or disk is full", as on a full disk.
    let is_full = Arc::new(AtomicBool::new(true));
    let limited = Arc::clone(&is_full);
    let pool = SqlitePoolOptions::new().max_connections(1).before_acquire(move |connection, _| {
        let pages = if limited.load(Ordering::SeqCst) { 1 } else { 1_000_000 };
        Box::pin(async move {
            let limit = sqlx::query(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}")));
            limit.execute(connection).await.map(|_| true)
        })
    });
    let pool = pool.connect_with(options).await.expect("opened");
    let full = SqliteRepository::new(pool.clone());
    let authenticator = store::authenticator(&full);
    let mut outcomes = Vec::new();
    while outcomes.last() != Some(&Err(Reason::NonceStoreUnavailable)) {
        outcomes.push(authenticate(&authenticator, &sign("guido", &key)).await);
        assert!(outcomes.len() < 1000, "it never fills up");
    }
    let new = NewKey::of_key(store::key().public_key().clone());
    let mut refused = 0;
    // With the one that is there and the one below no more than count.
    for _ in 0..30 {
        let key = NewKey::of_key(store::key().public_key().clone());
        refused += usize::from(full.add_key(&name("guido"), &key).await.is_err());
    }
    assert!(refused > 0);
    let stored = full.keys(&name("guido")).await.expect("listed").len();
    assert_eq!(stored, 1 + 30 - refused, "an error wrote nothing, a success is there");

    is_full.store(false, Ordering::SeqCst);
    full.add_key(&name("guido"), &new).await.expect("room again");
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
}
