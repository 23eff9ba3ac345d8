mod columns;
mod django;
mod listener;
mod nonce;
mod tables;

use std::{collections::BTreeMap, convert::identity, sync::Arc};

use ajwt_core::{Timestamp, Username};
use ajwt_server::{
    Clock, Found, Freshness, KeySource, RepositoryError, RevisionSource, SystemClock, TrustedUrls,
    UsageStore, User, UserRepository,
};
use async_trait::async_trait;
use sqlx::{
    Connection as _, Executor as _, PgConnection, PgPool, Postgres, SqlStr,
    postgres::{PgArguments, PgPoolOptions},
    query::Query,
};

use self::listener::Listener;
pub use self::nonce::PostgresNonceBackend;
use crate::{
    audit, connect_url,
    error::{ConnectError, MigrationError},
    failure::failed,
    key_cache::KeyCache,
    migrations,
    pool::{self, ACQUIRE_TIMEOUT, Lease, Reserved, Rounds},
    repository::repository,
    rows::{self, Columns as _},
    schema::{REVISION, Schema, Statements},
    unanswered::Unanswered,
    user_rows,
};

/// For connections of pools that we open. A statement that the engine has given up waits for a lock no
/// longer than the engine would, or such statements would take all of the server's connections. A transaction
/// whose host has gone without a word ends, or nobody could revoke the keys whose rows it has locked. The
/// nonce's statement must see what others commit while it waits, and what it commits must outlive a crash of
/// the server; any other setting does that, and stays.
const SESSION: &str = "
SET lock_timeout = '1500ms';
SET idle_in_transaction_session_timeout = '5s';
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED;
SELECT set_config('synchronous_commit', 'on', FALSE)
WHERE current_setting('synchronous_commit') = 'off'";

/// What PostgreSQL says of a text that the database's encoding cannot hold: `untranslatable_character`.
const NOT_STORABLE: &str = "22P05";

const WAIT_TO_MIGRATE: &str = "SET LOCAL lock_timeout = 0";

/// Held by the one process that migrates. The number says nothing; all versions use the same.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(4165487734)";

/// Where the migrations make theirs.
const HAS_TABLES: &str = "
SELECT coalesce(bool_or(tablename = 'ajwt_user'), FALSE),
    coalesce(bool_or(tablename IN ('ajwt_public_key', 'ajwt_jwks_endpoint_trust')), FALSE)
FROM pg_tables WHERE schemaname = current_schema()";

const MIGRATIONS: migrations::Files = migrations::files!("postgres");

/// Users, keys and trusts in PostgreSQL. Cheap to clone; clones share the pool, the parsed keys and the
/// connection that looks for changes. Each listens for changes by itself, on a connection of its own once
/// it is asked for them, and tells one who waits of each: a second `CachedUserRepository` has a clone of its own.
#[derive(Clone, Debug)]
pub struct PostgresRepository {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    actor: Arc<str>,
    keys: Arc<KeyCache>,
    schema: Schema,
    sql: Arc<Statements>,
    polling: Arc<Reserved<Postgres>>,
    reads: Arc<Unanswered>,
    rounds: Arc<Rounds>,
    listener: Listener,
}

impl PostgresRepository {
    /// Connects to a database by its URL, as in `postgres://user:password@host/database`, with
    /// settings for a service: at most ten connections, and no wait for one that is longer than
    /// 1.5 s. For other settings make a pool and use [`new`](Self::new), preferably with
    /// `test_before_acquire(false)`: a ping before each statement is half its cost, and a read is
    /// tried again when its connection turns out to have broken. Connections that were idle for half a minute are
    /// asked before they are used, which in a pool of your own is for `before_acquire` to do. A parameter that sqlx
    /// does not know is refused.
    ///
    /// # Errors
    /// [`ConnectError`] that says whether the URL or the server is at fault.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        let options = connect_url::postgres(url)?;
        let settings = PgPoolOptions::new()
            .test_before_acquire(false)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .before_acquire(|connection, metadata| Box::pin(pool::may_be_used(connection, metadata.idle_for)))
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute(SESSION).await.map(drop) })
            });
        Ok(Self::new(pool::open(settings, options).await?))
    }

    /// Over a pool of the application's own.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let schema = Schema::default();
        Self {
            pool,
            clock: Arc::new(SystemClock::new()),
            actor: audit::UNKNOWN_ACTOR.into(),
            keys: Arc::default(),
            sql: statements(&schema),
            schema,
            polling: Arc::default(),
            reads: Arc::default(),
            rounds: Arc::default(),
            listener: Listener::default(),
        }
    }

    /// On this clock, which dates changes.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        // What it holds is dated by the other one.
        self.polling = Arc::default();
        self
    }

    /// Makes or updates the tables, in the first schema of the search path. Any number of processes
    /// may do so at once.
    ///
    /// # Errors
    /// [`MigrationError`]; the database is as it was.
    pub async fn migrate(&self) -> Result<(), MigrationError> {
        let migrator = migrations::migrator(&self.schema, &MIGRATIONS);
        // sqlx's own lock belongs to a session. This one ends with the transaction around it all.
        let mut lease = Lease::of(&self.pool).await.map_err(MigrationError::failed)?;
        let mut transaction = lease.begin().await.map_err(MigrationError::failed)?;
        for sql in [WAIT_TO_MIGRATE, MIGRATION_LOCK] {
            sqlx::query(sql).execute(&mut *transaction).await.map_err(MigrationError::failed)?;
        }
        let tables = sqlx::query_as(HAS_TABLES).fetch_one(&mut *transaction).await;
        let (users, keys): (bool, bool) = tables.map_err(MigrationError::failed)?;
        let present = migrations::Present { users, keys, ..Default::default() };
        migrations::check_owner(&self.schema, present)?;
        let others = sqlx::query_scalar(django::HAS_OTHER_USERS).fetch_one(&mut *transaction).await;
        let others: bool = others.map_err(MigrationError::failed)?;
        self.schema.check_user_model(others).map_err(MigrationError::CustomUserModel)?;
        migrations::run(&migrator, None, &mut *transaction).await.map_err(MigrationError::of)?;
        transaction.commit().await.map_err(MigrationError::failed)?;
        lease.end();
        Ok(())
    }

    /// A statement about a user, whose name is its first argument.
    fn of_user(&self, sql: &SqlStr, username: &Username) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql.clone()).bind(username.as_str())
    }

    fn activation(&self, username: &Username, active: bool) -> Query<'static, Postgres, PgArguments> {
        self.of_user(&self.sql.set_user_active, username).bind(active)
    }

    fn row_change(
        &self,
        username: &Username,
        sql: &SqlStr,
        id: i64,
        argument: Option<Option<Timestamp>>,
    ) -> Query<'static, Postgres, PgArguments> {
        let change = self.of_user(sql, username).bind(id);
        match argument {
            Some(argument) => change.bind(argument.map(Timestamp::as_millis)),
            None => change,
        }
    }
}

#[async_trait]
impl UserRepository for PostgresRepository {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        let failed = failed("reading a user");
        let (sql, username) = (self.sql.find_user.clone(), username.to_owned());
        let find = async move |connection: &mut PgConnection| {
            if_storable(sqlx::query(sql).bind(&*username).fetch_all(connection).await)
        };
        let read = async |lease: Lease<Postgres>| {
            self.reads.run(pool::source(&self.pool), |_| true, lease.run(find.clone())).await
        };
        let rows = pool::read(&self.pool, read).await.map_err(&failed)?;
        user_rows::found(rows.iter().map(rows::user_row), &self.keys).map_err(failed)
    }
}

#[async_trait]
impl RevisionSource for PostgresRepository {
    /// On a connection of its own: a flood of requests must not keep changes from being noticed.
    async fn revision(&self) -> Result<Option<i64>, RepositoryError> {
        if !self.schema.has_revision() {
            return Ok(None);
        }
        let read = async |connection: &mut PgConnection| {
            sqlx::query_scalar(REVISION).fetch_optional(connection).await
        };
        let leave = async |connection: &mut PgConnection| connection.begin().await?.rollback().await;
        let now = self.clock.monotonic();
        self.polling.run(&self.pool, now, leave, read).await.map_err(failed("reading the revision"))
    }

    /// Listens for the notification that comes with each change. It also returns when listening
    /// has just begun, and when it cannot: changes may have gone unheard.
    async fn changed(&self) {
        if !self.schema.has_revision() {
            return std::future::pending().await;
        }
        self.listener.changed(&self.pool, &*self.clock).await;
    }
}

#[async_trait]
impl TrustedUrls for PostgresRepository {
    async fn all(&self) -> Result<Vec<Box<str>>, RepositoryError> {
        let failed = failed("listing trusted URLs");
        let read = async |connection: &mut PgConnection| {
            sqlx::query(self.sql.trusted_urls.clone()).fetch_all(connection).await
        };
        let read = async |lease: Lease<Postgres>| lease.run(read).await;
        let rows = pool::read(&self.pool, read).await.map_err(&failed)?;
        user_rows::trusted_urls(rows.iter().map(|row| row.bytes(0))).map_err(failed)
    }
}

#[async_trait]
impl UsageStore for PostgresRepository {
    async fn write(&self, uses: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError> {
        let failed = failed("noting the use of keys");
        // Each row once: of several times the statement would take any.
        let (mut keys, mut trusts) = (BTreeMap::new(), BTreeMap::new());
        for (source, at) in uses {
            let (used, id) = match source {
                KeySource::Key(id) => (&mut keys, *id),
                KeySource::Trust(id) => (&mut trusts, *id),
                // No row of these tables.
                _ => continue,
            };
            let last = used.entry(id).or_insert(at.as_millis());
            *last = at.as_millis().max(*last);
        }
        let notes = [(self.sql.key_used.clone(), keys), (self.sql.trust_used.clone(), trusts)];
        let write = async move |connection: &mut PgConnection| {
            let mut changed: u64 = 0;
            for (sql, used) in notes {
                if used.is_empty() {
                    continue;
                }
                let (ids, times): (Vec<i64>, Vec<i64>) = used.into_iter().unzip();
                let update = sqlx::query(sql).bind(ids).bind(times);
                let updated = update.execute(&mut *connection).await?.rows_affected();
                changed = changed.saturating_add(updated);
            }
            Ok(changed)
        };
        self.rounds.write(&self.pool, |lease| lease.commit(write)).await.map_err(failed)
    }
}

repository! {
    PostgresRepository, PgConnection, pool: PgPool,
    transaction: pool::transaction, found: if_storable, own: identity
}

fn statements(schema: &Schema) -> Arc<Statements> {
    schema.statements(&tables::DIALECT, &tables::STATEMENTS, &django::STATEMENTS)
}

/// Adds a row, and returns its id; `None` if there is one like it.
async fn insert(
    add: Query<'static, Postgres, PgArguments>,
    connection: &mut PgConnection,
) -> Result<Option<i64>, sqlx::Error> {
    add.fetch_optional(connection).await?.map(|row| row.integer(0)).transpose()
}

/// What was found, which is nothing where the database's encoding has not all of the name's characters.
fn if_storable<T: Default>(found: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    match found {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NOT_STORABLE) => {
            Ok(T::default())
        }
        found => found,
    }
}
