mod columns;
mod django;
mod nonce;
mod tables;

use std::{convert::identity, str::FromStr as _, sync::Arc, time::Duration};

use ajwt_core::{Timestamp, Username};
use ajwt_server::{
    Clock, Found, Freshness, KeySource, RepositoryError, RevisionSource, SystemClock, TrustedUrls,
    UsageStore, User, UserRepository,
};
use async_trait::async_trait;
use sqlx::{
    Connection as _, SqlStr, Sqlite, SqliteConnection, SqlitePool,
    pool::PoolConnection,
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

pub use self::nonce::SqliteNonceBackend;
use crate::{
    audit,
    error::{ConnectError, MigrationError},
    failure::failed,
    key_cache::KeyCache,
    migrations,
    repository::repository,
    rows::{self, Columns as _},
    schema::{REVISION, Schema, Statements},
    user_rows,
};

/// How long a statement waits for another process's write: less than the engine waits for a store by
/// default, so that no connection of the pool is left waiting for nobody.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1500);

/// What SQLite says where another connection has the write lock.
const SQLITE_BUSY: &str = "5";

/// What it says where another connection is reading what a crash left in the WAL.
const SQLITE_BUSY_RECOVERY: &str = "261";

/// With the pause 5 s, and with the busy timeout half a minute and more.
const OPEN_ATTEMPTS: usize = 20;

const OPEN_PAUSE: Duration = Duration::from_millis(250);

/// With the busy timeout, half a minute and more.
const MIGRATION_ATTEMPTS: usize = 20;

const MIGRATION_PAUSE: Duration = Duration::from_millis(50);

const HAS_TABLES: &str = "
SELECT count(*) FILTER (WHERE name = 'ajwt_user') > 0,
    count(*) FILTER (WHERE name IN ('ajwt_public_key', 'ajwt_jwks_endpoint_trust')) > 0
FROM sqlite_master WHERE type = 'table'";

const MIGRATIONS: migrations::Files = migrations::files!("sqlite");

/// Takes the write lock at once: nothing that was read in the transaction can change under it.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Users, keys and trusts in SQLite. Cheap to clone; clones share the pool and the parsed keys.
#[derive(Clone, Debug)]
pub struct SqliteRepository {
    pool: SqlitePool,
    clock: Arc<dyn Clock>,
    actor: Arc<str>,
    keys: Arc<KeyCache>,
    schema: Schema,
    sql: Arc<Statements>,
}

impl SqliteRepository {
    /// Opens a database by its URL, as in `sqlite://ajwt.db`, with settings for a service: the
    /// file is made if it is missing, readers and the writer do not wait for one another (WAL), and what is
    /// committed is on the disk (`synchronous = FULL`). A file that others have made is switched to WAL too, and
    /// stays so: `PRAGMA journal_mode = DELETE` switches it back, once nobody else has it open. For another mode
    /// make a pool and use [`new`](Self::new).
    ///
    /// # Errors
    /// [`ConnectError`] that says whether the URL or the file is at fault.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        let not_usable = |source| ConnectError::Url { expected: "sqlite://PATH", source };
        if !url.starts_with("sqlite:") {
            // sqlx would take anything else for the name of a file.
            return Err(not_usable("it does not begin with sqlite:".into()));
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| not_usable(error.into()))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Below it, what was committed last goes with the power, and a used token is good again. The default is
            // that of whoever compiled the SQLite that is linked.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = open(options).await.map_err(|error| ConnectError::Open { source: error.into() })?;
        Ok(Self::new(pool))
    }

    /// Over a pool of the application's own.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        let schema = Schema::default();
        Self {
            pool,
            clock: Arc::new(SystemClock::new()),
            actor: audit::UNKNOWN_ACTOR.into(),
            keys: Arc::default(),
            sql: statements(&schema),
            schema,
        }
    }

    /// On this clock, which dates changes.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes or updates the tables. Any number of processes may do so at once.
    ///
    /// # Errors
    /// [`MigrationError`]; the database is as it was.
    pub async fn migrate(&self) -> Result<(), MigrationError> {
        let migrator = migrations::migrator(&self.schema, &MIGRATIONS);
        // The write lock of one transaction around it all, for which it waits longer than a request would.
        let begin = || self.pool.begin_with(BEGIN);
        let begun = retry(MIGRATION_ATTEMPTS, MIGRATION_PAUSE, is_busy, begin).await;
        let mut transaction = begun.map_err(MigrationError::failed)?;
        let tables = sqlx::query_as(HAS_TABLES).fetch_one(&mut *transaction).await;
        let (users, keys): (bool, bool) = tables.map_err(MigrationError::failed)?;
        let present = migrations::Present { users, keys, ..Default::default() };
        migrations::check_owner(&self.schema, present)?;
        let others = sqlx::query_scalar(django::HAS_OTHER_USERS).fetch_one(&mut *transaction).await;
        let others: bool = others.map_err(MigrationError::failed)?;
        self.schema.check_user_model(others).map_err(MigrationError::CustomUserModel)?;
        migrations::run(&migrator, None, &mut *transaction).await.map_err(MigrationError::of)?;
        transaction.commit().await.map_err(MigrationError::failed)
    }

    /// A statement about a user, whose name is its first argument.
    fn of_user(&self, sql: &SqlStr, username: &Username) -> Query<'static, Sqlite, SqliteArguments> {
        sqlx::query(sql.clone()).bind(username.as_str())
    }

    fn activation(&self, username: &Username, active: bool) -> Query<'static, Sqlite, SqliteArguments> {
        self.of_user(&self.sql.set_user_active, username).bind(active)
    }

    fn row_change(
        &self,
        username: &Username,
        sql: &SqlStr,
        id: i64,
        argument: Option<Option<Timestamp>>,
    ) -> Query<'static, Sqlite, SqliteArguments> {
        let change = self.of_user(sql, username).bind(id);
        match argument {
            Some(argument) => change.bind(argument.map(Timestamp::as_millis)),
            None => change,
        }
    }
}

#[async_trait]
impl UserRepository for SqliteRepository {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        let failed = failed("reading a user");
        let rows = sqlx::query(self.sql.find_user.clone())
            .bind(username)
            .fetch_all(&self.pool)
            .await
            .map_err(&failed)?;
        user_rows::found(rows.iter().map(rows::user_row), &self.keys).map_err(failed)
    }
}

#[async_trait]
impl RevisionSource for SqliteRepository {
    async fn revision(&self) -> Result<Option<i64>, RepositoryError> {
        if !self.schema.has_revision() {
            return Ok(None);
        }
        let revision = sqlx::query_scalar(REVISION).fetch_optional(&self.pool).await;
        revision.map_err(failed("reading the revision"))
    }
}

#[async_trait]
impl TrustedUrls for SqliteRepository {
    async fn all(&self) -> Result<Vec<Box<str>>, RepositoryError> {
        let failed = failed("listing trusted URLs");
        let rows = sqlx::query(self.sql.trusted_urls.clone()).fetch_all(&self.pool).await.map_err(&failed)?;
        user_rows::trusted_urls(rows.iter().map(|row| row.bytes(0))).map_err(failed)
    }
}

#[async_trait]
impl UsageStore for SqliteRepository {
    async fn write(&self, uses: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError> {
        let failed = failed("noting the use of keys");
        transaction(&self.pool, &failed, async |connection: &mut SqliteConnection| {
            for (source, at) in uses {
                let (sql, id) = match source {
                    KeySource::Key(id) => (&self.sql.key_used, id),
                    KeySource::Trust(id) => (&self.sql.trust_used, id),
                    // No row of these tables.
                    _ => continue,
                };
                let update = sqlx::query(sql.clone()).bind(id).bind(at.as_millis());
                update.execute(&mut *connection).await.map_err(&failed)?;
            }
            Ok(())
        })
        .await
    }
}

repository! {
    SqliteRepository, SqliteConnection, pool: SqlitePool,
    transaction: transaction, found: identity, own: identity
}

/// Waits for others that write while the file is switched to WAL: there SQLite itself does not.
async fn open(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    let pools = SqlitePoolOptions::new().test_before_acquire(false);
    let is_passing = |error: &sqlx::Error| is_busy(error) || has_code(error, SQLITE_BUSY_RECOVERY);
    retry(OPEN_ATTEMPTS, OPEN_PAUSE, is_passing, || pools.clone().connect_with(options.clone())).await
}

/// Does it again, after a pause, while it fails for a reason that passes.
async fn retry<T, F>(
    attempts: usize,
    pause: Duration,
    is_passing: impl Fn(&sqlx::Error) -> bool,
    work: impl Fn() -> F,
) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    for _ in 0..attempts {
        match work().await {
            Err(error) if is_passing(&error) => tokio::time::sleep(pause).await,
            result => return result,
        }
    }
    work().await
}

/// A connection that can begin a transaction. A full disk ends one by itself; sqlx takes no notice, and could
/// begin none on that connection any more.
async fn writing(pool: &SqlitePool) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
    loop {
        let connection = pool.acquire().await?;
        if !connection.is_in_transaction() {
            return Ok(connection);
        }
        drop(connection.detach());
    }
}

/// Works in a transaction, which has the write lock from its beginning, and commits it.
async fn transaction<T, E: From<RepositoryError>>(
    pool: &SqlitePool,
    failed: impl Fn(sqlx::Error) -> RepositoryError,
    work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, E>,
) -> Result<T, E> {
    let mut connection = writing(pool).await.map_err(&failed)?;
    let mut transaction = connection.begin_with(BEGIN).await.map_err(&failed)?;
    let worked = work(&mut transaction).await?;
    transaction.commit().await.map_err(&failed)?;
    Ok(worked)
}

/// Whether another connection has the write lock.
fn is_busy(error: &sqlx::Error) -> bool {
    has_code(error, SQLITE_BUSY)
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(code))
}

fn statements(schema: &Schema) -> Arc<Statements> {
    schema.statements(&tables::DIALECT, &tables::STATEMENTS, &django::STATEMENTS)
}

/// Adds a row, and returns its id; `None` if there is one like it.
async fn insert(
    add: Query<'static, Sqlite, SqliteArguments>,
    connection: &mut SqliteConnection,
) -> Result<Option<i64>, sqlx::Error> {
    add.fetch_optional(connection).await?.map(|row| row.integer(0)).transpose()
}
