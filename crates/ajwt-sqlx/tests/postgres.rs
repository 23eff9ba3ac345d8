//! The PostgreSQL stores on a real server, which `scripts/test` starts.
#![cfg(feature = "postgres")]

#[path = "support/looks.rs"]
mod looks;
#[path = "support/passwords.rs"]
mod passwords;
#[path = "support/plans.rs"]
mod plans;
#[path = "support/postgres_plan.rs"]
mod postgres_plan;
#[path = "support/postgres_store.rs"]
mod postgres_store;
#[path = "support/scale.rs"]
mod scale;
#[path = "support/store.rs"]
mod store;

use std::{
    env, fs::Permissions, io::Write as _, os::unix::fs::PermissionsExt as _, process::Command, sync::Arc,
    time::Duration,
};

use ajwt_server::{
    AdminError, Authenticator, Clock as _, KeyAdmin as _, MockClock, NewKey, NonceBackend as _, NonceError,
    NonceOutcome, Reason, RevisionSource as _, SystemClock, UserRepository as _,
};
use ajwt_sqlx::{ConnectError, PostgresNonceBackend, PostgresRepository};
use ajwt_test_servers::sql::{self, Kind, Server};
use ajwt_test_support::{hearing::PASSWORD, until};
use postgres_plan::Explain;
use postgres_store::SERVER;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use store::{PATIENCE, Store, add_guido, database, key, name};
use tempfile::NamedTempFile;

store_tests!(PostgresRepository);

#[tokio::test]
async fn a_clock_that_is_far_ahead_dates_no_memory() {
    store::a_clock_that_is_far_ahead_dates_no_memory::<PostgresRepository>().await;
}

#[tokio::test]
async fn a_clock_that_is_behind_makes_no_used_token_good_again() {
    store::a_clock_that_is_behind_makes_no_used_token_good_again::<PostgresRepository>().await;
}

#[tokio::test]
async fn changes_by_plain_sql_raise_the_revision_and_uses_do_not() {
    store::changes_by_plain_sql_raise_the_revision_and_uses_do_not::<PostgresRepository>(true).await;
}

#[tokio::test]
async fn tables_made_by_hand_serve_as_well() {
    let make = async |url: &str| {
        let command = store::command_by_hand("psql", &[("postgres://USER@HOST/DATABASE", url)]);
        store::run_by_hand(&command);
    };
    store::tables_made_by_hand_serve_as_well::<PostgresRepository>(make, true).await;
}

/// Each of the two accounts does what the page says that it does, by no other rights than it shows.
#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_page_grants_are_enough() {
    // Roles are the whole server's.
    let server = Server::start(Kind::Postgres, &[]);
    let owner = PostgresRepository::open(&server.url("postgres")).await;
    store::set_up(&owner).await;
    let roles = "CREATE ROLE ajwt_service LOGIN; CREATE ROLE ajwt_admin LOGIN;";
    let grants = AssertSqlSafe(format!("{roles}{}", store::statements_by_hand()));
    sqlx::raw_sql(grants).execute(owner.pool()).await.expect("granted");
    let connect = async |role: &str| {
        let url = server.url("postgres").replacen("postgres@", &format!("{role}@"), 1);
        PostgresRepository::open(&url).await.patient().await
    };
    let (service, admin) = (connect("ajwt_service").await, connect("ajwt_admin").await);
    assert_eq!(service.texts("SELECT current_user::TEXT").await, ["ajwt_service"]);

    ajwt_server::testing::key_admin(&admin).await;
    assert!(!admin.audit(1).await.expect("read").is_empty());
    ajwt_server::testing::user_repository(&admin, &service).await;
    ajwt_server::testing::trusted_urls(&admin, &service).await;
    ajwt_server::testing::revision_source(&admin, &service, &service).await;
    ajwt_server::testing::usage(&admin, &service.batched_usage()).await;
    nonces_are_used_and_swept(&service, &owner, "ajwt_nonce").await;

    let error = service.add_user(&name("guido")).await.expect_err("it may not");
    assert!(matches!(error, AdminError::Repository(_)), "{error:?}");
    for account in [&service, &admin] {
        assert!(account.migrate().await.is_err(), "nothing is left to be done, and yet it is the owner's");
    }
}

#[tokio::test]
async fn a_bad_url_or_server_is_told() {
    let error = PostgresRepository::connect("sqlite://x").await.expect_err("no such URL");
    assert!(
        matches!(error, ConnectError::Url { .. }) && error.to_string().contains("postgres://"),
        "{error}"
    );
    let error = PostgresRepository::connect("postgres://ajwt@127.0.0.1:1/x").await.expect_err("no server");
    assert!(matches!(error, ConnectError::Open { .. }), "{error:?}");
    let url = format!("{}/nowhere", sql::shared(SERVER));
    let error = PostgresRepository::connect(&url).await.expect_err("no database");
    assert!(matches!(error, ConnectError::Open { .. }), "{error:?}");
}

#[tokio::test]
async fn tables_live_in_any_schema_by_its_search_path() {
    let (database, public) = PostgresRepository::create().await;
    public.execute("CREATE SCHEMA \"Auth x\"").await;
    public.execute("CREATE SCHEMA other").await;
    let url = |schema| format!("{}?options=-c%20search_path%3D{schema}", PostgresRepository::url(&database));
    let auth = PostgresRepository::open(&url("%22Auth%5C%20x%22")).await;
    let other = PostgresRepository::open(&url("other")).await;
    auth.migrate().await.expect("migrated");
    other.migrate().await.expect("migrated");
    let schemas = "SELECT DISTINCT table_schema::TEXT FROM information_schema.tables
        WHERE table_name LIKE 'ajwt_%' ORDER BY 1";
    assert_eq!(public.texts(schemas).await, ["Auth x", "other"]);

    add_guido(&auth).await;
    assert!(other.find_by_username("guido", ajwt_server::Freshness::Current).await.expect("read").is_none());
    // Written with another search path: the right revision is raised.
    let (before, others) = (auth.revision().await.expect("read"), other.revision().await.expect("read"));
    public.execute("UPDATE \"Auth x\".ajwt_user SET active = FALSE").await;
    assert!(auth.revision().await.expect("read") > before);
    assert_eq!(other.revision().await.expect("read"), others);
    nonces_are_used_and_swept(&auth.patient().await, &public, "\"Auth x\".ajwt_nonce").await;
}

/// All that takes rights to the table, or its name, which is this one for the owner.
async fn nonces_are_used_and_swept(service: &PostgresRepository, owner: &PostgresRepository, table: &str) {
    let nonces = service.nonces(Arc::new(SystemClock::new()));
    let now = SystemClock::new().now();
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    // So far ahead that no start rule refuses it.
    let used = ajwt_server::testing::nonce_use("guido", now.as_secs() + 60, "a", now, tolerance, margin);
    for due in [NonceOutcome::Fresh, NonceOutcome::Replayed] {
        assert_eq!(nonces.consume(&used).await.expect("an answer"), due);
    }
    let expired = format!("INSERT INTO {table} (key, expires_at) VALUES ('\\x01', 1)");
    assert_eq!(owner.execute(&expired).await, 1);
    nonces.sweep().await;
    let left = owner.number(&format!("SELECT count(*) FROM {table}")).await;
    assert_eq!(left, 2, "the nonce that was used, and since when the table is whole");
}

/// As where an application ends its runtime first. What goes wrong then ends the process, so it is one of its own.
#[test]
fn a_store_that_listens_may_outlive_its_runtime() {
    const CHILD: &str = "AJWT_TEST_CHILD";
    if let Ok(url) = env::var(CHILD) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let store = runtime.block_on(async {
            let store = PostgresRepository::open(&url).await;
            store.changed().await;
            let listening = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE 'LISTEN%'";
            assert_eq!(store.number(listening).await, 1);
            store
        });
        drop(runtime);
        drop(store);
        return;
    }
    let database = sql::Database::create(SERVER);
    let child = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "a_store_that_listens_may_outlive_its_runtime"])
        .env(CHILD, database.url())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && told.contains("1 passed"), "{}: {told}", child.status);
}

#[tokio::test]
async fn a_change_is_heard_of_by_the_event() {
    let (database, store) = database::<PostgresRepository>().await;
    // Not a clone, which listens by itself.
    let store = Arc::new(store);
    add_guido(&*store).await;
    // Once when it begins to listen: what was before went unheard.
    store.changed().await;
    let writer = PostgresRepository::open(&PostgresRepository::url(&database)).await;
    let heard = |store: Arc<PostgresRepository>| tokio::spawn(async move { store.changed().await });

    for sql in [
        "UPDATE ajwt_user SET active = FALSE",
        "UPDATE ajwt_public_key SET revoked_at = 1",
        "TRUNCATE ajwt_jwks_endpoint_trust",
    ] {
        let waiting = heard(Arc::clone(&store));
        writer.execute("UPDATE ajwt_public_key SET last_used_on = 1").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!waiting.is_finished(), "nothing has changed");
        writer.execute(sql).await;
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect(sql).expect("heard");
    }

    // What happens while nobody waits is not lost, and a wait that was given up takes nothing away.
    writer.execute("UPDATE ajwt_user SET active = TRUE").await;
    store.changed().await;
    assert!(tokio::time::timeout(Duration::from_millis(100), store.changed()).await.is_err());
    writer.execute("UPDATE ajwt_user SET active = TRUE").await;
    tokio::time::timeout(Duration::from_secs(10), store.changed()).await.expect("heard");
}

#[tokio::test]
async fn a_listener_that_is_cut_off_says_so_and_listens_again() {
    let (database, store) = database::<PostgresRepository>().await;
    // Not a clone, which listens by itself.
    let store = Arc::new(store);
    add_guido(&*store).await;
    store.changed().await;
    let writer = PostgresRepository::open(&PostgresRepository::url(&database)).await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.changed().await }
    });
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    assert_eq!(writer.number(cut).await, 1);
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("told").expect("told");
    tokio::time::timeout(Duration::from_secs(10), store.changed()).await.expect("listening again is told");
    writer.execute("UPDATE ajwt_user SET active = FALSE").await;
    tokio::time::timeout(Duration::from_secs(10), store.changed()).await.expect("heard");
}

/// The row is locked against one that empties the table at the same time, in whichever level of
/// isolation the application's pool works.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_waits_for_an_emptying_is_not_fresh() {
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let (database, store) = database::<PostgresRepository>().await;
        let pool = pool_at(&PostgresRepository::url(&database), level).await;
        waits_for_an_emptying(store, pool, level).await;
    }
}

async fn pool_at(url: &str, level: &'static str) -> sqlx::PgPool {
    let set = format!("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}");
    let options = sqlx::postgres::PgPoolOptions::new().after_connect(move |connection, _| {
        let set = sqlx::query(sqlx::AssertSqlSafe(set.clone()));
        Box::pin(async move { set.execute(connection).await.map(drop) })
    });
    options.connect(url).await.expect("connected")
}

async fn waits_for_an_emptying(store: PostgresRepository, pool: sqlx::PgPool, level: &str) {
    let clock = Arc::new(SystemClock::new());
    let now = clock.now();
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    let used = ajwt_server::testing::nonce_use("guido", now.as_secs(), "a", now, tolerance, margin);
    let first = PostgresNonceBackend::with_clock(store.pool().clone(), clock.clone());
    assert!(first.consume(&used).await.is_ok());
    let nonces = PostgresNonceBackend::with_clock(pool, clock.clone());
    let other = ajwt_server::testing::nonce_use("guido", now.as_secs(), "b", now, tolerance, margin);
    let answer = nonces.consume(&other).await;
    // A level that cannot see what it must is told, and accepts nothing.
    assert_eq!(answer.is_ok(), level == "READ COMMITTED", "{level}: {answer:?}");

    let mut emptying = store.pool().begin().await.expect("begun");
    sqlx::query("DELETE FROM ajwt_nonce").execute(&mut *emptying).await.expect("emptied");
    let replay = tokio::spawn(async move { nonces.consume(&used).await });
    // Until the replay waits for the row that is being deleted.
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()";
    until("it waits", async || store.number(waiting).await > 0).await;
    emptying.commit().await.expect("emptied");
    let answer = replay.await.expect("answered");
    assert!(answer.is_err(), "{level}: {answer:?}");
    if level == "READ COMMITTED" {
        assert!(matches!(answer, Err(NonceError::MayHaveBeenUsed { .. })), "{answer:?}");
    }
}

/// Whatever the database's own setting: a nonce must outlive a crash of the server.
#[tokio::test]
async fn what_is_committed_is_on_disk() {
    let (database, store) = PostgresRepository::create().await;
    for (set, due) in [
        ("off", "on"),
        ("local", "local"),
        ("remote_write", "remote_write"),
        ("remote_apply", "remote_apply"),
    ] {
        store
            .execute(&format!(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = {set}', current_database()); END $$"
            ))
            .await;
        let connected = PostgresRepository::open(&PostgresRepository::url(&database)).await;
        assert_eq!(connected.texts("SELECT current_setting('synchronous_commit')").await, [due], "{set}");
    }
}

/// There is none of that name, and the database is not at fault.
#[tokio::test]
async fn a_name_that_the_encoding_cannot_hold_is_an_unknown_user() {
    let server = Server::start(Kind::Postgres, &[]);
    let maintenance = PostgresRepository::open(&server.url("postgres")).await;
    maintenance.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").await;
    let store = PostgresRepository::open(&server.url("latin")).await;
    store::set_up(&store).await;
    let key = add_guido(&store).await;
    let authenticator = store::authenticator(&store);
    for name in ["\u{6f22}", "caf\u{e9}"] {
        let outcome = store::authenticate(&authenticator, &store::sign(name, &key)).await;
        assert_eq!(outcome, Err(Reason::UnknownUser), "{name}");
        assert!(store.keys(&self::name(name)).await.expect_err("nobody").to_string().contains("no user"));
    }
    assert!(store::authenticate(&authenticator, &store::sign("guido", &key)).await.is_ok());
}

/// As after rows were copied with their ids, of which the sequence knows nothing.
#[tokio::test]
async fn an_id_that_is_taken_is_no_user_that_is_there() {
    let (_database, store) = database::<PostgresRepository>().await;
    store.execute("INSERT INTO ajwt_user (id, username, created_at) VALUES (1, 'guido', 0)").await;
    let error = store.add_user(&name("barry")).await.expect_err("the sequence begins with 1");
    assert!(matches!(error, AdminError::Repository(_)), "{error:?}");
    store.add_user(&name("barry")).await.expect("2 is free");
    let error = store.add_user(&name("guido")).await.expect_err("that name is there");
    assert!(matches!(error, AdminError::UserExists { .. }), "{error:?}");
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let (_database, store) = PostgresRepository::create().await;
    store.execute("CREATE TABLE ajwt_nonce (mine INTEGER)").await;
    assert!(store.migrate().await.is_err());
    assert_eq!(store.texts(PostgresRepository::TABLES).await, ["ajwt_nonce"]);
    store.execute("DROP TABLE ajwt_nonce").await;
    store.migrate().await.expect("migrated");
    store.add_user(&name("guido")).await.expect("added");
    store.add_key(&name("guido"), &NewKey::of_key(key().public_key().clone())).await.expect("added");
}

#[tokio::test]
async fn many_users_cost_no_more_than_few_and_statements_search() {
    let (_database, store) = scale::many_users_cost_no_more_than_few::<PostgresRepository>().await;
    let plan = async |source, name, bind: fn(Explain) -> Explain| {
        let statement = plans::statement(source, name, &plans::OWN);
        let plan = postgres_plan::plan(store.pool(), &statement, bind).await;
        for step in [
            "Seq Scan on ajwt_user",
            "Seq Scan on ajwt_public",
            "Seq Scan on ajwt_jwks",
            "Seq Scan on ajwt_nonce",
        ] {
            assert!(!plan.iter().any(|line| line.contains(step)), "{step}: {plan:#?}");
        }
        plan
    };
    let bind = |explain: Explain| explain.bind("user777");
    let found = plan(include_str!("../src/postgres/tables.rs"), "FIND_USER", bind).await;
    for index in ["ajwt_user_username_key", "ajwt_public_key_live", "ajwt_jwks_endpoint_trust_user"] {
        assert!(found.iter().any(|step| step.contains(index)), "{found:#?}");
    }
    let bind = |explain: Explain| explain.bind([1_u8; 32].as_slice()).bind(1_i64);
    plan(include_str!("../src/postgres/nonce.rs"), "CONSUME", bind).await;
    // As its function does.
    let since = plan(include_str!("../src/postgres/nonce.rs"), "SINCE", |explain| explain).await;
    assert!(since.iter().any(|step| step.contains("ajwt_nonce_pkey")), "{since:#?}");
}

/// As while the database is dumped: the rows that were removed stay until that has ended, and each removal would read
/// them all.
#[tokio::test]
async fn a_long_transaction_makes_no_removal_of_expired_nonces_longer() {
    let (database, store) = database::<PostgresRepository>().await;
    // Of no pool of ours, which would end what is idle in a transaction.
    let mut dump = PgConnection::connect(&PostgresRepository::url(&database)).await.expect("connected");
    for sql in ["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM ajwt_nonce"] {
        sqlx::query(sql).execute(&mut dump).await.expect(sql);
    }
    let added = "INSERT INTO ajwt_nonce (key, expires_at)
        SELECT sha256(concat(n)::BYTEA), n FROM generate_series(1, 30000) AS n";
    assert_eq!(store.execute(added).await, 30_000);
    store.nonces(Arc::new(SystemClock::new())).sweep().await;
    assert_eq!(store.number("SELECT count(*) FROM ajwt_nonce").await, 1, "since when the table is whole");

    let now = SystemClock::new().now().as_millis();
    let removal = plans::statement(include_str!("../src/postgres/nonce.rs"), "REMOVE_EXPIRED", &plans::OWN);
    let removal = format!("(ANALYZE, BUFFERS) {removal}");
    let pages = async |from: i64| {
        let bind = |explain: Explain| explain.bind(from).bind(now).bind(1000_i64);
        let plan = postgres_plan::plan(store.pool(), &removal, bind).await;
        // Of the topmost step, and so of all.
        let read = plan.iter().find(|line| line.contains("Buffers: ")).expect("counted");
        let counts = read.split_whitespace().filter_map(|word| {
            word.strip_prefix("hit=").or_else(|| word.strip_prefix("read="))?.parse::<u64>().ok()
        });
        counts.sum::<u64>()
    };
    let from_the_beginning = pages(i64::MIN).await;
    assert!(from_the_beginning > 200, "{from_the_beginning} pages: the rows are gone");
    let from_the_last_one = pages(now - 60_000).await;
    assert!(from_the_last_one < 20, "{from_the_last_one} pages of {from_the_beginning}");
}

#[tokio::test]
async fn a_look_at_the_revision_goes_over_no_connection_of_long_ago() {
    let (_database, store) = database::<PostgresRepository>().await;
    let options = store.pool().options().clone().max_connections(1).acquire_timeout(PATIENCE);
    let connect = store.pool().connect_options();
    let pool = options.connect_with((*connect).clone()).await.expect("connected");
    let old = "CREATE TEMPORARY TABLE ajwt_revision AS SELECT 1 AS id, -1::BIGINT AS revision";
    looks::a_look_at_the_revision_goes_over_no_connection_of_long_ago(pool, old, |pool, clock| {
        Arc::new(PostgresRepository::new(pool).with_clock(clock))
    })
    .await;
}

/// As where its server is full, and takes no new connections.
#[tokio::test]
async fn a_look_at_the_revision_gives_up_no_connection_before_there_is_another() {
    let (_database, store) = database::<PostgresRepository>().await;
    let connect = store.pool().connect_options();
    let pool = store.pool().options().clone().connect_with((*connect).clone()).await.expect("connected");
    let clock = MockClock::new(SystemClock::new().now());
    let looking = PostgresRepository::new(pool).with_clock(Arc::new(clock.clone()));
    let revision = looking.revision().await.expect("read");

    let name = connect.get_database().expect("a name").to_owned();
    let other = format!("{}/postgres", sql::shared(SERVER));
    let mut other = PgConnection::connect(&other).await.expect("connected");
    let refuse = format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS false");
    sqlx::raw_sql(AssertSqlSafe(refuse)).execute(&mut other).await.expect("done");
    PgConnection::connect_with(&connect).await.expect_err("no new connection");
    for _ in 0..3 {
        clock.advance(Duration::from_secs(60));
        assert_eq!(looking.revision().await.expect("by the one that it has"), revision);
    }
}

/// The engine gives up on them, and they must not pile up on the server.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_given_up_do_not_wait_for_ever() {
    let (database, store) = database::<PostgresRepository>().await;
    let key = add_guido(&store).await;
    let operator = PostgresRepository::open(&PostgresRepository::url(&database)).await;
    let mut lock = operator.pool().begin().await.expect("begun");
    for sql in ["SET LOCAL idle_in_transaction_session_timeout = 0", "LOCK TABLE ajwt_nonce"] {
        sqlx::query(sql).execute(&mut *lock).await.expect("locked");
    }
    // Users over connections of their own: claims that wait may hold all of the others.
    let users = PostgresRepository::open(&PostgresRepository::url(&database)).await;
    let nonces = Arc::new(store.nonces(Arc::new(SystemClock::new())));
    let authenticator = Authenticator::builder(Arc::new(users), nonces).build().expect("built");
    for outcome in store::at_once(&Arc::new(authenticator), &key, 30).await {
        assert_eq!(outcome, Err(Reason::NonceStoreUnavailable));
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    store::none_is_left(&operator, waiting).await;
    lock.rollback().await.expect("unlocked");
}

/// Each way in which the server asks for a password is a user.
#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_shown() {
    let rules = rules(
        "host all postgres all trust
        host all scram,other all scram-sha-256
        host all md5 all md5
        host all plain all password",
    );
    let server = Server::start(Kind::Postgres, &["-c", &format!("hba_file={}", rules.path().display())]);
    let mut admin = PgConnection::connect(&server.url("postgres")).await.expect("connected");
    for sql in [
        &format!("CREATE USER scram SUPERUSER PASSWORD '{PASSWORD}'"),
        &format!("CREATE USER plain SUPERUSER PASSWORD '{PASSWORD}'"),
        "CREATE USER other PASSWORD 'another'",
        "SET password_encryption = md5",
        &format!("CREATE USER md5 SUPERUSER PASSWORD '{PASSWORD}'"),
        "CREATE DATABASE ajwt",
    ] {
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut admin).await.expect(sql);
    }
    let users = ["scram", "md5", "plain"];
    passwords::no_password_is_shown(server, "postgres", &users, PostgresRepository::connect, |store| {
        store.pool()
    })
    .await;
}

/// A file of the server's rules, which it may read although another user runs it.
fn rules(text: &str) -> NamedTempFile {
    let mut file =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}
