mod columns;
mod django;
mod nonce;
mod tables;

use std::{str::FromStr as _, sync::Arc, time::Duration};

use ajwt_core::{Timestamp, Username};
use ajwt_server::{
    AdminError, BatchedUsage, Clock, Found, Freshness, KeyAdmin, KeyRecord, KeySource, NewKey,
    RepositoryError, RevisionSource, SystemClock, TrustRecord, TrustedUrls, UsageStore, User, UserRecord,
    UserRepository,
};
use async_trait::async_trait;
use sqlx::{
    Connection as _, SqlStr, Sqlite, SqliteConnection, SqlitePool, Transaction,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use self::nonce::SqliteNonceBackend;
use crate::{
    audit::{self, AuditRecord, Entry, RowChange},
    error::{ConnectError, MigrationError},
    failure::failed,
    key_cache::KeyCache,
    migrations,
    rows::{self, Columns as _},
    schema::{self, REVISION, Schema, Statements},
    user_rows,
};

/// How long a statement waits for another process's write: less than the engine waits for a store by
/// default, so that no connection of the pool is left waiting for nobody.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1500);

/// What SQLite says where another connection has the write lock.
const SQLITE_BUSY: &str = "5";

const SQLITE_BUSY_RECOVERY: &str = "261";

/// With the pause 5 s, and with the busy timeout half a minute and more.
const OPEN_ATTEMPTS: usize = 20;

const OPEN_PAUSE: Duration = Duration::from_millis(250);

/// With the busy timeout, half a minute and more.
const MIGRATION_ATTEMPTS: usize = 20;

const MIGRATION_PAUSE: Duration = Duration::from_millis(50);

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

    /// On these tables. Without it they are ajwt's own.
    #[must_use]
    pub fn with_schema(mut self, schema: Schema) -> Self {
        self.sql = statements(&schema);
        self.schema = schema;
        self
    }

    /// On this clock, which dates changes.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// On behalf of this person or program, cut to 150 characters: who made a change, in the
    /// [audit](Self::audit) table. Without it that is `unknown`. Clones may have different ones.
    #[must_use]
    pub fn with_actor(mut self, actor: &str) -> Self {
        self.actor = audit::actor(actor).into();
        self
    }

    /// The pool.
    #[must_use]
    pub const fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Makes or updates the tables. Any number of processes may do so at once.
    ///
    /// # Errors
    /// [`MigrationError`]; the database is as it was.
    pub async fn migrate(&self) -> Result<(), MigrationError> {
        let migrator = migrations::migrator(&self.schema, &MIGRATIONS);
        // The write lock of one transaction around it all.
        let mut transaction = self.begin_migration().await.map_err(MigrationError::failed)?;
        migrations::run(&migrator, None, &mut *transaction).await.map_err(MigrationError::of)?;
        transaction.commit().await.map_err(MigrationError::failed)
    }

    /// Waits longer for others that migrate than a request would.
    async fn begin_migration(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        for _ in 0..MIGRATION_ATTEMPTS {
            match self.pool.begin_with(BEGIN).await {
                Err(error) if is_busy(&error) => {
                    tokio::time::sleep(MIGRATION_PAUSE).await;
                }
                result => return result,
            }
        }
        self.pool.begin_with(BEGIN).await
    }

    /// Notes uses of keys in these tables, each key at most once per 30 s.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    #[must_use]
    pub fn batched_usage(&self) -> BatchedUsage {
        BatchedUsage::new(Arc::new(self.clone()), BatchedUsage::DEFAULT_INTERVAL)
    }

    /// The last changes that were made through [`KeyAdmin`], newest first.
    ///
    /// # Errors
    /// [`RepositoryError`] if the database failed, and over Django's tables, which have no audit.
    pub async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, RepositoryError> {
        self.schema.check_audit("reading the audit table")?;
        let failed = failed("reading the audit table");
        let rows = sqlx::query(tables::AUDIT).bind(limit).fetch_all(&self.pool).await.map_err(&failed)?;
        rows.iter().map(rows::audit_record).collect::<Result<_, _>>().map_err(failed)
    }

    async fn list_keys(
        &self,
        connection: &mut SqliteConnection,
        username: &Username,
    ) -> Result<Vec<KeyRecord>, sqlx::Error> {
        let rows =
            sqlx::query(self.sql.list_keys.clone()).bind(username.as_str()).fetch_all(connection).await?;
        let records = rows.iter().map(rows::key_record).collect::<Result<_, _>>()?;
        Ok(self.schema.complete(records, &self.keys))
    }

    async fn list_trusts(
        &self,
        connection: &mut SqliteConnection,
        username: &Username,
    ) -> Result<Vec<TrustRecord>, sqlx::Error> {
        let rows =
            sqlx::query(self.sql.list_trusts.clone()).bind(username.as_str()).fetch_all(connection).await?;
        rows.iter().map(rows::trust_record).collect()
    }

    /// Notes a change in its own transaction.
    async fn note(
        &self,
        connection: &mut SqliteConnection,
        username: &Username,
        at: Timestamp,
        entry: &Entry,
    ) -> Result<(), sqlx::Error> {
        if self.schema.is_django() {
            return Ok(());
        }
        let note = sqlx::query(tables::ADD_AUDIT).bind(at.as_millis()).bind(&*self.actor).bind(entry.action);
        note.bind(username.as_str()).bind(&entry.detail).execute(connection).await.map(drop)
    }

    async fn change_row(&self, username: &Username, change: RowChange) -> Result<(), AdminError> {
        let failed = failed("changing a key or trust");
        transaction(&self.pool, &failed, async |connection: &mut SqliteConnection| {
            check_user(connection, &self.sql.lock_user, username).await?;
            let mut query = sqlx::query(change.sql).bind(username.as_str()).bind(change.id);
            if let Some(argument) = change.argument {
                query = query.bind(argument.map(Timestamp::as_millis));
            }
            let changed = query.execute(&mut *connection).await.map_err(&failed)?.rows_affected();
            if changed == 0 {
                return Err(change.missing);
            }
            let now = self.clock.now();
            self.note(connection, username, now, &change.entry).await.map_err(&failed)?;
            Ok(())
        })
        .await
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

#[async_trait]
impl KeyAdmin for SqliteRepository {
    async fn add_user(&self, username: &Username) -> Result<(), AdminError> {
        self.schema.check_add_user()?;
        let failed = failed("adding a user");
        let now = self.clock.now();
        transaction(&self.pool, &failed, async |connection: &mut SqliteConnection| {
            let add = sqlx::query(tables::ADD_USER).bind(username.as_str()).bind(now.as_millis());
            let added = add.execute(&mut *connection).await.map_err(&failed)?.rows_affected();
            if added == 0 {
                return Err(AdminError::UserExists { username: username.as_str().to_owned() });
            }
            let entry = Entry::of_user("add_user");
            self.note(connection, username, now, &entry).await.map_err(&failed)?;
            Ok(())
        })
        .await
    }

    async fn set_user_active(&self, username: &Username, active: bool) -> Result<(), AdminError> {
        self.schema.check_set_user_active()?;
        let failed = failed("changing a user");
        transaction(&self.pool, &failed, async |connection: &mut SqliteConnection| {
            check_user(connection, &self.sql.lock_user, username).await?;
            let change = sqlx::query(self.sql.set_user_active.clone()).bind(username.as_str()).bind(active);
            change.execute(&mut *connection).await.map_err(&failed)?;
            let entry = Entry::activation(active);
            self.note(connection, username, self.clock.now(), &entry).await.map_err(&failed)?;
            Ok(())
        })
        .await
    }

    async fn remove_user(&self, username: &Username) -> Result<(), AdminError> {
        self.schema.check_remove_user()?;
        let failed = failed("removing a user");
        transaction(&self.pool, &failed, async |connection: &mut SqliteConnection| {
            check_user(connection, &self.sql.lock_user, username).await?;
            for sql in tables::REMOVE_USER {
                sqlx::query(sql).bind(username.as_str()).execute(&mut *connection).await.map_err(&failed)?;
            }
            let entry = Entry::of_user("remove_user");
            self.note(connection, username, self.clock.now(), &entry).await.map_err(&failed)?;
            Ok(())
        })
        .await
    }

    async fn users(&self) -> Result<Vec<UserRecord>, AdminError> {
        let failed = failed("listing users");
        let rows = sqlx::query(self.sql.list_users.clone()).fetch_all(&self.pool).await.map_err(&failed)?;
        let records: Result<Vec<_>, _> = rows.iter().map(rows::user_record).collect();
        let mut records = records.map_err(failed)?;
        // Not by the database, whose collation need not be that of bytes.
        records.sort();
        Ok(records)
    }

    async fn add_key(&self, username: &Username, key: &NewKey) -> Result<KeyRecord, AdminError> {
        self.schema.check_new_key(key)?;
        let failed = failed("adding a key");
        let now = self.clock.now();
        let fingerprint = key.key().fingerprint().as_str();
        transaction(&self.pool, &failed, async |connection: &mut SqliteConnection| {
            check_user(connection, &self.sql.lock_user, username).await?;
            let mut add = sqlx::query_scalar(self.sql.add_key.clone())
                .bind(username.as_str())
                .bind(key.text())
                .bind(key.comment());
            if !self.schema.is_django() {
                add = add.bind(fingerprint).bind(now.as_millis());
                add = add.bind(key.not_before().map(Timestamp::as_millis));
                add = add.bind(key.expires_at().map(Timestamp::as_millis));
            }
            let id: Option<i64> = add.fetch_optional(&mut *connection).await.map_err(&failed)?;
            let id = id.ok_or_else(|| AdminError::DuplicateKey { fingerprint: fingerprint.to_owned() })?;
            let keys = self.list_keys(connection, username).await.map_err(&failed)?;
            schema::check_keys(&keys, id, fingerprint)?;
            let entry = Entry::added_key(id, fingerprint);
            self.note(connection, username, now, &entry).await.map_err(&failed)?;
            let created_at = if self.schema.is_django() { Timestamp::from_millis(0) } else { now };
            Ok(KeyRecord::new(id, key, created_at))
        })
        .await
    }

    async fn keys(&self, username: &Username) -> Result<Vec<KeyRecord>, AdminError> {
        let failed = failed("listing keys");
        let mut connection = self.pool.acquire().await.map_err(&failed)?;
        check_user(&mut connection, &self.sql.user_exists, username).await?;
        Ok(self.list_keys(&mut connection, username).await.map_err(failed)?)
    }

    async fn set_key_expiry(
        &self,
        username: &Username,
        key_id: i64,
        expires_at: Option<Timestamp>,
    ) -> Result<(), AdminError> {
        let sql = self.sql.set_key_expiry.clone().ok_or_else(schema::no_expiry)?;
        self.change_row(username, RowChange::key_expiry(sql, key_id, expires_at)).await
    }

    async fn revoke_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError> {
        let sql = self.sql.revoke_key.clone().ok_or_else(schema::no_revocation)?;
        self.change_row(username, RowChange::key_revocation(sql, key_id, self.clock.now())).await
    }

    async fn remove_key(&self, username: &Username, key_id: i64) -> Result<(), AdminError> {
        self.change_row(username, RowChange::key_removal(self.sql.remove_key.clone(), key_id)).await
    }

    async fn add_trust(&self, username: &Username, url: &str) -> Result<TrustRecord, AdminError> {
        AdminError::check_trust_url(url)?;
        self.schema.check_new_trust(url)?;
        let failed = failed("adding a trust");
        let now = self.clock.now();
        transaction(&self.pool, &failed, async |connection: &mut SqliteConnection| {
            check_user(connection, &self.sql.lock_user, username).await?;
            let mut add = sqlx::query_scalar(self.sql.add_trust.clone()).bind(username.as_str()).bind(url);
            if !self.schema.is_django() {
                add = add.bind(now.as_millis());
            }
            let id: Option<i64> = add.fetch_optional(&mut *connection).await.map_err(&failed)?;
            let Some(id) = id else {
                let trusts = self.list_trusts(connection, username).await.map_err(&failed)?;
                return Err(self.schema.trust_exists(trusts.iter().any(|trust| trust.url == url)));
            };
            let trusts = self.list_trusts(connection, username).await.map_err(&failed)?;
            schema::check_trusts(&trusts, id)?;
            let entry = Entry::added_trust(id, url);
            self.note(connection, username, now, &entry).await.map_err(&failed)?;
            Ok(TrustRecord::new(id, url, None))
        })
        .await
    }

    async fn trusts(&self, username: &Username) -> Result<Vec<TrustRecord>, AdminError> {
        let failed = failed("listing trusts");
        let mut connection = self.pool.acquire().await.map_err(&failed)?;
        check_user(&mut connection, &self.sql.user_exists, username).await?;
        Ok(self.list_trusts(&mut connection, username).await.map_err(failed)?)
    }

    async fn remove_trust(&self, username: &Username, trust_id: i64) -> Result<(), AdminError> {
        self.change_row(username, RowChange::trust_removal(self.sql.remove_trust.clone(), trust_id)).await
    }
}

/// Waits for others that write while the file is switched to WAL: there SQLite itself does not.
async fn open(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    let pools = SqlitePoolOptions::new().test_before_acquire(false);
    for _ in 0..OPEN_ATTEMPTS {
        match pools.clone().connect_with(options.clone()).await {
            Err(error) if is_busy(&error) || is_recovering(&error) => tokio::time::sleep(OPEN_PAUSE).await,
            result => return result,
        }
    }
    pools.connect_with(options).await
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
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(SQLITE_BUSY))
}

/// Whether another connection is reading what a crash left in the WAL.
fn is_recovering(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(SQLITE_BUSY_RECOVERY))
}

fn statements(schema: &Schema) -> Arc<Statements> {
    schema.statements(&tables::DIALECT, &tables::STATEMENTS, &django::STATEMENTS)
}

async fn check_user(
    connection: &mut SqliteConnection,
    sql: &SqlStr,
    username: &Username,
) -> Result<(), AdminError> {
    let found = sqlx::query(sql.clone()).bind(username.as_str()).fetch_optional(connection).await;
    match found.map_err(failed("reading a user"))? {
        Some(_) => Ok(()),
        None => Err(AdminError::unknown_user(username)),
    }
}
