//! The MySQL stores on a real server, MariaDB, which `scripts/test` starts.
#![cfg(feature = "mysql")]

#[path = "support/looks.rs"]
mod looks;
#[path = "support/mysql_plan.rs"]
mod mysql_plan;
#[path = "support/mysql_store.rs"]
mod mysql_store;
#[path = "support/passwords.rs"]
mod passwords;
#[path = "support/plans.rs"]
mod plans;
#[path = "support/scale.rs"]
mod scale;
#[path = "support/store.rs"]
mod store;

use std::{sync::Arc, time::Duration};

use ajwt_server::{
    AdminError, Authenticator, Clock as _, Freshness, KeyAdmin as _, KeyedUser as _, NonceBackend as _,
    NonceError, NonceOutcome, NonceUse, Reason, RevisionSource as _, SystemClock, UserRepository as _,
    testing,
};
use ajwt_sqlx::{ConnectError, MigrationError, MySqlNonceBackend, MySqlRepository};
use ajwt_test_servers::sql::{self, Kind, Server};
use ajwt_test_support::hearing::PASSWORD;
use mysql_plan::Explain;
use mysql_store::SERVER;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, mysql::MySqlPoolOptions};
use store::{PATIENCE, Store, add_guido, authenticate, database, name, sign};
use tokio::task::JoinSet;
use url::Url;

store_tests!(MySqlRepository);

#[tokio::test]
async fn a_clock_that_is_far_ahead_dates_no_memory() {
    store::a_clock_that_is_far_ahead_dates_no_memory::<MySqlRepository>().await;
}

#[tokio::test]
async fn a_clock_that_is_behind_makes_no_used_token_good_again() {
    store::a_clock_that_is_behind_makes_no_used_token_good_again::<MySqlRepository>().await;
}

#[tokio::test]
async fn changes_by_plain_sql_raise_the_revision_and_uses_do_not() {
    store::changes_by_plain_sql_raise_the_revision_and_uses_do_not::<MySqlRepository>(false).await;
}

/// The client alone would cut triggers in two.
#[tokio::test]
async fn tables_made_by_hand_serve_as_well() {
    let make = async |url: &str| {
        let url: Url = url.parse().expect("a URL");
        let host = format!("{} --port={}", url.host_str().expect("a host"), url.port().expect("a port"));
        let words =
            [("HOST", &*host), ("USER", url.username()), ("DATABASE", url.path().trim_start_matches('/'))];
        store::run_by_hand(&store::command_by_hand("mariadb", &words));
    };
    store::tables_made_by_hand_serve_as_well::<MySqlRepository>(make, false).await;
}

#[tokio::test]
async fn a_bad_url_or_server_is_told() {
    let error = MySqlRepository::connect("sqlite://x").await.expect_err("no such URL");
    assert!(matches!(error, ConnectError::Url { .. }) && error.to_string().contains("mysql://"), "{error}");
    let error = MySqlRepository::connect("mysql://ajwt@127.0.0.1:1/x").await.expect_err("no server");
    assert!(matches!(error, ConnectError::Open { .. }), "{error:?}");
    let url = format!("{}/nowhere", sql::shared(SERVER));
    let error = MySqlRepository::connect(&url).await.expect_err("no database");
    assert!(matches!(error, ConnectError::Open { .. }), "{error:?}");
}

/// The server lets it connect all the same.
#[tokio::test]
async fn a_url_without_a_database_is_told_when_it_is_migrated() {
    let store = MySqlRepository::open(&sql::shared(SERVER)).await;
    for result in [store.migrate().await, store.migrate_without_triggers().await] {
        let error = result.expect_err("no database");
        assert!(matches!(error, MigrationError::NoDatabase), "{error:?}");
        assert!(error.to_string().contains("mysql://"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_forbids_triggers_is_told_and_does_without() {
    let server = Server::start(Kind::MySql, &["--log-bin=binlog", "--server-id=1"]);
    let mut admin = MySqlConnection::connect(&server.url("mysql")).await.expect("connected");
    for sql in
        ["CREATE DATABASE ajwt", "CREATE USER app@'127.0.0.1'", "GRANT ALL ON ajwt.* TO app@'127.0.0.1'"]
    {
        sqlx::query(sql).execute(&mut admin).await.expect("done");
    }
    let url = server.url("ajwt");
    let store = MySqlRepository::open(&url.replace("root@", "app@")).await;
    for _ in 0..2 {
        let error = store.migrate().await.expect_err("triggers are forbidden");
        assert!(matches!(error, MigrationError::NoTriggers { .. }), "{error:?}");
    }
    store.migrate_without_triggers().await.expect("migrated");
    store.migrate_without_triggers().await.expect("nothing to do");
    add_guido(&store).await;
    assert_eq!(store.revision().await.expect("read"), None);
    let found = store.find_by_username("guido", Freshness::Current).await.expect("read").expect("a user");
    assert_eq!((found.revision(), found.user().keys().len()), (None, 1));

    // Once they are allowed the same tables have a revision.
    sqlx::query("SET GLOBAL log_bin_trust_function_creators = 1").execute(&mut admin).await.expect("set");
    store.migrate().await.expect("migrated");
    let before = store.revision().await.expect("read").expect("a revision");
    store.set_user_active(&name("guido"), false).await.expect("changed");
    assert!(store.revision().await.expect("read") > Some(before));
    // And what has them keeps them.
    store.migrate_without_triggers().await.expect("nothing to do");
    assert!(store.revision().await.expect("read") > Some(before));
}

/// Tables cannot be changed in a transaction here, so a migration that was cut short runs again.
#[tokio::test]
async fn a_migration_that_was_cut_short_goes_on() {
    let (_database, store) = MySqlRepository::create().await;
    store.execute("CREATE TABLE ajwt_audit (mine INTEGER)").await;
    store.migrate_without_triggers().await.expect("a table that is there is left");
    store.execute("DROP TABLE ajwt_audit").await;
    store.execute("UPDATE ajwt_migrations SET success = FALSE").await;
    store.migrate().await.expect("migrated");
    assert_eq!(store.number("SELECT count(*) FROM ajwt_migrations WHERE success").await, 2);
    store.execute("UPDATE ajwt_migrations SET success = FALSE WHERE version = 2").await;
    store.execute("DROP TRIGGER ajwt_public_key_updated").await;
    let before = store.revision().await.expect("read");
    store.migrate().await.expect("migrated");
    assert!(store.revision().await.expect("read") > before, "what was read in between is not current");
    add_guido(&store).await;
    let before = store.revision().await.expect("read");
    store.execute("UPDATE ajwt_public_key SET revoked_at = 1").await;
    assert!(store.revision().await.expect("read") > before);
}

/// As a copy does that was made without them: all that says which migrations there were is copied.
#[tokio::test]
async fn triggers_that_are_gone_are_made_again() {
    const TRIGGERS: &str =
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = database()";
    let (_database, store) = database::<MySqlRepository>().await;
    add_guido(&store).await;
    let triggers = store.texts(TRIGGERS).await;
    assert_eq!(triggers.len(), 9, "{triggers:?}");
    let revision = async || store.revision().await.expect("read");
    let raises = async || {
        let before = revision().await;
        store.execute("UPDATE ajwt_user SET active = NOT active").await;
        revision().await > before
    };
    for trigger in &triggers {
        store.execute(&format!("DROP TRIGGER {trigger}")).await;
        let before = revision().await;
        store.migrate().await.expect("migrated");
        assert!(revision().await > before, "{trigger}: what was read in between is not current");
        assert_eq!(store.texts(TRIGGERS).await.len(), 9, "{trigger}");
    }
    assert!(raises().await);

    // Or what is there in their place is no revision.
    for trigger in &triggers {
        store.execute(&format!("DROP TRIGGER {trigger}")).await;
    }
    assert!(!raises().await);
    store.migrate_without_triggers().await.expect("migrated");
    assert_eq!(revision().await, None);
    store.migrate().await.expect("migrated");
    assert!(revision().await.is_some() && raises().await);
}

/// Whoever reads users waits behind a trigger that waits, and a dump has read them long before it ends.
#[tokio::test(flavor = "multi_thread")]
async fn triggers_that_come_later_do_not_wait_for_a_dump() {
    let (database, store) = MySqlRepository::create().await;
    store.migrate_without_triggers().await.expect("migrated");
    add_guido(&store).await;
    let mut dump = MySqlConnection::connect(&MySqlRepository::url(&database)).await.expect("connected");
    for sql in ["START TRANSACTION WITH CONSISTENT SNAPSHOT", "SELECT id FROM ajwt_user"] {
        sqlx::raw_sql(sql).execute(&mut dump).await.expect(sql);
    }
    let migrated = tokio::time::timeout(Duration::from_secs(20), store.migrate()).await;
    let error = migrated.expect("it gives up after 2 s").expect_err("the table is in use");
    assert!(matches!(error, MigrationError::Failed { .. }), "{error:?}");
    let found = store.find_by_username("guido", Freshness::Current).await.expect("read");
    assert_eq!(found.expect("a user").revision(), None);

    sqlx::raw_sql("ROLLBACK").execute(&mut dump).await.expect("ended");
    store.migrate().await.expect("migrated");
    assert!(store.revision().await.expect("read").is_some());
}

/// As where an administrator migrated whose account was made for that.
#[tokio::test]
async fn triggers_whose_account_is_gone_are_told_and_made_again() {
    const REMEDY: &str = "DELETE FROM ajwt_migrations WHERE version = 2";
    let server = Server::start(Kind::MySql, &[]);
    let mut admin = MySqlConnection::connect(&server.url("mysql")).await.expect("connected");
    for sql in
        ["CREATE DATABASE ajwt", "CREATE USER owner@'127.0.0.1'", "GRANT ALL ON ajwt.* TO owner@'127.0.0.1'"]
    {
        sqlx::query(sql).execute(&mut admin).await.expect("done");
    }
    let url = server.url("ajwt");
    let owner = MySqlRepository::open(&url.replace("root@", "owner@")).await;
    store::set_up(&owner).await;
    add_guido(&owner).await;
    owner.close().await;
    sqlx::query("DROP USER owner@'127.0.0.1'").execute(&mut admin).await.expect("done");

    let store = MySqlRepository::open(&url).await;
    let (guido, key) = (name("guido"), store.number("SELECT id FROM ajwt_public_key").await);
    let before = store.revision().await.expect("read");
    let error = store.revoke_key(&guido, key).await.expect_err("its account is gone");
    let AdminError::Repository(error) = error else { panic!("{error:?}") };
    let told = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(told.contains(REMEDY), "{told}");
    store.migrate().await.expect("nothing to do");
    assert!(store.revoke_key(&guido, key).await.is_err(), "they are there, and so it found nothing to do");

    store.execute(REMEDY).await;
    store.migrate().await.expect("migrated");
    store.revoke_key(&guido, key).await.expect("revoked");
    assert!(store.revision().await.expect("read") > before);
    assert!(store.keys(&guido).await.expect("listed")[0].revoked_at.is_some());
}

/// The information schema need not tell it of them.
#[tokio::test]
async fn triggers_that_an_account_may_not_see_are_left() {
    let server = Server::start(Kind::MySql, &[]);
    let mut admin = MySqlConnection::connect(&server.url("mysql")).await.expect("connected");
    for sql in [
        "CREATE DATABASE ajwt",
        "CREATE USER app@'127.0.0.1'",
        "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON ajwt.* TO app@'127.0.0.1'",
    ] {
        sqlx::query(sql).execute(&mut admin).await.expect("done");
    }
    let url = server.url("ajwt");
    let owner = MySqlRepository::open(&url).await;
    store::set_up(&owner).await;
    let store = MySqlRepository::open(&url.replace("root@", "app@")).await;
    let before = owner.revision().await.expect("read");
    store.migrate().await.expect("nothing to do");
    store.migrate_without_triggers().await.expect("nothing to do");
    assert_eq!(owner.revision().await.expect("read"), before);
    add_guido(&store).await;
    assert!(owner.revision().await.expect("read") > before);
}

/// Neither the server's default collation nor the connection's says which names are equal.
#[tokio::test]
async fn collations_of_server_and_connection_do_not_matter() {
    let (database, store) = database::<MySqlRepository>().await;
    for option in ["charset=latin1", "collation=utf8mb4_general_ci", "charset=binary"] {
        let other = MySqlRepository::open(&format!("{}?{option}", MySqlRepository::url(&database))).await;
        testing::user_repository(&other, &other).await;
    }
    store.add_user(&name("guido")).await.expect("added");
    assert!(store.find_by_username("GUIDO", Freshness::Current).await.expect("read").is_none());
}

/// As a client whose texts are in Latin-1 stores it: names are bytes here.
#[tokio::test]
async fn a_name_that_is_no_text_hides_no_user() {
    let (_database, store) = database::<MySqlRepository>().await;
    add_guido(&store).await;
    store.execute("INSERT INTO ajwt_user (username, active, created_at) VALUES (x'7A6FEB', 1, 0)").await;
    let users = store.users().await.expect("listed");
    assert_eq!(users.iter().map(|user| &*user.username).collect::<Vec<_>>(), ["guido"]);
}

#[tokio::test]
async fn many_users_cost_no_more_than_few_and_statements_search() {
    let (_database, store) = scale::many_users_cost_no_more_than_few::<MySqlRepository>().await;
    let plan = async |source, name, bind: fn(Explain) -> Explain| {
        let statement = plans::statement(source, name, &plans::OWN);
        let plan = mysql_plan::plan(store.pool(), &statement, bind).await;
        for step in [" ALL ", " index ", "filesort"] {
            let read = |line: &&String| line.starts_with("ajwt_") && line.contains(step);
            assert!(!plan.iter().any(|line| read(&line)), "{step}: {plan:#?}");
        }
        plan
    };
    let bind = |explain: Explain| (0..6).fold(explain, |explain, _| explain.bind(b"user777".as_slice()));
    let found = plan(include_str!("../src/mysql/tables.rs"), "FIND_USER", bind).await;
    for index in [
        "ajwt_user const ajwt_user_username",
        "ajwt_public_key ref ajwt_public_key_live",
        "ajwt_jwks_endpoint_trust ref ajwt_jwks_endpoint_trust_user",
    ] {
        assert!(found.iter().any(|step| step.contains(index)), "{found:#?}");
    }
    let bind = |explain: Explain| explain.bind([1_u8; 32].as_slice()).bind(1_i64).bind(0_i64);
    let consumed = plan(include_str!("../src/mysql/nonce.rs"), "CONSUME", bind).await;
    assert!(consumed.iter().any(|step| step.contains("ajwt_nonce const PRIMARY")), "{consumed:#?}");
}

/// The backend and uses of one nonce, on connections that begin with this statement.
async fn nonces(url: &str, setup: &'static str) -> (Arc<MySqlNonceBackend>, NonceUse, sqlx::MySqlPool) {
    let pool = MySqlPoolOptions::new().after_connect(move |connection, _| {
        Box::pin(async move { sqlx::query(setup).execute(connection).await.map(drop) })
    });
    let pool = pool.connect(url).await.expect("connected");
    let now = SystemClock::new().now();
    let (tolerance, margin) = (Duration::from_secs(20), Duration::from_secs(60));
    let one = testing::nonce_use("guido", now.as_secs() + 60, "a", now, tolerance, margin);
    (Arc::new(MySqlNonceBackend::new(pool.clone())), one, pool)
}

const INSERT: &str = "INSERT INTO ajwt_nonce (`key`, expires_at) VALUES (?, 1)";

/// Waits until as many statements on this database's nonces are under way, which are those that wait
/// for a lock. As plain text: MariaDB 10.11 has crashed on these tables as a prepared statement.
async fn wait_for_waiting(store: &MySqlRepository, statements: usize) {
    let waiting = "SELECT id FROM information_schema.processlist
        WHERE db = database() AND info LIKE '%INSERT INTO ajwt_nonce%' AND id <> connection_id()";
    let mut seen = 0;
    while seen < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let rows = sqlx::raw_sql(waiting).fetch_all(store.pool()).await.expect("read");
        seen = if rows.len() == statements { seen + 1 } else { 0 };
    }
}

/// The mark is locked against one that empties the table at the same time, whatever the isolation.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_waits_for_an_emptying_is_not_fresh() {
    for setup in [
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    ] {
        let (database, store) = database::<MySqlRepository>().await;
        let (backend, used, pool) = nonces(&MySqlRepository::url(&database), setup).await;
        assert!(backend.consume(&used).await.is_ok());
        let mut emptying = pool.begin().await.expect("begun");
        sqlx::query("DELETE FROM ajwt_nonce").execute(&mut *emptying).await.expect("emptied");
        let replay = tokio::spawn(async move { backend.consume(&used).await });
        wait_for_waiting(&store, 1).await;
        emptying.commit().await.expect("emptied");
        let answer = replay.await.expect("answered");
        assert!(matches!(answer, Err(NonceError::MayHaveBeenUsed { .. })), "{setup}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_not_had_in_time_is_an_error() {
    let (database, store) = database::<MySqlRepository>().await;
    let url = MySqlRepository::url(&database);
    let (backend, one, pool) = nonces(&url, "SET SESSION innodb_lock_wait_timeout = 1").await;
    for committed in [false, true] {
        let mut other = pool.begin().await.expect("begun");
        sqlx::query(INSERT).bind(one.key().as_bytes().as_slice()).execute(&mut *other).await.expect("added");
        let answer = backend.consume(&one).await;
        assert!(matches!(answer, Err(NonceError::Store(_))), "{answer:?}");
        if committed {
            other.commit().await.expect("committed");
        } else {
            other.rollback().await.expect("rolled back");
        }
        assert_eq!(store.number("SELECT count(*) FROM ajwt_nonce").await, 1 + i64::from(committed));
    }
    assert_eq!(backend.consume(&one).await.expect("an answer"), NonceOutcome::Replayed);
}

/// All that wait for a row that is then taken back lock one another out, and the server ends some.
#[tokio::test(flavor = "multi_thread")]
async fn of_those_in_a_deadlock_at_most_one_is_fresh() {
    let (database, store) = database::<MySqlRepository>().await;
    let (backend, one, pool) = nonces(&MySqlRepository::url(&database), "SET SESSION autocommit = 1").await;
    let mut other = pool.begin().await.expect("begun");
    sqlx::query(INSERT).bind(one.key().as_bytes().as_slice()).execute(&mut *other).await.expect("added");
    let mut waiting = JoinSet::new();
    for _ in 0..4 {
        let (backend, one) = (Arc::clone(&backend), one.clone());
        waiting.spawn(async move { backend.consume(&one).await });
    }
    wait_for_waiting(&store, 4).await;
    other.rollback().await.expect("rolled back");
    let answers = waiting.join_all().await;
    let fresh = answers.iter().filter(|answer| matches!(answer, Ok(NonceOutcome::Fresh))).count();
    assert_eq!(fresh, 1, "{answers:?}");
    assert!(
        answers.iter().any(|answer| matches!(answer, Err(NonceError::Store(_)))),
        "no deadlock: {answers:?}"
    );
    assert_eq!(backend.consume(&one).await.expect("an answer"), NonceOutcome::Replayed);
}

/// What such a connection adds ends with it, and the token would be good again.
#[tokio::test]
async fn a_connection_that_does_not_commit_by_itself_uses_no_nonce_up() {
    let (database, store) = database::<MySqlRepository>().await;
    let url = MySqlRepository::url(&database);
    let (committing, one, _pool) = nonces(&url, "SET SESSION autocommit = 1").await;
    let pool = MySqlPoolOptions::new()
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute("SET SESSION autocommit = 0").await?;
                Ok(())
            })
        })
        // Whatever is read there begins a transaction, in which a nonce is refused for another reason.
        .before_acquire(|connection, _| {
            Box::pin(async move {
                connection.execute("ROLLBACK").await?;
                Ok(true)
            })
        });
    let backend = MySqlNonceBackend::new(pool.connect(&url).await.expect("connected"));
    let refused = async || {
        let answer = backend.consume(&one).await;
        let Err(NonceError::Store(error)) = answer else { panic!("{answer:?}") };
        let told = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(told.contains("autocommit"), "{told}");
    };
    for _ in 0..2 {
        refused().await;
        let rows = store.number("SELECT count(*) FROM ajwt_nonce").await;
        assert_eq!(rows, 1, "since when the table is whole, and no more");
    }
    assert_eq!(committing.consume(&one).await.expect("an answer"), NonceOutcome::Fresh);
    refused().await;
    assert_eq!(committing.consume(&one).await.expect("an answer"), NonceOutcome::Replayed);
}

/// Nor where the server would have it so for each connection that does not ask for the contrary.
#[tokio::test]
async fn connections_of_ours_commit_whatever_the_servers_default() {
    let server = Server::start(Kind::MySql, &[]);
    let mut admin = MySqlConnection::connect(&server.url("mysql")).await.expect("connected");
    for sql in ["CREATE DATABASE ajwt", "SET GLOBAL autocommit = 0"] {
        sqlx::query(sql).execute(&mut admin).await.expect("done");
    }
    let store = MySqlRepository::open(&server.url("ajwt")).await;
    store::set_up(&store).await;
    let key = add_guido(&store).await;
    let token = sign("guido", &key);
    let accepted = authenticate(&store::authenticator(&store), &token).await;
    assert_eq!(accepted.as_deref(), Ok("guido"));

    // As others see it, whose connections began with the server's default.
    let other = MySqlRepository::open(&server.url("ajwt")).await;
    assert_eq!(other.number("SELECT count(*) FROM ajwt_nonce").await, 2);
    assert_eq!(authenticate(&store::authenticator(&other), &token).await, Err(Reason::Replayed));
}

#[tokio::test]
async fn a_look_at_the_revision_goes_over_no_connection_of_long_ago() {
    let (_database, store) = database::<MySqlRepository>().await;
    let options = store.pool().options().clone().max_connections(1).acquire_timeout(PATIENCE);
    let connect = store.pool().connect_options();
    let pool = options.connect_with((*connect).clone()).await.expect("connected");
    let old = "CREATE TEMPORARY TABLE ajwt_revision AS SELECT 1 AS id, CAST(-1 AS SIGNED) AS revision";
    looks::a_look_at_the_revision_goes_over_no_connection_of_long_ago(pool, old, |pool, clock| {
        Arc::new(MySqlRepository::new(pool).with_clock(clock))
    })
    .await;
}

/// The engine gives up on them, and they must not pile up on the server.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_given_up_do_not_wait_for_ever() {
    let (database, store) = database::<MySqlRepository>().await;
    let key = store::add_guido(&store).await;
    let operator = MySqlRepository::open(&MySqlRepository::url(&database)).await;
    let mut lock = operator.pool().acquire().await.expect("a connection");
    sqlx::raw_sql("LOCK TABLES ajwt_nonce WRITE").execute(&mut *lock).await.expect("locked");
    // Users over connections of their own: claims that wait may hold all of the others.
    let users = MySqlRepository::open(&MySqlRepository::url(&database)).await;
    let nonces = Arc::new(store.nonces(Arc::new(SystemClock::new())));
    let authenticator = Authenticator::builder(Arc::new(users), nonces).build().expect("built");
    for outcome in store::at_once(&Arc::new(authenticator), &key, 30).await {
        assert_eq!(outcome, Err(Reason::NonceStoreUnavailable));
    }
    let waiting = "SELECT CAST(count(*) AS SIGNED) FROM information_schema.processlist
        WHERE db = database() AND state LIKE 'Waiting for%lock'";
    store::none_is_left(&operator, waiting).await;
    sqlx::raw_sql("UNLOCK TABLES").execute(&mut *lock).await.expect("unlocked");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_shown() {
    let server = Server::start(Kind::MySql, &[]);
    let mut admin = MySqlConnection::connect(&server.url("mysql")).await.expect("connected");
    for sql in [
        "CREATE DATABASE ajwt",
        &format!("CREATE USER app@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'"),
        "CREATE USER other@'127.0.0.1' IDENTIFIED BY 'another'",
        "GRANT ALL ON ajwt.* TO app@'127.0.0.1'",
    ] {
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut admin).await.expect(sql);
    }
    passwords::no_password_is_shown(server, "mysql", &["app"], MySqlRepository::connect, |store| {
        store.pool()
    })
    .await;
}
