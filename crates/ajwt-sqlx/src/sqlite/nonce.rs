use std::sync::Arc;

use ajwt_server::{
    Clock, GoesOn, NonceBackend, NonceError, NonceOutcome, NonceUse, RepositoryError, StartRule, SystemClock,
};
use async_trait::async_trait;
use sqlx::{Sqlite, SqlitePool, pool::PoolConnection, query::Query, sqlite::SqliteArguments};

use crate::{
    nonce_table::{Added, NonceTable, Nonces, SWEEP_BATCH},
    sqlite::writing,
};

/// Adds a nonce while the row that says since when the table is whole stands as it was read. No
/// row added: the nonce is there, or that row has changed.
///
/// In a transaction of its own, which cannot begin within one that another user of the pool has left open and may yet
/// roll back; so are the other statements that write.
const CONSUME: &str = "
BEGIN IMMEDIATE;
INSERT INTO ajwt_nonce (key, expires_at)
SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM ajwt_nonce WHERE key = x'00' AND expires_at = ?3)
ON CONFLICT DO NOTHING
RETURNING 1;
COMMIT";
const SINCE: &str = "SELECT expires_at FROM ajwt_nonce WHERE key = x'00'";
const BEGIN_MEMORY: &str = "
BEGIN IMMEDIATE;
INSERT INTO ajwt_nonce (key, expires_at) VALUES (x'00', ?1) ON CONFLICT DO NOTHING;
COMMIT";
const REMOVE_EXPIRED: &str = "
BEGIN IMMEDIATE;
DELETE FROM ajwt_nonce WHERE key IN (
    SELECT key FROM ajwt_nonce WHERE expires_at < ?1 AND key <> x'00' ORDER BY expires_at LIMIT ?2)
RETURNING 1;
COMMIT";

/// Used nonces in SQLite: for the processes of one host, and it survives restarts.
///
/// One statement decides. Expired rows are removed in the background, a thousand at a time, never
/// by a request. A table that was emptied is noticed by the loss of one row: from then on the
/// strict [`StartRule`] applies, so that what was used before is not good
/// again. A database that is put back from a backup cannot be told from one that was never away:
/// empty `ajwt_nonce` (`DELETE FROM ajwt_nonce`) before any process opens it, and the same rule applies.
#[derive(Debug)]
pub struct SqliteNonceBackend(Nonces<SqlitePool>);

impl SqliteNonceBackend {
    /// Over a pool whose database is migrated. Starts the background task that removes expired
    /// rows.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self::with_clock(pool, Arc::new(SystemClock::new()))
    }

    /// As [`new`](Self::new), on this clock, which should be the engine's.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer enabled.
    #[must_use]
    pub fn with_clock(pool: SqlitePool, clock: Arc<dyn Clock>) -> Self {
        Self(Nonces::new(pool, clock))
    }

    /// Refuses by this rule what may have been used before the table was whole. Default: strict, with
    /// a server skew of 5 s.
    #[must_use]
    pub fn with_start_rule(self, start_rule: StartRule) -> Self {
        Self(self.0.with_start_rule(start_rule))
    }

    /// Marks a table that was just made as new, on your word that no token was used before: else the
    /// first tokens are answered with 503, for the tolerance and the server skew (25 s by default).
    /// A table that is in use stays as it is. `true`: it is so marked now.
    ///
    /// Do this once, when a service is set up. A service that did it at every start would make used
    /// tokens good again whenever its database is lost.
    ///
    /// # Errors
    /// [`RepositoryError`] if the database failed.
    pub async fn initialise(&self) -> Result<bool, RepositoryError> {
        self.0.initialise().await
    }

    /// Looks whether the table of nonces is there, and changes nothing: for a service that would rather not start than
    /// answer each request with 503.
    ///
    /// # Errors
    /// [`RepositoryError`] if it cannot be read, with [`MissingTables`](crate::MissingTables) for its source where the
    /// migrations were not run.
    pub async fn check(&self) -> Result<(), RepositoryError> {
        self.0.check().await
    }

    /// Removes the rows that have expired now, as the background task does every 10 s.
    pub async fn sweep(&self) {
        self.0.sweep().await;
    }
}

#[async_trait]
impl NonceBackend for SqliteNonceBackend {
    async fn consume(&self, nonce: &NonceUse) -> Result<NonceOutcome, NonceError> {
        self.0.consume(nonce).await
    }

    async fn close(&self) {
        self.0.stop();
    }
}

#[async_trait]
impl NonceTable for SqlitePool {
    async fn add(&self, key: &[u8; 32], expires_at: i64, since: i64) -> Result<Added, sqlx::Error> {
        let add = sqlx::query(CONSUME).bind(key.as_slice()).bind(expires_at).bind(since);
        Ok(if write(self, add).await? == 1 { Added::Yes } else { Added::WasThereOrEmptied })
    }

    async fn since(&self) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(SINCE).fetch_optional(self).await
    }

    async fn begin(&self, since: i64) -> Result<(), sqlx::Error> {
        write(self, sqlx::query(BEGIN_MEMORY).bind(since)).await.map(drop)
    }

    async fn remove_expired(&self, now: i64) -> Result<u64, sqlx::Error> {
        let removed = write(self, sqlx::query(REMOVE_EXPIRED).bind(now).bind(SWEEP_BATCH)).await?;
        Ok(u64::try_from(removed).unwrap_or(u64::MAX))
    }
}

/// Runs a transaction; returns how many rows it returned. All its statements go to the connection's thread at once:
/// whoever else writes waits no longer than they take.
///
/// It goes on when nobody waits for it any more. Dropped half-way it would cost its connection, whose thread waits for
/// the write lock all the same, and the pool would open one after another while somebody else has that.
async fn write(
    pool: &SqlitePool,
    transaction: Query<'static, Sqlite, SqliteArguments>,
) -> Result<usize, sqlx::Error> {
    let mut connection = InTransaction(Some(writing(pool).await?));
    let written = GoesOn::new(async move {
        let Some(leased) = &mut connection.0 else { return Err(sqlx::Error::PoolClosed) };
        let returned = transaction.fetch_all(&mut **leased).await?;
        connection.has_ended();
        Ok(returned.len())
    });
    written.await
}

/// A connection that is closed unless its transaction has come to an end, for sqlx knows nothing of it: whoever had
/// the connection next would be within it, or go on reading an old state.
struct InTransaction(Option<PoolConnection<Sqlite>>);

impl InTransaction {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for InTransaction {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}
