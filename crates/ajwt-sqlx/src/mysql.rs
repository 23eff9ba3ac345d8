mod columns;
mod django;
mod migrations;
mod nonce;
mod tables;

use std::sync::Arc;

use ajwt_core::{Timestamp, Username};
use ajwt_server::{
    Clock, Found, Freshness, KeySource, RepositoryError, RevisionSource, SystemClock, TrustedUrls,
    UsageStore, User, UserRepository,
};
use async_trait::async_trait;
use sqlx::{
    Executor as _, MySql, MySqlConnection, MySqlPool, SqlStr,
    mysql::{MySqlArguments, MySqlDatabaseError, MySqlPoolOptions},
    query::Query,
};

pub use self::nonce::MySqlNonceBackend;
use crate::{
    audit, connect_url,
    error::{ConnectError, MigrationError},
    failure::failed,
    key_cache::KeyCache,
    pool::{self, ACQUIRE_TIMEOUT, Lease, Reserved, Rounds},
    repository::repository,
    rows::{self, Columns as _},
    schema::{Owner, REVISION, Schema, Statements},
    unanswered::Unanswered,
    user_rows,
};

/// For connections of pools that we open. A statement that the engine has given up waits for a lock no
/// longer than the engine would, or such statements would take all of the server's connections. What
/// is read is committed, and what is written is so at once, whatever the server's defaults. On MariaDB a
/// transaction whose host has gone without a word ends, or nobody could revoke the keys whose rows it has locked; MySQL
/// has no such setting, and takes it for a comment.
const SESSION: [&str; 2] = [
    "SET autocommit = 1, innodb_lock_wait_timeout = 1, lock_wait_timeout = 2 \
    /*M!100300 , idle_transaction_timeout = 5 */",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
];

/// Rows that a note of uses locks in one transaction. Each takes a round trip, and whoever revokes one of the keys
/// waits for all of them, for a second at most.
const LOCKED_AT_ONCE: usize = 50;

/// `ER_NO_SUCH_USER`.
const NO_SUCH_USER: u16 = 1449;

/// `ER_CANT_AGGREGATE_2COLLATIONS`, and MySQL's own `ER_IMPOSSIBLE_STRING_CONVERSION`.
const NOT_COMPARABLE: [u16; 2] = [1267, 3988];

/// Users, keys and trusts in MySQL or MariaDB. Cheap to clone; clones share the pool, the parsed keys and
/// the connection that looks for changes.
#[derive(Clone, Debug)]
pub struct MySqlRepository {
    pool: MySqlPool,
    clock: Arc<dyn Clock>,
    actor: Arc<str>,
    keys: Arc<KeyCache>,
    schema: Schema,
    sql: Arc<Statements>,
    polling: Arc<Reserved<MySql>>,
    reads: Arc<Unanswered>,
    rounds: Arc<Rounds>,
}

impl MySqlRepository {
    /// Connects to a database by its URL, as in `mysql://user:password@host/database`, with
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
        let options = connect_url::mysql(url)?;
        let settings = MySqlPoolOptions::new()
            .test_before_acquire(false)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .before_acquire(|connection, metadata| Box::pin(pool::may_be_used(connection, metadata.idle_for)))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    for sql in SESSION {
                        connection.execute(sql).await?;
                    }
                    Ok(())
                })
            });
        Ok(Self::new(pool::open(settings, options).await?))
    }

    /// Over a pool of the application's own.
    #[must_use]
    pub fn new(pool: MySqlPool) -> Self {
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

    /// Makes or updates the tables. Any number of processes may do so at once. The triggers run as the account that
    /// makes them, which must stay.
    ///
    /// # Errors
    /// [`MigrationError::NoTriggers`] if the server forbids triggers: see
    /// [`migrate_without_triggers`](Self::migrate_without_triggers); other [`MigrationError`]s, that of a lock too for
    /// which a trigger waited 2 s: somebody has read its table in a transaction that goes on, and all requests wait
    /// behind a trigger that waits. Changes of tables are not transactional here: run it again, and it goes on from
    /// there.
    pub async fn migrate(&self) -> Result<(), MigrationError> {
        migrations::run(&self.pool, &self.schema, false).await
    }

    /// As [`migrate`](Self::migrate), without the triggers that raise the revision, for servers that
    /// forbid them (a binary log, no `log_bin_trust_function_creators`, and an account without
    /// `SUPER`). There is no revision then, unless an earlier `migrate` has made the triggers. A
    /// later `migrate` makes them.
    ///
    /// # Errors
    /// As `migrate`.
    pub async fn migrate_without_triggers(&self) -> Result<(), MigrationError> {
        migrations::run(&self.pool, &self.schema, true).await
    }

    /// Binds a name for the two comparisons that it takes: of texts, so that an index may serve, where
    /// the column is another's; and of bytes, which is all that our own column of bytes needs.
    fn bind_name(
        &self,
        query: Query<'static, MySql, MySqlArguments>,
        name: &str,
    ) -> Query<'static, MySql, MySqlArguments> {
        let query = match self.schema.owner() {
            Owner::Ajwt => query.bind(name.as_bytes()),
            Owner::Application | Owner::Django => query.bind(name),
        };
        query.bind(name.as_bytes())
    }

    /// A statement about a user, whose name goes before other arguments.
    fn of_user(&self, sql: &SqlStr, username: &Username) -> Query<'static, MySql, MySqlArguments> {
        self.bind_name(sqlx::query(sql.clone()), username.as_str())
    }

    fn activation(&self, username: &Username, active: bool) -> Query<'static, MySql, MySqlArguments> {
        let change = sqlx::query(self.sql.set_user_active.clone()).bind(active);
        self.bind_name(change, username.as_str())
    }

    fn row_change(
        &self,
        username: &Username,
        sql: &SqlStr,
        id: i64,
        argument: Option<Option<Timestamp>>,
    ) -> Query<'static, MySql, MySqlArguments> {
        let mut change = sqlx::query(sql.clone());
        if let Some(argument) = argument {
            change = change.bind(argument.map(Timestamp::as_millis));
        }
        self.bind_name(change, username.as_str()).bind(id)
    }
}

#[async_trait]
impl UserRepository for MySqlRepository {
    type User = User;

    async fn find_by_username(
        &self,
        username: &str,
        _: Freshness,
    ) -> Result<Option<Found<User>>, RepositoryError> {
        let failed = failed("reading a user");
        let (store, username) = (self.clone(), username.to_owned());
        let find = async move |connection: &mut MySqlConnection| {
            let mut find = sqlx::query(store.sql.find_user.clone());
            for _ in 0..3 {
                find = store.bind_name(find, &username);
            }
            if_storable(find.fetch_all(connection).await)
        };
        let read = async |lease: Lease<MySql>| {
            self.reads.run(pool::source(&self.pool), |_| true, lease.run(find.clone())).await
        };
        let rows = pool::read(&self.pool, read).await.map_err(&failed)?;
        user_rows::found(rows.iter().map(rows::user_row), &self.keys).map_err(failed)
    }
}

#[async_trait]
impl RevisionSource for MySqlRepository {
    /// On a connection of its own: a flood of requests must not keep changes from being noticed.
    async fn revision(&self) -> Result<Option<i64>, RepositoryError> {
        if !self.schema.has_revision() {
            return Ok(None);
        }
        let read = async |connection: &mut MySqlConnection| {
            sqlx::query_scalar(REVISION).fetch_optional(connection).await
        };
        let leave = async |connection: &mut MySqlConnection| connection.execute("ROLLBACK").await.map(drop);
        let now = self.clock.monotonic();
        self.polling.run(&self.pool, now, leave, read).await.map_err(failed("reading the revision"))
    }
}

#[async_trait]
impl TrustedUrls for MySqlRepository {
    async fn all(&self) -> Result<Vec<Box<str>>, RepositoryError> {
        let failed = failed("listing trusted URLs");
        let read = async |connection: &mut MySqlConnection| {
            sqlx::query(self.sql.trusted_urls.clone()).fetch_all(connection).await
        };
        let read = async |lease: Lease<MySql>| lease.run(read).await;
        let rows = pool::read(&self.pool, read).await.map_err(&failed)?;
        user_rows::trusted_urls(rows.iter().map(|row| row.bytes(0))).map_err(failed)
    }
}

#[async_trait]
impl UsageStore for MySqlRepository {
    async fn write(&self, uses: &[(KeySource, Timestamp)]) -> Result<(), RepositoryError> {
        let failed = failed("noting the use of keys");
        let mut uses = uses.to_vec();
        // In one order in every process, or two of them may wait for each other.
        uses.sort_unstable();
        for uses in uses.chunks(LOCKED_AT_ONCE) {
            let (uses, statements) = (uses.to_vec(), Arc::clone(&self.sql));
            let write = async move |connection: &mut MySqlConnection| {
                let mut changed: u64 = 0;
                for (source, at) in uses {
                    let (sql, id) = match source {
                        KeySource::Key(id) => (&statements.key_used, id),
                        KeySource::Trust(id) => (&statements.trust_used, id),
                        // No row of these tables.
                        _ => continue,
                    };
                    let update = sqlx::query(sql.clone()).bind(at.as_millis()).bind(at.as_millis()).bind(id);
                    let updated = update.execute(&mut *connection).await?.rows_affected();
                    changed = changed.saturating_add(updated);
                }
                Ok(changed)
            };
            self.rounds.write(&self.pool, |lease| lease.commit(write)).await.map_err(&failed)?;
        }
        Ok(())
    }
}

repository! {
    MySqlRepository, MySqlConnection, pool: MySqlPool,
    transaction: pool::transaction, found: if_storable, own: str::as_bytes
}

fn statements(schema: &Schema) -> Arc<Statements> {
    schema.statements(&tables::DIALECT, &tables::STATEMENTS, &django::STATEMENTS)
}

/// Adds a row, and returns its id; `None` if there is one like it.
async fn insert(
    add: Query<'static, MySql, MySqlArguments>,
    connection: &mut MySqlConnection,
) -> Result<Option<i64>, sqlx::Error> {
    match add.execute(connection).await {
        Ok(added) => {
            let id = i64::try_from(added.last_insert_id());
            id.map(Some).map_err(|error| sqlx::Error::Decode(error.into()))
        }
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What was found, which is nothing where the name has characters that the column's character set has
/// not: there the server will not even compare.
fn if_storable<T: Default>(found: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    match found {
        Err(error) if mysql_number(&error).is_some_and(|number| NOT_COMPARABLE.contains(&number)) => {
            Ok(T::default())
        }
        found => found,
    }
}

/// Whether something that a statement reached runs as an account that is not there.
pub(crate) fn lacks_definer(error: &sqlx::Error) -> bool {
    mysql_number(error) == Some(NO_SUCH_USER)
}

fn mysql_number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}
