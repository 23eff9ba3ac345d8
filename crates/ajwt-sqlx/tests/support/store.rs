//! What holds of the stores in every database: conformance, migrations, nonces, revision, audit.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses a part")]

use std::{
    env,
    fmt::Debug,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ajwt_core::{Claims, Nonce, PrivateKey, SignedToken, Timestamp, Token, Username};
use ajwt_server::{
    AdminError, Authenticator, BatchedUsage, Clock, Freshness, KeyAdmin, KeySource, KeyedUser as _, MAX_KEYS,
    MAX_TRUSTS, MockClock, NewKey, NonceBackend, NonceError, NonceOutcome, NonceUse, Reason, RepositoryError,
    RevisionSource, SystemClock, TrustedUrls, UsageRecorder as _, UsageStore, User, UserRepository, testing,
};
use ajwt_sqlx::{AuditRecord, ConnectError, MigrationError, MissingTables, Schema};
use ajwt_test_support::{Level, Log};
use tokio::task::JoinSet;

#[path = "store/changes.rs"]
mod changes;
#[path = "store/nonces.rs"]
mod nonces;

pub(crate) use changes::*;
pub(crate) use nonces::*;

/// For tests that are not about waiting: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const TOLERANCE: Duration = Duration::from_secs(20);
const MARGIN: Duration = Duration::from_secs(60);

/// Tells the processes that a test starts which database is meant.
const STORE_URL: &str = "AJWT_TEST_STORE_URL";

/// Connects, again where a stall of the machine took the time that a connection has.
pub(crate) async fn connected<S: Debug>(connect: impl AsyncFn() -> Result<S, ConnectError>) -> S {
    for _ in 0..4 {
        if let Ok(store) = connect().await {
            return store;
        }
    }
    connect().await.expect("connected")
}

/// A database's stores, under one name for what each of them has.
pub(crate) trait Store:
    UserRepository<User = User> + KeyAdmin + RevisionSource + TrustedUrls + UsageStore + Clone
{
    type Nonces: NonceBackend;
    /// Keeps the database, and removes it when dropped.
    type Database: Send + Sync;

    /// SQL that is the time of a row in an application's own table of migrations.
    const NOW: &'static str = "CURRENT_TIMESTAMP";
    /// SQL that is the byte 0.
    const ZERO: &'static str = "x'00'";
    const TRUE: &'static str = "1";
    /// The column of the key, whose name is a reserved word on MySQL.
    const KEY: &'static str = "key";
    /// Statements that a nonce takes, as docs/database.md says: where they go in one message, that is one.
    const NONCE_STATEMENTS: usize = 1;
    /// SQL that makes 32 bytes of the number `n`.
    const HASH_OF_N: &'static str;
    /// SQL that lists the tables.
    const TABLES: &'static str;
    /// SQL that makes a trigger, which adds a row to the table `writes` for each row of keys that is updated.
    const COUNT_WRITES: &'static [&'static str];

    /// A new database, without tables, which nobody has opened.
    async fn create_empty() -> Self::Database;
    /// A new database, without tables.
    async fn create() -> (Self::Database, Self) {
        let database = Self::create_empty().await;
        let store = Self::open(&Self::url(&database)).await;
        (database, store)
    }
    fn url(database: &Self::Database) -> String;
    async fn open(url: &str) -> Self;
    /// The same over a pool whose waits for a connection, or for a lock, are not those of a service.
    async fn patient(&self) -> Self {
        self.clone()
    }
    async fn migrate(&self) -> Result<(), MigrationError>;
    /// Leaves out what makes it slow to add very many rows.
    async fn migrate_to_be_filled(&self) -> Result<(), MigrationError> {
        Store::migrate(self).await
    }
    async fn close(&self);
    /// Whether the pool asks each connection that it hands out whether it is there.
    fn pings(&self) -> bool;
    fn nonces(&self, clock: Arc<dyn Clock>) -> Self::Nonces;
    async fn initialise(nonces: &Self::Nonces) -> bool;
    async fn check(nonces: &Self::Nonces) -> Result<(), RepositoryError>;
    async fn sweep(nonces: &Self::Nonces);
    fn batched_usage(&self) -> BatchedUsage;
    fn with_schema(self, schema: Schema) -> Self;
    fn with_actor(self, actor: &str) -> Self;
    async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, RepositoryError>;
    fn execute(&self, sql: &str) -> impl Future<Output = u64> + Send;
    async fn number(&self, sql: &str) -> i64;
    async fn texts(&self, sql: &str) -> Vec<String>;
}

/// What every repository has alike, though by no trait of the crate: within its `impl Store`.
macro_rules! methods_of_any_repository {
    () => {
        async fn migrate(&self) -> Result<(), ajwt_sqlx::MigrationError> {
            Self::migrate(self).await
        }

        async fn close(&self) {
            self.pool().close().await;
        }

        fn pings(&self) -> bool {
            self.pool().options().get_test_before_acquire()
        }

        fn nonces(&self, clock: std::sync::Arc<dyn ajwt_server::Clock>) -> Self::Nonces {
            Self::Nonces::with_clock(self.pool().clone(), clock)
        }

        async fn initialise(nonces: &Self::Nonces) -> bool {
            nonces.initialise().await.expect("marked")
        }

        async fn check(nonces: &Self::Nonces) -> Result<(), ajwt_server::RepositoryError> {
            nonces.check().await
        }

        async fn sweep(nonces: &Self::Nonces) {
            nonces.sweep().await;
        }

        fn batched_usage(&self) -> ajwt_server::BatchedUsage {
            Self::batched_usage(self)
        }

        fn with_schema(self, schema: ajwt_sqlx::Schema) -> Self {
            Self::with_schema(self, schema)
        }

        fn with_actor(self, actor: &str) -> Self {
            Self::with_actor(self, actor)
        }

        async fn audit(
            &self,
            limit: u32,
        ) -> Result<Vec<ajwt_sqlx::AuditRecord>, ajwt_server::RepositoryError> {
            Self::audit(self, limit).await
        }

        async fn execute(&self, sql: &str) -> u64 {
            let result = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(self.pool()).await;
            result.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
        }
    };
}

pub(crate) use methods_of_any_repository;

/// The command of docs/database.md that makes the tables by this client, with these words of it replaced.
pub(crate) fn command_by_hand(client: &str, words: &[(&str, &str)]) -> String {
    let page = fs::read_to_string(root().join("docs/database.md")).expect("the page");
    let is_its = |line: &&str| line.starts_with("cat ") && line.contains(&format!(" | {client} "));
    let commands: Vec<_> = page.lines().filter(is_its).collect();
    let [command] = commands[..] else { panic!("{client}: {commands:?}") };
    words.iter().fold(command.to_owned(), |command, (word, value)| {
        assert_eq!(command.matches(word).count(), 1, "{word}: {command}");
        command.replace(word, value)
    })
}

/// The statements of docs/database.md.
pub(crate) fn statements_by_hand() -> String {
    let page = fs::read_to_string(root().join("docs/database.md")).expect("the page");
    let blocks: Vec<_> = page.split("\n```sql\n").skip(1).collect();
    let [block] = blocks[..] else { panic!("{blocks:?}") };
    block.split("```").next().expect("a block").to_owned()
}

/// Runs a command of the page's shell, and returns what it writes.
pub(crate) fn run_by_hand(command: &str) -> String {
    let mut shell = Command::new("sh");
    // Not the settings of whoever runs the tests.
    shell.args(["-c", command]).current_dir(root()).env("HOME", "/nonexistent").stdin(Stdio::null());
    let output = shell.output().expect("a shell");
    let [told, errors] = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream));
    assert!(output.status.success(), "{command}: {}: {errors}", output.status);
    told.into_owned()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A migrated database, whose nonce table is marked as new.
pub(crate) async fn database<S: Store>() -> (S::Database, S) {
    let (database, store) = S::create().await;
    set_up(&store).await;
    (database, store)
}

/// Does what an administrator does with a new database.
pub(crate) async fn set_up<S: Store>(store: &S) {
    Store::migrate(store).await.expect("migrated");
    assert!(S::initialise(&store.nonces(Arc::new(SystemClock::new()))).await);
}

pub(crate) fn name(username: &str) -> Username {
    Username::new(username).expect("a name")
}

pub(crate) fn key() -> PrivateKey {
    PrivateKey::generate_ed25519().expect("a key")
}

pub(crate) fn sign(username: &str, key: &PrivateKey) -> SignedToken {
    let nonce = Nonce::generate(getrandom::fill).expect("a nonce");
    Token::sign(&Claims::new(name(username), SystemClock::new().now(), nonce), key).expect("signed")
}

pub(crate) async fn authenticate(
    authenticator: &Authenticator,
    token: &SignedToken,
) -> Result<String, Reason> {
    let header = format!("JWT {}", token.as_str());
    let accepted = authenticator.authenticate([header.as_bytes()]).await;
    accepted.map(|accepted| accepted.user().username().to_owned()).map_err(|rejection| rejection.reason())
}

/// As many requests at once, each with a token of its own.
pub(crate) async fn at_once(
    authenticator: &Arc<Authenticator>,
    key: &PrivateKey,
    requests: usize,
) -> Vec<Result<String, Reason>> {
    let mut set = JoinSet::new();
    for _ in 0..requests {
        let (authenticator, token) = (Arc::clone(authenticator), sign("guido", key));
        set.spawn(async move { authenticate(&authenticator, &token).await });
    }
    set.join_all().await
}

/// Waits a moment until a count is zero.
pub(crate) async fn none_is_left<S: Store>(store: &S, count: &str) {
    for _ in 0..100 {
        if store.number(count).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("some are left: {count}");
}

pub(crate) fn authenticator<S: Store>(store: &S) -> Authenticator {
    let nonces = store.nonces(Arc::new(SystemClock::new()));
    Authenticator::builder(Arc::new(store.clone()), Arc::new(nonces)).build().expect("built")
}

/// Has each write to a row of keys counted in the table `writes`, where none goes unseen.
pub(crate) async fn count_writes<S: Store>(store: &S) {
    store.execute("CREATE TABLE writes (n INTEGER)").await;
    for sql in S::COUNT_WRITES {
        store.execute(sql).await;
    }
}

/// Adds the user `guido` with a key.
pub(crate) async fn add_guido<S: Store>(store: &S) -> PrivateKey {
    let key = key();
    store.add_user(&name("guido")).await.expect("added");
    store.add_key(&name("guido"), &NewKey::of_key(key.public_key().clone())).await.expect("added");
    key
}

/// A database with one user and what authenticates it.
pub(crate) async fn service<S: Store>() -> (S::Database, S, Authenticator, PrivateKey) {
    let (database, store) = database::<S>().await;
    let key = add_guido(&store).await;
    let authenticator = authenticator(&store);
    (database, store, authenticator, key)
}

pub(crate) async fn it_is_a_user_repository<S: Store>() {
    let (_database, store) = database::<S>().await;
    testing::user_repository(&store, &store).await;
}

pub(crate) async fn it_lists_trusted_urls<S: Store>() {
    let (_database, store) = database::<S>().await;
    testing::trusted_urls(&store, &store).await;
}

pub(crate) async fn it_is_a_key_admin<S: Store>() {
    let (_database, store) = database::<S>().await;
    testing::key_admin(&store).await;
}

pub(crate) async fn it_is_a_revision_source<S: Store>() {
    let (_database, store) = database::<S>().await;
    testing::revision_source(&store, &store, &store).await;
}

pub(crate) async fn it_records_usage<S: Store>() {
    let (_database, store) = database::<S>().await;
    testing::usage(&store, &store.batched_usage()).await;
    testing::usage_store(&store, &store).await;
}

pub(crate) async fn sixteen_processes_migrate_at_once<S: Store>(test: &str) {
    const PROCESSES: usize = 16;

    if let Ok(url) = env::var(STORE_URL) {
        S::open(&url).await.migrate().await.expect("migrated");
        return;
    }
    for round in 0..5 {
        let database = S::create_empty().await;
        let url = S::url(&database);
        if round % 2 == 1 {
            S::open(&url).await.close().await;
        }
        let program = env::current_exe().expect("this program");
        let start = || {
            Command::new(&program)
                .args(["--exact", test])
                .env(STORE_URL, &url)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("started")
        };
        let children: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
        let outputs: Vec<_> =
            children.into_iter().map(|child| child.wait_with_output().expect("waited for")).collect();
        let failures: Vec<_> = outputs
            .iter()
            .filter(|output| !output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout))
            .collect();
        assert!(failures.is_empty(), "round {round}: {} failed: {}", failures.len(), failures.join("\n"));
        let store = S::open(&url).await;
        assert_eq!(store.number("SELECT count(*) FROM ajwt_migrations").await, 2, "round {round}");
        store.add_user(&name("guido")).await.expect("a whole schema");
    }
}

pub(crate) async fn migrations_stand_beside_the_applications_own_and_notice_what_they_do_not_know<
    S: Store,
>() {
    let (_database, store) = database::<S>().await;
    store.migrate().await.expect("nothing to do");
    let tables = store.texts(S::TABLES).await;
    assert!(tables.len() >= 7 && tables.iter().all(|table| table.starts_with("ajwt_")), "{tables:?}");

    note_a_newer_migration(&store).await;
    let error = store.migrate().await.expect_err("a newer version was here");
    assert!(matches!(error, MigrationError::Newer { version: 9999 }), "{error:?}");
    store.execute("DELETE FROM ajwt_migrations WHERE version = 9999").await;
    store.execute(&format!("UPDATE ajwt_migrations SET checksum = {} WHERE version = 1", S::ZERO)).await;
    let error = store.migrate().await.expect_err("edited");
    assert!(matches!(error, MigrationError::Changed { version: 1 }), "{error:?}");
}

/// As in a rolling update, where old processes serve on until they are replaced.
pub(crate) async fn a_service_goes_on_where_a_newer_version_has_migrated<S: Store>() {
    let (_database, store, running, key) = service::<S>().await;
    assert_eq!(authenticate(&running, &sign("guido", &key)).await.as_deref(), Ok("guido"));
    note_a_newer_migration(&store).await;
    let started = authenticator(&store);
    for authenticator in [&running, &started] {
        let token = sign("guido", &key);
        assert_eq!(authenticate(authenticator, &token).await.as_deref(), Ok("guido"));
        assert_eq!(authenticate(authenticator, &token).await, Err(Reason::Replayed));
    }
    store.set_user_active(&name("guido"), false).await.expect("changed");
    assert_eq!(authenticate(&running, &sign("guido", &key)).await, Err(Reason::InactiveUser));
}

async fn note_a_newer_migration<S: Store>(store: &S) {
    let sql = format!(
        "INSERT INTO ajwt_migrations (version, description, installed_on, success, checksum, execution_time)
        VALUES (9999, 'future', {}, {}, {}, 0)",
        S::NOW,
        S::TRUE,
        S::ZERO
    );
    store.execute(&sql).await;
}

pub(crate) async fn tables_that_are_missing_are_told<S: Store>() {
    let (_database, store) = S::create().await;
    let error = store.find_by_username("guido", Freshness::Current).await.expect_err("no tables");
    let source = std::error::Error::source(&error).expect("a source");
    assert!(source.is::<MissingTables>(), "{source}");
    let error = S::check(&store.nonces(Arc::new(SystemClock::new()))).await.expect_err("no table");
    assert!(std::error::Error::source(&error).is_some_and(|source| source.is::<MissingTables>()), "{error}");
    let error = store.add_user(&name("guido")).await.expect_err("no tables");
    assert!(matches!(error, AdminError::Repository(_)), "{error:?}");
    assert!(store.revision().await.is_err());

    let log = Log::default();
    let _listening = log.listen(Level::ERROR);
    let authenticator = authenticator(&store);
    for _ in 0..3 {
        assert_eq!(authenticate(&authenticator, &sign("guido", &key())).await, Err(Reason::StoreUnavailable));
    }
    let log = log.text();
    assert_eq!(log.matches("run the migrations").count(), 1, "logged once: {log}");
}

pub(crate) async fn a_bad_row_is_skipped_with_one_warning_that_names_it<S: Store>() {
    let (_database, store, authenticator, key) = service::<S>().await;
    let guido = store.number("SELECT id FROM ajwt_user").await;
    let copy = format!(
        "INSERT INTO ajwt_public_key (id, user_id, {key}, fingerprint, created_at)
        VALUES (777, {guido}, 'not a key', 'x', 0)",
        key = S::KEY,
    );
    store.execute(&copy).await;
    let log = Log::default();
    let _listening = log.listen(Level::WARN);
    for _ in 0..3 {
        assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
    }
    let log = log.text();
    assert_eq!(log.matches("row=777").count(), 1, "{log}");
}

pub(crate) async fn plain_sql_counts_and_times_are_milliseconds<S: Store>() {
    let (_database, store, authenticator, key) = service::<S>().await;
    let now = SystemClock::new().now().as_millis();
    let set = async |column: &str, value: Option<i64>| {
        let value = value.map_or("NULL".to_owned(), |value| value.to_string());
        store.execute(&format!("UPDATE ajwt_public_key SET {column} = {value}")).await;
        authenticate(&authenticator, &sign("guido", &key)).await.map(drop)
    };
    assert_eq!(set("expires_at", Some(now)).await, Err(Reason::NoCandidateKey));
    assert_eq!(set("expires_at", Some(now + 60_000)).await, Ok(()));
    assert_eq!(set("not_before", Some(now + 60_000)).await, Err(Reason::NoCandidateKey));
    assert_eq!(set("not_before", Some(now)).await, Ok(()));
    assert_eq!(set("revoked_at", Some(now + 60_000)).await, Err(Reason::NoCandidateKey));
    assert_eq!(set("revoked_at", None).await, Ok(()));
    store.execute("UPDATE ajwt_user SET active = NOT active").await;
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await, Err(Reason::InactiveUser));
}

pub(crate) async fn uses_are_noted_and_flushed_when_the_authenticator_closes<S: Store>() {
    let (_database, store, _, key) = service::<S>().await;
    let nonces = store.nonces(Arc::new(SystemClock::new()));
    let authenticator = Authenticator::builder(Arc::new(store.clone()), Arc::new(nonces))
        .usage(Arc::new(store.batched_usage()))
        .build()
        .expect("built");
    let before = SystemClock::new().now();
    assert!(authenticate(&authenticator, &sign("guido", &key)).await.is_ok());
    assert_eq!(store.keys(&name("guido")).await.expect("listed")[0].last_used_on, None);
    authenticator.close().await;
    let used = store.keys(&name("guido")).await.expect("listed")[0].last_used_on;
    assert!(used.is_some_and(|used| used >= before && used <= SystemClock::new().now()), "{used:?}");
}

pub(crate) async fn a_row_that_is_too_long_is_skipped_and_not_read_whole<S: Store>() {
    let (_database, store, authenticator, key) = service::<S>().await;
    let text = format!("ssh-ed25519 {}", "A".repeat(40_000));
    let sql = format!(
        "INSERT INTO ajwt_public_key (user_id, {}, fingerprint, comment, created_at)
        SELECT id, '{text}', 'x', '', 0 FROM ajwt_user",
        S::KEY
    );
    store.execute(&sql).await;
    let log = Log::default();
    let _listening = log.listen(Level::WARN);
    assert_eq!(authenticate(&authenticator, &sign("guido", &key)).await.as_deref(), Ok("guido"));
    let log = log.text();
    assert!(log.contains("16385 bytes"), "{log}");
}

pub(crate) async fn one_batch_writes_each_key_once<S: Store>() {
    let (_database, store, _, _) = service::<S>().await;
    count_writes(&store).await;
    let usage = store.batched_usage();
    let id = store.number("SELECT id FROM ajwt_public_key").await;
    for at in 0..10_000 {
        usage.record(KeySource::Key(id), Timestamp::from_millis(at));
    }
    usage.flush().await;
    let used = store.keys(&name("guido")).await.expect("listed")[0].last_used_on;
    assert_eq!(used, Some(Timestamp::from_millis(9_999)));
    assert_eq!(store.number("SELECT count(*) FROM writes").await, 1);
}

/// The tests of one store, by name.
#[macro_export]
macro_rules! store_tests {
    ($store:ty; $($test:ident)*) => {
        $(#[tokio::test]
        async fn $test() {
            store::$test::<$store>().await;
        })*

        #[tokio::test(flavor = "multi_thread")]
        async fn it_is_a_nonce_backend() {
            store::it_is_a_nonce_backend::<$store>().await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn it_is_a_nonce_backend_for_several_processes() {
            let test = "it_is_a_nonce_backend_for_several_processes";
            store::it_is_a_nonce_backend_for_several_processes::<$store>(test).await;
        }

        #[tokio::test]
        async fn sixteen_processes_migrate_at_once() {
            store::sixteen_processes_migrate_at_once::<$store>("sixteen_processes_migrate_at_once").await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn sweeping_disturbs_no_request() {
            store::sweeping_disturbs_no_request::<$store>().await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn a_revision_is_never_ahead_of_the_user_it_is_read_with() {
            store::a_revision_is_never_ahead_of_the_user_it_is_read_with::<$store>().await;
        }
    };
    ($store:ty) => {
        $crate::store_tests! { $store;
            it_is_a_user_repository
            it_lists_trusted_urls
            it_is_a_key_admin
            it_is_a_revision_source
            it_records_usage
            migrations_stand_beside_the_applications_own_and_notice_what_they_do_not_know
            a_service_goes_on_where_a_newer_version_has_migrated
            tables_that_are_missing_are_told
            a_bad_row_is_skipped_with_one_warning_that_names_it
            plain_sql_counts_and_times_are_milliseconds
            uses_are_noted_and_flushed_when_the_authenticator_closes
            used_nonces_survive_a_restart
            an_emptied_table_makes_no_used_token_good_again
            a_new_table_trusts_no_token_from_before_it_unless_told_to
            a_mark_that_lies_ahead_goes_with_the_rows
            a_row_that_is_too_long_is_skipped_and_not_read_whole
            expired_rows_are_removed_in_batches_and_live_ones_stay
            one_batch_writes_each_key_once
            each_change_is_noted_with_its_actor
            a_change_that_cannot_be_noted_is_not_made
            no_more_trusts_are_added_than_count
            no_more_keys_are_added_than_count
            of_keys_that_plain_sql_adds_the_newest_count
        }
    };
}
